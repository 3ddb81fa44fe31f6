"""SPATagger's training that is stopped, fails, or goes on."""

import pickle
import signal

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import nn

from sklabelaudio.classification import SPATagger
from sklabelaudio.ontology import LabelGraph

LABELS = ["a", "b", "c", "d"]
ONTOLOGY = LabelGraph(
    [("all", "ab"), ("all", "cd"), ("ab", "a"), ("ab", "b"), ("cd", "c"), ("cd", "d")]
)
TEXTS = dict(zip(LABELS, np.eye(4) + np.eye(4)[0], strict=True))


class Blocks(nn.Module):
    """An encoder with all that may go wrong: batch norm, dropout, shared weights."""

    def __init__(self, n_mels=4):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_mels)
        self.linear = nn.Linear(n_mels, n_mels)
        self.dropout = nn.Dropout(0.3)

    def forward(self, log_mel):
        return self.dropout(self.linear(self.norm(log_mel.mean(dim=1))))


def make_clips(n_clips=48, seed=0):
    """Vectors that tell their labels, but for some noise."""
    rng = np.random.default_rng(seed)
    target = rng.random((n_clips, 4)) < 0.4
    target[np.arange(n_clips), np.arange(n_clips) % 4] = True
    X = target + rng.normal(0, 0.5, target.shape)
    return X.astype(np.float32), target.astype(int)


def make_log_mel(n_clips=48):
    X, y = make_clips(n_clips)
    frames = np.random.default_rng(1).normal(size=(n_clips, 6, 4))
    return (X[:, np.newaxis] + frames).astype(np.float32), y


def make_tagger(**params):
    settings = {
        "label_embedder": TEXTS,
        "ontology": ONTOLOGY,
        "labels": LABELS,
        "batch_size": 8,
        "max_epochs": 4,
        "lr": 0.01,
        "n_components": 8,
        "device": "cpu",
        "random_state": 0,
    }
    return SPATagger(**{**settings, **params})


CASES = {
    "vectors": (make_clips, {}),
    "log-mel": (make_log_mel, {"encoder": Blocks}),
}
CASE = pytest.mark.parametrize("case", CASES)


class At(Callback):
    """Does something at the beginning of one of the batches of training."""

    n_batches = 0

    def __init__(self, batch, what):
        self.batch = batch
        self.what = what

    def on_train_begin(self, net, **kwargs):
        self.n_batches = 0

    def on_batch_begin(self, net, training=None, **kwargs):
        self.n_batches += bool(training)
        if training and self.n_batches == self.batch:
            self.what()


def press_control_c():
    signal.raise_signal(signal.SIGINT)


def fail():
    raise RuntimeError("a disk has failed")


def is_whole(tagger, X):
    """Tell whether what it predicts with is one tagger, also in a pickle."""
    copy = pickle.loads(pickle.dumps(tagger))
    return np.array_equal(copy.predict_proba(X), tagger.predict_proba(X))


# Stopped by the user


@CASE
def test_what_is_stopped_by_the_user_keeps_what_it_has_learnt(case):
    make, params = CASES[case]
    X, y = make()
    stop = At(15, press_control_c)  # in the third epoch of six batches
    tagger = make_tagger(callbacks=[stop], warm_start=True, **params)
    with pytest.raises(KeyboardInterrupt, match=r"2 whole epochs .*warm_start=True"):
        tagger.fit(X, y)
    assert tagger.n_iter_ == len(tagger.history_) == 2
    assert is_whole(tagger, X)
    assert tagger._calibration != (1.0, 0.0)
    loss = tagger.history_[-1]["train_loss"]
    tagger.set_params(callbacks=None).fit(X, y)
    assert tagger.n_iter_ == 6
    assert tagger.history_[-1]["train_loss"] < loss


def test_what_is_stopped_early_by_the_user_keeps_its_best_epoch():
    X, y = make_clips()
    kept = []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            kept.append(net.module_.classifier.weight.detach().clone().numpy())

    tagger = make_tagger(
        early_stopping=True,
        validation_fraction=0.3,
        lr=0.3,
        max_epochs=50,
        patience=50,
        callbacks=[Keep(), At(5 * 20 + 3, press_control_c)],
    )
    with pytest.raises(KeyboardInterrupt):
        tagger.fit(X, y)
    scores = [row["valid_omap"] for row in tagger.history_]
    assert len(scores) == 20
    best = int(np.argmax(scores))
    np.testing.assert_array_equal(tagger._heads["classifier.weight"], kept[best])


def test_nothing_is_kept_of_half_an_epoch():
    X, y = make_clips()
    tagger = make_tagger(callbacks=[At(3, press_control_c)])
    with pytest.raises(KeyboardInterrupt):
        tagger.fit(X, y)
    with pytest.raises(NotFittedError):
        tagger.predict(X)


def test_a_search_is_stopped_by_the_user():
    X, y = make_clips()
    stop = At(10, press_control_c)
    search = GridSearchCV(make_tagger(callbacks=[stop]), {"alpha": [0, 1]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)


def test_callbacks_may_end_a_fit():
    X, y = make_clips()
    stop = EarlyStopping("train_loss", patience=2, lower_is_better=False)
    tagger = make_tagger(callbacks=[stop], max_epochs=50).fit(X, y)
    assert tagger.n_iter_ < 10
    assert is_whole(tagger, X)


# Fits that fail


@CASE
def test_what_fails_keeps_the_epochs_before(case):
    make, params = CASES[case]
    X, y = make()
    tagger = make_tagger(callbacks=[At(15, fail)], **params)
    with pytest.raises(RuntimeError, match="a disk has failed"):
        tagger.fit(X, y)
    assert tagger.n_iter_ == 2
    assert is_whole(tagger, X)


@CASE
@pytest.mark.parametrize("batch", [3, 9])
def test_what_fails_going_on_is_still_one_tagger(case, batch):
    make, params = CASES[case]
    X, y = make()
    tagger = make_tagger(warm_start=True, **params).fit(X, y)
    tagger.set_params(callbacks=[At(batch, fail)])
    with pytest.raises(RuntimeError, match="a disk has failed"):
        tagger.fit(X, y)
    assert tagger.n_iter_ == 4 + (batch == 9)
    assert is_whole(tagger, X)
    trained = tagger._net.module_.classifier.weight.detach()
    np.testing.assert_array_equal(tagger._heads["classifier.weight"], trained)


@CASE
def test_what_diverges_going_on_is_what_it_was(case):
    make, params = CASES[case]
    X, y = make()
    tagger = make_tagger(warm_start=True, **params).fit(X, y)
    before = tagger.predict_proba(X)
    tagger.set_params(lr=1e30)
    with pytest.raises(ValueError, match=r"lr=1e\+30 is too high"):
        tagger.fit(X, y)
    np.testing.assert_array_equal(tagger.predict_proba(X), before)
    assert tagger.n_iter_ == 4
    assert tagger.set_params(lr=0.01).fit(X, y).n_iter_ == 8
    assert np.isfinite(tagger.predict_proba(X)).all()


def test_what_diverges_ends_at_once():
    X, y = make_clips()
    ends = []

    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            ends.append(net)

    tagger = make_tagger(lr=1e30, max_epochs=100, callbacks=[Count()])
    with pytest.raises(ValueError, match="too high"):
        tagger.fit(X, y)
    assert len(ends) < 3


class Refused(Callback):
    def initialize(self):
        raise OSError("the log can't be opened")


class Keep(Callback):
    rates = []

    def on_train_end(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


@pytest.mark.parametrize("pickled", [False, True])
def test_what_fails_before_it_begins_changes_nothing(pickled):
    X, y = make_clips()
    with pytest.raises(OSError, match="log"):
        make_tagger(callbacks=[Refused()]).fit(X, y)
    tagger = make_tagger(warm_start=True).fit(X, y)
    before = tagger.predict_proba(X)
    if pickled:
        tagger = pickle.loads(pickle.dumps(tagger))
    with pytest.raises(OSError, match="log"):
        tagger.set_params(callbacks=[Refused()]).fit(X, y)
    np.testing.assert_array_equal(tagger.predict_proba(X), before)
    assert tagger.set_params(callbacks=None).fit(X, y).n_iter_ == 8
    # Nor is the former optimizer taken for the one that did not begin.
    with pytest.raises(OSError, match="log"):
        tagger.set_params(callbacks=[Refused()], lr=0.02).fit(X, y)
    tagger.set_params(callbacks=[Keep()]).fit(X, y)
    assert Keep.rates[-1] == 0.02


def test_history_holds_what_callbacks_recorded(tmp_path):
    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("note", "so far so good")

    X, y = make_clips()
    checkpoint = Checkpoint(monitor=None, dirname=tmp_path)
    tagger = make_tagger(callbacks=[Note(), checkpoint]).fit(X, y)
    assert tagger.history_[-1]["note"] == "so far so good"
    assert isinstance(tagger.history_[-1]["train_loss"], float)
    assert (tmp_path / "params.pt").exists()


# Going on


@CASE
def test_going_on_is_as_if_there_had_been_no_break(case):
    make, params = CASES[case]
    X, y = make()
    params = {**params, "mixup_alpha": 0.3, "balanced_sampling": True}
    if case == "log-mel":
        params |= {"spec_augment": (1, 2), "time_roll": True}
    whole = make_tagger(max_epochs=6, **params).fit(X, y)
    parts = make_tagger(max_epochs=2, warm_start=True, **params)
    for _ in range(3):
        parts.fit(X, y)
    single = make_tagger(**params)
    for _ in range(6):
        single.partial_fit(X, y)
    for tagger in (parts, single):
        np.testing.assert_array_equal(
            tagger.predict_proba(X), whole.predict_proba(X), strict=True
        )
        losses = [[row["train_loss"] for row in t.history_] for t in (tagger, whole)]
        assert losses[0] == losses[1]


def test_unpickled_taggers_go_on_with_a_new_optimizer():
    X, y = make_clips()
    tagger = make_tagger(warm_start=True, optimizer="SGD", lr=0.1).fit(X, y)
    copy = pickle.loads(pickle.dumps(tagger))
    # Which plain gradient descent needs nothing of.
    expected = tagger.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), expected)


@pytest.mark.parametrize("random_state", [0, None])
def test_going_on_watches_the_same_clips(random_state):
    X, y = make_clips()
    heard = []

    class Watch(Callback):
        def on_batch_begin(self, net, batch=None, training=None, **kwargs):
            if not training:
                heard[-1] |= {row.numpy().tobytes() for row in batch[0]}

        def on_train_begin(self, net, **kwargs):
            heard.append(set())

    tagger = make_tagger(
        early_stopping=True,
        validation_fraction=0.25,
        warm_start=True,
        random_state=random_state,
        callbacks=[Watch()],
    )
    tagger.fit(X, y).fit(X, y)
    copy = pickle.loads(pickle.dumps(tagger.set_params(callbacks=None)))
    copy.set_params(callbacks=[Watch()]).fit(X, y)
    assert len(heard[0]) == 12
    assert heard[0] == heard[1] == heard[2]


def test_parts_set_no_clips_apart():
    X, _ = make_clips()
    tagger = make_tagger(early_stopping=True).partial_fit(X[:4], np.eye(4, dtype=int))
    assert "valid_omap" not in tagger.history_[0]


def test_an_encoder_may_thaw_and_freeze_again():
    X, y = make_log_mel()
    tagger = make_tagger(encoder=Blocks, freeze_encoder=True, warm_start=True)
    tagger.fit(X, y)
    frozen = tagger._encoder.linear.weight.detach().clone()
    tagger.set_params(freeze_encoder=False).fit(X, y)
    thawed = tagger._encoder.linear.weight.detach().clone()
    assert not torch.equal(frozen, thawed)
    tagger.set_params(freeze_encoder=True).fit(X, y)
    assert torch.equal(tagger._encoder.linear.weight, thawed)
    assert is_whole(tagger, X)


def test_pickles_hold_an_encoder_that_has_thawed(tmp_path):
    X, y = make_log_mel()
    torch.save(Blocks().state_dict(), tmp_path / "blocks.pt")
    tagger = make_tagger(
        encoder=Blocks,
        weights=tmp_path / "blocks.pt",
        freeze_encoder=True,
        warm_start=True,
    ).fit(X, y)
    assert is_whole(tagger, X)
    tagger.set_params(freeze_encoder=False).fit(X, y)
    tagger.set_params(freeze_encoder=True).fit(X, y)
    assert is_whole(tagger, X)


def test_losses_may_change_going_on():
    X, y = make_clips()
    far = ONTOLOGY.distances(LABELS)
    settings = {"warm_start": True, "optimizer": "SGD", "max_epochs": 2}
    losses = {}
    for name, change in {
        "as it was": {},
        "alpha": {"alpha": 0.1},
        "obce": {"obce": False},
        "ontology": {"ontology": far**3},
    }.items():
        tagger = make_tagger(**settings).fit(X, y).set_params(**change)
        copy = pickle.loads(pickle.dumps(tagger)).fit(X, y)
        losses[name] = tagger.fit(X, y).history_[-1]["train_loss"]
        assert losses[name] == copy.history_[-1]["train_loss"]
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"n_components": 5},
        {"encoder": "ast"},
        {"encoder_params": {"n_mels": 5}},
        {"front_end": "ast"},
    ],
    ids=str,
)
def test_layers_may_not_change_going_on(change, pickled):
    X, y = make_log_mel()
    tagger = make_tagger(encoder=Blocks, warm_start=True).fit(X, y)
    if pickled:
        tagger = pickle.loads(pickle.dumps(tagger))
    (name,) = change
    with pytest.raises(ValueError, match=rf"^{name}=.*it was .*warm_start=False"):
        tagger.set_params(**change).fit(X, y)
    tagger.set_params(warm_start=False, encoder=Blocks, front_end=None)
    tagger.set_params(encoder_params=None).fit(X, y)


def test_texts_may_not_join_later():
    X, y = make_clips()
    tagger = make_tagger(alpha=0, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="alpha=1 can't go on from a fit with alpha=0"):
        tagger.set_params(alpha=1).fit(X, y)


def test_classes_stay_those_of_the_first_part():
    X, y = make_clips()
    tagger = make_tagger(labels=None).partial_fit(X, y, classes=LABELS)
    tagger.partial_fit(X, y, classes=LABELS).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"classes=\['a', 'b'\] are not those"):
        tagger.partial_fit(X, y, classes=["a", "b"])


# Weights


def test_weights_count_across_batches():
    X, y = make_clips()
    weights = np.random.default_rng(0).uniform(0.1, 5, len(X))
    losses = []
    for batch_size in (1, 8, 48):
        tagger = make_tagger(
            obce=False, lr=1e-30, batch_size=batch_size, max_epochs=1
        ).fit(X, y, sample_weight=weights)
        losses.append(tagger.history_[0]["train_loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_weights_of_single_clips_are_not_lost():
    X, y = make_clips()
    settings = {"batch_size": 1, "optimizer": "SGD", "lr": 0.01, "max_epochs": 1}
    weights = np.where(y[:, 0], 10, 0.1)
    plain = make_tagger(**settings).fit(X, y)
    weighted = make_tagger(**settings).fit(X, y, sample_weight=weights)
    assert (weighted.predict_proba(X) - plain.predict_proba(X))[:, 0].mean() > 0.02


def test_the_validation_knows_weights():
    X, y = make_clips(200)
    weights = np.where(np.arange(200) % 2, 1000.0, 1.0)
    scores = []
    for kind in ("map", "omap"):
        tagger = make_tagger(
            early_stopping=kind, validation_fraction=0.5, lr=1e-30, max_epochs=1
        )
        for sample_weight in (None, weights):
            tagger.fit(X, y, sample_weight)
            scores.append(tagger.history_[0][f"valid_{kind}"])
    assert scores[0] != scores[1]
    assert scores[2] != scores[3]


def test_gradients_are_not_held_after_training():
    X, y = make_log_mel()
    for warm_start in (True, False):
        tagger = make_tagger(encoder=Blocks, warm_start=warm_start).fit(X, y)
        assert all(weight.grad is None for weight in tagger._encoder.parameters())


def test_early_stopping_hears_clips_without_labels():
    X, y = make_clips(200)
    y = y[:, :1]
    tagger = make_tagger(
        labels=["a"], obce=False, early_stopping="map", validation_fraction=0.5
    ).fit(0.1 * X, y)
    # If all had one, the score of one class could not be other than perfect.
    assert max(row["valid_map"] for row in tagger.history_) < 0.99


def test_early_stopping_by_omap_takes_clips_without_labels():
    X, y = make_clips(60)
    y[::2] = 0
    tagger = make_tagger(early_stopping=True, validation_fraction=0.5).fit(X, y)
    assert 0 < tagger.history_[0]["valid_omap"] < 1
