import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sklabelaudio import LogMelExtractor, TemporalPooling
from sklabelaudio.exceptions import AudioReadWarning

N_BANDS = 5
BY_HAND = {
    "mean": lambda x: sum(x) / len(x),
    "std": lambda x: np.sqrt(((x - sum(x) / len(x)) ** 2).sum(axis=0) / len(x)),
    "min": lambda x: np.sort(x, axis=0)[0],
    "max": lambda x: np.sort(x, axis=0)[-1],
    "median": lambda x: np.sort(x, axis=0)[(len(x) - 1) // 2 :][: 2 - len(x) % 2].mean(
        axis=0
    ),
    "delta_std": lambda x: np.sqrt(
        ((x[1:] - x[:-1] - (x[-1] - x[0]) / (len(x) - 1)) ** 2).mean(axis=0)
    ),
}
STATISTICS = tuple(BY_HAND)


def frames(n_frames, seed=0):
    return np.random.default_rng(seed).normal(-40, 20, (n_frames, N_BANDS))


def as_objects(clips):
    made = np.empty(len(clips), dtype=object)
    made[:] = clips
    return made


RAGGED = [frames(n, seed=n) for n in (7, 1, 12, 2)]


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("n_frames", [2, 3, 50, 51])
def test_statistics_by_hand(statistic, n_frames):
    X = np.stack([frames(n_frames, seed=i) for i in range(4)])
    pooled = TemporalPooling((statistic,)).fit_transform(X)
    assert (pooled.shape, pooled.dtype) == ((4, N_BANDS), np.float32)
    expected = [BY_HAND[statistic](x) for x in X]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-5)


def test_order_of_columns():
    X = np.stack([frames(9)])
    pooled = TemporalPooling(("max", "mean", "min")).fit_transform(X)
    parts = [
        TemporalPooling((name,)).fit_transform(X) for name in ("max", "mean", "min")
    ]
    np.testing.assert_array_equal(pooled, np.hstack(parts))
    pooled = TemporalPooling().fit_transform(X)
    parts = [TemporalPooling((name,)).fit_transform(X) for name in ("mean", "std")]
    np.testing.assert_array_equal(pooled, np.hstack(parts))


def test_many_frames_in_single_precision():
    """The mean of a long clip is not a victim of float32 sums."""
    X = (np.full((1, 300_000, 1), -80.0) + frames(300_000)[None, :, :1]).astype("f4")
    pooled = TemporalPooling().fit_transform(X)[0]
    expected = X[0, :, 0].astype(np.float64)
    np.testing.assert_allclose(pooled, [expected.mean(), expected.std()], rtol=1e-6)


@pytest.mark.parametrize("kind", [list, as_objects, tuple, pd.Series])
def test_clips_of_several_lengths(kind):
    pooling = TemporalPooling(STATISTICS).fit(kind(RAGGED))
    pooled = pooling.transform(kind(RAGGED))
    assert pooled.shape == (4, 6 * N_BANDS)
    for row, clip in zip(pooled, RAGGED, strict=True):
        np.testing.assert_array_equal(row, pooling.transform(clip[None])[0])
        np.testing.assert_array_equal(row, pooling.transform([clip])[0])


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_dtypes(dtype, as_list):
    X = np.stack([frames(9)] * 2).astype(dtype)
    pooled = TemporalPooling(STATISTICS).fit_transform(list(X) if as_list else X)
    assert pooled.dtype == np.float32
    expected = TemporalPooling(STATISTICS).fit_transform(X.astype(np.float64))
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, pd.DataFrame])
def test_two_dimensions_are_one_frame_a_clip(kind):
    X = frames(6)
    pooled = TemporalPooling(STATISTICS).fit_transform(kind(X))
    expected = np.hstack([X, 0 * X, X, X, X, 0 * X])
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        pooled, TemporalPooling(STATISTICS).fit_transform(X[:, None, :])
    )


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("case", ["3-D", "2-D", "ragged", "ragged, one frame"])
def test_rows_of_nan_stay_nan(case, statistic):
    if case == "3-D":
        X = np.stack([frames(7, seed=i) for i in range(4)])
        X[2] = np.nan
    elif case == "2-D":
        X = frames(4)
        X[2] = np.nan
    else:
        X = list(RAGGED)
        X[2] = np.full((1 if "one" in case else 9, N_BANDS), np.nan)
    pooled = TemporalPooling((statistic,)).fit_transform(X)
    np.testing.assert_array_equal(np.isnan(pooled).all(axis=1), np.arange(4) == 2)
    assert np.isfinite(np.delete(pooled, 2, axis=0)).all()


@pytest.mark.parametrize("lengths", [(8000, 8000, 10), (8000, 9000, 10)])
def test_clips_that_were_skipped(lengths):
    X = [np.random.default_rng(n).normal(size=n) for n in lengths]
    pipeline = make_pipeline(
        LogMelExtractor(16000, on_error="skip"), TemporalPooling(STATISTICS)
    )
    with pytest.warns(AudioReadWarning):
        pooled = pipeline.fit_transform(X)
    assert np.isfinite(pooled[:2]).all()
    assert np.isnan(pooled[2]).all()


# What is refused


@pytest.mark.parametrize("statistics", [(), ("mean", "avg"), ["Mean"], [["mean"]]])
def test_wrong_statistics(statistics):
    message = r"^statistics=.* must be some of \['delta_std', 'max', 'mean', 'median'"
    with pytest.raises(ValueError, match=message) as caught:
        TemporalPooling(statistics).fit(frames(3))
    assert repr(statistics) in str(caught.value)


@pytest.mark.parametrize("statistics", ["mean", None, 3])
def test_statistics_that_are_no_list(statistics):
    message = rf"'statistics' parameter of TemporalPooling .* {statistics!r}"
    with pytest.raises(ValueError, match=message):
        TemporalPooling(statistics).fit(frames(3))


def test_statistics_are_checked_in_transform_too():
    pooling = TemporalPooling().fit(frames(3)).set_params(statistics=("avg",))
    with pytest.raises(ValueError, match="statistics="):
        pooling.transform(frames(3))


@pytest.mark.parametrize(
    "X",
    [np.zeros((2, 3, 4)), [np.zeros((2, 4)), np.zeros((3, 4))], np.zeros((2, 4))],
    ids=["3-D", "ragged", "2-D"],
)
def test_other_number_of_bands(X):
    pooling = TemporalPooling().fit(np.zeros((2, 3, N_BANDS)))
    with pytest.raises(ValueError, match=r"^X has 4 (bands|features), but .* 5"):
        pooling.transform(X)


def test_clips_of_different_bands():
    with pytest.raises(ValueError, match=r"^X holds clips with \[4, 5\] bands"):
        TemporalPooling().fit([np.zeros((2, 5)), np.zeros((3, 4))])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "Found array|Expected 2D|is empty"),
        (np.zeros(5), "Expected 2D array"),
        (np.zeros((0, 3, 5)), r"0 sample\(s\)"),
        (np.zeros((2, 0, 5)), "frame"),
        ([np.zeros((0, 5)), np.zeros((2, 5))], r"0 sample\(s\)|frame"),
        (np.zeros((2, 3, 5, 1)), r"shape \(2, 3, 5, 1\): frames are"),
        ([np.zeros((3, 5, 1))] * 2, r"shape \(2, 3, 5, 1\): frames are|X\[0\]"),
        ([np.zeros((3, 5)), np.zeros(5)], r"X\[1\]"),
        (np.full((2, 3, 5), np.inf), "infinity"),
        ([np.zeros((3, 5)), np.full((2, 5), np.inf)], r"X\[1\] contains infinity"),
        (np.full((2, 5), "a"), "numeric|convert"),
    ],
    ids=[
        "nothing",
        "1-D",
        "no clips",
        "no frames",
        "no frames in one",
        "4-D",
        "4-D list",
        "mixed dimensions",
        "infinity",
        "infinity in one",
        "text",
    ],
)
@pytest.mark.parametrize("statistic", ["mean", "min"])
def test_bad_input(X, message, statistic):
    with pytest.raises(ValueError, match=message):
        TemporalPooling((statistic,)).fit_transform(X)


def test_not_fitted():
    with pytest.raises(ValueError, match="not fitted"):
        TemporalPooling().transform(frames(3))


# scikit-learn's ways


def test_feature_names():
    pooling = TemporalPooling(("mean", "delta_std")).fit(np.zeros((1, 2, 3)))
    names = ["mean_x0", "mean_x1", "mean_x2"]
    names += ["delta_std_x0", "delta_std_x1", "delta_std_x2"]
    assert list(pooling.get_feature_names_out()) == names
    named = pooling.get_feature_names_out(["low", "middle", "high"])
    assert list(named)[::5] == ["mean_low", "delta_std_high"]
    with pytest.raises(ValueError, match="input_features should have length equal"):
        pooling.get_feature_names_out(["low"])
    frame = pd.DataFrame(frames(3), columns=list("abcde"))
    pooling = TemporalPooling(("max",)).fit(frame)
    assert list(pooling.get_feature_names_out()) == [f"max_{c}" for c in "abcde"]


@pytest.mark.parametrize("X", [np.stack(4 * [frames(9)]), RAGGED], ids=["3-D", "list"])
def test_set_output(X):
    pooling = TemporalPooling().set_output(transform="pandas")
    table = pooling.fit_transform(X)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == list(pooling.get_feature_names_out())
    np.testing.assert_array_equal(table, TemporalPooling().fit_transform(X))


def test_refit_forgets():
    pooling = TemporalPooling().fit(pd.DataFrame(frames(3), columns=list("abcde")))
    pooling.fit(np.zeros((2, 3, 4)))
    assert pooling.n_features_in_ == 4
    assert pooling.get_feature_names_out()[0] == "mean_x0"


def test_clone_and_x_is_left_as_it_was():
    X = np.stack([frames(9)] * 2)
    copy = X.copy()
    pooling = TemporalPooling(["mean"]).fit(X)
    pooling.transform(X)
    np.testing.assert_array_equal(X, copy)
    assert clone(pooling).get_params() == {"statistics": ["mean"]}
