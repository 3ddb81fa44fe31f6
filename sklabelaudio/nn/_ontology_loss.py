"""OntologyBCELoss: binary cross-entropy that forgives classes near to the labels."""

import torch
from torch import nn

from .._distances import check_distances

# Nearer to 0 and 1 than this the logarithms of probabilities are cut.
_EPSILON = 1e-7


class OntologyBCELoss(nn.Module):
    """Mean of binary cross-entropy and of the same weighted by distances of classes.

    Use it to train taggers that, where they are wrong, are wrong by little. The weight
    of a class in a clip grows with its distance to the nearest label of the clip, so
    that a giggle taken for laughter costs less than one taken for a car.

    Parameters
    ----------
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes, in the order of the outputs: not negative,
        symmetric, 0 from a class to itself. For AudioSet the numbers of edges between
        them in the ontology.
    beta : float, default=1.0
        Power of the distances: above 1, near classes are forgiven more.
    from_logits : bool, default=False
        Whether outputs are class scores before the sigmoid instead of probabilities.
        Then the loss is the same but for probabilities within 1e-7 of 0 or 1: these
        are not cut, so that gradients never vanish where the tagger is wrong.

    Attributes
    ----------
    penalties : Tensor of shape (n_classes, n_classes)
        The distances divided by the greatest, to the power of `beta`, infinite instead
        of 0. A buffer, not saved with the state. As published it is in single
        precision, also where the rest is in double.

    Raises
    ------
    ValueError
        If `distances` are none or all 0, or `beta` is not above 0.

    See Also
    --------
    SemanticProximityLoss : Brings clips near to the descriptions of their labels.

    Notes
    -----
    Weights depend on the batch: their mean over it is 1. See `class_weights` for how
    they come about. A clip without labels is as far from all classes as can be, so
    they all have the full weight in it.

    Outputs in half precision are taken to single precision first.

    References
    ----------
    .. [1] H. Liu, Q. Kong, X. Liu, X. Mei, W. Wang and M. D. Plumbley,
       "Ontology-aware Learning and Evaluation for Audio Tagging", INTERSPEECH 2023.
    .. [2] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024: equation 3, and the first part of equation 5.

    Examples
    --------
    The car counts most in a clip of a giggle, its neighbour laughter least:

    >>> import torch
    >>> from sklabelaudio.nn import OntologyBCELoss
    >>> distances = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]  # car, giggle, laughter
    >>> loss = OntologyBCELoss(distances)
    >>> target = torch.tensor([[0.0, 1.0, 0.0]])
    >>> loss.class_weights(target)
    tensor([[1.3333, 1.3333, 0.3333]])
    >>> loss(torch.tensor([[0.1, 0.6, 0.7]]), target)
    tensor(0.5072)
    >>> loss(torch.tensor([[0.7, 0.6, 0.1]]), target)
    tensor(0.6903)
    """

    def __init__(self, distances, beta=1.0, from_logits=False):
        super().__init__()
        if not beta > 0:
            raise ValueError(f"beta={beta!r} must be above 0: it is a power")
        if isinstance(distances, torch.Tensor):
            distances = distances.detach().cpu()
        distances = check_distances(distances)
        if not distances.any():
            raise ValueError("distances are all 0: no class is farther than another")
        self.from_logits = from_logits
        penalties = torch.from_numpy((distances / distances.max()) ** beta).float()
        penalties[penalties == 0] = torch.inf
        self.register_buffer("penalties", penalties, persistent=False)

    def forward(self, output, target, sample_weight=None):
        """Compute the loss of a batch.

        Parameters
        ----------
        output : Tensor of shape (n_clips, n_classes)
            Probabilities, or logits with `from_logits`.
        target : Tensor of shape (n_clips, n_classes)
            1 for a label, 0 for others, values between where clips were mixed.
        sample_weight : Tensor of shape (n_clips,), default=None
            How often each clip counts; ``None`` is once.

        Returns
        -------
        Tensor
            The loss, a scalar.

        Raises
        ------
        ValueError
            If shapes don't fit together, or targets are not between 0 and 1.

        Notes
        -----
        A batch in which no clip counts has the loss 0.
        """
        if output.shape != target.shape:
            raise ValueError(
                f"output has shape {tuple(output.shape)} and target "
                f"{tuple(target.shape)}: both must be (n_clips, n_classes)"
            )
        if output.dtype in (torch.float16, torch.bfloat16):
            output = output.float()
        target = target.to(output.dtype)
        weights = self.class_weights(target, sample_weight)
        if self.from_logits:
            losses = nn.functional.binary_cross_entropy_with_logits(
                output, target, reduction="none"
            )
        else:
            output = output.clamp(_EPSILON, 1 - _EPSILON)
            losses = -target * output.log() - (1 - target) * (1 - output).log()
        weighted = _mean_over_clips(weights * losses, sample_weight)
        return (weighted + _mean_over_clips(losses, sample_weight)) / 2

    @torch.no_grad()
    def class_weights(self, target, sample_weight=None):
        """Compute the weights of the classes in each clip.

        The distance to each label of the clip is divided by the greatest of all
        distances, raised to `beta`, and multiplied by the label's value. A class has
        the least of these products that is not 0, and 0 if all are. The weights of a
        clip are divided by the greatest of them, those of its labels set to 1, and all
        weights of the batch divided by their mean.

        Parameters
        ----------
        target : Tensor of shape (n_clips, n_classes)
            Targets, as in `forward`.
        sample_weight : Tensor of shape (n_clips,), default=None
            How often each clip counts in the mean.

        Returns
        -------
        Tensor of shape (n_clips, n_classes)
            Weights, of mean 1, in the precision of `target`.

        Raises
        ------
        ValueError
            If shapes don't fit together, or targets are not between 0 and 1.
        """
        n_classes = len(self.penalties)
        if target.ndim != 2 or target.shape[1] != n_classes:
            raise ValueError(
                f"target has shape {tuple(target.shape)}, but distances are of "
                f"{n_classes} classes: it must be (n_clips, {n_classes})"
            )
        if sample_weight is not None and sample_weight.shape != target.shape[:1]:
            raise ValueError(
                f"sample_weight has shape {tuple(sample_weight.shape)} for "
                f"{len(target)} clips: it must be ({len(target)},), one for each"
            )
        least, greatest = (value.item() for value in target.aminmax())
        if not (least >= 0 and greatest <= 1):
            raise ValueError(
                "target has values that are not between 0 and 1: 1 is a label, 0 is "
                "none, and values between are of clips that were mixed"
            )
        if not target.is_floating_point():
            target = target.float()
        # Most targets are 0: only the rows of the labels are looked at.
        clips, labels = target.nonzero(as_tuple=True)
        penalties = self.penalties.index_select(0, labels).to(target.dtype)
        penalties.mul_(target[clips, labels].unsqueeze(1))
        weights = torch.full_like(target, torch.inf).scatter_reduce_(
            0, clips.unsqueeze(1).expand_as(penalties), penalties, "amin"
        )
        weights.nan_to_num_(posinf=0)  # none is left
        weights.div_(weights.amax(dim=1, keepdim=True))
        weights.nan_to_num_(nan=1)  # all were 0
        weights[clips, labels] = 1
        mean = _mean_over_clips(weights, sample_weight)
        return weights.div_(mean if sample_weight is None else _or_one(mean))


def _mean_over_clips(values, sample_weight):
    if sample_weight is None:
        return values.mean()
    counts = sample_weight.to(values.dtype)
    return counts @ values.mean(dim=1) / _or_one(counts.sum())


def _or_one(divisor):
    """Return what nothing can be divided by, which is 0, as 1."""
    return torch.where(divisor > 0, divisor, 1)
