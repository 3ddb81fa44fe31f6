import numpy as np
import pytest
from scipy.special import expit

from sklabelaudio.classification._proximity_scores import calibrate


def draw(n_clips=400, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(-1, 1, (n_clips, n_classes))
    return similarities, rng.random(similarities.shape) < expit(6 * similarities - 3)


def test_finds_the_scale_and_the_bias():
    scale, bias = calibrate(*draw(20_000))
    assert (scale, bias) == pytest.approx((6, -3), rel=0.03)


@pytest.mark.parametrize("spread", [1e-4, 0.01, 1])
def test_similarities_may_lie_close_together(spread):
    similarities, indicator = draw()
    scale, bias = calibrate(similarities, indicator)
    near = 1 - spread + spread * similarities
    scale_of_near, bias_of_near = calibrate(near, indicator)
    np.testing.assert_allclose(
        scale_of_near * near + bias_of_near, scale * similarities + bias, atol=1e-3
    )


def test_greater_similarity_is_never_a_lower_score():
    similarities, indicator = draw()
    assert calibrate(-similarities, indicator)[0] > 0
    scale, bias = calibrate(np.ones_like(similarities), indicator)
    assert scale > 0
    assert expit(scale + bias) == pytest.approx(indicator.mean(), rel=1e-3)


def test_nothing_to_tell_apart():
    for fill in (True, False):
        assert calibrate(np.ones((3, 2)), np.full((3, 2), fill)) == (1.0, 0.0)
