"""TemporalPooling: spectrograms to vectors."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils.validation import (
    _check_feature_names,
    _check_feature_names_in,
    check_array,
    check_is_fitted,
    validate_data,
)

STATISTICS = {
    "mean": lambda frames: frames.mean(axis=0, dtype=np.float64),
    "std": lambda frames: frames.std(axis=0, dtype=np.float64),
    "min": lambda frames: frames.min(axis=0),
    "max": lambda frames: frames.max(axis=0),
    "median": lambda frames: np.median(frames, axis=0),
    # One frame does not differ from itself, and NaN stays NaN.
    "delta_std": lambda frames: np.diff(
        frames if len(frames) > 1 else frames[[0, 0]], axis=0
    ).std(axis=0, dtype=np.float64),
}


class TemporalPooling(TransformerMixin, BaseEstimator):
    """Describe each clip's frames by statistics over time.

    Turns log-mel spectrograms, or any other frames, into vectors for scikit-learn's
    classifiers. It is a strong and cheap baseline.

    Parameters
    ----------
    statistics : sequence of {"mean", "std", "min", "max", "median", "delta_std"}, \
            default=("mean", "std")
        What to compute over the frames of every band. ``"delta_std"`` is the
        standard deviation of the difference between successive frames: how lively
        a band is.

    Attributes
    ----------
    n_features_in_ : int
        Number of bands.

    See Also
    --------
    LogMelExtractor : Clips to log-mel spectrograms.

    Notes
    -----
    Statistics ignore nothing: a clip with NaN frames, such as one that
    `LogMelExtractor` skipped, gives a row of NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import TemporalPooling
    >>> X = np.ones((4, 100, 64))
    >>> TemporalPooling(("mean", "max")).fit_transform(X).shape
    (4, 128)
    """

    _parameter_constraints = {"statistics": ["array-like"]}

    def __init__(self, statistics=("mean", "std")):
        self.statistics = statistics

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the number of bands.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_frames, n_bands) or sequence of \
                array-like of shape (n_frames, n_bands)
            Frames; a 2-D array is taken as one frame a clip.
        y : None
            Ignored.

        Returns
        -------
        self : TemporalPooling
            The fitted transformer.
        """
        self._check_statistics()
        self._check(X, reset=True)
        return self

    def transform(self, X):
        """Compute the statistics.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_frames, n_bands) or sequence of \
                array-like of shape (n_frames, n_bands)
            Frames; a 2-D array is taken as one frame a clip.

        Returns
        -------
        ndarray of shape (n_clips, n_statistics * n_bands), float32
            All bands of the first statistic, then those of the next.
        """
        check_is_fitted(self)
        self._check_statistics()
        X = self._check(X, reset=False)
        n_bands = self.n_features_in_
        pooled = np.empty((len(X), len(self.statistics) * n_bands), dtype=np.float32)
        # Clip by clip: temporaries stay small, and a row depends on its clip alone.
        for row, frames in zip(pooled, X, strict=True):
            for i, name in enumerate(self.statistics):
                row[i * n_bands : (i + 1) * n_bands] = STATISTICS[name](frames)
        return pooled

    def get_feature_names_out(self, input_features=None):
        """Name the output's columns, such as ``"mean_x0"``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the bands.

        Returns
        -------
        ndarray of str
            Names of the columns.
        """
        check_is_fitted(self)
        bands = _check_feature_names_in(self, input_features)
        return np.asarray(
            [f"{statistic}_{band}" for statistic in self.statistics for band in bands],
            dtype=object,
        )

    def _check_statistics(self):
        names = list(self.statistics)
        if not names or any(
            not isinstance(name, str) or name not in STATISTICS for name in names
        ):
            raise ValueError(
                f"statistics={self.statistics!r} must be some of {sorted(STATISTICS)}"
            )

    def _check(self, X, reset):
        """Return X as something to take 2-D frames from, clip by clip."""
        check = {
            "dtype": [np.float64, np.float32],
            "allow_nd": True,
            "ensure_all_finite": "allow-nan",
        }
        if _is_ragged(X):
            X = [_check_clip(frames, f"X[{i}]") for i, frames in enumerate(X)]
            n_bands = {frames.shape[1] for frames in X}
            if len(n_bands) > 1:
                raise ValueError(
                    f"X holds clips with {sorted(n_bands)} bands: they must all have "
                    "the same number"
                )
            self._check_n_bands(n_bands.pop(), reset)
        elif getattr(X, "ndim", 2) > 2:
            X = check_array(X, **check)
            if X.ndim > 3:
                raise ValueError(
                    f"X has shape {X.shape}: frames are (n_clips, n_frames, n_bands)"
                )
            if X.shape[1] == 0:
                raise ValueError(f"X has shape {X.shape}: clips need a frame at least")
            self._check_n_bands(X.shape[2], reset)
        else:
            X = validate_data(self, X, reset=reset, **check)
            X = X[:, np.newaxis, :] if X.ndim == 2 else X
        return X

    def _check_n_bands(self, n_bands, reset):
        if reset:
            _check_feature_names(self, None, reset=True)  # forget former ones
            self.n_features_in_ = n_bands
        elif n_bands != self.n_features_in_:
            raise ValueError(
                f"X has {n_bands} bands, but TemporalPooling was fitted with "
                f"{self.n_features_in_}"
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = True
        return tags


def _is_ragged(X):
    if getattr(X, "ndim", 1) > 1 or not hasattr(X, "__len__") or len(X) == 0:
        return False
    return np.ndim(next(iter(X))) > 1


def _check_clip(frames, name):
    if np.ndim(frames) != 2:
        raise ValueError(
            f"{name} has shape {np.shape(frames)}: a clip's frames are "
            "(n_frames, n_bands)"
        )
    return check_array(frames, input_name=name, ensure_all_finite="allow-nan")
