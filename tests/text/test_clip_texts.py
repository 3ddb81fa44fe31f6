import pickle

import numpy as np
import pytest
import torch

from sklabelaudio.nn._clip_text import ClipTextTransformer
from sklabelaudio.text import LabelTextEmbedder
from sklabelaudio.text._clip_texts import ClipTexts

LABELS = ["dog", "sea_waves", "cat"]
PROMPTS = ["a {label}", "the sound of {label}"]


@pytest.mark.parametrize("prompt", [None, PROMPTS[0], PROMPTS])
def test_vectors_are_those_of_the_embedder(small_clip, prompt):
    texts = ClipTexts(small_clip)
    sizes, state = texts.load()
    model = ClipTextTransformer(**sizes)
    model.load_state_dict(state)
    tokens = texts.tokenize(LABELS, prompt)
    n_templates = 2 if prompt is PROMPTS else 1
    assert tokens.shape[:2] == (3, n_templates)
    with torch.inference_mode():
        vectors = model.eval()(torch.from_numpy(tokens.reshape(3 * n_templates, -1)))
    vectors = vectors.reshape(3, n_templates, -1).mean(dim=1)
    expected = LabelTextEmbedder(small_clip, prompt=prompt).fit_transform(LABELS)
    np.testing.assert_allclose(vectors.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_pickles_hold_the_name_alone(small_clip):
    texts = ClipTexts(small_clip)
    texts.load()
    expected = texts.tokenize(LABELS, PROMPTS)
    pickled = pickle.dumps(texts)
    assert len(pickled) < 500
    np.testing.assert_array_equal(
        pickle.loads(pickled).tokenize(LABELS, PROMPTS), expected
    )


def test_long_labels_are_cut_with_one_warning_that_names_them(small_clip):
    long = " ".join(["dog"] * 200)
    with pytest.warns(UserWarning, match="is longer than the model's 30 tok") as told:
        tokens = ClipTexts(small_clip).tokenize([*LABELS, long], "a {label}")
    (warning,) = told
    assert long in str(warning.message)
    assert "'cat'" not in str(warning.message)
    assert tokens.shape == (4, 1, 30)
    assert tokens[3, 0, -1] == 55


def test_other_text_encoders_are_refused(minilm):
    with pytest.raises(ValueError, match=r"is no text side of a CLIP.*freeze_text_enc"):
        ClipTexts(minilm).load()
