"""What the scores of clips with several labels check and read."""

from collections.abc import Hashable, Mapping, Set, Sized
from itertools import chain, zip_longest
from numbers import Number

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array


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
    TypeError
        If labels are none, or have no order.
    ValueError
        If they don't fit together, or the scores are not finite.
    """
    frames = {"y_true": y_true, "y_score": y_score, "distances": distances}
    y_score = _check_scores(y_score)
    n_classes = y_score.shape[1]
    labels = check_labels(labels, n_classes, "y_score")
    check_names(labels, frames)
    if is_indicator(y_true, None if labels is None else n_classes):
        target = _check_indicator(y_true)
        if target.shape != y_score.shape:
            raise ValueError(
                f"y_true has shape {target.shape} and y_score {y_score.shape}: give "
                "both a row for each clip and a column for each class"
            )
    else:
        target = _mark_labels(y_true, labels, n_classes)
        if len(target) != len(y_score):
            raise ValueError(
                f"y_true has the labels of {len(target)} clips and y_score "
                f"{len(y_score)} rows: give both an item for each clip"
            )
    return _leave_out(target, y_score, sample_weight)


def _check_scores(y_score):
    y_score = check_array(
        y_score,
        dtype=None,
        ensure_2d=False,
        allow_nd=True,
        ensure_all_finite=False,
        input_name="y_score",
    )
    if y_score.ndim != 2:
        raise ValueError(
            f"y_score has shape {y_score.shape}: it must be (n_clips, n_classes), a "
            "row for each clip and a column for each class"
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


def check_labels(labels, n_classes, of):
    """Return the labels of columns as a list, or None.

    Parameters
    ----------
    labels : sequence of length n_classes, or None
        The labels.
    n_classes : int
        How many columns there are.
    of : str
        What has the columns, for the message.

    Returns
    -------
    list or None
        The labels.

    Raises
    ------
    TypeError
        If they have no order, or one is none.
    ValueError
        If one is there twice, or there are more or fewer than columns.
    """
    if labels is None:
        return None
    if isinstance(labels, (Set, Mapping)):
        raise TypeError(
            f"labels is a {type(labels).__name__}: pass a list, in the order of the "
            "columns"
        )
    labels = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    _refuse_unhashable(labels, "labels")
    if len(set(labels)) < len(labels):
        twice = sorted({str(label) for label in labels if labels.count(label) > 1})
        raise ValueError(f"labels holds {twice} more than once: list every label once")
    if len(labels) != n_classes:
        raise ValueError(
            f"labels has length {len(labels)}, but {of} {n_classes} columns: list "
            "the label of each column, in their order"
        )
    return labels


def _refuse_unhashable(labels, name):
    for label in labels:
        if not isinstance(label, Hashable):
            raise TypeError(
                f"{name} holds {label!r}, which is no label: a label is a text or a "
                "number"
            )


def _column_names(frame):
    names = list(getattr(frame, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def check_names(labels, frames):
    """Raise if classes have other names, or another order, in one place than another.

    Parameters
    ----------
    labels : list or None
        The labels of the classes.
    frames : dict of str to object
        Matrices with a column for each class, by name; DataFrames name the classes.

    Raises
    ------
    ValueError
        If names differ.
    """
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


def is_indicator(y_true, n_classes=None):
    """Tell indicator matrices from labels, where numbers may be either.

    Parameters
    ----------
    y_true : array-like or sparse matrix
        What clips are.
    n_classes : int, default=None
        How long a row of numbers is that is no list of labels. None where there are no
        labels, so that any rows of one length are a matrix.

    Returns
    -------
    bool
        Whether it is an indicator matrix.
    """
    if issparse(y_true):
        return True
    if not isinstance(y_true, (list, tuple)):
        y_true = np.asarray(y_true)
        if y_true.dtype != object:
            return y_true.ndim == 2 and y_true.dtype.kind in "biuf"
        y_true = y_true.tolist()
    if n_classes is None and isinstance(y_true, (list, tuple)) and len(y_true):
        n_classes = len(y_true[0]) if isinstance(y_true[0], Sized) else None
    return isinstance(y_true, (list, tuple)) and all(
        isinstance(row, (list, tuple, np.ndarray))
        and len(row) == n_classes
        and all(isinstance(value, (Number, np.bool_)) for value in row)
        for row in y_true
    )


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
        name, y_true = type(y_true).__name__, np.asarray(y_true)
        if not y_true.ndim:
            raise TypeError(
                f"y_true is a {name}: pass an indicator matrix, or a list of labels"
            )
    rows = [_read_row(row) for row in y_true]
    for number, row in enumerate(rows):
        _refuse_unhashable(row, f"row {number} of y_true")
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
    is_one_each = weights.shape == (len(target),)
    if not is_one_each or weights.min() < 0 or not weights.any():
        raise ValueError(
            f"sample_weight has shape {weights.shape} and the least value "
            f"{weights.min():g} for {len(target)} clips: pass one weight for each "
            "clip, none of them negative and not all 0"
        )
    if weights.all():
        return target, y_score, weights
    kept = weights > 0
    return target[kept], y_score[kept], weights[kept]
