import pickle
import shutil
import subprocess
import sys

import joblib
import numpy as np
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from sklabelaudio.audio import RandomGain, RandomNoise, RandomShift
from sklabelaudio.classification import SemanticContrastiveClassifier
from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.feature_extraction import LogMelExtractor
from sklabelaudio.model_selection import zero_shot_scorer
from sklabelaudio.nn import EfficientAT, SymmetricContrastiveLoss
from sklabelaudio.text import LabelTextEmbedder

LABELS = ["bell", "cat", "dog", "rain"]
TEXTS = {
    label: np.random.default_rng(k).normal(size=5) for k, label in enumerate(LABELS)
}
TEXTS["bell dog"] = TEXTS["bell"] + TEXTS["dog"]
N_FRAMES, N_MELS = 12, 8
SIMILARITIES = ["cscm", "linear", "lstm", "transformer"]


class Encoder(nn.Module):
    """A map of 16 channels, 2 by 3, of log-mel of 12 frames and 8 bands."""

    def __init__(self, n_channels=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, n_channels, 4, stride=4), nn.BatchNorm2d(n_channels), nn.ReLU()
        )

    def forward(self, log_mel):
        return self.layers(log_mel.mT.unsqueeze(1))


class Vectors(nn.Module):
    """Gives what heads can't read."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(N_MELS, 3)

    def forward(self, log_mel):
        return self.layer(log_mel.mean(dim=1))


def make_vectors(n_clips=80, labels=LABELS, seed=0, noise=0.5, n_features=12):
    """Vectors that are the texts', mixed, and noise."""
    rng = np.random.default_rng([seed, 1])
    mixing = np.random.default_rng(99).normal(size=(5, n_features))
    y = np.array(labels)[np.arange(n_clips) % len(labels)]
    X = np.stack([TEXTS[label] for label in y]) @ mixing
    return (X + noise * rng.normal(size=X.shape)).astype(np.float32), y


def make_log_mel(n_clips=40, seed=0, n_frames=N_FRAMES):
    """Log-mel whose bands are of the label's pattern."""
    rng = np.random.default_rng([seed, 2])
    patterns = np.random.default_rng(98).normal(size=(len(LABELS), 1, N_MELS))
    classes = np.arange(n_clips) % len(LABELS)
    X = patterns[classes] + 0.3 * rng.normal(size=(n_clips, n_frames, N_MELS))
    return X.astype(np.float32), np.array(LABELS)[classes]


def make_waveforms(n_clips=8, n_samples=16000, rate=32000, seed=0):
    """Tones whose height is the label's."""
    rng = np.random.default_rng([seed, 3])
    classes = np.arange(n_clips) % len(LABELS)
    heights = np.array([300, 900, 2700, 8100])[classes][:, np.newaxis]
    X = np.sin(2 * np.pi * heights * np.arange(n_samples) / rate)
    X += 0.1 * rng.normal(size=X.shape)
    return 0.1 * X, np.array(LABELS)[classes]


def make(encoder=None, **params):
    settings = {
        "similarity": "linear" if encoder is None else "cscm",
        "text_encoder": TEXTS,
        "n_components": 16,
        "max_epochs": 5,
        "device": "cpu",
        "random_state": 0,
    }
    if encoder is Encoder:
        settings |= {"max_epochs": 20}
    return SemanticContrastiveClassifier(encoder, **{**settings, **params})


class Recorder(Callback):
    """Keeps the network as it begins, the batches and the rates."""

    kept = {}

    def on_train_begin(self, net, **kwargs):
        self.kept["start"] = pickle.loads(pickle.dumps(net.module_))
        self.kept["batches"], self.kept["groups"], self.kept["norms"] = [], [], []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if training:
            self.kept["batches"].append(batch)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        grads = [w.grad for _, w in named_parameters if w.grad is not None]
        self.kept["norms"].append(torch.cat([g.flatten() for g in grads]).norm().item())

    def on_epoch_end(self, net, **kwargs):
        groups = net.optimizer_.param_groups
        self.kept["groups"].append([dict(group, params=None) for group in groups])


# What it learns


@pytest.mark.parametrize("text_encoder", [TEXTS, None], ids=["texts", "classes"])
def test_is_a_plain_loop_over_the_same_modules(text_encoder):
    X, y = make_vectors()
    classifier = make(text_encoder=text_encoder, callbacks=[Recorder()], max_epochs=3)
    classifier.fit(X, y)
    batches = Recorder.kept["batches"]
    assert [len(inputs["inputs"]) for inputs, _ in batches] == 3 * [16] * 5
    net = Recorder.kept["start"]
    scale = [w for name, w in net.named_parameters() if name.startswith("alignment")]
    others = [w for name, w in net.named_parameters() if name[:9] != "alignment"]
    assert len(scale) == (text_encoder is not None)
    optimizer = torch.optim.SGD(
        [{"params": others}, {"params": scale, "weight_decay": 0.0}],
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.96)
    losses = []
    for k, (inputs, target) in enumerate(batches):
        clips = net.head.projection(inputs["inputs"])
        if text_encoder is None:
            loss = nn.functional.cross_entropy(net.classifier(clips), target)
        else:
            texts = net.texts.projector(net.texts.vectors)[target.argmax(dim=1)]
            s = net.alignment.log_scale.exp() * nn.functional.cosine_similarity(
                clips[:, None], texts[None], dim=2
            )
            order = torch.arange(16)
            ce = nn.functional.cross_entropy
            loss = (ce(s, order) + ce(s.T, order)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if k % 5 == 4:
            schedule.step()
    trained = classifier._module.state_dict()
    for name, values in net.state_dict().items():
        torch.testing.assert_close(trained[name], values, rtol=1e-4, atol=1e-6)
    found = [row["train_loss"] for row in classifier.history_]
    np.testing.assert_allclose(found, np.reshape(losses, (3, 5)).mean(1), rtol=1e-5)
    rates = [row["lr"] for row in classifier.history_]
    np.testing.assert_allclose(rates, [0.01, 0.0096, 0.009216])


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"positives": "class"},
        {"logit_scale": 20.0},
        {"text_encoder": None},
        {"mixup_alpha": 0.3},
        {"mixup_alpha": 0.3, "positives": "class"},
        {"mixup_alpha": 0.3, "text_encoder": None},
        {"optimizer": "AdamW"},
        {"text_encoder": LabelTextEmbedder(TEXTS, normalize=True)},
        {"gradient_clip": 0.5},
        {"amp": "bfloat16"},
        {"early_stopping": True},
    ],
    ids=str,
)
def test_learns_from_vectors(params):
    X, y = make_vectors()
    test, y_test = make_vectors(seed=1)
    classifier = make(**params).fit(X, y)
    assert classifier.score(test, y_test) > 0.9
    assert classifier.history_[-1]["train_loss"] < classifier.history_[0]["train_loss"]
    assert classifier.n_iter_ == len(classifier.history_) == 5
    assert classifier.n_features_in_ == 12


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("texts", [TEXTS, None], ids=["texts", "classes"])
def test_learns_from_log_mel(similarity, texts):
    X, y = make_log_mel()
    test, y_test = make_log_mel(seed=1)
    classifier = make(Encoder, similarity=similarity, text_encoder=texts).fit(X, y)
    assert classifier.score(test, y_test) > 0.9
    assert classifier.transform(test).shape == (40, 16)
    assert not hasattr(classifier, "n_features_in_")


def test_the_papers_settings_are_at_hand():
    """Plain SGD of 8e-5 for all, and cosines as they are."""
    X, y = make_log_mel()
    printed = {"lr": 8e-5, "encoder_lr": None, "text_lr": None, "momentum": 0.0}
    params = {**printed, "logit_scale": 1.0, "callbacks": [Recorder()], "max_epochs": 2}
    classifier = make(Encoder, **params).fit(X, y)
    for epoch, groups in enumerate(Recorder.kept["groups"]):
        (group,) = groups  # no encoder apart, and no scale
        assert group["lr"] == pytest.approx(8e-5 * 0.96**epoch)
        assert (group["weight_decay"], group["momentum"]) == (5e-4, 0)
    assert (classifier.batch_size, classifier.optimizer) == (16, "SGD")
    # With which cosines hardly move.
    first, last = (row["train_loss"] for row in classifier.history_)
    assert last == pytest.approx(first, abs=0.05)


def test_encoder_rates(tmp_path):
    X = np.random.default_rng(0).normal(size=(4, 64, 128)).astype(np.float32)
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "weights.pt")
    for params, expected in (
        ({}, [0.01]),
        ({"weights": tmp_path / "weights.pt"}, [8e-5, 0.01]),
        ({"weights": tmp_path / "weights.pt", "encoder_lr": None}, [0.01]),
        ({"encoder_lr": 0.002, "lr_decay": None}, [0.002, 0.01]),
    ):
        sizes = {} if "weights" in params else {"encoder_params": {"width": 0.1}}
        make(
            "efficientat",
            logit_scale=1.0,
            max_epochs=1,
            callbacks=[Recorder()],
            **sizes,
            **params,
        ).fit(X, LABELS)
        rates = [group["lr"] for group in Recorder.kept["groups"][0]]
        assert rates == expected


def test_labels_that_were_not_trained_are_found_by_their_texts():
    rng = np.random.default_rng(0)
    texts = {f"label {k}": rng.normal(size=4) for k in range(44)}
    mixing = rng.normal(size=(4, 12))
    names = np.repeat(list(texts), 10)
    X = np.stack([texts[name] for name in names]) @ mixing
    X += 0.1 * rng.normal(size=X.shape)
    classifier = make(text_encoder=texts, max_epochs=10).fit(X[:400], names[:400])
    test, y_test = X[400:], names[400:]
    assert zero_shot_scorer("accuracy")(classifier, test, y_test) > 0.9
    trained = classifier.decision_function(test)
    unseen = np.unique(y_test).tolist()
    classifier.set_params(candidate_labels=[*unseen, "label 0"])
    assert classifier.classes_.tolist() == ["label 0", *unseen]
    assert "label 40" not in classifier.seen_classes_
    scores = classifier.decision_function(test)
    np.testing.assert_allclose(scores[:, 0], trained[:, 0])
    assert classifier.label_embeddings_.shape == (5, 16)


def test_scores_are_cosines_in_the_joint_space():
    X, y = make_vectors()
    classifier = make(logit_scale=7.0).fit(X, y)
    vectors, texts = classifier.transform(X), classifier.label_embeddings_
    assert vectors.dtype == texts.dtype == np.float32
    lengths = [np.linalg.norm(v, axis=1) for v in (vectors, texts)]
    cosines = vectors @ texts.T / np.outer(*lengths)
    scores = classifier.decision_function(X)
    np.testing.assert_allclose(scores, 7 * cosines, rtol=1e-4, atol=1e-4)
    proba = classifier.predict_proba(X)
    powers = np.exp(scores)
    np.testing.assert_allclose(proba, powers / powers.sum(axis=1, keepdims=True))
    best = classifier.classes_[proba.argmax(axis=1)]
    np.testing.assert_array_equal(classifier.predict(X), best)
    names = classifier.get_feature_names_out()
    assert len(names) == 16
    # Without texts they are those of a linear classifier.
    classifier = make(text_encoder=None).fit(X, y)
    layer = classifier._module.classifier
    with torch.inference_mode():
        expected = layer(torch.from_numpy(classifier.transform(X)))
    np.testing.assert_allclose(
        classifier.decision_function(X), expected.numpy(), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(classifier.label_embeddings_, layer.weight.detach())


def test_two_labels():
    X, y = make_vectors(labels=LABELS[:2])
    classifier = make().fit(X, y)
    decision = classifier.decision_function(X)
    assert decision.shape == (80,)
    np.testing.assert_array_equal(decision > 0, classifier.predict(X) == "cat")


# Texts


def make_trained(text_encoder, **params):
    return make(text_encoder=text_encoder, text_lr=0.01, **params)


@pytest.mark.parametrize("n_components", [8, 16])
def test_text_encoder_is_trained(small_text_encoder, n_components, tmp_path):
    X, y = make_vectors(noise=0.3)
    folder = shutil.copytree(small_text_encoder, tmp_path / "model")
    classifier = make_trained(
        folder,
        n_components=n_components,
        prompt=["sound of {label}", "{label}"],
        optimizer="AdamW",
        max_epochs=20,
        callbacks=[Recorder()],
    ).fit(X, y)
    test, y_test = make_vectors(seed=1, noise=0.3)
    assert classifier.score(test, y_test) > 0.9
    # Into a CLIP's own space there is no projection.
    projector = classifier._module.texts.projector
    is_there = "clip" in small_text_encoder.name and n_components == 8
    assert isinstance(projector, nn.Identity if is_there else nn.Linear)
    before = Recorder.kept["start"].texts.encoder.state_dict()
    after = classifier._module.texts.encoder.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in before)
    # It begins with the weights in the folder, of the prompt's texts.
    first = Recorder.kept["start"].eval().texts
    vectors = LabelTextEmbedder(folder, prompt=classifier.prompt).fit_transform(LABELS)
    with torch.inference_mode():
        expected = first.projector(torch.from_numpy(vectors)).numpy()
        np.testing.assert_allclose(first().numpy(), expected, rtol=1e-3, atol=1e-4)
    groups = [group["lr"] for group in Recorder.kept["groups"][0]]
    assert groups == [0.01, 0.01, 0.01]
    classifier.set_params(candidate_labels=["a cat", "dog"])
    proba = classifier.predict_proba(test)
    joblib.dump(classifier, tmp_path / "classifier")
    there = joblib.load(tmp_path / "classifier")
    np.testing.assert_array_equal(there.predict_proba(test), proba)
    np.testing.assert_array_equal(there.label_embeddings_, classifier.label_embeddings_)
    # Only labels that are new need the tokenizer.
    shutil.rmtree(folder)
    there = joblib.load(tmp_path / "classifier").set_params(candidate_labels=None)
    classifier.set_params(candidate_labels=None)
    np.testing.assert_array_equal(
        there.predict_proba(test), classifier.predict_proba(test)
    )


def test_text_encoder_that_is_frozen(small_clip):
    X, y = make_vectors()
    prompt = "sound of {label}"
    params = {"freeze_text_encoder": True, "prompt": prompt}
    classifier = make_trained(small_clip, n_components=8, **params).fit(X, y)
    vectors = LabelTextEmbedder(small_clip, prompt=prompt).fit_transform(LABELS)
    np.testing.assert_array_equal(classifier.label_embeddings_, vectors)
    assert classifier.score(X, y) > 0.9
    # As an embedder it is projected, and trains alike otherwise.
    embedder = LabelTextEmbedder(small_clip, prompt=prompt)
    by_name = make_trained(small_clip, **params).fit(X, y)
    by_embedder = make(text_encoder=embedder).fit(X, y)
    np.testing.assert_array_equal(
        by_name.predict_proba(X), by_embedder.predict_proba(X)
    )
    assert not np.allclose(by_name.label_embeddings_[:, :8], vectors)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_text_encoder_is_frozen_and_freed_on_the_way(small_text_encoder, dtype):
    X, y = make_vectors()
    X = X.astype(dtype)
    params = {"warm_start": True, "max_epochs": 2, "freeze_text_encoder": True}
    classifier = make_trained(small_text_encoder, **params).fit(X, y)
    frozen = classifier.label_embeddings_
    state = torch.random.get_rng_state()
    classifier.set_params(freeze_text_encoder=False, callbacks=[Recorder()]).fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    # It begins with what was learnt over the texts as they were.
    with torch.inference_mode():
        begun = Recorder.kept["start"].eval().texts().numpy()
    np.testing.assert_allclose(begun, frozen, rtol=1e-3, atol=1e-4)
    trained = classifier._module.texts.encoder.state_dict()
    trained = {name: values.clone() for name, values in trained.items()}
    first = Recorder.kept["start"].texts.encoder.state_dict()
    assert not any(torch.equal(first[name], trained[name]) for name in trained)
    # And stays as it is from now on.
    classifier.set_params(freeze_text_encoder=True).fit(X, y)
    for name, values in classifier._module.texts.encoder.state_dict().items():
        assert torch.equal(values, trained[name])
    assert classifier.n_iter_ == 6
    there = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(there.predict_proba(X), classifier.predict_proba(X))


def test_frozen_texts_are_encoded_once_a_fit(monkeypatch):
    seen = []
    transform = LabelTextEmbedder.transform

    def record(self, labels):
        seen.append(list(labels))
        return transform(self, labels)

    monkeypatch.setattr(LabelTextEmbedder, "transform", record)
    X, y = make_vectors()
    classifier = make().fit(X, y)
    classifier.predict(X)
    assert seen == [LABELS]
    classifier.set_params(candidate_labels=["cat", "bell dog"])
    for _ in range(2):
        classifier.predict(X)
    assert seen == [LABELS, ["bell dog"]]


@pytest.mark.parametrize("frozen", [False, True])
def test_labels_of_200_words_are_cut_with_one_warning(small_text_encoder, frozen):
    X, y = make_vectors(20)
    long = " ".join(["dog"] * 200)
    y = np.where(y == "dog", long, y)
    params = {"freeze_text_encoder": frozen, "max_epochs": 2}
    classifier = make_trained(small_text_encoder, **params)
    with pytest.warns(UserWarning, match="is longer than the model's 30 tok") as told:
        classifier.fit(X, y)
    (warning,) = told
    assert repr(long) in str(warning.message)
    classifier.predict(X)  # without another


def test_word_vectors_in_a_file_stay_as_they_are(tmp_path):
    X, y = make_vectors()
    rows = [" ".join(map(str, [label, *TEXTS[label]])) for label in LABELS]
    path = tmp_path / "words.txt"
    path.write_text("\n".join(["4 5", *rows]) + "\n")
    with pytest.raises(ValueError, match=r"word vectors, .* freeze_text_encoder=True"):
        make(text_encoder=path, prompt=None).fit(X, y)
    classifier = make(text_encoder=path, prompt=None, freeze_text_encoder=True)
    np.testing.assert_allclose(
        classifier.fit(X, y).predict_proba(X), make().fit(X, y).predict_proba(X)
    )
    # And can't be freed.
    proba = classifier.predict_proba(X)
    classifier.set_params(freeze_text_encoder=False, warm_start=True)
    with pytest.raises(ValueError, match=r"word vectors, .* freeze_text_encoder=True"):
        classifier.fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), proba)


def test_texts_are_trained_in_half_precision(small_text_encoder):
    X, y = make_vectors()
    single, half, scaled = (
        make_trained(small_text_encoder, optimizer="AdamW", lr=0.003, amp=amp).fit(X, y)
        for amp in (False, "bfloat16", "float16")
    )
    losses = [
        [row["train_loss"] for row in each.history_] for each in (single, half, scaled)
    ]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    # Its first steps are left out, until gradients fit.
    assert losses[2][-1] < 0.8 * losses[2][0]
    for each in (half, scaled):
        weights = each._module.texts.parameters()
        assert {weight.dtype for weight in weights} == {torch.float32}


def test_unknown_labels_are_named():
    X, y = make_vectors(20)
    with pytest.raises(UnknownLabelError, match="owl"):
        make().fit(X, np.where(y == "dog", "owl", y))
    classifier = make(candidate_labels=["owl", "cat"]).fit(X, y)
    with pytest.raises(UnknownLabelError, match="owl"):
        classifier.predict(X)
    classifier = make(text_encoder=None, candidate_labels=["owl", "cat"]).fit(X, y)
    with pytest.raises(
        ValueError, match="candidate_labels has 'owl', which was not tr"
    ):
        classifier.predict(X)


# Batches


def test_batches_of_one_are_refused():
    X, y = make_vectors(20)
    with pytest.raises(
        ValueError, match="batch_size=1: a clip is told from the others"
    ):
        make(batch_size=1).fit(X, y)
    make(batch_size=1, text_encoder=None, max_epochs=1).fit(X, y)
    # What is left over joins the batch before.
    classifier = make(batch_size=4, callbacks=[Recorder()], max_epochs=1)
    classifier.fit(X[:13], y[:13])
    sizes = [len(inputs["inputs"]) for inputs, _ in Recorder.kept["batches"]]
    assert sizes == [4, 4, 5]
    with pytest.raises(ValueError, match="X holds 1 clip that counts"):
        classifier.partial_fit(X[:1], y[:1])
    with pytest.raises(ValueError, match="X holds 1 clip that counts"):
        classifier.partial_fit(X[:2], y[:2], sample_weight=[1, 0])


@pytest.mark.parametrize("positives", ["diagonal", "class"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_class_with_one_clip(positives, early_stopping):
    X, y = make_vectors(40, noise=0.1)
    kept = (y != "dog") | (np.cumsum(y == "dog") == 1)
    params = {"early_stopping": early_stopping, "patience": 20}
    classifier = make(max_epochs=20, positives=positives, **params).fit(
        X[kept], y[kept]
    )
    # The best epoch may be one before it was learnt.
    found = classifier.predict(X)
    others = y != "dog" if early_stopping else y != ""
    np.testing.assert_array_equal(found[others], y[others])
    assert "dog" in classifier.classes_


def test_all_clips_of_one_class_each():
    """As a batch of one, they are told from the other texts of the batch."""
    X, y = make_vectors(4, noise=0.0)
    for positives in ("diagonal", "class"):
        classifier = make(positives=positives, max_epochs=30, lr_decay=None).fit(X, y)
        assert classifier.score(X, y) == 1


@pytest.mark.parametrize("positives", ["diagonal", "class"])
def test_loss_is_that_of_the_module(positives):
    X, y = make_vectors(10)
    weights = np.random.default_rng(0).uniform(0.5, 2, 10)
    params = {"positives": positives, "batch_size": 10, "callbacks": [Recorder()]}
    classifier = make(max_epochs=1, logit_scale=3.0, **params)
    classifier.fit(X, y, sample_weight=weights)
    net = Recorder.kept["start"]
    classes = np.searchsorted(LABELS, y)
    with torch.inference_mode():
        clips, texts = net.embed(torch.from_numpy(X)), net.texts()[classes]
        loss = SymmetricContrastiveLoss(positives, 3.0)(
            clips, texts, torch.from_numpy(classes), torch.from_numpy(weights)
        )
    assert classifier.history_[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_clips_without_weight_are_left_out():
    X, y = make_vectors()
    weights = np.r_[np.zeros(20), np.ones(60)]
    weighted = make().fit(X, y, sample_weight=weights).predict_proba(X)
    X[:20] = 1e6
    np.testing.assert_array_equal(
        make().fit(X, y, sample_weight=weights).transform(X[20:]),
        make().fit(X, y, sample_weight=weights).transform(X[20:]),
    )
    again = make().fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(again.predict_proba(X[20:]), weighted[20:])


# Clips


def make_clips_classifier(**params):
    settings = {
        "encoder_params": {"width": 0.1, "batch_norm_momentum": 0.5},
        "sampling_rate": 32000,
        "max_epochs": 6,
        "batch_size": 4,
    }
    return make("efficientat", **{**settings, **params})


def test_clips_of_all_kinds(tmp_path):
    X, y = make_waveforms()
    paths = [str(tmp_path / f"{k}.wav") for k in range(len(X))]
    for path, clip in zip(paths, X, strict=True):
        soundfile.write(path, clip, 32000, subtype="DOUBLE")
    classifier = make_clips_classifier().fit(X, y)
    proba = classifier.predict_proba(X)
    losses = [row["train_loss"] for row in classifier.history_]
    assert losses[-1] < 0.7 * losses[0]
    for kind in (list(X), paths):
        again = make_clips_classifier(n_jobs=2).fit(kind, y)
        np.testing.assert_allclose(again.predict_proba(kind), proba, rtol=1e-3)
    assert classifier.checkpoint_.n_parameters > 0


def test_longer_clips_are_predicted_from_pieces():
    X, y = make_waveforms(n_samples=24000)
    classifier = make_clips_classifier(duration=0.25, max_epochs=2).fit(X, y)
    pieces = np.concatenate([np.split(clip, 3) for clip in X])
    vectors = classifier.transform(pieces).reshape(len(X), 3, -1).mean(axis=1)
    np.testing.assert_allclose(classifier.transform(X), vectors, rtol=1e-4, atol=1e-5)


def test_augmentations_of_waveforms_are_repeatable():
    X, y = make_waveforms()
    augmentations = [RandomGain(3), RandomNoise(20, 40), RandomShift(0.1)]
    heard = []

    def listen(samples, sample_rate):
        heard.append((samples.copy(), sample_rate))
        return samples

    plain = make_clips_classifier(max_epochs=2).fit(X, y).predict_proba(X)
    params = {"augmentations": augmentations, "max_epochs": 2}
    changed = [
        make_clips_classifier(n_jobs=n_jobs, **params).fit(X, y).predict_proba(X)
        for n_jobs in (1, 3)
    ]
    np.testing.assert_array_equal(changed[0], changed[1])
    assert not np.allclose(changed[0], plain)
    make_clips_classifier(augmentations=[listen], max_epochs=2).fit(X, y)
    assert len(heard) == 2 * len(X)
    assert {rate for _, rate in heard} == {32000}
    # Predictions hear clips as they are, and so does the validation.
    params = {"augmentations": [listen], "early_stopping": True, "max_epochs": 1}
    heard.clear()
    classifier = make_clips_classifier(validation_fraction=0.5, **params).fit(X, y)
    classifier.predict(X)
    assert len(heard) == 4


def test_augmentations_of_log_mel():
    X, y = make_log_mel()

    def blank(log_mel, sample_rate, rng):
        assert sample_rate is None
        log_mel[rng.integers(len(log_mel))] = 0
        return log_mel

    plain, *changed = (
        make(Encoder, augmentations=steps, max_epochs=2).fit(X, y).predict_proba(X)
        for steps in (None, [blank], [blank])
    )
    np.testing.assert_array_equal(changed[0], changed[1])
    assert not np.allclose(plain, changed[0])
    np.testing.assert_array_equal(X, make_log_mel()[0])


@pytest.mark.parametrize(
    "params", [{"mixup_alpha": 0.5}, {"spec_augment": (2, 3)}, {"time_roll": True}]
)
def test_changes_of_batches(params):
    X, y = make_log_mel()
    plain, *changed = (
        make(Encoder, max_epochs=2, **options).fit(X, y).predict_proba(X)
        for options in ({}, params, params)
    )
    np.testing.assert_array_equal(changed[0], changed[1])
    assert not np.allclose(plain, changed[0])


# Maps


def test_clips_whose_map_has_another_size():
    X, y = make_log_mel()
    longer = make_log_mel(n_frames=20)[0]
    for similarity in SIMILARITIES:
        classifier = make(Encoder, similarity=similarity, max_epochs=1).fit(X, y)
        told = "are not 16 x 2 x 3 as those of fit are, of clips of 12 frames"
        with pytest.raises(ValueError, match=told):
            classifier.predict(longer)


def test_encoders_without_a_map_are_refused():
    X, y = make_log_mel()
    with pytest.raises(TypeError, match=r"Vectors gives a tensor .* where a map"):
        make(Vectors).fit(X, y)


# Training


@pytest.mark.parametrize("encoder", [Encoder, None])
def test_fits_are_repeatable_and_leave_global_generators_alone(
    small_text_encoder, encoder
):
    X, y = make_log_mel() if encoder else make_vectors()
    # The global generator is looked at to show that it is left alone.
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.random.get_rng_state()
    params = {"mixup_alpha": 0.3, "early_stopping": True, "max_epochs": 2}
    params["text_encoder"] = small_text_encoder
    first, again, other, anyhow = (
        make(encoder, random_state=seed, **params).fit(X, y).predict_proba(X)
        for seed in (0, 0, 1, None)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, anyhow)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_frozen_encoder():
    X, y = make_log_mel()
    classifier = make(Encoder, freeze_encoder=True, callbacks=[Recorder()], lr=0.1)
    classifier.fit(X, y)
    before = Recorder.kept["start"].encoder.state_dict()
    for name, values in classifier._module.encoder.state_dict().items():
        assert torch.equal(values, before[name])
    # It may be trained later.
    classifier.set_params(freeze_encoder=False, warm_start=True, max_epochs=1)
    classifier.fit(X, y)
    after = classifier._module.encoder.state_dict()
    assert not torch.equal(after["layers.0.weight"], before["layers.0.weight"])
    assert classifier.n_iter_ == 21


def test_pickles_leave_out_frozen_encoders(tmp_path):
    X = np.random.default_rng(0).normal(size=(8, 64, 128)).astype(np.float32)
    y = LABELS * 2
    torch.save(EfficientAT(0.2).state_dict(), tmp_path / "weights.pt")
    sizes = []
    for frozen in (False, True):
        classifier = make(
            "efficientat",
            weights=tmp_path / "weights.pt",
            freeze_encoder=frozen,
            similarity="linear",
            max_epochs=1,
        ).fit(X, y)
        proba = classifier.predict_proba(X)
        pickled = pickle.dumps(classifier)
        sizes.append(len(pickled))
        np.testing.assert_array_equal(pickle.loads(pickled).predict_proba(X), proba)
    assert sizes[1] < 0.1 * sizes[0]


def test_pickles_in_another_process(tmp_path):
    X, y = make_vectors()
    classifiers = [
        make(candidate_labels=["cat", "dog"], text_encoder=texts).fit(X, y)
        for texts in (TEXTS, None)
    ]
    joblib.dump((classifiers, X), tmp_path / "models")
    code = (
        "import sys, joblib\n"
        "models, X = joblib.load(sys.argv[1])\n"
        "joblib.dump([m.predict_proba(X) for m in models], sys.argv[2])"
    )
    files = [tmp_path / "models", tmp_path / "proba"]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    there = joblib.load(tmp_path / "proba")
    for classifier, proba in zip(classifiers, there, strict=True):
        np.testing.assert_array_equal(proba, classifier.predict_proba(X))


def test_parameters_that_are_set_after_fit_do_not_reach_pickles():
    X, y = make_vectors()
    classifier = make().fit(X, y)
    there = pickle.loads(pickle.dumps(classifier))
    there.set_params(n_components=3, logit_scale=1.0, similarity="cscm")
    np.testing.assert_array_equal(there.predict_proba(X), classifier.predict_proba(X))


def test_going_on_is_as_one_fit():
    X, y = make_vectors()
    whole = make(max_epochs=4, mixup_alpha=0.2).fit(X, y)
    parts = make(max_epochs=2, mixup_alpha=0.2, warm_start=True).fit(X, y).fit(X, y)
    np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))
    rates = [row["lr"] for row in parts.history_]
    assert rates == [row["lr"] for row in whole.history_]
    assert parts.n_iter_ == 4
    with pytest.raises(ValueError, match=r"n_components=3, and in the fit that this"):
        parts.set_params(n_components=3).fit(X, y)


def test_partial_fit():
    X, y = make_vectors()
    whole = make(max_epochs=3, lr_decay=None).fit(X, y)
    parts = make()
    for _ in range(3):
        parts.partial_fit(X, y, classes=LABELS)
    np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))
    few = y != "dog"
    parts = make().partial_fit(X[few], y[few], classes=LABELS)
    assert parts.classes_.tolist() == LABELS
    for _ in range(10):
        parts.partial_fit(X, y)
    assert parts.score(X, y) > 0.9
    with pytest.raises(ValueError, match="are not those of the first call"):
        parts.partial_fit(X, y, classes=["a", "b"])


def test_early_stopping_keeps_the_best():
    X, y = make_vectors(200, noise=3.0)
    params = {"early_stopping": True, "patience": 2, "validation_fraction": 0.3}
    classifier = make(max_epochs=30, lr=0.1, lr_decay=None, **params).fit(X, y)
    scores = [row["valid_accuracy"] for row in classifier.history_]
    assert len(scores) < 30
    assert np.argmax(scores) == len(scores) - 3
    shorter = make(max_epochs=len(scores) - 2, lr=0.1, lr_decay=None, **params)
    np.testing.assert_array_equal(
        shorter.fit(X, y).predict_proba(X), classifier.predict_proba(X)
    )


def test_schedules_of_callbacks():
    X, y = make_vectors()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    make(lr_decay=None, callbacks=[schedule, Recorder()], max_epochs=3).fit(X, y)
    rates = [groups[-1]["lr"] for groups in Recorder.kept["groups"]]
    np.testing.assert_allclose(rates, [0.005, 0.0025, 0.00125])


def test_gradients_are_clipped():
    X, y = make_vectors()
    for clip in (None, 0.01):
        make(gradient_clip=clip, callbacks=[Recorder()], max_epochs=1).fit(X, y)
        assert (max(Recorder.kept["norms"]) <= 0.01 * 1.001) == (clip is not None)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_half_precision_learns_what_single_does(amp):
    X, y = make_log_mel()
    test, y_test = make_log_mel(seed=1)
    classifier = make(Encoder, amp=amp, gradient_clip=10.0).fit(X, y)
    assert classifier.score(test, y_test) > 0.9
    losses = [row["train_loss"] for row in classifier.history_]
    single = [row["train_loss"] for row in make(Encoder).fit(X, y).history_]
    assert losses != single
    np.testing.assert_allclose(losses[-1], single[-1], rtol=0.2)
    assert classifier._module.head.projection.weight.dtype == torch.float32


def test_steps_whose_gradients_overflow_are_left_out():
    from sklabelaudio.classification._net_callbacks import make_gradient_scaler

    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]

    class Net:
        class criterion_:
            gradient_scale = 1.0

    scaler = make_gradient_scaler()
    scaler.on_batch_begin(Net)
    scale = Net.criterion_.gradient_scale
    assert scale == 65536
    weights[0].grad, weights[1].grad = torch.full((2,), 3 * scale), torch.zeros(2)
    named = [("a", weights[0]), ("b", weights[1]), ("c", nn.Parameter(torch.ones(1)))]
    scaler.on_grad_computed(Net, named)
    assert weights[0].grad.tolist() == [3, 3]
    weights[1].grad[0] = torch.inf
    scaler.on_grad_computed(Net, named)
    assert weights[0].grad is weights[1].grad is None
    scaler.on_batch_begin(Net)
    assert Net.criterion_.gradient_scale == scale / 2
    for _ in range(2000):
        weights[0].grad = torch.ones(2)
        scaler.on_grad_computed(Net, named)
    scaler.on_batch_begin(Net)
    assert Net.criterion_.gradient_scale == scale


def test_losses_that_are_not_finite_stop_with_epoch_and_rate():
    X, y = make_vectors()

    class Poison(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                with torch.no_grad():
                    net.module_.head.projection.weight.fill_(torch.nan)

    told = r"lr=0\.009216 is too high .* not finite in epoch 3: lower it"
    with pytest.raises(ValueError, match=told):
        make(callbacks=[Poison()]).fit(X, y)
    with pytest.raises(ValueError, match=r"lr=1e\+30 is too high .* in epoch \d"):
        make(lr=1e30, text_encoder=None).fit(X, y)


# With scikit-learn


def test_in_a_pipeline_behind_log_mel():
    X, y = make_waveforms(n_samples=4000, rate=8000)
    logmel = LogMelExtractor(
        8000, n_fft=256, win_length=256, hop_length=128, n_mels=N_MELS
    )
    classifier = make(Encoder, similarity="linear", batch_size=4)
    pipeline = Pipeline([("logmel", logmel), ("clf", classifier)]).fit(X, y)
    assert pipeline.score(X, y) > 0.9


def test_grid_search_over_prompt_and_similarity(small_clip):
    X, y = make_log_mel()
    grid = {
        "prompt": [None, "an audio clip of {label}"],
        "similarity": SIMILARITIES[:2],
    }
    classifier = make(Encoder, text_encoder=small_clip, max_epochs=3)
    search = GridSearchCV(classifier, grid, cv=2).fit(X, y)
    assert set(search.best_params_) == {"prompt", "similarity"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipeline = make_pipeline(
        StandardScaler(), make(text_encoder=LabelTextEmbedder(TEXTS))
    )
    X, y = make_vectors()
    name = "semanticcontrastiveclassifier"
    grid = {f"{name}__text_encoder__normalize": [True, False]}
    assert GridSearchCV(pipeline, grid, cv=2).fit(X, y).best_score_ > 0.9
    assert cross_val_score(make(), X, y, cv=3).min() > 0.9


def test_clones_are_unfitted_and_predictions_need_a_fit():
    X, y = make_vectors(20)
    classifier = make().fit(X, y)
    for unfitted in (clone(classifier), make()):
        for method in ("predict", "predict_proba", "transform"):
            with pytest.raises(NotFittedError):
                getattr(unfitted, method)(X)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"similarity": "cscm"}, "similarity='cscm' with encoder=None"),
        ({"weights": "w.pt"}, "weights='w.pt' with encoder=None"),
        ({"text_encoder": "glove"}, "model='glove' is no file, no folder"),
        ({"augmentations": [RandomGain()]}, "augmentations=.* with encoder=None"),
        ({"spec_augment": True}, "spec_augment=True: X is no log-mel"),
        ({"optimizer": "Sdg"}, "optimizer='Sdg' is no optimizer"),
        ({"validation_fraction": 2.0}, "validation_fraction"),
    ],
)
def test_parameters_that_do_not_fit(params, told, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    X, y = make_vectors(20)
    with pytest.raises((ValueError, OSError), match=told):
        make(**params).fit(X, y)


def test_targets_that_do_not_fit():
    X, y = make_vectors(20)
    for lists in ([[label] for label in y], np.eye(4, dtype=int)[np.arange(20) % 4]):
        with pytest.raises(ValueError, match=r"learns one label for each clip.*SPATag"):
            make().fit(X, lists)
    with pytest.raises(ValueError, match="y holds 1 class"):
        make().fit(X, ["dog"] * 20)
    with pytest.raises(
        ValueError, match="X holds clips or log-mel, and with encoder=No"
    ):
        make().fit(make_log_mel()[0], make_log_mel()[1])
    with pytest.raises(TypeError, match="augmentations has 3, which can't be called"):
        make(Encoder, augmentations=[3]).fit(*make_log_mel())
