"""Pictures of a run: curves, a map of the representation.

Every function takes arrays and a path, and writes one PNG.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import patheffects, ticker

from jaxcl.pictures import style


def learning_curves(
    path: str | os.PathLike,
    steps: Sequence[float] | np.ndarray,
    loss: Sequence[float] | np.ndarray,
    knn_steps: Sequence[float] | np.ndarray,
    knn_accuracy: Sequence[float] | np.ndarray,
    *,
    baselines: Mapping[str, float] | None = None,
    title: str = "",
    loss_unit: str = "nats per anchor",
    knn_of: str = "",
) -> None:
    """Draws the loss and the k-NN accuracy against the step, side by side.

    Args:
      path: the PNG to write.
      steps: optimization steps of the losses [n], increasing.
      loss: [n]; of more than 60 values a moving average is drawn over them, each mean
        in the middle of what it is of.
      knn_steps: optimization steps of the accuracies [m]; may be empty.
      knn_accuracy: in [0, 1], [m].
      baselines: accuracies in [0, 1] drawn as level lines, by name.
      title: of the whole picture.
      loss_unit: unit of the loss.
      knn_of: what the k-NN accuracy is measured on: "1,300 training images".

    Raises:
      ValueError: if the lengths of steps and values differ, or path is not a PNG.
    """
    steps, loss = _series("loss", steps, loss)
    knn_steps, knn_accuracy = _series("knn_accuracy", knn_steps, knn_accuracy)
    figure = style.blank(9.6, 4.3)
    left, right = figure.subplots(1, 2, sharex=True)

    left.set_ylabel(f"loss ({loss_unit})")
    window = 2 * (len(loss) // 60) + 1  # odd: it has a middle
    if window > 1:
        left.plot(steps, loss, color=style.COLORS[3], lw=0.8, label="each record")
        left.plot(
            steps[window // 2 : len(steps) - window // 2],
            np.convolve(loss, np.ones(window) / window, mode="valid"),
            color=style.COLORS[0],
            lw=2,
            label=f"mean of {window} records",
        )
        style.legend_above(left)
    else:
        marker = "o" if len(loss) <= 20 else None
        left.plot(steps, loss, color=style.COLORS[0], lw=2, marker=marker, ms=4)

    among = f"\nof {style.literal(knn_of)}" if knn_of else ""
    right.set_ylabel(f"k-NN accuracy (%){among}")
    right.plot(
        knn_steps,
        100 * knn_accuracy,
        color=style.COLORS[2],
        lw=2,
        marker="o",
        ms=4,
        label="this run",
    )
    dashes = ((5, 2), (1.5, 1.5), (6, 2, 1, 2), (3, 3))
    for i, (name, value) in enumerate((baselines or {}).items()):
        right.axhline(
            100 * value,
            color=(style.COLORS[4], style.COLORS[9])[i % 2],
            lw=1.6,
            dashes=dashes[i % len(dashes)],
            label=f"{style.literal(name, 30)}, {100 * value:.1f} %",
        )
    if baselines:
        style.legend_above(right)
    if not len(knn_accuracy):
        right.set_yticks([])
        right.text(0.5, 0.5, "not measured", transform=right.transAxes, ha="center")
    else:
        # Room for the number beside the last point, whatever the range; on the side
        # that the curve does not come from.
        falls = len(knn_accuracy) > 1 and knn_accuracy[-1] < knn_accuracy[-2]
        right.margins(y=0.15)
        right.annotate(
            f"{100 * knn_accuracy[-1]:.1f} %",
            (knn_steps[-1], 100 * knn_accuracy[-1]),
            xytext=(0, -6 if falls else 6),
            textcoords="offset points",
            ha="right",
            va="top" if falls else "bottom",
            fontsize=11,
            color=style.COLORS[2],
            path_effects=_halo(),
        )
    for axes in (left, right):
        _of_steps(axes)
    style.heading(figure, style.literal(title))
    style.save(figure, path)


def number_curves(
    path: str | os.PathLike,
    steps: Sequence[float] | np.ndarray,
    numbers: Mapping[str, Sequence[float] | np.ndarray],
    *,
    bounds: Mapping[str, float] | None = None,
    title: str = "",
) -> None:
    """Draws numbers of a run against the step, such as what its loss learns.

    Args:
      path: the PNG to write.
      steps: optimization steps [n], increasing.
      numbers: by their name the values [n], a panel for each; a name may end in its
        unit: "temperature (dimensionless)".
      bounds: by the name of such numbers one that they cannot pass, drawn as a level
        line.
      title: of the whole picture.

    Raises:
      ValueError: if there are no numbers, their count differs from that of the steps, a
        bound is of none of them, or path is not a PNG.
    """
    unknown = sorted(set(bounds or {}) - set(numbers))
    if not numbers or unknown:
        raise ValueError(
            f"numbers must hold a name, and all those of bounds, got {list(numbers)} "
            f"and bounds of {unknown}"
        )
    figure = style.blank(max(4.6 * len(numbers), 8.4), 4.0)
    panels = figure.subplots(1, len(numbers), sharex=True, squeeze=False)[0]
    names = style.distinct(list(numbers), most=40)
    for axes, name, shown in zip(panels, numbers, names, strict=True):
        xs, values = _series(f"numbers of {name!r}", steps, numbers[name])
        marker = "o" if len(xs) <= 20 else None
        axes.plot(xs, values, color=style.COLORS[0], lw=2, marker=marker, ms=4)
        if bounds and name in bounds:
            axes.axhline(
                bounds[name],
                color=style.COLORS[4],
                lw=1.6,
                dashes=(5, 2),
                label=f"bound, {bounds[name]:g}",
            )
            style.legend_above(axes)
        _of_steps(axes)
        axes.set_ylabel(shown)
    style.heading(figure, style.literal(title))
    style.save(figure, path)


def _of_steps(axes: mpl_axes.Axes) -> None:
    style.plain(axes)
    axes.set_xlabel("optimization step")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def embedding_map(
    path: str | os.PathLike,
    h: np.ndarray,
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    title: str = "",
    seed: int = 0,
    max_tsne: int = 3000,
) -> None:
    """Draws representations as points of a plane, colored by class.

    Rows are scaled to length one first, so that near means a large cosine. Up to
    `max_tsne` rows are laid out by t-SNE, more by their first two principal
    components; the picture says which.

    Args:
      path: the PNG to write.
      h: representation [n, r].
      labels: integers [n] in [0, classes).
      class_names: one per class.
      title: of the picture; the method is added.
      seed: of t-SNE, which starts from the principal components.
      max_tsne: rows up to which t-SNE is used; about 4 s for 1,000 on two cores.

    Raises:
      ValueError: for wrong shapes, labels without a name, or a path that is no PNG.
    """
    h, labels = np.asarray(h, np.float32), np.asarray(labels)
    if h.ndim != 2 or len(h) < 2 or h.shape[1] < 2:
        raise ValueError(f"h must be [n, r] with n, r >= 2, got shape {h.shape}")
    style.check_labels("labels", labels, (len(h),), class_names)
    norm = np.linalg.norm(h, axis=1, keepdims=True)
    h = h / np.where(norm > 0, norm, 1)
    points, method = _plane(h, seed, max_tsne)

    figure = style.blank(8.4, 6.4)
    axes = figure.subplots()
    present, names = np.unique(labels), style.distinct(class_names, 24)
    size = float(np.clip(15_000 / len(h), 8, 32))
    # In parts, each of all classes: the last class would hide those before it.
    mixed = np.random.default_rng(seed).permutation(len(h))
    for number, part in enumerate(np.array_split(mixed, 1 + len(h) // 200)):
        for c in present:
            of_class = part[labels[part] == c]
            axes.scatter(
                points[of_class, 0],
                points[of_class, 1],
                s=size,
                c=style.COLORS[c % len(style.COLORS)],
                marker=style.MARKERS[style.marker_of(c)],
                linewidths=0.3,
                edgecolors="white",
                label=None if number else names[c],
            )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#BBBBBB")
    listed = len(present) <= len(style.COLORS) * len(style.MARKERS)
    if listed:
        legend = axes.legend(
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            fontsize=11,
            ncols=-(-len(present) // 20),
            handletextpad=0.3,
            borderaxespad=0,
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_sizes([50.0])  # type: ignore[attr-defined]
    else:
        method += f"; {len(present)} classes, colors repeat"
    named = _name_clusters(axes, points, labels, present, style.distinct(class_names))
    if not named:
        method += f"\nnone of {len(present)} classes lies together"
    elif named < len(present):
        method += (
            f"\n{named} of {len(present)} classes lie together and are named there"
        )
        method += ", the others in the legend" * listed
    style.heading(figure, style.literal(title), f"{len(h):,} points, {method}")
    style.save(figure, path)


def _halo() -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=3, foreground="white")]


def _plane(h: np.ndarray, seed: int, max_tsne: int) -> tuple[np.ndarray, str]:
    """Points [n, 2] and how they were found."""
    import threadpoolctl  # it and scikit-learn are slow to import: only when drawn
    from sklearn import decomposition, manifold

    if 4 <= len(h) <= max_tsne:
        perplexity = min(30.0, (len(h) - 1) / 3)
        layout = manifold.TSNE(
            init="pca", perplexity=perplexity, random_state=seed, max_iter=750
        )
        # One thread: as fast as two on an idle machine, ten times faster on a busy one.
        with threadpoolctl.threadpool_limits(1, "openmp"):
            return layout.fit_transform(h), "t-SNE of cosine distances"
    components = decomposition.PCA(2, svd_solver="covariance_eigh").fit(h)
    share = 100 * components.explained_variance_ratio_.sum()
    method = f"first two principal components, {share:.0f} % of the variance"
    return components.transform(h), method


def _name_clusters(
    axes: mpl_axes.Axes,
    points: np.ndarray,
    labels: np.ndarray,
    present: np.ndarray,
    names: Sequence[str],
) -> int:
    """Writes names into the map where a class has a place of its own, and room.

    Returns:
      How many.
    """
    span = np.ptp(points, axis=0).max()
    written: list[tuple[np.ndarray, np.ndarray]] = []
    for c in present:
        members = points[labels == c]
        # The member nearest to the median: inside the class also if it is a ring.
        middle = np.median(members, axis=0)
        place = members[np.argmin(np.square(members - middle).sum(axis=1))]
        around = np.argsort(np.square(points - place).sum(axis=1))[:15]
        # In a mixed cloud the name would promise a cluster; of two classes, one of them
        # is more than half of the points nearly everywhere.
        least = max(0.6, (1 + len(members) / len(labels)) / 2)
        if len(present) > 1 and np.mean(labels[around] == c) < least:
            continue
        # Names stand apart, by half the widths of both.
        reach = np.array([0.006 * (len(names[c]) + 4), 0.025]) * span
        if all(np.any(np.abs(place - at) > reach + far) for at, far in written):
            written.append((place, reach))
            axes.text(
                place[0],
                place[1],
                names[c],
                fontsize=min(12.0, 36 / style.width(names[c], 12, "bold")),
                weight="bold",
                color=style.TEXT,
                ha=_inwards(place[0], points[:, 0]),
                va="center",
                path_effects=_halo(),
                in_layout=False,  # the map does not shrink to make room for it
            )
    return len(written)


def _inwards(x: float, of: np.ndarray) -> Literal["left", "center", "right"]:
    """Where a text at x begins or ends, so that it stays in the picture."""
    share = (x - of.min()) / max(np.ptp(of), 1e-30)
    return "left" if share < 0.2 else "right" if share > 0.8 else "center"


def _series(
    name: str, steps: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ValueError(
            f"{name} and its steps must be [n], got {values.shape} and {steps.shape}"
        )
    return steps, values
