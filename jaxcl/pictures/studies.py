"""Pictures of comparisons: dots of several seeds, bars, numbers over a grid."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patches, ticker

from jaxcl import _optional
from jaxcl.pictures import style

_LEAST_SPAN = 5.0  # of an axis of accuracies that does not begin at 0, in percent


def dots(
    path: str | os.PathLike,
    names: Sequence[str],
    scores: Mapping[str, Sequence[Sequence[float]]],
    *,
    baseline: str,
    aside: str,
    axis: str = "accuracy with {} (%)",
    title: str = "",
) -> None:
    """Draws every seed's score as a dot and the mean as a line, a panel per score.

    Args:
      path: the PNG to write.
      names: of the rows.
      scores: by a label, those of each row; they are drawn times 100.
      baseline: the row whose mean is drawn through all of them.
      aside: a row, such as the untrained encoder, that does not decide the limits.
      axis: what is written below a panel, with its label in place of {}.
      title: of the picture.
    """
    figure = style.blank(max(12, 4 * len(scores)), 1.6 + 0.33 * len(names))
    style.heading(
        figure,
        style.literal(title, 100),
        f"a dot is a seed, the line their mean; dashed: {style.literal(baseline)}",
    )
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1]
    for axes, (label, of_rows) in zip(panels, scores.items(), strict=True):
        style.plain(axes)
        points = [100 * np.asarray(values) for values in of_rows]
        for name, values, place in zip(names, points, places, strict=True):
            color = style.QUIET if name == aside else style.COLORS[0]
            if name == baseline:
                axes.axvline(values.mean(), color=style.COLORS[6], ls="--", lw=1.2)
            axes.plot(values, np.full(len(values), place), "o", color=color, ms=5)
            axes.plot(
                [values.mean()] * 2, [place - 0.3, place + 0.3], color=color, lw=2
            )
        others = np.concatenate(
            [v for name, v in zip(names, points, strict=True) if name != aside]
        )
        low, high = np.min(others), np.max(others)
        margin = 0.08 * (high - low) + 0.1
        row = list(names).index(aside) if aside in names else None
        if row is not None and low - points[row].max() > max(high - low, 5 * margin):
            # Far away, all of it: it would squeeze the rest.
            axes.set_xlim(low - 4 * margin, high + margin)
            axes.annotate(
                f"\N{LEFTWARDS ARROW} {points[row].mean():.1f}",
                (low - 3.6 * margin, places[row]),
                color=style.QUIET,
                va="center",
            )
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
        axes.set_xlabel(axis.format(style.literal(label)))
    panels[0].set_yticks(places, style.distinct(names))
    style.save(figure, path)


def bars(
    path: str | os.PathLike,
    accuracy: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    baselines: Collection[str] = (),
    of: str = "seeds",
    title: str = "",
) -> None:
    """Draws mean accuracies and their 95 % intervals: a panel per set, a row per name.

    The interval is Student's, of the mean of the values that are given. Bars begin at
    0, or they would lie; where all accuracies are so near to each other that bars from
    0 hide what differs, means are dots, and the picture says that its axes do not
    begin at 0.

    Args:
      path: the PNG to write.
      accuracy: for each set of data, and there for each row, the accuracies in [0, 1]
        of seeds or folds; a single one has no interval. Rows are in the order of their
        first appearance, one that a set lacks is told as not measured.
      baselines: rows in a quiet color.
      of: what the values of a row are: "3 seeds", "10 folds".
      title: of the picture.

    Raises:
      ImportError: without SciPy.
      ValueError: if there is no set, a row is empty, or an accuracy lies outside of
        [0, 1].
    """
    special = _optional.require("scipy.special", "a picture of intervals", "tools")
    names = list(dict.fromkeys(name for each in accuracy.values() for name in each))
    if not names:
        raise ValueError(f"accuracy must hold a row of a set, got {dict(accuracy)}")
    measured: dict[tuple[str, str], tuple[float, float]] = {}
    for of_set, of_rows in accuracy.items():
        for name, given in of_rows.items():
            values = np.asarray(given, np.float64)
            if (
                values.ndim != 1
                or not len(values)
                or not np.all(abs(values - 0.5) <= 0.5)
            ):
                raise ValueError(
                    f"accuracy of {name!r} on {of_set!r} must hold values in [0, 1], "
                    f"got {values.tolist()}"
                )
            n, half = len(values), 0.0
            if n > 1:
                quantile = float(special.stdtrit(n - 1, 0.975))
                half = quantile * values.std(ddof=1) / np.sqrt(n)
            measured[of_set, name] = 100 * float(values.mean()), 100 * float(half)
    means = [mean for mean, _ in measured.values()]
    from_zero = min(means) < 0.5 * max(means)

    rows = style.distinct(names)
    # A heading needs some width, however few panels there are.
    aside = max(style.width(name, 11) for name in rows)
    width = max(0.6 + aside + 2.7 * len(accuracy), 9.6)
    figure = style.blank(width, 1.5 + 0.36 * len(names))
    shown = "bars" if from_zero else "dots"
    second = f"{shown}: mean over {style.literal(of)}; lines: its 95 % interval"
    second += "; gray: baselines" * bool(set(names) & set(baselines))
    if not from_zero:
        one = len(accuracy) == 1
        second += "; the axis does" if one else "; axes differ and do"
        second += " not begin at 0"
    style.heading(figure, style.literal(title, 100), second)
    panels = figure.subplots(1, len(accuracy), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1]
    headings = style.distinct(list(accuracy))
    for axes, of_set, heading in zip(panels, accuracy, headings, strict=True):
        style.plain(axes)
        axes.grid(visible=False, axis="y")
        for name, place in zip(names, places, strict=True):
            told = {
                "va": "center",
                "fontsize": 9,
                "transform": axes.get_yaxis_transform(),
            }
            if (of_set, name) not in measured:
                axes.text(1.03, place, "\N{EN DASH}", color=style.QUIET, **told)
                continue
            mean, half = measured[of_set, name]
            quiet = name in baselines
            color = "#999999" if quiet else style.COLORS[0]
            if from_zero:
                axes.barh(place, mean, height=0.62, color=color, alpha=0.75)
            else:
                axes.plot(mean, place, "o", color=color, ms=6)
            if half:
                axes.errorbar(
                    mean,
                    place,
                    xerr=half,
                    color=style.TEXT if from_zero else color,
                    lw=1.8,
                    capsize=3,
                )
            number = f"{mean:.1f}" + f" \N{PLUS-MINUS SIGN} {half:.1f}" * (half > 0)
            axes.text(1.03, place, number, color=style.TEXT, **told)
        if from_zero:
            axes.set_xlim(0, min(axes.get_xlim()[1], 100))
        else:
            axes.margins(x=0.08)
            low, high = axes.get_xlim()
            # Some points at least: noise should not look like much.
            wider = max(_LEAST_SPAN - (high - low), 0.0) / 2
            # Intervals may leave what accuracies can be; a dot at 100 is drawn whole.
            axes.set_xlim(max(low - wider, -0.5), min(high + wider, 100.5))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(heading, fontsize=12, color=style.TEXT)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axes.set_xlabel("accuracy (%)")
    panels[0].set_yticks(places, rows)
    style.save(figure, path)


def grid(
    path: str | os.PathLike,
    numbers: Mapping[str, np.ndarray],
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    *,
    framed: Collection[tuple[int, int]] = (),
    title: str = "",
    second: str = "",
) -> None:
    """Draws numbers against two settings, a panel for each kind of number.

    Args:
      path: the PNG to write.
      numbers: by the title of the panel, [rows, columns].
      rows: name and values of the setting that goes down.
      columns: name and values of the setting that goes across.
      framed: places that get a frame.
      title: of the picture.
      second: what is written below the title.
    """
    height, width = len(rows[1]), len(columns[1])
    figure = style.blank(len(numbers) * (1.2 + 0.75 * width) + 0.6, 1.7 + 0.62 * height)
    style.heading(figure, style.literal(title, 100), style.literal(second, 100))
    panels = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axes, (label, values) in zip(panels, numbers.items(), strict=True):
        axes.imshow(values, cmap="cividis", aspect="auto")
        middle = (values.min() + values.max()) / 2
        for (i, j), value in np.ndenumerate(values):
            color = "white" if value < middle else "black"
            axes.text(
                j, i, f"{value:.1f}", ha="center", va="center", color=color, fontsize=9
            )
        for i, j in framed:
            frame = patches.Rectangle((j - 0.46, i - 0.46), 0.92, 0.92)
            frame.set(fill=False, ec=style.COLORS[6], lw=2.5)
            axes.add_patch(frame)
        axes.set_title(style.literal(label), fontsize=11)
        axes.set_xticks(range(width), [f"{x:g}" for x in columns[1]])
        axes.set_yticks(range(height), [f"{x:g}" for x in rows[1]])
        axes.set_xlabel(style.literal(columns[0]), fontsize=11)
    panels[0].set_ylabel(style.literal(rows[0]), fontsize=11)
    style.save(figure, path)


def matrices(
    path: str | os.PathLike,
    titles: Sequence[str],
    rows: Mapping[str, Sequence[np.ndarray]],
    *,
    limits: tuple[float, float] | None = None,
    center: float | None = None,
    axes: tuple[str, str] = ("", ""),
    title: str = "",
) -> None:
    """Draws small square matrices with their numbers: a column for each title.

    Args:
      path: the PNG to write.
      titles: of the columns.
      rows: by the label of the row, a matrix for each title.
      limits: of the colors, which are linear between them.
      center: instead of limits: a positive number, neutral in color; others are colored
        by the logarithm of their ratio to it, alike in both directions.
      axes: what goes down and what goes across in each matrix.
      title: of the picture.
    """
    if center is not None:
        values = np.concatenate(
            [np.ravel(x) for of_row in rows.values() for x in of_row]
        )
        reach = float(np.abs(np.log(values.clip(0.05 * center) / center)).max())
        limits, colors = (-reach, reach), "PuOr_r"
    elif limits is not None:
        colors = "RdBu_r"
    else:
        raise ValueError("one of limits and center must be given, got neither")
    figure = style.blank(2.1 * len(titles) + 0.8, 2.2 * len(rows) + 0.9)
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    middle, half = sum(limits) / 2, (limits[1] - limits[0]) / 2
    for of_panels, (label, of_row) in zip(panels, rows.items(), strict=True):
        of_panels[0].set_ylabel("\n".join(filter(None, (label, axes[0]))))
        for panel, matrix in zip(of_panels, of_row, strict=True):
            shown = matrix
            if center is not None:
                shown = np.log(matrix.clip(0.05 * center) / center)
            panel.imshow(shown, cmap=colors, vmin=limits[0], vmax=limits[1])
            for (i, j), value in np.ndenumerate(matrix):
                strong = abs(shown[i, j] - middle) > 0.6 * half
                color = "white" if strong else "black"
                place: Any = {"ha": "center", "va": "center", "fontsize": 9}
                panel.text(j, i, f"{value:.2f}", color=color, **place)
            panel.set_xticks(range(matrix.shape[1]))
            panel.set_yticks(range(matrix.shape[0]))
    for panel, name in zip(panels[0], style.distinct(titles), strict=True):
        panel.set_title(name, fontsize=10)
    style.heading(figure, style.literal(title, 100))
    figure.supxlabel(axes[1], fontsize=10)
    style.save(figure, path)
