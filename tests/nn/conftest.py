"""Published models with deterministic weights, beside what they gave."""

import importlib.util
import json
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest


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
