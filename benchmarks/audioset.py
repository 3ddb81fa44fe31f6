"""AudioSet's lists of segments, and the clips of them that are there."""


def read_segments(path):
    """Yield the YouTube id and the ids of the classes of each segment of a list."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            video, _, _, mids = line.split(", ", maxsplit=3)
            yield video, mids.strip('"').split(",")


def read_clips(folder, segments):
    """Return the clips of a list that are there, and the ids of their classes.

    Parameters
    ----------
    folder : Path
        Where the list and, at any depth, the clips are.
    segments : str
        Name of the list.

    Returns
    -------
    files : list of str
        The clips.
    mids : list of list of str
        Their classes, such as ``/m/09x0r``.
    """
    there = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in {".wav", ".flac", ".mp3", ".ogg"}:
            there[file.stem] = str(file)
    files, mids = [], []
    for video, its_mids in read_segments(folder / segments):
        # Archives put a letter before the id, for ids may begin with a dash.
        file = there.get(video) or there.get("Y" + video)
        if file is not None:
            files.append(file)
            mids.append(its_mids)
    if not files:
        raise SystemExit(f"{folder}: none of the clips of {segments} is there")
    return files, mids
