"""What the estimators that train an encoder have in common."""

import copy
import os
from contextlib import nullcontext
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from ._batches import BatchLoader
from ._encoders import plan_encoder
from ._training import (
    Augmentation,
    DivergedError,
    make_order,
    own_generators,
    split_validation,
    summarise,
    train,
)
from ._training_set import ArraySet, check_log_mel, make_clip_set


class EncoderTraining:
    """How clips become batches and a net is trained, by the estimator's parameters.

    Of the estimator it needs besides `history_`, `n_iter_` and `_dtype`, the precision
    in which vectors train, and the method `_keep`, which takes over what was trained.
    """

    # Parameters that mean nothing with encoder=None.
    _ENCODER_PARAMS = ("weights", "encoder_params", "front_end")

    def _check_clips(self, X, plan, *, reset, training):
        """Return X as a set of clips."""
        if plan is None:
            if holds_clips(X):
                raise ValueError(
                    "X holds clips or log-mel, and with encoder=None "
                    f"{type(self).__name__} takes vectors: name an encoder, such as "
                    "encoder='efficientat'"
                )
            # As linear models do, double precision trains in double precision.
            dtype = [np.float64, np.float32]
            X = validate_data(self, X, dtype=dtype, reset=reset)
            return ArraySet(X, X.dtype if reset else self._dtype)
        log_mel = check_log_mel(X)
        if log_mel is not None:
            return ArraySet(log_mel)
        front_end = plan.make_front_end()
        if front_end is None:
            if _holds_paths(X):
                raise ValueError(
                    f"X holds paths, and encoder={plan.cls.__name__} has no front end "
                    "to read them by: set front_end, such as 'panns_32k', or pass "
                    "log-mel"
                )
            return ArraySet(check_array(X, dtype="numeric", input_name="X"))
        return make_clip_set(
            X,
            front_end,
            sampling_rate=self.sampling_rate,
            duration=self.duration,
            channel=self.channel,
            estimator=self,
            reset=reset,
            training=training,
        )

    def _plan_encoder(self):
        if self.encoder is None:
            for name in self._ENCODER_PARAMS:
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r} with encoder=None, which "
                        f"takes vectors: name the encoder, or leave out {name}"
                    )
            return None
        return plan_encoder(
            self.encoder,
            weights=self.weights,
            params=self.encoder_params,
            front_end=self.front_end,
            patchout=getattr(self, "patchout", None),
        )

    def _check_augmentation(self, source):
        """Refuse changes of log-mel where there is none, and stripes of no size."""
        if (self.spec_augment or self.time_roll) and not is_log_mel(source):
            name = "spec_augment" if self.spec_augment else "time_roll"
            raise ValueError(
                f"{name}={getattr(self, name)!r}: X is no log-mel, and the encoder has "
                f"no front end that makes it; set {name}=False"
            )
        if self.spec_augment in (True, False):
            return
        whole = [isinstance(n, Integral) and n >= 0 for n in self.spec_augment]
        if whole != [True, True]:
            raise ValueError(
                f"spec_augment={self.spec_augment!r} must be two whole numbers, of "
                "bands and of frames, or True"
            )

    def _check_made_with(self, classes):
        """Refuse what can't be otherwise than in the fit that this one goes on from."""
        for name, former in self._made_with.items():
            value = getattr(self, name)
            if not _is_same(value, former):
                raise ValueError(
                    f"{name}={value!r}, and in the fit that this one goes on from it "
                    f"was {former!r}: set it back, or fit anew with warm_start=False"
                )
        known = self._get_known_classes().tolist()
        if classes is not None and list(classes) != known:
            raise ValueError(
                f"classes={classes!r} are not those of the first call, {known}: leave "
                "classes out, or fit anew"
            )

    def _get_known_classes(self):
        """Return the labels of `fit`."""
        return self.seen_classes_

    def _make_loaders(
        self, source, targets, sample_weight, kept, device, seeds, *, watched
    ):
        """Return the batches of training and validation, and the latter's clips."""
        validation = held_out = None
        make = partial(
            BatchLoader,
            source,
            targets.indicator,
            sample_weight,
            batch_size=self.batch_size,
            device=device,
            n_jobs=self.n_jobs,
        )
        if watched:
            # By a generator of its own, so that a fit that goes on splits alike.
            rng = np.random.default_rng(seeds[0])
            kept, held_out = split_validation(
                targets.indicator, kept, self.validation_fraction, rng
            )
            validation = make(
                lambda _: held_out,
                n_clips=len(held_out),
                augment=self._make_augment(training=False),
            )
        training = make(
            make_order(kept, weights=self._find_chances(targets.indicator[kept])),
            n_clips=len(kept),
            seed=seeds[1],
            augment=self._make_augment(training=True),
            n_epochs=len(self.history_),
        )
        return training, validation, held_out

    def _find_chances(self, indicator):
        """Return how probable clips are to be drawn; None takes each once."""
        return None

    def _make_augment(self, *, training):
        """Return what is done to batches, or None."""
        if training and (self.mixup_alpha or self.spec_augment or self.time_roll):
            return Augmentation(
                mixup_alpha=self.mixup_alpha,
                stripes=self.spec_augment,
                roll=self.time_roll,
            )
        return None

    def _run(self, net, training, validation, *, device, keep_net, go_on, **options):
        """Train a net, and keep what it has learnt, whatever ends it."""
        n_before = len(net.history_ or ())
        former = copy.deepcopy(net.module.state_dict()) if go_on else None
        isolated = nullcontext() if device is None else own_generators(0, device)
        try:
            with isolated:
                train(net, training, validation, device=device, **options)
        except DivergedError:
            if go_on:
                net.module.load_state_dict(former)
                self._keep(net, keep_net=False)
            raise
        except BaseException:
            begun = net.initialized_  # which callbacks may prevent
            if begun and (go_on or summarise(net.history[n_before:])):
                self._take_over(net, n_before, keep_net)
            raise
        self._take_over(net, n_before, keep_net)

    def _take_over(self, net, n_before, keep_net):
        self.history_ = self.history_ + summarise(net.history[n_before:])
        self.n_iter_ = len(self.history_)
        self._keep(net, keep_net=keep_net)

    def _keep_net(self, net, keep_net):
        """Keep a net without the clips, if a later fit is to go on with it."""
        net.train_split = net.callbacks = None  # which hold the clips
        net.callbacks_ = []
        # An optimizer takes the room of two encoders.
        self._net = net if keep_net else None


def check_weights(sample_weight, n_clips):
    """Check the weights of clips.

    Parameters
    ----------
    sample_weight : array-like of shape (n_clips,) or None
        The weights.
    n_clips : int
        Number of clips.

    Returns
    -------
    kept : ndarray of int
        The clips that count.
    weights : ndarray of shape (n_clips,) or None
        Their weights, of mean 1 over these, None where all are alike.

    Raises
    ------
    ValueError
        If there is not one for each clip, or one is negative, or all are zero.
    """
    if sample_weight is None:
        return np.arange(n_clips), None
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n_clips,) or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"sample_weight has the shape {weights.shape} and values from "
            f"{weights.min():g} to {weights.max():g}: give each of the {n_clips} clips "
            "one weight, none negative and not every weight zero"
        )
    kept = np.flatnonzero(weights)
    # Of mean 1, so that the loss of a batch is no more than that of any other.
    return kept, weights / weights[kept].mean()


def pack_state(state):
    """Return weights as bytes, for pickles.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights by name.

    Returns
    -------
    bytes
        Them in the format of safetensors.
    """
    from safetensors.torch import save

    # Copies, for weights that are shared can't be saved so.
    return save(
        {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in state.items()
        }
    )


def is_log_mel(source):
    """Tell whether a set of clips gives log-mel."""
    if isinstance(source, ArraySet):
        return source.X.ndim == 3
    return source.front_end.n_mels is not None


def _is_same(value, former):
    try:
        return value is former or bool(value == former)
    except ValueError:  # of arrays in encoder_params
        return True


def holds_clips(X):
    """Tell whether X is what estimators with an encoder take, and no others."""
    n_dims = getattr(X, "ndim", 1)
    if n_dims != 1 or not (isinstance(X, (list, tuple)) or hasattr(X, "dtype")):
        return n_dims == 3
    return _holds_paths(X) or np.ndim(next(iter(X), None)) > 1


def _holds_paths(X):
    is_list = isinstance(X, (list, tuple)) or getattr(X, "ndim", 0) == 1
    return is_list and isinstance(next(iter(X), None), (str, os.PathLike))
