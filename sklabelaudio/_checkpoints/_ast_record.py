"""What transformers records beside the weights of an AST."""

import json
import math
import os
from numbers import Real

from ..exceptions import CheckpointError
from ._fetch import HUB_WEIGHTS

# What transformers' record of a front end says of AudioSet's.
_FRONT_END = {
    "sampling_rate": 16000,
    "num_mel_bins": 128,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}
# What transformers' record of a model may say, where it says what a module is: by our
# names, with what it stands for if it is left out.
_SIZES = {
    "num_heads": ("num_attention_heads", 12),
    "n_frames": ("max_length", 1024),
    "frequency_stride": ("frequency_stride", 10),
    "time_stride": ("time_stride", 10),
}
# And where it has to say the same, or nothing.
_STRUCTURE = {"patch_size": 16, "num_mel_bins": 128, "hidden_act": "gelu"}
_MODEL_TYPE = "audio-spectrogram-transformer"
# Those of the authors' model for Speech Commands, which has a front end of its own.
_SPEECH_COMMANDS = {"n_frames": 128, "n_classes": 35}
_OTHER_FRONT_END = (
    "pass weights that were trained with AudioSet's front end, or load these into "
    "sklabelaudio.nn.AST and give it their own log-mel"
)


def read_ast_record(path):
    """Return what transformers recorded beside weights of a model's sizes.

    Parameters
    ----------
    path : str or None
        The file of weights.

    Returns
    -------
    dict or None
        Parameters of the network that weights don't tell. ``None`` if there is no
        record, as of files that transformers did not write.

    Raises
    ------
    CheckpointError
        If it is that of another network or of another front end, or no record.
    """
    settings = _read_json(path, "config.json")
    sizes = None
    if settings.get("model_type") == _MODEL_TYPE:
        _check_structure(path, settings)
        sizes = {
            ours: settings.get(theirs, default)
            for ours, (theirs, default) in _SIZES.items()
        }
    _check_front_end(path, _read_json(path, "preprocessor_config.json"))
    return sizes


def size_ast(state, recorded):
    """Tell an AST's sizes from its weights and what is recorded beside them.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights, by the names of the authors or of transformers.
    recorded : dict or None
        What `read_ast_record` gave.

    Returns
    -------
    dict
        Parameters of the network.

    Raises
    ------
    ValueError
        If they are weights of another network, or take another front end.
    """
    from ..nn import AST
    from ..nn._vit import measure

    if recorded is None:
        sizes = AST.config_of(state)
    else:
        sizes = measure(AST.convert_checkpoint(state), "an AST") | recorded
    if _SPEECH_COMMANDS.items() <= sizes.items():
        raise ValueError(
            "it has the sizes of the model for Speech Commands, which takes "
            f"another log-mel: {_OTHER_FRONT_END}"
        )
    return sizes


def _check_front_end(path, settings):
    other = [
        f"{name}={settings[name]!r} in place of {value!r}"
        for name, value in _FRONT_END.items()
        if name in settings and not _agree(settings[name], value)
    ]
    if other:
        raise CheckpointError(
            path,
            "the preprocessor_config.json beside it says that it takes another "
            f"log-mel, with {', '.join(other)}: {_OTHER_FRONT_END}",
        )


def _check_structure(path, settings):
    other = [
        f"{name}={settings[name]!r} in place of {value!r}"
        for name, value in _STRUCTURE.items()
        if settings.get(name, value) != value
    ]
    if other:
        raise CheckpointError(
            path,
            "the config.json beside it says that it is another network, with "
            f"{', '.join(other)}: pass weights of a model like the published ones",
        )


def _read_json(path, name):
    """Return a record that transformers keeps beside weights, empty if it does not."""
    if path is None or os.path.basename(path) not in HUB_WEIGHTS:
        return {}
    record = os.path.join(os.path.dirname(path), name)
    try:
        with open(record, encoding="utf-8") as file:
            settings = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(record, f"it is no JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(record, "it is no JSON of settings by name")
    return settings


def _agree(found, expected):
    return isinstance(found, Real) and math.isclose(found, expected, rel_tol=1e-5)
