"""Lists of classes, as they come with checkpoints."""

import csv
import io
import os


def read_label_list(path):
    """Read the names of a checkpoint's classes, in the order of its scores.

    Parameters
    ----------
    path : str or path-like
        A table with the columns ``index`` and ``display_name``, as AudioSet's
        ``class_labels_indices.csv`` and ``yamnet_class_map.csv`` have them, or a text
        file with one label a line. Both in UTF-8.

    Returns
    -------
    labels : list of str
        One label for each class, as the file spells it.

    Raises
    ------
    OSError
        If the file can't be opened.
    ValueError
        If it is no such list, or a label is missing, out of order or there twice.
        The message names the line.

    See Also
    --------
    normalize_label : Turns labels of differing spelling into comparable texts.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklabelaudio.text import read_label_list
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "classes.csv")
    ...     with open(path, "w") as file:
    ...         print("index,mid,display_name", file=file)
    ...         print("0,/m/09x0r,Speech", file=file)
    ...         print('1,/m/09b5t,"Chicken, rooster"', file=file)
    ...     read_label_list(path)
    ['Speech', 'Chicken, rooster']
    """
    path = os.fspath(path)
    text = _read_text(path)
    first, *_ = text.lstrip().lower().splitlines() or [""]
    if not first:
        raise ValueError(f"{path} is empty: it holds no list of labels")
    if first.startswith(("<!doctype", "<html", "<?xml")):
        raise ValueError(
            f"{path} is a web page, not a list of labels. Download the file itself"
        )
    if path.lower().endswith(".csv") or "display_name" in first.split(","):
        rows = _read_table(path, text)
    else:
        rows = enumerate((line.strip() for line in text.rstrip().splitlines()), 1)
    return _check_labels(path, rows)


def _read_text(path):
    with open(path, "rb") as file:
        content = file.read()
    try:
        # Spreadsheet programs save CSV with a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: it is no text in UTF-8, so no list of labels"
        ) from error


def _read_table(path, text):
    """Yield the number of each line and its label."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"index", "display_name"} - set(reader.fieldnames or [])
    if missing:
        raise ValueError(
            f"{path}, line 1: the column {' and '.join(sorted(missing))} is missing; "
            "the line must be index,mid,display_name"
        )
    for expected, row in enumerate(reader):
        if row["index"] != str(expected):
            raise ValueError(
                f"{path}, line {reader.line_num}: index must be {expected}, got "
                f"{row['index']!r}; the classes must stand in the order of the scores"
            )
        yield reader.line_num, row["display_name"]


def _check_labels(path, rows):
    lines = {}
    for number, label in rows:
        if not label:
            raise ValueError(f"{path}, line {number}: the label is missing")
        if label in lines:
            raise ValueError(
                f"{path}, line {number}: {label!r} is there already, in line "
                f"{lines[label]}"
            )
        lines[label] = number
    if not lines:
        raise ValueError(f"{path} holds no label")
    return list(lines)
