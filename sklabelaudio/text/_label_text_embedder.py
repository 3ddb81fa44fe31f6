"""LabelTextEmbedder: label texts to vectors, as a transformer."""

import os
from collections.abc import Mapping
from copy import copy
from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._audioclip_text import is_torch_file, load_audioclip_encoder
from ._label_texts import build_label_texts, check_labels, check_prompt
from ._transformer_encoder import load_transformer_encoder
from ._word_files import read_word_vectors
from ._word_vectors import LabelVectors, WordVectors


class LabelTextEmbedder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Turn label texts into vectors, by a text encoder or by word vectors.

    Use it to give a zero-shot classifier the meaning of its labels, or to compare
    labels with one another. Labels are read as `normalize_label` writes them.

    Parameters
    ----------
    model : str, path-like, KeyedVectors or mapping of str to array-like, \
            default="sentence-transformers/all-MiniLM-L6-v2"
        What knows the meaning of texts:

        - a text encoder of transformers (BERT and its kin, sentence encoders, the
          text side of CLIP and CLAP): its id on the Hugging Face hub, or its folder;
        - the text side of AudioCLIP: the path of ``AudioCLIP-Full-Training.pt`` or
          ``AudioCLIP-Partial-Training.pt``, with the vocabulary
          ``bpe_simple_vocab_16e6.txt.gz`` beside it, or in the folder ``checkpoints``
          of the data home;
        - word vectors: the path of a file in word2vec's binary or text layout or
          saved by gensim, or gensim's ``KeyedVectors``. A label's vector is the mean
          of those of its lower-case words [1]_. A hyphenated word without a vector
          counts as its parts;
        - a mapping label -> vector. A label is looked up as it is, normalised, and
          normalised ignoring case; if it is not there, as the mean of its words.

        Files that gensim saved are pickles: open those of people you trust.
    prompt : str or list of str, default=None
        Template of the texts, with ``{label}`` where the label goes, such as
        ``"the sound of a {label}"``. The vectors of several templates are averaged.
        ``None`` embeds the label's text itself; a mapping takes no prompt.
    description : mapping of str to str or callable, default=None
        Text that stands in for a label, such as its definition, by label. ``None``
        for a text leaves the label.
    pooling : {"auto", "mean", "cls", "eos", "pooler"}, default="auto"
        How a text encoder's tokens become one vector: the mean of them all, the
        first, the last, or the encoder's own pooled output. ``"auto"`` does what the
        model was made for: the projection to the space shared with images or sound
        for CLIP, CLAP and AudioCLIP, the modules of a sentence-transformers model,
        the mean for others. Ignored with word vectors.
    unknown_words : {"ignore", "raise"}, default="ignore"
        What to do with words that have no vector, if others of the text have one:
        leave them out of the mean, or raise. Ignored with text encoders.
    normalize : bool, default=False
        Whether the vectors, also those of each template, are divided by their
        Euclidean length.
    batch_size : int, default=64
        Number of texts encoded together by a text encoder.
    device : str or torch.device, default="cpu"
        Where a text encoder runs.

    Attributes
    ----------
    n_components_ : int
        Length of a vector.

    See Also
    --------
    normalize_label : How labels are read.

    Notes
    -----
    `fit` loads the model, and needs no labels. Pickles hold the path or the id of a
    model, not its weights: it is loaded again at the first `transform`. A mapping or
    ``KeyedVectors`` stays in the pickle, and is shared with clones instead of copied:
    pass one to keep a large file from being loaded for each fold of a search.

    References
    ----------
    .. [1] H. Xie and T. Virtanen, "Zero-Shot Audio Classification Based on Class
       Label Embeddings", WASPAA 2019, section 2.2.

    Examples
    --------
    >>> from sklabelaudio.text import LabelTextEmbedder
    >>> words = {"sea": [1.0, 0.0], "waves": [0.0, 1.0], "dog": [-1.0, 0.0]}
    >>> LabelTextEmbedder(words).fit_transform(["sea_waves", "Dog"])
    array([[ 0.5,  0.5],
           [-1. ,  0. ]], dtype=float32)
    """

    _parameter_constraints = {
        "model": [
            str,
            os.PathLike,
            Mapping,
            HasMethods(["get_vector", "has_index_for"]),
        ],
        "prompt": [str, list, tuple, None],
        "description": [Mapping, callable, None],
        "pooling": [StrOptions({"auto", "mean", "cls", "eos", "pooler"})],
        "unknown_words": [StrOptions({"ignore", "raise"})],
        "normalize": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
    }

    def __init__(
        self,
        model="sentence-transformers/all-MiniLM-L6-v2",
        *,
        prompt=None,
        description=None,
        pooling="auto",
        unknown_words="ignore",
        normalize=False,
        batch_size=64,
        device="cpu",
    ):
        self.model = model
        self.prompt = prompt
        self.description = description
        self.pooling = pooling
        self.unknown_words = unknown_words
        self.normalize = normalize
        self.batch_size = batch_size
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Load the model.

        Parameters
        ----------
        X : None
            Ignored: the model is trained already.
        y : None
            Ignored.

        Returns
        -------
        self : LabelTextEmbedder
            The embedder with its model.

        Raises
        ------
        OSError
            If a text encoder can't be found.
        ValueError
            If the model, a file of word vectors, or the prompt is not as it should be.
        """
        self._check_prompt()
        self._encoder = self._load_encoder()
        self.n_components_ = self._encoder.n_components
        return self

    def transform(self, X):
        """Embed labels.

        Parameters
        ----------
        X : sequence of str of length n_labels
            The labels; repeated ones are embedded once.

        Returns
        -------
        ndarray of shape (n_labels, n_components), float32
            Their vectors.

        Raises
        ------
        UnknownLabelError
            If the model knows no word of a label.
        TypeError, ValueError
            If X is no sequence of labels, or the description of one is missing.
        """
        check_is_fitted(self)
        labels = check_labels(X)
        templates = self._check_prompt()
        distinct = list(dict.fromkeys(labels))
        label_texts = build_label_texts(
            distinct, description=self.description, templates=templates
        )
        encoded = self._get_encoder().encode(label_texts)
        row = {
            label: self._average(label, vectors)
            for label, vectors in zip(distinct, encoded, strict=True)
        }
        return np.stack([row[label] for label in labels])

    def _average(self, label, vectors):
        """Average the vectors of the templates, in double precision."""
        vectors = vectors.astype(np.float64)
        if self.normalize:
            vectors = _to_unit_length(vectors, label)
        vectors = vectors.mean(axis=0, keepdims=True)
        if self.normalize:
            vectors = _to_unit_length(vectors, label)
        return vectors[0].astype(np.float32)

    def _check_prompt(self):
        templates = check_prompt(self.prompt)
        if templates is not None and isinstance(self.model, Mapping):
            raise ValueError(
                f"prompt={self.prompt!r} with a mapping as model: it has vectors for "
                "labels, not for sentences; leave prompt=None"
            )
        return templates

    def _load_encoder(self):
        model = self.model
        if isinstance(model, Mapping):
            return LabelVectors(model, unknown_words=self.unknown_words)
        if isinstance(model, (str, os.PathLike)):
            model = os.fspath(model)
            settings = {
                "pooling": self.pooling,
                "batch_size": self.batch_size,
                "device": self.device,
            }
            if not os.path.isfile(model):
                return load_transformer_encoder(model, **settings)
            if is_torch_file(model):
                return load_audioclip_encoder(model, **settings)
            model = read_word_vectors(model)
        return WordVectors(
            model, n_components=model.vector_size, unknown_words=self.unknown_words
        )

    def _get_encoder(self):
        if not hasattr(self, "_encoder"):
            encoder = self._load_encoder()
            if encoder.n_components != self.n_components_:
                raise ValueError(
                    f"model={self.model!r} gives vectors of {encoder.n_components} "
                    f"components now and gave {self.n_components_} in fit: fit again"
                )
            self._encoder = encoder
        return self._encoder

    @property
    def _n_features_out(self):
        return self.n_components_

    def __getstate__(self):
        state = dict(super().__getstate__())
        state.pop("_encoder", None)
        return state

    def __sklearn_clone__(self):
        # clone() copies what is no estimator, and word vectors may take gigabytes.
        shell = copy(self)
        shell.model = None
        clone = super(LabelTextEmbedder, shell).__sklearn_clone__()
        clone.model = self.model
        return clone

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _to_unit_length(vectors, label):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(
            f"the vector of {label!r} is zero, which has no direction: mend it, or "
            "leave normalize=False"
        )
    return vectors / lengths
