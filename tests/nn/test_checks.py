import re

import pytest
import torch
from torch import nn

from sklabelaudio.nn._checks import check_log_mel, get_weight


class Model(nn.Module):
    """A model whose name the messages tell."""


@pytest.mark.parametrize(
    ("shape", "limits"),
    [
        ((2, 1, 64), {}),
        ((0, 5, 64), {}),  # no clips are a log-mel too
        ((2, 100_000, 64), {}),
        ((2, 16, 64), {"shortest": 16}),
        ((2, 20, 64), {"shortest": 16, "longest": 20}),
        ((2, 96, 64), {"shortest": 96, "longest": 96}),
        ((2, 21, 64), {"longest": 42, "window": 20}),
    ],
)
def test_what_is_within_the_limits_passes(shape, limits):
    check_log_mel(Model(), torch.zeros(shape), 64, **limits)


@pytest.mark.parametrize("shape", [(64,), (9, 64), (1, 1, 9, 64), (2, 9, 63), ()])
def test_other_shapes_are_refused(shape):
    message = f"log_mel has the shape {shape}; this Model takes (n_clips, n_frames, 64)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_log_mel(Model(), torch.zeros(shape), 64)


def test_any_number_of_bands_but_none():
    check_log_mel(Model(), torch.zeros(2, 9, 1), None)
    check_log_mel(Model(), torch.zeros(2, 9, 300), None)
    for shape in ((2, 9, 0), (9, 64)):
        with pytest.raises(ValueError, match=r"\(n_clips, n_frames, n_mels >= 1\)$"):
            check_log_mel(Model(), torch.zeros(shape), None)


@pytest.mark.parametrize(
    ("n_frames", "limits", "told"),
    [
        (0, {}, "1 or more: put silence behind shorter clips"),
        (15, {"shortest": 16}, "16 or more: put silence behind shorter clips"),
        (
            15,
            {"shortest": 16, "longest": 20},
            "16 to 20: put silence behind shorter clips",
        ),
        (21, {"longest": 20}, "1 to 20: cut longer clips in windows of 20 frames"),
        (
            43,
            {"longest": 42, "window": 20},
            "1 to 42: cut longer clips in windows of 20 frames",
        ),
        (
            97,
            {"shortest": 96, "longest": 96},
            "96: cut longer clips in windows of 96 frames",
        ),
    ],
)
def test_too_few_and_too_many_frames_are_refused(n_frames, limits, told):
    message = f"^log_mel has {n_frames} frames; this Model takes {told}$"
    with pytest.raises(ValueError, match=message):
        check_log_mel(Model(), torch.zeros(1, n_frames, 64), 64, **limits)


def test_the_weight_is_returned():
    state = {"fc.weight": torch.ones(2, 3), "scale": torch.tensor(1.0)}
    assert get_weight(state, "fc.weight", "an AST", n_axes=2) is state["fc.weight"]
    assert get_weight(state, "scale", "an AST", n_axes=0) is state["scale"]
    assert get_weight(state, "scale", "an AST") is state["scale"]


@pytest.mark.parametrize(
    ("name", "n_axes", "problem"),
    [
        ("fc.bias", None, "there is no weight 'fc.bias'"),
        ("fc.bias", 1, "there is no weight 'fc.bias'"),
        ("fc.weight", 4, r"the weight 'fc.weight' has the shape \(2, 3\)"),
        ("fc.weight", 0, r"the weight 'fc.weight' has the shape \(2, 3\)"),
    ],
)
def test_weights_of_another_model_are_refused(name, n_axes, problem):
    message = f"^{problem}, so these are not the weights of an AST$"
    with pytest.raises(ValueError, match=message):
        get_weight({"fc.weight": torch.ones(2, 3)}, name, "an AST", n_axes=n_axes)
