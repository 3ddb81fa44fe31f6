"""What the benchmark scripts share: fair timing, and tables."""

import os
import platform
import statistics
import subprocess
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


def compare_with_bare(title, name, cases, *, train, train_bare, more=()):
    """Print how much longer an estimator trains than a bare loop that does the same.

    Parameters
    ----------
    title, name : str
        What is trained, and by what.
    cases : dict of str to dict
        Of each case ``rounds``, and what the functions need.
    train, train_bare : callable
        Train a case by the estimator, and by the loop.
    more : sequence of (str, callable)
        Further columns: header, and what gives the cell by the name of a case.
    """
    rows = []
    for which, case in cases.items():
        seconds = time_in_turn(
            {
                "ours": lambda case=case: train(case),
                "bare": lambda case=case: train_bare(case),
            },
            rounds=case["rounds"],
        )
        ours, bare = seconds["ours"], seconds["bare"]
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        first, middle, third = statistics.quantiles(ratios, n=4)
        rows.append(
            [
                which,
                f"{statistics.median(bare):.2f}",
                f"{statistics.median(ours):.2f}",
                f"{middle:.2f} ({first:.2f} to {third:.2f})",
                *(cell(which) for _, cell in more),
            ]
        )
        print(*rows[-1], file=sys.stderr, flush=True)
    header = ["bare loop, s", f"{name}, s", "ratio (quartiles), at most 1.10"]
    print_table([title, *header, *(header for header, _ in more)], rows)


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


def run_alone(*arguments):
    """Return what this script prints with other arguments, in a process of its own."""
    command = [sys.executable, sys.argv[0], *map(str, arguments)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout
