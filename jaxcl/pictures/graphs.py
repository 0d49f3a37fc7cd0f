"""Pictures of a graph on points: the points, matrices sorted by group, partitions."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
from scipy import optimize

from jaxcl.pictures import style

# Lines of theory: each its own color and dashes.
_LEVELS = ((4, (5.0, 2.0)), (2, (1.5, 1.5)), (9, (6.0, 2.0)))


def snapshots(
    path: str | os.PathLike,
    drawn: Sequence[np.ndarray],
    similarity: Callable[[np.ndarray], np.ndarray],
    steps: Sequence[int],
    groups: np.ndarray,
    names: Sequence[str],
    *,
    title: str = "",
) -> None:
    """Above the points, below their similarities sorted by group, at each step.

    Args:
      path: the PNG to write.
      drawn: points of the sphere [n, d] at each step, d >= 2.
      similarity: points [n, d] to a matrix [n, n] in [0, 1].
      steps: number of each step.
      groups: integers [n].
      names: of the groups.
      title: of the picture.
    """
    d, count = drawn[0].shape[1], len(drawn)
    what = {2: "points on the circle", 3: "points on the sphere"}.get(
        d, f"{d} dimensions along two principal directions"
    )
    figure = style.blank(max(2.5 * count + 1.6, 8.0), 6.7)
    below = f"kernel, sorted by group{_averaged(len(groups))}"
    style.heading(figure, style.literal(title, 90), f"above: {what}\nbelow: {below}")
    # The scale of the matrices has a column of its own: panels stand one above another.
    cells = figure.add_gridspec(2, count + 1, width_ratios=[1] * count + [0.05])
    basis = np.eye(d) if d <= 3 else _principal(drawn[-1])
    reach = 1.2 if d <= 3 else 1.1 * max(np.abs(z @ basis).max() for z in drawn)
    order = np.argsort(groups, kind="stable")
    matrices = [block_means(similarity(z[order])) for z in drawn]
    # A sharp kernel is small nearly everywhere; all steps have one scale.
    most = float(np.quantile(matrices[-1], 0.99))
    shown: Any = None
    for i, (z, step) in enumerate(zip(drawn, steps, strict=True)):
        solid: dict[str, Any] = {"projection": "3d"} if d == 3 else {}
        axes = figure.add_subplot(cells[0, i], **solid)
        axes.set_title(f"step {step:,}", fontsize=12)
        _scatter(axes, z @ basis, groups, names)
        if d == 2:
            angle = np.linspace(0, 2 * np.pi, 200)
            axes.plot(np.cos(angle), np.sin(angle), color="#CCCCCC", lw=1, zorder=0)
        # One scale for all steps, so that moving apart looks like it.
        limits: dict[str, Any] = {
            f"{a}lim": (-reach, reach) for a in "xyz"[: min(d, 3)]
        }
        axes.set(**limits if d <= 3 else {k: limits[k] for k in ("xlim", "ylim")})
        lower = figure.add_subplot(cells[1, i])
        shown = _matrix(lower, matrices[i], most)
        if i == 0:
            lower.set_ylabel("node i", fontsize=11)
        lower.set_xlabel("node j", fontsize=11)
    beyond = "max" if most < 0.999 else "neither"
    scale = figure.add_subplot(cells[1, count])
    figure.colorbar(shown, cax=scale, label="kernel", extend=beyond)
    _legend(figure, axes)
    style.save(figure, path)


def curves(
    path: str | os.PathLike,
    steps: Sequence[float],
    panels: Mapping[str, Sequence[float]],
    levels: Mapping[str, Mapping[str, float]],
    *,
    shares: Collection[str] = (),
    logarithmic: bool = True,
    title: str = "",
) -> None:
    """Draws numbers against the step, a panel each, with level lines.

    Args:
      path: the PNG to write.
      steps: [n].
      panels: numbers [n], by the label of their axis.
      levels: for some labels, values by name, such as those of theory, or bounds.
      shares: labels whose numbers lie in [0, 1].
      logarithmic: of the step, where most is expected to happen in the first ones.
      title: of the picture.
    """
    figure = style.blank(max(3.8 * len(panels), 6.4), 4.2)
    style.heading(figure, style.literal(title, 90))
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, values) in zip(drawn, panels.items(), strict=True):
        style.plain(axes)
        axes.plot(steps, values, color=style.COLORS[0], lw=2)
        of_panel = levels.get(label, {})
        for (color, dashes), (name, value) in zip(
            _LEVELS, of_panel.items(), strict=False
        ):
            axes.axhline(
                value,
                color=style.COLORS[color],
                lw=1.6,
                dashes=dashes,
                label=f"{style.literal(name)}, {value:.4f}",
            )
        if of_panel:
            style.legend_above(axes, columns=1)
        if label in shares:
            axes.set_ylim(0, 1.05)
        if logarithmic:
            axes.set_xscale("symlog", linthresh=1)
        else:
            axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axes.set_xlim(0, max(1, steps[-1]))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("step (logarithmic)" if logarithmic else "step")
        axes.set_ylabel(label)
    style.save(figure, path)


def partitions(
    path: str | os.PathLike,
    p: np.ndarray,
    points: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    first: tuple[str, np.ndarray],
    second: tuple[str, np.ndarray],
    *,
    title: str = "",
) -> None:
    """The graph, its eigenvectors, and two partitions of its nodes counted.

    Args:
      path: the PNG to write.
      p: the graph [n, n], weights that are not negative.
      points: a node's row of the eigenvectors [n, k].
      groups: integers [n], by which the graph is sorted and the points are colored.
      names: of the groups.
      first: name and clusters [n] of one partition.
      second: name and clusters [n] of the other.
      title: of the picture.
    """
    from sklearn import metrics  # slow to import: only when drawn

    figure = style.blank(13.2, 4.8)
    score = metrics.adjusted_rand_score(first[1], second[1])
    style.heading(
        figure,
        style.literal(title, 90),
        f"adjusted Rand index of the two partitions: {score:.3f}",
    )
    left, middle, right = figure.subplots(1, 3)
    order = np.argsort(groups, kind="stable")
    drawn = block_means(p[np.ix_(order, order)])
    # A few heavy edges would leave all others dark.
    most = float(np.quantile(drawn[drawn > 0], 0.95))
    beyond = "max" if most < drawn.max() else "neither"
    shown = _matrix(left, drawn, most)
    figure.colorbar(shown, ax=left, shrink=0.75, label="P$_{ij}$", extend=beyond)
    left.set_title("the graph, sorted by group", fontsize=12)
    left.set_xlabel(f"node j{_averaged(len(p))}", fontsize=11)
    left.set_ylabel("node i", fontsize=11)

    _scatter(middle, (points - points.mean(axis=0)) @ _principal(points), groups, names)
    middle.set_title("eigenvectors of the graph's Laplacian", fontsize=12)
    middle.set_xlabel("two principal directions of their rows", fontsize=11)

    counts = metrics.cluster.contingency_matrix(first[1], second[1])
    # Clusters have no numbers of their own: like stands opposite like.
    rows, columns = optimize.linear_sum_assignment(-counts)
    rest = [j for j in range(counts.shape[1]) if j not in columns]
    counts = counts[:, [*columns[np.argsort(rows)], *rest]]
    right.imshow(counts, cmap="Grays", vmin=0, vmax=1.4 * counts.max(), aspect="auto")
    for i, j in np.argwhere(counts):
        color = "white" if counts[i, j] > 0.7 * counts.max() else style.TEXT
        place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
        right.text(j, i, f"{counts[i, j]}", color=color, **place)
    right.set_xticks(range(counts.shape[1]), range(1, counts.shape[1] + 1))
    right.set_yticks(range(counts.shape[0]), range(1, counts.shape[0] + 1))
    right.set_title("nodes in both clusters", fontsize=12)
    right.set_xlabel(style.literal(second[0]), fontsize=11)
    right.set_ylabel(style.literal(first[0]), fontsize=11)
    _legend(figure, middle)
    style.save(figure, path)


def block_means(values: np.ndarray) -> np.ndarray:
    """What is drawn of a large matrix: the means of its blocks.

    >>> block_means(np.eye(3)).shape
    (3, 3)
    >>> block_means(np.ones((1000, 1000))).shape
    (334, 334)
    """
    edges = np.arange(0, len(values), _block(len(values)))
    size = np.diff([*edges, len(values)])
    sums = np.add.reduceat(np.add.reduceat(values, edges, 0), edges, 1)
    return np.asarray(sums / (size[:, None] * size[None]))


def _block(n: int) -> int:
    """Nodes that share a pixel of a matrix."""
    return -(-n // 400)


def _averaged(n: int) -> str:
    return f" (means over blocks of {_block(n)} nodes)" if _block(n) > 1 else ""


def _principal(points: np.ndarray) -> np.ndarray:
    """The two principal directions of points, as columns."""
    centered = points - points.mean(axis=0)
    return np.linalg.svd(centered, full_matrices=False)[2][:2].T


def _matrix(axes: mpl_axes.Axes, values: np.ndarray, most: float) -> Any:
    axes.set(xticks=[], yticks=[])
    return axes.imshow(values, vmin=0, vmax=most, interpolation="nearest")


def _scatter(
    axes: mpl_axes.Axes, points: np.ndarray, groups: np.ndarray, names: Sequence[str]
) -> None:
    size, names = float(np.clip(6_000 / len(points), 4, 36)), style.distinct(names)
    for c in np.unique(groups):
        axes.scatter(
            *points[groups == c].T,
            s=size,  # type: ignore[misc]
            c=style.COLORS[c % len(style.COLORS)],
            marker=style.MARKERS[style.marker_of(c)],
            alpha=0.8,
            linewidths=0.3,
            edgecolors="white",
            label=names[c],
        )
    axes.set_aspect("equal", adjustable="box" if points.shape[1] == 3 else "datalim")
    axes.set(xticks=[], yticks=[])
    if points.shape[1] == 2:
        axes.set_box_aspect(1)  # as the matrices beside it
    else:
        axes.set(zticks=[])


def _legend(figure: mpl_figure.Figure, axes: mpl_axes.Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > len(style.COLORS) * len(style.MARKERS):
        return  # colors repeat: it would tell nothing
    drawn = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=style.fitting(figure.get_figwidth(), labels, 10, 10),
        frameon=False,
        fontsize=10,
    )
    for handle in drawn.legend_handles:
        if handle is not None:
            handle.set_sizes([45.0])  # type: ignore[attr-defined]
