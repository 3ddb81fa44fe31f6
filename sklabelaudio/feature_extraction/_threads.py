"""Clips are the unit of parallel work; the libraries below keep to one thread."""

import threading
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users = []  # of the limit on BLAS, which is the whole process's
_limits = []


@cache
def _controller():
    # Finding the loaded libraries takes milliseconds. torch brings its own OpenMP,
    # so it has to be loaded before the one look.
    import torch  # noqa: F401

    return ThreadpoolController()


@contextmanager
def one_native_thread():
    """Keep BLAS to one thread, until the last of those inside has left."""
    user = object()
    with _lock:
        if not _users:
            _limits.append(_controller().limit(limits=1, user_api="blas"))
        _users.append(user)
    try:
        yield
    finally:
        with _lock:
            _users.remove(user)
            if not _users:
                _limits.pop().restore_original_limits()


@contextmanager
def one_native_thread_per_worker():
    """Keep OpenMP to one thread; the limit is the calling thread's own."""
    with _controller().limit(limits=1, user_api="openmp"):
        yield
