"""Graphs that are made here, for a first look without any data. Needs networkx."""

from typing import Any

import numpy as np

from jaxcl import _checks, _optional
from jaxcl.data import dataset as dataset_lib
from jaxcl.data.graphs import converted, sets

FAMILIES = ("random", "preferential", "small world", "communities", "geometric", "tree")


def families(
    num_graphs: int = 600, *, seed: int = 0, nodes: tuple[int, int] = (16, 40)
) -> dataset_lib.Dataset:
    """Graphs of six random families, to be told apart by their structure.

    All but trees have about twice as many edges as nodes: Erdos-Renyi graphs,
    preferential attachment (Barabasi-Albert), small worlds (Watts-Strogatz), four
    communities, neighbors in the unit square, and trees. It shows that an encoder sees
    structure; it says nothing of molecules or people.

    Args:
      num_graphs: as many of each family as of any other, up to one.
      seed: of all draws.
      nodes: least and most nodes of a graph, drawn uniformly.

    Returns:
      The data set, without labels of nodes; graph i is of family i mod 6.

    Raises:
      ImportError: if networkx is not installed.

    >>> dataset = families(12)
    >>> dataset_lib.size(dataset), len(dataset.class_names)
    (12, 6)
    """
    nx = _networkx("the source 'families'")
    _checks.count("num_graphs", num_graphs)
    _checks.count("seed", seed, 0)
    low, high = _checks.sides("nodes", nodes)
    if not 8 <= low <= high:
        raise ValueError(f"nodes must be two numbers in order, from 8 on, got {nodes}")
    random = np.random.default_rng(seed)

    def one(family: int) -> Any:
        n, s = int(random.integers(low, high + 1)), int(random.integers(2**31))
        if family == 0:
            return nx.gnm_random_graph(n, 2 * n, seed=s)
        if family == 1:
            return nx.barabasi_albert_graph(n, 2, seed=s)
        if family == 2:
            return nx.watts_strogatz_graph(n, 4, 0.1, seed=s)
        if family == 3:
            sizes = [len(part) for part in np.array_split(np.arange(n), 4)]
            return nx.random_partition_graph(sizes, min(1.0, 14 / n), 0.67 / n, seed=s)
        if family == 4:
            return nx.random_geometric_graph(n, (4 / (np.pi * n)) ** 0.5 * 1.15, seed=s)
        return nx.random_labeled_tree(n, seed=s)

    drawn = [one(i % len(FAMILIES)) for i in range(num_graphs)]
    labels = np.arange(num_graphs) % len(FAMILIES)
    names = [FAMILIES[c] for c in np.unique(labels)]
    return sets.labelled(
        "families", converted.from_networkx("families", drawn), labels, names
    )


def atlas() -> dataset_lib.Dataset:
    """All graphs of two to seven nodes with at least one edge, 1,245 of them.

    Their label says whether a graph has a bridge, an edge without which a part of it
    comes apart. It is a property of structure alone, at which degrees only hint.

    Returns:
      The data set, without labels of nodes.

    Raises:
      ImportError: if networkx is not installed.

    >>> dataset_lib.size(atlas())
    1245
    """
    nx = _networkx("the source 'atlas'")
    drawn = [g for g in nx.graph_atlas_g() if g.number_of_edges()]
    labels = [int(nx.has_bridges(g)) for g in drawn]
    names = ("no bridge", "bridge")
    return sets.labelled(
        "atlas", converted.from_networkx("atlas", drawn), labels, names
    )


def partition(
    num_groups: int = 7,
    group_size: int = 60,
    *,
    seed: int = 0,
    words: int = 140,
) -> sets.Network:
    """One network of groups: a planted partition whose nodes have noisy words.

    A node has four edges into its group and one out of it on average. Of its words, a
    fifth are of its group and the others any.

    Args:
      num_groups: groups, the labels of nodes.
      group_size: nodes of each.
      seed: of all draws.
      words: columns of zeros and ones; a group has an equal part of them.

    Returns:
      The network; 10 nodes of each group are for training, 20 for validation, the rest
      for the test.

    Raises:
      ImportError: if networkx is not installed.

    >>> partition().labels.shape
    (420,)
    """
    nx = _networkx("the source 'partition'")
    for name, value in (("num_groups", num_groups), ("words", words)):
        _checks.count(name, value, 2)
    _checks.count("group_size", group_size, 31)
    random = np.random.default_rng(seed)
    n = num_groups * group_size
    drawn = nx.random_partition_graph(
        [group_size] * num_groups,
        4 / (group_size - 1),
        1 / (n - group_size),
        seed=int(random.integers(2**31)),
    )
    labels = np.repeat(np.arange(num_groups), group_size)
    own = np.arange(words) * num_groups // words == labels[:, None]
    x = random.random((n, words)) < np.where(own, 0.08, 0.05)
    graphs = sets.from_edges(
        "partition", np.zeros(n, int), list(drawn.edges), nodes=x.astype(np.float32)
    )
    place = np.argsort(np.argsort(random.random((num_groups, group_size)), 1), 1)
    place = place.ravel()
    names = tuple(f"group {c + 1}" for c in range(num_groups))
    return sets.Network(
        "partition",
        graphs,
        labels.astype(np.int32),
        place < 10,
        (place >= 10) & (place < 30),
        place >= 30,
        names,
    )


def _networkx(what: str) -> Any:
    return _optional.require("networkx", what, "tools")
