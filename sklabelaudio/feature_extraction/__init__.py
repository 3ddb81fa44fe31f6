"""Waveforms to log-mel spectrograms, and these to vectors."""

from ._log_mel import LogMelExtractor
from ._temporal_pooling import TemporalPooling

__all__ = ["LogMelExtractor", "TemporalPooling"]
