"""Where data sets are kept, and how one gets there whole or not at all."""

import os
import tempfile
import time
import zipfile
from collections import namedtuple

from sklearn.utils._param_validation import validate_params

from .._optional import import_optional_dependency

DATA_HOME_VARIABLE = "SKLABELAUDIO_DATA"

Archive = namedtuple("Archive", ["name", "url", "sha256"])
Archive.__doc__ = "A zip file on the web: what it holds, where it is, its SHA-256."


@validate_params(
    {"data_home": [str, os.PathLike, None]}, prefer_skip_nested_validation=True
)
def get_data_home(data_home=None):
    """Return the folder in which fetched data sets are kept, and make it if needed.

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
    if data_home is None:
        data_home = os.environ.get(DATA_HOME_VARIABLE) or os.path.join(
            "~", "sklabelaudio_data"
        )
    data_home = os.path.abspath(os.path.expanduser(data_home))
    try:
        os.makedirs(data_home, exist_ok=True)
    except OSError as error:
        raise _cannot_write(data_home, error) from error
    return data_home


def fetch_archive(archive, folder, *, progressbar, n_retries, delay):
    """Download a zip file, check it, and leave the one folder it holds at `folder`.

    All work is done in a temporary folder beside `folder`, which is renamed at the
    very end: `folder` exists only if it is complete.

    Parameters
    ----------
    archive : Archive
        What to download.
    folder : str
        Where to put its content. Its parent folder exists.
    progressbar : bool
        Show the progress of the download on standard error.
    n_retries : int
        How often to try again after a failed connection.
    delay : float
        Seconds between two tries.
    """
    pooch = import_optional_dependency("pooch", "datasets")
    home, name = os.path.split(folder)
    try:
        workplace = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home)
    except OSError as error:
        raise _cannot_write(home, error) from error
    with workplace as temporary:
        path = os.path.join(temporary, "archive.zip")
        _download(pooch, archive, path, folder, progressbar, n_retries, delay)
        digest = pooch.file_hash(path)
        if digest != archive.sha256:
            raise OSError(
                f"the file downloaded from {archive.url} is not the one expected and "
                f"was removed: its SHA-256 is {digest} instead of {archive.sha256}. "
                f"Try again, or {_by_hand(folder)}"
            )
        unpacked = os.path.join(temporary, "unpacked")
        with zipfile.ZipFile(path) as file:
            file.extractall(unpacked)
        content = os.listdir(unpacked)
        if len(content) != 1:
            raise OSError(
                f"the archive from {archive.url} should hold one folder and holds "
                f"{len(content)} entries: {', '.join(sorted(content)[:5])}"
            )
        try:
            os.replace(os.path.join(unpacked, content[0]), folder)
        except OSError:
            # Another process may have been quicker, with the same content.
            if not os.path.isdir(folder):
                raise


def _download(pooch, archive, path, folder, progressbar, n_retries, delay):
    import requests

    downloader = pooch.HTTPDownloader(
        progressbar=progressbar, chunk_size=2**16, timeout=30
    )
    for tries_left in range(n_retries, -1, -1):
        try:
            return downloader(archive.url, path, None)
        except requests.exceptions.RequestException as error:
            if not tries_left:
                raise OSError(
                    f"can't download {archive.name} from {archive.url}: {error}. "
                    f"Without a connection, {_by_hand(folder)}"
                ) from error
        time.sleep(delay)


def _by_hand(folder):
    return (
        "download it by hand, unpack it and put the folder it holds (with audio/ and "
        f"meta/ in it) at {folder}"
    )


def _cannot_write(folder, error):
    return OSError(
        f"can't write to the data folder {folder}: {error.strerror or error}. Pass "
        f"another as data_home or set the environment variable {DATA_HOME_VARIABLE}"
    )
