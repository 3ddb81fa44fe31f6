"""Sound files and arrays to waveforms: reading, resampling, checking, changing."""

from ._augmentations import RandomCrop, RandomGain, RandomNoise, RandomShift
from ._check import check_audio
from ._clips import AudioClips
from ._loader import AudioLoader
from ._read import load_audio

__all__ = [
    "AudioClips",
    "AudioLoader",
    "RandomCrop",
    "RandomGain",
    "RandomNoise",
    "RandomShift",
    "check_audio",
    "load_audio",
]
