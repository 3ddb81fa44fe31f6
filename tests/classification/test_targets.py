"""The kinds of targets of taggers, and what is none."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from sklabelaudio.classification._candidates import check_candidate_labels
from sklabelaudio.classification._targets import read_targets


def test_labels_that_are_there_twice_count_once():
    targets = read_targets([["b", "a", "b"], ["a"], []])
    assert targets.labels.tolist() == ["a", "b"]
    assert targets.indicator.astype(int).tolist() == [[1, 1], [1, 0], [0, 0]]
    assert not targets.exclusive


def test_lists_may_all_be_empty_where_labels_are_known():
    for y in ([[], []], pd.Series([[], []]), [np.array([]), np.array([])]):
        targets = read_targets(y, ["a", "b"])
        assert targets.indicator.tolist() == [[False, False]] * 2
        assert not targets.exclusive
    assert read_targets([[], []]).labels.size == 0


@pytest.mark.parametrize("dtype", [int, bool, float, "Int64", "boolean"])
def test_a_frame_of_one_column_is_an_indicator(dtype):
    frame = pd.DataFrame({"a": [0, 1, 1]}).astype(dtype)
    targets = read_targets(frame)
    assert targets.labels.tolist() == ["a"]
    assert targets.indicator.tolist() == [[False], [True], [True]]
    assert (targets.exclusive, targets.named) == (False, True)


def test_a_column_of_one_label_is_an_indicator():
    for y in (np.array([[0], [1]]), csr_array([[0], [1]])):
        targets = read_targets(y, ["a"])
        assert targets.indicator.tolist() == [[False], [True]]
        assert not targets.exclusive


def test_a_column_of_nothing_is_one_label_each():
    with pytest.warns(match="column-vector"):
        targets = read_targets(np.array([[0], [1]]))
    assert targets.labels.tolist() == [0, 1]
    assert targets.exclusive


HOLED = pd.DataFrame({"a": [0, 1], "b": [1, 0]}).astype("Int64")
HOLED.iloc[1, 0] = pd.NA


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([["a", np.nan], ["b"]], ValueError, r"y\[0\] has the label nan: drop"),
        ([["a"], ["b", None]], ValueError, r"y\[1\] has the label None: drop"),
        (["a", np.nan], ValueError, r"y\[1\] has the label nan"),
        ([["a"], None], ValueError, r"y\[1\]=None is no list"),
        ([[0, 1], [1]], ValueError, "rows of 1 to 2 numbers.*labels are texts"),
        (HOLED, ValueError, "no value in row 1, column 'a'"),
        ([[1, np.nan], [0, 1]], ValueError, "NaN"),
        ([[1, 0.5], [0, 1]], ValueError, r"y has 0\.5 in row 0, column 1"),
        ([[1, -1], [0, 1]], ValueError, r"y has -1 in row 0, column 1"),
        ("dog", TypeError, "y is a str"),
        ({"dog": 1}, TypeError, "y is a dict"),
        (None, ValueError, "requires y"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_target(y, error, message):
    with pytest.raises(error, match=message):
        read_targets(y)


def test_candidates_are_labels():
    with pytest.raises(ValueError, match=r"\['a', None\] holds None"):
        check_candidate_labels(["a", None])
