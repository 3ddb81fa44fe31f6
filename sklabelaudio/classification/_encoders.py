"""The encoders that estimators train, by name: network, front end and weights."""

import difflib
import os
from dataclasses import dataclass, field

from .._checkpoints import (
    ResolvedCheckpoint,
    find_again,
    list_checkpoints,
    read_ast_record,
    recognise_file,
    resolve_weights,
    size_ast,
)
from ..exceptions import CheckpointError
from ..feature_extraction._front_ends import get_front_end


@dataclass(frozen=True)
class KnownEncoder:
    """A network of `nn`, and the front end that belongs to its weights."""

    module: str
    front_end: str
    params: dict = field(default_factory=dict)


# Its weights have the names and shapes of Cnn14's.
_OVER_TIME = "cnn14_decision_level_max"
# By the names of the published checkpoints too.
_PANNS = {
    "cnn6": KnownEncoder("Cnn6", "panns_32k"),
    "cnn10": KnownEncoder("Cnn10", "panns_32k"),
    "cnn14": KnownEncoder("Cnn14", "panns_32k"),
    "cnn14_16k": KnownEncoder("Cnn14", "panns_16k"),
    _OVER_TIME: KnownEncoder("Cnn14", "panns_32k", {"decision_level": "max"}),
    "resnet38": KnownEncoder("ResNet38", "panns_32k"),
    "wavegram_logmel_cnn14": KnownEncoder("WavegramLogmelCnn14", "panns_wavegram"),
}
_ENCODERS = {
    "ast": KnownEncoder("AST", "ast"),
    "efficientat": KnownEncoder("EfficientAT", "efficientat"),
    "htsat": KnownEncoder("HTSAT", "htsat"),
    "panns": _PANNS["cnn14"],
    "passt": KnownEncoder("PaSST", "passt"),
    "psla": KnownEncoder("PSLA", "psla"),
    "sp4sc": KnownEncoder("SP4SC", "sp4sc"),
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
    checkpoint : ResolvedCheckpoint
        The weights it begins with: their file, its digest and, of published ones, name
        and model card.
    """

    cls: type
    params: dict
    front_end_name: str | None
    checkpoint: ResolvedCheckpoint

    @property
    def path(self):
        """The file of the weights it begins with; None for random ones."""
        return self.checkpoint.path

    def make(self):
        """Make the network, with weights drawn from torch's global generator."""
        return self.cls(**self.params)

    def load(self, module, weights=None):
        """Load the file of weights, if there is one, into a network.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        weights : str, path-like or None, default=None
            The estimator's parameter, which is looked at if the file has left its
            place. Published checkpoints are found again by name without it.

        Returns
        -------
        torch.nn.Module
            The same network.

        Raises
        ------
        CheckpointError
            If the file is not there any more, is another than it was, or does not fit.
        OSError
            If it is to be fetched and can't be.
        """
        from ..nn import load_checkpoint

        if self.path is None:
            return module
        return load_checkpoint(module, find_again(self.checkpoint, weights).path)

    def describe(self, encoder):
        """Return the model card of the weights.

        Parameters
        ----------
        encoder : torch.nn.Module
            The network that was made of them.

        Returns
        -------
        ResolvedCheckpoint
            The weights, with their number and the encoder's classes.
        """
        return self.checkpoint.complete(
            sum(weight.numel() for weight in encoder.parameters()),
            getattr(encoder, "n_classes", None),
        )

    def make_front_end(self):
        """Return the front end, or None."""
        return (
            None if self.front_end_name is None else get_front_end(self.front_end_name)
        )


def plan_encoder(
    encoder,
    *,
    weights=None,
    params=None,
    front_end=None,
    patchout=None,
    known=None,
    called="encoder",
):
    """Tell how to make an encoder from an estimator's parameters.

    Parameters
    ----------
    encoder : str or type
        Name of an encoder, or a class of torch modules.
    weights : str, path-like or None, default=None
        Its weights: for a name what embedders take, which may be fetched; for a class
        the path of a file.
    params : mapping or None, default=None
        Parameters of the class, beside those that the weights tell.
    front_end : str or None, default=None
        Name of the front end, for a class.
    patchout : (int, int) or None, default=None
        Rows and columns of patches that are left out in training.
    known : KnownEncoder, default=None
        What the name stands for; ``None`` looks it up.
    called : str, default="encoder"
        Name of the estimator's parameter, for messages.

    Returns
    -------
    EncoderPlan
        The plan.

    Raises
    ------
    ValueError
        If there is no such encoder or checkpoint, or the parameters don't go together.
    CheckpointError
        If the weights can't be read, or are of another encoder.
    OSError
        If the weights are neither here nor to be fetched.
    TypeError
        If `encoder` is a module instead of its class.
    """
    params = dict(params or {})
    if not isinstance(encoder, str):
        _check_class(encoder, called)
        if patchout is not None:
            raise ValueError(
                f"patchout={patchout!r}: {encoder.__name__} is a class of your own; "
                f"give it what it leaves out by {called}_params"
            )
        if front_end is not None:
            get_front_end(front_end)
        checkpoint = _find_file(weights, encoder, called)
        return EncoderPlan(encoder, params, front_end, checkpoint)
    if front_end is not None:
        raise ValueError(
            f"front_end={front_end!r} with {called}={encoder!r}, which has a front end "
            "of its own: leave it out"
        )
    known, sizes = known or _look_up(encoder), {}
    if patchout is not None:
        params |= _patchout_params(encoder, patchout)
    # Last, for it may be fetched.
    checkpoint = _find_weights(weights, encoder, called)
    if checkpoint.path is not None:
        known, sizes = _read_sizes(encoder, known, checkpoint, called)
    from .. import nn

    cls = getattr(nn, known.module)
    params = known.params | sizes | params
    return EncoderPlan(cls, params, known.front_end, checkpoint)


def _find_weights(weights, encoder, called):
    """Find the weights of an encoder that has a name."""
    family = "panns" if encoder in _PANNS else encoder
    if weights is not None and encoder in _PANNS and weights in _PANNS:
        # Before they are fetched for nothing.
        _check_architecture(encoder, weights, f"weights={weights!r}", called)
    return resolve_weights(weights, family, progressbar=True)


def _find_file(weights, encoder, called):
    """Find the weights of a class, which has no checkpoints by name."""
    if weights is None:
        return ResolvedCheckpoint(encoder.__name__)
    path = os.path.expanduser(weights)
    if not os.path.isfile(path):
        name = os.fspath(weights)
        published = next((r for r in list_checkpoints() if r.name == name), None)
        hint = f", or {called}={published.encoder!r}" if published else ""
        raise ValueError(
            f"weights={name!r} is no file: with a class as {called} pass the path of a "
            f"file of its weights{hint}, or None to train from scratch"
        )
    record = recognise_file(path)
    return resolve_weights(path, record.encoder if record else encoder.__name__)


def _look_up(name):
    if name in _ENCODERS:
        return _ENCODERS[name]
    close = difflib.get_close_matches(name.lower(), ENCODER_NAMES, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    names = ", ".join(map(repr, ENCODER_NAMES))
    raise ValueError(f"encoder={name!r} is none of {names}.{hint}")


def _check_class(encoder, called):
    from torch import nn

    if isinstance(encoder, nn.Module):
        raise TypeError(
            f"{called} is a {type(encoder).__name__} that is made already, which a fit "
            f"would change: pass the class, and its parameters as {called}_params"
        )
    if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
        raise TypeError(
            f"{called}={encoder!r} is neither the name of an encoder nor a class of "
            "torch.nn.Module"
        )


def _read_sizes(encoder, known, checkpoint, called):
    """Return the network that a file of weights is of, and its sizes."""
    from .. import nn
    from ..nn._checkpoint import read_checkpoint

    state = read_checkpoint(checkpoint.path)
    try:
        if encoder == "ast":
            return known, size_ast(state, read_ast_record(checkpoint.path))
        if encoder == "panns" or encoder in _PANNS:
            known = _choose_pann(encoder, checkpoint.record, state, called)
        cls = getattr(nn, known.module)
        if hasattr(cls, "width_of"):
            return known, {"width": cls.width_of(state), **_count_classes(state)}
        return known, cls.config_of(state)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(checkpoint.path, str(error)) from error


def _count_classes(state):
    """Return the number of classes of an EfficientAT."""
    return {"n_classes": len(state["classifier.5.bias"])}


def _choose_pann(encoder, record, state, called):
    """Return the one of the PANNs that weights are of."""
    from ..nn._panns_files import tell_architecture

    # The digest of a published file knows better than what is in it.
    told = tell_architecture(state) if record is None else record.name
    if told is None and encoder == "panns":
        raise ValueError(
            "it is a Cnn14 without the constants of the authors' front end, which "
            f"would tell its sampling rate: pass {called}='cnn14' or 'cnn14_16k'"
        )
    if record is None and (told, encoder) == ("cnn14", _OVER_TIME):
        told = encoder
    if told is not None:
        _check_architecture(encoder, told, "it", called)
    return _PANNS[told or encoder]


def _check_architecture(encoder, told, weights, called):
    if encoder not in ("panns", told):
        told_by = ", or 'panns' to have it told by the weights"
        raise ValueError(
            f"{weights} is of the network {told!r}, not of {called}={encoder!r}: pass "
            f"{called}={told!r}{told_by if called == 'encoder' else ''}"
        )


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
