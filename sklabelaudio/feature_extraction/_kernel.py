"""One waveform to one log-mel spectrogram, in blocks that stay in the cache."""

import threading
from itertools import pairwise

import numpy as np

# A block of frames and its spectrum should stay in a core's second-level cache.
_BLOCK_BYTES = 1_400_000
# A mel band spans few FFT bins, so the mel product is taken for groups of bands
# that are neighbours: at least this many, more while they span few bins.
_BANDS_PER_GROUP = 8
_BINS_PER_GROUP = 32

# What stands before and behind a waveform x that is padded by n samples.
_EDGES = {
    "constant": lambda x, n: (np.zeros(n, x.dtype), np.zeros(n, x.dtype)),
    "edge": lambda x, n: (np.full(n, x[0]), np.full(n, x[-1])),
    "reflect": lambda x, n: (x[n:0:-1], x[-2 : -n - 2 : -1]),
    "symmetric": lambda x, n: (x[n - 1 :: -1], x[: -n - 1 : -1]),
}


class LogMelKernel:
    """Frames, window, FFT, mel product and logarithm with settings made ready.

    The result for a waveform depends on nothing but that waveform. Instances are
    called by several threads at a time.

    Parameters
    ----------
    window : ndarray of shape (n_fft,)
        The window, padded to the FFT's length.
    hop_length : int
        Samples from one frame to the next.
    mel_bank : ndarray of shape (n_mels, 1 + n_fft // 2)
        Weights of the mel bands.
    power : float
        Exponent of the magnitude spectrum.
    pad_mode : str or None
        How to pad half a frame on both sides, in `numpy.pad`'s sense; ``None``
        does not pad.
    dtype : dtype
        Floating-point type to compute in.
    logarithm : callable
        Called with a clip's mel spectrogram, which it overwrites.
    emphasis : float or None, default=None
        How much of every sample of a frame is subtracted from the next, once the
        frame's mean is. The window must begin with zero, as a frame's first sample
        has none before it. ``None`` leaves frames as they are.
    frame_length : int, default=None
        Samples of a frame where there is `emphasis`: the window is zero behind them.
    """

    def __init__(
        self,
        *,
        window,
        hop_length,
        mel_bank,
        power,
        pad_mode,
        dtype,
        logarithm,
        emphasis=None,
        frame_length=None,
    ):
        import torch

        self.n_fft = len(window)
        self.hop_length = hop_length
        self.n_mels = len(mel_bank)
        self.power = power
        self.pad_mode = pad_mode
        self.logarithm = logarithm
        self.dtype = np.dtype(dtype)
        self._window = torch.from_numpy(window.astype(dtype))
        self._emphasis = emphasis
        self._frame_length = frame_length
        if emphasis is not None:
            self._inner_window = emphasis * self._window[1:frame_length]
        # Squares of real and imaginary parts lie side by side and share a weight:
        # the product adds them, which spares a pass over the spectrum.
        self._interleaved = power == 2
        mel_bank = mel_bank.astype(dtype)
        self._groups = _group_bands(mel_bank, 2 if self._interleaved else 1)
        frame_bytes = self.dtype.itemsize * (self.n_fft + 2 * (self.n_fft // 2 + 1))
        self._block = max(1, _BLOCK_BYTES // frame_bytes)
        self._scratch = threading.local()

    def n_frames(self, n_samples):
        """Return the number of frames of so many samples."""
        if self.pad_mode is not None:
            n_samples += 2 * (self.n_fft // 2)
        return 1 + (n_samples - self.n_fft) // self.hop_length

    def __call__(self, waveform):
        """Return the log-mel spectrogram, ``(n_frames, n_mels)``, float32."""
        n_frames = self.n_frames(waveform.size)
        pieces = self._cut_frames(waveform, n_frames)
        mel = np.empty((n_frames, self.n_mels), dtype=self.dtype)
        n_blocks = -(-n_frames // self._block)
        edges = [i * n_frames // n_blocks for i in range(n_blocks + 1)]
        for start, stop in pairwise(edges):
            self._mel_block(pieces, start, mel[start:stop])
        self.logarithm(mel)
        return mel.astype(np.float32, copy=False)

    def _cut_frames(self, waveform, n_frames):
        """Return frames as views, in pieces: number of the first, and frames.

        Only the frames at the ends reach into the padding. The others are views of
        the waveform itself, for a padded copy of it would drive the block out of
        the cache.
        """
        import torch

        def cut(signal):
            if not signal.flags.writeable:
                signal = signal.copy()  # torch takes no read-only arrays
            return torch.from_numpy(signal).unfold(0, self.n_fft, self.hop_length)

        n, hop = waveform.size, self.hop_length
        if self.pad_mode is None:
            return [(0, cut(waveform))]
        half = self.n_fft // 2
        first = -(-half // hop)
        last = (n - self.n_fft + half) // hop
        if last < first:
            return [(0, cut(np.pad(waveform, half, mode=self.pad_mode)))]
        left, right = _EDGES[self.pad_mode](waveform, half)
        stop = (first - 1) * hop - half + self.n_fft
        pieces = [
            (0, cut(np.concatenate([left, waveform[:stop]]))),
            (first, cut(waveform[first * hop - half :])),
        ]
        if last + 1 < n_frames:
            tail = waveform[(last + 1) * hop - half :]
            pieces.append((last + 1, cut(np.concatenate([tail, right]))))
        return pieces

    def _mel_block(self, pieces, start, mel):
        import torch

        n_frames = len(mel)
        windowed = self._windowed(n_frames)
        for first, frames in pieces:
            low, high = max(start, first), min(start + n_frames, first + len(frames))
            if low < high:
                frames = frames[low - first : high - first]
                out = windowed[low - start : high - start]
                if self._emphasis is None:
                    torch.mul(frames, self._window, out=out)
                else:
                    self._emphasize(frames, out)
        spectrum = torch.fft.rfft(windowed)
        if self._interleaved:
            powers = torch.view_as_real(spectrum).view(n_frames, -1).square_().numpy()
        else:
            powers = np.abs(spectrum.numpy())
            if self.power != 1:
                np.power(powers, self.power, out=powers)
        for columns, bands, weights in self._groups:
            np.matmul(powers[:, columns], weights, out=mel[:, bands])

    def _emphasize(self, frames, out):
        """Write frames without mean, with emphasis and windowed to `out`.

        All but their first sample, which the window sets to zero; that they then
        begin one sample early does not show in the magnitudes.
        """
        import torch

        length = self._frame_length
        means = frames[:, :length].mean(dim=1, keepdim=True)
        later, out = frames[:, 1:length], out[:, : length - 1]
        # (x - m) - a (x' - m), divided by a, in an order that keeps a mean m that is
        # much greater than the rest out of the rounding.
        rest = (1 - self._emphasis) / self._emphasis
        torch.sub(later, frames[:, : length - 1], out=out)
        out.add_(later, alpha=rest).sub_(means.mul_(rest)).mul_(self._inner_window)

    def _windowed(self, n_frames):
        """Return scratch memory of the calling thread, ``(n_frames, n_fft)``.

        Allocating it anew for every block costs more than working on it, and keeps
        threads waiting for each other. torch aligns it with the cache's lines. What
        `_emphasize` leaves out is zero.
        """
        import torch

        memory = getattr(self._scratch, "windowed", None)
        if memory is None or len(memory) < n_frames:
            dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
            memory = torch.zeros(self._block, self.n_fft, dtype=dtype)
            self._scratch.windowed = memory
        return memory[:n_frames]


def _group_bands(mel_bank, repeats):
    """Split the mel product into products with the bands' non-zero columns.

    Parameters
    ----------
    mel_bank : ndarray of shape (n_mels, n_bins)
        Weights of the mel bands.
    repeats : int
        How many columns of the operand belong to one bin.

    Returns
    -------
    list of (slice, slice, ndarray)
        Columns of the operand, bands, and their weights ``(n_columns, n_bands)``.
    """
    used = [np.flatnonzero(band) for band in mel_bank]
    groups, first = [], 0
    while first < len(mel_bank):
        last, low, high = first, len(mel_bank[0]), 0
        while last < len(mel_bank):
            new_low = min([low, *used[last][:1]])
            new_high = max([high, *(used[last][-1:] + 1)])
            if (
                last - first >= _BANDS_PER_GROUP
                and new_high - new_low > _BINS_PER_GROUP
            ):
                break
            low, high, last = new_low, new_high, last + 1
        low = min(low, high)  # bands without a bin leave an empty product, which is 0
        weights = np.repeat(mel_bank[first:last, low:high].T, repeats, axis=0)
        groups.append(
            (
                slice(repeats * low, repeats * high),
                slice(first, last),
                np.ascontiguousarray(weights),
            )
        )
        first = last
    return groups
