"""Images beside captions: what is drawn is what was given, and all of it is legible."""

from unittest import mock

import matplotlib.colors
import numpy as np
import pytest
from matplotlib import patches

from jaxcl import pictures
from jaxcl.pictures import graphs, neighbors, pairs, style
from tests.pictures import legible

RANDOM = np.random.default_rng(0)
LONG = "a dog with a red ball in its mouth jumps over a fence of old gray wood " * 4
CAPTIONS = ["a dog", LONG, "5 $ for 1 $", "\N{GRINNING FACE} no image has this"]
GROUPS = np.array([0, 1, 1]), np.array([1, 0, 0, 2])
GOOD = {
    "images": RANDOM.integers(0, 256, (3, 6, 8, 3), np.uint8),
    "captions": CAPTIONS,
    "groups": GROUPS,
    "captions_found": pairs.Found(
        np.array([0, 2]),
        np.array([[1, 3, 0], [2, 0, 1]]),
        np.array([[0.91, 0.8, -0.7], [0.62, 0.51, 0.5]]),
    ),
    "images_found": pairs.Found(
        np.array([3, 0]), np.array([[0, 1], [2, 0]]), np.array([[0.4, 0.3], [0.2, 0]])
    ),
}


def drawn(draw, tmp_path, *given, **options):
    with mock.patch.object(style, "save") as save:
        draw(tmp_path / "x.png", *given, **options)
    return save.call_args.args[0]


def marks(axes):
    """Colors of the marks of captions, and of the frames of images."""
    dots = [line.get_color() for line in axes.lines if line.get_marker() in "ox"]
    frames = [p for p in axes.patches if isinstance(p, patches.Rectangle)]
    return dots, [matplotlib.colors.to_hex(p.get_edgecolor()).upper() for p in frames]


def test_one_readable_png_is_written(tmp_path):
    path = tmp_path / "deep" / "pairs.png"
    with legible.checked():
        pictures.retrieval(path, **GOOD, title="Pairs", note="recall@1: 10 %")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_marks_and_frames_tell_right_from_wrong(tmp_path):
    axes = drawn(pictures.retrieval, tmp_path, **GOOD).axes[0]
    right, wrong = neighbors.SAME, neighbors.OTHER
    dots, frames = marks(axes)
    assert dots == [right, wrong, wrong, wrong, right, wrong]
    assert frames == [wrong, wrong, right, wrong]
    texts = [t.get_text() for t in axes.texts]
    assert "right: 2 of 6 captions, 1 of 4 images shown" in texts
    assert {"0.91", "-0.70", "0 right", "2 right"} <= set(texts)
    # Under the first image its own caption, of which there are two.
    assert any(t.startswith("a dog with a red") and "(and 1 more)" in t for t in texts)


def test_images_are_those_of_the_rows_named(tmp_path):
    axes = drawn(pictures.retrieval, tmp_path, **GOOD).axes[0]
    shown = [image.get_array() for image in axes.images]
    # Two queries; the caption of no image beside those found, one with its own first.
    for got, row in zip(shown, [0, 2, 0, 1, 1, 2, 0], strict=True):
        np.testing.assert_array_equal(got, GOOD["images"][row] / np.float32(255))


def test_short_captions_stand_in_two_columns_and_long_ones_below(tmp_path):
    short = [f"caption {i}" for i in range(4)]
    heights = [
        drawn(pictures.retrieval, tmp_path, **(GOOD | {"captions": c})).get_figheight()
        for c in (short, CAPTIONS)
    ]
    assert heights[0] < heights[1] - 1


@pytest.mark.parametrize("shape", [(60, 8), (8, 60, 1)])
def test_narrow_and_wide_images_and_one_candidate_fit(shape, tmp_path):
    one = pairs.Found(np.array([0]), np.array([[0]]), np.array([[1.0]]))
    change = {"images": RANDOM.random((3, *shape))}
    change |= {"captions_found": one, "images_found": one}
    with legible.checked():
        pictures.retrieval(tmp_path / "x.png", **(GOOD | change))


def found(**change):
    return GOOD["captions_found"]._replace(**change)


BAD = [
    (r"groups of images must be integers \[3\]", {"groups": (np.ones(3), GROUPS[1])}),
    (r"groups of captions must be integers \[3\]", {"captions": CAPTIONS[:3]}),
    ("images must be", {"images": np.zeros((3, 2))}),
    (
        r"captions_found must have queries in \[0, 3\), got from 0 to 3",
        {"captions_found": found(queries=np.array([0, 3]))},
    ),
    (
        r"captions_found must have indices in \[0, 4\), got from -1 to 3",
        {"captions_found": found(indices=np.array([[1, 3, 0], [2, 0, -1]]))},
    ),
    ("must have cosines", {"captions_found": found(cosines=np.zeros((2, 2)))}),
    ("images_found must have queries", {"images_found": found(queries=np.zeros(3))}),
]


@pytest.mark.parametrize(("message", "change"), BAD)
def test_bad_input_is_named(message, change, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawn(pictures.retrieval, tmp_path, **(GOOD | change))


def test_similarities_are_sorted_by_group_and_right_blocks_framed(tmp_path):
    values = RANDOM.uniform(-1, 1, (3, 4))
    groups = np.array([5, 2, 5]), np.array([9, 2, 5, 2])
    figure = drawn(
        pictures.similarities,
        tmp_path,
        values,
        CAPTIONS,
        groups,
        images=GOOD["images"],
        name="$q$",
        title="Pairs",
    )
    legible.check(figure)
    axes = figure.axes[1]
    # Group 5 comes first, then 2; the caption of no image ends the row.
    expected = values[np.ix_([0, 2, 1], [2, 1, 3, 0])]
    np.testing.assert_array_equal(axes.images[0].get_array(), expected)
    boxes = [(p.get_xy(), p.get_width(), p.get_height()) for p in axes.patches]
    assert boxes == [((-0.5, -0.5), 1, 2), ((0.5, 1.5), 2, 1)]
    told = figure.axes[0].texts[1].get_text()
    best = [values[0, 2], max(values[1, 1], values[1, 3]), values[2, 2]]
    right = sum(b == row.max() for b, row in zip(best, values, strict=True))
    assert told.endswith(f"most similar caption is right: {right} of 3")


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 40), (90, 120)])
def test_few_and_many_pairs_are_legible(n, m, tmp_path):
    groups = np.arange(n), np.arange(m) % max(n, 2)
    with legible.checked():
        pictures.similarities(
            tmp_path / "x.png",
            RANDOM.random((n, m)),
            [LONG] * m,
            groups,
            title="y" * 99,
        )


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (
            r"values must be finite numbers \[n, m\]",
            {"values": np.full((3, 4), np.nan)},
        ),
        ("captions must be 4 texts, got 3", {"captions": CAPTIONS[:3]}),
        ("images must be 3, one for each row, got 2", {"images": np.zeros((2, 4, 4))}),
    ],
)
def test_bad_similarities_are_named(message, change, tmp_path):
    good = {"values": np.eye(3, 4), "captions": CAPTIONS, "groups": GROUPS}
    with pytest.raises(ValueError, match=message):
        drawn(pictures.similarities, tmp_path, **(good | change))


def test_a_learned_temperature_is_drawn_with_its_bounds(tmp_path):
    steps = np.arange(0, 2001, 50)
    panels = {"temperature": 0.07 * np.exp(-steps / 2000), "bias": -10 + steps / 900}
    bounds = {"temperature": {"smallest allowed": 0.01}}
    figure = drawn(
        graphs.curves, tmp_path, steps, panels, bounds, logarithmic=False, title="x"
    )
    legible.check(figure)
    left, right = figure.axes
    assert left.get_xscale() == "linear"
    assert left.get_xlabel() == "step"
    assert [line.get_ydata()[0] for line in left.lines] == [0.07, 0.01]
    assert len(right.lines) == 1


def test_distributions_of_a_graph_stand_beside_those_that_are_learned(tmp_path):
    p, q = np.eye(4, 6) / 2, np.full((4, 6), 1 / 6)
    rows = {"images, to captions": (p, q), "captions, to images": (p.T, q.T)}
    names = "the pair graph", "$learned$"
    figure = drawn(
        pictures.distributions,
        tmp_path,
        rows,
        names,
        lines_at={"images, to captions": ((2,), (1, 3))},
        title="$Pairs$",
        note="note",
    )
    legible.check(figure)
    shown = [axes.images[0].get_array() for axes in figure.axes[:4]]
    for got, expected in zip(shown, (p, q, p.T, q.T), strict=True):
        # Below a third of chance there is one color.
        least = 1 / (3 * expected.shape[1])
        np.testing.assert_array_equal(got, np.maximum(expected, least))
    limits = [axes.images[0].get_clim() for axes in figure.axes[:4]]
    assert limits == [(1 / 18, 0.5)] * 2 + [(1 / 12, 0.5)] * 2  # of a row, one scale
    assert [len(axes.lines) for axes in figure.axes[:4]] == [3, 3, 0, 0]


def test_text_is_cut_at_spaces_and_elided_where_lines_end():
    text = "a photo of a very_long_word_without_a_space here"
    found = style.wrapped(text, 0.9, 10, 9)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert found[0] == "a photo of a"
    assert all(style.width(line, 10) <= 0.9 for line in found)
    two = style.wrapped(text, 0.9, 10, 2)
    assert two[0] == found[0]
    assert two[1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert style.wrapped("", 1, 10, 3) == style.wrapped("   ", 1, 10, 3) == [""]
    assert style.wrapped("WW", 0.01, 10, 3) == ["W", "W"]
    # A dollar is escaped, and never cut from what escapes it.
    dollars = style.wrapped("$" * 99, 0.5, 10, 20)
    assert all(line.count("$") == line.count(r"\$") for line in dollars)


def test_a_page_of_text_is_as_quick_as_a_line():
    calls = []
    with mock.patch.object(style, "width", side_effect=lambda *a: calls.append(a) or 1):
        style._advance.cache_clear()
        style.wrapped("word \u732b" * 100_000, 3, 10, 2)
    style._advance.cache_clear()
    assert len(calls) < 100
