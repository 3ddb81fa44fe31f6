"""Texts to vectors, by the vectors of their words."""

import numpy as np

from ..exceptions import UnknownLabelError
from ._normalize import normalize_label, split_words


class WordVectors:
    """The mean of the vectors of a text's words.

    Parameters
    ----------
    vectors : mapping-like
        Gives ``vectors[word]`` for ``word in vectors``: gensim's, or a dict.
    n_components : int
        Length of a vector.
    unknown_words : {"ignore", "raise"}
        What to do with words without a vector.
    """

    def __init__(self, vectors, *, n_components, unknown_words):
        self.vectors = vectors
        self.n_components = n_components
        self.unknown_words = unknown_words

    def encode(self, label_texts):
        """Return an array (n_texts, n_components), float32, for each label."""
        self._check_known(label_texts)
        return [
            np.stack([self._mean(text) for text in self._texts(item)])
            for item in label_texts
        ]

    def _texts(self, item):
        return item.texts

    def _mean(self, text):
        found, _ = self._look_up(text)
        return np.mean(found, axis=0, dtype=np.float64).astype(np.float32)

    def _look_up(self, text):
        """Return the vectors of the text's words, and the words without one."""
        found, unknown = [], []
        for word in split_words(text):
            parts = [word] if self._get(word) is not None else word.split("-")
            for part in parts:
                vector = self._get(part)
                if vector is None:
                    unknown.append(part)
                else:
                    found.append(vector)
        return found, unknown

    def _get(self, word):
        if word not in self.vectors:
            return None
        return self.vectors[word]

    def _check_known(self, label_texts):
        # The subject, for the words of a template say nothing about the label.
        blind = [item for item in label_texts if not self._look_up(item.subject)[0]]
        if blind:
            tried = "; ".join(f"{item.label!r} ({_tried(item)})" for item in blind)
            raise UnknownLabelError(
                [item.label for item in blind],
                f"no vector for {tried}: rename the label, or give its text in other "
                "words, description={label: text}",
            )
        if self.unknown_words == "ignore":
            return
        unknown = {}
        for item in label_texts:
            words = [
                word for text in self._texts(item) for word in self._look_up(text)[1]
            ]
            if words:
                unknown[item.label] = ", ".join(map(repr, dict.fromkeys(words)))
        if unknown:
            found = "; ".join(
                f"{words} in {label!r}" for label, words in unknown.items()
            )
            raise UnknownLabelError(
                list(unknown),
                f"words without a vector: {found}. Use other words, or leave them out "
                "of the mean with unknown_words='ignore'",
            )


class LabelVectors(WordVectors):
    """The vectors of a mapping: of whole labels, else of their words.

    Parameters
    ----------
    mapping : mapping of str to array-like of shape (n_components,)
        The vectors.
    unknown_words : {"ignore", "raise"}
        What to do with words without a vector.
    """

    def __init__(self, mapping, *, unknown_words):
        vectors = _check_vectors(mapping)
        n_components = len(next(iter(vectors.values())))
        super().__init__(
            vectors, n_components=n_components, unknown_words=unknown_words
        )
        self._keys = {}
        for key in vectors:
            self._keys.setdefault(normalize_label(key).casefold(), key)

    def _texts(self, item):
        return (item.subject,)

    def _look_up(self, text):
        normalized = normalize_label(text)
        for key in (text, normalized, self._keys.get(normalized.casefold())):
            if key in self.vectors:
                return [self.vectors[key]], []
        return super()._look_up(text)

    def _get(self, word):
        return self.vectors.get(self._keys.get(word.casefold()))


def _tried(item):
    words = split_words(item.subject)
    tried = dict.fromkeys(part for w in words for part in (w, *w.split("-")))
    return f"words tried: {', '.join(map(repr, tried))}" if tried else "it has no words"


def _check_vectors(mapping):
    if not mapping:
        raise ValueError("model is an empty mapping: give a vector for each label")
    vectors = {}
    first = None
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ValueError(
                f"model has the key {key!r}, a {type(key).__name__}: keys are labels, "
                "strings"
            )
        try:
            vector = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"model[{key!r}] is no vector: {error}") from error
        if vector.ndim != 1 or vector.size == 0:
            raise ValueError(
                f"model[{key!r}] has shape {vector.shape}: a vector is (n_components,)"
            )
        if vector.dtype.kind not in "fiu":
            raise ValueError(
                f"model[{key!r}] has dtype {vector.dtype}: a vector holds numbers"
            )
        if not np.isfinite(vector).all():
            raise ValueError(f"model[{key!r}] has NaN or infinite values: mend it")
        first = key if first is None else first
        if vector.size != vectors.get(first, vector).size:
            raise ValueError(
                f"model[{key!r}] has {vector.size} values and model[{first!r}] has "
                f"{vectors[first].size}: vectors have one length"
            )
        vectors[key] = vector
    return vectors
