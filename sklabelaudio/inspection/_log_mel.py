"""The picture of one clip's log-mel spectrogram."""

from os import PathLike
from pathlib import Path

import numpy as np

_OCTAVES = 125.0 * 2.0 ** np.arange(10)  # Hz


class LogMelDisplay:
    """Log-mel spectrogram of one clip, over seconds and hertz.

    Use it to see what a model is given: silence, clipping, a wrong sampling rate
    and a wrong mel bank show here first.

    It is recommended to use :meth:`from_estimator` or :meth:`from_log_mel`. All
    parameters are stored as attributes.

    Parameters
    ----------
    log_mel : ndarray of shape (n_frames, n_mels)
        The spectrogram.
    times : ndarray of shape (n_frames,)
        Time of each frame in seconds, evenly spaced.
    frequencies : ndarray of shape (n_mels,)
        Centre frequency of each mel band in Hz, increasing.
    unit : str, default="dB"
        Unit of the values, for the colour bar.
    name : str, default=None
        Title of the picture, such as the file's name.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The image.
    colorbar_ : matplotlib Colorbar
        Its colour bar.
    ax_ : matplotlib Axes
        Axes with the image.
    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.inspection import LogMelDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = LogMelDisplay.from_log_mel(
    ...     rng.normal(-40, 5, (100, 64)),
    ...     times=np.arange(100) * 0.01,
    ...     frequencies=np.geomspace(50, 8000, 64),
    ... )
    >>> display.ax_.get_xlabel()
    'Time (s)'
    """

    def __init__(self, log_mel, *, times, frequencies, unit="dB", name=None):
        self.log_mel = log_mel
        self.times = times
        self.frequencies = frequencies
        self.unit = unit
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, clip, *, ax=None, name=None, unit="dB", **im_kw):
        """Plot the log-mel spectrogram that a transformer makes of a clip.

        Parameters
        ----------
        estimator : transformer
            A fitted transformer of clips to log-mel: it has ``transform``,
            ``mel_frequencies_`` and ``frame_times(n_frames)``.
        clip : str, path or ndarray of shape (n_samples,)
            One clip.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        name : str, default=None
            Title. None takes the file's name if the clip is a path.
        unit : str, default="dB"
            Unit of the values, for the colour bar.
        **im_kw : dict
            Passed to matplotlib's ``imshow``.

        Returns
        -------
        LogMelDisplay
            The display, plotted.
        """
        if name is None and isinstance(clip, (str, PathLike)):
            name = Path(clip).name
        log_mel = estimator.transform([clip])[0]
        return cls.from_log_mel(
            log_mel,
            times=estimator.frame_times(len(log_mel)),
            frequencies=estimator.mel_frequencies_,
            unit=unit,
            name=name,
            ax=ax,
            **im_kw,
        )

    @classmethod
    def from_log_mel(
        cls, log_mel, *, times, frequencies, unit="dB", name=None, ax=None, **im_kw
    ):
        """Plot a log-mel spectrogram.

        Parameters
        ----------
        log_mel : array-like of shape (n_frames, n_mels)
            The spectrogram.
        times : array-like of shape (n_frames,)
            Time of each frame in seconds, evenly spaced.
        frequencies : array-like of shape (n_mels,)
            Centre frequency of each mel band in Hz, increasing.
        unit : str, default="dB"
            Unit of the values, for the colour bar.
        name : str, default=None
            Title of the picture.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **im_kw : dict
            Passed to matplotlib's ``imshow``.

        Returns
        -------
        LogMelDisplay
            The display, plotted.
        """
        display = cls(
            np.asarray(log_mel),
            times=np.asarray(times, dtype=float),
            frequencies=np.asarray(frequencies, dtype=float),
            unit=unit,
            name=name,
        )
        return display.plot(ax=ax, **im_kw)

    def plot(self, *, ax=None, **im_kw):
        """Plot the spectrogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **im_kw : dict
            Passed to matplotlib's ``imshow``.

        Returns
        -------
        LogMelDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the shapes don't agree, `times` is not evenly spaced or
            `frequencies` does not increase.
        """
        import matplotlib.pyplot as plt

        self._check()
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        n_frames, n_mels = self.log_mel.shape
        step = self.times[1] - self.times[0] if n_frames > 1 else 1.0
        left, right = self.times[0] - step / 2, self.times[-1] + step / 2
        im_kw = {
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "nearest",
            "extent": (left, right, -0.5, n_mels - 0.5),
            **im_kw,
        }
        self.im_ = ax.imshow(self.log_mel.T, **im_kw)
        rows, names = _frequency_ticks(self.frequencies)
        ax.set_yticks(rows, names)
        ax.set(xlabel="Time (s)", ylabel="Frequency (Hz)", title=self.name)
        self.colorbar_ = ax.figure.colorbar(self.im_, ax=ax, label=self.unit)
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _check(self):
        if self.log_mel.ndim != 2 or 0 in self.log_mel.shape:
            raise ValueError(
                "log_mel must have the shape (n_frames, n_mels) of one clip, got "
                f"{self.log_mel.shape}"
            )
        n_frames, n_mels = self.log_mel.shape
        if self.times.shape != (n_frames,):
            raise ValueError(
                f"log_mel has {n_frames} frames and times has the shape "
                f"{self.times.shape}: log_mel is (n_frames, n_mels), times (n_frames,)"
            )
        if self.frequencies.shape != (n_mels,):
            raise ValueError(
                f"log_mel has {n_mels} mel bands and frequencies has the shape "
                f"{self.frequencies.shape}: log_mel is (n_frames, n_mels), frequencies "
                "(n_mels,)"
            )
        steps = np.diff(self.times)
        if n_frames > 1 and (
            steps.min() <= 0 or not np.allclose(steps, steps.mean(), rtol=1e-2)
        ):
            raise ValueError(
                "times must increase evenly, one step a frame, got steps from "
                f"{steps.min():g} to {steps.max():g} seconds"
            )
        if np.any(np.diff(self.frequencies) <= 0):
            raise ValueError(
                "frequencies must increase, from the lowest mel band to the highest"
            )


def _frequency_ticks(frequencies):
    """Give the mel rows of the octaves in range, and their names."""
    rows = np.arange(len(frequencies))
    hertz = _OCTAVES[(frequencies[0] <= _OCTAVES) & (frequencies[-1] >= _OCTAVES)]
    if len(hertz) < 2:
        hertz = np.unique(frequencies[[0, -1]])
    ticks = np.interp(hertz, frequencies, rows)
    # Octaves crowd at the low end, where the mel scale is nearly linear.
    clear = np.append(np.diff(ticks) > 0.05 * len(rows), True)
    return ticks[clear], [_hertz_name(value) for value in hertz[clear]]


def _hertz_name(hertz):
    return f"{hertz / 1000:.3g}k" if hertz >= 1000 else f"{hertz:.3g}"
