"""Classifiers that know what their labels mean."""

from ._bilinear import BilinearZeroShotClassifier
from ._prompt_zero_shot import PromptZeroShotClassifier
from ._spa_tagger import SPATagger
from ._tagger_zero_shot import TaggerZeroShotClassifier

__all__ = [
    "BilinearZeroShotClassifier",
    "PromptZeroShotClassifier",
    "SPATagger",
    "TaggerZeroShotClassifier",
]
