"""Callbacks of skorch for schedules, half precision and going on after a kill."""

import numpy as np

# As of torch's own scaler of gradients.
_FIRST_SCALE = 2.0**16
_N_BEFORE_GROWTH = 2000
# Of skorch's EarlyStopping.
_STOP_STATE = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")


def make_decay(gamma, training):
    """Make the callback that multiplies all learning rates after each epoch.

    Parameters
    ----------
    gamma : float or None
        By what. It does what ``ExponentialLR`` does, by the number of epochs alone, so
        that it does not matter where training was interrupted; with 1 rates are those
        of the beginning again. ``None`` leaves them to others.
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
            groups = net.optimizer_.param_groups
            for group in groups if gamma is not None else ():
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = gamma**training.n_epochs * group["initial_lr"]
            net.history.record("lr", groups[-1]["lr"])

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


def make_saver(save, *, n_epochs, scaler=None, restored=None):
    """Make the callback that hands over the state of a training after each epoch.

    Parameters
    ----------
    save : callable
        Takes the state, a dict of tensors, numbers and texts.
    n_epochs : int
        Number of epochs after which the training is finished.
    scaler : callback, default=None
        What `make_gradient_scaler` made.
    restored : dict, default=None
        A state that was saved, to go on from. ``finished`` in it tells that
        `EarlyStopping` ended the training.

    Returns
    -------
    skorch.callbacks.Callback
        The callback, with a method ``restore(net)``. It comes before those that stop
        early, which put the best weights back at the end, and before those that set
        rates at the beginning of an epoch.

    Notes
    -----
    An epoch is over once all callbacks are done with it: its state is saved as the next
    begins. Of callbacks those of `list_kept` are saved with it.
    """
    from skorch.callbacks import Callback, EarlyStopping
    from skorch.history import History

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
            stopped = any(
                isinstance(callback, EarlyStopping)
                and callback.misses_ == callback.patience
                for callback in list_kept(net.callbacks_)
            )
            done = stopped or len(net.history) == n_epochs
            if done and "train_loss" in net.history[-1] and not self._is_new:
                self._save(net, net.history, finished=stopped)

        def _remind(self, net):
            """Give back to callbacks what they forget as training begins."""
            if restored is None:
                return
            for callback, state in zip(
                list_kept(net.callbacks_), restored["callbacks"], strict=True
            ):
                if isinstance(callback, EarlyStopping):
                    vars(callback).update(state)
                else:
                    callback.lr_scheduler_.load_state_dict(state)
            # Schedulers have set rates as they were made.
            saved = restored["optimizer"]["param_groups"]
            for group, held in zip(net.optimizer_.param_groups, saved, strict=True):
                group.update({name: held[name] for name in held if name != "params"})

        def _save(self, net, rows, *, finished):
            states = [
                {name: _plain(getattr(callback, name)) for name in _STOP_STATE}
                if isinstance(callback, EarlyStopping)
                else callback.lr_scheduler_.state_dict()
                for callback in list_kept(net.callbacks_)
            ]
            save(
                {
                    "finished": finished,
                    "module": net.module_.state_dict(),
                    "optimizer": net.optimizer_.state_dict(),
                    "history": [_tidy(row) for row in rows],
                    "scaler": None if scaler is None else scaler.state,
                    "callbacks": states,
                }
            )

    return Saver()


def list_kept(callbacks):
    """Return those callbacks of which a saved state keeps where they stand.

    Parameters
    ----------
    callbacks : sequence
        skorch's callbacks, or pairs of names and callbacks.

    Returns
    -------
    list of skorch.callbacks.Callback
        Those that set learning rates or stop early.
    """
    from skorch.callbacks import EarlyStopping, LRScheduler

    found = [item[1] if isinstance(item, tuple) else item for item in callbacks]
    return [item for item in found if isinstance(item, (EarlyStopping, LRScheduler))]


def _tidy(row):
    """Return what a row of a history has of plain numbers and texts."""
    values = {name: _plain(value) for name, value in row.items()}
    kinds = (bool, int, float, str, type(None))
    return {name: value for name, value in values.items() if isinstance(value, kinds)}


def _plain(value):
    """Return a number as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value
