"""How SpectrogramCNNClassifier trains."""

import numpy as np
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import validate_data

from ._architectures import (
    complete_params,
    find_head,
    find_trained,
    look_up,
    plan_architecture,
)
from ._class_training import sort_classes
from ._cnn_model import CNNModel
from ._encoder_training import check_weights, holds_clips
from ._training import draw_seed, make_net, own_generators
from ._training_set import ArraySet, check_log_mel

# Parameters that a net is made with, which holds the state of an optimizer.
_NET_PARAMS = ("optimizer", "lr", "momentum", "weight_decay", "verbose")
# Parameters that the network is made with.
_MADE_WITH = ("architecture", "weights", "architecture_params", "front_end", "dropout")
# Of clips where no fit tells.
_SECONDS = 10.0


class CNNTraining(CNNModel):
    """The training of `SpectrogramCNNClassifier`, whose parameters it reads."""

    _NOT_LEARNT_FROM = CNNModel._NOT_LEARNT_FROM | {"n_tta"}

    def _fit(self, X, y, sample_weight, *, go_on, in_part=False, classes=None):
        from ..nn._device import choose_device

        self._refuse_copies()
        device = choose_device(self.device)
        classes = sort_classes(classes)
        if go_on:
            self._check_made_with(classes)
        plan = self._plan if go_on else self._plan_encoder()
        source = self._check_clips(X, plan, reset=not go_on, training=True)
        kept, sample_weight = check_weights(sample_weight, len(source))
        targets = self._read_targets(y, classes, source, kept, go_on)
        self._check_augmentation(source)
        self._check_rolls(source)
        sample_weight = self._weigh_classes(targets, kept, sample_weight, in_part)
        if not go_on:
            self._forget()
            self.classes_ = targets.labels
            self._begin(plan, source.middle(kept[0])[0].shape, source.dtype)
        watched = bool(self.early_stopping) and not in_part
        self._learn(
            source,
            targets,
            sample_weight,
            kept,
            device,
            go_on=go_on,
            in_part=in_part,
            watched=watched,
        )
        return self

    def _restore(self, classes):
        """Take the weights as they are for what was learnt."""
        import torch

        from ..nn._class_net import order_classes
        from ..nn._device import choose_device

        plan = self._plan_weights()
        labels = self._find_classes(plan, classes)
        front_end = plan.make_front_end()
        n_mels = plan.params.get("n_mels", front_end.n_mels)
        seconds = _SECONDS if self.duration is None else self.duration
        # A clip of so many samples has the one frame at its start besides.
        n_frames = int(seconds * front_end.sampling_rate) // front_end.hop_length + 1
        order = np.argsort(labels)
        self._forget()
        self.classes_ = labels[order]
        self._begin(plan, (n_frames, n_mels), np.float32)
        self._learnt, self._has_new_layer = None, False
        # ResNet-34 does not tell what it was trained on.
        self._n_mels = plan.params.get("n_mels")
        self._is_merged = bool(plan.params.get("merged"))
        device = choose_device(self.device)
        with own_generators(0, device):
            module = self._make_module(load=True)
        order_classes(module.network, order.tolist())
        self.checkpoint_ = plan.describe(module.network)
        module = module.eval().to(memory_format=torch.channels_last)
        self._module = module
        self.n_iter_ = 0
        return self

    def _find_classes(self, plan, classes):
        """Return the labels of weights, in the order of the scores."""
        record = plan.checkpoint.record
        n_classes = plan.params["n_classes"]
        if record is not None and not getattr(plan.cls, "exclusive_classes", False):
            raise ValueError(
                f"the checkpoint {record.name!r} scores {n_classes} classes of which a "
                "clip may have several: train a new last layer with fit, or take its "
                "embedder with output='probabilities'"
            )
        if classes is None:
            classes = plan.checkpoint.labels
        if classes is None:
            raise ValueError(
                f"the classes of weights={self.weights!r} are not known: pass its "
                f"{n_classes} labels as classes, in the order of its scores"
            )
        labels = np.asarray(classes)
        if labels.shape != (n_classes,) or len(np.unique(labels)) < n_classes:
            raise ValueError(
                f"classes={classes!r}: the weights score {n_classes} classes, each of "
                "which needs a label of its own"
            )
        return labels

    def _begin(self, plan, clip_shape, dtype):
        """Take over what the network is made with."""
        self._plan = complete_params(
            plan,
            n_classes=len(self.classes_),
            n_mels=clip_shape[-1],
            dropout=self.dropout,
        )
        self._has_new_layer = plan.path is not None
        self._n_mels = clip_shape[-1]
        self._clip_shape = tuple(clip_shape)
        self._dtype = dtype
        self._is_merged = self._is_half = False
        # Of weights from a file pickles hold what is not in it any more.
        self._learnt = None if plan.path is None else set()
        self._made_with = {name: getattr(self, name) for name in _MADE_WITH}
        self._seed = draw_seed(self.random_state)

    def _refuse_copies(self):
        kinds = [
            ("_is_merged", "its batch norms are merged"),
            ("_is_half", "its weights are of half precision"),
        ]
        for name, what in kinds:
            if getattr(self, name, False):
                raise ValueError(
                    f"this classifier is for inference, for {what}, and can't be "
                    "trained any more: train the one that it was made from, or "
                    "sklearn.base.clone(classifier), which begins anew"
                )

    def _plan_encoder(self):
        plan = self._plan_weights()
        if plan.params.get("merged"):
            raise ValueError(
                f"weights={self.weights!r} are merged for inference, and can't be "
                "trained any more: take those before merging, or "
                f"{type(self).__name__}.from_checkpoint to predict with them"
            )
        return plan

    def _plan_weights(self):
        return plan_architecture(
            self.architecture,
            weights=self.weights,
            params=self.architecture_params,
            front_end=self.front_end,
        )

    def _get_known_classes(self):
        return self.classes_

    def _check_clips(self, X, plan, *, reset, training):
        """Return X as a set of clips that the network can read."""
        log_mel = check_log_mel(X)
        if log_mel is not None:
            source = ArraySet(log_mel)
            self._check_axes(source, reset=reset)
            n_frames, n_mels = log_mel.shape[1:]
        elif plan.front_end_name is not None:
            source = super()._check_clips(X, plan, reset=reset, training=training)
            n_frames, n_mels = None, source.front_end.n_mels
        else:
            return self._check_vectors(X, plan, reset=reset)
        if not reset and self._n_mels not in (None, n_mels):
            raise ValueError(
                f"X has {n_mels} mel bands, and in fit it had {self._n_mels}: make its "
                "log-mel as that of fit was made"
            )
        if n_mels != plan.params.get("n_mels", n_mels):
            raise ValueError(
                f"X has {n_mels} mel bands, and the network {plan.params['n_mels']}, "
                "by its weights or architecture_params: give it as many"
            )
        if isinstance(self.architecture, str):
            self._check_size(n_frames, n_mels)
        return source

    def _check_vectors(self, X, plan, *, reset):
        """Return vectors, which a class may take, as a set of clips."""
        if holds_clips(X):
            raise ValueError(
                f"X holds clips, and {plan.cls.__name__} has no front end: name one by "
                "front_end, or make log-mel by LogMelExtractor"
            )
        # As linear models do, double precision trains in double precision.
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        source = ArraySet(X, X.dtype if reset else self._dtype)
        self._check_axes(source, reset=reset)
        return source

    def _check_axes(self, source, *, reset):
        """Refuse vectors after a fit of log-mel, and log-mel after one of vectors."""
        shape = source.X.shape[1:]
        if not reset and len(shape) != len(self._clip_shape):
            raise ValueError(
                f"X holds clips of the shape {shape}, and those of fit had "
                f"{self._clip_shape}: give X the shape (n_clips, ...) and what fit had"
            )

    def _check_size(self, n_frames, n_mels):
        """Refuse log-mel that is too small for the poolings."""
        n_halvings = look_up(self.architecture).n_halvings
        least = 2**n_halvings
        for n, what, mend in (
            (n_frames, "frames", "give longer clips, or a shorter hop_length"),
            (n_mels, "mel bands", "set n_mels of LogMelExtractor"),
        ):
            if n is not None and n < least:
                raise ValueError(
                    f"X has {n} {what}, and architecture={self.architecture!r} halves "
                    f"them {n_halvings} times: it takes at least {least}; {mend}"
                )

    def _check_rolls(self, source):
        if self.n_tta > 1 and isinstance(source, ArraySet) and source.X.ndim == 2:
            raise ValueError(
                f"n_tta={self.n_tta}: X holds vectors, which can't be rolled over "
                "time; set n_tta=1"
            )

    def _weigh_classes(self, targets, kept, sample_weight, in_part):
        """Return the weights of clips, with those of their classes."""
        if self.class_weight is None:
            return sample_weight
        if in_part and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' in partial_fit, where not all clips are "
                "known: give a dict, such as compute_class_weight works out"
            )
        y = targets.indicator.argmax(axis=1)
        labels = targets.labels
        weights = compute_class_weight(
            self.class_weight, classes=labels, y=labels[y[kept]]
        )
        clips = weights[y] * (1.0 if sample_weight is None else sample_weight)
        # In parts by the classes, of which some may have no clips in one.
        return clips / (weights if in_part else clips[kept]).mean()

    def _take_net(self, source, kept, device, seed):
        """Return the skorch net, the former one or one that begins as it stood."""
        import torch

        from ..nn._class_net import ClassLoss

        settings = {name: getattr(self, name) for name in _NET_PARAMS}
        known = self._net is not None and self._net_settings == (settings, device)
        module = self._module
        if module is None and self._state_bytes is not None:
            module = self._get_module(device)
        if module is None:
            with own_generators(seed, device):
                module = self._make_module(load=True)
            self._try(module)
        network = module.network
        module.choose(find_trained(self.trainable, self.architecture, network))
        # What the head alone reads stays as it was published.
        head = find_head(self.architecture, network)
        module.keeps_statistics = self._plan.path is not None and all(
            name.startswith(head)
            for name, weight in network.named_parameters()
            if weight.requires_grad
        )
        module.amp = getattr(torch, self.amp) if self.amp else None
        gamma = self.focal_gamma if self.loss == "focal" else 0.0
        if known:
            criterion = self._net.criterion_
            criterion.gamma, criterion.smoothing = gamma, self.label_smoothing
            return self._net
        self._net_settings = settings, device
        return make_net(
            # Depthwise convolutions train nearly twice as fast with channels last.
            module.to(device=device, memory_format=torch.channels_last),
            ClassLoss(gamma, self.label_smoothing),
            optimizer=self.optimizer,
            lr=self.lr,
            encoder_lr=None,
            device=device,
            verbose=self.verbose,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def _try(self, module):
        """Refuse a network that does not score the classes."""
        from ..nn._model_size import run_silence

        n_classes = len(self.classes_)
        shape = tuple(run_silence(module, self._clip_shape).logits.shape)
        if shape != (1, n_classes):
            raise ValueError(
                f"{self._plan.cls.__name__} gives scores of the shape {shape} for one "
                f"clip, and y has {n_classes} classes: have its forward return "
                "(n_clips, n_classes), by a parameter n_classes of its __init__"
            )
