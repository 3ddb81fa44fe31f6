"""What SpectrogramCNNClassifier keeps of its training: scores, sizes, pickles."""

import copy

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from ._batches import encode_clips
from ._class_training import ClassTraining
from ._encoder_training import pack_state
from ._training import own_generators

_N_BYTES = {"float32": 4, "float16": 2}
# Of the weights' names, for `ClassNet` holds the network.
_NETWORK = "network."


class CNNModel(ClassTraining):
    """What `SpectrogramCNNClassifier` has learnt, and how it names sounds by it.

    It reads the estimator's parameters. `_plan` tells how the network is made, and
    `_has_new_layer` whether its last layer is another than that of the file of weights.
    `_n_mels` and `_clip_shape` are those of the clips of `fit`. `_module` is the
    network in a `ClassNet`, and `_state_bytes` what it is made anew from after
    unpickling; `_learnt` are the names of the weights that are no more those of the
    file, ``None`` being all. `_is_merged` and `_is_half` tell copies for inference.
    """

    @property
    def n_parameters_(self):
        """Values that the network is saved with."""
        from ..nn._model_size import count_values

        check_is_fitted(self, "n_iter_")
        return count_values(self._get_module("cpu").network)

    @property
    def n_multiply_adds_(self):
        """Multiplications with an addition that a clip as in `fit` takes."""
        from ..nn._model_size import count_multiply_adds

        check_is_fitted(self, "n_iter_")
        module = self._get_module("cpu")
        return self.n_tta * count_multiply_adds(module.network, self._clip_shape)

    @property
    def model_size_(self):
        """Bytes of these values by precision."""
        n_values = self.n_parameters_
        return {dtype: n_bytes * n_values for dtype, n_bytes in _N_BYTES.items()}

    def check_budget(self, *, max_parameters=65_000, max_bytes=131_072, dtype=None):
        """Refuse a network that is larger than allowed.

        Parameters
        ----------
        max_parameters : int or None, default=65_000
            Most that `n_parameters_` may be; ``None`` for any number. By default it is
            the limit in the study.
        max_bytes : int or None, default=131_072
            Most bytes of these; ``None`` for any number. By default it is the limit of
            128 KB, of 1024 bytes each, of DCASE 2021 task 1A.
        dtype : {"float32", "float16"}, default=None
            Precision of the bytes; ``None`` is that of the weights: ``"float16"`` of
            what :meth:`half` gives.

        Returns
        -------
        self : SpectrogramCNNClassifier
            The classifier, if it keeps the limits.

        Raises
        ------
        ValueError
            If it does not; the message names each limit that is broken, and by how
            much.
        """
        if dtype not in (None, *_N_BYTES):
            raise ValueError(
                f"dtype={dtype!r} is none of {', '.join(map(repr, _N_BYTES))}, or None"
            )
        n_values, sizes = self.n_parameters_, self.model_size_
        dtype = dtype or ("float16" if self._is_half else "float32")
        broken = []
        if max_parameters is not None and n_values > max_parameters:
            broken.append(f"{n_values:,} parameters, of {max_parameters:,} allowed")
        if max_bytes is not None and sizes[dtype] > max_bytes:
            broken.append(
                f"{sizes[dtype]:,} bytes in {dtype}, of {max_bytes:,} allowed"
            )
        if not broken:
            return self
        mends = []
        if not self._is_merged:
            mends.append("merge_batch_norm() leaves out what training alone needs")
        if dtype == "float32":
            mends.append("half() halves the bytes")
        mends.append("architecture_params={'width': ...} makes a narrower network")
        raise ValueError(f"the network has {' and '.join(broken)}: {', '.join(mends)}")

    def decision_function(self, X):
        """Score the classes.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            The network's logits of `classes_`, the mean over pieces of the clip and
            over `n_tta`; of two classes, how much higher that of the second is.

        Raises
        ------
        ValueError
            If X has other mel bands than in `fit`, or too few frames.
        """
        scores = self._score(X)
        if scores.shape[1] == 2:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X):
        """Compute probabilities of the classes.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities of `classes_`, the softmax of the mean logits.

        Raises
        ------
        ValueError
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
            The label of each clip.

        Raises
        ------
        ValueError
            As `decision_function`.
        """
        scores = self._score(X)
        return self.classes_[np.argmax(scores, axis=1)]

    def merge_batch_norm(self):
        """Make a copy for inference, without the batch norms behind convolutions.

        Returns
        -------
        SpectrogramCNNClassifier
            A fitted classifier that gives the same, to rounding. Each convolution and
            the batch norm behind it are one, and of SP4SC the norm of the mel bands a
            scale and a shift. It can't be trained any more.

        Notes
        -----
        It is equations 1 to 4 of the study, but divides by the root of the variance
        plus eps, as the batch norm does. Of a class of your own, pairs are merged that
        follow each other in a `torch.nn.Sequential`, and what has a method ``fold_()``.
        """
        check_is_fitted(self, "n_iter_")
        from ..nn._fold import fold_batch_norm

        made = self._copy_for_inference()
        fold_batch_norm(made._module)
        made._is_merged = True
        if made._is_half:
            _round_to_half(made._module)
        return made

    def half(self):
        """Make a copy for inference whose weights are of half precision.

        Returns
        -------
        SpectrogramCNNClassifier
            A fitted classifier whose weights are rounded to float16, and pickled so. It
            computes in float16 on a GPU, and in float32 with these weights on a CPU. It
            can't be trained any more.

        Raises
        ------
        ValueError
            If a weight is too large for float16.
        """
        check_is_fitted(self, "n_iter_")
        made = self._copy_for_inference()
        _round_to_half(made._module)
        made._is_half = True
        return made

    def _copy_for_inference(self):
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        made._module = copy.deepcopy(self._get_module("cpu")).eval()
        made._net = made._state_bytes = made._learnt = None
        made.history_ = list(self.history_)
        return made

    def _score(self, X):
        """Return the mean logits of clips, in double precision."""
        check_is_fitted(self, "n_iter_")
        source = self._check_clips(X, self._plan, reset=False, training=False)
        from ..nn._device import choose_device

        device = choose_device(self.device)
        module = self._get_module(device).eval()
        return encode_clips(
            _Rolled(module, self.n_tta),
            source.windows,
            np.arange(len(source)),
            in_threads=source.is_slow,
            batch_size=self.batch_size,
            device=device,
            n_jobs=self.n_jobs,
        )

    def _make_module(self, *, load):
        """Make the network.

        New weights are drawn from torch's global generator. With `load` the others are
        those of the file, if there is one.
        """
        import torch

        from ..nn._class_net import ClassNet, replace_last_layer
        from ..nn._fold import fold_batch_norm

        network = self._plan.make()
        if load:
            self._plan.load(network, self.weights)
        if self._has_new_layer:
            replace_last_layer(network, len(self.classes_))
        module = ClassNet(network)
        if self._is_merged:
            fold_batch_norm(module)
        return module.to(torch.from_numpy(np.empty(0, self._dtype)).dtype)

    def _get_module(self, device):
        """Return the trained network, made anew after unpickling."""
        import torch

        device = torch.device(device)
        if self._module is None:
            from safetensors.torch import load

            with own_generators(0, device):
                module = self._make_module(load=self._learnt is not None)
            module.load_state_dict(load(self._state_bytes), strict=False)
            # As in training, or predictions would round otherwise than before.
            self._module = module.to(memory_format=torch.channels_last)
        dtype = torch.from_numpy(np.empty(0, self._dtype)).dtype
        if self._is_half and device.type == "cuda":
            dtype = torch.float16
        return self._module.to(device=device, dtype=dtype)

    def _keep(self, net, *, keep_net):
        """Take over what was trained."""
        self._module = module = net.module_.eval()
        self._state_bytes = None
        if self._learnt is not None:
            self._learnt = self._learnt | _list_learnt(module)
        self.checkpoint_ = self._plan.describe(module.network)
        self._keep_net(net, keep_net)

    def __getstate__(self):
        state = dict(super().__getstate__())
        module = state.get("_module")
        state.pop("_net_settings", None)
        state.update({name: None for name in ("_net", "_module") if name in state})
        if module is not None:
            kept = module.state_dict()
            if self._learnt is not None:
                kept = {name: kept[name] for name in kept if name in self._learnt}
            if self._is_half:
                kept = {name: _to_half(values) for name, values in kept.items()}
            state["_state_bytes"] = pack_state(kept)
        return state


class _Rolled:
    """A network whose scores are the mean over clips rolled in time, evenly."""

    def __init__(self, module, n_rolls):
        self.module = module
        self.n_rolls = n_rolls

    def __call__(self, inputs):
        weight = next(self.module.parameters(), inputs)
        inputs = inputs.to(weight.dtype)
        total = 0.0
        for k in range(self.n_rolls):
            rolled = inputs
            if k:
                rolled = inputs.roll(k * inputs.shape[1] // self.n_rolls, dims=1)
            total = total + self.module(rolled).logits.double()
        return total / self.n_rolls


def _list_learnt(module):
    """Return the names of what is not as it was in the file any more."""
    from ..nn._class_net import find_last_layer

    # The last layer is another than that of the file, whether it was trained or not.
    last = f"{_NETWORK}{find_last_layer(module.network)}."
    learnt = {
        name
        for name, weight in module.named_parameters()
        if weight.requires_grad or name.startswith(last)
    }
    if not module.keeps_statistics:
        learnt |= {name for name, _ in module.named_buffers()}
    return learnt


def _to_half(values):
    return values.half() if values.is_floating_point() else values


def _round_to_half(module):
    """Round weights to half precision, in place."""
    import torch

    for name, values in module.state_dict().items():
        if values.is_floating_point():
            rounded = values.half()
            if not torch.isfinite(rounded).all():
                raise ValueError(
                    f"the weight {name.removeprefix(_NETWORK)!r} has values up to "
                    f"{values.abs().max():g}, and float16 ends at 65504: call "
                    "merge_batch_norm() first"
                )
            values.copy_(rounded)
