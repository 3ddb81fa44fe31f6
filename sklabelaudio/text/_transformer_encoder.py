"""Texts to vectors, by a text encoder of transformers."""

import json
import logging
import os
import warnings
from contextlib import contextmanager

import numpy as np

from .._optional import import_optional_dependency
from ..exceptions import UnknownLabelError
from ._normalize import normalize_label

# Text sides of models of a joint space, without their projection.
_JOINT_SPACE = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "clap": "ClapTextModel",
    "clap_text_model": "ClapTextModel",
}

# Poolings of sentence-transformers, as they were and are written down there.
_SENTENCE_POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "eos",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "eos",
}

# Parts of an encoder that only these poolings need.
_PARTS = {"text_projection.": {"projection"}, "pooler.": {"projection", "pooler"}}

# Tokenizers without a limit say that it is 10**30.
_NO_LIMIT = 10**9


class TransformerEncoder:
    """A text encoder with its tokenizer and pooling.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.
    module : transformers.PreTrainedModel
        The encoder.
    pooling : {"mean", "cls", "eos", "pooler", "projection"}
        How the vectors of the tokens become one.
    normalize : bool
        Whether that is divided by its length.
    max_length : int or None
        Number of tokens that a text is cut to.
    batch_size : int
        Number of texts encoded together.
    """

    def __init__(
        self, tokenizer, module, *, pooling, normalize, max_length, batch_size
    ):
        self.tokenizer = tokenizer
        self.module = module
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = max_length
        self.batch_size = batch_size
        self.n_components = self._encode_batch(["sound"]).shape[1]

    def encode(self, label_texts):
        """Return an array (n_texts, n_components), float32, for each label."""
        self._check_known(label_texts)
        labels = {}
        for item in label_texts:
            for text in item.texts:
                labels.setdefault(text, item.label)
        n_tokens = self._count_tokens(labels)
        # Texts of like length together need little padding.
        texts = sorted(labels, key=n_tokens.get)
        rows = {}
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            rows.update(zip(batch, self._encode_batch(batch), strict=True))
        return [np.stack([rows[text] for text in item.texts]) for item in label_texts]

    def tokenize(self, label_texts):
        """Return the tokens of each label's texts, all filled up to one length.

        Parameters
        ----------
        label_texts : list of LabelText
            The labels, with as many texts each.

        Returns
        -------
        ndarray of shape (n_labels, n_texts, n_inputs, length), int64
            The tokens, by `inputs`.
        """
        self._check_known(label_texts)
        labels = {text: item.label for item in label_texts for text in item.texts}
        self._count_tokens(labels)
        texts = [text for item in label_texts for text in item.texts]
        tokens = self._tokenize(texts, padding=True, return_tensors="np")
        stacked = np.stack([tokens[name] for name in self.inputs], axis=1)
        shape = (len(label_texts), -1, *stacked.shape[1:])
        return stacked.astype(np.int64).reshape(shape)

    @property
    def inputs(self):
        """Names of what the tokenizer gives, and the model takes."""
        return tuple(self._tokenize(["sound"]))

    def _check_known(self, label_texts):
        """Refuse labels of which the tokenizer makes nothing but unknown tokens."""
        # The subject, for the words of a template say nothing about the label.
        subjects = [normalize_label(item.subject) for item in label_texts]
        tokens = self._tokenize(subjects, add_special_tokens=False)["input_ids"]
        blind = [
            item.label
            for item, ids in zip(label_texts, tokens, strict=True)
            if set(ids) <= {self.tokenizer.unk_token_id}
        ]
        if blind:
            raise UnknownLabelError(
                blind,
                "the model's tokenizer knows no word of "
                f"{', '.join(map(repr, blind))}: rename the label, or give its text in "
                "other words, description={label: text}",
            )

    def _count_tokens(self, labels):
        """Count the tokens of each text, and warn of those that will be cut."""
        limit = self.max_length
        # One token more than fits tells the texts that are too long.
        tokens = self._tokenize(list(labels), max_length=limit and limit + 1)
        n_tokens = dict(zip(labels, map(len, tokens["input_ids"]), strict=True))
        if limit is not None:
            cut = dict.fromkeys(
                labels[text] for text in labels if n_tokens[text] > limit
            )
            if cut:
                warnings.warn(
                    f"the text of {', '.join(map(repr, cut))} is longer than the "
                    f"model's {limit} tokens and is cut there: shorten it",
                    UserWarning,
                    stacklevel=5,
                )
        return n_tokens

    def _tokenize(self, texts, *, max_length=None, **options):
        max_length = max_length or self.max_length
        return self.tokenizer(
            texts, truncation=max_length is not None, max_length=max_length, **options
        )

    def _encode_batch(self, texts):
        import torch

        from ..nn._text_model import encode_tokens

        tokens = self._tokenize(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            vectors = encode_tokens(
                self.module,
                tokens.to(self.module.device),
                pooling=self.pooling,
                normalize=self.normalize,
            )
        return vectors.cpu().numpy()


def load_transformer_encoder(model, *, pooling, batch_size, device):
    """Load a text encoder, whole and in single precision.

    Parameters
    ----------
    model : str
        Hugging Face id, or a folder.
    pooling : {"auto", "mean", "cls", "eos", "pooler"}
        As in `LabelTextEmbedder`.
    batch_size : int
        Number of texts encoded together.
    device : str or torch.device
        Where it runs.

    Returns
    -------
    TransformerEncoder
        The encoder.

    Raises
    ------
    OSError
        If it can't be found or read.
    ValueError
        If it is no text encoder, lacks weights or a vocabulary, its own pooling is
        not one of those here, or the device can't be used.
    """
    with _quiet():
        config = _from_pretrained("AutoConfig", model)
        if config.is_encoder_decoder or (
            config.get_text_config() is not config
            and config.model_type not in _JOINT_SPACE
        ):
            raise ValueError(
                f"model={model!r} is a {config.model_type!r} model: pass a plain text "
                "encoder such as BERT, a sentence encoder, CLIP or CLAP"
            )
        pooling, normalize, sentence_limit = _read_recipe(model, config, pooling)
        tokenizer = _load_tokenizer(model)
        module = _load_module(model, config, pooling)
    try:
        module.to(device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device={device!r} can't be used here ({error}): pass device='cpu'"
        ) from error
    limits = (sentence_limit, tokenizer.model_max_length, _count_positions(module))
    limits = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    return TransformerEncoder(
        tokenizer,
        module,
        pooling=pooling,
        normalize=normalize,
        max_length=min(limits, default=None),
        batch_size=batch_size,
    )


def _from_pretrained(name, model, **options):
    """Call ``from_pretrained`` of a class of transformers."""
    transformers = import_optional_dependency("transformers", "text")
    try:
        # Without an answer, transformers asks on the terminal.
        return getattr(transformers, name).from_pretrained(
            model, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if os.path.isdir(model):
            message = (
                f"model={model!r} is a folder that transformers can't load ({reason}): "
                "it needs what save_pretrained writes for a model and its tokenizer"
            )
        else:
            message = (
                f"model={model!r} is no file, no folder, and no model that could be "
                f"loaded from the Hugging Face hub ({reason}): check the spelling; "
                "without a network, or with HF_HUB_OFFLINE=1, only what was loaded "
                "before is found, so pass the path of a local copy"
            )
        raise OSError(message) from error


def _read_recipe(model, config, pooling):
    """Return the pooling, whether to normalise, and the limit of tokens or None."""
    if pooling != "auto":
        return pooling, False, None
    if config.model_type in _JOINT_SPACE:
        return "projection", False, None
    modules = _read_json(model, "modules.json")
    if modules is None:
        return "mean", False, None
    paths = {entry["type"].rpartition(".")[2]: entry["path"] for entry in modules}
    modes = (
        _read_sentence_pooling(model, paths["Pooling"]) if "Pooling" in paths else []
    )
    if (
        paths.keys() - {"Transformer", "Pooling", "Normalize"}
        or len(modes) != 1
        or modes[0] not in _SENTENCE_POOLINGS
    ):
        raise ValueError(
            f"model={model!r} is a sentence-transformers model of {', '.join(paths)} "
            f"with the pooling {modes}, which pooling='auto' can't follow: pass "
            "pooling='mean', 'cls' or 'eos' to use its encoder alone"
        )
    settings = _read_json(model, "sentence_bert_config.json") or {}
    limit = settings.get("max_seq_length")
    return _SENTENCE_POOLINGS[modes[0]], "Normalize" in paths, limit


def _read_sentence_pooling(model, path):
    settings = _read_json(model, f"{path}/config.json") or {}
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [key for key in settings if key.startswith("pooling_mode_")]
        return [key for key in modes if settings[key]]
    return [modes] if isinstance(modes, str) else list(modes)


def _read_json(model, name):
    """Read a file of the model; None where the model has none of this name."""
    path = os.path.join(model, name)
    if not os.path.isdir(model):
        path = _find_on_hub(model, name)
    if path is None or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def _find_on_hub(model, name):
    hub = import_optional_dependency("huggingface_hub", "text")
    try:
        return hub.hf_hub_download(model, name)
    except hub.errors.LocalEntryNotFoundError as error:
        if hub.try_to_load_from_cache(model, name) is hub._CACHED_NO_EXIST:
            return None
        raise OSError(
            f"model={model!r} can't be reached, and whether it has a {name}, which "
            "pooling='auto' follows, was not stored: load it once with a network, or "
            "pass pooling='mean', 'cls', 'eos' or 'pooler'"
        ) from error
    except hub.errors.EntryNotFoundError:
        return None


def _load_tokenizer(model):
    tokenizer = _from_pretrained("AutoTokenizer", model)
    # Without its files, a tokenizer is made that knows no word.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise OSError(
            f"model={model!r} has no vocabulary for its tokenizer: add tokenizer.json, "
            "or what the tokenizer's save_pretrained writes"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked, so that any token does
    # On the left it would move a text's positions, by how long the others are.
    tokenizer.padding_side = "right"
    return tokenizer


def _load_module(model, config, pooling):
    import torch

    name = _JOINT_SPACE.get(config.model_type)
    # Only a checkpoint of the bare text side has its weights under the bare names.
    with_projection = name is not None and (
        pooling == "projection" or name not in (config.architectures or ())
    )
    # Weights that are missing are drawn at random.
    with torch.random.fork_rng(devices=[]):
        module, report = _from_pretrained(
            f"{name}WithProjection" if with_projection else name or "AutoModel",
            model,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    _check_complete(model, module, report, pooling)
    if with_projection and pooling != "projection":
        return module.text_model
    return module


def _check_complete(model, module, report, pooling):
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    unused = [part for part, poolings in _PARTS.items() if pooling not in poolings]
    absent = [
        name
        for name, _ in module.named_parameters()
        if name in absent and not any(part in name for part in unused)
    ]
    if absent:
        asked = "auto" if pooling == "projection" else pooling
        raise ValueError(
            f"model={model!r} lacks weights for pooling={asked!r}, or has them in "
            f"another shape: {', '.join(absent)}; pass a whole checkpoint, or another "
            "pooling if it is only a projection or pooler that is missing"
        )


def _count_positions(module):
    """Return how many tokens the encoder has positions for, None for any number."""
    for name, part in module.named_modules():
        if name.rpartition(".")[2] in ("position_embedding", "position_embeddings"):
            # Encoders of RoBERTa's kin count from behind the padding's index.
            padding = getattr(part, "padding_idx", None)
            return part.num_embeddings - (0 if padding is None else padding + 1)
    return getattr(module.config, "max_position_embeddings", None)


@contextmanager
def _quiet():
    """Keep the libraries from logging and drawing bars, and then let them again."""
    hub = import_optional_dependency("huggingface_hub", "text")
    transformers = import_optional_dependency("transformers", "text")
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    # An environment variable has the last word on bars.
    bars = hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None
    model_bars = transformers.utils.logging.is_progress_bar_enabled()
    hub_bars = not hub.utils.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        if bars:
            transformers.utils.logging.disable_progress_bar()
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            if model_bars:
                transformers.utils.logging.enable_progress_bar()
            if hub_bars:
                hub.utils.enable_progress_bars()
            else:
                hub.utils.disable_progress_bars()
