"""EmbeddingCache: seconds for 10,000 rows, and a second run of an embedder.

Rows are of 1,024 float32, as YAMNet's. Reading is timed in a new process, shuffled,
from the keys alone; then an embedder's `transform` over as many short files that it has
seen, which also looks up whether each file is still the same, beside a loop that loads
a ``.npy`` a clip, by the file's name.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import machine, print_table

READ = """
import sys, time, numpy as np
from sklabelaudio.embedding import EmbeddingCache
keys = np.load(sys.argv[2])
keys = [key.tobytes() for key in keys[np.random.default_rng(0).permutation(len(keys))]]
cache = EmbeddingCache(sys.argv[1])
start = time.perf_counter()
rows = cache.get_many(keys)
print(time.perf_counter() - start)
assert len(rows) == len(keys)
"""
TRANSFORM = """
import sys, time
from pathlib import Path
from sklabelaudio import YAMNetEmbedder
from sklabelaudio.embedding._engine import Engine
files = sorted(map(str, Path(sys.argv[1]).glob("*.wav")))
embedder = YAMNetEmbedder(None, cache=sys.argv[2]).fit(files)
runs, run = [], Engine.run
Engine.run = lambda *args: runs.append(1) or run(*args)
start = time.perf_counter()
embedder.transform(files)
print(time.perf_counter() - start, len(runs))
"""


def run_python(code, *arguments):
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return list(map(float, run.stdout.split()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    n_rows = parser.parse_args().rows
    print(machine() + "\n")
    import soundfile

    from sklabelaudio.embedding import EmbeddingCache

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 1024)).astype(np.float32)
    digests = [hashlib.sha256(row).digest() for row in X]
    table = []
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys.npy")
        np.save(keys, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))
        cache = EmbeddingCache(os.path.join(folder, "cache"))
        start = time.perf_counter()
        cache.put_many(dict(zip(digests, X, strict=True)))
        table.append(("write, one call", time.perf_counter() - start))
        for turn in range(3):
            (seconds,) = run_python(READ, cache.folder, keys)
            table.append((f"read, new process, shuffled, {turn + 1}", seconds))
        info = cache.info()
        size = f"{info.file_size / 1e6:.1f} MB on disk for {X.nbytes / 1e6:.1f} MB"

        sounds = os.path.join(folder, "sounds")
        os.mkdir(sounds)
        for i in range(n_rows):
            wave = 0.1 * rng.standard_normal(800)
            soundfile.write(os.path.join(sounds, f"{i}.wav"), wave, 16000)
        for name in ("first", "second", "third"):
            seconds, n_runs = run_python(TRANSFORM, sounds, cache.folder)
            table.append((f"transform, {name} run, encoder ran {n_runs:.0f}", seconds))
        for i, row in enumerate(X):
            np.save(os.path.join(sounds, f"{i}.npy"), row)
        start = time.perf_counter()
        for i in range(n_rows):
            np.load(os.path.join(sounds, f"{i}.npy"))
        table.append(("np.load, a file a row", time.perf_counter() - start))
    print_table(
        [f"{n_rows} rows", "seconds"],
        [(name, f"{seconds:.3f}") for name, seconds in table],
    )
    print(size)


if __name__ == "__main__":
    main()
