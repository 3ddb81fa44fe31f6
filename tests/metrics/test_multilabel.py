import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import norm
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from sklabelaudio.metrics import (
    d_prime_score,
    lwlrap_score,
    mean_average_precision,
)

METRICS = [mean_average_precision, d_prime_score, lwlrap_score]
LABELS = ["car", "giggle", "laughter"]


@st.composite
def problems(draw):
    n_clips, n_classes = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    size = n_clips * n_classes
    y_true = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    # Few values, so that scores are often equal.
    scores = st.sampled_from([-3.5, 0.0, 0.1, 0.25, 0.5, 2.0])
    y_score = draw(st.lists(scores, min_size=size, max_size=size))
    weights = st.sampled_from([0.0, 0.25, 1.0, 3.0])
    weights = draw(st.lists(weights, min_size=n_clips, max_size=n_clips))
    shape = (n_clips, n_classes)
    return {
        "y_true": np.reshape(y_true, shape).astype(int),
        "y_score": np.reshape(y_score, shape),
        "sample_weight": np.array(weights) if any(weights) else None,
    }


def over_random_problems(test):
    limits = settings(max_examples=200, deadline=None, derandomize=True, database=None)
    return limits(given(problem=problems())(test))


def score_by_class(score, y_true, y_score, sample_weight, *, negatives):
    """Score each class that has clips that count, and with `negatives` others too."""
    kept = slice(None) if sample_weight is None else sample_weight > 0
    weights = None if sample_weight is None else sample_weight[kept]
    return [
        score(own, values, sample_weight=weights)
        if own.any() and not (negatives and own.all())
        else np.nan
        for own, values in zip(y_true[kept].T, y_score[kept].T, strict=True)
    ]


@over_random_problems
def test_average_precision_is_scikit_learns(problem):
    scores = mean_average_precision(**problem, average=None, zero_division=np.nan)
    expected = score_by_class(average_precision_score, **problem, negatives=False)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@over_random_problems
def test_d_prime_is_that_of_the_area(problem):
    scores = d_prime_score(**problem, average=None)
    areas = score_by_class(roc_auc_score, **problem, negatives=True)
    found = norm.cdf(scores / np.sqrt(2))
    np.testing.assert_allclose(found, areas, rtol=0, atol=1e-12)
    if not np.isnan(areas).all():
        mean = norm.cdf(d_prime_score(**problem) / np.sqrt(2))
        assert mean == pytest.approx(np.nanmean(areas), abs=1e-12)


@over_random_problems
def test_lwlrap_is_the_ranking_precision_weighted_by_labels(problem):
    y_true, weights = problem["y_true"], problem["sample_weight"]
    n_labels = y_true.sum(axis=1) * (1 if weights is None else weights)
    if not n_labels.any():
        with pytest.raises(ValueError, match="no clip with a label"):
            lwlrap_score(**problem)
        return
    expected = label_ranking_average_precision_score(
        y_true, problem["y_score"], sample_weight=n_labels
    )
    assert lwlrap_score(**problem) == pytest.approx(expected, abs=1e-12)
    by_class = lwlrap_score(**problem, average=None)
    shares = y_true.T @ (np.ones(len(y_true)) if weights is None else weights)
    assert np.isnan(by_class[shares == 0]).all()
    mean = np.average(by_class[shares > 0], weights=shares[shares > 0])
    assert mean == pytest.approx(expected, abs=1e-12)


def make_scores(n_clips=50):
    rng = np.random.default_rng(0)
    y_true = (rng.random((n_clips, 3)) < 0.4).astype(int)
    return y_true, rng.normal(size=(n_clips, 3)) + y_true


def test_lwlrap_of_each_class_by_hand():
    y_true = [[1, 0, 1, 0], [1, 0, 0, 0]]
    y_score = [[0.1, 0.3, 0.2, 0.0], [0.5, 0.5, 0.2, 0.1]]
    # First clip: 2 of 3 and 1 of 2 are true; second: two share the first rank.
    by_class = lwlrap_score(y_true, y_score, average=None)
    np.testing.assert_allclose(by_class, [(2 / 3 + 1 / 2) / 2, np.nan, 1 / 2, np.nan])
    assert lwlrap_score(y_true, y_score) == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)


def test_many_clips_are_compared_in_parts():
    y_true, y_score = make_scores(3000)
    assert lwlrap_score(y_true, y_score) == pytest.approx(
        label_ranking_average_precision_score(
            y_true, y_score, sample_weight=y_true.sum(axis=1)
        )
    )


def test_d_prime_of_two_normal_distributions_is_their_distance():
    rng = np.random.default_rng(0)
    y_true = np.arange(200_000)[:, None] % 2
    y_score = rng.normal(size=y_true.shape) + 1.5 * y_true
    assert d_prime_score(y_true, y_score) == pytest.approx(1.5, abs=0.02)
    assert d_prime_score(y_true, -y_score) == pytest.approx(-1.5, abs=0.02)


def test_published_d_prime():
    # PANNs report an area of 0.973 and d' of 2.732 for CNN14, both rounded.
    n = 1000
    y_true = np.arange(2 * n)[:, None] >= n
    y_score = y_true + 0.0
    y_score[n : n + 27] = -1  # 27 of 1,000 positives below every negative
    assert d_prime_score(y_true, y_score) == pytest.approx(2.732, abs=0.02)


def test_perfect_scores():
    y_true, _ = make_scores()
    assert mean_average_precision(y_true, y_true) == 1.0
    assert lwlrap_score(y_true, y_true) == 1.0
    assert d_prime_score(y_true, y_true) == np.inf
    assert d_prime_score(y_true, 0 * y_true) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_returns_a_float_or_one_for_each_class(metric):
    y_true, y_score = make_scores()
    assert isinstance(metric(y_true, y_score), float)
    assert metric(y_true, y_score, average=None).shape == (3,)


@pytest.mark.parametrize("metric", METRICS)
def test_kinds_of_targets(metric):
    y_true, y_score = make_scores()
    y_true[4] = 0
    expected = metric(y_true, y_score)
    names = [[LABELS[c] for c in np.flatnonzero(row)] for row in y_true]
    for same in (csr_array(y_true), y_true.astype(bool), y_true.tolist(), names):
        assert metric(same, y_score, labels=LABELS) == expected


@pytest.mark.parametrize("undefined", [0.0, 1.0, np.nan])
def test_class_without_clips(undefined):
    y_true, y_score = make_scores()
    y_true[:, 1] = 0
    areas = roc_auc_score(y_true[:, [0, 2]], y_score[:, [0, 2]], average=None)
    precisions = average_precision_score(
        y_true[:, [0, 2]], y_score[:, [0, 2]], average=None
    )
    scores = [precisions[0], undefined, precisions[1]]
    assert mean_average_precision(
        y_true, y_score, zero_division=undefined
    ) == pytest.approx(np.nanmean(scores))
    message = "d' is undefined for 1 of 3 classes, the first column 1: .* left out"
    with pytest.warns(UndefinedMetricWarning, match=message) as caught:
        value = d_prime_score(y_true, y_score)
    assert len(caught) == 1
    assert value == pytest.approx(np.sqrt(2) * norm.ppf(areas.mean()))
    assert np.isnan(d_prime_score(y_true, y_score, average=None)[1])


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_weighted_by_clips(weighted):
    y_true, y_score = make_scores()
    y_true[:, 1] = 0
    weights = np.linspace(0.5, 2, 50) if weighted else None
    expected = average_precision_score(
        y_true[:, [0, 2]],
        y_score[:, [0, 2]],
        sample_weight=weights,
        average="weighted",
    )
    assert mean_average_precision(
        y_true, y_score, sample_weight=weights, average="weighted"
    ) == pytest.approx(expected)


def test_no_class_can_be_told_apart():
    y_true, y_score = make_scores()
    y_true[:] = [0, 1, 1]
    with pytest.raises(ValueError, match="no class with both clips that are of it"):
        d_prime_score(y_true, y_score)


def test_no_clip_has_a_label():
    y_true, y_score = make_scores()
    assert mean_average_precision(0 * y_true, y_score, zero_division=0.0) == 0.0
    with pytest.raises(ValueError, match="no clip with a label"):
        lwlrap_score(0 * y_true, y_score)


@pytest.mark.parametrize("metric", METRICS)
def test_inputs_are_bad(metric):
    y_true, y_score = make_scores()
    with pytest.raises(ValueError, match=r"shape \(50, 3\) and y_score \(50, 2\)"):
        metric(y_true, y_score[:, :2])
    with pytest.raises(ValueError, match="NaN or infinity for 50 clips"):
        metric(y_true, np.nan * y_score)
    with pytest.raises(ValueError, match="an indicator matrix holds 0 and 1"):
        metric(2 * y_true, y_score)
    with pytest.raises(ValueError, match=r"not in labels: \['owl'\]"):
        metric(["owl"] * 50, y_score, labels=LABELS)
    with pytest.raises(ValueError, match="lists a label twice in row 0"):
        metric([["car", "car"]] * 50, y_score, labels=LABELS)
    with pytest.raises(ValueError, match="none of them negative"):
        metric(y_true, y_score, sample_weight=-np.ones(50))
    with pytest.raises(ValueError, match="'average' parameter"):
        metric(y_true, y_score, average="micro")
