"""Data sets: fetched, loaded from a folder, or made."""

from .._download import get_data_home
from ._esc50 import fetch_esc50, load_esc50
from ._sound_events import make_sound_events
from ._splits import split_dataset
from ._tau_urban_scenes import load_tau_urban_scenes
from ._urbansound8k import load_urbansound8k

__all__ = [
    "fetch_esc50",
    "get_data_home",
    "load_esc50",
    "load_tau_urban_scenes",
    "load_urbansound8k",
    "make_sound_events",
    "split_dataset",
]
