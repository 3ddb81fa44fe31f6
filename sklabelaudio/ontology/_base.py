"""What every graph of labels can be asked."""

import difflib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ..exceptions import UnknownLabelError

_PROMPT = "the sound of {label}"
_SEPARATOR = " > "
_MAX_NAMED = 3  # unknown labels, above which a message only counts them


class BaseLabelGraph:
    """Distances, paths and descriptions of labels; subclasses call `_build`."""

    def _build(self, names, edges, *, weights=None, labels=None, name="labels", ids=()):
        """Take the graph in.

        Parameters
        ----------
        names : list of str
            The labels of all nodes, each there once.
        edges : list of (int, int)
            Parent and child of each edge, as positions in `names`.
        weights : list of float, default=None
            Length of each edge. None for 1.
        labels : sequence of str, default=None
            The labels that the graph speaks of by default. None for all.
        name : str, default="labels"
            What that parameter is called in messages.
        ids : sequence of str, default=()
            Other names of the nodes, in the order of `names`.
        """
        self._names = [str(name) for name in names]  # numpy's strings among them
        self._edges = edges
        self._weights = weights
        self._is_whole = weights is None or is_whole(weights)
        self._nodes = {label: node for node, label in enumerate(names)}
        self._nodes |= {id_: node for node, id_ in enumerate(ids)}
        self._selected = list(range(len(names)))
        if labels is not None:
            self._selected = self._find_distinct(labels, name)
        self._first_parents = _walk_down(len(names), edges)

    @property
    def labels(self):
        """The labels (list of str) in the order of the rows of :meth:`distances`."""
        return [self._names[node] for node in self._selected]

    def distances(self, labels=None):
        """Return how far apart labels are: the length of the shortest path.

        Edges are walked both ways, and any node may be a stepping stone, whether it
        is among the labels or not.

        Parameters
        ----------
        labels : sequence of str of length n_labels, default=None
            The labels, in the order wanted. None for those of the attribute `labels`.

        Returns
        -------
        ndarray of shape (n_labels, n_labels)
            Symmetric, with zeros on the diagonal. Where all lengths of the graph are
            whole, they are in the smallest unsigned integers that hold them (convert
            before you subtract, or they wrap around), else in double precision.

        Raises
        ------
        UnknownLabelError
            If a label is not in the graph.
        ValueError
            If a label is there twice, or two labels are not connected: no number
            stands for an infinite distance.
        """
        nodes = self._selected
        if labels is not None:
            nodes = self._find_distinct(labels, "labels")
        distances = self._measure(nodes)
        apart = np.argwhere(np.isinf(distances))
        if len(apart):
            left, right = (self._names[nodes[index]] for index in apart[0])
            raise ValueError(
                f"{left!r} and {right!r} are not connected, so there is no distance "
                "between them: join them by an edge, such as to a root above both, or "
                "pass labels that are connected"
            )
        if not self._is_whole:
            return distances
        return distances.astype(np.min_scalar_type(int(distances.max())))

    def path(self, label):
        """Return the labels from a top of the graph down to a label.

        Tops are nodes without a parent. The path is the one of fewest steps, whatever
        their length. Among several, the first one met by a search breadth first takes
        precedence: tops in their order, and the children of each node in theirs.

        Parameters
        ----------
        label : str
            The label.

        Returns
        -------
        list of str
            The path; its last item is the label itself.

        Raises
        ------
        UnknownLabelError
            If the label is not in the graph.
        ValueError
            If no path leads to it from a top.
        """
        return self._climb(self._find_one(label))

    def ancestors(self, label):
        """Return the labels above a label, on all ways up.

        What is true of a clip besides its label: a bark is a dog's, and an animal's.

        Parameters
        ----------
        label : str
            The label.

        Returns
        -------
        list of str
            Parents first, then theirs; none twice. Empty for a top.

        Raises
        ------
        UnknownLabelError
            If the label is not in the graph.
        ValueError
            If the graph is made from distances, so that nothing is above a label.
        """
        start = self._find_one(label)
        self._check_edges()
        parents = {}
        for parent, child in self._edges:
            parents.setdefault(child, []).append(parent)
        reached, queue = {start}, deque([start])
        above = []
        while queue:
            for parent in parents.get(queue.popleft(), ()):
                if parent not in reached:
                    reached.add(parent)
                    above.append(self._names[parent])
                    queue.append(parent)
        return above

    def describe(self, labels=None, how="path"):
        """Return a text for each label, for a text model to embed.

        Parameters
        ----------
        labels : sequence of str, default=None
            The labels. None for those of the attribute `labels`.
        how : {"label", "prompt", "path", "definition"}, default="path"
            The text: the label itself; ``"the sound of"`` and the label; the path
            down to it, as in ``"Animal > Dog > Bark"``; or its definition, which
            :class:`AudioSetOntology` alone has. [1]_ calls them Direct, Prompt,
            Concat and Desc, and found Concat to be the best.

        Returns
        -------
        dict of str to str
            The texts by label, in the order of the labels:
            :class:`~sklabelaudio.text.LabelTextEmbedder` takes it as `description`.

        Raises
        ------
        UnknownLabelError
            If a label is not in the graph.
        ValueError
            If there is no such text.

        References
        ----------
        .. [1] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
           Perception-consistent Audio Tagging by Aligning with Label Text
           Description", ICASSP 2024, section 3.1.
        """
        describers = self._describers()
        if not isinstance(how, str) or how not in describers:
            known = ", ".join(map(repr, describers))
            raise ValueError(f"how={how!r} is none of {known}")
        if labels is None:
            labels = self.labels
        labels = check_labels(labels, "labels")
        nodes = self._find(labels, "labels")
        describe = describers[how]
        return {
            label: describe(node) for label, node in zip(labels, nodes, strict=True)
        }

    def _describers(self):
        """Return the function from a node to a text, by what `describe` calls it."""
        return {
            "label": lambda node: self._names[node],
            "prompt": lambda node: _PROMPT.format(label=self._names[node]),
            "path": lambda node: _SEPARATOR.join(self._climb(node)),
        }

    def _measure(self, nodes):
        parents, children = np.reshape(self._edges, (-1, 2)).astype(np.int32).T
        weights = np.ones(len(parents)) if self._weights is None else self._weights
        shape = (len(self._names), len(self._names))
        graph = csr_array((weights, (parents, children)), shape=shape)
        distances = dijkstra(graph, directed=False, indices=nodes)[:, nodes]
        # Back and forth the same lengths are added in another order, and rounded.
        return np.minimum(distances, distances.T)

    def _check_edges(self):
        """Raise if the graph knows distances only; subclasses override it."""

    def _climb(self, node):
        self._check_edges()
        if node not in self._first_parents:
            raise ValueError(
                f"no path leads down to {self._names[node]!r}: the edges above it go "
                "round in a circle, so nothing is at the top"
            )
        path = []
        while node is not None:
            path.append(self._names[node])
            node = self._first_parents[node]
        return path[::-1]

    def _find_distinct(self, labels, name):
        labels = check_labels(labels, name)
        nodes = self._find(labels, name)
        check_distinct([self._names[node] for node in nodes], name)
        return nodes

    def _find_one(self, label):
        if not isinstance(label, str):
            raise TypeError(
                f"label={label!r} is a {type(label).__name__}: pass one label"
            )
        (node,) = self._find([label], "label")
        return node

    def _find(self, labels, name):
        """Return the positions of labels among the nodes."""
        unknown = [label for label in labels if label not in self._nodes]
        if unknown:
            unknown = list(dict.fromkeys(unknown))
            hints = [self._hint(label) for label in unknown[:_MAX_NAMED]]
            if len(unknown) > _MAX_NAMED:
                hints.append(f"{len(unknown) - _MAX_NAMED} more")
            raise UnknownLabelError(
                unknown, f"{name} names {', '.join(hints)}, not in {self!r}"
            )
        return [self._nodes[label] for label in labels]

    def _hint(self, label):
        known = {name.lower(): name for name in self._names}
        close = difflib.get_close_matches(label.lower(), known, n=1)
        return repr(label) + (f" (did you mean {known[close[0]]!r}?)" if close else "")

    def __repr__(self):
        return (
            f"<{type(self).__name__}: {len(self._selected)} labels, "
            f"{len(self._names)} nodes, {len(self._edges)} edges>"
        )


def check_labels(labels, name):
    """Return labels as a list of strings, or say what is wrong with them."""
    if isinstance(labels, str):
        raise TypeError(f"{name}={labels!r} is one label: pass a list, [{labels!r}]")
    if isinstance(labels, (Mapping, set, frozenset)) or not isinstance(
        labels, Iterable
    ):
        raise TypeError(f"{name} is a {type(labels).__name__}: pass a list of labels")
    labels = list(labels)
    if not labels:
        raise ValueError(f"{name} is empty: it needs at least one label")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise TypeError(
                f"{name}[{index}]={label!r} is no label: a label is a string that is "
                "not blank"
            )
    return [str(label) for label in labels]


def check_distinct(labels, name):
    """Raise if a label is there twice."""
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(f"{name} holds {twice[:3]} more than once: list a label once")


def is_whole(lengths):
    """Tell whether all lengths are whole numbers."""
    return bool((np.asarray(lengths) % 1 == 0).all())


def check_acyclic(names, edges, what):
    """Raise if a label is, by some way round, its own parent."""
    parents = {node: [] for node in range(len(names))}
    for parent, child in edges:
        parents[child].append(parent)
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        circle = " > ".join(repr(names[node]) for node in error.args[1])
        raise ValueError(
            f"{what} goes round in a circle, {circle}: drop one of these links"
        ) from None


def _walk_down(n_nodes, edges):
    """Return, for each node below a top, the parent it is first reached from."""
    children = [[] for _ in range(n_nodes)]
    for parent, child in edges:
        children[parent].append(child)
    below = {child for _, child in edges}
    first_parents = {node: None for node in range(n_nodes) if node not in below}
    queue = deque(first_parents)
    while queue:
        node = queue.popleft()
        for child in children[node]:
            if child not in first_parents:
                first_parents[child] = node
                queue.append(child)
    return first_parents
