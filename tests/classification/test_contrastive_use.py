"""What users do with SemanticContrastiveClassifier beyond what is meant."""

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from skorch.callbacks import Callback
from torch import nn

from sklabelaudio.audio import RandomCrop, RandomGain, RandomNoise, RandomShift
from sklabelaudio.classification import SemanticContrastiveClassifier

LABELS = ["bell", "cat", "dog", "rain"]
TEXTS = {label: np.eye(5)[k] + 0.1 for k, label in enumerate(LABELS)}
CLASSES = np.arange(16) % 4
Y = np.array(LABELS)[CLASSES]


class Encoder(nn.Module):
    """A map of 4 channels of log-mel."""

    def __init__(self, kind="map"):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 4, stride=4)
        self.kind = kind

    def forward(self, log_mel):
        features = self.layer(log_mel.mT.unsqueeze(1))
        if self.kind == "whole":
            return features.long()
        return features * (torch.nan if self.kind == "nan" else 1)


class Recorder(Callback):
    """Keeps batches, weights and rates."""

    kept = {}

    def on_train_begin(self, net, **kwargs):
        self.kept.update(batches=[], states=[_copy(net)], rates=[], scales=[])

    def on_batch_begin(self, net, batch=None, **kwargs):
        self.kept["batches"].append(batch)

    def on_batch_end(self, net, **kwargs):
        self.kept["states"].append(_copy(net))
        self.kept["rates"].append([g["lr"] for g in net.optimizer_.param_groups])
        self.kept["scales"].append(float(net.module_.alignment.scale.detach()))


class Spoiler(Callback):
    """Makes weights NaN in the second batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_begin(self, net, **kwargs):
        row = net.history[-1]
        if row["epoch"] == self.epoch and len(row["batches"]) == 2:
            with torch.no_grad():
                net.module_.head.projection.weight.fill_(torch.nan)


def _copy(net):
    return {name: w.clone() for name, w in net.module_.state_dict().items()}


def make(encoder=None, **params):
    settings = {
        "similarity": "linear" if encoder is None else "cscm",
        "text_encoder": TEXTS,
        "n_components": 6,
        "max_epochs": 2,
        "batch_size": 4,
        "device": "cpu",
        "random_state": 0,
    }
    return SemanticContrastiveClassifier(encoder, **{**settings, **params})


def make_log_mel(n_frames=12, n_mels=8, n_clips=16):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_clips, n_frames, n_mels)).astype(np.float32)


def make_vectors(n_clips=16):
    return np.random.default_rng(1).normal(size=(n_clips, 7))


def make_waveforms(n_samples=9600):
    return np.random.default_rng(2).normal(size=(16, n_samples)).astype(np.float32)


def make_for_clips(**params):
    sizes = {"width": 0.1}
    return make("efficientat", encoder_params=sizes, sampling_rate=32000, **params)


# The equation


def compute_loss(clips, texts, classes, scale, positives, weights, partners, shares):
    """Equation 3 in plain loops, with what is added to it."""
    n = len(clips)

    def is_own(i, j):
        return float(classes[i] == classes[j] if positives == "class" else i == j)

    def tell(values, belongs):
        """Return the loss of one row or column."""
        powers = [torch.exp(value) for value in values]
        loss, total = 0.0, sum(b * w for b, w in zip(belongs, weights, strict=True))
        for p in range(n):
            if positives == "class":
                rest = sum(weights[k] * (1 - belongs[k]) * powers[k] for k in range(n))
                share = powers[p] / (powers[p] + rest)
            else:
                share = powers[p] / sum(weights[k] * powers[k] for k in range(n))
            loss = loss - belongs[p] * weights[p] / total * torch.log(share)
        return loss

    cosines = [[c @ t / (c.norm() * t.norm()) for t in texts] for c in clips]
    total = 0.0
    for i in range(n):
        row = [scale * cosines[i][j] for j in range(n)]
        column = [scale * cosines[j][i] for j in range(n)]
        by_row = shares[i] * tell(row, [is_own(i, j) for j in range(n)])
        if shares[i] < 1:
            of_other = [is_own(partners[i], j) for j in range(n)]
            by_row = by_row + (1 - shares[i]) * tell(row, of_other)
        belongs = [
            shares[j] * is_own(j, i) + (1 - shares[j]) * is_own(partners[j], i)
            for j in range(n)
        ]
        total = total + weights[i] * (by_row + tell(column, belongs)) / 2
    return total / n


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("positives", ["diagonal", "class"])
def test_each_step_is_that_of_the_equation(positives, weighted, mixup_alpha):
    """Also of batches with a label twice, and of the last, which has one clip more."""
    X = make_vectors(13)
    sample_weight = np.linspace(0.5, 2, 13) if weighted else None
    params = {"positives": positives, "mixup_alpha": mixup_alpha, "momentum": 0.0}
    params |= {"weight_decay": 0.0, "lr": 0.05, "max_epochs": 1}
    make(callbacks=[Recorder()], **params).fit(X, Y[:13], sample_weight=sample_weight)
    sizes = [len(batch[0]["inputs"]) for batch in Recorder.kept["batches"]]
    assert sizes == [4, 4, 5]
    (before, *after) = Recorder.kept["states"]
    vectors = torch.tensor(np.stack([TEXTS[label] for label in LABELS]))
    for batch, expected in zip(Recorder.kept["batches"], after, strict=True):
        values = {name: w.requires_grad_() for name, w in before.items()}
        (inputs, target), n = batch, len(batch[0]["inputs"])
        target = target if isinstance(target, tuple) else (target,)
        _, weights, partners, shares = (*target, None, None, None)[:4]
        mean = 1.0 if weights is None else float(weights.mean())
        linear, classes = nn.functional.linear, inputs["classes"]
        loss = compute_loss(
            *(
                linear(given, values[f"{part}.weight"], values[f"{part}.bias"])
                for part, given in (
                    ("head.projection", inputs["inputs"]),
                    ("texts.projector", vectors.float().double()[classes]),
                )
            ),
            classes,
            values["alignment.log_scale"].exp(),
            positives,
            [1.0] * n if weights is None else [float(w) / mean for w in weights],
            range(n) if partners is None else partners.tolist(),
            [1.0] * n if shares is None else shares.tolist(),
        )
        (mean * loss).backward()
        before = {}
        for name, value in values.items():
            before[name] = (value - 0.05 * value.grad).detach()
            torch.testing.assert_close(before[name], expected[name])


def test_scale_is_kept_below_its_limit():
    X = np.eye(4)[CLASSES]
    params = {"lr": 0.5, "optimizer": "Adam", "lr_decay": None, "max_epochs": 40}
    classifier = make(callbacks=[Recorder()], **params).fit(X, Y)
    assert max(Recorder.kept["scales"]) == pytest.approx(100, rel=1e-5)
    assert classifier.score(X, Y) == 1


# Learning rates


def test_rates_are_told_with_and_without_decay():
    X = make_vectors()
    for decay, expected in ((0.5, [0.01, 0.005]), (None, [0.01, 0.01])):
        history = make(lr_decay=decay).fit(X, Y).history_
        assert [row["lr"] for row in history] == pytest.approx(expected)


def test_partial_fit_has_the_rates_of_the_beginning():
    X = make_vectors()
    classifier = make(warm_start=True, max_epochs=4, callbacks=[Recorder()]).fit(X, Y)
    classifier.partial_fit(X, Y)
    assert all(rate == 0.01 for rate in Recorder.kept["rates"][0])
    assert classifier.history_[-1]["lr"] == 0.01


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"encoder_lr": 1e30}, r"lr=0\.01 or encoder_lr=1e\+30 is too high .*epoch 1"),
        ({"callbacks": [Spoiler(2)]}, r"^lr=0\.0096 is too high .* in epoch 2: lower"),
        ({"callbacks": [Spoiler(1)], "amp": "float16"}, r"'float16' may have overflow"),
        ({"encoder_params": {"kind": "nan"}}, r"first batch of epoch 1.*encoder that"),
    ],
)
def test_losses_that_are_not_finite_name_what_to_look_at(params, told):
    with pytest.raises(ValueError, match=told):
        make(Encoder, similarity="linear", **params).fit(make_log_mel(), Y)


# Maps


def test_clips_of_another_length_need_a_duration():
    X = make_waveforms()
    classifier = make_for_clips(max_epochs=1).fit(X, Y)
    longer = np.concatenate([X, X, X], axis=1)
    told = r"96 x 4 x 1 as those of fit .* set duration=0\.3, in seconds as in fit"
    for fail in (classifier.predict, lambda X: classifier.partial_fit(X, Y)):
        with pytest.raises(ValueError, match=told):
            fail(longer)
    expected = classifier.transform(X)
    classifier.set_params(duration=0.3)
    np.testing.assert_allclose(
        classifier.transform(longer), expected, rtol=1e-4, atol=1e-5
    )


def test_log_mel_of_another_size_is_told_so():
    classifier = make(Encoder, max_epochs=1).fit(make_log_mel(), Y)
    classifier.predict(make_log_mel(13))  # whose map is as large
    with pytest.raises(ValueError, match=r"cut log-mel to 12 frames, .*LogMelExtract"):
        classifier.predict(make_log_mel(20))
    for other in (make_log_mel(n_mels=7), make_log_mel()[0]):
        with pytest.raises(ValueError, match=r"those of fit had \(12, 8\)"):
            classifier.predict(other)
    classifier.fit(make_log_mel(n_mels=16), Y)  # anew


def test_encoders_that_give_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"of torch.int64 where a map"):
        make(Encoder, encoder_params={"kind": "whole"}).fit(make_log_mel(), Y)


def test_paths_need_a_front_end():
    with pytest.raises(ValueError, match=r"Encoder has no front end.*set front_end"):
        make(Encoder).fit([f"{k}.wav" for k in range(16)], Y)


# What is changed in training


def _double(samples, sampling_rate):
    samples *= 2
    return samples


@pytest.mark.parametrize("duration", [None, 0.2])
def test_clips_stay_as_they_are(duration):
    X = make_waveforms()
    make_for_clips(augmentations=[_double], duration=duration).fit(X, Y)
    np.testing.assert_array_equal(X, make_waveforms())


@pytest.mark.parametrize("step", [RandomCrop(0.5), RandomShift(0.5)])
def test_log_mel_is_cropped_and_shifted_in_time(step):
    log_mel = make_log_mel()[0]
    found = step(log_mel, None, rng=np.random.default_rng(0))
    by_band = [
        step(band, None, rng=np.random.default_rng(0)) for band in log_mel.T.copy()
    ]
    np.testing.assert_array_equal(found, np.transpose(by_band))
    assert not np.array_equal(found, log_mel)
    make(Encoder, augmentations=[step]).fit(make_log_mel(), Y)


@pytest.mark.parametrize("step", [RandomGain(), RandomNoise()])
def test_what_changes_waveforms_refuses_log_mel(step):
    with pytest.raises(ValueError, match=r"changes waveforms, .* shape \(8, 8\): give"):
        make(Encoder, augmentations=[step]).fit(make_log_mel(8), Y)


@pytest.mark.parametrize("result", [lambda x, _: None, lambda x, _: x[:4]])
def test_augmentations_keep_the_shape(result):
    with pytest.raises(ValueError, match=r"augmentations has .* of the shape \(12, 8"):
        make(Encoder, augmentations=[result]).fit(make_log_mel(), Y)


# Labels


def test_labels_that_are_no_texts():
    X = make_vectors()
    with pytest.raises(TypeError, match=r"y has the label 0, .*text_encoder=None"):
        make().fit(X, CLASSES)
    classifier = make(text_encoder=None).fit(X, CLASSES)
    assert classifier.predict(X).dtype == CLASSES.dtype
    classifier = make(candidate_labels=[1, 2]).fit(X, Y)
    with pytest.raises(TypeError, match="candidate_labels has the label 1"):
        classifier.predict(X)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("kind", [list, lambda y: pd.Series(y, dtype=object)])
def test_missing_labels_are_named(missing, kind):
    y = [*Y[:3].tolist(), missing, *Y[4:].tolist()]
    with pytest.raises(ValueError, match=r"y\[3\] has the label .*: drop missing lab"):
        make().fit(make_vectors(), kind(y))


def test_lists_of_labels_that_are_none():
    X = make_vectors()
    classifier = make().fit(X, Y)
    for labels in ({"cat", "dog"}, [["cat", "dog"]], "cat"):
        with pytest.raises(TypeError, match=r"candidate_labels=.*: pass a list"):
            classifier.set_params(candidate_labels=labels).predict(X)
    with pytest.raises(TypeError, match="classes='cat' is no list"):
        make().partial_fit(X, Y, classes="cat")
    parts = make().partial_fit(X[Y != "dog"], Y[Y != "dog"])
    with pytest.raises(ValueError, match="'dog', which is not among the 3 labels know"):
        parts.partial_fit(X, Y)


# Pickles


@pytest.mark.parametrize("texts", ["frozen", "trained"])
def test_memory_maps_predict_and_go_on(texts, small_clip, tmp_path):
    X = make_log_mel()
    named = {"text_encoder": small_clip} if texts == "trained" else {}
    classifier = make(Encoder, warm_start=True, **named).fit(X, Y)
    joblib.dump(classifier, tmp_path / "model")
    there = joblib.load(tmp_path / "model", mmap_mode="r")
    for labels in (["cat", "dog"], None):
        for each in (classifier, there):
            each.set_params(candidate_labels=labels)
        np.testing.assert_array_equal(
            there.predict_proba(X), classifier.predict_proba(X)
        )
    assert there.fit(X, Y).partial_fit(X, Y).n_iter_ == 5


def test_damaged_files_are_named(tmp_path):
    paths = [tmp_path / f"{k}.wav" for k in range(16)]
    for path, clip in zip(paths, make_waveforms(), strict=True):
        soundfile.write(path, clip, 32000, subtype="FLOAT")
    paths[5].write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"can't read '.*5\.wav'"):
        make_for_clips(n_jobs=2).fit(paths, Y)
