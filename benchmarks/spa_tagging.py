"""Semantic proximity alignment: tables 1 and 2 of Liu and Ren (2024), beside ours.

On AudioSet (``--audioset FOLDER --weights ENCODER=FILE ...``): an encoder in AudioSet's
files is trained further on the training segments, without and with the alignment, and
with each of the four texts, and scored on the evaluation segments. The folder holds
``class_labels_indices.csv``, ``balanced_train_segments.csv``, ``eval_segments.csv`` and
the clips, named by their YouTube id.

Otherwise on mixtures of ESC-10: two or three clips of different classes, each the
loudest `SECONDS` of a recording, at random gains. Labels are the sources' AudioSet
names and those of the 527 classes that are above them. Mixtures of a fold have clips of
that official fold only; each fold is tested once, by what was trained on the other
four. Settings are the same in all rows, and none was chosen by these scores.

Finished fits are kept in ``--store``, from which a stopped run goes on.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from audioset import read_clips
from common import machine, print_table
from tqdm import tqdm
from zero_shot_esc50 import AUDIOSET_NAMES, SHARED

from sklabelaudio import (
    EfficientATEmbedder,
    LabelTextEmbedder,
    SPATagger,
    load_esc50,
)
from sklabelaudio.audio import load_audio
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.metrics import mean_average_precision, omap_levels
from sklabelaudio.ontology import AudioSetOntology

RATE, SECONDS, MIXTURES_PER_FOLD = 32_000, 2.5, 100
TEXTS = {
    "Direct": "label", "Prompt": "prompt", "Desc": "definition", "Concat": "path"
}  # fmt: skip
# Per cent: mAP and OmAP without, mAP and OmAP with; then OmAP by text in TEXTS' order.
PUBLISHED = {
    "psla": ("PSLA", 43.9, 76.2, 42.7, 76.9, (76.4, 75.8, 76.4, 76.9)),
    "panns": ("PANN", 43.3, 75.7, 42.4, 76.5, (76.5, 75.4, 76.1, 76.3)),
    "ast": ("AST", 44.7, 77.3, 43.3, 78.8, (78.2, 77.0, 78.4, 78.8)),
    "passt": ("PaSST", 46.8, 78.6, 45.7, 80.4, (79.2, 78.1, 79.7, 80.4)),
    "htsat": ("HTS-AT", 45.9, 78.1, 44.6, 79.4, (77.4, 76.9, 78.8, 79.4)),
}
STARTS = {
    "vectors": {"max_epochs": 30, "batch_size": 32},
    "fine-tuned": {"max_epochs": 5, "encoder_lr": 3e-4, "batch_size": 16},
    "from scratch": {"max_epochs": 10, "batch_size": 16},
}
NO_TEXT = {"alpha": 0.0, "text": "none", "obce": True}
ALIGNED = {"alpha": 1.0, "text": "Concat", "obce": True}


def list_cells(start):
    """Return what is trained: texts, weights of the alignment, losses."""
    cells = [NO_TEXT, ALIGNED]
    cells += [ALIGNED | {"alpha": alpha} for alpha in (0.1, 10.0)]
    if start != "from scratch":  # which takes longest
        cells += [ALIGNED | {"text": text} for text in ("Direct", "Prompt", "Desc")]
    if start == "vectors":  # which is quick
        cells += [
            ALIGNED | {"alpha": alpha, "text": text}
            for alpha in (0.1, 10.0)
            for text in ("Direct", "Prompt", "Desc")
        ]
        cells += [cell | {"obce": False} for cell in (NO_TEXT, ALIGNED)]
    return cells


def take_loudest(waveform, n_samples):
    """Return the loudest part of a waveform, at an RMS of 1."""
    if len(waveform) > n_samples:
        energy = np.concatenate([[0], np.cumsum(waveform.astype(np.float64) ** 2)])
        first = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
        waveform = waveform[first : first + n_samples]
    part = np.zeros(n_samples)
    part[: len(waveform)] = waveform
    return part / max(np.sqrt(np.mean(part**2)), 1e-5)


def make_mixtures(data, ontology):
    """Return waveforms, labels and folds of mixtures."""
    n_samples = int(SECONDS * RATE)
    parts = [
        take_loudest(load_audio(path, sampling_rate=RATE)[0], n_samples)
        for path in data.data
    ]
    known = set(ontology.labels)
    above = {
        name: [label for label in ontology.ancestors(name) if label in known]
        for name in AUDIOSET_NAMES.values()
    }
    rng = np.random.default_rng(0)
    waveforms, labels, folds = [], [], []
    for fold in np.unique(data.fold):
        for _ in range(MIXTURES_PER_FOLD):
            names = rng.choice(data.target_names, rng.integers(2, 4), replace=False)
            mixture, its_labels = np.zeros(n_samples), set()
            for name in names:
                clips = np.flatnonzero((data.target == name) & (data.fold == fold))
                gain = 10 ** (rng.uniform(-10, 0) / 20)
                mixture += gain * parts[rng.choice(clips)]
                its_labels |= {AUDIOSET_NAMES[name], *above[AUDIOSET_NAMES[name]]}
            waveforms.append((mixture / np.abs(mixture).max()).astype(np.float32))
            labels.append(sorted(its_labels))
            folds.append(fold)
    return np.stack(waveforms), labels, np.array(folds)


class Scorer:
    """Plain and ontology-aware scores among AudioSet's 527 classes."""

    def __init__(self, ontology):
        self.distances = ontology.distances()
        self.columns = {label: k for k, label in enumerate(ontology.labels)}

    def __call__(self, labels, scores, classes):
        """Return the mean average precision, and OmAP at each level.

        Both are over the classes that the clips have.
        """
        columns = [self.columns[label] for label in classes]
        wide = np.zeros((len(labels), len(self.columns)))
        wide[:, columns] = scores
        target = np.zeros_like(wide, dtype=int)
        for row, names in zip(target, labels, strict=True):
            row[[self.columns[name] for name in names]] = 1
        levels = omap_levels(
            target, wide, distances=self.distances, zero_division=np.nan
        )
        plain = mean_average_precision(target, wide, zero_division=np.nan)
        return float(plain), [float(level) for level in levels]


def embed_texts(ontology, labels, text_model):
    """Return the vectors of labels by the kind of their text."""
    embedder = LabelTextEmbedder(text_model)
    vectors = {}
    for text, how in TEXTS.items():
        embedder.set_params(description=ontology.describe(labels, how=how))
        rows = embedder.fit_transform(labels)
        vectors[text] = dict(zip(labels, rows, strict=True))
    return vectors


class Store:
    """Finished fits, a line each in files, to the first of which new ones go."""

    def __init__(self, path, *others):
        self.path = Path(path)
        self.rows = {}
        for file in map(Path, (path, *others)):
            lines = file.read_text(encoding="utf-8") if file.exists() else ""
            for line in lines.splitlines():
                if line.endswith("}"):  # else the run was stopped in it
                    key, row = json.loads(line).values()
                    self.rows[json.dumps(key)] = row

    def get(self, key, make):
        """Return the row of a key, which is made and kept if there is none."""
        name = json.dumps(key)
        if name not in self.rows:
            row = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "row": row}) + "\n")
            self.rows[name] = row
        return self.rows[name]


def make_tagger(cell, start, vectors, ontology, *, weights, labels, seed):
    """Return the tagger of a cell."""
    params = dict(STARTS[start])
    if start != "vectors":
        params |= {"encoder": "efficientat"}
    if start == "fine-tuned":
        params |= {"weights": weights}
    if start == "from scratch":
        params |= {"encoder_params": {"width": 0.4, "batch_norm_momentum": 0.1}}
    return SPATagger(
        **params,
        alpha=cell["alpha"],
        obce=cell["obce"],
        label_embedder=vectors.get(cell["text"]),
        ontology=ontology,
        labels=labels,
        device="cpu",
        random_state=seed,
    )


def run_mixtures(arguments, ontology):
    """Train and score all cells on mixtures, and print the tables."""
    data = load_esc50(arguments.data)
    waveforms, y, folds = make_mixtures(data, ontology)
    labels = sorted({label for row in y for label in row})
    front_end = get_front_end("efficientat")
    log_mel = np.stack([front_end(waveform) for waveform in waveforms])
    embedder = EfficientATEmbedder(arguments.efficientat, sampling_rate=RATE)
    embedded = embedder.fit_transform(waveforms)
    before = embedder.set_params(output="probabilities").fit_transform(waveforms)
    vectors = embed_texts(ontology, labels, arguments.text_model)
    score = Scorer(ontology)
    store = Store(arguments.store)
    tasks = [
        (start, cell, seed, int(fold))
        for seed in range(arguments.seeds)
        for start in arguments.starts
        for cell in list_cells(start)
        for fold in np.unique(folds)
    ]
    rows = {}
    for start, cell, seed, fold in tqdm(tasks, mininterval=10):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)

        def fit(start=start, cell=cell, seed=seed, train=train, test=test):
            X = embedded if start == "vectors" else log_mel
            tagger = make_tagger(
                cell,
                start,
                vectors,
                ontology,
                weights=arguments.efficientat,
                labels=labels,
                seed=seed,
            )
            began = time.perf_counter()
            tagger.fit(X[train], [y[k] for k in train])
            seconds = time.perf_counter() - began
            scores = tagger.decision_function(X[test])
            plain, levels = score([y[k] for k in test], scores, tagger.classes_)
            return {"map": plain, "levels": levels, "seconds": seconds}

        key = {"start": start, **cell, "seed": seed, "fold": fold}
        rows.setdefault((start, *cell.values()), []).append(store.get(key, fit))
    print(
        f"{len(y)} mixtures of {SECONDS} s, {len(labels)} labels, "
        f"{np.mean([len(row) for row in y]):.1f} each; {arguments.seeds} seeds\n"
    )
    print_mixtures(rows, arguments.seeds)
    original = [
        score(
            [y[k] for k in np.flatnonzero(folds == fold)],
            before[folds == fold],
            ontology.labels,
        )
        for fold in np.unique(folds)
    ]
    print_levels(rows, original)


def summarise(scores, n_seeds):
    """Return the mean, the deviation of seeds' means, and that of all folds."""
    scores = 100 * np.reshape(scores, (n_seeds, -1))
    spread = np.std(scores.mean(axis=1), ddof=1) if n_seeds > 1 else np.nan
    return f"{scores.mean():.2f} ± {spread:.2f} ({np.std(scores):.2f})"


def print_mixtures(rows, n_seeds):
    """Print the scores of all cells, and their differences from those without texts."""
    table = []
    for (start, alpha, text, obce), fits in rows.items():
        plain = [fit["map"] for fit in fits]
        omap = [np.mean(fit["levels"]) for fit in fits]
        line = [start, text, f"{alpha:g}", "yes" if obce else "no"]
        line += [summarise(plain, n_seeds), summarise(omap, n_seeds)]
        base = rows[start, *(NO_TEXT | {"obce": obce}).values()]
        gains = np.array(omap) - [np.mean(fit["levels"]) for fit in base]
        line.append("" if not alpha else compare(gains, n_seeds))
        line.append(f"{np.mean([fit['seconds'] for fit in fits]):.1f}")
        table.append(line)
    print("Means over folds and seeds in per cent, ± deviation of seeds (of all)\n")
    header = ["start", "text", "alpha", "OBCE", "mAP", "OmAP", "OmAP gained", "s a fit"]
    print_table(header, table)


def compare(gains, n_seeds):
    """Return the mean of paired differences, and in how many seeds it is positive."""
    gains = 100 * np.reshape(gains, (n_seeds, -1))
    n_better = int((gains.mean(axis=1) > 0).sum())
    return f"{gains.mean():+.2f} (better in {n_better} of {n_seeds} seeds)"


def print_levels(rows, original):
    """Print OmAP by level, before and after training."""
    columns = {"mn04's own 527": [levels for _, levels in original]}
    plain = {"mn04's own 527": [plain for plain, _ in original]}
    for start in dict.fromkeys(key[0] for key in rows):
        for words, cell in (("without", NO_TEXT), ("with SPA", ALIGNED)):
            fits = rows[start, *cell.values()]
            columns[f"{start}, {words}"] = [fit["levels"] for fit in fits]
            plain[f"{start}, {words}"] = [fit["map"] for fit in fits]
    table = [
        [
            level,
            *(
                f"{100 * np.mean(levels, axis=0)[level]:.2f}"
                for levels in columns.values()
            ),
        ]
        for level in range(len(original[0][1]))
    ]
    table.append(["OmAP", *(f"{100 * np.mean(x):.2f}" for x in columns.values())])
    table.append(["mAP", *(f"{100 * np.mean(x):.2f}" for x in plain.values())])
    print("By level, in per cent; with SPA is alpha=1, Concat\n")
    print_table(["level", *columns], table)


def read_labelled(folder, segments, ontology):
    """Return the clips of a list of AudioSet, and their labels by name."""
    files, ids = read_clips(folder, segments)
    return files, [[ontology.path(id_)[-1] for id_ in row] for row in ids]


def run_audioset(arguments, ontology):
    """Train further on AudioSet, and print tables 1 and 2."""
    folder, labels = arguments.audioset, ontology.labels
    training, test = (
        read_labelled(folder, segments, ontology)
        for segments in (arguments.segments, "eval_segments.csv")
    )
    vectors = embed_texts(ontology, labels, arguments.text_model)
    score = Scorer(ontology)
    store = Store(arguments.store)
    cells = [NO_TEXT, *({**ALIGNED, "text": text} for text in TEXTS)]
    rows = {}
    for encoder, weights in arguments.weights.items():
        for cell in cells:

            def fit(encoder=encoder, weights=weights, cell=cell):
                tagger = SPATagger(
                    encoder,
                    weights=weights,
                    alpha=cell["alpha"],
                    label_embedder=vectors.get(cell["text"]),
                    ontology=ontology,
                    labels=labels,
                    patchout=(4, 40) if encoder == "passt" else None,
                    duration=10.0,
                    encoder_lr=1e-5,
                    lr=1e-4,
                    mixup_alpha=0.3,
                    n_jobs=-1,
                    verbose=True,
                    random_state=0,
                ).fit(*training)
                scores = tagger.decision_function(test[0])
                plain, levels = score(test[1], scores, labels)
                return {"map": plain, "levels": levels}

            key = {"encoder": encoder, **cell}
            rows[encoder, cell["text"]] = store.get(key, fit)
    print(f"{len(training[0])} clips in training, {len(test[0])} in the evaluation\n")
    print_audioset(rows, list(arguments.weights))


def print_audioset(rows, encoders):
    """Print tables 1 and 2, ours where there are any, and published."""
    first, second = [], []
    for name, *means, by_text in PUBLISHED.values():
        first.append([f"{name}, published", *means])
        second.append([f"{name}, published", *by_text])
    for encoder in encoders:
        name = PUBLISHED.get(encoder, (encoder,))[0]
        fits = {text: rows[encoder, text] for text in ("none", *TEXTS)}
        plain = {text: f"{100 * fit['map']:.1f}" for text, fit in fits.items()}
        omap = {
            text: f"{100 * np.mean(fit['levels']):.1f}" for text, fit in fits.items()
        }
        pairs = [plain["none"], omap["none"], plain["Concat"], omap["Concat"]]
        first.append([f"{name}, ours", *pairs])
        second.append([f"{name}, ours", *(omap[text] for text in TEXTS)])
    print("Table 1: without and with SPA, in per cent\n")
    header = ["mAP, without", "OmAP, without", "mAP, with", "OmAP, with"]
    print_table(["encoder", *header], first)
    print("Table 2: OmAP by text, in per cent\n")
    print_table(["encoder", *TEXTS], second)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared_weights = SHARED / "reference" / "checkpoints" / "efficientat"
    labels = SHARED / "data" / "audioset"
    parser.add_argument("--text-model", required=True)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "ESC-10")
    parser.add_argument(
        "--efficientat", type=Path, default=shared_weights / "mn04_as_mAP_432.pt"
    )
    parser.add_argument("--ontology", type=Path, default=labels / "ontology.json")
    parser.add_argument(
        "--class-list", type=Path, default=labels / "class_labels_indices.csv"
    )
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", type=Path, default=Path("spa_tagging.jsonl"))
    parser.add_argument("--audioset", type=Path)
    parser.add_argument("--segments", default="balanced_train_segments.csv")
    parser.add_argument("--weights", nargs="+", default=[], metavar="ENCODER=FILE")
    arguments = parser.parse_args()
    arguments.weights = dict(pair.split("=", 1) for pair in arguments.weights)
    print(machine() + "\n")
    ontology = AudioSetOntology.from_file(
        arguments.ontology, class_list=arguments.class_list
    )
    if arguments.audioset is None:
        run_mixtures(arguments, ontology)
        print_audioset({}, [])
    else:
        run_audioset(arguments, ontology)


if __name__ == "__main__":
    main()
