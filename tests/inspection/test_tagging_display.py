from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression

from sklabelaudio.embedding import EfficientATEmbedder
from sklabelaudio.inspection import TaggingDisplay

LABELS = ["Dog", "Rain", "Siren", "Wind"]
PROBABILITIES = np.array(
    [
        [0.1, 0.4, 0.0, 0.3],
        [0.9, 0.5, 0.1, 0.3],
        [0.1, 0.6, 0.0, 0.3],
    ]
)
TIMES = [0.5, 1.5, 2.5]
BY_MAX = ["Dog", "Rain", "Wind", "Siren"]


class StandIn:
    """The members of an embedder that the display reads."""

    sampling_rate = 8000

    def __init__(self, rows=PROBABILITIES, labels=LABELS):
        self.rows = rows
        self.checkpoint_ = SimpleNamespace(labels=labels and tuple(labels))

    def transform(self, clips):
        (self.clip,) = clips  # one clip, not its samples
        return self.rows[None]

    def frame_times(self, n_frames, *, duration=None):
        self.duration = duration
        return np.arange(n_frames) + 0.5


class Tagger:
    classes_ = np.array(LABELS)

    def predict_proba(self, clips):
        rows = np.empty(len(clips), dtype=object)
        rows[:] = [PROBABILITIES] * len(clips)
        return rows

    def frame_times(self, n_frames, *, duration=None):
        return np.arange(n_frames) + 0.5


class Classifier:
    classes_ = np.array(["animal", "weather"])

    def predict_proba(self, X):
        return X[:, [0, 1]] / 2


@pytest.fixture
def parts():
    return {"probabilities": PROBABILITIES, "labels": LABELS, "times": TIMES}


def rows_of(display):
    """Return what is drawn, by the label beside it."""
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    return dict(zip(ticks, np.asarray(display.mesh_.get_array()), strict=True))


def edges_of(display):
    return display.mesh_.get_coordinates()[0, :, 0]


def check_drawn(display):
    assert isinstance(display, TaggingDisplay)
    drawn = rows_of(display)
    assert list(drawn) == display.shown_labels_ == BY_MAX
    for label, row in drawn.items():
        np.testing.assert_array_equal(row, PROBABILITIES[:, LABELS.index(label)])
    np.testing.assert_allclose(edges_of(display), [0, 1, 2, 3])


def test_each_row_is_what_its_label_says(parts):
    check_drawn(TaggingDisplay.from_probabilities(**parts))


def test_a_cell_is_where_its_time_and_label_are(parts):
    display = TaggingDisplay.from_probabilities(**parts)
    to_pixel = display.ax_.transData.transform
    for row, label in enumerate(display.shown_labels_):
        assert display.ax_.get_yticks()[row] == row
        for step, time in enumerate(TIMES):
            x, y = to_pixel((time, row))
            event = SimpleNamespace(x=x, y=y, name="", canvas=display.figure_.canvas)
            hit, found = display.mesh_.contains(event)
            assert hit
            (cell,) = found["ind"]
            value = display.mesh_.get_array().ravel()[cell]
            assert value == PROBABILITIES[step, LABELS.index(label)]
    # The first label is at the top, the first step at the left.
    top, bottom = to_pixel([(0.5, 0), (2.5, 3)])
    assert top[1] > bottom[1]
    assert top[0] < bottom[0]
    assert display.ax_.get_xlabel() == "Time (s)"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"top_k": 2}, ["Dog", "Rain"]),
        ({"top_k": 1, "rank_by": "mean"}, ["Rain"]),
        ({"rank_by": "mean"}, ["Rain", "Dog", "Wind", "Siren"]),
        ({"top_k": None}, BY_MAX),
        ({"top_k": 100}, BY_MAX),
    ],
)
def test_which_labels_are_shown(parts, params, expected):
    display = TaggingDisplay.from_probabilities(**parts, **params)
    assert display.shown_labels_ == list(rows_of(display)) == expected
    assert display.ax_.get_ylim() == (len(expected) - 0.5, -0.5)


def test_equal_labels_keep_their_order():
    labels = [f"label {i}" for i in range(30)]
    display = TaggingDisplay.from_probabilities(
        np.full((4, 30), 0.5), labels=labels, times=np.arange(4.0)
    )
    assert display.shown_labels_ == labels[:10]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.5, 1.0, 2.0], [0.25, 0.75, 1.5, 2.5]),  # windows of which one ends earlier
        ([0.0, 0.32, 0.64], [0.0, 0.16, 0.48, 0.8]),  # nothing is before the start
        ([10.0, 10.1, 10.2], [9.95, 10.05, 10.15, 10.25]),
        ([-1.0, 0.0, 1.0], [-1.0, -0.5, 0.5, 1.5]),
    ],
)
def test_steps_are_drawn_around_their_times(parts, times, expected):
    display = TaggingDisplay.from_probabilities(**parts | {"times": times})
    np.testing.assert_allclose(edges_of(display), expected)
    np.testing.assert_allclose(display.ax_.get_xlim(), (expected[0], expected[-1]))


@pytest.mark.parametrize(("time", "expected"), [(5.0, (0, 10)), (0.0, (0, 0.5))])
def test_one_step(time, expected):
    display = TaggingDisplay.from_probabilities(
        PROBABILITIES[:1], labels=LABELS, times=[time]
    )
    assert display.ax_.get_xlim() == expected


def test_colours_span_zero_to_one(parts):
    display = TaggingDisplay.from_probabilities(**parts)
    assert display.mesh_.get_clim() == (0, 1)
    assert display.colorbar_.ax.get_ylabel() == "Probability"
    display.plot(vmax=0.5, cmap="magma")
    assert display.mesh_.get_clim() == (0, 0.5)
    assert display.mesh_.get_cmap().name == "magma"


@pytest.mark.parametrize("estimator", [StandIn(), Tagger()], ids=["embedder", "tagger"])
def test_from_estimator(estimator):
    check_drawn(TaggingDisplay.from_estimator(estimator, np.zeros(24000)))


def test_length_of_the_clip(tmp_path):
    estimator = StandIn()
    TaggingDisplay.from_estimator(estimator, np.zeros(20000))
    assert estimator.duration == 2.5
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.zeros((33075, 2)), 44100)
    TaggingDisplay.from_estimator(estimator, path)
    assert estimator.duration == 0.75
    TaggingDisplay.from_estimator(estimator, path, duration=3.0)
    assert estimator.duration == 3.0


@pytest.mark.parametrize("kind", [str, Path])
def test_title_is_the_file(kind):
    clip = kind("folder/1-100032-A-0.ogg")
    display = TaggingDisplay.from_estimator(StandIn(), clip, duration=5.0)
    assert display.ax_.get_title() == "1-100032-A-0.ogg"
    display = TaggingDisplay.from_estimator(StandIn(), clip, duration=5.0, name="a dog")
    assert display.ax_.get_title() == "a dog"


def test_labels_of_a_classifier():
    display = TaggingDisplay.from_estimator(
        StandIn(labels=None), np.zeros(24000), classifier=Classifier()
    )
    drawn = rows_of(display)
    np.testing.assert_array_equal(drawn["animal"], PROBABILITIES[:, 0] / 2)
    np.testing.assert_array_equal(drawn["weather"], PROBABILITIES[:, 1] / 2)
    display = TaggingDisplay.from_estimator(
        StandIn(), np.zeros(24000), classifier=Classifier(), labels=["a", "w"]
    )
    assert set(rows_of(display)) == {"a", "w"}


@pytest.mark.parametrize("output", ["frames", "framewise_embedding"])
def test_vectors_over_time_of_an_encoder(small_tagger, output):
    rng = np.random.default_rng(0)
    clips = rng.normal(0, 0.1, (2, 32000 * 3))
    embedder = EfficientATEmbedder(
        small_tagger / "efficientat.pt",
        sampling_rate=32000,
        output=output,
        window=1.0,
        hop=0.5,
    ).fit(clips)
    steps = np.asarray(embedder.transform(clips[:1])[0])
    classifier = LogisticRegression().fit(steps, np.arange(len(steps)) % 3)
    display = TaggingDisplay.from_estimator(
        embedder, clips[0], classifier=classifier, labels=["a", "b", "c"]
    )
    np.testing.assert_array_equal(
        display.probabilities, classifier.predict_proba(steps)
    )
    assert display.times[0] >= 0
    assert 2.0 < display.times[-1] <= 3.0


def test_given_axes(plt, parts):
    figure, (left, right) = plt.subplots(2, 1, sharex=True)
    display = TaggingDisplay.from_probabilities(**parts, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.collections
    assert display.plot(ax=left) is display
    assert display.ax_ is left
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("n_labels", [3, 527])
def test_own_figure_has_room_for_every_label(n_labels):
    labels = [f"A rather long label, number {i}" for i in range(n_labels)]
    display = TaggingDisplay.from_probabilities(
        np.zeros((5, n_labels)), labels=labels, times=np.arange(5.0), top_k=None
    )
    display.figure_.draw_without_rendering()
    ticks = [tick.get_window_extent() for tick in display.ax_.get_yticklabels()]
    assert len(ticks) == n_labels
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(ticks))
    assert min(tick.x0 for tick in ticks) >= 0
    assert max(tick.y1 for tick in ticks) <= display.figure_.bbox.y1


def test_values_that_rounding_led_astray(parts):
    parts["probabilities"] = (PROBABILITIES + 0.1).astype(np.float32) + 1e-7
    TaggingDisplay.from_probabilities(**parts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probabilities": PROBABILITIES[None]}, r"of one clip, got \(1, 3, 4\)"),
        ({"probabilities": np.zeros((0, 4))}, r"of one clip, got \(0, 4\)"),
        ({"probabilities": PROBABILITIES * np.nan}, "probabilities holds NaN"),
        ({"probabilities": PROBABILITIES * 20 - 9}, "goes from -9 to 9, .*expit"),
        ({"labels": LABELS[:3]}, "labels has 3 labels and probabilities 4 columns"),
        ({"times": TIMES[:2]}, r"has 3 steps and times has the shape \(2,\)"),
        ({"times": TIMES[::-1]}, "times must increase"),
        ({"times": [0.0, 1.0, np.inf]}, "times must increase"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"rank_by": "sum"}, "rank_by must be 'max' or 'mean', got 'sum'"),
    ],
)
def test_bad_input(parts, changed, message):
    with pytest.raises(ValueError, match=message):
        TaggingDisplay.from_probabilities(**parts | changed)


def test_one_row_for_the_whole_clip():
    with pytest.raises(ValueError, match=r"whole clip, .* 'framewise_probabilities'"):
        TaggingDisplay.from_estimator(StandIn(PROBABILITIES[0]), np.zeros(24000))


def test_steps_without_times():
    tagger = SimpleNamespace(transform=StandIn().transform, classes_=LABELS)
    with pytest.raises(TypeError, match=r"SimpleNamespace has no frame_times.*times"):
        TaggingDisplay.from_estimator(tagger, np.zeros(24000), duration=3.0)


def test_parts_that_are_lists(parts):
    display = TaggingDisplay(PROBABILITIES.tolist(), labels=LABELS, times=TIMES)
    check_drawn(display.plot())


@pytest.mark.parametrize("classifier", [None, SimpleNamespace(predict_proba=np.abs)])
def test_labels_that_nobody_knows(classifier):
    with pytest.raises(ValueError, match=r"labels=None, and \w+ has no list"):
        TaggingDisplay.from_estimator(
            StandIn(labels=None), np.zeros(24000), classifier=classifier
        )


def test_vectors_are_no_probabilities():
    estimator = StandIn(np.full((3, 1280), 0.5))
    with pytest.raises(ValueError, match=r"labels has 4 .* 1280 .* need a classifier"):
        TaggingDisplay.from_estimator(estimator, np.zeros(24000))
