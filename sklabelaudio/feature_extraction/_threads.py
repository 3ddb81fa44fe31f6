"""Clips are the unit of parallel work; the libraries below keep to one thread."""

from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller():
    # Finding the loaded libraries takes milliseconds. torch brings its own OpenMP,
    # so it has to be loaded before the one look.
    import torch  # noqa: F401

    return ThreadpoolController()


@contextmanager
def one_native_thread():
    """Keep BLAS to one thread; the limit is the process's, so set it once."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@contextmanager
def one_native_thread_per_worker():
    """Keep OpenMP to one thread; the limit is the calling thread's own."""
    with _controller().limit(limits=1, user_api="openmp"):
        yield
