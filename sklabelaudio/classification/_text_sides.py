"""What label texts are to SemanticContrastiveClassifier: vectors, or tokens."""

import os
from collections.abc import Mapping

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array

from ..text import LabelTextEmbedder
from ..text._clip_texts import ClipTexts, is_clip


class FrozenSide:
    """Texts by vectors that stay as they are.

    Parameters
    ----------
    embedder : transformer
        Labels to vectors.
    is_clip : bool
        Whether they lie in a space shared with other things already, and need no
        projection if that has the length asked for.
    """

    is_trained = False

    def __init__(self, embedder, *, is_clip=False):
        self.embedder = embedder
        self.is_clip = is_clip
        self._held = {}

    def read(self, labels):
        """Return what the network takes of labels, each embedded once.

        Parameters
        ----------
        labels : list
            The labels.

        Returns
        -------
        ndarray of shape (n_labels, n_features), float32
            Their vectors.
        """
        unknown = [label for label in labels if label not in self._held]
        if unknown:
            vectors = check_array(
                self.embedder.transform(unknown),
                dtype=np.float32,
                input_name="what text_encoder gives",
            )
            self._held.update(zip(unknown, vectors, strict=True))
        return np.stack([self._held[label] for label in labels])

    def make(self, vectors, n_components):
        """Make the part of the network that knows the texts.

        Parameters
        ----------
        vectors : ndarray of shape (n_classes, n_features)
            What `read` gave of the labels of `fit`.
        n_components : int
            Dimensions of the joint space.

        Returns
        -------
        FrozenTexts
            The part.
        """
        import torch

        from ..nn._contrastive_net import FrozenTexts

        fits = self.is_clip and vectors.shape[1] == n_components
        return FrozenTexts(torch.from_numpy(vectors), None if fits else n_components)

    def __getstate__(self):
        return {**vars(self), "_held": {}}


class TrainedSide:
    """Texts by a CLIP's text encoder, which is trained.

    Parameters
    ----------
    model : str or path-like
        The CLIP.
    prompt : str, list of str or None
        Templates of the texts.
    """

    is_trained = True

    def __init__(self, model, prompt):
        self.texts = ClipTexts(model)
        self.prompt = prompt
        self.sizes, self._state = self.texts.load()

    def read(self, labels):
        """Return what the network takes of labels.

        Parameters
        ----------
        labels : list of str
            The labels.

        Returns
        -------
        ndarray of shape (n_labels, n_templates, length), int64
            Their tokens.
        """
        return self.texts.tokenize(labels, self.prompt)

    def make(self, tokens, n_components):
        """Make the part of the network that knows the texts.

        Parameters
        ----------
        tokens : ndarray of shape (n_classes, n_templates, length)
            What `read` gave of the labels of `fit`.
        n_components : int
            Dimensions of the joint space.

        Returns
        -------
        TrainedTexts
            The part, the first time with the CLIP's own weights.
        """
        import torch

        from ..nn._clip_text import ClipTextTransformer
        from ..nn._contrastive_net import TrainedTexts

        encoder = ClipTextTransformer(**self.sizes)
        if self._state is not None:
            encoder.load_state_dict(self._state)
            self._state = None
        return TrainedTexts(encoder, torch.from_numpy(tokens), n_components)

    def __getstate__(self):
        return {**vars(self), "_state": None}


def make_text_side(text_encoder, labels, *, frozen, prompt):
    """Make what reads label texts, by an estimator's parameters.

    Parameters
    ----------
    text_encoder : str, path-like, transformer, mapping or None
        The parameter.
    labels : list
        The labels of `fit`.
    frozen : bool
        Whether a text encoder that is named stays as it is.
    prompt : str, list of str or None
        Templates of the texts, for a text encoder that is named.

    Returns
    -------
    FrozenSide, TrainedSide or None
        It; ``None`` if there are to be no texts.
    """
    if text_encoder is None:
        return None
    if isinstance(text_encoder, (str, os.PathLike)):
        if not frozen:
            return TrainedSide(text_encoder, prompt)
        embedder = LabelTextEmbedder(text_encoder, prompt=prompt).fit()
        return FrozenSide(embedder, is_clip=is_clip(embedder._encoder))
    if isinstance(text_encoder, Mapping):
        text_encoder = LabelTextEmbedder(text_encoder)
    return FrozenSide(clone(text_encoder).fit(labels))
