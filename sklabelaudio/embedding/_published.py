"""The published checkpoints: addresses, digests, licences, sizes, scores."""

from ._records import Checkpoint, PublishedScore, RemoteFile

# The digest is that of the list which several releases of AudioSet taggers carry.
_AUDIOSET_LABELS = RemoteFile(
    "class_labels_indices.csv",
    "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
    "class_labels_indices.csv",
    "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
)
_AUDIOSET = "AudioSet evaluation"
_LAION = "LAION-Audio-630K, AudioSet, AudioCaps and Clotho"
_YAMNET_LABELS = RemoteFile(
    "yamnet_class_map.csv",
    "https://raw.githubusercontent.com/tensorflow/models/"
    "dfffd623b6be8d1d9744b8e261fbac370d17c46d/research/audioset/yamnet/"
    "yamnet_class_map.csv",
    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
)


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
        labels=_AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet as taught by transformers",
        n_parameters=size,
        multiply_adds=multiply_adds,
        scores=(
            PublishedScore(
                _AUDIOSET, "mAP", score, "https://github.com/fschmid56/EfficientAT"
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


def _htsat():
    folder = "https://drive.google.com/drive/folders/1f5VYMk0uos_YnuBshgmaTVioXbs7Kmz6"
    return Checkpoint(
        name="htsat_audioset",
        encoder="htsat",
        sources=(RemoteFile("HTSAT_AudioSet_Saved_1.ckpt", folder, fetchable=False),),
        licence="MIT",
        n_components=768,
        n_classes=527,
        labels=_AUDIOSET_LABELS,
        training_data="ImageNet, then AudioSet",
        n_parameters=29_963_431,
        multiply_adds=5_985_386_496,
        scores=(PublishedScore(_AUDIOSET, "mAP", 0.471, "the paper's table 1"),),
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
                "ESC-50, no training, prompt 'This is a sound of ...',",
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


CHECKPOINTS = (
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
)
