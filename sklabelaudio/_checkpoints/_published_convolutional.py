"""The published checkpoints of convolutional networks."""

from ._records import (
    AUDIOSET_EVALUATION,
    AUDIOSET_LABELS,
    Checkpoint,
    PublishedScore,
    RemoteFile,
)

_YAMNET_LABELS = RemoteFile(
    "yamnet_class_map.csv",
    "https://raw.githubusercontent.com/tensorflow/models/"
    "dfffd623b6be8d1d9744b8e261fbac370d17c46d/research/audioset/yamnet/"
    "yamnet_class_map.csv",
    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
)
_TAU_SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)

_AUDIOCLIP = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1/"
_AUDIOCLIP_PAPER = "the paper, arXiv:2106.13043, of its best model"


def _yamnet(name, file, scores=()):
    return Checkpoint(
        name=name,
        encoder="yamnet",
        sources=(file,),
        licence="Apache-2.0",
        n_components=1024,
        n_classes=521,
        labels=_YAMNET_LABELS,
        training_data="AudioSet",
        n_parameters=3_729_481,
        multiply_adds=1_383_301_120,
        scores=scores,
        reference="M. Plakal and D. Ellis, YAMNet, TensorFlow Models, 2019",
        front_end="yamnet",
    )


def _efficientat(name, score, size, multiply_adds, n_components, sha256=None):
    file = f"{name}_mAP_{round(1000 * score)}.pt"
    release = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
    return Checkpoint(
        name=name,
        encoder="efficientat",
        sources=(RemoteFile(file, release + file, sha256),),
        licence="MIT",
        n_components=n_components,
        n_classes=527,
        labels=AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet as taught by transformers",
        n_parameters=size,
        multiply_adds=multiply_adds,
        scores=(
            PublishedScore(
                AUDIOSET_EVALUATION,
                "mAP",
                score,
                "https://github.com/fschmid56/EfficientAT",
            ),
        ),
        reference=(
            "F. Schmid, K. Koutini and G. Widmer, Efficient Large-Scale Audio Tagging "
            "via Transformer-to-CNN Knowledge Distillation, ICASSP 2023"
        ),
        front_end="efficientat",
    )


def _vggish():
    release = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
    names = {
        "vggish-10086976.pth": "10086976",
        "vggish_pca_params-970ea276.pth": "970ea276",
    }
    return Checkpoint(
        name="vggish",
        encoder="vggish",
        sources=tuple(RemoteFile(name, release + name, names[name]) for name in names),
        licence="Apache-2.0",
        n_components=128,
        training_data="a preliminary version of YouTube-8M",
        n_parameters=72_141_184,
        multiply_adds=8_638_955_520,
        reference=(
            "S. Hershey et al., CNN Architectures for Large-Scale Audio "
            "Classification, ICASSP 2017"
        ),
        front_end="vggish",
    )


def _sp4asc(name, config, sha256, training_data, score=None):
    repository = "https://github.com/valeoai/SP4ASC"
    folder = (
        "https://raw.githubusercontent.com/valeoai/SP4ASC/"
        "bfc76f080cab4afc9bfd69e56efd576ce93bf596/trained_models/"
    )
    url = f"{folder}configs.cnn6_small_dropout_2_specAugment_{config}/ckpt.pth"
    scores = ()
    if score is not None:
        task = "TAU Urban Acoustic Scenes 2020 Mobile, merged without eps, float16,"
        scores = (PublishedScore(task, "accuracy", score, repository),)
    return Checkpoint(
        name=name,
        encoder="sp4sc",
        sources=(RemoteFile(f"{name}.pth", url, sha256),),
        licence="Apache-2.0",
        n_components=128,
        n_classes=10,
        class_names=_TAU_SCENES,
        training_data="TAU Urban Acoustic Scenes 2020 Mobile" + training_data,
        n_parameters=62_922,
        multiply_adds=470_545_664,
        scores=scores,
        reference=(
            "G. Puy, H. Jain and A. Bursuc, Separable Convolutions and Test-Time "
            "Augmentations for Low-Complexity and Calibrated Acoustic Scene "
            "Classification, DCASE 2021"
        ),
        front_end="sp4sc",
    )


# In public records that pin the files; Zenodo has MD5 alone.
_PANNS_DIGESTS = {
    "cnn14": "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
    "cnn14_16k": "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
    "cnn14_decision_level_max": (
        "dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142"
    ),
}


def _panns(name, file, score, size, *, n_components=2048, front_end="panns_32k"):
    n_parameters, multiply_adds = size
    record = "https://zenodo.org/records/3987831"
    url = f"{record}/files/{file.replace('=', '%3D')}"
    return Checkpoint(
        name=name,
        encoder="panns",
        sources=(RemoteFile(file, url, _PANNS_DIGESTS.get(name)),),
        licence="CC-BY-4.0",
        n_components=n_components,
        n_classes=527,
        labels=AUDIOSET_LABELS,
        training_data="AudioSet",
        n_parameters=n_parameters,
        multiply_adds=multiply_adds,
        scores=(PublishedScore(AUDIOSET_EVALUATION, "mAP", score, record),),
        reference=(
            "Q. Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for "
            "Audio Pattern Recognition, IEEE/ACM TASLP 28, 2020"
        ),
        front_end=front_end,
    )


def _psla(name, file, key, score, *, fsd50k=False):
    data = "FSD50K" if fsd50k else "AudioSet"
    return Checkpoint(
        name=name,
        encoder="psla",
        sources=(RemoteFile(file, f"https://www.dropbox.com/s/{key}/{file}?dl=1"),),
        licence="not stated",
        n_components=1408,
        n_classes=200 if fsd50k else 527,
        labels=None if fsd50k else AUDIOSET_LABELS,
        training_data=f"ImageNet, then {data}",
        n_parameters=9_954_822 if fsd50k else 13_640_766,
        multiply_adds=1_824_026_752 if fsd50k else 1_945_576_576,
        scores=(
            PublishedScore(
                f"{data} evaluation", "mAP", score, "https://github.com/YuanGongND/psla"
            ),
        ),
        reference=(
            "Y. Gong, Y.-A. Chung and J. Glass, PSLA: Improving Audio Tagging with "
            "Pretraining, Sampling, Labeling, and Aggregation, IEEE/ACM TASLP 29, 2021"
        ),
        front_end="psla",
    )


def _audioclip(name, file, sha256, *more_files, **others):
    return Checkpoint(
        name=name,
        encoder="audioclip",
        sources=(RemoteFile(file, _AUDIOCLIP + file, sha256), *more_files),
        licence="MIT",
        front_end="audioclip",
        **others,
    )


def _audioclip_with_texts(name, file, sha256, scores=()):
    vocabulary = "bpe_simple_vocab_16e6.txt.gz"
    texts = RemoteFile(
        vocabulary,
        _AUDIOCLIP + vocabulary,
        "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
        decides=False,
    )
    return _audioclip(
        name,
        file,
        sha256,
        texts,
        n_components=1024,
        training_data="CLIP's images and texts, ImageNet, then AudioSet with frames of "
        "its videos",
        n_parameters=32_104_771,
        multiply_adds=28_127_805_248,
        scores=scores,
        reference=(
            "A. Guzhov, F. Raue, J. Hees and A. Dengel, AudioCLIP: Extending CLIP to "
            "Image, Text and Audio, ICASSP 2022"
        ),
    )


CONVOLUTIONAL = (
    _yamnet(
        "yamnet",
        RemoteFile(
            "yamnet.h5",
            "https://storage.googleapis.com/audioset/yamnet.h5",
            "13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
        ),
        scores=(
            PublishedScore(
                "AudioSet evaluation (521 classes)",
                "mAP",
                0.306,
                "https://github.com/tensorflow/models/tree/master/research/audioset/"
                "yamnet",
            ),
        ),
    ),
    _yamnet(
        "yamnet_int8",
        RemoteFile(
            "yamnet.tflite",
            "https://storage.googleapis.com/mediapipe-assets/"
            "yamnet_audio_classifier_with_metadata.tflite?generation=1661875980774466",
            "10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de",
        ),
    ),
    _efficientat(
        "mn04_as",
        0.432,
        983_599,
        110_643_072,
        384,
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    _efficientat("mn05_as", 0.443, 1_431_239, 159_964_672, 480),
    _efficientat(
        "mn10_as",
        0.471,
        4_876_831,
        541_078_208,
        960,
        "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
    ),
    _efficientat("mn20_as", 0.478, 17_909_287, 2_059_375_488, 1920),
    _efficientat("mn30_as", 0.482, 39_086_367, 4_554_880_320, 2880),
    _efficientat("mn40_as", 0.484, 68_427_303, 8_027_611_904, 3840),
    _vggish(),
    _sp4asc(
        "sp4asc_ce",
        "128_2_32_2",
        "714103cd210b1c01b5683758478f43add01e043fddc7b6cead3cf5ff75e65bcf",
        "",
    ),
    _sp4asc(
        "sp4asc_ce_mixup",
        "128_2_16_2_mixup_2",
        "1c1dea32af53386078e228f7021b621a9084fef009a4019cfa347223d6f8e855",
        ", with mixup",
    ),
    _sp4asc(
        "sp4asc_focal",
        "128_2_32_2_focal_loss",
        "f48ba7b41e901ae9cc5725716017a953ab496cb6361056bdbe7b5e310cb12603",
        ", with a focal loss",
        score=0.671,
    ),
    _panns(
        "cnn6",
        "Cnn6_mAP=0.343.pth",
        0.343,
        (4_837_455, 9_933_434_368),
        n_components=512,
    ),
    _panns(
        "cnn10",
        "Cnn10_mAP=0.380.pth",
        0.380,
        (5_219_279, 13_015_920_128),
        n_components=512,
    ),
    _panns("cnn14", "Cnn14_mAP=0.431.pth", 0.431, (80_753_615, 20_041_926_656)),
    _panns(
        "cnn14_16k",
        "Cnn14_16k_mAP=0.438.pth",
        0.438,
        (80_753_615, 20_041_926_656),
        front_end="panns_16k",
    ),
    _panns(
        "cnn14_decision_level_max",
        "Cnn14_DecisionLevelMax_mAP=0.385.pth",
        0.385,
        (80_753_615, 20_200_134_656),
    ),
    _panns("resnet38", "ResNet38_mAP=0.434.pth", 0.434, (73_783_247, 23_391_078_400)),
    _panns(
        "wavegram_logmel_cnn14",
        "Wavegram_Logmel_Cnn14_mAP=0.439.pth",
        0.439,
        (81_065_487, 25_698_599_488),
        front_end="panns_wavegram",
    ),
    _psla("psla_audioset", "as_mdl_0_wa.pth", "ieggie0ara4x26d", 0.444),
    _psla("psla_audioset_single", "as_mdl_0.pth", "d1z27wj30ew5qrs", 0.440),
    _psla("psla_fsd50k", "fsd_mdl_wa.pth", "5fvybrbulvhsish", 0.562, fsd50k=True),
    _psla(
        "psla_fsd50k_single",
        "fsd_mdl_best_single.pth",
        "stzrmfty2oyqnnj",
        0.559,
        fsd50k=True,
    ),
    _audioclip_with_texts(
        "audioclip_full",
        "AudioCLIP-Full-Training.pt",
        "2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
        scores=(
            PublishedScore("ESC-50 zero-shot", "accuracy", 0.694, _AUDIOCLIP_PAPER),
            PublishedScore(
                "UrbanSound8K zero-shot", "accuracy", 0.6878, _AUDIOCLIP_PAPER
            ),
        ),
    ),
    _audioclip_with_texts(
        "audioclip_partial",
        "AudioCLIP-Partial-Training.pt",
        "1921885b6c3b5de0619f2ef4a9700ecbade758a398b34eb064230c30baef0c75",
    ),
    _audioclip(
        "esresnext_fbsp",
        "ESRNXFBSP.pt",
        "acfcc6b0a0f07025cc660ed6dcf9b5a05fbd7c8ebf65edaa0a81d88a92ff6834",
        n_components=2048,
        n_classes=527,
        labels=AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet",
        n_parameters=31_086_418,
        multiply_adds=28_071_243_584,
        reference=(
            "A. Guzhov, F. Raue, J. Hees and A. Dengel, ESResNe(X)t-fbsp: Learning "
            "Robust Time-Frequency Transformation of Audio, IJCNN 2021"
        ),
    ),
)
