"""Splits of a data set, with a warning where they are not the official ones."""

import warnings

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params


@validate_params(
    {
        "dataset": [Bunch],
        "cv": ["cv_object"],
        "groups": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def split_dataset(dataset, cv=None, *, groups=None):
    """List the official splits of a data set, or others with a warning.

    The loaders give the official split as `dataset.cv`. Another split made with
    scikit-learn alone is seen by no one; made here, it brings a warning that says how
    many recordings stand on both sides.

    Parameters
    ----------
    dataset : :class:`~sklearn.utils.Bunch`
        What :func:`load_esc50`, :func:`load_urbansound8k` or
        :func:`load_tau_urban_scenes` returned.
    cv : int, cross-validation generator, iterable or None, default=None
        None for the official split, else whatever scikit-learn takes as `cv`.
    groups : array-like of shape (n_clips,), default=None
        Groups for a `cv` that needs them, such as `dataset.fold` or `dataset.groups`.

    Returns
    -------
    splits : list of (train, test)
        Indices of clips, for scikit-learn's `cv`.

    Warns
    -----
    UserWarning
        If `splits` are not all the official ones.

    Raises
    ------
    ValueError
        If the data set has no official split.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from sklearn.model_selection import KFold, LeaveOneGroupOut, PredefinedSplit
    >>> from sklearn.utils import Bunch
    >>> from sklabelaudio.datasets import split_dataset
    >>> fold, recording = np.array([1, 1, 2, 2]), np.array(["a", "a", "b", "b"])
    >>> dataset = Bunch(
    ...     data=list("wxyz"), target=[0, 1, 0, 1], groups=recording,
    ...     cv=PredefinedSplit(fold))
    >>> len(split_dataset(dataset))
    2
    >>> len(split_dataset(dataset, LeaveOneGroupOut(), groups=fold))
    2
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     splits = split_dataset(dataset, KFold(4))
    >>> print(str(caught[0].message).partition(":")[0])
    not the official split
    """
    if dataset.get("cv") is None:
        raise ValueError(
            "dataset has no official split (no cv); pass what load_esc50, "
            "load_urbansound8k or load_tau_urban_scenes(subset='development') returned"
        )
    # The groups of ESC-50 are kinds of sounds, its recordings are the source.
    recordings = np.asarray(dataset.get("source", dataset.groups))
    official = _list_splits(dataset, dataset.cv, None)
    if cv is None:
        return official
    splits = _list_splits(dataset, cv, groups)
    wanted, got = set(map(_make_key, official)), list(map(_make_key, splits))
    if set(got) != wanted:
        divided = set()
        for train, test in splits:
            divided |= set(recordings[train]) & set(recordings[test])
        # The pairs of an iterable are too long to show.
        name = f"cv={cv!r}" if hasattr(cv, "split") or np.isscalar(cv) else "cv"
        warnings.warn(
            f"not the official split: {sum(key in wanted for key in got)} of the "
            f"{len(got)} splits of {name} are among the {len(wanted)} official "
            f"ones, and {len(divided)} of the {len(set(recordings))} recordings or "
            "locations stand on both sides of a split. Scores can't be compared with "
            "published ones"
            + (", and are too high for new recordings" if divided else "")
            + "; use cv=dataset.cv",
            UserWarning,
            stacklevel=3,
        )
    return splits


def _list_splits(dataset, cv, groups):
    splitter = check_cv(cv, dataset.target, classifier=True)
    return list(splitter.split(dataset.data, dataset.target, groups))


def _make_key(split):
    """Return what two splits have in common if they hold the same clips."""
    return tuple(np.sort(side).tobytes() for side in split)
