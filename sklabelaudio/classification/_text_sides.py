"""What label texts are to SemanticContrastiveClassifier: vectors, or tokens."""

import os
from collections.abc import Mapping

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array

from ..text import LabelTextEmbedder
from ..text._trainable_texts import TrainableTexts, is_clip
from ._held_vectors import look_up


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
        return look_up(labels, self._held, self._embed)

    def _embed(self, labels):
        return check_array(
            self.embedder.transform(labels),
            dtype=np.float32,
            input_name="what text_encoder gives",
        )

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

        is_there = self.is_clip and vectors.shape[1] == n_components
        return FrozenTexts(
            torch.from_numpy(vectors), None if is_there else n_components
        )

    def list_beginning(self):
        """Return what tells texts from others beside what was read: nothing."""
        return []

    def __getstate__(self):
        return {**vars(self), "_held": {}}


class TrainedSide:
    """Texts by a text encoder that is trained.

    Parameters
    ----------
    model : str or path-like
        The text encoder, as for `TrainableTexts`.
    prompt : str, list of str or None
        Templates of the texts.
    """

    is_trained = True

    def __init__(self, model, prompt):
        self.texts = TrainableTexts(model)
        self.prompt = prompt

    def read(self, labels):
        """Return what the network takes of labels.

        Parameters
        ----------
        labels : list of str
            The labels.

        Returns
        -------
        ndarray of shape (n_labels, n_templates, ...), int64
            Their tokens.
        """
        return self.texts.tokenize(labels, self.prompt)

    def make(self, tokens, n_components):
        """Make the part of the network that knows the texts.

        Parameters
        ----------
        tokens : ndarray of shape (n_classes, n_templates, ...)
            What `read` gave of the labels of `fit`.
        n_components : int
            Dimensions of the joint space.

        Returns
        -------
        TrainedTexts
            The part, the first time with the text encoder's own weights.
        """
        import torch

        from ..nn._contrastive_net import TrainedTexts

        encoder = self.texts.build()
        # As FrozenSide has it, for what is frozen may be freed later.
        is_there = self.texts.is_clip and encoder.n_components == n_components
        return TrainedTexts(
            encoder, torch.from_numpy(tokens), None if is_there else n_components
        )

    def list_beginning(self):
        """Return what tells texts from others beside what was read.

        Returns
        -------
        list of ndarray and str
            What the text encoder begins with, before `make`.
        """
        return self.texts.list_beginning()


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
