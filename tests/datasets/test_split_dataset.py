import warnings

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.utils import Bunch

from sklabelaudio.datasets import load_esc50, split_dataset


@pytest.fixture
def dataset():
    """Ten folds of two recordings of three clips each."""
    groups = np.repeat(np.arange(20), 3).astype(str)
    fold = np.repeat(np.arange(1, 11), 6)
    return Bunch(
        data=np.array([f"{index}.wav" for index in range(60)]),
        target=np.tile(["dog_bark", "siren"], 30),
        fold=fold,
        groups=groups,
        cv=PredefinedSplit(fold),
    )


def check_same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_the_official_split_by_default(dataset):
    check_same(split_dataset(dataset), list(dataset.cv.split()))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_the_official_split_in_other_words_brings_no_warning(dataset, order):
    expected = list(LeaveOneGroupOut().split(dataset.data, groups=dataset.fold))
    got = split_dataset(dataset, LeaveOneGroupOut(), groups=dataset.fold)
    check_same(got, expected)
    mirrored = [(train[::-1], test) for train, test in expected[order]]
    check_same(split_dataset(dataset, mirrored), mirrored)


def test_a_random_split_warns_and_counts_the_recordings_it_divides(dataset):
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = list(cv.split(dataset.data, dataset.target))
    divided = {
        group
        for _, test in expected
        for group in dataset.groups[test]
        if 0 < np.sum(dataset.groups[test] == group) < 3
    }
    with pytest.warns(
        UserWarning,
        match=rf"not the official split: 0 of the 3 splits of cv=StratifiedKFold.* the "
        rf"10 official ones, and {len(divided)} of the 20 recordings .* too high",
    ) as caught:
        got = split_dataset(dataset, cv)
    assert divided
    assert caught[0].filename == __file__
    check_same(got, expected)


def test_a_split_by_recordings_warns_but_of_no_leak(dataset):
    with pytest.warns(UserWarning, match="and 0 of the 20 recordings") as caught:
        split_dataset(dataset, GroupKFold(4), groups=dataset.groups)
    assert "compared with published ones; use cv=dataset.cv" in str(caught[0].message)


def test_one_official_fold_is_not_the_official_split(dataset):
    with pytest.warns(UserWarning, match="1 of the 1 splits of cv are among the 10"):
        split_dataset(dataset, list(dataset.cv.split())[:1])


def test_an_integer_is_what_scikit_learn_takes_it_for(dataset):
    with pytest.warns(UserWarning, match="not the official split: 0 of the 4"):
        got = split_dataset(dataset, 4)
    check_same(got, list(StratifiedKFold(4).split(dataset.data, dataset.target)))


def test_the_splits_checked_are_those_returned(dataset):
    with pytest.warns(UserWarning, match="not the official split"):
        splits = split_dataset(dataset, ShuffleSplit(2))
    model = DummyClassifier(strategy="most_frequent")
    scores = [
        cross_val_score(model, dataset.data, dataset.target, cv=splits)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*scores)


def test_a_single_pair_with_clips_left_over(dataset):
    dataset.cv = [(np.arange(0, 30), np.arange(36, 60))]
    check_same(split_dataset(dataset), dataset.cv)
    with pytest.warns(UserWarning, match="0 of the 1 splits of cv are among the 1 off"):
        split_dataset(dataset, [(np.arange(0, 36), np.arange(36, 60))])


def test_esc10(esc10):
    dataset = load_esc50(esc10)
    check_same(split_dataset(dataset), list(PredefinedSplit(dataset.fold).split()))
    n_recordings = len(set(dataset.source))
    with pytest.warns(UserWarning, match=rf"[1-9]\d* of the {n_recordings} record"):
        split_dataset(dataset, StratifiedKFold(5, shuffle=True, random_state=0))


def test_no_official_split(dataset):
    for bunch in (Bunch(**{**dataset, "cv": None}), Bunch(data=[])):
        with pytest.raises(ValueError, match=r"no official split \(no cv\); pass what"):
            split_dataset(bunch)


def test_no_bunch(dataset):
    with pytest.raises(ValueError, match="'dataset' parameter of split_dataset"):
        split_dataset((dataset.data, dataset.target))


def test_groups_of_another_length(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            split_dataset(dataset, GroupKFold(4), groups=dataset.groups[1:])
