"""The encoder that CONTRIBUTING.md shows, as anybody's own would be used."""

import pickle
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklabelaudio.exceptions import CheckpointError

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def page():
    """The code of the page, as a module that can be pickled from."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(code.splitlines()) < 40
    module = ModuleType("own_encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "own_encoder", module)
        exec(compile(code, PAGE.name, "exec"), module.__dict__)
        yield module


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in (99, 4000, 90000)]


def test_it_embeds_arrays_and_files(page, waves, tmp_path):
    rows = page.ToyEmbedder(sampling_rate=8000).fit_transform(waves)
    assert rows.shape == (3, 8)
    paths = []
    for i, wave in enumerate(waves):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], wave, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(page.ToyEmbedder().fit_transform(paths), rows)
    windows = page.ToyEmbedder(sampling_rate=8000, output="frames").fit(waves)
    assert len(windows.transform(waves[2:])[0]) == 2  # of 11.25 s


def test_it_takes_a_file_of_weights(page, waves, tmp_path):
    import torch

    toy = page.Toy()
    with torch.no_grad():
        toy.linear.bias.fill_(100.0)
        toy.linear.weight.zero_()
    state = {f"module.{name}": value for name, value in toy.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    embedder = page.ToyEmbedder(tmp_path / "weights.pt", sampling_rate=8000)
    np.testing.assert_array_equal(embedder.fit_transform(waves), np.full((3, 8), 100.0))
    assert embedder.checkpoint_.n_parameters == 8 * 64 + 8
    torch.save({"bias": torch.zeros(8)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="Is this the file of another model"):
        clone(embedder).fit(waves)
    with pytest.raises(ValueError, match=r"The names for 'toy' are none"):
        page.ToyEmbedder("mine", sampling_rate=8000).fit(waves)


def test_it_is_an_estimator(page, waves, tmp_path):
    embedder = page.ToyEmbedder(sampling_rate=8000, cache=tmp_path)
    model = make_pipeline(embedder, LogisticRegression()).fit(waves, [0, 1, 1])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict_proba(waves), model.predict_proba(waves)
    )
    names = model[0].get_feature_names_out()
    assert names.tolist() == [f"toyembedder{i}" for i in range(8)]
