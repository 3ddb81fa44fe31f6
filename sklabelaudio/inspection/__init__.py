"""Pictures of sounds, labels and predictions, as scikit-learn's displays."""

from ._embedding_projection import EmbeddingProjectionDisplay
from ._label_similarity import LabelSimilarityDisplay
from ._log_mel import LogMelDisplay
from ._omap_levels import OmAPLevelsDisplay
from ._tagging import TaggingDisplay

__all__ = [
    "EmbeddingProjectionDisplay",
    "LabelSimilarityDisplay",
    "LogMelDisplay",
    "OmAPLevelsDisplay",
    "TaggingDisplay",
]
