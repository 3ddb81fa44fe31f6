"""Candidate labels: what a zero-shot classifier chooses among."""

import numpy as np


class CandidateLabelsMixin:
    """The active labels of a classifier that can name labels unseen in `fit`.

    Expects the parameter `candidate_labels` and the attribute `seen_classes_`.
    """

    @property
    def classes_(self):
        """Active labels, sorted: `candidate_labels`, or else the labels of `fit`."""
        if self.candidate_labels is None:
            return self.seen_classes_
        return check_candidate_labels(self.candidate_labels)


def check_candidate_labels(candidate_labels, *, n_least=2, sort=True):
    """Return candidate labels as an array.

    Parameters
    ----------
    candidate_labels : array-like of shape (n_candidates,)
        The labels.
    n_least : int, default=2
        How many there must be.
    sort : bool, default=True
        Whether they are sorted as scikit-learn sorts ``classes_``, or stay in their
        order, as the columns of an indicator matrix do.

    Returns
    -------
    ndarray of shape (n_candidates,)
        The labels.

    Raises
    ------
    ValueError
        If a label is there twice, or there are too few.
    TypeError
        If they are a single string, or no list.
    """
    if isinstance(candidate_labels, str):
        raise TypeError(
            f"candidate_labels={candidate_labels!r} is one string: pass a list of "
            "labels"
        )
    if any(label is None for label in candidate_labels):
        raise ValueError(
            f"candidate_labels={list(candidate_labels)!r} holds None: drop it"
        )
    given = np.asarray(candidate_labels)
    if given.ndim != 1:
        raise TypeError(
            f"candidate_labels={candidate_labels!r} is no list of labels: pass a list "
            "such as ['dog', 'rain']"
        )
    labels, counts = np.unique(given, return_counts=True)
    if labels.size < counts.sum():
        raise ValueError(
            f"candidate_labels holds {labels[counts > 1].tolist()} more than once: "
            "list every label once"
        )
    if labels.size < n_least:
        raise ValueError(
            f"candidate_labels={list(candidate_labels)!r} holds {labels.size} class: "
            f"there must be at least {n_least} to choose from"
        )
    return labels if sort else given
