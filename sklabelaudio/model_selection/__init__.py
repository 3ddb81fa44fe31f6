"""Splits and scores for labels that were not there in training."""

from ._split import CategoryPairSplit, FewShotSplit, LeaveClassesOut, UnseenClassKFold
from ._zero_shot_scorer import zero_shot_scorer

__all__ = [
    "CategoryPairSplit",
    "FewShotSplit",
    "LeaveClassesOut",
    "UnseenClassKFold",
    "zero_shot_scorer",
]
