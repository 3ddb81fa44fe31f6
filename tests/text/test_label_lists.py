import pytest

from sklabelaudio.text import _label_lists

read_label_list = _label_lists.read_label_list

TABLE = [
    "index,mid,display_name",
    '0,/m/09b5t,"Chicken, rooster"',
    "1,/m/0838f,Écoulement d'eau",
    "2,/m/06mb1,Rain",
]
LABELS = ["Chicken, rooster", "Écoulement d'eau", "Rain"]


def write(path, lines, end="\n", encoding="utf-8"):
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


@pytest.mark.parametrize("name", ["classes.csv", "CLASSES.CSV", "classes"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables(tmp_path, end, encoding, name):
    assert read_label_list(write(tmp_path / name, TABLE, end, encoding)) == LABELS


def test_other_columns_and_their_order_do_not_matter(tmp_path):
    lines = ["display_name,index", '"Chicken, rooster",0', "Rain,1"]
    path = write(tmp_path / "classes.csv", lines)
    assert read_label_list(str(path)) == ["Chicken, rooster", "Rain"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts(tmp_path, end, encoding):
    path = write(tmp_path / "labels.txt", [*LABELS, "", ""], end, encoding)
    assert read_label_list(path) == LABELS


def test_published_lists(shared):
    # The counts are those of AudioSet and of YAMNet, which leaves six classes out.
    audioset = read_label_list(
        shared / "data" / "audioset" / "class_labels_indices.csv"
    )
    yamnet = read_label_list(
        shared / "reference" / "checkpoints" / "yamnet" / "yamnet_class_map.csv"
    )
    assert (len(audioset), len(yamnet)) == (527, 521)
    assert audioset[1] == "Male speech, man speaking"
    assert set(audioset) - set(yamnet) == {
        "Male speech, man speaking",
        "Female speech, woman speaking",
        "Male singing",
        "Female singing",
        "Battle cry",
        "Funny music",
    }
    assert [label for label in audioset if label in set(yamnet)] == yamnet


@pytest.mark.parametrize(
    ("name", "lines", "match"),
    [
        ("a.csv", [], "a.csv is empty"),
        ("a.txt", ["", " "], "a.txt is empty"),
        ("a.csv", TABLE[:1], "a.csv holds no label"),
        ("a.csv", TABLE[1:], "a.csv, line 1: the column display_name and index is mi"),
        ("a.csv", ["index,name", "0,Rain"], "line 1: the column display_name is miss"),
        ("a.csv", [*TABLE, "4,/m/1,Dog"], r"line 5: index must be 3, got '4'; .*order"),
        ("a.csv", [*TABLE, "2,/m/1,Dog"], "line 5: index must be 3, got '2'"),
        ("a.csv", [*TABLE, "x,/m/1,Dog"], "line 5: index must be 3, got 'x'"),
        ("a.csv", [*TABLE, "3,/m/1,"], "line 5: the label is missing"),
        ("a.csv", [*TABLE, "3"], "line 5: the label is missing"),
        (
            "a.csv",
            [*TABLE, "3,/m/1,Rain"],
            "'Rain' is there already, in line 4",
        ),
        ("a.txt", ["Dog", "", "Rain"], "a.txt, line 2: the label is missing"),
        ("a.txt", ["Dog", "Rain", "Dog"], "line 3: 'Dog' is there already, in line 1"),
        ("a.csv", ["<!DOCTYPE html>", "<p>404"], "a.csv is a web page"),
        ("a.txt", ["<html>", "404"], "a.txt is a web page"),
    ],
)
def test_faults_are_told_by_the_line(tmp_path, name, lines, match):
    with pytest.raises(ValueError, match=match) as info:
        read_label_list(write(tmp_path / name, lines))
    assert str(tmp_path) in str(info.value)


def test_what_is_no_text(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"Dog\nR\xe9gion\n")
    with pytest.raises(ValueError, match=r"labels\.txt, line 2: it is no text in UTF-"):
        read_label_list(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.txt"):
        read_label_list(tmp_path / "labels.txt")
