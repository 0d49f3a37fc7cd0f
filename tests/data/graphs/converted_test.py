"""Graphs that a user brings along: of networkx, and as lists of edges with labels."""

import networkx as nx
import numpy as np
import pytest

from jaxcl import data, evaluation
from tests.data.graphs import made


def named(letters, edges, kind=nx.Graph):
    """A graph whose nodes are letters, with their number in the alphabet."""
    graph = kind()
    for letter in letters:
        i = ord(letter) - ord("a")
        graph.add_node(letter, element=7 * i, position=[i, -i / 2], charge=i)
    graph.add_edges_from(tuple(edge) for edge in edges)
    return graph


def test_nodes_of_any_name_keep_their_order_and_attributes():
    drawn = [named("cab", ["ab", "bc"]), named("db", ["bd"])]
    graphs = data.graphs.from_networkx(
        "drawn", drawn, nodes="position", node_labels="element"
    )
    assert graphs.node_ptr.tolist() == [0, 3, 5]
    assert made.by_graph(graphs)[0][1] == [[0, 2], [1, 2]]
    assert made.by_graph(graphs)[1][1] == [[0, 1]]
    assert graphs.nodes.tolist() == [[2, -1], [0, 0], [1, -0.5], [3, -1.5], [1, -0.5]]
    assert graphs.label_values[graphs.node_labels].tolist() == [14, 0, 7, 21, 7]
    numbers = data.graphs.from_networkx("drawn", drawn, nodes="charge")
    assert numbers.nodes[:, 0].tolist() == [2, 0, 1, 3, 1]
    assert numbers.node_labels is None


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_edges_count_once_and_in_no_direction(kind):
    graph = named("abc", ["ba", "ab", "ca", "ac"], kind)
    graphs = data.graphs.from_networkx("kinds", [graph])
    assert graphs.edges.tolist() == [[0, 1], [0, 2]]


def test_what_is_no_list_of_graphs_or_lacks_something_is_named():
    bare = nx.path_graph(3)
    for graphs, options, said in (
        (bare, {}, "graphs must be a list of graphs of networkx, got Graph"),
        ([bare, np.eye(2)], {}, "graphs must be of networkx, got ndarray at 1"),
        ([bare], {"nodes": "x"}, "attribute 'x', and node 0 of graph 0 has none"),
        ([bare, nx.Graph()], {}, "every graph must have nodes, and 1 of 2 have none"),
        ([], {}, "must hold graphs, got none"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            data.graphs.from_networkx("wrong", graphs, **options)
    uneven = nx.path_graph(2)
    nx.set_node_attributes(uneven, {0: [1.0], 1: [1.0, 2.0]}, "x")
    with pytest.raises(ValueError, match=r"of one length, got \[1\] and \[2\]"):
        data.graphs.from_networkx("wrong", [uneven], nodes="x")


def test_graphs_of_a_user_become_a_set_with_and_without_labels():
    paths = [nx.path_graph(n) for n in (2, 3, 4, 5)]
    graphs = data.graphs.from_networkx("paths", paths)
    graphs = data.graphs.with_features(graphs, ("degrees",))
    dataset = data.graphs.labelled("paths", graphs, [3, 1, 3, 1], ["odd", "even"])
    packed = data.graphs.pack(dataset, 2, seed=0, epochs=1)
    assert data.batches(packed, 2, seed=0)(0)["graph"].nodes.shape[-1] == 3
    assert dataset.columns["label"].tolist() == [1, 0, 1, 0]
    bare = data.graphs.labelled("paths", graphs, None)
    packed = data.graphs.pack(bare, 2, seed=0, epochs=1)
    assert "label" not in data.batches(packed, 2, seed=0)(0)


def test_graphs_that_are_no_set_yet_are_told_how_to_become_one():
    graphs = data.graphs.from_networkx("paths", [nx.path_graph(3)])
    with pytest.raises(
        TypeError, match=r"got Graphs; data\.graphs\.labelled makes one"
    ):
        data.graphs.pack(graphs, 1, seed=0, epochs=1)
    with pytest.raises(TypeError, match="graphs must be Graphs, got list"):
        data.graphs.labelled("paths", [nx.path_graph(3)], [0])
    with pytest.raises(TypeError, match=r"such as \('degree',\), got a str"):
        data.graphs.with_features(graphs, "degree")
    with pytest.raises(ValueError, match=r"got \(4,\) and \(2, 3\).*edge_index\.T"):
        data.graphs.from_edges("pyg", [0] * 4, np.array([[0, 1, 2], [1, 2, 3]]))


def test_batches_that_were_not_packed_for_have_no_room_and_say_why():
    graphs = made.random_graphs([2] * 4 + [30] * 4, density=1.0)
    column = data.graphs.Packed(graphs, 2, nodes=32, edges=436)
    assert column[np.array([0, 7])].valid.all()
    with pytest.raises(ValueError, match="pack for the seed and for all epochs"):
        column[np.array([6, 7])]


def test_a_data_set_in_place_of_graphs_is_told_what_to_do():
    dataset = data.graphs.families(6)
    for function in (
        data.graphs.degrees,
        evaluation.degree_histogram,
        evaluation.label_histogram,
        evaluation.weisfeiler_lehman,
        lambda graphs: data.graphs.with_features(graphs, ("degree",)),
    ):
        with pytest.raises(TypeError, match=r"got Dataset; data\.graphs\.graphs_of"):
            function(dataset)
