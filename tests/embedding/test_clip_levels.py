"""Clips whose samples are finite, but of which no finite log-mel can be made."""

import numpy as np
import pytest

from sklabelaudio import SP4SCEmbedder
from sklabelaudio.exceptions import AudioReadError, AudioReadWarning

QUIET = np.full(44100, 0.1, dtype=np.float32)
HUGE = np.linspace(-3e37, 3e37, 44100, dtype=np.float32)


@pytest.mark.parametrize("in_batches", [False, True])
def test_a_clip_that_is_too_loud_is_no_row_of_nan(in_batches):
    embedder = SP4SCEmbedder(None, sampling_rate=44100).fit([QUIET])
    embedder._engine.in_batches = in_batches
    with pytest.raises(AudioReadError, match=r"has samples up to 3e\+37, too great"):
        embedder.transform([QUIET, HUGE])
    embedder.set_params(on_error="skip")
    with pytest.warns(AudioReadWarning, match="too great for single precision"):
        rows = embedder.transform([QUIET, HUGE])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_a_loud_clip_is_a_row():
    embedder = SP4SCEmbedder(None, sampling_rate=44100)
    assert np.isfinite(embedder.fit_transform([np.sign(HUGE) * 2.0**31])).all()
