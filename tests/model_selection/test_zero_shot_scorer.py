import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    check_scoring,
    f1_score,
    get_scorer,
    log_loss,
    make_scorer,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklabelaudio.metrics import harmonic_mean_score
from sklabelaudio.model_selection import UnseenClassKFold, zero_shot_scorer

LABELS = [f"label {i}" for i in range(9)]
ATTRIBUTES = dict(
    zip(LABELS, np.random.default_rng(7).normal(size=(9, 4)), strict=True)
)


def define_nearest_attribute():
    class NearestAttribute(ClassifierMixin, BaseEstimator):
        """Predicts the candidate whose attribute vector is nearest."""

        def __init__(self, attributes=None, *, shift=0.0, candidate_labels=None):
            self.attributes = attributes
            self.shift = shift
            self.candidate_labels = candidate_labels

        def fit(self, X, y):
            self.seen_classes_ = np.unique(y)
            return self

        @property
        def classes_(self):
            check_is_fitted(self, "seen_classes_")
            if self.candidate_labels is None:
                return self.seen_classes_
            return np.asarray(self.candidate_labels)

        def _scores(self, X):
            vectors = np.array([self.attributes[label] for label in self.classes_])
            return -((X[:, None] + self.shift - vectors) ** 2).sum(axis=2)

        def decision_function(self, X):
            scores = self._scores(X)
            return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

        def predict_proba(self, X):
            exp = np.exp(self._scores(X))
            return exp / exp.sum(axis=1, keepdims=True)

        def predict(self, X):
            return self.classes_[self._scores(X).argmax(axis=1)]

    return NearestAttribute


# Defined in a function, the class goes to worker processes by value: they can't
# import this file.
NearestAttribute = define_nearest_attribute()


@pytest.fixture
def sounds():
    rng = np.random.default_rng(0)
    y = np.repeat(LABELS, 10)
    return np.array([ATTRIBUTES[label] for label in y]) + rng.normal(0, 0.9, (90, 4)), y


@pytest.fixture
def classifier():
    return NearestAttribute(ATTRIBUTES)


CV = UnseenClassKFold(n_splits=3, shuffle=True, random_state=0)


def by_hand(classifier, scorer, X, y):
    """Score each fold with a classifier that was given the fold's labels."""
    scores = []
    for train, test in CV.split(X, y):
        fold = clone(classifier).set_params(candidate_labels=np.unique(y[test]))
        scores.append(scorer(fold.fit(X[train], y[train]), X[test], y[test]))
    return scores


def test_without_it_unseen_classes_score_zero(sounds, classifier):
    X, y = sounds
    assert cross_val_score(classifier, X, y, cv=CV).tolist() == [0.0, 0.0, 0.0]
    scores = cross_val_score(
        classifier, X, y, cv=CV, scoring=zero_shot_scorer("accuracy")
    )
    assert scores.min() > 0.6


@pytest.mark.parametrize(
    "scoring",
    [
        "accuracy",
        "f1_macro",
        "neg_log_loss",
        "top_k_accuracy",
        "roc_auc_ovr",
        "average_precision",
        make_scorer(f1_score, average="weighted"),
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
        lambda estimator, X, y: estimator.predict_proba(X).max(),
    ],
    ids=lambda scoring: getattr(scoring, "__name__", str(scoring)),
)
def test_scores_are_those_of_the_scorer(sounds, classifier, scoring):
    X, y = sounds
    scores = cross_val_score(
        classifier, X, y, cv=CV, scoring=zero_shot_scorer(scoring), error_score="raise"
    )
    expected = by_hand(classifier, get_scorer(scoring), X, y)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    assert len(set(expected)) > 1


def test_two_unseen_classes(sounds, classifier):
    X, y = sounds
    classifier.fit(X[y > LABELS[1]], y[y > LABELS[1]])
    two = y <= LABELS[1]
    for scoring in ("roc_auc_ovr", "neg_log_loss", "accuracy"):
        assert np.isfinite(zero_shot_scorer(scoring)(classifier, X[two], y[two]))
    scoring = make_scorer(
        average_precision_score,
        response_method=("decision_function", "predict_proba"),
        pos_label=LABELS[1],
    )
    scores = classifier.set_params(candidate_labels=LABELS[:2]).decision_function(
        X[two]
    )
    expected = average_precision_score(y[two], scores, pos_label=LABELS[1])
    classifier.set_params(candidate_labels=None)
    assert zero_shot_scorer(scoring)(classifier, X[two], y[two]) == expected


def record(estimator, X, y):
    """Score nothing and note the active candidates."""
    record.seen.append(list(estimator.classes_))
    return 0.0


@pytest.fixture
def recorded():
    record.seen = []
    return record.seen


@pytest.fixture
def fitted(sounds, classifier):
    X, y = sounds
    return classifier.fit(X[y <= LABELS[2]], y[y <= LABELS[2]])


def test_candidates(fitted, recorded):
    X, y = np.zeros((2, 4)), [LABELS[6], LABELS[5]]
    zero_shot_scorer(record)(fitted, X, y)
    zero_shot_scorer(record, include_seen=True)(fitted, X, y)
    # Sorted and unique, whatever the order they are given in.
    chosen = [LABELS[8], LABELS[6], LABELS[5], LABELS[5]]
    zero_shot_scorer(record, candidate_labels=chosen)(fitted, X, y)
    zero_shot_scorer(record, candidate_labels=chosen, include_seen=True)(fitted, X, y)
    zero_shot_scorer(record)(fitted, X, np.array(y, dtype=object))
    assert recorded == [
        LABELS[5:7],
        LABELS[:3] + LABELS[5:7],
        [LABELS[5], LABELS[6], LABELS[8]],
        [*LABELS[:3], LABELS[5], LABELS[6], LABELS[8]],
        LABELS[5:7],
    ]


def fail(estimator, X, y):
    raise RuntimeError("no score")


@pytest.mark.parametrize("former", [None, ["label 1", "label 7"]])
def test_former_candidates_come_back(fitted, former):
    fitted.set_params(candidate_labels=former)
    X, y = np.zeros((2, 4)), LABELS[5:7]
    zero_shot_scorer("accuracy")(fitted, X, y)
    assert fitted.candidate_labels is former
    with pytest.raises(RuntimeError, match="no score"):
        zero_shot_scorer(fail)(fitted, X, y)
    assert fitted.candidate_labels is former


def wrap_in_search(classifier):
    return GridSearchCV(classifier, {"shift": [0.0]}, cv=3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda classifier: classifier,
        lambda classifier: make_pipeline(StandardScaler(with_std=False), classifier),
        wrap_in_search,
        lambda classifier: make_pipeline(StandardScaler(), wrap_in_search(classifier)),
        lambda classifier: wrap_in_search(classifier).set_params(
            estimator=make_pipeline(classifier), param_grid={"memory": [None]}
        ),
    ],
    ids=["alone", "pipeline", "search", "search in pipeline", "pipeline in search"],
)
def test_finds_the_classifier(sounds, classifier, wrap, recorded):
    X, y = sounds
    estimator = wrap(classifier).fit(X[y <= LABELS[2]], y[y <= LABELS[2]])
    zero_shot_scorer(record)(estimator, X[:2], LABELS[5:7])
    zero_shot_scorer(record, include_seen=True)(estimator, X[:2], LABELS[5:7])
    assert recorded == [LABELS[5:7], LABELS[:3] + LABELS[5:7]]
    assert list(estimator.classes_) == LABELS[:3]


def test_finds_the_classifier_in_a_frozen_one(fitted, recorded):
    zero_shot_scorer(record)(FrozenEstimator(fitted), np.zeros((2, 4)), LABELS[5:7])
    assert recorded == [LABELS[5:7]]
    assert list(fitted.classes_) == LABELS[:3]


def test_finds_the_classifier_in_other_metas(sounds, classifier, recorded):
    X, y = sounds
    two = y <= LABELS[1]
    meta = FixedThresholdClassifier(classifier).fit(X[two], y[two])
    zero_shot_scorer(record)(meta, X[:2], LABELS[5:7])
    assert recorded == [LABELS[5:7]]
    assert list(meta.classes_) == LABELS[:2]


@pytest.mark.parametrize(
    ("estimator", "path"),
    [
        (LogisticRegression(), "LogisticRegression"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "Pipeline > Logistic"),
        (wrap_in_search(NearestAttribute()), "GridSearchCV"),
        (CalibratedClassifierCV(NearestAttribute()), "CalibratedClassifierCV"),
    ],
    ids=["plain", "pipeline", "search not fitted", "calibrated"],
)
def test_no_classifier_found(estimator, path):
    with pytest.raises(
        TypeError, match=f"no estimator with .* candidate_labels in {path}"
    ):
        zero_shot_scorer("accuracy")(estimator, np.zeros((2, 4)), LABELS[:2])


def test_label_that_is_no_candidate(fitted):
    scorer = zero_shot_scorer("accuracy", candidate_labels=LABELS[:2])
    with pytest.raises(ValueError, match=r"candidate_labels lacks .* \['label 7'\]"):
        scorer(fitted, np.zeros((2, 4)), [LABELS[0], LABELS[7]])


def test_one_candidate(fitted):
    with pytest.raises(ValueError, match="y holds the one label 'label 7'"):
        zero_shot_scorer("accuracy")(fitted, np.zeros((2, 4)), [LABELS[7]] * 2)
    scorer = zero_shot_scorer("accuracy", include_seen=True)
    assert scorer(fitted, np.full((2, 4), 50.0), [LABELS[7]] * 2) in (0.0, 1.0)


def test_include_seen_without_fit(classifier):
    scorer = zero_shot_scorer("accuracy", include_seen=True)
    with pytest.raises(NotFittedError, match="not fitted"):
        scorer(classifier, np.zeros((2, 4)), LABELS[:2])


def test_multilabel_y(fitted):
    with pytest.raises(ValueError, match="y should be a 1d array"):
        zero_shot_scorer("accuracy")(fitted, np.zeros((2, 4)), np.eye(2, dtype=int))


def test_bad_parameters():
    with pytest.raises(ValueError, match="'acuracy' is not a valid scoring"):
        zero_shot_scorer("acuracy")
    with pytest.raises(ValueError, match="'scoring' parameter of zero_shot_scorer"):
        zero_shot_scorer(None)
    with pytest.raises(ValueError, match="'candidate_labels' parameter"):
        zero_shot_scorer("accuracy", candidate_labels="dog")
    with pytest.raises(ValueError, match="'include_seen' parameter"):
        zero_shot_scorer("accuracy", include_seen="yes")


def test_harmonic_mean(sounds, classifier):
    X, y = sounds
    cv = UnseenClassKFold(n_splits=3, seen_test_size=0.3, random_state=0)
    scores = cross_val_score(
        classifier, X, y, cv=cv, scoring=zero_shot_scorer("harmonic_mean")
    )
    expected = []
    for train, test in cv.split(X, y):
        fold = NearestAttribute(ATTRIBUTES, candidate_labels=LABELS)
        y_pred = fold.fit(X[train], y[train]).predict(X[test])
        seen = np.unique(y[train])
        expected.append(harmonic_mean_score(y[test], y_pred, seen_labels=seen))
    np.testing.assert_allclose(scores, expected)
    assert 0.2 < min(scores) < max(scores) < 1


def test_harmonic_mean_in_a_pipeline(sounds, classifier):
    X, y = sounds
    pipeline = make_pipeline(StandardScaler(), classifier)
    pipeline.fit(X[y <= LABELS[2]], y[y <= LABELS[2]])
    assert 0 <= zero_shot_scorer("harmonic_mean")(pipeline, X, y) <= 1


def test_several_metrics_do_not_share_predictions(sounds, classifier):
    X, y = sounds
    scoring = {
        "seen only": "accuracy",
        "seen too": "f1_micro",
        "unseen": zero_shot_scorer("accuracy"),
        "all": zero_shot_scorer("accuracy", include_seen=True),
        "loss": zero_shot_scorer("neg_log_loss"),
    }
    result = cross_validate(classifier, X, y, cv=CV, scoring=scoring)
    for name, scorer in scoring.items():
        alone = cross_val_score(classifier, X, y, cv=CV, scoring=scorer)
        np.testing.assert_array_equal(result[f"test_{name}"], alone)
    assert result["test_seen only"].max() == 0
    assert 0 < result["test_all"].mean() < result["test_unseen"].mean()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search(sounds, classifier, n_jobs):
    X, y = sounds
    shifts = [2.0, 0.0, -2.0]
    search = GridSearchCV(
        classifier,
        {"shift": shifts},
        scoring=zero_shot_scorer("accuracy"),
        cv=CV,
        n_jobs=n_jobs,
    ).fit(X, y)
    assert search.best_params_ == {"shift": 0.0}
    for index, shift in enumerate(shifts):
        expected = by_hand(
            clone(classifier).set_params(shift=shift), get_scorer("accuracy"), X, y
        )
        measured = [search.cv_results_[f"split{i}_test_score"][index] for i in range(3)]
        assert measured == expected
    assert search.best_estimator_.candidate_labels is None


def test_grid_search_of_several_metrics(sounds, classifier):
    X, y = sounds
    scoring = {
        name: zero_shot_scorer(name)
        for name in ("accuracy", "neg_log_loss", "f1_macro")
    }
    search = GridSearchCV(
        classifier, {"shift": [2.0, 0.0]}, scoring=scoring, refit="accuracy", cv=CV
    )
    search.fit(X, y)
    assert search.best_params_ == {"shift": 0.0}
    assert search.cv_results_["mean_test_neg_log_loss"].argmax() == 1


def test_nested_cross_validation(sounds, classifier):
    X, y = sounds
    scoring = zero_shot_scorer("accuracy")
    inner = UnseenClassKFold(n_splits=2)
    search = GridSearchCV(classifier, {"shift": [2.0, 0.0]}, scoring=scoring, cv=inner)
    scores = cross_val_score(search, X, y, cv=CV, scoring=scoring)
    expected = by_hand(classifier, get_scorer("accuracy"), X, y)
    assert scores.tolist() == expected


@pytest.mark.parametrize("scoring", ["accuracy", "harmonic_mean"])
def test_pickle(sounds, fitted, scoring):
    X, y = sounds
    scorer = zero_shot_scorer(scoring, candidate_labels=LABELS)
    copy = pickle.loads(pickle.dumps(scorer))
    assert repr(copy) == repr(scorer)
    assert copy(fitted, X, y) == scorer(fitted, X, y)


def test_repr():
    assert repr(zero_shot_scorer("f1_macro")) == "zero_shot_scorer('f1_macro')"
    assert repr(zero_shot_scorer("harmonic_mean")) == (
        "zero_shot_scorer('harmonic_mean', include_seen=True)"
    )
    scorer = zero_shot_scorer(fail, candidate_labels=["a", "b"], include_seen=True)
    assert repr(scorer) == (
        "zero_shot_scorer(fail, candidate_labels=['a', 'b'], include_seen=True)"
    )
    scorer = make_scorer(accuracy_score)
    assert repr(zero_shot_scorer(scorer)) == f"zero_shot_scorer({scorer!r})"


@pytest.fixture
def weighted(sounds, fitted):
    """A sample weight, and the accuracy with it."""
    X, y = sounds
    weight = np.random.default_rng(0).random(len(y))
    y_pred = clone(fitted).fit(X, y).predict(X)
    expected = accuracy_score(y, y_pred, sample_weight=weight)
    assert expected != accuracy_score(y, y_pred)
    return weight, expected


def test_sample_weight_is_routed_to_the_wrapped_scorer(sounds, fitted, weighted):
    X, y = sounds
    weight, expected = weighted
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        scores = cross_val_score(
            fitted,
            X,
            y,
            cv=[(np.arange(len(y)), np.arange(len(y)))],
            scoring=zero_shot_scorer(scorer),
            params={"sample_weight": weight},
        )
    assert scores == [expected]


def test_sample_weight_in_several_metrics(sounds, fitted, weighted):
    X, y = sounds
    weight, expected = weighted
    scoring = {name: zero_shot_scorer(name) for name in ("accuracy", "harmonic_mean")}
    scorer = check_scoring(fitted, scoring)
    scores = scorer(fitted, X, y, sample_weight=weight)
    assert scores["accuracy"] == expected
    # The one that takes no weight is called without it.
    assert scores["harmonic_mean"] == scoring["harmonic_mean"](fitted, X, y)
