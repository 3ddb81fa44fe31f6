import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers

from sklabelaudio.nn._contrastive_net import TrainedTexts
from sklabelaudio.text import LabelTextEmbedder
from sklabelaudio.text._trainable_texts import TrainableTexts

LABELS = ["dog", "the sound of a sea dog", "sea_waves", "cats"]
PROMPTS = ["a {label}", "the sound of the {label}"]


def add_modules(folder, pooling, *kinds):
    """Make a sentence encoder of a folder."""
    modules = [
        {"idx": 0, "name": "0", "path": f"{index}_{kind}", "type": f"x.{kind}"}
        for index, kind in enumerate(["Transformer", "Pooling", *kinds])
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    settings = json.dumps({"pooling_mode": pooling})
    (folder / "1_Pooling" / "config.json").write_text(settings)


def make_clap(folder):
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "Ġ"]
    transformers.RobertaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[]
    ).save_pretrained(folder)
    config = transformers.ClapConfig().text_config
    config.update(
        {
            "vocab_size": len(tokens),
            "projection_dim": 8,
            "max_position_embeddings": 64,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 20,
        }
    )
    transformers.ClapTextModelWithProjection(config).save_pretrained(folder)


def make_gpt(folder):
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = [*letters, "Ġ", "<|end|>"]
    transformers.GPT2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        unk_token="<|end|>",
        bos_token="<|end|>",
        eos_token="<|end|>",
        padding_side="left",
    ).save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=28,
        n_positions=64,
        n_embd=8,
        n_layer=1,
        n_head=2,
        bos_token_id=27,
        eos_token_id=27,
    )
    transformers.GPT2Model(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(small_clip, small_bert, tmp_path_factory):
    """Folders of text encoders of all kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    found = {"clip": small_clip, "bert": small_bert}
    for name, pooling, kinds in (
        ("cls", "cls", []),
        ("eos", "lasttoken", []),
        ("unit", "mean", ["Normalize"]),
        ("left", "cls", []),
    ):
        found[name] = shutil.copytree(small_bert, folder / name)
        add_modules(found[name], pooling, *kinds)
    tokenizer = transformers.AutoTokenizer.from_pretrained(small_bert)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(found["left"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for name, make in (("clap", make_clap), ("gpt", make_gpt)):
            found[name] = folder / name
            make(found[name])
    add_modules(found["gpt"], "lasttoken")
    return found


KINDS = pytest.mark.parametrize(
    "kind", ["clip", "clap", "bert", "cls", "eos", "unit", "left", "gpt"]
)


def encode(texts, tokens):
    net = TrainedTexts(texts.build(), torch.from_numpy(tokens), None).eval()
    with torch.inference_mode():
        return net().numpy()


@KINDS
def test_vectors_are_those_of_the_embedder(folders, kind):
    for prompt in (None, PROMPTS[0], PROMPTS):
        texts = TrainableTexts(folders[kind])
        tokens = texts.tokenize(LABELS, prompt)
        assert tokens.shape[:2] == (4, 2 if prompt is PROMPTS else 1)
        embedder = LabelTextEmbedder(folders[kind], prompt=prompt).fit()
        expected = embedder.transform(LABELS)
        found = encode(texts, tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert np.ptp(found, axis=0).max() > 1e-3  # they tell themselves apart
        # However far texts are filled up.
        alone = [embedder.transform([label])[0] for label in LABELS]
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


@KINDS
def test_pickles_make_the_same_layers_without_the_model(folders, kind, tmp_path):
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    texts = TrainableTexts(folder)
    encoder = texts.build().eval()
    tokens = texts.tokenize(LABELS, PROMPTS)
    pickled = pickle.dumps(texts)
    assert len(pickled) < 10_000
    shutil.rmtree(folder)
    there = pickle.loads(pickled)
    again = there.build().eval()
    again.load_state_dict(encoder.state_dict())
    batch = torch.from_numpy(tokens).flatten(0, 1)
    with torch.inference_mode():
        assert torch.equal(again(batch), encoder(batch))
    # The tokenizer is read again.
    with pytest.raises(OSError, match="is no file, no folder"):
        there.tokenize(LABELS, PROMPTS)
    shutil.copytree(folders[kind], folder)
    np.testing.assert_array_equal(there.tokenize(LABELS, PROMPTS), tokens)


@KINDS
def test_all_weights_are_trained(folders, kind):
    texts = TrainableTexts(folders[kind])
    state = torch.random.get_rng_state()
    encoder = texts.build()
    assert torch.equal(torch.random.get_rng_state(), state)
    tokens = texts.tokenize(LABELS, PROMPTS)
    # By random weights, for normalised vectors have a constant sum of squares.
    vectors = encoder(torch.from_numpy(tokens).flatten(0, 1))
    (vectors * torch.randn_like(vectors)).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name


def test_beginnings_tell_models_apart(folders, small_bert, tmp_path):
    def begin(folder):
        return [str(part) for part in TrainableTexts(folder).list_beginning()]

    copied = shutil.copytree(small_bert, tmp_path / "copy")
    assert begin(copied) == begin(small_bert)
    assert begin(folders["cls"]) != begin(folders["unit"])
    model = transformers.BertModel.from_pretrained(small_bert, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[0, 0] += 1
    model.save_pretrained(copied)
    assert begin(copied) != begin(small_bert)


@pytest.mark.parametrize(("kind", "end"), [("clip", 55), ("bert", 3)])
def test_long_labels_are_cut_with_one_warning_that_names_them(folders, kind, end):
    long = " ".join(["dog"] * 200)
    texts = TrainableTexts(folders[kind])
    with pytest.warns(UserWarning, match="is longer than the model's 30 tok") as told:
        tokens = texts.tokenize([*LABELS, long], "a {label}")
    (warning,) = told
    assert long in str(warning.message)
    assert "'cats'" not in str(warning.message)
    assert tokens.shape[::3] == ((5, 30) if kind == "bert" else (5,))
    assert (tokens[4, 0, 0] if kind == "bert" else tokens[4, 0])[-1] == end


def test_word_vectors_are_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("1 2\ndog 1 0\n")
    monkeypatch.setattr(LabelTextEmbedder, "fit", None)
    with pytest.raises(ValueError, match=r"word vectors, .* freeze_text_encoder=True"):
        TrainableTexts(tmp_path / "words.txt")


def test_minilm(minilm):
    labels = ["dog", "sea_waves", "Chicken, rooster", "crying in the distance"]
    texts = TrainableTexts(minilm)
    found = encode(texts, texts.tokenize(labels, PROMPTS))
    expected = LabelTextEmbedder(minilm, prompt=PROMPTS).fit_transform(labels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
