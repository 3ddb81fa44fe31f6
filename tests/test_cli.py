"""The command line: what it prints, what it writes, and how it fails."""

import csv
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

import sklabelaudio
from sklabelaudio import (
    EfficientATEmbedder,
    LabelTextEmbedder,
    TaggerZeroShotClassifier,
    _demo,
    load_esc50,
    make_sound_events,
)
from sklabelaudio.cli import main

CLASSES = ["clock_tick", "footsteps", "helicopter", "rain", "thunder", "wind"]
# Enough for five times five clips of each class.
N_CLIPS = 25
ROW = re.compile(
    r"\S.*? +(?P<chance>\d\.\d+) +(?P<accuracy>\d\.\d+) ± (?P<spread>\d\.\d+)\b"
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run each test in a folder of its own, and draw no windows."""
    matplotlib.use("Agg")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def few_sounds(monkeypatch):
    """Let the demo make fewer and shorter sounds than it does."""

    def make(*args, random_state):
        return make_sound_events(N_CLIPS, duration=0.5, random_state=random_state)

    monkeypatch.setattr(_demo, "make_sound_events", make)


def write_esc50(folder, *, classes=CLASSES, n_clips=N_CLIPS):
    """Write short sounds in the layout of ESC-50."""
    events = make_sound_events(n_clips, classes=classes, duration=0.5, random_state=0)
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    with open(folder / "meta" / "esc50.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
        )
        for i, (clip, label) in enumerate(zip(events.data, events.target, strict=True)):
            name = f"{i}.wav"
            soundfile.write(folder / "audio" / name, clip, events.sampling_rate)
            target = classes.index(label)
            table.writerow([name, events.fold[i], target, label, "True", i, "A"])
    return folder


@pytest.fixture(scope="module")
def esc50(tmp_path_factory):
    return write_esc50(tmp_path_factory.mktemp("data") / "esc50")


def write_words(path, classes=CLASSES):
    """Write the attributes of labels as vectors of their words, as word2vec does."""
    attributes = make_sound_events(1).attributes
    words = {word: attributes[label] for label in classes for word in label.split("_")}
    lines = [f"{len(words)} {len(attributes[classes[0]])}"]
    lines += [" ".join([word, *map(str, vector)]) for word, vector in words.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_table(output):
    """Return the rows of the table that a run prints, and the paths of its pictures."""
    lines = output.splitlines()
    assert any("chance" in line and "accuracy" in line for line in lines)
    rows = [
        {key: float(value) for key, value in row.groupdict().items()}
        for row in map(ROW.match, lines)
        if row
    ]
    (listing,) = [line for line in lines if line.startswith("pictures:")]
    return rows, listing.removeprefix("pictures:").strip().split(", ")


def check_run(output, folder, *, n_classes, names_unheard):
    """Check the table and the pictures of a run that went well."""
    rows, pictures = read_table(output)
    chance = round(1 / n_classes, 3)
    assert {row["chance"] for row in rows} >= {chance}
    # Clips of classes never heard are named among fewer labels.
    assert any(row["chance"] > chance for row in rows) == names_unheard
    for row in rows:
        assert 1.5 * row["chance"] < row["accuracy"] <= 1
        assert 0 <= row["spread"] < 0.3
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(written) == sorted(folder / path for path in pictures)
    for path in written:
        assert_is_a_picture(path)


def assert_is_a_picture(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = imread(path)
    assert min(pixels.shape[:2]) >= 300
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 10


@pytest.mark.usefixtures("few_sounds")
def test_demo_names_sounds_never_heard(empty_folder, capsys):
    assert main(["demo"]) == 0
    output = capsys.readouterr()
    check_run(output.out, empty_folder, n_classes=16, names_unheard=True)
    assert "clip/s" in output.err  # the progress


def test_demo_runs_without_a_warning_as_a_command(empty_folder):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sklabelaudio.cli", "demo", "--quiet"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    check_run(run.stdout, empty_folder, n_classes=16, names_unheard=True)


def test_demo_on_a_folder(esc50, empty_folder, capsys):
    assert main(["demo", "--data", str(esc50), "--out", "pictures", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    check_run(output.out, empty_folder, n_classes=len(CLASSES), names_unheard=False)
    assert [path.name for path in empty_folder.iterdir()] == ["pictures"]


def test_demo_on_a_folder_with_a_text_model(esc50, tmp_path, empty_folder, capsys):
    words = write_words(tmp_path / "words.txt")
    command = ["demo", "--data", str(esc50), "--text-model", str(words), "--quiet"]
    assert main(command) == 0
    check_run(
        capsys.readouterr().out,
        empty_folder,
        n_classes=len(CLASSES),
        names_unheard=True,
    )


def test_demo_is_repeatable(esc50, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["demo", "--data", str(esc50), "--quiet", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_demo_takes_a_folder_with_few_clips(tmp_path, empty_folder, capsys):
    folder = write_esc50(tmp_path / "few", n_clips=10)
    assert main(["demo", "--data", str(folder), "--quiet"]) == 0
    check_run(
        capsys.readouterr().out,
        empty_folder,
        n_classes=len(CLASSES),
        names_unheard=False,
    )


@pytest.fixture
def words(small_tagger, tmp_path):
    """Vectors for the words of the tagger's classes, and at random for the clips'."""
    lines = (small_tagger / "words.txt").read_text().splitlines()
    rng = np.random.default_rng(1)
    new = {word for label in CLASSES for word in label.split("_")} - {"rain"}
    lines += [" ".join([word, *map(str, rng.normal(size=64))]) for word in sorted(new)]
    path = tmp_path / "words.txt"
    path.write_text("\n".join([f"{len(lines) - 1} 64", *lines[1:]]) + "\n")
    return path


def test_demo_with_a_tagger(esc50, small_tagger, words, empty_folder, capsys):
    command = ["demo", "--data", str(esc50), "--text-model", str(words)]
    command += ["--weights", str(small_tagger / "efficientat.pt")]
    assert main(command) == 0
    output = capsys.readouterr()
    assert "embedding the clips by" in output.err
    rows, pictures = read_table(output.out)
    assert len(rows) == 5
    (untrained,) = [line for line in output.out.splitlines() if "no training" in line]
    data = load_esc50(esc50)
    tagger = EfficientATEmbedder(
        small_tagger / "efficientat.pt", output="probabilities"
    )
    classifier = TaggerZeroShotClassifier(
        LabelTextEmbedder(words),
        tagger_labels=small_tagger / "class_labels_indices.csv",
        candidate_labels=CLASSES,
    ).fit()
    accuracy = np.mean(
        classifier.predict(tagger.fit_transform(data.data)) == data.target
    )
    assert untrained.split()[-5:-3] == [f"{1 / 6:.3f}", f"{accuracy:.3f}"]
    assert rows[0]["accuracy"] > 0.5  # even a random encoder tells some apart
    names = [path.rpartition("/")[2] for path in pictures]
    assert names[0] == "log_mel.png"
    assert names[-1] == "confusion_untrained.png"
    for path in pictures:
        assert_is_a_picture(empty_folder / path)


def test_demo_without_a_list_of_classes(
    esc50, small_tagger, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "home"))
    weights = tmp_path / "efficientat.pt"
    weights.write_bytes((small_tagger / "efficientat.pt").read_bytes())
    command = ["demo", "--data", str(esc50), "--text-model", str(words), "--quiet"]
    command += ["--weights", str(weights)]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "--tagger-labels FILE" in output
    assert "no training" not in output
    listing = tmp_path / "few.txt"
    listing.write_text("w1\nw2\n")
    assert main([*command, "--tagger-labels", str(listing)]) == 1
    assert "lists 2 classes" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.split() == ["sklabelaudio", sklabelaudio.__version__]


def test_help_gives_examples(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["demo", "--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    examples = text.partition("examples:")[2]
    assert "sklabelaudio demo --data" in examples
    assert "--text-model" in examples


def assert_fails(arguments, message, folder, capsys):
    """Check that a command fails with one line, and writes nothing."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sklabelaudio: ")
    assert re.search(message, line), line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], r"nowhere.* is not a folder"),
        (["--text-model", "words.txt"], r"--text-model=words\.txt is for .*--data"),
        (["--seed", "-1"], r"must be an int .* Got -1"),
        (["--weights", "mn04_as"], r"--weights=mn04_as is for .*--data"),
        (["--encoder", "yamnet"], r"--encoder=yamnet goes with --weights"),
        (["--tagger-labels", "x.csv"], r"--tagger-labels=x\.csv goes with --weights"),
    ],
)
def test_bad_arguments_are_told(arguments, message, empty_folder, capsys):
    assert_fails(["demo", *arguments], message, empty_folder, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2\nrain 1 0\n", "no vector for 'clock_tick'"),
        ("no words\n", "can't be read as word vectors"),
    ],
)
def test_bad_text_models_are_told(
    content, message, esc50, tmp_path, empty_folder, capsys
):
    words = tmp_path / "words.txt"
    words.write_text(content)
    arguments = ["demo", "--data", str(esc50), "--text-model", str(words), "--quiet"]
    assert_fails(arguments, message, empty_folder, capsys)


def test_a_damaged_file_is_told(tmp_path, empty_folder, capsys):
    folder = write_esc50(tmp_path / "damaged")
    (folder / "audio" / "3.wav").write_bytes(b"no sound")
    message = rf"can't read '{re.escape(str(folder))}/audio/3\.wav'"
    assert_fails(
        ["demo", "--data", str(folder), "--quiet"], message, empty_folder, capsys
    )


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_too_few_classes_are_told(n_classes, tmp_path, empty_folder, capsys):
    folder = write_esc50(tmp_path / "data", classes=CLASSES[:n_classes])
    words = write_words(tmp_path / "words.txt", CLASSES[:n_classes])
    arguments = ["demo", "--data", str(folder), "--text-model", str(words), "--quiet"]
    assert_fails(arguments, "class", empty_folder, capsys)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--seed", "one"]])
def test_usage_errors(arguments, empty_folder, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    *usage, line = capsys.readouterr().err.splitlines()
    assert usage[0].startswith("usage: sklabelaudio")
    assert "error: " in line
    assert all(word in line for word in arguments[-1:])
    assert list(empty_folder.iterdir()) == []
