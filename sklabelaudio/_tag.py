"""What ``sklabelaudio tag`` does."""

import csv
import os
import sys
import warnings

import numpy as np

from .classification import PromptZeroShotClassifier, TaggerZeroShotClassifier
from .embedding._auto import make_embedder
from .exceptions import AudioReadError, AudioReadWarning
from .text import LabelTextEmbedder

# What libsndfile reads, by the suffixes in use.
_SUFFIXES = (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg")
_SUFFIXES += (".opus", ".rf64", ".snd", ".w64", ".wav")


def run_tag(
    inputs,
    *,
    labels,
    weights,
    encoder,
    tagger_labels,
    text_model,
    prompt,
    out,
    cache,
    progress,
):
    """Name the sounds in files by labels of the user's own, as a table.

    Parameters
    ----------
    inputs : list of str
        Files, and folders that are searched with all that is below them.
    labels : str
        The labels, with commas between them.
    weights : str
        Checkpoint of the tagger or of the joint space.
    encoder : str or None
        Which encoder that is of; ``None`` goes by the name of the checkpoint.
    tagger_labels : str or None
        List of the tagger's classes; ``None`` looks for it beside the checkpoint.
    text_model : str
        Text encoder for a tagger; a joint space has its own.
    prompt : str or None
        Template of the label texts.
    out : str or None
        File for the table; ``None`` writes it to standard output.
    cache : str or None
        Folder of the cache of embeddings.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    int
        Number of files that could not be read.
    """
    labels = list(dict.fromkeys(filter(None, map(str.strip, labels.split(",")))))
    files = _find_files(inputs)
    embedder = make_embedder(
        weights, encoder=encoder, cache=cache, on_error="skip", verbose=progress
    )
    # Before the files, which take long: a mistake in the words shows at once.
    classifier = _make_classifier(embedder, files, tagger_labels, text_model, prompt)
    classifier.set_params(candidate_labels=labels).fit()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AudioReadWarning)
        X = _embed(embedder, files)
    for warning in caught:
        if issubclass(warning.category, AudioReadWarning):
            print(warning.message, file=sys.stderr)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    readable = ~np.isnan(X).any(axis=1)
    scores = np.full((len(files), len(labels)), np.nan)
    scores[readable] = classifier.predict_proba(X[readable])
    _write_table(out, files, classifier.classes_, scores)
    return int((~readable).sum())


def _find_files(inputs):
    files = []
    for name in inputs:
        if not os.path.isdir(name):
            files.append(name)  # if it isn't there, the table says so
            continue
        found = [
            os.path.join(folder, file)
            for folder, _, names in os.walk(name)
            for file in names
            if file.lower().endswith(_SUFFIXES)
        ]
        if not found:
            raise ValueError(
                f"{name} holds no sound files ({', '.join(_SUFFIXES)}): name another "
                "folder, or the files themselves"
            )
        files += sorted(found)
    return list(dict.fromkeys(files))


def _make_classifier(embedder, files, tagger_labels, text_model, prompt):
    """Fit the embedder, and return the classifier that goes with it."""
    joint = hasattr(embedder, "text_embedder")
    if not joint:
        embedder.set_params(output="probabilities")
    embedder.fit(files)
    if joint:
        params = {} if prompt is None else {"prompt": prompt}
        return PromptZeroShotClassifier(embedder.text_embedder(**params))
    if tagger_labels is None:
        tagger_labels = embedder.checkpoint_.labels
    if tagger_labels is None:
        raise ValueError(
            f"the list of classes of {embedder.checkpoint_.name} was not found beside "
            "the checkpoint: name the file, --tagger-labels class_labels_indices.csv "
            "(AudioSet) or yamnet_class_map.csv (YAMNet)"
        )
    return TaggerZeroShotClassifier(
        LabelTextEmbedder(text_model, prompt=prompt), tagger_labels=tagger_labels
    )


def _embed(embedder, files):
    try:
        return embedder.transform(files)
    except AudioReadError as error:
        raise ValueError(f"no file could be read; the first: {error}") from error


def _write_table(out, files, labels, scores):
    """Write a row for each file: its best label, and how much each label fits."""
    if out is None:
        _write_rows(sys.stdout, files, labels, scores)
        return
    with open(out, "w", newline="", encoding="utf-8") as stream:
        _write_rows(stream, files, labels, scores)


def _write_rows(stream, files, labels, scores):
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", "label", *labels])
    for file, row in zip(files, scores, strict=True):
        if np.isnan(row).any():
            table.writerow([file, "", *[""] * len(labels)])
        else:
            table.writerow([file, labels[row.argmax()], *(f"{p:.4f}" for p in row)])
