"""Other graphs are given the columns that an encoder knows, or are refused."""

import numpy as np
import pytest

from jaxcl import data
from tests.data.graphs import made

# A triangle and a path, with labels as in a file; and a star of four leaves.
LABELLED = data.graphs.from_edges(
    "made up",
    [0, 0, 0, 1, 1],
    [[0, 1], [1, 2], [0, 2], [3, 4]],
    nodes=np.arange(10.0).reshape(5, 2),
    node_labels=[6, 8, 6, 1, 6],
)
STAR = data.graphs.from_edges("a star", [0] * 5, [[0, i] for i in range(1, 5)])


def test_features_say_which_columns_are_of_what():
    kinds = ("degree", "labels", "attributes", "degrees")
    made = data.graphs.with_features(LABELLED, kinds)
    assert made.features == data.graphs.Features(kinds, (1, 3, 2, 3), (1, 6, 8))
    assert made.nodes.shape == (5, 9)
    # Degree 2, label 6, attributes 0 and 1, degree 2.
    np.testing.assert_array_equal(made.nodes[0], [2, 0, 1, 0, 0, 1, 0, 0, 1])


def test_a_part_of_a_set_has_the_columns_of_the_whole():
    whole = data.graphs.with_features(LABELLED, ("labels", "degrees"))
    last = data.graphs.Ragged(LABELLED)[np.array([1])]  # without 8, and degrees of 2
    again = data.graphs.with_same_features(last, whole.features)
    np.testing.assert_array_equal(again.nodes, whole.nodes[3:])
    part = data.graphs.Ragged(whole)[np.array([1])]
    assert part.features == whole.features


def test_labels_have_the_columns_of_their_values_whatever_their_numbers():
    # Here 8 is label 0; among the others it is label 2.
    alone = data.graphs.from_edges("alone", [0, 0], [[0, 1]], node_labels=[8, 8])
    features = data.graphs.with_features(LABELLED, ("labels",)).features
    made = data.graphs.with_same_features(alone, features)
    np.testing.assert_array_equal(made.nodes, [[0, 0, 1], [0, 0, 1]])


def test_larger_degrees_count_as_the_largest_that_is_known():
    features = data.graphs.with_features(LABELLED, ("degrees",)).features
    made = data.graphs.with_same_features(STAR, features)
    np.testing.assert_array_equal(made.nodes, np.eye(3)[[2, 1, 1, 1, 1]])
    most = data.graphs.with_features(STAR, ("degrees",), most=2)
    np.testing.assert_array_equal(most.nodes, made.nodes)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ((("labels",), (2,), (6, 8)), "among 2 values, 6 to 8, got 3, of which 1 are"),
        ((("attributes",), (3,)), "nodes must have 3 attributes, got 2"),
        ((("colors",), (3,)), "features must be one of"),
    ],
)
def test_what_an_encoder_does_not_know_is_refused(features, words):
    with pytest.raises(ValueError, match=words):
        data.graphs.with_same_features(LABELLED, data.graphs.Features(*features))


def test_labels_that_are_missing_are_asked_for():
    features = data.graphs.Features(("labels",), (1,), (6,))
    with pytest.raises(ValueError, match="nodes must have labels, got none"):
        data.graphs.with_same_features(STAR, features)


def test_graphs_whose_nodes_all_have_the_first_label_have_labels(tmp_path):
    path = made.npz(tmp_path / "a.npz", made.TWO_NPZ, node_label=np.zeros(5, int))
    features = data.graphs.Features(("labels",), (2,), (0, 1))
    graphs = data.graphs.graphs_of(data.graphs.open(str(path), features=features))
    assert graphs.nodes.tolist() == [[1, 0]] * 5
    graphs = data.graphs.graphs_of(data.graphs.open(str(path)))
    assert graphs.features.kinds == ("degrees",)
