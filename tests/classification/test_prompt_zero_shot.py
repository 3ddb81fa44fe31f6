import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from sklabelaudio.classification import PromptZeroShotClassifier
from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.model_selection import UnseenClassKFold, zero_shot_scorer
from sklabelaudio.text import LabelTextEmbedder

LABELS = ["birds", "car", "dog", "rain", "siren"]


def make_case(n_clips=40):
    """Random label vectors, and clips around them in the same space."""
    rng = np.random.default_rng(0)
    vectors = {label: rng.normal(size=6) for label in [*LABELS, "owl"]}
    y = np.resize(LABELS, n_clips)
    X = np.stack([vectors[label] for label in y]) + rng.normal(size=(n_clips, 6))
    return vectors, X * rng.uniform(0.1, 10, (n_clips, 1)), y


def cosines(vectors, X, labels=LABELS):
    """Cosine similarities, one by one."""
    return np.array(
        [
            [
                x
                @ vectors[label]
                / np.sqrt((x @ x) * (vectors[label] @ vectors[label]))
                for label in labels
            ]
            for x in X
        ]
    )


class NumberEmbedder(BaseEstimator):
    """Embeds numbers as points of a circle."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([np.cos(X), np.sin(X)], axis=1)


@pytest.mark.parametrize("logit_scale", [1, 1 / 0.07, 100])
def test_is_the_softmax_of_scaled_cosines(logit_scale):
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors, logit_scale=logit_scale).fit(X, y)
    expected = cosines(vectors, X)
    np.testing.assert_allclose(classifier.decision_function(X), expected, atol=1e-6)
    powers = np.exp(logit_scale * expected)
    proba = classifier.predict_proba(X)
    np.testing.assert_allclose(proba, powers / powers.sum(1, keepdims=True), atol=1e-6)
    predicted = classifier.predict(X)
    assert predicted.tolist() == [LABELS[i] for i in expected.argmax(axis=1)]
    assert classifier.score(X, y) > 0.5


def test_is_the_sigmoid_of_scaled_cosines_and_a_bias():
    vectors, X, _ = make_case()
    classifier = PromptZeroShotClassifier(
        vectors, multi_label=True, candidate_labels=LABELS, logit_scale=8, logit_bias=-3
    ).fit()
    expected = 1 / (1 + np.exp(3 - 8 * cosines(vectors, X)))
    np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=1e-6)
    assert 0 < (expected >= 0.5).mean() < 1
    for threshold in (0.5, 0.9):
        classifier.set_params(threshold=threshold)
        predicted = classifier.predict(X)
        assert np.array_equal(predicted, expected >= threshold)
        assert predicted.dtype.kind == "i"
    # A bias of -scale * c makes a cosine of c a half.
    classifier.set_params(logit_bias=-8 * 0.25, threshold=0.5)
    assert np.array_equal(classifier.predict(X), cosines(vectors, X) >= 0.25)


def test_lengths_and_orders_change_nothing():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors).fit(X, y)
    scores = classifier.decision_function(X)
    rng = np.random.default_rng(1)
    longer = {label: v * rng.uniform(0.1, 9) for label, v in vectors.items()}
    other = PromptZeroShotClassifier(longer, candidate_labels=LABELS[::-1]).fit()
    lengths = rng.uniform(1e-9, 1e9, (len(X), 1))
    np.testing.assert_allclose(other.decision_function(X * lengths), scores, atol=1e-6)
    order = rng.permutation(len(X))
    np.testing.assert_allclose(
        classifier.decision_function(X[order]), scores[order], atol=1e-12
    )
    np.testing.assert_allclose(
        classifier.decision_function(X[:3].astype(np.float32)), scores[:3], atol=1e-6
    )


def test_two_candidates_have_one_decision():
    vectors, X, _ = make_case()
    classifier = PromptZeroShotClassifier(vectors, candidate_labels=["siren", "car"])
    margin = classifier.fit().decision_function(X)
    first, second = cosines(vectors, X, ["car", "siren"]).T
    np.testing.assert_allclose(margin, second - first, atol=1e-6)
    assert np.array_equal(classifier.predict(X) == "siren", margin > 0)
    classifier.set_params(multi_label=True).fit()
    np.testing.assert_allclose(
        classifier.decision_function(X), np.stack([second, first], axis=1), atol=1e-6
    )


def test_thresholds_are_reached_by_what_equals_them():
    classifier = PromptZeroShotClassifier(NumberEmbedder(), reject_threshold=1.0)
    classifier.fit(y=[0, 1])
    assert classifier.predict([[3.0, 0.0]]).tolist() == [0]
    classifier = PromptZeroShotClassifier(NumberEmbedder(), multi_label=True)
    classifier.fit(y=[0, 1])
    assert classifier.predict([[0.0, 0.0]]).tolist() == [[1, 1]]


def test_zero_vectors_are_undecided():
    vectors, X, y = make_case()
    X[3] = 0
    classifier = PromptZeroShotClassifier(vectors, reject_threshold=0.1).fit(X, y)
    assert classifier.decision_function(X)[3].tolist() == [0] * 5
    np.testing.assert_allclose(classifier.predict_proba(X)[3], 0.2)
    assert classifier.predict(X)[3] == "none of these"


# What fits no label.


def test_reject_goes_by_the_cosine():
    vectors, X, y = make_case()
    plain = PromptZeroShotClassifier(vectors).fit(X, y)
    best = cosines(vectors, X).max(axis=1)
    middle = float(np.median(best))
    classifier = clone(plain).set_params(reject_threshold=middle).fit(X, y)
    predicted = classifier.predict(X)
    expected = np.where(best < middle, "none of these", plain.predict(X))
    assert (best < middle).sum() == len(X) // 2
    assert np.array_equal(predicted, expected)
    assert predicted.dtype.kind == "U"
    assert classifier.classes_.tolist() == LABELS
    assert np.array_equal(classifier.predict_proba(X), plain.predict_proba(X))
    # A label is enough, and more of them reject no less of what they do not fit.
    classifier.set_params(candidate_labels=["dog"], reject_label="no dog")
    own = cosines(vectors, X, ["dog"])[:, 0]
    expected = np.where(own < middle, "no dog", "dog")
    assert np.array_equal(classifier.predict(X), expected)


@pytest.mark.parametrize(
    ("labels", "reject_label", "kind"),
    [
        ([0, 1, 2], "none of these", "O"),
        ([0, 1, 2], -1, "i"),
        ([0, 1, 2], -1.5, "f"),
        ([0, 1, 2], None, "O"),
        ([0.0, 1.0], -1, "f"),
    ],
)
@pytest.mark.parametrize("threshold", [-1, 0.9, 2])
def test_reject_keeps_the_type_of_numbers(labels, reject_label, kind, threshold):
    classifier = PromptZeroShotClassifier(
        NumberEmbedder(), reject_threshold=threshold, reject_label=reject_label
    ).fit(y=labels)
    X = [[1, 0], [np.cos(1), np.sin(1)], [-1, -1]]
    predicted = classifier.predict(X)
    nearest = 2 if 2 in labels else 0
    expected = {
        -1: [0, 1, nearest],
        0.9: [0, 1, reject_label],
        2: [reject_label] * 3,
    }
    assert predicted.tolist() == expected[threshold]
    assert predicted.dtype.kind == kind
    classifier.set_params(reject_threshold=None)
    assert classifier.predict(X).dtype == np.array(labels).dtype


def test_reject_keeps_the_type_of_strings():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors, reject_threshold=-1)
    assert np.array_equal(classifier.fit(X, y).predict(X).dtype.kind, "U")
    classifier.set_params(reject_label=-1)
    assert classifier.predict(X).dtype == object
    classifier.set_params(reject_label="none").fit(X, y.astype(object))
    assert classifier.predict(X).dtype == object


def test_reject_label_is_no_candidate():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(
        vectors, reject_threshold=0, reject_label="dog"
    )
    with pytest.raises(ValueError, match="reject_label='dog' is a candidate"):
        classifier.fit(X, y).predict(X)
    classifier.set_params(candidate_labels=["rain", "car"]).predict(X)
    classifier.set_params(multi_label=True)
    with pytest.raises(ValueError, match="reject_threshold=0 with multi_label=True"):
        classifier.fit(X, y)


# Fits.


def test_clips_of_fit_teach_nothing():
    vectors, X, y = make_case()
    expected = PromptZeroShotClassifier(vectors).fit(X, y).predict_proba(X)
    for args in ((None, y), (None, LABELS), (None, pd.Series(y)), (X, y[::-1])):
        classifier = PromptZeroShotClassifier(vectors).fit(*args)
        assert np.array_equal(classifier.predict_proba(X), expected)
        assert classifier.seen_classes_.tolist() == LABELS
    for args in ((), (X,), (None, ["owl"])):
        classifier = PromptZeroShotClassifier(vectors, candidate_labels=LABELS)
        assert np.array_equal(classifier.fit(*args).predict_proba(X), expected)
        assert classifier.seen_classes_.tolist() == (["owl"] if len(args) > 1 else [])
        assert classifier.n_features_in_ == 6
    only = PromptZeroShotClassifier(vectors).fit(X, ["dog"] * len(X))
    assert set(only.predict(X)) == {"dog"}
    assert only.decision_function(X).shape == (len(X), 1)


def test_candidates_are_what_predictions_speak_of():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors).fit(X, y)
    classifier.set_params(candidate_labels=["owl", "dog", "car"])
    assert classifier.classes_.tolist() == ["car", "dog", "owl"]
    assert classifier.seen_classes_.tolist() == LABELS
    expected = cosines(vectors, X, ["car", "dog", "owl"])
    np.testing.assert_allclose(classifier.decision_function(X), expected, atol=1e-6)
    assert "owl" in classifier.predict(X)
    loaded = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(loaded.predict_proba(X), classifier.predict_proba(X))


def test_labels_of_the_last_fit_need_no_text_model():
    vectors, X, y = make_case()
    keyed = KeyedVectors(6)
    keyed.add_vectors(list(vectors), np.float32(list(vectors.values())))
    classifier = PromptZeroShotClassifier(LabelTextEmbedder(keyed)).fit(X, y)
    expected = classifier.predict_proba(X)
    del classifier.label_embedder_._encoder
    classifier.label_embedder_.model = "a folder that was on another machine"
    assert np.array_equal(classifier.predict_proba(X), expected)


def test_label_embedder_is_left_alone():
    vectors, X, y = make_case()
    embedder = LabelTextEmbedder(vectors)
    classifier = PromptZeroShotClassifier(embedder).fit(X, y)
    assert not hasattr(embedder, "n_components_")
    assert classifier.label_embedder_.n_components_ == 6


def test_default_is_the_default_text_embedder(monkeypatch):
    vectors, X, y = make_case()
    monkeypatch.setattr(
        "sklabelaudio.classification._frozen_zero_shot.LabelTextEmbedder",
        partial(LabelTextEmbedder, vectors),
    )
    classifier = PromptZeroShotClassifier().fit(X, y)
    expected = PromptZeroShotClassifier(LabelTextEmbedder(vectors)).fit(X, y)
    assert np.array_equal(classifier.predict_proba(X), expected.predict_proba(X))


def test_prompts_are_searched():
    # Of these words "loud" turns every label's vector to that of its sound.
    rng = np.random.default_rng(0)
    words = {label: rng.normal(size=6) for label in LABELS}
    words |= {"loud": 9 * rng.normal(size=6), "a": rng.normal(size=6)}
    y = np.resize(LABELS, 40)
    X = np.stack([words[label] + words["loud"] for label in y])
    X += rng.normal(0, 0.1, X.shape)
    keyed = KeyedVectors(6)
    keyed.add_vectors(list(words), np.float32(list(words.values())))
    prompts = [None, "a {label}", "loud {label}", ["a {label}", "{label}"]]
    search = GridSearchCV(
        PromptZeroShotClassifier(LabelTextEmbedder(keyed)),
        {"label_embedder__prompt": prompts, "logit_scale": [1.0, 100.0]},
        scoring="neg_log_loss",
    ).fit(X, y)
    assert search.best_params_ == {
        "label_embedder__prompt": "loud {label}",
        "logit_scale": 100.0,
    }
    # An ensemble is the mean of its prompts' vectors.
    both = PromptZeroShotClassifier(LabelTextEmbedder(keyed, prompt=prompts[3]))
    mean = {label: words[label] * 0.75 + words["a"] * 0.25 for label in LABELS}
    np.testing.assert_allclose(
        both.fit(X, y).decision_function(X), cosines(mean, X), atol=1e-6
    )


def test_zero_shot_scorer_offers_the_labels_of_each_fold():
    vectors, X, _ = make_case(n_clips=60)
    y = PromptZeroShotClassifier(vectors).fit(y=LABELS).predict(X)
    scores = cross_val_score(
        PromptZeroShotClassifier(vectors),
        X,
        y,
        cv=UnseenClassKFold(n_splits=2),
        scoring=zero_shot_scorer("accuracy"),
    )
    assert scores.tolist() == [1, 1]  # the best of all is the best of some as well


# Several labels a clip.

SETS = [["rain", "dog"], [], ["dog"], ["siren"]]
INDICATOR = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
COLUMNS = ["rain", "dog", "siren"]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (SETS, ["dog", "rain", "siren"]),
        ([set(labels) for labels in SETS], ["dog", "rain", "siren"]),
        (pd.Series(SETS), ["dog", "rain", "siren"]),
        (np.array([["rain", "dog"]] * 4), ["dog", "rain"]),
        (["rain", "dog", "dog", "siren"], ["dog", "rain", "siren"]),
        (pd.DataFrame(INDICATOR, columns=COLUMNS), COLUMNS),
        (pd.DataFrame(INDICATOR == 1, columns=COLUMNS), COLUMNS),
    ],
)
def test_multi_label_targets_name_the_columns(y, expected):
    vectors, X, _ = make_case(n_clips=4)
    classifier = PromptZeroShotClassifier(vectors, multi_label=True).fit(X, y)
    assert classifier.seen_classes_.tolist() == expected
    assert classifier.classes_.tolist() == expected
    np.testing.assert_allclose(
        classifier.decision_function(X), cosines(vectors, X, expected), atol=1e-6
    )


@pytest.mark.parametrize(
    "form", [np.asarray, csr_array, np.ndarray.tolist, partial(np.asarray, dtype=float)]
)
def test_indicator_matrix_has_the_order_of_the_candidates(form):
    vectors, X, _ = make_case(n_clips=4)
    classifier = PromptZeroShotClassifier(
        vectors, multi_label=True, candidate_labels=COLUMNS
    )
    y = form(INDICATOR)
    assert classifier.fit(X, y).seen_classes_.tolist() == COLUMNS
    np.testing.assert_allclose(
        classifier.decision_function(X), cosines(vectors, X, COLUMNS), atol=1e-6
    )
    assert classifier.score(X, classifier.predict(X)) == 1


@pytest.mark.parametrize(
    ("y", "candidates", "message"),
    [
        (INDICATOR, None, "columns have no names: set candidate_labels"),
        (INDICATOR, ["dog", "rain"], "3 columns and candidate_labels 2 labels"),
        (INDICATOR * 2, COLUMNS, "values such as 2: an indicator matrix holds 0 and 1"),
        (INDICATOR[:3], COLUMNS, r"inconsistent numbers of samples.*4.*3"),
        (
            pd.DataFrame(INDICATOR, columns=COLUMNS),
            sorted(COLUMNS),
            "the same in another order",
        ),
        ([0.5, 0.2, 0.1, 0.9], COLUMNS, "Unknown label type"),
        (INDICATOR, ["dog", "rain", "dog"], r"\['dog'\] more than once"),
        (None, [], "at least 1 to choose from"),
    ],
)
def test_bad_multi_label_targets_are_named(y, candidates, message):
    vectors, X, _ = make_case(n_clips=4)
    classifier = PromptZeroShotClassifier(
        vectors, multi_label=True, candidate_labels=candidates
    )
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, y)


# Errors.


def test_another_space_is_named():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors)
    with pytest.raises(ValueError, match=r"X has 5 columns and .* have 6: both must"):
        classifier.fit(X[:, 1:], y)
    for args in ((X, y), (None, y)):
        classifier.fit(*args)
        with pytest.raises(ValueError, match=r"X has 5 features, but .* 6 features"):
            classifier.predict(X[:, 1:])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"label_embedder": 3}, "'label_embedder' parameter"),
        ({"logit_scale": 0}, "'logit_scale' parameter.*Got 0"),
        ({"logit_scale": -1}, "'logit_scale' parameter.*Got -1"),
        ({"logit_bias": np.inf}, "'logit_bias' parameter.*Got inf"),
        ({"threshold": -0.1}, "'threshold' parameter.*Got -0.1"),
        ({"reject_threshold": "low"}, "'reject_threshold' parameter"),
        ({"reject_label": ["none"]}, "'reject_label' parameter"),
        ({"multi_label": "yes"}, "'multi_label' parameter"),
        ({"candidate_labels": 3}, "'candidate_labels' parameter"),
        ({"candidate_labels": ["dog"]}, "at least 2 to choose from"),
        ({"candidate_labels": ["dog", "violin"]}, "violin"),
        ({"label_embedder": {"dog": [0, 0], "car": [1, 0]}}, "'dog' is zero, which ha"),
    ],
)
def test_bad_parameters_are_named(params, message):
    vectors, _, _ = make_case()
    classifier = PromptZeroShotClassifier(vectors).set_params(**params)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        classifier.fit(y=["dog", "car"])


def test_bad_inputs_are_named():
    vectors, X, y = make_case()
    classifier = PromptZeroShotClassifier(vectors)
    with pytest.raises(ValueError, match=r"requires y to be passed.*candidate_labels"):
        classifier.fit(X)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples.*40.*39"):
        classifier.fit(X, y[:-1])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        classifier.fit(X, np.eye(len(X)))
    with pytest.raises(TypeError, match=r"1.* is a int, a label is a string"):
        classifier.fit(y=[1, 2])
    with pytest.raises(UnknownLabelError, match="violin"):
        classifier.fit(y=["dog", "violin"])
    with pytest.raises(NotFittedError):
        PromptZeroShotClassifier(vectors).predict(X)
    classifier.fit(X, y)
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN.* 1 of 40 rows.*row 7.*leave these"):
        classifier.predict(X)
    classifier.set_params(candidate_labels=["dog", "dog"])
    with pytest.raises(ValueError, match="more than once"):
        classifier.predict(X[:1])
