"""How SPATagger trains."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_consistent_length

from .._distances import check_distances
from ..text import LabelTextEmbedder
from ._encoder_training import check_weights
from ._label_sets import column_names
from ._proximity_model import ProximityModel
from ._proximity_scores import calibrate, cosines
from ._targets import read_targets
from ._training import (
    balance,
    draw_seed,
    make_net,
    make_watch,
    own_generators,
)

_BERT = "bert-base-uncased"
# Clips by which similarities are brought to the scale of logits.
_N_CALIBRATION = 512
# Parameters that a net is made with, which holds the state of an optimizer.
_NET_PARAMS = ("optimizer", "lr", "encoder_lr", "freeze_encoder", "verbose")
# Parameters that the trained layers are made with.
_MADE_WITH = (
    "encoder",
    "weights",
    "encoder_params",
    "front_end",
    "patchout",
    "n_components",
)
_MEND = (
    "pass ontology=AudioSetOntology.fetch(), a LabelGraph of your labels or a matrix "
    "of their distances, or set "
)


class ProximityTraining(ProximityModel):
    """The training of `SPATagger`, whose parameters it reads."""

    _ENCODER_PARAMS = (*ProximityModel._ENCODER_PARAMS, "patchout")

    def _fit(self, X, y, sample_weight, *, go_on, in_part=False, classes=None):
        from ..nn._device import choose_device

        device = choose_device(self.device)
        if go_on:
            self._check_unchanged(classes)
        plan = self._plan if go_on else self._plan_encoder()
        source = self._check_clips(X, plan, reset=not go_on, training=True)
        kept, sample_weight = check_weights(sample_weight, len(source))
        targets = self._read_targets(y, classes, source, kept, go_on)
        self._check_together(targets, source)
        # In parts there is nothing to stop.
        score = None if in_part else _name_score(self.early_stopping)
        distances = self._find_distances(targets, score)
        if not go_on:
            self._forget()
            self._embed_texts(targets)
            self.seen_classes_ = targets.labels
            self._exclusive = targets.exclusive
            self._plan = plan
            self._made_with = {name: getattr(self, name) for name in _MADE_WITH}
            self._dtype = source.dtype
            self._seed = draw_seed(self.random_state)
        self._is_frozen = self.freeze_encoder and (not go_on or self._is_frozen)
        seeds = np.random.SeedSequence(self._seed).generate_state(4).tolist()
        net = self._take_net(source, kept, distances, device, seeds[0])
        training, validation, held_out = self._make_loaders(
            source,
            targets,
            sample_weight,
            kept,
            device,
            seeds[1:3],
            watched=score is not None,
        )
        clips = kept if held_out is None else held_out
        calibrate = partial(self._calibrate, source, targets, clips, seeds[3])
        try:
            self._run(
                net,
                training,
                validation,
                max_epochs=1 if in_part else self.max_epochs,
                # Vectors train without what draws from torch's global generators.
                device=None if plan is None else device,
                callbacks=self.callbacks,
                watch=score and make_watch(score, distances, self.patience),
                keep_net=in_part or self.warm_start,
                go_on=go_on,
            )
        except KeyboardInterrupt as stop:
            if not hasattr(self, "n_iter_"):
                raise
            calibrate()
            raise KeyboardInterrupt(
                f"stopped by the user: the tagger keeps what it has learnt, with "
                f"{self.n_iter_} whole epochs behind it, and a fit with "
                "warm_start=True goes on"
            ) from stop
        calibrate()
        return self

    def _check_unchanged(self, classes):
        self._check_made_with(classes)
        if self.alpha and self._label_vectors is None:
            raise ValueError(
                f"alpha={self.alpha:g} can't go on from a fit with alpha=0, which had "
                "no texts: fit anew with warm_start=False"
            )

    def _forget(self):
        """Drop what a former fit has left."""
        vars(self).pop("n_iter_", None)
        self.history_ = []
        self._tuned = {}
        self._net = self._encoder = self._heads = self._encoder_bytes = None

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
            single = len(targets.labels) == 1 and not targets.exclusive
            hint = "; for a single one set obce=False" if single else ""
            raise ValueError(
                f"y holds {len(targets.labels)} class: there must be at least "
                f"{n_least} classes to learn to tell apart{hint}"
            )
        self._check_augmentation(source)

    def _find_distances(self, targets, score):
        """Return the distances between labels, or None where they are not needed."""
        if not (self.obce or score == "omap"):
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
        names = column_names(self.ontology)
        if names is not None and names != labels:
            raise ValueError(
                f"ontology has the columns {names[:3]}... and y the labels "
                f"{labels[:3]}...: give both in one order"
            )
        distances = check_distances(self.ontology)
        if len(distances) != len(labels):
            raise ValueError(
                f"ontology is a matrix of {len(distances)} labels and y has "
                f"{len(labels)}: set labels to all those of the matrix, in its order"
            )
        return distances

    def _embed_texts(self, targets):
        """Encode the labels' texts."""
        self.label_embedder_ = self._label_vectors = self._calibration = None
        self._new_vectors = {}  # of candidates
        if not self.alpha:
            return
        self._calibration = (1.0, 0.0)  # until it is measured
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
        from ..nn._proximity_net import ProximityAlignmentLoss

        criterion = ProximityAlignmentLoss(self.alpha, distances if self.obce else None)
        settings = {name: getattr(self, name) for name in _NET_PARAMS}
        if self._net is not None and self._net_settings == (settings, device):
            self._net.criterion_ = criterion.to(device)
            return self._net
        self._net, self._net_settings = None, (settings, device)
        return make_net(
            self._make_module(source, kept, seed, device),
            criterion,
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
            if self._heads is None:
                n_features = _count_features(encoder, source, kept[0])
            else:
                n_features = self._heads["audio_projector.weight"].shape[1]
            module = ProximityNet(
                encoder,
                n_features=n_features,
                n_components=self.n_components,
                n_classes=len(self.seen_classes_),
                label_vectors=None if vectors is None else torch.from_numpy(vectors),
                freeze_encoder=self.freeze_encoder,
            )
            module.to(torch.from_numpy(np.empty(0, self._dtype)).dtype)
        if self._heads is not None:
            heads = {name: torch.from_numpy(v) for name, v in self._heads.items()}
            module.load_state_dict(heads, strict=False)
        # Depthwise convolutions train nearly twice as fast with channels last.
        return module.to(device=device, memory_format=torch.channels_last)

    def _find_chances(self, indicator):
        return balance(indicator) if self.balanced_sampling else None

    def _calibrate(self, source, targets, clips, seed):
        if self._label_vectors is None:
            return
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(clips)[:_N_CALIBRATION])
        # Whole recordings could take longer than their training has taken.
        similarities = cosines(
            self._project(source, chosen, whole=False),
            self._project_texts(self._label_vectors),
        )
        self._calibration = calibrate(similarities, targets.indicator[chosen])


def _name_score(early_stopping):
    """Return the name of the score by which to stop early, None for not to."""
    if not early_stopping:
        return None
    return "map" if early_stopping == "map" else "omap"


def _count_features(encoder, source, index):
    """Return the length of the vectors of clips."""
    if encoder is None:
        return source.X.shape[1]
    if hasattr(encoder, "n_components"):
        return encoder.n_components
    import torch

    from ..nn._proximity_net import take_embedding

    with torch.inference_mode():
        inputs = torch.from_numpy(source.middle(index)[0]).unsqueeze(0)
        vectors = take_embedding(encoder.eval()(inputs))
    shape = getattr(vectors, "shape", None)
    if shape is None or len(shape) != 2:
        what = type(vectors).__name__ if shape is None else f"the shape {tuple(shape)}"
        raise ValueError(
            f"encoder={type(encoder).__name__} returns {what} for one clip: it must be "
            "vectors, (n_clips, n_features), or an EncoderOutput"
        )
    return vectors.shape[1]


def _nameless(parameter, targets):
    return (
        f"y is an indicator matrix of {len(targets.labels)} columns without names, and "
        f"{parameter} goes by names: set labels, one for each column in their order, "
        "or pass a DataFrame"
    )
