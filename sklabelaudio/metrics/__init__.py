"""Scores for sounds, given as arrays."""

from ._zero_shot import harmonic_mean_score

__all__ = ["harmonic_mean_score"]
