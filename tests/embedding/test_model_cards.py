"""What is registered of the published models is what their networks have."""

import re

import numpy as np
import pytest

from sklabelaudio import (
    ASTEmbedder,
    AudioCLIPEmbedder,
    CLAPEmbedder,
    EfficientATEmbedder,
    HTSATEmbedder,
    PANNsEmbedder,
    PaSSTEmbedder,
    PSLAEmbedder,
    SP4SCEmbedder,
    VGGishEmbedder,
    YAMNetEmbedder,
    list_checkpoints,
)
from sklabelaudio._checkpoints._published import CHECKPOINTS
from sklabelaudio._checkpoints._resolved import ResolvedCheckpoint
from sklabelaudio.feature_extraction._front_ends import get_front_end

WIDTHS = {"mn04": 0.4, "mn05": 0.5, "mn10": 1, "mn20": 2, "mn30": 3, "mn40": 4}
STRIDE = {n: re.compile(rf"_{n}_{n}_|_s{n}_") for n in (12, 14, 16)}


def make_network(record):
    """Return the embedder and the network of a published checkpoint."""
    from sklabelaudio import nn
    from sklabelaudio.nn._clap import ClapAudioTower

    if record.encoder == "efficientat":
        width = WIDTHS[record.name.removesuffix("_as")]
        return EfficientATEmbedder(), nn.EfficientAT(width)
    if record.encoder == "clap":
        large = "larger" in record.name or "music" in record.name
        sizes = {"embed_dim": 128, "depths": (2, 2, 12, 2)} if large else {}
        return CLAPEmbedder(), ClapAudioTower(**sizes)
    if record.encoder == "panns":
        embedder = PANNsEmbedder(architecture=record.name)
        embedder.architecture_ = record.name
        return embedder, embedder._make_module(None)
    if record.encoder in ("ast", "passt"):
        stride = next((n for n in (12, 14, 16) if STRIDE[n].search(record.name)), 10)
        sizes = {"frequency_stride": stride, "time_stride": stride}
        if record.encoder == "ast":
            return ASTEmbedder(), nn.AST(**sizes)
        depth = 7 if record.name.startswith("passt_l") else 12
        return PaSSTEmbedder(), nn.PaSST(**sizes, depth=depth)
    if record.encoder == "audioclip":
        projection_dim = None if record.n_classes else record.n_components
        network = nn.ESResNeXtFbsp(record.n_classes, projection_dim=projection_dim)
        return AudioCLIPEmbedder(), network
    if record.encoder == "psla":
        return PSLAEmbedder(), nn.PSLA(record.n_classes)
    return {
        "htsat": lambda: (HTSATEmbedder(), nn.HTSAT()),
        "sp4sc": lambda: (SP4SCEmbedder(), nn.SP4SC()),
        "vggish": lambda: (VGGishEmbedder(), nn.VGGish()),
        "yamnet": lambda: (YAMNetEmbedder(), nn.YAMNet()),
    }[record.encoder]()


@pytest.mark.parametrize("record", CHECKPOINTS, ids=lambda record: record.name)
def test_sizes_are_those_of_the_network(record):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # Without numbers, but YAMNet looks at one.
    device = "cpu" if record.encoder == "yamnet" else "meta"
    with torch.device(device):
        embedder, network = make_network(record)
    assert sum(p.numel() for p in network.parameters()) == record.n_parameters
    assert network.n_components == record.n_components
    assert getattr(network, "n_classes", None) == record.n_classes
    front_end = get_front_end(record.front_end)
    plan = embedder._plan(front_end)
    wave = np.zeros(10 * front_end.sampling_rate, np.float32)
    windows = np.concatenate(
        [embedder._to_windows(front_end, plan, *cut) for cut in plan.cut([wave])]
    )
    network.eval()
    forward_params = embedder._forward_params()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(windows.shape, device=device), **forward_params)
    assert counter.get_total_flops() == 2 * record.multiply_adds


def test_card_of_a_published_checkpoint(shared):
    path = shared / "reference" / "checkpoints" / "efficientat" / "mn04_as_mAP_432.pt"
    embedder = EfficientATEmbedder(path, sampling_rate=32000).fit([[0.0]])
    lines = str(embedder.checkpoint_).splitlines()
    card = {line[:14].strip(): line[14:] for line in lines}
    (record,) = (r for r in list_checkpoints("efficientat") if r.name == "mn04_as")
    assert card == {
        "encoder": "efficientat",
        "checkpoint": "mn04_as",
        "weights": str(path),
        "SHA-256": record.sources[0].sha256,
        "parameters": "983,599",
        "multiply-adds": "0.111 G for 10 s",
        "licence": "MIT",
        "trained on": record.training_data,
        "reference": record.reference,
        "published": "AudioSet evaluation mAP 0.432 "
        "(https://github.com/fschmid56/EfficientAT)",
    }


def test_card_of_a_file_with_other_classes_than_the_list_beside_it(tmp_path):
    import torch

    from sklabelaudio.nn import PSLA

    torch.save(PSLA(200).state_dict(), tmp_path / "psla.pth")
    rows = [f'{i},/m/{i},"Sound {i}"' for i in range(527)]
    listing = "\n".join(["index,mid,display_name", *rows])
    (tmp_path / "class_labels_indices.csv").write_text(listing)
    embedder = PSLAEmbedder(tmp_path / "psla.pth", sampling_rate=16000)
    embedder.set_params(output="logits").fit([[0.0]])
    assert embedder.checkpoint_.labels is None
    assert "classes " not in str(embedder.checkpoint_)
    assert embedder.get_feature_names_out()[0] == "pslaembedder0"


def test_multiply_adds_of_files_that_nobody_knows():
    # Cnn14 and the one with scores over time have as many weights.
    (cnn6,) = (r for r in CHECKPOINTS if r.name == "cnn6")
    assert ResolvedCheckpoint("panns", n_parameters=80_753_615).multiply_adds is None
    known = ResolvedCheckpoint("panns", n_parameters=cnn6.n_parameters)
    assert known.multiply_adds == cnn6.multiply_adds
    assert ResolvedCheckpoint("panns", n_parameters=1).multiply_adds is None


def test_card_of_random_weights():
    embedder = EfficientATEmbedder(None, sampling_rate=32000).fit([[0.0]])
    checkpoint = embedder.checkpoint_
    assert str(checkpoint).splitlines() == [
        "encoder       efficientat",
        "checkpoint    none of the published",
        "weights       random",
        "parameters    983,599",
        "multiply-adds 0.111 G for 10 s",
    ]
    assert (checkpoint.scores, checkpoint.training_data) == ((), None)
