"""What ``sklabelaudio tag`` does."""

import csv
import io
import os
import sys
import warnings

import numpy as np

from ._encoder_options import find_tagger_labels, is_joint, is_tagger, make_embedder
from .classification import PromptZeroShotClassifier, TaggerZeroShotClassifier
from .exceptions import AudioReadWarning
from .text import LabelTextEmbedder, normalize_label, read_label_list

NO_LABEL = "none of these"
# What libsndfile reads, by the suffixes in use.
_SUFFIXES = (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg")
_SUFFIXES += (".opus", ".rf64", ".snd", ".w64", ".wav")
# An explanation names so many classes at most, and none with less of the score.
_N_REASONS = 3
_LEAST_REASON = 0.05


def run_tag(
    inputs,
    *,
    labels,
    weights,
    encoder,
    tagger_labels,
    text_model,
    prompt,
    reject,
    explain,
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
        The labels, with commas between them, or ``@`` and the file that lists them.
    weights : str
        Checkpoint of the tagger or of the joint space.
    encoder : str or None
        Which encoder that is of; ``None`` goes by the name of the checkpoint.
    tagger_labels : str or None
        List of the tagger's classes; ``None`` takes what is found with the weights.
    text_model : str or None
        Text encoder for a tagger, ``None`` the usual one; a joint space has its own.
    prompt : str or None
        Template of the label texts.
    reject : float or None
        Best score below which a file gets none of the labels.
    explain : bool
        Whether to tell which of the tagger's classes a label comes from.
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
    # All that may be a mistake comes before the files, which may take hours.
    labels = _read_labels(labels, reject)
    files = _find_files(inputs)
    if out is not None:
        _check_writable(out, files)
    embedder = make_embedder(
        weights, encoder=encoder, cache=cache, on_error="skip", verbose=progress
    )
    if is_joint(embedder):
        _check_joint(weights, text_model, tagger_labels, explain)
        embedder.fit(files)
        text_side = embedder.text_embedder(**_if_given(prompt=prompt))
        classifier = PromptZeroShotClassifier(text_side)
    elif is_tagger(embedder):
        embedder.set_params(output="probabilities").fit(files)
        classifier = TaggerZeroShotClassifier(
            LabelTextEmbedder(**_if_given(model=text_model, prompt=prompt)),
            tagger_labels=find_tagger_labels(embedder, tagger_labels),
        )
    else:
        raise ValueError(
            f"--weights={weights} knows neither classes of sounds nor texts: use a "
            "tagger such as mn04_as or yamnet, or a CLAP model"
        )
    classifier.set_params(
        candidate_labels=labels, reject_threshold=reject, reject_label=NO_LABEL
    ).fit()
    X = _embed(embedder, files)
    readable = ~np.isnan(X).any(axis=1)
    rows = dict(
        zip(
            np.flatnonzero(readable),
            _describe_clips(classifier, labels, X[readable], explain),
            strict=True,
        )
    )
    header = ["file", "label", "score", *(["because"] if explain else []), *labels]
    empty = [""] * (len(header) - 1)
    table = [[file, *rows.get(i, empty)] for i, file in enumerate(files)]
    _write_table(out, [header, *table])
    if out is not None and progress:
        _tell(f"wrote {out}")
    return int((~readable).sum())


def _read_labels(text, reject):
    """Return the labels, each meaning once, in the order given."""
    if text.startswith("@"):
        labels = read_label_list(text[1:])
    else:  # quoted ones may have commas
        rows = csv.reader(text.splitlines(), skipinitialspace=True)
        labels = [label.strip() for row in rows for label in row]
    # Text encoders take "Dog" and "dog" for the same, and would share out its part.
    distinct = {}
    for label in filter(None, labels):
        distinct.setdefault(normalize_label(label).casefold(), label)
    labels = list(distinct.values())
    form = '--labels "dog, rain, chain saw", or --labels @FILE with one a line'
    if not labels:
        raise ValueError(f"--labels={text} holds no label: write {form}")
    if len(labels) == 1 and reject is None:
        raise ValueError(
            f"--labels={text} is one label, which every file would get: write {form}; "
            f"or set --reject, the score below which a file is {NO_LABEL!r}"
        )
    if reject is not None and NO_LABEL in labels:
        raise ValueError(
            f"--labels has {NO_LABEL!r}, which is what --reject calls files that no "
            "label fits: leave it out"
        )
    return labels


def _find_files(inputs):
    """Return the files, and those in the folders in the order of their names."""
    files = []
    for name in inputs:
        if not os.path.isdir(name):
            files.append(name)  # if it can't be read, the table has it all the same
            continue
        for folder, folders, names in os.walk(name, onerror=_tell_unread):
            # Hidden are what file managers leave, such as "._rain.wav" by macOS.
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            files += [
                os.path.join(folder, file)
                for file in sorted(names)
                if file.lower().endswith(_SUFFIXES) and not file.startswith(".")
            ]
    if not files:
        raise ValueError(
            f"there are no sound files ({', '.join(_SUFFIXES)}) in "
            f"{', '.join(inputs)}: name another folder, or the files themselves"
        )
    distinct = {}
    for file in files:
        distinct.setdefault(os.path.abspath(file), file)
    return list(distinct.values())


def _tell_unread(error):
    _tell(f"can't look into {error.filename}: {error.strerror}")


def _tell(message):
    print(f"sklabelaudio: {message}", file=sys.stderr)


def _check_writable(out, files):
    """Raise if the table can't be written, and leave what is there as it is."""
    if os.path.abspath(out) in map(os.path.abspath, files):
        raise ValueError(f"--out={out} is one of the sound files: name another file")
    if os.path.exists(out) and not os.path.isfile(out) and not os.path.isdir(out):
        return  # a device or a pipe, which to open and close has consequences
    is_new = not os.path.exists(out)
    try:
        with open(out, "a"):
            pass
    except OSError as error:
        raise OSError(
            f"--out={out} can't be written to ({error.strerror}): name a file in a "
            "folder that is there"
        ) from error
    if is_new:
        os.remove(out)


def _check_joint(weights, text_model, tagger_labels, explain):
    """Raise, or tell, where options mean nothing to a joint space."""
    if explain:
        raise ValueError(
            f"--explain with --weights={weights}: it compares sounds with texts and "
            "has no classes to tell of; leave it out, or use a tagger such as mn04_as"
        )
    ignored = {"text-model": text_model, "tagger-labels": tagger_labels}
    for option, value in _if_given(**ignored).items():
        _tell(f"--{option}={value} is ignored: {weights} has a text encoder of its own")


def _if_given(**params):
    return {name: value for name, value in params.items() if value is not None}


def _embed(embedder, files):
    """Embed files, and list those that can't be read."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def list_files(message, category, *place):
            if not issubclass(category, AudioReadWarning):
                show(message, category, *place)
                return
            # Its first line speaks of rows, the others of one file each.
            bad = [line.partition(": ")[2] for line in str(message).splitlines()[1:]]
            listing = "\n".join(f"  {cause}" for cause in bad)
            _tell(f"{len(bad)} of {len(files)} files could not be read:\n{listing}")

        warnings.simplefilter("always", AudioReadWarning)
        warnings.showwarning = list_files
        return embedder.transform(files)


def _describe_clips(classifier, labels, X, explain):
    """Return label, score, reasons if asked for, and the labels' shares, as text."""
    columns = [classifier.classes_.tolist().index(label) for label in labels]
    shares = classifier.predict_proba(X)[:, columns]
    named = classifier.predict(X)
    reasons = []
    if explain:
        explanations = classifier.explain(X, n_classes=_N_REASONS)
        reasons = [[_to_reason(explanation)] for explanation in explanations]
    # Of two labels to choose among it would tell the difference of the scores only.
    classifier.set_params(multi_label=True, reject_threshold=None)
    scores = classifier.decision_function(X).max(axis=1)
    return [
        [name, f"{score:.4f}", *reason, *(f"{share:.4f}" for share in row)]
        for name, score, reason, row in zip(
            named, scores, reasons or [[]] * len(X), shares, strict=True
        )
    ]


def _to_reason(explanation):
    least = _LEAST_REASON * explanation.score
    return "; ".join(
        f"{heard.label} {heard.probability:.2f}"
        for heard in explanation.classes
        if heard.contribution >= least
    )


def _write_table(out, rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    # In UTF-8 wherever it goes; names of files that are none pass as they are.
    content = text.getvalue().encode("utf-8", "surrogateescape")
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    with open(out, "wb") as stream:
        stream.write(content)
