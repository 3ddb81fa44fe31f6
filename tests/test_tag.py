"""The command ``sklabelaudio tag``: its table, its messages, and how it fails."""

import csv
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from sklabelaudio import CLAPEmbedder, EfficientATEmbedder, load_esc50
from sklabelaudio._encoder_options import make_embedder
from sklabelaudio.cli import main
from sklabelaudio.embedding._engine import Engine


@pytest.fixture(autouse=True)
def sounds(tmp_path, monkeypatch):
    """Run each test in a folder with two sounds, and know no checkpoints."""
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "home"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_sound("a.wav", 0)
    write_sound("b.wav", 1)
    return folder


def write_sound(path, seed):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, 16000) * np.hanning(16000) ** rng.integers(1, 9)
    soundfile.write(path, noise.cumsum() / 30 if seed % 2 else noise, 32000)


@pytest.fixture
def tag(small_tagger, capsys):
    """Callable that runs the command and returns exit code, output and messages."""

    def run(*arguments, labels="dog, rain", progress=False):
        code = main(
            [
                *("tag", "--labels", labels),
                *("--weights", str(small_tagger / "efficientat.pt")),
                *("--text-model", str(small_tagger / "words.txt")),
                *([] if progress else ["--quiet"]),
                *map(str, arguments),
            ]
        )
        return code, *capsys.readouterr()

    return run


def read_table(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def hear(small_tagger, files):
    """Return what the tagger hears of each of its classes."""
    embedder = EfficientATEmbedder(
        small_tagger / "efficientat.pt", output="probabilities"
    )
    return embedder.fit_transform(files)


def test_table_holds_what_the_tagger_hears(tag, small_tagger):
    files = ["b.wav", "a.wav"]
    code, output, messages = tag(*files, labels="rain, owl,dog")
    assert (code, messages) == (0, "")
    header, *rows = read_table(output)
    assert header == ["file", "label", "score", "rain", "owl", "dog"]
    assert [row[0] for row in rows] == files
    # Each word means one class, so its score is the probability of that.
    heard = hear(small_tagger, files)[:, [7, 9, 3]]
    names = np.array(header[3:])[heard.argmax(axis=1)]
    assert [row[1] for row in rows] == names.tolist()
    numbers = np.array([row[2:] for row in rows], dtype=float)
    np.testing.assert_allclose(numbers[:, 0], heard.max(axis=1), atol=1e-4)
    shares = heard / heard.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(numbers[:, 1:], shares, atol=1e-4)


def test_searches_folders_for_sounds(tag):
    for name in ["deep/er/1.WAV", "deep/2 a, b.wav", "deep/ü\n.flac", "deep/.3.wav"]:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        write_sound(name, 0)
    os.makedirs("deep/.trash")
    write_sound("deep/.trash/4.wav", 0)
    for name in ["deep/notes.txt", "deep/5"]:
        open(name, "w").close()
    os.makedirs("deep/empty")
    code, output, messages = tag("deep", "a.wav", "./a.wav", "deep/2 a, b.wav")
    assert (code, messages) == (0, "")
    files = [row[0] for row in read_table(output)[1:]]
    assert files == ["deep/2 a, b.wav", "deep/ü\n.flac", "deep/er/1.WAV", "a.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_no_text_are_written_as_they_are(tag):
    name = os.fsdecode(b"\xff.wav")
    open(name, "w").close()
    assert tag(name, "a.wav", "--out", "table.csv")[0] == 1
    with open("table.csv", "rb") as table:
        assert b"\n\xff.wav,,,,\n" in table.read()


def test_files_that_cannot_be_read_are_listed(tag):
    with open("bad.wav", "w") as file:
        file.write("no sound")
    code, output, messages = tag("a.wav", "bad.wav", "gone.wav", "b.wav")
    assert code == 1
    _, first, bad, gone, last = read_table(output)
    assert bad == ["bad.wav", "", "", "", ""]
    assert gone == ["gone.wav", "", "", "", ""]
    assert [first, last] == read_table(tag("a.wav", "b.wav")[1])[1:]
    summary, *causes = messages.splitlines()
    assert summary == "sklabelaudio: 2 of 4 files could not be read:"
    assert [cause.split("'")[2] for cause in causes] == ["bad.wav", "gone.wav"]


def test_no_file_that_can_be_read_is_an_error(tag):
    code, output, messages = tag("gone.wav", "gone too.wav")
    assert (code, output) == (1, "")
    assert re.fullmatch("sklabelaudio: can't read 'gone.wav': .*\n", messages)


def test_progress_goes_to_standard_error(tag):
    quiet = tag("a.wav")[1]
    code, output, messages = tag("a.wav", progress=True)
    assert (code, output) == (0, quiet)
    assert "1/1" in messages


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (' "dog, at night" ,owl,, rain ', ["dog, at night", "owl", "rain"]),
        ("rain,dog,RAIN,Dog,dog", ["rain", "dog"]),
        ("big_dog, big dog,\nrain", ["big_dog", "rain"]),
        ("@labels.txt", ["rain, heavy", "an owl", "dog"]),
    ],
)
def test_labels(labels, columns, tag):
    with open("labels.txt", "w", encoding="utf-8-sig") as file:
        file.write("rain, heavy\n an owl \ndog\n\n")
    code, output, _ = tag("a.wav", labels=labels)
    assert code == 0
    assert read_table(output)[0][3:] == columns


def test_rejects_what_fits_no_label(tag, small_tagger):
    files = ["a.wav", "b.wav"]
    heard = hear(small_tagger, files)[:, 3]
    order = heard.argsort()
    code, output, _ = tag(*files, "--reject", heard.mean(), labels="dog")
    assert code == 0
    rows = read_table(output)[1:]
    assert [rows[i][1] for i in order] == ["none of these", "dog"]
    np.testing.assert_allclose([float(row[2]) for row in rows], heard, atol=1e-4)


def test_explains_labels(tag, small_tagger):
    code, output, _ = tag("a.wav", "b.wav", "--explain")
    assert code == 0
    header, *rows = read_table(output)
    assert header[:4] == ["file", "label", "score", "because"]
    for row in rows:
        name = {"dog": "w3", "rain": "w7"}[row[1]]
        assert row[3] == f"{name} {float(row[2]):.2f}"


def test_explanations_hold_what_counts(tag, small_tagger, tmp_path):
    # A label between two classes, and nearer to the first.
    lines = (small_tagger / "words.txt").read_text().splitlines()
    vectors = {line.split()[0]: np.array(line.split()[1:], float) for line in lines[1:]}
    units = [vectors[name] / np.linalg.norm(vectors[name]) for name in ("w3", "w7")]
    between = units[0] + 0.95 * units[1]
    lines[0] = f"{len(lines)} 64"
    lines.append(" ".join(["puddle", *map(str, between)]))
    words = tmp_path / "more.txt"
    words.write_text("\n".join(lines) + "\n")
    code, output, _ = tag(
        *("a.wav", "--explain", "--text-model", words, "--reject", 0), labels="puddle"
    )
    assert code == 0
    heard = hear(small_tagger, ["a.wav"])[0]
    row = read_table(output)[1]
    assert row[3] == f"w3 {heard[3]:.2f}; w7 {heard[7]:.2f}"


def test_writes_the_table_to_a_file(tag, sounds):
    with open("table.csv", "w") as file:
        file.write("a longer table than this one will be\n" * 99)
    _, expected, _ = tag("a.wav", "b.wav")
    for name in ("table.csv", "new.csv"):
        assert tag("a.wav", "b.wav", "--out", name) == (0, "", "")
        assert (sounds / name).read_text() == expected
    _, output, messages = tag("a.wav", "--out", "new.csv", progress=True)
    assert output == ""
    assert "sklabelaudio: wrote new.csv\n" in messages


def test_cache_spares_the_encoder(tag, monkeypatch):
    first = tag("a.wav", "b.wav", "--cache", "cache")

    def run(*_):
        raise AssertionError("a clip is encoded again")

    monkeypatch.setattr(Engine, "run", run)
    assert tag("b.wav", "a.wav", "--cache", "cache", labels="rain, owl")[0] == 0
    assert tag("a.wav", "b.wav", "--cache", "cache") == first


def test_prompts_reach_the_text_model(tag):
    # Every word counts, and "owl" means w9 whatever the label.
    _, output, _ = tag("a.wav", "--prompt", "owl owl owl owl {label}", "--explain")
    assert read_table(output)[1][3] != read_table(tag("a.wav", "--explain")[1])[1][3]


@pytest.mark.parametrize(
    ("arguments", "labels", "message"),
    [
        (["a.wav"], "dog", r"--labels=dog is one label.*--reject"),
        (["a.wav"], "dog, Dog", r"one label"),
        (["a.wav"], " , ", r"holds no label.*--labels \"dog, rain"),
        (["a.wav"], "@gone.txt", r"gone\.txt: No such file"),
        (["a.wav"], "@a.wav", r"a\.wav, line \d+: it is no text"),
        (["a.wav"], "dog, bubble", r"no vector for 'bubble'"),
        (["a.wav", "--reject", "0"], "dog, none of these", "leave it out"),
        (["empty"], "dog, rain", r"no sound files \(.*\.wav\) in empty"),
        (["a.wav", "--out", "gone/x.csv"], "dog, rain", r"--out=gone/x\.csv can't be"),
        (["a.wav", "--out", "empty"], "dog, rain", r"--out=empty can't be"),
        (["empty/..", "--out", "b.wav"], "dog, rain", r"one of the sound files"),
        (["a.wav", "--prompt", "a sound"], "dog, rain", r"has no \{label\}"),
        (["a.wav", "--text-model", "a.wav"], "dog, rain", r"can't be read as word"),
        (["a.wav", "--text-model", "empty"], "dog, rain", r"folder that transformers"),
        (["a.wav", "--weights", "gone.pt"], "dog, rain", r"neither a file .*vggish"),
        (["a.wav", "--weights", "mn04"], "dog, rain", r"Did you mean mn04_as\?"),
        (["a.wav", "--weights", "a.wav"], "dog, rain", r"does not tell .*--encoder"),
        (
            ["a.wav", "--weights", "efficientat_.pt"],
            "dog, rain",
            r"can't load '.*_\.pt",
        ),
        (["a.wav", "--encoder", "ear"], "dog, rain", r"--encoder=ear is none of ast"),
        (["a.wav", "--tagger-labels", "few.txt"], "dog, rain", r"lists 2 .* has 527"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, labels, message, tag, sounds):
    (sounds / "empty").mkdir()
    (sounds / "few.txt").write_text("w1\nw2\n")
    (sounds / "efficientat_.pt").write_text("no weights")
    before = {path: path.read_bytes() for path in sounds.glob("*.*")}
    code, output, messages = tag(*arguments, labels=labels)
    assert (code, output) == (1, "")
    (line,) = messages.splitlines()
    assert re.match("sklabelaudio: .*" + message, line), line
    assert {path: path.read_bytes() for path in sounds.glob("*.*")} == before


def test_says_where_to_get_the_classes(tag, small_tagger, sounds, tmp_path):
    weights = tmp_path / "efficientat.pt"
    weights.write_bytes((small_tagger / "efficientat.pt").read_bytes())
    code, _, message = tag("a.wav", "--weights", weights)
    assert code == 1
    assert "--tagger-labels" in message
    assert "get class_labels_indices.csv from https://" in message
    assert f"put it into {tmp_path} or {tmp_path}/home/checkpoints" in message
    listing = small_tagger / "class_labels_indices.csv"
    assert tag("a.wav", "--weights", weights, "--tagger-labels", listing)[0] == 0


def test_encoders_without_classes_are_told(tag, tmp_path):
    (tmp_path / "vggish.pth").touch()
    code, _, message = tag("a.wav", "--weights", tmp_path / "vggish.pth")
    assert code == 1
    assert "neither classes of sounds nor texts: use a tagger" in message


@pytest.mark.parametrize(
    ("weights", "encoder"),
    [
        ("mn10_as", "efficientat"),
        ("folder/mn10_as_mAP_471.pt", "efficientat"),
        ("yamnet", "yamnet"),
        ("mine.TFLITE", "yamnet"),
        ("mine.h5", "yamnet"),
        ("VGGish-mine.pth", "vggish"),
        ("laion/clap-htsat-unfused", "clap"),
        ("folder", "clap"),
        ("HTSAT_AudioSet_Saved_1.ckpt", "htsat"),
    ],
)
def test_encoder_is_read_off_the_weights(weights, encoder, sounds):
    (sounds / "folder").mkdir()
    if "." in weights:
        (sounds / weights).touch()
    embedder = make_embedder(weights, batch_size=7)
    assert (embedder._encoder, embedder.weights) == (encoder, weights)
    assert embedder.batch_size == 7


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    """Folder of a small CLAP with random weights and a tokenizer of letters."""
    import torch
    import transformers

    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 40, "intermediate_size": 16, "max_position_embeddings": 64}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "hidden_size": 64}
    audio |= {"num_attention_heads": [1, 1, 2, 2]}
    config = transformers.ClapConfig(text_config=text, audio_config=audio)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *map(chr, range(97, 123)), "Ġ"]
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ClapModel(config).save_pretrained(folder)
    transformers.RobertaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[]
    ).save_pretrained(folder)
    return folder


def test_models_with_texts_of_their_own(clap, tag):
    files = ["a.wav", "b.wav"]
    code, output, messages = tag(*files, "--weights", clap, "--prompt", "a {label}")
    assert code == 0
    assert re.fullmatch(
        r"sklabelaudio: --text-model=.*words\.txt is ignored: .*own\n", messages
    )
    embedder = CLAPEmbedder(clap)
    X = embedder.fit_transform(files)
    texts = embedder.text_embedder(prompt="a {label}").fit_transform(["dog", "rain"])
    X, texts = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (X, texts))
    header, *rows = read_table(output)
    assert header == ["file", "label", "score", "dog", "rain"]
    scores = [float(row[2]) for row in rows]
    np.testing.assert_allclose(scores, (X @ texts.T).max(axis=1), atol=1e-4)

    code, output, messages = tag(*files, "--weights", clap, "--explain")
    assert (code, output) == (1, "")
    assert "--explain with --weights" in messages


def test_a_reader_that_has_enough_is_no_error(small_tagger):
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "sklabelaudio.cli", "tag", "a.wav"),
            *("--labels", "dog, rain", "--weights", small_tagger / "efficientat.pt"),
            *("--text-model", small_tagger / "words.txt", "--quiet"),
        ],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (141, b"")


@pytest.mark.parametrize(("more", "hint"), [([], ""), (["--cache", "x"], "goes on")])
def test_interrupted(more, hint, tag, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "run", run)
    code, output, messages = tag("a.wav", *more)
    assert (code, output) == (130, "")
    assert re.fullmatch(f"sklabelaudio: interrupted.*{hint}\n", messages)


def test_help_explains_the_table(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["tag", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", text, re.M) for name in ("score", "because"))
    assert 'sklabelaudio tag recordings --labels "dog, rain, chain saw"' in text


@pytest.mark.parametrize("encoder", ["efficientat", "yamnet"])
def test_names_real_clips(encoder, shared, esc10, minilm, capsys):
    weights, listing = {
        "efficientat": ("mn04_as_mAP_432.pt", "class_labels_indices.csv"),
        "yamnet": ("yamnet.tflite", None),
    }[encoder]
    data = load_esc50(esc10)
    chosen = {}
    for label, file in zip(data.target, data.data, strict=True):
        chosen.setdefault(label, file)
    command = ["tag", *map(str, chosen.values()), "--quiet", "--explain"]
    command += ["--labels", ",".join(chosen), "--text-model", str(minilm)]
    weights = shared / "reference" / "checkpoints" / encoder / weights
    command += ["--weights", str(weights)]
    if listing is not None:
        command += ["--tagger-labels", str(shared / "data" / "audioset" / listing)]
    assert main(command) == 0
    rows = read_table(capsys.readouterr().out)[1:]
    right = [row[1] == label for row, label in zip(rows, chosen, strict=True)]
    assert len(right) == 10
    assert sum(right) >= 9
    reasons = {row[1]: row[3] for row in rows}
    assert re.search(r"(Dog|Bark|Bow-wow) 0\.\d\d", reasons["dog"])
