import hashlib
import json
import os
import pickle
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from sklabelaudio import list_checkpoints
from sklabelaudio._checkpoints import _fetch, _registry
from sklabelaudio._checkpoints._published import CHECKPOINTS
from sklabelaudio._checkpoints._records import Checkpoint, PublishedScore, RemoteFile
from sklabelaudio._checkpoints._registry import (
    fetch_checkpoint,
    find_again,
    find_labels,
    get_checkpoint,
    recognise_file,
    resolve_weights,
)
from sklabelaudio._checkpoints._resolved import ResolvedCheckpoint
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end

CLASSES = "index,mid,display_name\n0,/m/1,Rain\n1,/m/2,Wind\n"


def hash_of(content):
    return hashlib.sha256(content).hexdigest()


# What is registered.


@pytest.mark.parametrize("record", CHECKPOINTS, ids=lambda record: record.name)
def test_records_are_sound(record):
    assert get_checkpoint(record.name, record.encoder) is record
    assert get_front_end(record.front_end).name.startswith(record.encoder)
    assert record.licence
    assert record.reference
    if record.n_classes is None:
        assert record.labels is record.class_names is None
    if record.class_names is not None:
        assert len(record.class_names) == record.n_classes
    assert record.training_data
    for score in record.scores:
        assert score.source
        assert 0 < score.value < 1
    for source in [*record.sources, *([record.labels] if record.labels else [])]:
        assert urlsplit(source.url).scheme == "https"
        assert os.path.basename(source.name) == source.name
        if source.sha256 is not None:
            assert len(source.sha256) in (8, 64)
            assert set(source.sha256) <= set("0123456789abcdef")


def test_names_are_unique():
    names = [record.name for record in CHECKPOINTS]
    assert len(set(names)) == len(names)
    files = {(s.name, s.url) for r in CHECKPOINTS for s in r.sources if not r.hub_id}
    assert len({name for name, _ in files}) == len(files)  # they share a folder


def test_efficientat_is_as_published(shared):
    path = shared / "reference" / "parity" / "efficientat_mn04.manifest.json"
    manifest = json.loads(path.read_text())
    records = {record.name: record for record in list_checkpoints("efficientat")}
    assert list(records) == [file["name"] for file in manifest["official_files"]]
    for file in manifest["official_files"]:
        record = records[file["name"]]
        assert record.files == (file["file"],)
        assert record.sources[0].url == file["url"]
        assert record.n_components == file["embedding_dim"]
        (score,) = record.scores
        assert (score.metric, score.value) == (
            "mAP",
            pytest.approx(file["published_mAP_percent"] / 100),
        )
        assert record.n_parameters == file["parameters_counted"]
        published = 1e9 * file["published_GMACs_10s"]
        assert record.multiply_adds == pytest.approx(published, abs=5e6)
    assert records["mn04_as"].sources[0].sha256 == manifest["real_checkpoint"]["sha256"]


def test_vggish_is_as_published(shared):
    path = shared / "reference" / "parity" / "vggish.manifest.json"
    published = json.loads(path.read_text())["official_files"]
    (record,) = list_checkpoints("vggish")
    assert {source.name: source.url for source in record.sources} == published
    for source in record.sources:  # the authors put it in the name
        assert source.name.endswith(f"-{source.sha256}.pth")


def test_real_files_are_recognised(shared, tmp_path):
    folder = shared / "reference" / "checkpoints"
    home = tmp_path / "home"
    yamnet = resolve_weights(
        folder / "yamnet" / "yamnet.tflite", "yamnet", data_home=home
    )
    assert yamnet.name == "yamnet_int8"
    assert len(yamnet.labels) == 521
    mn04 = resolve_weights(
        str(folder / "efficientat" / "mn04_as_mAP_432.pt"),
        "efficientat",
        data_home=home,
    )
    assert (mn04.name, mn04.licence, mn04.labels) == ("mn04_as", "MIT", None)
    assert mn04.sha256 == mn04.record.sources[0].sha256
    assert not home.exists()


def test_lists_of_classes_have_the_registered_digests(shared):
    published = {
        "efficientat": shared / "data" / "audioset" / "class_labels_indices.csv",
        "yamnet": shared / "reference/checkpoints/yamnet/yamnet_class_map.csv",
    }
    for encoder, path in published.items():
        for record in list_checkpoints(encoder):
            assert record.labels.name == path.name
            assert record.labels.sha256 == hash_of(path.read_bytes())


def test_list_checkpoints():
    assert list_checkpoints() == CHECKPOINTS
    names = [record.name for record in list_checkpoints("yamnet")]
    assert names == ["yamnet", "yamnet_int8"]
    with pytest.raises(ValueError, match="encoder='YAMNet' is none of 'ast', "):
        list_checkpoints("YAMNet")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mn04", "Did you mean 'mn04_as'?"),
        ("MN10_AS", "Did you mean 'mn10_as'?"),
        ("mn20_as_mAP_478.pt", "Did you mean 'mn20_as'?"),
        ("somewhere/mn40_as_mAP_484.pt", "Did you mean 'mn40_as'?"),
        ("weights.pt", "name of a checkpoint. The names for 'efficientat' are"),
    ],
)
def test_an_unknown_name(name, hint):
    with pytest.raises(ValueError, match="is neither a file nor the name of") as info:
        resolve_weights(name, "efficientat")
    assert f"weights={name!r}" in str(info.value)
    assert hint in str(info.value)
    assert "'mn04_as', 'mn05_as', 'mn10_as'" in str(info.value)


def test_a_name_of_another_encoder():
    match = "the checkpoint 'mn04_as' of the encoder 'efficientat', not of 'yamnet'"
    with pytest.raises(ValueError, match=match):
        resolve_weights("mn04_as", "yamnet")


# A checkpoint on a web server of this machine, in place of the registered ones.


class Handler(SimpleHTTPRequestHandler):
    requests = ()

    def do_GET(self):
        Handler.requests += (unquote(self.path),)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that publishes a checkpoint of two files and a list of classes."""
    web = tmp_path / "web"
    web.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Handler, "requests", ())
    monkeypatch.setattr(_fetch, "download", partial(_fetch.download, n_retries=0))
    handler = partial(Handler, directory=web)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def publish(name, content, sha256="right"):
            (web / name).write_bytes(content)
            sha256 = hash_of(content) if sha256 == "right" else sha256
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            return RemoteFile(name, url, sha256)

        record = Checkpoint(
            name="small",
            encoder="yamnet",
            sources=(publish("net.pt", b"net"), publish("pca.pt", b"pca")),
            licence="MIT",
            n_components=3,
            reference="A paper",
            front_end="yamnet",
            n_classes=2,
            labels=publish("classes.csv", CLASSES.encode()),
            scores=(PublishedScore("pond", "mAP", 0.5, "the web"),),
        )

        def register(**changes):
            changed = replace(record, **changes)
            monkeypatch.setattr(_registry, "CHECKPOINTS", (changed,))
            return changed

        register.publish = publish
        register.web = web
        yield register
        server.shutdown()
        thread.join()


def test_fetched_once(published, tmp_path):
    published()
    home = tmp_path / "home"
    resolved = resolve_weights("small", "yamnet", data_home=home)
    folder = home / "checkpoints"
    assert resolved.paths == (str(folder / "net.pt"), str(folder / "pca.pt"))
    assert resolved.path == resolved.paths[0]
    assert sorted(os.listdir(folder)) == ["classes.csv", "net.pt", "pca.pt"]
    assert (folder / "net.pt").read_bytes() == b"net"
    assert resolved.labels == ("Rain", "Wind")
    both = hash_of(b"net") + hash_of(b"pca")
    assert resolved.sha256 == hash_of(both.encode())
    assert Handler.requests == ("/net.pt", "/pca.pt", "/classes.csv")

    assert resolve_weights("small", "yamnet", data_home=home) == resolved
    assert len(Handler.requests) == 3


def test_the_data_home_of_the_environment(published, tmp_path, monkeypatch):
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "home"))
    paths = fetch_checkpoint(published())
    assert paths[0] == str(tmp_path / "home" / "checkpoints" / "net.pt")


def test_the_beginning_of_a_digest_is_enough(published, tmp_path):
    source = published.publish("net.pt", b"net", hash_of(b"net")[:8])
    record = published(sources=(source,), labels=None)
    assert fetch_checkpoint(record, data_home=tmp_path)
    assert fetch_checkpoint(record, data_home=tmp_path)
    assert len(Handler.requests) == 1


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 8])
def test_a_download_with_another_digest_is_removed(published, tmp_path, sha256):
    record = published(sources=(published.publish("net.pt", b"net", sha256),))
    with pytest.raises(OSError, match="not the one expected and was removed") as info:
        fetch_checkpoint(record, data_home=tmp_path)
    assert hash_of(b"net") in str(info.value)
    assert sha256 in str(info.value)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_file_put_there_by_hand_is_never_removed(published, tmp_path):
    record = published()
    path = tmp_path / "checkpoints" / "net.pt"
    path.parent.mkdir()
    path.write_bytes(b"my own")
    with pytest.raises(OSError, match="is there, but is not the file expected") as info:
        fetch_checkpoint(record, data_home=tmp_path)
    assert str(path) in str(info.value)
    assert hash_of(b"my own") in str(info.value)
    assert hash_of(b"net") in str(info.value)
    assert path.read_bytes() == b"my own"
    assert Handler.requests == ()


def test_files_put_there_by_hand_need_no_network(published, tmp_path):
    record = published()
    (tmp_path / "checkpoints").mkdir()
    for name in ("net.pt", "pca.pt"):
        (tmp_path / "checkpoints" / name).write_bytes(name[:3].encode())
    resolved = resolve_weights("small", "yamnet", data_home=tmp_path)
    assert (resolved.record, resolved.labels) == (record, None)
    assert Handler.requests == ()


def test_without_a_network(published, tmp_path):
    published()
    (published.web / "net.pt").unlink()
    with pytest.raises(OSError, match=r"can't download net\.pt from .* yourself") as e:
        resolve_weights("small", "yamnet", data_home=tmp_path)
    assert str(tmp_path / "checkpoints" / "net.pt") in str(e.value)


def test_weights_work_without_names_of_classes(published, tmp_path):
    published()
    (published.web / "classes.csv").unlink()
    with pytest.warns(UserWarning, match="classes of 'small' will have no names") as w:
        resolved = resolve_weights("small", "yamnet", data_home=tmp_path)
    assert str(tmp_path / "checkpoints" / "classes.csv") in str(w[0].message)
    assert resolved.labels is None


def test_what_only_a_browser_can_fetch(tmp_path):
    with pytest.raises(OSError, match="only a browser can open: download it") as info:
        resolve_weights("htsat_audioset", "htsat", data_home=tmp_path)
    path = tmp_path / "checkpoints" / "HTSAT_AudioSet_Saved_1.ckpt"
    assert f"put it at {path}" in str(info.value)
    assert "https://drive.google.com/drive/folders/" in str(info.value)
    path.write_bytes(b"weights")
    assert resolve_weights("htsat_audioset", "htsat", data_home=tmp_path).path == str(
        path
    )


# Files of the user's.


def test_random_weights():
    resolved = resolve_weights(None, "yamnet")
    assert (resolved.path, resolved.sha256, resolved.labels) == (None, None, None)
    assert repr(resolved) == "ResolvedCheckpoint(encoder='yamnet', random weights)"


@pytest.mark.parametrize("convert", [str, lambda path: path])
def test_a_file_that_nobody_knows(tmp_path, convert):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"mine")
    resolved = resolve_weights(convert(path), "vggish", data_home=tmp_path / "home")
    assert resolved.paths == (str(path),)
    assert resolved.sha256 == hash_of(b"mine")
    assert (resolved.record, resolved.name, resolved.score) == (None, None, None)
    assert repr(resolved) == (
        f"ResolvedCheckpoint(encoder='vggish', path={str(path)!r}, "
        f"sha256={hash_of(b'mine')!r})"
    )
    assert not (tmp_path / "home").exists()


def test_relative_paths_and_the_users_home(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(b"mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for weights in ("weights.pt", "~/weights.pt"):
        assert resolve_weights(weights, "vggish").path == str(tmp_path / "weights.pt")


def test_a_known_file_is_recognised_by_its_content(published, tmp_path):
    record = published()
    path = tmp_path / "renamed.bin"
    path.write_bytes(b"net")
    (tmp_path / "classes.csv").write_text(CLASSES)
    resolved = resolve_weights(path, "yamnet", data_home=tmp_path / "home")
    assert resolved.record is record
    assert Handler.requests == ()
    assert repr(resolved) == (
        f"ResolvedCheckpoint(encoder='yamnet', name='small', path={str(path)!r}, "
        f"sha256={hash_of(b'net')!r}, licence='MIT', score='pond mAP 0.5', 2 labels)"
    )
    assert resolved.reference == "A paper"
    assert pickle.loads(pickle.dumps(resolved)) == resolved


def test_a_file_of_another_encoder(shared):
    path = shared / "reference" / "checkpoints" / "efficientat" / "mn04_as_mAP_432.pt"
    with pytest.raises(ValueError, match="is the checkpoint 'mn04_as' of the encoder"):
        resolve_weights(path, "yamnet")


def test_what_belongs_to_a_file_is_found_beside_it_or_in_the_data_home(tmp_path):
    weights = tmp_path / "mine.pth"
    weights.write_bytes(b"mine")
    name = "vggish_pca_params-970ea276.pth"
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    find = partial(resolve_weights, weights, "vggish", data_home=home)
    assert find().paths == (str(weights),)
    (home / "checkpoints" / name).write_bytes(b"fetched")
    assert find().paths == (str(weights), str(home / "checkpoints" / name))
    before = find().sha256
    (tmp_path / name).write_bytes(b"beside")
    assert find().paths == (str(weights), str(tmp_path / name))
    assert find().sha256 != before


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_transformers(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    resolved = resolve_weights(tmp_path, "clap")
    assert resolved.path == str(tmp_path / name)
    assert resolved.sha256 == hash_of(b"weights")


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ValueError, match=r"a folder without model\.safetensors or pyt"):
        resolve_weights(tmp_path, "clap")


# Weights that were resolved before.


def test_random_weights_are_found_again():
    known = resolve_weights(None, "yamnet")
    assert find_again(known, None) is known


def test_weights_are_found_again_in_their_place_first(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.pt").write_bytes(name.encode())
    monkeypatch.chdir(tmp_path / "here")
    known = resolve_weights("weights.pt", "vggish")
    # Where a relative path leads to others.
    monkeypatch.chdir(tmp_path / "there")
    assert find_again(known, "weights.pt") == known
    (tmp_path / "here" / "weights.pt").unlink()
    with pytest.raises(CheckpointError, match=r"there/weights\.pt'.*than in fit") as e:
        find_again(known, "weights.pt")
    assert hash_of(b"here") in str(e.value)
    assert hash_of(b"there") in str(e.value)
    (tmp_path / "there" / "weights.pt").write_bytes(b"here")
    moved = str(tmp_path / "there" / "weights.pt")
    assert find_again(known, "weights.pt") == replace(known, paths=(moved,))
    (tmp_path / "there" / "weights.pt").unlink()
    for weights in ("weights.pt", tmp_path / "no.pt", None):
        with pytest.raises(CheckpointError, match=r"here/weights\.pt'.* not there any"):
            find_again(known, weights)


@pytest.mark.parametrize("weights", ["mine.pt", "small", None])
def test_published_weights_are_found_again_by_name(
    published, tmp_path, monkeypatch, weights
):
    published(sources=(published.publish("net.pt", b"net"),))
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pt").write_bytes(b"net")
    known = resolve_weights("mine.pt", "yamnet")
    (tmp_path / "mine.pt").unlink()
    found = find_again(known, weights)
    assert found.path == str(tmp_path / "home" / "checkpoints" / "net.pt")
    assert (found.name, found.sha256) == ("small", known.sha256)


# Lists of classes.


def test_labels_beside_the_weights_come_first(tmp_path):
    weights = tmp_path / "yamnet.h5"
    weights.write_bytes(b"weights")
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    find = partial(find_labels, str(weights), "yamnet", data_home=home)
    assert find() is None
    fetched = home / "checkpoints" / "yamnet_class_map.csv"
    fetched.write_text(CLASSES)
    assert find() == str(fetched)
    beside = tmp_path / "yamnet_class_map.csv"
    beside.write_text(CLASSES)
    assert find() == str(beside)
    assert resolve_weights(weights, "yamnet").labels == ("Rain", "Wind")
    assert find_labels(str(weights), "vggish", data_home=home) is None


def test_labels_packed_in_a_tensorflow_lite_file(tmp_path):
    path = tmp_path / "yamnet.tflite"
    path.write_bytes(b"\x20\x00\x00\x00TFL3" + bytes(24))
    find = partial(resolve_weights, path, "yamnet", data_home=tmp_path / "home")
    assert find().labels is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "Rain\nWind\n")
    assert find().labels == ("Rain", "Wind")
    (tmp_path / "yamnet_class_map.csv").write_text(CLASSES.replace("Wind", "Storm"))
    assert find().labels == ("Rain", "Storm")


def test_the_list_of_another_model(published, tmp_path):
    published()
    (tmp_path / "net.pt").write_bytes(b"net")
    (tmp_path / "classes.csv").write_text(CLASSES + "2,/m/3,Hail\n")
    match = r"classes\.csv lists 3 classes, and 'small' has 2: .*Replace it"
    with pytest.raises(ValueError, match=match):
        resolve_weights(tmp_path / "net.pt", "yamnet")


def test_a_checkpoint_whose_list_nobody_published_takes_no_others(tmp_path):
    path = tmp_path / "checkpoints" / "fsd_mdl_wa.pth"
    path.parent.mkdir()
    path.write_bytes(b"net")
    (path.parent / "class_labels_indices.csv").write_text(CLASSES)
    resolved = resolve_weights("psla_fsd50k", "psla", data_home=tmp_path)
    assert (resolved.name, resolved.labels) == ("psla_fsd50k", None)


def test_a_file_whose_digest_is_known(published):
    record = published()
    path = published.web / "net.pt"
    assert recognise_file(path) is record
    path.write_bytes(b"other")
    assert recognise_file(path) is None


# The Hugging Face hub.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that lays a model out as huggingface_hub does; nothing is fetched."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def fill(hub_id, revision, *names, main=None):
        folder = tmp_path / f"models--{hub_id.replace('/', '--')}"
        (folder / "snapshots" / revision).mkdir(parents=True)
        for name in names:
            (folder / "snapshots" / revision / name).write_bytes(name.encode())
        if main is not None:
            (folder / "refs").mkdir()
            (folder / "refs" / "main").write_text(main)
        return folder / "snapshots" / revision

    return fill


def test_a_model_of_the_hub_is_pinned(hub):
    record = get_checkpoint("laion/clap-htsat-unfused", "clap")
    other = "0" * 40
    hub(record.hub_id, other, "config.json", "pytorch_model.bin", main=other)
    with pytest.raises(OSError, match=r"can't be loaded from the Hugging Face hub \("):
        resolve_weights(record.name, "clap")


def test_a_model_of_the_hub(hub):
    record = get_checkpoint("laion/clap-htsat-unfused", "clap")
    folder = hub(record.hub_id, record.revision, "config.json", "pytorch_model.bin")
    resolved = resolve_weights(record.name, "clap")
    assert resolved.paths == (str(folder / "pytorch_model.bin"),)
    assert resolved.record is record
    assert resolved.sha256 == hash_of(b"pytorch_model.bin")


def test_a_model_of_the_hub_with_another_digest(hub):
    record = get_checkpoint("laion/larger_clap_general", "clap")
    source = replace(record.sources[0], sha256=hash_of(b"another file"))
    record = replace(record, sources=(source,))
    hub(record.hub_id, record.revision, "config.json", "pytorch_model.bin")
    with pytest.raises(OSError, match="is there, but is not the file expected"):
        fetch_checkpoint(record)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_any_model_of_the_hub(hub, name):
    folder = hub("some-one/clap.2", "1" * 40, "config.json", name, main="1" * 40)
    resolved = resolve_weights("some-one/clap.2", "clap")
    assert resolved.path == str(folder / name)
    assert resolved.record is None


def test_a_model_that_the_hub_has_not(hub):
    with pytest.raises(OSError, match="weights='some-one/clap' can't be loaded") as e:
        resolve_weights("some-one/clap", "clap")
    assert "HF_HUB_OFFLINE" in str(e.value)
    assert "model.safetensors or pytorch_model.bin" in str(e.value)


def test_a_model_of_the_hub_is_found_again(hub, tmp_path):
    folder = hub("some-one/clap", "1" * 40, "pytorch_model.bin", "config.json")
    with pytest.raises(CheckpointError, match="not there any more"):
        find_again(ResolvedCheckpoint("yamnet", None, ("/no",)), "some-one/clap")
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text("1" * 40)
    known = resolve_weights("some-one/clap", "clap")
    moved = replace(known, paths=("/on/another/machine/pytorch_model.bin",))
    assert find_again(moved, "some-one/clap") == known


@pytest.mark.parametrize("weights", ["folder/clap.pt", "a/b/c", "/no/clap"])
def test_paths_are_no_hub_ids(weights):
    with pytest.raises(ValueError, match="is neither a file nor the name of a check"):
        resolve_weights(weights, "clap")
