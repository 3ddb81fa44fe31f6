"""Files of word vectors: word2vec's binary and text layouts and gensim's own."""

import gzip
from pickle import UnpicklingError

import numpy as np

from .._optional import import_optional_dependency

_GZIP = b"\x1f\x8b"
_PICKLE = b"\x80"

# What readers say of files that are cut short, or something else.
_DAMAGES = (
    AttributeError,
    EOFError,
    UnpicklingError,
    ValueError,
    gzip.BadGzipFile,
)


def read_word_vectors(path):
    """Read a file of word vectors; its layout is told by its content.

    Parameters
    ----------
    path : str
        A file in word2vec's binary or text layout (the text with or without its
        first line of sizes), or saved by gensim; any of them may be gzipped.

    Returns
    -------
    gensim.models.KeyedVectors or TextVectors
        The vectors, ``vectors[word]`` for ``word in vectors``.

    Raises
    ------
    ValueError
        If the file has none of these layouts, or is damaged.
    """
    try:
        return _read(path)
    except _DAMAGES as error:
        raise ValueError(
            f"model={path!r} can't be read as word vectors ({error}): pass a whole "
            "file in word2vec's binary or text layout, or one that gensim's "
            "KeyedVectors.save wrote"
        ) from error


def _read(path):
    layout, sizes = _detect_layout(path)
    if layout == "text":
        return _read_text(path, sizes)
    gensim = import_optional_dependency("gensim.models", "text")
    if layout == "binary":
        # Tools have cut words in the middle of a character.
        return gensim.KeyedVectors.load_word2vec_format(
            path, binary=True, unicode_errors="replace"
        )
    mmap = None if path.endswith(".gz") else "r"
    vectors = gensim.KeyedVectors.load(path, mmap=mmap)
    vectors = getattr(vectors, "wv", vectors)  # a whole model was saved
    if not isinstance(vectors, gensim.KeyedVectors):
        raise ValueError(f"it holds a {type(vectors).__name__}")
    return vectors


class TextVectors:
    """Word vectors read from text."""

    def __init__(self, index, matrix):
        self.index = index
        self.matrix = matrix
        self.vector_size = matrix.shape[1]

    def __contains__(self, word):
        return word in self.index

    def __getitem__(self, word):
        return self.matrix[self.index[word]]


def _detect_layout(path):
    """Return "pickle", "binary" or "text", and the sizes on the first line."""
    with _open(path) as stream:
        first = stream.readline(1 << 20)
        if first.startswith(_PICKLE):
            return "pickle", None
        sizes = _parse_sizes(first)
        if sizes is None:
            row, n_components = first, len(first.split()) - 1
        else:
            row, n_components = stream.readline(1 << 20), sizes[1]
    if _is_row(row, n_components):
        return "text", sizes
    if sizes is None:
        raise ValueError("its first line is neither sizes nor a vector")
    return "binary", sizes


def _open(path):
    with open(path, "rb") as stream:
        zipped = stream.read(2) == _GZIP
    return gzip.open(path, "rb") if zipped else open(path, "rb")


def _parse_sizes(line):
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[0]), int(fields[1])
    return None


def _is_row(line, n_components):
    fields = line.split()
    if not 0 < n_components < len(fields):
        return False
    try:
        for field in fields[-n_components:]:
            float(field)
    except ValueError:
        return False
    return True


def _read_text(path, sizes):
    # gensim's reader of text without sizes leaves the file open.
    with _open(path) as stream:
        if sizes is None:
            row = stream.readline()
            sizes = 1 + sum(1 for line in stream if line.strip()), len(row.split()) - 1
            stream.seek(0)
        else:
            stream.readline()
        matrix = np.empty(sizes, dtype=np.float32)
        index = {}
        for row in range(sizes[0]):
            # A word may hold spaces, so the numbers are taken from the end.
            fields = stream.readline().rstrip().rsplit(maxsplit=sizes[1])
            if len(fields) != sizes[1] + 1:
                raise ValueError(f"vector {row + 1} of {sizes[0]} is missing or short")
            matrix[row] = [float(field) for field in fields[1:]]
            index.setdefault(fields[0].decode("utf-8", errors="replace"), row)
    return TextVectors(index, matrix)
