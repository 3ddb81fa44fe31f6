"""OmAP at the size of AudioSet's evaluation set, and the weights of its loss.

All levels of OmAP against scikit-learn's plain mAP on the same scores, the other scores
of taggers against scikit-learn's, and the weights of a training batch against computing
them clip by clip from the whole matrix of distances. The classes are the nodes of a
random tree whose distances go as far as those of AudioSet's ontology.
"""

import tracemalloc

from common import machine, median_ratio, one_thread_each, print_table, time_in_turn

one_thread_each()

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from sklabelaudio.metrics import (
    d_prime_score,
    lwlrap_score,
    mean_average_precision,
    omap_levels,
)
from sklabelaudio.nn import OntologyBCELoss

N_CLIPS, N_CLASSES, GREATEST = 20_371, 527, 21


def make_distances(seed=0):
    """Return distances in a random tree of 632 nodes, between 527 of them."""
    rng = np.random.default_rng(seed)
    while True:
        nodes = np.arange(1, 632)
        parents = (nodes * rng.random(len(nodes)) ** 0.9).astype(int)
        tree = coo_array((np.ones(len(nodes)), (nodes, parents)), shape=(632, 632))
        distances = shortest_path(tree, directed=False, unweighted=True)
        distances = distances[:N_CLASSES, :N_CLASSES].astype(int)
        if distances.max() == GREATEST:
            return distances


def make_clips(seed=0):
    """Return labels, some much rarer than others, and scores that tell of them."""
    rng = np.random.default_rng(seed)
    keys = rng.exponential(size=(N_CLIPS, N_CLASSES)) * np.arange(1, N_CLASSES + 1)
    n_labels = rng.integers(1, 6, size=N_CLIPS)
    y_true = (keys.argsort(axis=1).argsort(axis=1) < n_labels[:, None]).astype(int)
    y_score = rng.normal(size=y_true.shape) - 3 + 3 * y_true
    return y_true, (1 / (1 + np.exp(-y_score))).astype(np.float32)


def measure_peak(function):
    """Return the most memory, in MB, that a call takes above its inputs."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def compare(title, contenders, rounds, *, memory=True):
    """Print a table in which the first contender is what the others are compared to."""
    seconds = time_in_turn(contenders, rounds=rounds)
    first = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        ratio = median_ratio(first, times)
        row = [name, f"{1e3 * np.median(times):.1f}", f"{ratio:.2f}"]
        rows.append(row + [f"{measure_peak(contenders[name]):.0f}"] * memory)
    print_table([title, "ms", "times as fast"] + ["MB above inputs"] * memory, rows)


def weigh_clip_by_clip(target, penalties):
    """Compute the weights of a batch from the whole matrix for each clip."""
    rows = []
    for labels in target:
        products = penalties * labels
        products = torch.where(products > 0, products, torch.inf)
        raw = products.amin(dim=1)
        raw = torch.where(raw.isinf(), 0, raw)
        rows.append(torch.where(labels > 0, 1, raw / raw.max()))
    weights = torch.stack(rows)
    return weights / weights.mean()


def compare_scores(distances):
    y_true, y_score = make_clips()
    plain = average_precision_score(y_true, y_score)
    binary = omap_levels(y_true, y_score, distances=distances, weighting="binary")
    print(
        f"{N_CLIPS:,} clips, {N_CLASSES} classes, {len(binary)} levels\n"
        "difference of level 0 with binary weights from scikit-learn's mAP: "
        f"{abs(binary[0] - plain):.0e}\n"
    )
    scores = {
        "scikit-learn, mAP": lambda: average_precision_score(y_true, y_score),
        "mean_average_precision": lambda: mean_average_precision(y_true, y_score),
        "omap_levels, all levels": lambda: omap_levels(
            y_true, y_score, distances=distances
        ),
    }
    compare("average precision", scores, rounds=5)
    areas = {
        "scikit-learn, area under ROC": lambda: roc_auc_score(y_true, y_score),
        "d_prime_score": lambda: d_prime_score(y_true, y_score),
    }
    compare("d'", areas, rounds=3)
    n_labels = y_true.sum(axis=1)
    rankings = {
        "scikit-learn, LRAP": lambda: label_ranking_average_precision_score(
            y_true, y_score, sample_weight=n_labels
        ),
        "lwlrap_score": lambda: lwlrap_score(y_true, y_score),
    }
    compare("lwlrap", rankings, rounds=3)


def compare_weights(distances, n_clips=64):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    target = rng.random((n_clips, N_CLASSES)).argsort(axis=1).argsort(axis=1) < 3
    target = torch.from_numpy(target).float()
    output = torch.from_numpy(rng.random(target.shape)).float().requires_grad_()
    loss = OntologyBCELoss(distances)
    penalties = torch.from_numpy(distances / distances.max()).float()
    expected = weigh_clip_by_clip(target, penalties)
    difference = (loss.class_weights(target) - expected).abs().max().item()
    print(f"greatest difference of the weights: {difference:.0e}")
    contenders = {
        "weights, clip by clip": lambda: weigh_clip_by_clip(target, penalties),
        "OntologyBCELoss.class_weights": lambda: loss.class_weights(target),
        "whole loss and its gradient": lambda: loss(output, target).backward(),
    }
    compare(f"a batch of {n_clips} clips, 3 labels each", contenders, 20, memory=False)


def main():
    print(machine() + "\n")
    distances = make_distances()
    compare_scores(distances)
    compare_weights(distances)


if __name__ == "__main__":
    main()
