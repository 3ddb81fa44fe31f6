"""SpectrogramCNNClassifier without training: its sizes, smaller copies, checkpoints."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklabelaudio import SpectrogramCNNClassifier, list_checkpoints
from sklabelaudio.classification import _cnn_model
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import SP4SC, Cnn6, ResNet34

LABELS = ["bell", "cat", "dog", "rain"]
REAL = ("ce", "ce_mixup", "focal")
PARAMS = {
    "cnn6": {"width": 0.1},
    "cnn10": {"width": 0.1},
    "cnn14": {"channels": (4, 4, 8, 8, 16, 16)},
    "resnet34": {"width": 4},
    "sp4sc": {"width": 0.1},
}


class Blocks(nn.Sequential):
    """Pairs of layers and batch norms, and one that stands alone."""

    def __init__(self, n_classes, n_mels):
        super().__init__(
            nn.BatchNorm1d(32),
            nn.Conv1d(32, 6, 3),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * (n_mels - 2), 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, n_classes),
        )


def make_data(n_clips=16, n_frames=32, n_mels=32):
    rng = np.random.default_rng(0)
    y = np.array(LABELS)[np.arange(n_clips) % 4]
    return rng.normal(-20, 5, (n_clips, n_frames, n_mels)).astype(np.float32), y


def make(architecture="sp4sc", **params):
    settings = {
        "architecture_params": PARAMS.get(architecture),
        "max_epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "random_state": 0,
    }
    return SpectrogramCNNClassifier(architecture, **{**settings, **params})


@pytest.fixture(scope="module")
def files(shared):
    folder = shared / "reference" / "checkpoints" / "sp4asc"
    return {name: folder / f"{name}.pth" for name in REAL}


@pytest.fixture(scope="module")
def reference(parity):
    return parity("sp4asc")


def load(path, **params):
    params = {"sampling_rate": 44100, "device": "cpu", **params}
    return SpectrogramCNNClassifier.from_checkpoint(path, **params)


# Sizes


def test_sizes_are_the_studys():
    X, y = make_data(10, n_frames=48, n_mels=256)
    y = [f"scene {k}" for k in range(10)]
    params = {"max_epochs": 1, "architecture_params": None}
    sp4sc = make("sp4sc", **params).fit(X, y)
    assert sp4sc.n_parameters_ == 64_335
    assert sp4sc.merge_batch_norm().n_parameters_ == 62_474
    cnn6 = make("cnn6", **params).fit(X[:, :, :64], y)
    assert cnn6.n_parameters_ == 4_574_287
    assert cnn6.model_size_ == {"float32": 4 * 4_574_287, "float16": 2 * 4_574_287}
    # Bands and frames are halved as each is.
    assert make("sp4sc", **params).fit(X[:, :16], y).n_multiply_adds_ * 3 == (
        pytest.approx(sp4sc.n_multiply_adds_, rel=1e-3)
    )


def test_budget():
    X, y = make_data(10, n_mels=256)
    y = [f"scene {k}" for k in range(10)]
    classifier = make(max_epochs=1, architecture_params=None).fit(X, y)
    with pytest.raises(ValueError, match="merge_batch_norm") as error:
        classifier.check_budget(max_parameters=64_000)
    assert str(error.value) == (
        "the network has 64,335 parameters, of 64,000 allowed and 257,340 bytes in "
        "float32, of 131,072 allowed: merge_batch_norm() leaves out what training "
        "alone needs, half() halves the bytes, architecture_params={'width': ...} "
        "makes a narrower network"
    )
    assert classifier.check_budget(dtype="float16") is classifier
    assert classifier.check_budget(max_bytes=None) is classifier
    small = classifier.merge_batch_norm().half()
    assert small.check_budget() is small
    assert small.check_budget(max_bytes=2 * 62_474) is small
    told = "has 124,948 bytes in float16, of 124,947"
    with pytest.raises(ValueError, match=told) as error:
        small.check_budget(max_bytes=124_947)
    assert "merge" not in str(error.value)
    assert "half" not in str(error.value)
    with pytest.raises(ValueError, match="dtype='int8' is none of 'float32', 'flo"):
        small.check_budget(dtype="int8")


# Copies


@pytest.mark.parametrize("architecture", [*PARAMS, Blocks])
def test_merging_gives_the_same_without_batch_norms(architecture):
    X, y = make_data()
    classifier = make(architecture, max_epochs=5).fit(X, y)
    # A channel that hardly varies is where eps counts.
    norms = {
        name: part
        for name, part in classifier._module.network.named_modules()
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))
    }
    for norm in norms.values():
        norm.running_var[0] = 1e-10
    before = classifier.decision_function(X)
    merged = classifier.merge_batch_norm()
    scale = np.abs(before).max()
    np.testing.assert_allclose(
        merged.decision_function(X), before, rtol=0, atol=2e-5 * scale
    )
    left = [
        name
        for name, part in merged._module.network.named_modules()
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    # That of the mel bands has no convolution before it; of SP4SC it is a scale.
    alone = {"cnn6": ["bn0"], "cnn10": ["bn0"], "cnn14": ["bn0"], Blocks: ["0"]}
    assert left == alone.get(architecture, [])
    assert merged.n_parameters_ < classifier.n_parameters_
    # The classifier is as it was, and goes on.
    np.testing.assert_array_equal(classifier.decision_function(X), before)
    assert classifier.partial_fit(X, y).n_iter_ == 6
    assert merged.n_iter_ == 5
    again = merged.merge_batch_norm()
    np.testing.assert_array_equal(
        again.decision_function(X), merged.decision_function(X)
    )
    copies = pickle.loads(pickle.dumps(merged)), joblib_round_trip(merged)
    for copy in copies:
        np.testing.assert_array_equal(
            copy.decision_function(X), merged.decision_function(X)
        )


def joblib_round_trip(estimator):
    import io

    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return joblib.load(stream)


def test_half_precision_rounds_weights_and_halves_pickles():
    X, y = make_data(n_mels=64)
    classifier = make("cnn6", architecture_params={"width": 0.25}).fit(X, y)
    half = classifier.half()
    np.testing.assert_allclose(
        half.predict_proba(X), classifier.predict_proba(X), atol=0.01
    )
    state = half._module.state_dict()
    for name, values in classifier._module.state_dict().items():
        if values.is_floating_point():
            assert torch.equal(state[name], values.half().float())
    sizes = [len(pickle.dumps(each)) for each in (classifier, half)]
    assert sizes[1] < 0.55 * sizes[0]
    again = pickle.loads(pickle.dumps(half))
    np.testing.assert_array_equal(again.predict_proba(X), half.predict_proba(X))
    assert again.half().model_size_ == classifier.model_size_
    # In either order.
    merged = [classifier.merge_batch_norm().half(), half.merge_batch_norm()]
    for each in merged:
        values = each._module.network.conv_block1.conv1.weight
        assert torch.equal(values, values.half().float())
        np.testing.assert_allclose(
            each.predict_proba(X), classifier.predict_proba(X), atol=0.01
        )


def test_computes_in_half_precision_on_a_gpu(monkeypatch):
    """As far as can be told without one: by a device that says that it is."""
    X, y = make_data()
    half = make().fit(X, y).merge_batch_norm().half()
    expected = half.predict_proba(X)
    rolled = _cnn_model._Rolled(half._module.half(), 2)
    with torch.inference_mode():
        scores = rolled(torch.from_numpy(X))
    assert scores.dtype == torch.float64
    found = scores.softmax(dim=1).numpy()
    tta = half.set_params(n_tta=2)
    assert tta._get_module("cpu").network.fc1.weight.dtype == torch.float32
    np.testing.assert_allclose(found, tta.predict_proba(X), atol=5e-3)
    assert expected.shape == found.shape


def test_weights_too_large_for_half_precision_are_named():
    X, y = make_data()
    classifier = make().fit(X, y)
    classifier._module.network.conv2.bn.running_var[1] = 1e6
    with pytest.raises(ValueError, match=r"'conv2\.bn\.running_var' has values up to"):
        classifier.half()
    assert classifier.merge_batch_norm().half().predict(X).shape == y.shape


@pytest.mark.parametrize(
    ("method", "told"),
    [("merge_batch_norm", "batch norms are merged"), ("half", "are of half precision")],
)
def test_copies_for_inference_refuse_training(method, told):
    X, y = make_data()
    copy = getattr(make(warm_start=True).fit(X, y), method)()
    for train in (copy.fit, copy.partial_fit):
        with pytest.raises(ValueError, match=f"{told}, and can't be trained any more"):
            train(X, y)
    proba = copy.predict_proba(X)
    assert FrozenEstimator(copy).fit(X, y).score(X, y) == copy.score(X, y)
    again = clone(copy).fit(X, y)
    assert again.n_parameters_ >= copy.n_parameters_
    np.testing.assert_array_equal(copy.predict_proba(X), proba)


# Published checkpoints


@pytest.mark.parametrize("name", REAL)
def test_published_checkpoints_give_what_they_give(files, reference, name):
    """From clips and from log-mel; float16 to its rounding, for want of a reference.

    That of float16 is merged without eps, which is another network.
    """
    classifier = load(files[name])
    assert classifier.classes_.tolist() == reference.manifest["classes"]
    (record,) = (r for r in list_checkpoints("sp4sc") if r.name == f"sp4asc_{name}")
    assert classifier.checkpoint_.name == record.name
    assert classifier.n_multiply_adds_ == record.multiply_adds
    merged = classifier.merge_batch_norm()
    half = merged.half()
    sizes = [each.n_parameters_ for each in (classifier, merged, half)]
    assert sizes == [64_335, 62_474, 62_474]
    for clip, item in reference.inputs.items():
        expected = reference.expected[f"{clip}.{name}.logits"]
        scale = np.abs(expected).max()
        for form, tolerance in ((classifier, 2e-6), (merged, 2e-6), (half, 5e-3)):
            found = form.decision_function(item.waveform[np.newaxis])
            assert np.abs(found - expected).max() < tolerance * scale, form
    log_mel = reference.expected["noise0.logmel"].reshape(1, -1, 256)
    expected = reference.expected[f"noise0.{name}.logits"]
    found = classifier.decision_function(log_mel)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    proba = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(classifier.predict_proba(log_mel), proba, atol=1e-5)


def test_published_checkpoints_go_on_or_get_a_new_layer(files, reference):
    log_mel = reference.expected["noise0.logmel"].reshape(1, -1, 256)[:, :48]
    X = np.concatenate([log_mel, log_mel + 1, log_mel - 1, log_mel + 2])
    y = ["bus", "tram", "bus", "tram"]
    classifier = load(files["ce"], random_state=0)
    before = classifier.decision_function(X)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.decision_function(X), before)
    with pytest.raises(ValueError, match="has the label 'zoo', which is not among"):
        classifier.partial_fit(X, ["zoo", *y[1:]])
    classifier.set_params(trainable=["conv1"], lr=1e-4).partial_fit(X, y)
    assert classifier.n_iter_ == 1
    moved = classifier.decision_function(X)
    assert 0 < np.abs(moved - before).max() < 20
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.decision_function(X), moved)
    new = load(files["ce"], random_state=0, max_epochs=1).fit(X, y)
    assert new.classes_.tolist() == ["bus", "tram"]
    assert new.checkpoint_.name == "sp4asc_ce"


def save(tmp_path, model, name="weights.pt"):
    torch.save(model.state_dict(), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    "model",
    [
        lambda: SP4SC(3, n_mels=32, width=0.1),
        lambda: Cnn6(3, n_mels=32, width=0.1),
        lambda: ResNet34(3, width=4),
    ],
)
def test_own_files_are_told_and_classes_sorted(model, tmp_path):
    torch.manual_seed(0)
    model = model().eval()
    X, _ = make_data()
    with torch.inference_mode():
        logits = model(torch.from_numpy(X)).logits.numpy()
    path = save(tmp_path, model)
    classifier = SpectrogramCNNClassifier.from_checkpoint(path, ["c", "a", "b"])
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    found = classifier.decision_function(X)
    np.testing.assert_allclose(found, logits[:, [1, 2, 0]], rtol=1e-4, atol=1e-5)
    assert (classifier.n_iter_, classifier.history_) == (0, [])
    with pytest.raises(ValueError, match=r"the classes of weights=.* its 3 labels"):
        SpectrogramCNNClassifier.from_checkpoint(path)
    for classes in (["a", "b"], ["a", "b", "b"]):
        with pytest.raises(ValueError, match="the weights score 3 classes, each of"):
            SpectrogramCNNClassifier.from_checkpoint(path, classes)


def test_merged_files_are_for_inference(tmp_path):
    torch.manual_seed(0)
    model = SP4SC(4, n_mels=32, width=0.1).eval()
    X, y = make_data()
    path = save(tmp_path, model.merge_batch_norm())
    classifier = SpectrogramCNNClassifier.from_checkpoint(path, LABELS, device="cpu")
    unmerged = SpectrogramCNNClassifier.from_checkpoint(
        save(tmp_path, model, "unmerged.pt"), LABELS, device="cpu"
    )
    np.testing.assert_array_equal(
        unmerged.merge_batch_norm().decision_function(X),
        classifier.decision_function(X),
    )
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(
        again.decision_function(X), classifier.decision_function(X)
    )
    with pytest.raises(ValueError, match="batch norms are merged, and can't be train"):
        classifier.partial_fit(X, y)
    with pytest.raises(ValueError, match="are merged for inference, and can't be"):
        make(weights=path, architecture_params=None).fit(X, y)


def test_checkpoints_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'sp4asc_focal'"):
        SpectrogramCNNClassifier.from_checkpoint("sp4asc_focall")
    with pytest.raises(
        ValueError, match="is the checkpoint 'mn04_as' of 'efficientat'"
    ):
        SpectrogramCNNClassifier.from_checkpoint("mn04_as")
    path = save(tmp_path, nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match="don't tell of which network they are"):
        SpectrogramCNNClassifier.from_checkpoint(path, LABELS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        SpectrogramCNNClassifier.from_checkpoint(path, architecture="cnn6", epochs=3)
    with pytest.raises(ValueError, match="The 'n_tta' parameter of Spectrogram"):
        SpectrogramCNNClassifier.from_checkpoint(path, architecture="cnn6", n_tta=0)


def test_taggers_are_no_classifiers_of_one_label(monkeypatch, tmp_path):
    """Of a published one a clip has several classes."""
    from sklabelaudio._checkpoints import _registry

    path = save(tmp_path, Cnn6(width=0.1))
    (record,) = (r for r in list_checkpoints("panns") if r.name == "cnn6")
    monkeypatch.setattr(_registry, "recognise", lambda _: record)
    with pytest.raises(ValueError, match="'cnn6' scores 527 classes of which a clip"):
        SpectrogramCNNClassifier.from_checkpoint(path, architecture="cnn6")
