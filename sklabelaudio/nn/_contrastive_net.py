"""The network of SemanticAC: clips and the texts of their labels in one space."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn

from ._feature_maps import take_features
from ._gradient_scale import scale_gradient

_EPSILON = 1e-8
# Texts that are encoded at a time where nothing is learnt by it.
_CHUNK = 64


class ContrastiveOutput(NamedTuple):
    """What `ContrastiveNet` makes of clips.

    Parameters
    ----------
    embedding : Tensor of shape (n_clips, n_components)
        The clips in the joint space.
    text_embedding : Tensor of shape (n_clips, n_components) or None
        The texts of their labels there; ``None`` without texts.
    classes : Tensor of shape (n_clips,)
        Index of each clip's class.
    logits : Tensor of shape (n_clips, n_classes) or None
        Scores of all classes; with texts in evaluation mode only.
    """

    embedding: torch.Tensor
    text_embedding: torch.Tensor | None
    classes: torch.Tensor
    logits: torch.Tensor | None


class FrozenTexts(nn.Module):
    """Texts whose vectors stay as they are, projected into the joint space.

    Parameters
    ----------
    vectors : Tensor of shape (n_classes, n_text_features)
        The vectors.
    n_components : int or None
        Dimensions of the joint space; ``None`` leaves vectors as they are.
    """

    def __init__(self, vectors, n_components):
        super().__init__()
        # They come from the label texts again; only what is learnt is state.
        self.register_buffer("vectors", vectors, persistent=False)
        self.projector = nn.Identity()
        if n_components is not None:
            self.projector = nn.Linear(vectors.shape[1], n_components)

    def forward(self, indices=None):
        """Return the vectors of some classes, or of all."""
        return self.project(self.vectors if indices is None else self.vectors[indices])

    def project(self, vectors):
        """Return vectors of other texts in the joint space."""
        return self.projector(vectors)


class TrainedTexts(nn.Module):
    """Texts whose encoder is trained.

    Parameters
    ----------
    encoder : torch.nn.Module
        Tokens ``(n_texts, ...)`` to vectors ``(n_texts, encoder.n_components)``, such
        as a `ClipTextTransformer` or a `TextModel`.
    tokens : Tensor of shape (n_classes, n_templates, ...), int64
        The texts of each class.
    n_components : int or None
        Dimensions of the joint space, into which there is a linear layer; ``None``
        leaves vectors as they are.

    Attributes
    ----------
    frozen : bool
        Whether the encoder stays as it is.
    """

    def __init__(self, encoder, tokens, n_components):
        super().__init__()
        self.register_buffer("tokens", tokens, persistent=False)
        self.projector = nn.Identity()
        if n_components is not None:
            self.projector = nn.Linear(encoder.n_components, n_components)
        self.encoder = encoder
        self.frozen = False

    def train(self, mode=True):
        """Set the mode, in which a frozen encoder does not train."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, indices=None):
        """Return the vectors of some classes, or of all."""
        if indices is None:
            return self.project(self.tokens)
        # Texts that are there more than once are encoded once.
        present, places = indices.unique(return_inverse=True)
        return self.project(self.tokens[present])[places]

    def project(self, tokens):
        """Return other texts in the joint space, each the mean of its templates."""
        n_texts, n_templates = tokens.shape[:2]
        learns = torch.is_grad_enabled() and not self.frozen
        texts = tokens.flatten(0, 1)
        # Those of a batch together; there may be hundreds of labels.
        chunks = [texts] if learns else texts.split(_CHUNK)
        with torch.set_grad_enabled(learns):
            vectors = torch.cat([self.encoder(chunk) for chunk in chunks])
        return self.projector(vectors.unflatten(0, (n_texts, n_templates)).mean(dim=1))


class ContrastiveNet(nn.Module):
    """An audio encoder, a head that makes vectors of its maps, and label texts.

    Parameters
    ----------
    encoder : torch.nn.Module or None
        What makes a map or tokens of inputs, as for `take_features`; with ``None`` the
        inputs are vectors, each a token.
    head : FeatureHead
        Makes one vector of that, in the joint space.
    texts : FrozenTexts, TrainedTexts or None
        The labels; with ``None`` there is a linear classifier instead.
    n_classes : int
        Number of classes.
    alignment : SymmetricContrastiveLoss or None, default=None
        The loss, whose scale cosines are multiplied by; needed with texts.
    freeze_encoder : bool, default=False
        Whether the encoder stays as it is, its batch norms included.
    amp : torch.dtype or None, default=None
        Precision of what allows it in training, the rest being in single.

    References
    ----------
    Y. Xiao, Y. Ma, S. Li, H. Zhou, R. Liao and X. Li, "SemanticAC: Semantics-Assisted
    Framework for Audio Classification", ICASSP 2023: section 2.
    """

    def __init__(
        self,
        encoder,
        head,
        texts,
        n_classes,
        *,
        alignment=None,
        freeze_encoder=False,
        amp=None,
    ):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.texts = texts
        self.classifier = None
        if texts is None:
            self.classifier = nn.Linear(head.n_components, n_classes)
        # Its scale is learned and kept with the rest.
        self.alignment = alignment
        self.freeze_encoder = freeze_encoder
        self.amp = amp
        self._texts_held = None
        self._mode = None
        if encoder is not None and freeze_encoder:
            encoder.eval()

    def train(self, mode=True):
        """Set the mode, in which a frozen encoder does not train."""
        if mode:
            self._texts_held = None
        # skorch sets it for every batch, which takes long in an encoder of many parts.
        wanted = mode, self.freeze_encoder, self.texts, getattr(self.texts, "frozen", 0)
        if self._mode == wanted:
            return self
        super().train(mode)
        if self.encoder is not None and self.freeze_encoder:
            self.encoder.eval()
        self._mode = wanted
        return self

    def embed(self, inputs):
        """Return clips in the joint space, ``(n_clips, n_components)``."""
        if self.encoder is None:
            return self.head(inputs.unsqueeze(1))
        learns = torch.is_grad_enabled() and not self.freeze_encoder
        with torch.set_grad_enabled(learns):
            features = take_features(self.encoder, inputs)
        return self.head(features)

    def forward(self, inputs, classes):
        """Bring clips and the texts of their labels into one space.

        Parameters
        ----------
        inputs : Tensor of shape (n_clips, ...)
            What the encoder takes.
        classes : Tensor of shape (n_clips,), int64
            Index of each clip's class.

        Returns
        -------
        ContrastiveOutput
            The vectors.
        """
        with self._precision(inputs.device.type):
            embedding = self.embed(inputs)
            if self.texts is None:
                logits = self.classifier(embedding)
                return ContrastiveOutput(embedding, None, classes, logits)
            if self.training:
                return ContrastiveOutput(embedding, self.texts(classes), classes, None)
        texts = self._hold_texts()
        logits = self.alignment.scale * cosines(embedding, texts)
        return ContrastiveOutput(embedding, texts[classes], classes, logits)

    def _hold_texts(self):
        """Return all labels' vectors, which stay the same until training goes on."""
        if self._texts_held is None:
            with torch.no_grad():
                self._texts_held = self.texts()
        return self._texts_held

    def _precision(self, device):
        if self.amp is None or not self.training:
            return nullcontext()
        return torch.autocast(device, dtype=self.amp)


class ContrastiveNetLoss(nn.Module):
    """The loss of `ContrastiveNet`: contrastive with texts, else cross-entropy.

    Parameters
    ----------
    alignment : SymmetricContrastiveLoss or None
        That of the network.
    """

    def __init__(self, alignment=None):
        super().__init__()
        self.alignment = alignment
        self.gradient_scale = 1.0

    def forward(self, output, target):
        """Compute the loss of a batch.

        Parameters
        ----------
        output : ContrastiveOutput
            What the network made of it.
        target : Tensor of shape (n_clips, n_classes), or a sequence
            The labels, of mixed clips by their shares. In a sequence follow the weights
            of clips, of mean 1 over all batches; and behind these, if clips were mixed,
            the indices of the others and the own shares.

        Returns
        -------
        Tensor
            The loss, a scalar, whose gradient is `gradient_scale` times as large.
        """
        if isinstance(target, torch.Tensor):
            target = (target,)
        target, weights, partners, shares = (*target, None, None, None)[:4]
        if output.text_embedding is None:
            loss = nn.functional.cross_entropy(
                output.logits.to(target.dtype), target, reduction="none"
            )
            loss = (loss if weights is None else weights * loss).mean()
        else:
            loss = self.alignment(
                output.embedding,
                output.text_embedding,
                output.classes,
                weights,
                partners=partners,
                shares=shares,
            )
            if weights is not None:
                loss = loss * weights.mean()
        return scale_gradient(loss, self.gradient_scale)


def cosines(embeddings, texts):
    """Return the cosines of clips and texts.

    Parameters
    ----------
    embeddings : Tensor of shape (n_clips, n_components)
        The clips.
    texts : Tensor of shape (n_texts, n_components)
        The texts.

    Returns
    -------
    Tensor of shape (n_clips, n_texts)
        Their cosines, of a vector of zeros 0.
    """
    normalize = nn.functional.normalize
    return normalize(embeddings, eps=_EPSILON) @ normalize(texts, eps=_EPSILON).T
