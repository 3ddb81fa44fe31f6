"""SemanticContrastiveClassifier's training: against a bare loop, and on a GPU.

Without ``--encoder`` its time and memory are compared with those of a bare torch loop
over the same modules and batches, from the same weights: vectors, where a batch takes
few milliseconds, a small convolutional encoder, and EfficientAT's mn04 fine-tuned. The
loop does no more than training takes. Both come to the same losses, but for rounding.

``--encoder htsat`` and its like fine-tune an encoder from clips of noise in memory, of
which threads make log-mel while it trains. The share of the time that the device waits
for data is what passes from the end of a batch, after which the device has nothing
left to do, to the next batch's being on the device; after the last batch it is what
passes to the end of the epoch. The device is synchronised at the end of a batch, which
costs nothing: training reads each batch's loss, and waits for it. The first epoch warms
up and does not count. ``--device cpu --clips 8`` tries it without a GPU.
"""

import argparse
import os
import time
from pathlib import Path

from common import (
    compare_with_bare,
    machine,
    one_thread_each,
    peak_memory,
    print_table,
    run_alone,
)

one_thread_each()

import numpy as np
import torch
from semanticac import SmallEncoder
from skorch.callbacks import Callback

from sklabelaudio import SemanticContrastiveClassifier
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import CSCM, EfficientAT, SymmetricContrastiveLoss, load_checkpoint
from sklabelaudio.nn._feature_maps import measure_features

SHARED = Path(os.environ.get("SKLABELAUDIO_SHARED", "../shared"))
MN04 = SHARED / "reference" / "checkpoints" / "efficientat" / "mn04_as_mAP_432.pt"
N_EPOCHS, N_TEXT, N_COMPONENTS = 5, 384, 1024
LR, ENCODER_LR, MOMENTUM, WEIGHT_DECAY, DECAY = 0.01, 8e-5, 0.9, 5e-4, 0.96
CASES = {
    "vectors of 384, 50 classes, batches of 16": {
        "shape": (1600, 384),
        "n_classes": 50,
        "batch_size": 16,
        "rounds": 15,
    },
    "vectors of 2048, 50 classes, batches of 64": {
        "shape": (3200, 2048),
        "n_classes": 50,
        "batch_size": 64,
        "rounds": 15,
    },
    "small convolutions, CSCM, log-mel of 5 s, batches of 16": {
        "shape": (64, 216, 64),
        "n_classes": 10,
        "batch_size": 16,
        "encoder": "small",
        "rounds": 9,
    },
    "mn04 fine-tuned, CSCM, log-mel of 5 s, batches of 16": {
        "shape": (64, 500, 128),
        "n_classes": 10,
        "batch_size": 16,
        "encoder": "mn04",
        "rounds": 9,
    },
}


def make_texts(n_classes):
    """Return labels with their vectors."""
    vectors = np.random.default_rng(1).normal(size=(n_classes, N_TEXT))
    labels = [f"class {k:02}" for k in range(n_classes)]
    return dict(zip(labels, vectors.astype(np.float32), strict=True))


def make_data(shape, n_classes, **_):
    """Return clips, the number of each one's class, and labels with their vectors."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=shape).astype(np.float32)
    y = np.append(np.arange(n_classes), rng.integers(n_classes, size=len(X)))[: len(X)]
    return X, y, make_texts(n_classes)


class Recorder(Callback):
    """Keeps the weights that training begins with, and the clips of each batch.

    It is its own copy, so that what is kept can be read after training.
    """

    def __init__(self, X):
        self.places = {row.tobytes(): index for index, row in enumerate(X)}
        self.state, self.epochs = None, []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, net, **kwargs):
        weights = net.module_.state_dict().items()
        self.state = {name: weight.clone() for name, weight in weights}

    def on_epoch_begin(self, net, **kwargs):
        self.epochs.append([])

    def on_batch_begin(self, net, batch=None, **kwargs):
        rows = batch[0]["inputs"].numpy()
        self.epochs[-1].append(np.array([self.places[row.tobytes()] for row in rows]))


def train(case, callbacks=None):
    """Train by the classifier, and return the loss of each epoch."""
    X, y, texts = case["data"]
    params = {
        None: {"encoder": None, "similarity": "linear"},
        "small": {"encoder": SmallEncoder},
        "mn04": {"encoder": "efficientat", "weights": MN04},
    }[case.get("encoder")]
    classifier = SemanticContrastiveClassifier(
        text_encoder=texts,
        n_components=N_COMPONENTS,
        batch_size=case["batch_size"],
        max_epochs=N_EPOCHS,
        callbacks=callbacks,
        device="cpu",
        random_state=0,
        **params,
    ).fit(X, np.array(list(texts))[y])
    return [epoch["train_loss"] for epoch in classifier.history_]


def train_bare(case, state=None, epochs=None):
    """Train by a loop that does no more than it must, and return each epoch's loss.

    Without the weights to begin with and the batches of each epoch they are drawn.
    """
    X, y, texts = case["data"]
    y, vectors = torch.from_numpy(y), torch.from_numpy(np.stack(list(texts.values())))
    encoder, embed = None, torch.nn.Linear(X.shape[1], N_COMPONENTS)
    if case.get("encoder") == "mn04":
        encoder = load_checkpoint(EfficientAT(width=0.4), MN04)
        maps_of = encoder.forward_features
    elif case.get("encoder") == "small":
        encoder = maps_of = SmallEncoder()
    if encoder is not None:
        head = CSCM(*measure_features(encoder, X.shape[1:]), N_COMPONENTS)

        def embed(inputs):
            return head(maps_of(inputs))

    else:
        head = torch.nn.ModuleDict({"projection": embed})
    texts = torch.nn.ModuleDict({"projector": torch.nn.Linear(N_TEXT, N_COMPONENTS)})
    loss_of = SymmetricContrastiveLoss(logit_scale=1 / 0.07, learn_scale=True)
    parts = {"encoder": encoder, "head": head, "texts": texts, "alignment": loss_of}
    module = torch.nn.ModuleDict({name: part for name, part in parts.items() if part})
    # The classifier does so, which alone makes EfficientAT's batches 1.7 times as fast.
    module = module.to(memory_format=torch.channels_last).train()
    if state is not None:
        module.load_state_dict(state)
    groups = [{"params": loss_of.parameters(), "weight_decay": 0.0}]
    if encoder is not None:
        rate = ENCODER_LR if case["encoder"] == "mn04" else LR
        groups.append({"params": encoder.parameters(), "lr": rate})
    groups.append({"params": [*head.parameters(), *texts.parameters()]})
    optimizer = torch.optim.SGD(
        groups, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    rng, losses = np.random.default_rng(0), []
    for epoch in range(N_EPOCHS):
        if epochs is None:
            n_batches = len(X) // case["batch_size"]
            batches = np.split(rng.permutation(len(X)), n_batches)
        else:
            batches = epochs[epoch]
        total = 0.0
        for batch in batches:
            inputs, classes = torch.from_numpy(X[batch]), y[batch]
            optimizer.zero_grad()
            loss = loss_of(embed(inputs), texts["projector"](vectors[classes]))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        decay.step()
        losses.append(total / len(X))
    return losses


def find_differences(case):
    """Return the relative differences of the losses of the first and last epoch."""
    recorder = Recorder(case["data"][0])
    ours = np.array(train(case, [recorder]))
    bare = np.array(train_bare(case, recorder.state, recorder.epochs))
    differences = np.abs(ours / bare - 1)
    return f"{differences[0]:.0e}, {differences[-1]:.0e}"


def compare(cases):
    """Print the table of time and memory."""

    def peak(side):
        return lambda name: f"{int(run_alone('--peak', side, name)) / 1e6:.0f}"

    compare_with_bare(
        f"{N_EPOCHS} epochs",
        "classifier",
        cases,
        train=train,
        train_bare=train_bare,
        more=[
            ("bare loop's peak, MB", peak("bare")),
            ("classifier's peak, MB", peak("ours")),
            (
                "losses differ by (epoch 1, 5)",
                lambda name: find_differences(cases[name]),
            ),
        ],
    )


class Stopwatch(Callback):
    """Records for each epoch its seconds, and how many of them the device waited."""

    def __init__(self, device):
        self.device = device

    def read(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_epoch_begin(self, net, **kwargs):
        self.began = self.ended = self.read()
        self.waited = 0.0

    def on_batch_begin(self, net, **kwargs):
        # A batch's copying to the device counts as waiting for it.
        self.waited += self.read() - self.ended

    def on_batch_end(self, net, **kwargs):
        self.ended = self.read()

    def on_epoch_end(self, net, **kwargs):
        now = self.read()
        net.history.record("waited", self.waited + now - self.ended)
        net.history.record("seconds", now - self.began)


def fine_tune(arguments):
    """Print how fast an encoder is fine-tuned from clips."""
    front_end = {"panns": "panns_32k"}.get(arguments.encoder, arguments.encoder)
    rate = int(get_front_end(front_end).sampling_rate)
    rng = np.random.default_rng(0)
    shape = arguments.clips, round(arguments.seconds * rate)
    X = rng.standard_normal(shape, dtype=np.float32) / 10
    texts = make_texts(10)
    y = np.resize(list(texts), len(X))
    classifier = SemanticContrastiveClassifier(
        arguments.encoder,
        weights=arguments.weights,
        text_encoder=texts,
        batch_size=arguments.batch_size,
        max_epochs=1 + arguments.epochs,
        amp=arguments.amp or False,
        sampling_rate=rate,
        callbacks=[Stopwatch(arguments.device)],
        device=arguments.device,
        n_jobs=arguments.n_jobs,
        random_state=0,
    ).fit(X, y)
    epochs = classifier.history_[1:]
    seconds = np.array([epoch["seconds"] for epoch in epochs])
    waited = np.array([epoch["waited"] for epoch in epochs])
    peak = peak_memory()
    what = arguments.device
    if what == "cuda":
        peak = torch.cuda.max_memory_allocated()
        what = torch.cuda.get_device_name()
    print(f"on {what}, {os.cpu_count()} cores, losses from ", end="")
    print(" to ".join(f"{classifier.history_[k]['train_loss']:.3f}" for k in (0, -1)))
    header = [
        "",
        "amp",
        "clips/s",
        "waiting for data",
        "clips/s but for it",
        "peak, GB",
    ]
    row = [
        f"{arguments.encoder}, {arguments.clips} clips of {arguments.seconds:g} s",
        arguments.amp,
        f"{len(X) / np.median(seconds):.3g}",
        f"{100 * np.median(waited / seconds):.1f} %",
        f"{len(X) / np.median(seconds - waited):.3g}",
        f"{peak / 1e9:.2f}",
    ]
    print_table(header, [row])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", help="to be fine-tuned from clips, such as htsat")
    parser.add_argument("--weights", help="name or file of its weights")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--amp", choices=["bfloat16", "float16"])
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=-1)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        side, name = arguments.peak
        case = CASES[name] | {"data": make_data(**CASES[name])}
        (train if side == "ours" else train_bare)(case)
        print(peak_memory())
        return
    print(machine())
    if arguments.encoder:
        fine_tune(arguments)
    else:
        cases = {name: CASES[name] for name in arguments.cases}
        compare(
            {name: case | {"data": make_data(**case)} for name, case in cases.items()}
        )


if __name__ == "__main__":
    main()
