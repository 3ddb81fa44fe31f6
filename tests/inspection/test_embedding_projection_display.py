from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import FactorAnalysis, TruncatedSVD
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.inspection import EmbeddingProjectionDisplay

LABELS = ["dog", "rain", "wolf", "storm"]
VECTORS = np.array([[3.0, 1, 0], [0, 1, 4], [5, 1, 1], [-1, 2, 4]])
MAPPING = dict(zip(LABELS, VECTORS, strict=True))
GROUPS = {"dog": "animal", "wolf": "animal", "rain": "weather", "storm": "weather"}


class Embedder(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_on_ = list(X)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return np.array([MAPPING[label] for label in X])


class Coordinates:
    """A projection that is no estimator."""

    def fit_transform(self, X):
        return X[:, :2]


def make_clusters(n_points=60, n_groups=4, n_components=20, spread=0.15):
    rng = np.random.default_rng(0)
    groups = np.arange(n_points) % n_groups
    centres = np.eye(n_components)[:n_groups]
    noise = rng.normal(0, spread, (n_points, n_components))
    return centres[groups] + noise, [f"group {group}" for group in groups]


def points_of(display):
    """Return what is drawn, by kind and group."""
    return {key: drawn.get_offsets() for key, drawn in display.scatters_.items()}


def color_of(scatter):
    return to_hex(scatter.get_facecolor()[0])


def legend_of(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def boxes_of(texts):
    """Return where texts are, without the lines to their points."""
    return np.array([Text.get_window_extent(text).extents for text in texts])


def share_area(boxes):
    """Tell whether any two boxes overlap."""
    for i, box in enumerate(boxes):
        rest = boxes[i + 1 :]
        size = np.minimum(box[2:], rest[:, 2:]) - np.maximum(box[:2], rest[:, :2])
        if (size > 0).all(axis=1).any():
            return True
    return False


def test_points_colours_and_markers():
    embeddings, groups = make_clusters()
    kinds = ["text", "text", "audio"] * 20
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, kinds=kinds, method="pca"
    )
    drawn = points_of(display)
    assert set(drawn) == set(zip(kinds, groups, strict=True))
    for (kind, group), points in drawn.items():
        rows = [
            i
            for i, pair in enumerate(zip(kinds, groups, strict=True))
            if pair == (kind, group)
        ]
        np.testing.assert_array_equal(points, display.projection[rows])
    # One colour for each group, one marker for each kind, and both in the legend.
    colors = {
        (group, color_of(scatter)) for (_, group), scatter in display.scatters_.items()
    }
    assert len({color for _, color in colors}) == len(colors) == 4
    shapes = {
        (kind, scatter.get_paths()[0].vertices.tobytes())
        for (kind, _), scatter in display.scatters_.items()
    }
    assert len({shape for _, shape in shapes}) == len(shapes) == 2
    named = [*dict.fromkeys(groups), "text", "audio"]
    assert legend_of(display) == named
    for handle, name in zip(display.legend_.legend_handles, named, strict=True):
        for (_, group), scatter in display.scatters_.items():
            if group == name:
                assert to_hex(handle.get_color()) == color_of(scatter)


def test_pca_keeps_the_distances_in_a_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(20, 2)) @ np.linalg.qr(rng.normal(size=(9, 2)))[0].T
    display = EmbeddingProjectionDisplay.from_embeddings(
        plane, method="pca", normalize=False
    )
    np.testing.assert_allclose(pdist(display.projection), pdist(plane))
    np.testing.assert_allclose(display.projection.mean(axis=0), 0, atol=1e-12)
    assert display.projection[:, 0].std() > display.projection[:, 1].std()
    shares = [name.split("(")[1] for name in display.axis_names]
    assert sum(int(share.split("%")[0]) for share in shares) == pytest.approx(
        100, abs=1
    )
    assert display.ax_.get_xlabel() == display.axis_names[0]
    # A unit is as long in both directions.
    display.figure_.draw_without_rendering()
    origin, right, up = display.ax_.transData.transform([(0, 0), (1, 0), (0, 1)])
    np.testing.assert_allclose(right[0] - origin[0], up[1] - origin[1])


def test_pca_by_singular_vectors():
    embeddings, _ = make_clusters()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * values[:2]
    display = EmbeddingProjectionDisplay.from_embeddings(embeddings, method="pca")
    np.testing.assert_allclose(pdist(display.projection), pdist(expected))


def test_lengths_do_not_count_unless_asked_to():
    embeddings, _ = make_clusters()
    longer = embeddings * np.linspace(1, 9, 60)[:, None]
    shown = [
        EmbeddingProjectionDisplay.from_embeddings(
            X, method="pca", normalize=normalize
        ).projection
        for X in (embeddings, longer)
        for normalize in (True, False)
    ]
    np.testing.assert_allclose(shown[0], shown[2], atol=1e-12)
    assert not np.allclose(shown[1], shown[3])


def test_centring_brings_kinds_together():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8))
    embeddings = np.vstack([vectors, vectors + 50.0])
    kinds = ["text"] * 30 + ["audio"] * 30
    given = embeddings.copy()
    for normalize in (False, True):
        display = EmbeddingProjectionDisplay.from_embeddings(
            embeddings, kinds=kinds, method="pca", center=True, normalize=normalize
        )
        text, audio = np.split(display.projection, 2)
        np.testing.assert_allclose(text, audio, atol=1e-9)
    np.testing.assert_array_equal(embeddings, given)
    apart = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, kinds=kinds, method="pca", normalize=False
    )
    text, audio = np.split(apart.projection[:, 0], 2)
    assert max(text.max(), audio.max()) - min(text.min(), audio.min()) > 100
    one_kind = EmbeddingProjectionDisplay.from_embeddings(
        vectors + 50.0, method="pca", center=True, normalize=False
    )
    np.testing.assert_allclose(pdist(one_kind.projection), pdist(text_of(vectors)))


def text_of(vectors):
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * values[:2]


def test_tsne_keeps_neighbours_together():
    embeddings, groups = make_clusters()
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, random_state=0
    )
    nearest = NearestNeighbors(n_neighbors=2).fit(display.projection)
    others = nearest.kneighbors(display.projection, return_distance=False)[:, 1]
    same = [groups[i] == groups[j] for i, j in enumerate(others)]
    assert np.mean(same) > 0.95
    assert display.ax_.get_xlabel() == "t-SNE 1"
    # Its coordinates have no unit.
    assert not len(display.ax_.get_xticks())


def test_a_random_state_repeats_the_picture():
    embeddings, _ = make_clusters()
    # The global generator is looked at to show that it is left alone.
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (
        EmbeddingProjectionDisplay.from_embeddings(embeddings, random_state=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.projection, second.projection)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("n_points", [3, 4, 30])
def test_few_points(method, n_points):
    embeddings = np.random.default_rng(0).normal(size=(n_points, 5))
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, method=method, random_state=0
    )
    assert np.isfinite(display.projection).all()
    assert display.legend_ is None


def test_other_methods():
    embeddings, _ = make_clusters()
    svd = TruncatedSVD(2, random_state=0)
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, method=svd, normalize=False
    )
    np.testing.assert_allclose(
        display.projection, TruncatedSVD(2, random_state=0).fit_transform(embeddings)
    )
    assert not hasattr(svd, "components_")
    assert display.axis_names[0].startswith("TruncatedSVD 1 (")
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, method=Coordinates(), normalize=False
    )
    np.testing.assert_array_equal(display.projection, embeddings[:, :2])
    assert display.axis_names == ("Coordinates 1", "Coordinates 2")


def test_labels_stand_beside_their_points():
    display = EmbeddingProjectionDisplay.from_embeddings(
        VECTORS, ["dog", None, "wolf", "storm"], method="pca"
    )
    assert [text.get_text() for text in display.texts_] == ["dog", "wolf", "storm"]
    for text, row in zip(display.texts_, [0, 2, 3], strict=True):
        np.testing.assert_array_equal(text.xy, display.projection[row])
        # Within a few points' distance, whichever side it is on.
        (box,) = boxes_of([text])
        pixel = display.ax_.transData.transform(display.projection[row])
        assert 5 < np.linalg.norm(np.clip(pixel, box[:2], box[2:]) - pixel) < 12
        assert not text.arrow_patch.get_visible()


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_labels_do_not_cover_each_other(method):
    embeddings, groups = make_clusters(30)
    labels = [f"the label {i}" for i in range(30)]
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, labels, groups=groups, method=method, random_state=0
    )
    display.figure_.draw_without_rendering()
    boxes = boxes_of(display.texts_)
    assert len(boxes) == 30
    assert not share_area(boxes)
    inside = display.ax_.bbox.extents
    assert (boxes[:, :2] >= inside[:2] - 1).all()
    assert (boxes[:, 2:] <= inside[2:] + 1).all()


def test_which_labels_are_printed():
    rng = np.random.default_rng(0)
    for n_points, n_printed in [(30, 30), (31, 0)]:
        labels = [f"label {i}" for i in range(n_points)]
        display = EmbeddingProjectionDisplay.from_embeddings(
            rng.normal(size=(n_points, 5)), labels, method="pca"
        )
        assert len(display.texts_) == n_printed
        for choice, expected in [
            (False, []),
            (True, labels),
            (["label 4", "label 2"], ["label 2", "label 4"]),
            ("label 1", ["label 1"]),
        ]:
            texts = display.plot(include_labels=choice).texts_
            assert [text.get_text() for text in texts] == expected


@pytest.mark.parametrize(
    "embedder",
    [MAPPING, Embedder(), Embedder().fit(["other"])],
    ids=["mapping", "unfitted", "fitted"],
)
@pytest.mark.parametrize("groups", [GROUPS, [GROUPS[label] for label in LABELS], None])
def test_from_embedder(embedder, groups):
    display = EmbeddingProjectionDisplay.from_embedder(
        embedder, LABELS, groups=groups, method="pca"
    )
    expected = EmbeddingProjectionDisplay.from_embeddings(VECTORS, method="pca")
    np.testing.assert_allclose(display.projection, expected.projection)
    assert display.labels == LABELS
    if groups is None:
        assert set(display.scatters_) == {(None, None)}
        assert display.legend_ is None
    else:
        np.testing.assert_array_equal(
            display.scatters_[None, "animal"].get_offsets(), display.projection[[0, 2]]
        )
        assert legend_of(display) == ["animal", "weather"]


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_labels_and_clips_together(groups):
    clips = VECTORS[[0, 0, 3]] * 0.9 + 0.1
    display = EmbeddingProjectionDisplay.from_embedder(
        MAPPING,
        LABELS,
        groups=groups,
        audio_embeddings=clips,
        audio_labels=["dog", "dog", "storm"],
        method="pca",
    )
    expected = EmbeddingProjectionDisplay.from_embeddings(
        np.vstack([VECTORS, clips]), method="pca"
    )
    np.testing.assert_allclose(display.projection, expected.projection)
    drawn = points_of(display)
    group = groups or dict(zip(LABELS, LABELS, strict=True))
    np.testing.assert_array_equal(
        drawn["audio", group["dog"]], display.projection[[4, 5]]
    )
    np.testing.assert_array_equal(
        drawn["audio", group["storm"]], display.projection[[6]]
    )
    colors = [
        display.scatters_[kind, group["dog"]].get_facecolor()
        for kind in ("text", "audio")
    ]
    np.testing.assert_array_equal(*colors)
    # Clips go by the names of their labels, which alone are printed.
    assert [text.get_text() for text in display.texts_] == LABELS
    assert legend_of(display) == [*dict.fromkeys(group.values()), "text", "audio"]


@pytest.mark.parametrize("n_groups", [10, 11, 21, 60])
def test_every_group_has_its_colour(n_groups):
    embeddings, groups = make_clusters(60, n_groups, 60)
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, method="pca"
    )
    colors = {color_of(scatter) for scatter in display.scatters_.values()}
    assert len(colors) == n_groups
    display.plot(cmap="viridis", scatter_kw={"s": 3, "marker": "x"})
    ends = [display.scatters_[None, f"group {i}"] for i in (0, n_groups - 1)]
    assert [color_of(end) for end in ends] == ["#440154", "#fde725"]
    assert ends[0].get_sizes().tolist() == [3]


def test_few_points_stand_out_among_many():
    rng = np.random.default_rng(0)
    display = EmbeddingProjectionDisplay.from_embeddings(
        rng.normal(size=(1000, 3)), kinds=["text"] * 5 + ["audio"] * 995, method="pca"
    )
    text, audio = (display.scatters_[kind, None] for kind in ("text", "audio"))
    assert text.get_sizes() > 5 * audio.get_sizes()
    assert text.get_zorder() > audio.get_zorder()


def test_few_points_stand_out_among_those_of_their_colour():
    rng = np.random.default_rng(0)
    display = EmbeddingProjectionDisplay.from_embeddings(
        rng.normal(size=(60, 3)), kinds=["text"] * 5 + ["audio"] * 55, method="pca"
    )
    text, audio = (display.scatters_[kind, None] for kind in ("text", "audio"))
    assert to_hex(text.get_edgecolor()[0]) == "#000000"
    assert to_hex(audio.get_edgecolor()[0]) == color_of(audio)
    # With as many of each, none stands out.
    display = EmbeddingProjectionDisplay.from_embeddings(
        rng.normal(size=(10, 3)), kinds=["text", "audio"] * 5, method="pca"
    )
    for scatter in display.scatters_.values():
        assert to_hex(scatter.get_edgecolor()[0]) == color_of(scatter)


@pytest.mark.parametrize("n_groups", [7, 20])
def test_groups_differ_without_colours(n_groups):
    embeddings, groups = make_clusters(60, n_groups, 60)
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, method="pca"
    )
    shapes = [
        scatter.get_paths()[0].vertices.tobytes()
        for scatter in display.scatters_.values()
    ]
    assert len(set(shapes)) == min(n_groups, 8)
    # Neighbours in the legend, whose colours are alike in some maps, always do.
    assert all(left != right for left, right in pairwise(shapes))
    markers = [handle.get_marker() for handle in display.legend_.legend_handles]
    assert len(set(markers)) == min(n_groups, 8)


def test_labels_do_not_cover_points_where_there_is_room():
    # Half of the second point is under a label on the first one's right.
    points = np.array([[0.0, 0.0], [0.1, -0.04], [-1.0, -1.0], [1.0, 1.0]])
    display = EmbeddingProjectionDisplay(points, labels=["a long label", *[None] * 3])
    display.plot()
    display.figure_.draw_without_rendering()
    (box,) = boxes_of(display.texts_)
    for pixel in display.ax_.transData.transform(points):
        beyond = np.maximum(box[:2] - pixel, pixel - box[2:]).max()
        assert beyond > 3 * display.figure_.dpi / 72


@pytest.mark.parametrize("n_groups", [3, 7, 50])
def test_own_figure_has_room_for_everything(n_groups):
    embeddings, groups = make_clusters(527, n_groups, 60)
    groups = [f"Channel, environment and background, {group}" for group in groups]
    labels = [f"label {i}" for i in range(527)]
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, labels, groups=groups, method="pca"
    )
    display.figure_.draw_without_rendering()
    legend = display.legend_.get_window_extent()
    assert legend.x0 >= display.ax_.bbox.x1
    assert legend.x1 <= display.figure_.bbox.x1
    assert legend.y0 >= 0
    assert len(legend_of(display)) == n_groups
    # The points keep most of the picture's height, and a good part of its width.
    assert display.ax_.bbox.width > 0.3 * display.figure_.bbox.width


def test_more_groups_than_a_legend_holds():
    embeddings, groups = make_clusters(60, 51, 60)
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, kinds=["a", "b"] * 30, method="pca"
    )
    assert legend_of(display) == ["a", "b"]


def test_given_axes(plt):
    embeddings, groups = make_clusters()
    figure, (left, right) = plt.subplots(1, 2)
    display = EmbeddingProjectionDisplay.from_embeddings(
        embeddings, groups=groups, method="pca", ax=right
    )
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.collections
    # Nothing makes room beside these axes.
    figure.draw_without_rendering()
    legend = display.legend_.get_window_extent()
    assert legend.x1 <= right.bbox.x1
    assert display.plot(ax=left, legend_kw={"title": "Groups"}) is display
    assert display.ax_ is left
    assert display.legend_.get_title().get_text() == "Groups"
    assert len(plt.get_fignums()) == 1


def test_arrays_of_names():
    embeddings, groups = make_clusters(12)
    display = EmbeddingProjectionDisplay(
        embeddings[:, :2], labels=np.array(groups), groups=np.array(groups)
    ).plot(text_kw={"color": "red"})
    assert len(display.scatters_) == 4
    assert {text.get_color() for text in display.texts_} == {"red"}


def test_unknown_labels():
    with pytest.raises(UnknownLabelError, match=r"no vector for \['cat'\]") as info:
        EmbeddingProjectionDisplay.from_embedder(MAPPING, ["cat", *LABELS])
    assert info.value.labels == ["cat"]
    with pytest.raises(UnknownLabelError, match=r"groups has no group for \['rain'\]"):
        EmbeddingProjectionDisplay.from_embedder(
            MAPPING, LABELS, groups={"dog": "a", "wolf": "a", "storm": "b"}
        )
    with pytest.raises(UnknownLabelError, match=r"audio_labels holds \['cat'\]"):
        EmbeddingProjectionDisplay.from_embedder(
            MAPPING, LABELS, audio_embeddings=VECTORS[:1], audio_labels=["cat"]
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"embeddings": VECTORS[0]}, "Expected 2D array"),
        ({"embeddings": VECTORS * np.nan}, "Input embeddings contains NaN"),
        ({"embeddings": VECTORS[:2]}, r"2 sample\(s\) .* minimum of 3"),
        ({"embeddings": VECTORS[:, :1]}, r"1 feature\(s\) .* minimum of 2"),
        ({"embeddings": np.ones((4, 3))}, "embeddings are all the same"),
        ({"embeddings": VECTORS * [[1], [0], [1], [1]]}, r"rows \[1\] \(\['rain'\]\)"),
        ({"labels": LABELS[:3]}, "labels has length 3, and embeddings 4 rows"),
        ({"groups": LABELS[:3]}, "groups has length 3, and embeddings 4 rows"),
        ({"kinds": LABELS[:3]}, "kinds has length 3, and embeddings 4 rows"),
        ({"method": "umap"}, "method must be 'tsne', 'pca' or a transformer, got 'um"),
        ({"method": FactorAnalysis(3)}, r"shape \(4, 3\) for 4 embeddings"),
        ({"include_labels": ["cat"]}, r"include_labels names \['cat'\]"),
        ({"labels": None, "include_labels": ["dog"]}, "which no point is called"),
    ],
)
def test_bad_input(params, message):
    given = {"embeddings": VECTORS, "labels": LABELS, "method": "pca"} | params
    with pytest.raises(ValueError, match=message):
        EmbeddingProjectionDisplay.from_embeddings(**given)


def test_too_many_kinds():
    with pytest.raises(ValueError, match="kinds holds 9 different kinds"):
        EmbeddingProjectionDisplay.from_embeddings(
            np.eye(9), kinds=list("abcdefghi"), method="pca"
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"audio_labels": None}, "audio_embeddings and audio_labels go together"),
        ({"audio_embeddings": None}, "audio_embeddings and audio_labels go together"),
        ({"audio_labels": LABELS[:2]}, "2 labels and audio_embeddings 4 rows"),
        ({"audio_embeddings": VECTORS[:, :2]}, "has 2 components and the embeddings"),
        ({"groups": ["a"]}, "groups has length 1, and labels 4 rows"),
    ],
)
def test_bad_labels_and_clips(params, message):
    given = {"audio_embeddings": VECTORS, "audio_labels": LABELS} | params
    with pytest.raises(ValueError, match=message):
        EmbeddingProjectionDisplay.from_embedder(MAPPING, LABELS, **given)


def test_names_that_do_not_fit_the_points():
    display = EmbeddingProjectionDisplay(VECTORS[:, :2], groups=["a"])
    with pytest.raises(ValueError, match="groups has length 1, and projection 4 rows"):
        display.plot()
