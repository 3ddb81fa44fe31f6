"""Cross-validators that split by class: class-disjoint and few-shot."""

from abc import abstractmethod
from itertools import combinations, permutations
from math import comb
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples


def _check_labels(labels, name, splitter, X=None):
    """Give one label a clip as a 1-D array, or say what is wrong with them."""
    if labels is None:
        raise ValueError(
            f"{name} is None and {type(splitter).__name__} splits by it: pass one "
            "label for each clip"
        )
    labels = column_or_1d(
        check_array(labels, input_name=name, ensure_2d=False, dtype=None)
    )
    if X is not None and len(labels) != _num_samples(X):
        raise ValueError(
            f"{name} has {len(labels)} labels and X has {_num_samples(X)} clips: "
            "pass one label for each clip"
        )
    return labels


def _check_categories(groups, splitter, X=None):
    """Give the categories of the clips and the categories there are."""
    groups = _check_labels(groups, "groups", splitter, X)
    categories = np.unique(groups)
    if len(categories) < 2:
        raise ValueError(
            f"groups holds the one category {categories.item()!r} and "
            f"{type(splitter).__name__} needs at least two"
        )
    return groups, categories


def _check_nested(y, groups):
    """Raise if a class spreads over categories: its clips would leak across."""
    for label in np.unique(y):
        categories = np.unique(groups[y == label]).tolist()
        if len(categories) > 1:
            raise ValueError(
                f"class {label!s} is in more than one category of groups "
                f"({categories}): groups must give each class one category"
            )


class _LabelSplitter(BaseCrossValidator):
    """Base of the splitters that go by labels and never look into X."""

    def split(self, X, y=None, groups=None):
        """Generate the indices of the training and the test clips.

        Parameters
        ----------
        X : sequence of length n_clips
            The clips: paths, waveforms, embeddings. Only their number matters.
        y : array-like of shape (n_clips,)
            The labels.
        groups : array-like of shape (n_clips,), default=None
            The category of each clip, for the splitters that go by categories;
            the others ignore it.

        Yields
        ------
        train : ndarray of int
            Indices of the training clips of that split.
        test : ndarray of int
            Indices of the test clips of that split.
        """
        for train, test in self._iter_masks(X, y, groups):
            yield np.flatnonzero(train), np.flatnonzero(test)

    @abstractmethod
    def _iter_masks(self, X, y, groups):
        """Generate the boolean masks of the training and the test clips."""


class UnseenClassKFold(_LabelSplitter):
    """K folds of classes: each class is tested in one fold, unseen in training.

    Use it to cross-validate a zero-shot classifier, together with
    :func:`zero_shot_scorer`. The classes, not the clips, are dealt into folds; a
    split tests on every clip of one fold's classes and trains on the other
    classes. On the clips of one category this is setting 1 of [1]_.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, from 2 to the number of classes. The sizes of the folds
        differ by at most one class.
    shuffle : bool, default=False
        Deal the classes at random. Otherwise they are dealt in sorted order, a
        run of neighbours to each fold.
    seen_test_size : float, default=0.0
        Share, from 0 to below 1, of each training class's clips that is moved to
        the test side, for generalised zero-shot. The clips are drawn at random,
        anew for each split, at least one of each class.
    random_state : int, RandomState instance or None, default=None
        Makes `shuffle` and `seen_test_size` repeatable.

    See Also
    --------
    LeaveClassesOut : Every combination of classes left out once.
    sklearn.model_selection.LeaveOneGroupOut : With ``groups`` the categories, whole
        categories left out (setting 3 of [1]_).

    References
    ----------
    .. [1] H. Xie and T. Virtanen, "Zero-shot audio classification based on class
       label embeddings", WASPAA 2019, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.model_selection import UnseenClassKFold
    >>> clips = ["1.wav", "2.wav", "3.wav", "4.wav", "5.wav", "6.wav"]
    >>> y = np.array(["cat", "dog", "rain", "wind", "dog", "rain"])
    >>> for train, test in UnseenClassKFold(n_splits=2).split(clips, y):
    ...     print(y[train], y[test])
    ['rain' 'wind' 'rain'] ['cat' 'dog' 'dog']
    ['cat' 'dog' 'dog'] ['rain' 'wind' 'rain']
    """

    @validate_params(
        {
            "n_splits": [Interval(Integral, 2, None, closed="left")],
            "shuffle": ["boolean"],
            "seen_test_size": [Interval(Real, 0, 1, closed="left")],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self, n_splits=5, *, shuffle=False, seen_test_size=0.0, random_state=None
    ):
        if random_state is not None and not shuffle and seen_test_size == 0:
            raise ValueError(
                f"random_state={random_state} has no effect where nothing is random: "
                "set shuffle=True or seen_test_size, or leave it None"
            )
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.seen_test_size = seen_test_size
        self.random_state = random_state

    def _iter_masks(self, X, y, groups):
        y = _check_labels(y, "y", self, X)
        classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(classes) < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits} is more than the {len(classes)} classes of "
                "y: each fold needs a class of its own"
            )
        if self.seen_test_size > 0 and counts.min() < 2:
            raise ValueError(
                f"class {classes[counts.argmin()]!s} has 1 clip: with seen_test_size="
                f"{self.seen_test_size} each class needs at least 2, one to train on "
                "and one to test on"
            )
        rng = check_random_state(self.random_state)
        order = np.arange(len(classes))
        if self.shuffle:
            rng.shuffle(order)
        for unseen in np.array_split(order, self.n_splits):
            test = np.isin(codes, unseen)
            if self.seen_test_size > 0:
                for code in np.setdiff1d(order, unseen):
                    clips = rng.permutation(np.flatnonzero(codes == code))
                    n_test = round(self.seen_test_size * len(clips))
                    test[clips[: min(max(n_test, 1), len(clips) - 1)]] = True
            yield ~test, test

    def get_n_splits(self, X=None, y=None, groups=None):
        """Give the number of splits.

        Parameters
        ----------
        X : object, default=None
            Ignored.
        y : object, default=None
            Ignored.
        groups : object, default=None
            Ignored.

        Returns
        -------
        int
            `n_splits`.
        """
        return self.n_splits


class LeaveClassesOut(_LabelSplitter):
    """Every combination of `n_classes` classes is left out of training once.

    Use it where there are few classes and the choice of the unseen ones decides
    the score: the ten classes of ESC-10 give 45 pairs. It splits as
    scikit-learn's ``LeavePGroupsOut`` does with the labels as groups.

    Parameters
    ----------
    n_classes : int, default=2
        Number of classes to leave out, from 1 to one less than there are.

    See Also
    --------
    UnseenClassKFold : Fewer splits: each class is left out once.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.model_selection import LeaveClassesOut
    >>> clips = ["1.wav", "2.wav", "3.wav", "4.wav"]
    >>> y = np.array(["cat", "dog", "rain", "dog"])
    >>> for train, test in LeaveClassesOut(n_classes=2).split(clips, y):
    ...     print(y[train], y[test])
    ['rain'] ['cat' 'dog' 'dog']
    ['dog' 'dog'] ['cat' 'rain']
    ['cat'] ['dog' 'rain' 'dog']
    """

    @validate_params(
        {"n_classes": [Interval(Integral, 1, None, closed="left")]},
        prefer_skip_nested_validation=True,
    )
    def __init__(self, n_classes=2):
        self.n_classes = n_classes

    def _check_classes(self, y, X=None):
        y = _check_labels(y, "y", self, X)
        classes = np.unique(y)
        if len(classes) <= self.n_classes:
            raise ValueError(
                f"n_classes={self.n_classes} leaves no class to train on: y holds "
                f"{len(classes)} classes, {classes.tolist()}"
            )
        return y, classes

    def _iter_masks(self, X, y, groups):
        y, classes = self._check_classes(y, X)
        for unseen in combinations(classes, self.n_classes):
            test = np.isin(y, unseen)
            yield ~test, test

    def get_n_splits(self, X=None, y=None, groups=None):
        """Give the number of splits.

        Parameters
        ----------
        X : object, default=None
            Ignored.
        y : array-like of shape (n_clips,)
            The labels.
        groups : object, default=None
            Ignored.

        Returns
        -------
        int
            Number of combinations of classes.
        """
        _, classes = self._check_classes(y)
        return comb(len(classes), self.n_classes)


class CategoryPairSplit(GroupsConsumerMixin, _LabelSplitter):
    """Train on one category of classes, test on another, for each ordered pair.

    Use it to see how far what was learned on one kind of sound carries to another.
    The categories are the `groups` of ``split``, such as the five major categories
    of ESC-50, which give 20 splits. Each class must be of one category, so that
    the test classes are unseen. This is setting 2 of [1]_.

    See Also
    --------
    sklearn.model_selection.LeaveOneGroupOut : Train on all the other categories
        (setting 3 of [1]_).

    References
    ----------
    .. [1] H. Xie and T. Virtanen, "Zero-shot audio classification based on class
       label embeddings", WASPAA 2019, section 3.2.

    Examples
    --------
    >>> from sklabelaudio.model_selection import CategoryPairSplit
    >>> clips = ["1.wav", "2.wav", "3.wav", "4.wav"]
    >>> y = ["dog", "cat", "rain", "wind"]
    >>> groups = ["animals", "animals", "nature", "nature"]
    >>> cv = CategoryPairSplit()
    >>> for pair, (train, test) in zip(cv.pairs(groups), cv.split(clips, y, groups)):
    ...     print(pair, train, test)
    ('animals', 'nature') [0 1] [2 3]
    ('nature', 'animals') [2 3] [0 1]
    """

    def _iter_masks(self, X, y, groups):
        groups, _ = _check_categories(groups, self, X)
        if y is not None:
            _check_nested(_check_labels(y, "y", self, X), groups)
        for train, test in self.pairs(groups):
            yield groups == train, groups == test

    def pairs(self, groups):
        """Give the categories of each split, in the order of ``split``.

        Parameters
        ----------
        groups : array-like of shape (n_clips,)
            The category of each clip.

        Returns
        -------
        list of tuple
            The training and the test category of each split.
        """
        _, categories = _check_categories(groups, self)
        return list(permutations(categories.tolist(), 2))

    def get_n_splits(self, X=None, y=None, groups=None):
        """Give the number of splits.

        Parameters
        ----------
        X : object, default=None
            Ignored.
        y : object, default=None
            Ignored.
        groups : array-like of shape (n_clips,)
            The category of each clip.

        Returns
        -------
        int
            Number of ordered pairs of categories.
        """
        return len(self.pairs(groups))


class FewShotSplit(GroupsConsumerMixin, _LabelSplitter):
    """A few clips of each class to train on, the rest to test on.

    Use it to measure what a handful of labelled clips is worth. The clips of each
    class are cut into disjoint folds of `n_shots`, and each split trains on one
    fold of every class.

    With `groups` given to ``split`` (categories of classes), the categories are
    held out in turn: a split trains on all clips of the other categories and
    `n_shots` clips of each class of the one held out, and tests on that category's
    other clips. Each class must be of one category. This is setting 4 of [1]_: 40
    clips a class make 8 folds of 5.

    Parameters
    ----------
    n_shots : int, default=5
        Number of training clips of each tested class.
    n_splits : int or None, default=None
        Number of folds, of each category if there are `groups`. None takes as many
        as the smallest class (of the category) has.
    shuffle : bool, default=True
        Draw the folds at random. Otherwise they follow the order of the clips.
    random_state : int, RandomState instance or None, default=None
        Makes `shuffle` repeatable.

    Notes
    -----
    A class needs at least ``n_shots + 1`` clips, so that one is left to test on.
    Clips that fill no fold are always tested.

    References
    ----------
    .. [1] H. Xie and T. Virtanen, "Zero-shot audio classification based on class
       label embeddings", WASPAA 2019, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.model_selection import FewShotSplit
    >>> clips = [f"{i}.wav" for i in range(6)]
    >>> y = np.array(["dog", "dog", "dog", "rain", "rain", "rain"])
    >>> cv = FewShotSplit(n_shots=1, n_splits=2, random_state=0)
    >>> for train, test in cv.split(clips, y):
    ...     print(y[train], y[test])
    ['dog' 'rain'] ['dog' 'dog' 'rain' 'rain']
    ['dog' 'rain'] ['dog' 'dog' 'rain' 'rain']
    """

    @validate_params(
        {
            "n_shots": [Interval(Integral, 1, None, closed="left")],
            "n_splits": [Interval(Integral, 1, None, closed="left"), None],
            "shuffle": ["boolean"],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(self, n_shots=5, *, n_splits=None, shuffle=True, random_state=None):
        if random_state is not None and not shuffle:
            raise ValueError(
                f"random_state={random_state} has no effect with shuffle=False: set "
                "shuffle=True or leave it None"
            )
        self.n_shots = n_shots
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def _categories(self, y, groups, X=None):
        """Give the labels, and the mask and number of folds of each category."""
        y = _check_labels(y, "y", self, X)
        if groups is None:
            masks = [np.full(len(y), True)]
        else:
            groups, categories = _check_categories(groups, self, y)
            _check_nested(y, groups)
            masks = [groups == category for category in categories]
        return y, [(mask, self._n_folds(y[mask])) for mask in masks]

    def _n_folds(self, y):
        """Give the number of folds that every class of `y` has clips for."""
        classes, counts = np.unique(y, return_counts=True)
        n_clips = int(counts.min())
        n_needed = max((self.n_splits or 1) * self.n_shots, self.n_shots + 1)
        if n_clips < n_needed:
            raise ValueError(
                f"class {classes[counts.argmin()]!s} has {n_clips} clips and "
                f"n_shots={self.n_shots} with n_splits={self.n_splits} needs at least "
                f"{n_needed} of each class: lower them or leave the class out"
            )
        return self.n_splits or n_clips // self.n_shots

    def _iter_masks(self, X, y, groups):
        y, categories = self._categories(y, groups, X)
        rng = check_random_state(self.random_state)
        for category, n_folds in categories:
            clips = [
                np.flatnonzero(category & (y == label))
                for label in np.unique(y[category])
            ]
            if self.shuffle:
                clips = [rng.permutation(of_class) for of_class in clips]
            for start in range(0, n_folds * self.n_shots, self.n_shots):
                test = category.copy()
                for of_class in clips:
                    test[of_class[start : start + self.n_shots]] = False
                yield ~test, test

    def get_n_splits(self, X=None, y=None, groups=None):
        """Give the number of splits.

        Parameters
        ----------
        X : object, default=None
            Ignored.
        y : array-like of shape (n_clips,)
            The labels.
        groups : array-like of shape (n_clips,), default=None
            The category of each clip.

        Returns
        -------
        int
            Number of folds, summed over the categories.
        """
        _, categories = self._categories(y, groups)
        return sum(n_folds for _, n_folds in categories)
