"""Distances between classes, as the scores and the losses of an ontology take them."""

import numpy as np


def check_distances(distances, n_classes=None):
    """Return the distances between classes as an array.

    Parameters
    ----------
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes.
    n_classes : int, default=None
        How many classes there are besides, None where nothing tells.

    Returns
    -------
    ndarray of shape (n_classes, n_classes), dtype=float64
        The same.

    Raises
    ------
    ValueError
        If they are no distances: not square, of another number of classes, infinite,
        NaN or negative, not zero from a class to itself, or not symmetric.
    """
    try:
        array = np.asarray(distances, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"distances must be a matrix of numbers: {error}") from error
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise ValueError(
            f"distances has shape {array.shape}: pass a square matrix with a row and a "
            "column for each class, of at least 2 classes"
        )
    if n_classes is not None and len(array) != n_classes:
        raise ValueError(
            f"distances is of {len(array)} classes, but there are {n_classes} columns "
            "of scores: take the rows and columns of the same classes, in their order"
        )
    _refuse(
        ~np.isfinite(array),
        array,
        "where all must be finite: give classes that no path joins a distance too",
    )
    _refuse(array < 0, array, "where none can be negative")
    _refuse(
        np.diag(np.diag(array) != 0), array, "where a class must be at 0 from itself"
    )
    _refuse(
        ~np.isclose(array, array.T),
        array,
        "and something else the other way round: a distance is the same both ways",
    )
    return array


def _refuse(wrong, array, why):
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"distances has {array[row, column]:g} in row {row}, column {column}, {why}"
        )
