"""How classifiers of one label for each clip train an encoder: callbacks, folder."""

import numpy as np
from sklearn.utils import check_consistent_length

from ._augmented_sets import augment_set
from ._encoder_training import EncoderTraining
from ._net_callbacks import list_kept, make_decay, make_gradient_scaler, make_saver
from ._targets import read_targets
from ._training import DivergedError, make_watch, summarise
from ._training_state import (
    TrainingFolder,
    describe_clips,
    describe_params,
)


class ClassTraining(EncoderTraining):
    """A training by epochs that may be stopped, watched and gone on with.

    Of the estimator it needs besides what `EncoderTraining` does `_plan`, `_seed`, and
    the method `_take_net`, which makes the skorch net.
    """

    # Parameters that change nothing of what is learnt, or are looked at otherwise.
    _NOT_LEARNT_FROM = frozenset(
        {
            "callbacks",
            "checkpoint",
            "device",
            "max_epochs",
            "n_jobs",
            "random_state",
            "verbose",
            "warm_start",
            "weights",
        }
    )

    def _learn(
        self,
        source,
        targets,
        sample_weight,
        kept,
        device,
        *,
        go_on,
        in_part,
        watched,
    ):
        """Train, from the beginning or from where a folder or a former fit ended."""
        folder = state = None
        if self.checkpoint is not None and not (go_on or in_part):
            folder = self._open_folder(source, targets, sample_weight, device)
            state = folder.read()
        if state is not None:
            self._seed = int(state["seed"])
            self.history_ = summarise(state["history"])
            self._check_epochs()
        seeds = np.random.SeedSequence(self._seed).generate_state(3).tolist()
        net = self._take_net(source, kept, device, seeds[0])
        training, validation, _ = self._make_loaders(
            augment_set(source, self.augmentations),
            targets,
            sample_weight,
            kept,
            device,
            seeds[1:],
            watched=watched,
        )
        n_epochs = 1
        if not in_part:
            n_done = 0 if state is None else len(self.history_)
            finished = state is not None and state["finished"]
            n_epochs = 0 if finished else self.max_epochs - n_done
        watch, callbacks = self._make_callbacks(
            net, training, folder, state, in_part=in_part, watched=watched
        )
        if folder is not None and n_epochs:
            folder.claim()
        try:
            self._run(
                net,
                training,
                validation,
                max_epochs=n_epochs,
                device=device if self._draws() else None,
                watch=watch,
                callbacks=callbacks,
                keep_net=in_part or self.warm_start,
                go_on=go_on,
            )
        except KeyboardInterrupt as stop:
            if not hasattr(self, "n_iter_"):
                raise
            raise KeyboardInterrupt(
                f"stopped by the user: the classifier keeps what it has learnt, after "
                f"n_iter_={self.n_iter_} whole epochs, and a fit with warm_start=True "
                "goes on"
            ) from stop
        except DivergedError as error:
            if self.amp != "float16":
                raise
            raise DivergedError(
                f"{error}; amp='float16' may have overflowed, which 'bfloat16' does not"
            ) from error
        finally:
            if folder is not None:
                folder.release()

    def _read_targets(self, y, classes, source, kept, go_on):
        """Return the label of each clip, of two classes at least."""
        if y is not None:
            check_consistent_length(source, y)
        labels = self._get_known_classes() if go_on else classes
        targets = read_targets(y, labels, kept=kept)
        if not targets.exclusive:
            raise ValueError(
                "y holds lists of labels or an indicator matrix, and "
                f"{type(self).__name__} learns one label for each clip: give it so, or "
                "take SPATagger"
            )
        if len(targets.labels) < 2:
            raise ValueError(
                f"y holds {len(targets.labels)} class: there must be at least 2 "
                "classes to learn to tell apart"
            )
        return targets

    def _draws(self):
        """Tell whether what is trained draws from torch's global generators."""
        return True

    def _forget(self):
        """Drop what a former fit has left."""
        vars(self).pop("n_iter_", None)
        self.history_ = []
        self._net = self._module = self._state_bytes = None

    def _make_callbacks(self, net, training, folder, state, *, in_part, watched):
        """Return the callbacks that watch the training, and the others."""
        from skorch.callbacks import GradientNormClipping

        scaler = make_gradient_scaler() if self.amp == "float16" else None
        callbacks = [] if scaler is None else [scaler]
        if self.gradient_clip is not None:
            callbacks.append(GradientNormClipping(self.gradient_clip))
        if folder is not None:
            saver = make_saver(
                lambda held: folder.save({**held, "seed": str(self._seed)}),
                n_epochs=self.max_epochs,
                scaler=scaler,
                restored=state,
            )
            if state is not None:
                net.initialize()
                saver.restore(net)
            callbacks.append(saver)
        steady = in_part and self.lr_decay is not None
        callbacks.append(make_decay(1.0 if steady else self.lr_decay, training))
        watch = make_watch("accuracy", None, self.patience) if watched else []
        return [*callbacks, *watch], self.callbacks

    def _open_folder(self, source, targets, sample_weight, device):
        params = self.get_params(deep=False)
        left_out = self._NOT_LEARNT_FROM
        configuration = describe_params(
            {name: params[name] for name in params if name not in left_out}
        )
        weights = None if self._plan is None else self._plan.checkpoint.sha256
        configuration["weights"] = str(weights)
        configuration |= self._describe_more()
        if self.random_state is not None:
            configuration["random_state"] = str(self._seed)
        callbacks = [
            {type(item).__name__: _list_params(item)}
            for item in list_kept(self.callbacks or ())
        ]
        configuration |= describe_params({"callbacks": callbacks})
        configuration |= describe_clips(source, targets, sample_weight)
        return TrainingFolder(self.checkpoint, configuration, device)

    def _describe_more(self):
        """Return what else a training depends on, in words."""
        return {}

    def _check_epochs(self):
        if len(self.history_) > self.max_epochs:
            raise ValueError(
                f"max_epochs={self.max_epochs}, and the training in "
                f"checkpoint={self.checkpoint!r} has {len(self.history_)} behind it: "
                "set at least as many, or name another folder"
            )


def sort_classes(classes):
    """Return the labels that `partial_fit` was told of, sorted.

    Parameters
    ----------
    classes : array-like of shape (n_classes,) or None
        The labels.

    Returns
    -------
    ndarray of shape (n_classes,) or None
        Them, each once.

    Raises
    ------
    TypeError
        If they are no list.
    """
    if classes is None:
        return None
    if np.ndim(classes) != 1:
        raise TypeError(f"classes={classes!r} is no list of labels: pass one")
    return np.unique(classes)


def _list_params(callback):
    """Return what a callback was made with, and not what it has learnt."""
    return {
        name: value for name, value in vars(callback).items() if not name.endswith("_")
    }
