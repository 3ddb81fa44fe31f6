import os

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score

from sklabelaudio.datasets import load_tau_urban_scenes

TRAIN = [
    "airport-lisbon-1000-40000-a",
    "street_traffic-prague-1033-40040-b",
    "airport-barcelona-0-0-a",
    "metro_station-lyon-1010-40010-s1",
]
UNUSED = ["airport-lisbon-1000-40000-s4"]
TEST = [
    "airport-barcelona-203-6129-a",
    "bus-paris-214-6518-s6",
]
# Not in the order of the split: it must be found by name.
CLIPS = [TEST[1], *TRAIN, TEST[0], *UNUSED]
HEADER = "filename\tscene_label\tidentifier\tsource_label"


def name_2022(clip):
    """Return the name of the fourth second of a segment."""
    segment, device = clip.rsplit("-", 1)
    return f"{segment}-3-{device}"


def describe(clip):
    scene, city, location, *_, device = clip.split("-")
    return f"audio/{clip}.wav\t{scene}\t{city}-{location}\t{device}"


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")


def write_set(folder, rename):
    clips, train, test = ([*map(rename, names)] for names in (CLIPS, TRAIN, TEST))
    (folder / "audio").mkdir()
    (folder / "evaluation_setup").mkdir()
    for clip in clips:
        (folder / "audio" / f"{clip}.wav").touch()
    write(folder / "meta.csv", [HEADER, *map(describe, clips)])
    for name, listed in (("train", train), ("evaluate", test)):
        lines = [f"audio/{clip}.wav\t{clip.split('-')[0]}" for clip in listed]
        path = folder / "evaluation_setup" / f"fold1_{name}.csv"
        write(path, ["filename\tscene_label", *lines])
    path = folder / "evaluation_setup" / "fold1_test.csv"
    write(path, ["filename", *(f"audio/{clip}.wav" for clip in test)])
    return folder


@pytest.fixture
def folder(tmp_path):
    """Seven empty files in the layout of 2020."""
    return write_set(tmp_path, str)


@pytest.mark.parametrize("rename", [str, name_2022])
def test_the_bunch(tmp_path, rename):
    folder = write_set(tmp_path, rename)
    scenes = load_tau_urban_scenes(folder)
    assert scenes.data.tolist() == [
        str(folder / "audio" / f"{rename(clip)}.wav") for clip in CLIPS
    ]
    assert all(os.path.isfile(path) for path in scenes.data)
    parts = [clip.split("-") for clip in CLIPS]
    assert scenes.target.tolist() == [part[0] for part in parts]
    assert scenes.city.tolist() == [part[1] for part in parts]
    assert scenes.location.tolist() == [f"{part[1]}-{part[2]}" for part in parts]
    assert scenes.groups.tolist() == scenes.location.tolist()
    assert scenes.device.tolist() == [part[-1] for part in parts]
    assert scenes.target_names.tolist() == sorted({part[0] for part in parts})
    assert scenes.filename == str(folder / "meta.csv")
    assert "Mesaros" in scenes.DESCR


def test_cv_is_the_official_split_and_leaves_the_rest_out(folder):
    scenes = load_tau_urban_scenes(folder)
    ((train, test),) = scenes.cv
    assert [CLIPS[index] for index in train] == TRAIN
    assert [CLIPS[index] for index in test] == TEST
    model = DummyClassifier(strategy="most_frequent")
    # Three of four train on airport or not, one of two tests it.
    scores = cross_val_score(model, scenes.data, scenes.target, cv=scenes.cv)
    assert scores.tolist() == [0.5]


def test_groups_of_cities_and_devices(folder):
    scenes = load_tau_urban_scenes(folder)
    split = LeaveOneGroupOut()
    assert split.get_n_splits(groups=scenes.city) == 5
    assert split.get_n_splits(groups=scenes.device) == 5


def test_subsets(folder):
    for subset, clips in (("train", TRAIN), ("test", TEST)):
        scenes = load_tau_urban_scenes(folder, subset)
        assert [os.path.basename(path)[:-4] for path in scenes.data] == clips
        assert scenes.target.tolist() == [clip.split("-")[0] for clip in clips]
        assert scenes.device.tolist() == [clip.split("-")[-1] for clip in clips]
        assert scenes.cv is None


def test_files_outside_the_subset_may_be_absent(folder):
    (folder / "audio" / f"{TRAIN[0]}.wav").unlink()
    assert len(load_tau_urban_scenes(folder, "test").data) == 2
    with pytest.raises(
        FileNotFoundError, match=rf"1 of the 7 clips .*: {TRAIN[0]}\.wav; put"
    ):
        load_tau_urban_scenes(folder)


@pytest.mark.parametrize("subset", ["evaluation", None])
def test_unknown_subset(folder, subset):
    with pytest.raises(ValueError, match="'subset' parameter of load_tau_urban_scenes"):
        load_tau_urban_scenes(folder, subset)


def test_return_X_y(folder):
    scenes = load_tau_urban_scenes(folder)
    data, target = load_tau_urban_scenes(folder, return_X_y=True)
    np.testing.assert_array_equal(data, scenes.data)
    np.testing.assert_array_equal(target, scenes.target)


def test_the_list_without_scenes_serves_where_the_other_is_missing(folder):
    expected = load_tau_urban_scenes(folder).cv
    (folder / "evaluation_setup" / "fold1_evaluate.csv").unlink()
    np.testing.assert_array_equal(load_tau_urban_scenes(folder).cv[0][1], [5, 0])
    np.testing.assert_array_equal(expected[0][1], [5, 0])


def test_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data_dir='.*nowhere' is not a folder; pass the one"
    ):
        load_tau_urban_scenes(tmp_path / "nowhere")


def test_the_folder_of_the_evaluation_set(folder):
    (folder / "meta.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"meta\.csv is missing; .*evaluation set has no labels"
    ):
        load_tau_urban_scenes(folder)


def test_missing_audio_folder(folder):
    (folder / "audio").rename(folder / "sounds")
    with pytest.raises(FileNotFoundError, match=r"the folder .*audio is missing; it"):
        load_tau_urban_scenes(folder)


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        (["fold1_train.csv"], "fold1_train"),
        (["fold1_evaluate.csv", "fold1_test.csv"], "fold1_test"),
    ],
)
def test_missing_lists(folder, removed, missing):
    for name in removed:
        (folder / "evaluation_setup" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{missing}\.csv is missing; data_dir"
    ):
        load_tau_urban_scenes(folder)


def test_commas_for_tabs(folder):
    path = folder / "meta.csv"
    path.write_text(path.read_text().replace("\t", ","))
    with pytest.raises(
        ValueError, match=r"meta\.csv lacks the column filename, .* separated by tabs"
    ):
        load_tau_urban_scenes(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "audio/zoo-lyon-1-1-a.wav\tzoo\tlyon-1\ta",
            "scene_label must be airport, bus, .* or tram, got 'zoo'",
        ),
        ("audio/bus-lyon-1-1-a.wav\tbus\tlyon-1\t", "source_label is empty"),
        ("audio/bus-lyon-1-1-a.wav\tbus\tlyon-1", "source_label is empty"),
        (
            "audio/bus-lyon-1-1-a.wav\ttram\tlyon-1\ta",
            r"filename='audio/bus-lyon-1-1-a\.wav' must be .* scene_label='tram'",
        ),
        ("audio/bus-lyon-1-1-a.wav\tbus\tlyon-2\ta", "filename=.* identifier='lyon-2'"),
        ("audio/bus-lyon-1-1-a.wav\tbus\tlyon-1\tb", "filename=.* source_label='b'"),
        ("audio/bus-lyon-1-1-a.wav\tbus\tlyon\ta", "filename=.* identifier='lyon'"),
        ("bus-lyon-1-1-a.wav\tbus\tlyon-1\ta", "filename=.* must be audio/ and"),
        ("audio/bus-lyon-1-a.wav\tbus\tlyon-1\ta", "filename=.* must be audio/ and"),
        ("audio/bus-lyon-1-1-a\tbus\tlyon-1\ta", "filename=.* must be audio/ and"),
        (
            f"audio/{CLIPS[1]}.wav\tairport\tlisbon-1000\ta",
            rf"filename='audio/{CLIPS[1]}\.wav' stands in line 3 already",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(folder, row, message):
    lines = (folder / "meta.csv").read_text().splitlines()
    write(folder / "meta.csv", [*lines[:3], row, *lines[3:]])
    with pytest.raises(ValueError, match=rf"meta\.csv, line 4: {message}"):
        load_tau_urban_scenes(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "audio/bus-lyon-1-1-a.wav\tbus",
            r"filename='audio/bus-lyon-1-1-a.wav' is not",
        ),
        (f"audio/{TRAIN[0]}.wav\tairport", r".* stands in .*fold1_train\.csv too"),
        (f"audio/{UNUSED[0]}.wav\tbus", ".* has scene_label='bus', and 'airport' in"),
        (f"audio/{TEST[0]}.wav\tairport", ".* stands in line 2 already"),
    ],
)
def test_a_contradiction_is_named_by_its_line(folder, row, message):
    path = folder / "evaluation_setup" / "fold1_evaluate.csv"
    write(path, [*path.read_text().splitlines(), row])
    with pytest.raises(ValueError, match=rf"fold1_evaluate\.csv, line 4: {message}"):
        load_tau_urban_scenes(folder)


def test_no_clip(folder):
    path = folder / "evaluation_setup" / "fold1_train.csv"
    write(path, ["filename\tscene_label"])
    with pytest.raises(ValueError, match=r"fold1_train\.csv lists no clip"):
        load_tau_urban_scenes(folder)
    write(folder / "meta.csv", [HEADER])
    with pytest.raises(ValueError, match=r"meta\.csv lists no clip"):
        load_tau_urban_scenes(folder)
