"""Pictures of images and their captions: what finds what, and how similar they are.

Every function takes arrays and a path, and writes one PNG.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import colors, lines, patches, patheffects

from jaxcl.pictures import neighbors, style

_DASHES = (0, (2.2, 1.1))
# In inches, as everything here: margin, line of text, below a text, below the first.
_MARGIN, _LINE, _GAP, _TOP = 0.2, 0.165, 0.06, 0.24
_ABOVE: dict[str, Any] = {"color": style.QUIET, "va": "bottom"}


class Found(NamedTuple):
    """Some queries and their nearest candidates.

    Attributes:
      queries: rows of the images, or of the captions, int [q].
      indices: rows of the others, the nearest first, int [q, k].
      cosines: of a query and what it has found, [q, k].
    """

    queries: np.ndarray
    indices: np.ndarray
    cosines: np.ndarray


def retrieval(
    path: str | os.PathLike,
    images: np.ndarray,
    captions: Sequence[str],
    groups: tuple[np.ndarray, np.ndarray],
    captions_found: Found,
    images_found: Found,
    *,
    title: str = "",
    note: str = "",
) -> None:
    """Draws images beside the captions they find, and captions beside their images.

    Right is what has the query's group. Captions too long for their room are elided.

    Args:
      path: the PNG to write.
      images: [n, h, w], [n, h, w, 1] or [n, h, w, 3]; uint8, or floating point in
        [0, 1].
      captions: m texts.
      groups: integers of the images [n] and of the captions [m].
      captions_found: by some images.
      images_found: by some captions.
      title: of the picture.
      note: a line below it, such as the recall of all queries.

    Raises:
      ValueError: for wrong shapes or values, or a path that is no PNG.
    """
    images = neighbors.pixels("images", images)
    group, of_caption = _grouped(groups, len(images), len(captions))
    by_image = _checked("captions_found", captions_found, len(images), len(captions))
    by_caption = _checked("images_found", images_found, len(captions), len(images))
    right_captions = of_caption[by_image.indices] == group[by_image.queries][:, None]
    right_images = group[by_caption.indices] == of_caption[by_caption.queries][:, None]

    # Images are as wide or as high as an inch.
    tall = images.shape[1] / images.shape[2]
    side = 1 / max(tall, 1.0)
    tall *= side
    room, gap, k = 1.9, 0.16, by_caption.indices.shape[1]
    step = max(side, 0.55) + gap
    width = max(8.8, 2 * _MARGIN + room + 0.6 + (k + 1) * step)
    entries, columns = _entries(captions, by_image, group, of_caption, side, width)
    heights = [max(tall, _TOP + sum(len(t) * _LINE + _GAP for t in e)) for e in entries]
    in_rows = [heights[i : i + columns] for i in range(0, len(heights), columns)]
    head, between, below = (0.95 if note else 0.75) + 0.3, 0.3, 0.42
    upper = sum(max(each) + 0.2 for each in in_rows)
    height = head + upper + between + len(right_images) * (tall + below) + 0.1
    figure, axes = _paper(width, height)

    _write(axes, style.literal(title, 100), _MARGIN, 0.12, 13, room=width - 2 * _MARGIN)
    sums = (
        f"right: {right_captions.sum()} of {right_captions.size} captions, "
        f"{right_images.sum()} of {right_images.size} images shown"
    )
    _write(axes, sums, _MARGIN, 0.42, 9.5)
    _write(axes, style.literal(note, 120), _MARGIN, 0.62, 9.5)
    keyed = ("right", "o", neighbors.SAME), ("wrong", "x", neighbors.OTHER)
    axes.legend(
        [lines.Line2D([], [], ls="", marker=m, color=c, mew=2) for _, m, c in keyed],
        [name for name, _, _ in keyed],
        loc="upper right",
        bbox_to_anchor=(1, 1 - 0.36 / height),
        borderaxespad=0,
        frameon=False,
        fontsize=10,
        handletextpad=0.1,
        ncols=2,
    )

    # Images, and the captions that they find.
    _write(axes, "image", _MARGIN + side / 2, head - 0.08, 10, ha="center", **_ABOVE)
    asked = "its own caption, and those nearest to it with their cosines"
    _write(axes, asked, _MARGIN + side + 0.25, head - 0.08, 10, **_ABOVE)
    y = head
    for i, entry in enumerate(entries):
        x = _MARGIN + (i % columns) * (width / 2)
        _show(axes, images[by_image.queries[i]], x, y, side, tall)
        _list(axes, entry, by_image.cosines[i], right_captions[i], x + side + 0.25, y)
        if (i + 1) % columns == 0 or i + 1 == len(entries):
            y += max(in_rows[i // columns]) + 0.2

    # Captions, and the images that they find.
    y += between
    starts = _MARGIN + room + 0.15 + np.arange(k + 1) * step
    starts[1:] += 0.25
    _write(axes, "caption", _MARGIN, y - 0.08, 10, **_ABOVE)
    for j, x in enumerate(starts):
        name = {0: "its own", 1: "nearest"}.get(j, f"{j}")
        _write(axes, name, x + side / 2, y - 0.08, 10, ha="center", **_ABOVE)
    rule = (starts[0] + side + starts[1]) / 2
    axes.plot([rule, rule], [y - 0.1, height - 0.25], color="#BBBBBB", lw=1)
    under: dict[str, Any] = {"ha": "center", "color": style.QUIET}
    for i, query in enumerate(by_caption.queries):
        most = int((tall + below) / _LINE) - 1
        for number, text in enumerate(
            style.wrapped(captions[query], room, 9.5, max(most, 1), "bold")
        ):
            _write(axes, text, _MARGIN, y + number * _LINE, 9.5, weight="bold")
        own = np.flatnonzero(group == of_caption[query])
        if len(own):
            _show(axes, images[own[0]], starts[0], y, side, tall)
        told = f"{len(own)} right" if len(own) != 1 else ""
        _write(axes, told, starts[0] + side / 2, y + tall + 0.09, 9, **under)
        for j, x in enumerate(starts[1:]):
            _show(axes, images[by_caption.indices[i, j]], x, y, side, tall)
            _frame(axes, x, y, side, tall, right=bool(right_images[i, j]))
            cosine = f"{by_caption.cosines[i, j]:.2f}"
            _write(axes, cosine, x + side / 2, y + tall + 0.09, 9, **under)
        y += tall + below
    style.save(figure, path)


def similarities(
    path: str | os.PathLike,
    values: np.ndarray,
    captions: Sequence[str],
    groups: tuple[np.ndarray, np.ndarray],
    *,
    images: np.ndarray | None = None,
    name: str = "cosine",
    title: str = "",
) -> None:
    """Draws how similar images and captions are, groups together and framed.

    Args:
      path: the PNG to write.
      values: [n, m], images in rows and captions in columns.
      captions: m texts, written where there is room.
      groups: integers of the images [n] and of the captions [m].
      images: as of `retrieval`, [n, ...]; drawn where there is room.
      name: of the values.
      title: of the picture.

    Raises:
      ValueError: for wrong shapes or values, or a path that is no PNG.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"values must be finite numbers [n, m], got {values.shape}")
    n, m = values.shape
    if len(captions) != m:
        raise ValueError(f"captions must be {m} texts, got {len(captions)}")
    group, of_caption = _grouped(groups, n, m)
    pixels = None if images is None else neighbors.pixels("images", images)
    if pixels is not None and len(pixels) != n:
        raise ValueError(f"images must be {n}, one for each row, got {len(pixels)}")
    right = group[:, None] == of_caption[None, :]
    best = np.where(right, values, -np.inf).max(axis=1)
    wrong = np.where(right, -np.inf, values).max(axis=1)
    own = np.isfinite(best)
    told = f"images whose most similar caption is right: {(best > wrong).sum()}"
    told += f" of {own.sum()}"
    if right.any() and not right.all():
        means = values[right].mean(), values[~right].mean()
        of = f"mean {style.literal(name)}: right {means[0]:.2f}, wrong {means[1]:.2f}"
        told = f"{of}; {told}"

    # In the order in which groups come first; captions of no image at the end.
    numbers, firsts = np.unique(np.append(group, of_caption), return_index=True)
    place = np.argsort(np.argsort(firsts))
    at, caption_at = (
        place[np.searchsorted(numbers, each)] for each in (group, of_caption)
    )
    rows, columns = (np.argsort(each, kind="stable") for each in (at, caption_at))
    down, across = np.clip(7 / n, 0.004, 0.5), np.clip(9 / m, 0.004, 0.5)
    # Few and many have a picture of a readable size.
    down, across = max(down, 1.2 / n), max(across, 2.0 / m)
    written, shown = across >= 0.16, pixels is not None and down >= 0.2
    below = 2.3 if written else 0.3
    left = _MARGIN + (down + 0.35 if shown else 0.4)
    wide, high, top = m * across, n * down, 0.85
    width = max(left + wide + 1.1, 7.6)
    height = top + high + below + 0.35
    figure, paper = _paper(width, height)
    _write(
        paper, style.literal(title, 100), _MARGIN, 0.12, 13, room=width - 2 * _MARGIN
    )
    _write(paper, told, _MARGIN, 0.42, 9.5, room=width - 2 * _MARGIN, weight="normal")

    paper.plot([_MARGIN, width - _MARGIN], [0.68, 0.68], color="#DDDDDD", lw=0.8)
    place_of = (left / width, 1 - (top + high) / height, wide / width, high / height)
    axes = figure.add_axes(place_of)
    drawn = axes.imshow(values[np.ix_(rows, columns)], cmap="cividis", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    halo = [patheffects.withStroke(linewidth=3.2, foreground="black")]
    for each in np.intersect1d(at, caption_at):
        y, x = (np.flatnonzero(np.sort(of) == each) for of in (at, caption_at))
        if min(len(x) * across, len(y) * down) > 0.05:  # else a line hides the cell
            box = patches.Rectangle((x[0] - 0.5, y[0] - 0.5), len(x), len(y))
            box.set(fill=False, ec="white", lw=1.5, path_effects=halo, clip_on=False)
            axes.add_patch(box)
    scale = figure.add_axes(
        ((left + wide + 0.2) / width, place_of[1], 0.16 / width, place_of[3])
    )
    figure.colorbar(drawn, cax=scale, label=style.literal(name))

    side = f"{n} image{'s' * (n > 1)}"
    _write(
        paper, side, _MARGIN, top + high / 2, 10, va="center", ha="left", rotation=90
    )
    if shown and pixels is not None:
        tall = pixels.shape[1] / pixels.shape[2]
        h = 0.9 * down * min(1.0, tall)
        w = h / tall
        for i, row in enumerate(rows):
            y = top + (i + 0.5) * down - h / 2
            _show(paper, pixels[row], left - 0.06 - (down + w) / 2, y, w, h)
    if written:
        for i, column in enumerate(columns):
            [text] = style.wrapped(captions[column], below - 0.1, 8.5, 1)
            x = left + (i + 0.5) * across
            _write(paper, text, x, top + high + 0.07, 8.5, ha="center", rotation=90)
    bottom = f"{m} caption{'s' * (m > 1)}"
    place_y = top + high + below + 0.05
    _write(paper, bottom, left + wide / 2, place_y, 10, ha="center")
    style.save(figure, path)


def distributions(
    path: str | os.PathLike,
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]],
    names: tuple[str, str],
    *,
    lines_at: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
    title: str = "",
    note: str = "",
) -> None:
    """Draws where each image leads and each caption, in a graph and as learned.

    Args:
      path: the PNG to write.
      rows: by what goes down and across, two matrices [n, m] whose rows sum to 1.
      names: of the first and of the second of them.
      lines_at: rows and columns before which a class begins, by the same keys.
      title: of the picture.
      note: a line below it.
    """
    figure = style.blank(9.6, 0.9 + 3.7 * len(rows))
    style.heading(figure, style.literal(title, 90), style.literal(note, 120))
    panels = figure.subplots(len(rows), 2, squeeze=False)
    for axes, (label, matrices) in zip(panels, rows.items(), strict=True):
        # What is learned may be far more even than the graph. The color of all that is
        # rare is that of a third of chance; a node of one edge decides on no scale.
        rare = 1 / (3 * matrices[0].shape[1])
        most = float(np.quantile(matrices[0][matrices[0] > 0], 0.8))
        scale = colors.LogNorm(rare, max(most, 3 * rare))
        for panel, matrix in zip(axes, matrices, strict=True):
            shown = panel.imshow(np.maximum(matrix, rare), norm=scale, aspect="auto")
            panel.set(xticks=[], yticks=[])
            down, across = (lines_at or {}).get(label, ((), ()))
            for at in down:
                panel.axhline(at - 0.5, color="white", lw=0.8)
            for at in across:
                panel.axvline(at - 0.5, color="white", lw=0.8)
        axes[0].set_ylabel(style.literal(label), fontsize=11)
        figure.colorbar(shown, ax=list(axes), label="probability", extend="both")
    for panel, name in zip(panels[0], names, strict=True):
        panel.set_title(style.literal(name), fontsize=12)
    style.save(figure, path)


def _entries(
    captions: Sequence[str],
    found: Found,
    group: np.ndarray,
    of_caption: np.ndarray,
    side: float,
    width: float,
) -> tuple[list[list[list[str]]], int]:
    """What stands beside each image, in lines, and in how many columns.

    The first text is the image's own caption, the others are those that it has found.
    """
    told = []
    for query, near in zip(found.queries, found.indices, strict=True):
        own = np.flatnonzero(of_caption == group[query])
        more = f" (and {len(own) - 1} more)" * (len(own) > 1)
        text = captions[own[0]] if len(own) else "(no caption is right)"
        told.append((text, more, [captions[j] for j in near]))
    for columns in (2, 1) if len(told) > 1 else (1,):
        room = (width - 2 * _MARGIN) / columns - side - 0.25 - 0.15
        entries = []
        for text, more, near in told:
            free = room - style.width(more, 9.5, "bold")
            [first] = style.wrapped(text, free, 9.5, 1, "bold")
            texts = [style.wrapped(each, room - 0.65, 9.5, 2) for each in near]
            entries.append([[first + more], *texts])
        # Side by side where every caption fits into a line.
        if columns == 1 or all(len(text) == 1 for entry in entries for text in entry):
            break
    return entries, columns


def _list(
    axes: mpl_axes.Axes,
    entry: list[list[str]],
    cosines: np.ndarray,
    right: np.ndarray,
    x: float,
    y: float,
) -> None:
    """Writes the texts of an image, one below the other."""
    _write(axes, entry[0][0], x, y, 9.5, weight="bold")
    y += _TOP
    for texts, cosine, same in zip(entry[1:], cosines, right, strict=True):
        marker, color = ("o", neighbors.SAME) if same else ("x", neighbors.OTHER)
        axes.plot(x + 0.07, y + 0.06, marker, color=color, ms=5.5, mew=2)
        _write(axes, f"{cosine:.2f}", x + 0.22, y, 9.5, color=style.QUIET)
        for text in texts:
            _write(axes, text, x + 0.65, y, 9.5)
            y += _LINE
        y += _GAP


def _grouped(given: Any, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    group, of_caption = (np.asarray(each) for each in given)
    for name, each, count in (("images", group, n), ("captions", of_caption, m)):
        if not np.issubdtype(each.dtype, np.integer) or each.shape != (count,):
            raise ValueError(
                f"groups of {name} must be integers [{count}], got {each.dtype} "
                f"{each.shape}"
            )
    return group, of_caption


def _checked(name: str, found: Found, num_queries: int, num_candidates: int) -> Found:
    queries, indices, cosines = (np.asarray(each) for each in found)
    if indices.ndim != 2 or not indices.size or queries.shape != indices.shape[:1]:
        raise ValueError(
            f"{name} must have queries [q] and indices [q, k], got {queries.shape} and "
            f"{indices.shape}"
        )
    if cosines.shape != indices.shape:
        raise ValueError(
            f"{name} must have cosines {indices.shape}, got {cosines.shape}"
        )
    for part, rows, count in (
        ("queries", queries, num_queries),
        ("indices", indices, num_candidates),
    ):
        if not 0 <= rows.min() <= rows.max() < count:
            raise ValueError(
                f"{name} must have {part} in [0, {count}), got from {rows.min()} to "
                f"{rows.max()}"
            )
    return Found(queries, indices, cosines)


def _paper(width: float, height: float) -> tuple[Any, mpl_axes.Axes]:
    """A figure, and axes all over it that are measured in inches from above."""
    figure = style.blank(width, height, layout=None)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def _write(
    axes: mpl_axes.Axes,
    text: str,
    x: float,
    y: float,
    size: float,
    *,
    room: float | None = None,
    **look: Any,
) -> None:
    """Writes from (x, y) downwards; in a room, bold and no larger than it allows."""
    look = {"color": style.TEXT, "va": "top"} | look
    if room is not None:
        look = {"weight": "bold"} | look
        size = min(size, 0.96 * size * room / style.width(text, size, look["weight"]))
    axes.text(x, y, text, fontsize=size, **look)


def _show(
    axes: mpl_axes.Axes, image: np.ndarray, x: float, y: float, w: float, h: float
) -> None:
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto"}
    axes.imshow(image, extent=(x, x + w, y + h, y), interpolation="nearest", **look)


def _frame(
    axes: mpl_axes.Axes, x: float, y: float, w: float, h: float, *, right: bool
) -> None:
    pad = 0.035
    box = patches.Rectangle((x - pad, y - pad), w + 2 * pad, h + 2 * pad)
    box.set(fill=False, lw=3, ec=neighbors.SAME if right else neighbors.OTHER)
    box.set_linestyle("-" if right else _DASHES)
    axes.add_patch(box)
