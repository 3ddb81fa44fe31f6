"""The networks that SpectrogramCNNClassifier trains, by name."""

import difflib
import os
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature

from .._checkpoints import list_checkpoints, recognise_file, resolve_weights
from ..exceptions import CheckpointError
from ..feature_extraction._front_ends import get_front_end
from ._encoders import KnownEncoder, plan_encoder

# Of the weights' names that are the head's.
_OF_PANNS = ("fc1.", "fc_audioset.")


@dataclass(frozen=True)
class _Architecture(KnownEncoder):
    """A network of `nn`, its front end, its head, and what its poolings need.

    Parameters
    ----------
    head : tuple of str
        Beginnings of the names of the weights behind the last pooling.
    n_halvings : int
        How often its poolings halve frames and bands; 0 if any number of them does.
    """

    head: tuple = field(kw_only=True)
    n_halvings: int = 0


_ARCHITECTURES = {
    "cnn6": _Architecture("Cnn6", "panns_32k", head=_OF_PANNS, n_halvings=4),
    "cnn10": _Architecture("Cnn10", "panns_32k", head=_OF_PANNS, n_halvings=4),
    "cnn14": _Architecture("Cnn14", "panns_32k", head=_OF_PANNS, n_halvings=5),
    "cnn14_16k": _Architecture("Cnn14", "panns_16k", head=_OF_PANNS, n_halvings=5),
    # The log-mel on which the study trained it.
    "resnet34": _Architecture("ResNet34", "sp4sc", head=("fc.",)),
    "sp4sc": _Architecture("SP4SC", "sp4sc", head=("fc1.", "fc2."), n_halvings=4),
}


def plan_architecture(architecture, *, weights=None, params=None, front_end=None):
    """Tell how to make a network from an estimator's parameters.

    Parameters
    ----------
    architecture : str or type
        Name of a network, or a class of torch modules.
    weights : str, path-like or None, default=None
        The weights that it begins with.
    params : mapping or None, default=None
        Parameters of its class.
    front_end : str or None, default=None
        Name of a front end instead of the network's own.

    Returns
    -------
    EncoderPlan
        The plan.

    Raises
    ------
    ValueError
        If there is no such network, checkpoint or front end, or the weights have a
        front end of their own.
    TypeError
        If `architecture` is a module instead of its class.
    CheckpointError
        If the weights can't be read, or are of another network.
    OSError
        If the weights are neither here nor to be fetched.
    """
    if front_end is not None and get_front_end(front_end).n_mels is None:
        raise ValueError(
            f"front_end={front_end!r} gives no log-mel, which the network reads: take "
            "another, such as 'panns_32k'"
        )
    if not isinstance(architecture, str):
        return plan_encoder(
            architecture,
            weights=weights,
            params=params,
            front_end=front_end,
            called="architecture",
        )
    known = look_up(architecture)
    plan = plan_encoder(
        architecture,
        weights=weights,
        params=params,
        known=known,
        called="architecture",
    )
    if front_end in (None, plan.front_end_name):
        return plan
    if plan.path is not None and architecture != "resnet34":
        raise ValueError(
            f"front_end={front_end!r} with weights={weights!r}, which were trained on "
            f"{plan.front_end_name!r}: leave it out, or train from scratch"
        )
    return replace(plan, front_end_name=front_end)


def look_up(name):
    """Return what is known of a network by its name.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    _Architecture
        It.

    Raises
    ------
    ValueError
        If there is none of this name; the message has the nearest that there is.
    """
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    close = difflib.get_close_matches(name.lower(), _ARCHITECTURES, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    names = ", ".join(map(repr, _ARCHITECTURES))
    raise ValueError(
        f"architecture={name!r} is none of {names}, or a class of torch modules.{hint}"
    )


def find_head(architecture, network):
    """Return the beginnings of the names of a network's weights behind its poolings.

    Parameters
    ----------
    architecture : str or type
        The network; of a class the last linear layer is taken for its head.
    network : torch.nn.Module
        It, made.

    Returns
    -------
    tuple of str
        The beginnings, none for a class without linear layers.
    """
    from ..nn._class_net import find_last_layer

    if isinstance(architecture, str):
        return look_up(architecture).head
    name = find_last_layer(network)
    return () if name is None else (f"{name}.",)


def find_trained(trainable, architecture, network):
    """Return the beginnings of the names of the weights that are trained.

    Parameters
    ----------
    trainable : "all", "head" or sequence of str
        The estimator's parameter.
    architecture : str or type
        The network.
    network : torch.nn.Module
        It, made.

    Returns
    -------
    tuple of str
        The beginnings.

    Raises
    ------
    ValueError
        If no weight's name begins with one of them.
    """
    if trainable == "all":
        return ("",)
    if trainable != "head" and not all(map(_is_prefix, trainable)):
        raise ValueError(
            f"trainable={trainable!r} must be 'all', 'head', or a list of beginnings "
            "of names of weights"
        )
    head = find_head(architecture, network)
    prefixes = head if trainable == "head" else tuple(trainable)
    names = [name for name, _ in network.named_parameters()]
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            close = difflib.get_close_matches(prefix, parts, n=1, cutoff=0.4)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"trainable has {prefix!r}, and no weight's name begins so: those of "
                f"{type(network).__name__} begin with {', '.join(map(repr, parts))}."
                f"{hint}"
            )
    if not prefixes:
        raise ValueError(
            f"trainable={trainable!r} names no weights of {type(network).__name__}: "
            "list beginnings of their names, or set trainable='all'"
        )
    return prefixes


def complete_params(plan, *, n_classes, n_mels, dropout):
    """Add to a plan what only the clips and their labels tell.

    Parameters
    ----------
    plan : EncoderPlan
        The plan.
    n_classes, n_mels : int
        Number of classes, and of the mel bands or the values of a vector.
    dropout : float or None
        Probability of dropout; ``None`` is the network's own.

    Returns
    -------
    EncoderPlan
        The plan, with those of them among its parameters that its class has, and that
        the user or the file of weights has not set.

    Raises
    ------
    ValueError
        If there is a `dropout`, and the class has no such parameter.
    """
    taken = signature(plan.cls).parameters
    takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in taken.values())
    found = {"n_classes": n_classes, "n_mels": n_mels}
    if dropout is not None:
        found["dropout"] = dropout
        if "dropout" not in taken and not takes_all:
            raise ValueError(
                f"dropout={dropout:g}: {plan.cls.__name__} has no such parameter; "
                "leave it out, or set what it has by architecture_params"
            )
    params = {key: value for key, value in found.items() if key in taken}
    return replace(plan, params=params | plan.params)


def tell_architecture(weights):
    """Tell the network that weights are of.

    Parameters
    ----------
    weights : str or path-like
        Name of a published checkpoint, or path of a file.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    CheckpointError
        If the file can't be read, or does not tell.
    ValueError
        If the checkpoint is of a network that is not known here.
    """
    from .. import nn
    from ..nn._checkpoint import read_checkpoint
    from ..nn._panns_files import tell_architecture

    record = next((r for r in list_checkpoints() if r.name == weights), None)
    if record is None:
        if not os.path.exists(os.path.expanduser(weights)):
            resolve_weights(weights, "sp4sc")  # which says what names there are
        state = read_checkpoint(os.path.expanduser(weights))
        record = recognise_file(weights)
    if record is not None:
        name = record.name if record.encoder == "panns" else record.encoder
        if name not in _ARCHITECTURES:
            raise ValueError(
                f"weights={weights!r} is the checkpoint {record.name!r} of "
                f"{record.encoder!r}, and no network of "
                f"{', '.join(map(repr, _ARCHITECTURES))}"
            )
        return name
    for tell in (
        lambda: nn.SP4SC.config_of(state) and "sp4sc",
        lambda: nn.ResNet34.config_of(state) and "resnet34",
        lambda: tell_architecture(state),
    ):
        try:
            name = tell()
        except ValueError:
            continue
        if name in _ARCHITECTURES:
            return name
    raise CheckpointError(
        str(weights), "its weights don't tell of which network they are: name it"
    )


def _is_prefix(value):
    return isinstance(value, str) and value != ""
