"""Naming clips by label texts without training: encoder x text model x prompt x method.

From the files, with real weights: a tagger's probabilities and
`TaggerZeroShotClassifier` over all ten labels of ESC-10, or all fifty of ESC-50. There
is no training, no split and nothing random, so one figure is all there is. The
temperatures are given, not chosen by the scores.

Below it what training on the same vectors gives: logistic regression on the official
folds, and the bilinear model on all pairs of unseen classes (mean over seeds, chance
0.5), by text model and three ways to centre and scale.

``--text-model`` is a Hugging Face id or folder, and may be given several times.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from common import machine, print_table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from zero_shot_esc50 import (
    PROMPTS,
    SHARED,
    as_mapping,
    load_word_vectors,
    make_classifier,
    score,
)

from sklabelaudio import (
    EfficientATEmbedder,
    LabelTextEmbedder,
    LeaveClassesOut,
    TaggerZeroShotClassifier,
    YAMNetEmbedder,
    load_esc50,
)
from sklabelaudio.text import read_label_list

METHODS = {
    "ConSE, top 5": {"method": "conse", "top_k": 5},
    "ConSE, top 10": {"method": "conse"},
    "bridge, T=0.1": {"temperature": 0.1},
    "bridge, T=0.05": {"temperature": 0.05},
    "bridge, T=0.02": {"temperature": 0.02},
    "bridge, top 1": {"top_k": 1},
}
# Centring and scaling for the bilinear model.
SIDES = [
    {"center": None, "scale": "text"},
    {"center": "text", "scale": "both"},
    {"center": "both", "scale": "both"},
]


def encode(embedder, data):
    """Return probabilities and embeddings of all clips, and seconds for the first."""
    start = time.perf_counter()
    tagger = embedder.set_params(output="probabilities")
    probabilities = tagger.fit_transform(data.data)
    seconds = time.perf_counter() - start
    embeddings = embedder.set_params(output="embedding").fit_transform(data.data)
    return probabilities, embeddings, seconds


def untrained(encoder, probabilities, tagger_labels, text_model, data):
    """Return a row of accuracies for each prompt."""
    rows = []
    for prompt, template in PROMPTS.items():
        embedder = LabelTextEmbedder(text_model, prompt=template)
        labels = dict.fromkeys([*tagger_labels, *data.target_names])
        vectors = dict(zip(labels, embedder.fit_transform(list(labels)), strict=True))
        row = [encoder, Path(text_model).name, prompt]
        for params in METHODS.values():
            classifier = TaggerZeroShotClassifier(
                vectors,
                tagger_labels=tagger_labels,
                candidate_labels=data.target_names,
                **params,
            ).fit()
            named = classifier.predict(probabilities)
            row.append(f"{accuracy_score(data.target, named):.4f}")
        rows.append(row)
    return rows


def supervised(encoder, X, data):
    """Return the row of logistic regression on the official folds."""
    row = [encoder]
    linear = LogisticRegression(max_iter=5000)
    for model in (linear, make_pipeline(StandardScaler(), linear)):
        scores = cross_val_score(model, X, data.target, cv=PredefinedSplit(data.fold))
        row.append(f"{scores.mean():.4f} ({', '.join(f'{s:.3f}' for s in scores)})")
    return row


def unseen_pairs(encoder, X, data, text_vectors, seeds):
    """Return a row of mean accuracies over pairs of unseen classes for each text."""
    rows = []
    for text, vectors in text_vectors.items():
        row = [encoder, text]
        for params in SIDES:
            scores = [
                score(
                    make_classifier(vectors, seed, "1e-4", **params),
                    X,
                    data.target,
                    LeaveClassesOut(2),
                )
                for seed in seeds
            ]
            spread = np.std(np.mean(scores, axis=1))
            row.append(f"{np.mean(scores):.3f} ± {spread:.3f} ({np.std(scores):.2f})")
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checkpoints = SHARED / "reference" / "checkpoints"
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "ESC-10")
    parser.add_argument(
        "--yamnet", type=Path, default=checkpoints / "yamnet" / "yamnet.tflite"
    )
    parser.add_argument(
        "--efficientat",
        type=Path,
        default=checkpoints / "efficientat" / "mn04_as_mAP_432.pt",
    )
    parser.add_argument(
        "--audioset-labels",
        type=Path,
        default=SHARED / "data" / "audioset" / "class_labels_indices.csv",
    )
    parser.add_argument(
        "--word-vectors",
        type=Path,
        default=SHARED / "reference" / "word2vec" / "audioset_word2vec.npz",
    )
    parser.add_argument("--text-model", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print(machine() + "\n")
    data = load_esc50(arguments.data)
    yamnet = YAMNetEmbedder(arguments.yamnet)
    mn04 = EfficientATEmbedder(arguments.efficientat)
    yamnet_labels = yamnet.fit(data.data).checkpoint_.labels
    texts = {}
    if arguments.word_vectors.exists():
        texts["Word2Vec"] = load_word_vectors(arguments.word_vectors, data.target_names)
    for text_model in arguments.text_model:
        vectors = LabelTextEmbedder(text_model).fit_transform(data.target_names)
        texts[Path(text_model).name] = as_mapping(data.target_names, vectors)
    taggers = {
        "YAMNet": (yamnet, yamnet_labels),
        "EfficientAT mn04": (mn04, read_label_list(arguments.audioset_labels)),
    }
    rows, linear, pairs = [], [], []
    for name, (embedder, tagger_labels) in taggers.items():
        probabilities, X, seconds = encode(embedder, data)
        print(f"{name}: {len(data.data)} files in {seconds:.1f} s")
        for text_model in arguments.text_model:
            rows += untrained(name, probabilities, tagger_labels, text_model, data)
        linear.append(supervised(name, X, data))
        pairs += unseen_pairs(name, X, data, texts, range(arguments.seeds))
    print(f"\nAccuracy over {len(data.target_names)} labels, no training\n")
    print_table(["encoder", "text model", "prompt", *METHODS], rows)
    print("Trained on the same vectors: logistic regression, official folds (each)\n")
    print_table(["encoder", "as they are", "scaled"], linear)
    print("Bilinear, pairs of unseen classes, ± deviation over seeds (over pairs)\n")
    sides = [f"center={s['center']}, scale={s['scale']}" for s in SIDES]
    print_table(["encoder", "text", *sides], pairs)


if __name__ == "__main__":
    main()
