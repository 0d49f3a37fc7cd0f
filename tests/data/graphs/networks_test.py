"""One network in a file, against arrays written by hand; graphs that are made here."""

import pathlib
import re

import numpy as np
import pytest

from jaxcl import data
from tests.data.graphs import made

REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "graphs"
SPARSE = {
    "x": None,
    "x_shape": np.array([5, 3]),
    "x_indptr": np.array([0, 1, 1, 3, 4, 5], np.uint8),
    "x_indices": np.array([1, 0, 2, 2, 0], np.uint16),
    "x_data": np.array([2, 1, 3, 4, 5], np.int8),
}


@pytest.mark.parametrize("changes", [{}, SPARSE], ids=["dense", "sparse"])
def test_a_network_is_read(changes, tmp_path):
    path = made.npz(tmp_path / "papers.npz", made.NETWORK, **changes)
    network = data.graphs.open_network(path)
    assert network.name == "papers"
    assert network.graphs.num_graphs == 1
    assert network.graphs.edges.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    np.testing.assert_array_equal(network.graphs.nodes, made.NETWORK["x"])
    assert network.graphs.nodes.dtype == np.float32
    assert network.labels.tolist() == [0, 0, 1, 1, 1]
    assert network.class_names == ("2", "5")
    parts = (network.train, network.val, network.test)
    assert [np.flatnonzero(part).tolist() for part in parts] == [[0, 2, 4], [1], [3]]


def test_the_real_network_has_the_published_counts():
    if not REAL.is_dir():
        pytest.skip("the real graphs are not here")
    network = data.graphs.open_network(str(REAL / "cora.npz"))
    assert network.graphs.nodes.shape == (2708, 1433)
    assert len(network.graphs.edges) == 5278
    assert len(network.class_names) == 7
    parts = (network.train, network.val, network.test)
    assert [int(part.sum()) for part in parts] == [140, 500, 1000]


BAD = {
    "no labels": ({"y": None}, "lacks y"),
    "no parts": ({"train_mask": None, "val_mask": None}, "lacks train_mask, val_mask"),
    "a set of graphs": (
        {"train_mask": None, "node_ptr": np.array([0, 5])},
        "lacks train_mask; a set of graphs is for open",
    ),
    "no features": ({"x": None}, "must have features x, or x_shape"),
    "part of a sparse matrix": ({**SPARSE, "x_data": None}, "must have features x, or"),
    "words for labels": ({"y": np.array(list("abcde"))}, "y must be integers [N]"),
    "labels of two axes": ({"y": np.ones((5, 1), int)}, "y must be integers [N]"),
    "no nodes": ({"y": np.zeros(0, int)}, "y must be integers [N]"),
    "features of other nodes": ({"x": np.ones((4, 3))}, "features must be numbers [5"),
    "features that are NaN": ({"x": np.full((5, 2), np.nan)}, "5 nodes are not"),
    "edges turned": ({"edge_index": np.ones((4, 2), int)}, "[2, E], got int64 [4, 2]"),
    "edges of fractions": ({"edge_index": np.ones((2, 4))}, "got float64 [2, 4]"),
    "an edge to a missing node": (
        {"edge_index": np.array([[0], [5]])},
        "nodes 0 to 4, and edge 0 joins 0 and 5",
    ),
    "a part of other nodes": (
        {"val_mask": np.ones(4, bool)},
        "val_mask must be bool [5",
    ),
    "a part of numbers": ({"test_mask": np.ones(5, int)}, "test_mask must be bool [5"),
    "an empty part": ({"train_mask": np.zeros(5, bool)}, "name some nodes"),
    "training on the test": (
        {"test_mask": np.arange(5) > 2},
        "train_mask and test_mask must not share nodes, got 1",
    ),
    "training on one class": (
        {"train_mask": np.arange(5) == 4},
        "nodes of train_mask must be of two classes or more, got 5 only",
    ),
    "features of no columns": (
        {"x": np.zeros((5, 0))},
        "nodes must have features, got 5 of none",
    ),
    "a shape of one number": (
        {**SPARSE, "x_shape": np.array([5])},
        "x_shape must be 5,",
    ),
    "a shape of other nodes": ({**SPARSE, "x_shape": np.array([6, 3])}, "got [6, 3]"),
    "a huge shape": ({**SPARSE, "x_shape": np.array([5, 2**40])}, "x_shape must be"),
    "a negative shape": ({**SPARSE, "x_shape": np.array([5, -3])}, "got [5, -3]"),
    "columns outside": (
        {**SPARSE, "x_shape": np.array([5, 2])},
        "in [0, 2), got 0 to 2",
    ),
    "columns of fractions": (
        {**SPARSE, "x_indices": np.ones(5)},
        "x_indices must be integers of one axis, got float64",
    ),
    "rows of fractions": (
        {**SPARSE, "x_indptr": np.arange(6.0)},
        "x_indptr must be integers of one axis, got float64",
    ),
    "rows too few": (
        {**SPARSE, "x_indptr": np.arange(5)},
        "in 6 steps, got 5 up to [4]",
    ),
    "rows that descend": (
        {**SPARSE, "x_indptr": np.array([0, 3, 1, 3, 4, 5], np.uint8)},
        "must ascend",
    ),
    "values too few": ({**SPARSE, "x_data": np.ones(4)}, "for 5 and 4"),
    "values that are words": (
        {**SPARSE, "x_data": np.array(list("abcde"))},
        "x_data must be numbers of one axis",
    ),
    "values that are NaN": (
        {**SPARSE, "x_data": np.full(5, np.nan)},
        "4 nodes are not",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_network_that_does_not_fit_is_refused_in_a_line(what, tmp_path):
    changes, said = BAD[what]
    path = made.npz(tmp_path / "papers.npz", made.NETWORK, **changes)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        data.graphs.open_network(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'partition' or a file ending in \.npz"):
        data.graphs.open_network(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"papers\.npz"):
        data.graphs.open_network(tmp_path / "papers.npz")
    (tmp_path / "papers.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(ValueError, match=r"papers\.npz: not a readable"):
        data.graphs.open_network(tmp_path / "papers.npz")


def test_a_network_without_edges_and_with_loops_is_kept_with_warnings(tmp_path):
    path = tmp_path / "papers.npz"
    made.npz(path, made.NETWORK, edge_index=np.array([[0, 1], [0, 1]]))
    with (
        pytest.warns(UserWarning, match="1 of 1 graphs have no edges"),
        pytest.warns(UserWarning, match="2 edges from a node to itself"),
    ):
        network = data.graphs.open_network(path)
    assert len(network.graphs.edges) == 0


# Made here. ---------------------------------------------------------------------------


def test_families_are_what_their_seed_says():
    a, b, other = (data.graphs.families(24, seed=seed) for seed in (3, 3, 4))
    g, h, i = map(data.graphs.graphs_of, (a, b, other))
    for x, y in zip(g[:4], h[:4], strict=True):
        np.testing.assert_array_equal(x, y)
    assert g.edges.tolist() != i.edges.tolist()
    sizes = np.diff(g.node_ptr)
    assert 16 <= sizes.min() <= sizes.max() <= 40
    assert a.columns["label"].tolist() == list(range(6)) * 4
    edges = np.diff(g.edge_ptr)
    assert (edges[5::6] == sizes[5::6] - 1).all()  # trees
    assert (edges[0::6] == 2 * sizes[0::6]).all()  # random


def test_families_refuse_what_does_not_fit():
    for nodes in ((4, 8), (20, 10)):
        with pytest.raises(ValueError, match="nodes must be two numbers in order"):
            data.graphs.families(6, nodes=nodes)
    with pytest.raises(ValueError, match="num_graphs must be"):
        data.graphs.families(0)


def test_the_partition_has_its_split_and_its_groups():
    network = data.graphs.partition(3, 40, words=12, seed=1)
    parts = np.stack([network.train, network.val, network.test])
    assert (parts.sum(axis=0) == 1).all()
    for group in range(3):
        assert parts[:, network.labels == group].sum(axis=1).tolist() == [10, 20, 10]
    inside = network.labels[network.graphs.edges]
    assert (inside[:, 0] == inside[:, 1]).mean() > 0.65
    with pytest.raises(ValueError, match="group_size must be"):
        data.graphs.partition(3, 30)
