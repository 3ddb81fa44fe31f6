"""The text side of AudioCLIP: its authors' two files, weights and vocabulary."""

import gzip
import os
import zlib
from itertools import islice

from .._download import locate_data_home
from .._optional import import_optional_dependency
from ._transformer_encoder import TransformerEncoder

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_URL = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1/" + VOCABULARY
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
# Of each of the 256 bytes there is a token within a word and one at its end.
_N_BYTE_TOKENS = 512

# How the two layouts of torch.save begin; word vectors have neither.
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def is_torch_file(path):
    """Tell whether a file is one that ``torch.save`` wrote."""
    with open(path, "rb") as stream:
        start = stream.read(32)
    return start.startswith(_ZIP) or start[2:].startswith(_LEGACY)


def load_audioclip_encoder(path, *, pooling, batch_size, device):
    """Load the text side of an AudioCLIP.

    Parameters
    ----------
    path : str
        The authors' file of weights, with the file of their vocabulary beside it or
        among the checkpoints in the data home.
    pooling : {"auto", "mean", "cls", "eos", "pooler"}
        As in `LabelTextEmbedder`.
    batch_size : int
        Number of texts encoded together.
    device : str or torch.device
        Where it runs.

    Returns
    -------
    TransformerEncoder
        The encoder.

    Raises
    ------
    CheckpointError
        If the file of weights can't be read, or is no whole AudioCLIP.
    ImportError
        If transformers is not installed.
    OSError
        If there is no vocabulary.
    ValueError
        If the vocabulary is damaged or not that of the weights, or the device can't
        be used.
    """
    from ..nn._audioclip import load_audioclip_text
    from ..nn._device import choose_device

    device = choose_device(device)
    module = load_audioclip_text(path).to(device)
    config = module.config
    tokenizer = read_clip_tokenizer(
        find_vocabulary(path),
        n_tokens=config.vocab_size,
        max_length=config.max_position_embeddings,
    )
    return TransformerEncoder(
        tokenizer,
        module if pooling == "auto" else module.text_model,
        pooling="projection" if pooling == "auto" else pooling,
        normalize=False,
        max_length=config.max_position_embeddings,
        batch_size=batch_size,
    )


def find_vocabulary(weights):
    """Find the vocabulary that goes with a file of AudioCLIP's weights.

    Parameters
    ----------
    weights : str
        Path of the weights.

    Returns
    -------
    str
        Path of the vocabulary, beside the weights or among the checkpoints in the
        data home.

    Raises
    ------
    OSError
        If it is in neither place.
    """
    folders = (
        os.path.dirname(os.path.abspath(weights)),
        os.path.join(locate_data_home(None), "checkpoints"),
    )
    for folder in folders:
        path = os.path.join(folder, VOCABULARY)
        if os.path.isfile(path):
            return path
    raise OSError(
        f"model={weights!r} reads texts by the vocabulary {VOCABULARY}, which is "
        f"neither beside it nor in {folders[1]}: download it from {_URL} and put it "
        "in one of the two folders"
    )


def read_clip_tokenizer(path, *, n_tokens, max_length):
    """Make CLIP's tokenizer from its authors' file.

    Texts are lower-cased, and runs of white space count as one. Unlike the authors', it
    does not mend text that was decoded wrongly, nor HTML's ``&amp;`` and the like.

    Parameters
    ----------
    path : str
        The gzipped list of merges of byte pairs, behind a line that is none. It has
        more of them than are used.
    n_tokens : int
        Number of tokens: 512 of bytes, those of merges, and two that begin and end a
        text; 49408 for all published models.
    max_length : int
        Number of tokens that a text may have.

    Returns
    -------
    transformers.CLIPTokenizer
        The tokenizer.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If the file is damaged, or has not that many merges.
    """
    n_merges = n_tokens - _N_BYTE_TOKENS - len(_SPECIAL)
    merges = _read_merges(path, n_merges)
    transformers = import_optional_dependency("transformers", "text")
    tokenizers = import_optional_dependency("tokenizers", "text")
    # Bytes stand for themselves where they are printable, and otherwise for characters
    # behind these, so that sorted they are in the order of the authors' list.
    characters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *characters,
        *(character + "</w>" for character in characters),
        *("".join(merge) for merge in merges),
        *_SPECIAL,
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != n_tokens:
        raise ValueError(
            f"{path} has {n_tokens - len(vocabulary)} merges twice: it is damaged. "
            f"Download it again from {_URL}"
        )
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=max_length
    )


def _read_merges(path, n_merges):
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            merges = [tuple(line.split()) for line in islice(stream, 1, 1 + n_merges)]
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged, or no gzipped text ({error}). Download it again from "
            f"{_URL}"
        ) from error
    if len(merges) < n_merges or any(len(merge) != 2 for merge in merges):
        n_whole = sum(len(merge) == 2 for merge in merges)
        raise ValueError(
            f"{path} has {n_whole} merges of two byte pairs where the weights need "
            f"{n_merges}: it is cut short, or another model's. Get it from {_URL}"
        )
    return merges
