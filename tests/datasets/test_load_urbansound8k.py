import csv
import os

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import cross_val_score

from sklabelaudio.datasets import load_urbansound8k

HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class"
# The first has whole numbers as spreadsheet programs write them.
ROWS = [
    "100032-3-0-0.wav,100032,0,0.317551,1,5,3,dog_bark",
    "100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing",
    "100263-2-0-121.wav,100263,60.5,64.5,1,5,2,children_playing",
    "100648-1-0-0.wav,100648,4.823402,5.471927,2,10,1,car_horn",
    "100852-0-0-0.wav,100852,0.0,4.0,1,1,0,air_conditioner",
    "101848-9-0-0.wav,101848,0.0,4.0,1,7,9,street_music",
]
CELLS = [row.split(",") for row in ROWS]


@pytest.fixture
def folder(tmp_path):
    """Six empty files in the layout of UrbanSound8K."""
    (tmp_path / "metadata").mkdir()
    for fold in range(1, 11):
        (tmp_path / "audio" / f"fold{fold}").mkdir(parents=True)
    for cells in CELLS:
        (tmp_path / "audio" / f"fold{cells[5]}" / cells[0]).touch()
    write_table(tmp_path, [HEADER, *ROWS])
    return tmp_path


def write_table(folder, lines, **options):
    path = folder / "metadata" / "UrbanSound8K.csv"
    path.write_text("\n".join(lines) + "\n", **options)


def test_the_bunch(folder):
    urban = load_urbansound8k(folder)
    assert urban.data.tolist() == [
        str(folder / "audio" / f"fold{cells[5]}" / cells[0]) for cells in CELLS
    ]
    assert all(os.path.isfile(path) for path in urban.data)
    assert urban.target.tolist() == [cells[7] for cells in CELLS]
    assert urban.fold.tolist() == [5, 5, 5, 10, 1, 7]
    assert urban.groups.tolist() == [cells[1] for cells in CELLS]
    assert urban.salience.tolist() == [1, 1, 1, 2, 1, 1]
    assert urban.start.tolist() == [0, 58.5, 60.5, 4.823402, 0, 0]
    assert urban.end.tolist() == [0.317551, 62.5, 64.5, 5.471927, 4, 4]
    assert urban.target_names.tolist() == sorted({cells[7] for cells in CELLS})
    assert urban.filename == str(folder / "metadata" / "UrbanSound8K.csv")
    assert "Salamon" in urban.DESCR
    assert "only valid split" in urban.DESCR


def test_return_X_y(folder):
    urban = load_urbansound8k(folder)
    data, target = load_urbansound8k(folder, return_X_y=True)
    np.testing.assert_array_equal(data, urban.data)
    np.testing.assert_array_equal(target, urban.target)


def test_cv_tests_each_official_fold_once(folder):
    urban = load_urbansound8k(folder)
    tested = [sorted(set(urban.fold[test])) for _, test in urban.cv.split()]
    assert tested == [[1], [5], [7], [10]]
    for train, test in urban.cv.split():
        assert len(train) + len(test) == len(ROWS)
        assert not set(urban.groups[train]) & set(urban.groups[test])
    model = DummyClassifier(strategy="most_frequent")
    scores = cross_val_score(model, urban.data, urban.target, cv=urban.cv)
    assert len(scores) == 4


def test_paths_are_absolute_and_the_home_folder_is_expanded(folder, monkeypatch):
    expected = load_urbansound8k(folder).data.tolist()
    monkeypatch.chdir(folder.parent)
    assert load_urbansound8k(folder.name).data.tolist() == expected
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_urbansound8k(os.path.join("~", folder.name)).data.tolist() == expected


def test_columns_in_another_order_and_a_byte_order_mark(folder):
    expected = load_urbansound8k(folder)
    rows = [[*line.split(",")[::-1], "more"] for line in [HEADER, *ROWS]]
    write_table(folder, map(",".join, rows), encoding="utf-8-sig")
    got = load_urbansound8k(folder)
    for name in ("data", "target", "fold", "groups", "salience", "start", "end"):
        np.testing.assert_array_equal(got[name], expected[name])


def test_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"data_dir='.*nowhere' is not a folder; pass .* metadata/UrbanSound8K",
    ):
        load_urbansound8k(tmp_path / "nowhere")


def test_missing_table(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"UrbanSound8K\.csv is missing; data_dir must hold"
    ):
        load_urbansound8k(tmp_path)


def test_missing_audio_folder(folder):
    (folder / "audio").rename(folder / "sounds")
    with pytest.raises(
        FileNotFoundError, match=r"the folder .*audio is missing; .*UrbanSound8K\.csv"
    ):
        load_urbansound8k(folder)


def test_missing_fold_folder(folder):
    (folder / "audio" / "fold10").rename(folder / "audio" / "fold11")
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 6 clips .*: fold10/100648-1-0-0\.wav; put"
    ):
        load_urbansound8k(folder)


def test_a_clip_in_the_folder_of_another_fold_is_absent(folder):
    audio = folder / "audio"
    (audio / "fold7" / "101848-9-0-0.wav").rename(audio / "fold1" / "101848-9-0-0.wav")
    with pytest.raises(FileNotFoundError, match=r"fold7/101848-9-0-0\.wav"):
        load_urbansound8k(folder)


def test_absent_files_are_counted_and_the_first_named(folder):
    for cells in CELLS[1:]:
        (folder / "audio" / f"fold{cells[5]}" / cells[0]).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"5 of the 6 clips .*: fold5/100263-2-0-117\.wav, fold5/100263-2-0-121"
        r"\.wav, fold10/100648-1-0-0\.wav, \.\.\.; put .* out of .*UrbanSound8K\.csv",
    ):
        load_urbansound8k(folder)


def test_missing_columns(folder):
    write_table(folder, [HEADER.replace("fsID", "freesound_id"), *ROWS])
    with pytest.raises(
        ValueError,
        match=r"UrbanSound8K\.csv lacks the column fsID; .* separated by commas, and "
        r"is .*'freesound_id'",
    ):
        load_urbansound8k(folder)


@pytest.mark.parametrize("lines", [[HEADER], [HEADER, "", ""]])
def test_no_clip(folder, lines):
    write_table(folder, lines)
    with pytest.raises(ValueError, match=r"UrbanSound8K\.csv lists no clip"):
        load_urbansound8k(folder)


def test_a_file_that_is_no_table(folder):
    (folder / "metadata" / "UrbanSound8K.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"UrbanSound8K\.csv is no table in UTF-8"):
        load_urbansound8k(folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("slice_file_name", "", "slice_file_name is empty"),
        ("fsID", "x1", "fsID must be the number of a Freesound recording, got 'x1'"),
        ("start", "soon", "start must be a time in seconds, got 'soon'"),
        ("start", "-1", "start must be a time in seconds, got '-1'"),
        ("end", "nan", "end must be a time in seconds, got 'nan'"),
        ("end", "inf", "end must be a time in seconds, got 'inf'"),
        ("start", "4.5", r"end must be later than start=4\.5, got 4\.0"),
        ("salience", "3", "salience must be an integer from 1 to 2, got '3'"),
        ("fold", "0", "fold must be an integer from 1 to 10, got '0'"),
        ("fold", "11", "fold must be an integer from 1 to 10, got '11'"),
        ("fold", "1.0", r"fold must be an integer from 1 to 10, got '1\.0'"),
        ("classID", "10", "classID must be an integer from 0 to 9, got '10'"),
        ("classID", "4", "classID=4 is drilling, and class is 'siren'; correct one"),
        ("class", "dogbark", "class must be air_conditioner, .* got 'dogbark'"),
        ("class", "siren,8", r"more cells than the first line has: \['8'\]"),
    ],
)
def test_a_bad_row_is_named_by_its_line(folder, column, value, message):
    cells = ["1-8-0-0.wav", "1", "0.0", "4.0", "1", "1", "8", "siren"]
    cells[HEADER.split(",").index(column)] = value
    write_table(folder, [HEADER, *ROWS[:2], ",".join(cells), *ROWS[2:]])
    with pytest.raises(ValueError, match=rf"UrbanSound8K\.csv, line 4: {message}"):
        load_urbansound8k(folder)


@pytest.mark.parametrize("row", [ROWS[1], ROWS[1].replace(",5,2,", ",6,2,")])
def test_a_clip_listed_twice(folder, row):
    write_table(folder, [HEADER, *ROWS, row])
    with pytest.raises(
        ValueError,
        match=r"UrbanSound8K\.csv, line 8: slice_file_name='100263-2-0-117\.wav' "
        r"stands in line 3 already; keep one",
    ):
        load_urbansound8k(folder)


def test_every_class_has_its_number(folder):
    names = "air_conditioner car_horn children_playing dog_bark drilling engine_idling"
    names = [*names.split(), "gun_shot", "jackhammer", "siren", "street_music"]
    rows = []
    for number, name in enumerate(names):
        clip = f"7-{number}-0-0.wav"
        (folder / "audio" / "fold2" / clip).touch()
        rows.append(f"{clip},7,0.0,4.0,1,2,{number},{name}")
    write_table(folder, [HEADER, *rows])
    with open(folder / "metadata" / "UrbanSound8K.csv", newline="") as file:
        expected = [row["class"] for row in csv.DictReader(file)]
    assert load_urbansound8k(folder).target.tolist() == expected
