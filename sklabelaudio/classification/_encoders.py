"""The encoders that estimators train, by name: network, front end and weights."""

import difflib
import os
from dataclasses import dataclass, field

from .._download import hash_file
from ..exceptions import CheckpointError
from ..feature_extraction._front_ends import get_front_end


@dataclass(frozen=True)
class _Known:
    """A network of `nn`, and the front end that belongs to its weights."""

    module: str
    front_end: str
    params: dict = field(default_factory=dict)


_PANNS = {
    "cnn6": _Known("Cnn6", "panns_32k"),
    "cnn10": _Known("Cnn10", "panns_32k"),
    "cnn14": _Known("Cnn14", "panns_32k"),
    "cnn14_16k": _Known("Cnn14", "panns_16k"),
    "resnet38": _Known("ResNet38", "panns_32k"),
    "wavegram_logmel_cnn14": _Known("WavegramLogmelCnn14", "panns_wavegram"),
}
_ENCODERS = {
    "ast": _Known("AST", "ast"),
    "efficientat": _Known("EfficientAT", "efficientat"),
    "htsat": _Known("HTSAT", "htsat"),
    "panns": _PANNS["cnn14"],
    "passt": _Known("PaSST", "passt"),
    "psla": _Known("PSLA", "psla"),
    "sp4sc": _Known("SP4SC", "sp4sc"),
    **_PANNS,
}
ENCODER_NAMES = tuple(sorted(_ENCODERS))


@dataclass(frozen=True)
class EncoderPlan:
    """How an encoder is made, now and again from a pickle.

    Parameters
    ----------
    cls : type
        The class of the network.
    params : dict
        The parameters it is made with.
    front_end_name : str or None
        Name of the front end that makes of clips what it takes.
    path : str or None
        File of the weights it begins with.
    sha256 : str or None
        Digest of that file.
    """

    cls: type
    params: dict
    front_end_name: str | None = None
    path: str | None = None
    sha256: str | None = None

    def make(self):
        """Make the network, with weights drawn from torch's global generator."""
        return self.cls(**self.params)

    def load(self, module):
        """Load the file of weights, if there is one, into a network.

        Parameters
        ----------
        module : torch.nn.Module
            The network.

        Returns
        -------
        torch.nn.Module
            The same network.

        Raises
        ------
        CheckpointError
            If the file is not there any more, is another than it was, or does not fit.
        """
        from ..nn import load_checkpoint

        if self.path is None:
            return module
        if not os.path.isfile(self.path):
            raise CheckpointError(
                self.path, "it is not there: put it back, or fit with other weights"
            )
        digest = hash_file(self.path)
        if digest != self.sha256:
            raise CheckpointError(
                self.path,
                f"it is another file than in fit: its SHA-256 is {digest} and was "
                f"{self.sha256}; put the file back, or fit again",
            )
        return load_checkpoint(module, self.path)

    def make_front_end(self):
        """Return the front end, or None."""
        return (
            None if self.front_end_name is None else get_front_end(self.front_end_name)
        )


def plan_encoder(encoder, *, weights=None, params=None, front_end=None, patchout=None):
    """Tell how to make an encoder from an estimator's parameters.

    Parameters
    ----------
    encoder : str or type
        Name of an encoder, or a class of torch modules.
    weights : str, path-like or None, default=None
        File of its weights.
    params : mapping or None, default=None
        Parameters of the class, beside those that the weights tell.
    front_end : str or None, default=None
        Name of the front end, for a class.
    patchout : (int, int) or None, default=None
        Rows and columns of patches that are left out in training.

    Returns
    -------
    EncoderPlan
        The plan.

    Raises
    ------
    ValueError
        If there is no such encoder, or the parameters don't go together.
    CheckpointError
        If the weights can't be read, or are of another encoder.
    TypeError
        If `encoder` is a module instead of its class.
    """
    path = None if weights is None else resolve_weights(weights)
    sha256 = None if path is None else hash_file(path)
    params = dict(params or {})
    if not isinstance(encoder, str):
        _check_class(encoder)
        if patchout is not None:
            raise ValueError(
                f"patchout={patchout!r}: {encoder.__name__} is a class of your own; "
                "give it what it leaves out by encoder_params"
            )
        if front_end is not None:
            get_front_end(front_end)
        return EncoderPlan(encoder, params, front_end, path, sha256)
    if front_end is not None:
        raise ValueError(
            f"front_end={front_end!r} with encoder={encoder!r}, which has a front end "
            "of its own: leave it out"
        )
    known, sizes = _look_up(encoder), {}
    if path is not None:
        known, sizes = _read_sizes(encoder, known, path)
    if patchout is not None:
        params |= _patchout_params(encoder, patchout)
    from .. import nn

    cls = getattr(nn, known.module)
    return EncoderPlan(cls, sizes | params, known.front_end, path, sha256)


def resolve_weights(weights):
    """Return the path of the file that the parameter `weights` means.

    Parameters
    ----------
    weights : str or path-like
        The parameter.

    Returns
    -------
    str
        Its path.

    Raises
    ------
    ValueError
        If there is no such file.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(weights)))
    if not os.path.isfile(path):
        raise ValueError(
            f"weights={os.fspath(weights)!r} is no file: pass the path of an official "
            "file of this encoder, or None to train from scratch"
        )
    return path


def _look_up(name):
    if name in _ENCODERS:
        return _ENCODERS[name]
    close = difflib.get_close_matches(name.lower(), ENCODER_NAMES, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    names = ", ".join(map(repr, ENCODER_NAMES))
    raise ValueError(f"encoder={name!r} is none of {names}.{hint}")


def _check_class(encoder):
    from torch import nn

    if isinstance(encoder, nn.Module):
        raise TypeError(
            f"encoder is a {type(encoder).__name__} that is made already, which a fit "
            "would change: pass the class, and its parameters as encoder_params"
        )
    if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
        raise TypeError(
            f"encoder={encoder!r} is neither the name of an encoder nor a class of "
            "torch.nn.Module"
        )


def _read_sizes(encoder, known, path):
    """Return the network that a file of weights is of, and its sizes."""
    from .. import nn
    from ..nn._checkpoint import read_checkpoint

    state = read_checkpoint(path)
    try:
        if encoder == "panns":
            known = _recognise_panns(state)
        cls = getattr(nn, known.module)
        if hasattr(cls, "width_of"):
            return known, {"width": cls.width_of(state), **_count_classes(state)}
        return known, cls.config_of(state)
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error


def _count_classes(state):
    """Return the number of classes of an EfficientAT."""
    return {"n_classes": len(state["classifier.5.bias"])}


def _recognise_panns(state):
    from ..nn._panns_files import tell_architecture

    architecture = tell_architecture(state)
    if architecture is None:
        raise ValueError(
            "it is a Cnn14 without the constants of the authors' front end, which "
            "would tell its sampling rate: pass encoder='cnn14' or 'cnn14_16k'"
        )
    return _PANNS[architecture]


def _patchout_params(encoder, patchout):
    if encoder != "passt":
        raise ValueError(
            f"patchout={patchout!r} with encoder={encoder!r}: only 'passt' can leave "
            "out patches; set patchout=None"
        )
    try:
        n_rows, n_columns = map(int, patchout)
    except (TypeError, ValueError):
        raise ValueError(
            f"patchout={patchout!r} must be two numbers, of rows and of columns, such "
            "as the authors' (4, 40)"
        ) from None
    return {"patchout_frequency": n_rows, "patchout_time": n_columns}
