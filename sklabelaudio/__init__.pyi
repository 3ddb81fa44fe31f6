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
from .feature_extraction import LogMelExtractor, TemporalPooling

__version__: str
