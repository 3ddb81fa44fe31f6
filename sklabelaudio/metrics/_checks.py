"""What the scores of clips with several labels check and read."""

from itertools import chain, zip_longest
from numbers import Number

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, check_consistent_length


def check_tagging(y_true, y_score, *, labels=None, sample_weight=None, distances=None):
    """Return what clips are and how they scored, by class.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix; the labels of each clip; or one label for each clip.
    y_score : array-like of shape (n_clips, n_classes)
        Scores.
    labels : sequence of length n_classes, default=None
        The labels of the columns.
    sample_weight : array-like of shape (n_clips,), default=None
        Weights of the clips.
    distances : array-like of shape (n_classes, n_classes), default=None
        Distances between the classes; if they are a DataFrame, its names must be those
        of the other columns.

    Returns
    -------
    target : ndarray of shape (n_kept, n_classes), dtype=bool
        Which clips are of which classes.
    y_score : ndarray of shape (n_kept, n_classes)
        Scores in floating point.
    sample_weight : ndarray of shape (n_kept,), or None
        Weights, all positive: clips of weight 0 are left out.

    Raises
    ------
    ValueError
        If they don't fit together, or the scores are not finite.
    """
    frames = {"y_true": y_true, "y_score": y_score, "distances": distances}
    y_score = _check_scores(y_score)
    n_classes = y_score.shape[1]
    labels = _check_labels(labels, n_classes)
    _check_names(labels, frames)
    if is_indicator(y_true, n_classes):
        target = _check_indicator(y_true)
    else:
        target = _mark_labels(y_true, labels, n_classes)
    check_consistent_length(target, y_score, sample_weight)
    if target.shape != y_score.shape:
        raise ValueError(
            f"y_true has shape {target.shape} and y_score {y_score.shape}: give both "
            "a row for each clip and a column for each class"
        )
    return _leave_out(target, y_score, sample_weight)


def _check_scores(y_score):
    y_score = check_array(
        y_score, dtype=None, ensure_all_finite=False, input_name="y_score"
    )
    if y_score.dtype.kind != "f":
        y_score = y_score.astype(np.float64)
    # Where any value is not finite, neither is the sum: only then, or if the sum
    # overflows, are they looked at one by one.
    with np.errstate(over="ignore", invalid="ignore"):
        all_finite = np.isfinite(y_score.sum())
    if not all_finite:
        rows = np.flatnonzero(~np.isfinite(y_score).all(axis=1))
        if rows.size:
            raise ValueError(
                f"y_score holds NaN or infinity for {rows.size} clips, the first in "
                f"row {rows[0]}: scores must be finite to be ranked. Leave out clips "
                "that could not be read, and replace infinity by a large number"
            )
    return y_score


def _check_labels(labels, n_classes):
    if labels is None:
        return None
    labels = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(set(labels)) < len(labels):
        twice = sorted({str(label) for label in labels if labels.count(label) > 1})
        raise ValueError(f"labels holds {twice} more than once: list every label once")
    if len(labels) != n_classes:
        raise ValueError(
            f"labels has length {len(labels)}, but y_score {n_classes} columns: list "
            "the label of each column, in their order"
        )
    return labels


def _column_names(frame):
    names = list(getattr(frame, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _check_names(labels, frames):
    """Compare the order of the classes wherever they have names."""
    named = {"labels": labels}
    named |= {name: _column_names(frame) for name, frame in frames.items()}
    known = [(name, columns) for name, columns in named.items() if columns is not None]
    for other, columns in known[1:]:
        first, expected = known[0]
        if columns != expected:
            pairs = enumerate(zip_longest(expected, columns))
            at, pair = next(item for item in pairs if item[1][0] != item[1][1])
            raise ValueError(
                f"{first} and {other} name different classes, first in column {at}: "
                f"{pair[0]!r} and {pair[1]!r}. Bring both in one order"
            )


def is_indicator(y_true, n_classes):
    """Tell indicator matrices from labels, where numbers may be either."""
    if issparse(y_true):
        return True
    if isinstance(y_true, (list, tuple)):
        return all(
            isinstance(row, (list, tuple, np.ndarray))
            and len(row) == n_classes
            and all(isinstance(value, (Number, np.bool_)) for value in row)
            for row in y_true
        )
    y_true = np.asarray(y_true)
    return y_true.ndim == 2 and y_true.dtype.kind in "biuf"


def _check_indicator(y_true):
    if issparse(y_true):
        y_true = y_true.toarray()
    y_true = check_array(y_true, dtype=None, ensure_min_features=0, input_name="y_true")
    if y_true.dtype == bool:
        return y_true
    target = y_true.astype(bool)
    if not np.array_equal(target, y_true):
        row, column = np.argwhere(target != y_true)[0].tolist()
        raise ValueError(
            f"y_true has {y_true[row, column]} in row {row}, column {column}: an "
            "indicator matrix holds 0 and 1"
        )
    return target


def _mark_labels(y_true, labels, n_classes):
    """Return the indicator matrix of the labels of each clip."""
    if not isinstance(y_true, (list, tuple)):
        y_true = np.asarray(y_true)
    rows = [_read_row(row) for row in y_true]
    if labels is None:
        raise ValueError(
            f"y_true is no indicator matrix of {n_classes} classes and its labels need "
            "an order: set labels, the label of each column of y_score"
        )
    columns = {label: column for column, label in enumerate(labels)}
    unknown = {label for label in chain.from_iterable(rows) if label not in columns}
    if unknown:
        raise ValueError(
            f"y_true has labels that are not in labels: {sorted(map(str, unknown))}. "
            "Add them, with their scores, or leave out the clips that have them"
        )
    for number, row in enumerate(rows):
        if len(set(row)) < len(row):
            raise ValueError(f"y_true lists a label twice in row {number}: {row}")
    target = np.zeros((len(rows), n_classes), dtype=bool)
    clips = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    target[clips, [columns[label] for label in chain.from_iterable(rows)]] = True
    return target


def _read_row(row):
    if isinstance(row, np.ndarray):
        row = row.tolist()
    return list(row) if isinstance(row, (list, tuple, set, frozenset)) else [row]


def _leave_out(target, y_score, sample_weight):
    if sample_weight is None:
        return target, y_score, None
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.ndim != 1 or weights.min() < 0 or not weights.any():
        raise ValueError(
            f"sample_weight has shape {weights.shape} and the least value "
            f"{weights.min():g}: pass one weight for each clip, none of them negative "
            "and not all 0"
        )
    if weights.all():
        return target, y_score, weights
    kept = weights > 0
    return target[kept], y_score[kept], weights[kept]
