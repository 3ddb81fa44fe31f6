import csv
import os

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import LeaveOneGroupOut, PredefinedSplit, cross_val_score

from sklabelaudio.datasets import load_esc50

HEADER = "filename,fold,target,category,esc10,src_file,take"
ROWS = [
    "1-17-A-0.wav,1,0,dog,True,17,A",
    "1-17-B-0.wav,1,0,dog,True,17,B",
    "2-9-A-11.wav,2,11,sea_waves,True,9,A",
    "3-8-A-25.wav,3,25,footsteps,False,8,A",
    "4-7-A-39.wav,4,39,glass_breaking,False,7,A",
    "5-6-A-46.wav,5,46,church_bells,False,6,A",
]


@pytest.fixture
def folder(tmp_path):
    """Six empty files in the layout of ESC-50."""
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta").mkdir()
    for row in ROWS:
        (tmp_path / "audio" / row.split(",")[0]).touch()
    write_table(tmp_path, [HEADER, *ROWS])
    return tmp_path


def write_table(folder, lines, **options):
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", **options)


def test_the_bunch(folder):
    esc50 = load_esc50(folder)
    names = [row.split(",")[0] for row in ROWS]
    assert esc50.data.tolist() == [str(folder / "audio" / name) for name in names]
    assert esc50.target.tolist() == [row.split(",")[3] for row in ROWS]
    assert esc50.fold.tolist() == [1, 1, 2, 3, 4, 5]
    assert [test.tolist() for _, test in esc50.cv.split()] == [
        [0, 1],
        [2],
        [3],
        [4],
        [5],
    ]
    assert esc50.groups.tolist() == [
        "animals",
        "animals",
        "natural",
        "human",
        "interior",
        "exterior",
    ]
    assert esc50.source.tolist() == ["17", "17", "9", "8", "7", "6"]
    assert esc50.take.tolist() == ["A", "B", "A", "A", "A", "A"]
    assert esc50.target_names.tolist() == sorted(set(esc50.target))
    assert esc50.filename == str(folder / "meta" / "esc50.csv")
    assert "Piczak" in esc50.DESCR


def test_subset_keeps_esc10(folder):
    esc10 = load_esc50(folder, subset="esc10")
    assert esc10.target.tolist() == ["dog", "dog", "sea_waves"]
    assert esc10.target_names.tolist() == ["dog", "sea_waves"]
    assert esc10.fold.tolist() == [1, 1, 2]


def test_files_outside_the_subset_may_be_absent(folder):
    (folder / "audio" / "5-6-A-46.wav").unlink()
    assert len(load_esc50(folder, subset="esc10").data) == 3


def test_return_X_y(folder):
    esc50 = load_esc50(folder)
    data, target = load_esc50(folder, return_X_y=True)
    np.testing.assert_array_equal(data, esc50.data)
    np.testing.assert_array_equal(target, esc50.target)


def test_paths_are_absolute_and_the_home_folder_is_expanded(folder, monkeypatch):
    expected = load_esc50(folder).data.tolist()
    monkeypatch.chdir(folder.parent)
    assert load_esc50(folder.name).data.tolist() == expected
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_esc50(os.path.join("~", folder.name)).data.tolist() == expected


def test_columns_in_another_order_and_a_byte_order_mark(folder):
    expected = load_esc50(folder)
    rows = [[*line.split(",")[::-1], "more"] for line in [HEADER, *ROWS]]
    write_table(folder, map(",".join, rows), encoding="utf-8-sig")
    got = load_esc50(folder)
    for name in ("data", "target", "fold", "groups", "source", "take"):
        np.testing.assert_array_equal(got[name], expected[name])


def test_official_folds_in_cross_validation(folder):
    esc50 = load_esc50(folder)
    for options in (
        {"cv": esc50.cv},
        {"cv": PredefinedSplit(esc50.fold)},
        {"cv": LeaveOneGroupOut(), "groups": esc50.fold},
    ):
        scores = cross_val_score(
            DummyClassifier(strategy="most_frequent"),
            esc50.data,
            esc50.target,
            **options,
        )
        assert len(scores) == 5


def test_esc10_folder(esc10):
    dataset = load_esc50(esc10)
    with open(esc10 / "meta" / "esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [os.path.basename(path) for path in dataset.data]
    assert names == [row["filename"] for row in rows]
    assert dataset.target.tolist() == [row["category"] for row in rows]
    assert all(os.path.isabs(path) and os.path.isfile(path) for path in dataset.data)
    assert np.bincount(dataset.fold).tolist() == [0, 80, 80, 80, 80, 80]
    labels, counts = np.unique(dataset.target, return_counts=True)
    assert labels.tolist() == dataset.target_names.tolist()
    assert counts.tolist() == [40] * 10
    assert {
        group: sorted(set(dataset.target[dataset.groups == group]))
        for group in sorted(set(dataset.groups))
    } == {
        "animals": ["dog", "rooster"],
        "exterior": ["chainsaw", "helicopter"],
        "human": ["crying_baby", "sneezing"],
        "interior": ["clock_tick"],
        "natural": ["crackling_fire", "rain", "sea_waves"],
    }
    for source in set(dataset.source):
        assert len(set(dataset.fold[dataset.source == source])) == 1
    assert len(load_esc50(esc10, subset="esc10").data) == 400


def test_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data_dir='.*nowhere' is not a folder"
    ):
        load_esc50(tmp_path / "nowhere")


def test_missing_table(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"esc50\.csv is missing; data_dir must"
    ):
        load_esc50(tmp_path)


def test_missing_audio_folder(folder):
    (folder / "audio").rename(folder / "sounds")
    with pytest.raises(FileNotFoundError, match=r"the folder .*audio is missing"):
        load_esc50(folder)


def test_missing_columns(folder):
    write_table(folder, ["filename,fold,target,category,esc10", ROWS[0]])
    with pytest.raises(
        ValueError, match=r"esc50\.csv lacks the column src_file, take;"
    ):
        load_esc50(folder)


def test_an_empty_table_lacks_every_column(folder):
    (folder / "meta" / "esc50.csv").write_text("")
    with pytest.raises(ValueError, match="lacks the column filename, fold"):
        load_esc50(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "1-17-A-0.wav,one,0,dog,True,17,A",
            "fold must be an integer from 1 to 5, got",
        ),
        ("1-17-A-0.wav,6,0,dog,True,17,A", "fold must be an integer .* got '6'"),
        ("1-17-A-0.wav,1,50,dog,True,17,A", "target must be an integer from 0 to 49"),
        ("1-17-A-0.wav,1,-1,dog,True,17,A", "target must be an integer .* got '-1'"),
        ("1-17-A-0.wav,1,0,dog,yes,17,A", "esc10 must be True or False, got 'yes'"),
        ("1-17-A-0.wav,1,0,,True,17,A", "category is empty"),
        ("1-17-A-0.wav,1,0,dog,True", "src_file is empty"),
    ],
)
def test_a_bad_row_is_named_by_its_line(folder, row, message):
    write_table(folder, [HEADER, *ROWS[:2], row, *ROWS[2:]])
    with pytest.raises(ValueError, match=rf"esc50\.csv, line 4: {message}"):
        load_esc50(folder)


def test_a_clip_listed_twice(folder):
    write_table(folder, [HEADER, *ROWS, ROWS[0].replace(".wav,1,", ".wav,2,")])
    with pytest.raises(
        ValueError, match=r"line 8: filename='1-17-A-0\.wav' stands in line 2 already"
    ):
        load_esc50(folder)


def test_absent_files_are_counted_and_the_first_named(folder):
    for row in ROWS[1:]:
        (folder / "audio" / row.split(",")[0]).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"5 of the 6 clips .*: 1-17-B-0.wav, 2-9-A-11.wav, 3-8-A-25.wav, \.\.\.",
    ):
        load_esc50(folder)


def test_no_clip_in_the_table_or_in_the_subset(folder):
    write_table(folder, [HEADER, *ROWS[3:]])
    with pytest.raises(ValueError, match=r"esc50\.csv lists no clip of ESC-10"):
        load_esc50(folder, subset="esc10")
    write_table(folder, [HEADER])
    with pytest.raises(ValueError, match=r"esc50\.csv lists no clip$"):
        load_esc50(folder)


def test_unknown_subset(folder):
    with pytest.raises(ValueError, match=r"'subset' parameter of load_esc50 .*'esc10'"):
        load_esc50(folder, subset="esc20")
