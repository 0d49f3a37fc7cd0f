"""Pictures of the experiments on Gaussianity."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from experiments.gaussianity import measures
from jaxcl import diagnostics
from jaxcl.pictures import embeddings, style

_GRAY = "#999999"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
# By the name of a moment, so that it looks the same in every picture of a run.
_ORDER = (_GRAY, style.COLORS[0], style.COLORS[6])

Moments = Mapping[str, Mapping[str, measures.Snapshot]]


class History(NamedTuple):
    """A curve of measures.

    Attributes:
      label: for the legend.
      color: number of its color.
      dashes: number of its dashes.
      epochs: at which was measured.
      history: what was measured.
    """

    label: str
    color: int
    dashes: int
    epochs: Sequence[int]
    history: Sequence[measures.Measures]


def norms(path: pathlib.Path, moments: Moments) -> None:
    """Histograms of norms in units of their root mean square, with the chi density."""
    figure, axes = style.panels(1, len(moments))
    for panel, (name, of_name) in zip(axes[0], moments.items(), strict=True):
        d = next(iter(of_name.values())).z.shape[1]
        several = [
            embeddings.Values(np.linalg.norm(moment.z, axis=1), color, kind)
            for color, (kind, moment) in zip(_ORDER, of_name.items(), strict=False)
        ]
        embeddings.norms(panel, several, d, relative=True)
        panel.set_title(f"{name}, d = {d}", fontsize=12)
        panel.set(ylabel="", yticks=[])
    axes[0, 0].set_ylabel("density")
    style.heading(figure, "Norms of embeddings")
    style.legend_below(figure, axes[0, 0], 4)
    style.save(figure, path)


def _grid(
    moments: Moments, ylabel: str, xlabel: str, height: float
) -> tuple[mpl_figure.Figure, list[tuple[mpl_axes.Axes, str, measures.Snapshot]]]:
    """A panel for each moment, with its color: a row for each name."""
    kinds = list(next(iter(moments.values())))
    figure, axes = style.panels(len(moments), len(kinds), height=height)
    panels = []
    for row, (name, of_name) in zip(axes, moments.items(), strict=True):
        row[0].set_ylabel(f"{name}\n{ylabel}")
        for panel, color, kind in zip(row, _ORDER, kinds, strict=False):
            panels.append((panel, color, of_name[kind]))
    for panel, kind in zip(axes[0], kinds, strict=True):
        panel.set_title(kind, fontsize=12)
    for panel in axes[-1]:
        panel.set_xlabel(xlabel)
    return figure, panels


def quantiles(path: pathlib.Path, moments: Moments) -> None:
    """Each coordinate's quantiles minus the normal ones, one line each."""
    figure, panels = _grid(moments, "difference", "normal quantile", 2.6)
    for panel, color, moment in panels:
        label = panel.get_ylabel(), panel.get_xlabel()
        columns = embeddings.standardized(moment.z).T
        curves = [embeddings.Values(column, color) for column in columns]
        embeddings.quantiles(panel, curves, differences=True)
        panel.set(ylabel=label[0], xlabel=label[1])
        panel.set_xlim(-3.6, 3.6)
        panel.set_ylim(-1.5, 1.5)
    style.heading(
        figure,
        "Quantiles of standardized coordinates minus normal quantiles, one line each",
        "dashed: band that holds 95 % of normal samples at each place",
    )
    style.save(figure, path)


def cosines(path: pathlib.Path, moments: Moments) -> None:
    """Histograms of the cosines of positives and negatives."""
    figure, panels = _grid(moments, "density", "cosine", 2.5)
    for panel, _, moment in panels:
        label = panel.get_ylabel(), panel.get_xlabel()
        several = [
            embeddings.Values(np.histogram(values, 100, (-1, 1))[0], color, name)
            for values, color, name in (
                (moment.negatives, style.COLORS[8], "two inputs"),
                (moment.positives, style.COLORS[2], "two views of one input"),
            )
        ]
        d = moment.z.shape[1]
        embeddings.cosines(panel, several, d)
        panel.set(ylabel=label[0], xlabel=label[1])
        panel.set_xlim(-0.75, 1.02)
        panel.set_xticks([-0.5, 0, 0.5, 1])
        middle = np.linspace(-0.99, 0.99, 199)
        panel.set_ylim(0, 2.2 * embeddings.cosine_density(middle, d).max())
        panel.set_yticks([])
    cut = any(panel.dataLim.y1 > panel.get_ylim()[1] for panel, *_ in panels)
    style.heading(figure, "Cosines of embeddings", cut * "the highest bars are cut")
    style.legend_below(figure, panels[0][0], 3)
    style.save(figure, path)


def histories(path: pathlib.Path, curves: Sequence[History], d: int) -> None:
    """Measures against epochs, with what Gaussian embeddings have."""
    shown: tuple[tuple[str, Callable[[Any], float], float | None, str], ...] = (
        ("CV of the norm", lambda m: m.cv, diagnostics.gaussian_norm_cv(d), "from 0"),
        ("Anderson-Darling, mean", lambda m: m.ad_mean, 0.385, "log"),
        ("D'Agostino-Pearson p, mean", lambda m: m.dp_mean, 0.5, "0 to 1"),
        ("share that passes Anderson-Darling", lambda m: m.ad_pass, 0.95, "0 to 1"),
        ("share that passes D'Agostino-P.", lambda m: m.dp_pass, 0.95, "0 to 1"),
        ("alignment: cosine of positives", lambda m: m.alignment, None, "0 to 1"),
        ("std of negative cosines", lambda m: m.negative_std, d**-0.5, "from 0"),
        ("length of the mean direction", lambda m: m.mean_direction, 0.0, "from 0"),
    )
    figure, axes = style.panels(2, 4, width=3.5, height=2.8)
    for panel, (title, of, ideal, scale) in zip(axes.flat, shown, strict=True):
        for curve in curves:
            panel.plot(
                curve.epochs,
                [of(m) for m in curve.history],
                color=style.COLORS[2 * curve.color % len(style.COLORS)],
                ls=_DASHES[curve.dashes % len(_DASHES)],
                lw=2,
                label=curve.label,
            )
        if ideal is not None:
            panel.axhline(ideal, color="black", lw=1.2, ls=":", label="if Gaussian")
        panel.set_title(title, fontsize=11)
        if scale == "log":
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            panel.yaxis.set_minor_formatter(ticker.NullFormatter())
        elif scale == "0 to 1":
            panel.set_ylim(-0.03, 1.03)
        else:
            style.from_zero(panel)
    for panel in axes.flat:
        panel.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
    for panel in axes[-1]:
        panel.set_xlabel("epoch")
    style.heading(figure, f"Held-out embeddings while training, d = {d}")
    style.legend_below(figure, axes[0, 0], 4)
    style.save(figure, path)


def radii(
    path: pathlib.Path, runs: Mapping[str, Mapping[str, np.ndarray]], target: float
) -> None:
    """Norm of the views against steps, without and with the penalty."""
    figure, axes = style.panels(1, len(runs))
    for panel, (name, of_name) in zip(axes[0], runs.items(), strict=True):
        for color, (kind, norm) in zip(_ORDER[1:], of_name.items(), strict=False):
            panel.plot(
                np.arange(1, len(norm) + 1), norm, color=color, lw=1.8, label=kind
            )
        panel.axhline(
            target, color="black", lw=1.2, ls="--", label="target of the penalty"
        )
        style.from_zero(panel)
        panel.set_title(name, fontsize=12)
        panel.set_xlabel("step")
        panel.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
    axes[0, 0].set_ylabel("root mean square norm")
    style.heading(
        figure, "Norm of the views while training, with and without the penalty"
    )
    style.legend_below(figure, axes[0, 0], 3)
    style.save(figure, path)
