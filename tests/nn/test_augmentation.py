import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from sklabelaudio.nn._augmentation import mask_stripes, mix_clips, roll_time


def make_batch(n_clips=4, n_frames=30, n_mels=16):
    generator = torch.Generator().manual_seed(0)
    log_mel = torch.randn(n_clips, n_frames, n_mels, generator=generator)
    return log_mel, torch.eye(n_clips)[:, :3].clone()


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mixtures_are_lines_between_two_clips():
    log_mel, target = make_batch()
    mixed, mixed_target, partners, shares = mix_clips(
        log_mel, target, 0.3, make_generator()
    )
    assert sorted(partners.tolist()) == [0, 1, 2, 3]
    assert ((shares >= 0.5) & (shares <= 1)).all()
    for i, (j, share) in enumerate(zip(partners, shares, strict=True)):
        expected = share * log_mel[i] + (1 - share) * log_mel[j]
        torch.testing.assert_close(mixed[i], expected)
        expected = share * target[i] + (1 - share) * target[j]
        torch.testing.assert_close(mixed_target[i], expected)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha):
    vectors = torch.zeros(4000, 1, dtype=torch.float64)
    shares = mix_clips(vectors, vectors, alpha, make_generator())[3].numpy()

    def cumulative(share):  # of the greater of a share and the rest
        return beta.cdf(share, alpha, alpha) - beta.cdf(1 - share, alpha, alpha)

    assert kstest(shares, cumulative).pvalue > 0.01


def test_stripes_hold_the_mean_and_nothing_else_changes():
    log_mel, _ = make_batch(200)
    masked = mask_stripes(log_mel, 4, 10, make_generator(), n_stripes=1)
    widths = {"bands": set(), "frames": set()}
    for clip, after in zip(log_mel, masked, strict=True):
        changed = (clip != after).numpy()
        rows, columns = changed.all(axis=1), changed.all(axis=0)
        assert np.array_equal(changed, rows[:, None] | columns[None, :])
        torch.testing.assert_close(
            after[changed], clip.mean().expand(int(changed.sum()))
        )
        for name, stripe in (("frames", rows), ("bands", columns)):
            places = np.flatnonzero(stripe)
            assert len(places) == np.ptp(places) + 1 if len(places) else True
            widths[name].add(len(places))
    assert widths == {"bands": set(range(5)), "frames": set(range(11))}


def test_stripes_reach_both_ends():
    log_mel, _ = make_batch(300)
    changed = mask_stripes(log_mel, 3, 3, make_generator()) != log_mel
    rows = changed.all(dim=2).any(dim=0)
    columns = changed.all(dim=1).any(dim=0)
    assert rows.all()
    assert columns.all()


def test_stripes_wider_than_the_clip_blank_it_at_most():
    log_mel, _ = make_batch(50, n_frames=3)
    masked = mask_stripes(log_mel, 0, 99, make_generator())
    assert torch.isfinite(masked).all()
    assert (masked == log_mel.mean(dim=(1, 2), keepdim=True)).all(dim=(1, 2)).any()


def test_rolling_keeps_every_frame_in_its_turn():
    log_mel, _ = make_batch(100, n_frames=7)
    rolled = roll_time(log_mel, make_generator())
    shifts = set()
    for clip, after in zip(log_mel, rolled, strict=True):
        (shift,) = [k for k in range(7) if torch.equal(clip.roll(k, 0), after)]
        shifts.add(shift)
    assert shifts == set(range(7))


@pytest.mark.parametrize(
    "augment",
    [
        lambda x, g: mix_clips(x, torch.zeros(len(x), 1), 0.3, g)[0],
        lambda x, g: mask_stripes(x, 4, 9, g),
        lambda x, g: roll_time(x, g),
    ],
    ids=["mix", "mask", "roll"],
)
def test_only_the_given_generator_is_drawn_from(augment):
    log_mel, _ = make_batch(20)
    before, copy = torch.random.get_rng_state(), log_mel.clone()
    first, again = (augment(log_mel, make_generator(3)) for _ in range(2))
    other = augment(log_mel, make_generator(4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(log_mel, copy)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
