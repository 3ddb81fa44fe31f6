"""The bilinear model's updates averaged over mini-batches, on CPU or GPU."""

import numpy as np

from ._ranking import rank_penalties


def fit_minibatch(
    X, targets, Phi, W, *, learning_rate, epochs, epoch_order, batch_size, device
):
    """Run algorithm 1 with the updates of a batch taken at one W and averaged.

    Parameters
    ----------
    X : ndarray of shape (n_clips, n_features)
        Audio vectors; only a batch at a time is copied, so a memory map will do.
    targets : ndarray of shape (n_clips,)
        Index of each clip's class.
    Phi : ndarray of shape (n_classes, n_text_features)
        Label vectors.
    W : ndarray of shape (n_features, n_text_features)
        Where to start.
    learning_rate : float
        Step for the mean update of a batch.
    epochs : iterable
        As many epochs as it has items.
    epoch_order : callable
        Gives the order of the clips of the next epoch.
    batch_size : int
        Clips a batch.
    device : torch.device
        Where to compute, in float32.

    Yields
    ------
    W : ndarray of shape (n_features, n_text_features)
        After each epoch.
    """
    import torch

    # W changes within the span of the label vectors alone. In an orthonormal basis
    # of it they have no more coordinates than there are classes.
    basis, coordinates = np.linalg.qr(Phi.T)
    labels = torch.as_tensor(coordinates.T, dtype=torch.float32, device=device)
    start = W @ basis
    weights = torch.as_tensor(start, dtype=torch.float32, device=device)
    penalties = torch.as_tensor(
        rank_penalties(len(Phi)), dtype=torch.float32, device=device
    )
    with torch.inference_mode():
        for _ in epochs:
            order = epoch_order()
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                x = torch.as_tensor(X[batch], dtype=torch.float32, device=device)
                y = torch.as_tensor(targets[batch], device=device)
                steps = _rank_steps(x @ weights @ labels.T, y, penalties)
                weights.addmm_(x.T, steps @ labels, alpha=learning_rate / len(batch))
            yield W + (weights.cpu().numpy() - start) @ basis.T


def _rank_steps(scores, targets, penalties):
    """Return how far to move along every label vector, ``(n_clips, n_classes)``."""
    targets = targets[:, None]
    loss = scores - scores.gather(1, targets) + 1
    loss.scatter_(1, targets, 0)
    loss, ranked = loss.sort(dim=1, descending=True, stable=True)
    steps = scores.new_zeros(scores.shape)
    steps.scatter_(1, ranked, -penalties * (loss > 0))
    return steps.scatter_(1, targets, -steps.sum(dim=1, keepdim=True))
