"""Pictures of comparisons: dots of several seeds, numbers over a grid of settings."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patches, ticker

from jaxcl.pictures import style


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
