"""The published checkpoints: addresses, digests, licences, sizes, scores."""

from ._published_convolutional import CONVOLUTIONAL
from ._published_transformers import TRANSFORMERS

CHECKPOINTS = (*CONVOLUTIONAL, *TRANSFORMERS)
