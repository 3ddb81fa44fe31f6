"""LabelGraph: any graph of labels."""

from collections.abc import Mapping, Sized
from numbers import Real

import numpy as np
from sklearn.utils import check_array

from ._base import BaseLabelGraph, check_acyclic, check_distinct, check_labels, is_whole

_TOLERANCE = 1e-6  # of the largest distance, below which a fault is one of rounding


class LabelGraph(BaseLabelGraph):
    """A graph over labels: a taxonomy of your own, a tree, or bare distances.

    Use it to tell a metric or a loss that some confusions are worse than others, and
    a text model what is above a label. There are two more constructors:
    :meth:`from_parents` for a taxonomy and :meth:`from_distances` for a matrix.

    Parameters
    ----------
    edges : iterable of (str, str) or (str, str, float)
        Parent and child of each edge, and its length if it is not 1. Tops are the
        labels that are nobody's child. Distances don't ask which end is the parent,
        so edges without a direction serve as well.
    labels : sequence of str, default=None
        The labels that are told apart, in the order wanted, such as the classes of a
        data set. The others stay as stepping stones between them, and can be asked
        for by name. None for all, in the order of the edges.

    Attributes
    ----------
    labels : list of str
        The labels, in the order of the rows of :meth:`distances`.

    Raises
    ------
    UnknownLabelError
        If one of `labels` is in no edge.
    ValueError
        If an edge is there twice (in whichever direction), joins a label with itself,
        or has a length that is not positive and finite.

    See Also
    --------
    AudioSetOntology : The graph of AudioSet's classes.

    Examples
    --------
    >>> from sklabelaudio.ontology import LabelGraph
    >>> edges = [("animal", "dog"), ("animal", "cat"), ("sound", "animal")]
    >>> edges += [("sound", "weather"), ("weather", "rain")]
    >>> graph = LabelGraph(edges, labels=["dog", "cat", "rain"])
    >>> graph
    <LabelGraph: 3 labels, 6 nodes, 5 edges>
    >>> graph.distances()
    array([[0, 2, 4],
           [2, 0, 4],
           [4, 4, 0]], dtype=uint8)
    >>> graph.path("dog")
    ['sound', 'animal', 'dog']

    A text model that is told what is above each label:

    >>> graph.describe(["dog", "rain"])
    {'dog': 'sound > animal > dog', 'rain': 'sound > weather > rain'}
    >>> from sklabelaudio.text import LabelTextEmbedder
    >>> embedder = LabelTextEmbedder(description=graph.describe())
    """

    _matrix = None

    def __init__(self, edges, *, labels=None):
        names, pairs, weights = _read_edges(edges)
        self._build(names, pairs, weights=weights, labels=labels)

    @classmethod
    def from_parents(cls, parents, *, labels=None):
        """Make the graph of a taxonomy, in which each label knows what is above it.

        Parameters
        ----------
        parents : mapping of str to str, sequence of str or None
            The parent of each label, its parents, or None (or no entry) for a label
            at the top. All edges have the length 1.
        labels : sequence of str, default=None
            The labels that are told apart, in the order wanted; the others stay as
            stepping stones. None for all.

        Returns
        -------
        LabelGraph
            The graph.

        Raises
        ------
        UnknownLabelError
            If one of `labels` is not in the taxonomy.
        ValueError
            If a label is its own parent, directly or by a way round, or a parent is
            there twice.

        Examples
        --------
        >>> from sklabelaudio.ontology import LabelGraph
        >>> parents = {"dog": "animal", "cat": "animal", "purr": ["cat", "engine"]}
        >>> graph = LabelGraph.from_parents(parents, labels=list(parents))
        >>> graph.distances()
        array([[0, 2, 3],
               [2, 0, 1],
               [3, 1, 0]], dtype=uint8)
        >>> graph.path("purr")
        ['engine', 'purr']
        """
        if not isinstance(parents, Mapping):
            raise TypeError(
                f"parents is a {type(parents).__name__}: pass a mapping from a label "
                "to what is above it, or edges to LabelGraph"
            )
        if not parents:
            raise ValueError("parents is empty: it needs at least one label")
        nodes, pairs = {}, []
        for child, above in parents.items():
            above = _read_parents(child, above)
            pairs += [(_add(nodes, parent), _add(nodes, child)) for parent in above]
            _add(nodes, child)
        names = list(nodes)
        check_acyclic(names, pairs, "parents")
        graph = cls.__new__(cls)
        graph._build(names, pairs, labels=labels)
        return graph

    @classmethod
    def from_distances(cls, distances, labels):
        """Take distances as they are, such as those between label embeddings.

        No way round over a third label is looked for, which may be shorter where the
        distances are none in the strict sense. There are no paths.

        Parameters
        ----------
        distances : array-like of shape (n_labels, n_labels)
            Symmetric, finite and not negative, with zeros on the diagonal. Faults of
            up to a millionth of the largest distance are taken for rounding errors
            and mended.
        labels : sequence of str of length n_labels
            The labels of its rows and columns.

        Returns
        -------
        LabelGraph
            The graph.

        Raises
        ------
        ValueError
            If the distances are not as described, or a label is there twice.

        Examples
        --------
        >>> from sklabelaudio.ontology import LabelGraph
        >>> matrix = [[0.0, 0.5, 2.0], [0.5, 0.0, 1.0], [2.0, 1.0, 0.0]]
        >>> graph = LabelGraph.from_distances(matrix, ["dog", "wolf", "rain"])
        >>> graph.distances(["rain", "dog"])
        array([[0., 2.],
               [2., 0.]])
        """
        labels = check_labels(labels, "labels")
        check_distinct(labels, "labels")
        graph = cls.__new__(cls)
        graph._build(labels, [])
        graph._matrix = _check_distances(distances, labels)
        graph._is_whole = is_whole(graph._matrix)
        return graph

    def _measure(self, nodes):
        if self._matrix is None:
            return super()._measure(nodes)
        return self._matrix[np.ix_(nodes, nodes)]

    def _check_edges(self):
        if self._matrix is not None:
            raise ValueError(
                f"{self!r} was made from distances, so nothing is above a label: make "
                "it from edges, or describe labels with how='label' or 'prompt'"
            )


def _read_parents(child, above):
    if not isinstance(child, str) or not child.strip():
        raise TypeError(
            f"parents has the key {child!r}: a label is a string that is not blank"
        )
    if above is None or (isinstance(above, Sized) and not len(above)):
        return []
    name = f"parents[{child!r}]"
    above = check_labels([above] if isinstance(above, str) else above, name)
    check_distinct(above, name)
    return above


def _read_edges(edges):
    """Return the labels, and the ends and lengths of the edges."""
    if isinstance(edges, Mapping):
        raise TypeError(
            "edges is a mapping: use LabelGraph.from_parents if it leads from a label "
            "to what is above it, or pass pairs of parent and child"
        )
    nodes, places, weights = {}, {}, []
    for index, edge in enumerate(edges):
        is_pair = isinstance(edge, Sized) and not isinstance(edge, str)
        if not is_pair or not 2 <= len(edge) <= 3:
            raise ValueError(
                f"edges[{index}]={edge!r} is no edge: it must be (parent, child) or "
                "(parent, child, length)"
            )
        parent, child = check_labels(edge[:2], f"edges[{index}]")
        if parent == child:
            raise ValueError(f"edges[{index}] joins {parent!r} with itself: drop it")
        pair = (_add(nodes, parent), _add(nodes, child))
        if pair in places or pair[::-1] in places:
            first = places.get(pair, places.get(pair[::-1]))
            raise ValueError(
                f"edges[{index}] joins {parent!r} and {child!r}, as edges[{first}] "
                "does already: list an edge once, in one direction"
            )
        places[pair] = index
        weights.append(_check_length(edge[2], index) if len(edge) == 3 else 1.0)
    if not nodes:
        raise ValueError("edges is empty: it needs at least one edge")
    return list(nodes), list(places), weights


def _add(nodes, label):
    """Return the position of a label, which is added if it is new."""
    return nodes.setdefault(label, len(nodes))


def _check_length(length, index):
    if not isinstance(length, Real) or not 0 < length < np.inf:
        raise ValueError(
            f"edges[{index}] has the length {length!r}: it must be a positive, finite "
            "number"
        )
    return float(length)


def _check_distances(distances, labels):
    names = list(getattr(distances, "columns", ()))
    distances = check_array(distances, dtype=np.float64, input_name="distances")
    shape = (len(labels), len(labels))
    if distances.shape != shape:
        raise ValueError(
            f"distances has the shape {distances.shape} for {len(labels)} labels: it "
            f"must be {shape}, a row and a column for each label"
        )
    _check_names(names, labels)
    tolerance = _TOLERANCE * distances.max()
    _check_negative(distances, labels, tolerance)
    (diagonal,) = np.nonzero(np.diagonal(distances) > tolerance)
    if len(diagonal):
        row = diagonal[0]
        raise ValueError(
            f"distances says {distances[row, row]:g} between {labels[row]!r} and "
            "itself: it must be 0; are these similarities?"
        )
    asymmetric = np.argwhere(np.abs(distances - distances.T) > tolerance)
    if len(asymmetric):
        row, column = asymmetric[0]
        raise ValueError(
            f"distances says {distances[row, column]:g} from {labels[row]!r} to "
            f"{labels[column]!r} and {distances[column, row]:g} back: it must be "
            "symmetric; (distances + distances.T) / 2 would be"
        )
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0.0)
    return distances.clip(min=0.0)


def _check_names(names, labels):
    """Raise if a DataFrame has its labels in another order."""
    if not all(isinstance(name, str) for name in names):
        return
    for column, (name, label) in enumerate(zip(names, labels, strict=False)):
        if name != label:
            raise ValueError(
                f"distances names column {column} {name!r}, and labels {label!r}: "
                "bring both in one order"
            )


def _check_negative(distances, labels, tolerance):
    negative = np.argwhere(distances < -tolerance)
    if len(negative):
        row, column = negative[0]
        raise ValueError(
            f"distances says {distances[row, column]:g} between {labels[row]!r} and "
            f"{labels[column]!r}: a distance can't be negative; are these similarities?"
        )
