import csv
import hashlib
import json
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from sklabelaudio.exceptions import UnknownLabelError
from sklabelaudio.ontology import AudioSetOntology, LabelGraph, _audioset
from sklabelaudio.text import LabelTextEmbedder

MATRIX_SHA256 = "186d598859a53d0f8a56fadba5904b5bffc603161d212122aecdf98d640e295d"
PATHS_SHA256 = "c1c233ea5c3a28627c5dd98f5a18952e1f68aa9ba0d28562747c0237c6ec0dab"

# Two tops that only the bark joins, and a node that no class list holds.
TREE = {
    "/m/0jbk": ("Animal", ["/m/068hy", "/m/01yrx"]),
    "/m/068hy": ("Domestic animals, pets", ["/m/0bt9lr", "/m/05tny_"]),
    "/m/0bt9lr": ("Dog", ["/m/05tny_"]),
    "/m/05tny_": ("Bark", []),
    "/m/01yrx": ("Cat", []),
    "/t/dd00098": ("Source-ambiguous sounds", ["/m/05tny_", "/m/07pws3f"]),
    "/m/07pws3f": ("Bang", []),
}
CLASSES = """index,mid,display_name
0,/m/07pws3f,"Bang"
1,/m/05tny_,"Bark"
2,/m/0bt9lr,"Dog"
3,/m/068hy,"Domestic animals, pets"
"""


def make_nodes(**changes):
    """Make nodes in AudioSet's own layout; `changes` are those of the dog's."""
    nodes = [
        {
            "id": key,
            "name": name,
            "description": f"All about: {name.lower()}.",
            "citation_uri": "",
            "positive_examples": ["youtu.be/xyz?start=30&end=40"],
            "child_ids": children,
            "restrictions": ["abstract"] if name == "Animal" else [],
        }
        for key, (name, children) in TREE.items()
    ]
    nodes[2] |= changes
    return nodes


@pytest.fixture
def files(tmp_path):
    """Paths of a small ontology and of a list of four of its classes."""
    ontology, classes = tmp_path / "ontology.json", tmp_path / "classes.csv"
    ontology.write_text(json.dumps(make_nodes(), indent=2), encoding="utf-8")
    classes.write_text(CLASSES, encoding="utf-8")
    return SimpleNamespace(ontology=ontology, classes=classes)


@pytest.fixture(scope="module")
def published(shared):
    """AudioSet's own files, and what is known about them."""
    folder = shared / "data" / "audioset"
    path = folder / "ontology.json"
    class_list = folder / "class_labels_indices.csv"
    return SimpleNamespace(
        path=path,
        class_list=class_list,
        nodes=json.loads(path.read_text(encoding="utf-8")),
        ontology=AudioSetOntology.from_file(path, class_list=class_list),
        reference=shared / "reference" / "omap",
    )


def test_the_published_distances(published):
    distances = published.ontology.distances()
    assert distances.dtype == np.uint8
    assert distances.shape == (527, 527)
    assert hashlib.sha256(distances.tobytes(order="C")).hexdigest() == MATRIX_SHA256
    with np.load(
        published.reference / "audioset_distance_from_ontology_json.npz"
    ) as file:
        np.testing.assert_array_equal(distances, file["D"])
    assert distances.max() == 21


def test_distances_of_labels_in_any_order(published):
    labels = published.ontology.labels
    shuffled = np.random.default_rng(0).permutation(527)
    np.testing.assert_array_equal(
        AudioSetOntology.from_file(published.path).distances(
            [labels[index] for index in shuffled]
        ),
        published.ontology.distances()[np.ix_(shuffled, shuffled)],
    )


def test_the_published_paths(published):
    texts = published.ontology.describe(how="path")
    joined = "\n".join(texts.values())
    assert hashlib.sha256(joined.encode()).hexdigest() == PATHS_SHA256
    expected = json.loads((published.reference / "concat_paths.json").read_text())
    assert list(texts) == published.ontology.labels == expected["name"]
    assert list(texts.values()) == expected["concat_bfs"]
    for label, text in texts.items():
        assert published.ontology.path(label) == text.split(" > ")


def test_all_nodes_of_the_published_file(published):
    ontology = AudioSetOntology.from_file(published.path)
    assert repr(ontology) == "<AudioSetOntology: 632 labels, 632 nodes, 670 edges>"
    assert ontology.labels == [node["name"] for node in published.nodes]
    distances = ontology.distances()
    np.testing.assert_array_equal(distances, distances.T)
    tops = {path.split(" > ")[0] for path in ontology.describe().values()}
    assert len(tops) == 7


def test_labels_of_the_published_file_are_names_or_ids(published):
    with open(published.class_list, newline="", encoding="utf-8") as file:
        mids = [row["mid"] for row in csv.DictReader(file)]
    by_id = AudioSetOntology.from_file(published.path, class_list=mids)
    assert by_id.labels == published.ontology.labels
    np.testing.assert_array_equal(
        published.ontology.distances(mids), published.ontology.distances()
    )
    texts = published.ontology.describe(mids, how="label")
    assert list(texts) == mids
    assert list(texts.values()) == published.ontology.labels


def test_definitions_of_the_published_file(published):
    texts = published.ontology.describe(how="definition")
    described = {node["name"]: node["description"] for node in published.nodes}
    assert texts == {label: described[label] for label in published.ontology.labels}


def test_the_classes_of_another_tagger(published, shared):
    path = shared / "reference" / "checkpoints" / "yamnet" / "yamnet_class_map.csv"
    ontology = AudioSetOntology.from_file(published.path, class_list=path)
    assert len(ontology.labels) == 521
    np.testing.assert_array_equal(
        ontology.distances(), published.ontology.distances(ontology.labels)
    )


@pytest.mark.parametrize(
    ("construction", "n_wrong"),
    [("root", 149510), ("clique", 172556), ("tree", 198430)],
)
def test_another_construction_gives_other_distances(published, construction, n_wrong):
    """The numbers of wrong cells were counted with other programs."""
    names = {node["id"]: node["name"] for node in published.nodes}
    edges = [(n["name"], names[key]) for n in published.nodes for key in n["child_ids"]]
    below = {child for _, child in edges}
    tops = [name for name in names.values() if name not in below]
    labels = published.ontology.labels
    expected = published.ontology.distances()
    np.testing.assert_array_equal(
        LabelGraph(edges, labels=labels).distances(), expected
    )
    if construction == "tree":
        edges = [(p, c) for c, p in {c: p for p, c in reversed(edges)}.items()]
    if construction == "clique":
        edges += [(a, b) for rank, a in enumerate(tops) for b in tops[:rank]]
    else:
        edges += [("root", top) for top in tops]
    wrong = LabelGraph(edges, labels=labels).distances()
    assert (wrong != expected).sum() == n_wrong


@pytest.mark.parametrize("dropped", ["abstract", "outside"])
def test_without_stepping_stones_classes_are_not_connected(published, dropped):
    classes = set(published.ontology.labels)
    nodes = [
        node
        for node in published.nodes
        if node["name"] in classes
        or (dropped == "abstract" and "abstract" not in node["restrictions"])
    ]
    kept = {node["id"] for node in nodes}
    nodes = [
        node | {"child_ids": [key for key in node["child_ids"] if key in kept]}
        for node in nodes
    ]
    ontology = AudioSetOntology(nodes, class_list=published.ontology.labels)
    with pytest.raises(ValueError, match="are not connected, so there is no distance"):
        ontology.distances()


def test_a_small_file(files):
    ontology = AudioSetOntology.from_file(files.ontology)
    assert ontology.labels == [name for name, _ in TREE.values()]
    assert repr(ontology) == "<AudioSetOntology: 7 labels, 7 nodes, 7 edges>"
    assert ontology.distances(["Cat", "Bang", "Dog"]).tolist() == [
        [0, 5, 3],
        [5, 0, 3],
        [3, 3, 0],
    ]
    assert ontology.path("Dog") == ["Animal", "Domestic animals, pets", "Dog"]
    assert ontology.path("Bark") == ["Source-ambiguous sounds", "Bark"]
    assert ontology.path("Animal") == ["Animal"]


@pytest.mark.parametrize("kind", ["path", "text", "names", "ids", "array"])
def test_a_class_list(files, kind):
    labels = ["Bang", "Bark", "Dog", "Domestic animals, pets"]
    class_list = {
        "path": files.classes,
        "text": str(files.classes),
        "names": labels,
        "ids": ["/m/07pws3f", "/m/05tny_", "/m/0bt9lr", "/m/068hy"],
        "array": np.array(labels),
    }[kind]
    ontology = AudioSetOntology.from_file(files.ontology, class_list=class_list)
    assert ontology.labels == labels
    # From the bark to the bang is by a node that is no class.
    assert ontology.distances().tolist() == [
        [0, 2, 3, 3],
        [2, 0, 1, 1],
        [3, 1, 0, 1],
        [3, 1, 1, 0],
    ]
    assert ontology.path("Cat") == ["Animal", "Cat"]


def test_the_four_descriptions(files):
    ontology = AudioSetOntology.from_file(files.ontology, class_list=["Dog", "Bang"])
    assert ontology.describe(how="label") == {"Dog": "Dog", "Bang": "Bang"}
    assert ontology.describe(["Dog"], how="prompt") == {"Dog": "the sound of Dog"}
    assert ontology.describe(["Dog"], how="definition") == {"Dog": "All about: dog."}
    assert ontology.describe(["/m/0bt9lr"]) == {
        "/m/0bt9lr": "Animal > Domestic animals, pets > Dog"
    }
    match = "how='desc' is none of 'label', 'prompt', 'path', 'definition'"
    with pytest.raises(ValueError, match=match):
        ontology.describe(how="desc")


def test_a_label_embedder_takes_descriptions(files):
    ontology = AudioSetOntology.from_file(files.ontology)
    words = {"all": [3, 0], "about": [0, 3], "dog": [3, 3]}
    description = ontology.describe(["Dog"], how="definition")
    embedder = LabelTextEmbedder(words, description=description)
    np.testing.assert_allclose(embedder.fit_transform(["Dog"]), [[2, 2]])


def test_nodes_that_are_parsed_already(files):
    ontology = AudioSetOntology(make_nodes(), class_list=files.classes)
    expected = AudioSetOntology.from_file(files.ontology, class_list=files.classes)
    assert ontology.describe() == expected.describe()


def test_pickles(files):
    ontology = AudioSetOntology.from_file(files.ontology, class_list=files.classes)
    copy = pickle.loads(pickle.dumps(ontology))
    assert copy.labels == ontology.labels
    np.testing.assert_array_equal(copy.distances(), ontology.distances())
    for how in ("label", "prompt", "path", "definition"):
        assert copy.describe(how=how) == ontology.describe(how=how)


def test_a_byte_order_mark_and_the_home_folder(files, monkeypatch):
    text = files.ontology.read_text(encoding="utf-8")
    files.ontology.write_text(text, encoding="utf-8-sig")
    monkeypatch.setenv("HOME", str(files.ontology.parent))
    ontology = AudioSetOntology.from_file("~/ontology.json", class_list="~/classes.csv")
    assert len(ontology.labels) == 4


def test_unknown_labels_are_named_with_the_nearest(files):
    ontology = AudioSetOntology.from_file(files.ontology)
    match = r"labels names 'dog' \(did you mean 'Dog'\?\), not in <AudioSetOntology: 7"
    for ask in (ontology.distances, ontology.describe):
        with pytest.raises(UnknownLabelError, match=match):
            ask(["Cat", "dog"])
    match = r"class_list names 'Domestic_animals_and_pets' \(did you mean 'Domestic an"
    with pytest.raises(UnknownLabelError, match=match):
        AudioSetOntology.from_file(
            files.ontology, class_list=["Cat", "Domestic_animals_and_pets"]
        )
    with pytest.raises(UnknownLabelError, match="label names '/m/012345', not in"):
        ontology.path("/m/012345")


def test_a_class_that_is_listed_twice(files):
    match = r"class_list holds \['Dog'\] more than once"
    with pytest.raises(ValueError, match=match):
        AudioSetOntology.from_file(files.ontology, class_list=["Dog", "/m/0bt9lr"])
    match = r"labels holds \['Dog'\] more than once"
    with pytest.raises(ValueError, match=match):
        AudioSetOntology.from_file(files.ontology).distances(["/m/0bt9lr", "Dog"])


def test_missing_files(files, tmp_path):
    missing = tmp_path / "missing"
    match = r"path='.*missing' is no file: pass the path of ontology\.json, or let"
    with pytest.raises(FileNotFoundError, match=match):
        AudioSetOntology.from_file(missing)
    with pytest.raises(FileNotFoundError, match=r"path='.*' is no file"):
        AudioSetOntology.from_file(tmp_path)
    match = r"class_list='.*missing' is no file: pass the path of class_labels_indices"
    with pytest.raises(FileNotFoundError, match=match):
        AudioSetOntology.from_file(files.ontology, class_list=missing)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "line 1: Expecting value, so it is no JSON: download ontology.json"),
        (b'[\n  {"id": "/m/0jbk",\n', "line 3: .*so it is no JSON"),
        (b"\n\n<!DOCTYPE html>\n<html>", "is a web page, not the ontology: download"),
        (b'["\xff"]', "is no text in UTF-8: download"),
        (b'{"nodes": []}', "holds a dict instead of the ontology, which is a list"),
        (b"[]", "holds an empty list instead of the ontology"),
        (b'["Animal"]', "node 0 is a str: it must be an object with id, name"),
        (b'[{"name": "Dog"}]', r"node 0 \(Dog\) lacks 'id': a node has id, name"),
    ],
)
def test_files_that_hold_something_else(tmp_path, content, match):
    path = tmp_path / "ontology.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as info:
        AudioSetOntology.from_file(path)
    assert str(info.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"id": None}, "node 2: id is None: it must be a text"),
        ({"name": " "}, "node 2: name is ' ': it must be a text"),
        ({"description": 3}, "node 2: description is 3: it must be a text"),
        ({"child_ids": "/m/05tny_"}, "child_ids is '/m/05tny_': it must be a list"),
        ({"child_ids": [1]}, r"child_ids is \[1\]: it must be a list of ids"),
        (
            {"child_ids": ["/m/05tny_"] * 2},
            r"node 2: child_ids holds \['/m/05tny_'\] more than once",
        ),
        ({"child_ids": ["/m/0"]}, "'Dog' has the child '/m/0', which is nowhere"),
        ({"name": "Bark"}, r"\(names and ids\) holds \['Bark'\] more than once"),
        ({"id": "/m/05tny_"}, r"\(ids\) holds \['/m/05tny_'\] more than once"),
        ({"name": "/m/01yrx"}, r"holds \['/m/01yrx'\] more than once"),
        ({"child_ids": ["/m/0bt9lr"]}, "in a circle, 'Dog' > 'Dog': drop one"),
        (
            {"child_ids": ["/m/0jbk"]},
            r"in a circle, ('(Dog|Animal|Domestic animals, pets)' > ){3}'[\w, ]+': d",
        ),
    ],
)
def test_nodes_that_are_none(tmp_path, changes, match):
    with pytest.raises(ValueError, match=f"^nodes.*{match}"):
        AudioSetOntology(make_nodes(**changes))
    path = tmp_path / "ontology.json"
    path.write_text(json.dumps(make_nodes(**changes)))
    with pytest.raises(ValueError, match=match) as info:
        AudioSetOntology.from_file(path)
    assert str(info.value).startswith(str(path))


def test_a_node_that_is_named_like_its_id():
    ontology = AudioSetOntology(make_nodes(name="/m/0bt9lr"))
    assert ontology.path("/m/0bt9lr")[-1] == "/m/0bt9lr"


def test_a_node_without_a_description():
    ontology = AudioSetOntology(make_nodes(description=""))
    assert ontology.describe(["Cat"], how="definition")
    with pytest.raises(ValueError, match="'Dog' has no description in the ontology"):
        ontology.describe(how="definition")


# Fetching


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(web_server, files, monkeypatch):
    """A web server on this machine that stands in for those of both files."""
    contents = {
        "_ONTOLOGY": files.ontology.read_bytes(),
        "_CLASS_LIST": files.classes.read_bytes(),
    }
    for name, content in contents.items():
        record = getattr(_audioset, name)._replace(
            url=web_server.url, sha256=digest(content)
        )
        monkeypatch.setattr(_audioset, name, record)
    web_server.contents = contents
    web_server.body = contents["_ONTOLOGY"]
    return web_server


def put(server, home, name, content=None):
    """Put a file where it would be fetched to."""
    folder = home / "audioset"
    folder.mkdir(parents=True, exist_ok=True)
    content = server.contents[name] if content is None else content
    (folder / getattr(_audioset, name).name).write_bytes(content)


def test_the_files_are_pinned(published):
    assert _audioset._ONTOLOGY.sha256 == digest(published.path.read_bytes())
    assert _audioset._CLASS_LIST.sha256 == digest(published.class_list.read_bytes())
    assert _audioset._CLASS_LIST.name == published.class_list.name


def test_download_then_no_further_download(server, tmp_path):
    home = tmp_path / "new" / "home"
    ontology = AudioSetOntology.fetch(home, subset=None)
    assert len(ontology.labels) == 7
    assert os.listdir(home / "audioset") == ["ontology.json"]
    assert server.n_requests == 1
    AudioSetOntology.fetch(home, subset=None)
    AudioSetOntology.fetch(home, subset=None, download_if_missing=False)
    assert server.n_requests == 1

    server.body = server.contents["_CLASS_LIST"]
    ontology = AudioSetOntology.fetch(home)
    assert ontology.labels == ["Bang", "Bark", "Dog", "Domestic animals, pets"]
    assert sorted(os.listdir(home / "audioset")) == [
        "class_labels_indices.csv",
        "ontology.json",
    ]
    assert server.n_requests == 2


def test_files_put_there_by_hand(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path / "home"))
    put(server, tmp_path / "home", "_ONTOLOGY")
    put(server, tmp_path / "home", "_CLASS_LIST")
    assert len(AudioSetOntology.fetch().labels) == 4
    assert server.n_requests == 0


def test_another_file_is_removed(server, tmp_path):
    server.body = b"[]"
    with pytest.raises(OSError, match="not the one expected and was removed") as info:
        AudioSetOntology.fetch(tmp_path, delay=0)
    assert digest(b"[]") in str(info.value)
    assert os.listdir(tmp_path / "audioset") == []


def test_another_file_that_is_there_stays(server, tmp_path):
    put(server, tmp_path, "_ONTOLOGY", b"[]")
    with pytest.raises(OSError, match=r"is there, but is not .*from_file") as info:
        AudioSetOntology.fetch(tmp_path)
    assert digest(b"[]") in str(info.value)
    assert (tmp_path / "audioset" / "ontology.json").read_bytes() == b"[]"


def test_no_connection(server, tmp_path):
    server.cut = True
    with pytest.raises(OSError, match=r"can't download ontology\.json from"):
        AudioSetOntology.fetch(tmp_path, n_retries=1, delay=0)
    assert server.n_requests == 2
    assert os.listdir(tmp_path / "audioset") == []


def test_download_only_if_allowed(server, tmp_path):
    with pytest.raises(OSError, match=r"ontology\.json is missing; allow download_if_"):
        AudioSetOntology.fetch(tmp_path, download_if_missing=False)
    put(server, tmp_path, "_ONTOLOGY")
    with pytest.raises(OSError, match=r"class_labels_indices\.csv is missing"):
        AudioSetOntology.fetch(tmp_path, download_if_missing=False)
    assert server.n_requests == 0


@pytest.mark.parametrize(
    "options", [{"subset": "527"}, {"n_retries": -1}, {"delay": -1.0}]
)
def test_invalid_options(server, tmp_path, options):
    with pytest.raises(ValueError, match=r"parameter of \S+fetch must be"):
        AudioSetOntology.fetch(tmp_path, **options)
    assert server.n_requests == 0


def test_invalid_paths(files):
    with pytest.raises(ValueError, match=r"'path' parameter of \S+from_file must"):
        AudioSetOntology.from_file(3)
    with pytest.raises(ValueError, match=r"'class_list' parameter of \S+from_f"):
        AudioSetOntology.from_file(files.ontology, class_list=3)
