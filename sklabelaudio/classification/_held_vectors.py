"""Vectors of labels, of which each is worked out once."""

import numpy as np


def look_up(labels, held, embed):
    """Return vectors of labels, and hold those that are new.

    Parameters
    ----------
    labels : list
        The labels.
    held : dict of label to ndarray
        The vectors that are there already, to which those of new labels are added.
    embed : callable
        Gives one vector for each of a list of labels, no label twice.

    Returns
    -------
    ndarray of shape (n_labels, n_features)
        The vectors.
    """
    new = [label for label in dict.fromkeys(labels) if label not in held]
    if new:
        held.update(zip(new, embed(new), strict=True))
    return np.stack([held[label] for label in labels])
