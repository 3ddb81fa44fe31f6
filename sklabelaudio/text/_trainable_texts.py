"""Label texts whose text encoder is trained further: its tokens and its beginning."""

import json
import os

from ._audioclip_text import is_torch_file
from ._label_text_embedder import LabelTextEmbedder
from ._label_texts import build_label_texts, check_labels, check_prompt
from ._transformer_encoder import TransformerEncoder


class TrainableTexts:
    """The tokenizer of a text encoder, and what makes the encoder.

    Parameters
    ----------
    model : str or path-like
        Its id on the Hugging Face hub, its folder, or AudioCLIP's file, as in
        `LabelTextEmbedder`.

    Attributes
    ----------
    is_clip : bool
        Whether it is the text side of a CLIP, projected.

    Raises
    ------
    OSError
        If it can't be found.
    ValueError
        If it is no text encoder, or one that can't be used.

    Notes
    -----
    Pickles hold the name and what makes an encoder of the same layers; the weights are
    for others to keep.
    """

    def __init__(self, model):
        self.model = os.fspath(model)
        encoder = self._read()
        self.is_clip = is_clip(encoder)
        take = _take_clip if self.is_clip else _take_model
        self._recipe, self._state = take(encoder)
        self._tokenizer = _without_model(encoder)

    def tokenize(self, labels, prompt):
        """Turn labels to what the encoder takes.

        Parameters
        ----------
        labels : list of str
            The labels.
        prompt : str, list of str or None
            Templates of their texts, as in `LabelTextEmbedder`.

        Returns
        -------
        ndarray of shape (n_labels, n_templates, ...), int64
            A CLIP's tokens ``(..., length)``, others' ``(..., n_inputs, length)``.
            Texts that are too long are cut, with one warning that names their labels.
        """
        templates = check_prompt(prompt)
        if self._tokenizer is None:
            self._tokenizer = _without_model(self._read())
        texts = build_label_texts(
            check_labels(labels), description=None, templates=templates
        )
        tokens = self._tokenizer.tokenize(texts)
        if self.is_clip:
            return tokens[:, :, self._tokenizer.inputs.index("input_ids")]
        return tokens

    def build(self):
        """Make the encoder.

        Returns
        -------
        ClipTextTransformer or TextModel
            It, the first time with the weights it was trained with before.
        """
        from ..nn._clip_text import ClipTextTransformer
        from ..nn._text_model import TextModel

        make = ClipTextTransformer if self.is_clip else TextModel.from_recipe
        encoder = make(**self._recipe)
        if self._state is not None:
            encoder.load_state_dict(self._state)
            self._state = None
        return encoder

    def list_beginning(self):
        """Return what the encoder begins with, to tell it from others.

        Returns
        -------
        list of ndarray and str
            The weights by their names, before `build`, and what it is made by.
        """
        parts = [json.dumps(self._recipe)]
        for name, weights in (self._state or {}).items():
            parts += [name, weights.numpy()]
        return parts

    def _read(self):
        if os.path.isfile(self.model) and not is_torch_file(self.model):
            raise ValueError(
                f"text_encoder={self.model!r} is a file of word vectors, which can't "
                "be trained with the audio: set freeze_text_encoder=True, or name a "
                "text encoder such as 'openai/clip-vit-base-patch32'"
            )
        return LabelTextEmbedder(self.model).fit()._encoder

    def __getstate__(self):
        return {**vars(self), "_state": None, "_tokenizer": None}


def is_clip(encoder):
    """Tell whether an embedder's encoder is the text side of a CLIP, projected.

    Parameters
    ----------
    encoder : object
        The encoder.

    Returns
    -------
    bool
        Whether it is.
    """
    if not isinstance(encoder, TransformerEncoder) or encoder.pooling != "projection":
        return False
    return getattr(encoder.module.config, "model_type", None) == "clip_text_model"


def _take_clip(encoder):
    """Return parameters of `ClipTextTransformer`, and weights."""
    config = encoder.module.config
    sizes = {
        "n_components": config.projection_dim,
        "n_tokens": config.vocab_size,
        "max_length": config.max_position_embeddings,
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "n_hidden": config.intermediate_size,
        "activation": config.hidden_act,
    }
    state = encoder.module.state_dict()
    return sizes, {f"encoder.{name}": values for name, values in state.items()}


def _take_model(encoder):
    """Return parameters of `TextModel.from_recipe`, and weights."""
    from ..nn._text_model import TextModel

    model = TextModel(
        encoder.module,
        n_components=encoder.n_components,
        pooling=encoder.pooling,
        normalize=encoder.normalize,
        inputs=encoder.inputs,
    )
    return model.recipe, model.state_dict()


def _without_model(encoder):
    encoder.module = None  # of which a trained one takes the place
    return encoder
