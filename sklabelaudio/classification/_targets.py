"""Targets of taggers, of whatever kind, as a matrix of labels."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ._label_sets import column_names, is_label_list, read_rows


class Targets(NamedTuple):
    """The labels of clips.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        What the columns are.
    indicator : ndarray of shape (n_clips, n_classes), dtype=bool
        Which clips have which labels.
    exclusive : bool
        Whether y had one label for each clip, so that predictions have too.
    named : bool
        Whether the labels are names, and not numbers given to nameless columns.
    """

    labels: np.ndarray
    indicator: np.ndarray
    exclusive: bool
    named: bool


def read_targets(y, labels=None, *, kept=None):
    """Read the labels of clips.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix, whose columns a DataFrame names; the labels of each clip,
        of which one that is there twice counts once; or the one label of each clip.
    labels : array-like of shape (n_classes,), default=None
        All labels, in the order wanted.
    kept : ndarray of int, default=None
        The clips whose labels are looked at for what labels there are.

    Returns
    -------
    Targets
        The labels.

    Raises
    ------
    ValueError
        If y is none of these, or has labels that are not among `labels`.
    """
    labels = None if labels is None else _check_labels(labels)
    if y is None:
        raise ValueError(
            "fit requires y to be passed, but the target y is None: pass the labels of "
            "the clips"
        )
    if isinstance(y, (str, Mapping)):
        raise TypeError(
            f"y is a {type(y).__name__}: pass an indicator matrix, or the labels of "
            "each clip"
        )
    names = column_names(y)
    if names is not None:
        _refuse_missing(y)
    rows = read_rows(y)
    if any(is_label_list(row) for row in rows) or _are_all_empty(rows):
        return _read_lists(rows, labels, kept)
    _refuse_numbers(rows)
    _refuse_other_than_labels(
        (index, row) for index, row in enumerate(rows) if np.ndim(row) == 0
    )
    y = check_array(y, accept_sparse="csr", dtype=None, ensure_2d=False, input_name="y")
    # A single column is an indicator only where something says of what.
    of_one = names is not None or (labels is not None and len(labels) == 1)
    if y.ndim == 2 and (y.shape[1] > 1 or of_one):
        return _read_indicator(y, names, labels)
    return _read_column(y, labels, kept)


def mark_lists(rows, labels):
    """Return the indicator matrix of lists of labels.

    Parameters
    ----------
    rows : sequence of sequences of labels
        The labels of each clip.
    labels : ndarray of shape (n_classes,)
        What the columns are.

    Returns
    -------
    ndarray of shape (n_clips, n_classes), dtype=bool
        The matrix.

    Raises
    ------
    ValueError
        If a clip has a label that is not among them.
    """
    columns = {label: column for column, label in enumerate(labels.tolist())}
    indicator = np.zeros((len(rows), len(labels)), dtype=bool)
    for index, row in enumerate(rows):
        for label in row:
            if label not in columns:
                raise ValueError(
                    f"y[{index}] has the label {label!r}, which is not among the "
                    f"{len(labels)} labels known: name it among them from the "
                    "beginning, or drop the clip"
                )
            indicator[index, columns[label]] = True
    return indicator


def _check_labels(labels):
    if isinstance(labels, str):
        raise TypeError(f"labels={labels!r} is one label: pass a list of labels")
    labels = np.asarray(labels)
    names, counts = np.unique(labels, return_counts=True)
    if labels.ndim != 1 or len(names) < len(labels):
        raise ValueError(
            f"labels must be a list of labels, each there once; it has the shape "
            f"{labels.shape} and {names[counts > 1].tolist()} more than once"
        )
    return labels


def _read_lists(rows, labels, kept):
    for index, row in enumerate(rows):
        if isinstance(row, str) or not hasattr(row, "__iter__"):
            raise ValueError(
                f"y[{index}]={row!r} is no list, as others of y are: give the labels "
                "of each clip as a list, empty for none"
            )
    rows = _empty_others(rows, kept)
    for index, row in enumerate(rows):
        _refuse_other_than_labels((index, label) for label in row)
    if labels is None:
        labels = np.unique([label for row in rows for label in row])
    return Targets(labels, mark_lists(rows, labels), exclusive=False, named=True)


def _read_indicator(y, names, labels):
    y = y.toarray() if issparse(y) else y
    indicator = y == 1
    if not (indicator | (y == 0)).all():
        row, column = np.argwhere(~indicator & (y != 0))[0].tolist()
        raise ValueError(
            f"y has {y.item(row, column)!r} in row {row}, column {column}: an "
            "indicator matrix holds 0 and 1"
        )
    if names is not None and labels is not None and names != labels.tolist():
        raise ValueError(
            f"y has the columns {names[:3]}... and labels {labels[:3].tolist()}...: "
            "give both in one order"
        )
    if labels is not None and len(labels) != y.shape[1]:
        raise ValueError(
            f"y has {y.shape[1]} columns and labels {len(labels)} labels: an indicator "
            "matrix needs one for each column, in their order"
        )
    named = names is not None or labels is not None
    if labels is None:
        labels = np.arange(y.shape[1]) if names is None else np.array(names)
    return Targets(labels, indicator, exclusive=False, named=named)


def _read_column(y, labels, kept):
    y = column_or_1d(y.toarray() if issparse(y) else y, warn=True)
    check_classification_targets(y)
    rows = _empty_others([[label] for label in y.tolist()], kept)
    if labels is None:
        labels = np.unique(y if kept is None else y[kept])
    return Targets(labels, mark_lists(rows, labels), exclusive=True, named=True)


def _empty_others(rows, kept):
    """Return the labels of the clips that are kept, and none for the others."""
    if kept is None:
        return rows
    emptied = [[] for _ in rows]
    for index in kept.tolist():
        emptied[index] = rows[index]
    return emptied


def _are_all_empty(rows):
    return len(rows) > 0 and all(
        not isinstance(row, str) and hasattr(row, "__len__") and len(row) == 0
        for row in rows
    )


def _refuse_missing(frame):
    missing = np.asarray(frame.isna()) if hasattr(frame, "isna") else np.zeros((0, 0))
    if missing.any():
        row, column = np.argwhere(missing)[0].tolist()
        raise ValueError(
            f"y has no value in row {row}, column {list(frame.columns)[column]!r}: "
            "fill it in, or drop the clip"
        )


def _refuse_numbers(rows):
    """Refuse lists of numbers of several lengths, which are no matrix."""
    lengths = {len(row) for row in rows if isinstance(row, (list, tuple))}
    if len(lengths) > 1:
        raise ValueError(
            f"y holds rows of {min(lengths)} to {max(lengths)} numbers: rows of an "
            "indicator matrix are of one length, and labels are texts"
        )


def _is_missing(label):
    if label is None or np.ndim(label) > 0:
        return label is None
    try:
        return bool(label != label)
    except TypeError:  # pandas' NA is not even that
        return True


def _refuse_other_than_labels(items):
    """Refuse what stands for a missing label among the labels of clips."""
    for index, label in items:
        if _is_missing(label):
            raise ValueError(
                f"y[{index}] has the label {label!r}: drop missing labels, or their "
                "clips"
            )
