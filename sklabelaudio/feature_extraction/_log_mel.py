"""LogMelExtractor: clips to log-mel spectrograms."""

import difflib
import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..audio import check_audio
from ..audio._loader import fix_length
from ..audio._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT
from ._kernel import LogMelKernel
from ._presets import PRESETS
from ._threads import one_native_thread, one_native_thread_per_worker

POSITIVE = Interval(Real, 0, None, closed="neither")
COUNT = Interval(Integral, 1, None, closed="left")


class LogMelExtractor(TransformerMixin, BaseEstimator):
    """Turn clips into log-mel spectrograms.

    Any setting of the short-time Fourier transform, the mel bank and the
    logarithm, as librosa has them, several times faster. Files are read and
    resampled on the way, so it can be the first step of a pipeline.

    Parameters
    ----------
    sampling_rate : float, default=None
        Rate to work at, in Hz. Files of another rate are resampled to it; arrays
        are taken to be at it, and need it to be given. ``None`` takes the files'
        own rate, which must then be the same for all; it is learned in `fit`.
    n_fft : int, default=1024
        Length of the FFT, in samples.
    win_length : int, default=None
        Length of the window, in samples, centred in the FFT's frame; ``None`` is
        `n_fft`.
    hop_length : int, default=320
        Samples from one frame to the next.
    window : str, tuple or float, default="hann"
        The window, as `scipy.signal.get_window` takes it.
    center : bool, default=True
        Whether frame t is centred at sample ``t * hop_length``, for which the clip
        is padded by half a frame on both sides; otherwise it begins there.
    pad_mode : {"constant", "reflect", "edge", "symmetric"}, default="constant"
        How to pad if `center`, in `numpy.pad`'s sense.
    power : float, default=2.0
        Exponent of the magnitude spectrum: 2 is power, 1 is magnitude.
    n_mels : int, default=64
        Number of mel bands.
    fmin : float, default=0.0
        Lowest frequency of the mel bank, in Hz.
    fmax : float, default=None
        Highest frequency of the mel bank, in Hz; ``None`` is half the rate.
    mel_scale : {"slaney", "htk"}, default="slaney"
        Formula of the mel scale.
    norm : {"slaney"} or None, default="slaney"
        ``"slaney"`` gives the bands equal area, ``None`` equal height.
    log : {"db", "ln"} or None, default="db"
        Decibels, natural logarithm, or the mel spectrogram itself.
    ref : float or "max", default=1.0
        What is 0 dB: this value of the mel spectrogram, or each clip's greatest.
        Only for decibels.
    amin : float, default=1e-10
        Floor of the mel spectrogram before the logarithm.
    amin_mode : {"clip", "add"}, default="clip"
        Whether lower values are raised to `amin`, or `amin` is added to all.
    top_db : float, default=None
        How far below each clip's greatest value the result may go, in decibels;
        ``None`` does not limit it. Only for decibels.
    duration : float, default=None
        Length of every clip, in seconds: shorter clips are followed by zeros,
        longer ones cut. ``None`` keeps each clip whole.
    channel : "mean" or int, default="mean"
        What to take of files with several channels: their mean, or the channel of
        this index.
    dtype : {"float32", "float64"}, default="float32"
        Precision to compute in; the result is float32 in either case. See Notes.
    n_jobs : int, default=None
        Threads that work on clips at the same time; ``None`` is 1, -1 all cores.
        They pay off for files, which take longer to decode than to transform.
    on_error : {"raise", "skip"}, default="raise"
        What to do with a clip that can't be used. With ``"skip"`` its row is NaN
        and one warning names all such clips.
    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    sampling_rate_ : float
        Rate worked at, in Hz.
    mel_frequencies_ : ndarray of shape (n_mels,)
        Centre frequencies of the mel bands, in Hz.
    n_features_in_ : int
        Number of samples of a clip, if X was a 2-D array.

    See Also
    --------
    TemporalPooling : Statistics of the frames, for scikit-learn's classifiers.
    LogMelDisplay : A picture of it.

    Notes
    -----
    Frames are worked on in blocks that fit a core's cache, so memory is the
    result's and one block's. A clip's result depends on that clip alone: not on
    the batch, the order or `n_jobs`.

    In single precision, rounding in the FFT is some 140 dB below a frame's peak:
    values that are less than 60 dB below it are within 0.001 dB of librosa's, which
    computes in double precision, and what lies 110 dB below it may be off by some
    hundredths. ``dtype="float64"`` has none of that and takes about twice as long.

    With ``sampling_rate`` given there is nothing to learn, and `transform` works
    without `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import LogMelExtractor
    >>> X = np.random.default_rng(0).normal(size=(2, 16000))
    >>> LogMelExtractor(16000, n_mels=40).fit_transform(X).shape
    (2, 51, 40)
    """

    _parameter_constraints = {
        "sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "n_fft": [COUNT],
        "win_length": [COUNT, None],
        "hop_length": [COUNT],
        "window": [str, tuple, Real],
        "center": ["boolean"],
        "pad_mode": [StrOptions({"constant", "reflect", "edge", "symmetric"})],
        "power": [POSITIVE],
        "n_mels": [COUNT],
        "fmin": [Interval(Real, 0, None, closed="left")],
        "fmax": [POSITIVE, None],
        "mel_scale": [StrOptions({"slaney", "htk"})],
        "norm": [StrOptions({"slaney"}), None],
        "log": [StrOptions({"db", "ln"}), None],
        "ref": [POSITIVE, StrOptions({"max"})],
        "amin": [POSITIVE],
        "amin_mode": [StrOptions({"clip", "add"})],
        "top_db": [POSITIVE, None],
        "duration": [POSITIVE, None],
        "channel": CHANNEL_CONSTRAINT,
        "dtype": [StrOptions({"float32", "float64"})],
        "n_jobs": [Integral, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        sampling_rate=None,
        *,
        n_fft=1024,
        win_length=None,
        hop_length=320,
        window="hann",
        center=True,
        pad_mode="constant",
        power=2.0,
        n_mels=64,
        fmin=0.0,
        fmax=None,
        mel_scale="slaney",
        norm="slaney",
        log="db",
        ref=1.0,
        amin=1e-10,
        amin_mode="clip",
        top_db=None,
        duration=None,
        channel="mean",
        dtype="float32",
        n_jobs=None,
        on_error="raise",
        verbose=False,
    ):
        self.sampling_rate = sampling_rate
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.window = window
        self.center = center
        self.pad_mode = pad_mode
        self.power = power
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.mel_scale = mel_scale
        self.norm = norm
        self.log = log
        self.ref = ref
        self.amin = amin
        self.amin_mode = amin_mode
        self.top_db = top_db
        self.duration = duration
        self.channel = channel
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name, **params):
        """Make an extractor with the front end of a published encoder.

        Parameters
        ----------
        name : {"panns_32k", "panns_16k", "htsat", "clap", "sp4sc"}
            The front end: of PANNs at either rate, HTS-AT, CLAP or SP4SC.
        **params
            Further parameters, such as `n_jobs`; they win over the preset's.

        Returns
        -------
        LogMelExtractor
            The extractor, not fitted.

        Raises
        ------
        ValueError
            If there is no such preset.

        Notes
        -----
        Other encoders, such as YAMNet, VGGish, EfficientAT, PaSST, AST and PSLA, take
        a log-mel that no parameters here express: Kaldi's mel bank or frames,
        pre-emphasis or a normalisation. Their embedders compute it from clips.

        Examples
        --------
        >>> from sklabelaudio import LogMelExtractor
        >>> LogMelExtractor.from_preset("panns_32k").fmax
        14000.0
        """
        if name not in PRESETS:
            near = difflib.get_close_matches(str(name), PRESETS, n=1, cutoff=0)
            raise ValueError(
                f"name={name!r} is no preset, did you mean {near[0]!r}? "
                f"There are {sorted(PRESETS)}"
            )
        return cls(**{**PRESETS[name], **params})

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the settings and X, and learn the rate; no audio is decoded.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.
        y : None
            Ignored.

        Returns
        -------
        self : LogMelExtractor
            The fitted extractor.

        Raises
        ------
        ValueError
            If X can't be audio, or settings contradict each other.
        """
        clips = self._check(X, self.sampling_rate, reset=True)
        self.sampling_rate_ = clips.common_sampling_rate()
        if self.duration is not None:
            n_samples = self._n_samples(self.sampling_rate_)
            window = self.win_length or self.n_fft
            if n_samples < window:
                raise ValueError(
                    f"duration={self.duration:g} s is {n_samples} samples at "
                    f"{self.sampling_rate_:g} Hz, fewer than a frame's {window}: raise "
                    "duration, or lower n_fft and win_length"
                )
        self._window()
        mel_bank = self._mel_bank(self.sampling_rate_)
        n_empty = int((~mel_bank.any(axis=1)).sum())
        if n_empty:
            warnings.warn(
                f"{n_empty} of n_mels={self.n_mels} bands hold no bin of the FFT and "
                "will stay at the floor: lower n_mels or raise n_fft",
                stacklevel=2,
            )
        return self

    def transform(self, X):
        """Compute log-mel spectrograms.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.

        Returns
        -------
        ndarray of shape (n_clips, n_frames, n_mels), float32
            The spectrograms; an object array of ``(n_frames, n_mels)`` arrays
            where the clips' lengths differ.

        Raises
        ------
        AudioReadError
            If a clip can't be read, or is shorter than a frame.
        """
        check_is_fitted(self)
        self._validate_params()
        rate = getattr(self, "sampling_rate_", self.sampling_rate)
        clips = self._check(X, rate, reset=False)
        kernel = self._kernel(rate)
        n_samples = self._n_samples(rate)

        def log_mel(waveform):
            waveform = fix_length(waveform, n_samples)
            self._check_length(waveform.size, rate)
            with one_native_thread_per_worker():
                return kernel(waveform)

        with one_native_thread():
            return clips.map(
                log_mel,
                n_jobs=self.n_jobs,
                on_error=self.on_error,
                verbose=self.verbose,
            )

    @property
    def mel_frequencies_(self):
        """Centre frequencies of the mel bands, ``(n_mels,)``, in Hz."""
        import librosa

        check_is_fitted(self)
        rate = getattr(self, "sampling_rate_", self.sampling_rate)
        return librosa.mel_frequencies(
            n_mels=self.n_mels + 2,
            fmin=self.fmin,
            fmax=rate / 2 if self.fmax is None else self.fmax,
            htk=self.mel_scale == "htk",
        )[1:-1]

    def frame_times(self, n_frames):
        """Tell when frames are.

        Parameters
        ----------
        n_frames : int
            Number of frames.

        Returns
        -------
        ndarray of shape (n_frames,)
            Time of each frame's middle from the clip's start, in seconds.
        """
        check_is_fitted(self)
        rate = getattr(self, "sampling_rate_", self.sampling_rate)
        first = 0 if self.center else self.n_fft / 2
        return (first + self.hop_length * np.arange(n_frames)) / rate

    def _check(self, X, rate, reset):
        if self.win_length is not None and self.win_length > self.n_fft:
            raise ValueError(
                f"win_length={self.win_length} is longer than n_fft={self.n_fft}: "
                "raise n_fft or lower win_length"
            )
        return check_audio(
            X,
            sampling_rate=self.sampling_rate,
            target_sampling_rate=rate,
            channel=self.channel,
            on_error=self.on_error,
            estimator=self,
            reset=reset,
        )

    def _n_samples(self, rate):
        """Return the samples of every clip, or None where each keeps its own."""
        return None if self.duration is None else max(round(self.duration * rate), 1)

    def _check_length(self, n_samples, rate):
        window = self.win_length or self.n_fft
        if n_samples < window:
            raise ValueError(
                f"it has {n_samples} samples at {rate:g} Hz, fewer than a frame's "
                f"{window}: set duration to fill it up with zeros, or lower n_fft and "
                "win_length"
            )
        if self.center and self.pad_mode == "reflect" and n_samples <= self.n_fft // 2:
            raise ValueError(
                f"it has {n_samples} samples at {rate:g} Hz, too few to be reflected "
                f"by n_fft // 2 = {self.n_fft // 2}: set pad_mode='constant' or "
                "duration"
            )
        if not self.center and n_samples < self.n_fft:
            raise ValueError(
                f"it has {n_samples} samples at {rate:g} Hz, fewer than "
                f"n_fft={self.n_fft}: set center=True or duration"
            )

    def _mel_bank(self, rate):
        import librosa

        fmax = rate / 2 if self.fmax is None else self.fmax
        if fmax > rate / 2:
            raise ValueError(
                f"fmax={fmax:g} is above half of sampling_rate={rate:g}: lower it to "
                f"{rate / 2:g} or less, or raise sampling_rate"
            )
        if self.fmin >= fmax:
            raise ValueError(f"fmin={self.fmin:g} must be below fmax={fmax:g}")
        with warnings.catch_warnings():
            # Empty bands are told in `fit`, with what to change.
            warnings.filterwarnings("ignore", message="Empty filters detected")
            return librosa.filters.mel(
                sr=rate,
                n_fft=self.n_fft,
                n_mels=self.n_mels,
                fmin=self.fmin,
                fmax=fmax,
                htk=self.mel_scale == "htk",
                norm=self.norm,
                dtype=np.float64,
            )

    def _window(self):
        """Return the window in the middle of an FFT's frame, ``(n_fft,)``."""
        from scipy.signal import get_window

        win_length = self.win_length or self.n_fft
        try:
            samples = get_window(self.window, win_length)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"window={self.window!r} is none that scipy.signal.get_window knows: "
                f"{error}"
            ) from error
        window = np.zeros(self.n_fft)
        start = (self.n_fft - win_length) // 2
        window[start : start + win_length] = samples
        return window

    def _kernel(self, rate):
        return LogMelKernel(
            window=self._window(),
            hop_length=self.hop_length,
            mel_bank=self._mel_bank(rate),
            power=self.power,
            pad_mode=self.pad_mode if self.center else None,
            dtype=self.dtype,
            logarithm=partial(
                take_logarithm,
                log=self.log,
                power=self.power,
                ref=self.ref,
                amin=self.amin,
                amin_mode=self.amin_mode,
                top_db=self.top_db,
            ),
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "skip"
        tags.requires_fit = self.sampling_rate is None
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def take_logarithm(mel, *, log, power, ref, amin, amin_mode, top_db):
    """Take the logarithm of one clip's mel spectrogram in place."""
    if log is None:
        return
    amin = max(amin, np.finfo(np.float32).tiny)  # 0 in float32 has no logarithm
    if amin_mode == "clip":
        np.maximum(mel, amin, out=mel)
    else:
        np.add(mel, amin, out=mel)
    if log == "ln":
        np.log(mel, out=mel)
        return
    reference = mel.max() if ref == "max" else max(amin, ref)
    decibels = 20 / power  # 10 for power, 20 for magnitude
    np.log10(mel, out=mel)
    np.multiply(mel, decibels, out=mel)
    if reference != 1:
        np.subtract(mel, decibels * np.log10(reference), out=mel)
    if top_db is not None:
        np.maximum(mel, mel.max() - top_db, out=mel)
