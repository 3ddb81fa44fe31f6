"""Label texts to vectors: normalisation, prompts, word vectors and text encoders."""

from ._label_lists import read_label_list
from ._label_text_embedder import LabelTextEmbedder
from ._normalize import normalize_label

__all__ = ["LabelTextEmbedder", "normalize_label", "read_label_list"]
