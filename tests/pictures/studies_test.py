"""Accuracies with intervals: the numbers are right and the axes do not lie."""

from unittest import mock

import matplotlib.colors
import numpy as np
import pytest
import scipy.stats

from jaxcl import pictures
from jaxcl.pictures import style
from tests.pictures import legible

NEAR = {
    "MUTAG": {"histogram": [0.84, 0.85], "InfoNCE": [0.86, 0.88, 0.9]},
    "Cora": {"InfoNCE": [0.81], "SC-InfoNCE": [0.82, 0.83]},
}
FAR = {"MUTAG": {"chance": [0.1], "InfoNCE": [0.86, 0.88, 0.9]}}


def drawn(tmp_path, accuracy, **options):
    with mock.patch.object(style, "save") as save:
        pictures.bars(tmp_path / "x.png", accuracy, **options)
    return save.call_args.args[0]


@pytest.mark.parametrize("accuracy", [NEAR, FAR, {"one": {"row": [0.5, 0.6]}}])
def test_one_readable_png_is_written(accuracy, tmp_path):
    with legible.checked():
        pictures.bars(
            tmp_path / "bars.png",
            accuracy,
            baselines=("histogram", "chance", "row"),
            of="10 folds",
            title="Linear support vector machines on frozen representations",
        )
    assert (tmp_path / "bars.png").stat().st_size > 5000


def test_numbers_are_means_and_intervals_of_student(tmp_path):
    figure = drawn(tmp_path, NEAR)
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes]
    mean, values = 88.0, np.array([86.0, 88.0, 90.0])
    low, high = scipy.stats.t.interval(0.95, 2, mean, scipy.stats.sem(values))
    none, half = "\N{EN DASH}", f"{mean - low:.1f}"
    assert texts[0] == ["84.5 ± 6.4", f"88.0 ± {half}", none]
    assert texts[1] == [none, "81.0", "82.5 ± 6.4"]
    ends = [c.get_segments()[0][:, 0] for c in figure.axes[0].collections]
    np.testing.assert_allclose(ends[1], (low, high))


def test_bars_begin_at_zero_and_dots_say_that_they_do_not(tmp_path):
    figure = drawn(tmp_path, FAR)
    assert figure.axes[0].get_xlim()[0] == 0
    assert [p.get_x() for p in figure.axes[0].patches] == [0, 0]
    widths = [p.get_width() for p in figure.axes[0].patches]
    np.testing.assert_allclose(widths, [10, 88])
    assert "begin" not in figure.get_suptitle()
    figure = drawn(tmp_path, NEAR)
    assert not figure.axes[0].patches
    assert "do not begin at 0" in figure.get_suptitle()


def test_an_axis_of_dots_is_never_so_short_that_noise_looks_large(tmp_path):
    figure = drawn(tmp_path, {"one": {"a": [0.801], "b": [0.802]}})
    low, high = figure.axes[0].get_xlim()
    assert high - low > 4.99
    assert low < 80.1 < 80.2 < high


def test_baselines_are_gray_and_said_to_be(tmp_path):
    figure = drawn(tmp_path, NEAR, baselines=["histogram"])
    colors = [
        matplotlib.colors.to_hex(line.get_color())
        for line in figure.axes[0].lines
        if line.get_marker() == "o"
    ]
    assert colors == ["#999999", style.COLORS[0].lower()]
    assert "gray: baselines" in figure.get_suptitle()
    assert "gray" not in drawn(tmp_path, NEAR).get_suptitle()


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [
        ({}, "accuracy must hold a row"),
        ({"set": {"row": []}}, "accuracy of 'row' on 'set' must hold values"),
        ({"set": {"row": [88.0]}}, r"in \[0, 1\], got \[88.0\]"),
        ({"set": {"row": [np.nan]}}, r"in \[0, 1\], got \[nan\]"),
    ],
)
def test_bad_input_is_named(accuracy, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawn(tmp_path, accuracy)
