"""The mode of `ContrastiveNet`, which is not set again where it is set already."""

import pytest
import torch
from torch import nn

from sklabelaudio.nn import SymmetricContrastiveLoss
from sklabelaudio.nn._contrastive_net import ContrastiveNet, FrozenTexts, TrainedTexts
from sklabelaudio.nn._label_heads import LinearHead


class TextEncoder(nn.Embedding):
    n_components = 3


def make_net():
    texts = TrainedTexts(TextEncoder(10, 3), torch.zeros(4, 1, 5, dtype=torch.int64), 6)
    encoder = nn.Sequential(nn.BatchNorm1d(7))
    head = LinearHead(7, 1, 1, 6)
    return ContrastiveNet(encoder, head, texts, 4, alignment=SymmetricContrastiveLoss())


def read_modes(net):
    parts = net.encoder[0], net.head, net.texts.encoder, net.texts.projector
    return [part.training for part in parts]


@pytest.mark.parametrize("n_times", [1, 2])
def test_modes_reach_all_parts_whatever_was_before(n_times):
    net = make_net()

    def switch(mode):
        for _ in range(n_times):
            assert net.train(mode) is net
        return read_modes(net)

    assert switch(True) == [True] * 4
    assert switch(False) == [False] * 4
    assert switch(True) == [True] * 4
    # What is frozen or freed, or takes another's place, while the mode stays.
    net.freeze_encoder = True
    assert switch(True) == [False, True, True, True]
    net.texts.frozen = True
    assert switch(True) == [False, True, False, True]
    net.freeze_encoder = net.texts.frozen = False
    assert switch(True) == [True] * 4
    net.eval()
    net.texts = make_net().texts
    assert switch(False) == [False] * 4
    net.texts = FrozenTexts(torch.ones(4, 2), 6)
    net.eval()
    assert not net.texts.projector.training


def test_the_mode_is_not_set_again(monkeypatch):
    net = make_net()
    net.train()
    seen = []
    train = nn.BatchNorm1d.train
    monkeypatch.setattr(
        nn.BatchNorm1d, "train", lambda *args: seen.append(1) or train(*args)
    )
    net.train()
    assert not seen
    net.eval()
    assert seen == [1]
