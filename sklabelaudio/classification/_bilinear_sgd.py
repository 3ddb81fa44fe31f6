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
    n_features = X.shape[1]
    X = _pad_to_fours(X, axis=1)
    targets = np.ascontiguousarray(targets, dtype=np.uint64)
    gram = _pad_to_fours(Phi @ Phi.T, axis=0)
    penalties = learning_rate * rank_penalties(len(Phi))
    offsets = X[:, :n_features] @ (W @ Phi.T) if W.any() else np.zeros((1, len(Phi)))
    A = np.zeros((X.shape[1], len(Phi)))
    for _ in epochs:
        order = epoch_order().astype(np.uint64)
        run_epoch(X, targets, order, gram, offsets, penalties, A)
        yield W + A[:n_features] @ Phi


def _pad_to_fours(array, axis):
    """Return a float64 copy with zeros added to a multiple of four."""
    widths = [(0, 0), (0, 0)]
    widths[axis] = (0, -array.shape[axis] % 4)
    return np.pad(np.asarray(array, dtype=np.float64), widths)


@cache
def _compiled_epoch():
    from numba import njit

    try:
        return njit(_epoch, nogil=True, fastmath={"contract"}, cache=True)
    except RuntimeError:  # no folder to keep the machine code in
        return njit(_epoch, nogil=True, fastmath={"contract"})


def _epoch(X, targets, order, gram, offsets, penalties, A):
    # Compiled by numba. Unsigned indices spare the test for negative ones, which
    # would keep the inner loops from using vector instructions; four rows at a time
    # are added up before the sum goes back to memory.
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    n_features = np.uint64(X.shape[1])
    n_classes = np.uint64(A.shape[1])
    n_rows = np.uint64(len(gram))
    moves = len(offsets) > 1
    projected = np.zeros(n_rows)
    loss = np.empty(n_classes)
    step = np.empty(n_classes)
    for n in order:
        x = X[n]
        target = targets[n]
        projected[:] = 0.0
        for j in range(np.uint64(0), n_features, four):
            x0, x1, x2, x3 = x[j], x[j + one], x[j + two], x[j + three]
            for c in range(n_classes):
                projected[c] += (x0 * A[j, c] + x1 * A[j + one, c]) + (
                    x2 * A[j + two, c] + x3 * A[j + three, c]
                )
        loss[:] = offsets[n] if moves else offsets[0]
        for k in range(np.uint64(0), n_rows, four):
            p0, p1 = projected[k], projected[k + one]
            p2, p3 = projected[k + two], projected[k + three]
            for c in range(n_classes):
                loss[c] += (p0 * gram[k, c] + p1 * gram[k + one, c]) + (
                    p2 * gram[k + two, c] + p3 * gram[k + three, c]
                )
        margin = 1.0 - loss[target]
        for c in range(n_classes):
            loss[c] += margin
        loss[target] = 0.0

        # The rank of a positive loss: greater ones come before it, and equal ones of
        # earlier classes. Counting vectorises, sorting does not.
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
