import os
from functools import partial

import numpy as np
import pytest
import torch

from sklabelaudio.classification._training_state import TrainingFolder, describe_params
from sklabelaudio.exceptions import CheckpointError

CPU = torch.device("cpu")
STATE = {"module": {"weight": torch.arange(1000.0)}, "finished": False}


def open_folder(path, **configuration):
    return TrainingFolder(path, {"lr": "0.01", **configuration}, CPU)


def save(path):
    folder = open_folder(path)
    folder.claim()
    folder.save(STATE)
    folder.release()


def test_a_state_comes_back_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder"
    assert open_folder(path).read() is None
    assert not path.exists()
    save(path)
    state = open_folder(path).read()
    assert torch.equal(state["module"]["weight"], STATE["module"]["weight"])
    assert os.listdir(path) == ["training.pt"]
    assert (path / "training.pt").stat().st_mode & 0o777 == 0o666 & ~_get_umask()


def _get_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_files_that_were_cut_are_damaged(share, tmp_path):
    save(tmp_path)
    path = tmp_path / "training.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"damaged.*: delete it to train from"):
        open_folder(tmp_path).read()


def test_other_bytes_are_noticed(tmp_path):
    """Which torch reads without a word."""
    save(tmp_path)
    path = tmp_path / "training.pt"
    held = bytearray(path.read_bytes())
    place = held.index(np.float32(500).tobytes() + np.float32(501).tobytes())
    held[place + 2] ^= 1
    path.write_bytes(held)
    assert torch.load(path, weights_only=True)["state"]["module"]["weight"][500] != 500
    with pytest.raises(CheckpointError, match="is not what was written"):
        open_folder(tmp_path).read()


def test_what_is_no_state_is_damaged(tmp_path):
    for held in ([1], {"configuration": 3, "state": {}}, {"a": torch.ones(2)}):
        torch.save(held, tmp_path / "training.pt")
        with pytest.raises(CheckpointError, match="damaged, or no state of a training"):
            open_folder(tmp_path).read()


def test_folders_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", ""):
        with pytest.raises(OSError, match=r"checkpoint=.*no state .* can be written"):
            open_folder(path).claim()


def test_of_two_trainings_in_a_folder_the_first_stops(tmp_path):
    first, second = open_folder(tmp_path), open_folder(tmp_path)
    first.claim()
    first.save(STATE)
    second.claim()
    with pytest.raises(RuntimeError, match=r"another fit has begun there.*of its own"):
        first.save({**STATE, "finished": True})
    first.release()
    second.save(STATE)
    assert not open_folder(tmp_path).read()["finished"]
    second.release()
    assert os.listdir(tmp_path) == ["training.pt"]


def test_what_a_kill_leaves_is_cleared_away(tmp_path):
    killed = open_folder(tmp_path)
    killed.claim()
    (tmp_path / "training.pt.0123.part").write_bytes(b"half of it")
    save(tmp_path)
    assert os.listdir(tmp_path) == ["training.pt"]


def test_what_differs_is_named(tmp_path):
    save(tmp_path)
    with pytest.raises(ValueError, match=r"lr was 0.01 and is 1. Set it back") as told:
        open_folder(tmp_path, lr="1").read()
    assert "cross-validation" not in str(told.value)
    with pytest.raises(ValueError, match=r"X was None and is 3 clips.*checkpoint=None"):
        open_folder(tmp_path, X="3 clips").read()


def _add(samples, sampling_rate, much=1):
    return samples + much


def test_words_tell_parameters_apart():
    def words(value):
        return describe_params({"value": value})["value"]

    assert words(np.float64(0.01)) == words(0.01)
    assert words(np.int64(3)) == words(3)
    assert words([partial(_add, much=1)]) != words([partial(_add, much=2)])
    assert words(partial(_add)) == words(partial(_add))
    assert " at 0x" not in words([partial(_add), lambda x: x])
    assert words({"a": [1, (2, 3)]}) == words({"a": (1, [2, 3])})
