import json
import logging.handlers
import os
import pickle
import shutil
import subprocess
import sys

import joblib
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from huggingface_hub.utils import are_progress_bars_disabled

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.text import LabelTextEmbedder

LETTERS = list("abcdefghijklmnopqrstuvwxyz")
LABELS = ["dog", "sea_waves", "cats", "the sound of a sea dog", "cat"]
TEXTS = ["dog", "sea waves", "cats", "the sound of a sea dog", "cat"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def save(folder, tokenizer, make, *arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make(*arguments).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_bert_tokenizer(**options):
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the sound of a dog cat sea waves ##s"
    vocabulary = {word: index for index, word in enumerate(words.split())}
    return transformers.BertTokenizer(vocab=vocabulary, **options)


def make_bert_config(**options):
    options = {"max_position_embeddings": 12, "initializer_range": 0.5, **options}
    return transformers.BertConfig(vocab_size=14, **SIZES, **options)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save(
        tmp_path_factory.mktemp("bert"),
        make_bert_tokenizer(model_max_length=12),
        transformers.BertModel,
        make_bert_config(),
    )


def make_clip_tokenizer():
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "do", "dog</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("d", "o"), ("do", "g</w>")],
        model_max_length=30,
    )


def make_clip(kind):
    text = transformers.CLIPTextConfig(
        vocab_size=56,
        projection_dim=8,
        max_position_embeddings=30,
        eos_token_id=55,
        bos_token_id=54,
        pad_token_id=55,
        **SIZES,
    )
    if kind == "bare":
        return transformers.CLIPTextModel(text)
    if kind == "projection":
        return transformers.CLIPTextModelWithProjection(text)
    vision = transformers.CLIPVisionConfig(
        projection_dim=8, image_size=8, patch_size=4, **SIZES
    )
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=text.to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=8,
        )
    )


def make_clap_tokenizer():
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += [*LETTERS, "Ġ", "do", "dog", "Ġdog"]
    return transformers.RobertaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("d", "o"), ("do", "g"), ("Ġ", "dog")],
    )


def make_clap(kind):
    from transformers.models.clap import modeling_clap as clap

    text = clap.ClapTextConfig(
        vocab_size=35,
        projection_dim=8,
        max_position_embeddings=32,
        type_vocab_size=1,
        **SIZES,
    )
    if kind == "bare":
        return clap.ClapTextModel(text)
    if kind == "projection":
        return clap.ClapTextModelWithProjection(text)
    audio = clap.ClapAudioConfig(
        depths=[1, 1],
        num_attention_heads=[1, 2],
        patch_embeds_hidden_size=8,
        hidden_size=16,
        projection_dim=8,
        spec_size=32,
        num_mel_bins=8,
        window_size=4,
        num_hidden_layers=2,
    )
    return clap.ClapModel(
        clap.ClapConfig(
            text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8
        )
    )


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """Folders of CLIP and CLAP: whole, text with projection, bare text."""
    folder = tmp_path_factory.mktemp("joint")
    folders = {}
    for kind in ("whole", "projection", "bare"):
        for name, tokenizer, make in (
            ("clip", make_clip_tokenizer(), make_clip),
            ("clap", make_clap_tokenizer(), make_clap),
        ):
            folders[name, kind] = save(folder / f"{name}_{kind}", tokenizer, make, kind)
    return folders


def call(folder, model_class, text, **options):
    """Call transformers itself, on one text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = getattr(transformers, model_class).from_pretrained(folder).eval()
    with torch.no_grad():
        return module(**tokenizer(text, return_tensors="pt", **options))


def copy_without(folder, to, drop):
    """Copy a checkpoint without the weights whose names the function holds true."""
    shutil.copytree(folder, to)
    file = to / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    dropped = [name for name in weights if drop(name)]
    assert dropped
    for name in dropped:
        del weights[name]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    return to


# What comes out.


@pytest.mark.parametrize("pooling", ["auto", "mean", "cls", "eos", "pooler"])
def test_bert(bert, pooling):
    wanted = []
    for text in TEXTS:
        output = call(bert, "BertModel", text)
        hidden = output.last_hidden_state[0]
        wanted.append(
            {
                "auto": hidden.mean(dim=0),
                "mean": hidden.mean(dim=0),
                "cls": hidden[0],
                "eos": hidden[-1],
                "pooler": output.pooler_output[0],
            }[pooling].numpy()
        )
    embedder = LabelTextEmbedder(bert, pooling=pooling).fit()
    vectors = embedder.transform(LABELS)
    assert embedder.n_components_ == 16
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, wanted, rtol=1e-6, atol=1e-6)
    assert np.ptp(vectors, axis=0).max() > 0.01  # the labels tell themselves apart


@pytest.mark.parametrize("kind", ["whole", "projection"])
@pytest.mark.parametrize(
    ("family", "text_class"),
    [("clip", "CLIPTextModelWithProjection"), ("clap", "ClapTextModelWithProjection")],
)
def test_projection_to_the_joint_space(joint, family, text_class, kind):
    folder = joint[family, kind]
    wanted = [call(folder, text_class, text).text_embeds[0].numpy() for text in TEXTS]
    vectors = LabelTextEmbedder(folder).fit_transform(LABELS)
    assert vectors.shape == (5, 8)
    np.testing.assert_allclose(vectors, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "projection", "bare"])
@pytest.mark.parametrize("family", ["clip", "clap"])
def test_joint_models_without_their_projection(joint, family, kind):
    folder = joint[family, kind]
    prefix = {"clip": "CLIP", "clap": "Clap"}[family]
    suffix = {
        "whole": "Model",
        "projection": "TextModelWithProjection",
        "bare": "TextModel",
    }[kind]
    module = getattr(transformers, prefix + suffix).from_pretrained(folder).eval()
    text_side = module if kind == "bare" else module.text_model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        output = text_side(**tokenizer("sea dog", return_tensors="pt"))
    hidden = output.last_hidden_state[0]
    for pooling, wanted in (
        ("mean", hidden.mean(dim=0)),
        ("cls", hidden[0]),
        ("eos", hidden[-1]),
        ("pooler", output.pooler_output[0]),
    ):
        vectors = LabelTextEmbedder(folder, pooling=pooling).fit_transform(
            ["cat", "sea dog"]
        )
        np.testing.assert_allclose(vectors[1], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", ["auto", "cls", "eos"])
def test_batches_do_not_matter(bert, joint, pooling):
    for folder in (bert, joint["clip", "whole"], joint["clap", "whole"]):
        embedder = LabelTextEmbedder(folder, pooling=pooling).fit()
        vectors = embedder.transform(LABELS)
        for batch_size in (1, 2, 5):
            other = LabelTextEmbedder(folder, pooling=pooling, batch_size=batch_size)
            np.testing.assert_allclose(
                other.fit_transform(LABELS[::-1])[::-1], vectors, rtol=0, atol=1e-6
            )
        alone = [embedder.transform([label])[0] for label in LABELS]
        np.testing.assert_allclose(alone, vectors, rtol=0, atol=1e-6)


def test_each_text_is_encoded_once_and_in_batches(bert, monkeypatch):
    embedder = LabelTextEmbedder(bert, batch_size=2).fit()
    batches = []
    forward = transformers.BertModel.forward

    def count(self, input_ids, **options):
        batches.append(len(input_ids))
        return forward(self, input_ids, **options)

    monkeypatch.setattr(transformers.BertModel, "forward", count)
    vectors = embedder.transform(["dog", "cat", "dog", "sea_dog", "sea dog", "dog"])
    assert batches == [2, 1]
    np.testing.assert_array_equal(vectors[0], vectors[5])
    np.testing.assert_array_equal(vectors[3], vectors[4])


@pytest.mark.parametrize("pooling", ["mean", "cls", "eos"])
def test_tokenizers_that_pad_on_the_left(bert, tmp_path, pooling):
    """Other texts move no positions, as padding on the left would."""
    shutil.copytree(bert, tmp_path / "left")
    make_bert_tokenizer(padding_side="left").save_pretrained(tmp_path / "left")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "left")
    assert tokenizer.padding_side == "left"
    wanted = LabelTextEmbedder(bert, pooling=pooling).fit_transform(["dog"])
    embedder = LabelTextEmbedder(tmp_path / "left", pooling=pooling).fit()
    for labels in (["dog"], ["dog", "the sea dog"]):
        vectors = embedder.transform(labels)
        np.testing.assert_allclose(vectors[:1], wanted, rtol=1e-6, atol=1e-6)


def test_tokenizer_without_padding(tmp_path):
    tokenizer = transformers.GPT2Tokenizer(
        vocab={token: index for index, token in enumerate([*LETTERS, "Ġ", "<|end|>"])},
        merges=[],
        unk_token="<|end|>",
        bos_token="<|end|>",
        eos_token="<|end|>",
    )
    config = transformers.GPT2Config(
        vocab_size=28, n_positions=16, n_embd=8, n_layer=1, n_head=2
    )
    folder = save(tmp_path, tokenizer, transformers.GPT2Model, config)
    wanted = call(folder, "GPT2Model", "dog").last_hidden_state[0, -1]
    embedder = LabelTextEmbedder(folder, pooling="eos")
    np.testing.assert_allclose(
        embedder.fit_transform(["dog", "sea waves"])[0], wanted, rtol=1e-6, atol=1e-6
    )


def test_half_precision_files_are_computed_in_single(bert, tmp_path):
    transformers.BertModel.from_pretrained(bert).half().save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    module = transformers.BertModel.from_pretrained(tmp_path, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        output = module.eval()(**tokenizer("dog", return_tensors="pt"))
    np.testing.assert_allclose(
        LabelTextEmbedder(tmp_path).fit_transform(["dog"])[0],
        output.last_hidden_state[0].mean(dim=0),
        rtol=1e-6,
        atol=1e-6,
    )


def test_prompt_and_normalize(bert):
    prompts = ["the sound of a {label}", "a {label}"]
    embedder = LabelTextEmbedder(bert, prompt=prompts, normalize=True)
    rows = [
        call(bert, "BertModel", text).last_hidden_state[0].mean(dim=0).double()
        for text in ("the sound of a sea dog", "a sea dog")
    ]
    wanted = sum(row / row.norm() for row in rows)
    np.testing.assert_allclose(
        embedder.fit_transform(["sea_dog"])[0], wanted / wanted.norm(), atol=1e-6
    )


# Texts that are too long, or unknown.


def test_long_texts_are_cut_with_one_warning(bert):
    embedder = LabelTextEmbedder(bert, prompt=["{label}", "the {label}"]).fit()
    labels = ["dog", "cat " * 10, "sea_" * 20, "dog " * 11]
    with pytest.warns(UserWarning, match="12 tokens and is cut there") as record:
        vectors = embedder.transform(labels)
    assert len(record) == 1
    assert record[0].filename == __file__
    message = str(record[0].message)
    assert all(repr(label) in message for label in labels[1:])
    assert "'dog'" not in message
    embedder.set_params(prompt=None)
    np.testing.assert_array_equal(
        embedder.transform(["cat " * 10])[0],
        LabelTextEmbedder(bert).fit_transform(["cat " * 10])[0],
    )
    with pytest.warns(UserWarning, match="cut"):
        vectors = embedder.transform(["sea " * 20])
    hidden = call(bert, "BertModel", "sea " * 10).last_hidden_state[0]
    np.testing.assert_allclose(vectors[0], hidden.mean(dim=0), rtol=1e-6, atol=1e-6)


def test_limit_of_a_tokenizer_that_names_none(joint):
    """CLAP's tokenizer here has no limit; the model has 32 - 2 positions."""
    embedder = LabelTextEmbedder(joint["clap", "whole"]).fit()
    embedder.transform(["a" * 28])
    with pytest.warns(UserWarning, match="30 tokens"):
        vectors = embedder.transform(["a" * 29])
    np.testing.assert_allclose(vectors, embedder.transform(["a" * 28]), atol=1e-6)


@pytest.mark.parametrize("prompt", [None, "the sound of {label}"])
def test_labels_unknown_to_the_tokenizer(bert, prompt):
    embedder = LabelTextEmbedder(bert, prompt=prompt).fit()
    with pytest.raises(UnknownLabelError, match="knows no word of 'xyz', '…': ") as e:
        embedder.transform(["dog", "xyz", "…"])
    assert e.value.labels == ["xyz", "…"]
    assert embedder.transform(["xyz dog"]).shape == (1, 16)


# sentence-transformers.


def add_modules(bert, folder, pooling, *kinds, limit=None):
    shutil.copytree(bert, folder)
    paths = [
        "" if kind == "Transformer" else f"{index}_{kind}"
        for index, kind in enumerate(kinds)
    ]
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.x.{kind}"}
        for path, kind in zip(paths, kinds, strict=True)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if limit is not None:
        settings = json.dumps({"max_seq_length": limit})
        (folder / "sentence_bert_config.json").write_text(settings)
    return folder


@pytest.mark.parametrize(
    ("pooling", "same_as"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "eos"),
        ({"pooling_mode": "mean", "embedding_dimension": 16}, "mean"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "cls",
        ),
        (
            {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
            "mean",
        ),
    ],
)
def test_sentence_transformers_pooling(bert, tmp_path, pooling, same_as):
    folder = add_modules(bert, tmp_path / "s", pooling, "Transformer", "Pooling")
    vectors = LabelTextEmbedder(bert, pooling=same_as).fit_transform(LABELS)
    np.testing.assert_array_equal(
        LabelTextEmbedder(folder).fit_transform(LABELS), vectors
    )
    folder = add_modules(
        bert, tmp_path / "n", pooling, "Transformer", "Pooling", "Normalize"
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(
        LabelTextEmbedder(folder).fit_transform(LABELS), vectors, rtol=1e-6, atol=1e-7
    )


def test_sentence_transformers_limit(bert, tmp_path):
    folder = add_modules(
        bert,
        tmp_path / "s",
        {"pooling_mode": "mean"},
        "Transformer",
        "Pooling",
        limit=5,
    )
    with pytest.warns(
        UserWarning, match="'sea sea dog cat' is longer than .* 5 tokens"
    ):
        vectors = LabelTextEmbedder(folder).fit_transform(["sea sea dog cat"])
    np.testing.assert_allclose(
        vectors, LabelTextEmbedder(bert).fit_transform(["sea sea dog"]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("pooling", "kinds"),
    [
        ({"pooling_mode": "max"}, ["Transformer", "Pooling"]),
        ({"pooling_mode": ["mean", "cls"]}, ["Transformer", "Pooling"]),
        ({}, ["Transformer", "Pooling"]),
        ({"pooling_mode": "mean"}, ["Transformer", "Pooling", "Dense"]),
        ({"pooling_mode": "mean"}, ["CLIPModel"]),
    ],
)
def test_sentence_transformers_that_can_not_be_followed(bert, tmp_path, pooling, kinds):
    folder = add_modules(bert, tmp_path / "s", pooling, *kinds)
    with pytest.raises(ValueError, match=f"{kinds[-1]}.*pooling='auto' can't follow"):
        LabelTextEmbedder(folder).fit()
    np.testing.assert_array_equal(
        LabelTextEmbedder(folder, pooling="mean").fit_transform(["dog"]),
        LabelTextEmbedder(bert).fit_transform(["dog"]),
    )


# Checkpoints.


def test_missing_weights_are_named(bert, joint, tmp_path):
    folder = copy_without(
        bert, tmp_path / "b", lambda n: n.endswith("1.output.dense.bias")
    )
    with pytest.raises(
        ValueError,
        match=r"lacks weights for pooling='mean'.*: encoder.layer.1.output.dense.bias",
    ) as caught:
        LabelTextEmbedder(folder).fit()
    assert f"model={str(folder)!r}" in str(caught.value)
    folder = copy_without(
        joint["clap", "whole"],
        tmp_path / "c",
        lambda n: n == "text_projection.linear2.bias",
    )
    with pytest.raises(ValueError, match=r"'auto'.*: text_projection.linear2.bias; "):
        LabelTextEmbedder(folder).fit()
    assert LabelTextEmbedder(folder, pooling="pooler").fit().n_components_ == 16


@pytest.mark.parametrize("family", ["clip", "clap"])
def test_bare_text_models_have_no_joint_space(joint, family):
    with pytest.raises(
        ValueError, match=r"lacks weights for pooling='auto'.*projection"
    ):
        LabelTextEmbedder(joint[family, "bare"]).fit()


def test_weights_that_are_not_needed_may_be_missing(bert, joint, tmp_path):
    folder = copy_without(bert, tmp_path / "b", lambda name: name.startswith("pooler."))
    state = torch.random.get_rng_state()
    np.testing.assert_array_equal(
        LabelTextEmbedder(folder).fit_transform(LABELS),
        LabelTextEmbedder(bert).fit_transform(LABELS),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"pooling='pooler'.*: pooler.dense.weight"):
        LabelTextEmbedder(folder, pooling="pooler").fit()
    # Buffers are no weights: they are made, not drawn.
    folder = copy_without(
        joint["clap", "whole"], tmp_path / "c", lambda name: name.endswith("_ids")
    )
    np.testing.assert_array_equal(
        LabelTextEmbedder(folder).fit_transform(LABELS),
        LabelTextEmbedder(joint["clap", "whole"]).fit_transform(LABELS),
    )


def test_model_trained_for_another_task(tmp_path):
    """Its head is not needed, and it has no pooler."""
    masked = transformers.BertForMaskedLM
    save(tmp_path, make_bert_tokenizer(), masked, make_bert_config())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        output = masked.from_pretrained(tmp_path).eval()(
            **tokenizer("dog", return_tensors="pt"), output_hidden_states=True
        )
    np.testing.assert_allclose(
        LabelTextEmbedder(tmp_path).fit_transform(["dog"])[0],
        output.hidden_states[-1][0].mean(dim=0),
        rtol=1e-6,
        atol=1e-6,
    )


def test_weights_of_another_shape_are_named(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "b")
    make_bert_config(type_vocab_size=3).save_pretrained(tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"shape: embeddings.token_type_embeddings.weight"
    ):
        LabelTextEmbedder(tmp_path / "b").fit()


def test_model_without_a_pooler(tmp_path):
    config = transformers.DistilBertConfig(
        vocab_size=14, dim=16, n_layers=1, n_heads=2, hidden_dim=20
    )
    folder = save(tmp_path, make_bert_tokenizer(), transformers.DistilBertModel, config)
    assert LabelTextEmbedder(folder).fit_transform(["dog"]).shape == (1, 16)
    with pytest.raises(
        ValueError, match="pooling='pooler', and DistilBertModel has no"
    ):
        LabelTextEmbedder(folder, pooling="pooler").fit()


def test_models_that_encode_no_text(tmp_path):
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 't5' model: pass a plain text encoder"):
        LabelTextEmbedder(tmp_path).fit()
    transformers.SiglipConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'siglip' model"):
        LabelTextEmbedder(tmp_path).fit()


def test_folder_without_tokenizer(bert, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(bert / name, tmp_path)
    with pytest.raises(OSError, match="has no vocabulary for its tokenizer: add token"):
        LabelTextEmbedder(tmp_path).fit()


def test_folder_without_weights(bert, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert / name, tmp_path)
    with pytest.raises(
        OSError, match=r"is a folder that transformers can't load \(.*sa"
    ):
        LabelTextEmbedder(tmp_path).fit()


def test_folder_of_something_else(tmp_path):
    with pytest.raises(OSError, match="is a folder that transformers can't load"):
        LabelTextEmbedder(tmp_path).fit()


@pytest.mark.parametrize("model", ["nobody/nothing", "/no/such/words.bin", "a b.vec"])
def test_model_that_is_not_found(model):
    with pytest.raises(
        OSError, match=r"no file, no folder, and no model.*HF_HUB_OFF"
    ) as e:
        LabelTextEmbedder(model).fit()
    assert str(e.value).startswith(f"model={model!r} is no file")


def test_bad_device(bert):
    with pytest.raises(ValueError, match=r"device='gpu' can't be used here \(.*'cpu'"):
        LabelTextEmbedder(bert, device="gpu").fit()


def test_device(bert):
    device = "cuda" if torch.cuda.is_available() else torch.device("cpu")
    np.testing.assert_allclose(
        LabelTextEmbedder(bert, device=device).fit_transform(LABELS),
        LabelTextEmbedder(bert).fit_transform(LABELS),
        atol=1e-5,
    )


@pytest.mark.parametrize("bars", [True, False])
def test_nothing_is_shown_and_the_settings_stay(joint, capfd, monkeypatch, bars):
    from transformers.utils import logging as settings

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", None)
    (settings.enable_progress_bar if bars else settings.disable_progress_bar)()
    shown = logging.handlers.BufferingHandler(1000)
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(shown)
        logger.setLevel(logging.INFO)
    try:
        LabelTextEmbedder(joint["clap", "whole"]).fit_transform(["dog"])
        with pytest.raises(OSError, match="no file"):
            LabelTextEmbedder("nobody/nothing").fit()
        assert [logger.level for logger in loggers] == [logging.INFO] * 2
        assert settings.is_progress_bar_enabled() is bars
        assert are_progress_bars_disabled() is not bars
    finally:
        settings.enable_progress_bar()
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.removeHandler(shown)
    assert shown.buffer == []
    assert capfd.readouterr() == ("", "")


# The hub's cache, and other processes.

LOAD_IN_ANOTHER_PROCESS = """
import sys, joblib, numpy
embedder = joblib.load(sys.argv[1])
assert not hasattr(embedder, "_encoder")
numpy.save(sys.argv[2], embedder.transform(["dog", "sea_waves"]))
"""


def run_in_another_process(tmp_path, embedder, cache):
    joblib.dump(embedder, tmp_path / "embedder.joblib")
    subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            LOAD_IN_ANOTHER_PROCESS,
            str(tmp_path / "embedder.joblib"),
            str(tmp_path / "vectors.npy"),
        ],
        check=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
    )
    return np.load(tmp_path / "vectors.npy")


def fill_cache(cache, folder, absent=()):
    """Lay a model out as huggingface_hub does."""
    repository = cache / "models--someone--bert"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    for name in absent:
        (repository / ".no_exist" / commit).mkdir(parents=True)
        (repository / ".no_exist" / commit / name).touch()


def test_hub_id_from_the_cache(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = LabelTextEmbedder(bert).fit_transform(["dog", "sea_waves"])
    fill_cache(tmp_path / "hub", bert, absent=["modules.json"])
    embedder = LabelTextEmbedder("someone/bert").fit()
    np.testing.assert_array_equal(embedder.transform(["dog", "sea_waves"]), wanted)
    np.testing.assert_array_equal(
        run_in_another_process(tmp_path, embedder, tmp_path / "hub"), wanted
    )


def test_hub_id_of_a_sentence_encoder(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = add_modules(
        bert, tmp_path / "s", {"pooling_mode": "cls"}, "Transformer", "Pooling", limit=9
    )
    fill_cache(tmp_path / "hub", folder)
    np.testing.assert_array_equal(
        LabelTextEmbedder("someone/bert").fit_transform(["dog"]),
        LabelTextEmbedder(folder).fit_transform(["dog"]),
    )


def test_hub_id_of_which_the_pooling_is_not_known(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    fill_cache(tmp_path / "hub", bert)
    with pytest.raises(OSError, match=r"model='someone/bert'.*modules.json.*'mean'"):
        LabelTextEmbedder("someone/bert").fit()
    assert LabelTextEmbedder("someone/bert", pooling="mean").fit().n_components_ == 16


# A real model.


def test_minilm(minilm):
    labels = ["dog", "sea_waves", "Chicken, rooster", "a person crying in the distance"]
    wanted = []
    for label in labels:
        hidden = call(minilm, "BertModel", label.replace("_", " ")).last_hidden_state
        vector = hidden[0].mean(dim=0)
        wanted.append((vector / vector.norm()).numpy())
    vectors = LabelTextEmbedder(minilm).fit_transform(labels)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-6)


def test_minilm_as_sentence_transformers_has_it(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    labels = ["dog", "sea waves", "Chicken, rooster", "dog " * 300]
    reference = sentence_transformers.SentenceTransformer(str(minilm), device="cpu")
    embedder = LabelTextEmbedder(minilm).fit()
    with pytest.warns(UserWarning, match="256 tokens"):
        vectors = embedder.transform(labels)
    np.testing.assert_allclose(vectors, reference.encode(labels), rtol=0, atol=1e-6)


def test_minilm_knows_that_a_puppy_is_a_dog(minilm):
    dog, puppy, helicopter = LabelTextEmbedder(minilm).fit_transform(
        ["dog", "puppy", "helicopter"]
    )
    assert dog @ puppy > 0.7 > 0.4 > dog @ helicopter


def test_minilm_batches(minilm, shared):
    with np.load(shared / "reference/word2vec/audioset_word2vec.npz") as file:
        labels = file["display_name"][:150]
    vectors = LabelTextEmbedder(minilm).fit_transform(labels)
    order = np.random.RandomState(0).permutation(150)
    np.testing.assert_allclose(
        LabelTextEmbedder(minilm, batch_size=7).fit_transform(labels[order]),
        vectors[order],
        rtol=0,
        atol=1e-6,
    )


def test_pickle_holds_no_weights(minilm):
    embedder = LabelTextEmbedder(minilm).fit()
    vectors = embedder.transform(["dog"])
    state = pickle.dumps(embedder)
    assert len(state) < 2000
    np.testing.assert_array_equal(pickle.loads(state).transform(["dog"]), vectors)
