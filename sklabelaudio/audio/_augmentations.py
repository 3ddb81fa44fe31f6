"""What is done to clips in training, so that no two epochs are alike."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RandomCrop:
    """Keep a piece of a clip or its log-mel, repeated up to its length.

    Parameters
    ----------
    min_share : float, default=0.5
        The least of the clip that is kept; how much is drawn evenly from it up to all.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.audio import RandomCrop
    >>> rng = np.random.default_rng(0)
    >>> RandomCrop()(np.arange(8.0), sampling_rate=8000, rng=rng)
    array([1., 2., 3., 4., 5., 6., 7., 1.])
    """

    min_share: float = 0.5

    def __post_init__(self):
        if not 0 < self.min_share <= 1:
            raise ValueError(
                f"min_share={self.min_share} must be above 0 and at most 1"
            )

    def __call__(self, samples, sampling_rate, rng):
        """Return a clip changed.

        Parameters
        ----------
        samples : ndarray of shape (n_samples,) or (n_frames, n_mels)
            The clip, or its log-mel.
        sampling_rate : float or None
            Its rate, in Hz; not used.
        rng : numpy.random.Generator
            What is drawn from.

        Returns
        -------
        ndarray of the shape of `samples`
            The changed clip.
        """
        length = max(round(rng.uniform(self.min_share, 1) * len(samples)), 1)
        start = rng.integers(len(samples) - length + 1)
        return np.resize(samples[start : start + length], samples.shape)


@dataclass(frozen=True)
class RandomGain:
    """Make a waveform louder or softer.

    Parameters
    ----------
    max_gain : float, default=6.0
        By how much at most, in dB; drawn evenly, up and down.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.audio import RandomGain
    >>> rng = np.random.default_rng(0)
    >>> RandomGain()(np.ones(2), sampling_rate=8000, rng=rng).round(2)
    array([1.21, 1.21])
    """

    max_gain: float = 6.0

    def __post_init__(self):
        if not 0 <= self.max_gain < np.inf:
            raise ValueError(f"max_gain={self.max_gain} must not be negative, in dB")

    def __call__(self, samples, sampling_rate, rng):
        """Return a waveform changed, as of `RandomCrop`."""
        _check_waveform(self, samples)
        gain = 10 ** (rng.uniform(-self.max_gain, self.max_gain) / 20)
        return samples * samples.dtype.type(gain)


@dataclass(frozen=True)
class RandomNoise:
    """Add white noise to a waveform.

    Parameters
    ----------
    min_snr, max_snr : float, default=10.0 and 40.0
        By how much the clip is above the noise, in dB; drawn evenly between the two.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.audio import RandomNoise
    >>> rng = np.random.default_rng(0)
    >>> RandomNoise()(np.ones(3), sampling_rate=8000, rng=rng).round(2)
    array([1.  , 1.02, 1.  ])
    """

    min_snr: float = 10.0
    max_snr: float = 40.0

    def __post_init__(self):
        if not -np.inf < self.min_snr <= self.max_snr < np.inf:
            raise ValueError(
                f"min_snr={self.min_snr} must be at most max_snr={self.max_snr}, in dB"
            )

    def __call__(self, samples, sampling_rate, rng):
        """Return a waveform changed, as of `RandomCrop`."""
        _check_waveform(self, samples)
        snr = rng.uniform(self.min_snr, self.max_snr)
        power = np.mean(np.square(samples, dtype=np.float64))
        noise = rng.standard_normal(len(samples)) * np.sqrt(power / 10 ** (snr / 10))
        return samples + noise.astype(samples.dtype)


@dataclass(frozen=True)
class RandomShift:
    """Shift a clip or its log-mel in time: what leaves at one end enters at the other.

    Parameters
    ----------
    max_share : float, default=0.5
        By how much of the clip at most, forwards and backwards.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.audio import RandomShift
    >>> rng = np.random.default_rng(0)
    >>> RandomShift()(np.arange(8.0), sampling_rate=8000, rng=rng)
    array([5., 6., 7., 0., 1., 2., 3., 4.])
    """

    max_share: float = 0.5

    def __post_init__(self):
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"max_share={self.max_share} must be from 0 to 1")

    def __call__(self, samples, sampling_rate, rng):
        """Return a clip changed, as of `RandomCrop`."""
        most = int(self.max_share * len(samples))
        return np.roll(samples, rng.integers(-most, most, endpoint=True), axis=0)


def _check_waveform(augmentation, samples):
    if samples.ndim != 1:
        raise ValueError(
            f"{augmentation!r} changes waveforms, and here is an array of the shape "
            f"{samples.shape}: give clips in place of log-mel, or leave it out"
        )
