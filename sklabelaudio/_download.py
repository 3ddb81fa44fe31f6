"""Files from the web: where they are kept, and how one gets there whole."""

import hashlib
import os
import tempfile
import time

from sklearn.utils._param_validation import validate_params

DATA_HOME_VARIABLE = "SKLABELAUDIO_DATA"


@validate_params(
    {"data_home": [str, os.PathLike, None]}, prefer_skip_nested_validation=True
)
def get_data_home(data_home=None):
    """Return the folder in which fetched files are kept, and make it if needed.

    Data sets are in it, and the checkpoints of encoders in its folder
    ``checkpoints``.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder; ``~`` is expanded. ``None`` means the one named by the environment
        variable ``SKLABELAUDIO_DATA``, or else ``~/sklabelaudio_data``.

    Returns
    -------
    data_home : str
        The folder, which exists now.

    Raises
    ------
    OSError
        If the folder can't be made.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklabelaudio.datasets import get_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     home = get_data_home(os.path.join(folder, "sounds"))
    ...     os.path.isdir(home)
    True
    """
    return make_folder(locate_data_home(data_home))


def locate_data_home(data_home=None):
    """Return where :func:`get_data_home` makes the folder, without making it."""
    if data_home is None:
        data_home = os.environ.get(DATA_HOME_VARIABLE) or os.path.join(
            "~", "sklabelaudio_data"
        )
    return os.path.abspath(os.path.expanduser(data_home))


def make_folder(folder):
    """Make a folder for data if needed, and return it."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def make_workplace(path):
    """Return a temporary folder beside `path`, so that a rename ends in `path`."""
    folder, name = os.path.split(path)
    try:
        return tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def download(url, path, *, sha256=None, progressbar=False, n_retries=3, delay=1.0):
    """Download a file, check it, and leave it at `path`, complete or not at all.

    Parameters
    ----------
    url : str
        Where it is.
    path : str
        Where to put it; its folder exists. A file there is replaced.
    sha256 : str, default=None
        Its SHA-256 in lower case, or the beginning of it; ``None`` where nobody
        published it.
    progressbar : bool, default=False
        Show the progress of the download on standard error.
    n_retries : int, default=3
        How often to try again after a failed connection.
    delay : float, default=1.0
        Seconds between two tries.

    Raises
    ------
    OSError
        If the file can't be downloaded, is not the one expected, or can't be
        written.
    """
    name = os.path.basename(path)
    with make_workplace(path) as workplace:
        part = os.path.join(workplace, name)
        retrieve(
            url,
            part,
            name=name,
            sha256=sha256,
            by_hand=f"download {url} yourself and put the file at {path}",
            progressbar=progressbar,
            n_retries=n_retries,
            delay=delay,
        )
        os.replace(part, path)


def retrieve(url, path, *, name, sha256, by_hand, progressbar, n_retries, delay):
    """Download a file to a place of the caller's, and raise if it is another one.

    The parameters are those of :func:`download`, and `name`, what it is called in
    messages, and `by_hand`, the clause that says what a user can do instead. What is
    at `path` after an error is for the caller to remove.
    """
    import pooch
    import requests

    downloader = pooch.HTTPDownloader(
        progressbar=progressbar, chunk_size=2**16, timeout=30
    )
    for tries_left in range(n_retries, -1, -1):
        try:
            downloader(url, path, None)
            break
        except requests.exceptions.RequestException as error:
            if error.response is not None:
                error.response.close()  # which pooch leaves open
            if not tries_left:
                raise OSError(
                    f"can't download {name} from {url}: {error}. Without a "
                    f"connection, {by_hand}"
                ) from error
        time.sleep(delay)
    if sha256 is None:
        _check_no_page(url, path, by_hand)
    elif not (digest := hash_file(path)).startswith(sha256):
        raise OSError(
            f"the file downloaded from {url} is not the one expected and was removed: "
            f"its SHA-256 is {digest} instead of {expect(sha256)}. Try again, or "
            f"{by_hand}"
        )


def hash_file(path):
    """Return the SHA-256 of a file, in lower-case hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expect(sha256):
    """Name a SHA-256 of which perhaps only the beginning is known."""
    return sha256 if len(sha256) == 64 else f"one that begins with {sha256}"


def _check_no_page(url, path, by_hand):
    # Hotel networks and servers that have moved answer any address with a page.
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise OSError(
            f"{url} sent a web page instead of the file, which was removed. Open it "
            f"in a browser to see why, or {by_hand}"
        )


def _cannot_write(folder, error):
    return OSError(
        f"can't write to the data folder {folder}: {error.strerror or error}. Pass "
        f"another as data_home or set the environment variable {DATA_HOME_VARIABLE}"
    )
