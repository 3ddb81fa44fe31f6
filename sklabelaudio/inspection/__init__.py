"""Pictures of sounds, labels and predictions, as scikit-learn's displays."""

from ._label_similarity import LabelSimilarityDisplay
from ._log_mel import LogMelDisplay

__all__ = ["LabelSimilarityDisplay", "LogMelDisplay"]
