"""Certify a published checkpoint on a data set: ours beside the published score.

    python certify.py mn04_as --data ESC-10 --weights mn04_as_mAP_432.pt

The protocol belongs to the checkpoint and the data set, and nothing of it can be
chosen: folds, prompt, the embedder's parameters and the front end are written down with
the score, with the digests of the weights and the data, in a small JSON record. Data
sets are told by their layout:

- ESC-50's (``meta/esc50.csv``): a linear probe over the official folds, and, for
  models with a text encoder, labels as prompts without training;
- AudioSet's evaluation segments (``eval_segments.csv``, ``class_labels_indices.csv``
  and the clips, named by their YouTube id): mean average precision of the
  probabilities.
"""

import argparse
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import soundfile
from audioset import read_clips, read_segments
from common import print_table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import PromptZeroShotClassifier, list_checkpoints, load_esc50
from sklabelaudio._checkpoints import resolve_weights
from sklabelaudio._download import hash_file
from sklabelaudio._encoder_options import is_joint, make_embedder
from sklabelaudio.feature_extraction._front_ends import get_settings
from sklabelaudio.text import read_label_list

# What decodes, resamples, computes and scores; transformers only for some encoders.
PACKAGES = ("sklabelaudio", "scikit-learn", "scipy", "numpy", "torch", "librosa")
PACKAGES += ("soundfile", "soxr", "transformers")


@dataclass(frozen=True)
class CertifiedScore:
    """A score, with all that is needed to get it again.

    Parameters
    ----------
    checkpoint : str
        Name of the published checkpoint.
    weights_sha256 : str
        Digest of its files.
    data : dict
        Name of the data set, number of clips, and the digest of their content and of
        what is known of them: classes, and folds.
    protocol : dict
        What was done: task, folds, classifier, prompt, parameters, front end.
    metric : str
        The measure.
    value : float
        The score; the mean where there are folds.
    parts : list of float
        The score of each fold, if there are folds.
    published : dict or None
        The published score for this task and metric, and its source.
    made : dict
        Date, machine, device and versions.
    """

    checkpoint: str
    weights_sha256: str
    data: dict
    protocol: dict
    metric: str
    value: float
    parts: list
    published: dict | None
    made: dict

    def write(self, folder):
        """Write the record as JSON, and return its path."""
        words = f"{self.checkpoint} {self.protocol['task']}"
        name = words.replace("/", "_").replace(" ", "_") + ".json"
        path = Path(folder) / name
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path


def certify(name, data, *, weights=None, device="auto", verbose=False):
    """Run the protocols of a checkpoint on a data set.

    Parameters
    ----------
    name : str
        Name of the checkpoint.
    data : path-like
        Folder of the data set.
    weights : path-like, default=None
        Its file; ``None`` takes that of the data home, or fetches it.
    device : str, default="auto"
        Where the encoder runs.
    verbose : bool, default=False
        Whether to show progress bars.

    Yields
    ------
    CertifiedScore
        The score of each protocol.
    """
    record = next((r for r in list_checkpoints() if r.name == name), None)
    if record is None:
        known = ", ".join(r.name for r in list_checkpoints())
        raise SystemExit(f"{name} is none of the published checkpoints: {known}")
    data = Path(data)
    if (data / "meta" / "esc50.csv").is_file():
        run = _run_esc
    elif (data / "eval_segments.csv").is_file():
        run = _run_audioset
    else:
        raise SystemExit(
            f"--data={data}: there is neither meta/esc50.csv nor eval_segments.csv, "
            "so it is in the layout of none of the data sets known"
        )
    weights = name if weights is None else os.fspath(weights)
    verified = _verify(record, weights)
    embedder = make_embedder(
        weights, encoder=record.encoder, device=device, verbose=verbose
    )
    for about, files, targets, protocol, metric, parts in run(record, embedder, data):
        front_end = embedder._front_end_name
        yield CertifiedScore(
            checkpoint=name,
            weights_sha256=embedder.checkpoint_.sha256,
            data={
                "name": about,
                "n_clips": len(files),
                "sha256": _digest(files, targets),
            },
            protocol={
                **protocol,
                "embedder": type(embedder).__name__,
                "params": {
                    param: getattr(embedder, param)
                    for param in embedder._fingerprint_params
                },
                "weights_verified": verified,
                "front_end": {"name": front_end, **get_settings(front_end)},
            },
            metric=metric,
            value=float(np.mean(parts)),
            parts=[float(part) for part in parts] if len(parts) > 1 else [],
            published=_find_published(record, protocol["task"], metric),
            made={
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {platform.system()}",
                "device": _describe_device(embedder),
                "python": platform.python_version(),
                "libsndfile": soundfile.__libsndfile_version__,
                **_find_versions(),
            },
        )


def _verify(record, weights):
    """Tell whether weights are the published ones; where nobody gave a digest, False.

    Those of another checkpoint are refused, before the work is done.
    """
    try:
        found = resolve_weights(weights, record.encoder, progressbar=True).record
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    is_published = record.sources[0].sha256 is not None
    if found is not record and (found is not None or is_published):
        known = f": it is that of {found.name}" if found is not None else ""
        raise SystemExit(f"--weights={weights} is not the file of {record.name}{known}")
    return is_published


def _describe_device(embedder):
    device = embedder._engine.device
    if device.type != "cuda":
        return device.type
    import torch

    return torch.cuda.get_device_name(device)


def _find_versions():
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _run_esc(record, embedder, folder):
    clips = load_esc50(folder)
    files, y = list(clips.data), clips.target
    name = "ESC-10" if len(np.unique(y)) == 10 else "ESC-50"
    vectors = embedder.set_params(output="embedding").fit_transform(files)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = cross_val_score(classifier, vectors, y, cv=PredefinedSplit(clips.fold))
    targets = np.stack([y, clips.fold.astype(str)], axis=1)
    protocol = {
        "task": f"{name} linear probe",
        "folds": "official",
        "classifier": "StandardScaler, LogisticRegression(max_iter=2000)",
    }
    yield name, files, targets, protocol, "accuracy", scores
    if not is_joint(embedder):
        return
    text_embedder = embedder.text_embedder()  # with the model's own prompt
    classifier = PromptZeroShotClassifier(text_embedder, candidate_labels=np.unique(y))
    predicted = classifier.fit(vectors, y).predict(vectors)
    protocol = {"task": f"{name} zero-shot", "folds": None}
    protocol["prompt"] = text_embedder.prompt
    yield name, files, targets, protocol, "accuracy", [accuracy_score(y, predicted)]


def _run_audioset(record, embedder, folder):
    if record.n_classes is None:
        raise SystemExit(f"{record.name} has no class scores, so no AudioSet mAP")
    files, y = _read_audioset(folder, record.n_classes)
    y_score = embedder.set_params(output="probabilities").fit_transform(files)
    present = y.any(axis=0)
    precisions = average_precision_score(y[:, present], y_score[:, present])
    n_segments = sum(1 for _ in read_segments(folder / "eval_segments.csv"))
    protocol = {
        "task": "AudioSet evaluation",
        "folds": None,
        "classes": int(present.sum()),
        "class_list_sha256": hash_file(folder / "class_labels_indices.csv"),
        "clips_missing": n_segments - len(files),
    }
    targets = [np.flatnonzero(row) for row in y]
    yield "AudioSet evaluation", files, targets, protocol, "mAP", [precisions]


def _read_audioset(folder, n_classes):
    """Return the clips that are there, and their classes as an indicator matrix."""
    path = folder / "class_labels_indices.csv"
    labels = read_label_list(path)
    if len(labels) != n_classes:
        raise SystemExit(
            f"{path} lists {len(labels)} classes and the checkpoint has {n_classes}"
        )
    rows = path.read_text(encoding="utf-8").splitlines()[1:]
    columns = {row.split(",")[1]: i for i, row in enumerate(rows)}
    files, ids = read_clips(folder, "eval_segments.csv")
    y = np.zeros((len(files), n_classes), dtype=bool)
    for file, row, mids in zip(files, y, ids, strict=True):
        unknown = [mid for mid in mids if mid not in columns]
        if unknown:
            raise SystemExit(f"{path} has no {unknown[0]}, which {file} is of")
        row[[columns[mid] for mid in mids]] = True
    return files, y


def _find_published(record, task, metric):
    for score in record.scores:
        if (score.task, score.metric) == (task, metric):
            return {"value": score.value, "source": score.source}
    return None


def _digest(files, targets):
    """Return one digest of files and their targets, whatever folder they are in."""
    lines = sorted(
        f"{hash_file(file)}  {os.path.basename(file)}  {list(map(str, target))}\n"
        for file, target in zip(files, targets, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--weights", help="its file, if not in the data home")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for records")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    rows = []
    for score in certify(
        arguments.name,
        arguments.data,
        weights=arguments.weights,
        device=arguments.device,
        verbose=True,
    ):
        spread = f" ± {np.std(score.parts):.4f}" if score.parts else ""
        published = score.published or {"value": "none found", "source": ""}
        missing = score.protocol.get("clips_missing", 0)
        n_clips = f"{score.data['n_clips']}" + (f", {missing} missing" * bool(missing))
        rows.append(
            (
                score.protocol["task"],
                score.metric,
                n_clips,
                f"{score.value:.4f}{spread}",
                published["value"],
                published["source"],
                score.write(arguments.out),
            )
        )
    print_table(
        ["task", "metric", "clips", "ours", "published", "source", "record"], rows
    )


if __name__ == "__main__":
    main()
