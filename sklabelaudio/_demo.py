"""What ``sklabelaudio demo`` does."""

import sys

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score
from sklearn.model_selection import PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ._encoder_options import find_tagger_labels, is_joint, is_tagger, make_embedder
from .classification import (
    BilinearZeroShotClassifier,
    PromptZeroShotClassifier,
    TaggerZeroShotClassifier,
)
from .datasets import load_esc50, make_sound_events
from .feature_extraction import LogMelExtractor, TemporalPooling
from .inspection import LogMelDisplay
from .model_selection import FewShotSplit, LeaveClassesOut, UnseenClassKFold
from .text import LabelTextEmbedder

# Unseen classes are tested four at a time, or in all pairs where there are few.
_N_UNSEEN = 4
_FEW_CLASSES = 10
_N_SHOTS = 5
# How features are scaled, and classes learned from them. An encoder's vectors have one
# scale and separate classes by planes, which statistics of a spectrogram don't.
_OF_STATISTICS = (StandardScaler(), "SVC", SVC(C=10))
_OF_VECTORS = ("passthrough", "LR", LogisticRegression(max_iter=1000))


def run_demo(
    *,
    data_dir,
    text_model,
    weights,
    encoder,
    tagger_labels,
    sampling_rate,
    out_dir,
    seed,
    progress,
):
    """Run the demo, print its table and write its pictures.

    Parameters
    ----------
    data_dir : path-like or None
        A folder in ESC-50's layout; ``None`` makes sounds.
    text_model : str or None
        Text encoder for the labels of `data_dir`.
    weights : str or None
        Checkpoint of a pretrained encoder for the clips of `data_dir`; ``None``
        describes them by statistics of their log-mel spectrogram.
    encoder : str or None
        Which encoder that is of; ``None`` goes by the name of the checkpoint.
    tagger_labels : str or None
        List of the encoder's classes; ``None`` takes what is found with the weights.
    sampling_rate : float or None
        Rate in Hz to resample the files to for spectrograms; ``None`` keeps their own.
    out_dir : pathlib.Path
        Folder for the pictures.
    seed : int
        Seed of all that is random.
    progress : bool
        Whether to show progress bars.
    """
    if data_dir is None and text_model is not None:
        raise ValueError(
            f"--text-model={text_model} is for the labels of --data: the synthetic "
            "sounds come with attributes of their own"
        )
    if data_dir is None and weights is not None:
        raise ValueError(
            f"--weights={weights} is for the clips of --data: no encoder was trained "
            "on the synthetic sounds"
        )
    if weights is None and (encoder is not None or tagger_labels is not None):
        option = "tagger-labels" if encoder is None else "encoder"
        raise ValueError(
            f"--{option}={encoder or tagger_labels} goes with --weights: give a "
            "checkpoint, or leave it out"
        )
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(f"--out={out_dir} is a file: name a folder")
    if data_dir is None:
        data = make_sound_events(40, random_state=seed)
        sampling_rate, label_embedder = data.sampling_rate, data.attributes
        origin = "synthetic"
    else:
        data = load_esc50(data_dir)
        label_embedder = None
        if text_model is not None:
            # Encoded once, not anew in every split.
            vectors = LabelTextEmbedder(text_model).fit_transform(data.target_names)
            label_embedder = dict(zip(data.target_names, vectors, strict=True))
        origin = str(data_dir)
    y = data.target
    print(f"{len(y)} clips of {len(data.target_names)} classes ({origin})", flush=True)

    learning = _OF_STATISTICS if weights is None else _OF_VECTORS
    runs = _plan_runs(data, learning, label_embedder, seed)
    extractor = LogMelExtractor(sampling_rate, fmin=50.0, n_jobs=-1, verbose=progress)
    untrained = None
    if weights is None:
        pooling = TemporalPooling(("mean", "std", "delta_std"))
        X = make_pipeline(extractor, pooling).fit_transform(data.data)
    else:
        embedder = make_embedder(weights, encoder=encoder, verbose=progress)
        embedder.fit(data.data)
        # First, for a list of classes that doesn't fit would show late otherwise.
        untrained = _make_untrained(embedder, text_model, tagger_labels, data)
        _tell(f"embedding the clips by {embedder.checkpoint_.path}", progress)
        X = embedder.transform(data.data)

    out_dir.mkdir(parents=True, exist_ok=True)
    pictures = [out_dir / "log_mel.png"]
    _draw_log_mels(data, extractor.set_params(verbose=False), pictures[0])
    print(f"\n{'':36}{'chance':>8}{'accuracy':>18}{'splits':>9}")
    for name, n_choices, classifier, cv, picture in runs:
        named = _name_test_clips(classifier, X, y, cv, progress)
        _print_scores(name, n_choices, named)
        if picture is not None:
            pictures.append(out_dir / picture)
            _draw_confusion(name, n_choices, named, pictures[-1])
    if untrained is not None:
        name, n_choices = "no training, label texts alone", len(data.target_names)
        tagger, classifier = untrained
        if tagger is not embedder:
            _tell("asking the encoder for its own classes", progress)
            X = tagger.transform(data.data)
        predicted = classifier.predict(X)
        folds = [data.fold == fold for fold in np.unique(data.fold)]
        named = [(y[fold], predicted[fold]) for fold in folds]
        _print_scores(name, n_choices, named)
        pictures.append(out_dir / "confusion_untrained.png")
        _draw_confusion(name, n_choices, named, pictures[-1])
    print("\npictures: " + ", ".join(map(str, pictures)))


def _make_untrained(embedder, text_model, tagger_labels, data):
    """Return what names the clips by the encoder's own knowledge, or None.

    That is an embedder and a classifier of its output, both fitted.
    """
    labels = data.target_names
    if is_joint(embedder):
        classifier = PromptZeroShotClassifier(embedder.text_embedder())
        return embedder, classifier.set_params(candidate_labels=labels).fit()
    if text_model is None or not is_tagger(embedder):
        return None
    tagger = clone(embedder).set_params(output="probabilities").fit(data.data)
    if tagger_labels is None and tagger.checkpoint_.labels is None:
        print("(--tagger-labels FILE would name them without training as well)")
        return None
    classifier = TaggerZeroShotClassifier(
        LabelTextEmbedder(text_model),
        tagger_labels=find_tagger_labels(tagger, tagger_labels),
        candidate_labels=labels,
    )
    return tagger, classifier.fit()


def _tell(message, progress):
    if progress:
        print(message, file=sys.stderr, flush=True)


def _print_scores(name, n_choices, named):
    scores = [accuracy_score(*labels) for labels in named]
    accuracy = f"{np.mean(scores):.3f} ± {np.std(scores):.3f}"
    print(f"{name:36}{1 / n_choices:8.3f}{accuracy:>18}{len(scores):9}", flush=True)


def _plan_runs(data, learning, label_embedder, seed):
    """Return name, number of labels to choose from, classifier, splits and picture."""
    labels, counts = np.unique(data.target, return_counts=True)
    n_classes, n_clips = len(labels), counts.min()
    n_needed = 2 if label_embedder is None else 4
    if n_classes < n_needed:
        raise ValueError(
            f"{n_classes} classes are too few to show anything, there must be at least "
            f"{n_needed}"
        )
    scaler, kind, classifier = learning
    supervised = make_pipeline(scaler, classifier)
    bilinear = make_pipeline(
        scaler,
        BilinearZeroShotClassifier(
            label_embedder, center="both", scale="both", random_state=seed
        ),
    )
    folds = PredefinedSplit(data.fold)
    runs = [
        (f"{kind}, official folds", n_classes, supervised, folds, "confusion.png"),
        ("bilinear, official folds", n_classes, bilinear, folds, None),
    ]
    if n_clips > _N_SHOTS:
        few = FewShotSplit(
            _N_SHOTS, n_splits=min(5, n_clips // _N_SHOTS), random_state=seed
        )
        name = f"{kind}, {_N_SHOTS} clips of each class"
        runs.insert(1, (name, n_classes, supervised, few, None))
    if label_embedder is not None:
        if n_classes <= _FEW_CLASSES:
            n_unseen, unseen = 2, LeaveClassesOut(2)
        else:
            n_unseen = _N_UNSEEN
            unseen = UnseenClassKFold(
                n_classes // _N_UNSEEN, shuffle=True, random_state=seed
            )
        name = f"bilinear, {n_unseen} classes never heard"
        runs.append((name, n_unseen, bilinear, unseen, "confusion_unheard.png"))
    return runs


def _name_test_clips(classifier, X, y, cv, progress):
    """Return the true and the predicted labels of each split's test clips."""
    from tqdm import tqdm

    named = []
    splits = tqdm(
        cv.split(X, y),
        total=cv.get_n_splits(X, y),
        unit="split",
        leave=False,
        disable=not progress,
    )
    for train, test in splits:
        fitted = clone(classifier).fit(X[train], y[train])
        if "candidate_labels" in fitted[-1].get_params():
            fitted[-1].set_params(candidate_labels=np.unique(y[test]))
        named.append((y[test], fitted.predict(X[test])))
    return named


def _draw_confusion(name, n_choices, named, path):
    import matplotlib.pyplot as plt

    true, predicted = map(np.concatenate, zip(*named, strict=True))
    size = 3 + 0.4 * len(np.unique(true))
    figure, ax = plt.subplots(figsize=(size, size), layout="constrained")
    display = ConfusionMatrixDisplay.from_predictions(
        true,
        predicted,
        normalize="true",
        values_format=".2f",
        xticks_rotation="vertical",
        cmap="Blues",
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 7},
        colorbar=False,  # the numbers are there
        ax=ax,
    )
    for text in display.text_.flat:
        if text.get_text() == "0.00":
            text.set_visible(False)
    figure.suptitle(f"{name} (chance {1 / n_choices:.2f})", fontsize="medium")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_log_mels(data, extractor, path):
    """Draw the first clip of each class, eight at most."""
    import matplotlib.pyplot as plt

    labels = data.target_names[:8]
    shown = [np.flatnonzero(data.target == label)[0] for label in labels]
    # What is much weaker would take most of the colours.
    extractor = clone(extractor).set_params(top_db=80.0)
    log_mels = extractor.fit_transform([data.data[index] for index in shown])
    n_columns = min(len(labels), 4)
    n_rows = -(-len(labels) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4 * n_columns, 3 * n_rows),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(labels) :]:
        ax.set_axis_off()
    for label, log_mel, ax in zip(labels, log_mels, axes.flat, strict=False):
        LogMelDisplay.from_log_mel(
            log_mel,
            times=extractor.frame_times(len(log_mel)),
            frequencies=extractor.mel_frequencies_,
            name=label,
            ax=ax,
        )
    figure.savefig(path, dpi=100)
    plt.close(figure)
