"""Labels to vectors, by whatever the displays are given for it."""

from collections.abc import Mapping

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ..exceptions import UnknownLabelError


def embed_labels(label_embedder, labels):
    """Return the vectors of labels.

    Parameters
    ----------
    label_embedder : transformer or mapping
        A transformer of labels, of which a clone is fitted on the labels if it isn't
        fitted, or a mapping label -> vector.
    labels : list of str
        The labels.

    Returns
    -------
    array-like of shape (n_labels, n_components)
        Their vectors, not checked.

    Raises
    ------
    UnknownLabelError
        If a mapping lacks a label.
    """
    if isinstance(label_embedder, Mapping):
        unknown = [label for label in labels if label not in label_embedder]
        if unknown:
            raise UnknownLabelError(
                unknown,
                f"label_embedder has no vector for {unknown}: add them to the mapping "
                "or leave the labels out",
            )
        return np.array([label_embedder[label] for label in labels])
    if isinstance(label_embedder, BaseEstimator):
        try:
            check_is_fitted(label_embedder)
        except NotFittedError:
            label_embedder = clone(label_embedder).fit(labels)
    return label_embedder.transform(labels)
