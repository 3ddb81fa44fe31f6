"""The AudioSet ontology."""

import os
from collections import namedtuple
from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._download import download, expect, get_data_home, hash_file, make_folder
from ..text._label_lists import read_label_list
from ._audioset_file import check_layout, find_present, link_nodes, parse_nodes
from ._base import BaseLabelGraph, check_acyclic, check_distinct

_RemoteFile = namedtuple("_RemoteFile", ["name", "url", "sha256"])

_ONTOLOGY = _RemoteFile(
    "ontology.json",
    "https://raw.githubusercontent.com/audioset/ontology/"
    "d417d32bf59c711abb5910fd2f76a0eb44697991/ontology.json",
    "9c685f4403eecc3ca9be37fd7285cf212feaaea6ff7229d3e7ca89e0d1f2d15d",
)
_CLASS_LIST = _RemoteFile(
    "class_labels_indices.csv",
    "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
    "class_labels_indices.csv",
    "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
)


class AudioSetOntology(BaseLabelGraph):
    """AudioSet's classes of sound, and what is above them.

    632 nodes from seven tops down, such as Animal > Wild animals > Bird > Owl > Hoot
    [1]_. Use it for the distances that ontology-aware metrics and losses ask for, and
    for texts about the classes. It is read with :meth:`from_file` or :meth:`fetch`.

    Parameters
    ----------
    nodes : list of dict
        The content of ``ontology.json``: for each node its id, name, description and
        child_ids. What else is there is ignored.
    class_list : str, path-like or sequence of str, default=None
        The classes that are told apart, in the order of a tagger's scores: the path
        of a list such as ``class_labels_indices.csv``, which holds the 527 classes
        that AudioSet's recordings are labelled with, or their display names or ids.
        None for all nodes.

    Attributes
    ----------
    labels : list of str
        Display names of the classes, in the order of `class_list`, or of all nodes,
        in the order of the file.

    Raises
    ------
    UnknownLabelError
        If a class is not in the ontology.
    ValueError
        If the nodes are not laid out as described, an id or a name is there twice, a
        child is nowhere, or a node is, by some way round, its own child.

    See Also
    --------
    LabelGraph : Graphs of other labels.

    Notes
    -----
    A distance is the number of steps, up or down, between two classes, through any
    node of the ontology: those that are marked as abstract or blacklisted, and those
    outside the class list, are stepping stones as well. Nothing joins the seven tops
    but the nodes that are below two of them. The 527 classes are 0 to 21 steps apart,
    which gives OmAP its 22 levels [2]_.

    Wherever a label is asked for, the id of its node ("/m/09x0r" for "Speech") will
    do, and nodes outside the class list can be asked for as well.

    The ontology is Google's, under CC BY-SA 4.0.

    References
    ----------
    .. [1] J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for
       audio events", ICASSP 2017.
    .. [2] H. Liu et al., "Ontology-aware Learning and Evaluation for Audio Tagging",
       INTERSPEECH 2023.

    Examples
    --------
    >>> from sklabelaudio.ontology import AudioSetOntology
    >>> names = {"/m/0jbk": "Animal", "/m/0bt9lr": "Dog", "/m/05tny_": "Bark"}
    >>> children = {"/m/0jbk": ["/m/0bt9lr"], "/m/0bt9lr": ["/m/05tny_"]}
    >>> ontology = AudioSetOntology(
    ...     [
    ...         {
    ...             "id": key,
    ...             "name": name,
    ...             "description": f"Sounds that are called {name.lower()}.",
    ...             "child_ids": children.get(key, []),
    ...         }
    ...         for key, name in names.items()
    ...     ],
    ...     class_list=["Bark", "Animal"],
    ... )
    >>> ontology.distances()
    array([[0, 2],
           [2, 0]], dtype=uint8)
    >>> ontology.path("/m/05tny_")
    ['Animal', 'Dog', 'Bark']
    >>> ontology.describe(["Bark"], how="definition")
    {'Bark': 'Sounds that are called bark.'}

    Names for the ids that AudioSet's own tables of segments have:

    >>> ontology.describe(["/m/05tny_"], how="label")
    {'/m/05tny_': 'Bark'}
    """

    def __init__(self, nodes, *, class_list=None):
        check_layout(nodes, "nodes")
        self._read(nodes, "nodes", class_list)

    def _read(self, nodes, source, class_list):
        names = [node["name"] for node in nodes]
        ids = [node["id"] for node in nodes]
        check_distinct(ids, f"{source} (ids)")
        # Labels are asked for by name or by id, so each must mean one node.
        others = [id_ for id_, name in zip(ids, names, strict=True) if id_ != name]
        check_distinct(names + others, f"{source} (names and ids)")
        self._definitions = [node["description"] for node in nodes]
        edges = link_nodes(nodes, source)
        check_acyclic(names, edges, source)
        if isinstance(class_list, (str, os.PathLike)):
            class_list = read_label_list(
                find_present(class_list, "class_list", "class_labels_indices.csv")
            )
        self._build(names, edges, labels=class_list, name="class_list", ids=ids)

    @classmethod
    @validate_params(
        {
            "path": [str, os.PathLike],
            "class_list": [str, os.PathLike, "array-like", None],
        },
        prefer_skip_nested_validation=True,
    )
    def from_file(cls, path, *, class_list=None):
        """Read the ontology from its file.

        Parameters
        ----------
        path : str or path-like
            ``ontology.json``, as AudioSet publishes it.
        class_list : str, path-like or sequence of str, default=None
            The classes that are told apart: the path of
            ``class_labels_indices.csv``, or display names or ids. None for all nodes.

        Returns
        -------
        AudioSetOntology
            The ontology.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        UnknownLabelError
            If a class is not in the ontology.
        ValueError
            If the file holds something else.

        See Also
        --------
        fetch : Downloads the file first.

        Examples
        --------
        >>> from sklabelaudio.ontology import AudioSetOntology
        >>> ontology = AudioSetOntology.from_file(
        ...     "ontology.json", class_list="class_labels_indices.csv"
        ... )  # doctest: +SKIP
        >>> ontology.distances().shape  # doctest: +SKIP
        (527, 527)
        >>> ontology.describe(["Male speech, man speaking"])  # doctest: +SKIP
        {'Male speech, man speaking':
         'Human sounds > Human voice > Speech > Male speech, man speaking'}
        """
        path = find_present(path, "path", "ontology.json")
        nodes = parse_nodes(path)
        check_layout(nodes, path)
        ontology = cls.__new__(cls)
        ontology._read(nodes, path, class_list)
        return ontology

    @classmethod
    @validate_params(
        {
            "data_home": [str, os.PathLike, None],
            "subset": [StrOptions({"evaluation"}), None],
            "download_if_missing": ["boolean"],
            "n_retries": [Interval(Integral, 0, None, closed="left")],
            "delay": [Interval(Real, 0, None, closed="left")],
        },
        prefer_skip_nested_validation=True,
    )
    def fetch(
        cls,
        data_home=None,
        *,
        subset="evaluation",
        download_if_missing=True,
        n_retries=3,
        delay=1.0,
    ):
        """Load the ontology, and download it the first time.

        Two files, 0.4 MB, in the folder ``audioset`` of `data_home`. They are checked
        against their SHA-256.

        Parameters
        ----------
        data_home : str or path-like, default=None
            Where data sets are kept; see
            :func:`~sklabelaudio.datasets.get_data_home`.
        subset : "evaluation" or None, default="evaluation"
            "evaluation" tells apart the 527 classes of AudioSet's recordings, in the
            order of ``class_labels_indices.csv``, and of the scores of most taggers.
            None tells all 632 nodes apart.
        download_if_missing : bool, default=True
            If False, raise where a file is not there yet.
        n_retries : int, default=3
            How often to try again when the connection fails.
        delay : float, default=1.0
            Seconds between two tries.

        Returns
        -------
        AudioSetOntology
            The ontology.

        Raises
        ------
        OSError
            If a file is missing and may not or can't be downloaded, is not the one
            expected, or `data_home` can't be written to.

        Examples
        --------
        >>> from sklabelaudio.ontology import AudioSetOntology
        >>> AudioSetOntology.fetch()  # doctest: +SKIP
        <AudioSetOntology: 527 labels, 632 nodes, 670 edges>
        """
        folder = make_folder(os.path.join(get_data_home(data_home), "audioset"))
        files = [_ONTOLOGY] if subset is None else [_ONTOLOGY, _CLASS_LIST]
        settings = {"n_retries": n_retries, "delay": delay}
        path, *rest = [
            _find_file(file, folder, download_if_missing, settings) for file in files
        ]
        return cls.from_file(path, class_list=rest[0] if rest else None)

    def _describers(self):
        return super()._describers() | {"definition": self._define}

    def _define(self, node):
        if not self._definitions[node].strip():
            raise ValueError(
                f"{self._names[node]!r} has no description in the ontology: leave it "
                "out of labels or choose another how"
            )
        return self._definitions[node]


def _find_file(file, folder, download_if_missing, settings):
    """Return the path of a file, which is downloaded if it is not there."""
    path = os.path.join(folder, file.name)
    if not os.path.exists(path):
        if not download_if_missing:
            raise OSError(
                f"{path} is missing; allow download_if_missing=True or pass the "
                "data_home that holds it"
            )
        download(file.url, path, sha256=file.sha256, **settings)
    elif (digest := hash_file(path)) != file.sha256:
        raise OSError(
            f"{path} is there, but is not the file expected: its SHA-256 is {digest} "
            f"instead of {expect(file.sha256)}. Move it away to have the right one "
            "downloaded, or read it as it is with AudioSetOntology.from_file"
        )
    return path
