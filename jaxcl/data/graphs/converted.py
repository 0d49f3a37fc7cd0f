"""Graphs of networkx as graphs of a set; networkx itself is not needed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.data.graphs import sets


def from_networkx(
    name: str,
    graphs: Sequence[Any],
    *,
    nodes: str | None = None,
    node_labels: str | None = None,
) -> sets.Graphs:
    """Takes over graphs of networkx, whose nodes may be called anything.

    Nodes keep the order that they have in networkx. Edges of directed graphs are taken
    as undirected, and parallel ones as one; weights are not read.

    Args:
      name: what messages call the set.
      graphs: of networkx, each with a node at least.
      nodes: the attribute of nodes that holds their features, a number or a row of
        them; None: they have none.
      node_labels: the attribute of nodes that holds their label, an integer; None:
        they have none.

    Returns:
      The graphs.

    Raises:
      TypeError: if graphs are no sequence of graphs of networkx.
      ValueError: as `from_edges`, or if a node lacks an attribute.

    Warns:
      UserWarning: as `from_edges`.

    >>> import networkx as nx
    >>> water = nx.Graph([("H1", "O"), ("O", "H2")])
    >>> nx.set_node_attributes(water, {"H1": 1, "O": 8, "H2": 1}, "element")
    >>> found = from_networkx("water", [water], node_labels="element")
    >>> found.edges.tolist(), found.label_values.tolist()
    ([[0, 1], [1, 2]], [1, 8])
    """
    if not isinstance(graphs, list | tuple):
        raise TypeError(
            f"{name}: graphs must be a list of graphs of networkx, got "
            f"{type(graphs).__name__}"
        )
    of: list[int] = []
    edges: list[tuple[int, int]] = []
    read: dict[str, list[Any]] = {key: [] for key in (nodes, node_labels) if key}
    for i, graph in enumerate(graphs):
        if not (hasattr(graph, "number_of_nodes") and hasattr(graph, "edges")):
            raise TypeError(
                f"{name}: graphs must be of networkx, got {type(graph).__name__} at {i}"
            )
        place = {node: len(of) + k for k, node in enumerate(graph.nodes)}
        edges += [(place[a], place[b]) for a, b in graph.edges()]
        of += [i] * len(place)
        for key, values in read.items():
            for node, attributes in graph.nodes(data=True):
                if key not in attributes:
                    raise ValueError(
                        f"{name}: nodes must have the attribute {key!r}, and node "
                        f"{node!r} of graph {i} has none"
                    )
                values.append(attributes[key])
    x = None
    if nodes is not None:
        rows = [np.atleast_1d(np.asarray(value)) for value in read[nodes]]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            shown = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise ValueError(
                f"{name}: attribute {nodes!r} must be a number or a row of numbers, of "
                f"one length, got {shown}"
            )
        x = np.stack(rows) if rows else None
    labels = None if node_labels is None else read[node_labels]
    return sets.from_edges(
        name, of, edges, nodes=x, node_labels=labels, num_graphs=len(graphs)
    )
