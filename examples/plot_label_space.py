"""
============================
Where labels and sounds meet
============================

A zero-shot classifier names a sound by the label whose vector is most like its own. A
picture of the space that they share shows how well that can go.
"""

# %%
# A space of labels
# -----------------
# Twelve numbers say how each of sixteen things sounds, from its pitch to its rhythm.
# With the name of a text encoder in place of the mapping, `LabelTextEmbedder` gives
# vectors to any labels.

import matplotlib.pyplot as plt
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import (
    LabelTextEmbedder,
    LogMelExtractor,
    TemporalPooling,
    make_sound_events,
)
from sklabelaudio.inspection import EmbeddingProjectionDisplay

events = make_sound_events(10, random_state=0)
embedder = LabelTextEmbedder(events.attributes).fit()
labels = events.target_names
families = dict(zip(events.target, events.groups, strict=True))

# %%
# Two ways to see it
# ------------------
# Twelve dimensions don't fit on paper. PCA keeps the two directions in which labels
# differ most, t-SNE who is whose neighbour, whatever becomes of greater distances.

figure, axes = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
for method, ax in zip(["pca", "tsne"], axes, strict=True):
    EmbeddingProjectionDisplay.from_embedder(
        embedder,
        labels,
        groups=families,
        method=method,
        center=True,
        random_state=0,
        ax=ax,
    )

# %%
# Colours are families, and they are mixed: these vectors say how things sound, not what
# they are. A siren lies beside a whistle, and an engine beside thunder.
#
# Sounds among the labels
# -----------------------
# Ridge regression takes each clip to where its label should be. On the left it learned
# from other clips of all labels, on the right from clips of other labels only.

features = make_pipeline(
    LogMelExtractor(events.sampling_rate, fmin=50.0),
    TemporalPooling(["mean", "std", "delta_std"]),
)
X = features.fit_transform(events.data)
regression = make_pipeline(StandardScaler(), Ridge(100.0))
text = embedder.transform(labels)
splits = {
    "Labels heard before": KFold(8, shuffle=True, random_state=0).split(X),
    "Labels never heard": GroupKFold(8).split(X, groups=events.target),
}
figure, axes = plt.subplots(1, 2, figsize=(17, 6.5), layout="constrained")
for (name, cv), ax in zip(splits.items(), axes, strict=True):
    audio = cross_val_predict(regression, X, embedder.transform(events.target), cv=cv)
    EmbeddingProjectionDisplay.from_embedder(
        embedder,
        labels,
        audio_embeddings=audio,
        audio_labels=events.target,
        center=True,
        random_state=0,
        ax=ax,
    )
    similarity = cosine_similarity(audio - audio.mean(axis=0), text - text.mean(axis=0))
    named = labels[similarity.argmax(axis=1)]
    ax.set_title(
        f"{name}: {accuracy_score(events.target, named):.0%} nearest to theirs"
    )

# %%
# Clips of labels heard before lie around their label. Those of a label never heard keep
# together as well, but most lie nearer to another one. That is why a zero-shot
# classifier is told which labels can occur, and chooses among these.

if plt.get_backend().lower() != "agg":  # which has no window to show
    plt.show()
