import gc
import gzip
import pickle

import numpy as np
import pytest
from gensim.models import KeyedVectors, Word2Vec

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.text import LabelTextEmbedder
from sklabelaudio.text._word_files import read_word_vectors

WORDS = ["dog", "tick-tock", "Baby", "children's", "étude", "clock", "42", "tock"]


@pytest.fixture(scope="module")
def keyed_vectors():
    vectors = KeyedVectors(6)
    matrix = np.random.RandomState(0).randn(len(WORDS), 6).astype(np.float32)
    vectors.add_vectors(WORDS, matrix)
    return vectors


def write_native(vectors, path):
    vectors.save(str(path))


def write_native_with_separate_matrix(vectors, path):
    vectors.save(str(path), sep_limit=0)
    assert path.with_name(path.name + ".vectors.npy").exists()


def write_whole_model(vectors, path):
    model = Word2Vec(vector_size=vectors.vector_size, min_count=1)
    model.build_vocab([vectors.index_to_key])
    for word in vectors.index_to_key:
        model.wv[word] = vectors[word]
    model.save(str(path))


def write_binary(vectors, path):
    vectors.save_word2vec_format(str(path), binary=True)


def write_text(vectors, path):
    vectors.save_word2vec_format(str(path))


def write_text_without_sizes(vectors, path):
    vectors.save_word2vec_format(str(path), write_header=False)


def write_binary_with_line_ends(vectors, path):
    """The original tool ends each vector by a new line."""
    with open(path, "wb") as stream:
        stream.write(f"{len(vectors)} {vectors.vector_size}\n".encode())
        for word in vectors.index_to_key:
            stream.write(word.encode() + b" " + vectors[word].tobytes() + b"\n")


def write_text_with_trailing_spaces(vectors, path):
    """As fastText does."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f"{len(vectors)} {vectors.vector_size}\n")
        for word in vectors.index_to_key:
            numbers = " ".join(repr(float(value)) for value in vectors[word])
            stream.write(f"{word} {numbers} \n")


LAYOUTS = [
    (write_binary, "v.bin"),
    (write_binary, "v.bin.gz"),
    (write_binary, "oddly named"),
    (write_binary_with_line_ends, "v.bin"),
    (write_text, "v.txt"),
    (write_text, "v.vec.gz"),
    (write_text_without_sizes, "v.vec"),
    (write_text_without_sizes, "v.txt.gz"),
    (write_text_with_trailing_spaces, "v.vec"),
    (write_native, "v.kv"),
    (write_native_with_separate_matrix, "v.kv"),
    (write_native, "v.kv.gz"),
    (write_whole_model, "v.model"),
]


@pytest.mark.parametrize(("write", "name"), LAYOUTS)
def test_files(keyed_vectors, tmp_path, write, name):
    path = tmp_path / name
    write(keyed_vectors, path)
    wanted = np.array([keyed_vectors["dog"], keyed_vectors["étude"]])
    for model in (path, str(path)):
        vectors = LabelTextEmbedder(model).fit_transform(["Dog", "étude"])
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, wanted)
    gc.collect()  # an open file would warn, and warnings are errors


def test_a_separate_matrix_is_mapped_into_memory(keyed_vectors, tmp_path):
    path = tmp_path / "v.kv"
    write_native_with_separate_matrix(keyed_vectors, path)
    assert isinstance(read_word_vectors(str(path)).vectors, np.memmap)


def test_words_with_spaces_and_twice(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("dog 3 4\n. . . 1 2\ndog 5 6\n\n")
    vectors = read_word_vectors(str(path))
    np.testing.assert_array_equal(vectors[". . ."], [1, 2])
    np.testing.assert_array_equal(vectors["dog"], [3, 4])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its first line is neither sizes nor a vector"),
        (b"label,vector\ndog,1\n", "its first line is neither sizes nor a vector"),
        (b"\x00\x01\x02\x03" * 8, "its first line is neither sizes nor a vector"),
        (b"3 2\ndog 1 2\ncat 3 4\n", r"\(vector 3 of 3 is missing or short"),
        (b"dog 1 2\ncat 3\n", r"\(vector 2 of 2 is missing or short"),
        (b"dog 1 2\ncat 3 x\n", r"\(could not convert"),
        (b"2 3\ndog \x00\x00\x80?", r"\(unexpected end of input"),
        (pickle.dumps([1, 2]), "'list' object has no"),
        (pickle.dumps([1, 2])[:9], "pickle data was truncated"),
        (gzip.compress(b"3 2\ndog 1 2\n"), r"\(vector 2 of 3 is missing"),
        (gzip.compress(b"3 2\ndog 1 2\n")[:-9], "end-of-stream marker"),
    ],
)
def test_files_that_are_no_word_vectors(tmp_path, content, message):
    path = tmp_path / "v.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        LabelTextEmbedder(path).fit()
    assert str(caught.value).startswith(f"model={str(path)!r} can't be read as word")
    gc.collect()


def test_gensim_file_of_something_else(tmp_path):
    path = tmp_path / "v.model"
    from gensim.corpora import Dictionary

    Dictionary([["dog"]]).save(str(path))
    with pytest.raises(ValueError, match="it holds a Dictionary"):
        LabelTextEmbedder(path).fit()


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Dog", ["dog"]),
        ("dog_clock", ["dog", "clock"]),
        ("Dog, dog (clock)", ["dog", "dog", "clock"]),
        ("Tick-tock", ["tick-tock"]),
        ("clock-dog", ["clock", "dog"]),
        ("clock-tick", ["clock"]),
        ("children’s 42", ["children's", "42"]),
        ("dog unheard", ["dog"]),
    ],
)
def test_mean_of_words(keyed_vectors, label, words):
    rows = np.array([keyed_vectors[word] for word in words], dtype=np.float64)
    np.testing.assert_array_equal(
        LabelTextEmbedder(keyed_vectors).fit_transform([label])[0],
        rows.mean(axis=0).astype(np.float32),
    )


def test_labels_without_a_known_word(keyed_vectors):
    embedder = LabelTextEmbedder(keyed_vectors).fit()
    labels = ["dog", "Roaring_cats", "baby", "fizz-buzz", "?!"]
    with pytest.raises(UnknownLabelError) as caught:
        embedder.transform(labels)
    assert caught.value.labels == ["Roaring_cats", "baby", "fizz-buzz", "?!"]
    assert str(caught.value) == (
        "no vector for 'Roaring_cats' (words tried: 'roaring', 'cats'); 'baby' (words "
        "tried: 'baby'); 'fizz-buzz' (words tried: 'fizz-buzz', 'fizz', 'buzz'); '?!' "
        "(it has no words): rename the label, or give its text in other words, "
        "description={label: text}"
    )


def test_words_of_the_prompt_do_not_make_a_label_known(keyed_vectors):
    embedder = LabelTextEmbedder(keyed_vectors, prompt="dog {label}").fit()
    with pytest.raises(UnknownLabelError, match="no vector for 'cats'"):
        embedder.transform(["cats"])


def test_unknown_words_raise(keyed_vectors):
    embedder = LabelTextEmbedder(
        keyed_vectors, unknown_words="raise", prompt="the {label}"
    ).fit()
    with pytest.raises(
        UnknownLabelError,
        match="words without a vector: 'the', 'old' in 'old dog'; 'the' in 'clock'",
    ) as caught:
        embedder.transform(["old dog", "clock"])
    assert caught.value.labels == ["old dog", "clock"]
    embedder.set_params(prompt=None)
    np.testing.assert_array_equal(
        embedder.transform(["clock"])[0], keyed_vectors["clock"]
    )


# Mappings.


def test_mapping_takes_the_nearest_spelling():
    vectors = {
        "sea_waves": [1],
        "sea waves": [2],
        "SEA Waves": [3],
        "Street_Music": [4],
        "street music": [5],
        "sea": [6],
        "dog": [8],
    }
    embedder = LabelTextEmbedder(vectors).fit()
    labels = {
        "sea_waves": 1,  # as it is
        "sea waves": 2,
        "sea__waves": 2,  # normalised
        "Sea waves": 1,  # ignoring case; the first of several
        "STREET MUSIC": 4,
        "Sea dogs, dog": 7,  # the mean of its words
    }
    np.testing.assert_array_equal(
        embedder.transform(list(labels)).ravel(), list(labels.values())
    )


def test_mapping_with_words_in_other_case():
    embedder = LabelTextEmbedder({"Car": [1.0], "ALARM": [2.0]})
    assert embedder.fit_transform(["car alarm"]) == [[1.5]]


def test_mapping_without_the_label():
    embedder = LabelTextEmbedder({"dog": [1.0], "sea waves": [2.0]}).fit()
    with pytest.raises(UnknownLabelError, match=r"'waves' \(words tried: ") as e:
        embedder.transform(["dog", "waves", "cat"])
    assert e.value.labels == ["waves", "cat"]
    embedder = LabelTextEmbedder({"dog": [1.0]}, unknown_words="raise").fit()
    with pytest.raises(UnknownLabelError, match="'old' in 'old dog'"):
        embedder.transform(["old dog"])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "model is an empty mapping"),
        ({"a": [1.0], 3: [1.0]}, "model has the key 3, a int"),
        ({"a": [1.0], "b": [1.0, 2.0]}, r"model\['b'\] has 2 values and model\['a'\]"),
        ({"a": [[1.0]]}, r"model\['a'\] has shape \(1, 1\)"),
        ({"a": 1.0}, r"model\['a'\] has shape \(\)"),
        ({"a": []}, r"model\['a'\] has shape \(0,\)"),
        ({"a": [[1.0], [1.0, 2.0]]}, r"model\['a'\] is no vector"),
        ({"a": [1.0], "b": [np.nan]}, r"model\['b'\] has NaN or infinite values"),
        ({"a": [np.inf]}, r"model\['a'\] has NaN or infinite values"),
        ({"a": ["x"]}, r"model\['a'\] has dtype <U1"),
        ({"a": [None]}, r"model\['a'\] has dtype object"),
        ({"a": [1j]}, r"model\['a'\] has dtype complex128"),
    ],
)
def test_bad_mappings(mapping, message):
    with pytest.raises(ValueError, match=message):
        LabelTextEmbedder(mapping).fit()


@pytest.fixture(scope="module")
def audioset(shared):
    with np.load(shared / "reference/word2vec/audioset_word2vec.npz") as file:
        names = file["display_name"].tolist()
        return dict(zip(names, file["embedding"], strict=True))


def test_audioset_names(audioset):
    embedder = LabelTextEmbedder(audioset).fit()
    np.testing.assert_array_equal(
        embedder.transform(list(audioset)), list(audioset.values())
    )
    np.testing.assert_array_equal(
        embedder.transform(["chicken,_rooster", "sneeze"]),
        [audioset["Chicken, rooster"], audioset["Sneeze"]],
    )


def test_audioset_vectors_are_means_of_words(audioset):
    """The reference was averaged over Google's word vectors, not by this code."""
    words = {name: v for name, v in audioset.items() if name.isalpha()}
    labels = [
        "Speech synthesizer",
        "Whimper (dog)",
        "Drum roll",
        "Bicycle bell",
        "Car alarm",
        "Fire engine, fire truck (siren)",
        "Train whistle",
        "Aircraft engine",
        "Steam whistle",
    ]
    assert not words.keys() & set(labels)
    np.testing.assert_allclose(
        LabelTextEmbedder(words).fit_transform(labels),
        [audioset[label] for label in labels],
        rtol=1e-6,
        atol=1e-7,
    )
