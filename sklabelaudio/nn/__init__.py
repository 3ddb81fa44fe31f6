"""Encoders in pure torch: log-mel tensors in, vectors and class scores out."""

import lazy_loader

# torch takes seconds to load, so a name is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_ast": ["AST"],
        "_checkpoint": ["load_checkpoint"],
        "_contrastive_loss": ["SymmetricContrastiveLoss"],
        "_cscm": ["CSCM"],
        "_efficientat": ["EfficientAT"],
        "_esresnext": ["ESResNeXtFbsp"],
        "_htsat": ["HTSAT"],
        "_ontology_loss": ["OntologyBCELoss"],
        "_output": ["EncoderOutput"],
        "_panns": ["Cnn6", "Cnn10", "Cnn14"],
        "_panns_resnet": ["ResNet38"],
        "_panns_wavegram": ["WavegramLogmelCnn14"],
        "_passt": ["PaSST"],
        "_proximity_loss": ["SemanticProximityLoss"],
        "_psla": ["PSLA"],
        "_resnet34": ["ResNet34"],
        "_sp4sc": ["SP4SC"],
        "_vggish": ["VGGish"],
        "_yamnet": ["YAMNet"],
    },
)
