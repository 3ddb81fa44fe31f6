"""Classifiers that know what their labels mean."""

from ._bilinear import BilinearZeroShotClassifier

__all__ = ["BilinearZeroShotClassifier"]
