"""Text of others is drawn as it is: nothing is mathematics, hidden, or a warning."""

import pytest

from jaxcl.pictures import style

NAMES = [
    "$x_1$",
    "_hidden",
    "猫",
    "\u732a",
    "a\nb",
    "\udcff",
    "\u202egpj",
    r"\frac{1}$2$",
]


def test_names_are_drawn_and_listed_as_they_are():
    figure = style.blank(6, 6)
    axes = figure.subplots()
    for name in NAMES:
        axes.plot([0, 1], [0, 1], label=style.literal(name))
    style.legend_above(axes)
    figure.canvas.draw()  # a warning is an error here
    shown = {text.get_text() for text in axes.get_legend().get_texts()}
    assert len(shown) == len(NAMES)


@pytest.mark.parametrize("name", ["$x_1$", "$", "$$", r"\frac{1}$2$", r"\$a\$"])
def test_nothing_is_mathematics(name):
    figure = style.blank(6, 6)
    drawn = figure.text(0, 0, style.literal(name)).get_window_extent()
    as_it_is = figure.text(0, 0, name, parse_math=False).get_window_extent()
    assert drawn.width == as_it_is.width


@pytest.mark.parametrize("length", [59, 60, 61, 5000])
def test_long_names_keep_both_ends(length):
    name = "a" * (length - 1) + "z"
    shown = style.literal(name)
    assert len(shown) == min(length, 60)
    assert (shown[0], shown[-1]) == ("a", "z")
