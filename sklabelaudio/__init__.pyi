from . import (
    audio,
    classification,
    datasets,
    exceptions,
    feature_extraction,
    inspection,
    metrics,
    model_selection,
    text,
)
from .audio import AudioLoader, check_audio, load_audio
from .classification import BilinearZeroShotClassifier
from .datasets import fetch_esc50, load_esc50, make_sound_events
from .feature_extraction import LogMelExtractor, TemporalPooling
from .inspection import LabelSimilarityDisplay, LogMelDisplay
from .metrics import harmonic_mean_score
from .model_selection import (
    CategoryPairSplit,
    FewShotSplit,
    LeaveClassesOut,
    UnseenClassKFold,
    zero_shot_scorer,
)
from .text import LabelTextEmbedder

__version__: str

__all__ = [
    "AudioLoader",
    "BilinearZeroShotClassifier",
    "CategoryPairSplit",
    "FewShotSplit",
    "LabelSimilarityDisplay",
    "LabelTextEmbedder",
    "LeaveClassesOut",
    "LogMelDisplay",
    "LogMelExtractor",
    "TemporalPooling",
    "UnseenClassKFold",
    "audio",
    "check_audio",
    "classification",
    "datasets",
    "exceptions",
    "feature_extraction",
    "fetch_esc50",
    "harmonic_mean_score",
    "inspection",
    "load_audio",
    "load_esc50",
    "make_sound_events",
    "metrics",
    "model_selection",
    "text",
    "zero_shot_scorer",
]
