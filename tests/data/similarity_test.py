"""Similarity graphs in files: what is read, and what is refused."""

import numpy as np
import pytest

from jaxcl.data import similarity


def test_edges_have_weight_one_and_lead_one_way(tmp_path):
    path = tmp_path / "graph.npz"
    np.savez(path, edge_index=np.array([[0, 2, 3], [1, 0, 2]], np.int32))
    graph = similarity.similarity_file(path)
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[2, 0] = expected[3, 2] = 1
    np.testing.assert_array_equal(graph.weights, expected)
    assert graph.labels is None
    # Labels know of nodes without edges.
    np.savez(path, edge_index=np.array([[0], [1]]), y=np.array([3, 3, 1, 0, 2]))
    graph = similarity.similarity_file(str(path))
    assert graph.weights.shape == (5, 5)
    np.testing.assert_array_equal(graph.labels, [3, 3, 1, 0, 2])


def test_weights_are_read_as_they_are_and_preferred(tmp_path):
    path = tmp_path / "graph.npz"
    w = np.arange(9.0).reshape(3, 3)
    np.savez(path, weights=w, edge_index=np.array([[0], [1]]))
    np.testing.assert_array_equal(similarity.similarity_file(path).weights, w)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"weights": np.ones((3, 4))}, r"weights must be a square.*\(3, 4\)"),
        ({"edge_index": np.ones((3, 4), int)}, r"edge_index must be integers \[2, E\]"),
        ({"edge_index": np.ones((2, 4))}, "edge_index must be integers.*float64"),
        ({"edge_index": np.ones((2, 0), int)}, "must hold edges between nodes >= 0"),
        ({"edge_index": np.array([[0], [-1]])}, "must hold edges between nodes >= 0"),
        ({"edge_index": np.array([[0], [5]]), "y": np.arange(4)}, "y has 4 nodes"),
        ({"edge_index": np.array([[0], [99_999]])}, "3 to 10,000 nodes, got 100,000"),
        ({"weights": np.ones((2, 2))}, "3 to 10,000 nodes, got 2"),
        (
            {"weights": np.ones((3, 3)), "y": np.ones(4, int)},
            r"y must be integers \[3\], got shape \(4,\)",
        ),
        ({"weights": np.ones((3, 3)), "y": np.ones(3)}, "y must be .* of float64"),
        ({"other": np.ones(3)}, "needs an array edge_index"),
    ],
)
def test_a_file_that_is_no_graph_is_named(tmp_path, arrays, words):
    path = tmp_path / "graph.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=words) as caught:
        similarity.similarity_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 nor this"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    path = tmp_path / "graph.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"graph\.npz: not a readable NumPy file"):
        similarity.similarity_file(path)


def test_an_array_of_its_own_is_no_npz(tmp_path):
    path = tmp_path / "graph.npy"
    np.save(path, np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"graph\.npy: not an \.npz file"):
        similarity.similarity_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.npz: there is no such file"):
        similarity.similarity_file(tmp_path / "no.npz")
