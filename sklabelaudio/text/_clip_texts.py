"""CLIP's text side as it is trained further: its tokens, sizes and weights."""

import os

from ._label_text_embedder import LabelTextEmbedder
from ._label_texts import build_label_texts, check_labels, check_prompt
from ._transformer_encoder import TransformerEncoder


class ClipTexts:
    """The tokenizer of a CLIP's text side, and what its text encoder begins with.

    Parameters
    ----------
    model : str or path-like
        Its id on the Hugging Face hub, its folder, or AudioCLIP's file, as in
        `LabelTextEmbedder`.

    Notes
    -----
    Pickles hold the name alone.
    """

    def __init__(self, model):
        self.model = os.fspath(model)
        self._encoder = None

    def load(self):
        """Load the text encoder.

        Returns
        -------
        sizes : dict
            Parameters of `ClipTextTransformer`.
        state : dict of str to Tensor
            Its weights.

        Raises
        ------
        OSError
            If it can't be found.
        ValueError
            If it is another text encoder than CLIP's.
        """
        self._encoder = encoder = self._read()
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
        encoder.module = None  # of which a trained one takes the place
        return sizes, {f"encoder.{name}": values for name, values in state.items()}

    def tokenize(self, labels, prompt):
        """Turn labels to tokens.

        Parameters
        ----------
        labels : list of str
            The labels.
        prompt : str, list of str or None
            Templates of their texts, as in `LabelTextEmbedder`.

        Returns
        -------
        ndarray of shape (n_labels, n_templates, length), int64
            The tokens. Texts that are too long are cut, with one warning that names
            their labels.
        """
        templates = check_prompt(prompt)
        if self._encoder is None:
            self._encoder = self._read()
            self._encoder.module = None
        texts = build_label_texts(
            check_labels(labels), description=None, templates=templates
        )
        return self._encoder.tokenize(texts)

    def _read(self):
        encoder = LabelTextEmbedder(self.model).fit()._encoder
        if is_clip(encoder):
            return encoder
        raise ValueError(
            f"text_encoder={self.model!r} is no text side of a CLIP, which is what can "
            "be trained with the audio: set freeze_text_encoder=True, or pass a CLIP "
            "such as 'openai/clip-vit-base-patch32'"
        )

    def __getstate__(self):
        return {"model": self.model, "_encoder": None}


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
