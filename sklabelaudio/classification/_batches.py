"""Batches of clips for training and prediction, read ahead by threads."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
from joblib import effective_n_jobs

from ..feature_extraction._threads import one_native_thread_per_worker

# Pieces that are read ahead of those that are asked for, in batches.
_BATCHES_AHEAD = 2
# Clips that are read ahead for predictions, of which more than a piece may be held.
_CLIPS_AHEAD = 32


class BatchLoader:
    """Goes through a training set in batches, once each time it is iterated.

    Parameters
    ----------
    source : ArraySet or ClipSet
        The clips.
    target : ndarray of shape (n_clips, n_classes), dtype=bool
        Their labels.
    sample_weight : ndarray of shape (n_clips,), or None
        Their weights.
    draw_order : callable
        Returns the indices of the clips of an epoch in their order, which it draws
        from a `numpy.random.Generator`.
    n_clips : int
        How many these are.
    batch_size : int
        Clips in a batch; a single clip that is left over joins the last batch, since
        batch norms need two.
    device : torch.device
        Where tensors go.
    n_jobs : int or None
        Threads that read clips.
    seed : int or None, default=None
        Of all that is drawn, which depends on it and the number of the epoch alone.
        ``None`` draws nothing, and takes the middle of longer clips.
    augment : callable, default=None
        ``augment(inputs, target, weights, generator)`` gives the first three changed.
    n_epochs : int, default=0
        Epochs that were before.

    Yields
    ------
    inputs : Tensor of shape (n_clips, ...)
        The clips of a batch.
    target : Tensor of shape (n_clips, n_classes), or a tuple of it and the weights
        Their labels.
    """

    def __init__(
        self,
        source,
        target,
        sample_weight,
        draw_order,
        *,
        n_clips,
        batch_size,
        device,
        n_jobs,
        seed=None,
        augment=None,
        n_epochs=0,
    ):
        self.source = source
        self.target = target
        self.sample_weight = sample_weight
        self.draw_order = draw_order
        self.n_clips = n_clips
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.seed = seed
        self.augment = augment
        self.n_epochs = n_epochs

    def __len__(self):
        return self.n_clips

    @property
    def n_batches(self):
        """Number of batches in an epoch."""
        return len(split_batches(np.arange(self.n_clips), self.batch_size))

    def draw_seeds(self):
        """Return four seeds of the epoch that is next, None without a seed.

        They are of its order, of where pieces begin, of what is done to batches, and of
        what draws from global generators.
        """
        if self.seed is None:
            return None
        # Integers of any size, and no two epochs or seeds alike.
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.n_epochs,))
        return sequence.generate_state(4).tolist()

    def __iter__(self):
        import torch

        rng = piece_seed = generator = None
        if self.seed is not None:
            order_seed, piece_seed, augment_seed, _ = self.draw_seeds()
            rng = np.random.default_rng(order_seed)
            generator = torch.Generator().manual_seed(augment_seed)
        self.n_epochs += 1
        order = self.draw_order(rng)
        batches = split_batches(order, self.batch_size)
        inputs = self._read(order, batches, piece_seed)
        for indices, array in zip(batches, inputs, strict=True):
            X = torch.from_numpy(array).to(self.device)
            y = torch.from_numpy(self.target[indices].astype(array.dtype))
            y = y.to(self.device)
            weights = None
            if self.sample_weight is not None:
                weights = self.sample_weight[indices].astype(array.dtype)
                weights = torch.from_numpy(weights)
                weights = weights.to(self.device)
            if self.augment is not None:
                X, y, weights = self.augment(X, y, weights, generator)
            yield X, (y if weights is None else (y, weights))

    def _read(self, order, batches, piece_seed):
        """Yield the inputs of batches as arrays."""
        if not self.source.is_slow:
            for indices in batches:
                yield self.source.take(indices)
            return

        def read(index):
            rng = None
            if piece_seed is not None:
                rng = np.random.default_rng([piece_seed, index])
            return self.source.piece(index, rng)

        pieces = map_ahead(
            read, order, n_jobs=self.n_jobs, n_ahead=_BATCHES_AHEAD * self.batch_size
        )
        with closing(pieces):
            for indices in batches:
                yield self._stack(indices, [next(pieces) for _ in indices])

    def _stack(self, indices, pieces):
        for index, piece in zip(indices, pieces, strict=True):
            if piece.shape != pieces[0].shape:
                raise ValueError(
                    f"the clips {self.source.name(indices[0])} and "
                    f"{self.source.name(index)} are of {len(pieces[0])} and "
                    f"{len(piece)} frames, and a batch needs one length: set duration, "
                    "in seconds, to which longer ones are cut at random and shorter "
                    "ones repeated"
                )
        return np.stack(pieces)


def split_batches(order, batch_size):
    """Cut indices in batches, of which none is of a single clip if it can be helped.

    Parameters
    ----------
    order : ndarray of shape (n_clips,)
        The indices.
    batch_size : int
        How many to a batch.

    Returns
    -------
    list of ndarray
        The batches.
    """
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = np.concatenate([batches[-1], last])
    return batches


def map_ahead(function, items, *, n_jobs, n_ahead):
    """Yield results in order, worked out by threads ahead of those asked for.

    Parameters
    ----------
    function : callable
        What is done to every item. Libraries keep to one thread in it.
    items : sequence
        The items.
    n_jobs : int or None
        Number of threads, in joblib's sense.
    n_ahead : int
        Items that are begun before they are asked for.

    Yields
    ------
    object
        The results.
    """

    def work(item):
        with one_native_thread_per_worker():
            return function(item)

    pending = deque()
    with ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > n_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()


def encode_clips(module, cut, indices, *, in_threads, batch_size, device, n_jobs):
    """Return the vectors of clips, each the mean of those of its windows.

    Parameters
    ----------
    module : torch.nn.Module
        The encoder, in evaluation mode on `device`.
    cut : callable
        Gives the windows of the clip of an index.
    indices : sequence of int
        The clips.
    in_threads : bool
        Whether threads do so.
    batch_size : int
        Windows at a time.
    device : torch.device
        Where to compute.
    n_jobs : int or None
        Threads that read clips.

    Returns
    -------
    ndarray of shape (n_indices, n_features), float64
        The vectors.
    """
    rows = [None] * len(indices)
    counts = np.zeros(len(indices))
    held = []  # row and window, up to a batch of one shape

    def flush():
        vectors = _run(module, np.stack([window for _, window in held]), device)
        for (row, _), vector in zip(held, vectors, strict=True):
            rows[row] = vector if rows[row] is None else rows[row] + vector
            counts[row] += 1
        held.clear()

    if in_threads:
        n_ahead = min(batch_size, _CLIPS_AHEAD)
        clips = map_ahead(cut, indices, n_jobs=n_jobs, n_ahead=n_ahead)
    else:
        clips = (cut(index) for index in indices)
    with closing(clips):
        for row, windows in enumerate(clips):
            for window in windows:
                if held and held[0][1].shape != window.shape:
                    flush()
                held.append((row, window))
                if len(held) == batch_size:
                    flush()
    if held:
        flush()
    return np.stack(rows) / counts[:, np.newaxis]


def _run(module, batch, device):
    import torch

    from ..nn._proximity_net import take_embedding

    with torch.inference_mode():
        vectors = take_embedding(module(torch.from_numpy(batch).to(device)))
    return vectors.cpu().double().numpy()
