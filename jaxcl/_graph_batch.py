"""Graphs as data, packed into arrays of fixed sizes.

`data.graphs`, `augment.graphs` and `models.graphs` speak of these. `jaxcl.graphs` is
another subject: the graphs that theory sees on a batch, whose nodes are examples.
"""

from typing import NamedTuple

import jax


class GraphBatch(NamedTuple):
    """Several graphs in each of p packs; a pack has room for N nodes and E edges.

    Room that is not used is padding, and so is what an augmentation has taken away: it
    stays where it is and is not valid. Nothing that is not valid counts, whatever it
    holds. Edges are undirected, each stands here once. Nodes and edges of a graph are
    consecutive. Graphs of the batch are numbered pack by pack: b = p G.

    A leading axis may be missing, as inside `vmap`, or there may be more, such as one
    of views, [p, v, ...].

    Attributes:
      nodes: features of the nodes, float32 [p, N, f].
      node_graph: place in the pack of the graph that a node belongs to, int32 [p, N],
        ascending; G for padding.
      node_valid: bool [p, N].
      edges: the two nodes of an edge, by their place in the pack, int32 [p, E, 2];
        0 for padding.
      edge_graph: int32 [p, E], ascending; G for padding.
      edge_valid: bool [p, E].
      valid: which graphs are there, bool [p, G].
    """

    nodes: jax.Array
    node_graph: jax.Array
    node_valid: jax.Array
    edges: jax.Array
    edge_graph: jax.Array
    edge_valid: jax.Array
    valid: jax.Array
