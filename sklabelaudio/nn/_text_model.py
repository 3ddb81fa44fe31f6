"""Text models of transformers, trained further: tokens to one vector a text."""

import json

import torch
from torch import nn

from .._optional import import_optional_dependency

# Of what a configuration holds: where it was read, and by what.
_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version")
# Poolings that read what a model pools itself.
_POOLED = ("pooler", "projection")
_MASK = "attention_mask"


class TextModel(nn.Module):
    """A text model of transformers and how the vectors of its tokens become one.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model. What the pooling does not need of it is dropped.
    n_components : int
        Length of the vectors.
    pooling : {"mean", "cls", "eos", "pooler", "projection"}
        As of `encode_tokens`.
    normalize : bool
        As of `encode_tokens`.
    inputs : sequence of str
        Names of what the tokens hold, as the tokenizer has them.
    """

    def __init__(self, model, *, n_components, pooling, normalize, inputs):
        super().__init__()
        if pooling not in _POOLED:
            _drop_poolers(model)
        self.encoder = model
        self.n_components = n_components
        self.pooling = pooling
        self.normalize = normalize
        self.inputs = tuple(inputs)

    @classmethod
    def from_recipe(cls, name, config, **params):
        """Make one of what `recipe` holds, with new weights.

        torch's global generator stays as it was.

        Parameters
        ----------
        name : str
            Name of the model's class in transformers.
        config : str
            Its configuration, in JSON.
        **params : object
            The other parameters of this class.

        Returns
        -------
        TextModel
            The model.
        """
        transformers = import_optional_dependency("transformers", "text")
        model_class = getattr(transformers, name)
        config = model_class.config_class.from_dict(json.loads(config))
        with torch.random.fork_rng(devices=[]):
            return cls(model_class(config).float(), **params)

    @property
    def recipe(self):
        """What makes one of the same layers, for `from_recipe`: of texts and numbers.

        It depends on neither the file of the model nor the version of transformers.
        """
        # Whole: what is left to defaults may be otherwise in another version.
        config = json.loads(self.encoder.config.to_json_string(use_diff=False))
        for name in _NOT_OF_THE_MODEL:
            config.pop(name, None)
        return {
            "name": type(self.encoder).__name__,
            "config": json.dumps(config, sort_keys=True),
            "n_components": self.n_components,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "inputs": self.inputs,
        }

    def forward(self, tokens):
        """Encode texts.

        Parameters
        ----------
        tokens : Tensor of shape (n_texts, n_inputs, length), int64
            What the tokenizer gives, by `inputs`, padded on the right.

        Returns
        -------
        Tensor of shape (n_texts, n_components)
            The vectors.
        """
        inputs = dict(zip(self.inputs, tokens.unbind(dim=1), strict=True))
        # These may be the shorter ones of many texts.
        length = int(inputs[_MASK].any(dim=0).nonzero().max()) + 1
        return encode_tokens(
            self.encoder,
            {name: values[:, :length] for name, values in inputs.items()},
            pooling=self.pooling,
            normalize=self.normalize,
        )


def encode_tokens(model, inputs, *, pooling, normalize):
    """Encode texts by a model of transformers.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    inputs : mapping of str to Tensor of shape (n_texts, length)
        What a tokenizer gives, ``"attention_mask"`` among it.
    pooling : {"mean", "cls", "eos", "pooler", "projection"}
        How the vectors of the tokens become one: their mean, the first, the last, or
        the model's own pooled or projected output.
    normalize : bool
        Whether that is divided by its length.

    Returns
    -------
    Tensor of shape (n_texts, n_components)
        The vectors, in single precision at least.

    Raises
    ------
    ValueError
        If the model has no pooled output.
    """
    vectors = _pool(model, model(**inputs), inputs[_MASK], pooling)
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return nn.functional.normalize(vectors) if normalize else vectors


def _pool(model, output, mask, pooling):
    if pooling == "projection":
        return output.text_embeds
    if pooling == "pooler":
        vectors = output.get("pooler_output")
        if vectors is None:
            raise ValueError(
                f"pooling='pooler', and {type(model).__name__} has no pooled "
                "output: pass pooling='mean', 'cls' or 'eos'"
            )
        return vectors
    hidden = output.last_hidden_state
    if pooling == "mean":
        # In half precision sums of many tokens would lose the last ones.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        weight = mask.unsqueeze(-1).to(dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)
    # By the mask, for padding may be on either side.
    if pooling == "cls":
        place = mask.argmax(dim=1)
    else:
        place = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def _drop_poolers(model):
    """Take out layers of which nothing is read, and which files often lack."""
    names = [name for name, _ in model.named_modules()]
    for name in names:
        parent, _, last = name.rpartition(".")
        if last == "pooler":
            setattr(model.get_submodule(parent), last, nn.Identity())
