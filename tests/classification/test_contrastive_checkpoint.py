import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from sklabelaudio.audio import RandomShift
from sklabelaudio.classification import (
    SemanticContrastiveClassifier,
    SpectrogramCNNClassifier,
    _contrastive_training,
)
from sklabelaudio.classification._training_state import (
    TrainingFolder,
    describe_params,
)
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.text import LabelTextEmbedder

ROOT = Path(__file__).parents[2]
LABELS = ["bell", "cat", "dog", "rain"]
TEXTS = {label: np.eye(5)[k] + 0.1 for k, label in enumerate(LABELS)}


class Encoder(nn.Module):
    """Draws from torch's global generator, and has statistics of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=4), nn.BatchNorm2d(8), nn.Dropout(0.3)
        )

    def forward(self, log_mel):
        return self.layers(log_mel.mT.unsqueeze(1))


class Scores(Encoder):
    """It with scores of classes."""

    def __init__(self, n_classes):
        super().__init__()
        self.head = nn.Linear(8, n_classes)

    def forward(self, log_mel):
        return self.head(super().forward(log_mel).mean(dim=(2, 3)))


class Killed(BaseException):
    """What no one catches."""


class Killer(Callback):
    """Ends the process, or what stands for it, in an epoch's second batch."""

    def __init__(self, epoch, n_batch=2):
        self.epoch = epoch
        self.n_batch = n_batch

    def on_batch_begin(self, net, training=None, **kwargs):
        row = net.history[-1]
        if training and (row["epoch"], len(row["batches"])) == (
            self.epoch,
            self.n_batch,
        ):
            raise Killed


class Counter(Callback):
    n_epochs = 0

    def on_epoch_begin(self, net, **kwargs):
        Counter.n_epochs += 1


def make_data(n_clips=40):
    rng = np.random.default_rng(0)
    classes = np.arange(n_clips) % 4
    patterns = rng.normal(size=(4, 1, 8))
    X = patterns[classes] + rng.normal(size=(n_clips, 12, 8))
    return X.astype(np.float32), np.array(LABELS)[classes]


def make(checkpoint=None, callbacks=(), **params):
    settings = {
        "encoder": Encoder,
        "text_encoder": TEXTS,
        "n_components": 8,
        "max_epochs": 5,
        "batch_size": 8,
        "device": "cpu",
        "random_state": 0,
        "checkpoint": checkpoint,
        "callbacks": list(callbacks),
    }
    return SemanticContrastiveClassifier(**{**settings, **params})


def make_cnn(checkpoint=None, callbacks=(), **params):
    settings = make(checkpoint, callbacks, **params).get_params(deep=False)
    names = SpectrogramCNNClassifier().get_params()
    shared = {name: settings[name] for name in settings if name in names}
    return SpectrogramCNNClassifier(Scores, **shared)


both = pytest.mark.parametrize("make", [make, make_cnn], ids=["contrastive", "cnn"])


def assert_same(found, expected, X):
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    if hasattr(expected, "label_embeddings_"):
        np.testing.assert_array_equal(
            found.label_embeddings_, expected.label_embeddings_
        )
    kept = [
        [{k: v for k, v in row.items() if k != "dur"} for row in each.history_]
        for each in (found, expected)
    ]
    assert kept[0] == kept[1]


def rescheduled():
    return {"lr_decay": None, "callbacks": [LRScheduler("StepLR", step_size=2)]}


@pytest.mark.parametrize("epoch", [1, 2, 4])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"text_encoder": None, "positives": "class"},
        {"mixup_alpha": 0.4, "time_roll": True, "augmentations": [RandomShift(0.3)]},
        {"early_stopping": True},
        {"optimizer": "AdamW", "amp": "float16", "gradient_clip": 1.0},
        rescheduled(),
    ],
    ids=["plain", "classes", "augmented", "watched", "half", "scheduled"],
)
def test_goes_on_after_a_kill_with_the_same_result(params, epoch, tmp_path):
    X, y = make_data()
    callbacks = params.pop("callbacks", [])
    unbroken = make(callbacks=callbacks, **params).fit(X, y)
    with pytest.raises(Killed):
        make(tmp_path, [*callbacks, Killer(epoch)], **params).fit(X, y)
    found = make(tmp_path, [*callbacks, Counter()], **params)
    Counter.n_epochs = 0
    found.fit(X, y)
    assert Counter.n_epochs == 5 - (epoch - 1)
    assert_same(found, unbroken, X)
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


@pytest.mark.parametrize("amp", [False, "float16"])
def test_text_encoder_goes_on(small_text_encoder, amp, tmp_path):
    X, y = make_data()
    params = {"text_encoder": small_text_encoder, "text_lr": 0.01, "max_epochs": 3}
    params["amp"] = amp
    unbroken = make(**params).fit(X, y)
    for epoch in (2, 3):
        with pytest.raises(Killed):
            make(tmp_path, [Killer(epoch)], **params).fit(X, y)
    assert_same(make(tmp_path, **params).fit(X, y), unbroken, X)


def test_vectors_go_on_with_texts_that_are_trained(small_bert, tmp_path):
    """Where nothing but the texts draws from torch's global generator."""
    X, y = make_data()
    params = {"text_encoder": small_bert, "text_lr": 0.01, "encoder": None}
    params["similarity"] = "linear"
    unbroken = make(**params).fit(X[:, 0], y)
    with pytest.raises(Killed):
        make(tmp_path, [Killer(3)], **params).fit(X[:, 0], y)
    assert_same(make(tmp_path, **params).fit(X[:, 0], y), unbroken, X[:, 0])


def test_another_text_encoder_of_the_same_tokens_is_named(small_bert, tmp_path):
    X, y = make_data()
    copied = shutil.copytree(small_bert, tmp_path / "copy")
    make(tmp_path, text_encoder=small_bert, max_epochs=1).fit(X, y)
    # Of which the path may be another.
    make(tmp_path, text_encoder=copied, max_epochs=2).fit(X, y)
    path = copied / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["embeddings.word_embeddings.weight"] += 1
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="configuration: text_encoder was "):
        make(tmp_path, text_encoder=copied).fit(X, y)


def test_another_process_goes_on_after_sigkill(tmp_path):
    code = f"""
import os, signal, sys
from tests.classification.test_contrastive_checkpoint import *
class Suicide(Killer):
    def on_batch_begin(self, net, **kwargs):
        try:
            super().on_batch_begin(net, **kwargs)
        except Killed:
            os.kill(os.getpid(), signal.SIGKILL)
make({str(tmp_path)!r}, [Suicide(3)]).fit(*make_data())
"""
    run = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert run.returncode == -9
    X, y = make_data()
    found = make(tmp_path, [Counter()])
    Counter.n_epochs = 0
    assert_same(found.fit(X, y), make().fit(X, y), X)
    assert Counter.n_epochs == 3


@both
def test_what_is_finished_is_read_back(make, tmp_path):
    X, y = make_data()
    for params in ({}, {"early_stopping": True, "patience": 1, "max_epochs": 30}):
        folder = tmp_path / str(len(params))
        first = make(folder, **params).fit(X, y)
        Counter.n_epochs = 0
        again = make(folder, [Counter()], **params).fit(X, y)
        assert Counter.n_epochs == 0
        assert_same(again, first, X)
    assert first.n_iter_ < 30
    # More epochs go on.
    longer = make(tmp_path / "0", [Counter()], max_epochs=7).fit(X, y)
    assert Counter.n_epochs == 2
    assert_same(longer, make(max_epochs=7).fit(X, y), X)
    with pytest.raises(
        ValueError, match=r"max_epochs=5, and the training in .* has 7 "
    ):
        make(tmp_path / "0").fit(X, y)


def test_seed_that_the_system_drew_is_gone_on_with(tmp_path, monkeypatch):
    X, y = make_data()
    with pytest.raises(Killed):
        make(tmp_path, [Killer(3)], random_state=None).fit(X, y)
    state = torch.load(tmp_path / "training.pt", weights_only=True)["state"]
    found = make(tmp_path, random_state=None).fit(X, y)
    seed = int(state["seed"])
    monkeypatch.setattr(_contrastive_training, "draw_seed", lambda _: seed)
    assert_same(found, make(random_state=None).fit(X, y), X)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"lr": 0.5}, "lr was 0.01 and is 0.5"),
        ({"similarity": "linear"}, "similarity was 'cscm' and is 'linear'"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"text_encoder": {**TEXTS, "dog": np.ones(5)}}, "text_encoder was "),
        ({"text_encoder": None}, "text_encoder was .* and is None"),
        (
            {"mixup_alpha": 0.1, "positives": "class"},
            "mixup_alpha was 0.0 and is 0.1; positives was 'diagonal' and is 'class'",
        ),
        ({"augmentations": [RandomShift(1)]}, r"is \[RandomShift\(max_share=1\)\]"),
    ],
)
def test_another_configuration_is_named(params, told, tmp_path):
    X, y = make_data()
    make(tmp_path, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=f"holds the training of another .*{told}"):
        make(tmp_path, **params).fit(X, y)


def test_other_clips_are_named(tmp_path):
    X, y = make_data()
    make(tmp_path, max_epochs=1).fit(X, y)
    for data, name in (((X + 1, y), "X"), ((X, y[::-1]), "y")):
        with pytest.raises(ValueError, match=f"of another configuration: {name} was"):
            make(tmp_path).fit(*data)
    with pytest.raises(ValueError, match="configuration: sample_weight was None and"):
        make(tmp_path).fit(X, y, sample_weight=np.arange(1, 41))
    # What changes nothing may differ.
    params = {"n_jobs": 2, "candidate_labels": LABELS[:2], "verbose": False}
    make(tmp_path, max_epochs=2, **params).fit(X.copy(), y.tolist())


def test_damaged_files_are_refused(tmp_path):
    X, y = make_data()
    (tmp_path / "training.pt").write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError, match="is damaged, or no state of a training"):
        make(tmp_path).fit(X, y)


def test_a_state_that_can_not_be_written_leaves_the_former(tmp_path, monkeypatch):
    X, y = make_data()
    unbroken = make().fit(X, y)
    save = torch.save
    calls = []

    def fail(state, stream):
        calls.append(1)
        if len(calls) == 2:
            stream.write(b"half of it")
            raise OSError("No space left on device")
        save(state, stream)

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path).fit(X, y)
    assert_same(make(tmp_path).fit(X, y), unbroken, X)


def test_going_on_leaves_the_file_alone(tmp_path):
    X, y = make_data()
    classifier = make(tmp_path, warm_start=True, max_epochs=2).fit(X, y)
    before = (tmp_path / "training.pt").read_bytes()
    classifier.fit(X, y).partial_fit(X, y)
    assert classifier.n_iter_ == 5
    assert (tmp_path / "training.pt").read_bytes() == before


def test_parameters_in_words_are_the_same_in_another_process():
    words = describe_params(
        {
            "class": Encoder,
            "object": Counter(),
            "function": make_data,
            "array": np.arange(3),
            "mapping": {"b": [1, 2.5], "a": None},
            "embedder": LabelTextEmbedder({"a": [1.0]}),
        }
    )
    assert words["class"].endswith("test_contrastive_checkpoint.Encoder'>")
    assert words["object"].endswith("test_contrastive_checkpoint.Counter object>")
    assert words["function"].endswith("test_contrastive_checkpoint.make_data")
    assert words["mapping"] == "{a: None, b: [1, 2.5]}"
    assert words["array"] != describe_params({"array": np.arange(1, 4)})["array"]
    assert " at 0x" not in "".join(words.values())


def _schedule(policy, **params):
    return [LRScheduler(getattr(torch.optim.lr_scheduler, policy), **params)]


@both
@pytest.mark.parametrize(
    "callbacks",
    [
        # These change rates as they are made anew in the middle of a training.
        _schedule("StepLR", step_size=1, gamma=0.5),
        _schedule("CyclicLR", base_lr=1e-3, max_lr=0.1, step_every="batch"),
        _schedule("OneCycleLR", max_lr=0.1, total_steps=25, step_every="batch"),
        _schedule("ReduceLROnPlateau", patience=0, threshold=0.5),
        # Of which the first epoch is the best.
        [
            EarlyStopping(
                "train_loss", patience=3, lower_is_better=False, load_best=True
            )
        ],
    ],
    ids=["step", "cyclic", "one cycle", "plateau", "stop"],
)
def test_schedules_and_stops_of_callbacks_go_on(callbacks, make, tmp_path):
    X, y = make_data(24)
    params = {"lr_decay": None, "batch_size": 6}
    unbroken = make(callbacks=callbacks, **params).fit(X, y)
    assert unbroken.n_iter_ == (4 if "Early" in str(callbacks) else 5)
    with pytest.raises(Killed):
        make(tmp_path, [*callbacks, Killer(3)], **params).fit(X, y)
    assert_same(make(tmp_path, callbacks, **params).fit(X, y), unbroken, X)
    # And what is finished is read back, best weights and all.
    Counter.n_epochs = 0
    again = make(tmp_path, [*callbacks, Counter()], **params).fit(X, y)
    assert Counter.n_epochs == 0
    assert_same(again, unbroken, X)


@both
def test_another_schedule_is_named(make, tmp_path):
    X, y = make_data(24)
    params = {"lr_decay": None, "max_epochs": 1}
    make(tmp_path, _schedule("StepLR", step_size=1), **params).fit(X, y)
    for callbacks in ([], _schedule("StepLR", step_size=2)):
        with pytest.raises(ValueError, match=r"callbacks was .*step_size: 1.* and is"):
            make(tmp_path, callbacks, **params).fit(X, y)


@both
def test_folders_that_can_not_be_written_are_told_before_training(
    make, tmp_path, monkeypatch
):
    X, y = make_data(8)
    (tmp_path / "file").write_text("")
    Counter.n_epochs = 0
    with pytest.raises(OSError, match=r"checkpoint=.* name a folder of your own"):
        make(tmp_path / "file", [Counter()]).fit(X, y)
    assert Counter.n_epochs == 0
    make(tmp_path / "kept", max_epochs=1).fit(X, y)
    # What is finished is only read.
    monkeypatch.setattr(TrainingFolder, "claim", None)
    make(tmp_path / "kept", max_epochs=1).fit(X, y)


class Rival(Callback):
    """Begins in the folder while another training goes on there."""

    def __init__(self, folder):
        self.folder = folder

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            TrainingFolder(self.folder, {}, torch.device("cpu")).claim()


@both
def test_of_two_fits_in_a_folder_the_first_stops(make, tmp_path):
    X, y = make_data(24)
    first = make(tmp_path, [Rival(tmp_path)])
    with pytest.raises(RuntimeError, match="another fit has begun there, and this one"):
        first.fit(X, y)
    assert first.n_iter_ == 2
    assert torch.load(tmp_path / "training.pt")["state"]["history"][-1]["epoch"] == 1
    assert_same(make(tmp_path).fit(X, y), make().fit(X, y), X)
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


def test_cross_validation_says_what_to_do(tmp_path):
    X, y = make_data(24)
    with pytest.raises(ValueError, match=r"X was 12 clips .*, leave checkpoint=None"):
        cross_val_score(make(tmp_path, max_epochs=1), X, y, cv=2, error_score="raise")


def test_files_are_told_by_their_paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.wav" for k in range(4)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.normal(size=8000), 32000)
    params = {"encoder": "efficientat", "encoder_params": {"width": 0.1}}

    def fit(items, **more):
        folder = tmp_path / "state"
        return make(folder, batch_size=4, **params, **more).fit(items, LABELS)

    fit(paths, max_epochs=1)
    fit([str(path) for path in paths], max_epochs=2)
    moved = tmp_path / "moved"
    moved.mkdir()
    there = [path.rename(moved / path.name) for path in paths]
    with pytest.raises(ValueError, match=r"X was 4 files .* told by their paths"):
        fit(there, max_epochs=3)
