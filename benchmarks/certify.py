"""Certify a published checkpoint on a data set: ours beside the published score.

    python certify.py mn04_as --data ESC-10 --weights mn04_as_mAP_432.pt

The protocol belongs to the checkpoint and the data set, and nothing of it can be
chosen: folds, prompt, pooling and front end are written down with the score, with the
digests of the weights and the data, in a small JSON record. Data sets are told by
their layout:

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
from importlib.metadata import version
from pathlib import Path

import numpy as np
from common import print_table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import PromptZeroShotClassifier, list_checkpoints, load_esc50
from sklabelaudio._download import hash_file
from sklabelaudio._encoder_options import is_joint, make_embedder
from sklabelaudio.feature_extraction._front_ends import get_settings
from sklabelaudio.text import read_label_list

PROMPT = "This is a sound of {label}."
PACKAGES = ("sklabelaudio", "scikit-learn", "numpy", "torch", "soxr")


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
        Name of the data set, number of clips, and the digest of their content.
    protocol : dict
        What was done: task, folds, classifier, prompt, pooling, front end.
    metric : str
        The measure.
    value : float
        The score; the mean where there are folds.
    parts : list of float
        The score of each fold, if there are folds.
    published : dict or None
        The published score for this task and metric, and its source.
    made : dict
        Date, machine and versions.
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


def certify(name, data, *, weights=None, **params):
    """Run the protocols of a checkpoint on a data set.

    Parameters
    ----------
    name : str
        Name of the checkpoint.
    data : path-like
        Folder of the data set.
    weights : path-like, default=None
        Its file; ``None`` takes that of the data home, or fetches it.
    **params
        Where and how fast the embedder works: nothing that a score depends on.

    Yields
    ------
    CertifiedScore
        The score of each protocol.
    """
    record = next((r for r in list_checkpoints() if r.name == name), None)
    if record is None:
        known = ", ".join(r.name for r in list_checkpoints())
        raise SystemExit(f"{name} is none of the published checkpoints: {known}")
    weights = name if weights is None else os.fspath(weights)
    embedder = make_embedder(weights, encoder=record.encoder, **params)
    data = Path(data)
    if (data / "meta" / "esc50.csv").is_file():
        runs = _run_esc(record, embedder, data)
    elif (data / "eval_segments.csv").is_file():
        runs = _run_audioset(record, embedder, data)
    else:
        raise SystemExit(
            f"--data={data}: there is neither meta/esc50.csv nor eval_segments.csv, "
            "so it is in the layout of none of the data sets known"
        )
    for about, files, protocol, metric, parts in runs:
        checkpoint = embedder.checkpoint_
        expected = record.sources[0].sha256
        if expected is None or hash_file(checkpoint.path).startswith(expected):
            verified = expected is not None
        else:
            raise SystemExit(f"--weights={weights} is not the file of {name}")
        yield CertifiedScore(
            checkpoint=name,
            weights_sha256=checkpoint.sha256,
            data={"name": about, "n_clips": len(files), "sha256": _digest(files)},
            protocol={
                **protocol,
                "embedder": type(embedder).__name__,
                "weights_verified": verified,
                "pooling": embedder.pooling,
                "hop": embedder.hop,
                "front_end": {
                    "name": record.front_end,
                    **get_settings(record.front_end),
                },
            },
            metric=metric,
            value=float(np.mean(parts)),
            parts=[float(part) for part in parts] if len(parts) > 1 else [],
            published=_find_published(record, protocol["task"], metric),
            made={
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {platform.system()}",
                "python": platform.python_version(),
                **{package: version(package) for package in PACKAGES},
            },
        )


def _run_esc(record, embedder, folder):
    clips = load_esc50(folder)
    files, y = list(clips.data), clips.target
    name = "ESC-10" if len(np.unique(y)) == 10 else "ESC-50"
    vectors = embedder.set_params(output="embedding").fit_transform(files)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = cross_val_score(classifier, vectors, y, cv=PredefinedSplit(clips.fold))
    protocol = {
        "task": f"{name} linear probe",
        "folds": "official",
        "classifier": "StandardScaler, LogisticRegression(max_iter=2000)",
    }
    yield name, files, protocol, "accuracy", scores
    if not is_joint(embedder):
        return
    text_embedder = embedder.text_embedder(prompt=PROMPT)
    classifier = PromptZeroShotClassifier(text_embedder, candidate_labels=np.unique(y))
    predicted = classifier.fit(vectors, y).predict(vectors)
    protocol = {"task": f"{name} zero-shot", "folds": None, "prompt": PROMPT}
    yield name, files, protocol, "accuracy", [accuracy_score(y, predicted)]


def _run_audioset(record, embedder, folder):
    if record.n_classes is None:
        raise SystemExit(f"{record.name} has no class scores, so no AudioSet mAP")
    files, y = _read_audioset(folder, record.n_classes)
    y_score = embedder.set_params(output="probabilities").fit_transform(files)
    present = y.any(axis=0)
    precisions = average_precision_score(y[:, present], y_score[:, present])
    protocol = {
        "task": "AudioSet evaluation",
        "folds": None,
        "classes": int(present.sum()),
        "clips_missing": _count_segments(folder) - len(files),
    }
    yield "AudioSet evaluation", files, protocol, "mAP", [precisions]


def _read_segments(folder):
    lines = (folder / "eval_segments.csv").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            video, start, _, mids = line.split(", ", maxsplit=3)
            yield video, start, mids.strip('"').split(",")


def _count_segments(folder):
    return sum(1 for _ in _read_segments(folder))


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
    there = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in {".wav", ".flac", ".mp3", ".ogg"}:
            there[file.stem] = str(file)
    files, y = [], []
    for video, _, mids in _read_segments(folder):
        # Archives put a letter before the id, for ids may begin with a dash.
        file = there.get(video) or there.get("Y" + video)
        if file is not None:
            files.append(file)
            indicator = np.zeros(n_classes, dtype=bool)
            indicator[[columns[mid] for mid in mids if mid in columns]] = True
            y.append(indicator)
    if not files:
        raise SystemExit(f"--data={folder}: none of the segments' clips is there")
    return files, np.stack(y)


def _find_published(record, task, metric):
    for score in record.scores:
        if (score.task, score.metric) == (task, metric):
            return {"value": score.value, "source": score.source}
    return None


def _digest(files):
    """Return one digest of many files, whatever folder they are in."""
    lines = sorted(f"{hash_file(file)}  {os.path.basename(file)}\n" for file in files)
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
        rows.append(
            (
                score.protocol["task"],
                score.metric,
                f"{score.value:.4f}{spread}",
                published["value"],
                published["source"],
                score.write(arguments.out),
            )
        )
    print_table(["task", "metric", "ours", "published", "source", "record"], rows)


if __name__ == "__main__":
    main()
