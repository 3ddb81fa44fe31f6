"""Scores of labels by their proximity to clips, on the scale of logits."""

import numpy as np
from sklearn.linear_model import LogisticRegression

# Below it a greater cosine would hardly mean a greater score.
_LEAST_SCALE = 1e-3
# Cosines that differ by less are the same but for rounding.
_LEAST_SPREAD = 1e-6


def cosines(vectors, others):
    """Return the cosine similarity of every two vectors.

    Parameters
    ----------
    vectors : ndarray of shape (n, n_components)
        Vectors.
    others : ndarray of shape (m, n_components)
        Others.

    Returns
    -------
    ndarray of shape (n, m)
        The similarities; those with a zero vector are 0.
    """
    return _to_unit_rows(vectors) @ _to_unit_rows(others).T


def calibrate(similarities, indicator):
    """Find the scale and the bias that make similarities logits.

    Parameters
    ----------
    similarities : ndarray of shape (n_clips, n_classes)
        Cosine similarities of clips with labels.
    indicator : ndarray of shape (n_clips, n_classes), dtype=bool
        Which clips have which labels.

    Returns
    -------
    scale, bias : float
        ``sigmoid(scale * similarity + bias)`` is the probability of a label.

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines and comparisons to
    regularized likelihood methods", 1999.
    """
    target = indicator.ravel()
    if target.all() or not target.any():
        return 1.0, 0.0  # nothing to tell apart
    # To one spread, for the regression's penalty is on the slope: similarities may lie
    # close together.
    mean, spread = similarities.mean(), max(similarities.std(), _LEAST_SPREAD)
    regression = LogisticRegression().fit(
        (similarities.reshape(-1, 1) - mean) / spread, target
    )
    scale = max(float(regression.coef_[0, 0] / spread), _LEAST_SCALE)
    return scale, float(regression.intercept_[0] - scale * mean)


def choose_thresholds(target, scores, default):
    """Find for each class the threshold that gives the best F1 score.

    Parameters
    ----------
    target : ndarray of shape (n_clips, n_classes), dtype=bool
        Labels.
    scores : ndarray of shape (n_clips, n_classes)
        Probabilities.
    default : ndarray of shape (n_classes,)
        Thresholds of classes without a clip, or of which every clip is.

    Returns
    -------
    ndarray of shape (n_classes,)
        The thresholds, halfway between two scores.
    """
    thresholds = np.array(default, dtype=np.float64)
    for column, (is_label, score) in enumerate(zip(target.T, scores.T, strict=True)):
        if is_label.all() or not is_label.any():
            continue
        order = np.argsort(-score, kind="stable")
        ranked, right = score[order], is_label[order].cumsum()
        n_named = np.arange(1, len(ranked) + 1)
        f1 = 2 * right / (n_named + right[-1])
        # Clips of one score are named together.
        f1[:-1][ranked[:-1] == ranked[1:]] = -1
        last = int(f1.argmax())
        below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        thresholds[column] = (ranked[last] + below) / 2
    return thresholds


def _to_unit_rows(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
