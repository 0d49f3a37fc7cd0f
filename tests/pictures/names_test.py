"""Names come from users' data: whatever they hold, each is drawn, and told apart."""

import re

import numpy as np
import pytest
from matplotlib import figure as mpl_figure

from jaxcl import pictures
from jaxcl.data.graphs import Graphs
from jaxcl.pictures import graphs, pairs, studies, style
from tests.pictures import legible

NAMES = (
    "$x_1$ \\frac{",
    "_hidden",
    "two\nlines",
    "\N{GRINNING FACE} emoji",
    "\u732b\u732b",  # no letters of the font: a box each, and a warning
    "\u05e9\u05dc\u05d5\u05dd",
    "W" * 200,
    "",
    "cat",
    "cat",
)
COUNT = len(NAMES)
TITLE = "$run_1$_" + 200 * "y"


def _map(path, random):
    labels = np.arange(4 * COUNT) % COUNT
    h = np.eye(COUNT)[labels] + 0.01 * random.standard_normal((4 * COUNT, COUNT))
    pictures.embedding_map(path, h, labels, class_names=NAMES, title=TITLE)


def _montage(path, random):
    images, labels = random.random((COUNT, 4, 4)), np.arange(COUNT)
    near = np.stack([random.permutation(COUNT)[:8] for _ in labels])
    names = {"class_names": NAMES, "title": TITLE, "note": "$all$_"}
    of = images, labels
    pictures.montage(path, *of, *of, near, random.random(near.shape), **names)


def _graph_montage(path, random):
    labels = np.arange(COUNT)
    ends = 3 * np.arange(COUNT + 1), np.zeros(COUNT + 1, int)
    sets = Graphs(np.zeros((3 * COUNT, 0)), ends[0], np.zeros((0, 2), int), ends[1])
    sets = sets._replace(node_labels=np.arange(3 * COUNT) % COUNT)
    near = np.stack([random.permutation(COUNT)[:5] for _ in labels])
    names = {"class_names": NAMES, "node_names": NAMES, "title": TITLE}
    of = sets, labels, labels, near, random.random(near.shape)
    pictures.graph_montage(path, *of, **names, note="$all$_")


def _bars(path, random):
    accuracy = {name: {row: random.random(3) for row in NAMES} for name in NAMES[:4]}
    pictures.bars(path, accuracy, of="$3$", title=TITLE)


def _curves(path, random):
    baselines = {"_raw $x$": 0.5, "\u732b": 0.6}
    pictures.learning_curves(
        path, [1, 2], [2, 1], [1], [0.4], baselines=baselines, title=TITLE, knn_of="$5"
    )


def _numbers(path, random):
    numbers = {name: random.random(3) for name in NAMES[:4]}
    pictures.number_curves(path, [1, 2, 3], numbers, title=TITLE)


def _points(random):
    z = random.standard_normal((2 * COUNT, 4))
    return z / np.linalg.norm(z, axis=1, keepdims=True), np.arange(2 * COUNT) // 2


def _snapshots(path, random):
    z, groups = _points(random)
    draw = (path, [z, z], lambda x: x @ x.T / 2 + 0.5, (0, 1), groups, NAMES)
    graphs.snapshots(*draw, title=TITLE[:60])


def _partitions(path, random):
    z, groups = _points(random)
    both = ("_$a$", groups), ("b", groups)
    graphs.partitions(path, z @ z.T + 1, z, groups, NAMES, *both, title=TITLE)


def _dots(path, random):
    accuracy = {"_5-NN $": random.random((COUNT, 2))}
    how = {"baseline": "_hidden", "aside": "cat"}
    studies.dots(path, NAMES, accuracy, title=TITLE, **how)


def _retrieval(path, random):
    near = np.stack([random.permutation(COUNT)[:3] for _ in NAMES])
    found = pairs.Found(np.arange(COUNT), near, random.random(near.shape))
    groups = np.arange(COUNT), np.arange(COUNT)
    of = random.random((COUNT, 4, 4)), NAMES, groups, found, found
    pictures.retrieval(path, *of, title=TITLE, note="$all$_")


def _similarities(path, random):
    groups = np.arange(COUNT), np.arange(COUNT)
    of = random.random((COUNT, COUNT)), NAMES, groups
    pictures.similarities(path, *of, name="$cosine$", title=TITLE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "draw",
    [
        _map,
        _montage,
        _graph_montage,
        _bars,
        _curves,
        _numbers,
        _snapshots,
        _partitions,
        _dots,
        _retrieval,
        _similarities,
    ],
)
def test_any_name_is_drawn_as_it_is(draw, tmp_path, monkeypatch):
    texts, legends = [], []
    save = style.save

    def look(figure: mpl_figure.Figure, path):
        places = [*figure.legends, *(a.get_legend() for a in figure.axes)]
        legends.extend(p for p in places if p is not None)
        texts.extend(t for t in figure.findobj(lambda t: hasattr(t, "get_text")))
        save(figure, path)

    monkeypatch.setattr(style, "save", look)
    with legible.checked():
        draw(tmp_path / "picture.png", np.random.default_rng(0))
    for text in texts:  # what was given to matplotlib is nowhere mathematics
        dollars = re.findall(r"(?<!\\)\$", text.get_text())
        assert not dollars or text.get_text() == "P$_{ij}$", text.get_text()
    if draw in (_map, _snapshots, _partitions):
        entries = [t.get_text() for t in legends[-1].get_texts()]
        assert len(set(entries)) == COUNT
        assert all(e.strip() for e in entries)
        assert {"cat (8)", "cat (9)", "(7)", " _hidden"} <= set(entries)


def test_names_that_are_cut_stay_different():
    long = ["begin" + "x" * 50 + end + "y" * 50 + "end" for end in "abc"]
    found = style.distinct(long, 20)
    assert len(set(found)) == 3
    assert max(map(len, found)) <= 20


def test_columns_of_a_legend_fit_and_are_as_many_as_fit():
    names = ["short"] * 9 + ["a much longer name"]
    assert style.fitting(100, names, 10, 10) == 10
    assert style.fitting(100, names, 10, 4) == 4
    assert style.fitting(0.1, names, 10, 10) == 1
    each = style.width("short", 10) + 50 / 72
    assert style.fitting(3.01 * each, ["short"] * 6, 10, 5) == 3
    assert style.fitting(2.99 * each, ["short"] * 6, 10, 5) == 2
