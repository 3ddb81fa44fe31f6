"""Encoders in pure torch: log-mel tensors in, vectors and class scores out."""

import lazy_loader

# torch takes seconds to load, so a name is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_checkpoint": ["load_checkpoint"],
        "_efficientat": ["EfficientAT"],
        "_htsat": ["HTSAT"],
        "_output": ["EncoderOutput"],
        "_vggish": ["VGGish"],
        "_yamnet": ["YAMNet"],
    },
)
