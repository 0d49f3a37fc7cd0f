"""Readers of graphs, against files written by hand, whole and damaged."""

import pathlib
import re
import zipfile

import numpy as np
import pytest

from jaxcl import data
from jaxcl.data.graphs import files, sets
from tests.data.graphs import made

REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "graphs"


def assert_two(dataset, name="TWO"):
    graphs = data.graphs.graphs_of(dataset)
    assert dataset.name == name
    assert graphs.node_ptr.tolist() == [0, 3, 5]
    assert graphs.edges.tolist() == [[0, 1], [1, 2], [0, 1]]
    assert graphs.edge_ptr.tolist() == [0, 2, 3]
    assert dataset.class_names == ("-1", "1")
    assert dataset.columns["label"].tolist() == [1, 0]
    return graphs


def test_a_folder_is_read(tmp_path):
    graphs = assert_two(files.tu(made.tu(tmp_path)))
    assert graphs.nodes.shape == (5, 0)
    assert graphs.node_labels is None
    for folder in (tmp_path, tmp_path / "processed"):
        folder.mkdir(exist_ok=True)
        (folder / "README.txt").write_text("Of two graphs.\n")
    (tmp_path / "TWO_edge_labels.txt").write_text("whatever\n")  # is not read
    (tmp_path / "._TWO_A.txt").write_bytes(b"\0\xff")  # of a Mac
    assert_two(files.tu(tmp_path))


def test_a_zip_is_read_whatever_the_folder_inside(tmp_path):
    folder = made.tu(tmp_path / "here", node_attributes="1\n2\n3\n4\n5\n")
    for i, inside in enumerate(("", "TWO/", "a/b c/TWO/", "TWO\\")):
        graphs = assert_two(
            files.tu(made.zipped(folder, tmp_path / f"{i}.zip", inside))
        )
        assert graphs.nodes[:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "changes",
    [
        {"A": "1, 2\n2, 3\n4, 5\n"},
        {"A": "2, 1\n3, 2\n5, 4\n"},
        {"A": "4, 5\n1, 2\n2, 3\n3, 2\n1, 2\n1, 2\n"},
        {"A": "1,2\n2,1\n2,3\n3,2\n4,5\n5,4"},
        {"A": " 1 ,\t2\n2   1 \n2, 3\n\n3, 2\n4, 5\n5, 4\n\n"},
        {kind: text.replace("\n", "\r\n") for kind, text in made.TWO.items()},
        {kind: text.rstrip() for kind, text in made.TWO.items()},
        {kind: text[:-1] + "  " for kind, text in made.TWO.items()},
        {kind: text.replace("\n", "\r") for kind, text in made.TWO.items()},
        {kind: b"\xef\xbb\xbf" + text.encode() for kind, text in made.TWO.items()},
    ],
    ids=[
        "one direction",
        "the other direction",
        "both, in any order, several times",
        "no blanks",
        "blanks everywhere",
        "Windows line ends",
        "no line end at the end",
        "blanks at the end",
        "line ends of an old Mac",
        "byte order marks",
    ],
)
def test_files_written_in_other_ways_are_the_same_graphs(changes, tmp_path):
    assert_two(files.tu(made.tu(tmp_path, **changes)))


def test_node_labels_and_attributes_are_features(tmp_path):
    text = {
        "node_labels": "7, 1\n-2, 0\n7, 0\n30, 1\n-2, 1\n",
        "node_attributes": "0.5, -1e2\n1.5, 0\n2.5, .5\n3.5, 1.\n4.5, 3\n",
    }
    graphs = assert_two(files.tu(made.tu(tmp_path, **text)))
    assert graphs.node_labels.tolist() == [1, 0, 1, 2, 0]
    attributes = [[0.5, -100], [1.5, 0], [2.5, 0.5], [3.5, 1], [4.5, 3]]
    assert graphs.nodes.tolist() == attributes
    labels = np.eye(3)[[1, 0, 1, 2, 0]]
    degree = np.array([1, 2, 1, 1, 1])
    for kinds, expected in (
        (None, labels),
        (("labels",), labels),
        (("attributes", "labels"), np.hstack([attributes, labels])),
        (("degree",), degree[:, None]),
        (("degrees", "degree"), np.hstack([np.eye(3)[degree], degree[:, None]])),
    ):
        opened = data.graphs.open(str(tmp_path), features=kinds)
        features = data.graphs.graphs_of(opened).nodes
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, np.float32(expected))
    with pytest.raises(ValueError, match="TWO: features must be one or more different"):
        data.graphs.open(str(tmp_path), features=("degree", "degree"))


def test_degrees_stand_in_for_labels_that_are_not_there(tmp_path):
    opened = data.graphs.open(str(made.tu(tmp_path)), "train[1:]")
    assert data.size(opened) == 1
    only = data.graphs.graphs_of(opened)
    assert only.nodes.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert opened.columns["label"].tolist() == [0]
    for kind in ("labels", "attributes"):
        with pytest.raises(ValueError, match=f"TWO: features must not name '{kind}'"):
            data.graphs.open(str(tmp_path), features=(kind,))
    with pytest.raises(ValueError, match="features"):
        data.graphs.open(str(tmp_path), features=("color",))


def test_a_degree_beyond_the_last_column_counts_as_the_last():
    star = sets.from_edges("star", [0] * 6, [[0, i] for i in range(1, 6)])
    columns = data.graphs.with_features(star, ("degrees",), most=3).nodes
    np.testing.assert_array_equal(columns, np.eye(4)[[3, 1, 1, 1, 1, 1]])


def test_labels_as_many_as_nodes_are_refused_before_memory_is_full(monkeypatch):
    n = 2_000
    monkeypatch.setattr(data.dataset, "memory_limit", lambda: 4 * n * n - 1)
    of = np.repeat(np.arange(n // 2), 2)
    edges = np.arange(n).reshape(-1, 2)
    graphs = sets.from_edges("big", of, edges, node_labels=np.arange(n))
    with pytest.raises(ValueError, match="2,000 different labels are as many"):
        data.graphs.with_features(graphs, ("labels",))


def test_an_npz_file_is_read(tmp_path):
    path = made.npz(tmp_path / "TWO.npz", made.TWO_NPZ)
    graphs = assert_two(files.npz(path))
    assert graphs.node_labels is None
    made.npz(
        path,
        made.TWO_NPZ,
        node_label=np.array([4, 4, 9, 9, 4]),
        x=np.arange(10.0).reshape(5, 2),
        node_ptr=np.array([0, 3, 5], np.uint8),
        edge_index=made.TWO_NPZ["edge_index"][:, ::-1].astype(np.uint16),
    )
    graphs = assert_two(files.npz(str(path)))
    assert graphs.node_labels.tolist() == [0, 0, 1, 1, 0]
    assert graphs.nodes.tolist() == np.arange(10).reshape(5, 2).tolist()
    made.npz(path, made.TWO_NPZ, node_label=np.zeros(5, int))  # fills a gap
    assert assert_two(files.npz(path)).node_labels is None


def test_the_readers_agree(tmp_path):
    by_text = files.tu(made.tu(tmp_path / "TWO"))
    by_arrays = files.npz(made.npz(tmp_path / "TWO.npz", made.TWO_NPZ))
    for a, b in zip(*map(data.graphs.graphs_of, (by_text, by_arrays)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "graphs", "classes", "nodes", "edges", "labels"),
    [
        ("MUTAG", 188, [63, 125], 17.93, 19.79, 7),
        ("PROTEINS", 1113, [663, 450], 39.06, 72.82, 3),
        ("NCI1", 4110, [2053, 2057], 29.87, 32.30, 37),
        ("ENZYMES", 600, [100] * 6, 32.63, 62.14, 3),
        ("IMDBBINARY", 1000, [500, 500], 19.77, 96.53, 0),
    ],
)
def test_real_sets_have_the_published_counts(
    name, graphs, classes, nodes, edges, labels
):
    if not REAL.is_dir():
        pytest.skip("the real graphs are not here")
    dataset = data.graphs.open(str(REAL / f"{name}.npz"))
    g = data.graphs.graphs_of(dataset)
    assert (dataset.name, data.size(dataset), g.num_graphs) == (name, graphs, graphs)
    assert np.bincount(dataset.columns["label"]).tolist() == classes
    assert round(len(g.nodes) / graphs, 2) == nodes
    assert round(len(g.edges) / graphs, 2) == edges
    assert (g.node_labels is None) == (labels == 0)
    if labels:
        assert g.nodes.shape[1] == labels == g.node_labels.max() + 1


def test_a_real_set_is_the_same_as_text(tmp_path):
    if not REAL.is_dir():
        pytest.skip("the real graphs are not here")
    arrays = np.load(REAL / "MUTAG.npz")
    of = np.repeat(np.arange(188), np.diff(arrays["node_ptr"])) + 1
    columns = {
        "A": arrays["edge_index"].T + 1,
        "graph_indicator": of,
        "graph_labels": 2 * arrays["y"].astype(int) - 1,
        "node_labels": arrays["node_label"],
    }
    for kind, rows in columns.items():
        np.savetxt(tmp_path / f"MUTAG_{kind}.txt", rows, "%d", ", ")
    as_text, as_arrays = files.tu(tmp_path), files.npz(REAL / "MUTAG.npz")
    for a, b in zip(*map(data.graphs.graphs_of, (as_text, as_arrays)), strict=True):
        np.testing.assert_array_equal(a, b)
    labels = [dataset.columns["label"] for dataset in (as_text, as_arrays)]
    np.testing.assert_array_equal(*labels)
    assert as_text.class_names == ("-1", "1")


# What does not fit. -------------------------------------------------------------------


def refused(call, error, *said):
    """Exactly this error, in one line that says all of it."""
    with pytest.raises(ValueError if error is None else error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message, message
    assert len(message) < 400


LABELS = "TWO_node_labels.txt"
ATTRIBUTES = "TWO_node_attributes.txt"
BAD = {
    "an edge to a missing node": (
        {"A": "1, 2\n4, 6\n"},
        ("A.txt", "1 to 5", "4 and 6"),
    ),
    "an edge to node 0": ({"A": "0, 1\n"}, ("line 1 joins 0 and 1",)),
    "an edge across graphs": (
        {"A": "1, 2\n3, 4\n"},
        ("edge 2 joins node 3 of graph 1 and node 4 of graph 2",),
    ),
    "an empty graph": (
        {"graph_indicator": "1\n1\n1\n3\n3\n", "graph_labels": "1\n1\n2\n"},
        ("1 of 3 have none", "graph 2"),
    ),
    "graphs numbered from 0": (
        {"graph_indicator": "0\n0\n0\n1\n1\n"},
        ("number graphs from 1, got 0",),
    ),
    "graphs in disorder": (
        {"graph_indicator": "1\n2\n1\n2\n2\n"},
        ("node 3 is of graph 1, the one before it of graph 2",),
    ),
    "a gap and as many labels as numbers": (
        {"graph_indicator": "1\n1\n1\n7\n7\n"},
        ("TWO_graph_labels.txt", "7 graphs, got 2"),
    ),
    "a huge graph": (
        {"graph_indicator": "1\n1\n1\n2\n999999999999\n"},
        ("999,999,999,999 graphs, got 2",),
    ),
    "a huge node": ({"A": "1, 999999999999\n"}, ("joins 1 and 999999999999",)),
    "a number beyond 64 bits": ({"A": "1, " + "9" * 99}, ("2 integers", "line 1")),
    "a graph label too few": ({"graph_labels": "1\n"}, ("2 graphs, got 1",)),
    "a graph label too many": ({"graph_labels": "1\n1\n2\n"}, ("2 graphs, got 3",)),
    "a node label too few": ({"node_labels": "1\n1\n2\n2\n"}, (LABELS, "5 lines", "4")),
    "attributes too many": (
        {"node_attributes": "1\n" * 6},
        (ATTRIBUTES, "5 lines", "got 6"),
    ),
    "attributes of different width": (
        {"node_attributes": "1, 2\n1, 2\n1\n1, 2\n1, 2\n"},
        (ATTRIBUTES, "2 numbers", "'1' in line 3"),
    ),
    "attributes that are NaN": (
        {"node_attributes": "1\n1\n1\nnan\n1\n"},
        ("finite", "1 nodes", "node 4"),
    ),
    "attributes beyond float32": (
        {"node_attributes": "1e300\n" * 5},
        ("finite", "5 n"),
    ),
    "words": ({"A": "1, 2\na, b\n"}, ("A.txt", "2 integers", "'a, b' in line 2")),
    "words for attributes": (
        {"node_attributes": "red\n" * 5},
        (ATTRIBUTES, "1 number ", "'red' in line 1"),
    ),
    "fractions for labels": ({"node_labels": "1.5\n" * 5}, ("1 integer ", "'1.5'")),
    "a fraction for a class": ({"graph_labels": "0.5\n1\n"}, ("graph_labels", "'0.5'")),
    "a header": ({"node_labels": "# label\n" + "1\n" * 5}, ("'# label' in line 1",)),
    "a column too many": ({"A": "1, 2, 3\n"}, ("2 integers", "'1, 2, 3'")),
    "a column too few": ({"A": "1\n2\n"}, ("2 integers", "'1' in line 1")),
    "semicolons": ({"A": "1; 2\n"}, ("'1; 2'",)),
    "cut behind a comma": ({"A": "1, 2\n2, 1\n2,"}, ("cut short", "'2,'")),
    "cut within a number": (
        {"node_attributes": "1.0\n1.5\n2.0\n3.5\n4."},
        (ATTRIBUTES, "cut short", "'4.'"),
    ),
    "cut within a line": ({"A": "1, 2\n2, 1\n2"}, ("2 integers", "'2' in line 3")),
    "an empty file": ({"A": ""}, ("A.txt", "is empty")),
    "blanks alone": ({"graph_labels": "\n  \n"}, ("graph_labels.txt", "is empty")),
    "another encoding": (
        {"A": "1, 2\n".encode("utf-16")},
        ("A.txt is damaged", "utf-8"),
    ),
    "zeros of a full disk": ({"A": b"1, 2\n" + b"\0" * 9}, ("A.txt", "line 2")),
    "a long line": ({"A": "1, 2" * 4000}, ("2 integers", "...")),
}


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_does_not_fit_is_refused_in_a_line(what, tmp_path):
    changes, said = BAD[what]
    folder = made.tu(tmp_path / "set", **changes)
    refused(lambda: files.tu(folder), ValueError, str(folder), *said)
    refused(lambda: data.graphs.open(str(folder)), ValueError, *said)


@pytest.mark.parametrize("kind", made.TWO)
def test_a_missing_file_is_named(kind, tmp_path):
    folder = made.tu(tmp_path / "set", **{kind: None})
    said = "NAME_A.txt" if kind == "A" else f"TWO_{kind}.txt is missing"
    refused(lambda: files.tu(folder), FileNotFoundError, str(folder), said)
    if kind != "A":
        path = made.zipped(folder, tmp_path / "set.zip")
        refused(lambda: files.tu(path), FileNotFoundError, str(path), said)


def test_two_sets_in_one_folder_are_refused(tmp_path):
    made.tu(tmp_path)
    made.tu(tmp_path, name="OTHER")
    refused(lambda: files.tu(tmp_path), ValueError, "one set", "OTHER, TWO")
    (tmp_path / "twice").mkdir()
    for folder in ("new", "old"):
        made.tu(tmp_path / "twice" / folder)
    refused(
        lambda: files.tu(tmp_path / "twice"),
        ValueError,
        "one set",
        "new/TWO",
        "old/TWO",
    )


def test_what_is_no_set_at_all_is_refused(tmp_path):
    refused(lambda: files.tu(tmp_path / "no"), FileNotFoundError, "no such folder")
    refused(lambda: files.tu(tmp_path), FileNotFoundError, "NAME_A.txt", "none")
    said = "'families', 'atlas', a file ending in .npz, or a folder"
    for spec in ("", "MUTAG", "no.tar.gz"):
        refused(lambda spec=spec: data.graphs.open(spec), ValueError, said)
    gone = str(tmp_path / "no")
    refused(lambda: data.graphs.open(gone), FileNotFoundError, said, "no such folder")
    refused(lambda: data.graphs.open(3), TypeError, "source must be a string, got int")
    refused(lambda: data.graphs.open("atlas", "test"), ValueError, "split must be")


def test_damaged_zips_are_refused(tmp_path):
    folder = made.tu(tmp_path / "set", node_labels="1\n" * 5)
    whole = made.zipped(folder, tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "set.zip"
    for damaged in (b"", b"no zip", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        refused(lambda: files.tu(path), ValueError, str(path), "not a readable zip")
    # Every byte of the first member in turn: an error of one line, or the same graphs.
    end = whole.index(b"PK\3\4", 4)
    for i in range(end):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        message = None
        try:
            assert_two(files.tu(path))
        except ValueError as error:
            message = str(error)
        if message is not None:
            assert "TWO_A.txt is damaged" in message
            assert "\n" not in message


def test_a_zip_with_a_password_is_refused(tmp_path):
    path = made.zipped(made.tu(tmp_path / "set"), tmp_path / "set.zip")
    raw = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = raw.find(mark)
        while at >= 0:
            raw[at + flags] |= 1  # says that it is encrypted
            at = raw.find(mark, at + 4)
    path.write_bytes(raw)
    refused(lambda: files.tu(path), ValueError, "damaged", "password")


def test_a_zip_holds_no_file_of_that_kind(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.png", b"x")
    refused(lambda: files.tu(path), FileNotFoundError, str(path), "got none")


BAD_NPZ = {
    "no graphs": (
        {"node_ptr": None},
        ("node_ptr", "got edge_index, y", "open_network"),
    ),
    "no edges": ({"edge_index": None}, ("must have arrays", "got node_ptr, y")),
    "edges turned": (
        {"edge_index": np.array([[0, 1], [1, 2], [3, 4]])},
        ("[2, E], got [3, 2]",),
    ),
    "edges of fractions": ({"edge_index": np.ones((2, 3))}, ("integers", "float64")),
    "an edge to a missing node": (
        {"edge_index": np.array([[0], [5]])},
        ("nodes 0 to 4, and edge 0 joins 0 and 5",),
    ),
    "a negative node": ({"edge_index": np.array([[0], [-1]])}, ("joins 0 and -1",)),
    "an edge across graphs": (
        {"edge_index": np.array([[0, 2], [1, 3]])},
        ("edge 1 joins node 2 of graph 0 and node 3 of graph 1",),
    ),
    "an empty graph": (
        {"node_ptr": np.array([0, 3, 3, 5]), "y": np.arange(3)},
        ("1 of 3 have none, the first is graph 1",),
    ),
    "starts that descend": ({"node_ptr": np.array([0, 5, 3])}, ("got 0, 5, 3",)),
    "unsigned starts that descend": (
        {"node_ptr": np.array([0, 5, 3], np.uint8)},
        ("got 0, 5, 3",),
    ),
    "starts not from 0": ({"node_ptr": np.array([1, 3, 5])}, ("got 1, 3, 5",)),
    "starts of nothing": ({"node_ptr": np.array([0])}, ("node_ptr must ascend",)),
    "huge starts": ({"node_ptr": np.array([0, 3, 10**12])}, ("node_ptr must ascend",)),
    "a label too many": ({"y": np.arange(3)}, ("labels must be integers [2]", "[3]")),
    "labels that are words": (
        {"y": np.array(["a", "b"])},
        ("labels must be integers",),
    ),
    "labels that are NaN": ({"y": np.array([0, np.nan])}, ("integers [2]", "float64")),
    "node labels too few": (
        {"node_label": np.arange(4)},
        ("node_labels", "[5]", "[4]"),
    ),
    "features too few": ({"x": np.ones((4, 2))}, ("features", "[5, f]", "[4, 2]")),
    "features of one axis": ({"x": np.ones(5)}, ("features", "[5, f]", "[5]")),
    "features that are NaN": (
        {"x": np.array([[0], [1], [np.inf], [1], [np.nan]])},
        ("2 nodes", "node 2"),
    ),
    "features that are words": ({"x": np.array([["a"]] * 5)}, ("features", "<U1")),
    "objects": ({"y": np.array([{}, {}])}, ("objects",)),
}


@pytest.mark.parametrize("what", BAD_NPZ)
def test_an_npz_file_that_does_not_fit_is_refused_in_a_line(what, tmp_path):
    changes, said = BAD_NPZ[what]
    path = tmp_path / "two.npz"
    made.npz(path, made.TWO_NPZ, **changes)
    refused(lambda: data.graphs.open(str(path)), ValueError, str(path), *said)


def test_an_npz_file_without_labels_of_graphs_has_none(tmp_path):
    path = tmp_path / "two.npz"
    made.npz(path, made.TWO_NPZ, y=None)
    dataset = data.graphs.open(str(path))
    assert set(dataset.columns) == {"graph"}
    assert dataset.class_names is None


def test_files_that_are_not_npz_are_refused(tmp_path):
    path = tmp_path / "two.npz"
    refused(lambda: files.npz(path), FileNotFoundError, str(path))
    for damaged in (b"", b"no zip at all"):
        path.write_bytes(damaged)
        refused(lambda: files.npz(path), ValueError, str(path), "not a readable NumPy")
    made.npz(path, made.NETWORK)
    refused(lambda: files.npz(path), ValueError, "open_network")
    np.savez(path)
    refused(lambda: files.npz(path), ValueError, "got nothing")


# What is kept with a warning. ---------------------------------------------------------


def warned(call, *said):
    with pytest.warns(UserWarning, match=re.escape(said[0])) as caught:
        result = call()
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "\n" not in message
    for part in said:
        assert part in message, message
    return result


def test_a_graph_without_edges_is_kept_with_a_warning(tmp_path):
    folder = made.tu(tmp_path, A="1, 2\n2, 3\n")
    dataset = warned(lambda: files.tu(folder), "1 of 2 graphs have no edges", "graph 2")
    graphs = data.graphs.graphs_of(dataset)
    assert graphs.edge_ptr.tolist() == [0, 2, 2]
    assert data.graphs.degrees(graphs).tolist() == [1, 2, 1, 0, 0]
    empty = np.zeros((2, 0), np.int64)
    path = made.npz(tmp_path / "two.npz", made.TWO_NPZ, edge_index=empty)
    dataset = warned(lambda: files.npz(path), "2 of 2 graphs have no edges")
    assert data.graphs.graphs_of(dataset).edges.shape == (0, 2)


def test_loops_are_left_out_with_a_warning(tmp_path):
    folder = made.tu(tmp_path, A=made.TWO["A"] + "2, 2\n5, 5\n5, 5\n")
    assert_two(warned(lambda: files.tu(folder), "3 edges from a node to itself"))


def test_a_list_of_edges_that_was_cut_short_is_told(tmp_path):
    folder = made.tu(tmp_path, A=made.TWO["A"][:-5])  # between two lines
    assert_two(warned(lambda: files.tu(folder), "1 of 3 edges", "in one direction"))


def test_a_directed_list_is_taken_as_undirected():
    # Most edges are there in one direction: nothing is missing.
    edges = [[0, 1], [2, 1], [3, 0], [0, 3], [2, 3]]
    graphs = sets.from_edges("directed", [0] * 4, edges)
    assert graphs.edges.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]


def test_one_graph_of_one_node_is_a_set():
    one = warned(lambda: sets.from_edges("one", [0], []), "1 of 1 graphs")
    assert (one.num_graphs, one.edges.shape, one.nodes.shape) == (1, (0, 2), (1, 0))
    dataset = sets.labelled("one", one, [4], ["only"])
    assert dataset.class_names == ("only",)
    assert dataset.columns["label"].tolist() == [0]


def test_arrays_that_do_not_fit_are_refused():
    refused(lambda: sets.from_edges("x", [], []), ValueError, "must hold graphs")
    refused(lambda: sets.from_edges("x", [0.0, 0.5], []), ValueError, "node_graph must")
    refused(lambda: sets.from_edges("x", [0], [[0.5, 0]]), ValueError, "edges must be")
    refused(lambda: sets.from_edges("x", [0], [0, 0]), ValueError, "[M, 2]", "(2,)")
    refused(lambda: sets.from_edges("x", [0, 10**15], []), ValueError, "is graph 1")
    refused(lambda: sets.from_edges("x", [1, 1], []), ValueError, "is graph 0")
    refused(lambda: sets.from_edges("x", [-1, 0], []), ValueError, "lie in [0, 1)")
    triangle = sets.from_edges("x", [0, 0, 0], [[0, 1], [1, 2], [2, 0]])
    refused(
        lambda: sets.labelled("x", triangle, [3], ["a", "b"]),
        ValueError,
        "class_names must be 1, one for each class, got 2",
    )
    images = data.from_arrays("pixels", np.zeros((2, 8, 8), np.uint8))
    refused(lambda: data.graphs.graphs_of(images), ValueError, "'graph', got image")


def test_columns_give_the_graphs_that_are_asked_for():
    graphs = made.random_graphs([3, 2, 4, 2, 5], 0.9)
    whole = made.by_graph(graphs)
    column = sets.Ragged(graphs)
    for indices in (np.array([4, 0, 0]), slice(1, 3), np.arange(5) > 2, np.array([2])):
        taken = column[indices]
        expected = [whole[i] for i in np.arange(5)[indices]]
        assert taken.num_graphs == len(expected)
        for (x, e), (y, f) in zip(made.by_graph(taken), expected, strict=True):
            np.testing.assert_array_equal(x, y)
            assert e == f
