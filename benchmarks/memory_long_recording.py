"""Peak memory of embedding one long recording, each encoder in a process of its own.

A stereo WAV file of 44.1 kHz is written to a temporary folder, of one minute and of
``--minutes``; the difference is what the length costs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_embedding import ENCODERS, SHARED, make_embedder
from common import machine, peak_memory, print_table

RATE = 44100


def write_noise(path, minutes):
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    second = (0.1 * rng.standard_normal((RATE, 2))).astype(np.float32)
    with soundfile.SoundFile(path, "w", samplerate=RATE, channels=2) as file:
        for _ in range(60 * minutes):
            file.write(second)


def embed(name, checkpoints, path):
    """Embed a file, and print seconds and the peak of memory in bytes."""
    embedder = make_embedder(name, checkpoints).fit([path])
    start = time.perf_counter()
    embedder.transform([path])
    seconds = time.perf_counter() - start
    print(seconds, peak_memory())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument(
        "--checkpoints", type=Path, default=SHARED / "reference" / "checkpoints"
    )
    parser.add_argument(
        "--encoders", nargs="*", choices=list(ENCODERS), default=list(ENCODERS)
    )
    parser.add_argument("--embed", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.embed:
        name, path = arguments.embed
        embed(name, arguments.checkpoints, path)
        return
    print(machine() + "\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {n: os.path.join(folder, f"{n}.wav") for n in (1, arguments.minutes)}
        for minutes, path in files.items():
            write_noise(path, minutes)
        for name in arguments.encoders:
            row = [name]
            for path in files.values():
                command = [sys.executable, __file__, "--embed", name, path]
                command += ["--checkpoints", str(arguments.checkpoints)]
                run = subprocess.run(
                    command, check=True, capture_output=True, text=True
                )
                seconds, peak = map(float, run.stdout.split())
                row += [f"{peak / 1e9:.2f} GB", f"{seconds:.0f} s"]
            rows.append(row)
    header = ["encoder"]
    for minutes in files:
        header += [f"peak, {minutes} min", "time"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
