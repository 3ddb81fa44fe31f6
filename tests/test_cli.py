"""The command line: what it prints, what it writes, and how it fails."""

import csv
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

import sklabelaudio
from sklabelaudio import _demo, make_sound_events
from sklabelaudio.cli import main

CLASSES = ["clock_tick", "engine", "rain", "siren", "whistle"]
# Enough for five times five clips of each class.
N_CLIPS = 25
ROW = re.compile(
    r"^(?P<name>\S.*?) +(?P<chance>\d\.\d+) +(?P<accuracy>\d\.\d+) ± (?P<spread>\d\.\d+)"
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run each test in a folder of its own, and draw no windows."""
    pytest.importorskip("matplotlib").use("Agg")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def few_sounds(monkeypatch):
    """Let the demo make fewer sounds than it does."""

    def make(*args, random_state):
        return make_sound_events(N_CLIPS, random_state=random_state)

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
    rows = [row.groupdict() for row in map(ROW.match, lines) if row]
    for row in rows:
        row |= {key: float(row[key]) for key in ("chance", "accuracy", "spread")}
    (listing,) = [line for line in lines if line.startswith("pictures:")]
    return rows, [Path(name) for name in listing.removeprefix("pictures:").split(", ")]
