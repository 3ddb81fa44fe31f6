"""
============================
What a log-mel picture shows
============================

A classifier sees a clip as its log-mel spectrogram, and what it can see depends on the
settings: short windows tell when something happens, long ones at which pitch.
"""

# %%
# A clip
# ------
# A dog barks in front of a faint background. Each bark begins at once and its harmonics
# fall, so that both time and pitch matter.

import matplotlib.pyplot as plt

from sklabelaudio import LogMelDisplay, LogMelExtractor, make_sound_events

events = make_sound_events(1, classes=["dog_bark"], random_state=0)

# %%
# Six settings
# ------------
# Each differs from the first in one thing. 0 dB is the clip's greatest value, and the
# colours are the same in all pictures.

settings = {
    "64 bands, windows of 64 ms": {},
    "Windows of 8 ms": {"win_length": 128},
    "Windows of 256 ms": {"n_fft": 4096},
    "16 bands": {"n_mels": 16},
    "1 kHz and above": {"fmin": 1000.0},
    "At most 30 dB below the peak": {"top_db": 30.0},
}

figure, axes = plt.subplots(3, 2, figsize=(11, 9), layout="constrained")
for (name, params), ax in zip(settings.items(), axes.flat, strict=True):
    extractor = LogMelExtractor(
        events.sampling_rate, hop_length=160, ref="max", **params
    ).fit(events.data)
    LogMelDisplay.from_estimator(
        extractor, events.data[0], name=name, ax=ax, vmin=-70, vmax=0
    )

# %%
# Windows of 8 ms blur the harmonics, those of 256 ms blur the barks. Sixteen bands
# keep when the dog barks and lose its pitch. Without the lowest kilohertz, more bands
# are left for the higher harmonics. A floor of 30 dB below the peak drops the
# background, and would drop any other sound as faint.

if plt.get_backend().lower() != "agg":  # which has no window to show
    plt.show()
