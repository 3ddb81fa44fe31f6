"""What SPATagger keeps of its training: how it scores clips, and its pickles."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ._batches import encode_clips
from ._encoder_training import EncoderTraining, pack_state
from ._held_vectors import look_up
from ._proximity_scores import cosines
from ._training import own_generators

# Vectors that are scored at a time.
_CHUNK = 4096


class ProximityModel(EncoderTraining):
    """The trained parts of `SPATagger`, whose parameters it reads.

    `_heads` are the weights of the linear layers by their names, `_plan` tells how the
    encoder is made, `_encoder` is it, and `_encoder_bytes` what it is made anew from
    after unpickling. `_calibration` is the scale and the bias of similarities.
    """

    def _score(self, X):
        """Return the logits of the active labels."""
        check_is_fitted(self, "n_iter_")
        source = self._check_clips(X, self._plan, reset=False, training=False)
        places = {label: k for k, label in enumerate(self.seen_classes_.tolist())}
        classes = self.classes_.tolist()
        new = [label for label in classes if label not in places]
        if new and self._calibration is None:
            raise ValueError(
                f"candidate_labels has {new[0]!r}, which was not trained, and a fit "
                "with alpha=0 knows nothing of others: fit with alpha above 0"
            )
        # First, for labels may be unknown and there may be many clips.
        texts = self._embed_new(new) if new else None
        embedding = self._project(source, np.arange(len(source)))
        scores = np.empty((len(source), len(classes)))
        is_new = np.array([label not in places for label in classes])
        if not is_new.all():
            columns = [places[label] for label in classes if label in places]
            weight, bias = self._head("classifier")
            scores[:, ~is_new] = embedding @ weight[columns].T + bias[columns]
        if new:
            scale, bias = self._calibration
            proximity = cosines(embedding, self._project_texts(texts))
            scores[:, is_new] = scale * proximity + bias
        return scores

    def _project(self, source, indices, *, whole=True):
        """Return clips in the joint space, or what is in the middle of them."""
        weight, bias = self._head("audio_projector")
        if self._plan is None:
            chunks = np.split(indices, range(_CHUNK, len(indices), _CHUNK))
            rows = [source.X[chunk].astype(np.float64) @ weight.T for chunk in chunks]
            return np.concatenate(rows) + bias
        from ..nn._device import choose_device

        device = choose_device(self.device)
        vectors = encode_clips(
            self._get_encoder(device).to(device).eval(),
            source.windows if whole else source.middle,
            indices,
            in_threads=source.is_slow,
            batch_size=self.batch_size,
            device=device,
            n_jobs=self.n_jobs,
        )
        return vectors @ weight.T + bias

    def _project_texts(self, vectors):
        weight, bias = self._head("text_projector")
        return vectors.astype(np.float64) @ weight.T + bias

    def _head(self, name):
        parts = (self._heads[f"{name}.{part}"] for part in ("weight", "bias"))
        return tuple(part.astype(np.float64) for part in parts)

    def _get_encoder(self, device):
        """Return the trained encoder, made anew after unpickling; None before."""
        if self._encoder is None and self._plan is not None and self._heads is not None:
            import torch

            with own_generators(0, device):
                encoder = self._plan.make().float()
            if self._encoder_bytes is None:
                self._plan.load(encoder, self.weights)
            else:
                from safetensors.torch import load

                encoder.load_state_dict(load(self._encoder_bytes))
            # As in training, or predictions would round otherwise than before.
            self._encoder = encoder.to(device=device, memory_format=torch.channels_last)
        return self._encoder

    def _embed_labels(self, labels):
        return check_array(
            self.label_embedder_.transform(labels),
            dtype=np.float32,
            input_name="what label_embedder gives",
        )

    def _embed_new(self, labels):
        """Return the vectors of labels that were not trained, each embedded once."""
        return look_up(labels, self._new_vectors, self._embed_labels)

    def _keep(self, net, *, keep_net):
        """Take over what was trained."""
        module = net.module_.eval()
        module.zero_grad()  # gradients take the room of another encoder
        self._heads = {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in module.state_dict().items()
            if not name.startswith("encoder.")
        }
        self._encoder = module.encoder
        self._encoder_bytes = None
        self.checkpoint_ = None
        if self._plan is not None:
            self.checkpoint_ = self._plan.describe(module.encoder)
        self._keep_net(net, keep_net)

    def __getstate__(self):
        state = dict(super().__getstate__())
        encoder = state.get("_encoder")
        state.pop("_net_settings", None)
        state.update({name: None for name in ("_net", "_encoder") if name in state})
        if encoder is not None and not (self._is_frozen and self._plan.path):
            state["_encoder_bytes"] = pack_state(encoder.state_dict())
        return state
