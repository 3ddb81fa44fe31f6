"""Clips are the unit of parallel work; the libraries below keep to one thread."""

import threading
from contextlib import contextmanager
from functools import cache, partial

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users = []  # of the limits that are the whole process's
_limits = []  # how to lift them


@cache
def _controller():
    # Finding the loaded libraries takes milliseconds. torch brings its own OpenMP,
    # so it has to be loaded before the one look.
    import torch  # noqa: F401

    return ThreadpoolController()


@contextmanager
def one_native_thread():
    """Keep BLAS and torch to one thread, until the last of those inside has left."""
    import torch

    user = object()
    n_threads = torch.get_num_threads()
    with one_native_thread_per_worker():
        with _lock:
            if not _users:
                _set_limits(n_threads)
            _users.append(user)
        try:
            yield
        finally:
            with _lock:
                _users.remove(user)
                if not _users:
                    while _limits:
                        _limits.pop()()


def _set_limits(n_torch_threads):
    import torch

    _limits.append(
        _controller().limit(limits=1, user_api="blas").restore_original_limits
    )
    # torch's number is what threads that are new to it begin with, and that of the
    # matrix products of MKL, which it has inside where no controller finds them.
    _limits.append(partial(torch.set_num_threads, n_torch_threads))
    torch.set_num_threads(1)


@contextmanager
def one_native_thread_per_worker():
    """Keep OpenMP to one thread; the limit is the calling thread's own."""
    with _controller().limit(limits=1, user_api="openmp"):
        yield
