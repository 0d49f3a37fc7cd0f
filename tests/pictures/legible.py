"""Whether a reader can read a picture: no text hides another or leaves it."""

import contextlib
import itertools
from unittest import mock

import numpy as np
from matplotlib import text as mpl_text

from jaxcl.pictures import style


def check(figure):
    """Fails if texts overlap or leave the figure, or if an axes shows nothing."""
    boxes = []  # of what is really drawn: axes keep labels of ticks they do not
    original = mpl_text.Text.draw

    def draw_and_note(text, renderer):
        original(text, renderer)
        if text.get_text() and text.get_visible():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))

    with mock.patch.object(mpl_text.Text, "draw", draw_and_note):
        figure.canvas.draw()
    assert len(boxes) > 3
    width, height = figure.bbox.size
    for text, box in boxes:
        inside = min(box.x0, box.y0, width - box.x1, height - box.y1) > -1
        assert inside, f"{text!r} at {box} of {width} x {height}"
    for (text, box), (other, its) in itertools.combinations(boxes, 2):
        overlap = box.shrunk(0.98, 0.8).overlaps(its.shrunk(0.98, 0.8))
        assert not overlap, f"{text!r} and {other!r}"
    for axes in figure.axes:
        assert axes.has_data(), f"nothing is drawn in {axes.get_title()!r}"
        assert np.isfinite(axes.dataLim.get_points()).all(), axes.get_title()


@contextlib.contextmanager
def checked():
    """Checks every picture that is saved inside; gives the names of the files."""
    names = []
    save = style.save

    def check_and_save(figure, path):
        check(figure)
        names.append(path.name)
        save(figure, path)

    with mock.patch.object(style, "save", check_and_save):
        yield names
