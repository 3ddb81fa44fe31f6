"""Classifiers that know what their labels mean."""

from ._bilinear import BilinearZeroShotClassifier
from ._prompt_zero_shot import PromptZeroShotClassifier
from ._semantic_contrastive import SemanticContrastiveClassifier
from ._spa_tagger import SPATagger
from ._spectrogram_cnn import SpectrogramCNNClassifier
from ._tagger_zero_shot import TaggerZeroShotClassifier

__all__ = [
    "BilinearZeroShotClassifier",
    "PromptZeroShotClassifier",
    "SPATagger",
    "SemanticContrastiveClassifier",
    "SpectrogramCNNClassifier",
    "TaggerZeroShotClassifier",
]
