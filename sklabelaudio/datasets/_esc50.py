"""ESC-50 and its subset ESC-10."""

import os
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._download import get_data_home
from ._base import Archive, fetch_archive
from ._tables import check_present, find_folder, parse_choice, parse_integer, read_table

_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
_ARCHIVE = Archive(
    name="ESC-50",
    url=f"https://github.com/karolpiczak/ESC-50/archive/{_COMMIT}.zip",
    sha256="661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
)
_HOLDS = "audio/ and meta/esc50.csv"
_COLUMNS = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
# Ten classes each: a clip's major category is its target // 10.
_GROUPS = ["animals", "natural", "human", "interior", "exterior"]

_DESCR = """\
ESC-50: environmental sounds
============================

Clips of five seconds from field recordings on Freesound: 2,000 in 50 classes of 40, in
five major categories (animals, natural soundscapes, human non-speech, interior and
exterior sounds), arranged in five folds. ESC-10 is a subset of 400 clips in 10 classes.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", Proceedings of the
23rd ACM International Conference on Multimedia, 2015, doi:10.1145/2733373.2806390.

Licence: CC BY-NC 3.0; the clips of ESC-10 alone CC BY 3.0.
"""


@validate_params(
    {
        "data_dir": [str, os.PathLike],
        "subset": [StrOptions({"esc10"}), None],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_esc50(data_dir, *, subset=None, return_X_y=False):
    """Load a folder in the layout of ESC-50: paths of clips, labels and folds.

    It serves ESC-50, ESC-10 and recordings of your own laid out alike: sound files of
    any format in ``audio/`` and a table ``meta/esc50.csv`` with the columns filename,
    fold, target, category, esc10, src_file and take. No sound is read.

    Parameters
    ----------
    data_dir : str or path-like
        The folder that holds ``audio/`` and ``meta/``.
    subset : "esc10" or None, default=None
        ``"esc10"`` keeps the clips marked as belonging to ESC-10.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the whole bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_clips,), str
            Absolute path of each clip, in the order of the table.
        target : ndarray of shape (n_clips,), str
            Labels such as ``"sea_waves"``.
        fold : ndarray of shape (n_clips,), int
            The official folds, 1 to 5.
        cv : :class:`~sklearn.model_selection.PredefinedSplit`
            The official split, one fold tested at a time.
        groups : ndarray of shape (n_clips,), str
            Major category: animals, natural, human, interior or exterior.
        source : ndarray of shape (n_clips,), str
            Freesound id of the recording that the clip was cut from.
        take : ndarray of shape (n_clips,), str
            Letter that tells apart the clips of one recording.
        target_names : ndarray of shape (n_classes,), str
            The labels that occur, sorted.
        filename : str
            Path of the table.
        DESCR : str
            Description, reference and licence.
    (data, target) : tuple if `return_X_y` is True

    Raises
    ------
    FileNotFoundError
        If the folder, the table, or sound files listed in it are missing.
    ValueError
        If the table lacks a column, has a row that can't be understood, lists a clip
        twice, or lists none.

    See Also
    --------
    fetch_esc50 : Downloads ESC-50 first.
    split_dataset : Lists the official splits, or others with a warning.

    Notes
    -----
    Cross-validate on the official folds. Clips cut from one recording share its
    microphone, room and source and stand in the same fold; random splits put some on
    each side and report scores that new recordings don't reach. In ESC-50 a few
    recordings do stand in two folds (234879 as hen and as rooster);
    :class:`~sklearn.model_selection.GroupKFold` over `source` keeps even these whole.

    References
    ----------
    .. [1] K. J. Piczak, "ESC: Dataset for Environmental Sound Classification",
       ACM Multimedia, 2015, :doi:`10.1145/2733373.2806390`.

    Examples
    --------
    A folder with one clip in each fold:

    >>> import os, tempfile
    >>> from sklearn.model_selection import LeaveOneGroupOut
    >>> from sklabelaudio.datasets import load_esc50
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("audio", "meta"):
    ...         os.mkdir(os.path.join(folder, name))
    ...     with open(os.path.join(folder, "meta", "esc50.csv"), "w") as table:
    ...         print("filename,fold,target,category,esc10,src_file,take", file=table)
    ...         for fold in range(1, 6):
    ...             clip = f"{fold}-10{fold}-A-0.wav"
    ...             print(f"{clip},{fold},0,dog,True,10{fold},A", file=table)
    ...             open(os.path.join(folder, "audio", clip), "w").close()
    ...     esc50 = load_esc50(folder)
    >>> esc50.target[0], esc50.fold.tolist()
    (np.str_('dog'), [1, 2, 3, 4, 5])

    The official folds, for
    ``cross_val_score(model, esc50.data, esc50.target, cv=esc50.cv)``:

    >>> esc50.cv.get_n_splits()
    5

    or with ``cv=LeaveOneGroupOut(), groups=esc50.fold``:

    >>> LeaveOneGroupOut().get_n_splits(groups=esc50.fold)
    5
    """
    data_dir = find_folder(data_dir, _HOLDS)
    table = os.path.join(data_dir, "meta", "esc50.csv")
    rows, _ = read_table(table, _COLUMNS, _parse_row, holds=_HOLDS)
    if subset == "esc10":
        rows = [row for row in rows if row["esc10"]]
    if not rows:
        raise ValueError(f"{table} lists no clip" + (" of ESC-10" if subset else ""))
    audio = os.path.join(data_dir, "audio")
    check_present(audio, [row["filename"] for row in rows], table)

    data = np.array([os.path.join(audio, row["filename"]) for row in rows])
    target = np.array([row["category"] for row in rows])
    if return_X_y:
        return data, target
    fold = np.array([row["fold"] for row in rows])
    return Bunch(
        data=data,
        target=target,
        fold=fold,
        cv=PredefinedSplit(fold),
        groups=np.array([_GROUPS[row["target"] // 10] for row in rows]),
        source=np.array([row["src_file"] for row in rows]),
        take=np.array([row["take"] for row in rows]),
        target_names=np.unique(target),
        filename=table,
        DESCR=_DESCR,
    )


@validate_params(
    {
        "data_home": [str, os.PathLike, None],
        "subset": [StrOptions({"esc10"}), None],
        "download_if_missing": ["boolean"],
        "progressbar": ["boolean"],
        "return_X_y": ["boolean"],
        "n_retries": [Interval(Integral, 0, None, closed="left")],
        "delay": [Interval(Real, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def fetch_esc50(
    data_home=None,
    *,
    subset=None,
    download_if_missing=True,
    progressbar=True,
    return_X_y=False,
    n_retries=3,
    delay=1.0,
):
    """Load ESC-50, and download it the first time.

    The archive has 646 MB; about 1.6 GB are needed while it is unpacked and 0.9 GB
    afterwards, in the folder ``ESC-50`` of `data_home`. That folder appears only when
    it is complete.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Where data sets are kept; see :func:`get_data_home`.
    subset : "esc10" or None, default=None
        ``"esc10"`` keeps the clips marked as belonging to ESC-10.
    download_if_missing : bool, default=True
        If False, raise where ESC-50 is not there yet.
    progressbar : bool, default=True
        Show the progress of the download on standard error.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the whole bunch.
    n_retries : int, default=3
        How often to try again when the connection fails.
    delay : float, default=1.0
        Seconds between two tries.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        As :func:`load_esc50` returns it.
    (data, target) : tuple if `return_X_y` is True

    Raises
    ------
    OSError
        If ESC-50 is missing and may not or can't be downloaded, if the file
        downloaded is not the one expected, or if `data_home` can't be written to.

    See Also
    --------
    load_esc50 : Loads a folder that is there already.

    Notes
    -----
    The archive is the one that GitHub makes of the repository's commit 33c8ce9. Its
    author publishes no hash; the SHA-256 it is checked against is the one that several
    projects recorded. Should GitHub pack it anew one day, the content will be the same
    and the hash will not: unpack it by hand then, as the error says.

    Examples
    --------
    >>> from sklabelaudio.datasets import fetch_esc50
    >>> esc10 = fetch_esc50(subset="esc10")  # doctest: +SKIP
    >>> esc10.data.shape  # doctest: +SKIP
    (400,)
    """
    folder = os.path.join(get_data_home(data_home), "ESC-50")
    if not os.path.isdir(folder):
        if not download_if_missing:
            raise OSError(
                f"ESC-50 is not at {folder}; allow download_if_missing=True or pass "
                "the data_home that holds it"
            )
        fetch_archive(
            _ARCHIVE,
            folder,
            progressbar=progressbar,
            n_retries=n_retries,
            delay=delay,
        )
    return load_esc50(folder, subset=subset, return_X_y=return_X_y)


def _parse_row(row):
    return {
        **row,
        "fold": parse_integer(row, "fold", 1, 5),
        "target": parse_integer(row, "target", 0, 49),
        "esc10": parse_choice(row, "esc10", ["True", "False"]) == "True",
    }
