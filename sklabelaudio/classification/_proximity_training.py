"""How SPATagger trains."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array, check_consistent_length

from .._distances import check_distances
from ..text import LabelTextEmbedder
from ._batches import BatchLoader
from ._encoders import plan_encoder
from ._proximity_model import ProximityModel
from ._proximity_scores import calibrate, cosines
from ._targets import read_targets
from ._training import (
    Augmentation,
    balance,
    draw_seed,
    make_net,
    make_order,
    make_watch,
    own_generators,
    split_validation,
    summarise,
    train,
)
from ._training_set import ArraySet

_BERT = "bert-base-uncased"
# Clips by which similarities are brought to the scale of logits.
_N_CALIBRATION = 512
# Parameters that a net is made with, which holds the state of an optimizer.
_NET_PARAMS = ("alpha", "obce", "optimizer", "lr", "encoder_lr", "verbose")
_MEND = (
    "pass ontology=AudioSetOntology.fetch(), a LabelGraph of your labels or a matrix "
    "of their distances, or set "
)


class ProximityTraining(ProximityModel):
    """The training of `SPATagger`, whose parameters it reads."""

    def _fit(self, X, y, sample_weight, max_epochs, *, go_on, classes=None):
        from ..nn._device import choose_device

        device = choose_device(self.device)
        plan = self._plan if go_on else self._plan_encoder()
        source = self._check_clips(X, plan, reset=not go_on, training=True)
        kept, sample_weight = _check_weights(sample_weight, len(source))
        targets = self._read_targets(y, classes, source, kept, go_on)
        self._check_together(targets, source)
        distances = self._find_distances(targets)
        if not go_on:
            self._forget()
            self._embed_texts(targets)
            self.seen_classes_ = targets.labels
            self._exclusive = targets.exclusive
            self._plan = plan
            self._dtype = source.dtype
            self._is_frozen = self.freeze_encoder
        seed = draw_seed(self.random_state)
        seeds = np.random.SeedSequence([seed, len(self.history_)]).generate_state(5)
        net = self._take_net(source, kept, distances, device, int(seeds[0]))
        rng = np.random.default_rng(seeds[1])
        training, validation, held_out = self._make_loaders(
            source, targets, sample_weight, kept, device, rng, seeds
        )
        watch = None
        if self.early_stopping:
            score = "map" if self.early_stopping == "map" else "omap"
            watch = make_watch(score, distances, self.patience)
        # Vectors train without anything that draws from torch's global generators.
        isolated = (
            nullcontext() if plan is None else own_generators(int(seeds[2]), device)
        )
        n_before = len(net.history_ or ())
        with isolated:
            train(
                net,
                training,
                validation,
                max_epochs=max_epochs,
                callbacks=self.callbacks,
                watch=watch,
            )
        self.history_ = self.history_ + summarise(net.history[n_before:])
        self.n_iter_ = len(self.history_)
        self._keep(net)
        self._calibrate(source, targets, kept if held_out is None else held_out, rng)
        return self

    def _forget(self):
        """Drop what a former fit has left."""
        vars(self).pop("n_iter_", None)
        self.history_ = []
        self._tuned = {}
        self._net = self._encoder = self._heads = self._encoder_bytes = None

    def _plan_encoder(self):
        if self.encoder is None:
            for name in ("weights", "encoder_params", "front_end", "patchout"):
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
            patchout=self.patchout,
        )

    def _read_targets(self, y, classes, source, kept, go_on):
        if y is not None:
            check_consistent_length(source, y)
        labels = self.labels if classes is None else classes
        if go_on:
            labels = self.seen_classes_
        targets = read_targets(y, labels, kept=kept)
        if go_on and targets.exclusive != self._exclusive:
            raise ValueError(
                "y has one label for each clip now and lists or an indicator matrix "
                "before, or the other way round: give it as in the first fit"
            )
        return targets

    def _check_together(self, targets, source):
        n_least = 2 if targets.exclusive or self.obce else 1
        if len(targets.labels) < n_least:
            raise ValueError(
                f"y holds {len(targets.labels)} class: there must be at least "
                f"{n_least} classes to learn to tell apart"
            )
        if (self.spec_augment or self.time_roll) and not _is_log_mel(source):
            name = "spec_augment" if self.spec_augment else "time_roll"
            raise ValueError(
                f"{name}={getattr(self, name)!r}: X is no log-mel, and the encoder has "
                f"no front end that makes it; set {name}=False"
            )
        if self.spec_augment not in (True, False) and len(self.spec_augment) != 2:
            raise ValueError(
                f"spec_augment={self.spec_augment!r} must be two numbers, of bands and "
                "of frames, or True"
            )

    def _find_distances(self, targets):
        """Return the distances between labels, or None where they are not needed."""
        by_omap = self.early_stopping and self.early_stopping != "map"
        if not (self.obce or by_omap):
            return None
        labels = targets.labels.tolist()
        if self.ontology is None:
            raise ValueError(
                "obce=True weighs mistakes by the distances between labels, and "
                f"ontology=None has none: {_MEND}obce=False"
                if self.obce
                else f"early_stopping={self.early_stopping!r} goes by OmAP, which "
                f"needs distances between labels: {_MEND}early_stopping='map'"
            )
        if hasattr(self.ontology, "distances"):
            if not targets.named:
                raise ValueError(_nameless("ontology", targets))
            return np.asarray(self.ontology.distances(labels), dtype=np.float64)
        distances = check_distances(self.ontology)
        if len(distances) != len(labels):
            raise ValueError(
                f"ontology is a matrix of {len(distances)} labels and y has "
                f"{len(labels)}: set labels to all those of the matrix, in its order"
            )
        return distances

    def _embed_texts(self, targets):
        """Encode the labels' texts."""
        self.label_embedder_ = self._label_vectors = None
        if not self.alpha:
            return
        embedder = self.label_embedder
        if embedder is None:
            embedder = LabelTextEmbedder(_BERT)
        elif isinstance(embedder, Mapping):
            embedder = LabelTextEmbedder(embedder)
        if isinstance(embedder, LabelTextEmbedder) and not targets.named:
            raise ValueError(_nameless("label_embedder", targets))
        labels = targets.labels.tolist()
        self.label_embedder_ = clone(embedder).fit(labels)
        self._label_vectors = self._embed_labels(labels)

    def _take_net(self, source, kept, distances, device, seed):
        """Return the skorch net, the former one or one that begins as it stood."""
        settings = {name: getattr(self, name) for name in _NET_PARAMS}
        if self._net is not None and self._net_settings == (settings, device):
            return self._net
        self._net_settings = settings, device
        from ..nn._proximity_net import ProximityAlignmentLoss

        module = self._make_module(source, kept, seed, device)
        return make_net(
            module,
            ProximityAlignmentLoss(self.alpha, distances if self.obce else None),
            optimizer=self.optimizer,
            lr=self.lr,
            encoder_lr=self.encoder_lr,
            device=device,
            verbose=self.verbose,
        )

    def _make_module(self, source, kept, seed, device):
        import torch

        from ..nn._proximity_net import ProximityNet

        vectors = self._label_vectors
        with own_generators(seed, device):
            encoder = self._get_encoder(device)
            if encoder is None and self._plan is not None:
                encoder = self._plan.load(self._plan.make().float())
            module = ProximityNet(
                encoder,
                n_features=_count_features(encoder, source, kept[0]),
                n_components=self.n_components,
                n_classes=len(self.seen_classes_),
                label_vectors=None if vectors is None else torch.from_numpy(vectors),
                freeze_encoder=self._is_frozen,
            )
            module.to(torch.from_numpy(np.empty(0, self._dtype)).dtype)
        if self._heads is not None:
            heads = {name: torch.from_numpy(v) for name, v in self._heads.items()}
            module.load_state_dict(heads, strict=False)
        return module.to(device)

    def _make_loaders(self, source, targets, sample_weight, kept, device, rng, seeds):
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
        if self.early_stopping:
            kept, held_out = split_validation(
                targets.indicator, kept, self.validation_fraction, rng
            )
            validation = make(lambda: held_out, n_clips=len(held_out))
        chances = balance(targets.indicator[kept]) if self.balanced_sampling else None
        augment = None
        if self.mixup_alpha or self.spec_augment or self.time_roll:
            augment = Augmentation(
                int(seeds[3]),
                mixup_alpha=self.mixup_alpha,
                stripes=self.spec_augment,
                roll=self.time_roll,
            )
        training = make(
            make_order(kept, rng, weights=chances),
            n_clips=len(kept),
            seed=int(seeds[4]),
            augment=augment,
        )
        return training, validation, held_out

    def _calibrate(self, source, targets, clips, rng):
        self._calibration = None
        if self._label_vectors is None:
            return
        chosen = np.sort(rng.permutation(clips)[:_N_CALIBRATION])
        similarities = cosines(
            self._project(source, chosen), self._project_texts(self._label_vectors)
        )
        self._calibration = calibrate(similarities, targets.indicator[chosen])


def _check_weights(sample_weight, n_clips):
    """Return the clips that count, and the weights, None where all are alike."""
    if sample_weight is None:
        return np.arange(n_clips), None
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float32, input_name="sample_weight"
    )
    if weights.shape != (n_clips,) or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"sample_weight has the shape {weights.shape} and values from "
            f"{weights.min():g} to {weights.max():g}: give each of the {n_clips} clips "
            "one weight, none negative and not every weight zero"
        )
    return np.flatnonzero(weights), weights


def _is_log_mel(source):
    if isinstance(source, ArraySet):
        return source.X.ndim == 3
    return source.front_end.n_mels is not None


def _count_features(encoder, source, index):
    """Return the length of the vectors of clips."""
    if encoder is None:
        return source.X.shape[1]
    if hasattr(encoder, "n_components"):
        return encoder.n_components
    import torch

    from ..nn._proximity_net import take_embedding

    with torch.inference_mode():
        inputs = torch.from_numpy(source.windows(index)[:1])
        vectors = take_embedding(encoder.eval()(inputs))
    if vectors.ndim != 2:
        raise ValueError(
            f"encoder={type(encoder).__name__} returns the shape "
            f"{tuple(vectors.shape)} for one clip: it must be (n_clips, n_features)"
        )
    return vectors.shape[1]


def _nameless(parameter, targets):
    return (
        f"y is an indicator matrix of {len(targets.labels)} columns without names, and "
        f"{parameter} goes by names: set labels, one for each column in their order, "
        "or pass a DataFrame"
    )
