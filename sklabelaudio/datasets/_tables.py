"""Folders that hold sound files and a table of them, read and checked."""

import csv
import math
import os


def find_folder(data_dir, holds):
    """Return the absolute path of a folder that is there.

    Parameters
    ----------
    data_dir : str or path-like
        What the user gave.
    holds : str
        What the folder should hold, for the error.
    """
    folder = os.path.abspath(os.path.expanduser(data_dir))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"data_dir={folder!r} is not a folder; pass the one that holds {holds}"
        )
    return folder


def read_table(path, columns, parse_row, *, holds, delimiter=","):
    """Read a table whose first column of `columns` names each row once.

    Parameters
    ----------
    path : str
        The file.
    columns : list of str
        The columns it must have, in any order and among others.
    parse_row : callable
        Makes of a dict of str what is kept; raises ValueError on a bad value.
    holds : str
        What `data_dir` should hold, for the error.
    delimiter : str, default=","
        Between two cells.

    Returns
    -------
    rows : list
        What `parse_row` returned.
    lines : dict
        The number of the line that holds each name.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing; data_dir must hold {holds}")
    rows, lines = [], {}
    # Spreadsheet programs save CSV with a byte order mark.
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            _check_columns(path, reader.fieldnames or [], columns, delimiter)
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                try:
                    _check_cells(row, columns)
                    rows.append(parse_row(row))
                except ValueError as error:
                    raise ValueError(f"{place}: {error}") from error
                name = row[columns[0]]
                if name in lines:
                    raise ValueError(
                        f"{place}: {columns[0]}={name!r} stands in line {lines[name]} "
                        "already; keep one of the two lines"
                    )
                lines[name] = reader.line_num
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{path} is no table in UTF-8 ({error}); save it as such"
            ) from error
    return rows, lines


def _check_columns(path, found, columns, delimiter):
    missing = [name for name in columns if name not in found]
    if missing:
        kind = "separated by tabs" if delimiter == "\t" else "separated by commas"
        raise ValueError(
            f"{path} lacks the column {', '.join(missing)}; its first line must be "
            f"{','.join(columns)}, {kind}, and is {found}"
        )


def _check_cells(row, columns):
    if None in row:
        raise ValueError(f"more cells than the first line has: {row[None]}")
    for name in columns:
        if not row[name]:
            raise ValueError(f"{name} is empty")


def parse_integer(row, name, low, high):
    """Return a cell as an integer from `low` to `high`."""
    text = row[name]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(
            f"{name} must be an integer from {low} to {high}, got {text!r}"
        )
    return int(text)


def parse_seconds(row, name):
    """Return a cell as a time in seconds, 0 or more."""
    try:
        seconds = float(row[name])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be a time in seconds, got {row[name]!r}")
    return seconds


def parse_choice(row, name, choices):
    """Return a cell that is one of some words."""
    if row[name] not in choices:
        words = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ValueError(f"{name} must be {words}, got {row[name]!r}")
    return row[name]


def check_present(folder, names, table):
    """Raise FileNotFoundError unless all files of a table are there.

    Parameters
    ----------
    folder : str
        Where the files are.
    names : list of str
        Paths of the files inside it, with ``"/"`` whatever the system.
    table : str
        The file that lists them.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"the folder {folder} is missing; it must hold the clips listed in {table}"
        )
    # One listing of a folder is far quicker than a question for each of its files.
    present, absent = {}, []
    for name in names:
        inner, _, base = name.rpartition("/")
        if inner not in present:
            path = os.path.join(folder, inner)
            present[inner] = set(os.listdir(path)) if os.path.isdir(path) else set()
        if base not in present[inner]:
            absent.append(name)
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of the {len(names)} clips listed are not in {folder}: "
            + ", ".join(absent[:3])
            + (", ..." if len(absent) > 3 else "")
            + f"; put them there, or take their lines out of {table}"
        )
