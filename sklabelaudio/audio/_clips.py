"""What `check_audio` returns: clips of any kind, read when they are asked for."""

import operator
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import effective_n_jobs

from ..exceptions import AudioReadError, AudioReadWarning
from ._read import (
    describe_low_rate,
    iter_waveform,
    read_sampling_rate,
    read_size,
    read_waveform,
    resample,
)


class AudioClips(Sequence):
    """Clips that have passed `check_audio`, read when they are asked for.

    ``clips[i]`` is the waveform of clip i: mono, float32, at `sampling_rate`.

    Parameters
    ----------
    items : sequence of str or of ndarray of shape (n_samples,)
        Paths, or waveforms.
    input_sampling_rate : float or None
        Rate of the waveforms in `items`, in Hz; files know their own.
    sampling_rate : float or None
        Rate of the clips given out, in Hz; ``None`` keeps the files' own.
    channel : "mean" or int
        What to take of files with several channels.
    check_samples : bool, default=False
        Whether waveforms are looked through for faults when they are asked for,
        which otherwise has been done.

    Attributes
    ----------
    is_files : bool
        Whether the clips are files.
    """

    def __init__(
        self,
        items,
        *,
        input_sampling_rate,
        sampling_rate,
        channel,
        check_samples=False,
    ):
        self.items = items
        self.input_sampling_rate = input_sampling_rate
        self.sampling_rate = sampling_rate
        self.channel = channel
        self.check_samples = check_samples
        self.is_files = isinstance(items[0], str)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        index = operator.index(index)
        if self.is_files:
            return read_waveform(
                self.items[index],
                sampling_rate=self.sampling_rate,
                channel=self.channel,
            )[0]
        waveform = self.array(index)
        if self.sampling_rate is None:
            return waveform
        return resample(waveform, self.input_sampling_rate, self.sampling_rate)

    def array(self, index):
        """Return the array of clip `index`, which is no file, as it came.

        Parameters
        ----------
        index : int
            Number of the clip.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Samples at `input_sampling_rate`.

        Raises
        ------
        AudioReadError
            If it has a fault that was left for the reading.
        """
        item = self.items[index]
        fault = find_fault(item) if self.check_samples else None
        if fault is not None:
            raise AudioReadError(self.name(index), f"it {fault}")
        return np.ascontiguousarray(item, dtype=np.float32)

    def blocks(self, index, *, block_seconds, min_rate=0):
        """Read a clip piece by piece, so that a long recording takes little memory.

        Parameters
        ----------
        index : int
            Number of the clip.
        block_seconds : float
            Length of a piece of a file, in seconds.
        min_rate : float, default=0
            Lowest rate of a file or an array to accept, in Hz.

        Returns
        -------
        iterator of ndarray of shape (n_samples,), float32
            The pieces, which together are ``clips[index]``, bit for bit. An array,
            which is in memory anyway, comes as one.

        Raises
        ------
        AudioReadError
            If the clip can't be read, or its rate is too low.
        """
        if self.is_files:
            return iter_waveform(
                self.items[index],
                sampling_rate=self.sampling_rate,
                channel=self.channel,
                block_seconds=block_seconds,
                min_rate=min_rate,
            )
        if self.input_sampling_rate < min_rate:
            fault = describe_low_rate(self.input_sampling_rate, min_rate)
            raise AudioReadError(self.name(index), fault)
        return iter([self[index]])

    def size(self, index):
        """Return the length of a clip as it came, without reading it.

        Parameters
        ----------
        index : int
            Number of the clip.

        Returns
        -------
        n_samples : int
            Number of its samples, as the header of a file has it.
        sampling_rate : float
            Their rate, in Hz.

        Raises
        ------
        AudioReadError
            If a file can't be opened.
        """
        if self.is_files:
            return read_size(self.items[index])
        return len(self.items[index]), self.input_sampling_rate

    def part(self, index, *, offset, duration):
        """Read a part of a clip.

        Parameters
        ----------
        index : int
            Number of the clip.
        offset, duration : float
            Where it starts and how long it is, in seconds.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            The part, at `sampling_rate`.

        Raises
        ------
        AudioReadError
            If it can't be read, or the clip ends before it.
        """
        if self.is_files:
            return read_waveform(
                self.items[index],
                sampling_rate=self.sampling_rate,
                channel=self.channel,
                offset=offset,
                duration=duration,
            )[0]
        rate = self.input_sampling_rate
        start = round(offset * rate)
        waveform = self.array(index)[start : start + max(round(duration * rate), 1)]
        if self.sampling_rate is None:
            return waveform
        return resample(waveform, rate, self.sampling_rate)

    def common_sampling_rate(self):
        """Return the rate of the clips given out, which must be one for all.

        Returns
        -------
        float
            Rate in Hz.

        Raises
        ------
        ValueError
            If the clips are files of several rates and none was asked for.
        AudioReadError
            If no file can be opened. Single bad files are left for the reading.
        """
        if self.sampling_rate is not None:
            return self.sampling_rate
        if not self.is_files:
            return self.input_sampling_rate
        rates, failure = {}, None
        for path in self.items:
            try:
                rates.setdefault(read_sampling_rate(path), []).append(path)
            except AudioReadError as error:
                failure = failure or error
        if not rates:
            raise failure
        if len(rates) > 1:
            listing = ", ".join(
                f"{rate} Hz ({len(paths)} files, such as {paths[0]})"
                for rate, paths in sorted(rates.items())
            )
            raise ValueError(
                f"sampling_rate=None needs files of one rate, and these have {listing}:"
                " set sampling_rate to the rate to work at"
            )
        return next(iter(rates))

    def name(self, index):
        """Return what to call clip `index` in a message: its path, or ``X[i]``."""
        return self.items[index] if self.is_files else f"X[{index}]"

    def map(self, function, *, n_jobs=None, on_error="raise", verbose=False):
        """Apply a function to every clip and put the rows together.

        Parameters
        ----------
        function : callable
            ``function(waveform)`` gives an array of the same number of dimensions
            for every clip. A ValueError it raises is told with the clip's name.
        n_jobs, on_error, verbose
            As in `map_indices`.

        Returns
        -------
        ndarray of shape (n_clips, ...)
            As `map_indices` does.
        """
        return self.map_indices(
            lambda index: function(self[index]),
            n_jobs=n_jobs,
            on_error=on_error,
            verbose=verbose,
        )

    def map_indices(
        self,
        function,
        *,
        known=None,
        finish=None,
        n_jobs=None,
        on_error="raise",
        verbose=False,
    ):
        """Apply a function to the number of every clip and put the rows together.

        The function works in threads, on a few clips at a time, so that memory is
        bounded by the result.

        Parameters
        ----------
        function : callable
            ``function(index)`` reads clip `index` and gives an array of the same
            number of dimensions for every clip. A ValueError it raises is told with
            the clip's name.
        known : mapping of int to ndarray, default=None
            Rows that are there already.
        finish : callable, default=None
            ``finish(results)`` takes the iterator over what `function` gave, or the
            AudioReadError of a clip that failed, and yields the rows in this order.
            It runs in the calling thread.
        n_jobs : int, default=None
            Number of threads, in joblib's sense: ``None`` is 1, -1 all cores.
        on_error : {"raise", "skip"}, default="raise"
            What to do with a clip that can't be read or worked on. With
            ``"skip"`` its row is NaN and one warning at the end names them all.
        verbose : bool, default=False
            Whether to show a progress bar.

        Returns
        -------
        ndarray of shape (n_clips, ...)
            The rows, or an object array of them where their shapes differ.

        Raises
        ------
        AudioReadError
            For the first bad clip, or with ``"skip"`` if every clip is bad.

        Warns
        -----
        AudioReadWarning
            If clips were skipped.
        """
        known = {} if known is None else known

        def attempt(index):
            try:
                return function(index)
            except AudioReadError as error:
                failure = error
            except ValueError as error:
                failure = AudioReadError(self.name(index), str(error))
                failure.__cause__ = error
            return failure

        wanted = [index for index in range(len(self)) if index not in known]
        n_threads = min(effective_n_jobs(n_jobs), len(wanted))
        if n_threads <= 1:
            computed = map(attempt, wanted)
        else:
            computed = _map_in_threads(attempt, wanted, n_threads)
        rows = computed if finish is None else finish(computed)
        results = (
            known[index] if index in known else next(rows) for index in range(len(self))
        )
        try:
            if verbose:
                from tqdm import tqdm

                results = tqdm(results, total=len(self), unit="clip")
            return _collect(results, len(self), on_error)
        finally:
            if n_threads > 1:
                computed.close()  # stops the threads if a clip raises


def _map_in_threads(function, items, n_threads):
    """Yield results in order, with no more tasks under way than keep threads busy.

    joblib's generators warn when they are left early, as an unreadable clip does.
    """
    pending = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()


def find_fault(waveform):
    """Say what is wrong with a waveform's samples, without a subject, or None."""
    if waveform.size == 0:
        return "has no samples: drop the clip"
    # In double precision a number may be finite and yet no float32.
    limit = np.finfo(np.float32).max
    with np.errstate(invalid="ignore"):
        usable = np.abs(waveform) <= limit
    if not usable.all():
        first = int(np.argmin(usable))
        return (
            f"has NaN or infinite samples, the first at {first}: mend or drop the clip"
        )
    return None


def _collect(results, n_rows, on_error):
    """Put rows into one array, or into an object array once their shapes differ."""
    rows, failures = None, {}
    for index, result in enumerate(results):
        if isinstance(result, AudioReadError):
            # Raised here, where they come in order, and not in the thread: the
            # first clip is told, not the one that happened to fail first.
            if on_error == "raise":
                raise result
            failures[index] = result
            continue
        if rows is None:
            rows = _make_room(n_rows, result)
        if isinstance(rows, np.ndarray) and rows.shape[1:] != result.shape:
            rows = list(rows)  # views: what has been computed is not copied
        rows[index] = result
    if failures:
        _report(failures, n_rows)
    if isinstance(rows, np.ndarray):
        rows[list(failures)] = np.nan
        return rows
    ragged = np.empty(n_rows, dtype=object)
    for index, row in enumerate(rows):
        ragged[index] = row
    some = next(row for index, row in enumerate(rows) if index not in failures)
    for index in failures:
        ragged[index] = np.full_like(some[:1], np.nan)
    return ragged


def _make_room(n_rows, row):
    try:
        return np.empty((n_rows, *row.shape), dtype=row.dtype)
    except MemoryError:  # one very long clip before short ones
        return [None] * n_rows


def _report(failures, n_rows):
    listing = "\n".join(f"  row {i}: {error}" for i, error in failures.items())
    if len(failures) == n_rows:
        first = next(iter(failures.values()))
        raise AudioReadError(
            first.path, f"{first.cause}; none of the {n_rows} clips can be used"
        )
    warnings.warn(
        f"{len(failures)} of {n_rows} clips can't be used, their rows are NaN:\n"
        + listing,
        AudioReadWarning,
        stacklevel=7,  # whoever called transform
    )
