"""The file of an embedding cache: arrays by their keys, in an SQLite database."""

import ast
import errno
import hashlib
import os
import re
import sqlite3
import time
from contextlib import closing
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

# SQLite's own places to say whose a file is and how it is laid out: "SLAE".
_APPLICATION = 0x534C4145
VERSION = 1
# Rows don't share a page's rest: with small pages, half of one may be waste. With
# larger ones, each new row has more of the index written anew.
_PAGE_SIZE = 32768
_SCHEMA = [
    "CREATE TABLE content (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    # Apart from the content, so that a note of its use doesn't write that anew.
    "CREATE TABLE entries (key BLOB PRIMARY KEY, id INTEGER NOT NULL,"
    " layout BLOB NOT NULL, checksum BLOB NOT NULL, size INTEGER NOT NULL,"
    " used INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX entries_by_use ON entries (used, id)",
    "CREATE TABLE total (size INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0)",
    "CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN"
    " UPDATE total SET size = size + NEW.size; END",
    "CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN"
    " DELETE FROM content WHERE id = OLD.id;"
    " UPDATE total SET size = size - OLD.size; END",
]
# What a row takes in the file beside its numbers, roughly.
_OVERHEAD = 256
# SQLite takes a thousand million bytes at most.
_LARGEST_ROW = 2**29
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
# Values in one IN (...).
_CHUNK = 500
# How long to wait for other processes, in seconds.
PATIENCE = 30.0

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_REFUSED = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_REFUSED |= {sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOLFS}
# The last comes of sqlite3 reporting what is wrong with names in a damaged file.
FAULTS = (sqlite3.Error, OSError, UnicodeDecodeError)
_ENTRY_TYPES = [bytes, int, bytes, bytes, int]
_GET_TOTAL = "SELECT coalesce((SELECT CAST(size AS INTEGER) FROM total), 0)"


class Entry(NamedTuple):
    """What is known of a row beside its content."""

    key: bytes
    id: int
    layout: bytes
    checksum: bytes
    used: int


def transact(path, work, *, mode, patience=None):
    """Do work in one transaction; nothing is held open before or after.

    A connection that stayed open would have to be kept out of forked processes, where
    SQLite believes to hold locks which it doesn't.

    Parameters
    ----------
    path : str
        The file.
    work : callable
        ``work(connection)``; it may be called again after a failure.
    mode : {"ro", "rw", "rwc"}
        Whether to read, to change what is there, or to make the file if need be.
    patience : float, default=None
        How long to wait for other processes, in seconds; ``None`` is `PATIENCE`.

    Returns
    -------
    object
        What `work` returns, or None if there is no file.
    """
    patience = PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = _connect(path, mode, patience)
            if connection is None:
                return None
            with closing(connection):
                if not _begin(connection, mode):
                    return None
                result = work(connection)
                connection.execute("COMMIT")
                return result
        except sqlite3.OperationalError as error:
            # SQLite waits by itself, but not for every kind of lock.
            if _code(error) not in _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def is_read_only(path):
    """Tell whether there is a file which this process can't write."""
    return os.path.exists(path) and not (
        os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)
    )


def _connect(path, mode, patience):
    if mode == "rwc":
        os.makedirs(os.path.dirname(path), exist_ok=True)
    elif not os.path.exists(path):
        return None
    options = f"mode={mode}"
    if is_read_only(path):
        if mode != "ro":
            raise PermissionError(errno.EACCES, "it is read-only")
        if not os.path.exists(path + "-wal"):
            # Without its log the file is whole, and where no log can be made SQLite
            # reads it only on the word that nobody writes it. If somebody does after
            # all, checksums tell.
            options += "&immutable=1"
    elif mode == "ro":
        options = "mode=rw"  # who reads the log must be able to make it
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?{options}",
        uri=True,
        timeout=patience,
        isolation_level=None,
    )
    connection.text_factory = bytes  # there is no text but by damage
    return connection


def _begin(connection, mode):
    """Begin a transaction; return False where there is nothing to read or change."""
    begin = "BEGIN" if mode == "ro" else "BEGIN IMMEDIATE"
    if mode != "ro":
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF")
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            # These can be set before the first transaction alone.
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
            connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute(begin)
    if not _is_blank(connection):
        return True
    if mode != "rwc":
        return False
    connection.execute("ROLLBACK")  # in a transaction this can't be set
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(begin)
    if _is_blank(connection):  # or another process was quicker
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    return True


def _is_blank(connection):
    """Tell whether nothing has been written yet; refuse what others have."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, version) == (_APPLICATION, VERSION):
        return False
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, n_tables) == (0, 0, 0):
        return True
    if application != _APPLICATION:
        raise OSError("its database is another program's. Use another folder")
    raise OSError(
        f"it was written by another version of sklabelaudio (in layout {version}, and "
        f"this one's is {VERSION}). Use another folder, or delete this one"
    )


def read(connection, keys):
    """Look rows up.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction, so that nothing changes on the way.
    keys : list of bytes
        What the rows are called.

    Returns
    -------
    rows : dict of bytes to ndarray
        The rows that are there and whole.
    entries : list of Entry
        What is there of them.
    """
    entries = []
    for chunk, marks in _chunks(keys):
        entries += map(
            Entry._make,
            connection.execute(
                "SELECT key, id, layout, checksum, used FROM entries"
                f" WHERE key IN ({marks})",
                chunk,
            ),
        )
    # In a damaged file values may be of any type.
    whole = {
        entry.id: entry for entry in entries if [*map(type, entry)] == _ENTRY_TYPES
    }
    rows = {}
    for chunk, marks in _chunks(sorted(whole)):  # in the order of the file
        for row_id, data in connection.execute(
            f"SELECT id, data FROM content WHERE id IN ({marks})", chunk
        ):
            key, _, layout, checksum, _ = whole[row_id]
            if type(data) is bytes and _checksum(key, layout, data) == checksum:
                dtype, shape = _parse_layout(layout)
                rows[key] = np.ndarray(shape, dtype, bytearray(data))
    return rows, entries


def select_fitting(rows, limit):
    """Return those of rows, from the last, which a cache of this limit can hold."""
    fitting, n_bytes = {}, 0
    for key in reversed(rows):
        size = rows[key].nbytes + _OVERHEAD
        if size <= _LARGEST_ROW and (limit is None or n_bytes + size <= limit):
            fitting[key] = rows[key]
            n_bytes += size
    return dict(reversed(fitting.items()))


def write(connection, rows, *, limit, now):
    """Store rows that fit `limit`, and make room for them."""
    remove(connection, rows)
    if limit is not None:
        # Before the rows are there, so that they take the pages that become free.
        needed = sum(row.nbytes + _OVERHEAD for row in rows.values())
        evict(connection, limit - needed)
    for key, row in rows.items():
        layout, data = describe_layout(row.dtype, row.shape), row.tobytes()
        row_id = connection.execute(
            "INSERT INTO content (data) VALUES (?)", (data,)
        ).lastrowid
        checksum, size = _checksum(key, layout, data), row.nbytes + _OVERHEAD
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            (key, row_id, layout, checksum, size, now),
        )


def evict(connection, limit):
    """Remove what was not used for longest until `limit` bytes are left."""
    (size,) = connection.execute(_GET_TOTAL).fetchone()
    keys = []
    for key, row_size in connection.execute(
        "SELECT key, coalesce(CAST(size AS INTEGER), 0) FROM entries ORDER BY used, id"
    ):
        if size <= limit:
            break
        keys.append(key)
        size -= row_size
    remove(connection, keys)
    return len(keys)


def write_uses(connection, uses):
    """Note when rows were last used."""
    connection.executemany(
        "UPDATE entries SET used = ?1 WHERE key = ?2 AND used < ?1",
        ((used, key) for key, used in uses.items()),
    )


def remove(connection, keys):
    """Remove rows."""
    connection.executemany("DELETE FROM entries WHERE key = ?", ((k,) for k in keys))


def remove_all(connection):
    """Remove all rows."""
    connection.execute("DELETE FROM entries")


def measure(connection, kind):
    """Return the number of rows whose keys begin with `kind`, and the size of all."""
    (n_rows,) = connection.execute(
        "SELECT count(*) FROM entries WHERE substr(key, 1, 1) = ?", (kind,)
    ).fetchone()
    return n_rows, *connection.execute(_GET_TOTAL).fetchone()


def to_bytes(size):
    """Return a size in bytes, None for no limit."""
    if size is None:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", size.upper())
        if match:
            return int(float(match[1]) * _UNITS[match[2] or ""])
    elif isinstance(size, Real) and not isinstance(size, bool) and 0 <= size < np.inf:
        return int(size)
    raise ValueError(
        f"max_size must be a number of bytes, a string such as '500MB' or '2GiB', or "
        f"None, got {size!r}"
    )


def explain(error):
    """Say what is wrong with a cache and what to do about it."""
    code = _code(error)
    if code in _BUSY:
        return (
            f"other processes have kept it locked for {PATIENCE:g} s. End them, or use "
            "another folder"
        )
    if code == sqlite3.SQLITE_FULL:
        return "its disk is full. Free some space, or give the cache a max_size"
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "this is a file, or below a file. Use another folder"
    if isinstance(error, OSError) and error.errno is None:
        return str(error)  # our own
    if isinstance(error, OSError) or code in _REFUSED:
        cause = getattr(error, "strerror", None) or error
        return f"{cause}. Use a folder on a disk of this machine that can be written to"
    # Damage shows in many ways, down to names of columns that are not there.
    return f"its database is damaged ({error}). Delete the folder, or use another"


def _code(error):
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _chunks(values):
    """Yield values in chunks, each with the marks that stand for it in SQL."""
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        yield chunk, ",".join("?" * len(chunk))


def _checksum(key, layout, data):
    # Of the key as well: a row must not be given out for another.
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(layout)
    digest.update(data)
    return digest.digest()


@lru_cache(maxsize=256)
def describe_layout(dtype, shape):
    """Write down a dtype and a shape; TypeError for dtypes that bytes can't hold."""
    descr = None if dtype.hasobject else np.lib.format.dtype_to_descr(dtype)
    if descr is None or np.lib.format.descr_to_dtype(descr) != dtype:
        raise TypeError(f"rows of dtype {dtype} can't be stored: convert them")
    return repr((descr, shape)).encode()


@lru_cache(maxsize=256)
def _parse_layout(layout):
    descr, shape = ast.literal_eval(layout.decode())
    return np.lib.format.descr_to_dtype(descr), shape
