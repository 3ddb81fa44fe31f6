"""What SPATagger keeps of its training: how it scores clips, and its pickles."""

import os

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from ._batches import encode_clips
from ._proximity_scores import cosines
from ._training import own_generators
from ._training_set import ArraySet, check_log_mel, make_clip_set

# Vectors that are scored at a time.
_CHUNK = 4096


class ProximityModel:
    """The trained parts of `SPATagger`, whose parameters it reads.

    `_heads` are the weights of the linear layers by their names, `_plan` tells how the
    encoder is made, `_encoder` is it, and `_encoder_bytes` what it is made anew from
    after unpickling. `_calibration` is the scale and the bias of similarities.
    """

    def _check_clips(self, X, plan, *, reset, training):
        """Return X as a set of clips."""
        if plan is None:
            if _holds_clips(X):
                raise ValueError(
                    "X holds clips or log-mel, and with encoder=None SPATagger takes "
                    "vectors: name an encoder, such as encoder='efficientat'"
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
        unknown = [label for label in labels if label not in self._new_vectors]
        if unknown:
            vectors = self._embed_labels(unknown)
            self._new_vectors.update(zip(unknown, vectors, strict=True))
        return np.stack([self._new_vectors[label] for label in labels])

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
        net.train_split = net.callbacks = None  # which hold the clips
        net.callbacks_ = []
        # An optimizer takes the room of two encoders.
        self._net = net if keep_net else None

    def __getstate__(self):
        state = dict(super().__getstate__())
        encoder = state.get("_encoder")
        state.pop("_net_settings", None)
        state.update({name: None for name in ("_net", "_encoder") if name in state})
        if encoder is not None and not (self._is_frozen and self._plan.path):
            from safetensors.torch import save

            # Copies, for weights that are shared can't be saved so.
            state["_encoder_bytes"] = save(
                {
                    name: tensor.detach().cpu().clone().contiguous()
                    for name, tensor in encoder.state_dict().items()
                }
            )
        return state


def _holds_clips(X):
    """Tell whether X is what taggers with an encoder take, and no others."""
    n_dims = getattr(X, "ndim", 1)
    if n_dims != 1 or not (isinstance(X, (list, tuple)) or hasattr(X, "dtype")):
        return n_dims == 3
    first = next(iter(X), None)
    return isinstance(first, (str, os.PathLike)) or np.ndim(first) > 1
