"""What the benchmark scripts share: fair timing, and tables."""

import os
import platform
import statistics
import sys
import time


def one_thread_each():
    """Keep numerical libraries to one thread; call before they are imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def time_in_turn(contenders, rounds=7):
    """Time functions in turn, so that a drift of the machine's speed hits them all.

    Parameters
    ----------
    contenders : dict of str to callable
        What to time.
    rounds : int
        Counted rounds, after one that is not counted.

    Returns
    -------
    dict of str to list of float
        Seconds of each round.
    """
    seconds = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            elapsed = time.perf_counter() - start
            if turn:
                seconds[name].append(elapsed)
    return seconds


def median_ratio(slow, fast):
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine():
    """Describe the machine and the versions in a line."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(
                line.split(":")[1].strip() for line in file if "model name" in line
            )
    except (OSError, StopIteration):
        pass
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "torch")
    )
    return (
        f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {packages}\n"
        f"$ python {' '.join(sys.argv)}"
    )


def print_table(header, rows):
    """Print rows of text as a Markdown table."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def peak_memory():
    """Return the most memory that this process has had, in bytes."""
    # Linux's ru_maxrss begins with what the parent had when it started this process.
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
