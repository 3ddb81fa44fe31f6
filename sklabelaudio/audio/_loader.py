"""AudioLoader: files to waveforms, as a transformer."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._check import check_audio
from ._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT


class AudioLoader(TransformerMixin, BaseEstimator):
    """Read sound files, or resample waveforms, as a step of a pipeline.

    Use it before a step that takes waveforms but not files, or to change the rate
    of arrays. `LogMelExtractor` and the embedders read files themselves.

    Parameters
    ----------
    sampling_rate : float, default=None
        Rate of the result in Hz. ``None`` keeps the files' own rate, which must
        then be the same for all of them; it is learned in `fit`.
    array_sampling_rate : float, default=None
        Rate of X in Hz where X holds arrays; ``None`` says that they are at
        `sampling_rate` already.
    channel : "mean" or int, default="mean"
        What to take of files with several channels: their mean, or the channel of
        this index.
    duration : float, default=None
        Length of every clip in seconds: shorter ones are followed by zeros, longer
        ones cut. ``None`` keeps each clip whole.
    n_jobs : int, default=None
        Threads that read at the same time; ``None`` is 1, -1 all cores.
    on_error : {"raise", "skip"}, default="raise"
        What to do with a clip that can't be read. With ``"skip"`` its row is NaN
        and one warning names all such clips.
    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    sampling_rate_ : float
        Rate of the result in Hz.
    n_features_in_ : int
        Number of samples of a clip, if X was a 2-D array.

    See Also
    --------
    load_audio : One file.
    LogMelExtractor : Clips to log-mel spectrograms.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import AudioLoader
    >>> X = np.zeros((3, 44100))
    >>> AudioLoader(16000, array_sampling_rate=44100).fit_transform(X).shape
    (3, 16000)
    """

    _parameter_constraints = {
        "sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "array_sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "channel": CHANNEL_CONSTRAINT,
        "duration": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        sampling_rate=None,
        *,
        array_sampling_rate=None,
        channel="mean",
        duration=None,
        n_jobs=None,
        on_error="raise",
        verbose=False,
    ):
        self.sampling_rate = sampling_rate
        self.array_sampling_rate = array_sampling_rate
        self.channel = channel
        self.duration = duration
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check X and learn the rate; files are not decoded.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.
        y : None
            Ignored.

        Returns
        -------
        self : AudioLoader
            The fitted loader.
        """
        clips = self._check(X, self.sampling_rate, reset=True)
        self.sampling_rate_ = clips.common_sampling_rate()
        return self

    def transform(self, X):
        """Read the clips.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.

        Returns
        -------
        ndarray of shape (n_clips, n_samples), float32
            The waveforms at `sampling_rate_`; an object array of 1-D arrays where
            the lengths differ.

        Raises
        ------
        AudioReadError
            If a clip can't be read.
        """
        check_is_fitted(self)
        self._validate_params()
        rate = getattr(self, "sampling_rate_", self.sampling_rate)
        clips = self._check(X, rate, reset=False)
        n_samples = self.duration and max(round(self.duration * rate), 1)
        return clips.map(
            # A copy, so that the result is never a view of X.
            lambda waveform: np.array(fix_length(waveform, n_samples)),
            n_jobs=self.n_jobs,
            on_error=self.on_error,
            verbose=self.verbose,
        )

    def _check(self, X, target_rate, reset):
        rate = self.array_sampling_rate
        return check_audio(
            X,
            sampling_rate=self.sampling_rate if rate is None else rate,
            target_sampling_rate=target_rate,
            channel=self.channel,
            on_error=self.on_error,
            estimator=self,
            reset=reset,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "skip"
        tags.requires_fit = self.sampling_rate is None
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def fix_length(waveform, n_samples):
    """Cut a waveform, or follow it by zeros; ``n_samples=None`` leaves it."""
    if n_samples is None or waveform.size == n_samples:
        return waveform
    if waveform.size > n_samples:
        return waveform[:n_samples]
    return np.pad(waveform, (0, n_samples - waveform.size))
