"""Front ends of published encoders, as parameters of LogMelExtractor."""

_DECIBELS = {
    "window": "hann",
    "center": True,
    "pad_mode": "reflect",
    "power": 2.0,
    "mel_scale": "slaney",
    "norm": "slaney",
    "log": "db",
    "ref": 1.0,
    "amin": 1e-10,
    "top_db": None,
}

# PANNs (Kong et al. 2020): the log-mel of Cnn6, Cnn10, Cnn14 and ResNet38.
_PANNS_32K = {
    **_DECIBELS,
    "sampling_rate": 32000,
    "n_fft": 1024,
    "hop_length": 320,
    "n_mels": 64,
    "fmin": 50.0,
    "fmax": 14000.0,
}

PRESETS = {
    "panns_32k": _PANNS_32K,
    "panns_16k": {
        **_PANNS_32K,
        "sampling_rate": 16000,
        "n_fft": 512,
        "hop_length": 160,
        "fmax": 8000.0,
    },
    # HTS-AT (Chen et al. 2022) and CLAP (Wu et al. 2023) kept them.
    "htsat": _PANNS_32K,
    "clap": {**_PANNS_32K, "sampling_rate": 48000, "hop_length": 480},
    # SP4SC's scene classifier. Single precision, which its authors computed in, is up
    # to 0.002 dB off double in the quiet bands of a sweep, as theirs is.
    "sp4sc": {
        **_DECIBELS,
        "sampling_rate": 44100,
        "n_fft": 2048,
        "hop_length": 1024,
        "n_mels": 256,
        "fmin": 0.0,
        "fmax": 22050.0,
    },
}
