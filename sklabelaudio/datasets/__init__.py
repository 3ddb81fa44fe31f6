"""Data sets: fetched, loaded from a folder, or made."""

from .._download import get_data_home
from ._esc50 import fetch_esc50, load_esc50
from ._sound_events import make_sound_events

__all__ = ["fetch_esc50", "get_data_home", "load_esc50", "make_sound_events"]
