import hashlib
import os
import socket
import tempfile

import pytest

from sklabelaudio._download import download, get_data_home, locate_data_home

BODY = bytes(range(256)) * 500
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(web_server):
    """A web server on this machine, with a file."""
    web_server.body = BODY
    return web_server


def fetch(server, folder, **options):
    path = str(folder / "weights.pt")
    download(server.url, path, **{"delay": 0, **options})
    return path


@pytest.mark.parametrize("sha256", [DIGEST, DIGEST[:8], None])
def test_a_file_arrives(server, tmp_path, sha256):
    path = fetch(server, tmp_path, sha256=sha256)
    with open(path, "rb") as file:
        assert file.read() == BODY
    assert os.listdir(tmp_path) == ["weights.pt"]
    assert server.n_requests == 1


def test_a_progress_bar_on_request_alone(server, tmp_path, capsys):
    fetch(server, tmp_path)
    assert capsys.readouterr() == ("", "")
    fetch(server, tmp_path, progressbar=True)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "100%" in errors


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 8])
def test_another_file_is_removed(server, tmp_path, sha256):
    with pytest.raises(OSError, match="not the one expected and was removed") as info:
        fetch(server, tmp_path, sha256=sha256)
    message = str(info.value)
    expected = sha256 if len(sha256) == 64 else f"one that begins with {sha256}"
    assert f"its SHA-256 is {DIGEST} instead of {expected}. Try again" in message
    assert f"download {server.url} yourself and put the file at {tmp_path}" in message
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_there_stays_if_the_new_one_is_wrong(server, tmp_path):
    (tmp_path / "weights.pt").write_text("old")
    with pytest.raises(OSError, match="not the one expected"):
        fetch(server, tmp_path, sha256="0" * 64)
    assert (tmp_path / "weights.pt").read_text() == "old"


@pytest.mark.parametrize("sha256", [DIGEST, None])
def test_a_connection_cut_half_way(server, tmp_path, sha256):
    server.cut = True
    with pytest.raises(OSError, match=r"can't download weights\.pt from http") as info:
        fetch(server, tmp_path, sha256=sha256, n_retries=1)
    assert f"put the file at {tmp_path / 'weights.pt'}" in str(info.value)
    assert server.n_requests == 2
    assert os.listdir(tmp_path) == []


def test_an_interruption_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == []


def test_failures_are_retried(server, tmp_path):
    server.n_failures = 2
    fetch(server, tmp_path, sha256=DIGEST, n_retries=2)
    assert server.n_requests == 3


def test_too_many_failures(server, tmp_path):
    server.n_failures = 9
    with pytest.raises(OSError, match=r"can't download weights\.pt .*503"):
        fetch(server, tmp_path, n_retries=1)
    assert server.n_requests == 2


def test_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path / "weights.pt"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.pt"
        with pytest.raises(OSError, match="Without a connection, download") as info:
            download(url, str(path), n_retries=1, delay=0)
    assert f"download {url} yourself and put the file at {path}" in str(info.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("page", [b"\n<!DOCTYPE html><p>404", b"<HTML>Sign in"])
def test_a_web_page_instead(server, tmp_path, page):
    server.body = page
    with pytest.raises(OSError, match="sent a web page instead of the file, which was"):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    # Permissions don't stop an administrator, so the refusal is played.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match=r"folder .*: Permission denied\. .*as data_home"):
        fetch(server, tmp_path)
    assert server.n_requests == 0


def test_data_home_is_located_without_making_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "data"))
    assert locate_data_home() == str(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert get_data_home() == str(tmp_path / "data")
    assert (tmp_path / "data").is_dir()
