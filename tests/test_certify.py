"""Scores of published checkpoints, certified by the script in benchmarks."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from sklabelaudio import EfficientATEmbedder
from sklabelaudio._checkpoints import _registry

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("certify", FOLDER / "certify.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setitem(sys.modules, "certify", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def random_mn05(tmp_path_factory):
    import torch

    from sklabelaudio.nn import EfficientAT

    path = tmp_path_factory.mktemp("weights") / "mn05_as_mAP_443.pt"
    torch.manual_seed(0)
    torch.save(EfficientAT(0.5).state_dict(), path)
    return path


@pytest.fixture
def audioset(tmp_path):
    """Four segments of three classes, of which one clip is gone."""
    rng = np.random.default_rng(0)
    for name in ("Yaaaaaaaaaaa", "-bbbbbbbbbb", "Y-ccccccccc"):
        wave = 0.1 * rng.standard_normal(8000)
        soundfile.write(tmp_path / f"{name}.wav", wave, 32000)
    (tmp_path / "eval_segments.csv").write_text(
        "# Segments csv\n# num_ytids=4\n# YTID, start_seconds, end_seconds, labels\n"
        'aaaaaaaaaaa, 0.000, 10.000, "/m/1,/m/2"\n'
        '-bbbbbbbbbb, 30.000, 40.000, "/m/3"\n'
        'zzzzzzzzzzz, 0.000, 10.000, "/m/3"\n'
        '-ccccccccc, 0.000, 10.000, "/m/2"\n'
    )
    rows = [f'{i},/m/{i},"Sound {i}, of some kind"' for i in range(527)]
    (tmp_path / "class_labels_indices.csv").write_text(
        "\n".join(["index,mid,display_name", *rows])
    )
    return tmp_path


def test_linear_probe_on_esc10(script, shared, esc10, tmp_path):
    weights = (
        shared / "reference" / "checkpoints" / "efficientat" / "mn04_as_mAP_432.pt"
    )
    (score,) = script.certify("mn04_as", esc10, weights=weights)
    assert score.value == pytest.approx(np.mean(score.parts))
    assert score.value >= 0.98
    assert len(score.parts) == 5
    record = json.loads(score.write(tmp_path).read_text())
    assert record["data"]["n_clips"] == 400
    assert record["protocol"]["weights_verified"]
    assert record["protocol"]["front_end"]["fmax"] == 15000
    params = EfficientATEmbedder(output="embedding").get_params()
    for name in ("output", "pooling", "hop", "amp", "channel", "window"):
        assert record["protocol"]["params"][name] == params[name]
    assert record["made"]["device"]
    assert {"libsndfile", "soundfile", "soxr", "torch"} <= record["made"].keys()
    assert record["published"] is None
    assert record["value"] == score.value


def test_mean_average_precision_on_audioset(script, audioset, random_mn05):
    (score,) = script.certify("mn05_as", audioset, weights=random_mn05)
    files = [f"{name}.wav" for name in ("Yaaaaaaaaaaa", "-bbbbbbbbbb", "Y-ccccccccc")]
    embedder = EfficientATEmbedder(random_mn05, output="probabilities")
    y_score = embedder.fit_transform([str(audioset / file) for file in files])
    y = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    assert score.value == average_precision_score(y, y_score[:, 1:4])
    assert score.protocol["clips_missing"] == 1
    assert score.protocol["classes"] == 3
    assert not score.protocol["weights_verified"]  # no digest of it was published
    assert score.published["value"] == 0.443
    assert score.published["source"].startswith("https://")


def test_the_digest_is_of_the_data(script, audioset, random_mn05):
    (before,) = script.certify("mn05_as", audioset, weights=random_mn05)
    soundfile.write(audioset / "-bbbbbbbbbb.wav", np.zeros(8000), 32000)
    (after,) = script.certify("mn05_as", audioset, weights=random_mn05)
    assert before.data["sha256"] != after.data["sha256"]
    assert before.weights_sha256 == after.weights_sha256


def test_the_digest_is_of_the_labels_too(script, audioset, random_mn05):
    (before,) = script.certify("mn05_as", audioset, weights=random_mn05)
    segments = audioset / "eval_segments.csv"
    segments.write_text(segments.read_text().replace("/m/1,/m/2", "/m/1,/m/3"))
    (after,) = script.certify("mn05_as", audioset, weights=random_mn05)
    assert before.data["sha256"] != after.data["sha256"]


def test_nothing_that_a_score_depends_on_can_be_chosen(script, audioset):
    for params in ({"amp": True}, {"window": 5.0}, {"channel": 0}):
        with pytest.raises(TypeError, match="unexpected keyword"):
            next(script.certify("mn05_as", audioset, **params))


def test_faults(script, audioset, random_mn05, tmp_path_factory, monkeypatch):
    with pytest.raises(SystemExit, match="mn99 is none of the published checkpoints"):
        next(script.certify("mn99", audioset))
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(SystemExit, match="neither meta/esc50"):
        next(script.certify("mn05_as", empty, weights=random_mn05))
    with pytest.raises(SystemExit, match="is not the file of mn10_as"):
        next(script.certify("mn10_as", audioset, weights=random_mn05))
    with pytest.raises(SystemExit, match="is neither a file nor the name"):
        next(script.certify("mn05_as", audioset, weights="nothing.pt"))
    # Of mn05_as nobody gave a digest, but this is known to be another's.
    record = next(r for r in script.list_checkpoints() if r.name == "mn04_as")
    digest = script.hash_file(random_mn05)
    source = replace(record.sources[0], sha256=digest)
    others = [r for r in script.list_checkpoints() if r is not record]
    known = [replace(record, sources=(source,)), *others]
    with monkeypatch.context() as patch:
        patch.setattr(_registry, "CHECKPOINTS", tuple(known))
        patch.setattr(script, "make_embedder", None)  # the work is not begun
        match = "is not the file of mn05_as: it is that of mn04_as"
        with pytest.raises(SystemExit, match=match):
            next(script.certify("mn05_as", audioset, weights=random_mn05))
    for path in audioset.glob("*.wav"):
        path.unlink()
    with pytest.raises(SystemExit, match=r"none of the clips of eval_segments\.csv"):
        next(script.certify("mn05_as", audioset, weights=random_mn05))
