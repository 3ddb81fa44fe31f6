import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from sklabelaudio.classification import SPATagger, _proximity_training
from sklabelaudio.classification._training_set import ClipSet
from sklabelaudio.datasets import make_sound_events
from sklabelaudio.exceptions import (
    AudioReadError,
    CheckpointError,
    UnknownLabelError,
)
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.metrics import make_omap_scorer, omap_score
from sklabelaudio.model_selection import zero_shot_scorer
from sklabelaudio.nn import EfficientAT
from sklabelaudio.ontology import LabelGraph
from sklabelaudio.text import LabelTextEmbedder

FAMILIES = {"animals": "abc", "machines": "defg", "nature": "hij"}
LABELS = [label for labels in FAMILIES.values() for label in labels]
ONTOLOGY = LabelGraph(
    [("sound", family) for family in FAMILIES]
    + [(family, label) for family, labels in FAMILIES.items() for label in labels]
)
UNSEEN = ["u", "v", "w", "x"]


def make_attributes(seed=0, n_attributes=6):
    """How each label sounds, of which those of a family share a part."""
    rng = np.random.default_rng(seed)
    families = {family: rng.normal(size=n_attributes) for family in FAMILIES}
    attributes = {
        label: families[family] + rng.normal(size=n_attributes)
        for family, labels in FAMILIES.items()
        for label in labels
    }
    return attributes | {label: rng.normal(size=n_attributes) for label in UNSEEN}


def make_clips(labels=LABELS, n_clips=300, n_features=12, noise=0.3, seed=0, most=3):
    """Clips of up to `most` labels, the sum of how these sound, and noise."""
    rng = np.random.default_rng([seed, 1])
    mixing = np.random.default_rng(99).normal(size=(6, n_features))
    attributes = make_attributes()
    y = [
        sorted(rng.choice(labels, rng.integers(1, most + 1), replace=False).tolist())
        for _ in range(n_clips)
    ]
    X = np.stack([sum(attributes[label] for label in row) for row in y]) @ mixing
    return (X + noise * rng.normal(size=X.shape)).astype(np.float32), y


def to_indicator(y, labels=LABELS):
    return np.array([[label in row for label in labels] for row in y]).astype(int)


def make_tagger(**params):
    settings = {
        "label_embedder": make_attributes(),
        "ontology": ONTOLOGY,
        "lr": 0.01,
        "n_components": 32,
        "device": "cpu",
        "random_state": 0,
    }
    return SPATagger(**{**settings, **params})


def make_baseline(**params):
    return make_tagger(
        alpha=0, obce=False, label_embedder=None, ontology=None, **params
    )


class Recorder(Callback):
    """Keeps the weights at the start, and every batch."""

    kept = {}

    def on_train_begin(self, net, **kwargs):
        self.kept["start"] = copy.deepcopy(net.module_.state_dict())
        self.kept["batches"] = []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if training:
            self.kept["batches"].append(copy.deepcopy(batch))


# What it learns


def test_baseline_is_a_linear_model_trained_with_bce():
    X, y = make_clips()
    tagger = make_baseline(callbacks=[Recorder()], batch_size=64, max_epochs=4)
    proba = tagger.fit(X, y).predict_proba(X)
    batches = Recorder.kept["batches"]
    assert len(batches) == 4 * 5
    model = nn.Sequential(nn.Linear(12, 32), nn.Linear(32, 10))
    names = ["audio_projector", "classifier"]
    model.load_state_dict(
        {
            f"{k}.{part}": Recorder.kept["start"][f"{name}.{part}"]
            for k, name in enumerate(names)
            for part in ("weight", "bias")
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for inputs, target in batches:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for k, name in enumerate(names):
        for part in ("weight", "bias"):
            expected = getattr(model[k], part).detach().numpy()
            np.testing.assert_array_equal(tagger._heads[f"{name}.{part}"], expected)
    with torch.inference_mode():
        expected = model(torch.from_numpy(X)).sigmoid().numpy()
    np.testing.assert_allclose(proba, expected, rtol=1e-4, atol=1e-6)
    weights = [64, 64, 64, 64, 44]
    assert tagger.history_[-1]["train_loss"] == pytest.approx(
        np.average(losses[-5:], weights=weights)
    )


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"obce": False},
        {"alpha": 0},
        {"alpha": 0, "obce": False},
        {"mixup_alpha": 0.3},
        {"balanced_sampling": True},
        {"optimizer": "SGD", "lr": 1.0},
    ],
    ids=str,
)
def test_learns(params):
    X, y = make_clips(n_clips=500)
    test, y_test = make_clips(n_clips=200, seed=1)
    tagger = make_tagger(max_epochs=20, **params).fit(X, y)
    target = to_indicator(y_test)
    assert average_precision_score(target, tagger.predict_proba(test)) > 0.75
    assert tagger.history_[-1]["train_loss"] < tagger.history_[0]["train_loss"]
    assert tagger.n_iter_ == len(tagger.history_) == 20


def test_obce_puts_mistakes_near_to_the_labels():
    X, y = make_clips(noise=2.0)
    test, y_test = make_clips(n_clips=400, seed=1, noise=2.0)
    distances = ONTOLOGY.distances(LABELS)
    scores = []
    for alpha, obce in ((0, False), (1, True)):
        tagger = make_tagger(alpha=alpha, obce=obce, max_epochs=20).fit(X, y)
        proba = tagger.predict_proba(test)
        scores.append(omap_score(to_indicator(y_test), proba, distances=distances))
    assert scores[1] > scores[0]


def test_labels_that_were_not_trained_are_found_by_proximity():
    X, y = make_clips(n_clips=500)
    tagger = make_tagger(max_epochs=20).fit(X, y)
    test, y_test = make_clips(UNSEEN, n_clips=200, seed=2, most=1)
    tagger.set_params(candidate_labels=UNSEEN)
    assert tagger.classes_.tolist() == UNSEEN
    target = to_indicator(y_test, UNSEEN)
    best = tagger.decision_function(test).argmax(axis=1)
    assert (best == target.argmax(axis=1)).mean() > 0.5  # chance is 0.25
    both = tagger.set_params(candidate_labels=["w", "b"]).decision_function(test)
    alone = tagger.set_params(candidate_labels=["w"]).decision_function(test)
    np.testing.assert_allclose(both[:, :1], alone)
    trained = tagger.set_params(candidate_labels=None).decision_function(test)
    np.testing.assert_allclose(both[:, 1], trained[:, 1])


def test_scores_of_new_labels_are_on_the_scale_of_logits():
    X, y = make_clips(n_clips=600)
    attributes = make_attributes()
    # The same labels by other names, which were not trained.
    names = {label: f"{label} again" for label in LABELS}
    attributes |= {names[label]: attributes[label] for label in LABELS}
    tagger = make_tagger(max_epochs=25, label_embedder=attributes).fit(X, y)
    tagger.set_params(candidate_labels=list(names.values()))
    proba = tagger.predict_proba(X)
    target = to_indicator(y)
    assert average_precision_score(target, proba) > 0.5
    assert proba.mean() == pytest.approx(target.mean(), rel=0.1)


def test_one_label_a_clip_gives_one_label():
    X, y = make_clips(most=1, n_clips=400)
    y = np.concatenate(y)
    tagger = make_tagger(max_epochs=40).fit(X, y)
    assert tagger.score(X, y) > 0.9
    assert set(tagger.predict(X)) <= set(LABELS)
    proba, logits = tagger.predict_proba(X), tagger.decision_function(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    powers = np.exp(logits)
    np.testing.assert_allclose(proba, powers / powers.sum(axis=1, keepdims=True))
    two = np.isin(y, ["a", "h"])
    tagger = make_tagger(max_epochs=40).fit(X[two], y[two])
    decision = tagger.decision_function(X[two])
    assert decision.shape == (two.sum(),)
    assert np.array_equal(decision > 0, tagger.predict(X[two]) == "h")


def test_one_label_a_clip_with_candidates():
    X, y = make_clips(most=1, n_clips=600)
    tagger = make_tagger(max_epochs=40, obce=False).fit(X, np.concatenate(y))
    test, y_test = make_clips(UNSEEN, n_clips=200, seed=2, most=1)
    y_test = np.concatenate(y_test)
    assert zero_shot_scorer("accuracy")(tagger, test, y_test) > 0.4
    assert tagger.candidate_labels is None


# Kinds of y


def test_kinds_of_targets_agree():
    X, y = make_clips()
    indicator = to_indicator(y)
    expected = make_tagger(max_epochs=2).fit(X, y).predict_proba(X)
    frame = pd.DataFrame(indicator, columns=LABELS)
    kinds = [
        (indicator, LABELS),
        (indicator.tolist(), LABELS),
        (indicator.astype(bool), LABELS),
        (csr_array(indicator), LABELS),
        (frame, None),
        (y, LABELS),
        (tuple(y), None),
        (pd.Series(y), None),
        ([set(row) for row in y], None),
        ([np.array(row) for row in y], None),
    ]
    for other, labels in kinds:
        tagger = make_tagger(max_epochs=2, labels=labels).fit(X, other)
        assert tagger.classes_.tolist() == LABELS
        np.testing.assert_array_equal(tagger.predict_proba(X), expected)
        assert tagger.predict(X).shape == (300, 10)
        assert tagger.score(X, other) == tagger.score(X, y)


def test_labels_set_the_order_and_may_have_no_clip():
    X, y = make_clips(LABELS[:5])
    order = LABELS[::-1]
    tagger = make_tagger(labels=order, max_epochs=20).fit(X, y)
    assert tagger.classes_.tolist() == order
    proba = tagger.predict_proba(X)
    assert proba[:, :5].max() < proba[:, 5:].min(
        initial=1, where=to_indicator(y)[:, 4::-1] == 1
    )


def test_a_matrix_of_distances_does_what_a_graph_does():
    X, y = make_clips()
    graph = make_tagger(max_epochs=2).fit(X, y).predict_proba(X)
    matrix = make_tagger(max_epochs=2, ontology=ONTOLOGY.distances(LABELS)).fit(X, y)
    np.testing.assert_array_equal(matrix.predict_proba(X), graph)


def test_nameless_columns_are_numbered_where_names_are_not_needed():
    X, y = make_clips()
    tagger = make_baseline().fit(X, to_indicator(y))
    assert tagger.classes_.tolist() == list(range(10))
    assert tagger.label_embedder_ is None


def test_clips_without_labels():
    X, y = make_clips()
    y[:50] = [[]] * 50
    tagger = make_tagger(max_epochs=5).fit(X, y)
    assert np.isfinite(tagger.predict_proba(X)).all()


# Thresholds


def test_thresholds():
    X, y = make_clips(noise=1.0)
    tagger = make_tagger(max_epochs=20).fit(X, y)
    proba = tagger.predict_proba(X)
    assert np.array_equal(tagger.predict(X), proba >= 0.5)
    tagger.set_params(threshold=0.2)
    assert np.array_equal(tagger.predict(X), proba >= 0.2)
    each = np.linspace(0.1, 0.9, 10)
    tagger.set_params(threshold=each)
    assert np.array_equal(tagger.predict(X), proba >= each)
    with pytest.raises(ValueError, match=r"threshold has the shape \(3,\)"):
        tagger.set_params(threshold=[0.1, 0.2, 0.3]).predict(X)
    for wrong in (2, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"threshold has values from"):
            tagger.set_params(threshold=[wrong] * 10).predict(X)


def test_tuned_thresholds_are_the_best():
    X, y = make_clips(noise=2.0)
    held, y_held = make_clips(n_clips=200, seed=1, noise=2.0)
    tagger = make_tagger(max_epochs=10).fit(X, y)
    target, proba = to_indicator(y_held), tagger.predict_proba(held)
    before = f1_score(target, tagger.predict(held), average=None, zero_division=0)
    assert tagger.tune_thresholds(held, y_held) is tagger
    after = f1_score(target, tagger.predict(held), average=None)
    for column, score in enumerate(after):
        labels, scores = target[:, column], proba[:, column]
        chosen = scores >= scores[:, np.newaxis]  # by each score as the threshold
        tried = 2 * (chosen * labels).sum(axis=1) / (chosen.sum(axis=1) + labels.sum())
        assert score == pytest.approx(max(tried))
    assert (after >= before).all()
    assert after.mean() > before.mean()
    copies = pickle.loads(pickle.dumps(tagger))
    np.testing.assert_array_equal(copies.predict(held), tagger.predict(held))
    # Labels of which there are no clips keep theirs; a new fit forgets all.
    tagger.set_params(candidate_labels=["u", "a"], threshold=0.3)
    assert tagger.thresholds_[0] == 0.3
    assert tagger.thresholds_[1] != 0.3
    assert (tagger.set_params(candidate_labels=None).fit(X, y).thresholds_ == 0.3).all()


def test_tied_scores_are_named_together():
    X = np.array([[0.0], [0.0], [1.0], [1.0]] * 20, dtype=np.float32)
    y = [["a"], [], ["a"], ["a", "b"]] * 20
    tagger = make_baseline(max_epochs=30, threshold=0.45).fit(X, y)
    tagger.tune_thresholds(X, y)
    assert tagger.predict([[0.0], [1.0]]).tolist() == [[1, 0], [1, 1]]
    tagger.tune_thresholds(X, [["a"]] * 80)
    assert tagger.thresholds_.tolist()[0] != 0.45


def test_no_thresholds_for_one_label_a_clip():
    X, y = make_clips(most=1)
    tagger = make_tagger(max_epochs=1).fit(X, np.concatenate(y))
    with pytest.raises(ValueError, match="no threshold is looked at"):
        tagger.tune_thresholds(X, np.concatenate(y))


# Training


def test_fits_are_repeatable_and_leave_global_generators_alone():
    X, y = make_clips()
    # The global generator is looked at to show that it is left alone.
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.random.get_rng_state()
    params = {"mixup_alpha": 0.3, "early_stopping": True, "max_epochs": 3}
    first, again, other, anyhow = (
        make_tagger(random_state=seed, **params).fit(X, y).predict_proba(X)
        for seed in (0, 0, 1, None)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, anyhow)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_count_clips_as_often(dtype):
    X, y = make_clips(n_clips=20)
    X, indicator = X.astype(dtype), to_indicator(y)
    counts = np.random.default_rng(0).integers(0, 4, 20)
    params = {"labels": LABELS, "batch_size": 100}
    weighted = make_tagger(**params).fit(X, indicator, sample_weight=counts)
    rows = np.repeat(np.arange(20), counts)
    repeated = make_tagger(**params).fit(X[rows], indicator[rows])
    np.testing.assert_allclose(
        weighted.predict_proba(X),
        repeated.predict_proba(X),
        rtol=1e-3 if dtype == np.float32 else 1e-6,
    )
    plain = make_tagger(**params).fit(X, indicator)
    assert np.abs(plain.predict_proba(X) - weighted.predict_proba(X)).max() > 0.01


def test_labels_of_clips_without_weight_are_not_learnt():
    X, y = make_clips()
    y[7] = ["u"]
    weights = np.ones(300)
    weights[7] = 0
    tagger = make_tagger(max_epochs=1).fit(X, y, sample_weight=weights)
    assert tagger.classes_.tolist() == LABELS


def test_stops_early_and_keeps_the_best_epoch():
    X, y = make_clips(n_clips=60, noise=3.0)

    class Keep(Recorder):
        def on_epoch_end(self, net, **kwargs):
            self.kept.setdefault("epochs", []).append(copy.deepcopy(net.module_))

    tagger = make_tagger(
        early_stopping=True,
        validation_fraction=0.3,
        patience=3,
        max_epochs=200,
        lr=0.05,
        callbacks=[Keep()],
    ).fit(X, y)
    scores = [row["valid_omap"] for row in tagger.history_]
    assert len(scores) < 200
    best = int(np.argmax(scores))
    assert max(scores[best + 1 :], default=0) <= scores[best] * (1 + 1e-4)
    kept = Keep.kept["epochs"]
    equal = [
        np.array_equal(
            module.classifier.weight.detach(), tagger._heads["classifier.weight"]
        )
        for module in kept
    ]
    assert equal.index(True) == best
    assert {"train_loss", "valid_loss", "valid_omap", "dur"} == set(tagger.history_[0])


def test_stops_early_by_plain_map_without_an_ontology():
    X, y = make_clips(n_clips=100, noise=3.0)
    tagger = make_baseline(early_stopping="map", max_epochs=50, patience=2).fit(X, y)
    assert "valid_map" in tagger.history_[0]


def test_warm_start_and_partial_fit_go_on():
    X, y = make_clips()
    tagger = make_tagger(warm_start=True, max_epochs=3).fit(X, y)
    first = tagger.history_[-1]["train_loss"]
    tagger.fit(X, y)
    assert tagger.n_iter_ == 6
    assert tagger.history_[-1]["train_loss"] < first
    after = tagger.predict_proba(X)
    loaded = pickle.loads(pickle.dumps(tagger)).partial_fit(X, y)
    assert loaded.n_iter_ == 7
    assert loaded.history_[-1]["train_loss"] < first
    assert not np.array_equal(loaded.predict_proba(X), after)
    stream = make_tagger()
    for part in range(3):
        rows = range(part, 300, 3)
        stream.partial_fit(X[rows], [y[row] for row in rows], classes=LABELS)
    assert stream.n_iter_ == 3
    assert stream.classes_.tolist() == LABELS
    with pytest.raises(ValueError, match=r"'u'.*not among the 10 labels"):
        stream.partial_fit(X[:1], [["u"]])
    with pytest.raises(ValueError, match="as in the first fit"):
        stream.partial_fit(X[:2], ["a", "b"])


def test_callbacks_are_copied_and_called():
    X, y = make_clips()
    scheduler = LRScheduler("StepLR", step_size=1, gamma=1e-9)
    tagger = make_tagger(callbacks=[("slower", scheduler)], max_epochs=3).fit(X, y)
    assert not hasattr(scheduler, "lr_scheduler_")
    losses = [row["train_loss"] for row in tagger.history_]
    assert abs(losses[2] - losses[1]) < 0.1 * abs(losses[1] - losses[0])


def test_progress(capsys):
    X, y = make_clips()
    make_tagger(verbose=True, max_epochs=2).fit(X, y)
    shown = capsys.readouterr()
    assert "train_loss" in shown.out
    assert "/10 [" in shown.err
    make_tagger(max_epochs=2).fit(X, y)
    assert capsys.readouterr() == ("", "")


def test_label_texts_are_encoded_once_a_fit():
    class Counting(BaseEstimator):
        calls = []

        def fit(self, X, y=None):
            return self

        def transform(self, X):
            self.calls.append(list(X))
            return np.stack([make_attributes()[label] for label in X])

    X, y = make_clips()
    tagger = make_tagger(label_embedder=Counting(), max_epochs=3).fit(X, y)
    tagger.predict(X)
    assert Counting.calls == [LABELS]
    # Candidates once each too, however often they are asked for.
    for candidates in (["u", "a"], ["v", "u"], ["u", "v"]):
        tagger.set_params(candidate_labels=candidates)
        for row in X[:3]:
            tagger.predict([row])
    assert Counting.calls == [LABELS, ["u"], ["v"]]
    tagger.set_params(candidate_labels=None, label_embedder=make_attributes(1))
    before = tagger.fit(X, y).set_params(candidate_labels=["u"]).predict_proba(X)
    fresh = make_tagger(label_embedder=make_attributes(1), max_epochs=3).fit(X, y)
    fresh.set_params(candidate_labels=["u"])
    np.testing.assert_array_equal(fresh.predict_proba(X), before)


def test_unknown_candidates_are_told_before_clips_are_read(checkpoint, events):
    tagger = make_fine_tuned(checkpoint, events, max_epochs=1, duration=0.1)
    tagger.fit(events.paths, events.target).set_params(candidate_labels=["zz", "a"])
    with pytest.raises(UnknownLabelError, match="zz"):
        tagger.predict(["there is no such file.wav"])


def test_bert_is_the_default(monkeypatch):
    assert _proximity_training._BERT == "bert-base-uncased"
    monkeypatch.setattr(_proximity_training, "_BERT", make_attributes())
    X, y = make_clips()
    default = make_tagger(label_embedder=None, max_epochs=1).fit(X, y)
    given = make_tagger(max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(default.predict_proba(X), given.predict_proba(X))


# scikit-learn's tools


def test_searches_alpha_and_descriptions():
    X, y = make_clips(n_clips=60)
    attributes = make_attributes()
    words = {"good": 1}
    words = {f"the {label}": attributes[label] for label in LABELS}
    words |= {f"no {label}": np.ones(6) for label in LABELS}
    embedder = LabelTextEmbedder(words)
    grid = {
        "alpha": [0, 1.0],
        "label_embedder__description": [
            {label: f"the {label}" for label in LABELS},
            {label: f"no {label}" for label in LABELS},
        ],
    }
    scoring = make_omap_scorer(ONTOLOGY.distances(LABELS), labels=LABELS)
    tagger = make_tagger(label_embedder=embedder, labels=LABELS, max_epochs=3)
    search = GridSearchCV(
        tagger, grid, scoring=scoring, cv=KFold(3), n_jobs=2, error_score="raise"
    ).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] == scores[1]  # alpha=0 reads no description
    assert scores[2] != scores[3]


def test_cross_validation_and_pipelines():
    X, y = make_clips()
    scoring = make_omap_scorer(ONTOLOGY.distances(LABELS), labels=LABELS)
    pipeline = make_pipeline(StandardScaler(), make_tagger(labels=LABELS))
    scores = cross_val_score(pipeline, X, y, scoring=scoring, cv=KFold(3))
    assert scores.shape == (3,)
    assert scores.min() > 0.8
    indicator = to_indicator(y)
    again = cross_val_score(pipeline, X, indicator, scoring=scoring, cv=KFold(3))
    np.testing.assert_array_equal(again, scores)


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_copies_predict_the_same(how, tmp_path):
    X, y = make_clips()
    tagger = make_tagger(max_epochs=2, candidate_labels=["u", "a"]).fit(X, y)
    if how == "pickle":
        loaded = pickle.loads(pickle.dumps(tagger))
    elif how == "joblib":
        joblib.dump(tagger, tmp_path / "tagger")
        loaded = joblib.load(tmp_path / "tagger")
    else:
        loaded = copy.deepcopy(tagger)
    np.testing.assert_array_equal(loaded.predict_proba(X), tagger.predict_proba(X))
    assert "seen_classes_" not in vars(clone(loaded))


# Encoders


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of a small tagger, in its authors' layout."""
    path = tmp_path_factory.mktemp("weights") / "mn01.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(EfficientAT(0.1).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Clips of three kinds, and files of theirs, of two lengths."""
    events = make_sound_events(
        4, classes=["siren", "rain", "bell"], duration=0.5, random_state=0
    )
    folder = tmp_path_factory.mktemp("clips")
    events.paths = [str(folder / f"{i}.wav") for i in range(len(events.data))]
    for i, (path, clip) in enumerate(zip(events.paths, events.data, strict=True)):
        soundfile.write(path, clip[: 6000 if i % 2 else None], 16000, "FLOAT")
    return events


def make_fine_tuned(checkpoint, events, **params):
    settings = {
        "encoder": "efficientat",
        "weights": checkpoint,
        "label_embedder": events.attributes,
        "obce": False,
        "max_epochs": 2,
        "batch_size": 4,
        "lr": 0.001,
        "ontology": None,
    }
    return make_tagger(**{**settings, **params})


def embed(module, log_mel):
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(np.stack(log_mel))).embedding.numpy()


def test_fine_tunes_an_encoder_from_a_file(checkpoint, events):
    state = torch.random.get_rng_state()
    params = {"sampling_rate": 16000, "callbacks": [Recorder()]}
    tagger = make_fine_tuned(checkpoint, events, **params).fit(
        events.data, events.target
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    official = torch.load(checkpoint, weights_only=True)
    start = Recorder.kept["start"]
    for name, value in official.items():
        assert torch.equal(start[f"encoder.{name}"], value)
    proba = tagger.predict_proba(events.data)
    data = pickle.dumps(tagger)
    loaded = pickle.loads(data)
    np.testing.assert_array_equal(loaded.predict_proba(events.data), proba)
    trained = loaded._encoder.state_dict()
    assert trained["features.0.1.num_batches_tracked"] == 6
    changed = {
        name for name in official if not torch.equal(trained[name], official[name])
    }
    assert "features.3.block.0.0.weight" in changed
    assert "features.0.1.running_mean" in changed
    again = make_fine_tuned(checkpoint, events, sampling_rate=16000)
    np.testing.assert_array_equal(
        again.fit(events.data, events.target).predict_proba(events.data), proba
    )


def test_log_mel_and_clips_agree(checkpoint, events):
    clips = make_fine_tuned(checkpoint, events, sampling_rate=16000)
    proba = clips.fit(events.data, events.target).predict_proba(events.data)
    # At the rate of the front end nothing is resampled.
    events_32k = make_sound_events(
        4,
        classes=["siren", "rain", "bell"],
        duration=0.5,
        sampling_rate=32000,
        random_state=0,
    )
    front_end = get_front_end("efficientat")
    log_mel = np.stack([front_end(clip) for clip in events_32k.data])
    given = make_fine_tuned(checkpoint, events).fit(log_mel, events.target)
    at_32k = make_fine_tuned(checkpoint, events, sampling_rate=32000)
    at_32k.fit(events_32k.data, events.target)
    np.testing.assert_array_equal(
        given.predict_proba(log_mel), at_32k.predict_proba(events_32k.data)
    )
    assert proba.shape == (12, 3)


def test_a_frozen_encoder_gives_what_vectors_give(checkpoint, events):
    params = {"freeze_encoder": True, "duration": 0.4, "max_epochs": 1}
    tagger = make_fine_tuned(checkpoint, events, **params).fit(
        events.paths, events.target
    )
    # Whose classifier goes on to score the vectors of the clips' windows.
    rate, front_end = 32000, get_front_end("efficientat")
    official = EfficientAT(0.1)
    official.load_state_dict(torch.load(checkpoint, weights_only=True))
    vectors = []
    for i, clip in enumerate(events.data):
        wave = soxr.resample(clip[: 6000 if i % 2 else None], 16000, rate, "HQ")
        length = round(0.4 * rate)
        pieces = [np.resize(wave, length)]
        if len(wave) > length:
            pieces = [wave[:length], wave[-length:]]
        vectors.append(embed(official, [front_end(piece) for piece in pieces]).mean(0))
    joint = np.stack(vectors) @ tagger._heads["audio_projector.weight"].T
    joint += tagger._heads["audio_projector.bias"]
    logits = joint @ tagger._heads["classifier.weight"].T
    logits += tagger._heads["classifier.bias"]
    np.testing.assert_allclose(
        tagger.decision_function(events.paths), logits, rtol=1e-3, atol=1e-4
    )


def test_pickles_hold_no_frozen_weights(checkpoint, events, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(checkpoint.read_bytes())
    params = {"sampling_rate": 16000, "weights": path, "max_epochs": 1}
    tagger = make_fine_tuned(checkpoint, events, freeze_encoder=True, **params)
    proba = tagger.fit(events.data, events.target).predict_proba(events.data)
    data = pickle.dumps(tagger)
    tuned = make_fine_tuned(checkpoint, events, **params)
    whole = pickle.dumps(tuned.fit(events.data, events.target))
    assert len(whole) - len(data) > 400_000
    np.testing.assert_array_equal(pickle.loads(data).predict_proba(events.data), proba)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="another file"):
        pickle.loads(data).predict(events.data)
    path.unlink()
    with pytest.raises(CheckpointError, match="not there"):
        pickle.loads(data).predict(events.data)
    pickle.loads(whole).predict(events.data)  # which needs no file


def test_loads_in_another_process(checkpoint, events, tmp_path):
    tagger = make_fine_tuned(checkpoint, events, duration=0.4)
    proba = tagger.fit(events.paths, events.target).predict_proba(events.paths)
    joblib.dump((tagger, events.paths), tmp_path / "tagger")
    code = (
        "import sys, joblib\n"
        "tagger, paths = joblib.load(sys.argv[1])\n"
        "joblib.dump(tagger.predict_proba(paths), sys.argv[2])"
    )
    files = [tmp_path / "tagger", tmp_path / "proba"]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    np.testing.assert_allclose(joblib.load(tmp_path / "proba"), proba, rtol=1e-5)


def test_fits_read_no_more_than_a_piece_of_a_clip(checkpoint, events, monkeypatch):
    heard = []
    read = ClipSet.piece

    def count(self, index, rng=None):
        heard.append(index)
        return read(self, index, rng)

    monkeypatch.setattr(ClipSet, "piece", count)
    monkeypatch.setattr(ClipSet, "windows", None)
    tagger = make_fine_tuned(checkpoint, events, duration=0.1, max_epochs=2)
    tagger.fit(events.paths, events.target)
    # Twice to train, and once to bring proximities to the scale of logits.
    assert sorted(heard) == sorted(3 * list(range(12)))


def test_all_that_happens_to_clips_is_repeatable_with_any_threads(checkpoint, events):
    params = {
        "duration": 0.3,
        "mixup_alpha": 0.3,
        "spec_augment": (8, 10),
        "time_roll": True,
        "balanced_sampling": True,
        "early_stopping": "map",
        "validation_fraction": 0.3,
    }
    first, again = (
        make_fine_tuned(checkpoint, events, n_jobs=n_jobs, **params)
        .fit(events.paths, events.target)
        .predict_proba(events.paths)
        for n_jobs in (1, 3)
    )
    np.testing.assert_array_equal(first, again)


def test_predictions_do_not_depend_on_the_other_clips(checkpoint, events):
    tagger = make_fine_tuned(checkpoint, events, duration=0.4)
    tagger.fit(events.paths, events.target)
    logits = tagger.decision_function(events.paths)
    alone = [tagger.decision_function([path])[0] for path in events.paths]
    np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-5)
    again = tagger.decision_function(events.paths[::-1])[::-1]
    np.testing.assert_allclose(logits, again, rtol=1e-4, atol=1e-5)


def test_the_encoder_has_a_learning_rate_of_its_own(checkpoint, events):
    params = {"sampling_rate": 16000, "encoder_lr": 1e-30, "max_epochs": 1}
    tagger = make_fine_tuned(checkpoint, events, **params)
    tagger.fit(events.data, events.target)
    official = torch.load(checkpoint, weights_only=True)
    trained = tagger._encoder.state_dict()
    name = "features.3.block.0.0.weight"
    torch.testing.assert_close(trained[name], official[name], rtol=0, atol=0)
    assert not torch.equal(
        trained["features.0.1.running_mean"], official["features.0.1.running_mean"]
    )


SMALL = {
    "ast": {"n_frames": 64, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "cnn10": {"channels": (4, 4, 8, 8)},
    "efficientat": {"width": 0.1},
    "htsat": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "panns": {"channels": (2, 2, 4, 4, 4, 8)},
    "passt": {"n_frames": 64, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "psla": {"width": 0.25, "depth": 0.3},
    "sp4sc": {"channels": (4, 4, 8, 8)},
}


@pytest.mark.parametrize("encoder", SMALL)
def test_every_encoder_trains_from_its_first_layer_on(encoder, events):
    params = {"encoder_params": SMALL[encoder], "weights": None, "max_epochs": 1}
    if encoder == "passt":
        params["patchout"] = (2, 1)
    tagger = make_fine_tuned(
        None,
        events,
        encoder=encoder,
        sampling_rate=16000,
        **params,
        callbacks=[Recorder()],
    ).fit(events.data, events.target)
    start, trained = Recorder.kept["start"], tagger._encoder.state_dict()
    weights = tagger._encoder.named_parameters()
    first = next(name for name, weight in weights if weight.ndim > 1)
    assert not torch.equal(start[f"encoder.{first}"], trained[first])
    proba = tagger.predict_proba(events.data)
    loaded = pickle.loads(pickle.dumps(tagger))
    np.testing.assert_array_equal(loaded.predict_proba(events.data), proba)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


class Tiny(nn.Module):
    """An encoder of one's own, with weights that are shared."""

    def __init__(self, n_mels=4, width=3):
        super().__init__()
        self.linear = nn.Linear(n_mels, width)
        self.twin = self.linear
        self.dropout = nn.Dropout(0.5)

    def forward(self, log_mel):
        return self.dropout(self.twin(log_mel)).mean(dim=1)


def make_log_mel(n_clips=40, n_frames=7, n_mels=4):
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "h"], n_clips)
    log_mel = rng.normal(size=(n_clips, n_frames, n_mels))
    return log_mel + (y == "a")[:, None, None], y


@pytest.mark.parametrize("weights", [False, True])
def test_classes_of_ones_own(weights, tmp_path):
    X, y = make_log_mel()
    params = {"encoder": Tiny, "encoder_params": {"width": 5}, "max_epochs": 30}
    if weights:
        torch.save(Tiny(width=5).state_dict(), tmp_path / "tiny.pt")
        params["weights"] = tmp_path / "tiny.pt"
    tagger = make_tagger(**params).fit(X, y)
    assert tagger._heads["audio_projector.weight"].shape == (32, 5)
    assert tagger.score(X, y) > 0.9
    again = make_tagger(**params).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), tagger.predict_proba(X))
    loaded = pickle.loads(pickle.dumps(tagger))
    np.testing.assert_array_equal(loaded.predict_proba(X), tagger.predict_proba(X))
    listed = tagger.predict_proba(list(X.astype(np.float32)))
    np.testing.assert_allclose(listed, tagger.predict_proba(X), rtol=1e-5)


def test_classes_with_a_front_end_take_clips(events):
    params = {"encoder_params": {"n_mels": 64}, "front_end": "panns_16k"}
    tagger = make_tagger(
        encoder=Tiny,
        sampling_rate=16000,
        obce=False,
        label_embedder=events.attributes,
        **params,
    ).fit(events.data, events.target)
    assert tagger.predict(events.data).shape == (12,)


# What is wrong


def fit_vectors(X=None, y=None, **params):
    given_X, given_y = make_clips(n_clips=30)
    if "encoder" in params:
        given_X = np.repeat(given_X[:, np.newaxis], 3, axis=1)
    params = {"max_epochs": 1, **params}
    make_tagger(**params).fit(given_X if X is None else X, given_y if y is None else y)


class Pair(nn.Module):
    def forward(self, log_mel):
        return log_mel.mean(dim=1), log_mel


TINY = {"encoder": Tiny, "encoder_params": {"n_mels": 12}}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ontology": None}, r"obce=True .*ontology=None .*LabelGraph.*obce=False"),
        (
            {"ontology": None, "obce": False, "early_stopping": True},
            r"early_stopping=True .*early_stopping='map'",
        ),
        ({"ontology": np.eye(3) == 0}, r"matrix of 3 labels and y has 10: set labels"),
        ({"ontology": np.ones((10, 10))}, "at 0 from itself"),
        ({"ontology": np.eye(10) - 1}, r"has -1 .* none can be negative"),
        ({"ontology": np.tri(10, k=-1)}, "the same both ways"),
        (
            {"ontology": pd.DataFrame(np.eye(10) == 0, columns=LABELS[::-1])},
            r"columns \['j', .* labels \['a', .*one order",
        ),
        ({"labels": ["a", "a"]}, r"\['a'\] more than once"),
        ({"labels": ["a", "b"]}, "not among the 2 labels"),
        ({"optimizer": "Adamant"}, r"optimizer='Adamant'.*'AdamW'"),
        ({"device": "no"}, "device='no'"),
        ({"weights": "a.pt"}, "weights='a.pt' with encoder=None"),
        ({"patchout": (1, 1)}, "patchout.*with encoder=None"),
        ({"spec_augment": True}, "spec_augment=True: X is no log-mel"),
        ({"time_roll": True}, "time_roll=True: X is no log-mel"),
        ({"spec_augment": (-1, 2), **TINY}, r"\(-1, 2\) must be two whole numbers"),
        ({"spec_augment": (1, 2.5), **TINY}, "two whole numbers"),
        ({"spec_augment": (1,), **TINY}, "two whole numbers"),
        ({"lr": 1e30, "max_epochs": 5}, "lr=1e[+]30 is too high"),
    ],
    ids=str,
)
def test_parameters_that_do_not_go_together(params, message):
    with pytest.raises(ValueError, match=message):
        fit_vectors(**params)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a"], ["b"]] * 14, "inconsistent numbers of samples"),
        (np.ones((30, 3)), "columns without names.*set labels"),
        (np.full((30, 3), 2), "an indicator matrix holds 0 and 1"),
        ([["a"], "b"] * 15, r"y\[1\]='b' is no list"),
        (["a"] * 30, "at least 2 classes to learn to tell apart$"),
        ([["a"], []] * 15, "at least 2 classes .*set obce=False"),
        (np.linspace(0, 1, 30), "Unknown label type"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_targets_that_are_none(y, message):
    with pytest.raises(ValueError, match=message):
        fit_vectors(y=y)


def test_one_class_is_learnt_without_an_ontology():
    X, y = make_clips(n_clips=200, noise=0.1)
    has = np.array(["a" in row for row in y])
    frame = pd.DataFrame({"a": has})
    tagger = make_tagger(ontology=None, obce=False, max_epochs=20).fit(X, frame)
    assert tagger.predict_proba(X).shape == (200, 1)
    assert tagger.score(X, frame) > 0.8


@pytest.mark.parametrize(
    "X",
    [
        ["a.wav"] * 30,
        np.array(["a.wav"] * 30),
        pd.Series(["a.wav"] * 30, index=range(5, 35)),
        [np.zeros((3, 4))] * 30,
        np.zeros((30, 3, 4)),
    ],
    ids=["paths", "array of paths", "series", "list", "array"],
)
def test_clips_need_an_encoder(X):
    with pytest.raises(ValueError, match=r"encoder=None .* vectors: name an encoder"):
        fit_vectors(X)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [(nn.Identity, r"the shape \(1, 3, 12\) for one"), (Pair, "returns tuple for one")],
)
def test_encoders_have_to_give_vectors(encoder, message):
    with pytest.raises(ValueError, match=rf"{message} clip: it must be vectors"):
        fit_vectors(encoder=encoder)


def test_columns_and_labels_have_to_agree():
    X, y = make_clips(n_clips=30)
    indicator = to_indicator(y)
    with pytest.raises(ValueError, match="10 columns and labels 2 labels"):
        make_tagger(labels=["a", "b"]).fit(X, indicator)
    frame = pd.DataFrame(indicator, columns=LABELS)
    with pytest.raises(ValueError, match="in one order"):
        make_tagger(labels=LABELS[::-1]).fit(X, frame)
    with pytest.raises(TypeError, match="one label: pass a list"):
        make_tagger().partial_fit(X, y, classes="a")


def test_labels_outside_the_ontology_and_the_text_model_are_named():
    with pytest.raises(UnknownLabelError, match="'u'"):
        fit_vectors(y=[["a"], ["u"]] * 15)
    with pytest.raises(UnknownLabelError, match="'zz'"):
        fit_vectors(y=[["a"], ["zz"]] * 15, obce=False)


def test_candidates_that_are_none():
    X, y = make_clips(n_clips=30)
    tagger = make_tagger(max_epochs=1).fit(X, y)
    with pytest.raises(UnknownLabelError, match="zz"):
        tagger.set_params(candidate_labels=["zz"]).predict(X)
    with pytest.raises(ValueError, match="more than once"):
        tagger.set_params(candidate_labels=["a", "a"]).predict(X)
    baseline = make_baseline(max_epochs=1).fit(X, y)
    baseline.set_params(candidate_labels=["b", "a"])
    assert baseline.predict_proba(X).shape == (30, 2)
    with pytest.raises(ValueError, match=r"'u', which was not trained.*alpha above 0"):
        baseline.set_params(candidate_labels=["a", "u"]).predict(X)


@pytest.mark.parametrize(
    ("sample_weight", "message"),
    [
        (np.ones(3), r"shape \(3,\)"),
        (-np.ones(30), "none negative"),
        (np.zeros(30), "every weight zero"),
        (np.full(30, np.nan), "NaN"),
    ],
    ids=["short", "negative", "zero", "nan"],
)
def test_weights_that_are_none(sample_weight, message):
    X, y = make_clips(n_clips=30)
    with pytest.raises(ValueError, match=message):
        make_tagger().fit(X, y, sample_weight=sample_weight)


def test_clips_that_do_not_fit(checkpoint, events):
    mixed = [events.data[0], *[clip[:6000] for clip in events.data[1:]]]
    tagger = make_fine_tuned(checkpoint, events, sampling_rate=16000)
    with pytest.raises(ValueError, match=r"6000 to 8000 samples.*set duration"):
        tagger.fit(mixed, events.target)
    with pytest.raises(ValueError, match=r"\d\.wav and .*\d\.wav are of"):
        tagger.fit(events.paths, events.target)
    with pytest.raises(ValueError, match="sampling_rate"):
        make_fine_tuned(checkpoint, events).fit(events.data, events.target)
    # No encoder hears much of what was recorded at so low a rate.
    for duration in (None, 0.1):
        low = make_fine_tuned(checkpoint, events, sampling_rate=2000, duration=duration)
        with pytest.raises(AudioReadError, match=r"X\[\d+\].*it has 2000 Hz.*3750 Hz"):
            low.fit(events.data, events.target)
    with pytest.raises(ValueError, match="EfficientAT takes"):
        tagger.fit(np.zeros((12, 30, 64)), events.target)
    # A prediction takes clips of any lengths.
    tagger.fit(events.data, events.target)
    assert tagger.predict(mixed).shape == (12,)


def test_a_fit_that_fails_leaves_no_half_of_a_tagger():
    X, y = make_clips(n_clips=30)
    tagger = make_tagger(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="too high"):
        tagger.set_params(lr=1e30, max_epochs=5).fit(X, y)
    with pytest.raises(NotFittedError):
        tagger.predict(X)
    with pytest.raises(NotFittedError):
        make_tagger().predict(X)
