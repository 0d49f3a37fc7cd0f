"""Graphs of a batch in arrays whose shape does not depend on which graphs they are."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxcl import _checks
from jaxcl._graph_batch import GraphBatch
from jaxcl.data import batching
from jaxcl.data import dataset as dataset_lib
from jaxcl.data.graphs import sets


class Packed:
    """The column of packed graphs: indices [b] give a `GraphBatch` of b / G packs.

    Graph i of the batch is in pack i // G, at place i % G.

    Args:
      graphs: all of them.
      per_pack: G, graphs of a pack.
      nodes: room of a pack for nodes.
      edges: room of a pack for edges.

    Raises:
      ValueError: if a graph has no room; where it is asked, if b / G is no integer or
        the graphs of a pack have no room together.

    >>> path = sets.from_edges("two", [0, 0, 1, 1], [[0, 1], [2, 3]])
    >>> batch = Packed(path, 2, nodes=5, edges=3)[np.array([1, 0])]
    >>> print(batch.node_graph, batch.edges[0].tolist())
    [[0 0 1 1 2]] [[0, 1], [2, 3], [0, 0]]
    """

    def __init__(
        self, graphs: sets.Graphs, per_pack: int, *, nodes: int, edges: int
    ) -> None:
        self.graphs = graphs
        self.per_pack = _checks.count("per_pack", per_pack)
        self.nodes, self.edges = _checks.count("nodes", nodes), edges
        _checks.count("edges", edges, 0)
        for name, ptr, room in (
            ("nodes", graphs.node_ptr, nodes),
            ("edges", graphs.edge_ptr, edges),
        ):
            sizes = np.diff(ptr)
            if len(sizes) and sizes.max() > room:
                raise ValueError(
                    f"{name} must be at least those of the largest graph, "
                    f"{sizes.max():,} of graph {sizes.argmax()}, got {room:,}"
                )

    def __len__(self) -> int:
        return self.graphs.num_graphs

    def __getitem__(self, indices: Any) -> GraphBatch:
        g, index = self.graphs, np.arange(len(self))[indices]
        if len(index) % self.per_pack:
            raise ValueError(
                f"a batch must be whole packs of {self.per_pack} graphs, got "
                f"{len(index)} graphs"
            )
        packs = len(index) // self.per_pack
        place = np.arange(len(index)) % self.per_pack
        rows, node, node_graph, first = self._places("nodes", g.node_ptr, index)
        lines, edge, edge_graph, _ = self._places("edges", g.edge_ptr, index)
        x = np.zeros((packs * self.nodes, g.nodes.shape[1]), np.float32)
        of_node = np.full(packs * self.nodes, self.per_pack, np.int32)
        ends = np.zeros((packs * self.edges, 2), np.int32)
        of_edge = np.full(packs * self.edges, self.per_pack, np.int32)
        x[node], of_node[node] = g.nodes[rows], place[node_graph]
        ends[edge] = g.edges[lines] + first[edge_graph, None]
        of_edge[edge] = place[edge_graph]
        in_packs = (packs, -1)
        arrays: Any = (
            x.reshape(packs, self.nodes, -1),
            of_node.reshape(in_packs),
            of_node.reshape(in_packs) < self.per_pack,
            ends.reshape(packs, self.edges, 2),
            of_edge.reshape(in_packs),
            of_edge.reshape(in_packs) < self.per_pack,
            np.ones((packs, self.per_pack), bool),
        )
        return GraphBatch(*arrays)

    def _places(
        self, name: str, ptr: np.ndarray, index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows to take, where they go, the graph [m] of each, and the first place [b]
        of each graph in its pack.
        """
        room = getattr(self, name)
        rows, ends = sets.stretches(ptr, index)
        of_packs = ends[:: self.per_pack]
        taken = np.diff(of_packs)
        if len(taken) and taken.max() > room:
            raise ValueError(
                f"{name} must be at least {taken.max():,}, what {self.per_pack} graphs "
                f"of a batch have, got {room:,}: pack for the seed and for all epochs "
                "of the batches"
            )
        first = ends[:-1] - np.repeat(of_packs[:-1], self.per_pack)
        graph = np.repeat(np.arange(len(index)), np.diff(ends))
        pack = np.repeat(np.arange(len(taken)), taken)
        return rows, np.arange(len(rows)) + pack * room - of_packs[pack], graph, first


def pack(
    dataset: dataset_lib.Dataset,
    batch_size: int,
    *,
    seed: int,
    epochs: int,
    packs: int = 1,
    nodes: int | None = None,
    edges: int | None = None,
) -> dataset_lib.Dataset:
    """Packs the graphs of a set for the batches that `data.batches` draws of it.

    Which graphs meet in a batch depends on the seed alone, so the room that is needed
    is known before: that of the fullest pack of all epochs, and at most a sixteenth
    more, so that other seeds have the same shapes.

    Args:
      dataset: with a column "graph" that is not packed.
      batch_size: graphs of a batch, over all processes.
      seed: of the batches.
      epochs: passes over the set.
      packs: p, into which a batch is divided; the devices of a mesh divide it.
      nodes: room of a pack for nodes; None: what is needed.
      edges: room of a pack for edges; None: what is needed.

    Returns:
      The data set with the column packed. Its memory is bounded by the room, whatever
      the graphs.

    Raises:
      ValueError: if the packs do not divide the batch, or the room is too small for a
        graph or for a batch, or more than memory holds.

    >>> from jaxcl.data.graphs import generated
    >>> dataset = generated.families(num_graphs=40)
    >>> print(pack(dataset, 8, seed=0, epochs=2, packs=2).columns["graph"].per_pack)
    4
    """
    graphs = sets.graphs_of(dataset)
    n = graphs.num_graphs
    _checks.count("batch_size", batch_size)
    _checks.count("epochs", epochs)
    _checks.count("packs", packs)
    _checks.divisible("batch_size", batch_size, packs, f"{packs} packs")
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n:,} graphs of {dataset.name}, got "
            f"{batch_size}"
        )
    per_pack, used = batch_size // packs, n - n % batch_size
    drawn = (
        batching.permutation(n, seed, epoch)[:used].reshape(-1, per_pack)
        for epoch in range(epochs)
    )
    return _packed(dataset, graphs, per_pack, drawn, nodes, edges)


def pack_batches(
    dataset: dataset_lib.Dataset, batches: Sequence[np.ndarray] | np.ndarray
) -> dataset_lib.Dataset:
    """Packs the graphs of a set for batches that are given, of one pack each.

    Args:
      dataset: with a column "graph" that is not packed.
      batches: indices of the graphs of each batch, int [b], all of one b.

    Returns:
      The data set with the column packed; there is room for each of the batches.

    Raises:
      ValueError: if there are no batches, or they differ in size.
    """
    sizes = {len(batch) for batch in batches}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"batches must be one or more of one size, got sizes {sorted(sizes)}"
        )
    rows = np.stack([np.asarray(batch) for batch in batches])
    return _packed(dataset, sets.graphs_of(dataset), rows.shape[1], [rows])


def pack_in_order(dataset: dataset_lib.Dataset, batch_size: int) -> dataset_lib.Dataset:
    """Packs the graphs of a set for `evaluation.represent`, in batches of one pack.

    Args:
      dataset: with a column "graph" that is not packed.
      batch_size: graphs that are represented at a time.

    Returns:
      The data set with the column packed.
    """
    n = dataset_lib.size(dataset)
    size = min(_checks.count("batch_size", batch_size), n)
    starts = np.minimum(np.arange(0, n, size), n - size)
    return pack_batches(dataset, list(starts[:, None] + np.arange(size)))


def about(dataset: dataset_lib.Dataset) -> str:
    """A line about the graphs of a set and the room that its packs have.

    Args:
      dataset: packed.

    Returns:
      Such as "NCI1: 4,110 graphs of 29.9 nodes and 32.3 edges on average; a pack of 128
      has room for 4,352 nodes and 4,608 edges, of which 88 % and 90 % are used".
    """
    column: Any = dataset.columns["graph"]
    n, g = len(column), column.graphs
    nodes, edges = len(g.nodes) / n, len(g.edges) / n
    used = [
        f"{column.per_pack * mean / max(1, room):.0%}".replace("%", " %")
        for mean, room in ((nodes, column.nodes), (edges, column.edges))
    ]
    return (
        f"{dataset.name}: {n:,} graphs of {nodes:.1f} nodes and {edges:.1f} edges on "
        f"average; a pack of {column.per_pack} has room for {column.nodes:,} nodes and "
        f"{column.edges:,} edges, of which {used[0]} and {used[1]} are used"
    )


def _packed(
    dataset: dataset_lib.Dataset,
    graphs: sets.Graphs,
    per_pack: int,
    drawn: Iterable[np.ndarray],
    nodes: int | None = None,
    edges: int | None = None,
) -> dataset_lib.Dataset:
    """With room for the packs drawn, int arrays [packs, G]."""
    of_nodes, of_edges = np.diff(graphs.node_ptr), np.diff(graphs.edge_ptr)
    need = np.max(
        [[sizes[rows].sum(axis=1).max() for sizes in (of_nodes, of_edges)]
         for rows in drawn],
        axis=0,
    )  # fmt: skip
    rooms = []
    for name, least, given in zip(
        ("nodes", "edges"), map(int, need), (nodes, edges), strict=True
    ):
        room = _rounded(least) if given is None else _checks.count(name, given, 0)
        if room < least:
            largest = (of_nodes if name == "nodes" else of_edges).max()
            raise ValueError(
                f"{name} must be at least {least:,}, what the fullest pack of "
                f"{per_pack} graphs has (the largest graph has {largest:,}), got "
                f"{room:,}; smaller batches need less"
            )
        rooms.append(room)
    size = rooms[0] * (4 * graphs.nodes.shape[1] + 5) + rooms[1] * 13
    if size > dataset_lib.memory_limit():
        raise ValueError(
            f"nodes and edges must fit into memory, got {rooms[0]:,} and {rooms[1]:,}: "
            f"{size / 2**30:,.0f} GiB for a pack of {per_pack} graphs"
        )
    column = Packed(graphs, per_pack, nodes=rooms[0], edges=rooms[1])
    return dataset._replace(columns={**dataset.columns, "graph": column})


def _rounded(n: int) -> int:
    """Up to five binary digits, and at least to a multiple of 8.

    >>> [_rounded(n) for n in (0, 5, 100, 1000)]
    [8, 8, 104, 1024]
    """
    unit = max(8, 1 << max(0, n.bit_length() - 5))
    return max(unit, -(-n // unit) * unit)
