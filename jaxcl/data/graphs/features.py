"""What a node is described by: its label, its attributes, its degree."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl import _checks
from jaxcl.data import dataset as dataset_lib
from jaxcl.data.graphs import sets

FEATURES = ("labels", "attributes", "degree", "degrees")


def degrees(graphs: sets.Graphs) -> np.ndarray:
    """The number of edges of each node.

    Args:
      graphs: any.

    Returns:
      int64 [N].

    >>> print(degrees(sets.from_edges("a path", [0, 0, 0], [[0, 1], [1, 2]])))
    [1 2 1]
    """
    first = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.edge_ptr))
    ends = (graphs.edges + first[:, None]).ravel()
    return np.bincount(ends, minlength=len(graphs.nodes))


def with_features(
    graphs: sets.Graphs, kinds: Sequence[str], *, most: int = 100
) -> sets.Graphs:
    """The same graphs, with features made of what is known of their nodes.

    Args:
      graphs: any.
      kinds: which of FEATURES, side by side in the order given: "labels" as columns of
        zeros and ones; "attributes", what the graphs have for `nodes`; "degree", one
        column; "degrees", zeros and ones for each degree, the last for all beyond.
      most: largest degree with a column of its own.

    Returns:
      The graphs with nodes float32 [N, f].

    Raises:
      ValueError: for another kind, or labels or attributes that are not there or do
        not fit into memory.

    Source:
      The authors of SC-InfoNCE take labels, degree and degrees.

    >>> path = sets.from_edges("a path", [0, 0, 0], [[0, 1], [1, 2]])
    >>> print(with_features(path, ("degree", "degrees")).nodes)
    [[1. 0. 1. 0.]
     [2. 0. 0. 1.]
     [1. 0. 1. 0.]]
    """
    _checks.count("most", most)
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"features must be one or more different ones, got {kinds}")
    columns: list[Any] = []
    for kind in kinds:
        _checks.choice("features", kind, FEATURES)
        if kind == "labels":
            if graphs.node_labels is None:
                raise ValueError(
                    "features must not name 'labels' where nodes have none; 'degrees' "
                    "are always there"
                )
            columns.append(_one_hot(graphs.node_labels))
        elif kind == "attributes":
            if not graphs.nodes.shape[1]:
                raise ValueError(
                    "features must not name 'attributes' where nodes have none"
                )
            columns.append(graphs.nodes)
        elif kind == "degree":
            columns.append(degrees(graphs)[:, None].astype(np.float32))
        else:
            columns.append(_one_hot(np.minimum(degrees(graphs), most)))
    return graphs._replace(nodes=np.concatenate(columns, axis=1))


def described(
    dataset: dataset_lib.Dataset, kinds: Sequence[str] | None
) -> dataset_lib.Dataset:
    """A set whose nodes have features; None: labels, or else degrees."""
    graphs = sets.graphs_of(dataset)
    if kinds is None:
        kinds = ("degrees",) if graphs.node_labels is None else ("labels",)
    try:
        graphs = with_features(graphs, kinds)
    except ValueError as error:
        raise ValueError(f"{dataset.name}: {error}") from None
    return dataset._replace(columns={**dataset.columns, "graph": sets.Ragged(graphs)})


def _one_hot(values: np.ndarray) -> np.ndarray:
    columns = int(values.max()) + 1
    if 4 * columns * len(values) > dataset_lib.memory_limit():
        raise ValueError(
            f"features must fit into memory: {columns:,} different labels are as many "
            f"columns for each of {len(values):,} nodes"
        )
    x = np.zeros((len(values), columns), np.float32)
    x[np.arange(len(values)), values] = 1
    return x
