"""Callbacks of skorch for schedules, half precision and going on after a kill."""

import numpy as np

# As of torch's own scaler of gradients.
_FIRST_SCALE = 2.0**16
_N_BEFORE_GROWTH = 2000


def make_decay(gamma, training):
    """Make the callback that multiplies all learning rates after each epoch.

    Parameters
    ----------
    gamma : float
        By what. It does what ``ExponentialLR`` does, by the number of epochs alone, so
        that it does not matter where training was interrupted.
    training : BatchLoader
        The batches, which count the epochs.

    Returns
    -------
    skorch.callbacks.Callback
        The callback, which records the rate of the new layers as ``lr``.
    """
    from skorch.callbacks import Callback

    class Decay(Callback):
        def on_epoch_begin(self, net, **kwargs):
            factor = gamma**training.n_epochs
            for group in net.optimizer_.param_groups:
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = factor * group["initial_lr"]
            net.history.record("lr", net.optimizer_.param_groups[-1]["lr"])

    return Decay()


def make_gradient_scaler():
    """Make the callback that keeps half precision from losing small gradients.

    It scales the loss's gradient, and takes the scale out before the optimizer's step.
    A step whose gradients are not finite is left out, and the scale halved.

    Returns
    -------
    skorch.callbacks.Callback
        The callback. `state` is what it begins with, and can be set.
    """
    import torch
    from skorch.callbacks import Callback

    class GradientScaler(Callback):
        def __init__(self):
            self.state = {"scale": _FIRST_SCALE, "n_good": 0}

        def on_batch_begin(self, net, **kwargs):
            net.criterion_.gradient_scale = self.state["scale"]

        def on_grad_computed(self, net, named_parameters, **kwargs):
            scale, n_good = self.state["scale"], self.state["n_good"] + 1
            weights = [w for _, w in named_parameters if w.grad is not None]
            for weight in weights:
                weight.grad /= scale
            if not torch.stack([w.grad.isfinite().all() for w in weights]).all():
                for weight in weights:
                    weight.grad = None  # which the optimizer passes over
                scale, n_good = scale / 2, 0
            elif n_good == _N_BEFORE_GROWTH:
                scale, n_good = 2 * scale, 0
            self.state = {"scale": scale, "n_good": n_good}

        def on_train_end(self, net, **kwargs):
            net.criterion_.gradient_scale = 1.0

    return GradientScaler()


def make_saver(save, *, n_epochs, watch, scaler=None, restored=None):
    """Make the callback that hands over the state of a training after each epoch.

    Parameters
    ----------
    save : callable
        Takes the state, a dict of tensors, numbers and texts.
    n_epochs : int
        Number of epochs after which the training is finished.
    watch : list
        Callbacks that stop early, of which skorch's `EarlyStopping` has a state.
    scaler : callback, default=None
        What `make_gradient_scaler` made.
    restored : dict, default=None
        A state that was saved, to go on from. ``finished`` in it tells that callbacks
        stopped the training.

    Returns
    -------
    skorch.callbacks.Callback
        The callback, with a method ``restore(net)``. It comes before those of `watch`,
        which put the best weights back at the end.

    Notes
    -----
    An epoch is over once all callbacks are done with it: its state is saved as the next
    begins. Of callbacks beside those named, the schedulers of skorch's `LRScheduler`
    are saved.
    """
    from skorch.callbacks import Callback, EarlyStopping
    from skorch.history import History

    stop = next((c for c in watch or () if isinstance(c, EarlyStopping)), None)
    stop_state = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")

    class Saver(Callback):
        _is_new = True

        def restore(self, net):
            """Bring an initialised net to where the state was saved."""
            net.module_.load_state_dict(restored["module"])
            net.optimizer_.load_state_dict(restored["optimizer"])
            net.history_ = History(restored["history"])
            if scaler is not None:
                scaler.state = dict(restored["scaler"])

        def on_epoch_begin(self, net, **kwargs):
            if self._is_new:
                self._remind(net)
            else:
                self._save(net, net.history[:-1], finished=False)
            self._is_new = False

        def on_train_end(self, net, **kwargs):
            if self._is_new:
                self._remind(net)
            stopped = stop is not None and stop.misses_ == stop.patience
            done = stopped or len(net.history) == n_epochs
            if done and "train_loss" in net.history[-1] and not self._is_new:
                self._save(net, net.history, finished=stopped)

        def _remind(self, net):
            """Give back to callbacks what they forget as training begins."""
            if restored is None:
                return
            for name, value in (restored["stop"] or {}).items():
                setattr(stop, name, value)
            # Callbacks may be others than before.
            for scheduler, state in zip(
                _schedulers(net), restored["schedulers"], strict=False
            ):
                scheduler.load_state_dict(state)

        def _save(self, net, rows, *, finished):
            state = {
                "finished": finished,
                "module": net.module_.state_dict(),
                "optimizer": net.optimizer_.state_dict(),
                "history": [_tidy(row) for row in rows],
                "scaler": None if scaler is None else scaler.state,
                "stop": None,
                "schedulers": [s.state_dict() for s in _schedulers(net)],
            }
            if stop is not None:
                held = {name: getattr(stop, name) for name in stop_state}
                state["stop"] = {name: _plain(held[name]) for name in held}
            save(state)

    return Saver()


def _schedulers(net):
    callbacks = (callback for _, callback in net.callbacks_)
    found = (getattr(callback, "lr_scheduler_", None) for callback in callbacks)
    return [scheduler for scheduler in found if scheduler is not None]


def _tidy(row):
    """Return what a row of a history has of plain numbers and texts."""
    values = {name: _plain(value) for name, value in row.items()}
    kinds = (bool, int, float, str, type(None))
    return {name: value for name, value in values.items() if isinstance(value, kinds)}


def _plain(value):
    """Return a number as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value
