import numpy as np
import pytest
from sklearn.metrics import recall_score

from sklabelaudio.metrics import harmonic_mean_score


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_macro_recalls(seed):
    rng = np.random.default_rng(seed)
    labels = np.array(["cat", "cow", "dog", "rain", "wind"])
    # Classes of different sizes, so that a mean over clips would differ.
    y_true = np.repeat(labels, [3, 17, 8, 5, 30])
    y_pred = np.where(rng.random(63) < 0.5, y_true, rng.choice(labels, 63))
    seen, unseen = (
        recall_score(y_true, y_pred, labels=side, average="macro")
        for side in (["cat", "rain"], ["cow", "dog", "wind"])
    )
    score = harmonic_mean_score(y_true, y_pred, seen_labels=["cat", "rain"])
    assert score == pytest.approx(2 * seen * unseen / (seen + unseen))
    assert isinstance(score, float)


def test_limits():
    y_true = ["dog", "rain"]
    assert harmonic_mean_score(y_true, y_true, seen_labels=["dog"]) == 1.0
    assert harmonic_mean_score(y_true, ["dog", "dog"], seen_labels=["dog"]) == 0.0
    assert harmonic_mean_score(y_true, ["rain", "dog"], seen_labels=["dog"]) == 0.0


def test_predictions_outside_y_true_are_wrong_and_no_more():
    y_true = ["dog", "dog", "rain"]
    y_pred = ["dog", "horse", "rain"]
    score = harmonic_mean_score(y_true, y_pred, seen_labels=["dog", "horse"])
    assert score == pytest.approx(2 * 0.5 * 1 / 1.5)


@pytest.mark.parametrize("kind", [list, tuple, set, np.array])
def test_kinds_of_seen_labels(kind):
    score = harmonic_mean_score(
        np.array(["dog", "rain"], dtype=object),
        ["dog", "rain"],
        seen_labels=kind(["dog"]),
    )
    assert score == 1.0


def test_no_seen_sample():
    with pytest.raises(ValueError, match=r"no sample of a seen class.*'horse'"):
        harmonic_mean_score(["dog"], ["dog"], seen_labels=["horse"])


def test_no_unseen_sample():
    with pytest.raises(ValueError, match=r"no sample of an unseen class.*'dog'"):
        harmonic_mean_score(["dog"], ["dog"], seen_labels=["dog"])


def test_lengths_differ():
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[2, 1\]"):
        harmonic_mean_score(["dog", "rain"], ["dog"], seen_labels=["dog"])


def test_seen_labels_is_one_string():
    with pytest.raises(ValueError, match="'seen_labels' parameter"):
        harmonic_mean_score(["dog", "rain"], ["dog", "rain"], seen_labels="dog")
