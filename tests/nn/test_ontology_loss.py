import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from sklabelaudio.nn import OntologyBCELoss

CASES = ["hard_as_8", "hard_as_32", "single_as_8", "soft_as_8", "edge_as_4"]
CASES += ["hard_tree_16", "soft_tree_16", "single_tree_16"]
DISTANCES = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]


@pytest.fixture(scope="module")
def figures(shared):
    return np.load(shared / "reference" / "omap" / "obce_A.npz")


@pytest.fixture(scope="module")
def audioset_distances(shared):
    name = "audioset_distance_from_ontology_json.npz"
    return np.load(shared / "reference" / "omap" / name)["D"]


def weigh_by_loops(target, distances, beta):
    """Weights class by class and clip by clip."""
    greatest = max(map(max, distances))
    weights = []
    for row in target:
        raw = []
        for own in distances:
            products = [
                value * (distance / greatest) ** beta
                for value, distance in zip(row, own, strict=True)
            ]
            raw.append(min((value for value in products if value != 0), default=0))
        raw = [value / max(raw) for value in raw]
        weights.append([1 if y else w for y, w in zip(row, raw, strict=True)])
    mean = sum(map(sum, weights)) / len(weights) / len(distances)
    return torch.tensor(weights, dtype=torch.float64) / mean


def weigh_clip_by_clip(target, penalties):
    """Weights as published, from the whole matrix for each clip."""
    rows = []
    for labels in target:
        products = penalties.to(target.dtype) * labels
        raw = products.masked_fill(products == 0, torch.inf).amin(dim=1)
        raw[raw.isinf()] = 0
        row = raw / raw.max() if raw.any() else torch.ones_like(raw)
        row[labels > 0] = 1
        rows.append(row)
    weights = torch.stack(rows)
    return weights / weights.mean()


def make_batch(n_clips=6, n_classes=7, *, seed=0, soft=False):
    """Targets with a label in each clip, outputs, and distances not all whole."""
    rng = np.random.default_rng(seed)
    target = (rng.random((n_clips, n_classes)) < 0.3).astype(float)
    target[np.arange(n_clips), rng.integers(n_classes, size=n_clips)] = 1
    if soft:
        target = 0.7 * target + 0.3 * target[::-1]
    distances = rng.integers(0, 9, (n_classes, n_classes)) / 4
    distances = np.triu(distances, 1)
    distances = distances + distances.T
    output = rng.uniform(0.02, 0.98, target.shape)
    return torch.tensor(output), torch.tensor(target.copy()), distances


@pytest.mark.parametrize("case", CASES)
def test_double_precision_is_the_reference(figures, audioset_distances, case):
    distances = audioset_distances if "_as_" in case else figures["D_tree"]
    loss = OntologyBCELoss(distances)
    output = torch.tensor(figures[f"{case}_output"], requires_grad=True)
    target = torch.tensor(figures[f"{case}_label"])
    value = loss(output, target)
    value.backward()
    assert value.item() == pytest.approx(figures[f"{case}_f64_loss"].item(), abs=1e-12)
    np.testing.assert_allclose(
        loss.class_weights(target), figures[f"{case}_f64_weight"], rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        output.grad, figures[f"{case}_f64_grad"], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("case", CASES)
def test_single_precision_is_the_reference(figures, audioset_distances, case):
    distances = audioset_distances if "_as_" in case else figures["D_tree"]
    loss = OntologyBCELoss(distances)
    output = torch.tensor(figures[f"{case}_output"]).float().requires_grad_()
    target = torch.tensor(figures[f"{case}_label"]).float()
    value = loss(output, target)
    value.backward()
    assert value.item() == pytest.approx(figures[f"{case}_f32_loss"].item(), abs=1e-7)
    np.testing.assert_array_equal(
        loss.class_weights(target), figures[f"{case}_f32_weight"]
    )
    np.testing.assert_allclose(
        output.grad, figures[f"{case}_f32_grad"], rtol=2e-7, atol=4e-9
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("beta", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_is_its_definition(seed, beta, soft):
    output, target, distances = make_batch(seed=seed, soft=soft)
    loss = OntologyBCELoss(distances, beta=beta)
    weights = weigh_by_loops(target.tolist(), distances.tolist(), beta)
    torch.testing.assert_close(
        loss.class_weights(target), weights, rtol=1e-6, atol=1e-6
    )
    losses = binary_cross_entropy(output, target, reduction="none")
    expected = ((weights * losses).mean() + losses.mean()) / 2
    torch.testing.assert_close(loss(output, target), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_only_looking_at_labels_changes_no_bit(seed, soft, dtype):
    _, target, distances = make_batch(20, 60, seed=seed, soft=soft)
    target[3:5] = 0
    target[7] = 1
    target[9, 1:] = 0
    target = target.to(dtype)
    penalties = torch.from_numpy(distances / distances.max()).float()
    given = target.clone()
    assert torch.equal(
        OntologyBCELoss(distances).class_weights(target),
        weigh_clip_by_clip(target, penalties),
    )
    assert torch.equal(target, given)


@pytest.mark.parametrize("from_logits", [False, True])
def test_gradient(from_logits):
    output, target, distances = make_batch(soft=True)
    if from_logits:
        output = output.logit()
    loss = OntologyBCELoss(distances, from_logits=from_logits)
    assert torch.autograd.gradcheck(loss, (output.requires_grad_(), target))


def test_logits_are_the_probabilities_before_the_sigmoid():
    output, target, distances = make_batch()
    torch.testing.assert_close(
        OntologyBCELoss(distances, from_logits=True)(output.logit(), target),
        OntologyBCELoss(distances)(output, target),
    )


def test_logits_keep_their_gradient_where_probabilities_are_cut():
    logits = torch.tensor([[-40.0, 40.0, 0.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0, 0.0]])
    OntologyBCELoss(DISTANCES, from_logits=True)(logits, target).backward()
    assert logits.grad[0, 0] < -0.1
    assert logits.grad[0, 1] > 0.1
    logits.grad = None
    OntologyBCELoss(DISTANCES)(logits.sigmoid(), target).backward()
    assert logits.grad[0, :2].tolist() == [0.0, 0.0]


def test_outputs_of_0_and_1_are_cut():
    value = OntologyBCELoss(DISTANCES)(
        torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0, 0.0]]),
    )
    bad = -math.log(1e-7)
    plain = (2 * bad + math.log(2)) / 3
    # Class 1 is farthest, and class 2 at 3 of 4 of that.
    weighted = (2 * bad + 0.75 * math.log(2)) / 2.75
    assert value.item() == pytest.approx((plain + weighted) / 2, rel=1e-7)


def test_clip_without_labels_has_full_weights():
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    empty = target.clone()
    empty[2] = 0
    weights = loss.class_weights(empty)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[2].tolist() == [weights.max().item()] * 7
    # The others have the same weights among themselves.
    torch.testing.assert_close(
        weights[:2] / weights[0, 0],
        loss.class_weights(target)[:2] / loss.class_weights(target)[0, 0],
    )
    value = loss(output.requires_grad_(), empty)
    value.backward()
    assert value.isfinite()
    assert output.grad.isfinite().all()
    assert (output.grad[2] > 0).all()


def test_batch_without_labels_has_the_plain_cross_entropy():
    output, target, distances = make_batch()
    target = torch.zeros_like(target)
    torch.testing.assert_close(
        OntologyBCELoss(distances)(output, target),
        binary_cross_entropy(output, target),
    )


def test_clip_of_every_class():
    target = torch.ones(2, 3)
    torch.testing.assert_close(
        OntologyBCELoss(DISTANCES).class_weights(target), torch.ones(2, 3)
    )


def test_weights_depend_on_the_batch_by_a_factor():
    _, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    ratios = loss.class_weights(target)[:2] / loss.class_weights(target[:2])
    assert ratios.std() < 1e-12
    assert abs(ratios.mean() - 1) > 0.01


def test_weights_have_no_gradient():
    target = torch.tensor([[0.0, 0.5, 1.0]], requires_grad=True)
    assert not OntologyBCELoss(DISTANCES).class_weights(target).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    value = loss(output.to(dtype), target.to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(output, target).item(), rel=0.01)
    edge = torch.tensor([[0.0, 1.0, 0.5]], dtype=dtype, requires_grad=True)
    value = OntologyBCELoss(DISTANCES)(edge, torch.tensor([[1.0, 0.0, 0.0]]))
    value.backward()
    assert value.isfinite()
    assert edge.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_sample_weights_are_repetitions(dtype):
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    counts = torch.tensor([0, 1, 2, 0, 3, 1])
    expected = loss(
        output.repeat_interleave(counts, 0), target.repeat_interleave(counts, 0)
    )
    torch.testing.assert_close(loss(output, target, counts.to(dtype)), expected)
    torch.testing.assert_close(
        loss(output.float(), target, counts.to(dtype)), expected.float()
    )


def test_batch_that_counts_nothing_has_no_loss():
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    value = loss(output.requires_grad_(), target, torch.zeros(6))
    value.backward()
    assert value.item() == 0
    assert not output.grad.any()
    assert loss.class_weights(target, torch.zeros(6)).isfinite().all()


@pytest.mark.parametrize("shape", [(5,), (6, 1), ()])
def test_sample_weights_of_another_shape(shape):
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    for function in (
        lambda w: loss(output, target, w),
        lambda w: loss.class_weights(target, w),
    ):
        with pytest.raises(ValueError, match=r"sample_weight has shape .* for 6 clips"):
            function(torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_whole_targets(dtype):
    output, target, distances = make_batch()
    loss = OntologyBCELoss(distances)
    torch.testing.assert_close(loss(output, target.to(dtype)), loss(output, target))
    torch.testing.assert_close(
        loss.class_weights(target.to(dtype)), loss.class_weights(target.float())
    )


@pytest.mark.parametrize(
    "convert",
    [np.array, torch.tensor, lambda d: torch.tensor(d, dtype=torch.uint8), np.float16],
)
def test_kinds_of_distances(convert):
    loss = OntologyBCELoss(convert(DISTANCES))
    assert torch.equal(loss.penalties, OntologyBCELoss(DISTANCES).penalties)


def test_moves_with_the_model():
    loss = OntologyBCELoss(DISTANCES)
    assert copy.deepcopy(loss).to("meta").penalties.is_meta
    assert loss.double().penalties.dtype == torch.float64
    assert list(loss.parameters()) == []


def test_state_holds_nothing():
    loss = OntologyBCELoss(DISTANCES)
    assert loss.state_dict() == {}
    OntologyBCELoss(np.ones((2, 2)) - np.eye(2)).load_state_dict(loss.state_dict())


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ([[0, 1], [2, 0]], r"distances has 1 in row 0, column 1, and something else"),
        ([[0, -1], [-1, 0]], r"-1 in row 0, column 1, where none can be negative"),
        ([[0, 1], [1, 2]], r"2 in row 1, column 1, where a class must be at 0"),
        ([[0, np.inf], [np.inf, 0]], r"inf in row 0, column 1, where all must be fin"),
        ([[0, np.nan], [np.nan, 0]], r"nan in row 0, column 1, where all must be fin"),
        ([[0, 1, 2], [1, 0, 3]], r"shape \(2, 3\): pass a square matrix"),
        ([[0]], r"shape \(1, 1\): pass a square matrix.* at least 2 classes"),
        ([["a", "b"], ["b", "a"]], r"distances must be a matrix of numbers"),
        (np.zeros((3, 3)), r"distances are all 0"),
    ],
)
def test_distances_are_none(distances, message):
    with pytest.raises(ValueError, match=message):
        OntologyBCELoss(distances)


@pytest.mark.parametrize("beta", [0, -1.0, math.nan])
def test_beta_is_no_power(beta):
    with pytest.raises(ValueError, match=r"beta=.* must be above 0"):
        OntologyBCELoss(DISTANCES, beta=beta)


def test_shapes_differ():
    loss = OntologyBCELoss(DISTANCES)
    with pytest.raises(ValueError, match=r"output has shape \(2, 3\) and target \(1,"):
        loss(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"target has shape \(2, 4\).* of 3 classes"):
        loss(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"it must be \(n_clips, 3\)"):
        loss(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_target_is_out_of_range(value):
    target = torch.tensor([[0.0, value, 1.0]])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        OntologyBCELoss(DISTANCES)(torch.full((1, 3), 0.5), target)
