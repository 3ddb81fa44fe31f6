import numpy as np
import pytest
import sklearn
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV, LeavePGroupsOut, cross_val_score

from sklabelaudio.model_selection import (
    CategoryPairSplit,
    FewShotSplit,
    LeaveClassesOut,
    UnseenClassKFold,
)


def make_labels(n_classes=10, n_clips=8, seed=0):
    """Shuffled labels, and paths for X: a splitter must not read them."""
    y = np.repeat([f"class {i}" for i in range(n_classes)], n_clips)
    np.random.default_rng(seed).shuffle(y)
    return [f"{i}.wav" for i in range(len(y))], y


def make_categories(n_categories=5, n_classes=2, n_clips=40, seed=0):
    X, y = make_labels(n_categories * n_classes, n_clips, seed)
    codes = np.array([int(label.split()[1]) for label in y])
    return X, y, np.array(["abcde"[code // n_classes] for code in codes])


def as_lists(splits):
    return [(train.tolist(), test.tolist()) for train, test in splits]


EVERY_SPLITTER = [
    UnseenClassKFold(),
    UnseenClassKFold(shuffle=True, seen_test_size=0.25, random_state=0),
    LeaveClassesOut(),
    CategoryPairSplit(),
    FewShotSplit(random_state=0),
    FewShotSplit(n_shots=3, n_splits=4, shuffle=False),
]


@pytest.mark.parametrize("cv", EVERY_SPLITTER, ids=str)
def test_contract(cv):
    X, y, groups = make_categories()
    splits = list(cv.split(X, y, groups))
    assert len(splits) == cv.get_n_splits(X, y, groups)
    for train, test in splits:
        assert train.dtype.kind == test.dtype.kind == "i"
        assert len(train)
        assert len(test)
        together = np.concatenate((train, test))
        assert len(np.unique(together)) == len(together)
    assert as_lists(splits) == as_lists(cv.split(X, y, groups))
    assert as_lists(splits) == as_lists(
        cv.split(np.zeros((len(y), 3)), y.tolist(), groups.tolist())
    )


@pytest.mark.parametrize("cv", EVERY_SPLITTER, ids=str)
def test_y_of_another_length(cv):
    X, y, groups = make_categories()
    with pytest.raises(ValueError, match="y has 399 labels and X has 400 clips"):
        next(cv.split(X, y[:-1], groups))


@pytest.mark.parametrize("cv", EVERY_SPLITTER, ids=str)
def test_y_of_two_columns(cv):
    X, y, groups = make_categories()
    with pytest.raises(ValueError, match="y should be a 1d array"):
        next(cv.split(X, np.column_stack((y, y)), groups))


@pytest.mark.parametrize(
    "cv", [UnseenClassKFold(), LeaveClassesOut(), FewShotSplit()], ids=str
)
def test_y_missing(cv):
    with pytest.raises(ValueError, match=f"y is None and {type(cv).__name__}"):
        next(cv.split(["1.wav", "2.wav"]))


@pytest.mark.parametrize("cv", EVERY_SPLITTER, ids=str)
def test_cross_val_score(cv):
    X, y, groups = make_categories()
    scores = cross_val_score(
        DummyClassifier(), np.zeros((len(X), 1)), y, cv=cv, groups=groups
    )
    assert len(scores) == cv.get_n_splits(X, y, groups)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("cv", EVERY_SPLITTER, ids=str)
def test_metadata_routing(cv):
    X, y, groups = make_categories()
    X = np.zeros((len(X), 1))
    takes_groups = isinstance(cv, CategoryPairSplit | FewShotSplit)
    with sklearn.config_context(enable_metadata_routing=True):
        requests = cv.get_metadata_routing().split.requests
        assert requests == ({"groups": True} if takes_groups else {})
        params = {"groups": groups} if takes_groups else None
        scores = cross_val_score(DummyClassifier(), X, y, cv=cv, params=params)
        assert len(scores) == cv.get_n_splits(X, y, groups)
        search = GridSearchCV(DummyClassifier(), {"constant": [None]}, cv=cv)
        search.fit(X, y, **(params or {}))
        assert search.n_splits_ == cv.get_n_splits(X, y, groups)


def test_repr():
    assert repr(UnseenClassKFold(3, shuffle=True, random_state=0)) == (
        "UnseenClassKFold(n_splits=3, random_state=0, seen_test_size=0.0, shuffle=True)"
    )
    assert repr(LeaveClassesOut(3)) == "LeaveClassesOut(n_classes=3)"
    assert repr(CategoryPairSplit()) == "CategoryPairSplit()"
    assert repr(FewShotSplit()) == (
        "FewShotSplit(n_shots=5, n_splits=None, random_state=None, shuffle=True)"
    )


# UnseenClassKFold


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n_classes", "sizes"), [(10, [2] * 5), (7, [2, 2, 1, 1, 1])])
def test_unseen_each_class_is_tested_once(shuffle, n_classes, sizes):
    X, y = make_labels(n_classes)
    tested = []
    for train, test in UnseenClassKFold(shuffle=shuffle).split(X, y):
        assert not set(y[train]) & set(y[test])
        assert len(train) + len(test) == len(y)
        tested.append(np.unique(y[test]))
    assert [len(classes) for classes in tested] == sizes
    assert sorted(np.concatenate(tested)) == sorted(np.unique(y))


def test_unseen_order_and_shuffle():
    X, y = make_labels(10)

    def folds(**params):
        return [
            sorted(set(y[test])) for _, test in UnseenClassKFold(**params).split(X, y)
        ]

    in_order = sorted(set(y))
    assert folds() == [in_order[i : i + 2] for i in range(0, 10, 2)]
    assert folds(shuffle=True, random_state=1) != folds()
    assert folds(shuffle=True, random_state=1) == folds(shuffle=True, random_state=1)
    assert folds(shuffle=True, random_state=1) != folds(shuffle=True, random_state=2)


def test_unseen_with_a_share_of_the_seen_classes():
    X, y = make_labels(10, n_clips=20)
    cv = UnseenClassKFold(seen_test_size=0.2, random_state=0)
    for (train, test), (_, unseen) in zip(
        cv.split(X, y), UnseenClassKFold().split(X, y), strict=True
    ):
        assert set(unseen) <= set(test)
        assert len(train) + len(test) == len(y)
        moved, counts = np.unique(y[np.setdiff1d(test, unseen)], return_counts=True)
        assert set(moved) == set(y[train])
        assert not set(moved) & set(y[unseen])
        assert (counts == 4).all()
    other = UnseenClassKFold(seen_test_size=0.2, random_state=1)
    assert as_lists(cv.split(X, y)) != as_lists(other.split(X, y))


@pytest.mark.parametrize(("seen_test_size", "n_moved"), [(0.01, 1), (0.99, 2)])
def test_unseen_share_leaves_clips_on_both_sides(seen_test_size, n_moved):
    X, y = make_labels(4, n_clips=3)
    cv = UnseenClassKFold(n_splits=2, seen_test_size=seen_test_size, random_state=0)
    for train, _ in cv.split(X, y):
        assert (np.unique(y[train], return_counts=True)[1] == 3 - n_moved).all()


def test_unseen_ignores_groups():
    X, y = make_labels()
    cv = UnseenClassKFold()
    groups = np.zeros(len(y))
    assert as_lists(cv.split(X, y, groups)) == as_lists(cv.split(X, y))


def test_unseen_too_few_classes():
    X, y = make_labels(3)
    with pytest.raises(ValueError, match="n_splits=5 is more than the 3 classes of y"):
        next(UnseenClassKFold().split(X, y))


def test_unseen_class_of_one_clip():
    y = ["cat", "cat", "dog", "rain", "rain"]
    cv = UnseenClassKFold(n_splits=2, seen_test_size=0.5, random_state=0)
    with pytest.raises(ValueError, match="class dog has 1 clip: with seen_test_size"):
        next(cv.split(range(5), y))


@pytest.mark.parametrize(
    "params",
    [
        {"n_splits": 1},
        {"n_splits": 2.0},
        {"seen_test_size": 1.0},
        {"seen_test_size": -0.1},
        {"shuffle": "yes"},
        {"random_state": "0"},
    ],
)
def test_unseen_bad_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter of UnseenClassKFold"):
        UnseenClassKFold(**params)


def test_unseen_random_state_without_chance():
    with pytest.raises(ValueError, match="random_state=3 has no effect"):
        UnseenClassKFold(random_state=3)


# LeaveClassesOut


@pytest.mark.parametrize("n_classes", [1, 2, 4])
def test_leave_classes_out_is_leave_p_groups_out(n_classes):
    X, y = make_labels(5)
    cv = LeaveClassesOut(n_classes)
    expected = LeavePGroupsOut(n_classes).split(X, y, groups=y)
    assert as_lists(cv.split(X, y)) == as_lists(expected)


def test_leave_classes_out_of_ten_classes():
    X, y = make_labels(10)
    assert LeaveClassesOut().get_n_splits(X, y) == 45


def test_leave_classes_out_too_few_classes():
    X, y = make_labels(2)
    message = "n_classes=2 leaves no class to train on: y holds 2 classes"
    with pytest.raises(ValueError, match=message):
        next(LeaveClassesOut().split(X, y))
    with pytest.raises(ValueError, match=message):
        LeaveClassesOut().get_n_splits(X, y)


def test_leave_classes_out_bad_parameter():
    with pytest.raises(ValueError, match="'n_classes' parameter of LeaveClassesOut"):
        LeaveClassesOut(0)


# CategoryPairSplit


def test_category_pairs():
    X, y, groups = make_categories()
    cv = CategoryPairSplit()
    splits, pairs = list(cv.split(X, y, groups)), cv.pairs(groups)
    assert len(splits) == len(set(pairs)) == 20
    for (train, test), (from_category, to_category) in zip(splits, pairs, strict=True):
        assert from_category != to_category
        assert train.tolist() == np.flatnonzero(groups == from_category).tolist()
        assert test.tolist() == np.flatnonzero(groups == to_category).tolist()


def test_category_pairs_without_y():
    X, y, groups = make_categories()
    cv = CategoryPairSplit()
    assert as_lists(cv.split(X, groups=groups)) == as_lists(cv.split(X, y, groups))


def test_category_pairs_missing_groups():
    X, y, _ = make_categories()
    with pytest.raises(ValueError, match="groups is None and CategoryPairSplit"):
        next(CategoryPairSplit().split(X, y))
    with pytest.raises(ValueError, match="groups is None and CategoryPairSplit"):
        CategoryPairSplit().get_n_splits(X, y)


def test_category_pairs_groups_of_another_length():
    X, y, groups = make_categories()
    with pytest.raises(ValueError, match="groups has 1 labels and X has 400 clips"):
        next(CategoryPairSplit().split(X, y, groups[:1]))


@pytest.mark.parametrize("cv", [CategoryPairSplit(), FewShotSplit()], ids=str)
def test_one_category(cv):
    X, y = make_labels()
    with pytest.raises(ValueError, match=r"the one category 'animals'.*at least two"):
        next(cv.split(X, y, ["animals"] * len(y)))


@pytest.mark.parametrize("cv", [CategoryPairSplit(), FewShotSplit(1)], ids=str)
def test_class_in_two_categories(cv):
    y = ["cat", "cat", "dog", "dog", "rain", "rain"]
    groups = ["a", "a", "a", "b", "b", "b"]
    with pytest.raises(ValueError, match="class dog is in more than one category"):
        next(cv.split(range(6), y, groups))


# FewShotSplit


def test_few_shot_with_categories():
    X, y, groups = make_categories(n_categories=3)
    cv = FewShotSplit(n_shots=5, random_state=0)
    splits = list(cv.split(X, y, groups))
    assert len(splits) == cv.get_n_splits(X, y, groups) == 3 * 8
    shots_of = {category: [] for category in "abc"}
    for train, test in splits:
        (held_out,) = set(groups[test])
        assert len(train) + len(test) == len(y)
        shots = train[groups[train] == held_out]
        assert np.unique(y[shots], return_counts=True)[1].tolist() == [5, 5]
        assert np.unique(y[test], return_counts=True)[1].tolist() == [35, 35]
        shots_of[held_out].append(shots)
    for category, shots in shots_of.items():
        # The folds are disjoint and cover the category.
        assert (
            sorted(np.concatenate(shots)) == np.flatnonzero(groups == category).tolist()
        )


def test_few_shot_without_groups():
    X, y = make_labels(3, n_clips=11)
    splits = list(FewShotSplit(n_shots=4, random_state=0).split(X, y))
    assert len(splits) == 2
    for train, test in splits:
        assert np.unique(y[train], return_counts=True)[1].tolist() == [4, 4, 4]
        assert len(train) + len(test) == len(y)
    assert not set(splits[0][0]) & set(splits[1][0])


def test_few_shot_smallest_class_counts():
    y = ["cat"] * 9 + ["dog"] * 5 + ["rain"] * 7
    assert FewShotSplit(2).get_n_splits(y=y) == 2
    # With categories the smallest class of each one.
    groups = ["animal"] * 14 + ["nature"] * 7
    assert FewShotSplit(2).get_n_splits(y=y, groups=groups) == 2 + 3


def test_few_shot_n_splits():
    X, y = make_labels(3, n_clips=11)
    every = list(FewShotSplit(2, random_state=0).split(X, y))
    some = list(FewShotSplit(2, n_splits=3, random_state=0).split(X, y))
    assert len(every) == 5
    assert as_lists(some) == as_lists(every[:3])


def test_few_shot_order_and_shuffle():
    y = ["cat"] * 4 + ["dog"] * 4
    in_order = as_lists(FewShotSplit(2, shuffle=False).split(range(8), y))
    assert in_order == [([0, 1, 4, 5], [2, 3, 6, 7]), ([2, 3, 6, 7], [0, 1, 4, 5])]
    X, y = make_labels()
    first, second = (
        as_lists(FewShotSplit(2, random_state=i).split(X, y)) for i in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    ("n_splits", "n_needed"), [(None, 6), (1, 6), (2, 10)], ids=str
)
def test_few_shot_class_with_too_few_clips(n_splits, n_needed):
    y = ["cat"] * 12 + ["dog"] * 5
    message = f"class dog has 5 clips and n_shots=5 .* at least {n_needed} "
    with pytest.raises(ValueError, match=message):
        next(FewShotSplit(n_splits=n_splits).split(range(17), y))


@pytest.mark.parametrize(
    "params", [{"n_shots": 0}, {"n_splits": 0}, {"shuffle": 2}, {"random_state": "a"}]
)
def test_few_shot_bad_parameters(params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter of FewShotSplit"):
        FewShotSplit(**params)


def test_few_shot_random_state_without_shuffle():
    with pytest.raises(ValueError, match="random_state=0 has no effect"):
        FewShotSplit(shuffle=False, random_state=0)


# The numbers of the data sets that they are made for


def test_esc10(esc10):
    (table,) = (esc10 / "meta").glob("*.csv")
    rows = np.loadtxt(table, delimiter=",", dtype=str, skiprows=1)
    X, y = rows[:, 0].tolist(), rows[:, 3]
    assert LeaveClassesOut().get_n_splits(X, y) == 45
    assert FewShotSplit().get_n_splits(X, y) == 8
    assert [len(test) for _, test in UnseenClassKFold().split(X, y)] == [80] * 5
