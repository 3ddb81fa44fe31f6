"""How the estimators that train torch modules do so: by a skorch net, repeatably."""

import copy
import inspect
import math
import threading
from contextlib import contextmanager
from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from ..metrics import mean_average_precision, omap_score

# torch's global generators are one for all threads.
_drawing = threading.RLock()


class DivergedError(ValueError):
    """The loss is not finite any more, and what was trained is of no use."""


def draw_seed(random_state):
    """Return a seed; for None from the system, so that no generator is moved.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        The parameter of an estimator.

    Returns
    -------
    int
        The seed.
    """
    if random_state is None:
        return np.random.SeedSequence().entropy
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(np.iinfo(np.int32).max))
    check_random_state(random_state)  # which says what is wrong with others
    return int(random_state)


@contextmanager
def own_generators(seed, device):
    """Have torch's global generators begin with a seed, and put them back after.

    Parameters
    ----------
    seed : int
        The seed.
    device : torch.device
        Where there is a generator beside that of the CPU.

    Yields
    ------
    None
    """
    import torch

    with _drawing, torch.random.fork_rng(devices=_list_gpus(device)):
        seed_generators(seed, device)
        yield


def seed_generators(seed, device):
    """Have torch's global generators go on from a seed, inside `own_generators`.

    Parameters
    ----------
    seed : int
        The seed.
    device : torch.device
        Where there is a generator beside that of the CPU.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    for index in _list_gpus(device):
        torch.cuda.default_generators[index].manual_seed(seed)


def split_validation(indicator, indices, fraction, rng):
    """Split clips in those to train with and those to watch the training by.

    Parameters
    ----------
    indicator : ndarray of shape (n_clips, n_classes), dtype=bool
        The labels of all clips.
    indices : ndarray of int
        The clips that are to be split.
    fraction : float
        Share of those to watch by.
    rng : numpy.random.Generator
        What is drawn from.

    Returns
    -------
    training, validation : ndarray of int
        The clips of each, sorted, with and without labels. No label loses its last clip
        to the validation, so that there may be fewer of those than asked for.

    Raises
    ------
    ValueError
        If no clip can be spared.
    """
    n_wanted = max(round(fraction * len(indices)), 1)
    left = indicator[indices].sum(axis=0)
    chosen, n_labelled = [], 0
    for index in rng.permutation(indices).tolist():
        if len(chosen) == n_wanted:
            break
        own = np.flatnonzero(indicator[index])
        # The last place is for a clip with a label, without which there is no score.
        fits = own.size or n_labelled or len(chosen) < n_wanted - 1
        if fits and (left[own] > 1).all():
            left[own] -= 1
            chosen.append(index)
            n_labelled += bool(own.size)
    if not n_labelled:
        raise ValueError(
            f"validation_fraction={fraction:g} of {len(indices)} clips leaves none to "
            "watch the training by, for each label has one clip only: add clips, or "
            "set early_stopping=False"
        )
    return np.setdiff1d(indices, chosen), np.sort(chosen)


def make_order(indices, *, weights=None):
    """Return the function that draws the order of an epoch.

    Parameters
    ----------
    indices : ndarray of int
        The clips.
    weights : ndarray of shape (n_indices,), default=None
        How probable each clip is, drawn with replacement. ``None`` takes each once.

    Returns
    -------
    callable
        The function, of a `numpy.random.Generator` to draw from.
    """
    if weights is None:
        return lambda rng: rng.permutation(indices)
    chances = weights / weights.sum()
    return lambda rng: rng.choice(indices, len(indices), p=chances)


def balance(indicator):
    """Return how probable clips are to be, so that labels come up alike.

    Parameters
    ----------
    indicator : ndarray of shape (n_clips, n_classes), dtype=bool
        The labels of the clips.

    Returns
    -------
    ndarray of shape (n_clips,)
        For each clip the sum over its labels of one over the number of clips that have
        them; for clips without labels the least of these.
    """
    # By the labels that there are: a product would take the matrix in doubles.
    clips, labels = indicator.nonzero()
    rarity = 1 / np.maximum(indicator.sum(axis=0), 1)
    shares = np.bincount(clips, rarity[labels], minlength=len(indicator))
    least = shares[shares > 0].min(initial=1)
    return np.where(shares > 0, shares, least)


class Augmentation:
    """What is done to the batches of training.

    Parameters
    ----------
    mixup_alpha : float
        As of `mix_clips`; 0 mixes none.
    stripes : bool or (int, int)
        Widest stripes of bands and of frames that are blanked; ``True`` is an eighth
        of the bands and a sixteenth of the frames.
    roll : bool
        Whether clips are rolled over time.
    """

    def __init__(self, *, mixup_alpha=0.0, stripes=False, roll=False):
        self.mixup_alpha = mixup_alpha
        self.stripes = stripes
        self.roll = roll

    def __call__(self, inputs, target, weights, generator):
        """Return inputs, labels and weights of a batch changed.

        Parameters
        ----------
        inputs, target, weights : Tensor, of which `weights` may be None
            The batch.
        generator : torch.Generator
            What is drawn from, on the CPU.

        Returns
        -------
        tuple of Tensor
            The three.
        """
        from ..nn._augmentation import mask_stripes, mix_clips, roll_time

        if self.roll:
            inputs = roll_time(inputs, generator)
        if self.mixup_alpha:
            inputs, target, partners, shares = mix_clips(
                inputs, target, self.mixup_alpha, generator
            )
            if weights is not None:
                weights = shares * weights + (1 - shares) * weights[partners]
        if self.stripes:
            widest = self.stripes
            if widest is True:
                widest = (inputs.shape[2] // 8, inputs.shape[1] // 16)
            inputs = mask_stripes(inputs, *widest, generator)
        return inputs, target, weights


def make_net(
    module,
    criterion,
    *,
    optimizer,
    lr,
    encoder_lr,
    device,
    verbose,
    groups=(),
    **params,
):
    """Make a skorch net that trains a module which is there already.

    Parameters
    ----------
    module : torch.nn.Module
        What is trained. The names of the parameters of its encoder start with
        ``encoder.``.
    criterion : torch.nn.Module
        The loss, of what the module returns and the targets.
    optimizer : str or callable
        Name of a class in `torch.optim`, or what makes an optimizer.
    lr, encoder_lr : float
        Learning rates, of which the latter is the encoder's; ``None`` is the same.
    device : torch.device
        Where to train.
    verbose : bool
        Whether a line is printed for each epoch.
    groups : sequence of (str, dict), default=()
        Parameters of the optimizer for the parameters of the module whose names fit a
        pattern.
    **params : object
        Parameters of the optimizer, of which those are left out that it does not have.

    Returns
    -------
    skorch.NeuralNet
        The net.
    """
    from skorch import NeuralNet

    options = {} if verbose else {"callbacks__print_log": None}
    groups = list(groups)
    if encoder_lr is not None:
        groups.append(("encoder.*", {"lr": encoder_lr, "name": "encoder_lr"}))
    if groups:
        options["optimizer__param_groups"] = groups
    optimizer = _find_optimizer(optimizer)
    taken = inspect.signature(optimizer).parameters
    options |= {f"optimizer__{name}": params[name] for name in params if name in taken}
    return NeuralNet(
        module,
        criterion,
        optimizer=optimizer,
        lr=lr,
        device=device,
        verbose=int(verbose),
        # What it trains with is batches already.
        dataset=_take_as_it_is,
        iterator_train=_take_as_it_is,
        iterator_valid=_take_as_it_is,
        **options,
    )


def train(
    net, training, validation=None, *, max_epochs, device=None, callbacks=(), watch=None
):
    """Have a net train, from where it stands.

    Parameters
    ----------
    net : skorch.NeuralNet
        The net.
    training, validation : BatchLoader or None
        Batches to train with, and to watch the training by.
    max_epochs : int
        How often to go through them at most.
    device : torch.device, default=None
        Where torch's global generators are those of `own_generators` and begin anew in
        each epoch; ``None`` leaves them alone.
    callbacks : sequence
        skorch's callbacks; they are copied first.
    watch : list, default=None
        The callbacks that score the validation and stop early, see `make_watch`.

    Raises
    ------
    DivergedError
        If the loss is not finite any more.
    KeyboardInterrupt
        If the user wants it, and not a callback. As after other errors, the net holds
        what it has learnt; with `watch` it is that of the best epoch.
    """
    net.callbacks = [
        _make_epochs(training, device),
        *(watch or ()),
        *copy.deepcopy(list(callbacks or ())),
    ]
    if net.verbose:
        from skorch.callbacks import ProgressBar

        n_batches = training.n_batches + (validation.n_batches if validation else 0)
        net.callbacks.append(ProgressBar(n_batches))
    if net.initialized_:
        net.initialize_callbacks()
    else:
        net.initialize()
    net.train_split = None if validation is None else lambda _: (training, validation)
    net.notify("on_train_begin", X=training, y=None)
    try:
        net.fit_loop(training, epochs=max_epochs)
    except KeyboardInterrupt:
        # skorch's own partial_fit takes all for the wish of a callback to stop, which
        # comes once the loss of an epoch stands.
        if not (net.history and "train_loss" in net.history[-1]):
            raise
    finally:
        if net.history:
            net.notify("on_train_end", X=training, y=None)


def make_watch(score, distances, patience):
    """Make the callbacks that score the validation after each epoch, and stop early.

    Parameters
    ----------
    score : {"omap", "map", "accuracy"}
        What is to improve: `omap_score` or `mean_average_precision`, over the classes
        that have clips, or the share of clips whose label has the highest score.
    distances : ndarray of shape (n_classes, n_classes) or None
        Distances between the classes, for ``"omap"``.
    patience : int
        Epochs without an improvement after which the training stops.

    Returns
    -------
    list
        skorch's callbacks. The weights at the end are those of the best epoch.
    """
    from skorch.callbacks import Callback, EarlyStopping

    class Score(Callback):
        def on_epoch_begin(self, net, **kwargs):
            self.batches_ = []

        def on_batch_end(self, net, batch=None, training=None, y_pred=None, **kwargs):
            if not training:
                target, *weights = (
                    batch[1] if isinstance(batch[1], tuple) else [batch[1]]
                )
                parts = (target, y_pred.logits, *weights)
                self.batches_.append([part.cpu().numpy() for part in parts])

        def on_epoch_end(self, net, **kwargs):
            parts = map(np.concatenate, zip(*self.batches_, strict=True))
            target, scores, *weights = parts
            self.batches_ = []
            options = {"zero_division": np.nan}
            if weights:
                options["sample_weight"] = weights[0]
            if not np.isfinite(scores).all():
                value = 0.0  # the loss says why
            elif score == "accuracy":
                right = target.argmax(axis=1) == scores.argmax(axis=1)
                value = np.average(right, weights=weights[0] if weights else None)
            elif score == "map":
                value = mean_average_precision(target, scores, **options)
            else:
                value = omap_score(
                    target,
                    scores,
                    distances=distances,
                    unlabelled="farthest",
                    **options,
                )
            net.history.record(f"valid_{score}", value)

    stop = EarlyStopping(
        f"valid_{score}", lower_is_better=False, patience=patience, load_best=True
    )
    return [Score(), stop]


def summarise(history):
    """Return what was recorded of each epoch that came to its end, without batches.

    Parameters
    ----------
    history : list of dict
        The history of a skorch net.

    Returns
    -------
    list of dict
        Seconds, losses, scores, and what callbacks recorded, by their names, for each
        epoch.
    """
    left_out = {"epoch", "batches", "train_batch_count", "valid_batch_count"}
    return [
        {
            name: float(value) if isinstance(value, Real) else value
            for name, value in row.items()
            if name not in left_out and not name.endswith("_best")
        }
        for row in history
        if "train_loss" in row
    ]


def _list_gpus(device):
    import torch

    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


def _make_epochs(training, device):
    """Make the callback that begins epochs and looks at their losses."""
    from skorch.callbacks import Callback

    class Epochs(Callback):
        n_batches = 0

        def on_epoch_begin(self, net, **kwargs):
            if device is not None:
                seed_generators(training.draw_seeds()[-1], device)

        def on_batch_end(self, net, training=None, loss=None, **kwargs):
            if training and not math.isfinite(loss.item()):
                raise DivergedError(_explain_divergence(net, self.n_batches))
            self.n_batches += bool(training)

    return Epochs()


def _explain_divergence(net, n_batches):
    """Say where a loss became infinite, and what is to be looked at."""
    groups = net.optimizer_.param_groups
    rates = {group.get("name", "lr"): group["lr"] for group in groups}
    told = " or ".join(f"{name}={rate:g}" for name, rate in rates.items())
    epoch = len(net.history)
    if not n_batches:
        return (
            f"the loss is not finite in the first batch of epoch {epoch}, before a "
            f"step of {told}: look for clips whose values are too large, and for "
            "weights or an encoder that give NaN"
        )
    return (
        f"{told} is too high for these clips, the loss is not finite in epoch {epoch}: "
        "lower it"
    )


def _take_as_it_is(data, *args, **kwargs):
    return data


def _find_optimizer(optimizer):
    import torch

    if not isinstance(optimizer, str):
        return optimizer
    found = getattr(torch.optim, optimizer, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(
            f"optimizer={optimizer!r} is no optimizer of torch.optim: pass a name such "
            "as 'AdamW' or 'SGD', or a class"
        )
    return found
