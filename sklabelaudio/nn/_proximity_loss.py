"""SemanticProximityLoss: clips near to the descriptions of their labels."""

import torch
from torch import nn

# Vectors shorter than this count as being so long: a zero vector has no direction.
_EPSILON = 1e-8


class SemanticProximityLoss(nn.Module):
    """Cosine distance between clips and the descriptions of their labels.

    Use it beside the loss of a tagger, to have the vectors of clips take over what the
    descriptions of classes say about which are alike. The loss of a clip is one minus
    the mean of the cosines between its vector and those of its labels; the loss of a
    batch is the mean over the clips that have labels.

    See Also
    --------
    OntologyBCELoss : The tagger's loss beside it in the paper.

    Notes
    -----
    Nothing is learned here: the projections of both kinds of vectors belong to the
    model. A clip without labels adds nothing, and a batch of such clips has the loss
    0. Where clips were mixed, labels count by their values in the mean over a clip.

    The paper's whole objective is ``ontology_loss + alpha * proximity_loss``.

    References
    ----------
    .. [1] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024: equation 4.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import SemanticProximityLoss
    >>> descriptions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> clips = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    >>> loss = SemanticProximityLoss()
    >>> loss(clips, descriptions, target)  # the mean of 1 - 1 and 1 - (1 + 0.8) / 2
    tensor(0.0500)
    """

    def forward(self, embeddings, label_embeddings, target, sample_weight=None):
        """Compute the loss of a batch.

        Parameters
        ----------
        embeddings : Tensor of shape (n_clips, n_components)
            Vectors of the clips, projected.
        label_embeddings : Tensor of shape (n_classes, n_components)
            Vectors of the descriptions of the classes, projected to the same space.
        target : Tensor of shape (n_clips, n_classes)
            1 for a label, 0 for others, values between where clips were mixed.
        sample_weight : Tensor of shape (n_clips,), default=None
            How often each clip counts; ``None`` is once.

        Returns
        -------
        Tensor
            The loss, a scalar between 0 and 2.

        Raises
        ------
        ValueError
            If shapes don't fit together, or targets are negative.
        """
        shape = (len(embeddings), len(label_embeddings))
        if embeddings.ndim != 2 or embeddings.shape[1:] != label_embeddings.shape[1:]:
            raise ValueError(
                f"embeddings has shape {tuple(embeddings.shape)} and label_embeddings "
                f"{tuple(label_embeddings.shape)}: project both to vectors of one "
                "length, (n_clips, n_components) and (n_classes, n_components)"
            )
        if tuple(target.shape) != shape:
            raise ValueError(
                f"target has shape {tuple(target.shape)}, but there are {shape[0]} "
                f"clips and {shape[1]} classes: it must be {shape}"
            )
        if (target < 0).any():
            raise ValueError("target has negative values: 1 is a label, 0 is none")
        target = target.to(label_embeddings.dtype)
        totals = target.sum(dim=1)
        has_labels = totals > 0
        # The mean of cosines is the cosine with the mean of vectors of length one.
        shares = target[has_labels] / totals[has_labels].unsqueeze(1)
        means = shares @ _to_unit_length(label_embeddings)
        cosines = (_to_unit_length(embeddings[has_labels]) * means).sum(dim=1)
        if sample_weight is None:
            return (1 - cosines).sum() / has_labels.sum().clamp(min=1)
        counts = sample_weight[has_labels]
        total = counts.sum()
        return counts @ (1 - cosines) / torch.where(total > 0, total, 1)


def _to_unit_length(vectors):
    return nn.functional.normalize(vectors, dim=1, eps=_EPSILON)
