import hashlib
import json
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklabelaudio.metrics import (
    make_omap_scorer,
    mean_average_precision,
    omap_levels,
    omap_score,
)
from sklabelaudio.model_selection import zero_shot_scorer

CASES = ["n200", "n200_ties", "n1000", "n1000_skew", "n3000", "n20371_skew"]
CASES += ["tree10_n60", "tree10_n400_ties", "tree10_n6_missing"]
CASES += ["dag12_n300", "float8_n200"]
LABELS = ["car", "giggle", "laughter", "rain"]
DISTANCES = np.array([[0, 5, 4, 2], [5, 0, 1, 6], [4, 1, 0, 5], [2, 6, 5, 0]])


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "reference" / "omap"


@pytest.fixture(scope="module")
def audioset_distances(folder):
    return np.load(folder / "audioset_distance_from_ontology_json.npz")["D"]


def draw(distances, *, n, seed, pos_hi=5, skew=0.0, round_to=None):
    """Draw targets and scores by the recipe of the reference figures."""
    rng = np.random.default_rng(seed)
    n_classes = len(distances)
    n_pos = rng.integers(1, pos_hi + 1, size=n)
    key = rng.random((n, n_classes))
    if skew > 0:
        key = -np.log1p(-key) * np.arange(1, n_classes + 1) ** skew
    first = np.argsort(key, axis=1, kind="stable")[:, :pos_hi]
    target = np.zeros((n, n_classes), dtype=np.int64)
    for rank in range(pos_hi):
        has_more = n_pos > rank
        target[has_more, first[has_more, rank]] = 1
    noise = rng.standard_normal((n, n_classes))
    near = np.array([distances[row > 0].min(axis=0) for row in target])
    z = noise - 3 + 3 * target + ((near > 0) & (near <= 2))
    score = 1 / (1 + np.exp(-z))
    if round_to is not None:
        score = np.round(score, round_to)
    return target, score.astype(np.float32)


def load_case(folder, audioset_distances, case):
    figures = np.load(folder / f"omap_A_{case}.npz")
    distances = figures.get("D", audioset_distances)
    if "target" in figures:
        target, score = figures["target"].astype(np.int64), figures["score"]
    else:
        target, score = draw(distances, **json.loads(figures["meta"].item()))
        digest = hashlib.sha256(target.tobytes()).hexdigest()
        assert digest == figures["sha_target_int64"].item()
    if hashlib.sha256(score.tobytes()).hexdigest() != figures["sha_score"].item():
        pytest.skip("this machine's exponential function gives other scores")
    return figures, distances, target, score


@pytest.mark.parametrize("case", CASES)
def test_every_reference_figure(folder, audioset_distances, case):
    figures, distances, target, score = load_case(folder, audioset_distances, case)

    def check(values, name):
        np.testing.assert_allclose(values, figures[name], rtol=0, atol=1e-12)

    zero = {"distances": distances, "zero_division": 0.0}
    check(omap_levels(target, score, average=None, **zero), "ap")
    check(omap_levels(target, score, **zero), "omap_level")
    check(omap_score(target, score, **zero), "omap")
    present = omap_levels(target, score, distances=distances, zero_division=np.nan)
    check(present, "omap_level_valid")
    check(present.mean(), "omap_valid")
    check(
        mean_average_precision(target, score, average=None, zero_division=0.0),
        "map_class",
    )
    check(mean_average_precision(target, score, zero_division=0.0), "map")
    check(mean_average_precision(target, score, zero_division=np.nan), "map_valid")


def test_hand_example(folder):
    example = json.loads((folder / "hand_example.json").read_text())
    target, score = example["target"], example["score"]
    by_class = omap_levels(target, score, distances=example["D"], average=None)
    np.testing.assert_allclose(by_class, list(example["ap"].values()), atol=1e-15)
    omap = omap_score(target, score, distances=example["D"])
    assert omap == pytest.approx(example["omap"], abs=1e-15)
    assert isinstance(omap, float)


@pytest.mark.parametrize("case", ["n1000", "n3000"])
def test_binary_weights_are_those_of_the_reference(folder, audioset_distances, case):
    figures, distances, target, score = load_case(folder, audioset_distances, case)
    variants = np.load(folder / "omap_variants_A_information_only.npz")
    levels = omap_levels(
        target, score, distances=distances, weighting="binary", zero_division=0.0
    )
    np.testing.assert_allclose(levels, variants[f"A_{case}_binary"], atol=1e-12)
    assert levels[0] == pytest.approx(figures["map"].item(), abs=1e-12)


def weigh_and_score(y_true, y_score, distances, *, level, weighting, weights=None):
    """The score of each class by scikit-learn, with weights of false positives."""
    n_clips, n_classes = y_true.shape
    weights = np.ones(n_clips) if weights is None else weights
    counted = distances * (distances > level)
    norm = counted.sum() / (n_classes * (n_classes - 1))
    scores = np.zeros(n_classes)
    for c in range(n_classes):
        penalties = []
        for row in y_true:
            d = min((distances[p, c] for p in np.flatnonzero(row)), default=None)
            d = distances.max() if d is None else d
            if weighting == "binary":
                penalties.append(float(d > level))
            else:
                penalties.append(d * (d > level) / (norm if norm > 1e-9 else 1))
        own = np.where(y_true[:, c], 1.0, penalties) * weights
        if y_true[:, c].any():
            scores[c] = average_precision_score(
                y_true[:, c], y_score[:, c], sample_weight=own
            )
    return scores


@st.composite
def problems(draw):
    n_clips, n_classes = draw(st.integers(1, 8)), draw(st.integers(2, 5))
    n_pairs = n_classes * (n_classes - 1) // 2
    kind = draw(st.sampled_from(["whole", "fractions"]))
    steps = st.integers(0, 6).map(lambda step: step if kind == "whole" else step / 3)
    distances = np.zeros((n_classes, n_classes))
    distances[np.triu_indices(n_classes, 1)] = draw(
        st.lists(steps, min_size=n_pairs, max_size=n_pairs)
    )
    size = n_clips * n_classes
    y_true = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    # Few values, so that scores are often equal.
    scores = st.sampled_from([-3.5, 0.0, 0.1, 0.25, 0.5, 2.0])
    y_score = draw(st.lists(scores, min_size=size, max_size=size))
    weights = st.sampled_from([0.25, 1.0, 3.0])
    weights = st.lists(weights, min_size=n_clips, max_size=n_clips).map(np.array)
    return {
        "y_true": np.reshape(y_true, (n_clips, n_classes)),
        "y_score": np.reshape(y_score, (n_clips, n_classes)),
        "distances": distances + distances.T,
        "level": draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 6.0])),
        "weighting": draw(st.sampled_from(["distance", "binary"])),
        "weights": draw(st.one_of(st.none(), weights)),
    }


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(problem=problems())
def test_is_average_precision_with_weights_of_false_positives(problem):
    expected = weigh_and_score(**problem)
    (scores,) = omap_levels(
        problem["y_true"],
        problem["y_score"],
        distances=problem["distances"],
        weighting=problem["weighting"],
        levels=[problem["level"]],
        sample_weight=problem["weights"],
        average=None,
        zero_division=0.0,
        unlabelled="farthest",
    )
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def make_scores(n_clips=60, n_classes=4, *, seed=0):
    rng = np.random.default_rng(seed)
    y_true = (rng.random((n_clips, n_classes)) < 0.3).astype(int)
    y_true[np.arange(n_clips), np.arange(n_clips) % n_classes] = 1
    return y_true, rng.normal(size=y_true.shape) + y_true


def score(y_true, y_score, distances=DISTANCES, **params):
    return omap_score(y_true, y_score, distances=distances, **params)


def test_many_different_distances():
    # More of them than a byte can tell apart.
    rng = np.random.default_rng(0)
    distances = np.triu(rng.uniform(1, 9, (40, 40)), 1)
    distances += distances.T
    y_true, y_score = make_scores(80, 40)
    levels = [0, 2.5, 7.9]
    by_class = omap_levels(
        y_true, y_score, distances=distances, levels=levels, average=None
    )
    for level, scores in zip(levels, by_class, strict=True):
        expected = weigh_and_score(
            y_true, y_score, distances, level=level, weighting="distance"
        )
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def test_what_does_not_change_the_score():
    y_true, y_score = make_scores()
    expected = score(y_true, y_score)
    assert 0.5 < expected < 1
    clips = np.random.default_rng(1).permutation(60)
    assert score(y_true[clips], y_score[clips]) == pytest.approx(expected)
    classes = [2, 0, 3, 1]
    assert score(
        y_true[:, classes], y_score[:, classes], DISTANCES[np.ix_(classes, classes)]
    ) == pytest.approx(expected)
    assert score(y_true, np.exp(y_score) - 5) == pytest.approx(expected)
    # Weights are relative to the mean distance, so levels are all that a unit changes.
    assert score(
        y_true, y_score, 3 * DISTANCES, levels=3 * np.arange(7)
    ) == pytest.approx(expected)


def test_near_confusions_cost_less():
    y_true = np.eye(4)[[0, 1, 2, 3]]
    near, far = 0.5 * y_true, 0.5 * y_true
    near[1, 2] = far[1, 3] = 0.9
    assert score(y_true, far) < score(y_true, near) < 1
    assert mean_average_precision(y_true, near) == mean_average_precision(y_true, far)


def test_levels():
    y_true, y_score = make_scores()
    everything = omap_levels(y_true, y_score, distances=DISTANCES)
    assert everything.shape == (7,)
    some = omap_levels(y_true, y_score, distances=DISTANCES, levels=[4, 0.5, 9, 0])
    np.testing.assert_array_equal(some[[0, 1, 3]], everything[[4, 0, 0]])
    assert some[2] == everything[6] == 1.0
    assert score(y_true, y_score, levels=[1, 3]) == everything[[1, 3]].mean()


def test_averages():
    y_true, y_score = make_scores()
    y_true[:, 1] = 0
    weights = np.linspace(0.5, 2, 60)
    zero = {
        "sample_weight": weights, "zero_division": 0.0, "unlabelled": "farthest"
    }  # fmt: skip
    by_class = score(y_true, y_score, average=None, **zero)
    assert by_class.shape == (4,)
    assert by_class[1] == 0
    assert score(y_true, y_score, **zero) == pytest.approx(by_class.mean())
    assert score(y_true, y_score, average="weighted", **zero) == pytest.approx(
        np.average(by_class, weights=weights @ y_true)
    )


@pytest.mark.parametrize("undefined", [0.0, 1.0, np.nan])
def test_class_without_positives(undefined):
    y_true, y_score = make_scores()
    y_true[:, [0, 2]] = 0
    rules = {"zero_division": undefined, "unlabelled": "farthest"}
    by_class = score(y_true, y_score, average=None, **rules)
    np.testing.assert_array_equal(by_class[[0, 2]], [undefined] * 2)
    assert score(y_true, y_score, **rules) == pytest.approx(np.nanmean(by_class))
    # Their number of clips is 0, so that they never count in this mean.
    assert score(y_true, y_score, average="weighted", **rules) == pytest.approx(
        np.average(by_class[[1, 3]], weights=y_true.sum(0)[[1, 3]])
    )


@pytest.mark.parametrize("undefined", [0.0, np.nan])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_no_positives_at_all(average, undefined):
    y_true, y_score = make_scores()
    value = score(
        0 * y_true,
        y_score,
        average=average,
        zero_division=undefined,
        unlabelled="farthest",
    )
    np.testing.assert_equal(value, undefined)


@pytest.mark.parametrize("metric", [omap_score, omap_levels, mean_average_precision])
def test_class_without_positives_counts_0_with_a_warning(metric):
    y_true, y_score = make_scores()
    y_true[:, 0], y_true[:, [1, 3]] = 1, 0
    settings = {} if metric is mean_average_precision else {"distances": DISTANCES}
    for labels, named in [(None, "the first column 1"), (LABELS, "the first 'giggle'")]:
        message = f"2 of 4 classes have no clip, {named}: they count as 0. Set zero_div"
        with pytest.warns(UndefinedMetricWarning, match=message) as caught:
            value = metric(y_true, y_score, labels=labels, **settings)
        assert len(caught) == 1
        np.testing.assert_array_equal(
            value, metric(y_true, y_score, zero_division=0.0, **settings)
        )
    # There they count nothing, whatever their score.
    metric(y_true, y_score, average="weighted", **settings)


def test_clip_without_labels_is_as_far_as_can_be_with_a_warning():
    y_true, y_score = make_scores()
    y_true[[7, 11]] = 0
    message = (
        "no label for 2 of 60 clips, the first in row 7: they are taken to be fart"
    )
    with pytest.warns(UndefinedMetricWarning, match=message) as caught:
        value = score(y_true, y_score)
    assert len(caught) == 1
    assert value == score(y_true, y_score, unlabelled="farthest")
    # One that is left out is none.
    weights = np.ones(60)
    weights[[7, 11]] = 0
    score(y_true, y_score, sample_weight=weights)


def test_clip_without_labels_is_as_far_as_can_be():
    y_true, y_score = make_scores()
    y_true[:5] = 0
    expected = [
        weigh_and_score(y_true, y_score, DISTANCES, level=level, weighting="distance")
        for level in range(7)
    ]
    farthest = {"unlabelled": "farthest"}
    assert score(y_true, y_score, **farthest) == pytest.approx(np.mean(expected))
    # At level 0 all false positives weigh the same, as they do in the plain score.
    binary = omap_levels(
        y_true, y_score, distances=DISTANCES, weighting="binary", **farthest
    )
    assert binary[0] == pytest.approx(mean_average_precision(y_true, y_score))


@pytest.mark.parametrize("weighted", [False, True])
def test_clip_without_labels_can_be_left_out(weighted):
    y_true, y_score = make_scores()
    y_true[:5] = 0
    weights = np.linspace(0.5, 2, 60) if weighted else None
    assert score(y_true, y_score, unlabelled="ignore", sample_weight=weights) == score(
        y_true[5:], y_score[5:], sample_weight=weights[5:] if weighted else None
    )


def test_sample_weights():
    y_true, y_score = make_scores()
    repeats = np.arange(60) % 4
    twice = score(np.repeat(y_true, repeats, 0), np.repeat(y_score, repeats, 0))
    assert score(y_true, y_score, sample_weight=repeats) == pytest.approx(twice)
    halves = score(y_true, y_score, sample_weight=repeats / 2)
    assert halves == pytest.approx(twice)


def name_labels(y_true):
    return [[LABELS[c] for c in np.flatnonzero(row)] for row in y_true]


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: y.astype(bool),
        lambda y: y.astype(np.float32),
        lambda y: y.astype(object),
        np.ndarray.tolist,
        csr_array,
        pd.DataFrame,
        lambda y: pd.DataFrame(y, columns=LABELS),
        name_labels,
        lambda y: [set(row) for row in name_labels(y)],
        lambda y: [np.array(row) for row in name_labels(y)],
        lambda y: pd.Series(name_labels(y)),
    ],
)
def test_kinds_of_targets(convert):
    y_true, y_score = make_scores()
    y_true[3] = 0
    expected = score(y_true, y_score, unlabelled="farthest")
    same = score(convert(y_true), y_score, labels=LABELS, unlabelled="farthest")
    assert same == expected


def test_labels_that_are_numbers():
    y_true, y_score = make_scores()
    rows = [[10 * c for c in np.flatnonzero(row).tolist()] for row in y_true]
    labels = [0, 10, 20, 30]
    assert score(rows, y_score, labels=labels) == score(y_true, y_score)


def test_one_label_for_each_clip():
    y_score = make_scores()[1]
    columns = np.arange(60) % 4
    expected = score(np.eye(4)[columns], y_score)
    for labels in (np.array(LABELS)[columns], pd.Series(LABELS * 15), LABELS * 15):
        assert score(labels, y_score, labels=LABELS) == expected
    assert score(columns, y_score, labels=range(4)) == expected


def test_labels_give_the_order_of_the_columns():
    y_true, y_score = make_scores()
    order = [3, 1, 0, 2]
    assert score(
        name_labels(y_true),
        y_score[:, order],
        DISTANCES[np.ix_(order, order)],
        labels=[LABELS[c] for c in order],
    ) == pytest.approx(score(y_true, y_score))


def test_kinds_of_scores():
    y_true, _ = make_scores()
    y_score = np.random.default_rng(0).integers(0, 50, y_true.shape)
    expected = score(y_true, y_score.astype(np.float64))
    for same in (y_score, y_score.astype(np.float16), y_score.tolist()):
        assert score(y_true, same) == expected
    assert score(y_true, pd.DataFrame(y_score, columns=LABELS)) == expected


def test_half_precision_has_more_ties():
    y_true, y_score = make_scores()
    rounded = y_score.astype(np.float16)
    assert score(y_true, rounded) == score(y_true, rounded.astype(np.float64))


def test_takes_little_memory():
    y_true = np.eye(300, dtype=int)[np.arange(6000) % 300]
    y_score = np.random.default_rng(0).normal(size=y_true.shape).astype(np.float32)
    distances = (1 - np.eye(300)) * (
        1 + np.add.outer(np.arange(300), np.arange(300)) % 9
    )
    tracemalloc.start()
    score(y_true, y_score, distances)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A matrix of the scores' shape in double precision would be 8 bytes a value.
    assert peak < 7 * y_true.size


def test_inputs_stay_as_they_are():
    y_true, y_score = make_scores()
    weights = np.linspace(0, 2, 60)
    given = [y_true, y_score, DISTANCES.astype(float), weights]
    before = [array.copy() for array in given]
    for array in given:
        array.setflags(write=False)
    score(*given[:3], sample_weight=weights)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (DISTANCES[:3, :3], "distances is of 3 classes, but there are 4 columns"),
        (DISTANCES[:3], r"distances has shape \(3, 4\): pass a square matrix"),
        (DISTANCES + np.eye(4, k=1), "6 in row 0, column 1, and something else the"),
        (DISTANCES - 9 * (DISTANCES == 6), "-3 in row 1, column 3, where none can be"),
        (DISTANCES + np.eye(4), "1 in row 0, column 0, where a class must be at 0"),
        (np.where(DISTANCES == 2, np.inf, DISTANCES), "inf in row 0, column 3, where"),
        (np.where(DISTANCES == 2, np.nan, DISTANCES), "nan in row 0, column 3, where"),
        ([["a"] * 4] * 4, "distances must be a matrix of numbers"),
    ],
)
def test_distances_are_none(distances, message):
    with pytest.raises(ValueError, match=message):
        score(*make_scores(), distances)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_are_not_finite(value):
    y_true, y_score = make_scores()
    y_score[[7, 11]] = value
    with pytest.raises(ValueError, match=r"NaN or infinity for 2 clips, .* in row 7"):
        score(y_true, y_score)


def test_great_scores_are_finite():
    y_true, y_score = make_scores()
    y_score[:] = np.finfo(float).max / 2
    assert score(y_true, y_score) > 0


def test_shapes_differ():
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match=r"shape \(60, 4\) and y_score \(60, 3\)"):
        score(y_true, y_score[:, :3], DISTANCES[:3, :3])
    with pytest.raises(ValueError, match=r"shape \(60, 4\) and y_score \(60, 3\)"):
        score(y_true.tolist(), y_score[:, :3], DISTANCES[:3, :3])
    with pytest.raises(ValueError, match=r"shape \(59, 4\) and y_score \(60, 4\)"):
        score(y_true[1:], y_score)
    with pytest.raises(ValueError, match="labels of 59 clips and y_score 60 rows"):
        score(name_labels(y_true)[1:], y_score, labels=LABELS)
    for wrong in (y_score[:, 0], y_score[np.newaxis]):
        with pytest.raises(ValueError, match=r"y_score has shape .*: it must be \(n_c"):
            score(y_true, wrong)


def test_targets_are_no_indicators():
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match=r"0\.5 in row 2, column 1: an indicator"):
        score(np.where(np.arange(240).reshape(60, 4) == 9, 0.5, y_true), y_score)
    with pytest.raises(ValueError, match="y_true contains NaN"):
        score(np.where(y_true, np.nan, 0.0), y_score)


def test_labels_without_their_order():
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match="need an order: set labels"):
        score(name_labels(y_true), y_score)
    with pytest.raises(ValueError, match="need an order: set labels"):
        score(np.arange(60) % 4, y_score)


def test_labels_are_bad():
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match=r"labels holds \['car'\] more than once"):
        score(y_true, y_score, labels=["car", "rain", "dog", "car"])
    with pytest.raises(ValueError, match="labels has length 3, but y_score 4 columns"):
        score(y_true, y_score, labels=LABELS[:3])
    with pytest.raises(ValueError, match="'labels' parameter"):
        score(y_true, y_score, labels="rain")
    # A set has no order, and so names no columns.
    with pytest.raises(TypeError, match="labels is a set: pass a list"):
        score(y_true, y_score, labels=set(LABELS))
    with pytest.raises(TypeError, match=r"labels holds \['car', .* is no label"):
        score(y_true, y_score, labels=np.array([LABELS]))
    with pytest.raises(ValueError, match="'y_true' parameter"):
        score("rain", y_score, labels=LABELS)
    with pytest.raises(TypeError, match="y_true is a dict: pass"):
        score({"rain": 1}, y_score, labels=LABELS)
    with pytest.raises(TypeError, match=r"row 0 of y_true holds \['rain'\], .* no la"):
        score([[["rain"]]] * 60, y_score, labels=LABELS)


def test_unknown_labels_of_clips():
    y_score = make_scores(3)[1]
    with pytest.raises(ValueError, match=r"not in labels: \['dog', 'owl'\]. Add them"):
        score([["owl"], ["car", "dog"], []], y_score, labels=LABELS)


def test_clip_lists_a_label_twice():
    y_score = make_scores(2)[1]
    with pytest.raises(ValueError, match=r"a label twice in row 1: \['car', 'car'\]"):
        score([["car"], ["car", "car"]], y_score, labels=LABELS)


def test_names_of_columns_differ():
    y_true, y_score = make_scores()
    frame = pd.DataFrame(y_true, columns=LABELS)
    assert score(frame, y_score, labels=LABELS) == score(y_true, y_score)
    turned = [*LABELS[:2], "rain", "laughter"]
    message = "column 2: 'laughter' and 'rain'. Bring both in one order"
    with pytest.raises(ValueError, match=f"labels and y_true name .*{message}"):
        score(pd.DataFrame(y_true, columns=turned), y_score, labels=LABELS)
    with pytest.raises(ValueError, match=f"y_true and y_score name .*{message}"):
        score(frame, pd.DataFrame(y_score, columns=turned))
    with pytest.raises(ValueError, match=f"labels and distances name .*{message}"):
        score(y_true, y_score, pd.DataFrame(DISTANCES, columns=turned), labels=LABELS)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(60), "none of them negative"),
        (np.zeros(60), "not all 0"),
        (np.ones((60, 2)), r"sample_weight has shape \(60, 2\)"),
        (np.full(60, np.nan), "sample_weight contains NaN"),
        (np.ones(59), r"sample_weight has shape \(59,\) .* for 60 clips"),
    ],
)
def test_sample_weights_are_bad(weights, message):
    with pytest.raises(ValueError, match=message):
        score(*make_scores(), sample_weight=weights)


@pytest.mark.parametrize("levels", [[-1, 0], [[0, 1]], [], [np.nan]])
def test_levels_are_bad(levels):
    with pytest.raises(ValueError, match=r"levels|0 sample\(s\)"):
        score(*make_scores(), levels=levels)


def test_distances_are_too_great_for_a_level_each():
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match=r"up to 6e\+09, .* a level for each"):
        score(y_true, y_score, DISTANCES * 1e9)
    assert score(y_true, y_score, DISTANCES * 1e9, levels=[0]) > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weighting", "linear"),
        ("average", "micro"),
        ("zero_division", 0.5),
        ("unlabelled", "error"),
    ],
)
def test_options_are_bad(name, value):
    for function in (omap_score, omap_levels):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            function(*make_scores(), distances=DISTANCES, **{name: value})


@pytest.fixture(scope="module")
def sounds():
    """Features of clips, their one label, and that as an indicator matrix."""
    rng = np.random.default_rng(0)
    columns = rng.permutation(np.arange(120) % 4)
    centres = np.array([[0, 0], [3, 0], [3, 1], [0, 2]])
    X = centres[columns] + rng.normal(size=(120, 2))
    return X, np.array(LABELS)[columns], np.eye(4, dtype=int)[columns]


SCORING = make_omap_scorer(DISTANCES, labels=LABELS)
CV = KFold(4)


def by_hand(classifier, X, y, target, columns, method="predict_proba"):
    """Score each fold; `columns` gives the matrix of scores."""
    scores = []
    for train, test in CV.split(X):
        classifier.fit(X[train], y[train])
        y_score = columns(getattr(classifier, method)(X[test]))
        scores.append(score(target[test], y_score))
    return scores


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_scorer_brings_classes_in_the_order_of_the_distances(sounds, method):
    X, y, target = sounds
    # The labels of LABELS are sorted, so turn the distances round.
    order = [3, 1, 0, 2]
    scoring = make_omap_scorer(
        DISTANCES[np.ix_(order, order)],
        labels=np.array(LABELS)[order],
        response_method=method,
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    expected = by_hand(classifier, X, y, target, lambda columns: columns, method)
    assert len(set(expected)) == 4
    scores = cross_val_score(classifier, X, y, cv=CV, scoring=scoring)
    np.testing.assert_allclose(scores, expected)


def test_scorer_with_nothing_but_a_decision_function(sounds):
    X, y, target = sounds
    classifier = LinearSVC()
    expected = by_hand(
        classifier, X, y, target, lambda columns: columns, "decision_function"
    )
    scores = cross_val_score(classifier, X, y, cv=CV, scoring=SCORING)
    np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize("classifier", [LinearSVC(), GaussianNB()])
def test_scorer_of_two_classes(sounds, classifier):
    X, y, target = sounds
    kept = np.isin(y, ["giggle", "rain"])
    two = make_omap_scorer([[0, 6], [6, 0]], labels=["giggle", "rain"])
    classifier.fit(X[kept], y[kept])
    if hasattr(classifier, "predict_proba"):
        y_score = classifier.predict_proba(X[kept])
    else:
        margin = classifier.decision_function(X[kept])
        y_score = np.column_stack([-margin, margin])
    expected = score(target[kept][:, [1, 3]], y_score, [[0, 6], [6, 0]])
    assert two(classifier, X[kept], y[kept]) == pytest.approx(expected)
    # Of four, the two that were never seen tell nothing.
    by_class = SCORING(classifier, X, y)
    assert 0 < by_class < score(target, target)


@pytest.mark.parametrize(
    "classifier",
    [
        RandomForestClassifier(n_estimators=10, random_state=0),
        KNeighborsClassifier(),
        MultiOutputClassifier(LogisticRegression()),
    ],
)
def test_scorer_of_lists_of_probabilities(sounds, classifier):
    X, _, target = sounds
    expected = by_hand(
        classifier,
        X,
        target,
        target,
        lambda outputs: np.column_stack([output[:, 1] for output in outputs]),
    )
    for scoring in (SCORING, make_omap_scorer(DISTANCES)):
        scores = cross_val_score(classifier, X, target, cv=CV, scoring=scoring)
        np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize(
    "classifier",
    [
        OneVsRestClassifier(LogisticRegression()),
        OneVsRestClassifier(LinearSVC()),
        ClassifierChain(LogisticRegression()),
    ],
)
def test_scorer_of_matrices(sounds, classifier):
    X, _, target = sounds
    has_probabilities = hasattr(classifier.fit(X, target), "predict_proba")
    method = "predict_proba" if has_probabilities else "decision_function"
    expected = by_hand(classifier, X, target, target, lambda columns: columns, method)
    for scoring in (SCORING, make_omap_scorer(DISTANCES)):
        scores = cross_val_score(classifier, X, target, cv=CV, scoring=scoring)
        np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize("constant", [0, 1])
def test_scorer_where_training_has_one_kind_of_clips(sounds, constant):
    X, _, target = sounds
    forest = RandomForestClassifier(n_estimators=10, random_state=0)
    rare = target.copy()
    rare[:60, 2] = constant
    forest.fit(X[:60], rare[:60])
    outputs = forest.predict_proba(X[60:])
    assert outputs[2].shape[1] == 1
    y_score = np.zeros((60, 4))  # the third class has the same score everywhere
    y_score[:, [0, 1, 3]] = np.column_stack([outputs[c][:, 1] for c in (0, 1, 3)])
    assert SCORING(forest, X[60:], target[60:]) == pytest.approx(
        score(target[60:], y_score)
    )


def test_scorer_where_training_lacks_a_class(sounds):
    X, y, target = sounds
    seen = y != "laughter"
    classifier = LogisticRegression().fit(X[seen], y[seen])
    y_score = np.zeros((120, 4))  # the third class has the same score everywhere
    y_score[:, [0, 1, 3]] = classifier.predict_proba(X)
    assert SCORING(classifier, X, y) == pytest.approx(score(target, y_score))


def test_scorer_in_searches(sounds):
    X, y, _ = sounds
    search = GridSearchCV(
        LogisticRegression(), {"C": [1e-4, 1.0]}, scoring=SCORING, cv=CV, n_jobs=2
    ).fit(X, y)
    expected = [
        cross_val_score(LogisticRegression(C=C), X, y, cv=CV, scoring=SCORING).mean()
        for C in (1e-4, 1.0)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    assert search.score(X, y) == SCORING(search.best_estimator_, X, y)


def test_scorer_beside_others(sounds):
    X, y, _ = sounds
    results = cross_validate(
        LogisticRegression(), X, y, cv=CV, scoring={"o": SCORING, "a": "accuracy"}
    )
    expected = cross_val_score(LogisticRegression(), X, y, cv=CV, scoring=SCORING)
    np.testing.assert_array_equal(results["test_o"], expected)


def test_scorer_gets_sample_weights(sounds):
    X, y, target = sounds
    weights = np.linspace(0.5, 2, 120)
    classifier = LogisticRegression()
    with sklearn.config_context(enable_metadata_routing=True):
        scoring = make_omap_scorer(DISTANCES, labels=LABELS)
        scoring.set_score_request(sample_weight=True)
        classifier.set_fit_request(sample_weight=False)
        for asked in (scoring, {"omap": scoring}):
            results = cross_validate(
                classifier,
                X,
                y,
                cv=CV,
                scoring=asked,
                params={"sample_weight": weights},
            )
            found = results["test_score" if asked is scoring else "test_omap"]
            for value, (train, test) in zip(found, CV.split(X), strict=True):
                y_score = classifier.fit(X[train], y[train]).predict_proba(X[test])
                assert value == pytest.approx(
                    score(target[test], y_score, sample_weight=weights[test])
                )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_scorer_passes_on_its_options(sounds):
    X, _, target = sounds
    classifier = OneVsRestClassifier(LogisticRegression()).fit(X, target)
    changed = target.copy()
    changed[:, 1] = 0
    changed[:40, 3] = 0
    options = {
        "weighting": "binary",
        "levels": [1, 2],
        "average": "weighted",
        "zero_division": np.nan,
        "unlabelled": "ignore",
    }
    expected = score(changed, classifier.predict_proba(X), **options)
    scoring = make_omap_scorer(DISTANCES, **options)
    assert scoring(classifier, X, changed) == expected
    for name in options:
        others = {key: value for key, value in options.items() if key != name}
        if name not in ("zero_division",):  # the weighted mean leaves classes out too
            other = make_omap_scorer(DISTANCES, **others)(classifier, X, changed)
            assert other != expected


def test_scorer_of_labels_of_each_clip(sounds):
    X, y, target = sounds

    class Tagger(ClassifierMixin, BaseEstimator):
        classes_ = np.array(["rain", "car", "giggle", "laughter"])

        def fit(self, X, y):
            return self

        def predict_proba(self, X):
            return X @ np.arange(8).reshape(2, 4) % 3

    y_score = Tagger().predict_proba(X)[:, [1, 2, 3, 0]]
    rows = [[label] for label in y]
    assert SCORING(Tagger(), X, rows) == score(target, y_score)
    folds = [score(target[test], y_score[test]) for _, test in CV.split(X)]
    scores = cross_val_score(Tagger(), X, rows, cv=CV, scoring=SCORING)
    assert scores.tolist() == folds
    with pytest.raises(ValueError, match="have different orders: give both in one"):
        SCORING(Tagger(), X, target)


def test_scorer_in_zero_shot(sounds):
    X, y, target = sounds

    class Nearest(ClassifierMixin, BaseEstimator):
        def __init__(self, candidate_labels=None):
            self.candidate_labels = candidate_labels

        @property
        def classes_(self):
            return np.array(self.candidate_labels)

        def predict_proba(self, X):
            columns = [LABELS.index(label) for label in self.candidate_labels]
            return -np.square(X[:, :1] - np.arange(4)[columns])

    kept = np.isin(y, ["giggle", "rain"])
    y_score = np.zeros((kept.sum(), 4))
    y_score[:, [1, 3]] = Nearest(["giggle", "rain"]).predict_proba(X[kept])
    scoring = make_omap_scorer(DISTANCES, labels=LABELS, zero_division=np.nan)
    value = zero_shot_scorer(scoring)(Nearest(), X[kept], y[kept])
    assert value == score(target[kept], y_score, zero_division=np.nan)


def test_scorer_pickles(sounds):
    X, y, _ = sounds
    classifier = LogisticRegression().fit(X, y)
    copy = pickle.loads(pickle.dumps(SCORING))
    assert copy(classifier, X, y) == SCORING(classifier, X, y)


def test_scorer_prints_what_was_set():
    assert repr(SCORING) == "make_omap_scorer(<4 x 4>)"
    scoring = make_omap_scorer(
        DISTANCES, weighting="binary", levels=[0], zero_division=0.0
    )
    assert repr(scoring) == (
        "make_omap_scorer(<4 x 4>, weighting='binary', levels=[0], zero_division=0.0)"
    )


def test_scorer_of_something_without_scores(sounds):
    class Sayer(ClassifierMixin, BaseEstimator):
        def predict(self, X):
            return ["rain"] * len(X)

    with pytest.raises(TypeError, match=r"Sayer has no .*predict_proba"):
        SCORING(Sayer(), *sounds[:2])


def test_scorer_of_labels_that_it_was_not_told(sounds):
    X, y, _ = sounds
    classifier = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="need an order: set labels"):
        make_omap_scorer(DISTANCES)(classifier, X, y)
    labels = ["car", "giggle", "laughter", "dog"]
    with pytest.raises(ValueError, match=r"not in labels: \['rain'\]"):
        make_omap_scorer(DISTANCES, labels=labels)(classifier, X, y)


def test_scorer_of_outputs_that_are_no_labels(sounds):
    X, y, target = sounds
    classifier = KNeighborsClassifier().fit(X, np.column_stack([y] * 4))
    with pytest.raises(ValueError, match="with several outputs each must say yes or"):
        SCORING(classifier, X, target)


@pytest.mark.parametrize("ask", ["labels", "matrix"])
def test_scorer_of_another_number_of_columns(sounds, ask):
    X, y, target = sounds
    pairwise = SVC(decision_function_shape="ovo").fit(X, y)
    message = "SVC gives scores of shape \\(120, 6\\) for 4 classes: .* a column for ea"
    y = y if ask == "labels" else target
    with pytest.raises(ValueError, match=message):
        SCORING(pairwise, X, y)


@pytest.mark.parametrize("numbers", [False, True])
def test_scorer_of_predictions_that_are_no_scores(sounds, numbers):
    X, y, target = sounds
    labels = [0, 1, 2, 3] if numbers else LABELS
    y = target.argmax(axis=1) if numbers else y
    scoring = make_omap_scorer(DISTANCES, labels=labels, response_method="predict")
    with pytest.raises(ValueError, match=r"gives scores of shape \(120,\) for 4 class"):
        scoring(LogisticRegression().fit(X, y), X, y)


@pytest.mark.parametrize("method", [[], [1], ["predict_proba", None]])
def test_scorer_of_methods_that_are_none(method):
    with pytest.raises(ValueError, match=r"response_method=.* must be the name of a"):
        make_omap_scorer(DISTANCES, labels=LABELS, response_method=method)


def test_scorer_checks_its_labels():
    with pytest.raises(ValueError, match="labels has length 3, but distances 4 col"):
        make_omap_scorer(DISTANCES, labels=LABELS[:3])
    with pytest.raises(ValueError, match=r"labels holds \['car'\] more than once"):
        make_omap_scorer(DISTANCES, labels=["car", "rain", "dog", "car"])
    with pytest.raises(TypeError, match="labels is a set: pass a list"):
        make_omap_scorer(DISTANCES, labels=set(LABELS))
    named = pd.DataFrame(DISTANCES, index=LABELS, columns=LABELS)
    make_omap_scorer(named, labels=np.array(LABELS))
    with pytest.raises(ValueError, match="labels and distances name different classes"):
        make_omap_scorer(named, labels=LABELS[::-1])


def test_scorer_checks_its_levels():
    with pytest.raises(ValueError, match="must be a list of distances, none negative"):
        make_omap_scorer(DISTANCES, levels=[-1])


def test_scorer_checks_its_distances():
    with pytest.raises(ValueError, match="where none can be negative"):
        make_omap_scorer(-DISTANCES)
    with pytest.raises(ValueError, match="'average' parameter"):
        make_omap_scorer(DISTANCES, average=None)
