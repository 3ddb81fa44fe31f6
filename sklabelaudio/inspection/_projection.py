"""Embeddings to points in a plane."""

import numpy as np
from sklearn.base import BaseEstimator, clone

_PERPLEXITY = 30.0  # the usual one of t-SNE, which many points can have


def subtract_means(embeddings, kinds):
    """Return embeddings less the mean of their kind.

    Parameters
    ----------
    embeddings : ndarray of shape (n_points, n_components)
        The vectors.
    kinds : list of str of length n_points, or None
        Their kinds; None for one.

    Returns
    -------
    ndarray of shape (n_points, n_components)
        The differences.
    """
    if kinds is None:
        return embeddings - embeddings.mean(axis=0)
    _, kinds = np.unique(kinds, return_inverse=True)
    means = [embeddings[kinds == kind].mean(axis=0) for kind in range(kinds.max() + 1)]
    return embeddings - np.array(means)[kinds]


def scale_to_one(embeddings, labels):
    """Return embeddings divided by their Euclidean lengths.

    Parameters
    ----------
    embeddings : ndarray of shape (n_points, n_components)
        The vectors.
    labels : list of length n_points, or None
        Their names, for the message.

    Returns
    -------
    ndarray of shape (n_points, n_components)
        Vectors of length one.

    Raises
    ------
    ValueError
        If one is all zeros.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    zeros = np.flatnonzero(lengths == 0).tolist()
    if zeros:
        named = f" ({[labels[i] for i in zeros]})" if labels else ""
        raise ValueError(
            f"the embeddings in rows {zeros}{named} are all zeros and have no "
            "direction: leave them out, or set normalize=False"
        )
    return embeddings / lengths


def project(embeddings, method, random_state):
    """Return embeddings in a plane.

    Parameters
    ----------
    embeddings : ndarray of shape (n_points, n_components)
        The vectors.
    method : {"tsne", "pca"} or transformer
        How they are projected.
    random_state : int, RandomState instance or None
        Seed of the named methods.

    Returns
    -------
    points : ndarray of shape (n_points, 2)
        The points.
    axis_names : tuple of two str
        Names of the axes.

    Raises
    ------
    ValueError
        If the embeddings are all the same, or there is no such method or it does not
        give two components.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if not np.ptp(embeddings, axis=0).any():
        raise ValueError(
            "embeddings are all the same, so there is nothing to see: check what they "
            "come from"
        )
    if isinstance(method, str) and method == "tsne":
        perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
        transformer = TSNE(perplexity=perplexity, random_state=random_state)
        name = "t-SNE"
    elif isinstance(method, str) and method == "pca":
        transformer = PCA(n_components=2, random_state=random_state)
        name = "PCA"
    elif hasattr(method, "fit_transform"):
        transformer = clone(method) if isinstance(method, BaseEstimator) else method
        name = type(method).__name__
    else:
        raise ValueError(
            f"method must be 'tsne', 'pca' or a transformer, got {method!r}"
        )
    points = np.asarray(transformer.fit_transform(embeddings), dtype=np.float64)
    if points.shape != (len(embeddings), 2):
        raise ValueError(
            f"method={method!r} gives an array of shape {points.shape} for "
            f"{len(embeddings)} embeddings: set its number of components to 2"
        )
    shares = getattr(transformer, "explained_variance_ratio_", None)
    if shares is None:
        return points, (f"{name} 1", f"{name} 2")
    names = [
        f"{name} {i} ({share:.0%} of variance)" for i, share in enumerate(shares, 1)
    ]
    return points, tuple(names)
