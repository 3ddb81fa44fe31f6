"""What SemanticContrastiveClassifier keeps of its training: scores, and pickles."""

import os
from collections.abc import Mapping

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from ..text import LabelTextEmbedder
from ._batches import encode_clips
from ._class_training import ClassTraining
from ._encoder_training import pack_state
from ._proximity_scores import cosines
from ._training import own_generators
from ._training_set import ArraySet

# Vectors that are projected at a time.
_CHUNK = 4096
_OF_ENCODER = "encoder."
# What CLIP begins with.
_FIRST_SCALE = 1 / 0.07


class ContrastiveModel(ClassTraining):
    """What `SemanticContrastiveClassifier` has learnt, and how it names sounds by it.

    It reads the estimator's parameters. `_plan` tells how the encoder is made, `_side`
    what reads label texts, and `_texts_read` is what that gave of the labels of `fit`;
    `_map_size` is the size of the encoder's maps, and `_clip_size` the shape and the
    seconds of the clip that it is of. `_module` is the network, and `_state_bytes` what
    it is made anew from after unpickling. `_label_vectors` are the labels of `fit` in
    the joint space, `_bias` and `_scale` what makes scores of them.
    """

    @property
    def label_embeddings_(self):
        """The active labels in the joint space."""
        check_is_fitted(self, "n_iter_")
        return self._embed_active()[0].astype(self._dtype)

    def decision_function(self, X):
        """Score the active labels.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            Scores of `classes_`; of two, how much higher that of the second is.

        Raises
        ------
        ValueError
            If a label was not trained, and there are no texts.
        UnknownLabelError
            If a label that was not trained has no vector.
        """
        scores = self._score(X)
        if scores.shape[1] == 2:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X):
        """Compute probabilities of the active labels.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities of `classes_`, which sum to one.

        Raises
        ------
        ValueError, UnknownLabelError
            As `decision_function`.
        """
        return softmax(self._score(X), axis=1)

    def predict(self, X):
        """Name clips.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips,)
            The label of each clip, of `classes_`.

        Raises
        ------
        ValueError, UnknownLabelError
            As `decision_function`.
        """
        scores = self._score(X)
        return self.classes_[np.argmax(scores, axis=1)]

    @property
    def _n_features_out(self):
        return self._label_vectors.shape[1]

    def _score(self, X):
        """Return the logits of the active labels."""
        check_is_fitted(self, "n_iter_")
        # First, for labels may be unknown and there may be many clips.
        labels, bias = self._embed_active()
        vectors = self._embed_clips(X)
        if self._side is None:
            return vectors @ labels.T + bias
        return self._scale * cosines(vectors, labels)

    def _embed_clips(self, X):
        """Return clips in the joint space, in double precision."""
        source = self._check_clips(X, self._plan, reset=False, training=False)
        self._check_shape(source)
        indices = np.arange(len(source))
        from ..nn._device import choose_device
        from ..nn._feature_maps import FeatureSizeError

        device = choose_device(self.device)
        module = self._get_module(device).eval()
        if self._plan is None:
            chunks = np.split(indices, range(_CHUNK, len(indices), _CHUNK))
            # As a product in double precision, which no batch changes.
            head = module.head.projection
            weight, bias = (_to_array(part) for part in (head.weight, head.bias))
            rows = [source.X[chunk].astype(np.float64) @ weight.T for chunk in chunks]
            return np.concatenate(rows) + bias
        try:
            return encode_clips(
                module.embed,
                source.windows,
                indices,
                in_threads=source.is_slow,
                batch_size=self.batch_size,
                device=device,
                n_jobs=self.n_jobs,
            )
        except FeatureSizeError as error:
            raise self._explain_size(source) from error

    def _check_shape(self, source):
        """Refuse arrays that are not as those of fit, but for their length."""
        if isinstance(source, ArraySet) and self._clip_size is not None:
            shape, former = source.X.shape[1:], self._clip_size[0]
            if len(shape) != len(former) or shape[1:] != former[1:]:
                raise ValueError(
                    f"X holds clips of the shape {shape}, and those of fit had "
                    f"{former}: give X the shape (n_clips, ...) and what fit had"
                )

    def _explain_size(self, source):
        """Return the error of clips whose maps are not as large as in fit."""
        shape, seconds = self._clip_size
        told = (
            f"the maps of these clips are not {' x '.join(map(str, self._map_size))} "
            f"as those of fit are, of clips of {shape[0]} frames, and "
            f"similarity={self._made_with['similarity']!r} reads maps of one size"
        )
        if isinstance(source, ArraySet):
            return ValueError(
                f"{told}: cut log-mel to {shape[0]} frames, such as by "
                "LogMelExtractor(duration=...)"
            )
        return ValueError(
            f"{told}: set duration={seconds:g}, in seconds as in fit, so that longer "
            "clips are heard in pieces and shorter ones repeated"
        )

    def _check_words(self, name, labels):
        """Refuse labels that are no texts, where texts are read."""
        kinds = (str, os.PathLike, Mapping, LabelTextEmbedder)
        if not isinstance(self.text_encoder, kinds):
            return
        for label in labels:
            if not isinstance(label, str):
                raise TypeError(
                    f"{name} has the label {label!r}, which is no text for "
                    "text_encoder to read: give labels as strings, or fit with "
                    "text_encoder=None"
                )

    def _embed_active(self):
        """Return the active labels in the joint space, and biases of their scores."""
        places = {label: k for k, label in enumerate(self.seen_classes_.tolist())}
        classes = self.classes_.tolist()
        new = [label for label in classes if label not in places]
        self._check_words("candidate_labels", new)
        if new and self._side is None:
            raise ValueError(
                f"candidate_labels has {new[0]!r}, which was not trained, and a fit "
                "with text_encoder=None knows nothing of others: fit with texts"
            )
        is_new = np.array([label not in places for label in classes])
        columns = [places[label] for label in classes if label in places]
        vectors = np.empty((len(classes), self._label_vectors.shape[1]))
        bias = np.zeros(len(classes))
        vectors[~is_new], bias[~is_new] = (
            self._label_vectors[columns],
            self._bias[columns],
        )
        if new:
            vectors[is_new] = self._embed_new(new)
        return vectors, bias

    def _embed_new(self, labels):
        import torch

        from ..nn._device import choose_device

        device = choose_device(self.device)
        texts = self._get_module(device).eval().texts
        read = torch.from_numpy(self._side.read(labels)).to(device)
        if read.is_floating_point():
            read = read.to(next(texts.parameters(), read).dtype)
        with torch.inference_mode():
            return texts.project(read).cpu().double().numpy()

    def _make_module(self, encoder):
        """Make the network over an encoder.

        New weights are drawn from torch's global generator.
        """
        import torch

        from ..nn import SymmetricContrastiveLoss
        from ..nn._contrastive_net import ContrastiveNet
        from ..nn._label_heads import make_head

        # As they were in fit: parameters may be set to others since.
        made_with = self._made_with
        n_components, scale = made_with["n_components"], made_with["logit_scale"]
        head = make_head(made_with["similarity"], *self._map_size, n_components)
        texts = alignment = None
        if self._side is not None:
            # A copy, for of a memory map it can't be written.
            texts = self._side.make(np.array(self._texts_read), n_components)
            learns = scale == "learn"
            alignment = SymmetricContrastiveLoss(
                self.positives,
                _FIRST_SCALE if learns else scale,
                learn_scale=learns,
            )
        module = ContrastiveNet(
            encoder,
            head,
            texts,
            len(self.seen_classes_),
            alignment=alignment,
            freeze_encoder=self.freeze_encoder,
        )
        return module.to(torch.from_numpy(np.empty(0, self._dtype)).dtype)

    def _get_module(self, device):
        """Return the trained network, made anew after unpickling."""
        import torch

        if self._module is None:
            from safetensors.torch import load

            with own_generators(0, device):
                encoder = None if self._plan is None else self._plan.make().float()
                module = self._make_module(encoder)
            state = load(self._state_bytes)
            module.load_state_dict(state, strict=False)
            if self._plan is not None and not any(
                name.startswith(_OF_ENCODER) for name in state
            ):
                self._plan.load(module.encoder, self.weights)
            # As in training, or predictions would round otherwise than before.
            self._module = module.to(memory_format=torch.channels_last)
        self._module.to(device)
        return self._module

    def _keep(self, net, *, keep_net):
        """Take over what was trained."""
        import torch

        self._module = module = net.module_.eval()
        self._state_bytes = None
        if self._side is None:
            labels, bias = module.classifier.weight, module.classifier.bias
            self._label_vectors, self._bias = _to_array(labels), _to_array(bias)
        else:
            with torch.inference_mode():
                self._label_vectors = _to_array(module.texts())
                self._scale = float(module.alignment.scale)
            self._bias = np.zeros(len(self._label_vectors))
        self.checkpoint_ = None
        if self._plan is not None:
            self.checkpoint_ = self._plan.describe(module.encoder)
        self._keep_net(net, keep_net)

    def __getstate__(self):
        state = dict(super().__getstate__())
        module = state.get("_module")
        state.pop("_net_settings", None)
        state.update({name: None for name in ("_net", "_module") if name in state})
        if module is not None:
            left_out = self._is_frozen and self._plan is not None and self._plan.path
            state["_state_bytes"] = pack_state(
                {
                    name: tensor
                    for name, tensor in module.state_dict().items()
                    if not (left_out and name.startswith(_OF_ENCODER))
                }
            )
        return state


def _to_array(tensor):
    return tensor.detach().cpu().double().numpy()
