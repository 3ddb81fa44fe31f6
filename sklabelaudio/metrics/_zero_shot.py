"""Scores of zero-shot classification."""

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._param_validation import validate_params


@validate_params(
    {
        "y_true": ["array-like"],
        "y_pred": ["array-like"],
        "seen_labels": ["array-like"],
    },
    prefer_skip_nested_validation=True,
)
def harmonic_mean_score(y_true, y_pred, *, seen_labels):
    """Harmonic mean of the accuracies on seen and on unseen classes.

    Use it for generalised zero-shot classification, where a clip may be of a class
    that was trained or of one that was not. A classifier that never leaves the
    trained classes scores 0, however good it is on them.

    Each accuracy is a mean over classes (the macro-averaged recall), so that a
    class counts the same however many clips it has.

    Parameters
    ----------
    y_true : array-like of shape (n_clips,)
        True labels, of seen and of unseen classes.
    y_pred : array-like of shape (n_clips,)
        Predicted labels.
    seen_labels : array-like of shape (n_seen_classes,)
        Labels that were trained, such as ``seen_classes_`` of a classifier. Every
        other label of `y_true` is unseen.

    Returns
    -------
    float
        ``2 * S * U / (S + U)`` with the accuracies S on the seen and U on the
        unseen classes, and 0 where both are 0.

    Raises
    ------
    ValueError
        If `y_true` holds no seen or no unseen label.

    References
    ----------
    Y. Xian, C. H. Lampert, B. Schiele and Z. Akata, "Zero-shot learning: a
    comprehensive evaluation of the good, the bad and the ugly", IEEE Transactions
    on Pattern Analysis and Machine Intelligence, 2018: the harmonic mean H of
    generalised zero-shot learning.

    Examples
    --------
    >>> from sklabelaudio.metrics import harmonic_mean_score
    >>> y_true = ["dog", "dog", "rain", "rain"]
    >>> y_pred = ["dog", "dog", "rain", "dog"]
    >>> round(harmonic_mean_score(y_true, y_pred, seen_labels=["dog"]), 3)
    0.667
    """
    y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
    check_consistent_length(y_true, y_pred)
    seen_labels = list(seen_labels)
    classes, codes = np.unique(y_true, return_inverse=True)
    is_seen = np.isin(classes, seen_labels)
    if not is_seen.any():
        raise ValueError(
            "y_true has no sample of a seen class: none of its labels is in "
            f"seen_labels={seen_labels}, and the harmonic mean needs both kinds"
        )
    if is_seen.all():
        raise ValueError(
            "y_true has no sample of an unseen class: all of its labels are in "
            f"seen_labels={seen_labels}, and the harmonic mean needs both kinds"
        )
    accuracies = np.bincount(codes, weights=y_true == y_pred) / np.bincount(codes)
    seen, unseen = accuracies[is_seen].mean(), accuracies[~is_seen].mean()
    if seen + unseen == 0:
        return 0.0
    return float(2 * seen * unseen / (seen + unseen))
