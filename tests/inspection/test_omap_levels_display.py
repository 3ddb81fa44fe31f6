import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from sklabelaudio.inspection import OmAPLevelsDisplay
from sklabelaudio.metrics import omap_levels, omap_score

SCORES = {
    "plain": [0.5, 0.6, 0.9],
    "aligned": [0.4, 0.7, 0.9],
    "other": [0.2, 0.1, 0.3],
}
LABELS = ["car", "giggle", "laughter", "rain"]
DISTANCES = np.array([[0, 5, 4, 2], [5, 0, 1, 6], [4, 1, 0, 5], [2, 6, 5, 0]])


def draw_predictions(n_models=2):
    rng = np.random.default_rng(0)
    y_true = rng.random((60, 4)) < 0.4
    y_true[np.arange(60), np.arange(60) % 4] = True
    y_scores = {
        f"model {i}": y_true * rng.random() + rng.random((60, 4))
        for i in range(n_models)
    }
    return y_true, y_scores


def legend_of(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def curve(display, name):
    return display.lines_[name].get_ydata()


def test_difference_to_the_first_model():
    display = OmAPLevelsDisplay.from_levels(SCORES)
    assert list(display.lines_) == ["aligned", "other"]
    np.testing.assert_allclose(curve(display, "aligned"), [-0.1, 0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(curve(display, "other"), [-0.3, -0.5, -0.6])
    for line in display.lines_.values():
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    assert display.ax_.get_ylabel() == "OmAP above that of plain"
    assert display.ax_.get_xlabel() == "Level (greatest distance forgiven)"
    assert legend_of(display) == ["aligned (+0.000)", "other (−0.467)"]
    assert set(display.baseline_line_.get_ydata()) == {0}


def test_difference_to_a_named_model():
    display = OmAPLevelsDisplay.from_levels(SCORES, baseline="other")
    assert list(display.lines_) == ["plain", "aligned"]
    np.testing.assert_allclose(curve(display, "plain"), [0.3, 0.5, 0.6])
    assert display.ax_.get_ylabel() == "OmAP above that of other"


def test_differences_of_pairs():
    display = OmAPLevelsDisplay.from_levels(
        SCORES, baseline={"aligned": "plain", "plain": "other"}
    )
    assert list(display.lines_) == ["aligned", "plain"]
    np.testing.assert_allclose(curve(display, "aligned"), [-0.1, 0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(curve(display, "plain"), [0.3, 0.5, 0.6])
    assert legend_of(display) == ["aligned − plain (+0.000)", "plain − other (+0.467)"]
    assert display.ax_.get_ylabel() == "Difference of OmAP"


@pytest.mark.parametrize(
    ("scores", "baseline"), [(SCORES, None), ({"plain": [0.5, 0.6, 0.9]}, "auto")]
)
def test_the_scores_themselves(scores, baseline):
    display = OmAPLevelsDisplay.from_levels(scores, baseline=baseline)
    assert list(display.lines_) == list(scores)
    for name, values in scores.items():
        np.testing.assert_array_equal(curve(display, name), values)
    assert legend_of(display)[0] == "plain (0.667)"
    assert display.baseline_line_ is None
    assert display.ax_.get_ylabel() == "OmAP"


def test_a_model_called_auto():
    scores = {"first": [0.1, 0.2], "auto": [0.3, 0.5]}
    display = OmAPLevelsDisplay.from_levels(scores, baseline="auto")
    np.testing.assert_allclose(curve(display, "first"), [-0.2, -0.3])


def test_from_predictions_by_the_definition():
    # Each false positive weighs by its distance beyond the level, whatever the norm.
    y_true, y_scores = draw_predictions()
    nearest = np.array([DISTANCES[row].min(axis=0) for row in y_true])
    expected = {}
    for name, y_score in y_scores.items():
        expected[name] = np.ones(7)
        for level in range(6):
            masked = np.where(level < DISTANCES, DISTANCES, 0)
            weights = np.where(nearest > level, nearest, 0) / (masked.sum() / 12)
            expected[name][level] = np.mean(
                [
                    average_precision_score(
                        y_true[:, k],
                        y_score[:, k],
                        sample_weight=np.where(y_true[:, k], 1, weights[:, k]),
                    )
                    for k in range(4)
                ]
            )
    display = OmAPLevelsDisplay.from_predictions(y_true, y_scores, distances=DISTANCES)
    np.testing.assert_allclose(
        curve(display, "model 1"), expected["model 1"] - expected["model 0"], atol=1e-12
    )
    omap = [omap_score(y_true, y, distances=DISTANCES) for y in y_scores.values()]
    mean = f"{omap[1] - omap[0]:+.3f}".replace("-", "−")
    assert legend_of(display) == [f"model 1 ({mean})"]


def test_from_estimators_in_the_order_of_the_distances():
    rng = np.random.default_rng(0)
    y = np.array(LABELS)[np.arange(80) % 4]
    X = np.eye(4)[np.arange(80) % 4] + rng.normal(size=(80, 4))
    # Not the order of `classes_`, which is alphabetical.
    labels = ["rain", "car", "laughter", "giggle"]
    order = [LABELS.index(label) for label in labels]
    distances = DISTANCES[np.ix_(order, order)]
    models = {"nb": GaussianNB().fit(X, y), "svm": LinearSVC().fit(X, y)}
    y_scores = {
        "nb": models["nb"].predict_proba(X)[:, order],
        "svm": models["svm"].decision_function(X)[:, order],
    }
    settings = {"distances": distances, "labels": labels, "weighting": "binary"}
    display = OmAPLevelsDisplay.from_estimators(models, X, y, **settings)
    expected = OmAPLevelsDisplay.from_predictions(y, y_scores, **settings)
    for name, scores in expected.scores.items():
        np.testing.assert_array_equal(display.scores[name], scores)
    assert list(display.lines_) == ["svm"]
    only = OmAPLevelsDisplay.from_estimators(
        models, X, y, baseline=None, levels=[3, 1], lw=3, **settings
    )
    assert only.lines_["nb"].get_xdata().tolist() == [1, 3]
    assert only.lines_["nb"].get_linewidth() == 3


def test_estimators_that_are_bad():
    X, y = np.eye(4), LABELS
    settings = {"distances": DISTANCES, "labels": LABELS}
    with pytest.raises(TypeError, match="estimators is a GaussianNB: pass a dict"):
        OmAPLevelsDisplay.from_estimators(GaussianNB(), X, y, **settings)
    with pytest.raises(TypeError, match="LinearRegression has no predict_proba or"):
        OmAPLevelsDisplay.from_estimators(
            {"line": LinearRegression().fit(X, X)}, X, y, **settings
        )
    with pytest.raises(ValueError, match="labels has length 3, but distances 4"):
        OmAPLevelsDisplay.from_estimators(
            {"nb": GaussianNB().fit(X, y)}, X, y, distances=DISTANCES, labels=LABELS[:3]
        )


def test_scores_that_are_lists():
    display = OmAPLevelsDisplay({"a": [0.5, 0.6], "b": [0.4, 0.4]}, levels=[2, 1])
    assert display.plot().lines_["b"].get_ydata() == pytest.approx([-0.2, -0.1])


def test_settings_of_the_score():
    y_true, y_scores = draw_predictions(3)
    y_true[:, 3] = False
    y_true[5] = False
    params = {
        "distances": DISTANCES,
        "weighting": "binary",
        "levels": [4, 0.5, 2],
        "average": "weighted",
        "sample_weight": np.linspace(0, 1, 60),
        "labels": LABELS,
        "zero_division": np.nan,
        "unlabelled": "ignore",
    }
    y_labels = [[LABELS[k] for k in np.flatnonzero(row)] for row in y_true]
    display = OmAPLevelsDisplay.from_predictions(
        y_labels, y_scores, baseline=None, **params
    )
    for name, y_score in y_scores.items():
        expected = omap_levels(y_labels, y_score, **params)
        np.testing.assert_array_equal(display.scores[name], expected)
        # Drawn by level, in whatever order they were asked for.
        np.testing.assert_array_equal(curve(display, name), expected[[1, 2, 0]])
        np.testing.assert_array_equal(display.lines_[name].get_xdata(), [0.5, 2.0, 4.0])


@pytest.mark.parametrize("case", ["n200", "tree10_n60"])
def test_reference_figures(shared, case):
    folder = shared / "reference" / "omap"
    figures = np.load(folder / f"omap_A_{case}.npz")
    distances = figures.get("D")
    if distances is None:
        distances = np.load(folder / "audioset_distance_from_ontology_json.npz")["D"]
    display = OmAPLevelsDisplay.from_predictions(
        figures["target"],
        {"model": figures["score"], "constant": np.zeros(figures["score"].shape)},
        distances=distances,
        zero_division=0.0,
        baseline=None,
    )
    np.testing.assert_allclose(
        curve(display, "model"), figures["omap_level"], rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(
        display.lines_["model"].get_xdata(), figures["levels"]
    )
    assert legend_of(display)[0] == f"model ({figures['omap']:.3f})"


def test_columns_of_a_table_are_models():
    display = OmAPLevelsDisplay.from_levels(pd.DataFrame(SCORES))
    np.testing.assert_allclose(curve(display, "other"), [-0.3, -0.5, -0.6])


def test_whole_levels_have_whole_ticks():
    whole = OmAPLevelsDisplay.from_levels(SCORES)
    assert (whole.ax_.get_xticks() % 1 == 0).all()
    parts = OmAPLevelsDisplay.from_levels(SCORES, levels=[0, 0.5, 1])
    np.testing.assert_array_equal(parts.lines_["other"].get_xdata(), [0, 0.5, 1])


def test_curves_differ_without_colours():
    scores = {f"model {i}": np.full(3, 0.1 * i) for i in range(6)}
    lines = OmAPLevelsDisplay.from_levels(scores, baseline=None).lines_.values()
    assert len({line.get_marker() for line in lines}) == 6


@pytest.mark.parametrize("n_models", [2, 6])
def test_the_legend_covers_no_curve(n_models):
    scores = {f"a model with a very long name, {i}": [0.1 * i] * 3 for i in range(6)}
    scores = dict(list(scores.items())[:n_models])
    display = OmAPLevelsDisplay.from_levels(scores, baseline=None)
    display.figure_.draw_without_rendering()
    legend = display.legend_.get_window_extent()
    label = display.ax_.xaxis.label.get_window_extent()
    assert legend.y1 <= label.y0
    assert legend.y0 >= 0
    assert legend.x0 >= 0
    assert legend.x1 <= display.figure_.bbox.x1
    # The axes keep the size that they have without a legend, about.
    assert display.ax_.bbox.height > 3 * display.figure_.dpi


def test_one_warning_for_all_models():
    y_true, y_scores = draw_predictions(3)
    y_true[:, 0], y_true[:, 1], y_true[5] = True, False, False
    with pytest.warns(UndefinedMetricWarning) as caught:
        display = OmAPLevelsDisplay.from_predictions(
            y_true, y_scores, distances=DISTANCES
        )
    messages = sorted(str(warning.message).split(",")[0] for warning in caught)
    assert messages == [
        "1 of 4 classes have no clip",
        "y_true has no label for 1 of 60 clips",
    ]
    for name, y_score in y_scores.items():
        expected = omap_levels(
            y_true,
            y_score,
            distances=DISTANCES,
            zero_division=0.0,
            unlabelled="farthest",
        )
        np.testing.assert_array_equal(display.scores[name], expected)


def test_given_axes_and_line_keywords(plt):
    figure, (left, right) = plt.subplots(1, 2)
    display = OmAPLevelsDisplay.from_levels(SCORES, ax=right, marker="x", lw=3)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.lines
    for line in display.lines_.values():
        assert (line.get_marker(), line.get_linewidth()) == ("x", 3)
    assert display.plot(ax=left, baseline=None) is display
    assert display.ax_ is left
    assert list(display.lines_) == list(SCORES)
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("kind", [list, tuple])
def test_scores_without_names(kind):
    with pytest.raises(TypeError, match=rf"scores is a {kind.__name__}: pass a dict"):
        OmAPLevelsDisplay.from_levels(kind(SCORES.values()))
    y_true, y_scores = draw_predictions()
    with pytest.raises(TypeError, match="y_scores is a ndarray: pass a dict"):
        OmAPLevelsDisplay.from_predictions(
            y_true, y_scores["model 0"], distances=DISTANCES
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"scores": {}}, "scores is empty"),
        ({"scores": {"a": [0.1, 0.2], "b": [0.1]}}, r"'b' has 1 scores for levels of"),
        ({"levels": [0, 1]}, r"'plain' has 3 scores for levels of the shape \(2,\)"),
        ({"scores": {"a": np.ones((3, 5))}}, r"scores of 'a' have the shape \(3, 5\)"),
        ({"scores": {"a": [0.1, np.nan]}}, "'a' are not all finite"),
        (
            {"baseline": "plane"},
            r"names \['plane'\], and the models are \['plain'",
        ),
        ({"baseline": {"plane": "plain"}}, r"baseline names \['plane'\]"),
        ({"baseline": {"plain": "plane"}}, r"baseline names \['plane'\]"),
        ({"baseline": {"plain": "plain"}}, "leaves nothing to compare"),
        ({"baseline": {}}, "leaves nothing to compare"),
        ({"scores": {"a": [0.1]}, "baseline": "a"}, "leaves nothing to compare"),
    ],
)
def test_bad_input(params, message):
    with pytest.raises(ValueError, match=message):
        OmAPLevelsDisplay.from_levels(**{"scores": SCORES} | params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"average": None}, "average=None gives a score for each class"),
        ({"y_scores": {}}, "y_scores is empty"),
        ({"distances": DISTANCES[:3, :3]}, "distances"),
    ],
)
def test_bad_predictions(params, message):
    y_true, y_scores = draw_predictions()
    given = {"y_true": y_true, "y_scores": y_scores, "distances": DISTANCES} | params
    with pytest.raises(ValueError, match=message):
        OmAPLevelsDisplay.from_predictions(**given)
