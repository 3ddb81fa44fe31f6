"""Clips to vectors by pretrained encoders, as transformers, and their cache."""

from ._cache import EmbeddingCache
from ._clap import CLAPEmbedder
from ._efficientat import EfficientATEmbedder
from ._htsat import HTSATEmbedder
from ._records import Checkpoint
from ._registry import list_checkpoints
from ._vggish import VGGishEmbedder
from ._yamnet import YAMNetEmbedder

__all__ = [
    "CLAPEmbedder",
    "Checkpoint",
    "EfficientATEmbedder",
    "EmbeddingCache",
    "HTSATEmbedder",
    "VGGishEmbedder",
    "YAMNetEmbedder",
    "list_checkpoints",
]
