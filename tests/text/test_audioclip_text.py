import gzip
import importlib.util
import json
import pickle
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sklearn.base import clone

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn._audioclip import load_audioclip_text
from sklabelaudio.text import LabelTextEmbedder
from sklabelaudio.text._audioclip_text import (
    VOCABULARY,
    is_torch_file,
    read_clip_tokenizer,
)
from sklabelaudio.text._trainable_texts import TrainableTexts

MERGES = [
    "d o",
    "do g</w>",
    "do g",
    "r a",
    "i n</w>",
    "ra in</w>",
    "t h",
    "th e</w>",
    "s e",
    "se a</w>",
    "w a",
    "v e",
    "wa ve",
    "wave s</w>",
    "' s</w>",
    "Ã ¤",
    "1 2</w>",
]
N_TOKENS = 512 + len(MERGES) + 2
TEXTS = [
    "dog",
    "Dogs' rain",
    "the sea's waves",
    "  THE \t sea\n waves!!",
    "ä12 312",
    "it's 8:30... don't we've",
    "dogdogdog-waves",
    "雨 and rain",
    "",
]
WIDTH = 64


@pytest.fixture
def vocabulary(tmp_path):
    """A vocabulary in the authors' layout, with more merges than are used."""
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGES, "x y", "o g</w>", ""]
    path = tmp_path / VOCABULARY
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def make_state(n_tokens=N_TOKENS):
    """Make the text part of a small model, by the authors' names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    layer = "transformer.resblocks.0."
    return {
        "positional_embedding": draw(16, WIDTH),
        "text_projection": draw(WIDTH, 6),
        "token_embedding.weight": draw(n_tokens, WIDTH),
        "ln_final.weight": 1 + draw(WIDTH),
        "ln_final.bias": draw(WIDTH),
        "logit_scale_at": torch.tensor(3.0),
        "audio.fc.bias": draw(6),
        layer + "attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
        layer + "attn.in_proj_bias": draw(3 * WIDTH),
        layer + "attn.out_proj.weight": draw(WIDTH, WIDTH),
        layer + "attn.out_proj.bias": draw(WIDTH),
        layer + "ln_1.weight": 1 + draw(WIDTH),
        layer + "ln_1.bias": draw(WIDTH),
        layer + "mlp.c_fc.weight": draw(20, WIDTH),
        layer + "mlp.c_fc.bias": draw(20),
        layer + "mlp.c_proj.weight": draw(WIDTH, 20),
        layer + "mlp.c_proj.bias": draw(WIDTH),
        layer + "ln_2.weight": 1 + draw(WIDTH),
        layer + "ln_2.bias": draw(WIDTH),
    }


@pytest.fixture
def weights(vocabulary):
    path = vocabulary.parent / "AudioCLIP-Full-Training.pt"
    torch.save(make_state(), path)
    return path


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    """A data home of the test's own."""
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


class PlainBPE:
    """Byte pairs merged one after the other, by the written rule."""

    _WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")

    def __init__(self, merges):
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.characters = {byte: chr(byte) for byte in printable}
        self.characters |= {byte: chr(256 + k) for k, byte in enumerate(others)}
        tokens = list(self.characters.values())
        tokens += [token + "</w>" for token in tokens]
        tokens += ["".join(merge) for merge in merges]
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.merges = merges

    def __call__(self, text):
        text = unicodedata.normalize("NFC", text).lower()
        ids = [len(self.ids)]
        for word in self._WORDS.findall(text):
            *parts, last = (self.characters[byte] for byte in word.encode())
            parts.append(last + "</w>")
            for merge in self.merges:
                index = 0
                while index < len(parts) - 1:
                    if (parts[index], parts[index + 1]) == merge:
                        parts[index : index + 2] = ["".join(merge)]
                    index += 1
            ids += [self.ids[part] for part in parts]
        return [*ids, len(self.ids) + 1]


def test_tokens_are_those_of_plain_byte_pairs(vocabulary):
    tokenizer = read_clip_tokenizer(vocabulary, n_tokens=N_TOKENS, max_length=77)
    plain = PlainBPE([tuple(merge.split()) for merge in MERGES])
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == plain(text), text
    assert len(tokenizer) == N_TOKENS
    assert tokenizer.model_max_length == 77
    dog, begin, end = plain.ids["dog</w>"], N_TOKENS - 2, N_TOKENS - 1
    assert tokenizer("DOG")["input_ids"] == [begin, dog, end]


def test_tokens_are_those_of_transformers(vocabulary, tmp_path):
    """Of the tokenizer that it makes from its own layout of files."""
    plain = PlainBPE([tuple(merge.split()) for merge in MERGES])
    ids = {
        **plain.ids,
        "<|startoftext|>": N_TOKENS - 2,
        "<|endoftext|>": N_TOKENS - 1,
    }
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "vocab.json").write_text(json.dumps(ids))
    lines = "\n".join(["#version: 0.2", *MERGES])
    (tmp_path / "clip" / "merges.txt").write_text(lines, encoding="utf-8")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "clip")
    ours = read_clip_tokenizer(vocabulary, n_tokens=N_TOKENS, max_length=77)
    assert ours.get_vocab() == theirs.get_vocab()
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


def test_the_authors_vocabulary_gives_their_tokens(shared):
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("needs the package open_clip_torch, which has the vocabulary")
    path = Path(spec.submodule_search_locations[0]) / VOCABULARY
    tokenizer = read_clip_tokenizer(path, n_tokens=49408, max_length=77)
    with np.load(shared / "reference" / "parity" / "audioclip.A.npz") as archive:
        prompts = json.loads(str(archive["notes"]))["prompts"]
        expected = archive["tokens"]
    for prompt, tokens in zip(prompts, expected, strict=True):
        ours = tokenizer(prompt)["input_ids"]
        assert ours == tokens[: len(ours)].tolist()
        assert not tokens[len(ours) :].any()


def test_labels_are_embedded_by_the_text_side(weights):
    labels = ["dog", "sea_waves", "rain"]
    prompts = ["{label}", "the {label}"]
    embedder = LabelTextEmbedder(weights, prompt=prompts)
    vectors = embedder.fit_transform(labels)
    model = load_audioclip_text(weights)
    plain = PlainBPE([tuple(merge.split()) for merge in MERGES])
    for label, vector in zip(["dog", "sea waves", "rain"], vectors, strict=True):
        texts = [prompt.format(label=label) for prompt in prompts]
        with torch.inference_mode():
            expected = [
                model(torch.tensor([plain(text)])).text_embeds[0] for text in texts
            ]
        torch.testing.assert_close(torch.from_numpy(vector), sum(expected) / 2)
    assert embedder.n_components_ == 6
    assert np.ptp(vectors, axis=0).min() > 1e-3


def test_other_poolings_are_of_the_text_model(weights):
    last = LabelTextEmbedder(weights, pooling="eos").fit_transform(["dog"])
    pooled = LabelTextEmbedder(weights, pooling="pooler").fit_transform(["dog"])
    mean = LabelTextEmbedder(weights, pooling="mean").fit_transform(["dog"])
    assert last.shape == mean.shape == (1, WIDTH)
    np.testing.assert_array_equal(last, pooled)
    assert np.abs(last - mean).max() > 1e-3


def test_it_survives_pickling_and_cloning(weights):
    embedder = LabelTextEmbedder(str(weights), prompt="the {label}")
    vectors = embedder.fit_transform(["dog", "rain"])
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 5000
    np.testing.assert_array_equal(
        pickle.loads(pickled).transform(["dog", "rain"]), vectors
    )
    again = clone(embedder).fit_transform(["dog", "rain"])
    np.testing.assert_array_equal(again, vectors)


def test_longer_texts_are_cut_with_a_warning(weights):
    embedder = LabelTextEmbedder(weights).fit()
    with pytest.warns(UserWarning, match="'dog dog .*longer than the model's 16 tok"):
        vectors = embedder.transform(["dog " * 20])
    assert np.isfinite(vectors).all()


def test_the_vocabulary_may_be_in_the_data_home(weights, vocabulary, data_home):
    expected = LabelTextEmbedder(weights).fit_transform(["dog"])
    (data_home / "checkpoints").mkdir(parents=True)
    vocabulary.rename(data_home / "checkpoints" / VOCABULARY)
    vectors = LabelTextEmbedder(weights).fit_transform(["dog"])
    np.testing.assert_array_equal(vectors, expected)


def test_without_a_vocabulary_it_is_told_where_to_get_it(weights, vocabulary):
    vocabulary.unlink()
    told = (
        r"reads texts by the vocabulary bpe_simple_vocab_16e6\.txt\.gz, which is "
        r"neither beside it nor in .*checkpoints: download it from https://github\.com"
        r"/AndreyGuzhov/AudioCLIP/releases/download/v0\.1/bpe_simple_vocab_16e6"
    )
    with pytest.raises(OSError, match=told):
        LabelTextEmbedder(weights).fit()


def test_a_vocabulary_of_another_model_is_told(weights):
    torch.save(make_state(N_TOKENS + 5), weights)
    n_merges = len(MERGES)
    # Two merges more are in the file than the weights of the other tests use.
    told = rf"has {n_merges + 2} merges .* the weights need {n_merges + 5}.* Get it"
    with pytest.raises(ValueError, match=told):
        LabelTextEmbedder(weights).fit()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content[:-20], "is damaged, or no gzipped text"),
        (lambda content: b"web page", "is damaged, or no gzipped text"),
        (
            lambda content: gzip.compress(b"#\n" + b"d o\n" * 500),
            f"has {len(MERGES) - 1} merges twice",
        ),
        (
            lambda content: gzip.compress(b"#\nd o\nd o g\n" + b"d o\n" * 500),
            f"has {len(MERGES) - 1} merges of two",
        ),
        (lambda content: gzip.compress(b"\xff\n" * 500), "no gzipped text"),
    ],
)
def test_a_damaged_vocabulary_is_told(change, told, weights, vocabulary):
    vocabulary.write_bytes(change(vocabulary.read_bytes()))
    with pytest.raises(ValueError, match=f"{told}.*https://github.com"):
        LabelTextEmbedder(weights).fit()


@pytest.mark.parametrize("legacy", [False, True])
def test_other_models_weights_are_told(legacy, weights):
    torch.save(
        {"fc.weight": torch.zeros(2, 3)},
        weights,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(CheckpointError, match="so not the text part of an AudioCLIP"):
        LabelTextEmbedder(weights).fit()


def test_files_of_torch_are_told_from_others(weights, tmp_path):
    assert is_torch_file(weights)
    torch.save({}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert is_torch_file(tmp_path / "old.pt")
    for content in (b"", b"PK 0.5 0.25\n", b"2 3\ndog 0 1 2\n", pickle.dumps({"a": 1})):
        (tmp_path / "words").write_bytes(content)
        assert not is_torch_file(tmp_path / "words")


def test_a_device_that_is_not_there_is_told(weights):
    with pytest.raises(ValueError, match="device='nowhere' can't be used here"):
        LabelTextEmbedder(weights, device="nowhere").fit()


def test_text_side_that_is_trained_begins_with_the_files_weights(weights):
    texts = TrainableTexts(weights)
    assert texts.is_clip
    labels = ["dog", "sea_waves", "the rain"]
    tokens = torch.from_numpy(texts.tokenize(labels, None))
    with torch.inference_mode():
        found = texts.build().eval()(tokens[:, 0]).numpy()
    expected = LabelTextEmbedder(weights).fit_transform(labels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
