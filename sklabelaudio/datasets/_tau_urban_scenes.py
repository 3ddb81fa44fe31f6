"""TAU Urban Acoustic Scenes 2020 and 2022 Mobile, development sets."""

import os

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._tables import check_present, find_folder, parse_choice, read_table

_HOLDS = (
    "audio/, meta.csv and evaluation_setup/ of the development set (the evaluation set "
    "has no labels)"
)
_COLUMNS = ["filename", "scene_label", "identifier", "source_label"]
_SCENES = [
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
]

_DESCR = """\
TAU Urban Acoustic Scenes Mobile, development set
=================================================

64 hours of 10 acoustic scenes in 10 European cities. 2020: 23,035 segments of ten
seconds; 2022: the same, each cut into ten clips of one second. Device a recorded all of
it; b and c are phones or cameras that ran beside it, s1 to s6 are simulated from a.

The official split trains on one part of the locations and tests on the other; devices
s4 to s6 are heard in the test only. About a quarter of the clips stand on neither side.
Clips of one location share its sound, and the same moment is there by several devices:
in a split of one's own, keep each location (`groups`) on one side. `cv` is the official
split. A split made elsewhere is not seen and can't be warned of; split_dataset makes
one that is.

T. Heittola, A. Mesaros and T. Virtanen, "Acoustic scene classification in DCASE 2020
Challenge: generalization across devices and low complexity solutions", Proceedings of
the DCASE 2020 Workshop.

Licence: free for academic use; no commercial use.
"""


@validate_params(
    {
        "data_dir": [str, os.PathLike],
        "subset": [StrOptions({"development", "train", "test"})],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_tau_urban_scenes(data_dir, subset="development", *, return_X_y=False):
    r"""Load the development set of TAU Urban Acoustic Scenes Mobile, 2020 or 2022.

    It gives paths of clips, scenes, the official split, and the city, location and
    device of each clip. No sound is read.

    Parameters
    ----------
    data_dir : str or path-like
        The folder that holds ``audio/``, ``meta.csv`` and ``evaluation_setup/``, such
        as ``TAU-urban-acoustic-scenes-2020-mobile-development``.
    subset : {"development", "train", "test"}, default="development"
        Every clip, or those on one side of the official split. The evaluation set has
        no labels and can't be loaded.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the whole bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_clips,), str
            Absolute path of each clip, in the order of ``meta.csv``.
        target : ndarray of shape (n_clips,), str
            Scenes such as ``"street_traffic"``.
        cv : list of one (train, test) pair, or None
            The official split, as indices of clips; None unless `subset` is
            ``"development"``.
        groups : ndarray of shape (n_clips,), str
            The same as `location`: what no split should divide.
        location : ndarray of shape (n_clips,), str
            City and number of the place of recording, such as ``"lisbon-1000"``.
        city : ndarray of shape (n_clips,), str
            City, such as ``"lisbon"``.
        device : ndarray of shape (n_clips,), str
            Device: a, b, c, or a simulated one, s1 to s6.
        target_names : ndarray of shape (n_classes,), str
            The scenes that occur, sorted.
        filename : str
            Path of ``meta.csv``.
        DESCR : str
            Description, reference and licence.
    (data, target) : tuple if `return_X_y` is True

    Raises
    ------
    FileNotFoundError
        If the folder, a table, or sound files listed in it are missing.
    ValueError
        If a table lacks a column, has a row that can't be understood, lists a clip
        twice, or lists none, or if the tables contradict each other.

    See Also
    --------
    split_dataset : Lists the official split, or others with a warning.

    Notes
    -----
    ``evaluation_setup/fold1_train.csv`` lists the clips to train on, and
    ``fold1_evaluate.csv`` those to test on, or ``fold1_test.csv`` if the former is not
    there. About a quarter of the clips stand in neither, which is why the official
    split is no :class:`~sklearn.model_selection.PredefinedSplit` (it would train on
    them).

    Scores by city or by device are those of ``LeaveOneGroupOut`` with ``groups=city``
    or ``groups=device``. The latter trains on the very moments it tests, heard by
    another device: all that b, c and s1 to s6 hold is there from device a too.

    References
    ----------
    .. [1] T. Heittola, A. Mesaros and T. Virtanen, "Acoustic scene classification in
       DCASE 2020 Challenge: generalization across devices and low complexity
       solutions", DCASE 2020 Workshop.

    Examples
    --------
    A folder with two clips to train on and one to test on:

    >>> import os, tempfile
    >>> from sklabelaudio.datasets import load_tau_urban_scenes
    >>> tables = {
    ...     "meta.csv": [
    ...         "filename scene_label identifier source_label",
    ...         "audio/airport-lisbon-1000-40000-a.wav airport lisbon-1000 a",
    ...         "audio/bus-lyon-1001-40001-b.wav bus lyon-1001 b",
    ...         "audio/bus-paris-214-6518-s4.wav bus paris-214 s4"],
    ...     "evaluation_setup/fold1_train.csv": [
    ...         "filename scene_label",
    ...         "audio/airport-lisbon-1000-40000-a.wav airport",
    ...         "audio/bus-lyon-1001-40001-b.wav bus"],
    ...     "evaluation_setup/fold1_evaluate.csv": [
    ...         "filename scene_label",
    ...         "audio/bus-paris-214-6518-s4.wav bus"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("audio", "evaluation_setup"):
    ...         os.mkdir(os.path.join(folder, name))
    ...     for name, lines in tables.items():
    ...         with open(os.path.join(folder, name), "w") as table:
    ...             for line in lines:
    ...                 print(*line.split(), sep="\t", file=table)
    ...     for line in tables["meta.csv"][1:]:
    ...         open(os.path.join(folder, line.split()[0]), "w").close()
    ...     scenes = load_tau_urban_scenes(folder)
    >>> scenes.target.tolist(), scenes.city.tolist(), scenes.device.tolist()
    (['airport', 'bus', 'bus'], ['lisbon', 'lyon', 'paris'], ['a', 'b', 's4'])
    >>> [(train.tolist(), test.tolist()) for train, test in scenes.cv]
    [([0, 1], [2])]
    """
    data_dir = find_folder(data_dir, _HOLDS)
    table = os.path.join(data_dir, "meta.csv")
    rows, _ = _read_tabs(table, _COLUMNS, _parse_row)
    sides = _read_sides(data_dir, table, rows)
    cv = [tuple(sides.values())]
    if subset != "development":
        rows, cv = [rows[index] for index in sides[subset]], None
    names = [row["filename"].removeprefix("audio/") for row in rows]
    audio = os.path.join(data_dir, "audio")
    check_present(audio, names, table)

    data = np.array([os.path.join(audio, name) for name in names])
    target = np.array([row["scene_label"] for row in rows])
    if return_X_y:
        return data, target
    location = np.array([row["identifier"] for row in rows])
    return Bunch(
        data=data,
        target=target,
        cv=cv,
        groups=location,
        location=location,
        city=np.array([name.split("-")[0] for name in location]),
        device=np.array([row["source_label"] for row in rows]),
        target_names=np.unique(target),
        filename=table,
        DESCR=_DESCR,
    )


def _read_tabs(path, columns, parse_row):
    rows, lines = read_table(path, columns, parse_row, holds=_HOLDS, delimiter="\t")
    if not rows:
        raise ValueError(f"{path} lists no clip; unpack it anew")
    return rows, lines


def _parse_row(row):
    name = row["filename"]
    parse_choice(row, "scene_label", _SCENES)
    stem, extension = os.path.splitext(name)
    parts = stem.split("-")
    expected = f"audio/{row['scene_label']}-{row['identifier']}".split("-")
    # 2022 has the number of the second before the device.
    if (
        len(parts) not in (5, 6)
        or not extension
        or parts[:3] != expected
        or parts[-1] != row["source_label"]
    ):
        raise ValueError(
            f"filename={name!r} must be audio/ and scene-city-location-segment-device "
            f"(2022: -segment-second-device), and agree with "
            f"scene_label={row['scene_label']!r}, identifier={row['identifier']!r} and "
            f"source_label={row['source_label']!r}; correct one of them"
        )
    return row


def _read_sides(data_dir, table, rows):
    """Return the indices of the clips to train on and to test on."""
    folder = os.path.join(data_dir, "evaluation_setup")
    paths = {
        "train": os.path.join(folder, "fold1_train.csv"),
        "test": os.path.join(folder, "fold1_evaluate.csv"),
    }
    if not os.path.isfile(paths["test"]):
        paths["test"] = os.path.join(folder, "fold1_test.csv")
    places = {row["filename"]: index for index, row in enumerate(rows)}
    sides, seen = {}, {}
    for side, path in paths.items():
        listed, lines = _read_tabs(path, ["filename"], dict)
        for row in listed:
            name = row["filename"]
            place = f"{path}, line {lines[name]}: filename={name!r}"
            if name not in places:
                raise ValueError(
                    f"{place} is not in {table}; take both from one release"
                )
            if name in seen:
                raise ValueError(
                    f"{place} stands in {seen[name]} too; a clip is either trained on "
                    "or tested on: take one of the two lines out"
                )
            scene = rows[places[name]]["scene_label"]
            if row.get("scene_label") not in (None, scene):
                raise ValueError(
                    f"{place} has scene_label={row['scene_label']!r}, and {scene!r} "
                    f"in {table}; correct one of the two"
                )
        seen |= dict.fromkeys(lines, path)
        sides[side] = np.array([places[row["filename"]] for row in listed])
    return sides
