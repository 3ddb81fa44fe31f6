import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors

from sklabelaudio.text import LabelTextEmbedder

WORDS = ["the", "sound", "of", "a", "dog", "cat", "sea", "waves", "barking"]
VECTORS = dict(zip(WORDS, np.random.RandomState(0).randn(9, 4), strict=True))


@pytest.fixture
def keyed_vectors():
    vectors = KeyedVectors(4)
    vectors.add_vectors(WORDS, np.array(list(VECTORS.values()), dtype=np.float32))
    return vectors


def mean(vectors, words):
    rows = [vectors[word].astype(np.float64) for word in words.split()]
    return np.mean(rows, axis=0).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda labels: np.array(labels, dtype=object),
        pd.Series,
        lambda labels: pd.Series(labels, dtype="category"),
        lambda labels: pd.Series(labels, index=[5, 7, 5]),
    ],
)
def test_kinds_of_sequences(make):
    labels = ["dog", "sea", "dog"]
    vectors = LabelTextEmbedder(VECTORS).fit_transform(make(labels))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(
        vectors, np.float32([VECTORS[label] for label in labels])
    )


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("dog", TypeError, r"X='dog' is one label: pass a list of labels, \['dog'\]"),
        (None, TypeError, "X is a NoneType: pass a list of labels"),
        ({"dog": 1}, TypeError, "X is a dict"),
        ({"dog"}, TypeError, "X is a set"),
        ((label for label in ["dog"]), TypeError, "X is a generator"),
        ([], ValueError, "X is empty"),
        (np.array([], dtype=str), ValueError, "X is empty"),
        ([["dog"], ["sea"]], TypeError, r"X\[0\]=\['dog'\] is a list"),
        (np.array([["dog"]]), ValueError, "X has 2 dimensions"),
        (pd.DataFrame({"label": ["dog"]}), ValueError, "pass one column"),
        (np.array("dog"), ValueError, "X has 0 dimensions"),
        (["dog", 3], TypeError, r"X\[1\]=3 is a int, a label is a string"),
        (["dog", None], TypeError, r"X\[1\]=None is a NoneType"),
        (["dog", np.nan], TypeError, r"X\[1\]=nan is a float.*drop missing labels"),
        (pd.Series(["dog", None], dtype="string"), TypeError, r"X\[1\]=<NA>"),
        (["dog", ""], ValueError, r"X\[1\]='' is blank"),
        ([" _"], ValueError, r"X\[0\]=' _' is blank"),
    ],
)
def test_bad_labels(X, error, message):
    with pytest.raises(error, match=message):
        LabelTextEmbedder(VECTORS).fit().transform(X)


def test_prompt_is_filled_with_the_normalised_label(keyed_vectors):
    embedder = LabelTextEmbedder(keyed_vectors, prompt="the sound of {label}")
    np.testing.assert_array_equal(
        embedder.fit_transform(["sea_waves"])[0],
        mean(keyed_vectors, "the sound of sea waves"),
    )


def test_prompts_are_averaged(keyed_vectors):
    prompts = ["the sound of {label}", "a {label}"]
    rows = [
        LabelTextEmbedder(keyed_vectors, prompt=prompt).fit_transform(["dog", "cat"])
        for prompt in prompts
    ]
    both = LabelTextEmbedder(keyed_vectors, prompt=prompts)
    np.testing.assert_array_equal(
        both.fit_transform(["dog", "cat"]),
        np.mean(rows, axis=0, dtype=np.float64).astype(np.float32),
    )


def test_normalised_prompts_are_averaged_as_directions(keyed_vectors):
    prompts = ["the sound of {label}", "a {label}"]
    embedder = LabelTextEmbedder(keyed_vectors, prompt=prompts, normalize=True)
    rows = np.array(
        [mean(keyed_vectors, "the sound of dog"), mean(keyed_vectors, "a dog")], float
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = rows.sum(axis=0) / np.linalg.norm(rows.sum(axis=0))
    np.testing.assert_allclose(embedder.fit_transform(["dog"])[0], wanted, rtol=1e-6)


def test_normalize_refuses_a_zero_vector():
    embedder = LabelTextEmbedder({"dog": [0.0, 0.0], "cat": [3.0, 4.0]}, normalize=True)
    np.testing.assert_allclose(embedder.fit_transform(["cat"]), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="the vector of 'dog' is zero"):
        embedder.transform(["dog"])


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("a sound", ValueError, r"prompt='a sound' has no \{label\}: write \{label\}"),
        (["{label}", "a sound"], ValueError, r"prompt='a sound' has no \{label\}"),
        ("{{label}}", ValueError, r"has no \{label\}"),
        ("{label} {foo}", ValueError, r"has the field \{foo\}"),
        ("{}", ValueError, r"prompt='\{\}' has the field \{\}"),
        ("{label.foo}", ValueError, r"has the field \{label.foo\}"),
        ("{label!r}", ValueError, r"has the field \{label!r\}"),
        ("{label:d}", ValueError, r"has the field \{label:d\}"),
        ("a {label", ValueError, r"prompt='a \{label' is no template \("),
        ([], ValueError, r"prompt=\[\] has no template"),
        (["{label}", 3], TypeError, "prompt has 3, a int"),
        (3, ValueError, "The 'prompt' parameter of LabelTextEmbedder must be"),
    ],
)
def test_bad_prompts(keyed_vectors, prompt, error, message):
    with pytest.raises(error, match=message):
        LabelTextEmbedder(keyed_vectors, prompt=prompt).fit()


def test_prompt_with_a_mapping():
    with pytest.raises(ValueError, match=r"prompt='a \{label\}' with a mapping as"):
        LabelTextEmbedder(VECTORS, prompt="a {label}").fit()


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("the sound of a {label}", "the sound of a dog"),
        ("the sound of a {label}", "The_sound_of_a_dog"),
        ("This is a sound of {label}.", "sound of a dog"),
        ("the sound of {label}", "this is the sound of a dog"),
        ("{label} barking", "dog barking"),
        ("the {label} of a dog", "sound of a dog"),
        (["the {label}", "sound of {label}"], "sound of dog"),
    ],
)
def test_doubled_template(keyed_vectors, prompt, label):
    embedder = LabelTextEmbedder(keyed_vectors, prompt=prompt).fit()
    with pytest.warns(UserWarning, match=rf"1 label\(s\).*such as '{label}'") as record:
        embedder.transform([label, "cat"])
    assert len(record) == 1
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("the sound of a {label}", "A cappella dog"),
        ("the sound of a {label}", "barking of a dog"),
        ("{label}", "dog"),
        ("a {label}", "the sound of a dog"),
        ("the sound of {label}", "sound"),
    ],
)
def test_no_warning_for_words_shared_by_chance(keyed_vectors, prompt, label):
    embedder = LabelTextEmbedder(keyed_vectors, prompt=prompt)
    assert embedder.fit_transform([label]).shape == (1, 4)


def test_one_warning_for_many_doubled_labels(keyed_vectors):
    embedder = LabelTextEmbedder(keyed_vectors, prompt="sound of {label}").fit()
    with pytest.warns(UserWarning, match=r"2 label\(s\).*'sound of dog'") as record:
        embedder.transform(["cat", "sound of dog", "sound of cat"])
    assert len(record) == 1


@pytest.mark.parametrize("as_callable", [False, True])
def test_description(keyed_vectors, as_callable):
    texts = {"d": "barking dog", "cat": None}
    embedder = LabelTextEmbedder(
        keyed_vectors,
        prompt="a {label}",
        description=texts.get if as_callable else texts,
    )
    np.testing.assert_array_equal(
        embedder.fit_transform(["cat", "d"]),
        [mean(keyed_vectors, "a cat"), mean(keyed_vectors, "a barking dog")],
    )


def test_description_with_a_mapping_names_its_labels():
    embedder = LabelTextEmbedder(VECTORS, description={"woof": "Dog"})
    np.testing.assert_array_equal(
        embedder.fit_transform(["woof"])[0], np.float32(VECTORS["dog"])
    )


@pytest.mark.parametrize(
    ("description", "error", "message"),
    [
        ({"dog": "a"}, ValueError, "description has no text for 'cat', 'sea': add"),
        (lambda label: 3, TypeError, "description gives 3, a int, for 'dog'"),
        (lambda label: " ", ValueError, "description gives ' ' for 'dog': give a text"),
        ("dogs", ValueError, "The 'description' parameter of LabelTextEmbedder"),
    ],
)
def test_bad_descriptions(description, error, message):
    embedder = LabelTextEmbedder(VECTORS, description=description)
    with pytest.raises(error, match=message):
        embedder.fit_transform(["dog", "cat", "sea"])
