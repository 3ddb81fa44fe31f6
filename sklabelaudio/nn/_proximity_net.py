"""The network of semantic proximity alignment, and the whole of its loss."""

from typing import NamedTuple

import torch
from torch import nn

from ._ontology_loss import OntologyBCELoss
from ._output import EncoderOutput
from ._proximity_loss import SemanticProximityLoss


class ProximityOutput(NamedTuple):
    """What `ProximityNet` makes of clips.

    Parameters
    ----------
    logits : Tensor of shape (n_clips, n_classes)
        Class scores before the sigmoid.
    embedding : Tensor of shape (n_clips, n_components)
        The clips in the joint space, ``E_a``.
    label_embedding : Tensor of shape (n_classes, n_components) or None
        The labels in the joint space, ``E_t``.
    """

    logits: torch.Tensor
    embedding: torch.Tensor
    label_embedding: torch.Tensor | None


class ProximityNet(nn.Module):
    """An audio encoder and vectors of labels, projected into one space.

    Parameters
    ----------
    encoder : torch.nn.Module or None
        What turns inputs to vectors, as an `EncoderOutput` or a tensor; with ``None``
        the inputs are the vectors.
    n_features : int
        Length of the vectors of clips.
    n_components : int
        Dimensions of the joint space.
    n_classes : int
        Number of classes.
    label_vectors : Tensor of shape (n_classes, n_text_features) or None
        Vectors of the labels' texts, which stay as they are. Without them there is no
        projector of texts.
    freeze_encoder : bool, default=False
        Whether the encoder stays as it is, its batch norms included.

    References
    ----------
    W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
    Perception-consistent Audio Tagging by Aligning with Label Text Description",
    ICASSP 2024: section 3.2.
    """

    def __init__(
        self,
        encoder,
        *,
        n_features,
        n_components,
        n_classes,
        label_vectors=None,
        freeze_encoder=False,
    ):
        super().__init__()
        self.audio_projector = nn.Linear(n_features, n_components)
        self.classifier = nn.Linear(n_components, n_classes)
        self.text_projector = None
        if label_vectors is not None:
            self.text_projector = nn.Linear(label_vectors.shape[1], n_components)
        # They come from the label texts again; only what is learnt is state.
        self.register_buffer("label_vectors", label_vectors, persistent=False)
        self.freeze_encoder = freeze_encoder
        self.encoder = encoder
        # Without gradients it stays as it is, and may train later.
        if encoder is not None and freeze_encoder:
            encoder.eval()

    def train(self, mode=True):
        """Set the mode, in which a frozen encoder does not train."""
        super().train(mode)
        if self.encoder is not None and self.freeze_encoder:
            self.encoder.eval()
        return self

    def encode(self, inputs):
        """Return the vectors of clips, ``(n_clips, n_features)``."""
        if self.encoder is None:
            return inputs
        learns = torch.is_grad_enabled() and not self.freeze_encoder
        with torch.set_grad_enabled(learns):
            return take_embedding(self.encoder(inputs))

    def forward(self, inputs):
        """Score clips.

        Parameters
        ----------
        inputs : Tensor of shape (n_clips, ...)
            What the encoder takes.

        Returns
        -------
        ProximityOutput
            Scores, and both kinds of vectors in the joint space.
        """
        embedding = self.audio_projector(self.encode(inputs))
        labels = None
        if self.text_projector is not None:
            labels = self.text_projector(self.label_vectors)
        return ProximityOutput(self.classifier(embedding), embedding, labels)


class ProximityAlignmentLoss(nn.Module):
    """The whole loss of semantic proximity alignment, equation 5 of the paper.

    Parameters
    ----------
    alpha : float, default=1.0
        Weight of the distance between clips and their labels in the joint space.
    distances : array-like of shape (n_classes, n_classes) or None, default=None
        Distances between classes, for the ontology-aware half of the tagger's loss;
        with ``None`` it is plain binary cross-entropy.

    References
    ----------
    W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
    Perception-consistent Audio Tagging by Aligning with Label Text Description",
    ICASSP 2024: equations 3 to 5.
    """

    def __init__(self, alpha=1.0, distances=None):
        super().__init__()
        self.alpha = alpha
        self.tagging = None
        if distances is not None:
            self.tagging = OntologyBCELoss(distances, from_logits=True)
        self.proximity = SemanticProximityLoss()

    def forward(self, output, target):
        """Compute the loss of a batch.

        Parameters
        ----------
        output : ProximityOutput
            What the network made of it.
        target : Tensor of shape (n_clips, n_classes), or a tuple of two
            The labels; or these and the weights of the clips, ``(n_clips,)``, of mean
            1 over all batches.

        Returns
        -------
        Tensor
            The loss, a scalar.
        """
        target, weights = (
            target if isinstance(target, (tuple, list)) else (target, None)
        )
        if self.tagging is not None:
            loss = self.tagging(output.logits, target, weights)
        else:
            loss = _cross_entropy(output.logits, target, weights)
        if self.alpha and output.label_embedding is not None:
            loss = loss + self.alpha * self.proximity(
                output.embedding, output.label_embedding, target, weights
            )
        return loss if weights is None else loss * weights.mean()


def take_embedding(output):
    """Return the vectors in what an encoder returns, which may be they themselves."""
    return output.embedding if isinstance(output, EncoderOutput) else output


def _cross_entropy(logits, target, weights):
    if weights is None:
        return nn.functional.binary_cross_entropy_with_logits(logits, target)
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none"
    )
    return weights @ losses.mean(dim=1) / weights.sum()
