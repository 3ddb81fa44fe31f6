import pytest
import torch
from torch.nn.functional import cosine_similarity

from sklabelaudio.nn import SemanticProximityLoss


def make_batch(n_clips=5, n_classes=4, n_components=6, *, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(n_clips, n_components, generator=generator, dtype=dtype)
    labels = torch.randn(n_classes, n_components, generator=generator, dtype=dtype)
    target = (torch.rand(n_clips, n_classes, generator=generator) < 0.4).to(dtype)
    target[torch.arange(n_clips), torch.arange(n_clips) % n_classes] = 1
    return clips, labels, target


def loss_by_loops(clips, labels, target):
    """Equation 4 clip by clip, and its mean."""
    losses = []
    for clip, row in zip(clips, target, strict=True):
        own = labels[row > 0]
        cosines = [cosine_similarity(clip, label, dim=0) for label in own]
        losses.append(1 - sum(cosines) / len(own))
    return sum(losses) / len(losses)


def test_is_its_equation():
    batch = make_batch()
    assert batch[2].sum() > 6  # some clips have several labels
    torch.testing.assert_close(SemanticProximityLoss()(*batch), loss_by_loops(*batch))


def test_limits():
    loss = SemanticProximityLoss()
    clips, labels, _ = make_batch(4)
    target = torch.eye(4)
    assert loss(3 * labels, labels, target).item() == pytest.approx(0)
    assert loss(-labels, 0.1 * labels, target).item() == pytest.approx(2)
    directions = torch.eye(2)
    assert loss(directions, directions.flip(0), directions).item() == 1.0
    assert 0 < loss(clips, labels, target) < 2


def test_gradients_of_both_kinds_of_vectors():
    clips, labels, target = make_batch()
    target[1] = 0
    assert torch.autograd.gradcheck(
        SemanticProximityLoss(),
        (clips.requires_grad_(), labels.requires_grad_(), target),
    )


def test_training_brings_clips_to_their_labels():
    clips, labels, target = make_batch()
    clips.requires_grad_()
    loss = SemanticProximityLoss()
    optimizer = torch.optim.SGD([clips], lr=1.0)
    first = loss(clips, labels, target).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(clips, labels, target).backward()
        optimizer.step()
    assert loss(clips, labels, target).item() < first - 0.1


def test_clips_without_labels_add_nothing():
    clips, labels, target = make_batch()
    target[2] = 0
    clips.requires_grad_()
    rest = torch.tensor([0, 1, 3, 4])
    value = SemanticProximityLoss()(clips, labels, target)
    torch.testing.assert_close(value, loss_by_loops(clips[rest], labels, target[rest]))
    value.backward()
    assert clips.grad[2].tolist() == [0.0] * 6
    assert (clips.grad[rest] != 0).all()


def test_batch_without_labels():
    clips, labels, target = make_batch()
    clips.requires_grad_()
    value = SemanticProximityLoss()(clips, labels, torch.zeros_like(target))
    value.backward()
    assert value.item() == 0.0
    assert not clips.grad.any()


def test_labels_of_mixed_clips_count_by_their_values():
    clips, labels, _ = make_batch(1)
    first, second = torch.eye(4)[:1], torch.eye(4)[1:2]
    loss = SemanticProximityLoss()
    expected = 0.75 * loss(clips, labels, first) + 0.25 * loss(clips, labels, second)
    mixed = loss(clips, labels, 0.75 * first + 0.25 * second)
    torch.testing.assert_close(mixed, expected)
    # Only the ratio counts, so that a target of one soft label is that label.
    torch.testing.assert_close(
        loss(clips, labels, 0.3 * first), loss(clips, labels, first)
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_kinds_of_targets(dtype):
    clips, labels, target = make_batch()
    loss = SemanticProximityLoss()
    torch.testing.assert_close(
        loss(clips, labels, target.to(dtype)), loss(clips, labels, target)
    )


def test_vector_of_zeros_is_at_a_right_angle_to_all():
    clips, labels, target = make_batch()
    value = SemanticProximityLoss()(torch.zeros_like(clips), labels, target)
    assert value.item() == 1.0


def test_bad_shapes():
    loss = SemanticProximityLoss()
    clips, labels, target = make_batch()
    with pytest.raises(ValueError, match=r"\(5, 3\) and label_embeddings \(4, 6\)"):
        loss(clips[:, :3], labels, target)
    with pytest.raises(ValueError, match=r"embeddings has shape \(6,\)"):
        loss(clips[0], labels, target)
    with pytest.raises(ValueError, match=r"target has shape \(4, 5\).*5 clips and 4"):
        loss(clips, labels, target.T)


def test_negative_targets():
    clips, labels, target = make_batch()
    loss = SemanticProximityLoss()
    with pytest.raises(ValueError, match="target has negative values"):
        loss(clips, labels, -target)
