"""The rows of one call of `transform` in a cache."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from joblib import effective_n_jobs

from ..exceptions import AudioReadError

# Rows are stored together, for a transaction costs as much as many rows, but not so
# late that much work is lost if the process is killed. In rows, and seconds.
_MOST_ROWS = 256
_MOST_SECONDS = 5.0


class RowStore:
    """The rows of clips that are in a cache, and a place for new ones.

    Use it as a context: on leaving, what is new is in the cache.

    Parameters
    ----------
    cache : EmbeddingCache or None
        The cache.
    fingerprint : bytes
        All that decides a row beside its clip.
    clips : AudioClips
        The clips.
    n_jobs : int or None
        Threads that read the clips, in joblib's sense.

    Attributes
    ----------
    rows : dict of int to ndarray
        The rows that are there, by the clip's number.
    """

    def __init__(self, cache, fingerprint, clips, n_jobs):
        self._cache = cache
        self._clips = clips
        self._new = {}
        self._lock = threading.Lock()
        self._stored = time.monotonic()
        self.rows = {}
        if cache is None:
            return
        self._digests = _digest_clips(cache, clips, n_jobs)
        self._keys = [
            None if digest is None else hashlib.sha256(fingerprint + digest).digest()
            for digest in self._digests
        ]
        found = cache.get_many({key for key in self._keys if key is not None})
        self.rows = {
            index: found[key] for index, key in enumerate(self._keys) if key in found
        }

    def keep(self, index, row):
        """Take a new row in, and return it."""
        if self._cache is None or self._keys[index] is None:
            return row
        with self._lock:
            self._new[index] = row
            late = time.monotonic() > self._stored + _MOST_SECONDS
            if late or len(self._new) >= _MOST_ROWS:
                self._store()
        return row

    def _store(self):
        new, self._new = self._new, {}
        self._stored = time.monotonic()
        if self._clips.is_files:
            # A file may have been written anew since it was looked up: what the row
            # was made of is then not what its key says.
            paths = [self._clips.items[index] for index in new]
            digests = self._cache.file_digests(paths)
            new = {
                index: row
                for (index, row), digest in zip(new.items(), digests, strict=True)
                if digest == self._digests[index]
            }
        self._cache.put_many({self._keys[index]: row for index, row in new.items()})

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        # Also when the work was stopped: what is done need not be done again.
        if self._new:
            self._store()


def _digest_clips(cache, clips, n_jobs):
    """Return a digest of the content of each clip, None where it can't be read."""
    if clips.is_files:
        return cache.file_digests(clips.items, n_jobs=n_jobs)
    rate = repr(float(clips.input_sampling_rate)).encode()

    def digest(index):
        try:
            waveform = clips.array(index)
        except AudioReadError:
            return None
        hasher = hashlib.sha256(rate + b" Hz:")
        hasher.update(waveform)
        return hasher.digest()

    n_threads = min(effective_n_jobs(n_jobs), len(clips))
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(digest, range(len(clips))))
