import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio.classification import BilinearZeroShotClassifier
from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.model_selection import (
    FewShotSplit,
    LeaveClassesOut,
    UnseenClassKFold,
    zero_shot_scorer,
)
from sklabelaudio.text import LabelTextEmbedder


def algorithm_1(X, targets, Phi, eta, orders):
    """Training algorithm 1 of the paper, line by line."""
    n_classes = len(Phi)

    def beta(r):
        return sum(1 / j for j in range(1, r + 1))

    W = np.zeros((X.shape[1], Phi.shape[1]))
    for order in orders:
        for n in order:
            x, own = X[n], targets[n]
            losses = [
                (y != own) + x @ W @ Phi[y] - x @ W @ Phi[own] for y in range(n_classes)
            ]
            ranking = sorted(range(n_classes), key=lambda y: -losses[y])
            for r, y in enumerate(ranking, start=1):
                if losses[y] > 0:
                    penalty = beta((n_classes - 1) // r)
                    W = W - eta * penalty * np.outer(x, Phi[y] - Phi[own])
    return W


def empirical_risk(X, targets, Phi, W):
    """Equation 4 of the paper, term by term."""
    total = 0.0
    for x, own in zip(X, targets, strict=True):
        scores = [x @ W @ phi for phi in Phi]
        rank = sum(scores[y] >= scores[own] for y in range(len(Phi)) if y != own)
        if rank:
            beta = sum(1 / j for j in range(1, rank + 1))
            total += (beta / rank) * sum(
                max(0, (y != own) + scores[y] - scores[own]) for y in range(len(Phi))
            )
    return total / len(X)


def make_clips(n_clips=120, n_classes=7, n_features=12, n_text=9, noise=1.0, seed=0):
    """Audio vectors that are a noisy linear image of label vectors."""
    rng = np.random.default_rng(seed)
    labels = np.array([f"class {i}" for i in range(n_classes)])
    Phi = rng.normal(size=(n_classes, n_text)).astype(np.float32).astype(float)
    targets = np.concatenate(
        [np.arange(n_classes), rng.integers(0, n_classes, n_clips - n_classes)]
    )
    X = Phi[targets] @ rng.normal(size=(n_text, n_features)) / 3
    X += noise * rng.normal(size=X.shape)
    return X, labels[targets], dict(zip(labels.tolist(), Phi, strict=True))


def unpack(y, vectors):
    labels = sorted(vectors)
    return np.searchsorted(labels, y), np.stack([vectors[label] for label in labels])


@pytest.mark.parametrize("n_classes", [2, 3, 7, 20])
@pytest.mark.parametrize("eta", [1e-3, 0.1])
def test_is_algorithm_1(n_classes, eta):
    X, y, vectors = make_clips(n_classes=n_classes)
    classifier = BilinearZeroShotClassifier(
        vectors, learning_rate=eta, max_epochs=3, shuffle=False
    ).fit(X, y)
    targets, Phi = unpack(y, vectors)
    W = algorithm_1(X, targets, Phi, eta, [np.arange(len(X))] * 3)
    assert classifier.coef_.shape == (12, 9)
    np.testing.assert_allclose(classifier.coef_, W, rtol=0, atol=1e-9 * abs(W).max())


def test_shuffle_draws_an_order_for_each_epoch():
    X, y, vectors = make_clips()
    classifier = BilinearZeroShotClassifier(vectors, max_epochs=4, random_state=3)
    state = np.random.get_state()[1]  # noqa: NPY002 -- the state to leave alone
    classifier.fit(X, y)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    rng = np.random.RandomState(3)
    targets, Phi = unpack(y, vectors)
    orders = [rng.permutation(len(X)) for _ in range(4)]
    W = algorithm_1(X, targets, Phi, 0.01, orders)
    np.testing.assert_allclose(classifier.coef_, W, atol=1e-9 * abs(W).max())
    again = clone(classifier).fit(X, y)
    assert np.array_equal(again.coef_, classifier.coef_)


def test_equal_losses_keep_the_order_of_the_classes():
    # At W = 0 all losses are 1, with two equal vectors they stay equal for ever,
    # and a silent clip has equal losses at any W.
    X, y, vectors = make_clips(n_classes=4)
    vectors["class 2"] = vectors["class 1"]
    X[5] = 0
    classifier = BilinearZeroShotClassifier(vectors, max_epochs=1, shuffle=False)
    classifier.fit(X, y)
    targets, Phi = unpack(y, vectors)
    W = algorithm_1(X, targets, Phi, 0.01, [np.arange(len(X))])
    np.testing.assert_allclose(classifier.coef_, W, atol=1e-9 * abs(W).max())


@pytest.mark.parametrize("solver", ["sgd", "minibatch"])
def test_loss_curve_is_the_empirical_risk(solver):
    X, y, vectors = make_clips()
    params = {"shuffle": False, "learning_rate": 0.02, "solver": solver}
    classifier = BilinearZeroShotClassifier(vectors, max_epochs=5, **params).fit(X, y)
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 5
    targets, Phi = unpack(y, vectors)
    for n_epochs in (1, 5):
        part = BilinearZeroShotClassifier(vectors, max_epochs=n_epochs, **params)
        expected = empirical_risk(X, targets, Phi, part.fit(X, y).coef_)
        assert classifier.loss_curve_[n_epochs - 1] == pytest.approx(expected)
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[0]


def test_risk_before_training_ranks_the_right_class_last():
    X, y, vectors = make_clips(n_classes=5)
    targets, Phi = unpack(y, vectors)
    risk = empirical_risk(X, targets, Phi, np.zeros((12, 9)))
    assert risk == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4)


def test_minibatch_of_one_clip_is_algorithm_1():
    X, y, vectors = make_clips()
    sgd = BilinearZeroShotClassifier(vectors, max_epochs=2, random_state=0).fit(X, y)
    one = clone(sgd).set_params(solver="minibatch", batch_size=1).fit(X, y)
    np.testing.assert_allclose(one.coef_, sgd.coef_, atol=1e-4 * abs(sgd.coef_).max())


def test_minibatch_update_is_the_mean_at_one_w():
    X, y, vectors = make_clips(n_clips=50)
    targets, Phi = unpack(y, vectors)
    whole = BilinearZeroShotClassifier(
        vectors, solver="minibatch", batch_size=50, max_epochs=1, shuffle=False
    ).fit(X, y)
    single = [
        algorithm_1(X[[i]], targets[[i]], Phi, 0.01, [[0]]) for i in range(len(X))
    ]
    np.testing.assert_allclose(
        whole.coef_, np.mean(single, axis=0), atol=1e-5 * abs(whole.coef_).max()
    )


@pytest.mark.parametrize("n_text", [3, 40])
def test_minibatch_takes_more_and_fewer_dimensions_than_classes(n_text):
    X, y, vectors = make_clips(n_text=n_text, noise=0.1)
    classifier = BilinearZeroShotClassifier(
        vectors, solver="minibatch", learning_rate=0.5, batch_size=8, max_epochs=60
    ).fit(X, y)
    assert classifier.coef_.shape == (12, n_text)
    assert classifier.score(X, y) > 0.9


def test_minibatch_reads_a_memory_map(tmp_path):
    X, y, vectors = make_clips()
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    classifier = BilinearZeroShotClassifier(vectors, solver="minibatch", random_state=0)
    expected = clone(classifier).fit(X.astype(np.float32), y).coef_
    assert np.array_equal(classifier.fit(mapped, y).coef_, expected)


@pytest.mark.parametrize("solver", ["sgd", "minibatch"])
def test_warm_start_and_partial_fit_go_on(solver):
    X, y, vectors = make_clips()
    params = {"solver": solver, "shuffle": False, "center": "both", "scale": "text"}
    whole = BilinearZeroShotClassifier(vectors, max_epochs=4, **params).fit(X, y)
    warm = BilinearZeroShotClassifier(vectors, max_epochs=2, warm_start=True, **params)
    warm.fit(X, y).fit(X, y)
    partial = BilinearZeroShotClassifier(vectors, **params)
    for _ in range(4):
        partial.partial_fit(X, y)
    for other in (warm, partial):
        np.testing.assert_allclose(other.coef_, whole.coef_, atol=1e-6)
        np.testing.assert_allclose(other.loss_curve_, whole.loss_curve_, rtol=1e-5)


def test_partial_fit_takes_new_classes():
    X, y, vectors = make_clips(noise=0.2)
    old = np.isin(y, ["class 0", "class 1", "class 2"])
    classifier = BilinearZeroShotClassifier(vectors).partial_fit(X[old], y[old])
    assert classifier.classes_.tolist() == ["class 0", "class 1", "class 2"]
    for _ in range(30):
        classifier.partial_fit(X, y)
    assert len(classifier.classes_) == 7
    assert classifier.score(X, y) > 0.9


def test_partial_fit_without_embedder_needs_all_classes_first():
    X, y, _ = make_clips()
    old = np.isin(y, ["class 0", "class 1"])
    classifier = BilinearZeroShotClassifier().partial_fit(
        X[old], y[old], classes=np.unique(y)
    )
    assert len(classifier.partial_fit(X, y).classes_) == 7
    classifier = BilinearZeroShotClassifier().partial_fit(X[old], y[old])
    with pytest.raises(ValueError, match=r"'class 2'.*list them in classes"):
        classifier.partial_fit(X, y)


def test_names_classes_it_never_heard():
    X, y, vectors = make_clips(
        n_clips=800, n_classes=20, n_features=30, n_text=5, noise=0.2
    )
    classifier = BilinearZeroShotClassifier(vectors, random_state=0)
    cv = UnseenClassKFold(n_splits=5, shuffle=True, random_state=0)
    seen_only = cross_val_score(classifier, X, y, cv=cv)
    zero_shot = cross_val_score(
        classifier, X, y, cv=cv, scoring=zero_shot_scorer("accuracy")
    )
    assert seen_only.tolist() == [0] * 5
    assert zero_shot.mean() > 0.6  # chance is 0.25


def test_generalised_zero_shot_scores_seen_and_unseen():
    X, y, vectors = make_clips(
        n_clips=600, n_classes=12, n_features=30, n_text=4, noise=0.1
    )
    scores = cross_val_score(
        BilinearZeroShotClassifier(vectors, random_state=0),
        X,
        y,
        cv=UnseenClassKFold(n_splits=4, seen_test_size=0.2, random_state=0),
        scoring=zero_shot_scorer("harmonic_mean"),
    )
    assert 0 < scores.mean() < 1


def test_a_few_shots_are_better_than_none():
    X, y, vectors = make_clips(
        n_clips=900, n_classes=12, n_features=20, n_text=8, noise=0.5
    )
    groups = np.where(np.isin(y, ["class 0", "class 1", "class 2"]), "a", "b")
    few = FewShotSplit(n_shots=5, n_splits=2, random_state=0)
    classifier = BilinearZeroShotClassifier(vectors, random_state=0, max_epochs=20)
    accuracy = {"few": [], "none": []}
    for train, test in few.split(X, y, groups):
        candidates = np.unique(y[test])
        unseen = train[~np.isin(y[train], candidates)]
        for name, rows in (("few", train), ("none", unseen)):
            fitted = clone(classifier).fit(X[rows], y[rows])
            fitted.set_params(candidate_labels=candidates)
            accuracy[name].append(fitted.score(X[test], y[test]))
    assert np.mean(accuracy["few"]) > np.mean(accuracy["none"])


def test_is_an_ordinary_classifier_without_embedder():
    X, y, _ = make_clips(n_clips=400, noise=0.3)
    bilinear = make_pipeline(
        StandardScaler(), BilinearZeroShotClassifier(max_epochs=50, random_state=0)
    )
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    difference = cross_val_score(bilinear, X, y) - cross_val_score(logistic, X, y)
    assert difference.mean() > -0.02


def test_candidates_are_what_predictions_speak_of():
    X, y, vectors = make_clips()
    vectors["owl"] = vectors["class 0"]
    classifier = BilinearZeroShotClassifier(vectors).fit(X, y)
    before = classifier.decision_function(X)
    classifier.set_params(candidate_labels=["owl", "class 3", "class 1"])
    assert classifier.classes_.tolist() == ["class 1", "class 3", "owl"]
    assert classifier.seen_classes_.tolist() == sorted(np.unique(y))
    np.testing.assert_allclose(
        classifier.decision_function(X), before[:, [1, 3, 0]], atol=1e-12
    )
    proba = classifier.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert set(classifier.predict(X)) <= {"class 1", "class 3", "owl"}
    classifier.set_params(candidate_labels=["class 5", "class 2"])
    margin = classifier.decision_function(X)
    np.testing.assert_allclose(margin, before[:, 5] - before[:, 2], atol=1e-12)
    assert np.array_equal(margin > 0, classifier.predict(X) == "class 5")


def test_candidates_are_searched_like_any_parameter():
    X, y, vectors = make_clips(n_clips=300)
    search = GridSearchCV(
        BilinearZeroShotClassifier(vectors, random_state=0),
        {"learning_rate": [1e-3, 1e-2], "scale": [None, "text"]},
        cv=LeaveClassesOut(n_classes=2),
        scoring=zero_shot_scorer("accuracy"),
        n_jobs=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ > 0


def test_text_centring_alone_changes_nothing():
    # Updates and decisions depend on differences of label vectors only.
    X, y, vectors = make_clips()
    plain = BilinearZeroShotClassifier(vectors, random_state=0).fit(X, y)
    centred = clone(plain).set_params(center="text").fit(X, y)
    np.testing.assert_allclose(
        centred.coef_, plain.coef_, atol=1e-10 * abs(plain.coef_).max()
    )
    assert np.array_equal(plain.predict(X), centred.predict(X))


@pytest.mark.parametrize("side", ["audio", "text", "both"])
def test_centring_and_scaling_are_those_of_the_vectors(side):
    X, y, vectors = make_clips()
    by_parameter = BilinearZeroShotClassifier(
        vectors, center=side, scale=side, random_state=0
    ).fit(X, y)
    _, Phi = unpack(y, vectors)
    if side in ("audio", "both"):
        X = X - X.mean(axis=0)
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
    if side in ("text", "both"):
        Phi = Phi - Phi.mean(axis=0)
        Phi = Phi / np.linalg.norm(Phi, axis=1, keepdims=True)
    by_hand = BilinearZeroShotClassifier(
        dict(zip(sorted(vectors), Phi, strict=True)), random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(by_parameter.coef_, by_hand.coef_, atol=1e-6)


def test_takes_a_label_embedder_and_leaves_it_alone():
    X, y, vectors = make_clips()
    embedder = LabelTextEmbedder(vectors)
    classifier = BilinearZeroShotClassifier(embedder, random_state=0).fit(X, y)
    assert not hasattr(embedder, "n_components_")
    same = BilinearZeroShotClassifier(vectors, random_state=0).fit(X, y)
    assert np.array_equal(classifier.coef_, same.coef_)
    nested = clone(classifier).set_params(label_embedder__normalize=True).fit(X, y)
    assert not np.allclose(nested.coef_, classifier.coef_)


def test_survives_joblib_in_another_process(tmp_path):
    X, y, vectors = make_clips()
    classifier = BilinearZeroShotClassifier(
        vectors, candidate_labels=["class 0", "class 6"]
    ).fit(X, y)
    joblib.dump(classifier, tmp_path / "model.joblib")

    def load_and_predict(path):
        return joblib.load(path).decision_function(X)

    (scores,) = joblib.Parallel(n_jobs=2)(
        [joblib.delayed(load_and_predict)(tmp_path / "model.joblib")]
    )
    assert np.array_equal(scores, classifier.decision_function(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"solver": "adam"}, "'solver' parameter.*'adam'"),
        ({"learning_rate": 0}, "'learning_rate' parameter.*Got 0"),
        ({"max_epochs": 0}, "'max_epochs' parameter.*Got 0"),
        ({"center": "left"}, "'center' parameter.*'left'"),
        ({"label_embedder": "word2vec.bin"}, "'label_embedder' parameter"),
        ({"learning_rate": 1e308}, "learning_rate=1e\\+308 is too high.*lower it"),
        ({"label_embedder": {"class 0": [1, 0]}}, "class 1"),
    ],
)
# Products of overflowing numbers are announced by numpy as well.
@pytest.mark.filterwarnings("ignore:(overflow|invalid) .*:RuntimeWarning")
def test_bad_parameters_are_named(params, message):
    X, y, vectors = make_clips()
    classifier = BilinearZeroShotClassifier(vectors).set_params(**params)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        classifier.fit(X, y)


def test_bad_labels_are_named():
    X, y, vectors = make_clips()
    classifier = BilinearZeroShotClassifier(vectors)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples.*120.*100"):
        classifier.fit(X, y[:100])
    with pytest.raises(ValueError, match=r"one class, 'class 0'.*at least 2"):
        classifier.fit(X, ["class 0"] * len(X))
    with pytest.raises(UnknownLabelError, match="owl"):
        classifier.fit(X, np.where(y == "class 0", "owl", y))
    with pytest.raises((TypeError, ValueError), match="3"):
        classifier.fit(X, np.full(len(X), 3) + (y == "class 0"))


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        (
            ["class 0", "class 1", "class 0"],
            ValueError,
            r"\['class 0'\] more than once",
        ),
        (["class 0"], ValueError, "at least 2 to choose from"),
        ([], ValueError, "at least 2 to choose from"),
        ("class 0", TypeError, "is one string: pass a list"),
        (["class 0", "owl"], UnknownLabelError, "owl"),
    ],
)
def test_bad_candidates_are_named(candidates, error, message):
    X, y, vectors = make_clips()
    classifier = BilinearZeroShotClassifier(vectors).fit(X, y)
    classifier.set_params(candidate_labels=candidates)
    with pytest.raises(error, match=message):
        classifier.predict(X)


def test_candidates_without_embedder_must_be_seen():
    X, y, _ = make_clips()
    classifier = BilinearZeroShotClassifier(candidate_labels=["class 1", "owl"])
    with pytest.raises(ValueError, match=r"\['owl'\].*give a label_embedder"):
        classifier.fit(X, y).predict(X)
