"""The audio side of CLAP, whose vectors lie in one space with those of texts."""

import os

import torch
from torch import nn

from .._optional import import_optional_dependency
from ._checkpoint import load_checkpoint
from ._checks import check_log_mel
from ._htsat import (
    N_FRAMES,
    N_MELS,
    convert_trunk,
    make_config,
    measure_trunk,
    take_audio_branch,
)
from ._output import EncoderOutput

# The settings of transformers' ClapFeatureExtractor that give the front end "clap".
_FRONT_END = {
    "sampling_rate": 48000,
    "feature_size": 64,
    "fft_window_size": 1024,
    "hop_length": 480,
    "frequency_min": 50,
    "frequency_max": 14000,
    "top_db": None,
    "truncation": "rand_trunc",  # with "fusion" it has other mel bands
}
# Layouts of what a file holds of the audio side, and the names here.
_PARTS = {
    "audio_projection.0.": "projection.linear1.",
    "audio_projection.2.": "projection.linear2.",
    "audio_projection.linear": "projection.linear",
    "audio_model.audio_encoder.": "encoder.",
}
# The text side, AudioSet's classes, and the scale of similarities.
_UNUSED = ("text_", "tscam_conv.", "logit_scale_")
_FUSION = ("encoder.patch_embed.fusion_model.", "encoder.patch_embed.mel_conv2d.")
_FUSION_REFUSAL = (
    "is a fusion model of CLAP (such as laion/clap-htsat-fused), which reads four "
    "log-mels of other mel bands at a time: pass a model without fusion, such as "
    "laion/clap-htsat-unfused"
)


class ClapAudioTower(nn.Module):
    """CLAP's audio tower: HTS-AT and a projection into the space of its texts.

    The defaults are ``laion/clap-htsat-unfused``; ``ClapAudioTower(128, depths=(2, 2,
    12, 2))`` is ``laion/larger_clap_general``. Both parts are those of the
    transformers library.

    Parameters
    ----------
    embed_dim : int, default=96
        Width of the transformer's first stage; each of the next is twice as wide.
    projection_dim : int, default=512
        Length of the vectors.
    depths : sequence of 4 int, default=(2, 2, 6, 2)
        Number of blocks of each stage.
    num_heads : sequence of 4 int, default=(4, 8, 16, 32)
        Number of attention heads in the blocks of each stage.
    config : transformers.ClapAudioConfig or None, default=None
        All settings of the tower; they take the place of the other parameters.

    Attributes
    ----------
    n_components : int
        Length of the vectors.
    n_classes : None
        It has no classes.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If `config` is that of a fusion model, there are not four stages, or heads that
        do not divide a stage's width.

    Notes
    -----
    Building a model leaves torch's global generator as it was.

    References
    ----------
    Y. Wu, K. Chen, T. Zhang, Y. Hui, T. Berg-Kirkpatrick and S. Dubnov, "Large-scale
    contrastive language-audio pretraining with feature fusion and keyword-to-caption
    augmentation", ICASSP 2023.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn._clap import ClapAudioTower
    >>> model = ClapAudioTower(8, 16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    >>> with torch.inference_mode():
    ...     output = model.eval()(torch.zeros(2, 1001, 64))
    >>> output.embedding.shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        embed_dim=96,
        projection_dim=512,
        *,
        depths=(2, 2, 6, 2),
        num_heads=(4, 8, 16, 32),
        config=None,
    ):
        super().__init__()
        transformers = import_optional_dependency("transformers", "text")
        if config is None:
            config = make_config(
                embed_dim, depths, num_heads, projection_dim=projection_dim
            )
        elif config.enable_fusion:
            raise ValueError(f"config with enable_fusion=True {_FUSION_REFUSAL}")
        with torch.random.fork_rng(devices=[]):
            model = transformers.ClapAudioModelWithProjection(config)
        self.encoder = model.audio_model.audio_encoder
        self.projection = model.audio_projection
        self.n_components = config.projection_dim
        self.n_classes = None

    def forward(self, log_mel):
        """Encode clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 64)
            In dB, as the front end ``"clap"`` gives it: 100 frames a second, at most
            1024. The model was trained on 1001, that is 10 s.

        Returns
        -------
        EncoderOutput
            The embedding ``(n_clips, n_components)``, of length one, as
            ``ClapModel.get_audio_features`` of transformers gives it.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, no frames or too many.
        """
        check_log_mel(self, log_mel, N_MELS, longest=N_FRAMES)
        pooled = self.encoder(log_mel.unsqueeze(1)).pooler_output
        return EncoderOutput(nn.functional.normalize(self.projection(pooled), dim=-1))

    @classmethod
    def from_pretrained(cls, model):
        """Load the audio side of a CLAP model of transformers, in single precision.

        Parameters
        ----------
        model : str or path-like
            Hugging Face id, such as ``"laion/clap-htsat-unfused"``, or a folder that
            ``ClapModel.save_pretrained`` wrote.

        Returns
        -------
        ClapAudioTower
            The tower.

        Raises
        ------
        CheckpointError
            If a weight is missing, unknown or of another shape.
        OSError
            If the model can't be found.
        ValueError
            If it is no CLAP model, a fusion model, or its record says that it has
            another front end.
        """
        model = os.fspath(model)
        config = _read_config(model)
        if config.enable_fusion:
            raise ValueError(f"model={model!r} {_FUSION_REFUSAL}")
        check_clap_front_end(model)
        path = find_clap_weights(model)
        return load_checkpoint(cls(config=config), path)

    @staticmethod
    def convert_checkpoint(state):
        """Rename weights of CLAP, and leave out those of its text side.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names in LAION's own files, such as
            ``630k-audioset-best.pt``, or by those of ``ClapModel`` of transformers.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names.
        """
        # Before the audio branch is taken, which LAION's projection is not part of.
        renamed = {_rename(name): tensor for name, tensor in state.items()}
        converted = convert_trunk(take_audio_branch(renamed))
        return {
            name: tensor
            for name, tensor in converted.items()
            if not name.startswith(_UNUSED)
        }

    @classmethod
    def config_of(cls, state):
        """Read a tower's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights as for :meth:`convert_checkpoint`.

        Returns
        -------
        dict
            Parameters of the tower that they fit; those that the weights don't tell,
            for they are of some other model, are left out.

        Raises
        ------
        ValueError
            If they are those of a fusion model.
        """
        state = cls.convert_checkpoint(state)
        if any(name.startswith(_FUSION) for name in state):
            raise ValueError(f"the file of weights {_FUSION_REFUSAL}")
        sizes = measure_trunk(state)
        if "projection.linear2.bias" in state:
            sizes["projection_dim"] = state["projection.linear2.bias"].numel()
        return sizes


def _rename(name):
    for theirs, ours in _PARTS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _read_config(model):
    transformers = import_optional_dependency("transformers", "text")
    try:
        # Without an answer, transformers asks on the terminal.
        config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"model={model!r} is no folder with a model of transformers, and none that "
            f"could be loaded from the Hugging Face hub ({reason}): check the "
            "spelling; without a network, pass the folder of a local copy"
        ) from error
    if config.model_type == "clap":
        return config.audio_config
    if config.model_type != "clap_audio_model":
        raise ValueError(
            f"model={model!r} is a {config.model_type!r} model: pass one of CLAP, such "
            "as laion/clap-htsat-unfused"
        )
    return config


def find_clap_weights(model):
    """Find the file of weights of a model of transformers.

    Parameters
    ----------
    model : str
        Hugging Face id or folder.

    Returns
    -------
    str
        Path of the file, after fetching it if need be.

    Raises
    ------
    OSError
        If there is none.
    """
    utils = import_optional_dependency("transformers.utils", "text")
    try:
        return utils.cached_file(model, "model.safetensors")
    except OSError:
        pass  # older models have the other kind alone
    try:
        return utils.cached_file(model, "pytorch_model.bin")
    except OSError as error:
        raise OSError(
            f"model={model!r} has neither a model.safetensors nor a pytorch_model.bin "
            "that could be had: pass a whole model, its weights in one file"
        ) from error


def check_clap_front_end(model):
    """Check that a model's record of its front end is that of LAION's CLAP.

    Parameters
    ----------
    model : str
        Hugging Face id or folder. One without a record is taken to have that front
        end, as LAION's own files are.

    Raises
    ------
    ValueError
        If it says otherwise.
    """
    kind = import_optional_dependency("transformers", "text").ClapFeatureExtractor
    try:
        record, _ = kind.get_feature_extractor_dict(model)
    except OSError:
        return
    record = {**kind().to_dict(), **record}  # for what it leaves to the defaults
    other = [
        f"{name}={record[name]!r} in place of {value!r}"
        for name, value in _FRONT_END.items()
        if record[name] != value
    ]
    if other:
        raise ValueError(
            f"model={model!r} says in its preprocessor_config.json that it takes "
            f"another log-mel than CLAP's, with {', '.join(other)}: pass a model "
            "with CLAP's, or mend the file if it is wrong"
        )
