from itertools import pairwise

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.validation import check_is_fitted

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.inspection import LabelSimilarityDisplay

LABELS = ["dog", "rain", "wolf", "storm"]
VECTORS = np.array([[3.0, 1, 0], [0, 1, 4], [5, 1, 1], [-1, 2, 4]])
MAPPING = dict(zip(LABELS, VECTORS, strict=True))


class Embedder(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_on_ = list(X)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return np.array([MAPPING[label] * len(self.fitted_on_) for label in X])


class TransformOnly:
    def transform(self, labels):
        return [MAPPING[label] for label in labels]


def tick_labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


@pytest.mark.parametrize(
    "embedder",
    [MAPPING, Embedder(), Embedder().fit(LABELS), TransformOnly()],
    ids=["mapping", "unfitted", "fitted", "transform only"],
)
def test_similarities_are_cosines(embedder):
    display = LabelSimilarityDisplay.from_embedder(embedder, LABELS)
    np.testing.assert_allclose(display.similarity, cosine_similarity(VECTORS))
    np.testing.assert_array_equal(display.im_.get_array(), display.similarity)
    assert tick_labels(display.ax_.xaxis) == LABELS
    assert tick_labels(display.ax_.yaxis) == LABELS


def test_the_embedder_stays_as_it_was():
    unfitted, fitted = Embedder(), Embedder().fit(["other"])
    for embedder in (unfitted, fitted):
        LabelSimilarityDisplay.from_embedder(embedder, LABELS)
    assert vars(unfitted) == {}
    assert fitted.fitted_on_ == ["other"]


def test_printed_values(plt):
    display = LabelSimilarityDisplay.from_embeddings(VECTORS, LABELS)
    for (row, column), value in np.ndenumerate(display.similarity):
        text = display.text_[row, column]
        assert text.get_text() == f"{value:.2f}"
        assert text.get_position() == (column, row)
    # Dark cells bear white figures, light ones black.
    assert display.text_[0, 0].get_color() == "black"
    assert display.text_[0, 3].get_color() == "white"
    display.plot(values_format=".1f", text_kw={"color": "red"})
    assert display.text_[0, 0].get_text() == "1.0"
    assert display.text_[0, 0].get_color() == "red"


def test_values_are_printed_in_small_matrices_only():
    rng = np.random.default_rng(0)
    for n_labels, printed in [(12, True), (13, False)]:
        labels = [f"label {i}" for i in range(n_labels)]
        display = LabelSimilarityDisplay.from_embeddings(
            rng.normal(size=(n_labels, 5)), labels
        )
        assert (display.text_ is not None) == printed
        assert (display.plot(include_values=not printed).text_ is None) == printed


def test_order_by_clusters():
    rng = np.random.default_rng(0)
    groups = np.tile(np.arange(4), 5)
    embeddings = np.eye(4)[groups] + rng.normal(0, 0.1, (20, 4))
    labels = [f"{group} {i}" for i, group in enumerate(groups)]
    display = LabelSimilarityDisplay.from_embeddings(
        embeddings, labels, order="cluster"
    )
    # The members of a group are neighbours: three changes along the axis.
    kinds = [label[0] for label in display.labels]
    assert sum(a != b for a, b in pairwise(kinds)) == 3
    assert tick_labels(display.ax_.yaxis) == display.labels
    assert sorted(display.labels) == sorted(labels)
    rows = [labels.index(label) for label in display.labels]
    expected = cosine_similarity(embeddings)[np.ix_(rows, rows)]
    np.testing.assert_allclose(display.similarity, expected)


def test_order_of_two_labels_and_of_equal_ones():
    for embeddings in (VECTORS[:2], np.ones((4, 3))):
        labels = LABELS[: len(embeddings)]
        display = LabelSimilarityDisplay.from_embeddings(
            embeddings, labels, order="cluster"
        )
        assert sorted(display.labels) == sorted(labels)


@pytest.mark.parametrize("order", [None, "cluster"])
def test_rows_and_columns_of_different_labels(order):
    columns = ["wolf", "dog", "storm"]
    display = LabelSimilarityDisplay.from_embedder(
        MAPPING, ["rain", "dog"], column_labels=columns, order=order
    )
    assert display.similarity.shape == (2, 3)
    assert tick_labels(display.ax_.yaxis) == display.labels
    assert tick_labels(display.ax_.xaxis) == display.column_labels
    for row, label in enumerate(display.labels):
        for column, other in enumerate(display.column_labels):
            (expected,) = cosine_similarity([MAPPING[label]], [MAPPING[other]])[0]
            assert display.similarity[row, column] == pytest.approx(expected)
    if order is None:
        assert (display.labels, display.column_labels) == (["rain", "dog"], columns)
    else:
        assert sorted(display.column_labels) == sorted(columns)


def test_colours_span_zero_to_one():
    positive = LabelSimilarityDisplay.from_embeddings(VECTORS[:3], LABELS[:3])
    assert positive.im_.get_clim() == (0, 1)
    signed = LabelSimilarityDisplay.from_embeddings([[1, 0], [-1, 0]], ["a", "b"])
    assert signed.im_.get_clim() == (-1, 1)
    display = positive.plot(cmap="magma", im_kw={"vmin": -1})
    assert display.im_.get_clim() == (-1, 1)
    assert display.im_.get_cmap().name == "magma"


def test_given_axes(plt):
    figure, (left, right) = plt.subplots(1, 2)
    display = LabelSimilarityDisplay.from_embedder(MAPPING, LABELS, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.images
    assert display.plot(ax=left) is display
    assert display.ax_ is left
    assert len(plt.get_fignums()) == 1


def test_own_figure_has_room_for_every_label():
    labels = [f"label {i}" for i in range(60)]
    display = LabelSimilarityDisplay.from_embeddings(np.eye(60), labels)
    display.figure_.canvas.draw()
    ticks = [tick.get_window_extent() for tick in display.ax_.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(ticks))
    assert min(tick.x0 for tick in ticks) >= 0


def test_unknown_labels():
    with pytest.raises(
        UnknownLabelError, match=r"no vector for \['cat', 'cow'\]"
    ) as info:
        LabelSimilarityDisplay.from_embedder(
            MAPPING, ["cat", "dog"], column_labels=["cow"]
        )
    assert info.value.labels == ["cat", "cow"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"labels": LABELS[:3]}, "labels has 3 labels and embeddings 4 rows"),
        ({"embeddings": VECTORS * [[1], [0], [1], [1]]}, r"\['rain'\] are all zeros"),
        ({"embeddings": VECTORS[0]}, "Expected 2D array"),
        ({"embeddings": VECTORS * np.nan}, "Input embeddings contains NaN"),
        ({"order": "name"}, "order must be 'cluster' or None, got 'name'"),
        ({"column_labels": LABELS}, "column_embeddings and column_labels go together"),
        (
            {"column_labels": LABELS, "column_embeddings": VECTORS[:1]},
            "column_labels has 4 labels and column_embeddings 1 rows",
        ),
        (
            {"column_labels": LABELS, "column_embeddings": VECTORS[:, :2]},
            "embeddings have 3 components and column_embeddings 2",
        ),
    ],
)
def test_bad_input(params, message):
    params = {"embeddings": VECTORS, "labels": LABELS} | params
    with pytest.raises(ValueError, match=message):
        LabelSimilarityDisplay.from_embeddings(**params)


def test_similarity_of_another_shape():
    display = LabelSimilarityDisplay(np.eye(3), labels=LABELS)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) for 4 row labels and 4"):
        display.plot()
