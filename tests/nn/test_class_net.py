import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklabelaudio.nn import SP4SC, Cnn6, EncoderOutput, ResNet34
from sklabelaudio.nn._class_net import (
    ClassLoss,
    ClassNet,
    ClassScores,
    find_last_layer,
    order_classes,
    replace_last_layer,
    take_logits,
)


def make_batch(n_clips=6, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n_clips, n_classes))
    target = rng.dirichlet(np.ones(n_classes), n_clips)  # as of mixed clips
    return logits, target, rng.uniform(0.2, 2, n_clips)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_the_formula(gamma, smoothing, weighted):
    logits, target, weights = make_batch()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smooth = (1 - smoothing) * target + smoothing / 4
    losses = -(smooth * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    expected = (weights * losses).mean() if weighted else losses.mean()
    labels = torch.from_numpy(target)
    if weighted:
        labels = (labels, torch.from_numpy(weights))
    loss = ClassLoss(gamma, smoothing)(ClassScores(torch.from_numpy(logits)), labels)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_loss_without_gamma_is_torchs():
    logits, target, _ = map(torch.from_numpy, make_batch())
    expected = nn.functional.cross_entropy(logits, target, label_smoothing=0.2)
    loss = ClassLoss(smoothing=0.2)(ClassScores(logits), target)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_clip_that_is_told_for_sure_has_a_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    target = torch.eye(2)[[0, 0]]
    loss = ClassLoss(gamma)(ClassScores(logits), target)
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0] == pytest.approx(-0.5)


def test_gradient_is_scaled_and_the_loss_is_not():
    logits, target, _ = map(torch.from_numpy, make_batch())
    losses, gradients = [], []
    for scale in (1.0, 8.0):
        leaf = logits.clone().requires_grad_()
        criterion = ClassLoss()
        criterion.gradient_scale = scale
        loss = criterion(ClassScores(leaf), target)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], 8 * gradients[0])


def test_chosen_weights_are_trained_and_statistics_kept():
    net = ClassNet(SP4SC(3, n_mels=16, channels=(2, 2, 2, 2)))
    net.choose(("conv1", "fc"))
    trained = {n for n, w in net.network.named_parameters() if w.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"conv1", "fc1", "fc2"}
    for keeps in (False, True):
        net.keeps_statistics = keeps
        net.train()
        assert net.network.bn0.training is not keeps
        assert net.network.conv2.bn.training is not keeps
        assert net.network.dropout.training
        assert not net.eval().network.dropout.training


def test_scores_are_taken_from_what_networks_give():
    scores = torch.zeros(2, 3)
    assert take_logits(scores) is scores
    assert take_logits(EncoderOutput(torch.zeros(2, 5), scores)) is scores
    for output in (EncoderOutput(scores), (scores, scores), None):
        with pytest.raises(TypeError, match="without logits: have its forward return"):
            take_logits(output)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (lambda: SP4SC(4), "fc2"),
        (lambda: Cnn6(4, width=0.1), "fc_audioset"),
        (lambda: ResNet34(4, width=2), "fc"),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.ReLU()), "0.0"),
    ],
)
def test_last_layer_is_found_ordered_and_replaced(network, name):
    torch.manual_seed(0)
    network = network().eval()
    inputs = torch.randn(2, 3)
    if hasattr(network, "n_classes"):
        inputs = torch.randn(2, 32, getattr(network, "n_mels", 32))
    assert find_last_layer(network) == name
    with torch.inference_mode():
        before = take_logits(network(inputs))
        order_classes(network, [2, 0, 3, 1])
        after = take_logits(network(inputs))
    torch.testing.assert_close(after, before[:, [2, 0, 3, 1]])
    replace_last_layer(network, 7)
    assert take_logits(network(inputs)).shape == (2, 7)
    assert getattr(network, "n_classes", 7) == 7


def test_a_network_without_linear_layers_gets_no_new_one():
    with pytest.raises(TypeError, match="Conv2d has no linear layer, whose place"):
        replace_last_layer(nn.Conv2d(1, 2, 3), 4)
    assert find_last_layer(nn.ReLU()) is None


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_half_precision_is_for_training(amp):
    net = ClassNet(nn.Linear(3, 2))
    net.amp = amp
    inputs = torch.randn(4, 3)
    assert net.train()(inputs).logits.dtype == (amp or torch.float32)
    assert net.eval()(inputs).logits.dtype == torch.float32


def test_first_batches_statistics_are_averaged_evenly():
    torch.manual_seed(0)
    net = ClassNet(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))).train()
    norm = net.network[0]
    batches = 5 + torch.randn(14, 8, 3)
    for k, batch in enumerate(batches):
        if k == 6:  # a copy goes on alike, and so do restored weights
            net = copy.deepcopy(net)
            norm = net.network[0]
        if k == 7:
            other = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
            other = ClassNet(other).train()
            other.load_state_dict(net.state_dict())
            net, norm = other, other.network[0]
        net(batch)
        if k < 10:
            expected = batches[: k + 1].mean(dim=(0, 1))
        else:
            expected = 0.9 * expected + 0.1 * batch.mean(dim=0)
        torch.testing.assert_close(norm.running_mean, expected)
    assert norm.momentum == 0.1
    before = norm.running_mean.clone()
    net.eval()(batches[0])
    assert torch.equal(norm.running_mean, before)


def test_restored_weights_go_on_alike_where_norms_move_slowly():
    """Their momentum is their own again after the first batches."""
    torch.manual_seed(0)
    nets = []
    batches = torch.randn(104, 4, 3)
    for _ in range(2):
        norm = nn.BatchNorm1d(3, momentum=0.001)
        nets.append(ClassNet(nn.Sequential(norm, nn.Linear(3, 2))).train())
    for batch in batches[:102]:
        nets[0](batch)
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        for batch in batches[102:]:
            net(batch)
    found, expected = (net.network[0].running_mean for net in nets)
    assert torch.equal(found, expected)
    assert nets[0].network[0].momentum == 0.001


def test_batches_that_no_norm_saw_are_not_counted():
    net = ClassNet(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))
    net.keeps_statistics = True
    net.train()(torch.randn(4, 3))
    net.keeps_statistics = False
    batch = 5 + torch.randn(4, 3)
    net.train()(batch)
    torch.testing.assert_close(net.network[0].running_mean, batch.mean(dim=0))


def test_published_statistics_are_not_thrown_away():
    published = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    for _ in range(200):
        published(5 + torch.randn(8, 3))
    net = ClassNet(published).train()
    batch = torch.randn(8, 3)
    expected = 0.9 * published[0].running_mean + 0.1 * batch.mean(dim=0)
    net(batch)
    torch.testing.assert_close(published[0].running_mean, expected)
