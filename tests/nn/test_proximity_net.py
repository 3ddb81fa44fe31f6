import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from sklabelaudio.nn import EncoderOutput, OntologyBCELoss, SemanticProximityLoss
from sklabelaudio.nn._proximity_net import (
    ProximityAlignmentLoss,
    ProximityNet,
    ProximityOutput,
)

DISTANCES = torch.tensor([[0.0, 1, 4, 3], [1, 0, 4, 3], [4, 4, 0, 1], [3, 3, 1, 0]])


def make_batch(n_clips=6, n_classes=4, n_features=5, n_text=7):
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    clips = torch.randn(n_clips, n_features, **options)
    texts = torch.randn(n_classes, n_text, **options)
    target = (torch.rand(n_clips, n_classes, **options) < 0.4).double()
    target[torch.arange(n_clips), torch.arange(n_clips) % n_classes] = 1
    return clips, texts, target


def make_net(texts, encoder=None, n_features=5, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = ProximityNet(
            encoder,
            n_features=n_features,
            n_components=3,
            n_classes=4,
            label_vectors=texts,
            **options,
        )
    return net.double()


def equation_5(clips, texts, target, parameters, alpha):
    """The paper's loss, written out clip by clip, with the weights of OBCE."""
    audio, audio_bias, classifier, classifier_bias, text, text_bias = parameters
    far = DISTANCES.double() / DISTANCES.max()
    weights = torch.zeros_like(target)
    for i, row in enumerate(target):
        own = row.nonzero().flatten().tolist()
        for j in range(4):
            to_own = [far[k, j] for k in own if far[k, j] > 0]
            weights[i, j] = min(to_own, default=0)
        weights[i] /= weights[i].max()
        weights[i, own] = 1
    weights = weights / weights.mean()
    bce = obce = spa = 0
    for i, clip in enumerate(clips):
        embedding = audio @ clip + audio_bias
        y = (classifier @ embedding + classifier_bias).sigmoid()
        losses = -(target[i] * y.log() + (1 - target[i]) * (1 - y).log())
        bce = bce + losses.mean() / len(clips)
        obce = obce + (weights[i] * losses).mean() / len(clips)
        own = target[i].nonzero().flatten().tolist()
        cosines = [
            cosine_similarity(embedding, text @ texts[k] + text_bias, dim=0)
            for k in own
        ]
        spa = spa + (1 - sum(cosines) / len(own)) / len(clips)
    return (bce + obce) / 2 + alpha * spa


def test_loss_and_gradients_are_those_of_equation_5():
    clips, texts, target = make_batch()
    net = make_net(texts)
    loss = ProximityAlignmentLoss(0.7, DISTANCES)(net(clips), target)
    parameters = [
        getattr(getattr(net, layer), name)
        for layer in ("audio_projector", "classifier", "text_projector")
        for name in ("weight", "bias")
    ]
    assert len(list(net.parameters())) == len(parameters)
    expected = equation_5(clips, texts, target, parameters, 0.7)
    # The weights of the classes are in single precision.
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(loss, parameters)
    for got, wanted in zip(
        gradients, torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-8)


def test_baselines():
    clips, texts, target = make_batch()
    net = make_net(texts)
    bce = nn.BCEWithLogitsLoss()(net(clips).logits, target)
    assert ProximityAlignmentLoss(0)(net(clips), target).item() == bce.item()
    output = net(clips)
    proximity = SemanticProximityLoss()(output[1], output[2], target)
    torch.testing.assert_close(
        ProximityAlignmentLoss(2.0)(output, target), bce + 2 * proximity
    )
    without_texts = make_net(None)(clips)
    assert without_texts.label_embedding is None
    ProximityAlignmentLoss(0, DISTANCES)(without_texts, target).backward()


@pytest.mark.parametrize("distances", [None, DISTANCES], ids=["bce", "obce"])
def test_weights_count_clips_as_often(distances):
    clips, texts, target = make_batch()
    target[2] = 0  # a clip without labels
    net, loss = make_net(texts), ProximityAlignmentLoss(0.5, distances)
    counts = torch.tensor([1, 0, 2, 3, 1, 0])
    repeated = loss(
        net(clips.repeat_interleave(counts, 0)), target.repeat_interleave(counts, 0)
    )
    weights = counts.double()
    weighted = loss(net(clips), (target, weights))
    # A batch counts by its weights too, whose mean is 1 over all batches.
    torch.testing.assert_close(weighted, repeated * weights.mean(), rtol=1e-6, atol=0)
    once = loss(net(clips), (target, weights / weights.mean()))
    torch.testing.assert_close(once, repeated, rtol=1e-6, atol=0)
    ones = loss(net(clips), (target, torch.ones(6).double()))
    torch.testing.assert_close(ones, loss(net(clips), target), rtol=1e-6, atol=0)


def test_clips_without_labels_and_weights_make_no_nan():
    clips, texts, target = make_batch()
    target[:3] = 0
    output = make_net(texts)(clips)
    weights = torch.tensor([1.0, 1, 1, 0, 0, 0]).double()
    loss = SemanticProximityLoss()(output[1], output[2], target, weights)
    assert loss.item() == 0
    loss = OntologyBCELoss(DISTANCES, from_logits=True)(output[0], target, weights)
    assert torch.isfinite(loss)


class Encoder(nn.Module):
    def __init__(self, as_output):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.linear = nn.Linear(5, 2)
        self.as_output = as_output

    def forward(self, inputs):
        vectors = self.linear(self.norm(inputs))
        return EncoderOutput(vectors) if self.as_output else vectors


@pytest.mark.parametrize("as_output", [False, True])
def test_reads_the_vectors_of_an_encoder(as_output):
    clips, texts, _ = make_batch()
    net = make_net(texts, Encoder(as_output), n_features=2).eval()
    output = net(clips)
    assert isinstance(output, ProximityOutput)
    vectors = net.encoder.linear(net.encoder.norm(clips))
    expected = net.classifier(net.audio_projector(vectors))
    torch.testing.assert_close(output.logits, expected)


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_a_frozen_encoder_stays_as_it_is(freeze_encoder):
    clips, texts, target = make_batch()
    net = make_net(texts, Encoder(True), n_features=2, freeze_encoder=freeze_encoder)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert "label_vectors" not in before  # which is no part of what is learnt
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    net.train()
    ProximityAlignmentLoss(1.0, DISTANCES)(net(clips), target).backward()
    optimizer.step()
    changed = {
        name
        for name, value in net.state_dict().items()
        if not torch.equal(value, before[name])
    }
    of_encoder = {name for name in changed if name.startswith("encoder.")}
    assert changed - of_encoder == {n for n in before if not n.startswith("encoder.")}
    if freeze_encoder:
        assert not of_encoder
    else:
        assert {"encoder.norm.running_mean", "encoder.linear.weight"} <= of_encoder
