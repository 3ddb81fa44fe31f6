"""Front ends of published encoders, as parameters of LogMelExtractor."""

# PANNs (Kong et al. 2020): the log-mel of Cnn6, Cnn10, Cnn14 and ResNet38.
_PANNS = {
    "window": "hann",
    "center": True,
    "pad_mode": "reflect",
    "power": 2.0,
    "n_mels": 64,
    "mel_scale": "slaney",
    "norm": "slaney",
    "log": "db",
    "ref": 1.0,
    "amin": 1e-10,
    "top_db": None,
}

PRESETS = {
    "panns_32k": {
        **_PANNS,
        "sampling_rate": 32000,
        "n_fft": 1024,
        "hop_length": 320,
        "fmin": 50.0,
        "fmax": 14000.0,
    },
    "panns_16k": {
        **_PANNS,
        "sampling_rate": 16000,
        "n_fft": 512,
        "hop_length": 160,
        "fmin": 50.0,
        "fmax": 8000.0,
    },
}
