"""
========================================
Naming sounds never heard, by attributes
========================================

A classifier that knows how a siren sounds, high and pitched and sweeping, can name one
without having heard any. Here each class has such attributes, and a bilinear classifier
learns from other classes what they mean in sound.
"""

# %%
# Sounds and attributes
# ---------------------
# Clips of sixteen classes, and twelve numbers that describe each class.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import (
    BilinearZeroShotClassifier,
    LabelSimilarityDisplay,
    LogMelExtractor,
    TemporalPooling,
    UnseenClassKFold,
    make_sound_events,
    zero_shot_scorer,
)

events = make_sound_events(20, random_state=0)
for name, value in zip(events.attribute_names, events.attributes["siren"], strict=True):
    print(f"{name:10} {value:.2f}")

# %%
# Clips to vectors
# ----------------
# The mean and the standard deviation of each mel band over time, and how much it
# changes from frame to frame.

features = make_pipeline(
    LogMelExtractor(events.sampling_rate, fmin=50.0),
    TemporalPooling(["mean", "std", "delta_std"]),
)
X, y = features.fit_transform(events.data), events.target

# %%
# Classes never heard
# -------------------
# Each of four splits keeps four classes out of training and tests on their clips. The
# scorer makes these four the labels to choose among, so that chance is 0.25.

classifier = make_pipeline(
    StandardScaler(),
    BilinearZeroShotClassifier(
        events.attributes, center="both", scale="both", random_state=0
    ),
)
splits = cross_validate(
    classifier,
    X,
    y,
    cv=UnseenClassKFold(4, shuffle=True, random_state=0),
    scoring=zero_shot_scorer("accuracy"),
    return_estimator=True,
    return_indices=True,
)
print(f"accuracy {splits['test_score'].mean():.2f}, chance 0.25")

# %%
# Which classes are confused
# --------------------------
# How alike the classes' attributes are once their mean is taken away, beside the names
# that each split gave to the clips of its own four classes. Like classes stand next to
# each other.

attributes = np.array([events.attributes[label] for label in events.target_names])
true, named = [], []
for fitted, test in zip(splits["estimator"], splits["indices"]["test"], strict=True):
    fitted[-1].set_params(candidate_labels=np.unique(y[test]))
    true.extend(y[test])
    named.extend(fitted.predict(X[test]))

figure, (left, right) = plt.subplots(1, 2, figsize=(15, 6.5), layout="constrained")
similarity = LabelSimilarityDisplay.from_embeddings(
    attributes - attributes.mean(axis=0),
    events.target_names,
    order="cluster",
    include_values=False,
    cmap="RdBu_r",
    im_kw={"vmin": -1},
    ax=left,
)
left.set_title("Attributes")
ConfusionMatrixDisplay.from_predictions(
    true,
    named,
    labels=similarity.labels,
    normalize="true",
    include_values=False,
    xticks_rotation="vertical",
    cmap="Blues",
    ax=right,
)
right.set_title("Clips of classes never heard")

# %%
# Most clips with a wrong name have that of a class with like attributes.

if plt.get_backend().lower() != "agg":  # which has no window to show
    plt.show()
