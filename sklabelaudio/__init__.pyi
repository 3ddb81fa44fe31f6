from . import (
    audio,
    classification,
    datasets,
    embedding,
    exceptions,
    feature_extraction,
    inspection,
    metrics,
    model_selection,
    nn,
    text,
)
from .audio import AudioLoader, check_audio, load_audio
from .classification import (
    BilinearZeroShotClassifier,
    PromptZeroShotClassifier,
    TaggerZeroShotClassifier,
)
from .datasets import fetch_esc50, load_esc50, make_sound_events
from .embedding import (
    ASTEmbedder,
    AudioCLIPEmbedder,
    CLAPEmbedder,
    EfficientATEmbedder,
    EmbeddingCache,
    HTSATEmbedder,
    PANNsEmbedder,
    PaSSTEmbedder,
    PSLAEmbedder,
    SP4SCEmbedder,
    VGGishEmbedder,
    YAMNetEmbedder,
    list_checkpoints,
)
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
    "ASTEmbedder",
    "AudioCLIPEmbedder",
    "AudioLoader",
    "BilinearZeroShotClassifier",
    "CLAPEmbedder",
    "CategoryPairSplit",
    "EfficientATEmbedder",
    "EmbeddingCache",
    "FewShotSplit",
    "HTSATEmbedder",
    "LabelSimilarityDisplay",
    "LabelTextEmbedder",
    "LeaveClassesOut",
    "LogMelDisplay",
    "LogMelExtractor",
    "PANNsEmbedder",
    "PSLAEmbedder",
    "PaSSTEmbedder",
    "PromptZeroShotClassifier",
    "SP4SCEmbedder",
    "TaggerZeroShotClassifier",
    "TemporalPooling",
    "UnseenClassKFold",
    "VGGishEmbedder",
    "YAMNetEmbedder",
    "audio",
    "check_audio",
    "classification",
    "datasets",
    "embedding",
    "exceptions",
    "feature_extraction",
    "fetch_esc50",
    "harmonic_mean_score",
    "inspection",
    "list_checkpoints",
    "load_audio",
    "load_esc50",
    "make_sound_events",
    "metrics",
    "model_selection",
    "nn",
    "text",
    "zero_shot_scorer",
]
