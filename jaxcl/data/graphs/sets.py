"""Graphs one after the other, as they lie in memory, and the column made of them."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl.data import dataset as dataset_lib


class Features(NamedTuple):
    """What the columns of nodes stand for, so that other graphs can have the same.

    Attributes:
      kinds: what nodes are described by, side by side, of `FEATURES`.
      columns: how many columns each kind has.
      labels: values of node labels in the source, one for each of their columns; ()
        where kinds do not name "labels".
    """

    kinds: tuple[str, ...]
    columns: tuple[int, ...]
    labels: tuple[int, ...] = ()


class Graphs(NamedTuple):
    """Undirected graphs one after the other, on the host.

    Graph i has the nodes `node_ptr[i]:node_ptr[i + 1]` and the edges
    `edge_ptr[i]:edge_ptr[i + 1]`.

    Attributes:
      nodes: features, float32 [N, f]; f may be 0.
      node_ptr: int64 [n + 1], from 0 to N.
      edges: the two nodes of each edge, numbered within their graph, int32 [M, 2]; each
        edge stands here once, and none leads from a node to itself.
      edge_ptr: int64 [n + 1], from 0 to M.
      node_labels: int32 [N], such as the elements of atoms; None where there are none.
      label_values: what the labels 0, 1, ... were in the source, int64 [k]; None where
        that is not known.
      features: what the columns of `nodes` stand for; None where they are as they came.
    """

    nodes: np.ndarray
    node_ptr: np.ndarray
    edges: np.ndarray
    edge_ptr: np.ndarray
    node_labels: np.ndarray | None = None
    label_values: np.ndarray | None = None
    features: Features | None = None

    @property
    def num_graphs(self) -> int:
        return len(self.node_ptr) - 1


class Network(NamedTuple):
    """One graph, and labels of its nodes.

    Attributes:
      name: what messages call it.
      graphs: a single graph of N nodes with features.
      labels: int32 [N].
      train, val, test: which nodes are for what, bool [N].
      class_names: of the labels.
    """

    name: str
    graphs: Graphs
    labels: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    class_names: tuple[str, ...]


class Ragged:
    """The column of graphs that are not packed: indices give `Graphs`.

    Args:
      graphs: all of them.

    >>> path = from_edges("made up", [0, 0, 1, 1], np.array([[0, 1], [2, 3]]))
    >>> print(Ragged(path)[np.array([1, 1])].node_ptr)
    [0 2 4]
    """

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs

    def __len__(self) -> int:
        return self.graphs.num_graphs

    def __getitem__(self, indices: Any) -> Graphs:
        g, index = self.graphs, np.arange(len(self))[indices]
        rows, node_ptr = stretches(g.node_ptr, index)
        places, edge_ptr = stretches(g.edge_ptr, index)
        labels = None if g.node_labels is None else g.node_labels[rows]
        return g._replace(
            nodes=g.nodes[rows],
            node_ptr=node_ptr,
            edges=g.edges[places],
            edge_ptr=edge_ptr,
            node_labels=labels,
        )


def graphs_of(dataset: dataset_lib.Dataset) -> Graphs:
    """All graphs of a data set that is not packed.

    Args:
      dataset: with a column "graph", such as `open` gives.

    Returns:
      The graphs in the order of the set.

    Raises:
      TypeError: if it is no data set.
      ValueError: if it has no such column.
    """
    if not isinstance(dataset, dataset_lib.Dataset):
        hint = "; data.graphs.labelled makes one" * isinstance(dataset, Graphs)
        raise TypeError(
            f"dataset must be a Dataset, got {type(dataset).__name__}{hint}"
        )
    graphs = dataset_lib.column_of(dataset, "graph")[
        np.arange(dataset_lib.size(dataset))
    ]
    if not isinstance(graphs, Graphs):
        raise ValueError(f"{dataset.name}: must hold graphs that are not packed yet")
    return graphs


def check_graphs(name: str, x: Any) -> Graphs:
    """Checks that an argument is `Graphs`, and returns it.

    Args:
      name: what the caller calls the argument.
      x: the argument.

    Returns:
      The graphs.

    Raises:
      TypeError: if it is something else.
    """
    if not isinstance(x, Graphs):
        hint = ""
        if isinstance(x, dataset_lib.Dataset):
            hint = "; data.graphs.graphs_of(dataset) gives them"
        raise TypeError(f"{name} must be Graphs, got {type(x).__name__}{hint}")
    return x


def stretches(ptr: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of some stretches of rows, one after the other.

    Args:
      ptr: where each stretch begins, and the end of the last, int64 [n + 1].
      index: which ones, int [k].

    Returns:
      Rows int64 [m], and where the stretches taken begin in them, int64 [k + 1].

    >>> print(*stretches(np.array([0, 2, 5]), np.array([1, 0])))
    [2 3 4 0 1] [0 3 5]
    """
    lengths = ptr[index + 1] - ptr[index]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(ends[-1]) + np.repeat(ptr[index] - ends[:-1], lengths), ends


def from_edges(
    name: str,
    node_graph: Any,
    edges: Any,
    *,
    nodes: Any = None,
    node_labels: Any = None,
    num_graphs: int | None = None,
    first: int = 0,
) -> Graphs:
    """Checks graphs that are given by a list of edges over all of them.

    Edges may stand in one direction or in both; an edge that stands several times is
    one. Loops from a node to itself are left out with a warning.

    Args:
      name: what messages call the set.
      node_graph: the graph of each node, integers [N], ascending from 0.
      edges: nodes of the set, integers [M, 2]; of PyG's edge_index, edge_index.T.
      nodes: features [N, f], or None.
      node_labels: integers [N], which are numbered anew in the order of their values;
        or None.
      num_graphs: how many graphs there are; None: as many as node_graph names.
      first: what messages call the first graph, node and edge: 1 for files that number
        them so.

    Returns:
      The graphs.

    Raises:
      ValueError: if an edge names no node, or leads from one graph to another; a graph
        has no nodes; graphs are not in order; or lengths do not fit.

    Warns:
      UserWarning: of loops, of graphs without edges, and where only a few edges lack
        their other direction, as in a file that was cut short.

    >>> triangle = from_edges("made up", [0, 0, 0], [[0, 1], [1, 0], [1, 2], [2, 0]])
    >>> print(triangle.edges.tolist())
    [[0, 1], [0, 2], [1, 2]]
    """
    of = _integers(name, "node_graph", node_graph)
    edges = _integers(name, "edges", edges)
    edges = edges.reshape(0, 2) if edges.size == 0 else edges
    if of.ndim != 1 or edges.ndim != 2 or edges.shape[1] != 2:
        hint = ""
        if edges.ndim == 2 and len(edges) == 2:
            hint = "; of an edge_index [2, M], give edge_index.T"
        raise ValueError(
            f"{name}: node_graph must be [N] and edges [M, 2], got {of.shape} and "
            f"{edges.shape}{hint}"
        )
    n = int(of.max(initial=-1)) + 1 if num_graphs is None else num_graphs
    _check_members(name, of, n, first)
    _check_ends(name, edges, of, first)
    loops = edges[:, 0] == edges[:, 1]
    if loops.any():
        warnings.warn(
            f"{name}: {loops.sum():,} edges from a node to itself are left out",
            stacklevel=2,
        )
    low, high = edges[~loops].min(axis=1), edges[~loops].max(axis=1)
    pairs = np.unique(low * len(of) + high)
    # Each direction once: both of a pair differ in nothing but this bit.
    directed = np.unique(
        2 * (low * len(of) + high) + (edges[~loops, 0] > edges[~loops, 1])
    )
    single = 2 * len(pairs) - len(directed)
    if 0 < single < len(pairs) - single:
        warnings.warn(
            f"{name}: {single:,} of {len(pairs):,} edges are there in one direction, "
            "the others in both; all are taken as undirected, but some may be missing",
            stacklevel=2,
        )
    low, high = np.divmod(pairs, len(of))
    node_ptr = np.searchsorted(of, np.arange(n + 1))
    edge_ptr = np.searchsorted(of[low], np.arange(n + 1))
    lonely = np.flatnonzero(np.diff(edge_ptr) == 0)
    if len(lonely):
        warnings.warn(
            f"{name}: {len(lonely):,} of {n:,} graphs have no edges, the first is "
            f"graph {lonely[0] + first}: only their nodes can tell them apart",
            stacklevel=2,
        )
    begin = node_ptr[of[low]]
    within = np.stack([low - begin, high - begin], axis=1).astype(np.int32)
    x = _checked_features(name, nodes, len(of), first)
    labels = None
    if node_labels is not None:
        labels = np.asarray(node_labels)
        if labels.shape != of.shape or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{name}: node_labels must be integers [{len(of)}], one for each node, "
                f"got {labels.dtype} {list(labels.shape)}"
            )
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    values = None if labels is None else np.unique(node_labels)
    return Graphs(x, node_ptr, within, edge_ptr, labels, values)


def labelled(
    name: str, graphs: Graphs, labels: Any, class_names: Sequence[str] | None = None
) -> dataset_lib.Dataset:
    """A data set of graphs with a label each.

    Args:
      name: what messages call it.
      graphs: the graphs; `with_features` gives nodes without attributes features.
      labels: integers [n], numbered anew in the order of their values; None: there are
        none, and no column of them.
      class_names: a name for each value; None: the values themselves.

    Returns:
      The data set, with columns "graph" and "label"; its graphs are not packed.

    Raises:
      TypeError: if graphs are no Graphs.
      ValueError: if labels are not one integer for each graph.

    >>> pair = from_edges("a pair", [0, 0, 1, 1, 1], [[0, 1], [2, 3], [3, 4]])
    >>> dataset = labelled("a pair", pair, [-1, 1])
    >>> dataset.class_names, dataset.columns["label"].tolist()
    (('-1', '1'), [0, 1])
    """
    check_graphs("graphs", graphs)
    if labels is None:
        return dataset_lib.Dataset(name, {"graph": Ragged(graphs)})
    labels = np.asarray(labels)
    if labels.shape != (graphs.num_graphs,) or not np.issubdtype(
        labels.dtype, np.integer
    ):
        raise ValueError(
            f"{name}: labels must be integers [{graphs.num_graphs}], one for each "
            f"graph, got {labels.dtype} {list(labels.shape)}"
        )
    values, numbered = np.unique(labels, return_inverse=True)
    names = tuple(map(str, values if class_names is None else class_names))
    if len(names) != len(values):
        raise ValueError(
            f"{name}: class_names must be {len(values)}, one for each class, got "
            f"{len(names)}"
        )
    columns: dict[str, Any] = {
        "graph": Ragged(graphs),
        "label": numbered.astype(np.int32),
    }
    return dataset_lib.Dataset(name, columns, names)


def _integers(name: str, what: str, values: Any) -> np.ndarray:
    x = np.asarray(values)
    if x.size and not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"{name}: {what} must be integers, got {x.dtype}")
    return x.astype(np.int64)


def _check_members(name: str, of: np.ndarray, n: int, first: int) -> None:
    if not n:
        raise ValueError(f"{name}: must hold graphs, got none")
    back = np.flatnonzero(np.diff(of) < 0)
    if len(back):
        raise ValueError(
            f"{name}: nodes of a graph must follow each other, and node "
            f"{back[0] + 1 + first} is of graph {of[back[0] + 1] + first}, the one "
            f"before it of graph {of[back[0]] + first}"
        )
    if len(of) and not 0 <= of[0] <= of[-1] < n:
        raise ValueError(
            f"{name}: node_graph must lie in [0, {n}), got {of[0]} to {of[-1]}"
        )
    there = np.unique(of)
    if len(there) < n:
        gap = np.flatnonzero(there != np.arange(len(there)))
        i = gap[0] if len(gap) else len(there)
        raise ValueError(
            f"{name}: every graph must have nodes, and {n - len(there):,} of {n:,} "
            f"have none, the first is graph {i + first}"
        )


def _check_ends(name: str, edges: np.ndarray, of: np.ndarray, first: int) -> None:
    outside = ((edges < 0) | (edges >= len(of))).any(axis=1)
    if outside.any():
        i = np.flatnonzero(outside)[0]
        raise ValueError(
            f"{name}: edges must join nodes {first} to {len(of) - 1 + first}, and edge "
            f"{i + first} joins {edges[i, 0] + first} and {edges[i, 1] + first}"
        )
    across = of[edges[:, 0]] != of[edges[:, 1]]
    if across.any():
        i = np.flatnonzero(across)[0]
        a, b = edges[i]
        raise ValueError(
            f"{name}: edges must stay in a graph, and edge {i + first} joins node "
            f"{a + first} of graph {of[a] + first} and node {b + first} of graph "
            f"{of[b] + first}"
        )


def _checked_features(name: str, nodes: Any, n: int, first: int) -> np.ndarray:
    if nodes is None:
        return np.zeros((n, 0), np.float32)
    x = np.asarray(nodes)
    if x.ndim != 2 or len(x) != n or not np.issubdtype(x.dtype, np.number):
        raise ValueError(
            f"{name}: features must be numbers [{n}, f], a row for each node, got "
            f"{x.dtype} {list(x.shape)}"
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is named below
        x = x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: features must be finite, and those of {len(bad):,} nodes are "
            f"not, the first is node {bad[0] + first}"
        )
    return x
