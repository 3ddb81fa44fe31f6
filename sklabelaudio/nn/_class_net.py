"""Networks that tell classes apart: what is trained of them, and by which loss."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._gradient_scale import scale_gradient

# Batches after which batch norms go on with the momentum that they were made with.
_N_FIRST = 100


class ClassScores(NamedTuple):
    """What `ClassNet` makes of clips.

    Parameters
    ----------
    logits : Tensor of shape (n_clips, n_classes)
        Scores of the classes, of which a clip has one.
    """

    logits: torch.Tensor


class ClassNet(nn.Module):
    """A network with class scores, of which parts are trained.

    Parameters
    ----------
    network : torch.nn.Module
        Inputs to an `EncoderOutput` with logits, or to a tensor of them.

    Attributes
    ----------
    keeps_statistics : bool
        Whether batch norms keep their statistics in training.
    amp : torch.dtype or None
        Precision of what allows it in training, the rest being in single.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.keeps_statistics = False
        self.amp = None
        # By name, which copies have too.
        self._momenta = {
            name: part.momentum
            for name, part in network.named_modules()
            if isinstance(part, _BatchNorm) and part.momentum is not None
        }
        self._n_steps = None

    def choose(self, prefixes):
        """Have those weights be trained whose names start with one of some texts."""
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(name.startswith(prefixes))

    def train(self, mode=True):
        """Set the mode, in which batch norms may keep their statistics."""
        super().train(mode)
        if self.keeps_statistics:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self

    def load_state_dict(self, *args, **kwargs):
        """Load weights, and begin anew to count the batches that they have seen."""
        self._n_steps = None
        return super().load_state_dict(*args, **kwargs)

    def forward(self, inputs):
        """Score clips.

        Parameters
        ----------
        inputs : Tensor of shape (n_clips, ...)
            What the network takes.

        Returns
        -------
        ClassScores
            The scores.
        """
        if self.training and not self.keeps_statistics:
            self._warm_up()
        halved = self.amp is not None and self.training
        precision = (
            torch.autocast(inputs.device.type, dtype=self.amp)
            if halved
            else nullcontext()
        )
        with precision:
            return ClassScores(take_logits(self.network(inputs)))

    def _warm_up(self):
        """Have the first batches' statistics averaged evenly.

        Else what batch norms begin with, zeros and ones, would count for so many steps
        that a network of few clips names nothing right after its training.
        """
        norms = {name: self.network.get_submodule(name) for name in self._momenta}
        if self._n_steps is None:
            counts = (norm.num_batches_tracked for norm in norms.values())
            self._n_steps = max((0 if n is None else int(n) for n in counts), default=0)
        self._n_steps += 1
        share = 1 / self._n_steps if self._n_steps <= _N_FIRST else 0.0
        for name, norm in norms.items():
            norm.momentum = max(self._momenta[name], share)


class ClassLoss(nn.Module):
    """Cross-entropy of clips and their classes, or the focal loss.

    Parameters
    ----------
    gamma : float, default=0.0
        How much less clips count that are told already: by ``(1 - p) ** gamma``, where
        ``p`` is the probability of their class. 0 is the cross-entropy.
    smoothing : float, default=0.0
        Share of each label that is spread evenly over all classes.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He and P. Dollar, "Focal loss for dense object
    detection", ICCV 2017: equation 4.
    """

    def __init__(self, gamma=0.0, smoothing=0.0):
        super().__init__()
        self.gamma = gamma
        self.smoothing = smoothing
        self.gradient_scale = 1.0

    def forward(self, output, target):
        """Compute the loss of a batch.

        Parameters
        ----------
        output : ClassScores
            What the network made of it.
        target : Tensor of shape (n_clips, n_classes), or a tuple of two
            The labels, of mixed clips by their shares; or these and the weights of the
            clips, of mean 1 over all batches.

        Returns
        -------
        Tensor
            The loss, a scalar, whose gradient is `gradient_scale` times as large.
        """
        target, weights = (
            target if isinstance(target, (tuple, list)) else (target, None)
        )
        if self.smoothing:
            even = self.smoothing / target.shape[1]
            target = (1 - self.smoothing) * target + even
        logs = output.logits.to(target.dtype).log_softmax(dim=1)
        terms = target * logs
        if self.gamma:
            # Not by 1 - p, whose power has no gradient where p is 1.
            others = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
            terms = others**self.gamma * terms
        losses = -terms.sum(dim=1)
        loss = (losses if weights is None else weights * losses).mean()
        return scale_gradient(loss, self.gradient_scale)


def take_logits(output):
    """Return the class scores in what a network returns.

    Parameters
    ----------
    output : Tensor or EncoderOutput
        The scores, or what has them.

    Returns
    -------
    Tensor
        The scores.

    Raises
    ------
    TypeError
        If there are none.
    """
    logits = getattr(output, "logits", output)
    if isinstance(logits, torch.Tensor):
        return logits
    raise TypeError(
        f"the network gives a {type(output).__name__} without logits: have its forward "
        "return scores of the classes, (n_clips, n_classes)"
    )


def find_last_layer(module):
    """Return the name of the last linear layer of a network.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    str or None
        Its name, by the order in which layers were added; None if there is none.
    """
    layers = (n for n, part in module.named_modules() if isinstance(part, nn.Linear))
    return next(reversed(list(layers)), None)


def replace_last_layer(module, n_classes):
    """Put a new last linear layer in place of the one there is, for other classes.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    n_classes : int
        Number of classes.

    Raises
    ------
    TypeError
        If there is no linear layer.
    """
    name = find_last_layer(module)
    if name is None:
        raise TypeError(
            f"{type(module).__name__} has no linear layer, whose place new classes "
            "could take: give it one, or leave out weights"
        )
    parent, _, child = name.rpartition(".")
    former = module.get_submodule(name)
    layer = nn.Linear(former.in_features, n_classes, bias=former.bias is not None)
    setattr(module.get_submodule(parent), child, layer)
    if hasattr(module, "n_classes"):
        module.n_classes = n_classes


def order_classes(module, order):
    """Change the order of a network's classes, in place.

    Parameters
    ----------
    module : torch.nn.Module
        The network, whose last linear layer gives the scores.
    order : sequence of int
        For each place the class that comes there.
    """
    layer = module.get_submodule(find_last_layer(module))
    with torch.no_grad():
        for values in (layer.weight, layer.bias):
            if values is not None:
                values.copy_(values[list(order)])
