"""Algorithm 1 of the bilinear model against the double loop it is written as.

The same training, on 1,600 clips of 40 classes with vectors of 128 and 300 values:
the matrix W must agree, and the time a sample is compared. Then the growth of the time
with the number of classes and of features, and the mini-batch solver beside it.
"""

from common import machine, median_ratio, one_thread_each, print_table, time_in_turn

one_thread_each()

import numpy as np

from sklabelaudio import BilinearZeroShotClassifier
from sklabelaudio.classification._bilinear_sgd import fit_sgd

LEARNING_RATE = 0.1


def double_loop(X, targets, Phi, eta):
    """One epoch of algorithm 1 as the paper prints it."""
    n_classes = len(Phi)
    beta = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n_classes + 1))])
    W = np.zeros((X.shape[1], Phi.shape[1]))
    for x, own in zip(X, targets, strict=True):
        losses = [
            (y != own) + x @ W @ Phi[y] - x @ W @ Phi[own] for y in range(n_classes)
        ]
        ranking = sorted(range(n_classes), key=lambda y: -losses[y])
        for r, y in enumerate(ranking, start=1):
            if losses[y] > 0:
                step = eta * beta[(n_classes - 1) // r]
                W = W - step * np.outer(x, Phi[y] - Phi[own])
    return W


def make_problem(n_clips, n_classes, n_features, n_text, noise=2.0, seed=0):
    """Clips around class centres; the more noise, the more losses stay positive."""
    rng = np.random.default_rng(seed)
    Phi = rng.normal(size=(n_classes, n_text)).astype(np.float32) / 4
    targets = rng.permutation(np.arange(n_clips) % n_classes)
    centres = rng.normal(size=(n_classes, n_features))
    X = centres[targets] + noise * rng.normal(size=(n_clips, n_features))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    labels = np.array([f"{label:04d}" for label in range(n_classes)])
    return X, labels[targets], targets, dict(zip(labels.tolist(), Phi, strict=True))


def fit(X, y, vectors, **params):
    return BilinearZeroShotClassifier(
        vectors, learning_rate=LEARNING_RATE, shuffle=False, **params
    ).fit(X, y)


def time_fit(X, y, vectors, max_epochs, **params):
    """Return the best of a few fits, in seconds a sample."""
    seconds = time_in_turn(
        {"fit": lambda: fit(X, y, vectors, max_epochs=max_epochs, **params)}, rounds=3
    )
    return min(seconds["fit"]) / len(X) / max_epochs


def solve(X, targets, Phi):
    """Do what `double_loop` does: no checks of X and y, no risk."""
    W = np.zeros((X.shape[1], Phi.shape[1]))
    (W,) = fit_sgd(
        X, targets, Phi, W, learning_rate=LEARNING_RATE, epochs=range(1),
        epoch_order=lambda: np.arange(len(X)),
    )  # fmt: skip
    return W


def compare_with_double_loop(noise):
    X, y, targets, vectors = make_problem(1600, 40, 128, 300, noise)
    Phi = np.stack(list(vectors.values())).astype(float)
    W = double_loop(X, targets, Phi, LEARNING_RATE)
    ours = fit(X, y, vectors, max_epochs=1)
    print(
        f"noise {noise:g}: training accuracy {ours.score(X, y):.2f} after an epoch, "
        "greatest relative difference of W "
        f"{abs(ours.coef_ - W).max() / abs(W).max():.0e}"
    )
    n_epochs = {"fit, 20 epochs": 20}
    seconds = time_in_turn(
        {
            "double loop, 1 epoch": lambda: double_loop(X, targets, Phi, LEARNING_RATE),
            "our solver, 1 epoch": lambda: solve(X, targets, Phi),
            "fit, 1 epoch": lambda: fit(X, y, vectors, max_epochs=1),
            "fit, 20 epochs": lambda: fit(X, y, vectors, max_epochs=20),
        },
        rounds=5,
    )
    loop = seconds["double loop, 1 epoch"]
    print_table(
        ["1,600 clips, 40 classes, 128 x 300", "µs a sample", "times faster"],
        [
            (
                name,
                f"{1e6 * np.median(times) / 1600 / n_epochs.get(name, 1):.2f}",
                f"{median_ratio(loop, times) * n_epochs.get(name, 1):.0f}",
            )
            for name, times in seconds.items()
        ],
    )


def main():
    print(machine() + "\n")
    for noise in (1.0, 2.0, 4.0):
        compare_with_double_loop(noise)

    rows = []
    for n_classes, n_features in [
        (10, 128),
        (40, 128),
        (160, 128),
        (640, 128),
        (40, 512),
        (40, 2048),
    ]:
        X, y, _, vectors = make_problem(1600, n_classes, n_features, 300)
        work = n_features * n_classes + n_classes**2
        sgd = time_fit(X, y, vectors, max_epochs=5)
        minibatch = time_fit(
            X, y, vectors, max_epochs=5, solver="minibatch", batch_size=64
        )
        rows.append(
            (
                n_classes,
                n_features,
                f"{1e6 * sgd:.2f}",
                f"{1e9 * sgd / work:.3f}",
                f"{1e6 * minibatch:.2f}",
            )
        )
    print_table(
        ["C", "d", "µs a sample", "ns / (d C + C²)", "minibatch, µs a sample"], rows
    )


if __name__ == "__main__":
    main()
