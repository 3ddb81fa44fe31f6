"""The picture of where labels and sounds lie to each other."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from sklearn.utils import check_array

from ..exceptions import UnknownLabelError
from ._label_vectors import embed_labels
from ._point_labels import label_points
from ._point_looks import (
    MARKERS,
    choose_colors,
    choose_markers,
    draw_legend,
    estimate_width,
    list_looks,
)
from ._projection import project, scale_to_one, subtract_means

_MAX_PRINTED = 30  # labels, above which none is printed unless asked for


class EmbeddingProjectionDisplay:
    """Embeddings of labels, of sounds or of both, projected to a plane.

    Use it to see what a model takes for alike: whether labels lie with those of their
    kind [1]_, and clips near their labels.

    It is recommended to use :meth:`from_embedder` or :meth:`from_embeddings`. All
    parameters are stored as attributes.

    Parameters
    ----------
    projection : ndarray of shape (n_points, 2)
        Where the points are.
    labels : sequence of (str or None) of length n_points, default=None
        Names of the points; None for a point without one.
    groups : sequence of str of length n_points, default=None
        What the points are coloured by, such as the top category of a label.
    kinds : sequence of str of length n_points, default=None
        What the points are marked by, such as "text" and "audio". None marks them by
        group too.
    axis_names : tuple of two str, default=("", "")
        Names of the axes.

    Attributes
    ----------
    scatters_ : dict of (str, str) to matplotlib PathCollection
        The points of each kind and group; None for what is not told apart.
    texts_ : list of matplotlib Annotation
        The labels printed.
    legend_ : matplotlib Legend or None
        The groups and kinds.
    ax_ : matplotlib Axes
        Axes with the points.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    LabelSimilarityDisplay : Exact similarities, of fewer labels.

    Notes
    -----
    t-SNE keeps neighbours together. Distances between far points, and the sizes of
    clusters, mean nothing, and another `random_state` may give another picture. PCA
    shows the directions in which the vectors differ most, to scale.

    References
    ----------
    .. [1] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024, figure 1.

    Examples
    --------
    >>> from sklabelaudio.inspection import EmbeddingProjectionDisplay
    >>> vectors = {
    ...     "dog": [3.0, 1.0, 0.0], "wolf": [3.0, 0.5, 0.5],
    ...     "rain": [0.0, 2.0, 3.0], "storm": [0.5, 1.0, 3.0],
    ... }
    >>> groups = ["animal", "animal", "nature", "nature"]
    >>> display = EmbeddingProjectionDisplay.from_embedder(
    ...     vectors, list(vectors), groups=groups, method="pca"
    ... )
    >>> display.projection.round(1)
    array([[ 0.6,  0.1],
           [ 0.6, -0.1],
           [-0.6,  0.1],
           [-0.6, -0.1]])
    >>> [text.get_text() for text in display.legend_.get_texts()]
    ['animal', 'nature']
    """

    def __init__(
        self, projection, *, labels=None, groups=None, kinds=None, axis_names=("", "")
    ):
        self.projection = projection
        self.labels = labels
        self.groups = groups
        self.kinds = kinds
        self.axis_names = axis_names

    @classmethod
    def from_embedder(
        cls,
        label_embedder,
        labels,
        *,
        groups=None,
        audio_embeddings=None,
        audio_labels=None,
        method="tsne",
        center=False,
        normalize=True,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Plot labels as a label embedder sees them, with clips if there are any.

        Parameters
        ----------
        label_embedder : transformer or mapping
            Turns labels into vectors: a transformer of labels, of which a clone is
            fitted on the labels if it isn't fitted, or a mapping label -> vector.
        labels : sequence of str of length n_labels
            The labels.
        groups : sequence of str of length n_labels or mapping, default=None
            What the labels are coloured by: the group of each, in their order or by
            label. None colours them by label if there are clips.
        audio_embeddings : array-like of shape (n_clips, n_components), default=None
            Vectors of clips in the same space, such as those of
            :class:`~sklabelaudio.embedding.CLAPEmbedder`.
        audio_labels : sequence of str of length n_clips, default=None
            The label of each clip, needed with `audio_embeddings`. It gives the
            clip's colour.
        method : {"tsne", "pca"} or transformer, default="tsne"
            How the vectors are projected, see :meth:`from_embeddings`.
        center : bool, default=False
            Whether the mean of the labels' vectors is subtracted from them, and that
            of the clips' from theirs. In the space of a joint model sounds and texts
            lie apart, and this brings them together.
        normalize : bool, default=True
            Whether the vectors are scaled to length one first.
        random_state : int, RandomState instance or None, default=None
            Seed of the projection; an integer gives the same picture each time.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        EmbeddingProjectionDisplay
            The display, plotted.

        Raises
        ------
        UnknownLabelError
            If a mapping lacks a label, or `audio_labels` holds others than `labels`.
        """
        labels = list(labels)
        if (audio_embeddings is None) != (audio_labels is None):
            raise ValueError(
                "audio_embeddings and audio_labels go together: pass both or neither"
            )
        groups = _read_groups(groups, labels)
        embeddings = np.asarray(embed_labels(label_embedder, labels))
        kinds = None
        if audio_labels is not None:
            audio_labels = list(audio_labels)
            embeddings = _join(embeddings, audio_embeddings, audio_labels)
            kinds = ["text"] * len(labels) + ["audio"] * len(audio_labels)
            groups = labels if groups is None else groups
            groups = groups + _look_up(
                dict(zip(labels, groups, strict=True)),
                audio_labels,
                "audio_labels holds {}, which are not in labels: add them",
            )
            labels = labels + [None] * len(audio_labels)
        return cls.from_embeddings(
            embeddings,
            labels,
            groups=groups,
            kinds=kinds,
            method=method,
            center=center,
            normalize=normalize,
            random_state=random_state,
            ax=ax,
            **plot_kw,
        )

    @classmethod
    def from_embeddings(
        cls,
        embeddings,
        labels=None,
        *,
        groups=None,
        kinds=None,
        method="tsne",
        center=False,
        normalize=True,
        random_state=None,
        ax=None,
        **plot_kw,
    ):
        """Plot embeddings of labels, of clips, or of anything else.

        Parameters
        ----------
        embeddings : array-like of shape (n_points, n_components)
            The vectors.
        labels : sequence of (str or None) of length n_points, default=None
            Names of the points; None for a point without one.
        groups : sequence of str of length n_points, default=None
            What the points are coloured by.
        kinds : sequence of str of length n_points, default=None
            What the points are marked by, such as "text" and "audio".
        method : {"tsne", "pca"} or transformer, default="tsne"
            How the vectors are projected: by scikit-learn's
            :class:`~sklearn.manifold.TSNE` or :class:`~sklearn.decomposition.PCA`, or
            by a transformer with two components, a clone of which is fitted. The
            perplexity of t-SNE is 30, or a third of the other points if these are
            fewer.
        center : bool, default=False
            Whether the mean of each kind is subtracted from its vectors.
        normalize : bool, default=True
            Whether the vectors are scaled to length one first, so that those with a
            high cosine similarity are near to each other.
        random_state : int, RandomState instance or None, default=None
            Seed of the projection; an integer gives the same picture each time. A
            transformer has its own.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        EmbeddingProjectionDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If the numbers of embeddings, labels, groups and kinds differ, an embedding
            to be scaled is all zeros, or all are the same.
        """
        embeddings = check_array(
            embeddings,
            dtype=np.float64,
            ensure_min_samples=3,
            ensure_min_features=2,
            input_name="embeddings",
        )
        names = {"labels": labels, "groups": groups, "kinds": kinds}
        names = {
            name: _check_names(values, name, len(embeddings), "embeddings")
            for name, values in names.items()
        }
        if center:
            embeddings = subtract_means(embeddings, names["kinds"])
        if normalize:
            embeddings = scale_to_one(embeddings, names["labels"])
        projection, axis_names = project(embeddings, method, random_state)
        display = cls(projection, **names, axis_names=axis_names)
        return display.plot(ax=ax, **plot_kw)

    def plot(
        self,
        *,
        include_labels=None,
        cmap=None,
        ax=None,
        scatter_kw=None,
        text_kw=None,
        legend_kw=None,
    ):
        """Plot the points.

        Parameters
        ----------
        include_labels : bool, str or sequence of str, default=None
            Which labels are printed beside their points: all, none, or those named.
            None prints all if there are 30 at most.
        cmap : str or matplotlib Colormap, default=None
            Where the colours of the groups are from. None takes "tab10" for up to 10
            groups, "tab20" for up to 20, or else "turbo".
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        scatter_kw : dict, default=None
            Passed to matplotlib's ``scatter``.
        text_kw : dict, default=None
            Passed to matplotlib's ``annotate``.
        legend_kw : dict, default=None
            Passed to matplotlib's ``legend``. The legend stands beside the axes if
            the figure has a layout that makes room for it, or else inside; it names
            50 groups at most.

        Returns
        -------
        EmbeddingProjectionDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the numbers of points and names differ, or there is no such label.
        """
        import matplotlib.pyplot as plt

        projection = np.asarray(self.projection)
        n_points = len(projection)
        groups, kinds = (
            _check_names(getattr(self, name), name, n_points, "projection")
            or [None] * n_points
            for name in ("groups", "kinds")
        )
        printed = self._choose_labels(include_labels)
        counts = Counter(kinds)
        colors = choose_colors(cmap, list(dict.fromkeys(groups)))
        has_kinds = self.kinds is not None
        markers = choose_markers(kinds=counts if has_kinds else None, groups=colors)
        looks = list_looks(colors, markers, has_kinds=has_kinds)
        if ax is None:
            size = (6 + estimate_width(looks), 6)  # inches
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.scatters_ = {}
        for kind, group in dict.fromkeys(zip(kinds, groups, strict=True)):
            n_of_kind = counts[kind]
            look = {
                "color": [colors[group]],
                "marker": markers[kind if has_kinds else group],
                **(scatter_kw or {}),
            }
            if n_of_kind < max(counts.values()) and look["marker"] in MARKERS:
                # Few points stand out from many of their colour.
                look = {"edgecolor": "black", **look}
            members = [
                pair == (kind, group) for pair in zip(kinds, groups, strict=True)
            ]
            self.scatters_[kind, group] = ax.scatter(
                *projection[members].T,
                **{
                    # Few points are large, many must not cover each other.
                    "s": np.clip(8000 / n_of_kind, 8, 60),
                    "alpha": 0.8,
                    # What there is least of is on top.
                    "zorder": 2 + 1 / n_of_kind,
                    **look,
                },
            )
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set(xticks=[], yticks=[])  # the values have no unit
        ax.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        self.legend_ = draw_legend(ax, looks, legend_kw or {})
        self.texts_ = label_points(
            ax,
            projection[printed],
            [self.labels[index] for index in printed],
            obstacles=projection,
            legend=self.legend_,
            **(text_kw or {}),
        )
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _choose_labels(self, include_labels):
        """Return the positions of the points whose labels are printed."""
        labels = _check_names(self.labels, "labels", len(self.projection), "projection")
        named = [i for i, label in enumerate(labels or []) if label is not None]
        if include_labels is None:
            include_labels = len(named) <= _MAX_PRINTED
        if isinstance(include_labels, bool):
            return named if include_labels else []
        is_one = isinstance(include_labels, str)
        wanted = {include_labels} if is_one else set(include_labels)
        unknown = wanted - {labels[i] for i in named}
        if unknown:
            raise ValueError(
                f"include_labels names {sorted(unknown)}, which no point is called: "
                "list some of labels"
            )
        return [i for i in named if labels[i] in wanted]


def _check_names(values, name, n_points, of):
    """Return the names of points as a list, or None."""
    if values is None:
        return None
    values = list(values)
    if len(values) != n_points:
        raise ValueError(
            f"{name} has length {len(values)}, and {of} {n_points} rows: pass one for "
            "each"
        )
    return values


def _read_groups(groups, labels):
    if groups is None:
        return None
    if not isinstance(groups, Mapping):
        return _check_names(groups, "groups", len(labels), "labels")
    return _look_up(groups, labels, "groups has no group for {}: add them")


def _look_up(mapping, labels, message):
    unknown = list(dict.fromkeys(label for label in labels if label not in mapping))
    if unknown:
        raise UnknownLabelError(unknown, message.format(unknown))
    return [mapping[label] for label in labels]


def _join(embeddings, audio_embeddings, audio_labels):
    """Return the vectors of labels and clips, one under the other."""
    audio_embeddings = check_array(
        audio_embeddings, dtype=np.float64, input_name="audio_embeddings"
    )
    if len(audio_embeddings) != len(audio_labels):
        raise ValueError(
            f"audio_labels has {len(audio_labels)} labels and audio_embeddings "
            f"{len(audio_embeddings)} rows: pass one label for each row"
        )
    if embeddings.shape[1:] != audio_embeddings.shape[1:]:
        raise ValueError(
            f"audio_embeddings has {audio_embeddings.shape[1]} components and the "
            f"embeddings of labels have {embeddings.shape[1]}: both must lie in the "
            "same space, such as that of CLAP"
        )
    return np.concatenate([embeddings, audio_embeddings])
