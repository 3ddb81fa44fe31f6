"""Clips to vectors by pretrained encoders, as transformers, and their cache."""

from .._checkpoints import Checkpoint, list_checkpoints
from ._ast import ASTEmbedder
from ._audioclip import AudioCLIPEmbedder
from ._cache import EmbeddingCache
from ._clap import CLAPEmbedder
from ._efficientat import EfficientATEmbedder
from ._htsat import HTSATEmbedder
from ._panns import PANNsEmbedder
from ._passt import PaSSTEmbedder
from ._psla import PSLAEmbedder
from ._sp4sc import SP4SCEmbedder
from ._vggish import VGGishEmbedder
from ._yamnet import YAMNetEmbedder

__all__ = [
    "ASTEmbedder",
    "AudioCLIPEmbedder",
    "CLAPEmbedder",
    "Checkpoint",
    "EfficientATEmbedder",
    "EmbeddingCache",
    "HTSATEmbedder",
    "PANNsEmbedder",
    "PSLAEmbedder",
    "PaSSTEmbedder",
    "SP4SCEmbedder",
    "VGGishEmbedder",
    "YAMNetEmbedder",
    "list_checkpoints",
]
