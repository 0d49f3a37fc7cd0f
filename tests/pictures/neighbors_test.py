"""Graphs beside their neighbors: what is drawn is what was given."""

from unittest import mock

import matplotlib.colors
import numpy as np
import pytest
from matplotlib import collections

from jaxcl import pictures
from jaxcl.data.graphs import Graphs
from jaxcl.pictures import neighbors, style
from tests.pictures import legible


def paths(sizes, labels=None):
    """A path of each size, one after the other."""
    pairs = [[(i, i + 1) for i in range(n - 1)] for n in sizes]
    ends = [np.cumsum([0, *map(len, x)]) for x in (map(range, sizes), pairs)]
    edges = np.array([p for of in pairs for p in of], np.int32).reshape(-1, 2)
    nodes = np.zeros((sum(sizes), 0), np.float32)
    return Graphs(nodes, ends[0], edges, ends[1], labels)


SIZES = (3, 1, 5, 9, 2)
LABELS = np.array([0, 1, 0, 1, 0])
GOOD = {
    "graphs": paths(SIZES, np.arange(20) % 3),
    "labels": LABELS,
    "queries": np.array([0, 3]),
    "neighbors": np.array([[2, 1, 4], [1, 2, 0]]),
    "cosines": np.full((2, 3), 0.5),
    "class_names": ("toxic", "harmless"),
}


def drawn(tmp_path, **change):
    with mock.patch.object(style, "save") as save:
        pictures.graph_montage(tmp_path / "x.png", **(GOOD | change))
    return save.call_args.args[0]


def test_one_readable_png_is_written(tmp_path):
    path = tmp_path / "deep" / "graphs.png"
    with legible.checked():
        pictures.graph_montage(
            path, **GOOD, title="Paths", note="Half of all are right."
        )
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_nodes_and_edges_are_those_of_the_graphs_named(tmp_path):
    axes = drawn(tmp_path).axes[0]
    lines = [c for c in axes.collections if isinstance(c, collections.LineCollection)]
    points = [c for c in axes.collections if c not in lines]
    order = [0, 2, 1, 4, 3, 1, 2, 0]
    assert [len(p.get_offsets()) for p in points] == [SIZES[i] for i in order]
    assert [len(x.get_segments()) for x in lines] == [SIZES[i] - 1 for i in order]
    for segments, of_graph in zip(lines, points, strict=True):
        places = np.asarray(of_graph.get_offsets())
        for start, (a, b) in enumerate(segments.get_segments()):
            np.testing.assert_allclose((a, b), places[start : start + 2])
    texts = [t.get_text() for t in axes.texts]
    assert {"3 nodes", "9 nodes", "0.50, 1 node", "0.50, 5 nodes"} <= set(texts)


def test_every_graph_lies_in_its_frame(tmp_path):
    axes = drawn(tmp_path).axes[0]
    points = [
        np.asarray(c.get_offsets())
        for c in axes.collections
        if not isinstance(c, collections.LineCollection)
    ]
    keys = [p for i, p in enumerate(points) if i % 4]
    assert len(axes.patches) == len(keys) == 6
    for frame, places in zip(axes.patches, keys, strict=True):
        low = np.array(frame.get_xy())
        high = low + (frame.get_width(), frame.get_height())
        assert np.all(places > low + 0.05)
        assert np.all(places < high - 0.05)


def test_frames_tell_right_from_wrong(tmp_path):
    found = [p.get_edgecolor() for p in drawn(tmp_path).axes[0].patches]
    right = LABELS[GOOD["neighbors"]] == LABELS[GOOD["queries"]][:, None]
    expected = [neighbors.SAME if same else neighbors.OTHER for same in right.ravel()]
    assert found == [matplotlib.colors.to_rgba(color) for color in expected]


def test_nodes_of_a_label_have_a_color_that_the_key_tells():
    labels = np.array([7] * 3 + [2] * 5 + [0] * 9 + [5] * 2)
    shown = labels != 0
    colors, key = neighbors._node_colors(labels, shown, None)
    assert list(key) == ["2", "5", "7"]
    assert key["2"] == style.COLORS[0]  # the most frequent one
    for label in (7, 2, 5):
        assert set(colors[labels == label]) == {key[str(label)]}
    names = [f"element {c}" for c in range(8)]
    assert "element 2" in neighbors._node_colors(labels, shown, names)[1]


def test_rare_labels_share_gray_where_colors_end():
    labels = np.repeat(np.arange(13), np.arange(20, 7, -1))
    colors, key = neighbors._node_colors(labels, labels >= 0, None)
    assert list(key) == [*map(str, range(9)), "4 others"]
    assert set(colors[labels >= 9]) == {key["4 others"]} == {style.COLORS[9]}
    assert len(set(key.values())) == 10


def test_graphs_without_labels_need_no_key(tmp_path):
    figure = drawn(tmp_path, graphs=paths(SIZES))
    assert not [t for t in figure.axes[0].texts if "node labels" in t.get_text()]
    legible.check(figure)


def test_many_labels_with_long_names_fit(tmp_path):
    graphs = paths((30, 30), np.arange(60) % 30)
    change = {
        "graphs": graphs,
        "labels": np.array([0, 1]),
        "queries": np.array([0]),
        "neighbors": np.array([[1]]),
        "cosines": np.array([[1.0]]),
        "node_names": [f"$element$_{c} of thirty" for c in range(30)],
    }
    legible.check(drawn(tmp_path, **change))


BAD = [
    (r"labels must be integers \[5\]", {"labels": LABELS[:4]}),
    (r"labels must lie in \[0, 1\)", {"class_names": ["only"]}),
    (r"queries must be integers \[q\]", {"queries": np.zeros(2)}),
    (r"queries must lie in \[0, 5\), got \[0, 5\]", {"queries": np.array([0, 5])}),
    (r"indices must be \[1, k\]", {"queries": np.array([0])}),
    (r"indices must lie in \[0, 5\), got 5", {"neighbors": np.full((2, 3), 5)}),
    ("cosines must be", {"cosines": np.zeros((2, 2))}),
    (r"node_labels must lie in \[0, 2\)", {"node_names": ["C", "N"]}),
]


@pytest.mark.parametrize(("message", "change"), BAD)
def test_bad_input_is_named(message, change, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawn(tmp_path, **change)
