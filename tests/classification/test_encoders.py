"""How an encoder is made from an estimator's parameters, and from which weights."""

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sklabelaudio import EfficientATEmbedder, SPATagger, list_checkpoints
from sklabelaudio._checkpoints import _fetch, _registry
from sklabelaudio.classification._encoders import ENCODER_NAMES, plan_encoder
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import AST, PSLA, Cnn6, Cnn10, Cnn14, EfficientAT, PaSST

MN04 = "mn04_as_mAP_432.pt"
OVER_TIME = "cnn14_decision_level_max"
SIX = (2, 2, 4, 4, 4, 8)


def save(module, path, **others):
    """Save weights as most authors do."""
    torch.save({"epoch": 1, "model": {**others, **module.state_dict()}}, path)
    return path


def draw(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def have_same_weights(module, other):
    state = module.state_dict()
    return state.keys() == other.state_dict().keys() and all(
        torch.equal(state[name], value) for name, value in other.state_dict().items()
    )


# Files of one's own.


@pytest.mark.parametrize(
    ("name", "make", "front_end"),
    [
        ("efficientat", lambda: EfficientAT(0.1, n_classes=7), "efficientat"),
        ("psla", lambda: PSLA(5, width=0.25, depth=0.3), "psla"),
        ("panns", lambda: Cnn6(n_classes=3, channels=(4, 4, 8, 8)), "panns_32k"),
        (
            "cnn14_16k",
            lambda: Cnn14(n_classes=3, channels=(2, 2, 4, 4, 4, 8)),
            "panns_16k",
        ),
        ("passt", lambda: PaSST(3, 130, embed_dim=64, depth=1, num_heads=1), "passt"),
    ],
)
def test_sizes_are_read_off_the_weights(name, make, front_end, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = make()
    torch.save({"model": trained.state_dict()}, tmp_path / "weights.pt")
    plan = plan_encoder(name, weights=tmp_path / "weights.pt")
    loaded = plan.load(plan.make())
    assert plan.front_end_name == plan.make_front_end().name == front_end
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_patchout_goes_to_passt():
    sizes = {"embed_dim": 64, "depth": 1, "num_heads": 1, "n_classes": 2}
    plan = plan_encoder("passt", params=sizes, patchout=(4, 40))
    assert plan.params["patchout_frequency"] == 4
    assert plan.params["patchout_time"] == 40
    log_mel = torch.zeros(2, 500, 128)
    tokens = plan.make().train().encoder.embeddings(log_mel).shape[1]
    assert tokens == 2 + (12 - 4) * (49 - 40)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "eficientat"}, ValueError, "Did you mean 'efficientat'"),
        ({"encoder": "zzzz"}, ValueError, "'ast', .*'sp4sc'"),
        ({"encoder": EfficientAT(0.1)}, TypeError, "pass the class"),
        ({"encoder": print}, TypeError, "neither the name"),
        ({"encoder": dict}, TypeError, "neither the name"),
        ({"encoder": "ast", "weights": "no.pt"}, ValueError, "no.pt.* neither a file"),
        ({"encoder": "ast", "front_end": "ast"}, ValueError, "leave it out"),
        ({"encoder": EfficientAT, "front_end": "no"}, ValueError, "no front end"),
        ({"encoder": "ast", "patchout": (4, 40)}, ValueError, "only 'passt'"),
        ({"encoder": "passt", "patchout": (4,)}, ValueError, "two numbers"),
        ({"encoder": EfficientAT, "patchout": (4, 4)}, ValueError, "encoder_params"),
    ],
)
def test_encoders_that_are_none(arguments, error, message):
    with pytest.raises(error, match=message):
        plan_encoder(**arguments)


def test_weights_of_another_encoder_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    for name in ("panns", "psla", "cnn10", "ast"):
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            plan_encoder(name, weights=path)
    torch.save(Cnn14(channels=(2, 2, 2, 2, 2, 2)).state_dict(), path)
    with pytest.raises(CheckpointError, match="'cnn14' or 'cnn14_16k'"):
        plan_encoder("panns", weights=path)


def test_files_that_changed_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    plan = plan_encoder("efficientat", weights=path)
    torch.save(EfficientAT(0.1).state_dict(), path)
    with pytest.raises(CheckpointError, match="another file than in fit"):
        plan.load(plan.make())
    path.unlink()
    with pytest.raises(CheckpointError, match="not there"):
        plan.load(plan.make())


@pytest.mark.parametrize(
    ("n_frequencies", "encoder"),
    [(257, "cnn14"), (513, "cnn14_16k"), (513, "cnn10"), (257, OVER_TIME)],
)
def test_weights_for_another_front_end_are_refused(n_frequencies, encoder, tmp_path):
    """Of networks that differ in the front end alone, too."""
    constants = {"logmel_extractor.melW": torch.zeros(n_frequencies, 64)}
    path = save(Cnn14(channels=SIX), tmp_path / "weights.pt", **constants)
    right, front_end = {
        513: ("cnn14", "panns_32k"),
        257: ("cnn14_16k", "panns_16k"),
    }[n_frequencies]
    message = f"network {right!r}, not of encoder={encoder!r}: pass encoder={right!r}"
    with pytest.raises(CheckpointError, match=message):
        plan_encoder(encoder, weights=path)
    for name in (right, "panns"):
        plan = plan_encoder(name, weights=path)
        assert plan.front_end_name == front_end
        assert plan.load(plan.make()).decision_level is None


def test_scores_over_time_are_for_the_user_to_tell(tmp_path):
    constants = {"logmel_extractor.melW": torch.zeros(513, 64)}
    trained = draw(lambda: Cnn14(3, channels=SIX, decision_level="max"))
    path = save(trained, tmp_path / "weights.pt", **constants)
    plan = plan_encoder(OVER_TIME, weights=path)
    loaded = plan.load(plan.make())
    assert loaded.decision_level == "max"
    assert have_same_weights(loaded, trained)
    assert plan_encoder("panns", weights=path).make().decision_level is None


# Folders that transformers saved.


@pytest.fixture
def ast_folder(tmp_path):
    """A small model whose heads only the record beside its weights tells."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=256,
        num_labels=5,
    )
    model = draw(lambda: transformers.ASTForAudioClassification(config).eval())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # as if it were trained: tokens begin as zeros
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(tmp_path)
    return model, tmp_path


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_folder_of_transformers(ast_folder, name):
    model, folder = ast_folder
    plan = plan_encoder("ast", weights=folder / name)
    assert plan.path == os.fspath(folder / "model.safetensors")
    log_mel = torch.randn(2, 1024, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = plan.load(plan.make()).eval()(log_mel).logits
        expected = model(log_mel).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_a_folder_of_a_model_with_another_front_end(ast_folder):
    _, folder = ast_folder
    record = {"mean": -6.845978, "std": 5.5654526}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"another log-mel, with mean=-6\.845978"):
        plan_encoder("ast", weights=folder)


def test_the_model_for_speech_commands_is_refused(tmp_path):
    model = AST(35, n_frames=128, embed_dim=64, depth=1, num_heads=1)
    path = save(model, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="Speech Commands, which takes another"):
        plan_encoder("ast", weights=path)


# Published checkpoints by name.


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of the data home that checkpoints are fetched to."""
    folder = tmp_path / "home" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SKLABELAUDIO_DATA", os.fspath(folder.parent))
    return folder


@pytest.fixture
def publish(monkeypatch, web_server):
    """Callable: have a checkpoint's file be of this content, on a web server."""
    monkeypatch.setattr(_fetch, "download", partial(_fetch.download, n_retries=0))

    def publish(name, content, sha256=None):
        web_server.body = content
        digest = sha256 or hashlib.sha256(content).hexdigest()

        def change(record):
            if record.name != name:
                return record
            (source,) = record.sources
            source = replace(source, url=web_server.url, sha256=digest)
            return replace(record, sources=(source,), labels=None)

        records = tuple(change(record) for record in list_checkpoints())
        monkeypatch.setattr(_registry, "CHECKPOINTS", records)
        return web_server

    return publish


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small EfficientAT, and its file."""
    module = draw(lambda: EfficientAT(0.1))
    return module, save(module, tmp_path_factory.mktemp("small") / "mn01.pt")


@pytest.fixture
def real(shared, home):
    """The file of mn04 where it is fetched to."""
    folder = shared / "reference" / "checkpoints" / "efficientat"
    return shutil.copy(folder / MN04, home)


def test_every_published_checkpoint_has_an_encoder():
    encoders = {record.encoder for record in list_checkpoints()}
    others = {"audioclip", "clap", "vggish", "yamnet"}  # which are not trained here
    assert encoders - others <= set(ENCODER_NAMES)
    assert {record.name for record in list_checkpoints("panns")} <= set(ENCODER_NAMES)


def test_the_published_file_by_name(real):
    plan = plan_encoder("efficientat", weights="mn04_as")
    assert plan.params == {"width": 0.4, "n_classes": 527}
    assert (plan.path, plan.front_end_name) == (real, "efficientat")
    (record,) = (r for r in list_checkpoints("efficientat") if r.name == "mn04_as")
    assert plan.checkpoint.record is record
    assert plan.checkpoint.sha256 == record.sources[0].sha256
    official = EfficientAT(0.4)
    official.load_state_dict(torch.load(real, weights_only=True))
    assert have_same_weights(plan.load(plan.make()), official)


def test_fetched_once(small, home, publish):
    module, path = small
    server = publish("mn05_as", path.read_bytes())
    for _ in range(2):
        plan = plan_encoder("efficientat", weights="mn05_as")
        assert have_same_weights(plan.load(plan.make()), module)
    assert plan.path == os.fspath(home / "mn05_as_mAP_443.pt")
    assert server.n_requests == 1


def test_without_a_network(small, home, publish):
    publish("mn05_as", small[1].read_bytes()).n_failures = 99
    told = rf"can't download mn05_as_mAP_443\.pt .* yourself and put the file at {home}"
    with pytest.raises(OSError, match=told):
        plan_encoder("efficientat", weights="mn05_as")


@pytest.mark.parametrize("there", [False, True])
def test_another_file_than_the_published_one(small, home, publish, there):
    publish("mn05_as", small[1].read_bytes(), sha256="0" * 64)
    if there:
        shutil.copy(small[1], home / "mn05_as_mAP_443.pt")
    with pytest.raises(OSError, match=r"not the (one|file) expected.* SHA-256 is"):
        plan_encoder("efficientat", weights="mn05_as")


@pytest.mark.parametrize(
    ("encoder", "weights", "message"),
    [
        ("efficientat", "mn04", "weights='mn04' is neither .* mean 'mn04_as'"),
        ("passt", "mn04_as", "'mn04_as' of the encoder 'efficientat', not of 'passt'"),
        ("panns", "mn04_as", "'mn04_as' of the encoder 'efficientat', not of 'panns'"),
        ("efficientat", "cnn14", "'cnn14' of the encoder 'panns', not of 'effic"),
        ("cnn10", "cnn6", "weights='cnn6' is of the network 'cnn6', not of encoder='c"),
        ("cnn14", OVER_TIME, f"not of encoder='cnn14': pass encoder='{OVER_TIME}'"),
        (EfficientAT, "mn04_as", "'mn04_as' is no file: .* or encoder='efficientat'"),
        (EfficientAT, "no.pt", "'no.pt' is no file: with a class .* path"),
        (EfficientAT, ".", r"'\.' is no file: with a class"),
    ],
)
def test_names_that_are_none_are_refused_before_fetching(
    encoder, weights, message, home, monkeypatch
):
    monkeypatch.setattr(_fetch, "download", None)
    with pytest.raises(ValueError, match=message):
        plan_encoder(encoder, weights=weights)


def test_nothing_is_fetched_for_parameters_that_do_not_fit(home, monkeypatch):
    monkeypatch.setattr(_fetch, "download", None)
    for params in ({"front_end": "ast"}, {"patchout": (4, 40)}):
        with pytest.raises(ValueError, match="'efficientat'"):
            plan_encoder("efficientat", weights="mn04_as", **params)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cnn6", lambda: Cnn6(3, channels=(4, 4, 8, 8))),
        ("cnn10", lambda: Cnn10(3, channels=(4, 4, 8, 8))),
        # Whose files say nothing of these, without their front ends' constants.
        ("cnn14", lambda: Cnn14(3, channels=SIX)),
        ("cnn14_16k", lambda: Cnn14(3, channels=SIX)),
        (OVER_TIME, lambda: Cnn14(3, channels=SIX, decision_level="max")),
    ],
)
def test_the_name_tells_which_of_the_panns(name, make, home, tmp_path, publish):
    trained = draw(make)
    path = save(trained, tmp_path / "renamed.pt")
    publish(name, path.read_bytes())
    (record,) = (r for r in list_checkpoints("panns") if r.name == name)
    for encoder in ("panns", name):
        for weights in (name, path):  # of which the digest is known
            plan = plan_encoder(encoder, weights=weights)
            assert plan.checkpoint.name == name
            assert plan.front_end_name == record.front_end
            loaded = plan.load(plan.make())
            assert have_same_weights(loaded, trained)
            assert getattr(loaded, "decision_level", None) == getattr(
                trained, "decision_level", None
            )
    other = "cnn10" if name == "cnn6" else "cnn6"
    with pytest.raises(CheckpointError, match=f"is of the network {name!r}, not of"):
        plan_encoder(other, weights=path)


def test_a_class_knows_its_published_file(real):
    plan = plan_encoder(
        EfficientAT, weights=real, params={"width": 0.4}, front_end="efficientat"
    )
    assert plan.checkpoint.name == "mn04_as"
    plan.load(plan.make())


# From a pickle, perhaps on another machine.


def test_weights_are_found_again_by_name(real, tmp_path, monkeypatch):
    plan = plan_encoder("efficientat", weights="mn04_as")
    # By its digest, a file of one's own is a published one too.
    given = shutil.copy(real, tmp_path / "given.pt")
    plans = [plan, plan_encoder("efficientat", weights=given)]
    plans = [pickle.loads(pickle.dumps(plan)) for plan in plans]
    official = plan.load(plan.make())
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "checkpoints").mkdir(parents=True)
    shutil.move(real, elsewhere / "checkpoints")
    os.unlink(given)
    monkeypatch.setenv("SKLABELAUDIO_DATA", os.fspath(elsewhere))
    for plan in plans:
        assert have_same_weights(plan.load(plan.make()), official)
    (elsewhere / "checkpoints" / MN04).write_bytes(b"others")
    with pytest.raises(OSError, match="is there, but is not the file expected"):
        plan.load(plan.make())


def test_weights_without_a_digest_are_compared_with_those_of_the_fit(home, tmp_path):
    name, file = "mn20_as", home / "mn20_as_mAP_478.pt"
    save(draw(lambda: EfficientAT(0.1)), file)
    plan = plan_encoder("efficientat", weights=name)
    assert plan.checkpoint.name == name
    save(draw(lambda: EfficientAT(0.2)), file)
    with pytest.raises(CheckpointError, match="another file than in fit: its SHA-256"):
        plan.load(plan.make())


def test_a_file_that_was_moved(small, tmp_path):
    module, path = small
    path = shutil.copy(path, tmp_path / "here.pt")
    plan = plan_encoder("efficientat", weights=path)
    moved = shutil.move(path, tmp_path / "there.pt")
    with pytest.raises(CheckpointError, match=r"not there any more: .* set weights"):
        plan.load(plan.make())
    with pytest.raises(CheckpointError, match="not there any more"):
        plan.load(plan.make(), path)
    assert have_same_weights(plan.load(plan.make(), moved), module)
    other = save(EfficientAT(0.1), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt.*another file than in fit"):
        plan.load(plan.make(), other)
    # That of the fit comes first.
    shutil.copy(moved, path)
    assert have_same_weights(plan.load(plan.make(), other), module)


# What estimators make of it.


@pytest.fixture(scope="module")
def clips():
    """Two kinds of noise, at the encoder's rate."""
    rng = np.random.default_rng(0)
    X = 0.1 * rng.standard_normal((8, 16000)).astype(np.float32)
    y = np.array(["high", "low"] * 4)
    X[y == "low"] = X[y == "low"].cumsum(axis=1) / 20
    return X, y


def make_tagger(**params):
    settings = {
        "encoder": "efficientat",
        "freeze_encoder": True,
        "alpha": 0,
        "obce": False,
        "max_epochs": 1,
        "sampling_rate": 32000,
        "device": "cpu",
        "random_state": 0,
    }
    return SPATagger(**{**settings, **params})


def test_a_tagger_hears_what_the_embedder_hears(clips, real):
    X, y = clips
    tagger = make_tagger(weights="mn04_as").fit(X, y)
    embedder = EfficientATEmbedder("mn04_as", sampling_rate=32000)
    vectors = embedder.fit_transform(X).astype(np.float64)
    for name in ("audio_projector", "classifier"):
        weight, bias = tagger._head(name)
        vectors = vectors @ weight.T + bias
    expected = vectors[:, 1] - vectors[:, 0]
    np.testing.assert_allclose(tagger.decision_function(X), expected, atol=1e-4)
    assert tagger.checkpoint_ == embedder.checkpoint_
    assert "983,599" in str(tagger.checkpoint_)
    assert "MIT" in str(tagger.checkpoint_)


def test_a_tagger_is_loaded_elsewhere(clips, real, shared, tmp_path, monkeypatch):
    X, y = clips
    tagger = make_tagger(weights="mn04_as").fit(X, y)
    data = pickle.dumps(tagger)
    assert b"mn04_as" in data
    assert tagger.checkpoint_.sha256.encode() in data
    assert len(data) < 2_000_000  # of 4 million bytes of weights it has none
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("SKLABELAUDIO_DATA", os.fspath(elsewhere))
    listing = shared / "data" / "audioset" / "class_labels_indices.csv"
    kept = {MN04: shutil.move(real, tmp_path / "kept.pt"), listing.name: listing}
    loaded = pickle.loads(data)
    assert loaded.checkpoint_ == tagger.checkpoint_
    monkeypatch.setattr(_fetch, "download", partial(copy_of_those, kept))
    np.testing.assert_array_equal(loaded.predict_proba(X), tagger.predict_proba(X))
    assert (elsewhere / "checkpoints" / MN04).is_file()


def copy_of_those(files, url, path, **params):
    """Download a file of which there is a copy."""
    shutil.copy(files[os.path.basename(path)], path)


def test_a_tagger_whose_file_was_moved(clips, small, tmp_path):
    X, y = clips
    path = shutil.copy(small[1], tmp_path / "here.pt")
    tagger = make_tagger(weights=path).fit(X, y)
    data = pickle.dumps(tagger)
    moved = shutil.move(path, tmp_path / "there.pt")
    with pytest.raises(CheckpointError, match="not there any more"):
        pickle.loads(data).predict(X)
    loaded = pickle.loads(data).set_params(weights=moved)
    np.testing.assert_array_equal(loaded.predict_proba(X), tagger.predict_proba(X))


def test_cards_of_taggers(clips, small, home):
    X, y = clips
    random = make_tagger(encoder_params={"width": 0.1}).fit(X, y).checkpoint_
    assert (random.encoder, random.path) == ("efficientat", None)
    n_parameters = sum(weight.numel() for weight in small[0].parameters())
    assert random.n_parameters == n_parameters
    # A list that lies beside a file of other classes is not its.
    folder = small[1].parent
    rows = [f'{i},/m/{i},"Sound {i}"' for i in range(3)]
    listing = "\n".join(["index,mid,display_name", *rows])
    (folder / "class_labels_indices.csv").write_text(listing)
    own = make_tagger(weights=small[1]).fit(X, y).checkpoint_
    assert (own.name, own.path) == (None, os.fspath(small[1]))
    assert (own.labels, own.n_parameters) == (None, n_parameters)
    assert own.sha256 == hashlib.sha256(small[1].read_bytes()).hexdigest()
    assert make_tagger(encoder=None).fit(X, y).checkpoint_ is None
    tagger = make_tagger(encoder=Bands, front_end="efficientat").fit(X, y)
    assert tagger.checkpoint_.encoder == "Bands"
    assert tagger.checkpoint_.n_parameters == 128 * 4 + 4


class Bands(nn.Module):
    """An encoder of one's own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(get_front_end("efficientat").n_mels, 4)

    def forward(self, log_mel):
        return self.linear(log_mel).mean(dim=1)
