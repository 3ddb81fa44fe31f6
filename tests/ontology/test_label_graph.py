import pickle
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.ontology import LabelGraph
from sklabelaudio.text import LabelTextEmbedder

EDGES = [
    ("sound", "animal"),
    ("sound", "weather"),
    ("animal", "dog"),
    ("animal", "cat"),
    ("weather", "rain"),
]
PARENTS = {"animal": "sound", "weather": "sound", "dog": "animal"}
PARENTS |= {"cat": "animal", "rain": "weather"}
MATRIX = np.array([[0.0, 0.5, 2.0], [0.5, 0.0, 1.0], [2.0, 1.0, 0.0]])
NAMES = ["dog", "wolf", "rain"]


def measure(n_nodes, edges):
    """Shortest distances by Floyd's algorithm."""
    distances = np.full((n_nodes, n_nodes), np.inf)
    np.fill_diagonal(distances, 0)
    for left, right, length in edges:
        distances[left, right] = distances[right, left] = length
    for middle in range(n_nodes):
        round_about = distances[:, [middle]] + distances[[middle]]
        distances = np.minimum(distances, round_about)
    return distances


def draw_edges(seed, *, n_nodes=25, n_extra=12):
    """Draw a connected graph without circles, as triples of positions and lengths."""
    rng = np.random.default_rng(seed)
    pairs = {(int(rng.integers(child)), child) for child in range(1, n_nodes)}
    for _ in range(n_extra):
        parent, child = sorted(rng.choice(n_nodes, 2, replace=False).tolist())
        pairs.add((parent, child))
    pairs = [sorted(pairs)[index] for index in rng.permutation(len(pairs))]
    return [(*pair, float(rng.random()) + 0.1) for pair in pairs]


def name(edges):
    return [(f"n{parent}", f"n{child}", *rest) for parent, child, *rest in edges]


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_an_independent_algorithm(seed):
    edges = draw_edges(seed)
    labels = [f"n{node}" for node in range(25)]
    unweighted = LabelGraph(name(edge[:2] for edge in edges), labels=labels)
    expected = measure(25, [(*edge[:2], 1) for edge in edges])
    assert unweighted.distances().dtype == np.uint8
    np.testing.assert_array_equal(unweighted.distances(), expected)

    weighted = LabelGraph(name(edges), labels=labels)
    assert weighted.distances().dtype == np.float64
    np.testing.assert_allclose(weighted.distances(), measure(25, edges), rtol=1e-12)
    assert (weighted.distances() != expected).any()


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_exactly_symmetric_whatever_the_rounding(seed):
    distances = LabelGraph(name(draw_edges(seed, n_nodes=60))).distances()
    np.testing.assert_array_equal(distances, distances.T)
    assert not distances.diagonal().any()


@pytest.mark.parametrize("seed", range(5))
def test_path_is_the_first_of_the_shortest(seed):
    """Of the shortest paths, the one whose turns come first in order is the first."""
    edges = name(edge[:2] for edge in draw_edges(seed, n_extra=40))
    edges += [("m0", "n3"), ("m0", "n4"), ("m0", "n20")]  # a second top
    graph = LabelGraph(edges)
    children = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)

    def walk(turns, path):
        yield len(path), turns, path
        for turn, child in enumerate(children.get(path[-1], [])):
            yield from walk((*turns, turn), [*path, child])

    below = {child for _, child in edges}
    tops = [label for label in graph.labels if label not in below]
    walks = [step for turn, top in enumerate(tops) for step in walk((turn,), [top])]
    assert len(walks) > len(graph.labels)  # there was a choice
    for label in graph.labels:
        *_, expected = min(step for step in walks if step[-1][-1] == label)
        assert graph.path(label) == expected


@pytest.mark.parametrize("seed", range(5))
def test_ancestors_are_all_that_a_label_can_be_reached_from(seed):
    rng = np.random.default_rng(seed)
    children, parents = np.nonzero(np.tril(rng.random((30, 30)) < 0.08, -1))
    edges = [(f"n{p}", f"n{c}") for p, c in zip(parents, children, strict=True)]
    graph = LabelGraph(edges)
    step = np.zeros((30, 30), dtype=bool)
    step[parents, children] = True
    reach = step.copy()
    for _ in range(30):
        reach |= reach @ step
    for label in graph.labels:
        above = graph.ancestors(label)
        assert sorted(above) == sorted(
            f"n{k}" for k in np.flatnonzero(reach[:, int(label[1:])])
        )
        assert len(set(above)) == len(above)


def test_ancestors_begin_with_the_nearest():
    ways = ["all thing", "thing tool", "thing engine", "tool saw", "engine saw"]
    graph = LabelGraph([way.split() for way in ways])
    assert graph.ancestors("saw") == ["tool", "engine", "thing", "all"]
    assert graph.ancestors("all") == []


def test_ancestors_in_a_circle_hold_the_others_once():
    graph = LabelGraph([("a", "b"), ("b", "c"), ("c", "a")])
    assert graph.ancestors("a") == ["c", "b"]


def test_labels_choose_and_order():
    graph = LabelGraph(EDGES, labels=["rain", "dog"])
    assert graph.labels == ["rain", "dog"]
    assert graph.distances().tolist() == [[0, 4], [4, 0]]
    assert graph.distances(["cat", "dog", "sound"]).tolist() == [
        [0, 2, 2],
        [2, 0, 2],
        [2, 2, 0],
    ]
    assert graph.path("cat") == ["sound", "animal", "cat"]
    assert graph.path("sound") == ["sound"]
    assert LabelGraph(EDGES).labels == [
        "sound",
        "animal",
        "weather",
        "dog",
        "cat",
        "rain",
    ]


def test_the_list_of_labels_can_be_changed_without_harm():
    graph = LabelGraph(EDGES, labels=["rain", "dog"])
    graph.labels.reverse()
    assert graph.labels == ["rain", "dog"]


@pytest.mark.parametrize("kind", [np.array, tuple, pd.Series, iter])
def test_any_sequence_of_labels(kind):
    labels = ["rain", "dog"]
    assert LabelGraph(EDGES, labels=kind(labels)).labels == labels
    assert type(LabelGraph(EDGES, labels=kind(labels)).labels[0]) is str
    graph = LabelGraph(EDGES)
    assert graph.distances(kind(labels)).tolist() == [[0, 4], [4, 0]]
    assert list(graph.describe(kind(labels))) == labels


@pytest.mark.parametrize("kind", [np.array, iter])
def test_edges_of_any_kind(kind):
    graph = LabelGraph(kind(EDGES))
    np.testing.assert_array_equal(graph.distances(), LabelGraph(EDGES).distances())


def test_whole_lengths_give_small_integers():
    def ask(length):
        return LabelGraph([("a", "b", length), ("b", "c")]).distances()

    assert ask(2).dtype == np.uint8
    assert ask(2.0)[0].tolist() == [0, 2, 3]
    assert ask(255).dtype == np.uint16
    assert ask(255).max() == 256
    assert ask(0.5).dtype == np.float64
    assert ask(0.5)[0].tolist() == [0, 0.5, 1.5]


def test_the_type_does_not_depend_on_the_labels_asked_for():
    graph = LabelGraph([("a", "b", 0.5), ("b", "c")])
    assert graph.distances(["b", "c"]).dtype == np.float64
    graph = LabelGraph.from_distances(MATRIX, NAMES)
    assert graph.distances(["wolf", "rain"]).dtype == np.float64


def test_the_shorter_way_wins_over_the_direct_one():
    graph = LabelGraph([("a", "b", 5.0), ("a", "c"), ("c", "b")])
    assert graph.distances(["a", "b"]).tolist() == [[0, 2], [2, 0]]
    assert graph.path("b") == ["a", "b"]  # the path of fewest steps


def test_undirected_circles_have_distances():
    ring = LabelGraph([("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")])
    assert ring.distances()[0].tolist() == [0, 1, 2, 1]
    with pytest.raises(ValueError, match=r"no path leads down to 'b'.* in a circle"):
        ring.path("b")


def test_from_parents():
    graph = LabelGraph.from_parents(PARENTS, labels=["dog", "cat", "rain"])
    expected = LabelGraph(EDGES, labels=["dog", "cat", "rain"])
    np.testing.assert_array_equal(graph.distances(), expected.distances())
    assert graph.describe() == expected.describe()
    assert repr(graph) == "<LabelGraph: 3 labels, 6 nodes, 5 edges>"


@pytest.mark.parametrize("none", [None, [], ()])
def test_from_parents_with_many_or_none(none):
    graph = LabelGraph.from_parents(
        {"alarm": none, "music": None, "bell": ["music", "alarm"], "gong": ("bell",)}
    )
    assert graph.labels == ["alarm", "music", "bell", "gong"]
    assert graph.distances(["alarm", "gong", "music"])[0].tolist() == [0, 2, 2]
    assert graph.path("gong") == ["alarm", "bell", "gong"]  # the first top


def test_from_distances_takes_them_as_they_are():
    graph = LabelGraph.from_distances(MATRIX, NAMES)
    # The way over the wolf would be shorter.
    np.testing.assert_array_equal(graph.distances(), MATRIX)
    assert graph.distances(["rain", "dog"]).tolist() == [[0, 2], [2, 0]]
    assert graph.labels == NAMES
    frame = pd.DataFrame(MATRIX, NAMES, NAMES)
    np.testing.assert_array_equal(
        LabelGraph.from_distances(frame, frame.columns).distances(), MATRIX
    )
    whole = LabelGraph.from_distances(MATRIX * 2, NAMES).distances()
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, MATRIX * 2)


def test_from_distances_copies():
    matrix = MATRIX.copy()
    graph = LabelGraph.from_distances(matrix, NAMES)
    matrix[:] = 7
    graph.distances()[:] = 8
    np.testing.assert_array_equal(graph.distances(), MATRIX)


def test_rounding_errors_of_distances_are_mended():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, 50)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix = 1 - vectors @ vectors.T
    matrix += rng.uniform(-1e-7, 1e-7, matrix.shape)
    assert (np.diagonal(matrix) != 0).any()
    assert (matrix != matrix.T).any()
    matrix[0, 1] = matrix[1, 0] = -1e-7
    distances = LabelGraph.from_distances(matrix, list("abcdefgh")).distances()
    np.testing.assert_array_equal(distances, distances.T)
    assert not np.diagonal(distances).any()
    assert (distances >= 0).all()
    np.testing.assert_allclose(distances, matrix, rtol=0, atol=5e-7)


def test_descriptions():
    graph = LabelGraph(EDGES, labels=["dog", "rain"])
    assert graph.describe() == {
        "dog": "sound > animal > dog",
        "rain": "sound > weather > rain",
    }
    assert graph.describe(how="label") == {"dog": "dog", "rain": "rain"}
    assert graph.describe(["cat", "cat"], "prompt") == {"cat": "the sound of cat"}
    distances = LabelGraph.from_distances(MATRIX, NAMES)
    assert distances.describe(["dog"], how="prompt") == {"dog": "the sound of dog"}


def test_a_label_embedder_takes_descriptions():
    graph = LabelGraph(EDGES)
    words = {"sound": [1, 0, 0], "animal": [0, 1, 0], "dog": [0, 0, 1]}
    embedder = LabelTextEmbedder(words, description=graph.describe(["dog"]))
    np.testing.assert_allclose(embedder.fit_transform(["dog"]), [[1 / 3] * 3])


@pytest.mark.parametrize(
    "graph",
    [
        LabelGraph(EDGES, labels=["dog", "rain"]),
        LabelGraph([("dog", "rain", 0.5), ("rain", "wolf")]),
        LabelGraph.from_parents(PARENTS),
        LabelGraph.from_distances(MATRIX, NAMES),
    ],
)
def test_pickles(graph):
    copy = pickle.loads(pickle.dumps(graph))
    assert copy.labels == graph.labels
    assert repr(copy) == repr(graph)
    np.testing.assert_array_equal(copy.distances(), graph.distances())
    assert copy.describe(how="prompt") == graph.describe(how="prompt")


def test_repr():
    assert repr(LabelGraph(EDGES)) == "<LabelGraph: 6 labels, 6 nodes, 5 edges>"
    assert repr(LabelGraph.from_distances(MATRIX, NAMES)) == (
        "<LabelGraph: 3 labels, 3 nodes, 0 edges>"
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda labels: LabelGraph(EDGES, labels=labels),
        lambda labels: LabelGraph.from_parents(PARENTS, labels=labels),
        LabelGraph(EDGES).distances,
        LabelGraph(EDGES).describe,
        LabelGraph.from_distances(MATRIX, NAMES).distances,
    ],
)
def test_unknown_labels_are_named_with_the_nearest(ask):
    match = r"labels names 'Dgo' \(did you mean 'dog'\?\), 'xyz', not in <LabelGraph: "
    with pytest.raises(UnknownLabelError, match=match) as info:
        ask(["dog", "Dgo", "xyz", "Dgo"])
    assert info.value.labels == ["Dgo", "xyz"]
    with pytest.raises(UnknownLabelError, match=r"'x0', 'x1', 'x2', 7 more, not in"):
        ask([f"x{index}" for index in range(10)])


@pytest.mark.parametrize("ask", [LabelGraph(EDGES).path, LabelGraph(EDGES).ancestors])
def test_unknown_label_of_a_path(ask):
    match = r"label names 'dag' \(did you mean 'dog'\?\)"
    with pytest.raises(UnknownLabelError, match=match):
        ask("dag")
    with pytest.raises(TypeError, match=r"label=\['dog'\] is a list: pass one label"):
        ask(["dog"])


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        ("dog", TypeError, r"labels='dog' is one label: pass a list, \['dog'\]"),
        ({"dog", "cat"}, TypeError, "labels is a set: pass a list"),
        ({"dog": 1}, TypeError, "labels is a dict: pass a list"),
        (3, TypeError, "labels is a int: pass a list"),
        ([], ValueError, "labels is empty"),
        (["dog", np.nan], TypeError, r"labels\[1\]=nan is no label"),
        (["dog", " "], TypeError, r"labels\[1\]=' ' is no label"),
        ([["dog"], ["cat"]], TypeError, r"labels\[0\]=\['dog'\] is no label"),
    ],
)
def test_labels_that_are_none(labels, error, match):
    for ask in (LabelGraph(EDGES).distances, LabelGraph(EDGES).describe):
        with pytest.raises(error, match=match):
            ask(labels)
    with pytest.raises(error, match=match):
        LabelGraph(EDGES, labels=labels)
    with pytest.raises(error, match=match):
        LabelGraph.from_distances(MATRIX, labels)


def test_duplicate_labels():
    match = r"labels holds \['dog'\] more than once: list a label once"
    with pytest.raises(ValueError, match=match):
        LabelGraph(EDGES, labels=["dog", "cat", "dog"])
    with pytest.raises(ValueError, match=match):
        LabelGraph(EDGES).distances(["dog", "cat", "dog"])
    with pytest.raises(ValueError, match=match):
        LabelGraph.from_distances(MATRIX, ["dog", "rain", "dog"])


def test_labels_that_are_not_connected():
    graph = LabelGraph([*EDGES, ("engine", "car")])
    match = "'sound' and 'engine' are not connected, .* join them by an edge"
    with pytest.raises(ValueError, match=match):
        graph.distances()
    assert graph.distances(["car", "engine"]).tolist() == [[0, 1], [1, 0]]
    assert graph.path("car") == ["engine", "car"]
    alone = LabelGraph.from_parents({"noise": None, "hum": None})
    with pytest.raises(ValueError, match="'noise' and 'hum' are not connected"):
        alone.distances()
    assert alone.distances(["hum"]).tolist() == [[0]]


@pytest.mark.parametrize(
    ("edges", "error", "match"),
    [
        ([], ValueError, "edges is empty"),
        (PARENTS, TypeError, r"edges is a mapping: use LabelGraph\.from_parents"),
        (["ab"], ValueError, r"edges\[0\]='ab' is no edge"),
        ([("a", "b"), ("a",)], ValueError, r"edges\[1\]=\('a',\) is no edge"),
        ([("a", "b", 1, 2)], ValueError, "is no edge"),
        ([3], ValueError, r"edges\[0\]=3 is no edge: it must be \(parent, child\)"),
        ([("a", 1)], TypeError, r"edges\[0\]\[1\]=1 is no label"),
        ([("a", "a")], ValueError, r"edges\[0\] joins 'a' with itself"),
        (
            [("a", "b"), ("c", "b"), ("b", "a")],
            ValueError,
            r"edges\[2\] joins 'b' and 'a', as edges\[0\] does already",
        ),
        ([("a", "b"), ("a", "b")], ValueError, r"as edges\[0\] does already"),
        ([("a", "b", -1.0)], ValueError, r"edges\[0\] has the length -1\.0"),
        ([("a", "b", 0)], ValueError, "must be a positive, finite number"),
        ([("a", "b", np.nan)], ValueError, "has the length nan"),
        ([("a", "b", np.inf)], ValueError, "has the length inf"),
        ([("a", "b", None)], ValueError, "has the length None"),
        ([("a", "b", "1")], ValueError, "has the length '1'"),
    ],
)
def test_edges_that_are_none(edges, error, match):
    with pytest.raises(error, match=match):
        LabelGraph(edges)


@pytest.mark.parametrize(
    ("parents", "error", "match"),
    [
        (EDGES, TypeError, "parents is a list: pass a mapping"),
        ({}, ValueError, "parents is empty"),
        ({"a": "a"}, ValueError, "goes round in a circle, 'a' > 'a': drop one"),
        (
            {"top": None, "a": ["top", "c"], "b": "a", "c": "b"},
            ValueError,
            r"parents goes round in a circle, ('[abc]' > ){3}'[abc]': drop one",
        ),
        ({"a": 3}, TypeError, r"parents\['a'\] is a int"),
        ({"a": np.nan}, TypeError, r"parents\['a'\] is a float"),
        ({"a": ["b", None]}, TypeError, r"parents\['a'\]\[1\]=None is no label"),
        ({1: "b"}, TypeError, "parents has the key 1"),
        ({"a": ["b", "b"]}, ValueError, r"parents\['a'\] holds \['b'\] more than once"),
    ],
)
def test_parents_that_are_none(parents, error, match):
    with pytest.raises(error, match=match):
        LabelGraph.from_parents(parents)


def test_a_circle_is_named_from_parent_to_child():
    with pytest.raises(ValueError, match="circle") as info:
        LabelGraph.from_parents({"b": "a", "c": "b", "a": "c"})
    circle = re.findall(r"'(\w)'", str(info.value))
    assert len(circle) == 4
    for parent, child in pairwise(circle):
        assert (parent, child) in {("a", "b"), ("b", "c"), ("c", "a")}


def change(row, column, value):
    matrix = MATRIX.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (change(0, 2, 1.9), r"says 1\.9 from 'dog' to 'rain' and 2 back: .*symmetric"),
        (change(0, 2, -1), "says -1 between 'dog' and 'rain': a distance can't be neg"),
        (change(1, 1, 0.5), r"says 0\.5 between 'wolf' and itself: it must be 0"),
        (np.eye(3), "between 'dog' and itself: it must be 0; are these similarities"),
        (change(0, 1, np.nan), "distances contains NaN"),
        (change(0, 1, np.inf), "distances contains infinity"),
        (MATRIX[:2], r"the shape \(2, 3\) for 3 labels: it must be \(3, 3\)"),
        (MATRIX[:2, :2], r"the shape \(2, 2\) for 3 labels: it must be \(3, 3\)"),
        (MATRIX[0], "Expected 2D array, got 1D array"),
    ],
)
def test_distances_that_are_none(matrix, match):
    with pytest.raises(ValueError, match=match):
        LabelGraph.from_distances(matrix, NAMES)


def test_distances_have_no_paths():
    graph = LabelGraph.from_distances(MATRIX, NAMES)
    for ask in (
        lambda: graph.path("dog"),
        lambda: graph.ancestors("dog"),
        graph.describe,
    ):
        with pytest.raises(ValueError, match=r"made from distances.* how='label' or"):
            ask()


def test_a_description_that_there_is_not():
    for how in ("definition", "Path", ["path"], None):
        match = f"how={re.escape(repr(how))} is none of 'label', 'prompt', 'path'$"
        with pytest.raises(ValueError, match=match):
            LabelGraph(EDGES).describe(how=how)


def test_distances_whose_columns_have_other_names():
    frame = pd.DataFrame(MATRIX, index=NAMES, columns=NAMES)
    same = LabelGraph.from_distances(frame, NAMES)
    np.testing.assert_array_equal(same.distances(), MATRIX)
    numbered = LabelGraph.from_distances(pd.DataFrame(MATRIX), NAMES)
    np.testing.assert_array_equal(numbered.distances(), MATRIX)
    first, last = NAMES[0], NAMES[-1]
    match = f"distances names column 0 '{first}', and labels '{last}': bring both in"
    with pytest.raises(ValueError, match=match):
        LabelGraph.from_distances(frame, NAMES[::-1])
    with pytest.raises(ValueError, match=r"shape \(3, 3\) for 2 labels"):
        LabelGraph.from_distances(frame, NAMES[:2])


def test_numpy_strings_become_plain_ones():
    parents = {np.str_("dog"): np.str_("animal"), np.str_("rain"): np.str_("nature")}
    graph = LabelGraph.from_parents(parents)
    assert {type(label) for label in [*graph.labels, *graph.path("dog")]} == {str}
    assert {type(label) for label in graph.ancestors("dog")} == {str}
