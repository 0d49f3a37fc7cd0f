"""Similarity graphs in files: one graph of many nodes, as weights between them.

These are graphs in the sense of `jaxcl.graphs`: who should be neighbors of whom.
"""

import os
from typing import NamedTuple

import numpy as np

from jaxcl.data import files

# A dense graph of this many nodes takes 400 MB.
MOST_NODES = 10_000


class SimilarityGraph(NamedTuple):
    """Weights between nodes.

    Attributes:
      weights: [n, n], dense; w_ij belongs to the edge from i to j.
      labels: integers [n], or None.
    """

    weights: np.ndarray
    labels: np.ndarray | None = None


def similarity_file(path: str | os.PathLike[str]) -> SimilarityGraph:
    """Reads a graph from an `.npz` file.

    Args:
      path: of a file with `edge_index`, integers [2, E], whose edges have weight 1, or
        with `weights` [n, n], which are preferred; and, if it has them, labels `y` [n].

    Returns:
      The graph, of at most 10,000 nodes. Isolated nodes at the end are known by y only.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, or holds something else.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.exists(path) and not path.endswith(".npz"):
        raise ValueError(f"{path}: not an .npz file, which numpy.savez writes")
    there = files.headers(path)
    wanted = [key for key in ("edge_index", "weights", "y") if key in there]
    arrays = {key: files.load(path, key) for key in wanted}
    y = arrays.get("y")
    if "weights" in arrays:
        w = arrays["weights"]
        if w.ndim != 2 or w.shape[0] != w.shape[1]:
            raise ValueError(
                f"{path}: weights must be a square matrix [n, n], got shape {w.shape}"
            )
        _check_size(path, len(w))
    elif "edge_index" in arrays:
        w = _of_edges(path, arrays["edge_index"], None if y is None else len(y))
    else:
        raise ValueError(f"{path}: needs an array edge_index [2, E] or weights [n, n]")
    if y is not None and (
        y.shape != (len(w),) or not np.issubdtype(y.dtype, np.integer)
    ):
        raise ValueError(
            f"{path}: y must be integers [{len(w)}], got shape {y.shape} of {y.dtype}"
        )
    return SimilarityGraph(w, y)


def _of_edges(path: str, edges: np.ndarray, num_nodes: int | None) -> np.ndarray:
    integers = np.issubdtype(edges.dtype, np.integer)
    if edges.ndim != 2 or len(edges) != 2 or not integers:
        raise ValueError(
            f"{path}: edge_index must be integers [2, E], got shape {edges.shape} "
            f"of {edges.dtype}"
        )
    if not edges.size or edges.min() < 0:
        raise ValueError(f"{path}: edge_index must hold edges between nodes >= 0")
    n = int(edges.max()) + 1 if num_nodes is None else num_nodes
    _check_size(path, n)
    if edges.max() >= n:
        raise ValueError(
            f"{path}: edge_index names node {edges.max()}, but y has {n} nodes"
        )
    w = np.zeros((n, n), np.float32)
    w[edges[0], edges[1]] = 1
    return w


def _check_size(path: str, n: int) -> None:
    if not 3 <= n <= MOST_NODES:
        raise ValueError(
            f"{path}: the graph is kept as a dense matrix and must have 3 to "
            f"{MOST_NODES:,} nodes, got {n:,}"
        )
