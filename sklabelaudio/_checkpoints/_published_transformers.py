"""The published checkpoints of transformers."""

from ._records import (
    AUDIOSET_EVALUATION,
    AUDIOSET_LABELS,
    Checkpoint,
    PublishedScore,
    RemoteFile,
)

_LAION = "LAION-Audio-630K, AudioSet, AudioCaps and Clotho"

# Parameters and multiply-adds of AST and PaSST by the patches' step.
_AST_SIZES = {
    10: (86_594_063, 121_105_685_760),
    12: (86_316_047, 79_785_835_776),
    14: (86_167_823, 59_566_007_040),
    16: (86_056_463, 45_203_016_960),
}
_PASST_SIZES = {
    10: (85_748_495, 118_229_187_840),
    12: (85_734_671, 77_632_056_576),
    14: (85_724_687, 57_744_390_912),
    16: (85_717_007, 43_661_659_392),
}


def _htsat():
    folder = "https://drive.google.com/drive/folders/1f5VYMk0uos_YnuBshgmaTVioXbs7Kmz6"
    return Checkpoint(
        name="htsat_audioset",
        encoder="htsat",
        sources=(RemoteFile("HTSAT_AudioSet_Saved_1.ckpt", folder, fetchable=False),),
        licence="MIT",
        n_components=768,
        n_classes=527,
        labels=AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet",
        n_parameters=29_963_431,
        multiply_adds=5_985_386_496,
        scores=(
            PublishedScore(AUDIOSET_EVALUATION, "mAP", 0.471, "the paper's table 1"),
        ),
        reference=(
            "K. Chen et al., HTS-AT: A Hierarchical Token-Semantic Audio Transformer "
            "for Sound Classification and Detection, ICASSP 2022"
        ),
        front_end="htsat",
    )


def _clap(name, file, licence, training_data, *, large=False, score=None, **hub):
    return Checkpoint(
        name=name,
        encoder="clap",
        sources=(file,),
        licence=licence,
        n_components=512,
        training_data=training_data,
        n_parameters=68_611_864 if large else 28_190_872,
        multiply_adds=15_326_773_248 if large else 5_908_332_544,
        scores=()
        if score is None
        else (
            PublishedScore(
                "ESC-50 zero-shot",
                "accuracy",
                score,
                "https://github.com/LAION-AI/CLAP",
            ),
        ),
        reference=(
            "Y. Wu et al., Large-Scale Contrastive Language-Audio Pretraining with "
            "Feature Fusion and Keyword-to-Caption Augmentation, ICASSP 2023"
        ),
        front_end="clap",
        **hub,
    )


def _clap_of_hub(hub_id, revision, training_data, *, large=False, sha256=None):
    name = "pytorch_model.bin"
    url = f"https://huggingface.co/{hub_id}/resolve/{revision}/{name}"
    file = RemoteFile(name, url, sha256)
    return _clap(
        hub_id,
        file,
        "Apache-2.0",
        training_data,
        large=large,
        hub_id=hub_id,
        revision=revision,
    )


def _clap_of_authors(name, file, sha256, training_data, *, large=False, score=None):
    url = "https://huggingface.co/lukewys/laion_clap/resolve/main/" + file
    return _clap(
        name,
        RemoteFile(file, url, sha256),
        "CC0-1.0",
        training_data,
        large=large,
        score=score,
    )


def _transformer(encoder, name, file, score, size, repository, **others):
    n_parameters, multiply_adds = size
    return Checkpoint(
        name=name,
        encoder=encoder,
        sources=(file,),
        n_components=768,
        n_classes=527,
        labels=AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet",
        n_parameters=n_parameters,
        multiply_adds=multiply_adds,
        scores=(PublishedScore(AUDIOSET_EVALUATION, "mAP", score, repository),),
        front_end=encoder,
        **others,
    )


def _ast(name, file, score, stride=10, **others):
    return _transformer(
        "ast",
        name,
        file,
        score,
        _AST_SIZES[stride],
        "https://github.com/YuanGongND/ast",
        licence="BSD-3-Clause",
        reference=(
            "Y. Gong, Y.-A. Chung and J. Glass, AST: Audio Spectrogram Transformer, "
            "Interspeech 2021"
        ),
        **others,
    )


def _ast_of_authors(key, stride, score):
    name = f"audioset_{stride}_{stride}_{score:.4f}"
    url = f"https://www.dropbox.com/s/{key}/{name}.pth?dl=1"
    return _ast(f"ast_{name}", RemoteFile(f"{name}.pth", url), score, stride)


def _ast_of_hub():
    hub_id = "MIT/ast-finetuned-audioset-10-10-0.4593"
    revision = "f826b80d28226b62986cc218e5cec390b1096902"
    file = RemoteFile(
        "model.safetensors",
        f"https://huggingface.co/{hub_id}/resolve/{revision}/model.safetensors",
        "ae0c1e2ad4e1381d851fa9bf298ba13ebc9c5a914cdee2dbe427a6583869924d",
    )
    return _ast(hub_id, file, 0.4593, hub_id=hub_id, revision=revision)


def _passt(name, file, score, size=10, sha256=None):
    release, _, file = file.partition("/")
    repository = "https://github.com/kkoutini/PaSST"
    url = f"{repository}/releases/download/{release}/{file}"
    return _transformer(
        "passt",
        name,
        RemoteFile(file, url, sha256),
        score,
        _PASST_SIZES.get(size, size),
        repository,
        licence="Apache-2.0",
        reference=(
            "K. Koutini, J. Schlüter, H. Eghbal-zadeh and G. Widmer, Efficient "
            "Training of Audio Transformers with Patchout, Interspeech 2022"
        ),
    )


TRANSFORMERS = (
    _htsat(),
    _clap_of_hub(
        "laion/clap-htsat-unfused",
        "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
        _LAION,
    ),
    _clap_of_hub(
        "laion/larger_clap_general",
        "ada0c23a36c4e8582805bb38fec3905903f18b41",
        "speech, music and other sound",
        large=True,
    ),
    _clap_of_hub(
        "laion/larger_clap_music_and_speech",
        "195c3a3e68faebb3e2088b9a79e79b43ddbda76b",
        "music and speech",
        large=True,
    ),
    _clap_of_authors(
        "laion_630k_audioset",
        "630k-audioset-best.pt",
        "8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
        _LAION,
    ),
    _clap_of_authors(
        "laion_music_audioset",
        "music_audioset_epoch_15_esc_90.14.pt",
        "fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd",
        "music, AudioSet and LAION-Audio-630K",
        large=True,
        score=0.9014,
    ),
    _clap_of_authors(
        "laion_music_speech",
        "music_speech_epoch_15_esc_89.25.pt",
        "a27dfbd00d96781020d83044136f084343edab799d2657ef3cfe5c4f2222bb28",
        "music, speech and LAION-Audio-630K",
        large=True,
        score=0.8925,
    ),
    _clap_of_authors(
        "laion_music_speech_audioset",
        "music_speech_audioset_epoch_15_esc_89.98.pt",
        "51c68f12f9d7ea25fdaaccf741ec7f81e93ee594455410f3bca4f47f88d8e006",
        "music, speech, AudioSet and LAION-Audio-630K",
        large=True,
        score=0.8998,
    ),
    _ast_of_hub(),
    _ast_of_authors("ca0b1v2nlxzyeb4", 10, 0.4593),
    _ast_of_authors("1tv0hovue1bxupk", 10, 0.4495),
    _ast_of_authors("6u5sikl4b9wo4u5", 10, 0.4483),
    _ast_of_authors("kt6i0v9fvfm1mbq", 10, 0.4475),
    _ast_of_authors("snfhx3tizr4nuc8", 12, 0.4467),
    _ast_of_authors("z18s6pemtnxm4k7", 14, 0.4431),
    _ast_of_authors("mdsa4t1xmcimia6", 16, 0.4422),
    _passt(
        "passt_s_swa_p16_128_ap476",
        "v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
        0.476,
        sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
    ),
    _passt("passt_s_kd_p16_128_ap486", "v.0.0.9/passt-s-kd-ap.486.pt", 0.486),
    _passt(
        "passt_l_kd_p16_128_ap47",
        "v.0.0.10/passt-l-kd-ap.47.pt",
        0.4708,
        (50_309_135, 65_240_106_240),
    ),
    _passt(
        "passt_s_p16_128_ap472",
        "v0.0.2-audioset/passt-s-f128-p16-s10-ap.472.pt",
        0.472,
    ),
    _passt(
        "passt_s_swa_p16_s12_128_ap473",
        "v0.0.2-audioset/passt-s-f128-p16-s12-ap.473-swa.pt",
        0.473,
        12,
    ),
    _passt(
        "passt_s_swa_p16_s14_128_ap471",
        "v0.0.2-audioset/passt-s-f128-p16-s14-ap.471-swa.pt",
        0.471,
        14,
    ),
    _passt(
        "passt_s_swa_p16_s16_128_ap473",
        "v0.0.2-audioset/passt-s-f128-p16-s16-ap.473-swa.pt",
        0.473,
        16,
    ),
)
