"""Runs an encoder so that a clip's result depends on that clip alone, bit for bit."""

from collections import deque

import numpy as np

from ..exceptions import AudioReadError

# Batches of windows that may wait for others of their length before they are run.
_WAITING_BATCHES = 8

# Where an encoder has what is asked for.
_FIELDS = {
    "embedding": "embedding",
    "logits": "logits",
    "framewise_embedding": "frames",
    "framewise_probabilities": "framewise",
}


class Engine:
    """An encoder made ready, on its device.

    On a CPU every clip is run by itself, by one thread: several clips at a time make
    better use of the cores than several threads on one, and neither the batch nor
    the number of threads can touch the result. On a GPU windows of one length, of
    whatever clips, are run in batches of one fixed size, which is filled up with
    zeros, for the size is what decides how a GPU adds up.

    Parameters
    ----------
    module : torch.nn.Module
        The encoder.
    device : torch.device
        Where it runs.
    batch_size : int
        Windows in a batch.
    amp : bool
        Whether a GPU computes in half precision where that is harmless.
    forward_params : dict
        What the encoder is told beside the log-mel.
    """

    def __init__(self, module, *, device, batch_size, amp, forward_params):
        import torch

        from ..nn._fold import fold_batch_norm
        from ..nn._pointwise import replace_pointwise

        module.requires_grad_(False).eval()
        fold_batch_norm(module)
        if device.type == "cpu":
            replace_pointwise(module)
        self.module = module.to(device=device, memory_format=torch.channels_last)
        self.device = device
        self.batch_size = batch_size
        self.amp = amp
        self.forward_params = forward_params
        self.in_batches = device.type != "cpu"

    def run(self, log_mel, output):
        """Run windows that belong together.

        Parameters
        ----------
        log_mel : ndarray of shape (n_windows, n_frames, n_mels)
            The windows.
        output : {"embedding", "logits", "probabilities", "framewise_embedding", \
                "framewise_probabilities"}
            What to return of the encoder.

        Returns
        -------
        ndarray of shape (n_windows, n_components) or \
                (n_windows, n_steps, n_components), float32
            It.
        """
        import torch

        with torch.inference_mode():
            windows = torch.from_numpy(log_mel)
            if self.device.type == "cpu":
                with torch.autocast("cpu", enabled=False):  # whatever the caller has
                    result = self.module(windows, **self.forward_params)
                return self._select(result, output).numpy()
            with exact_kernels(), torch.autocast(self.device.type, enabled=self.amp):
                result = self.module(windows.to(self.device), **self.forward_params)
            return self._select(result, output).float().cpu().numpy()

    def _select(self, result, output):
        if output != "probabilities":
            return getattr(result, _FIELDS[output])
        # An encoder whose classes exclude each other says so.
        if getattr(self.module, "exclusive_classes", False):
            return result.logits.softmax(dim=-1)
        return result.logits.sigmoid()

    def run_in_batches(self, clips, output):
        """Run the windows of many clips, together where they have one length.

        Parameters
        ----------
        clips : iterable of list of ndarray of shape (n_windows, n_frames, n_mels)
            Each clip's windows; an AudioReadError in place of a clip is passed on.
        output : str
            What to return of the encoder, as for :meth:`run`.

        Yields
        ------
        list of ndarray of shape (n_components,) or (n_steps, n_components)
            Each clip's results, in order.
        """
        waiting = {}  # windows, and where their results go, by shape
        clips_in_work = deque()
        for clip in clips:
            results = clip
            if not isinstance(clip, AudioReadError):
                windows = [window for piece in clip for window in piece]
                results = [None] * len(windows)
                for place, window in enumerate(windows):
                    waiting.setdefault(window.shape, []).append(
                        (window, results, place)
                    )
            clips_in_work.append(results)
            while _count(waiting) > _WAITING_BATCHES * self.batch_size or any(
                len(entries) >= self.batch_size for entries in waiting.values()
            ):
                self._run_fullest(waiting, output)
            while clips_in_work and _is_complete(clips_in_work[0]):
                yield clips_in_work.popleft()
        while waiting:
            self._run_fullest(waiting, output)
        yield from clips_in_work

    def _run_fullest(self, waiting, output):
        shape = max(waiting, key=lambda shape: len(waiting[shape]))
        entries = waiting.pop(shape)
        entries, rest = entries[: self.batch_size], entries[self.batch_size :]
        if rest:
            waiting[shape] = rest
        batch = np.zeros((self.batch_size, *shape), dtype=np.float32)
        for row, (window, _, _) in enumerate(entries):
            batch[row] = window
        rows = self.run(batch, output)
        for row, (_, results, place) in enumerate(entries):
            results[place] = rows[row]


def exact_kernels():
    """Return a context in which a GPU repeats itself and keeps single precision."""
    import torch

    # What is left out would be switched off.
    return torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )


def _count(waiting):
    return sum(map(len, waiting.values()))


def _is_complete(results):
    return isinstance(results, AudioReadError) or all(
        result is not None for result in results
    )
