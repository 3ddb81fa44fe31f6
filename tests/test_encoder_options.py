"""What the options of the commands make of files."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from sklabelaudio import PSLAEmbedder, SP4SCEmbedder
from sklabelaudio._encoder_options import (
    find_tagger_labels,
    is_joint,
    is_tagger,
    make_embedder,
)


def test_a_renamed_file_is_known_by_its_digest(shared):
    path = shared / "reference" / "checkpoints" / "sp4asc" / "ce.pth"
    assert isinstance(make_embedder(os.fspath(path)), SP4SCEmbedder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("config", "encoder"),
    [
        ({"model_type": "audio-spectrogram-transformer"}, "ast"),
        ({"model_type": "clap"}, "clap"),
        ({}, "clap"),
        ([], "clap"),
    ],
)
def test_files_of_transformers_are_told_by_what_lies_beside_them(
    tmp_path, name, config, encoder
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / name).touch()
    for weights in (tmp_path, tmp_path / name):
        assert make_embedder(os.fspath(weights))._encoder == encoder


@pytest.mark.parametrize(
    ("weights", "joint"),
    [
        ("audioclip_full", True),
        ("AudioCLIP-Partial-Training.pt", True),
        ("esresnext_fbsp", False),
        ("folder/ESRNXFBSP.pt", False),
        ("laion/clap-htsat-unfused", True),
        ("mn04_as", False),
    ],
)
def test_the_audio_encoder_of_audioclip_alone_is_a_tagger(weights, joint):
    embedder = make_embedder(weights)
    assert is_joint(embedder) is joint
    if not joint:
        assert is_tagger(embedder)


@pytest.mark.parametrize(
    ("encoder", "n_classes", "published"),
    [
        ("psla", 527, "class_labels_indices.csv from https://"),
        ("psla", 200, None),
        ("sp4sc", 10, None),
    ],
)
def test_only_a_list_of_as_many_classes_is_named(
    tmp_path, encoder, n_classes, published
):
    checkpoint = SimpleNamespace(
        labels=None, encoder=encoder, path=os.fspath(tmp_path / "mine.pth")
    )
    embedder = SimpleNamespace(checkpoint_=checkpoint, n_components_=n_classes)
    with pytest.raises(ValueError, match=f"the list of the {n_classes} classes") as e:
        find_tagger_labels(embedder)
    message = str(e.value)
    if published is None:
        assert message.endswith("name its file with --tagger-labels")
    else:
        assert published in message


def test_the_list_of_another_model(tmp_path):
    embedder = PSLAEmbedder(None, sampling_rate=16000, output="logits")
    embedder.fit([np.zeros(1)])
    listing = tmp_path / "mine.csv"
    listing.write_text("index,mid,display_name\n0,/m/0,Rain\n")
    with pytest.raises(ValueError, match=r"mine\.csv lists 1 classes and .* has 527"):
        find_tagger_labels(embedder, listing)
