"""Sets of graphs: readers, features, and batches of fixed shape.

Here graphs are data: molecules, proteins, networks of people, each with a label, or one
network whose nodes have labels. `jaxcl.graphs` is another subject, the graphs that
theory sees on a batch of examples.
"""

from typing import NamedTuple

import numpy as np

from jaxcl._graph_batch import GraphBatch as GraphBatch


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
    """

    nodes: np.ndarray
    node_ptr: np.ndarray
    edges: np.ndarray
    edge_ptr: np.ndarray
    node_labels: np.ndarray | None = None

    @property
    def num_graphs(self) -> int:
        return len(self.node_ptr) - 1
