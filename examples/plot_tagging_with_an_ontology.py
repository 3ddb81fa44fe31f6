"""
========================
Tagging with an ontology
========================

A tagger that takes rain for waves is less wrong than one that takes it for a siren.
`SPATagger` can learn that from a tree of labels and from what is known of them, and
OmAP measures it.
"""

# %%
# Mixtures, and a tree
# --------------------
# Two sounds at a time out of sixteen. A clip has their names as labels, and those of
# the families above them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import (
    LabelGraph,
    LogMelExtractor,
    SPATagger,
    TemporalPooling,
    make_omap_scorer,
    make_sound_events,
)
from sklabelaudio.inspection import OmAPLevelsDisplay, TaggingDisplay

events = make_sound_events(24, random_state=0)
families = dict(zip(events.target, events.groups, strict=True))
tree = LabelGraph.from_parents({**families, **dict.fromkeys(events.groups, "sound")})
print(tree.path("rain"), tree.ancestors("rain"))

rng = np.random.default_rng(0)
pairs = rng.permutation(len(events.data))[: 2 * 190].reshape(-1, 2)
mixtures = events.data[pairs].sum(axis=1)
y = [
    sorted({label for k in pair for label in (events.target[k], events.groups[k])})
    for pair in pairs
]
labels = sorted({label for row in y for label in row})

# %%
# Three taggers
# -------------
# The first knows nothing of the labels, the second weighs its mistakes by distances in
# the tree, the third besides brings clips near to vectors of their labels. Those are
# attributes here, a family's the mean of its members'; with real labels they would come
# from a text model.

vectors = dict(events.attributes)
for family in np.unique(events.groups):
    members = [events.attributes[name] for name in families if families[name] == family]
    vectors[family] = np.mean(members, axis=0)
features = make_pipeline(
    LogMelExtractor(events.sampling_rate, fmin=50.0),
    TemporalPooling(),
    StandardScaler(),
)
models = {
    "labels alone": SPATagger(alpha=0, obce=False),
    "with distances": SPATagger(alpha=0),
    "with distances and vectors": SPATagger(alpha=0.3),
}
n_train = 130
X = features.fit(mixtures[:n_train]).transform(mixtures)
scorer = make_omap_scorer(tree.distances(labels), labels=labels)
scores = {}
for name, model in models.items():
    model.set_params(
        label_embedder=vectors,
        ontology=tree,
        labels=labels,
        max_epochs=60,
        random_state=0,
    )
    model.fit(X[:n_train], y[:n_train])
    scores[name] = model.predict_proba(X[n_train:])
    print(f"{name}: OmAP {scorer(model, X[n_train:], y[n_train:]):.3f}")

# %%
# Where they differ
# -----------------
# At level 2 a mistake within the family costs nothing any more, at level 4 none does.
# One small set of made sounds decides nothing between them: on your own data, compare
# over folds and seeds.

OmAPLevelsDisplay.from_predictions(
    y[n_train:],
    scores,
    distances=tree.distances(labels),
    labels=labels,
    baseline="labels alone",
)

# %%
# A scene
# -------
# Three sounds one after the other, heard through a window that moves on by a quarter of
# a second.

names = ["dog_bark", "rain", "siren"]
scene = np.concatenate([events.data[events.target == name][0] for name in names])
n_window, step = mixtures.shape[1], events.sampling_rate // 4
starts = np.arange(0, len(scene) - n_window + 1, step)
windows = np.stack([scene[start : start + n_window] for start in starts])
probabilities = models["with distances and vectors"].predict_proba(
    features.transform(windows)
)
TaggingDisplay.from_probabilities(
    probabilities,
    labels=labels,
    times=(starts + n_window / 2) / events.sampling_rate,
    name=", then ".join(names),
)
plt.show()
