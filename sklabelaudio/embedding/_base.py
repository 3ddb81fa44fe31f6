"""What the embedders of all encoders share."""

import json
import os
import threading
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._checkpoints import find_again, resolve_weights
from ..audio import check_audio
from ..audio._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT
from ..exceptions import CheckpointError
from ..feature_extraction._front_ends import find_least_rate, get_front_end
from ..feature_extraction._threads import (
    one_native_thread,
    one_native_thread_per_worker,
)
from ._cache import EmbeddingCache
from ._engine import Engine
from ._row_store import RowStore
from ._time_line import TimeLine, count_samples

# Decoded at a time of a long recording, in seconds.
_BLOCK_SECONDS = 60
# Building a module draws from torch's global generator, whose state is put back.
_loading = threading.Lock()
# Which attributes of an encoder tell how long the steps of an output are.
_STEPS = {
    "framewise_embedding": ("frame_stride", "n_frame_steps"),
    "framewise_probabilities": ("framewise_stride", "n_framewise_steps"),
}
OUTPUTS = {"embedding", "logits", "probabilities", "frames"}


def _gives_vectors(embedder):
    return embedder.output != "frames" and embedder.output not in _STEPS


class AudioEmbedder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base of the embedders: clips in, what a frozen encoder makes of them out.

    Subclasses say which checkpoints they take, what front end belongs to them, how
    clips are cut, and how the encoder is built.
    """

    _parameter_constraints = {
        "weights": [str, os.PathLike, None],
        "sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "output": [StrOptions(OUTPUTS)],
        "pooling": [StrOptions({"mean", "max"})],
        "hop": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "amp": ["boolean"],
        "cache": [str, os.PathLike, EmbeddingCache, None],
        "channel": CHANNEL_CONSTRAINT,
        "n_jobs": [Integral, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "verbose": ["verbose"],
    }

    # Name of the encoder in the registry.
    _encoder = None
    # Raised when the same weights and parameters come to give other numbers.
    _revision = 2
    # Parameters that decide what a row is, and those that the encoder is made ready
    # with; `transform` reads the others.
    _fingerprint_params = ("output", "pooling", "hop", "amp", "channel")
    _engine_params = ("batch_size", "device", "amp")

    def __init__(
        self,
        weights=None,
        *,
        sampling_rate=None,
        output="embedding",
        pooling="mean",
        hop=None,
        batch_size=32,
        device="auto",
        amp=False,
        cache=None,
        channel="mean",
        n_jobs=-1,
        on_error="raise",
        verbose=False,
    ):
        self.weights = weights
        self.sampling_rate = sampling_rate
        self.output = output
        self.pooling = pooling
        self.hop = hop
        self.batch_size = batch_size
        self.device = device
        self.amp = amp
        self.cache = cache
        self.channel = channel
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    @abstractmethod
    def _make_module(self, state):
        """Return the encoder that a checkpoint fits, or a usual one for None."""

    @abstractmethod
    def _plan(self, front_end):
        """Return the `WindowPlan` of the parameters."""

    @property
    def _front_end_name(self):
        """Name of the front end; weights need not be there for it."""
        return self._encoder

    @property
    def _weights(self):
        """What is looked up of the parameter `weights`."""
        return self.weights

    def _forward_params(self):
        """Return what the encoder is told beside the log-mel."""
        return {}

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Load the encoder and check X; no audio is decoded.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.
        y : None
            Ignored: the encoder is trained already.

        Returns
        -------
        self : AudioEmbedder
            The embedder with its encoder.

        Raises
        ------
        CheckpointError
            If the file of `weights` can't be read, or is another model's.
        OSError
            If the weights are neither here nor to be fetched.
        ValueError
            If X can't be audio, `weights` is no name of a checkpoint, or `device`
            can't be used.
        """
        from ..nn._device import choose_device

        front_end = get_front_end(self._front_end_name)
        self._check(X, front_end, reset=True)
        choose_device(self.device)  # before weights are fetched for nothing
        checkpoint = resolve_weights(self._weights, self._encoder, progressbar=True)
        module = self._load(checkpoint, front_end)
        self.checkpoint_ = checkpoint.complete(self._n_parameters, module.n_classes)
        self.sampling_rate_ = front_end.sampling_rate
        self._n_values = module.n_components
        self._n_classes = module.n_classes
        return self

    def transform(self, X):
        """Embed clips.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.

        Returns
        -------
        ndarray of shape (n_clips, n_components), float32
            A vector of each clip. With ``output="frames"`` or a framewise output
            ``(n_clips, n_steps, n_components)``, or an object array of ``(n_steps,
            n_components)`` arrays where the clips have different numbers of steps.

        Raises
        ------
        AudioReadError
            If a clip can't be read.
        """
        check_is_fitted(self)
        self._validate_params()
        engine = self._get_engine()
        clips = self._check(X, self._front_end, reset=False)
        return self._embed(clips, engine, self._front_end)

    def frame_times(self, n_frames, *, duration=None):
        """Tell when the steps of a clip's row are.

        Parameters
        ----------
        n_frames : int
            Number of steps: of windows with ``output="frames"``, or of the encoder's
            own time line with a framewise output.
        duration : float, default=None
            Length of the clip, in seconds. Steps of windows don't need it, but the
            last may begin earlier than told without it, for windows may end with
            the clip. Framewise outputs need it for clips of several windows, and for
            encoders that divide a clip in a fixed number of steps.

        Returns
        -------
        ndarray of shape (n_frames,)
            Time of each step's middle from the clip's start, in seconds.

        Raises
        ------
        ValueError
            If `n_frames` or `duration` is not positive, `duration` is needed, or a
            clip of that length has another number of steps.
        """
        check_is_fitted(self)
        if n_frames < 1:
            raise ValueError(f"n_frames={n_frames} must be 1 or more")
        if duration is not None and not 0 < duration < np.inf:
            raise ValueError(
                f"duration={duration!r} must be the clip's length in seconds, above 0"
            )
        front_end = get_front_end(self._front_end_name)
        plan = self._plan(front_end)
        if self.output in _STEPS:
            self._get_engine()  # parameters of which the steps depend may be new
            return self._time_line(plan, front_end).times(n_frames, duration)
        starts = plan.hop * np.arange(n_frames)
        length = plan.length
        if duration is not None:
            n_samples = count_samples(duration, front_end.sampling_rate)
            starts = plan.starts(n_samples)
            if len(starts) != n_frames:
                raise ValueError(
                    f"n_frames={n_frames}: a clip of duration={duration:g} s has "
                    f"{len(starts)} windows; pass the length of the clip that they "
                    "are of"
                )
            if plan.tail == "align" and n_frames == 1:
                length = n_samples
        return (starts + length / 2) / self.sampling_rate_

    @available_if(_gives_vectors)
    def get_feature_names_out(self, input_features=None):
        """Name the columns: by the model's classes where they are its scores.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of shape (n_components,) of str
            Class names, if the checkpoint's list of them was found, or else the
            embedder's name and a number.
        """
        check_is_fitted(self)
        labels = self.checkpoint_.labels
        if self.output != "embedding" and len(labels or ()) == self.n_components_:
            return np.asarray(labels, dtype=object)
        return super().get_feature_names_out(input_features)

    @property
    def n_components_(self):
        """Length of a row."""
        check_is_fitted(self)
        if self.output.endswith(("logits", "probabilities")):
            return self._n_classes
        return self._n_values

    @property
    def _n_features_out(self):
        return self.n_components_

    def _check(self, X, front_end, reset):
        self._plan(front_end)  # which raises for parameters that contradict each other
        return check_audio(
            X,
            sampling_rate=self.sampling_rate,
            target_sampling_rate=front_end.sampling_rate,
            channel=self.channel,
            on_error=self.on_error,
            estimator=self,
            reset=reset,
        )

    def _load(self, checkpoint, front_end):
        """Make the encoder ready, and return its module."""
        from ..nn._device import choose_device
        from ..nn._random import fixed_random_weights

        device = choose_device(self.device)
        # One thread, for after a fork torch waits forever for the others.
        with _loading, fixed_random_weights(), one_native_thread_per_worker():
            # torch's default may be doubles, and front ends give single precision.
            module = self._load_module(checkpoint).float()
            self._n_parameters = sum(p.numel() for p in module.parameters())
            engine = Engine(
                module,
                device=device,
                batch_size=self.batch_size,
                amp=self.amp,
                forward_params=self._forward_params(),
            )
        self._steps = {
            output: {
                "stride": getattr(module, stride, None),
                "n_steps": getattr(module, n_steps, None),
                "offset": getattr(module, "step_offset", None),
            }
            for output, (stride, n_steps) in _STEPS.items()
        }
        self._front_end = front_end
        self._engine_settings = self._get_engine_settings()
        self._engine = engine  # last, for other threads look for it
        return module

    def _load_module(self, checkpoint):
        from ..nn._checkpoint import load_state

        if checkpoint.path is None:
            return self._make_module(None)
        state = self._read_state(checkpoint)
        try:
            module = self._make_module(state)
            if hasattr(module, "convert_checkpoint"):
                state = module.convert_checkpoint(state)
        except ValueError as error:  # sizes that no such model has, or a part missing
            raise CheckpointError(checkpoint.path, str(error)) from error
        load_state(module, state, checkpoint.path)
        return module

    def _read_state(self, checkpoint):
        from ..nn._checkpoint import read_checkpoint

        return read_checkpoint(checkpoint.path)

    def _get_engine_settings(self):
        return {name: getattr(self, name) for name in self._engine_params}

    def _get_engine(self):
        """Return the engine, made anew after unpickling or a change of parameters."""
        if (
            not hasattr(self, "_engine")
            or self._engine_settings != self._get_engine_settings()
        ):
            checkpoint = find_again(self.checkpoint_, self._weights)
            self._load(checkpoint, get_front_end(self._front_end_name))
        return self._engine

    def _embed(self, clips, engine, front_end):
        plan = self._plan(front_end)
        output = "embedding" if self.output == "frames" else self.output
        store = RowStore(self._open_cache(), self._fingerprint(), clips, self.n_jobs)
        lengths = {}  # of the clips in work, in samples at the encoder's rate

        def read(index):
            lengths[index] = 0
            for block in clips.blocks(
                index,
                block_seconds=_BLOCK_SECONDS,
                min_rate=find_least_rate(front_end),
            ):
                lengths[index] += len(block)
                yield block

        def cut(index):
            for samples, n_windows in plan.cut(read(index)):
                yield self._to_windows(front_end, plan, samples, n_windows)

        def prepare(index):
            with one_native_thread_per_worker():
                return list(cut(index))

        def embed(index):
            with one_native_thread_per_worker():
                rows = [
                    row for windows in cut(index) for row in engine.run(windows, output)
                ]
            return store.keep(index, self._pool(rows, lengths.pop(index), front_end))

        def finish(results):
            indices = (index for index in range(len(clips)) if index not in store.rows)
            for index, rows in zip(
                indices, engine.run_in_batches(results, output), strict=True
            ):
                n_samples = lengths.pop(index, None)  # None if it could not be read
                if isinstance(rows, list):
                    rows = store.keep(index, self._pool(rows, n_samples, front_end))
                yield rows

        with one_native_thread(), store:
            return clips.map_indices(
                prepare if engine.in_batches else embed,
                known=store.rows,
                finish=finish if engine.in_batches else None,
                n_jobs=self.n_jobs,
                on_error=self.on_error,
                verbose=self.verbose,
            )

    def _to_windows(self, front_end, plan, samples, n_windows):
        """Return the log-mel of windows, ``(n_windows, n_frames, n_mels)``."""
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_mel = front_end(samples)
        if not np.isfinite(log_mel).all():
            raise ValueError(
                f"has samples up to {np.abs(samples).max():.0e}, too great for single "
                "precision: bring them to the range from -1 to 1"
            )
        if plan.n_together == 1:
            return log_mel[np.newaxis]
        step = plan.hop // front_end.hop_length
        n_frames = len(log_mel) - (n_windows - 1) * step
        views = np.lib.stride_tricks.sliding_window_view(log_mel, n_frames, axis=0)
        return views[::step].transpose(0, 2, 1).copy()

    def _pool(self, rows, n_samples, front_end):
        """Make a clip's row of what the encoder gives of its windows."""
        if self.output in _STEPS:
            line = self._time_line(self._plan(front_end), front_end)
            return line.join(rows, n_samples)
        rows = np.stack(rows)
        if self.output == "frames":
            return rows
        if self.pooling == "max":
            return rows.max(axis=0)
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32)

    def _time_line(self, plan, front_end):
        return TimeLine(plan, front_end, **self._steps[self.output])

    def _open_cache(self):
        if self.cache is None or isinstance(self.cache, EmbeddingCache):
            return self.cache
        return EmbeddingCache(self.cache)

    def _fingerprint(self):
        """Say all that decides what a clip's row is, but for the clip."""
        facts = {
            "embedder": type(self).__name__,
            "revision": self._revision,
            "weights": self.checkpoint_.sha256,
            **{name: getattr(self, name) for name in self._fingerprint_params},
        }
        return json.dumps(facts, sort_keys=True, default=str).encode()

    def __getstate__(self):
        state = dict(super().__getstate__())
        # Weights stay in their file.
        for name in ("_engine", "_engine_settings", "_front_end"):
            state.pop(name, None)
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = self.on_error == "skip"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
