"""AudioCLIPEmbedder beside its networks: clips, texts, and the authors' files."""

import gzip
import importlib.util
import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklabelaudio import (
    AudioCLIPEmbedder,
    LabelTextEmbedder,
    PromptZeroShotClassifier,
    list_checkpoints,
)
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import ESResNeXtFbsp
from sklabelaudio.text._audioclip_text import VOCABULARY

RATE = 44100
SMALL = {"n_channels": 8, "depths": (1, 1, 1, 1), "n_groups": 4}
LABELS = ["dog", "sea", "cat"]
MERGES = ["d o", "do g</w>", "s e", "se a</w>", "c a", "ca t</w>"]
N_TOKENS = 512 + len(MERGES) + 2
N_COMPONENTS = 6


@pytest.fixture(scope="module")
def waves():
    """Clips of a window, shorter, a sample, and longer."""
    rng = np.random.default_rng(0)
    waves = []
    for n_samples in (5 * RATE, 30_000, 1, 12 * RATE):
        time = np.arange(n_samples) / RATE
        tone = 0.5 * np.sin(2 * np.pi * (200 + 700 * time) * time) * np.exp(-time % 0.7)
        waves.append((tone + 0.01 * rng.standard_normal(n_samples)).astype(np.float32))
    return waves


def make_network(n_classes=None, projection_dim=N_COMPONENTS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ESResNeXtFbsp(n_classes, projection_dim=projection_dim, **SMALL).eval()
        model.stem.bn1.running_var.fill_(1e3)
    return model


def authors_names(model):
    """Name a network's weights as the authors do, by an own rule."""
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("stem.", "").replace(".body.", ".")
        state[name.replace("projection.", "fc.")] = value
    return state | {"fbsp.bias": torch.zeros(0), "window": torch.zeros(1654)}


def make_text_state(width=64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    layer = "transformer.resblocks.0."
    return {
        "positional_embedding": draw(16, width),
        "text_projection": draw(width, N_COMPONENTS),
        "token_embedding.weight": draw(N_TOKENS, width),
        "ln_final.weight": 1 + draw(width),
        "ln_final.bias": draw(width),
        "logit_scale": torch.tensor(1.0),
        "logit_scale_ai": torch.tensor(2.0),
        "logit_scale_at": torch.tensor(3.0),
        layer + "attn.in_proj_weight": draw(3 * width, width),
        layer + "attn.in_proj_bias": draw(3 * width),
        layer + "attn.out_proj.weight": draw(width, width),
        layer + "attn.out_proj.bias": draw(width),
        layer + "ln_1.weight": 1 + draw(width),
        layer + "ln_1.bias": draw(width),
        layer + "mlp.c_fc.weight": draw(20, width),
        layer + "mlp.c_fc.bias": draw(20),
        layer + "mlp.c_proj.weight": draw(width, 20),
        layer + "mlp.c_proj.bias": draw(width),
        layer + "ln_2.weight": 1 + draw(width),
        layer + "ln_2.bias": draw(width),
    }


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """A small AudioCLIP with its vocabulary, as the authors save theirs."""
    folder = tmp_path_factory.mktemp("audioclip")
    state = {f"audio.{name}": value for name, value in authors_names(network).items()}
    state |= make_text_state() | {"visual.conv1.weight": torch.zeros(2, 3)}
    torch.save(state, folder / "AudioCLIP-Full-Training.pt")
    lines = "\n".join(["#version: 0.2", *MERGES, "x y", ""])
    (folder / VOCABULARY).write_bytes(gzip.compress(lines.encode()))
    return folder / "AudioCLIP-Full-Training.pt"


@pytest.fixture(scope="module")
def tagger_network():
    return make_network(n_classes=4, projection_dim=None)


@pytest.fixture(scope="module")
def tagger(tagger_network, tmp_path_factory):
    """A small network with classes, as the authors save theirs."""
    path = tmp_path_factory.mktemp("tagger") / "ESRNXFBSP.pt"
    torch.save(authors_names(tagger_network), path)
    return path


def run(network, wave):
    samples = torch.from_numpy(32768 * np.pad(wave, (0, max(0, 1654 - len(wave)))))
    with torch.inference_mode():
        return network(samples[None])


def to_unit_length(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_is_the_published_model(shared, tmp_path):
    """From the authors' layout of files, the waveforms and the tokens on."""
    folder = shared / "reference" / "parity"
    spec = importlib.util.spec_from_file_location(
        "det_weights", folder / "det_weights.py"
    )
    det_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(det_weights)
    manifest = json.loads((folder / "audioclip.manifest.json").read_text())
    state = {}
    for key, entry in manifest["keys"].items():
        # Texts have a test of their own, and images are not read.
        value = torch.zeros(()).expand(entry["shape"])
        if key.startswith("audio.") and not entry["kept"]:
            value = torch.from_numpy(
                det_weights.det_tensor(key, entry["shape"], entry["kind"])
            )
        state[key] = value
    torch.save(state, tmp_path / "AudioCLIP-Full-Training.pt")
    embedder = AudioCLIPEmbedder(
        tmp_path / "AudioCLIP-Full-Training.pt", sampling_rate=RATE
    )
    with np.load(folder / "audioclip.A.npz") as expected:
        specs = json.loads(str(expected["inputs"]))
        waves = [det_weights.make_input(spec) for spec in specs]
        rows = embedder.fit_transform(waves)
        for spec, row in zip(specs, rows, strict=True):
            features = expected[f"{spec['name']}.audio_features"][0]
            # Of digital silence only rounding is left, which machines differ in.
            tolerance = 5e-4 if spec["name"] == "burst" else 5e-6
            error = np.abs(row - features).max() / np.abs(features).max()
            assert error < tolerance, spec["name"]
    assert embedder.n_components_ == 1024
    assert embedder.sampling_rate_ == RATE


def test_what_is_registered_is_as_published(shared):
    path = shared / "reference" / "parity" / "audioclip.manifest.json"
    manifest = json.loads(path.read_text())
    digests = manifest["official_file_sizes_sha256"]
    records = {record.name: record for record in list_checkpoints("audioclip")}
    assert set(records) == {"audioclip_full", "audioclip_partial", "esresnext_fbsp"}
    for name, record in records.items():
        joint = name != "esresnext_fbsp"
        assert len(record.sources) == (2 if joint else 1)
        for source in record.sources:
            assert source.sha256 == digests[source.name][1]
            assert source.url.endswith(
                f"AudioCLIP/releases/download/v0.1/{source.name}"
            )
        assert (record.n_components, record.n_classes) == (
            (1024, None) if joint else (2048, 527)
        )
        assert record.front_end == "audioclip"
    assert AudioCLIPEmbedder().weights in records


def test_clips_are_scaled_for_the_network(network, file, waves):
    embedder = AudioCLIPEmbedder(file, sampling_rate=RATE).fit(waves)
    rows = embedder.transform(waves[:3])
    for wave, row in zip(waves[:3], rows, strict=True):
        expected = run(network, wave).embedding[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)
        # Which the network by itself does not see to.
        mistaken = run(network, wave / 32768).embedding[0].numpy()
        assert np.abs(row - mistaken).max() > 1e-3
    assert rows.shape == (3, N_COMPONENTS)


def test_a_longer_clip_is_heard_to_its_end(file, waves):
    long = waves[3]
    embedder = AudioCLIPEmbedder(file, sampling_rate=RATE, output="frames").fit(waves)
    (frames,) = embedder.transform([long])
    windows = [long[: 5 * RATE], long[5 * RATE : 10 * RATE], long[-5 * RATE :]]
    vectors = clone(embedder).set_params(output="embedding").fit_transform(windows)
    np.testing.assert_array_equal(frames, vectors)
    whole = clone(embedder).set_params(output="embedding").fit_transform([long])
    np.testing.assert_allclose(whole[0], vectors.mean(axis=0), rtol=1e-5)
    of_three_seconds = clone(embedder).set_params(window=3.0)
    assert of_three_seconds.fit_transform([long]).shape == (1, 4, N_COMPONENTS)


def test_vectors_over_time_have_the_clips_as_their_mean(network, file, waves):
    embedder = AudioCLIPEmbedder(
        file, sampling_rate=RATE, output="framewise_embedding"
    ).fit(waves)
    (frames,) = embedder.transform(waves[:1])
    expected = run(network, waves[0])
    np.testing.assert_allclose(frames, expected.frames[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        frames.mean(axis=0), expected.embedding[0], rtol=0, atol=1e-5
    )
    times = embedder.frame_times(len(frames))
    np.testing.assert_allclose(np.diff(times), 32 * 561 / RATE)


def test_the_network_with_classes_has_scores(tagger_network, tagger, waves):
    embedder = AudioCLIPEmbedder(tagger, sampling_rate=RATE).fit(waves)
    wave = waves[0]
    expected = run(tagger_network, wave)
    for output, value in {
        "embedding": expected.embedding,
        "logits": expected.logits,
        "probabilities": expected.logits.sigmoid(),
    }.items():
        row = embedder.set_params(output=output).transform([wave])
        np.testing.assert_allclose(row, value, rtol=0, atol=1e-5)
        assert embedder.n_components_ == row.shape[1]
    assert embedder.logit_scale_ is None
    with pytest.raises(ValueError, match=r"ESRNXFBSP\.pt.* has no text side: pass"):
        embedder.text_embedder()


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("weights", ["file", None])
def test_the_joint_model_has_no_scores(output, weights, file, waves):
    weights = file if weights == "file" else None
    told = f"output='{output}', and weights=.* has no classes: .*'esresnext_fbsp'"
    embedder = AudioCLIPEmbedder(weights, sampling_rate=RATE, output=output)
    with pytest.raises(ValueError, match=told):
        embedder.fit(waves)
    embedder.set_params(output="embedding").fit(waves)
    with pytest.raises(ValueError, match=told):
        embedder.set_params(output=output).transform(waves[1:2])


def test_texts_are_in_the_space_of_the_clips(file, waves):
    embedder = AudioCLIPEmbedder(file, sampling_rate=RATE).fit(waves)
    texts = embedder.text_embedder()
    vectors = texts.fit_transform(LABELS)
    assert vectors.shape == (3, embedder.n_components_)
    np.testing.assert_array_equal(
        vectors, LabelTextEmbedder(file).fit_transform(LABELS)
    )
    other = embedder.text_embedder(prompt="a {label}", normalize=True)
    assert other.get_params()["normalize"]
    assert np.abs(other.fit_transform(LABELS) - to_unit_length(vectors)).max() > 1e-3


def test_names_clips_by_labels(file, waves):
    embedder = AudioCLIPEmbedder(file, sampling_rate=RATE).fit(waves)
    assert embedder.logit_scale_ == pytest.approx(np.exp(3.0))
    classifier = PromptZeroShotClassifier(
        label_embedder=embedder.text_embedder(),
        candidate_labels=LABELS,
        logit_scale=embedder.logit_scale_,
    )
    pipeline = make_pipeline(embedder, classifier).fit(waves)
    vectors = embedder.text_embedder().fit_transform(sorted(LABELS))
    cosines = to_unit_length(embedder.transform(waves)) @ to_unit_length(vectors).T
    scores = np.exp(np.exp(3.0) * cosines)
    np.testing.assert_allclose(
        pipeline.predict_proba(waves),
        scores / scores.sum(axis=1, keepdims=True),
        rtol=1e-4,
    )
    predicted = np.array(sorted(LABELS))[cosines.argmax(axis=1)]
    assert pipeline.predict(waves).tolist() == predicted.tolist()


def test_it_survives_pickling(file, waves):
    embedder = AudioCLIPEmbedder(file, sampling_rate=RATE).fit(waves)
    rows = embedder.transform(waves[1:3])
    loaded = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(loaded.transform(waves[1:3]), rows)
    assert loaded.logit_scale_ == embedder.logit_scale_
    assert loaded.text_embedder().model == str(file)


def test_random_weights_have_no_texts(waves):
    embedder = AudioCLIPEmbedder(None, sampling_rate=RATE).fit(waves)
    assert embedder.n_components_ == 1024
    with pytest.raises(ValueError, match="weights=None has no text side"):
        embedder.text_embedder()


def test_texts_need_a_fit(file):
    with pytest.raises(ValueError, match="not fitted"):
        AudioCLIPEmbedder(file).text_embedder()


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"fc.weight": torch.zeros(3, 3)}, "there is no weight 'fbsp.m'"),
        (make_text_state(), "there is no weight 'fbsp.m'"),
    ],
)
def test_another_models_file_is_refused(state, told, waves, tmp_path):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=told):
        AudioCLIPEmbedder(tmp_path / "other.pt", sampling_rate=RATE).fit(waves)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"window": 0.01}, "window=0.01 s is 441 samples at 44100 Hz"),
        ({"hop": 6.0}, "hop=6 s must lie between"),
        ({"output": "framewise_probabilities"}, "'output' parameter"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params, told, file, waves):
    with pytest.raises(ValueError, match=told):
        AudioCLIPEmbedder(file, sampling_rate=RATE, **params).fit(waves)
