"""The picture of how alike labels are to a text model."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist
from sklearn.utils import check_array

from ._label_vectors import embed_labels

_MAX_PRINTED = 12  # rows or columns, above which the values are left out


class LabelSimilarityDisplay:
    """Cosine similarities between the embeddings of labels, as a matrix.

    Use it to foresee which classes a zero-shot classifier will confuse, and to
    compare text models and prompts.

    It is recommended to use :meth:`from_embedder` or :meth:`from_embeddings`. All
    parameters are stored as attributes.

    Parameters
    ----------
    similarity : ndarray of shape (n_labels, n_columns)
        The similarities.
    labels : sequence of str of length n_labels
        Labels of the rows.
    column_labels : sequence of str of length n_columns, default=None
        Labels of the columns. None takes `labels`.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The image.
    text_ : ndarray of shape (n_labels, n_columns), dtype=matplotlib Text, or None
        The printed values, None if they are left out.
    colorbar_ : matplotlib Colorbar
        The colour bar.
    ax_ : matplotlib Axes
        Axes with the matrix.
    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklabelaudio.inspection import LabelSimilarityDisplay
    >>> vectors = {"dog": [3.0, 1.0], "rain": [0.0, 2.0], "wolf": [2.0, 1.0]}
    >>> display = LabelSimilarityDisplay.from_embedder(vectors, list(vectors))
    >>> display.similarity.round(2)
    array([[1.  , 0.32, 0.99],
           [0.32, 1.  , 0.45],
           [0.99, 0.45, 1.  ]])
    """

    def __init__(self, similarity, *, labels, column_labels=None):
        self.similarity = similarity
        self.labels = labels
        self.column_labels = column_labels

    @classmethod
    def from_embedder(
        cls,
        label_embedder,
        labels,
        *,
        column_labels=None,
        order=None,
        ax=None,
        **plot_kw,
    ):
        """Plot the similarities of labels to a label embedder.

        Parameters
        ----------
        label_embedder : transformer or mapping
            Turns labels into vectors: a transformer of labels, of which a clone is
            fitted on the labels if it isn't fitted, or a mapping label -> vector.
        labels : sequence of str
            Labels of the rows.
        column_labels : sequence of str, default=None
            Labels of the columns. None compares `labels` with one another.
        order : {"cluster"} or None, default=None
            "cluster" puts like labels next to each other, by hierarchical
            clustering. None keeps the order given.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        LabelSimilarityDisplay
            The display, plotted.

        Raises
        ------
        UnknownLabelError
            If a mapping lacks a label.
        """
        labels = list(labels)
        every_label = labels + list(column_labels or [])
        embeddings = embed_labels(label_embedder, every_label)
        column_embeddings = None
        if column_labels is not None:
            column_embeddings = embeddings[len(labels) :]
        return cls.from_embeddings(
            embeddings[: len(labels)],
            labels,
            column_embeddings=column_embeddings,
            column_labels=column_labels,
            order=order,
            ax=ax,
            **plot_kw,
        )

    @classmethod
    def from_embeddings(
        cls,
        embeddings,
        labels,
        *,
        column_embeddings=None,
        column_labels=None,
        order=None,
        ax=None,
        **plot_kw,
    ):
        """Plot the similarities of embeddings.

        Parameters
        ----------
        embeddings : array-like of shape (n_labels, n_components)
            Embeddings of the row labels.
        labels : sequence of str of length n_labels
            Labels of the rows.
        column_embeddings : array-like of shape (n_columns, n_components), default=None
            Embeddings of the column labels. None compares `embeddings` with one
            another.
        column_labels : sequence of str of length n_columns, default=None
            Labels of the columns, needed with `column_embeddings`.
        order : {"cluster"} or None, default=None
            "cluster" puts like labels next to each other, by hierarchical
            clustering. None keeps the order given.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        LabelSimilarityDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If an embedding is all zeros or the numbers of labels and embeddings
            differ.
        """
        if order not in (None, "cluster"):
            raise ValueError(f"order must be 'cluster' or None, got {order!r}")
        if (column_embeddings is None) != (column_labels is None):
            raise ValueError(
                "column_embeddings and column_labels go together: pass both or neither"
            )
        rows, labels = _prepare(embeddings, labels, "", order)
        if column_embeddings is None:
            columns = rows
        else:
            columns, column_labels = _prepare(
                column_embeddings, column_labels, "column_", order
            )
        if rows.shape[1] != columns.shape[1]:
            raise ValueError(
                f"embeddings have {rows.shape[1]} components and column_embeddings "
                f"{columns.shape[1]}: both must come from the same model"
            )
        similarity = np.clip(rows @ columns.T, -1.0, 1.0)
        display = cls(similarity, labels=labels, column_labels=column_labels)
        return display.plot(ax=ax, **plot_kw)

    def plot(
        self,
        *,
        ax=None,
        include_values=None,
        values_format=".2f",
        cmap="viridis",
        xticks_rotation=90,
        im_kw=None,
        text_kw=None,
    ):
        """Plot the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure, large enough for the labels.
        include_values : bool, default=None
            Print the values in the cells. None prints them up to 12 labels.
        values_format : str, default=".2f"
            Format of the printed values.
        cmap : str or matplotlib Colormap, default="viridis"
            Colour map.
        xticks_rotation : float, default=90
            Rotation of the column labels in degrees.
        im_kw : dict, default=None
            Passed to matplotlib's ``imshow``.
        text_kw : dict, default=None
            Passed to matplotlib's ``text``.

        Returns
        -------
        LabelSimilarityDisplay
            The display itself.
        """
        import matplotlib.pyplot as plt

        similarity = np.asarray(self.similarity)
        column_labels = (
            self.labels if self.column_labels is None else self.column_labels
        )
        if similarity.shape != (len(self.labels), len(column_labels)):
            raise ValueError(
                f"similarity has the shape {similarity.shape} for {len(self.labels)} "
                f"row labels and {len(column_labels)} column labels"
            )
        n_rows, n_columns = similarity.shape
        if include_values is None:
            include_values = max(similarity.shape) <= _MAX_PRINTED
        if ax is None:
            cell = 0.5 if include_values else 0.25  # inches
            size = (2.5 + max(cell * n_columns, 2), 1.5 + max(cell * n_rows, 2))
            _, ax = plt.subplots(figsize=size, layout="compressed")
        im_kw = {
            "interpolation": "nearest",
            "cmap": cmap,
            "vmin": min(0.0, similarity.min()),
            "vmax": 1.0,
            **(im_kw or {}),
        }
        self.im_ = ax.imshow(similarity, **im_kw)
        self.text_ = None
        if include_values:
            self.text_ = np.empty(similarity.shape, dtype=object)
            for (row, column), value in np.ndenumerate(similarity):
                red, green, blue, _ = self.im_.cmap(self.im_.norm(value))
                is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                self.text_[row, column] = ax.text(
                    column,
                    row,
                    format(value, values_format),
                    **{
                        "ha": "center",
                        "va": "center",
                        "color": "black" if is_light else "white",
                        **(text_kw or {}),
                    },
                )
        ax.set_xticks(np.arange(n_columns), column_labels, rotation=xticks_rotation)
        ax.set_yticks(np.arange(n_rows), self.labels)
        self.colorbar_ = ax.figure.colorbar(self.im_, ax=ax, label="Cosine similarity")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


def _prepare(embeddings, labels, prefix, order):
    """Check one side, scale its vectors to length one and order it."""
    labels = list(labels)
    embeddings = check_array(
        embeddings, dtype=np.float64, input_name=f"{prefix}embeddings"
    )
    if len(embeddings) != len(labels):
        raise ValueError(
            f"{prefix}labels has {len(labels)} labels and {prefix}embeddings "
            f"{len(embeddings)} rows: pass one label for each row"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    zeros = [label for label, length in zip(labels, lengths, strict=True) if not length]
    if zeros:
        raise ValueError(
            f"the embeddings of {zeros} are all zeros and have no cosine similarity: "
            f"leave these labels out of {prefix}labels"
        )
    embeddings = embeddings / lengths[:, None]
    if order == "cluster" and len(labels) > 2:
        distances = pdist(embeddings, "cosine").clip(min=0.0)
        leaves = leaves_list(linkage(distances, "average", optimal_ordering=True))
        embeddings, labels = embeddings[leaves], [labels[leaf] for leaf in leaves]
    return embeddings, labels
