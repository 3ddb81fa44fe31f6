"""Algorithm 1 of the bilinear model, sample by sample.

Every update adds an outer product of a clip's vector and a combination of label
vectors, so ``W = W_0 + A @ Phi`` with one column of A for each class. A sample then
costs ``d * C`` for ``x @ A``, ``C * C`` for the product with the label vectors' Gram
matrix, and ``d * C`` for the rank-one update of A, whatever the dimension of the text.
"""

from functools import cache

import numpy as np

from ._ranking import rank_penalties


def fit_sgd(X, targets, Phi, W, *, learning_rate, epochs, epoch_order):
    """Run the algorithm.

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_features)
        Audio vectors.
    targets : ndarray of shape (n_clips,)
        Index of each clip's class.
    Phi : ndarray of shape (n_classes, n_text_features)
        Label vectors.
    W : ndarray of shape (n_features, n_text_features)
        Where to start.
    learning_rate : float
        Step, the paper's eta.
    epochs : iterable
        As many epochs as it has items.
    epoch_order : callable
        Gives the order of the clips of the next epoch.

    Yields
    ------
    W : ndarray of shape (n_features, n_text_features)
        After each epoch.
    """
    run_epoch = _compiled_epoch()
    X = np.ascontiguousarray(X, dtype=np.float64)
    targets = np.ascontiguousarray(targets, dtype=np.uint64)
    gram = Phi @ Phi.T
    penalties = learning_rate * rank_penalties(len(Phi))
    offsets = X @ (W @ Phi.T) if W.any() else np.zeros((1, len(Phi)))
    A = np.zeros((X.shape[1], len(Phi)))
    for _ in epochs:
        order = epoch_order().astype(np.uint64)
        run_epoch(X, targets, order, gram, offsets, penalties, A)
        yield W + A @ Phi


@cache
def _compiled_epoch():
    from numba import njit

    try:
        return njit(_epoch, nogil=True, fastmath={"contract"}, cache=True)
    except RuntimeError:  # no folder to keep the machine code in
        return njit(_epoch, nogil=True, fastmath={"contract"})


def _epoch(X, targets, order, gram, offsets, penalties, A):
    # Compiled by numba. Unsigned indices spare the test for negative ones, which
    # would keep the inner loops from using vector instructions.
    one = np.uint64(1)
    n_features = np.uint64(X.shape[1])
    n_classes = np.uint64(len(gram))
    moves = len(offsets) > 1
    projected = np.empty(n_classes)
    loss = np.empty(n_classes)
    step = np.empty(n_classes)
    for n in order:
        x = X[n]
        target = targets[n]
        projected[:] = 0.0
        for j in range(n_features):
            xj = x[j]
            if xj != 0.0:
                for c in range(n_classes):
                    projected[c] += xj * A[j, c]
        loss[:] = offsets[n] if moves else offsets[0]
        for k in range(n_classes):
            for c in range(n_classes):
                loss[c] += projected[k] * gram[k, c]
        margin = 1.0 - loss[target]
        for c in range(n_classes):
            loss[c] += margin
        loss[target] = 0.0

        # The rank of a positive loss: greater ones before it, and equal ones of
        # classes that come before. Counting vectorises, sorting does not.
        total = 0.0
        for c in range(n_classes):
            step[c] = 0.0
            own = loss[c]
            if own > 0.0:
                rank = np.uint64(0)
                for k in range(c):
                    rank += np.uint64(loss[k] >= own)
                for k in range(c + one, n_classes):
                    rank += np.uint64(loss[k] > own)
                step[c] = -penalties[rank]
                total += penalties[rank]
        if total == 0.0:
            continue
        step[target] = total
        for j in range(n_features):
            xj = x[j]
            if xj != 0.0:
                for c in range(n_classes):
                    A[j, c] += xj * step[c]
