import copy
import hashlib
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

from sklabelaudio.embedding import EmbeddingCache, _cache, _cache_file, _file_digests

FILE = "embeddings.sqlite"
HOUR = 3600
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs forks and permissions")


def make_row(key, n_bytes=None):
    """The oracle: what a row is follows from its key."""
    key = bytes(key)
    if n_bytes is None:
        n_bytes = int.from_bytes(hashlib.sha256(key).digest()[:2], "big") % 9000
    return np.frombuffer(hashlib.shake_256(key).digest(n_bytes), dtype=np.uint8)


def make_rows(numbers, n_bytes=None):
    keys = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
    return {key: make_row(key, n_bytes) for key in keys}


def assert_rows_equal(rows, expected):
    assert set(rows) == set(expected)
    for key, row in rows.items():
        np.testing.assert_array_equal(row, expected[key], strict=True)


def execute(folder, sql):
    with closing(sqlite3.connect(Path(folder, FILE))) as connection:
        result = connection.execute(sql).fetchall()
        connection.commit()
    return result


# The other modules of the folder take seconds to load.
SCRIPT = f"""
import hashlib, os, sys, time, types, warnings
import numpy as np
package = types.ModuleType("sklabelaudio.embedding")
package.__path__ = [{str(Path(_cache.__file__).parent)!r}]
sys.modules[package.__name__] = package
from sklabelaudio.embedding._cache import EmbeddingCache
folder = sys.argv[1]
def make_row(key):
    n_bytes = int.from_bytes(hashlib.sha256(key).digest()[:2], "big") % 9000
    return np.frombuffer(hashlib.shake_256(key).digest(n_bytes), dtype=np.uint8)
def check(rows):
    for key, row in rows.items():
        assert row.dtype == np.uint8 and row.tobytes() == make_row(key).tobytes()
    return len(rows)
def run_in_processes(work, n_processes):
    children = []
    for number in range(n_processes):
        child = os.fork()
        if child == 0:
            try:
                work(number)
            except BaseException as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""


def run_script(code, *arguments):
    """Run code in a new process, where warnings are errors; return what it prints."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.split()


@pytest.fixture
def settled(monkeypatch):
    """Files count as unchanged for long, and may be remembered."""
    monkeypatch.setattr(_file_digests, "_SETTLED", -HOUR * 10**9)


# Rows in, rows out.

STRUCTURE = np.dtype([("begin", "<f4"), ("label", "U3"), ("box", "<i2", (2, 2))])


@pytest.mark.parametrize(
    "row",
    [
        np.arange(1024, dtype=np.float32),
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24.0)[::-2],
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(4, dtype=">i4"),
        np.array([np.nan, -0.0, np.inf]),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["rain", "ü"]),
        np.array(["2024-01-01"], dtype="datetime64[s]"),
        np.zeros(3, dtype=STRUCTURE),
        np.float16(3),
        np.array(7),
        np.zeros((0, 5), dtype=np.float32),
        np.zeros((3, 0)),
        np.random.default_rng(0).normal(size=(700, 1000)),
    ],
    ids=lambda row: f"{row.dtype.str}{row.shape}",
)
def test_rows_come_back(tmp_path, row):
    EmbeddingCache(tmp_path).put_many({b"key": row})
    (got,) = EmbeddingCache(tmp_path).get_many([b"key"]).values()
    np.testing.assert_array_equal(got, row, strict=True)
    assert got.dtype.str == np.asarray(row).dtype.str  # assert_array_equal swaps bytes
    assert got.flags.writeable
    assert got.flags.c_contiguous
    assert got.flags.aligned


def test_rows_are_copies(tmp_path):
    row = np.ones(3)
    cache = EmbeddingCache(tmp_path)
    cache.put_many({b"key": row})
    row[:] = 2
    cache.get_many([b"key"])[b"key"][:] = 3
    np.testing.assert_array_equal(cache.get_many([b"key"])[b"key"], [1, 1, 1])


def test_what_is_not_there_is_left_out(tmp_path):
    cache = EmbeddingCache(tmp_path / "new" / "folder")
    assert cache.get_many([b"a"]) == {}
    assert not (tmp_path / "new").exists()
    cache.put_many({})
    assert not (tmp_path / "new").exists()
    cache.put_many(make_rows(range(3)))
    keys = [b"a", *make_rows(range(2, 5))]
    assert_rows_equal(cache.get_many(iter(keys * 2)), make_rows([2]))
    assert cache.get_many([]) == {}


def test_many_rows(tmp_path):
    rows = make_rows(range(2 * _cache_file._CHUNK + 1), n_bytes=40)
    cache = EmbeddingCache(tmp_path)
    cache.put_many(rows)
    assert_rows_equal(cache.get_many(reversed(rows)), rows)


def test_a_later_row_takes_the_place(tmp_path):
    cache = EmbeddingCache(tmp_path)
    for value in range(3):
        cache.put_many({b"a": np.full(value + 1, value), b"b": np.zeros(1)})
    np.testing.assert_array_equal(cache.get_many([b"a"])[b"a"], [2, 2, 2])
    info = cache.info()
    assert info.n_rows == 2
    assert info.n_bytes == 32 + 2 * _cache_file._OVERHEAD
    assert execute(tmp_path, "SELECT count(*) FROM content") == [(2,)]


def test_keys_are_bytes(tmp_path):
    cache = EmbeddingCache(tmp_path)
    for call in (lambda: cache.get_many(["a"]), lambda: cache.put_many({"a": 1})):
        with pytest.raises(TypeError, match="keys must be bytes, got 'a'"):
            call()


@pytest.mark.parametrize("row", [np.array([None]), np.array([[1], [1, 2]], object)])
def test_objects_are_refused(tmp_path, row):
    with pytest.raises(TypeError, match="rows of dtype object can't be stored"):
        EmbeddingCache(tmp_path).put_many({b"a": row})


@pytest.mark.parametrize("folder", [None, 3, b"folder"])
def test_folder_is_a_path(folder):
    cache = EmbeddingCache(folder)
    for call in (lambda: cache.get_many([b"a"]), lambda: cache.put_many({b"a": 1})):
        with pytest.raises(
            TypeError, match=f"folder must be .* path-like, got {folder}"
        ):
            call()


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    EmbeddingCache(Path("~") / "rows ?#%20 ü").put_many(make_rows([1]))
    assert os.listdir(tmp_path / "rows ?#%20 ü") == [FILE]


def test_files_are_in_the_folder_alone(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with EmbeddingCache("../cache", max_size="1MB") as cache:
        cache.put_many(make_rows(range(50)))
        cache.file_digests([tmp_path / "cache" / FILE])
        cache.get_many(make_rows(range(60)))
        cache.prune("10KB")
        cache.info()
    assert os.listdir(tmp_path / "work") == []
    assert os.listdir(tmp_path / "cache") == [FILE]


# Objects: what they hold, and what copies share.


class Embedder(BaseEstimator):
    def __init__(self, cache=None):
        self.cache = cache


COPIES = {
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "clone": lambda cache: clone(Embedder(cache)).cache,
}
EVERY_COPY = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)


@EVERY_COPY
def test_copies(tmp_path, make):
    cache = EmbeddingCache(tmp_path, max_size="1MB")
    cache.put_many(make_rows(range(3)))
    copied = make(cache)
    assert copied is not cache
    assert (copied.folder, copied.max_size) == (tmp_path, "1MB")
    assert copied == cache
    assert hash(copied) == hash(cache)
    assert_rows_equal(copied.get_many(make_rows(range(3))), make_rows(range(3)))


@EVERY_COPY
def test_copies_in_a_process_count_together(tmp_path, make):
    cache = EmbeddingCache(tmp_path)
    cache.put_many(make_rows([1]))
    make(cache).get_many(make_rows([1, 2, 3]))
    info = cache.info()
    expected = (0, 0) if make is COPIES["pickle"] else (1, 2)
    assert (info.hits, info.misses) == expected


def test_pickles_hold_the_parameters_alone(tmp_path):
    cache = EmbeddingCache(str(tmp_path), max_size=10**6)
    fresh = pickle.dumps(cache)
    cache.put_many(make_rows(range(3)))
    cache.get_many(make_rows(range(3)))
    assert pickle.dumps(cache) == fresh


def test_equality():
    cache = EmbeddingCache("a")
    assert cache == EmbeddingCache(Path("a"))
    assert cache != EmbeddingCache("b")
    assert cache != EmbeddingCache("a", max_size=3)
    assert cache != "a"


def test_repr():
    assert repr(EmbeddingCache("a", max_size="2GB")) == (
        "EmbeddingCache('a', max_size='2GB')"
    )


def test_parameters_are_not_to_be_changed():
    cache = EmbeddingCache("a")
    for name in ("folder", "max_size"):
        with pytest.raises(AttributeError):
            setattr(cache, name, "b")


def test_info(tmp_path, settled):
    cache = EmbeddingCache(tmp_path / "cache", max_size="1MB")
    folder = str(tmp_path / "cache")
    assert cache.info() == (folder, 0, 0, 0, 10**6, 0, 0, 1)
    cache.put_many(make_rows(range(3), n_bytes=1000))
    cache.get_many([*make_rows(range(2)), b"a"])
    (tmp_path / "clip").write_bytes(b"sound")
    cache.file_digests([tmp_path / "clip"])
    info = cache.info()
    assert info._replace(file_size=0) == (
        folder,
        3,
        3 * 1000 + 32 + 4 * _cache_file._OVERHEAD,
        0,
        10**6,
        2,
        1,
        1,
    )
    assert info.file_size == sum(
        path.stat().st_size for path in (tmp_path / "cache").iterdir()
    )
    cache.clear()
    info = cache.info()
    assert (info.n_rows, info.n_bytes, info.hits) == (0, 0, 2)


def test_missing_files_are_not_made_to_be_asked(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache")
    cache.clear()
    assert cache.prune(0) == 0
    cache.close()
    assert not (tmp_path / "cache").exists()


# The limit.


@pytest.mark.parametrize(
    ("max_size", "n_bytes"),
    [
        (0, 0),
        (1234, 1234),
        (np.int64(5), 5),
        (2e9, 2 * 10**9),
        ("100", 100),
        ("12B", 12),
        ("2GB", 2 * 10**9),
        ("1.5 gb", 15 * 10**8),
        ("3M", 3 * 10**6),
        ("1KiB", 1024),
        (" 2 TiB ", 2**41),
        (None, None),
    ],
)
def test_sizes(tmp_path, max_size, n_bytes):
    assert EmbeddingCache(tmp_path, max_size=max_size).info().max_size == n_bytes


@pytest.mark.parametrize(
    "max_size",
    ["", "GB", "2XB", "-1GB", "2,5GB", -1, True, np.nan, np.inf, [3], b"2GB"],
)
def test_bad_sizes_are_named(tmp_path, max_size):
    cache = EmbeddingCache(tmp_path, max_size=max_size)
    calls = [cache.info, cache.prune, lambda: cache.put_many(make_rows([1]))]
    for call in [*calls, lambda: EmbeddingCache(tmp_path).prune(max_size)]:
        with pytest.raises(ValueError, match=r"max_size must be .* ' ?500MB'.* got "):
            call()


N_BYTES = 3840
ROW_SIZE = N_BYTES + _cache_file._OVERHEAD


def put_one(cache, number):
    cache.put_many(make_rows([number], N_BYTES))


def numbers_there(folder, numbers=range(100)):
    """Say which rows are there, with a cache that leaves no trace of it."""
    rows = make_rows(numbers, N_BYTES)
    found = EmbeddingCache(folder).get_many(rows)
    assert_rows_equal(found, {key: rows[key] for key in found})
    return [number for number, key in zip(numbers, rows, strict=True) if key in found]


def test_oldest_rows_go_first(tmp_path):
    cache = EmbeddingCache(tmp_path, max_size=3 * ROW_SIZE)
    for number in range(3):
        put_one(cache, number)
    assert numbers_there(tmp_path) == [0, 1, 2]
    cache.get_many(make_rows([0]))
    put_one(cache, 3)
    assert numbers_there(tmp_path) == [0, 2, 3]
    put_one(cache, 2)
    put_one(cache, 4)
    put_one(cache, 5)
    assert numbers_there(tmp_path) == [2, 4, 5]


def test_limit_holds(tmp_path):
    cache = EmbeddingCache(tmp_path, max_size="2MB")
    rng = np.random.default_rng(0)
    for start in range(0, 1200, 40):
        rows = {b"%d" % n: make_row(b"%d" % n) for n in range(start, start + 40)}
        cache.put_many(rows)
        if rng.random() < 0.5:
            assert_rows_equal(cache.get_many(rows), rows)
        info = cache.info()
        assert info.n_bytes <= 2_000_000
        assert info.file_size < 3_000_000
    assert info.n_bytes > 1_900_000
    assert execute(tmp_path, "SELECT sum(size) FROM entries") == [(info.n_bytes,)]


def test_file_is_hardly_larger_than_the_limit_says(tmp_path):
    # Widths of embeddings and scores of usual encoders.
    for width in (128, 384, 512, 521, 527, 768, 960, 1024, 1408, 2048):
        cache = EmbeddingCache(tmp_path / str(width))
        row = np.zeros(width, dtype=np.float32)
        cache.put_many({b"%d" % n: row for n in range(5_000_000 // row.nbytes)})
        info = cache.info()
        assert 0.7 < info.file_size / info.n_bytes < 1.4


def test_of_rows_that_do_not_fit_the_last_are_kept(tmp_path):
    cache = EmbeddingCache(tmp_path, max_size=3 * ROW_SIZE)
    put_one(cache, 9)
    cache.put_many(make_rows(range(5), N_BYTES))
    assert numbers_there(tmp_path) == [2, 3, 4]
    cache.put_many({b"large": np.zeros(3 * ROW_SIZE, dtype=np.uint8)})
    assert numbers_there(tmp_path) == [2, 3, 4]
    cache.put_many({b"a": np.zeros(2 * ROW_SIZE), **make_rows([5], N_BYTES)})
    assert numbers_there(tmp_path) == [3, 4, 5]


def test_rows_too_large_for_the_database_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache_file, "_LARGEST_ROW", 10_000)
    cache = EmbeddingCache(tmp_path)
    cache.put_many({b"large": np.zeros(20_000), b"small": np.zeros(3)})
    assert set(cache.get_many([b"large", b"small"])) == {b"small"}


def test_nothing_is_kept_without_room(tmp_path):
    cache = EmbeddingCache(tmp_path, max_size=0)
    put_one(cache, 1)
    assert cache.info().n_rows == 0


def test_prune(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put_many(make_rows(range(400), N_BYTES))
    cache.get_many(make_rows(range(5)))
    before = cache.info().file_size
    assert cache.prune() == 0
    assert cache.prune(10 * ROW_SIZE) == 390
    assert numbers_there(tmp_path, range(400)) == [*range(5), *range(395, 400)]
    assert cache.info().file_size < before / 3
    assert EmbeddingCache(tmp_path, max_size=2 * ROW_SIZE).prune() == 8
    cache.clear()
    assert numbers_there(tmp_path) == []
    assert cache.info().file_size < before / 3


def test_looking_rows_up_writes_nothing(tmp_path):
    EmbeddingCache(tmp_path).put_many(make_rows(range(10)))
    before = (tmp_path / FILE).read_bytes()
    for _ in range(3):
        cache = EmbeddingCache(tmp_path)
        cache.get_many(make_rows(range(20)))
        cache.info()
    assert (tmp_path / FILE).read_bytes() == before


def test_uses_are_written_down_when_closing(tmp_path):
    for number in range(3):
        put_one(EmbeddingCache(tmp_path), number)
    with EmbeddingCache(tmp_path) as cache:
        cache.get_many(make_rows([0]))
    put_one(EmbeddingCache(tmp_path, max_size=3 * ROW_SIZE), 3)
    assert numbers_there(tmp_path) == [0, 2, 3]


@pytest.mark.parametrize(("hours", "expected"), [(0.9, [1, 2, 3]), (1.1, [0, 2, 3])])
def test_uses_are_written_down_once_an_hour(tmp_path, monkeypatch, hours, expected):
    for number in range(3):
        put_one(EmbeddingCache(tmp_path), number)
    later = time.time_ns() + int(hours * HOUR * 10**9)
    monkeypatch.setattr(_cache.time, "time_ns", lambda: later)
    EmbeddingCache(tmp_path).get_many(make_rows([0]))
    put_one(EmbeddingCache(tmp_path, max_size=3 * ROW_SIZE), 3)
    assert numbers_there(tmp_path) == expected


def test_uses_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "_MOST_USES", 2)
    for number in range(4):
        put_one(EmbeddingCache(tmp_path), number)
    EmbeddingCache(tmp_path).get_many(make_rows(range(3)))
    put_one(EmbeddingCache(tmp_path, max_size=4 * ROW_SIZE), 4)
    assert numbers_there(tmp_path) == [0, 1, 2, 4]


# Threads, processes, forks and sudden ends.


def test_threads(tmp_path):
    cache = EmbeddingCache(tmp_path, max_size="1GB")
    failures = []

    def work(thread):
        try:
            for start in range(0, 60, 5):
                rows = make_rows(range(100 * thread + start, 100 * thread + start + 5))
                cache.put_many(rows)
                assert_rows_equal(cache.get_many(rows), rows)
                others = make_rows(range(0, 800, 7))
                found = cache.get_many(others)
                assert_rows_equal(found, {key: others[key] for key in found})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    info = cache.info()
    assert info.n_rows == 8 * 60
    assert info.hits + info.misses == 8 * 12 * (5 + 115)


@POSIX
def test_processes(tmp_path):
    code = """
def work(number):
    cache = EmbeddingCache(folder)
    for start in range(0, 45, 3):
        keys = [b"%d-%d" % (number, start + i) for i in range(3)]
        cache.put_many({key: make_row(key) for key in keys})
        others = [b"%d-%d" % (n, i) for n in range(5) for i in range(0, 45, 9)]
        check(cache.get_many(others))
        assert check(cache.get_many(keys)) == 3
run_in_processes(work, 5)
keys = [b"%d-%d" % (number, i) for number in range(5) for i in range(45)]
print(check(EmbeddingCache(folder).get_many(keys)))
"""
    assert run_script(code, tmp_path) == ["225"]
    assert os.listdir(tmp_path) == [FILE]


@POSIX
def test_processes_that_make_the_file_at_the_same_time(tmp_path):
    code = """
begin = time.time() + 0.2
def work(number):
    key = b"%d" % number
    for attempt in range(40):
        time.sleep(max(0, begin + 0.03 * attempt - time.time()))
        cache = EmbeddingCache(os.path.join(folder, str(attempt)))
        if number % 2:
            check(cache.get_many([key]))
        cache.put_many({key: make_row(key)})
        assert check(cache.get_many([key])) == 1
run_in_processes(work, 6)
caches = [EmbeddingCache(os.path.join(folder, str(attempt))) for attempt in range(40)]
print(*{cache.info().n_rows for cache in caches})
"""
    assert run_script(code, tmp_path) == ["6"]
    for folder in tmp_path.iterdir():
        assert execute(folder, "PRAGMA journal_mode") == [("wal",)]
        assert execute(folder, "PRAGMA page_size") == [(_cache_file._PAGE_SIZE,)]
        assert execute(folder, "PRAGMA auto_vacuum") == [(1,)]


@POSIX
def test_a_cache_may_be_used_after_a_fork(tmp_path):
    code = """
cache = EmbeddingCache(folder)
cache.put_many({b"parent": make_row(b"parent")})
check(cache.get_many([b"parent", b"nothing"]))
cache._state.lock.acquire()  # by a thread that isn't there in the child
child = os.fork()
if child == 0:
    assert check(cache.get_many([b"parent"])) == 1
    cache.put_many({b"child": make_row(b"child")})
    info = cache.info()
    os._exit(0 if (info.hits, info.misses) == (1, 0) else 1)
cache._state.lock.release()
assert os.waitpid(child, 0)[1] == 0
assert check(cache.get_many([b"parent", b"child"])) == 2
cache.put_many({b"after": make_row(b"after")})
print(cache.info().n_rows, cache.info().hits)
"""
    assert run_script(code, tmp_path) == ["3", "3"]


@POSIX
def test_killed_at_any_moment(tmp_path):
    code = """
import random, signal, sqlite3
rng = random.Random(0)
keys = [b"%d" % number for number in range(300)]
limits = [None, "400KB"]
n_found = n_unfinished = 0

def write_for_ever(seed, limit):
    rng = random.Random(seed)
    cache = EmbeddingCache(folder, max_size=limit)
    while True:
        some = rng.sample(keys, rng.randint(1, 40))
        cache.put_many({key: make_row(key) for key in some})
        check(cache.get_many(rng.sample(keys, 5)))
        if rng.random() < 0.1:
            cache.prune("200KB")

for attempt in range(50):
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                write_for_ever(4 * attempt + number, limits[number % 2])
            finally:
                os._exit(1)
        children.append(child)
    for child in children:
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL  # it had not failed before
    n_unfinished += os.path.exists(os.path.join(folder, "embeddings.sqlite-wal"))
    cache = EmbeddingCache(folder)
    n_found += check(cache.get_many(keys))
    cache.put_many({b"last": make_row(b"last")})
    assert check(cache.get_many([b"last"])) == 1
    with sqlite3.connect(os.path.join(folder, "embeddings.sqlite")) as connection:
        if attempt % 10 == 0:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        total, size, n_entries, n_content = connection.execute(
            "SELECT (SELECT size FROM total), (SELECT sum(size) FROM entries),"
            " (SELECT count(*) FROM entries), (SELECT count(*) FROM content)"
        ).fetchone()
        assert (total, n_entries) == (size, n_content)
    connection.close()
print(n_found, n_unfinished)
"""
    n_found, n_unfinished = map(int, run_script(code, tmp_path))
    assert n_found > 1000
    assert n_unfinished > 10  # the last kill often came in the midst of a call


# Damage, and other things that make a cache useless.


def damage(folder, number):
    """Change one bit of a row's content, behind the back of the database."""
    (row,) = make_rows([number]).values()
    content = bytearray(Path(folder, FILE).read_bytes())
    assert content.count(row[20:60].tobytes()) == 1
    content[content.find(row[20:60].tobytes())] ^= 1
    Path(folder, FILE).write_bytes(content)


def test_damaged_row_is_missing_and_may_be_stored_anew(tmp_path):
    numbers = [0, 3, 5, 6]
    rows = make_rows(numbers)
    bad, *_ = rows
    EmbeddingCache(tmp_path).put_many(rows)
    damage(tmp_path, 0)
    cache = EmbeddingCache(tmp_path)
    good = make_rows(numbers[1:])
    assert_rows_equal(cache.get_many(rows), good)
    assert execute(tmp_path, "SELECT count(*) FROM content") == [(3,)]
    assert cache.info().n_rows == 3
    cache.put_many({bad: rows[bad]})
    assert_rows_equal(cache.get_many(rows), rows)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET id = (SELECT max(id) + min(id) FROM entries) - id",
        "UPDATE entries SET layout = CAST('(''|i1'', (' || size || ',))' AS BLOB)",
        "UPDATE entries SET layout = 3",
        "UPDATE entries SET id = 'a'",
        "UPDATE entries SET used = 'a'",
        "UPDATE entries SET checksum = 'a'",
        "UPDATE content SET data = 'a'",
        "DELETE FROM content",
    ],
)
def test_nothing_wrong_is_given_out(tmp_path, statement):
    rows = make_rows([1, 2])
    cache = EmbeddingCache(tmp_path)
    cache.put_many(rows)
    execute(tmp_path, statement)
    assert cache.get_many(rows) == {}
    cache.put_many(rows)
    assert_rows_equal(cache.get_many(rows), rows)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM total", "UPDATE total SET size = 'a'"]
)
def test_a_lost_count_does_no_harm(tmp_path, statement):
    cache = EmbeddingCache(tmp_path, max_size="1MB")
    cache.put_many(make_rows([1]))
    execute(tmp_path, statement)
    cache.put_many(make_rows([2]))
    assert_rows_equal(cache.get_many(make_rows([1, 2])), make_rows([1, 2]))
    cache.prune()
    assert cache.info().n_rows == 2


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in caught]


def test_any_damage_costs_at_most_a_warning(tmp_path):
    rows = make_rows(range(60))
    EmbeddingCache(tmp_path).put_many(rows)
    whole = np.frombuffer((tmp_path / FILE).read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(0)
    n_found, n_warnings = [], 0
    for _ in range(100):
        content = whole.copy()
        kind = rng.integers(3)
        if kind == 0:  # a handful of bytes anywhere
            places = rng.integers(0, len(content), rng.integers(1, 60))
        elif kind == 1:  # more, where the tables begin
            places = rng.integers(0, 9 * _cache_file._PAGE_SIZE, 500)
        else:  # a block, as of a disk
            places = 4096 * rng.integers(len(content) // 4096) + np.arange(4096)
        content[places] = rng.integers(0, 256, len(places))
        if rng.random() < 0.2:
            content = content[: rng.integers(len(content))]
        (tmp_path / FILE).write_bytes(content.tobytes())

        cache = EmbeddingCache(tmp_path, max_size="1MB")
        found, first = warned(lambda cache=cache: cache.get_many(rows))
        assert_rows_equal(found, {key: rows[key] for key in found})
        _, second = warned(lambda cache=cache: cache.put_many(rows))
        again, third = warned(lambda cache=cache: cache.get_many(rows))
        assert_rows_equal(again, {key: rows[key] for key in again})
        assert len(first + second + third) <= 1
        n_found.append(len(found))
        n_warnings += len(first + second + third)
        for path in tmp_path.iterdir():
            path.unlink()
    assert 10 < n_warnings < 90
    assert sum(0 < n < len(rows) for n in n_found) > 10


def make_cache(folder):
    EmbeddingCache(folder).put_many(make_rows([1]))


def make_file(folder):
    folder.write_text("no folder")


def make_file_above(folder):
    folder.parent.rmdir()
    folder.parent.write_text("no folder")


def make_text(folder):
    folder.mkdir()
    (folder / FILE).write_text("no database, " * 100)


def make_truncated(folder):
    make_cache(folder)
    os.truncate(folder / FILE, 3 * _cache_file._PAGE_SIZE)


def make_folder_for_file(folder):
    (folder / FILE).mkdir(parents=True)


def make_other_version(folder):
    make_cache(folder)
    execute(folder, "PRAGMA user_version = 2")


def make_other_program(folder):
    folder.mkdir()
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("CREATE TABLE things (thing)")


def make_without_tables(folder):
    make_cache(folder)
    execute(folder, "DROP TABLE entries")


FAULTS = {
    make_file: "this is a file, or below a file",
    make_file_above: "this is a file, or below a file",
    make_text: "database is damaged .*not a database",
    make_truncated: "database is damaged .*malformed",
    make_folder_for_file: "unable to open database file",
    make_other_version: r"another version of sklabelaudio \(in layout 2, .* is 1\)",
    make_other_program: "another program's",
    make_without_tables: "damaged .*no such table: entries",
}


@pytest.mark.parametrize(
    ("make", "cause"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_a_useless_cache_costs_one_warning(tmp_path, make, cause):
    folder = tmp_path / "above" / "cache"
    folder.parent.mkdir()
    make(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "clip").write_bytes(b"sound")
    cache = EmbeddingCache(folder)

    def work():
        for _ in range(2):
            assert cache.get_many(make_rows([1])) == {}
            cache.put_many(make_rows([1]))
            digests = copy.deepcopy(cache).file_digests([tmp_path / "clip"])
            assert digests == [hashlib.sha256(b"sound").digest()]

    _, messages = warned(work)
    (message,) = messages
    assert message.startswith(f"the embedding cache in {str(folder)!r} can't be used")
    assert "the work goes on without it" in message
    assert "folder" in message.rpartition(": ")[2]  # the mend
    assert re.search(cause, message)
    after = {path: path.read_bytes() for path in before}
    assert after == before


@pytest.mark.parametrize("make", [make_text, make_other_version, make_other_program])
def test_upkeep_of_a_useless_cache_fails(tmp_path, make):
    make(tmp_path / "cache")
    cache = EmbeddingCache(tmp_path / "cache")
    for call in (cache.info, cache.clear, cache.prune):
        with pytest.raises(
            OSError, match=r"cache' can't be used: (its database|it was)"
        ):
            call()


def test_warning_points_at_the_caller(tmp_path):
    make_text(tmp_path / "cache")
    with pytest.warns(UserWarning, match="can't be used") as caught:
        EmbeddingCache(tmp_path / "cache").get_many([b"a"])
    assert caught[0].filename == __file__


def test_a_mended_cache_is_used_again(tmp_path):
    make_text(tmp_path / "cache")
    cache = EmbeddingCache(tmp_path / "cache")
    with pytest.warns(UserWarning, match="Delete the folder"):
        cache.get_many([b"a"])
    shutil.rmtree(tmp_path / "cache")
    cache.put_many(make_rows([1]))
    assert not (tmp_path / "cache").exists()
    cache.close()
    cache.put_many(make_rows([1]))
    assert_rows_equal(cache.get_many(make_rows([1])), make_rows([1]))


def test_a_deleted_folder_is_made_again(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache")
    cache.put_many(make_rows([1]))
    shutil.rmtree(tmp_path / "cache")
    assert cache.get_many(make_rows([1])) == {}
    cache.put_many(make_rows([2]))
    assert_rows_equal(cache.get_many(make_rows([1, 2])), make_rows([2]))


def test_locked_for_too_long(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path)
    cache.put_many(make_rows([1]))
    monkeypatch.setattr(_cache_file, "PATIENCE", 0.2)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        # Who writes doesn't hinder those who read.
        assert_rows_equal(cache.get_many(make_rows([1])), make_rows([1]))
        start = time.monotonic()
        with pytest.warns(UserWarning, match=r"kept it locked for 0\.2 s\. End them"):
            cache.put_many(make_rows([2]))
        for _ in range(20):
            cache.put_many(make_rows([2]))
        assert time.monotonic() - start < 2
        assert_rows_equal(cache.get_many(make_rows([1])), make_rows([1]))


def test_locked_for_a_while(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put_many(make_rows([1]))
    locked = sqlite3.connect(tmp_path / FILE, check_same_thread=False)
    locked.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, locked.close)
    timer.start()
    cache.put_many(make_rows([2]))
    timer.join()
    assert_rows_equal(cache.get_many(make_rows([1, 2])), make_rows([1, 2]))


def test_full_database(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path)
    cache.put_many(make_rows(range(5)))
    connect = sqlite3.connect

    def connect_with_limit(*args, **options):
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_with_limit)
    with pytest.warns(UserWarning, match=r"disk is full\. Free .* max_size"):
        cache.put_many({b"large": np.zeros(10**6)})
    cache.put_many({b"large": np.zeros(10**6)})
    assert_rows_equal(cache.get_many(make_rows(range(9))), make_rows(range(5)))


@POSIX
def test_files_that_may_not_grow(tmp_path):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
cache = EmbeddingCache(folder)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for start in range(0, 900, 20):
        keys = [b"%d" % number for number in range(start, start + 20)]
        cache.put_many({key: make_row(key) for key in keys})
        assert check(cache.get_many([b"0"])) == 1
(warning,) = caught
assert "can't be used" in str(warning.message), str(warning.message)
print(check(cache.get_many([b"%d" % number for number in range(900)])))
"""
    (n_rows,) = map(int, run_script(code, tmp_path))
    assert 100 < n_rows < 900


@pytest.fixture
def open_folder():
    """A folder that other users of the machine may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


AS_NOBODY = """
try:
    if os.getuid() == 0:  # whom permissions don't bind
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
except OSError:
    print("skip")
    sys.exit()
keys = [b"%d" % number for number in range(20)]
def put(cache):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for key in keys:
            cache.put_many({key: make_row(key)})
    (warning,) = caught
    return str(warning.message)
"""


def run_as_nobody(code, *arguments):
    printed = run_script(AS_NOBODY + code, *arguments)
    if printed == ["skip"]:
        pytest.skip("can't become a user whom permissions bind")
    return printed


def protect(folder):
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


NUMBERS = {b"%d" % number: make_row(b"%d" % number) for number in range(10)}


@POSIX
def test_rows_of_a_read_only_folder(open_folder, settled):
    folder, clips = open_folder / "cache", [open_folder / "clip", open_folder / "new"]
    for clip in clips:
        clip.write_bytes(b"sound")
    cache = EmbeddingCache(folder)
    cache.put_many(NUMBERS)
    cache.file_digests(clips[:1])
    protect(folder)
    code = """
cache = EmbeddingCache(folder)
print(check(cache.get_many(keys)), cache.info().n_rows)
time.time_ns = lambda now=time.time_ns(): now + 2 * 3600 * 10**9
assert check(cache.get_many(keys)) == 10
assert cache.file_digests(sys.argv[2:]) == [hashlib.sha256(b"sound").digest()] * 2
cache.close()
message = put(cache)
assert "it is read-only. Use a folder" in message, message
assert check(cache.get_many(keys)) == 10
for call in (cache.clear, cache.prune):
    try:
        call()
    except OSError as error:
        assert "it is read-only" in str(error)
    else:
        raise AssertionError
"""
    assert run_as_nobody(code, folder, *clips) == ["10", "10"]
    assert os.listdir(folder) == [FILE]


@POSIX
def test_folder_that_may_not_be_made(open_folder):
    open_folder.chmod(0o555)
    code = """
cache = EmbeddingCache(os.path.join(folder, "cache"))
assert cache.get_many(keys) == {}
message = put(cache)
assert "Permission denied. Use a folder" in message, message
"""
    run_as_nobody(code, open_folder)


@POSIX
@pytest.mark.parametrize("with_index", [True, False])
def test_read_only_folder_left_behind_by_a_killed_process(open_folder, with_index):
    live, folder = open_folder / "live", open_folder / "cache"
    folder.mkdir()
    cache = EmbeddingCache(live)
    cache.put_many({b"0": NUMBERS[b"0"]})
    with closing(sqlite3.connect(live / FILE)) as other:  # keeps the log
        other.execute("SELECT * FROM total").fetchall()
        cache.put_many(NUMBERS)
        for end in ["", "-wal", *(["-shm"] if with_index else [])]:
            shutil.copy(live / (FILE + end), folder)
    protect(folder)
    code = """
cache = EmbeddingCache(folder)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(check(cache.get_many(keys)), len(caught))
"""
    expected = ["10", "0"] if with_index else ["0", "1"]
    assert run_as_nobody(code, folder) == expected


def test_a_reader_of_a_read_only_folder_is_not_misled(tmp_path, monkeypatch):
    # As if the folder were another user's, who does write to it.
    rows = make_rows(range(300))
    EmbeddingCache(tmp_path).put_many(make_rows(range(100)))
    read = _cache_file.read

    def read_while_others_write(connection, keys):
        monkeypatch.setattr(_cache_file, "is_read_only", lambda path: False)
        other = EmbeddingCache(tmp_path)
        other.prune("100KB")
        other.put_many(make_rows(range(100, 300)))
        monkeypatch.setattr(_cache_file, "is_read_only", lambda path: True)
        return read(connection, keys)

    cache = EmbeddingCache(tmp_path)
    monkeypatch.setattr(_cache_file, "is_read_only", lambda path: True)
    monkeypatch.setattr(_cache_file, "read", read_while_others_write)
    found, messages = warned(lambda: cache.get_many(rows))
    assert_rows_equal(found, {key: rows[key] for key in found})
    assert len(messages) <= 1


# Digests of files.


def sha256(content):
    return hashlib.sha256(content).digest()


@pytest.fixture
def no_hashing(monkeypatch):
    """A switch: from its call on, no file may be read."""

    def forbid(*args):
        raise AssertionError("a file was read")

    return lambda: monkeypatch.setattr(_file_digests.hashlib, "file_digest", forbid)


@pytest.mark.parametrize("n_jobs", [None, 1, 3, -1])
def test_digests(tmp_path, n_jobs):
    paths = [tmp_path / f"{number}.wav" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode() * 100_000)
    cache = EmbeddingCache(tmp_path / "cache")
    digests = cache.file_digests([*paths, str(paths[3])], n_jobs=n_jobs)
    assert digests == [sha256(path.read_bytes()) for path in [*paths, paths[3]]]
    assert cache.file_digests([]) == []


def test_no_jobs(tmp_path):
    with pytest.raises(ValueError, match="n_jobs == 0"):
        EmbeddingCache(tmp_path).file_digests([__file__], n_jobs=0)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "clip").write_bytes(b"sound")
    paths = [tmp_path / "none", tmp_path, "a\0b", tmp_path / "clip"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        paths.insert(0, tmp_path / "pipe")
    digests = EmbeddingCache(tmp_path / "cache").file_digests(paths)
    assert digests == [None] * (len(paths) - 1) + [sha256(b"sound")]


def test_a_file_that_goes_away(tmp_path, monkeypatch):
    (tmp_path / "clip").write_bytes(b"sound")
    hash_file = _cache.hash_file

    def hash_late(path):
        os.remove(path)
        return hash_file(path)

    monkeypatch.setattr(_cache, "hash_file", hash_late)
    assert EmbeddingCache(tmp_path / "cache").file_digests([tmp_path / "clip"]) == [
        None
    ]


def test_unchanged_files_are_not_read_again(tmp_path, settled, no_hashing, monkeypatch):
    paths = [tmp_path / f"{number}.wav" for number in range(1200)]
    for path in paths:
        path.write_bytes(path.name.encode())
    first = EmbeddingCache(tmp_path / "cache").file_digests(paths)
    no_hashing()
    assert EmbeddingCache(tmp_path / "cache").file_digests(paths) == first
    monkeypatch.chdir(tmp_path)
    assert EmbeddingCache("cache").file_digests(["5.wav"]) == first[5:6]


def test_digests_are_no_rows(tmp_path, settled):
    (tmp_path / "clip").write_bytes(b"sound")
    cache = EmbeddingCache(tmp_path / "cache")
    cache.file_digests([tmp_path / "clip"])
    key = _file_digests.identify_file(str(tmp_path / "clip"))
    assert cache.get_many([key]) == {}
    assert (cache.info().n_rows, cache.info().hits) == (0, 0)


def rewrite(path):
    path.write_bytes(b"SOUND")


def rewrite_in_the_past(path):
    status = path.stat()
    path.write_bytes(b"SOUND")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_in_the_past(path):
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"SOUND")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)


CHANGES = [rewrite, rewrite_in_the_past, replace_in_the_past]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_read_again(tmp_path, settled, change):
    path = tmp_path / "clip"
    path.write_bytes(b"sound")
    cache = EmbeddingCache(tmp_path / "cache")
    assert cache.file_digests([path]) == [sha256(b"sound")]
    time.sleep(0.05)  # more than a tick of the file system's clock
    change(path)
    assert cache.file_digests([path]) == [sha256(b"SOUND")]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_just_changed_is_not_remembered(tmp_path, change):
    path = tmp_path / "clip"
    cache = EmbeddingCache(tmp_path / "cache")
    for _ in range(20):
        path.write_bytes(b"sound")
        assert cache.file_digests([path]) == [sha256(b"sound")]
        change(path)
        assert cache.file_digests([path]) == [sha256(b"SOUND")]
    assert not (tmp_path / "cache").exists()


def test_what_settled_is_remembered(tmp_path, monkeypatch, no_hashing):
    path = tmp_path / "clip"
    path.write_bytes(b"sound")
    cache = EmbeddingCache(tmp_path / "cache")
    later = time.time_ns() + 3 * 10**9
    monkeypatch.setattr(_file_digests.time, "time_ns", lambda: later)
    cache.file_digests([path])
    no_hashing()
    assert cache.file_digests([path]) == [sha256(b"sound")]


def test_a_file_changed_while_it_is_hashed_is_not_remembered(
    tmp_path, settled, monkeypatch
):
    path = tmp_path / "clip"
    path.write_bytes(b"sound")
    file_digest = hashlib.file_digest

    def change_after(file, name):
        digest = file_digest(file, name)
        path.write_bytes(b"another sound")
        return digest

    cache = EmbeddingCache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(_file_digests.hashlib, "file_digest", change_after)
        cache.file_digests([path])
    assert cache.file_digests([path]) == [sha256(b"another sound")]
