"""UrbanSound8K."""

import os

import numpy as np
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from ._tables import (
    check_present,
    find_folder,
    parse_choice,
    parse_integer,
    parse_seconds,
    read_table,
)

_HOLDS = "audio/ and metadata/UrbanSound8K.csv"
_COLUMNS = [
    "slice_file_name",
    "fsID",
    "start",
    "end",
    "salience",
    "fold",
    "classID",
    "class",
]
# A clip's classID is the place of its class in this list.
_CLASSES = [
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
]

_DESCR = """\
UrbanSound8K: sounds of the city
================================

8,732 clips of at most four seconds in 10 classes, cut from field recordings on
Freesound and arranged in ten folds. Formats and sampling rates are those of the
recordings and differ from clip to clip.

The ten folds are the only valid split: train on nine, test on the tenth, and average
over all ten. Many clips are overlapping slices of one recording, and all of these
stand in one fold; a random split puts slices of a recording on both sides and reports
scores that new recordings don't reach. `cv` is the official split. A split made
elsewhere is not seen and can't be warned of; split_dataset makes one that is.

J. Salamon, C. Jacoby and J. P. Bello, "A Dataset and Taxonomy for Urban Sound
Research", Proceedings of the 22nd ACM International Conference on Multimedia, 2014,
doi:10.1145/2647868.2655045.

Licence: CC BY-NC 3.0.
"""


@validate_params(
    {"data_dir": [str, os.PathLike], "return_X_y": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_urbansound8k(data_dir, *, return_X_y=False):
    """Load the folder of UrbanSound8K: paths of clips, labels and official folds.

    No sound is read. The table ``metadata/UrbanSound8K.csv`` has the columns
    slice_file_name, fsID, start, end, salience, fold, classID and class; the clips are
    in ``audio/fold1/`` to ``audio/fold10/``.

    Parameters
    ----------
    data_dir : str or path-like
        The folder that holds ``audio/`` and ``metadata/``.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the whole bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_clips,), str
            Absolute path of each clip, in the order of the table.
        target : ndarray of shape (n_clips,), str
            Labels such as ``"dog_bark"``.
        fold : ndarray of shape (n_clips,), int
            The official folds, 1 to 10.
        cv : :class:`~sklearn.model_selection.PredefinedSplit`
            The official split, one fold tested at a time.
        groups : ndarray of shape (n_clips,), str
            Freesound id of the recording that the clip was cut from.
        salience : ndarray of shape (n_clips,), int
            1 if the sound is in the foreground, 2 in the background.
        start, end : ndarray of shape (n_clips,), float
            Where in its recording the clip begins and ends, in seconds.
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
    split_dataset : Lists the official splits, or others with a warning.
    load_esc50 : Environmental sounds in the same form.

    Notes
    -----
    The official folds are the only valid split: average over all ten. Slices of one
    recording overlap and stand in one fold; random splits put some on each side and
    report scores that new recordings don't reach. The folds hold the classes in unequal
    numbers, so that one fold alone tells little.

    References
    ----------
    .. [1] J. Salamon, C. Jacoby and J. P. Bello, "A Dataset and Taxonomy for Urban
       Sound Research", ACM Multimedia, 2014, :doi:`10.1145/2647868.2655045`.

    Examples
    --------
    A folder with one clip in each fold:

    >>> import os, tempfile
    >>> from sklabelaudio.datasets import load_urbansound8k
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.mkdir(os.path.join(folder, "metadata"))
    ...     path = os.path.join(folder, "metadata", "UrbanSound8K.csv")
    ...     with open(path, "w") as table:
    ...         columns = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    ...         print(columns, file=table)
    ...         for fold in range(1, 11):
    ...             clip = f"{fold}-3-0-0.wav"
    ...             print(f"{clip},{fold},0.0,4.0,1,{fold},3,dog_bark", file=table)
    ...             sounds = os.path.join(folder, "audio", f"fold{fold}")
    ...             os.makedirs(sounds)
    ...             open(os.path.join(sounds, clip), "w").close()
    ...     urban = load_urbansound8k(folder)
    >>> urban.target[0], urban.fold.tolist()
    (np.str_('dog_bark'), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])

    The official folds, for
    ``cross_val_score(model, urban.data, urban.target, cv=urban.cv)``:

    >>> urban.cv.get_n_splits()
    10
    """
    data_dir = find_folder(data_dir, _HOLDS)
    table = os.path.join(data_dir, "metadata", "UrbanSound8K.csv")
    rows, _ = read_table(table, _COLUMNS, _parse_row, holds=_HOLDS)
    if not rows:
        raise ValueError(f"{table} lists no clip; unpack it anew")
    audio = os.path.join(data_dir, "audio")
    names = [f"fold{row['fold']}/{row['slice_file_name']}" for row in rows]
    check_present(audio, names, table)

    data = np.array([os.path.join(audio, *name.split("/")) for name in names])
    columns = {name: np.array([row[name] for row in rows]) for name in _COLUMNS}
    target = columns["class"]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        fold=columns["fold"],
        cv=PredefinedSplit(columns["fold"]),
        groups=columns["fsID"],
        salience=columns["salience"],
        start=columns["start"],
        end=columns["end"],
        target_names=np.unique(target),
        filename=table,
        DESCR=_DESCR,
    )


def _parse_row(row):
    if not row["fsID"].isdecimal():
        raise ValueError(
            f"fsID must be the number of a Freesound recording, got {row['fsID']!r}"
        )
    label = parse_choice(row, "class", _CLASSES)
    class_id = parse_integer(row, "classID", 0, 9)
    if _CLASSES[class_id] != label:
        raise ValueError(
            f"classID={class_id} is {_CLASSES[class_id]}, and class is {label!r}; "
            "correct one of the two"
        )
    start, end = parse_seconds(row, "start"), parse_seconds(row, "end")
    if not start < end:
        raise ValueError(f"end must be later than start={start}, got {end}")
    return {
        **row,
        "fold": parse_integer(row, "fold", 1, 10),
        "salience": parse_integer(row, "salience", 1, 2),
        "start": start,
        "end": end,
    }
