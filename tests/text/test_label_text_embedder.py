import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags

from sklabelaudio.text import LabelTextEmbedder

VECTORS = {"dog": [1.0, 2.0], "cat": [3.0, 5.0], "sea": [0.0, 1.0]}


@pytest.fixture
def keyed_vectors():
    vectors = KeyedVectors(2)
    vectors.add_vectors(list(VECTORS), np.float32(list(VECTORS.values())))
    return vectors


@pytest.fixture
def file(keyed_vectors, tmp_path):
    keyed_vectors.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    return tmp_path / "v.bin"


def test_check_estimator():
    with pytest.warns(SkipTestWarning, match="requires input"):
        results = estimator_checks.check_estimator(LabelTextEmbedder(VECTORS))
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_that_need_no_table(check):
    """check_estimator leaves them out for estimators that take only strings."""
    estimator = LabelTextEmbedder(VECTORS)
    getattr(estimator_checks, check)("LabelTextEmbedder", estimator)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("model", 3),
        ("model", None),
        ("model", ["dog"]),
        ("pooling", "max"),
        ("unknown_words", "zeros"),
        ("normalize", "yes"),
        ("batch_size", 0),
        ("batch_size", 2.0),
    ],
)
def test_bad_parameters(parameter, value):
    embedder = LabelTextEmbedder(VECTORS).set_params(**{parameter: value})
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of LabelTextE"):
        embedder.fit()


def test_tags():
    tags = get_tags(LabelTextEmbedder())
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert tags.requires_fit


def test_not_fitted():
    embedder = LabelTextEmbedder(VECTORS)
    with pytest.raises(NotFittedError, match="LabelTextEmbedder"):
        embedder.transform(["dog"])
    with pytest.raises(NotFittedError, match="LabelTextEmbedder"):
        embedder.get_feature_names_out()


def test_fit_ignores_X():
    rows = [
        LabelTextEmbedder(VECTORS).fit(*arguments).transform(["dog"])
        for arguments in ([], [None], [["cat"], [1]])
    ]
    np.testing.assert_array_equal(rows, [[[1, 2]]] * 3)


def test_output_of_set_output():
    embedder = LabelTextEmbedder(VECTORS).set_output(transform="pandas")
    frame = embedder.fit_transform(["dog", "cat"])
    assert isinstance(frame, pd.DataFrame)
    assert list(frame) == ["labeltextembedder0", "labeltextembedder1"]
    assert list(frame) == list(embedder.get_feature_names_out())
    assert (frame.dtypes == np.float32).all()
    assert frame.shape[1] == embedder.n_components_


def test_html():
    assert "LabelTextEmbedder" in LabelTextEmbedder(VECTORS).fit()._repr_html_()


def test_pipeline():
    pipeline = make_pipeline(LabelTextEmbedder(VECTORS), StandardScaler())
    assert pipeline.fit_transform(["dog", "cat", "sea"]).mean() == pytest.approx(
        0, abs=1e-6
    )


def test_clone_shares_vectors_and_nothing_else(keyed_vectors):
    for model in (VECTORS, keyed_vectors):
        embedder = LabelTextEmbedder(model, normalize=True, description={"a": "dog"})
        embedder.fit().set_output(transform="pandas")
        other = clone(make_pipeline(embedder))[0]
        assert other.model is model
        assert other.description == embedder.description
        assert other.get_params().keys() == embedder.get_params().keys()
        assert not hasattr(other, "n_components_")
        assert not hasattr(other, "_encoder")
        assert isinstance(other.fit_transform(["a"]), pd.DataFrame)
        assert embedder.model is model


def test_clone_does_not_copy_vectors():
    class Vectors(dict):
        def __deepcopy__(self, memo):
            raise AssertionError

    vectors = Vectors(VECTORS)
    assert clone(LabelTextEmbedder(vectors)).model is vectors


def test_settings_after_fit_take_effect():
    embedder = LabelTextEmbedder(VECTORS).fit().set_params(normalize=True)
    assert np.linalg.norm(embedder.transform(["dog"])) == pytest.approx(1)
    embedder.set_params(prompt="a {label}")
    with pytest.raises(ValueError, match="with a mapping as model"):
        embedder.transform(["dog"])


def test_a_file_is_read_once(file, monkeypatch):
    read = []

    def count(*arguments, load=KeyedVectors.load_word2vec_format, **options):
        read.append(arguments)
        return load(*arguments, **options)

    monkeypatch.setattr(KeyedVectors, "load_word2vec_format", count)
    embedder = LabelTextEmbedder(file)
    embedder.fit_transform(["dog"])
    embedder.transform(["cat"])
    assert len(read) == 1


def test_pickle_of_a_file_holds_its_path(file, keyed_vectors):
    embedder = LabelTextEmbedder(file).fit()
    state = pickle.dumps(embedder)
    assert keyed_vectors.vectors.tobytes() not in state
    for other in (pickle.loads(state), copy.deepcopy(embedder)):
        assert not hasattr(other, "_encoder")
        np.testing.assert_array_equal(other.transform(["dog"]), [[1, 2]])
    file.write_bytes(b"1 3\ndog " + np.float32([1, 2, 3]).tobytes())
    with pytest.raises(ValueError, match="of 3 components now and gave 2 in fit: fit"):
        pickle.loads(state).transform(["dog"])
    file.unlink()
    with pytest.raises(OSError, match="no file, no folder"):
        pickle.loads(state).transform(["dog"])


def test_pickle_keeps_vectors_given_as_an_object(keyed_vectors):
    for model in (VECTORS, keyed_vectors):
        other = pickle.loads(pickle.dumps(LabelTextEmbedder(model).fit()))
        np.testing.assert_array_equal(other.transform(["dog"]), [[1, 2]])


def test_another_process(tmp_path, file):
    embedders = [
        LabelTextEmbedder(VECTORS, normalize=True, description={"a": "dog cat"}),
        LabelTextEmbedder(file, prompt="a {label}", description={"a": "dog"}),
    ]
    joblib.dump([embedder.fit() for embedder in embedders], tmp_path / "e.joblib")
    code = (
        "import sys, joblib, numpy\n"
        "embedders = joblib.load(sys.argv[1])\n"
        "assert 'torch' not in sys.modules and 'gensim' not in sys.modules\n"
        "numpy.save(sys.argv[2], [e.transform(['a']) for e in embedders])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", code),
            *(str(tmp_path / "e.joblib"), str(tmp_path / "v.npy")),
        ],
        check=True,
        timeout=120,
    )
    np.testing.assert_array_equal(
        np.load(tmp_path / "v.npy"), [e.transform(["a"]) for e in embedders]
    )


def test_labels_in_any_order_and_company():
    labels = ["dog", "sea cat", "dog", "Cat"]
    for settings in ParameterGrid({"normalize": [False, True]}):
        embedder = LabelTextEmbedder(VECTORS, **settings).fit()
        vectors = embedder.transform(labels)
        np.testing.assert_array_equal(embedder.transform(labels[::-1]), vectors[::-1])
        np.testing.assert_array_equal(embedder.transform(labels[1:2]), vectors[1:2])
