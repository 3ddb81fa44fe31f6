"""Digests of what is in files, and when one computed earlier still holds."""

import hashlib
import os
import stat
import time

# A file written to so short a time before it was hashed, in nanoseconds, may have been
# written to again without another time stamp: clocks of file systems tick slowly.
_SETTLED = 2 * 10**9


def identify_file(path):
    """Return a key that changes whenever a file is changed.

    Parameters
    ----------
    path : str
        An absolute path.

    Returns
    -------
    bytes or None
        The key, None if it is no file that can be read.
    """
    try:
        return _make_key(path, os.stat(path))
    except (OSError, ValueError):  # the path may hold a null
        return None


def hash_file(path):
    """Return the SHA-256 of a file's bytes, and the key that it may be kept by.

    Parameters
    ----------
    path : str
        An absolute path.

    Returns
    -------
    digest : bytes or None
        The digest, None if the file can't be read.
    key : bytes or None
        What `identify_file` returns while the file is as it was hashed; None if that
        can't be told, since it was changed just now.
    """
    start = time.time_ns()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None, None
    # The time of the last change of the inode is the one that nobody can set back. If
    # the file was changed while it was read, the key of before is no longer its key.
    settled = max(status.st_mtime_ns, status.st_ctime_ns) < start - _SETTLED
    return digest, _make_key(path, status) if settled else None


def _make_key(path, status):
    if not stat.S_ISREG(status.st_mode):
        return None  # a pipe would be waited for
    facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return hashlib.sha256(os.fsencode(path) + repr(facts).encode()).digest()
