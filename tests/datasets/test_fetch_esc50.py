import hashlib
import io
import os
import shutil
import socket
import tempfile
import zipfile

import numpy as np
import pytest

from sklabelaudio.datasets import _esc50, fetch_esc50, get_data_home, load_esc50

ROWS = [
    "filename,fold,target,category,esc10,src_file,take",
    "1-17-A-0.wav,1,0,dog,True,17,A",
    "2-9-A-42.wav,2,42,siren,False,9,A",
]
MEMBERS = {
    "ESC-50-abc/README.md": "# ESC-50",
    "ESC-50-abc/audio/1-17-A-0.wav": "RIFF" * 1000,
    "ESC-50-abc/audio/2-9-A-42.wav": "RIFF" * 1000,
    "ESC-50-abc/meta/esc50.csv": "\n".join(ROWS),
}


def pack(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(web_server, monkeypatch):
    """A web server on this machine that stands in for the archive's."""
    serve(web_server, monkeypatch, pack(MEMBERS))
    return web_server


def serve(server, monkeypatch, body):
    server.body = body
    archive = _esc50._ARCHIVE._replace(
        url=f"http://127.0.0.1:{server.server_port}/esc50.zip",
        sha256=hashlib.sha256(body).hexdigest(),
    )
    monkeypatch.setattr(_esc50, "_ARCHIVE", archive)


def fetch(home, **options):
    return fetch_esc50(home, progressbar=False, delay=0, **options)


def test_the_archive_is_pinned():
    assert _esc50._ARCHIVE.url.startswith("https://github.com/karolpiczak/ESC-50/")
    assert len(_esc50._ARCHIVE.sha256) == 64


def test_download_then_no_further_download(server, tmp_path):
    home = tmp_path / "new" / "home"
    esc50 = fetch(home)
    assert esc50.target.tolist() == ["dog", "siren"]
    assert os.listdir(home) == ["ESC-50"]
    assert esc50.data[0] == str(home / "ESC-50" / "audio" / "1-17-A-0.wav")
    assert (home / "ESC-50" / "README.md").read_text() == "# ESC-50"
    assert server.n_requests == 1

    again = fetch(home)
    np.testing.assert_array_equal(again.data, esc50.data)
    assert server.n_requests == 1


def test_subset_and_return_X_y(server, tmp_path):
    data, target = fetch(tmp_path, subset="esc10", return_X_y=True)
    assert target.tolist() == ["dog"]
    np.testing.assert_array_equal(data, load_esc50(tmp_path / "ESC-50").data[:1])


def test_a_progress_bar_on_request_alone(server, tmp_path, capsys):
    fetch(tmp_path / "silent")
    assert capsys.readouterr() == ("", "")
    fetch_esc50(tmp_path / "talking", progressbar=True)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "100%" in errors


def test_wrong_hash(server, tmp_path):
    server.body = pack({**MEMBERS, "ESC-50-abc/README.md": "tampered with"})
    with pytest.raises(
        OSError, match="is not the one expected and was removed"
    ) as info:
        fetch(tmp_path)
    message = str(info.value)
    assert _esc50._ARCHIVE.url in message
    assert _esc50._ARCHIVE.sha256 in message
    assert hashlib.sha256(server.body).hexdigest() in message
    assert str(tmp_path / "ESC-50") in message
    assert os.listdir(tmp_path) == []


def test_a_download_cut_half_way_is_never_taken_for_complete(server, tmp_path):
    server.cut = True
    with pytest.raises(OSError, match=r"can't download|is not the one expected"):
        fetch(tmp_path, n_retries=0)
    assert os.listdir(tmp_path) == []
    server.cut = False
    assert len(fetch(tmp_path).data) == 2


def test_an_interrupted_unpacking_is_never_taken_for_complete(
    server, tmp_path, monkeypatch
):
    def extract_half(self, path):
        self.extract("ESC-50-abc/meta/esc50.csv", path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", extract_half)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path)
    assert os.listdir(tmp_path) == []
    assert len(fetch(tmp_path).data) == 2


def test_what_a_killed_process_left_is_never_taken_for_complete(server, tmp_path):
    (tmp_path / ".ESC-50-killed" / "unpacked" / "ESC-50-abc" / "meta").mkdir(
        parents=True
    )
    with pytest.raises(OSError, match="ESC-50 is not at"):
        fetch(tmp_path, download_if_missing=False)
    assert len(fetch(tmp_path).data) == 2


def test_another_process_was_quicker(server, tmp_path, monkeypatch):
    def lose_the_race(source, destination):
        shutil.copytree(source, destination)
        raise OSError("Directory not empty")

    monkeypatch.setattr(os, "replace", lose_the_race)
    assert len(fetch(tmp_path).data) == 2
    assert os.listdir(tmp_path) == ["ESC-50"]


def test_a_failed_move_is_an_error(server, tmp_path, monkeypatch):
    def fail(source, destination):
        raise OSError("Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        fetch(tmp_path)
    assert os.listdir(tmp_path) == []


def test_download_if_missing_false(server, tmp_path):
    with pytest.raises(OSError, match=r"ESC-50 is not at .*download_if_missing=True"):
        fetch(tmp_path, download_if_missing=False)
    assert server.n_requests == 0


def test_failures_are_retried(server, tmp_path):
    server.n_failures = 2
    assert len(fetch(tmp_path, n_retries=2).data) == 2
    assert server.n_requests == 3


def test_too_many_failures(server, tmp_path):
    server.n_failures = 9
    with pytest.raises(OSError, match=r"can't download ESC-50 from http.*503"):
        fetch(tmp_path, n_retries=1)
    assert server.n_requests == 2


def test_without_a_network(server, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/esc50.zip"
        archive = _esc50._ARCHIVE._replace(url=url)
        monkeypatch.setattr(_esc50, "_ARCHIVE", archive)
        with pytest.raises(OSError, match="can't download ESC-50") as info:
            fetch(tmp_path, n_retries=1)
    assert url in str(info.value)
    assert "by hand" in str(info.value)
    assert str(tmp_path / "ESC-50") in str(info.value)


def test_a_folder_put_there_by_hand_is_used(server, tmp_path):
    with zipfile.ZipFile(io.BytesIO(server.body)) as file:
        file.extractall(tmp_path)
    (tmp_path / "ESC-50-abc").rename(tmp_path / "ESC-50")
    assert len(fetch(tmp_path).data) == 2
    assert server.n_requests == 0


@pytest.mark.parametrize("name", ["../../../evil.txt", "/evil.txt", "x/../../evil.txt"])
def test_members_stay_within_the_folder(server, tmp_path, monkeypatch, name):
    serve(server, monkeypatch, pack({**MEMBERS, name: "evil"}))
    home = tmp_path / "some" / "home"
    with pytest.raises(OSError, match="should hold one folder and holds 2 entries"):
        fetch(home)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    assert not os.path.exists("/evil.txt")


def test_members_that_climb_from_the_folder_stay_in_it(server, tmp_path, monkeypatch):
    serve(server, monkeypatch, pack({**MEMBERS, "ESC-50-abc/../../evil.txt": "evil"}))
    fetch(tmp_path)
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob("evil.txt")] == [
        (tmp_path / "ESC-50" / "evil.txt").relative_to(tmp_path)
    ]


def test_a_data_home_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"can't write to the data folder .*as data_home"):
        fetch(tmp_path / "file" / "home")


def test_a_data_home_that_cannot_be_written(tmp_path, monkeypatch):
    # Permissions don't stop an administrator, so the refusal is played.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match=r"folder .*: Permission denied\. .*as data_home"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("data_home", 3),
        ("subset", "esc20"),
        ("download_if_missing", "yes"),
        ("progressbar", "yes"),
        ("return_X_y", 1),
        ("n_retries", -1),
        ("delay", -0.1),
    ],
)
def test_bad_parameters_are_named(tmp_path, parameter, value):
    options = {"data_home": tmp_path, parameter: value}
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of fetch_esc50"):
        fetch_esc50(**options)


def test_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SKLABELAUDIO_DATA", raising=False)
    assert get_data_home() == str(tmp_path / "sklabelaudio_data")
    assert (tmp_path / "sklabelaudio_data").is_dir()
    assert get_data_home("~/sounds") == str(tmp_path / "sounds")
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "a" / "b"))
    assert get_data_home() == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert get_data_home(tmp_path) == str(tmp_path)
