"""Sound files and arrays to waveforms: reading, resampling, checking."""

from ._check import check_audio
from ._clips import AudioClips
from ._loader import AudioLoader
from ._read import load_audio

__all__ = ["AudioClips", "AudioLoader", "check_audio", "load_audio"]
