"""How an archive of a data set becomes a folder, whole or not at all."""

import os
import zipfile
from collections import namedtuple

from .._download import make_workplace, retrieve

Archive = namedtuple("Archive", ["name", "url", "sha256"])
Archive.__doc__ = "A zip file on the web: what it holds, where it is, its SHA-256."


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
    with make_workplace(folder) as workplace:
        path = os.path.join(workplace, "archive.zip")
        retrieve(
            archive.url,
            path,
            name=archive.name,
            sha256=archive.sha256,
            by_hand=(
                "download it by hand, unpack it and put the folder it holds (with "
                f"audio/ and meta/ in it) at {folder}"
            ),
            progressbar=progressbar,
            n_retries=n_retries,
            delay=delay,
        )
        unpacked = os.path.join(workplace, "unpacked")
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
