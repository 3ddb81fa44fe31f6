"""EmbeddingCache: what embedders have computed, kept in one file."""

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from joblib import effective_n_jobs

from ..exceptions import EmbeddingCacheWarning
from . import _cache_file as store
from ._file_digests import hash_file, identify_file

_FILE = "embeddings.sqlite"
# The first byte of a stored key tells an embedder's row from the digest of a file.
_ROW, _DIGEST = b"r", b"f"
# Uses are written down when the last one on record is older than this, in nanoseconds.
_USES_OLD = 3600 * 10**9
# And when so many wait.
_MOST_USES = 100_000


class CacheInfo(NamedTuple):
    """What `EmbeddingCache.info` tells."""

    folder: str
    n_rows: int
    n_bytes: int
    file_size: int
    max_size: int | None
    hits: int
    misses: int
    version: int


class EmbeddingCache:
    """Keep what embedders compute, so that each clip is encoded once.

    Give it, or just the folder, to an embedder as ``cache=``. Rows are found by what
    is in a clip and by all that decides what the embedder makes of it, so a row that
    is found is the row that would be computed.

    Several threads and processes may use one folder at the same time, and each may be
    killed at any moment. A row that was damaged on disk is not given out. A cache
    that can't be used (a full disk, a damaged file, no permission) costs a warning
    and time, never the work.

    Parameters
    ----------
    folder : str or path-like
        Where the rows are kept; ``~`` is expanded. It is made when the first row is,
        and nothing is written anywhere else.
    max_size : int or str, default=None
        Limit on what is kept: bytes, or a string such as ``"500MB"`` or ``"2GiB"``.
        The rows that were not used for longest are dropped for new ones. ``None``
        keeps all.

    Attributes
    ----------
    folder : str or path-like
        As given.
    max_size : int, str or None
        As given.

    See Also
    --------
    YAMNetEmbedder : One of the embedders that take a cache.

    Notes
    -----
    The folder holds an SQLite database, ``embeddings.sqlite``, and while that is in
    use two files beside it. Through these processes share memory (SQLite's
    write-ahead log), which a network file system can't provide: keep the folder on a
    disk of the machine. A folder that can't be written to still serves its rows.

    A cache holds nothing open between calls. It may be copied, pickled and used after
    a fork; copies made within a process, as :func:`~sklearn.base.clone` makes them,
    count hits together and tell of a fault once. When a row was last used is written
    down with the next new rows or by `close`, and at the latest when what is written
    there is an hour old.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklabelaudio.embedding import EmbeddingCache
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = EmbeddingCache(folder, max_size="2GB")
    ...     cache.put_many({b"a key": np.ones(1024, dtype=np.float32)})
    ...     rows = cache.get_many([b"a key", b"another"])
    ...     info = cache.info()
    >>> {key: row.shape for key, row in rows.items()}
    {b'a key': (1024,)}
    >>> info.n_rows, info.hits, info.misses, info.max_size
    (1, 1, 1, 2000000000)
    """

    def __init__(self, folder, *, max_size=None):
        self._folder = folder
        self._max_size = max_size
        self._state = _State()

    @property
    def folder(self):
        """Where the rows are kept, as given."""
        return self._folder

    @property
    def max_size(self):
        """Limit on what is kept, as given."""
        return self._max_size

    def get_many(self, keys):
        """Look rows up.

        Parameters
        ----------
        keys : iterable of bytes
            What the rows are called.

        Returns
        -------
        dict of bytes to ndarray
            The rows that are there, each an array of its own.

        Raises
        ------
        TypeError
            If a key is not bytes, or `folder` no path.

        Warns
        -----
        EmbeddingCacheWarning
            Once, if the cache can't be used.
        """
        keys = set(keys)
        rows = self._get(_ROW, keys)
        state = self._get_state()
        with state.lock:
            state.hits += len(rows)
            state.misses += len(keys) - len(rows)
        return rows

    def put_many(self, rows):
        """Store rows, in the place of those of the same keys.

        A row larger than `max_size`, or than half a gigabyte, is not kept.

        Parameters
        ----------
        rows : dict of bytes to ndarray
            The rows, of any shape and any dtype but objects.

        Raises
        ------
        TypeError
            If a key is not bytes, a row is of a dtype that can't be stored, or
            `folder` is no path.
        ValueError
            If `max_size` is no size.

        Warns
        -----
        EmbeddingCacheWarning
            Once, if the cache can't be written to.
        """
        self._put(_ROW, rows)

    def file_digests(self, paths, *, n_jobs=None):
        """Return digests of what is in files; unchanged files are not read again.

        A digest is kept by the file's absolute path, size, times and inode. One of a
        file that was changed within the last two seconds is not kept.

        Parameters
        ----------
        paths : iterable of str or path-like
            The files.
        n_jobs : int, default=None
            Threads that read the files, in joblib's sense: ``None`` is 1, -1 all
            cores.

        Returns
        -------
        list of bytes or None
            SHA-256 of each file's bytes, None where it can't be read.

        Warns
        -----
        EmbeddingCacheWarning
            Once, if the cache can't be used.
        """
        paths = [os.path.abspath(os.fspath(path)) for path in paths]
        keys = {path: identify_file(path) for path in set(paths)}
        known = self._get(_DIGEST, {key for key in keys.values() if key is not None})
        digests = {
            path: known[key].tobytes() if key in known else None
            for path, key in keys.items()
        }
        unknown = [path for path in keys if keys[path] and digests[path] is None]
        new = {}
        n_threads = max(min(effective_n_jobs(n_jobs), len(unknown)), 1)
        with ThreadPoolExecutor(n_threads) as pool:
            for path, (digest, key) in zip(
                unknown, pool.map(hash_file, unknown), strict=True
            ):
                digests[path] = digest
                if key is not None:
                    new[key] = np.frombuffer(digest, dtype=np.uint8)
        # Who reads another's cache has nothing to be warned of as long as it has all.
        if not store.is_read_only(self._get_path()):
            self._put(_DIGEST, new)
        return [digests[path] for path in paths]

    def prune(self, max_size=None):
        """Drop the rows that were not used for longest, and give their space back.

        Parameters
        ----------
        max_size : int or str, default=None
            What may stay, in bytes or as a string; ``None`` is the cache's own limit.

        Returns
        -------
        int
            Number of rows dropped, with the digests of files that are kept likewise.

        Raises
        ------
        OSError
            If the cache can't be written to.
        ValueError
            If `max_size` is no size.
        """
        limit = store.to_bytes(self.max_size if max_size is None else max_size)
        uses = self._get_state().take_uses()

        def work(connection):
            store.write_uses(connection, uses)
            return 0 if limit is None else store.evict(connection, limit)

        return self._maintain(work, mode="rw") or 0

    def clear(self):
        """Drop all rows, and give their space back.

        Raises
        ------
        OSError
            If the cache can't be written to.
        """
        self._maintain(store.remove_all, mode="rw")

    def info(self):
        """Say what is there.

        Returns
        -------
        CacheInfo
            A named tuple:

            folder : str
                Absolute path of the folder.
            n_rows : int
                Number of rows.
            n_bytes : int
                What they take, with digests of files and what belongs to each row:
                this is what `max_size` limits.
            file_size : int
                Size of the files, in bytes.
            max_size : int or None
                The limit in bytes.
            hits, misses : int
                Rows that were asked for in this process, and were there or not.
            version : int
                Version of the file's layout.

        Raises
        ------
        OSError
            If the cache can't be read.
        ValueError
            If `max_size` is no size.
        """
        limit = store.to_bytes(self.max_size)
        state, path = self._get_state(), self._get_path()
        n_rows, n_bytes = self._maintain(
            lambda connection: store.measure(connection, _ROW), mode="ro"
        ) or (0, 0)
        return CacheInfo(
            folder=os.path.dirname(path),
            n_rows=n_rows,
            n_bytes=n_bytes,
            file_size=sum(map(_get_size, (path, f"{path}-wal", f"{path}-shm"))),
            max_size=limit,
            hits=state.hits,
            misses=state.misses,
            version=store.VERSION,
        )

    def close(self):
        """Write down when rows were last used, and forget what went wrong.

        The cache may be used on; one that could not be used is tried anew.
        """
        state = self._get_state()
        self._write_down(state.take_uses(), [])
        state.can_read = state.can_write = True

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        return f"{type(self).__name__}({self.folder!r}, max_size={self.max_size!r})"

    def __eq__(self, other):
        if not isinstance(other, EmbeddingCache):
            return NotImplemented
        return self._get_identity() == other._get_identity()

    def __hash__(self):
        return hash(self._get_identity())

    def _get_identity(self):
        return str(self.folder), self.max_size

    def __getstate__(self):
        return {"folder": self.folder, "max_size": self.max_size}

    def __setstate__(self, state):
        self.__init__(**state)

    def __copy__(self):
        copy = type(self)(self.folder, max_size=self.max_size)
        # Else each of an estimator's clones would wait for a lock and warn by itself.
        copy._state = self._get_state()
        return copy

    def __deepcopy__(self, memo):
        return self.__copy__()

    def _get_state(self):
        if self._state.pid != os.getpid():  # a fork, maybe while a thread had the lock
            self._state = _State()
        return self._state

    def _get_path(self):
        if not isinstance(self.folder, (str, os.PathLike)):
            raise TypeError(f"folder must be a str or path-like, got {self.folder!r}")
        folder = os.path.expanduser(os.fspath(self.folder))
        return os.path.join(os.path.abspath(folder), _FILE)

    def _get(self, kind, keys):
        keys = [_to_stored_key(kind, key) for key in keys]
        path, state = self._get_path(), self._get_state()
        if not keys or not state.can_read:
            return {}
        try:
            rows, entries = store.transact(
                path, lambda connection: store.read(connection, keys), mode="ro"
            ) or ({}, [])
        except store.FAULTS as error:
            self._give_up(error, reading=True)
            return {}
        now = state.note_uses(rows)
        damaged = [entry.key for entry in entries if entry.key not in rows]
        if state.can_write and (
            damaged
            or len(state.uses) > _MOST_USES
            or any(
                entry.key in rows and now - entry.used > _USES_OLD for entry in entries
            )
        ):
            self._write_down(state.take_uses(), damaged, patience=0)
        return {key[1:]: row for key, row in rows.items()}

    def _put(self, kind, rows):
        limit = store.to_bytes(self.max_size)
        rows = {_to_stored_key(kind, key): np.asarray(rows[key]) for key in rows}
        for row in rows.values():
            store.describe_layout(row.dtype, row.shape)
        rows = store.select_fitting(rows, limit)
        path, state = self._get_path(), self._get_state()
        if not rows or not state.can_write:
            return
        uses, now = state.take_uses(), state.tick()

        def work(connection):
            store.write_uses(connection, uses)
            store.write(connection, rows, limit=limit, now=now)

        try:
            store.transact(path, work, mode="rwc")
        except store.FAULTS as error:
            self._give_up(error, reading=False)

    def _write_down(self, uses, damaged, patience=None):
        """Write what reading has found out, if that can be done now."""
        path = self._get_path()
        if not (uses or damaged):
            return

        def work(connection):
            store.write_uses(connection, uses)
            store.remove(connection, damaged)

        with suppress(*store.FAULTS):  # nothing is lost that matters
            store.transact(path, work, mode="rw", patience=patience)

    def _maintain(self, work, *, mode):
        path = self._get_path()
        try:
            return store.transact(path, work, mode=mode)
        except store.FAULTS as error:
            raise OSError(
                f"the embedding cache in {os.path.dirname(path)!r} can't be used: "
                f"{store.explain(error)}"
            ) from error

    def _give_up(self, error, *, reading):
        state = self._get_state()
        with state.lock:
            told = not (state.can_read and state.can_write)
            state.can_read = state.can_read and not reading
            state.can_write = False
        if not told:
            warnings.warn(
                f"the embedding cache in {os.path.dirname(self._get_path())!r} can't "
                f"be used, and the work goes on without it: {store.explain(error)}",
                EmbeddingCacheWarning,
                stacklevel=4,  # whoever called get_many or put_many
            )


class _State:
    """What the copies of a cache know in one process."""

    def __init__(self):
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.can_read = self.can_write = True
        self.hits = self.misses = 0
        self.uses = {}  # time of the last use by stored key, not yet written down
        self.clock = 0

    def tick(self):
        """Return the time in nanoseconds, later than ever before."""
        with self.lock:
            self.clock = max(self.clock + 1, time.time_ns())
            return self.clock

    def note_uses(self, keys):
        """Note that rows are used now, and return the time."""
        now = self.tick()
        with self.lock:
            self.uses.update(dict.fromkeys(keys, now))
        return now

    def take_uses(self):
        """Return the uses that are not written down, and forget them."""
        with self.lock:
            uses, self.uses = self.uses, {}
        return uses


def _to_stored_key(kind, key):
    if not isinstance(key, bytes):
        raise TypeError(f"keys must be bytes, got {key!r}")
    return kind + key


def _get_size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
