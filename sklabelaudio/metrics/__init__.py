"""Scores for sounds, given as arrays."""

from ._multilabel import d_prime_score, lwlrap_score, mean_average_precision
from ._omap import omap_levels, omap_score
from ._omap_scorer import make_omap_scorer
from ._zero_shot import harmonic_mean_score

__all__ = [
    "d_prime_score",
    "harmonic_mean_score",
    "lwlrap_score",
    "make_omap_scorer",
    "mean_average_precision",
    "omap_levels",
    "omap_score",
]
