"""The front ends of published encoders: waveform to what they take, mostly log-mel."""

from functools import partial

import numpy as np

from ._kernel import LogMelKernel
from ._log_mel import take_logarithm
from ._presets import PRESETS
from ._waveform import WaveformFrontEnd

# VGGish (Hershey et al. 2017) and YAMNet, which differ in two settings.
_AUDIOSET_16K = {
    "sampling_rate": 16000,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "pad_mode": None,
    "power": 1.0,
    "n_mels": 64,
    "fmin": 125.0,
    "fmax": 7500.0,
    "mel": "htk",
    "min_samples": 15600,  # the 96 frames of one example
}

# EfficientAT (Schmid et al. 2023) and PaSST (Koutini et al. 2022).
_PASST = {
    "sampling_rate": 32000,
    "n_fft": 1024,
    "win_length": 800,
    "hop_length": 320,
    "symmetric": True,
    "pad_mode": "reflect",
    "power": 2.0,
    "n_mels": 128,
    "fmin": 0.0,
    "fmax": 15000.0,
    "mel": "htk",
    "log": {"log": "ln", "amin": 1e-5, "amin_mode": "add"},
    "pre_emphasis": 0.97,
    "shift": 4.5,
    "scale": 5.0,
}

# AST (Gong et al. 2021) and PSLA (Gong et al. 2021): Kaldi's filter bank.
_KALDI = {
    "sampling_rate": 16000,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "symmetric": True,
    "pad_mode": None,
    "power": 2.0,
    "n_mels": 128,
    "fmin": 20.0,
    "fmax": 8000.0,
    "mel": "htk",
    "log": {"log": "ln", "amin": 2.0**-23, "amin_mode": "clip"},
    "pre_emphasis": 0.97,
    "remove_mean": True,
    "min_samples": 400,  # one frame; the networks fill up frames themselves
}

_SETTINGS = {
    "yamnet": {
        **_AUDIOSET_16K,
        "log": {"log": "ln", "amin": 1e-3, "amin_mode": "add"},
    },
    "vggish": {
        **_AUDIOSET_16K,
        "log": {"log": "ln", "amin": 1e-2, "amin_mode": "add"},
        "dtype": "float64",
    },
    "efficientat": {
        **_PASST,
        "min_samples": 514,  # more than half a frame, and one goes to the pre-emphasis
    },
    "passt": {**_PASST, "min_samples": 4801},  # the 16 frames of one patch
    "ast": {**_KALDI, "shift": 4.2677393, "scale": 2 * 4.5689974},
    "psla": {**_KALDI, "shift": 4.6476, "scale": 4.5699},
}

# The samples that encoders need whose settings are a preset.
_MIN_SAMPLES = {
    "panns_32k": 9920,  # 32 frames, which five poolings take to one
    "panns_16k": 4960,
    "htsat": 513,  # more than half a frame, which is reflected
    "clap": 513,
    "sp4sc": 15360,  # 16 frames, which four poolings take to one
}

# Recordings that end below this part of an encoder's frequencies are refused.
_LEAST_BAND = 1 / 8

_WAVEFORMS = {
    # Wavegram-Logmel-Cnn14 (Kong et al. 2020) makes its log-mel itself. Its two
    # branches are 32 and 33 steps long, which both are 16 once pooled.
    "panns_wavegram": {
        "sampling_rate": 32000,
        "hop_length": 320,
        "min_samples": 10240,
    },
    # AudioCLIP (Guzhov et al. 2022) takes samples in the range of 16-bit integers.
    "audioclip": {
        "sampling_rate": 44100,
        "hop_length": 561,
        "min_samples": 1654,  # one frame
        "scale": 32768.0,
        "first_centre": 827.0,
    },
}


def get_front_end(name):
    """Make the front end of a published encoder.

    Parameters
    ----------
    name : {"ast", "audioclip", "clap", "efficientat", "htsat", "panns_16k", \
            "panns_32k", "panns_wavegram", "passt", "psla", "sp4sc", "vggish", "yamnet"}
        The encoder, or what encoders share: ``"panns_32k"`` is the log-mel of Cnn6,
        Cnn10, Cnn14 and ResNet38, ``"panns_16k"`` that of Cnn14 at 16 kHz.

    Returns
    -------
    FrontEnd or WaveformFrontEnd
        The front end; the latter for ``"audioclip"`` and ``"panns_wavegram"``.

    Raises
    ------
    ValueError
        If there is no such front end.
    """
    settings = get_settings(name)
    make = WaveformFrontEnd if name in _WAVEFORMS else FrontEnd
    return make(name, **settings)


def find_least_rate(front_end):
    """Return the rate below which recordings lack what an encoder listens to, in Hz."""
    return 2 * _LEAST_BAND * front_end.fmax


def get_settings(name):
    """Return the settings of a front end.

    Parameters
    ----------
    name : str
        As for `get_front_end`.

    Returns
    -------
    dict
        The parameters of `FrontEnd`, or of `WaveformFrontEnd`, beside the name.

    Raises
    ------
    ValueError
        If there is no such front end.
    """
    if name in _MIN_SAMPLES:
        return {**_take_preset(name), "min_samples": _MIN_SAMPLES[name]}
    known = {**_SETTINGS, **_WAVEFORMS}
    if name not in known:
        names = sorted([*known, *_MIN_SAMPLES])
        raise ValueError(f"name={name!r} is no front end; there are {names}")
    return dict(known[name])


def _take_preset(name):
    """Say a preset of LogMelExtractor in the parameters of `FrontEnd`."""
    preset = PRESETS[name]
    shared = ("sampling_rate", "n_fft", "hop_length", "pad_mode", "power", "n_mels")
    return {
        **{key: preset[key] for key in (*shared, "fmin", "fmax")},
        "win_length": preset["n_fft"],
        "mel": preset["mel_scale"],
        "log": {"log": preset["log"], "amin": preset["amin"], "amin_mode": "clip"},
    }


class FrontEnd:
    """One waveform to the log-mel that an encoder was trained on.

    The result depends on nothing but the waveform. Instances may be called by
    several threads at a time.

    Parameters
    ----------
    name : str
        Name of the encoder.
    sampling_rate : int
        Rate of the waveforms, in Hz.
    n_fft : int
        Length of the FFT, in samples.
    win_length : int
        Length of the Hann window, in samples.
    hop_length : int
        Samples from one frame to the next.
    pad_mode : str or None
        How to pad so that frame t is centred at sample ``t * hop_length``, in
        `numpy.pad`'s sense; with ``None`` frame t begins there, and frames are those
        whose window lies in the waveform.
    power : float
        Exponent of the magnitude spectrum.
    n_mels : int
        Number of mel bands.
    fmin, fmax : float
        Lowest and highest frequency of the mel bank, in Hz.
    mel : {"htk", "slaney"}
        Triangles of equal height over HTK's mel scale, or librosa's of equal area
        over Slaney's.
    log : dict
        Parameters of the logarithm.
    min_samples : int
        A shorter waveform is followed by zeros up to so many samples.
    symmetric : bool, default=False
        Whether the window is symmetric, not periodic.
    pre_emphasis : float or None, default=None
        How much of every sample is subtracted from the next; the first sample has
        none before it and is dropped.
    remove_mean : bool, default=False
        Whether the mean of each frame is subtracted from it before the pre-emphasis,
        which then drops no sample. Needs a symmetric window, and no padding.
    shift, scale : float, default=0.0 and 1.0
        The result is ``(log_mel + shift) / scale``.
    dtype : {"float32", "float64"}, default="float32"
        Precision to compute in.

    Attributes
    ----------
    first_centre : float
        Where the middle of the first frame is, in samples.
    padding : float
        What a log-mel of zero is once normalised: AST and PSLA fill up the frames
        of short clips with it.
    """

    def __init__(
        self,
        name,
        *,
        sampling_rate,
        n_fft,
        win_length,
        hop_length,
        pad_mode,
        power,
        n_mels,
        fmin,
        fmax,
        mel,
        log,
        min_samples,
        symmetric=False,
        pre_emphasis=None,
        remove_mean=False,
        shift=0.0,
        scale=1.0,
        dtype="float32",
    ):
        self.name = name
        self.sampling_rate = sampling_rate
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.hop_length = hop_length
        self.min_samples = min_samples
        self.first_centre = win_length / 2 if pad_mode is None else 0.0
        self.padding = shift / scale
        self._pre_emphasis = None if remove_mean else pre_emphasis
        # Without padding the window stands at the start of an FFT's frame, so that the
        # last frame reaches beyond the waveform by what the window leaves of it.
        n_rest = n_fft - win_length
        self._n_behind = n_rest if pad_mode is None else 0
        window = np.zeros(n_fft)
        start = 0 if pad_mode is None else n_rest // 2
        hann = np.hanning(win_length if symmetric else win_length + 1)
        window[start : start + win_length] = hann[:win_length]
        make_bank = _htk_mel_bank if mel == "htk" else _slaney_mel_bank
        self._kernel = LogMelKernel(
            window=window,
            hop_length=hop_length,
            mel_bank=make_bank(sampling_rate, n_fft, n_mels, fmin, fmax),
            power=power,
            pad_mode=pad_mode,
            dtype=dtype,
            logarithm=partial(
                _normalized_logarithm, power=power, log=log, shift=shift, scale=scale
            ),
            emphasis=pre_emphasis if remove_mean else None,
            frame_length=win_length,
        )

    def __call__(self, waveform):
        """Return the log-mel of a waveform.

        Parameters
        ----------
        waveform : ndarray of shape (n_samples,), float32
            The waveform, at `sampling_rate`.

        Returns
        -------
        ndarray of shape (n_frames, n_mels), float32
            The log-mel, normalised as the encoder takes it.
        """
        n_zeros = max(self.min_samples - waveform.size, 0) + self._n_behind
        if n_zeros:
            waveform = np.concatenate([waveform, np.zeros(n_zeros, waveform.dtype)])
        if self._pre_emphasis is not None:
            waveform = waveform[1:] - self._pre_emphasis * waveform[:-1]
        return self._kernel(waveform)


def _normalized_logarithm(mel, *, power, log, shift, scale):
    take_logarithm(mel, power=power, ref=1.0, top_db=None, **log)
    if shift:
        np.add(mel, shift, out=mel)
    if scale != 1:
        np.divide(mel, scale, out=mel)


def _htk_mel_bank(sampling_rate, n_fft, n_mels, fmin, fmax):
    """Return triangles that are linear in mel, ``(n_mels, 1 + n_fft // 2)``.

    librosa's ``htk=True`` has triangles that are linear in Hz between the same
    corners, which differ by up to 0.0044.
    """

    def to_mel(frequency):
        return 1127 * np.log1p(frequency / 700)

    bins = to_mel(np.linspace(0, sampling_rate / 2, 1 + n_fft // 2))
    corners = np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2)[:, np.newaxis]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - low) / (middle - low)
    falling = (high - bins) / (high - middle)
    return np.maximum(np.minimum(rising, falling), 0)


def _slaney_mel_bank(sampling_rate, n_fft, n_mels, fmin, fmax):
    import librosa

    return librosa.filters.mel(
        sr=sampling_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        dtype=np.float64,
    )
