"""Pictures of a graph: what is drawn is what was given."""

import contextlib

import matplotlib.image
import numpy as np
import pytest

from jaxcl.pictures import graphs, style
from tests.pictures import legible

GROUPS = np.repeat([0, 1, 2], 4)
NAMES = ("one", "two", "three")


def _count(path, color):
    """Pixels of a color in a picture."""
    picture = matplotlib.image.imread(path)[..., :3]
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((np.abs(picture - rgb).max(axis=-1) < 0.02).sum())


def test_block_means_are_means_of_blocks_also_of_the_last_smaller_ones():
    random = np.random.default_rng(0)
    x = random.random((805, 805))
    found = graphs.block_means(x)
    # 805 nodes: blocks of three, the last one of one.
    assert found.shape == (269, 269)
    np.testing.assert_allclose(found[1, 2], x[3:6, 6:9].mean(), rtol=1e-12)
    np.testing.assert_allclose(found[-1, 0], x[804:, :3].mean(), rtol=1e-12)
    np.testing.assert_array_equal(graphs.block_means(x[:9, :9]), x[:9, :9])


@pytest.mark.parametrize("d", [2, 3, 5])
def test_each_snapshot_shows_its_matrix_sorted_by_group(tmp_path, d):
    z = np.random.default_rng(0).standard_normal((12, d))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    mixed = np.random.default_rng(1).permutation(12)
    seen = []

    def similarity(points):
        seen.append(points)
        return np.ones((12, 12))

    path = tmp_path / "snapshots.png"
    # Axes of three dimensions do not say what they hold.
    with contextlib.nullcontext() if d == 3 else legible.checked():
        graphs.snapshots(path, [z, -z], similarity, (0, 5), GROUPS[mixed], NAMES)
    order = np.argsort(GROUPS[mixed], kind="stable")
    for points, expected in zip(seen, (z, -z), strict=True):
        np.testing.assert_array_equal(points, expected[order])
    # The upper end of viridis fills both matrices: about 280 x 280 pixels each.
    assert _count(path, "#fde725") > 2 * 200**2


@pytest.mark.parametrize("d", [2, 5])
def test_points_stand_above_their_matrices_and_all_steps_have_one_scale(
    tmp_path, monkeypatch, d
):
    figures = []
    monkeypatch.setattr(graphs.style, "save", lambda figure, _: figures.append(figure))
    z = np.random.default_rng(0).standard_normal((12, d))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    draw = (tmp_path / "x.png", [z, z / 2], lambda x: x @ x.T, (0, 5), GROUPS, NAMES)
    graphs.snapshots(*draw)
    [figure] = figures
    figure.canvas.draw()
    upper, lower = figure.axes[0:4:2], figure.axes[1:4:2]
    for above, below in zip(upper, lower, strict=True):
        places = [axes.get_window_extent() for axes in (above, below)]
        np.testing.assert_allclose(
            (places[0].x0, places[0].x1), (places[1].x0, places[1].x1), atol=1
        )
    assert upper[0].get_xlim() == upper[1].get_xlim()
    assert upper[0].get_ylim() == upper[1].get_ylim()


def test_levels_of_theory_are_drawn_where_they_belong(tmp_path):
    path = tmp_path / "curves.png"
    steps, panels = [0, 1, 10], {"loss": [2.0, 1.0, 0.5], "share": [0.1, 0.2, 0.9]}

    def drawn(levels):
        with legible.checked():
            graphs.curves(path, steps, panels, levels, shares=["share"], title="t")
        return _count(path, style.COLORS[4])

    assert drawn({}) == 0
    one = drawn({"loss": {"theory": 0.4}})
    assert one > 300
    both = drawn({"loss": {"theory": 0.4}, "share": {"theory": 1.0}})
    assert both == pytest.approx(2 * one, rel=0.25)


def test_partitions_are_counted_with_like_opposite_like(tmp_path, monkeypatch):
    texts = []
    original = graphs.style.save
    monkeypatch.setattr(
        graphs.style,
        "save",
        lambda figure, path: (
            texts.extend((t.get_position(), t.get_text()) for t in figure.axes[2].texts)
            or original(figure, path)
        ),
    )
    first = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    second = np.array([2, 2, 2, 0, 0, 0, 0, 0, 1, 1, 1, 1])  # other numbers, one astray
    graphs.partitions(
        tmp_path / "both.png",
        np.eye(12) + 0.1,
        np.random.default_rng(0).standard_normal((12, 3)),
        GROUPS,
        NAMES,
        ("first", first),
        ("second", second),
    )
    counted = {(y, x): text for (x, y), text in texts}
    assert counted == {(0, 0): "3", (0, 1): "1", (1, 1): "4", (2, 2): "4"}
    assert (tmp_path / "both.png").exists()
