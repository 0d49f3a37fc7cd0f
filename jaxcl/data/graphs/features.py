"""What a node is described by: its label, its attributes, its degree."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl import _checks
from jaxcl.data import dataset as dataset_lib
from jaxcl.data.graphs import sets

# What nodes may be described by.
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
    sets.check_graphs("graphs", graphs)
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
      The graphs with nodes float32 [N, f], whose `features` say what the columns are.

    Raises:
      TypeError: if kinds is a string.
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
    sets.check_graphs("graphs", graphs)
    _checks.count("most", most)
    if isinstance(kinds, str):
        raise TypeError(f"features must be a sequence such as ({kinds!r},), got a str")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"features must be one or more different ones, got {kinds}")
    columns: list[int] = []
    labels: tuple[int, ...] = ()
    for kind in kinds:
        _checks.choice("features", kind, FEATURES)
        if kind == "labels":
            if graphs.node_labels is None:
                raise ValueError(
                    "features must not name 'labels' where nodes have none; 'degrees' "
                    "are always there"
                )
            values = graphs.label_values
            if values is None:
                values = np.arange(graphs.node_labels.max() + 1)
            labels = tuple(map(int, values))
            columns.append(len(labels))
        elif kind == "attributes":
            if not graphs.nodes.shape[1]:
                raise ValueError(
                    "features must not name 'attributes' where nodes have none"
                )
            columns.append(graphs.nodes.shape[1])
        elif kind == "degree":
            columns.append(1)
        else:
            columns.append(1 + int(min(degrees(graphs).max(), most)))
    return with_same_features(
        graphs, sets.Features(tuple(kinds), tuple(columns), labels)
    )


def with_same_features(graphs: sets.Graphs, features: sets.Features) -> sets.Graphs:
    """The same graphs, with the columns that other graphs have.

    Degrees beyond the largest of the other graphs count as that one. Of labels only
    the values are compared: whether they mean the same, nobody can tell.

    Args:
      graphs: any.
      features: of the other graphs.

    Returns:
      The graphs with nodes float32 [N, f], f the sum of the columns.

    Raises:
      ValueError: if nodes lack what is named, or have labels or attributes that the
        other graphs have not.

    >>> path = sets.from_edges("a path", [0, 0, 0], [[0, 1], [1, 2]])
    >>> print(with_same_features(path, sets.Features(("degrees",), (4,))).nodes)
    [[0. 1. 0. 0.]
     [0. 0. 1. 0.]
     [0. 1. 0. 0.]]
    """
    sets.check_graphs("graphs", graphs)
    columns: list[np.ndarray] = []
    for kind, count in zip(features.kinds, features.columns, strict=True):
        _checks.choice("features", kind, FEATURES)
        if kind == "labels":
            columns.append(_columns(_numbered_as(graphs, features.labels), count))
        elif kind == "attributes":
            if graphs.nodes.shape[1] != count:
                raise ValueError(
                    f"nodes must have {count} attributes, got {graphs.nodes.shape[1]}"
                )
            columns.append(graphs.nodes)
        elif kind == "degree":
            columns.append(degrees(graphs)[:, None].astype(np.float32))
        else:
            columns.append(_columns(np.minimum(degrees(graphs), count - 1), count))
    return graphs._replace(nodes=np.concatenate(columns, axis=1), features=features)


def described(
    dataset: dataset_lib.Dataset, kinds: Sequence[str] | sets.Features | None
) -> dataset_lib.Dataset:
    """A set whose nodes have features; None: labels, or else degrees."""
    graphs = sets.graphs_of(dataset)
    if kinds is None:
        kinds = ("degrees",) if graphs.node_labels is None else ("labels",)
    make: Any = with_features
    if isinstance(kinds, sets.Features):
        make = with_same_features
    try:
        graphs = make(graphs, kinds)
    except ValueError as error:
        raise ValueError(f"{dataset.name}: {error}") from None
    return dataset._replace(columns={**dataset.columns, "graph": sets.Ragged(graphs)})


def _columns(values: np.ndarray, count: int) -> np.ndarray:
    """Zeros and ones in so many columns, also where the last values do not occur."""
    x = _one_hot(values)
    return np.pad(x, ((0, 0), (0, count - x.shape[1])))


def _numbered_as(graphs: sets.Graphs, values: Sequence[int]) -> np.ndarray:
    """Labels of nodes as places among the values that other graphs have."""
    if graphs.node_labels is None:
        raise ValueError("nodes must have labels, got none")
    own = graphs.label_values
    if own is None:
        own = np.arange(graphs.node_labels.max(initial=0) + 1)
    # Only those that occur: a part of a set keeps the values of the whole.
    used = own[np.unique(graphs.node_labels)]
    unknown = np.setdiff1d(used, values)
    if len(unknown):
        raise ValueError(
            f"labels of nodes must be among {len(values)} values, {min(values)} to "
            f"{max(values)}, got {len(used)}, of which {len(unknown)} are others, the "
            f"first is {unknown[0]}"
        )
    place_of = {value: place for place, value in enumerate(values)}
    places = np.array([place_of.get(int(value), 0) for value in own])
    return places[graphs.node_labels]


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
