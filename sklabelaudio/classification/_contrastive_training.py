"""How SemanticContrastiveClassifier trains."""

import os

from ._class_training import sort_classes
from ._contrastive_model import ContrastiveModel
from ._encoder_training import check_weights
from ._text_sides import TrainedSide, make_text_side
from ._training import Augmentation, draw_seed, make_net, own_generators
from ._training_state import digest

# Of an encoder that begins with trained weights.
_PRETRAINED_LR = 8e-5
# Parameters that a net is made with, which holds the state of an optimizer.
_NET_PARAMS = (
    "optimizer",
    "lr",
    "encoder_lr",
    "text_lr",
    "momentum",
    "weight_decay",
    "freeze_encoder",
    "freeze_text_encoder",
    "verbose",
)
# Parameters that the network is made with.
_MADE_WITH = (
    "encoder",
    "weights",
    "encoder_params",
    "front_end",
    "text_encoder",
    "prompt",
    "n_components",
    "similarity",
    "logit_scale",
)


class Packing:
    """Changes batches, and brings them into the form that `ContrastiveNet` takes.

    Parameters
    ----------
    mixup_alpha, stripes, roll : object
        As of `Augmentation`.
    """

    def __init__(self, *, mixup_alpha=0.0, stripes=False, roll=False):
        self.before = Augmentation(roll=roll)
        self.mixup_alpha = mixup_alpha
        self.after = Augmentation(stripes=stripes)

    def __call__(self, inputs, target, weights, generator):
        """Return inputs with classes, labels with what goes with them, and weights."""
        from ..nn._augmentation import mix_clips

        classes = target.argmax(dim=1)
        inputs, *_ = self.before(inputs, target, weights, generator)
        if self.mixup_alpha:
            inputs, target, partners, shares = mix_clips(
                inputs, target, self.mixup_alpha, generator
            )
            if weights is None:
                weights = target.new_ones(len(target))
            weights = shares * weights + (1 - shares) * weights[partners]
            target, weights = (target, weights, partners, shares), None
        inputs, *_ = self.after(inputs, target, weights, generator)
        return {"inputs": inputs, "classes": classes}, target, weights


class ContrastiveTraining(ContrastiveModel):
    """The training of `SemanticContrastiveClassifier`, whose parameters it reads."""

    _NOT_LEARNT_FROM = ContrastiveModel._NOT_LEARNT_FROM | {
        "candidate_labels",
        "text_encoder",
    }

    def _fit(self, X, y, sample_weight, *, go_on, in_part=False, classes=None):
        from ..nn._device import choose_device
        from ..nn._feature_maps import FeatureSizeError

        device = choose_device(self.device)
        classes = sort_classes(classes)
        if go_on:
            self._check_made_with(classes)
        self._check_params()
        plan = self._plan if go_on else self._plan_encoder()
        source = self._check_clips(X, plan, reset=not go_on, training=True)
        kept, sample_weight = check_weights(sample_weight, len(source))
        targets = self._read_targets(y, classes, source, kept, go_on)
        self._check_together(targets, source, kept)
        watched = bool(self.early_stopping) and not in_part
        if go_on:
            self._check_shape(source)
        else:
            self._forget()
            labels = targets.labels.tolist()
            side = make_text_side(
                self.text_encoder,
                labels,
                frozen=self.freeze_text_encoder,
                prompt=self.prompt,
            )
            self._texts_read = side and side.read(labels)
            self.seen_classes_ = targets.labels
            self._side, self._plan, self._dtype = side, plan, source.dtype
            self._made_with = {name: getattr(self, name) for name in _MADE_WITH}
            self._seed = draw_seed(self.random_state)
        self._is_frozen = self.freeze_encoder and (not go_on or self._is_frozen)
        try:
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
        except FeatureSizeError as error:
            raise self._explain_size(source) from error
        return self

    def _draws(self):
        # Vectors alone train without.
        has_texts = self._side is not None and self._side.is_trained
        return self._plan is not None or has_texts

    def _check_params(self):
        if self.encoder is None and self.similarity != "linear":
            raise ValueError(
                f"similarity={self.similarity!r} with encoder=None: it reads maps, and "
                "X holds vectors; set similarity='linear', or name an encoder"
            )
        if self.text_encoder is not None and self.batch_size == 1:
            raise ValueError(
                "batch_size=1: a clip is told from the others of its batch, and there "
                "would be none; take 2 or more, or text_encoder=None for a classifier "
                "without texts"
            )

    def _check_together(self, targets, source, kept):
        self._check_words("y", targets.labels.tolist())
        if len(kept) == 1 and self.text_encoder is not None:
            raise ValueError(
                "X holds 1 clip that counts: a clip is told from the others of its "
                "batch, and there is none; give 2 or more"
            )
        self._check_augmentation(source)
        if self.augmentations and self.encoder is None:
            raise ValueError(
                f"augmentations={self.augmentations!r} with encoder=None: X holds "
                "vectors, of which there is no waveform or log-mel to change"
            )

    def _make_augment(self, *, training):
        if not training:
            return Packing()
        return Packing(
            mixup_alpha=self.mixup_alpha,
            stripes=self.spec_augment,
            roll=self.time_roll,
        )

    def _take_net(self, source, kept, device, seed):
        """Return the skorch net, the former one or one that begins as it stood."""
        import torch

        from ..nn._contrastive_net import ContrastiveNetLoss

        settings = {name: getattr(self, name) for name in _NET_PARAMS}
        known = self._net is not None and self._net_settings == (settings, device)
        module = self._module
        if module is None and self._state_bytes is not None:
            module = self._get_module(device)
        if module is None:
            module = self._begin_module(source, kept[0], seed, device)
        self._free_texts(module, device)
        module.freeze_encoder = self.freeze_encoder
        module.amp = getattr(torch, self.amp) if self.amp else None
        if module.alignment is not None:
            module.alignment.positives = self.positives
        if known:
            return self._net
        self._net_settings = settings, device
        groups = [("alignment.*", {"weight_decay": 0.0})]
        if self.text_lr is not None:
            rate = {"lr": self.text_lr, "name": "text_lr"}
            groups.append(("texts.encoder.*", rate))
        encoder_lr = self.encoder_lr
        if encoder_lr == "auto":
            pretrained = self._plan is not None and self._plan.path
            encoder_lr = _PRETRAINED_LR if pretrained else None
        return make_net(
            # Depthwise convolutions train nearly twice as fast with channels last.
            module.to(device=device, memory_format=torch.channels_last),
            ContrastiveNetLoss(module.alignment),
            optimizer=self.optimizer,
            lr=self.lr,
            encoder_lr=encoder_lr,
            device=device,
            verbose=self.verbose,
            groups=groups,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def _begin_module(self, source, index, seed, device):
        """Make the network for clips of the size of one of them."""
        from ..nn._feature_maps import measure_features

        with own_generators(seed, device):
            encoder = None
            if self._plan is None:
                self._clip_size = None
                self._map_size = (source.X.shape[1], 1, 1)
            else:
                encoder = self._plan.load(self._plan.make().float())
                clip = source.middle(index)[0]
                self._clip_size = clip.shape, source.seconds(index)
                self._map_size = measure_features(encoder, clip.shape)
            return self._make_module(encoder)

    def _free_texts(self, module, device):
        """Have a text encoder that is named be trained from now on, or not any more."""
        side = self._side
        if side is None or not isinstance(self.text_encoder, (str, os.PathLike)):
            return
        if not side.is_trained and not self.freeze_text_encoder:
            self._side = side = TrainedSide(self.text_encoder, self.prompt)
            self._texts_read = side.read(self.seen_classes_.tolist())
            with own_generators(0, device):
                texts = side.make(self._texts_read, module.head.n_components)
            texts.projector = module.texts.projector
            module.texts = texts.to(next(module.head.parameters()))
        if side.is_trained:
            module.texts.frozen = self.freeze_text_encoder

    def _describe_more(self):
        texts = "None"
        if self._side is not None:
            texts = digest(self._texts_read, *self._side.list_beginning())
        return {"text_encoder": texts}
