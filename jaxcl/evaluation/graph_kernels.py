"""What is known of graphs without learning: histograms, Weisfeiler-Lehman kernels.

Baselines of every learned representation. Histograms are representations for
`svm_folds`, kernels are for `kernel_svm_folds`.
"""

import numpy as np

from jaxcl import _checks, _optional
from jaxcl.data.graphs import Graphs, features, sets


def label_histogram(graphs: Graphs) -> np.ndarray:
    """How many nodes of a graph have each label.

    Args:
      graphs: n graphs whose nodes have labels.

    Returns:
      Counts, float32 [n, labels], for the labels 0 to the largest one.

    Raises:
      ValueError: if nodes have no labels, or one is negative.

    >>> edges = np.array([[0, 1], [1, 2]]), np.array([0, 2])
    >>> path = Graphs(np.zeros((3, 0)), np.array([0, 3]), *edges, np.array([0, 2, 0]))
    >>> print(label_histogram(path))
    [[2. 0. 1.]]
    """
    labels = sets.check_graphs("graphs", graphs).node_labels
    if labels is None:
        raise ValueError(
            "graphs must have node_labels, got None; degree_histogram needs none"
        )
    if len(labels) and labels.min() < 0:
        raise ValueError(f"node_labels must be at least 0, got {labels.min()}")
    return _histogram(graphs, labels, int(labels.max(initial=0)) + 1)


def degree_histogram(graphs: Graphs, most: int | None = None) -> np.ndarray:
    """How many nodes of a graph have each number of neighbors.

    Args:
      graphs: n graphs.
      most: the last column counts nodes of this degree or a larger one; None: the
        largest degree there is.

    Returns:
      Counts, float32 [n, most + 1], for the degrees 0 to `most`.

    Raises:
      ValueError: if most is below 1.

    >>> edges = np.array([[0, 1], [1, 2]]), np.array([0, 2])
    >>> path = Graphs(np.zeros((3, 0)), np.array([0, 3]), *edges)
    >>> print(degree_histogram(path))
    [[0. 2. 1.]]
    """
    degrees = features.degrees(graphs)
    if most is None:
        most = int(degrees.max(initial=0))
    else:
        _checks.count("most", most)
    return _histogram(graphs, np.minimum(degrees, most), most + 1)


def weisfeiler_lehman(graphs: Graphs, iterations: int = 5) -> list[np.ndarray]:
    """Weisfeiler-Lehman subtree kernels, normalized to cosines.

    A node's first color is its label, or its degree where there are no labels. In each
    iteration a node's new color is its old one together with those of its neighbors,
    with multiplicity. With c_ik the number of nodes of graph i that have color k in
    one of the iterations 0 to h,

        kernel_h[i, j] = sum_k c_ik c_jk / sqrt(sum_k c_ik^2 sum_k c_jk^2)

    and 0 for a graph without nodes. An entry comes from its two graphs alone.

    Args:
      graphs: n graphs.
      iterations: the largest h.

    Returns:
      For h = 0 to `iterations` a kernel, float32 [n, n]: 4 n^2 bytes each.

    Raises:
      ImportError: without SciPy.
      ValueError: if iterations is negative.

    Source:
      Shervashidze et al., Weisfeiler-Lehman graph kernels, JMLR 12 (2011), section 3.2.

    >>> edges = np.array([[0, 1], [1, 2], [0, 1]]), np.array([0, 2, 3])
    >>> paths = Graphs(np.zeros((5, 0)), np.array([0, 3, 5]), *edges, np.zeros(5, int))
    >>> print(*(kernel[0, 1] for kernel in weisfeiler_lehman(paths, 1)))
    1.0 0.9449112
    """
    sparse = _optional.require("scipy.sparse", "evaluation.weisfeiler_lehman", "tools")
    _checks.count("iterations", iterations, at_least=0)
    start, neighbor = _neighbors(sets.check_graphs("graphs", graphs))
    first = np.diff(start) if graphs.node_labels is None else graphs.node_labels
    colors = np.unique(first, return_inverse=True)[1].astype(np.int64)
    n, places = graphs.num_graphs, _graph_of(graphs)
    products, kernels = np.zeros((n, n)), []
    for iteration in range(iterations + 1):
        if iteration:
            colors = _refined(colors, start, neighbor)
        counts = sparse.csr_array(
            (np.ones(len(colors)), (places, colors)),
            shape=(n, int(colors.max(initial=0)) + 1),
        )
        products += (counts @ counts.T).toarray()
        norm = np.sqrt(np.diag(products))
        norm = np.where(norm > 0, norm, 1.0)  # without nodes: 0 / 1
        kernels.append((products / norm[:, None] / norm).astype(np.float32))
    return kernels


def _histogram(graphs: Graphs, values: np.ndarray, width: int) -> np.ndarray:
    """Counts of the values 0 to width - 1 among the nodes of each graph."""
    cells = _graph_of(graphs) * width + values
    counts = np.bincount(cells, minlength=graphs.num_graphs * width)
    return counts.reshape(graphs.num_graphs, width).astype(np.float32)


def _graph_of(graphs: Graphs) -> np.ndarray:
    """The graph of each node, int64 [N]."""
    return np.repeat(np.arange(graphs.num_graphs), np.diff(graphs.node_ptr))


def _neighbors(graphs: Graphs) -> tuple[np.ndarray, np.ndarray]:
    """Node i of all has the neighbors [start[i]:start[i + 1]] of the second array."""
    first_node = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.edge_ptr))
    edges = graphs.edges + first_node[:, None]
    source, target = np.concatenate([edges, edges[:, ::-1]]).T
    degrees = np.bincount(source, minlength=graphs.node_ptr[-1])
    start = np.concatenate([[0], np.cumsum(degrees)])
    return start, target[np.argsort(source, kind="stable")]


def _refined(colors: np.ndarray, start: np.ndarray, neighbor: np.ndarray) -> np.ndarray:
    """The next colors: numbers of what a node and its neighbors have together."""
    node = np.repeat(np.arange(len(colors)), np.diff(start))
    around = colors[neighbor]
    around = around[np.lexsort((around, node))]  # ascending for each node
    size = colors.itemsize
    own, theirs, ends = colors.tobytes(), around.tobytes(), (size * start).tolist()
    numbers: dict[bytes, int] = {}
    new = np.empty_like(colors)
    for i in range(len(colors)):
        key = own[size * i : size * (i + 1)] + theirs[ends[i] : ends[i + 1]]
        new[i] = numbers.setdefault(key, len(numbers))
    return new
