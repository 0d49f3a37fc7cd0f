"""How every picture looks: figures, colors, axes, headings.

Nothing global in matplotlib is touched, so that a notebook's own settings stay as they
are. A picture appears whole or not at all, and missing folders are made.
"""

import collections
import functools
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import font_manager, textpath
from matplotlib.backends import backend_agg

from jaxcl import _files, _text

# Ten colors that stay apart for color-blind readers (Paul Tol's "muted" and a gray),
# ordered so that neighbors differ in lightness; shapes tell apart what is still close.
COLORS = (
    "#332288",
    "#DDCC77",
    "#117733",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#CC6677",
    "#999933",
    "#AA4499",
    "#555555",
)
MARKERS = "os^Dvp"
TEXT, QUIET = "#222222", "#666666"
_DPI = 150


def blank(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> mpl_figure.Figure:
    """A figure of its own canvas, unknown to pyplot; sizes in inches."""
    figure = mpl_figure.Figure((width, height), dpi=_DPI, layout=layout)
    backend_agg.FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    return figure


def save(figure: mpl_figure.Figure, path: str | os.PathLike) -> None:
    """As a PNG, which is there as a whole or not at all."""
    path = pathlib.Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path must end in .png, got {str(path)!r}")
    with _files.replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=_DPI)


def attempt(
    draw: Callable[..., object],
    path: str | os.PathLike,
    *arguments: object,
    **options: object,
) -> None:
    """Draws, but for what fails, which is a warning: numbers outlive their pictures.

    Args:
      draw: a function of the following.
      path: of the picture.
      arguments: of the function.
      options: of the function.
    """
    try:
        draw(path, *arguments, **options)
    except Exception as error:
        warnings.warn(
            f"{path} was not drawn, {type(error).__name__}: {error}", stacklevel=2
        )


def literal(text: object, most: int = 60) -> str:
    r"""Text of others, such as the name of a class, for a picture to show as it is.

    Nothing in it is mathematics to matplotlib, or hides it from a legend. What cannot
    be printed, or is in none of the fonts of `rcParams["font.family"]`, is escaped: a
    box for every such letter would make names equal, and bring a warning each.

    Args:
      text: the text, or what `str` makes text of.
      most: letters to keep; from the middle of longer text some are left out.

    Returns:
      What to give to matplotlib: `\$` shows a dollar.

    >>> print(literal("5 $ to 6 $\n"), literal("beginning-and-end", most=10))
    5 \$ to 6 \$\n begin…-end
    """
    families = matplotlib.rcParams["font.family"]
    fonts = [font_manager.FontProperties(family=[each]) for each in families]
    letters = _letters(tuple(font_manager.findfont(font) for font in fonts))
    line = "".join(
        letter if ord(letter) in letters else _text.escaped(letter)
        for letter in _text.printable(text)
    )
    if len(line) > most:
        end = (most - 1) // 2
        line = (
            line[: most - 1 - end] + "\N{HORIZONTAL ELLIPSIS}" + line[len(line) - end :]
        )
    # A legend leaves out what begins with an underscore.
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")


@functools.cache
def _letters(paths: tuple[str, ...]) -> frozenset[int]:
    """All that one of these fonts can draw."""
    fonts = (font_manager.get_font(path) for path in paths)
    return frozenset().union(*(font.get_charmap() for font in fonts))


def plain(axes: mpl_axes.Axes) -> None:
    """A light grid, no box, legible numbers."""
    axes.grid(color="#DDDDDD", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11, colors=TEXT)
    axes.xaxis.label.set_fontsize(12)
    axes.yaxis.label.set_fontsize(12)


def legend_above(axes: mpl_axes.Axes, columns: int = 2) -> None:
    """A legend above the axes, where no curve can run into it."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=2.8,
        borderaxespad=0.2,
        columnspacing=1.2,
    )


def legend_below(figure: mpl_figure.Figure, axes: mpl_axes.Axes, columns: int) -> None:
    """One legend for all panels, of what one of them shows; fewer columns if needed."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=fitting(figure.get_figwidth(), labels, 11, columns),
        frameon=False,
        fontsize=11,
    )


def panels(
    rows: int, columns: int, *, width: float = 4.0, height: float = 3.1
) -> tuple[mpl_figure.Figure, np.ndarray]:
    """A figure and its plain axes [rows, columns]; sizes of a panel in inches."""
    # Headings and legends need some width, however few panels there are.
    figure = blank(max(width * columns + 0.4, 8.4), height * rows + 0.9)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        plain(each)
    return figure, axes


def from_zero(axes: mpl_axes.Axes) -> None:
    """From 0 to above all that is drawn, with room for half a marker."""
    axes.set_ylim(0, 1.06 * axes.dataLim.y1)


def heading(figure: mpl_figure.Figure, title: str, second: str = "") -> None:
    """A title at the left, in one or two lines; none if both are empty."""
    text = "\n".join(line for line in (title, second) if line)
    if text:
        figure.suptitle(text, fontsize=13, x=0.02, ha="left", color=TEXT)


def width(text: str, size: float, weight: str = "normal") -> float:
    """Of a line of text at a size in points, in inches."""
    if not text.strip():
        return 1 / 72  # matplotlib has no path of nothing
    font = font_manager.FontProperties(weight=weight)
    path = textpath.TextPath((0, 0), text, size=size, prop=font)
    return max(float(path.get_extents().x1), 1.0) / 72  # an empty path has no extents


def wrapped(
    text: object, room: float, size: float, lines: int, weight: str = "normal"
) -> list[str]:
    """Text of others as `literal` gives it, in lines that fit into a room in inches.

    Words stay whole where they fit into a line, so text without spaces is cut anywhere.
    What does not fit into so many lines is left out at the end.

    >>> wrapped("a photo of a dog", 0.6, 10, 2)
    ['a photo', 'of a dog']
    >>> wrapped("a photo of a dog", 0.6, 10, 1)
    ['a phot…']
    """
    room *= 0.96  # drawn letters are whole pixels apart, and so a little wider
    most = int(72 * room / (0.2 * size)) + 1  # letters of a line, however narrow
    start = literal(str(text)[: lines * most], 10 * lines * most)
    families = tuple(matplotlib.rcParams["font.family"])

    def fits(letters: Sequence[str]) -> bool:
        widths = (_advance(letter, weight, families) for letter in letters)
        return sum(widths) * size / 72 <= room

    def cut(letters: list[str], end: str = "") -> int:
        """How many letters fit before an end, at least one."""
        few, many = 1, min(len(letters), most)
        while few < many:
            middle = (few + many + 1) // 2
            fit = fits([*letters[:middle], *end])
            few, many = (middle, many) if fit else (few, middle - 1)
        return few

    found: list[list[str]] = [[]]
    for word in start.split():
        letters = re.findall(r"\\\$|.", word)  # an escaped dollar is one letter
        if fits(longer := [*found[-1], *" "[: len(found[-1])], *letters]):
            found[-1] = longer
            continue
        found += [[]] * bool(found[-1])
        while len(found) <= lines and len(letters) > 1 and not fits(letters):
            stop = cut(letters)
            found[-1:] = [letters[:stop], []]
            letters = letters[stop:]
        found[-1] = letters
        if len(found) > lines:
            break
    shown = ["".join(line) for line in found[:lines]]
    if len(found) > lines:
        end = "\N{HORIZONTAL ELLIPSIS}"
        last = [*found[lines - 1], " ", *found[lines]]
        shown[-1] = "".join(last[: cut(last, end)]).rstrip() + end
    return shown


@functools.cache
def _advance(letter: str, weight: str, families: tuple[str, ...]) -> float:
    """From a letter to the next one, in sizes; the families are those of rcParams."""
    return width(f"x{letter}x", 72, weight) - width("xx", 72, weight)


def fitting(room: float, labels: Sequence[str], size: float, most: int) -> int:
    """Columns of a legend that fit into a room in inches, at a size in points.

    >>> fitting(4.0, ["a" * 30, "b" * 20, "c"], 10, 3)
    2
    """
    # Handle and gaps of an entry take five sizes.
    widths = [width(label, size) + 5 * size / 72 for label in labels]
    for columns in range(min(most, len(labels)), 1, -1):
        parts = np.array_split(np.array(widths), columns)
        if sum(part.max() for part in parts) < room:
            return columns
    return 1


def distinct(names: Sequence[object], most: int = 30) -> list[str]:
    """Names of classes as `literal` gives them, of which none is empty or twice there.

    >>> distinct(["cat", "", "cat"])
    ['cat (0)', '(1)', 'cat (2)']
    """
    shown = [literal(name, most) for name in names]
    counts = collections.Counter(shown)
    for c, name in enumerate(names):
        if not shown[c].strip() or counts[shown[c]] > 1:
            number = f" ({c})"
            shown[c] = f"{literal(name, most - len(number))}{number}".strip()
    return shown


def marker_of(c: int) -> int:
    """The shape of a class: every class of the first ten colors another neighbor."""
    return (c + c // len(COLORS)) % len(MARKERS)


def check_labels(
    name: str, labels: np.ndarray, shape: tuple[int, ...], class_names: Sequence[str]
) -> None:
    """Raises a ValueError unless labels are integers of a shape, with names."""
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != shape:
        raise ValueError(
            f"{name} must be integers {list(shape)}, got {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"{name} must lie in [0, {len(class_names)}), one name for each, "
            f"got values from {labels.min()} to {labels.max()}"
        )
