import math
import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklabelaudio.classification import TaggerZeroShotClassifier
from sklabelaudio.datasets import load_esc50
from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.model_selection import UnseenClassKFold, zero_shot_scorer
from sklabelaudio.text import LabelTextEmbedder

CANDIDATES = ["birds", "car", "dog", "rain", "siren"]
TAGGER_LABELS = [f"class {k}" for k in range(12)]


def make_case(seed=0, n_clips=40):
    """Random label vectors, and random probabilities of random taggers."""
    rng = np.random.default_rng(seed)
    labels = [*TAGGER_LABELS, *CANDIDATES, "owl"]
    vectors = {label: rng.normal(size=6).astype(np.float32) for label in labels}
    return vectors, rng.uniform(size=(n_clips, 12)) ** 3


def make_classifier(vectors, **params):
    return TaggerZeroShotClassifier(
        vectors, tagger_labels=TAGGER_LABELS, candidate_labels=CANDIDATES, **params
    )


def cosine(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = [math.sqrt(sum(x * x for x in v)) for v in (a, b)]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def bridge(vectors, clip, candidate, temperature, top_k=None):
    """The bridge's score of one clip and one label, by its formula."""
    pairs = [
        (cosine(vectors[candidate], vectors[label]), probability)
        for label, probability in zip(TAGGER_LABELS, clip, strict=True)
    ]
    pairs = sorted(pairs, reverse=True)[:top_k]
    weights = [math.exp(similarity / temperature) for similarity, _ in pairs]
    return sum(w * p for w, (_, p) in zip(weights, pairs, strict=True)) / sum(weights)


def conse(vectors, clip, candidate, top_k):
    """ConSE's score of one clip and one label, by its formula."""
    top = sorted(zip(clip, TAGGER_LABELS, strict=True), reverse=True)[:top_k]
    total = sum(probability for probability, _ in top)
    mean = np.zeros(6)
    for probability, label in top:
        vector = vectors[label].astype(float)
        mean += probability / total * vector / math.sqrt(sum(vector * vector))
    return cosine(mean, vectors[candidate])


@pytest.mark.parametrize("temperature", [0.02, 0.1, 3])
@pytest.mark.parametrize("top_k", [None, 1, 4, 12, 99])
def test_bridge_is_its_formula(temperature, top_k):
    vectors, X = make_case()
    classifier = make_classifier(vectors, temperature=temperature, top_k=top_k).fit()
    expected = [
        [bridge(vectors, clip, label, temperature, top_k) for label in CANDIDATES]
        for clip in X
    ]
    scores = classifier.decision_function(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    proba = classifier.predict_proba(X)
    np.testing.assert_allclose(proba, expected / np.sum(expected, axis=1)[:, None])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    best = np.argmax(expected, axis=1)
    assert classifier.predict(X).tolist() == [CANDIDATES[i] for i in best]


@pytest.mark.parametrize("top_k", [None, 1, 4, 12])
def test_conse_is_its_formula(top_k):
    vectors, X = make_case()
    classifier = make_classifier(vectors, method="conse", top_k=top_k, temperature=0.3)
    expected = [
        [conse(vectors, clip, label, top_k or 10) for label in CANDIDATES] for clip in X
    ]
    scores = classifier.fit().decision_function(X)
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    powers = np.exp(np.array(expected) / 0.3)
    np.testing.assert_allclose(
        classifier.predict_proba(X), powers / powers.sum(axis=1, keepdims=True)
    )
    assert classifier.predict(X[:1]) == CANDIDATES[np.argmax(expected[0])]


@pytest.mark.parametrize("method", ["bridge", "conse"])
def test_orders_and_lengths_change_nothing(method):
    vectors, X = make_case()
    classifier = make_classifier(vectors, method=method, temperature=0.1, top_k=3).fit()
    scores = classifier.decision_function(X)
    order = np.random.default_rng(1).permutation(12)
    lengths = np.random.default_rng(2).uniform(0.1, 9, len(vectors))
    shuffled = TaggerZeroShotClassifier(
        dict(zip(vectors, lengths[:, None] * list(vectors.values()), strict=True)),
        tagger_labels=[TAGGER_LABELS[k] for k in order],
        candidate_labels=CANDIDATES[::-1],
        method=method,
        temperature=0.1,
        top_k=3,
    ).fit()
    assert shuffled.classes_.tolist() == CANDIDATES
    np.testing.assert_allclose(
        shuffled.decision_function(X[:, order]), scores, atol=1e-7
    )
    clips = np.random.default_rng(3).permutation(len(X))
    np.testing.assert_allclose(
        classifier.decision_function(X[clips]), scores[clips], atol=1e-12
    )
    np.testing.assert_allclose(
        classifier.decision_function(X[:1].astype(np.float32)), scores[:1], rtol=1e-6
    )


def test_the_lowest_temperature_takes_the_nearest_class():
    vectors, X = make_case()
    classifier = make_classifier(vectors, temperature=1e-6).fit()
    nearest = [
        max(range(12), key=lambda k: cosine(vectors[label], vectors[TAGGER_LABELS[k]]))
        for label in CANDIDATES
    ]
    np.testing.assert_allclose(classifier.decision_function(X), X[:, nearest])
    classifier.set_params(temperature=1.0, top_k=1)
    np.testing.assert_allclose(classifier.decision_function(X), X[:, nearest])


def test_a_class_of_the_tagger_keeps_its_probability():
    vectors, X = make_case()
    classifier = make_classifier(vectors, temperature=1e-6).fit()
    classifier.set_params(candidate_labels=["class 3", "class 0", "class 7"])
    np.testing.assert_allclose(classifier.decision_function(X), X[:, [0, 3, 7]])


def test_classes_equal_to_the_last_of_the_top_count_too():
    vectors = {"a": [1, 0], "b": [0, 1], "c": [0, 1], "x": [0.6, 0.8], "y": [1, 0.1]}
    classifier = TaggerZeroShotClassifier(
        vectors, tagger_labels=list("abc"), candidate_labels=list("xy"), top_k=1
    ).fit()
    explained, _ = classifier.explain([[0.3, 0.5, 0.5]] * 2, labels="x", n_classes=None)
    assert [row.weight for row in explained.classes] == pytest.approx([0.5, 0.5, 0])
    classifier.set_params(method="conse")
    for clip in ([0.3, 0.5, 0.5], [0.3, 0.5, 0.4]):
        np.testing.assert_allclose(
            classifier.decision_function([clip])[0],
            cosine([0, 1], [1, 0.1]) - cosine([0, 1], [0.6, 0.8]),
        )


@pytest.mark.parametrize("method", ["bridge", "conse"])
def test_silence_is_undecided(method):
    vectors, _ = make_case()
    classifier = make_classifier(vectors, method=method).fit()
    silence = np.zeros((2, 12))
    assert classifier.decision_function(silence).tolist() == [[0] * 5] * 2
    np.testing.assert_allclose(classifier.predict_proba(silence), 0.2)
    assert [row.score for row in classifier.explain(silence)] == [0, 0]
    classifier.set_params(reject_threshold=0.01)
    assert classifier.predict(silence).tolist() == ["none of these"] * 2


@pytest.mark.parametrize("method", ["bridge", "conse"])
def test_two_candidates_have_one_decision(method):
    vectors, X = make_case()
    classifier = make_classifier(vectors, method=method, temperature=0.3).fit()
    scores = classifier.decision_function(X)
    classifier.set_params(candidate_labels=["siren", "car"])
    margin = classifier.decision_function(X)
    np.testing.assert_allclose(margin, scores[:, 4] - scores[:, 1])
    assert np.array_equal(classifier.predict(X) == "siren", margin > 0)
    proba = classifier.predict_proba(X)
    assert proba.shape == (len(X), 2)
    assert np.array_equal(proba[:, 1] > 0.5, margin > 0)


def test_reject_goes_by_the_score():
    vectors, X = make_case()
    classifier = make_classifier(vectors).fit()
    labels, best = classifier.predict(X), classifier.decision_function(X).max(axis=1)
    middle = float(np.median(best))
    classifier.set_params(reject_threshold=middle)
    expected = np.where(best < middle, "none of these", labels)
    assert (best < middle).sum() == len(X) // 2
    assert np.array_equal(classifier.predict(X), expected)
    assert "none of these" not in classifier.classes_


# Several labels a clip.


def test_multi_label_probabilities_are_the_scores():
    vectors, X = make_case()
    scores = make_classifier(vectors, temperature=0.1).fit().decision_function(X)
    classifier = make_classifier(vectors, temperature=0.1, multi_label=True)
    classifier.set_params(threshold=0.3).fit()
    assert np.array_equal(classifier.predict_proba(X), scores)
    predicted = classifier.predict(X)
    assert predicted.dtype.kind == "i"
    assert np.array_equal(predicted, scores >= 0.3)
    assert 0 < predicted.mean() < 1
    classifier.set_params(candidate_labels=["siren", "car"])  # columns stay in order
    np.testing.assert_allclose(classifier.decision_function(X), scores[:, [4, 1]])
    classifier.set_params(candidate_labels=["dog"])
    np.testing.assert_allclose(classifier.predict_proba(X), scores[:, [2]])


def test_multi_label_probabilities_are_none_above_one():
    vectors, _ = make_case()
    classifier = make_classifier(vectors, multi_label=True).fit()
    classifier.set_params(candidate_labels=list(vectors))
    for temperature in np.geomspace(0.1, 10, 50):
        proba = classifier.set_params(temperature=temperature).predict_proba([[1] * 12])
        np.testing.assert_allclose(proba, 1)
        assert proba.max() <= 1  # sums of weights may be more, by rounding


@pytest.mark.parametrize("labels", [["dog", "rain"], ["rain", "dog", "car"]])
def test_multi_label_scorers_read_the_columns(labels):
    vectors, X = make_case()
    classifier = make_classifier(vectors, multi_label=True, temperature=0.1)
    classifier.set_params(candidate_labels=labels)
    scores = classifier.fit().predict_proba(X)
    noise = np.random.default_rng(0).normal(0, 0.2, scores.shape)
    Y = (scores + noise > scores.mean(axis=0)).astype(int)
    expected = {
        None: np.mean((classifier.predict(X) == Y).all(axis=1)),
        "f1_macro": f1_score(Y, scores >= 0.5, average="macro", zero_division=0),
        "roc_auc": roc_auc_score(Y, scores),
        "average_precision": average_precision_score(Y, scores),
    }
    if len(labels) == 2:  # scikit-learn asks these for a positive label
        del expected["average_precision"]
    folds = [(np.arange(5), np.arange(40))]
    for scoring, score in expected.items():
        result = cross_val_score(classifier, X, Y, cv=folds, scoring=scoring)
        assert result == pytest.approx(score)


def test_multi_label_needs_probabilities():
    vectors, X = make_case()
    with pytest.raises(ValueError, match=r"'conse' with multi_label=True.*'bridge'"):
        make_classifier(vectors, method="conse", multi_label=True).fit()
    classifier = make_classifier(vectors, multi_label=True).fit()
    with pytest.raises(ValueError, match=r"above 1, such as 100"):
        classifier.predict(X / X.max() * 100)


# Explanations.


@pytest.mark.parametrize("method", ["bridge", "conse"])
@pytest.mark.parametrize("top_k", [None, 3])
def test_contributions_sum_to_the_decision(method, top_k):
    vectors, X = make_case()
    classifier = make_classifier(vectors, method=method, temperature=0.2, top_k=top_k)
    classifier.fit()
    scores = classifier.decision_function(X)
    for label, column in zip(CANDIDATES, scores.T, strict=True):
        explanations = classifier.explain(X, labels=label, n_classes=None)
        for clip, explained, score in zip(X, explanations, column, strict=True):
            assert explained.label == label
            assert explained.score == pytest.approx(score, abs=1e-12)
            parts = [row.contribution for row in explained.classes]
            assert sum(parts) == pytest.approx(score, abs=1e-12)
            assert parts == sorted(parts, reverse=True)
            assert sorted(row.label for row in explained.classes) == sorted(
                TAGGER_LABELS
            )
            for row in explained.classes:
                assert row.probability == clip[TAGGER_LABELS.index(row.label)]
                assert row.contribution == pytest.approx(row.probability * row.weight)


def test_explains_predictions_and_labels_that_are_no_candidates():
    vectors, X = make_case()
    classifier = make_classifier(vectors).fit()
    predicted = classifier.predict(X)
    classifier.set_params(reject_threshold=0.9)  # what was best is told all the same
    explanations = classifier.explain(X, n_classes=3)
    assert [explained.label for explained in explanations] == predicted.tolist()
    assert {len(explained.classes) for explained in explanations} == {3}
    assert explanations == classifier.explain(X, labels=predicted, n_classes=3)
    (owl,) = classifier.explain(X[:1], labels="owl")
    assert owl.score == pytest.approx(bridge(vectors, X[0], "owl", 0.02))
    table = pd.DataFrame(owl.classes)
    assert list(table) == ["label", "probability", "weight", "contribution"]
    assert len(table) == 5


def test_explanations_can_be_read():
    vectors = {"Bark": [1, 0], "Rain": [0, 1], "dog": [1, 0], "storm": [0, 1]}
    classifier = TaggerZeroShotClassifier(
        vectors, tagger_labels=["Bark", "Rain"], candidate_labels=["dog", "storm"]
    ).fit()
    assert repr(classifier.explain([[0.8, 0.1]])[0]).splitlines() == [
        "'dog' scores 0.8000",
        "  contribution = probability x weight",
        "        0.8000        0.8000   1.0000  Bark",
        "        0.0000        0.1000   0.0000  Rain",
    ]


def test_bad_explanations_are_named():
    vectors, X = make_case()
    classifier = make_classifier(vectors)
    with pytest.raises(NotFittedError):
        classifier.explain(X)
    classifier.fit()
    with pytest.raises(ValueError, match="labels has 2 labels and X 40 clips"):
        classifier.explain(X, labels=["dog", "rain"])
    with pytest.raises(ValueError, match=r"'n_classes' parameter.*Got 0"):
        classifier.explain(X, n_classes=0)
    with pytest.raises(UnknownLabelError, match="violin"):
        classifier.explain(X, labels="violin")


# The tagger's classes.


def test_takes_a_list_of_classes_from_a_file(tmp_path):
    vectors, X = make_case()
    vectors["Chicken, rooster"] = vectors.pop("class 1")
    names = [label.replace("class 1", "Chicken, rooster") for label in TAGGER_LABELS]
    names[10:] = TAGGER_LABELS[10:]
    rows = [f'{i},/m/{i},"{name}"' for i, name in enumerate(names)]
    path = tmp_path / "class_labels_indices.csv"
    path.write_text("\n".join(["index,mid,display_name", *rows, ""]))
    expected = make_classifier(vectors).set_params(tagger_labels=names).fit()
    for where in (path, str(path)):
        classifier = make_classifier(vectors).set_params(tagger_labels=where).fit()
        assert classifier.tagger_labels_.tolist() == names
        assert np.array_equal(classifier.predict_proba(X), expected.predict_proba(X))


def test_takes_the_names_of_columns():
    vectors, X = make_case()
    table = pd.DataFrame(X, columns=TAGGER_LABELS)
    classifier = make_classifier(vectors).set_params(tagger_labels=None).fit(table)
    assert classifier.feature_names_in_.tolist() == TAGGER_LABELS
    expected = make_classifier(vectors).fit().predict_proba(X)
    assert np.array_equal(classifier.predict_proba(table), expected)
    tagger = FunctionTransformer(
        feature_names_out=lambda transformer, names: np.array(TAGGER_LABELS)
    ).set_output(transform="pandas")
    pipeline = make_pipeline(tagger, clone(classifier)).fit(X)
    assert np.array_equal(pipeline.predict_proba(X), expected)
    # A fit without clips forgets the names, and takes tables as well as arrays.
    classifier.set_params(tagger_labels=TAGGER_LABELS).fit()
    assert not hasattr(classifier, "feature_names_in_")
    assert np.array_equal(classifier.predict_proba(table), expected)
    numbered = table.set_axis([f"class{k}" for k in range(12)], axis=1)
    assert np.array_equal(classifier.predict_proba(numbered), expected)


def test_numbers_of_columns_are_no_names():
    vectors, X = make_case()
    table = pd.DataFrame(X, columns=[f"yamnetembedder{k}" for k in range(12)])
    classifier = make_classifier(vectors).set_params(tagger_labels=None)
    with pytest.raises(ValueError, match=r"and yamnetembedder0 is none: name the"):
        classifier.fit(table)


@pytest.mark.parametrize("fitted_on", ["nothing", "array"])
def test_columns_in_another_order_are_named(fitted_on):
    vectors, X = make_case()
    table = pd.DataFrame(X, columns=TAGGER_LABELS)[TAGGER_LABELS[::-1]]
    classifier = make_classifier(vectors)
    with pytest.raises(ValueError, match="tagger_labels in another order"):
        classifier.fit(table)
    classifier.fit(X if fitted_on == "array" else None)
    with pytest.raises(ValueError, match="tagger_labels in another order"):
        classifier.predict(table)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tagger_labels": None}, "tagger_labels=None takes the names.*set_output"),
        ({"tagger_labels": TAGGER_LABELS[1:]}, "12 columns and tagger_labels 11 label"),
        (
            {"tagger_labels": [*TAGGER_LABELS[1:], "class 5"]},
            r"\['class 5'\] more than once",
        ),
        ({"tagger_labels": [*TAGGER_LABELS[1:], "gong"]}, "no vector for 'gong'"),
        ({"tagger_labels": 521}, "'tagger_labels' parameter"),
        ({"method": "mean"}, "'method' parameter.*'mean'"),
        ({"temperature": 0}, "'temperature' parameter.*Got 0"),
        ({"top_k": 0}, "'top_k' parameter.*Got 0"),
        ({"threshold": 1.5}, r"'threshold' parameter.*Got 1\.5"),
        ({"candidate_labels": None}, "requires y to be passed.*or set candidate_label"),
        ({"candidate_labels": ["dog", "violin"]}, "violin"),
        ({"candidate_labels": ["dog"]}, "at least 2 to choose from"),
        ({"label_embedder": "word2vec.bin"}, "'label_embedder' parameter"),
        (
            {"multi_label": True, "reject_threshold": 0.1},
            "reject_threshold=0.1 with multi_label=True.*set threshold",
        ),
    ],
)
def test_bad_parameters_are_named(params, message):
    vectors, X = make_case()
    classifier = make_classifier(vectors).set_params(**params)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        classifier.fit(X)


def test_bad_clips_are_named():
    vectors, X = make_case()
    classifier = make_classifier(vectors).fit()
    for method in (classifier.fit, classifier.predict):
        with pytest.raises(ValueError, match=r"such as -3: .*logits.*'probabilities'"):
            method(np.where(X.min() == X, -3, X))
        bad = X.copy()
        bad[[4, 7], 2] = np.nan
        with pytest.raises(ValueError, match=r"NaN.* 2 of 40 rows.*row 4.*can't be re"):
            method(bad)
    with pytest.raises(ValueError, match=r"X has 11 features, but .* 12 features"):
        classifier.predict(X[:, 1:])
    with pytest.raises(NotFittedError):
        clone(classifier).predict(X)


# Fits, searches and files.


class CountingEmbedder(BaseEstimator):
    """Embeds labels by a mapping, and writes down which."""

    asked = []

    def __init__(self, vectors=None, factor=1.0):
        self.vectors = vectors
        self.factor = factor

    def fit(self, X, y=None):
        self.labels_ = list(X)
        return self

    def transform(self, X):
        CountingEmbedder.asked.append(list(X))
        return np.stack([self.vectors[label] for label in X]) * self.factor


def test_labels_are_embedded_once(monkeypatch):
    vectors, X = make_case()
    monkeypatch.setattr(CountingEmbedder, "asked", [])
    asked = CountingEmbedder.asked
    classifier = make_classifier(CountingEmbedder(vectors)).fit(X)
    assert classifier.label_embedder_.labels_ == TAGGER_LABELS
    assert asked == [TAGGER_LABELS, CANDIDATES]
    for temperature in (0.01, 0.1):
        classifier.set_params(temperature=temperature).predict_proba(X)
    classifier.set_params(candidate_labels=["dog", "owl", "car"]).predict(X)
    classifier.set_params(candidate_labels=CANDIDATES).explain(X, labels="owl")
    assert asked[2:] == [["owl"]]
    state = pickle.dumps(classifier)
    pickle.loads(state).predict(X)
    assert len(asked) == 3
    classifier.fit(X)
    assert asked[3:] == [TAGGER_LABELS, CANDIDATES]


def test_vectors_follow_the_embedder_of_the_last_fit():
    vectors, X = make_case()
    others, _ = make_case(seed=5)
    classifier = make_classifier(vectors).fit()
    first = classifier.predict_proba(X)
    classifier.set_params(label_embedder=others)
    assert np.array_equal(classifier.predict_proba(X), first)
    second = classifier.fit().predict_proba(X)
    assert np.array_equal(second, make_classifier(others).fit().predict_proba(X))
    assert not np.allclose(second, first)


def test_clips_of_fit_teach_nothing():
    vectors, X = make_case()
    y = np.resize(CANDIDATES, len(X))
    expected = make_classifier(vectors).fit().predict_proba(X)
    for args in ((X,), (X[:7], y[:7]), (None, y), (X, y[::-1])):
        classifier = make_classifier(vectors).fit(*args)
        assert np.array_equal(classifier.predict_proba(X), expected)
        assert classifier.seen_classes_.tolist() == (CANDIDATES if args[1:] else [])
    classifier = make_classifier(vectors).set_params(candidate_labels=None)
    assert np.array_equal(classifier.fit(y=y).predict_proba(X), expected)
    classifier = make_classifier(vectors).fit().set_params(candidate_labels=None)
    with pytest.raises(ValueError, match="no labels to choose among"):
        classifier.predict(X)


def test_is_searched_with_the_prompt():
    vectors, X = make_case(n_clips=60)
    words = {**vectors, "loud": np.ones(6, np.float32)}
    words = {label.replace("class ", "klass"): v for label, v in words.items()}
    keyed = KeyedVectors(6)
    keyed.add_vectors(list(words), list(words.values()))
    classifier = TaggerZeroShotClassifier(
        LabelTextEmbedder(keyed),
        tagger_labels=[label.replace("class ", "klass") for label in TAGGER_LABELS],
    )
    # The right labels are those of one point of the grid.
    best = {
        "label_embedder__prompt": "loud {label}",
        "method": "bridge",
        "temperature": 0.3,
        "top_k": 4,
    }
    truth = clone(classifier).set_params(**best).fit(y=CANDIDATES)
    y = truth.predict(X)
    grid = {
        "label_embedder__prompt": [None, "loud {label}"],
        "method": ["bridge", "conse"],
        "temperature": [0.02, 0.3],
        "top_k": [2, 4],
    }
    folds = [(np.arange(60), np.arange(60))] * 2
    search = GridSearchCV(classifier, grid, cv=folds, n_jobs=2).fit(X, y)
    assert search.best_params_ == best
    assert search.best_score_ == 1
    assert (search.cv_results_["mean_test_score"] == 1).sum() == 1


def test_zero_shot_scorer_offers_the_labels_of_each_fold():
    vectors, X = make_case(n_clips=80)
    classifier = TaggerZeroShotClassifier(
        vectors, tagger_labels=TAGGER_LABELS, temperature=0.1
    )
    y = clone(classifier).fit(y=CANDIDATES).predict(X)
    scores = cross_val_score(
        classifier,
        X,
        y,
        cv=UnseenClassKFold(n_splits=2),
        scoring=zero_shot_scorer("accuracy"),
    )
    # The best of all labels is the best of some as well.
    assert scores.tolist() == [1, 1]


def test_survives_joblib_in_another_process(tmp_path):
    vectors, X = make_case()
    classifier = make_classifier(vectors, method="conse").fit()
    joblib.dump(classifier, tmp_path / "model.joblib")

    def load_and_predict(path):
        return joblib.load(path).decision_function(X)

    (scores,) = joblib.Parallel(n_jobs=2)(
        [joblib.delayed(load_and_predict)(tmp_path / "model.joblib")]
    )
    assert np.array_equal(scores, classifier.decision_function(X))


# Real taggers, a real text encoder, real clips.

TAGGERS = {
    "yamnet": ("score", "reference/checkpoints/yamnet/yamnet_class_map.csv"),
    "efficientat_mn04": ("probability", "data/audioset/class_labels_indices.csv"),
}


@pytest.fixture(scope="module", params=TAGGERS)
def tagged(request, shared, esc10):
    """Probabilities of a tagger for the clips of ESC-10, their labels, the classes."""
    key, class_list = TAGGERS[request.param]
    data = load_esc50(esc10)
    with np.load(esc10 / "embeddings" / f"{request.param}.npz") as file:
        row = {name: i for i, name in enumerate(file["filename"].tolist())}
        X = file[key][[row[Path(path).name] for path in data.data]]
    return X, data.target, shared / class_list


@pytest.mark.parametrize("prompt", [None, "an audio clip of {label}"])
def test_names_real_clips_without_training(minilm, tagged, prompt):
    X, y, class_list = tagged
    classifier = TaggerZeroShotClassifier(
        LabelTextEmbedder(minilm, prompt=prompt), tagger_labels=class_list
    ).fit(X, y)
    assert len(classifier.classes_) == 10
    assert classifier.score(X, y) >= 0.96
    classifier.set_params(temperature=0.01)
    assert classifier.score(X, y) >= 0.96
    classifier.set_params(method="conse", temperature=0.02, top_k=5)
    assert 0.70 < classifier.score(X, y) < 0.90
    dog = np.flatnonzero(y == "dog")
    classifier.set_params(method="bridge", top_k=None)
    names = [each.classes[0].label for each in classifier.explain(X[dog], "dog")]
    assert {"Dog", "Bark", "Bow-wow"} >= set(names)


def test_rejects_real_clips_of_other_labels(minilm, tagged):
    X, y, class_list = tagged
    candidates = ["chainsaw", "clock_tick", "dog", "rooster", "sneezing"]
    classifier = TaggerZeroShotClassifier(
        LabelTextEmbedder(minilm),
        tagger_labels=class_list,
        candidate_labels=candidates,
        reject_threshold=0.03,
    ).fit()
    truth = np.where(np.isin(y, candidates), y, "none of these")
    assert np.mean(classifier.predict(X) == truth) > 0.8
    classifier.set_params(reject_threshold=None)
    assert np.mean(classifier.predict(X) == truth) < 0.5
