"""The front end of encoders that work on waveforms."""

import numpy as np


class WaveformFrontEnd:
    """One waveform to what an encoder takes that works on waveforms.

    Parameters
    ----------
    name : str
        Name of the encoder.
    sampling_rate : int
        Rate of the waveforms, in Hz.
    hop_length : int
        Samples from one frame of the encoder to the next.
    min_samples : int
        A shorter waveform is followed by zeros up to so many samples.
    scale : float, default=1.0
        What samples are multiplied by.
    first_centre : float, default=0.0
        Where the middle of the encoder's first frame is, in samples.

    Attributes
    ----------
    n_mels : None
        There are no mel bands.
    fmin, fmax : float
        The encoder hears all frequencies, 0 to half of `sampling_rate`, in Hz.
    padding : float
        What a sample of zero is for the encoder, as `FrontEnd` has it: 0.
    """

    n_mels = None
    fmin = 0.0
    padding = 0.0

    def __init__(
        self,
        name,
        *,
        sampling_rate,
        hop_length,
        min_samples,
        scale=1.0,
        first_centre=0.0,
    ):
        self.name = name
        self.sampling_rate = sampling_rate
        self.fmax = sampling_rate / 2
        self.hop_length = hop_length
        self.min_samples = min_samples
        self.first_centre = first_centre
        self._scale = scale

    def __call__(self, waveform):
        """Return a waveform as the encoder takes it.

        Parameters
        ----------
        waveform : ndarray of shape (n_samples,), float32
            The waveform, at `sampling_rate`.

        Returns
        -------
        ndarray of shape (max(n_samples, min_samples),), float32
            The samples, which are a copy.
        """
        samples = np.zeros(max(waveform.size, self.min_samples), np.float32)
        np.multiply(waveform, self._scale, out=samples[: waveform.size])
        return samples
