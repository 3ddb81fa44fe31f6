"""The rows of one call of `transform` in a cache."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

from joblib import effective_n_jobs

from ..exceptions import AudioReadError

# Rows that are stored in one transaction, which costs as much as many rows.
_ROWS_TOGETHER = 64


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
        self._new = {}
        self._lock = threading.Lock()
        self.rows = {}
        if cache is None:
            return
        self._keys = [
            None if digest is None else hashlib.sha256(fingerprint + digest).digest()
            for digest in _digest_clips(cache, clips, n_jobs)
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
            self._new[self._keys[index]] = row
            if len(self._new) >= _ROWS_TOGETHER:
                self._store()
        return row

    def _store(self):
        self._cache.put_many(self._new)
        self._new = {}

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
