import copy

import pytest
import torch
from torch import nn

from sklabelaudio.nn import CSCM, SymmetricContrastiveLoss
from sklabelaudio.nn._contrastive_net import (
    ContrastiveNet,
    ContrastiveNetLoss,
    ContrastiveOutput,
    FrozenTexts,
    TrainedTexts,
    cosines,
)
from sklabelaudio.nn._label_heads import LinearHead

N_CLASSES, N_COMPONENTS = 4, 6


class Encoder(nn.Module):
    """A map of 5 channels, 2 by 3, of clips of 6 frames and 4 bands."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 5, 2, stride=2), nn.BatchNorm2d(5))

    def forward_features(self, log_mel):
        return self.layers(log_mel.mT.unsqueeze(1))


class TextEncoder(nn.Module):
    n_components = 3

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, self.n_components)
        self.seen = []

    def forward(self, tokens):
        self.seen.append(tokens.clone())
        return self.embedding(tokens).sum(dim=1)


def make_net(kind="frozen", **params):
    torch.manual_seed(0)
    texts = None
    if kind == "frozen":
        texts = FrozenTexts(torch.randn(N_CLASSES, 7), N_COMPONENTS)
    elif kind == "trained":
        tokens = torch.randint(10, (N_CLASSES, 2, 5))
        texts = TrainedTexts(TextEncoder(), tokens, N_COMPONENTS)
    alignment = None if texts is None else SymmetricContrastiveLoss("class", 5.0, True)
    head = CSCM(5, 2, 3, N_COMPONENTS)
    return ContrastiveNet(
        Encoder(), head, texts, N_CLASSES, alignment=alignment, **params
    )


def make_batch(n_clips=6):
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(n_clips, 6, 4, generator=generator)
    return clips, torch.arange(n_clips) * 3 % N_CLASSES


KINDS = pytest.mark.parametrize("kind", ["frozen", "trained", "classes"])


@KINDS
def test_evaluation_is_its_parts(kind):
    net = make_net(kind).eval()
    clips, classes = make_batch()
    output = net(clips, classes)
    expected = net.head(net.encoder.forward_features(clips))
    torch.testing.assert_close(output.embedding, expected)
    torch.testing.assert_close(net.embed(clips), expected)
    if kind == "classes":
        logits = net.classifier(expected)
        assert output.text_embedding is None
    else:
        texts = net.texts()
        torch.testing.assert_close(output.text_embedding, texts[classes])
        logits = 5.0 * nn.functional.cosine_similarity(
            expected[:, None], texts[None], dim=2
        )
    torch.testing.assert_close(output.logits, logits)
    criterion = ContrastiveNetLoss(net.alignment)
    target = nn.functional.one_hot(classes, N_CLASSES).float()
    if kind == "classes":
        loss = nn.functional.cross_entropy(logits, classes)
    else:
        loss = net.alignment(expected, texts[classes], classes)
    torch.testing.assert_close(criterion(output, target), loss)


@KINDS
def test_gradients_reach_all_weights(kind):
    net = make_net(kind)
    clips, classes = make_batch()
    output = net(clips, classes)
    target = nn.functional.one_hot(classes, N_CLASSES).float()
    ContrastiveNetLoss(net.alignment)(output, target).backward()
    for name, weight in net.named_parameters():
        # Batch norm takes away what a convolution adds.
        if name != "encoder.layers.0.bias":
            assert weight.grad.abs().sum() > 0, name


def test_trained_texts_are_encoded_once_a_batch():
    net = make_net("trained")
    clips, _ = make_batch()
    encoder = net.texts.encoder
    classes = torch.tensor([3, 1, 1, 3, 3, 1])
    output = net(clips, classes)
    (tokens,) = encoder.seen
    assert torch.equal(tokens, net.texts.tokens[[1, 3]].flatten(0, 1))
    torch.testing.assert_close(output.text_embedding, net.texts()[classes])
    # With templates' vectors averaged.
    vectors = encoder(net.texts.tokens[:, 0]) + encoder(net.texts.tokens[:, 1])
    torch.testing.assert_close(net.texts(), net.texts.projector(vectors / 2))
    # In evaluation once, until training goes on.
    encoder.seen.clear()
    for _ in range(2):
        net.eval()(clips, classes)
    assert len(encoder.seen) == 1
    with torch.no_grad():
        encoder.embedding.weight += 1
    net.train()
    changed = net.eval()(clips, classes)
    torch.testing.assert_close(changed.text_embedding, net.texts()[classes])
    assert not torch.allclose(changed.text_embedding, output.text_embedding)


def test_many_texts_are_encoded_in_parts_where_nothing_is_learnt():
    encoder = TextEncoder()
    texts = TrainedTexts(encoder, torch.randint(10, (50, 3, 5)), 4)
    whole = texts()
    assert [len(tokens) for tokens in encoder.seen] == [150]
    encoder.seen.clear()
    with torch.no_grad():
        torch.testing.assert_close(texts(), whole)
    assert [len(tokens) for tokens in encoder.seen] == [64, 64, 22]


def test_texts_that_are_in_the_space_are_not_projected():
    encoder = TextEncoder()
    tokens = torch.zeros(N_CLASSES, 1, 5, dtype=torch.int64)
    texts = TrainedTexts(encoder, tokens, None)
    assert torch.equal(texts(), encoder(tokens[:, 0]))
    vectors = torch.randn(N_CLASSES, 7)
    assert torch.equal(FrozenTexts(vectors, None)(), vectors)
    # What texts are made of is no state.
    assert not FrozenTexts(vectors, None).state_dict()


def test_frozen_encoder_stays_as_it_is():
    net = make_net(freeze_encoder=True)
    before = copy.deepcopy(net.encoder.state_dict())
    clips, classes = make_batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    for _ in range(2):
        output = net.train()(clips, classes)
        ContrastiveNetLoss(net.alignment)(output, classes).backward()
        optimizer.step()
    for name, values in net.encoder.state_dict().items():
        assert torch.equal(values, before[name])
    assert net.head.training
    assert not net.encoder.training


def test_vectors_need_no_encoder():
    head = LinearHead(7, 1, 1, N_COMPONENTS)
    net = ContrastiveNet(None, head, None, N_CLASSES)
    vectors = torch.randn(3, 7)
    torch.testing.assert_close(net.embed(vectors), head.projection(vectors))


def test_weights_and_mixtures_reach_the_losses():
    clips, classes = make_batch()
    weights = torch.tensor([1.0, 2, 0.5, 1, 1, 1])
    partners = torch.tensor([1, 0, 3, 2, 5, 4])
    shares = torch.tensor([0.6, 0.7, 0.8, 0.9, 1.0, 0.5])
    one_hot = nn.functional.one_hot(classes, N_CLASSES).float()
    mixed = torch.lerp(one_hot[partners], one_hot, shares[:, None])
    net = make_net()
    output = net(clips, classes)
    criterion = ContrastiveNetLoss(net.alignment)
    expected = weights.mean() * net.alignment(
        output.embedding,
        output.text_embedding,
        classes,
        weights,
        partners=partners,
        shares=shares,
    )
    found = criterion(output, [mixed, weights, partners, shares])
    torch.testing.assert_close(found, expected)
    logits = torch.randn(6, N_CLASSES)
    output = ContrastiveOutput(clips.flatten(1), None, classes, logits)
    losses = -(mixed * logits.log_softmax(dim=1)).sum(dim=1)
    criterion = ContrastiveNetLoss()
    found = criterion(output, [mixed, weights, partners, shares])
    torch.testing.assert_close(found, (weights * losses).mean())
    torch.testing.assert_close(criterion(output, mixed), losses.mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_of_training_only(dtype):
    clips, classes = make_batch()
    target = nn.functional.one_hot(classes, N_CLASSES).float()
    for kind in ("frozen", "classes"):
        full, half = make_net(kind), make_net(kind, amp=dtype)
        outputs = [net(clips, classes) for net in (full, half)]
        assert outputs[1].embedding.dtype == dtype
        losses = [
            ContrastiveNetLoss(net.alignment)(output, target)
            for net, output in zip((full, half), outputs, strict=True)
        ]
        assert losses[1].dtype == torch.float32
        torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.05)
        assert half.eval()(clips, classes).embedding.dtype == torch.float32


def test_gradients_are_scaled_and_losses_are_not():
    clips, classes = make_batch()
    net = make_net()
    criterion = ContrastiveNetLoss(net.alignment)
    found = []
    for scale in (1.0, 8.0):
        criterion.gradient_scale = scale
        loss = criterion(net(clips, classes), classes)
        (gradient,) = torch.autograd.grad(loss, net.head.projection.weight)
        found.append((loss, gradient))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], 8 * found[0][1])


def test_cosines():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    expected = torch.tensor([[0.6, -0.8], [0.0, 0.0]])
    torch.testing.assert_close(cosines(vectors, texts), expected)
