"""Targets of clips with several labels: which labels they speak of."""

from numbers import Number

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets


def read_label_sets(y, candidates=None):
    """Return the labels of targets of clips that may have several each.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n_clips, n_labels), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones, whose columns a DataFrame names; the
        labels of each clip; or one label for each clip.
    candidates : ndarray of shape (n_labels,), default=None
        Labels of the columns of an indicator matrix without names.

    Returns
    -------
    ndarray of shape (n_labels,)
        The labels: in the order of an indicator matrix's columns, or else sorted.

    Raises
    ------
    ValueError
        If they are none of these, or the columns can't be named.
    """
    rows = read_rows(y)
    if any(is_label_list(row) for row in rows):
        return np.unique([label for row in rows for label in row])
    names = column_names(y)
    y = check_array(y, accept_sparse=True, dtype=None, ensure_2d=False, input_name="y")
    if y.ndim == 1:
        return read_labels(y)
    values = np.unique(y.data if issparse(y) else y)
    if not np.isin(values, [0, 1]).all():
        other = values[~np.isin(values, [0, 1])].tolist()
        raise ValueError(
            f"y has {y.shape[1]} columns with values such as {other[0]!r}: an "
            "indicator matrix holds 0 and 1"
        )
    return _name_columns(y.shape[1], names, candidates)


def read_labels(y):
    """Return the labels of targets of one label for each clip, sorted."""
    y = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"))
    if y.dtype.kind == "f":  # others it would only warn of, where clips are few
        check_classification_targets(y)
    return np.unique(y)


def read_rows(y):
    """Return the rows of y, none if they are numbers."""
    if issparse(y) or isinstance(y, (list, tuple)):
        return [] if issparse(y) else y
    y = np.asarray(y)
    return [] if y.dtype.kind in "biufc" else list(y)


def is_label_list(row):
    return isinstance(row, (list, tuple, set, frozenset, np.ndarray)) and any(
        not isinstance(label, (Number, np.bool_)) for label in row
    )


def column_names(y):
    names = list(getattr(y, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _name_columns(n_columns, names, candidates):
    if names is not None:
        same = candidates is not None and set(names) == set(candidates.tolist())
        if same and names != candidates.tolist():
            raise ValueError(
                f"y has the columns {names} and candidate_labels the same in another "
                "order, in which predictions would come: give both in one order"
            )
        return np.array(names)
    if candidates is None:
        raise ValueError(
            "y is an indicator matrix and its columns have no names: set "
            "candidate_labels, one for each column in their order, or pass a DataFrame"
        )
    if len(candidates) != n_columns:
        raise ValueError(
            f"y has {n_columns} columns and candidate_labels {len(candidates)} labels: "
            "an indicator matrix needs one for each column, in their order"
        )
    return candidates
