"""CLAPEmbedder beside transformers: clips, texts, and files of both layouts."""

import shutil

import numpy as np
import pytest
import torch
import transformers
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklabelaudio import CLAPEmbedder, PromptZeroShotClassifier
from sklabelaudio.exceptions import CheckpointError

RATE = 48000
PROMPT = "This is a sound of {label}."
LABELS = ["dog", "sea", "cat"]
AUDIO = {
    "patch_embeds_hidden_size": 8,
    "depths": [2, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "hidden_size": 64,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 60,
    "max_position_embeddings": 80,
    "type_vocab_size": 1,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def make_tokenizer():
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "T", "."]
    tokens += [*"abcdefghijklmnopqrstuvwxyz", "do", "dog", "Ġdog"]
    return transformers.RobertaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("d", "o"), ("do", "g"), ("Ġ", "dog")],
    )


@pytest.fixture(scope="module")
def processor():
    features = transformers.ClapFeatureExtractor(
        frequency_min=50, truncation="rand_trunc", padding="repeatpad"
    )
    return transformers.ClapProcessor(features, make_tokenizer())


@pytest.fixture(scope="module")
def clap():
    config = transformers.ClapConfig(
        text_config=TEXT, audio_config=AUDIO, projection_dim=12
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = transformers.ClapModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
            norm = model.audio_model.audio_encoder.batch_norm
            norm.running_mean.fill_(-20)
            norm.running_var.fill_(100)
    return model


@pytest.fixture(scope="module")
def folder(clap, processor, tmp_path_factory):
    """The model and its processor, as their users save them."""
    folder = tmp_path_factory.mktemp("clap") / "model"
    clap.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def waves():
    """A clip of 10 s, shorter ones that fit twice and seven times, and a sample."""
    rng = np.random.default_rng(0)
    waves = []
    for n_samples in (10 * RATE, 4 * RATE, 66_666, 1):
        time = np.arange(n_samples) / RATE
        tone = np.sin(2 * np.pi * (200 + 700 * time) * time) * np.exp(-time % 0.7)
        noise = 0.01 * rng.standard_normal(n_samples)
        waves.append((tone + noise).astype(np.float32))
    return waves


def get_audio_features(clap, processor, wave):
    features = processor.feature_extractor(
        wave, sampling_rate=RATE, return_tensors="pt"
    )["input_features"]
    with torch.inference_mode():
        return clap.get_audio_features(input_features=features).pooler_output[0]


def get_text_features(clap, processor, text):
    with torch.inference_mode():
        tokens = processor.tokenizer(text, return_tensors="pt")
        return clap.get_text_features(**tokens).pooler_output[0]


def test_clips_are_where_transformers_puts_them(clap, processor, folder, waves):
    embedder = CLAPEmbedder(folder, sampling_rate=RATE).fit(waves)
    rows = embedder.transform(waves)
    expected = [get_audio_features(clap, processor, wave).numpy() for wave in waves]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=2e-5)
    # Which is not for want of a difference that the clips make.
    assert np.ptp(rows, axis=0).max() > 1e-2
    assert embedder.n_components_ == 12
    assert embedder.checkpoint_.path == str(folder / "model.safetensors")


def test_a_longer_clip_is_heard_to_its_end(folder, waves):
    long = np.concatenate([waves[1], waves[0], waves[1][: RATE // 2]])
    embedder = CLAPEmbedder(folder, sampling_rate=RATE, output="frames").fit(waves)
    (frames,) = embedder.transform([long])
    windows = [long[: 10 * RATE], long[-10 * RATE :]]
    vectors = clone(embedder).set_params(output="embedding").fit_transform(windows)
    np.testing.assert_array_equal(frames, vectors)


def test_texts_are_in_the_space_of_the_clips(clap, processor, folder, waves):
    embedder = CLAPEmbedder(folder, sampling_rate=RATE).fit(waves)
    vectors = embedder.text_embedder().fit_transform(LABELS)
    expected = np.stack(
        [
            get_text_features(clap, processor, PROMPT.format(label=label)).numpy()
            for label in LABELS
        ]
    )
    vectors, expected = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (vectors, expected)
    )
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 1e-3
    other = embedder.text_embedder(prompt="{label}").fit_transform(LABELS)
    assert other.shape == (3, embedder.n_components_)


def test_names_clips_by_labels(clap, processor, folder, waves):
    embedder = CLAPEmbedder(folder, sampling_rate=RATE).fit(waves)
    classifier = PromptZeroShotClassifier(
        label_embedder=embedder.text_embedder(), candidate_labels=LABELS
    )
    predicted = make_pipeline(embedder, classifier).fit(waves).predict(waves)
    audio = [get_audio_features(clap, processor, wave) for wave in waves]
    texts = [
        get_text_features(clap, processor, PROMPT.format(label=label))
        for label in sorted(LABELS)
    ]
    cosines = torch.nn.functional.cosine_similarity(
        torch.stack(audio)[:, None], torch.stack(texts), dim=2
    )
    assert predicted.tolist() == np.array(sorted(LABELS))[cosines.argmax(1)].tolist()


LAION_NAMES = [
    ("audio_model.audio_encoder.", "audio_branch."),
    ("audio_projection.linear1.", "audio_projection.0."),
    ("audio_projection.linear2.", "audio_projection.2."),
    ("audio_branch.batch_norm.", "audio_branch.bn0."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.self.relative_position_", ".attn.relative_position_"),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    ("text_model.", "text_branch."),
]


@pytest.fixture
def official(clap, tmp_path):
    """The same weights, as LAION's trainer saves them."""
    theirs = clap.state_dict()
    state = {}
    for name, value in theirs.items():
        if name.startswith("audio") and name.split(".")[-2] in ("key", "value"):
            continue
        if name.startswith("audio") and ".attention.self.query." in name:
            parts = [name.replace("query", part) for part in ("query", "key", "value")]
            value = torch.cat([theirs[part] for part in parts])
            name = name.replace(".attention.self.query.", ".attn.qkv.")
        for old, new in LAION_NAMES:
            name = name.replace(old, new)
        state[f"module.{name}"] = value
    path = tmp_path / "630k-audioset-best.pt"
    torch.save({"epoch": 45, "state_dict": state}, path)
    return path


def test_a_file_of_laion_gives_the_same(official, folder, waves):
    rows = CLAPEmbedder(official, sampling_rate=RATE).fit_transform(waves[1:3])
    expected = CLAPEmbedder(folder, sampling_rate=RATE).fit_transform(waves[1:3])
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)


def test_a_file_beside_another_model_is_the_one_that_is_loaded(
    official, folder, waves, tmp_path
):
    """A model's settings in the same folder are not those of this file."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    changed = torch.load(official)
    changed["state_dict"]["module.audio_projection.2.bias"] += 1
    torch.save(changed, official)
    embedder = CLAPEmbedder(official, sampling_rate=RATE).fit(waves[2:3])
    row = embedder.transform(waves[2:3])
    other = CLAPEmbedder(folder, sampling_rate=RATE).fit_transform(waves[2:3])
    assert np.abs(row - other).max() > 1e-2
    with pytest.raises(ValueError, match="comes without a tokenizer"):
        embedder.text_embedder()


@pytest.mark.parametrize("weights", ["file", None])
def test_texts_need_a_tokenizer(weights, official, waves):
    weights = official if weights == "file" else None
    embedder = CLAPEmbedder(weights, sampling_rate=RATE).fit(waves[2:3])
    with pytest.raises(ValueError, match="comes without a tokenizer for texts"):
        embedder.text_embedder()


def test_texts_need_a_fit(folder):
    with pytest.raises(ValueError, match="not fitted"):
        CLAPEmbedder(folder).text_embedder()


def test_a_folder_without_weights_is_refused(folder, waves, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"folder without model\.safetensors"):
        CLAPEmbedder(tmp_path / "copy", sampling_rate=RATE).fit(waves)


def test_another_models_file_is_refused(folder, waves, tmp_path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt"):
        CLAPEmbedder(tmp_path / "other.pt", sampling_rate=RATE).fit(waves)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_it_has_no_classes(output, folder, waves):
    with pytest.raises(ValueError, match="'output' parameter of CLAPEmbedder"):
        CLAPEmbedder(folder, sampling_rate=RATE, output=output).fit(waves)
