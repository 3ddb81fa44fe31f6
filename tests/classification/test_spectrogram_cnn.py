import copy
import pickle

import numpy as np
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from sklabelaudio import LogMelExtractor, SpectrogramCNNClassifier
from sklabelaudio.audio import RandomShift
from sklabelaudio.nn import SP4SC, Cnn6

LABELS = ["bell", "cat", "dog", "rain"]
SMALL = {"channels": (8, 8, 8, 8), "dropout": 0.0}
SURE = {"dropout": 0.0, "head_dropout": 0.0}
NARROW = {
    "cnn6": {"width": 0.1},
    "cnn10": {"width": 0.1},
    "cnn14": {"channels": (4, 4, 8, 8, 16, 16), **SURE},
    "resnet34": {"width": 4},
    "sp4sc": SMALL,
}


class Net(nn.Module):
    """A network of one's own, with what it is given."""

    def __init__(self, n_classes, n_mels, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8 * (n_mels // 4), n_classes)

    def forward(self, log_mel):
        image = self.layers(log_mel.mT.unsqueeze(1)).mean(dim=3)
        return self.head(self.dropout(image.flatten(1)))


class Layers(nn.Sequential):
    """Takes vectors."""

    def __init__(self, n_classes, n_mels):
        super().__init__(nn.Linear(n_mels, n_classes))


def make_log_mel(n_clips=40, seed=0, n_frames=32, n_mels=32):
    """Log-mel whose bands are of the label's pattern."""
    rng = np.random.default_rng([seed, 2])
    patterns = np.random.default_rng(98).normal(size=(len(LABELS), 1, n_mels))
    classes = np.arange(n_clips) % len(LABELS)
    X = 3 * patterns[classes] + rng.normal(size=(n_clips, n_frames, n_mels)) - 20
    return X.astype(np.float32), np.array(LABELS)[classes]


def make_waveforms(n_clips=8, n_samples=16000, rate=32000, seed=0):
    """Tones whose height is the label's."""
    rng = np.random.default_rng([seed, 3])
    classes = np.arange(n_clips) % len(LABELS)
    heights = np.array([300, 900, 2700, 8100])[classes][:, np.newaxis]
    X = np.sin(2 * np.pi * heights * np.arange(n_samples) / rate)
    X += 0.1 * rng.normal(size=X.shape)
    return 0.1 * X, np.array(LABELS)[classes]


def make(architecture="sp4sc", **params):
    settings = {
        "architecture_params": NARROW.get(architecture),
        "max_epochs": 15,
        "lr": 0.01,
        "batch_size": 8,
        "device": "cpu",
        "random_state": 0,
    }
    return SpectrogramCNNClassifier(architecture, **{**settings, **params})


class Recorder(Callback):
    """Keeps the network as it begins, and the batches."""

    kept = {}

    def on_train_begin(self, net, **kwargs):
        self.kept["start"] = pickle.loads(pickle.dumps(net.module_))
        self.kept["batches"] = []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if training:
            self.kept["batches"].append(batch)


@pytest.fixture(scope="module")
def fitted():
    """A small SP4SC, its clips and labels."""
    X, y = make_log_mel()
    return make(max_epochs=8).fit(X, y), X, y


# What it learns


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_a_plain_loop_over_the_same_network(loss, weighted):
    X, y = make_log_mel(24)
    sample_weight = np.arange(1, 25) / 5 if weighted else None
    classifier = make(
        Net,
        loss=loss,
        focal_gamma=1.5,
        label_smoothing=0.1,
        max_epochs=3,
        weight_decay=0.05,
        lr_decay=0.9,
        callbacks=[Recorder()],
    ).fit(X, y, sample_weight)
    net = Recorder.kept["start"].train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    losses = []
    for k, (inputs, target) in enumerate(Recorder.kept["batches"]):
        weights = torch.ones(8)
        if weighted:
            target, weights = target
        target = 0.9 * target + 0.1 / 4
        p = net.network(inputs).softmax(dim=1)
        factor = (1 - p) ** 1.5 if loss == "focal" else 1.0
        batch_loss = -(weights * (target * factor * p.log()).sum(dim=1)).mean()
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        losses.append(batch_loss.item())
        if k % 3 == 2:
            schedule.step()
    trained = classifier._module.state_dict()
    for name, values in net.named_parameters():
        torch.testing.assert_close(trained[name], values, rtol=1e-4, atol=1e-5)
    found = [row["train_loss"] for row in classifier.history_]
    np.testing.assert_allclose(found, np.reshape(losses, (3, 3)).mean(1), rtol=1e-4)
    rates = [row["lr"] for row in classifier.history_]
    np.testing.assert_allclose(rates, [0.01, 0.009, 0.0081])


@pytest.mark.parametrize("architecture", [*NARROW, Net])
def test_learns_from_log_mel(architecture):
    X, y = make_log_mel()
    test, y_test = make_log_mel(seed=1)
    classifier = make(architecture).fit(X, y)
    assert classifier.score(test, y_test) > 0.9
    assert classifier.history_[-1]["train_loss"] < classifier.history_[0]["train_loss"]
    assert classifier.n_iter_ == len(classifier.history_) == 15
    assert classifier.classes_.tolist() == LABELS
    proba = classifier.predict_proba(test)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    scores = classifier.decision_function(test)
    assert (classifier.classes_[scores.argmax(1)] == classifier.predict(test)).all()
    # The network pools: longer clips will do.
    longer, y_longer = make_log_mel(seed=2, n_frames=64)
    assert classifier.score(longer, y_longer) > 0.5
    assert classifier.checkpoint_.path is None
    assert not hasattr(classifier, "n_features_in_")


@pytest.mark.parametrize(
    "params",
    [
        {"loss": "focal"},
        {
            "label_smoothing": 0.1,
            "dropout": 0.1,
            "architecture_params": {"width": 0.25},
        },
        {"mixup_alpha": 0.2},
        {"spec_augment": True, "time_roll": True},
        {"spec_augment": (4, 8), "augmentations": [RandomShift(0.5)], "max_epochs": 25},
        {"class_weight": "balanced"},
        {"optimizer": "SGD", "gradient_clip": 1.0, "max_epochs": 30},
        {"early_stopping": True, "max_epochs": 30, "validation_fraction": 0.4},
        {"amp": "bfloat16"},
        {"n_tta": 3},
    ],
    ids=str,
)
def test_learns_with(params):
    X, y = make_log_mel()
    test, y_test = make_log_mel(seed=1)
    classifier = make(**params).fit(X, y)
    assert classifier.score(test, y_test) > 0.9
    if "dropout" in params:
        assert classifier._module.network.dropout.p == 0.1


def test_learns_from_clips_in_files_and_arrays(tmp_path):
    X, y = make_waveforms()
    paths = [tmp_path / f"{k}.wav" for k in range(len(X))]
    for path, clip in zip(paths, X, strict=True):
        soundfile.write(path, clip, 32000, subtype="FLOAT")
    params = {"batch_size": 4, "max_epochs": 20}
    classifier = make("cnn6", sampling_rate=32000, **params).fit(X, y)
    assert classifier.score(X, y) == 1
    assert classifier._n_mels == 64
    from_files = make("cnn6", n_jobs=2, **params).fit(paths, y)
    np.testing.assert_array_equal(
        from_files.predict_proba(paths), classifier.predict_proba(X.astype("f4"))
    )
    params = {"max_epochs": 1, "sampling_rate": 32000}
    other = make("cnn6", front_end="efficientat", **params)
    assert other.fit(X, y)._n_mels == 128


def test_predictions_are_the_mean_over_pieces_of_a_clip():
    X, y = make_waveforms(n_samples=32000)
    params = {"sampling_rate": 32000, "max_epochs": 3}
    classifier = make("cnn6", duration=0.5, **params).fit(X, y)
    halves = [classifier.decision_function(part) for part in np.split(X, 2, axis=1)]
    np.testing.assert_allclose(
        classifier.decision_function(X), np.mean(halves, axis=0), rtol=1e-4, atol=1e-5
    )


def test_test_time_augmentation_is_the_mean_over_rolls(fitted):
    classifier, X, _ = fitted
    expected = np.mean(
        [classifier.decision_function(np.roll(X, k, axis=1)) for k in (0, 10, 21)],
        axis=0,
    )
    tta = copy.copy(classifier).set_params(n_tta=3)
    found = tta.decision_function(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, classifier.decision_function(X), rtol=1e-4)
    np.testing.assert_array_equal(found, tta.decision_function(X))
    assert tta.n_multiply_adds_ == 3 * classifier.n_multiply_adds_


def test_classes_weigh_what_they_are_told_to():
    """Balanced is as clips weighed by hand, and as a dict of the same."""
    X, y = make_log_mel()
    few = np.r_[0:40:4, 1:40:4, 2:8]
    X, y = X[few], y[few]
    labels, counts = np.unique(y, return_counts=True)
    balanced = dict(zip(labels.tolist(), len(y) / (len(labels) * counts), strict=True))
    params = {"max_epochs": 2}
    expected = make(**params).fit(X, y, [balanced[label] for label in y])
    for class_weight in ("balanced", balanced):
        found = make(class_weight=class_weight, **params).fit(X, y)
        np.testing.assert_allclose(
            found.decision_function(X), expected.decision_function(X), rtol=1e-3
        )
    plain = make(**params).fit(X, y)
    assert not np.allclose(
        plain.decision_function(X), expected.decision_function(X), rtol=1e-3
    )
    with pytest.raises(ValueError, match="class_weight='balanced' in partial_fit"):
        make(class_weight="balanced").partial_fit(X, y)
    heavy = make(class_weight={"bell": 100.0}, max_epochs=3).fit(X, y)
    assert np.mean(heavy.predict(X) == "bell") > np.mean(plain.predict(X) == "bell")


@pytest.mark.parametrize(
    ("architecture", "trainable", "expected"),
    [
        ("resnet34", ["conv1", "fc"], {"conv1", "fc"}),
        ("resnet34", "head", {"fc"}),
        ("sp4sc", "head", {"fc1", "fc2"}),
        ("cnn6", "head", {"fc1", "fc_audioset"}),
        ("cnn6", ("conv_block1.",), {"conv_block1"}),
        (Net, "head", {"head"}),
        (Net, "all", {"layers", "head"}),
    ],
)
def test_only_what_is_trainable_changes(architecture, trainable, expected):
    X, y = make_log_mel(16)
    classifier = make(
        architecture, trainable=trainable, max_epochs=2, callbacks=[Recorder()]
    ).fit(X, y)
    before = Recorder.kept["start"].network
    after = dict(classifier._module.network.named_parameters())
    changed = {
        name.partition(".")[0]
        for name, values in before.named_parameters()
        if not torch.equal(values, after[name])
    }
    assert changed == expected
    # Random weights need statistics of the clips.
    norms = [n for n, _ in before.named_buffers() if n.endswith("running_mean")]
    buffers = dict(classifier._module.network.named_buffers())
    assert all(buffers[name].any() for name in norms)


def test_head_over_published_features_leaves_them_alone(tmp_path):
    path = tmp_path / "sp4sc.pt"
    torch.manual_seed(0)
    published = SP4SC(10, n_mels=32, channels=(4, 4, 4, 8)).eval()
    for values in published.state_dict().values():
        if values.is_floating_point():
            values.add_(0.1 * torch.rand_like(values))
    torch.save({"net": published.state_dict()}, path)
    X, y = make_log_mel()
    params = {"weights": path, "architecture_params": None, "max_epochs": 2}
    with torch.inference_mode():
        frames = published(torch.from_numpy(X)).frames
    for trainable in ("head", ["fc2"], "all", ["conv1"]):
        classifier = make(trainable=trainable, **params).fit(X, y)
        assert classifier.checkpoint_.path == str(path)
        with torch.inference_mode():
            output = classifier._module.eval().network(torch.from_numpy(X))
        assert output.logits.shape == (40, 4)
        kept = trainable in ("head", ["fc2"])
        assert torch.allclose(output.frames, frames, atol=1e-5) is kept
        # Pickles refer to the file for what is as it was there.
        again = pickle.loads(pickle.dumps(classifier))
        names = pickle.dumps(classifier)
        assert (b"conv3.ch_conv1.weight" in names) is (trainable == "all")
        np.testing.assert_array_equal(
            again.predict_proba(X), classifier.predict_proba(X)
        )
        # Copies don't.
        copies = pickle.dumps(classifier.merge_batch_norm())
        assert b"conv3.ch_conv1.weight" in copies
    data = pickle.dumps(make(trainable="head", **params).fit(X, y))
    path.unlink()
    with pytest.raises(ValueError, match="it is not there any more"):
        pickle.loads(data).predict(X)
    np.testing.assert_array_equal(
        pickle.loads(copies).predict(X), classifier.predict(X)
    )


# Repeatable, and gone on with


def test_same_seed_is_the_same_to_the_bit_and_moves_no_generator():
    X, y = make_log_mel()
    params = {"mixup_alpha": 0.2, "spec_augment": True, "time_roll": True}
    params |= {"augmentations": [RandomShift(0.3)], "early_stopping": True}
    params["max_epochs"] = 4
    before = torch.get_rng_state().clone()
    first = make(**params).fit(X, y)
    again = make(**params, n_jobs=2).fit(X, y)
    other = make(**params).set_params(random_state=1).fit(X, y)
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    assert torch.equal(torch.get_rng_state(), before)


def test_warm_start_and_partial_fit_go_on():
    X, y = make_log_mel()
    params = {"lr_decay": None, "batch_size": 8}
    whole = make(max_epochs=4, **params).fit(X, y)
    parts = make(max_epochs=2, warm_start=True, **params).fit(X, y).fit(X, y)
    steps = make(**params)
    for _ in range(4):
        steps.partial_fit(X, y, classes=LABELS)
    for found in (parts, steps):
        np.testing.assert_array_equal(found.predict_proba(X), whole.predict_proba(X))
        assert found.n_iter_ == 4
    unpickled = pickle.loads(pickle.dumps(steps)).partial_fit(X[:8], y[:8])
    assert unpickled.n_iter_ == 5
    few = make().partial_fit(X[:1], y[:1], classes=LABELS)
    assert few.predict_proba(X).shape == (40, 4)
    with pytest.raises(ValueError, match=r"classes=.* are not those of the first"):
        few.partial_fit(X, y, classes=LABELS[:2])
    with pytest.raises(ValueError, match=r"dropout=0\.5, and in the fit that this one"):
        few.set_params(dropout=0.5).partial_fit(X, y)


def test_partial_fit_has_the_rates_of_the_beginning():
    X, y = make_log_mel(16)
    classifier = make(warm_start=True, lr_decay=0.5, max_epochs=2).fit(X, y)
    classifier.partial_fit(X, y).set_params(lr_decay=None).fit(X, y)
    rates = [row["lr"] for row in classifier.history_]
    np.testing.assert_allclose(rates, [0.01, 0.005, 0.01, 0.01, 0.01])


def test_what_is_trained_may_change_on_the_way():
    X, y = make_log_mel()
    classifier = make(trainable="head", warm_start=True, max_epochs=2).fit(X, y)
    before = copy.deepcopy(classifier._module.network.state_dict())
    classifier.set_params(trainable=["conv1"], loss="focal").fit(X, y)
    after = classifier._module.network.state_dict()
    assert classifier._net.criterion_.gamma == 2
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    weights = {name for name in changed if name.endswith("conv1.weight")}
    assert "conv1.ch_conv1.weight" in weights
    assert not {"fc1.weight", "conv2.sp_conv1.weight"} & changed


class Killed(BaseException):
    """What no one catches."""


class Killer(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            raise Killed


@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True, "mixup_alpha": 0.3, "amp": "float16"}]
)
def test_goes_on_from_a_folder_after_a_kill(params, tmp_path):
    X, y = make_log_mel()
    params = {"max_epochs": 4, **params}
    unbroken = make(**params).fit(X, y)
    with pytest.raises(Killed):
        make(checkpoint=tmp_path, callbacks=[Killer()], **params).fit(X, y)
    found = make(checkpoint=tmp_path, n_tta=2, **params).fit(X, y)
    found.set_params(n_tta=1)
    np.testing.assert_array_equal(found.predict_proba(X), unbroken.predict_proba(X))
    with pytest.raises(ValueError, match="loss was 'cross_entropy' and is 'focal'"):
        make(checkpoint=tmp_path, loss="focal", **params).fit(X, y)


# Bad input


@pytest.mark.parametrize(
    ("architecture", "n_frames", "n_mels", "told"),
    [
        ("sp4sc", 15, 32, r"X has 15 frames, .* 4 times: it takes at least 16"),
        ("cnn6", 4, 64, r"X has 4 frames, .*'cnn6'.* it takes at least 16"),
        ("cnn14", 31, 64, r"X has 31 frames, .* 5 times: it takes at least 32"),
        ("cnn10", 40, 15, r"X has 15 mel bands, .* it takes at least 16; set n_mels"),
    ],
)
def test_too_short_spectrograms_are_told_the_least(
    architecture, n_frames, n_mels, told
):
    X, y = make_log_mel(8, n_frames=n_frames, n_mels=n_mels)
    with pytest.raises(ValueError, match=told):
        make(architecture).fit(X, y)


def test_too_short_spectrograms_in_predict(fitted):
    classifier, X, _ = fitted
    with pytest.raises(ValueError, match=r"X has 9 frames, .* takes at least 16"):
        classifier.predict(X[:, :9])


@pytest.mark.parametrize("architecture", ["sp4sc", "resnet34", Net])
def test_another_number_of_mel_bands_in_predict(architecture):
    X, y = make_log_mel(8)
    classifier = make(architecture, max_epochs=1).fit(X, y)
    other, _ = make_log_mel(8, n_mels=40)
    with pytest.raises(ValueError, match="X has 40 mel bands, and in fit it had 32"):
        classifier.predict(other)
    with pytest.raises(ValueError, match="X has 40 mel bands, and in fit it had 32"):
        classifier.partial_fit(other, y)
    if isinstance(architecture, str):
        classifier.set_params(sampling_rate=44100)
        with pytest.raises(ValueError, match="X has 256 mel bands, and in fit it had"):
            classifier.predict(np.zeros((2, 20000)))


@pytest.mark.parametrize(
    ("X", "y", "params", "told"),
    [
        (make_log_mel(4)[0], ["dog"] * 4, {}, "y holds 1 class: there must be at"),
        (np.full((4, 32, 32), np.nan), LABELS, {}, "X contains NaN"),
        (make_log_mel(4)[0], [["dog"]] * 4, {}, "learns one label for each clip"),
        (make_log_mel(4)[0], None, {}, "requires y to be passed"),
        (
            make_log_mel(4)[0],
            LABELS,
            {"architecture_params": {"n_mels": 40}},
            "X has 32 mel bands, and the network 40",
        ),
        (np.zeros((4, 9000)), LABELS, {}, "sampling_rate"),
        (
            make_waveforms(4)[0],
            LABELS,
            {"front_end": "audioclip", "sampling_rate": 44100},
            "front_end='audioclip' gives no log-mel",
        ),
        (
            make_log_mel(4)[0],
            LABELS,
            {"trainable": ["convv1"]},
            r"trainable has 'convv1', and .* 'fc2'\. Did you mean 'conv1'\?",
        ),
        (make_log_mel(4)[0], LABELS, {"trainable": [""]}, r"trainable=\[''\] must be"),
        (make_log_mel(4)[0], LABELS, {"trainable": []}, "names no weights of SP4SC"),
        (
            make_log_mel(4)[0],
            LABELS,
            {"weights": "sp4asc_cee"},
            "Did you mean 'sp4asc_ce'?",
        ),
        (make_log_mel(4)[0], LABELS, {"weights": "cnn6"}, "not of 'sp4sc'"),
        (make_log_mel(4)[0], LABELS, {"optimizer": "Adamm"}, "is no optimizer of"),
    ],
    ids=range(13),
)
def test_bad_input_is_named(X, y, params, told):
    with pytest.raises(ValueError, match=told):
        make(**params).fit(X, y)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cnn5", "cnn6"),
        ("ResNet-34", "resnet34"),
        ("sp4asc", "sp4sc"),
        ("CNN14", "cnn14"),
    ],
)
def test_nearest_architecture_is_named(name, meant):
    X, y = make_log_mel(4)
    told = f"architecture='{name}' is none of 'cnn6', .*Did you mean '{meant}'"
    with pytest.raises(ValueError, match=told):
        make(name).fit(X, y)


class Wrong(nn.Module):
    def __init__(self, kind="narrow"):
        super().__init__()
        self.layer = nn.Linear(32, 3)
        self.kind = kind

    def forward(self, log_mel):
        scores = self.layer(log_mel).mean(dim=1)
        return scores if self.kind == "narrow" else (scores, scores)


def test_classes_of_ones_own_that_do_not_score():
    X, y = make_log_mel(8)
    with pytest.raises(ValueError, match=r"Wrong gives scores of the shape \(1, 3\)"):
        make(Wrong).fit(X, y)
    with pytest.raises(TypeError, match="the network gives a tuple without logits"):
        make(Wrong, architecture_params={"kind": "pair"}).fit(X, y)
    with pytest.raises(ValueError, match=r"dropout=0\.5: Wrong has no such parameter"):
        make(Wrong, dropout=0.5).fit(X, y)
    with pytest.raises(TypeError, match="architecture is a Wrong that is made already"):
        make(SpectrogramCNNClassifier).set_params(architecture=Wrong()).fit(X, y)


def test_vectors():
    X, y = make_log_mel()
    vectors = X.mean(axis=1).astype(np.float64)
    classifier = make(Layers, lr=0.05).fit(vectors, y)
    assert classifier.score(vectors, y) > 0.9
    assert classifier.n_features_in_ == 32
    assert classifier._module.network[0].weight.dtype == torch.float64
    assert classifier.n_multiply_adds_ == 32 * 4
    for params, told in (
        ({"n_tta": 2}, "n_tta=2: X holds vectors"),
        ({"time_roll": True}, "time_roll=True: X is no log-mel"),
    ):
        with pytest.raises(ValueError, match=told):
            make(Layers, **params).fit(vectors, y)
    with pytest.raises(ValueError, match="X holds clips, and Layers has no front end"):
        make(Layers).fit(["a.wav", "b.wav"], LABELS[:2])


def test_vectors_after_log_mel_and_the_other_way_round():
    X, y = make_log_mel(8)
    vectors = X.mean(axis=1)
    told = (
        r"the shape .*, and those of fit had .*: give X the shape \(n_clips, \.\.\.\)"
    )
    for architecture, own, other in ((Net, X, vectors), (Layers, vectors, X)):
        classifier = make(architecture, max_epochs=1).fit(own, y)
        with pytest.raises(ValueError, match=told):
            classifier.predict(other)
        with pytest.raises(ValueError, match=told):
            classifier.partial_fit(other, y)


def test_losses_that_are_not_finite_name_what_to_look_at():
    X, y = make_log_mel(16)
    params = {"lr": 1e30, "optimizer": "SGD", "max_epochs": 3}
    told = r"^lr=1e\+30 is too high .* in epoch \d: lower it"
    with pytest.raises(ValueError, match=f"{told}$"):
        make(**params).fit(X, y)
    with pytest.raises(ValueError, match=f"{told}; amp='float16' may have overflowed"):
        make(amp="float16", **params).fit(X, y)


def test_classes_that_are_no_list():
    with pytest.raises(TypeError, match="classes='cat' is no list of labels"):
        make().partial_fit(*make_log_mel(4), classes="cat")


# With scikit-learn


def test_pipelines_searches_calibration():
    X, y = make_waveforms(16, n_samples=8000)
    features = LogMelExtractor(32000, n_mels=20, n_fft=1024, hop_length=320)
    model = make_pipeline(features, make(max_epochs=20, batch_size=4)).fit(X, y)
    assert model.score(X, y) == 1
    assert cross_val_score(model, X, y, cv=2).mean() > 0.6
    grid = [
        {"spectrogramcnnclassifier__loss": ["focal"]},
        {"spectrogramcnnclassifier__architecture_params": [{"width": 0.1}]},
    ]
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.6
    classifier = model[-1].set_params(max_epochs=3)
    log_mel = features.fit_transform(X)
    calibrated = CalibratedClassifierCV(classifier, cv=2, method="sigmoid")
    proba = calibrated.fit(log_mel, y).predict_proba(log_mel)
    assert proba.shape == (16, 4)
    assert "SpectrogramCNNClassifier" in repr(clone(classifier))
    with pytest.raises(NotFittedError):
        clone(classifier).predict(log_mel)
    assert not hasattr(clone(classifier), "n_parameters_")


def test_two_classes():
    X, y = make_log_mel()
    two = np.isin(y, ["cat", "rain"])
    classifier = make(max_epochs=8).fit(X[two], y[two] == "rain")
    scores = classifier.decision_function(X[two])
    assert scores.shape == (20,)
    assert classifier.classes_.tolist() == [False, True]
    np.testing.assert_array_equal(classifier.predict(X[two]), scores > 0)
    proba = classifier.predict_proba(X[two])
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-scores)))


def test_pann_of_another_file_is_refused(tmp_path):
    X, y = make_log_mel(4, n_mels=64)
    torch.save(Cnn6(5, width=0.1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match="architecture='cnn10': pass architecture='cnn6'"
    ):
        make("cnn10", weights=tmp_path / "weights.pt").fit(X, y)
    params = {"weights": tmp_path / "weights.pt", "architecture_params": None}
    classifier = make("cnn6", max_epochs=1, **params).fit(X, y)
    assert classifier._module.network.fc_audioset.weight.shape == (4, 51)
    with pytest.raises(ValueError, match="front_end='sp4sc' with weights="):
        make("cnn6", front_end="sp4sc", **params).fit(X, y)
    narrow, _ = make_log_mel(4, n_mels=32)
    with pytest.raises(ValueError, match="X has 32 mel bands, and the network 64, by"):
        make("cnn6", **params).fit(narrow, y)
