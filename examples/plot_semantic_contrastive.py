"""
==================================
Labels as language, while training
==================================

`SemanticContrastiveClassifier` trains a network so that each clip comes near to the
text of its own label and away from the texts of others. What it has learnt of texts
holds, if less well, for labels that it has never heard.
"""

# %%
# Sounds, and what stands for texts
# ---------------------------------
# Clips of sixteen classes. With real recordings a text model makes vectors of the
# labels. Here each class has twelve attributes instead, such as how high and how steady
# it is. Four classes are kept out of training, by lot, and so are the clips of a fold.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import ConfusionMatrixDisplay

from sklabelaudio import (
    LabelSimilarityDisplay,
    LogMelExtractor,
    SemanticContrastiveClassifier,
    UnseenClassKFold,
    make_sound_events,
)

events = make_sound_events(20, random_state=0)
texts = {
    label: 2 * np.asarray(attributes) - 1
    for label, attributes in events.attributes.items()
}
log_mel = LogMelExtractor(events.sampling_rate, n_mels=32, hop_length=512, fmin=50.0)
X, y = log_mel.fit_transform(events.data), events.target

splits = list(UnseenClassKFold(4, shuffle=True, random_state=0).split(X, y))
heard, unheard = splits[0]
train, test = heard[events.fold[heard] != 5], heard[events.fold[heard] == 5]
print("never trained on:", ", ".join(np.unique(y[unheard])))


# %%
# An encoder of one's own
# -----------------------
# Any class of torch modules will do that makes a map ``(n_clips, n_channels, height,
# width)`` of a batch. The published ones go by name, and begin with their weights.


class SmallEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = [torch.nn.BatchNorm2d(1)]
        for n_before, n_after in ((1, 16), (16, 32), (32, 64)):
            layers += [
                torch.nn.Conv2d(n_before, n_after, 3, padding=1, bias=False),
                torch.nn.BatchNorm2d(n_after),
                torch.nn.ReLU(),
                torch.nn.MaxPool2d(2),
            ]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, log_mel):
        return self.layers(log_mel.unsqueeze(1))


classifier = SemanticContrastiveClassifier(
    SmallEncoder,
    text_encoder=texts,
    n_components=64,
    positives="class",
    max_epochs=15,
    lr=0.03,
    time_roll=True,
    device="cpu",
    random_state=0,
)
classifier.fit(X[train], y[train])
print(f"accuracy {classifier.score(X[test], y[test]):.2f}")

# %%
# Clips against texts
# -------------------
# Cosines in the joint space between a batch of test clips, one of each class, and the
# texts of their labels. Training wants the diagonal bright and the rest dark.

batch = [test[y[test] == label][0] for label in classifier.classes_]
display = LabelSimilarityDisplay.from_embeddings(
    classifier.transform(X[batch]),
    [f"clip of {label}" for label in y[batch]],
    column_embeddings=classifier.label_embeddings_,
    column_labels=classifier.classes_,
)
display.ax_.set(ylabel="Clip", xlabel="Text of the label")

# %%
# Classes never heard
# -------------------
# Their texts become the labels to choose from, and nothing is trained again.

classifier.set_params(candidate_labels=np.unique(y[unheard]))
ConfusionMatrixDisplay.from_predictions(
    y[unheard], classifier.predict(X[unheard]), xticks_rotation=45, colorbar=False
)
plt.tight_layout()

# %%
# Four classes say little, and so does one training. So the same for each of the four
# lots, with all clips of the others to train on. Chance is 0.25.

for heard, unheard in splits:
    classifier.set_params(candidate_labels=None).fit(X[heard], y[heard])
    classifier.set_params(candidate_labels=np.unique(y[unheard]))
    accuracy = classifier.score(X[unheard], y[unheard])
    print(f"{accuracy:.2f}  {', '.join(classifier.classes_)}")

# %%
# Among all sixteen labels a clip is seldom given one that was not trained: the network
# leans to those it knows.

classifier.set_params(candidate_labels=np.unique(y))
named = classifier.predict(X[unheard])
print(f"right {np.mean(named == y[unheard]):.2f} of the clips never trained on")
plt.show()
