"""Norms, quantiles and cosines of embeddings, beside those of Gaussian ones.

Each function draws into axes of the caller, who may set limits and titles afterwards.
The broken black line is always what isotropic Gaussian embeddings have.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from scipy import special, stats

GAUSSIAN: dict[str, Any] = {"color": "black", "ls": "--", "lw": 1.4}


class Values(NamedTuple):
    """Numbers to draw, and how.

    Attributes:
      values: numbers [n], or a histogram of them where a function says so.
      color: of the curve, the points or the bars.
      label: for the legend; "" leaves it out.
      marker: of points; "" draws a line.
    """

    values: np.ndarray
    color: str
    label: str = ""
    marker: str = ""


def norms(
    axes: mpl_axes.Axes,
    several: Sequence[Values],
    d: int,
    *,
    relative: bool = False,
    fill: bool = False,
) -> None:
    """Histograms of norms, and the chi density of an isotropic Gaussian's.

    Args:
      axes: to draw into.
      several: norms of some embeddings each. The density has the mean square of the
        first.
      d: columns of the embeddings.
      relative: whether norms are divided by their root mean square.
      fill: whether bars are filled; outlines if not.
    """
    scale = [np.sqrt(np.square(x.values).mean()) if relative else 1 for x in several]
    rows = [x.values / s for x, s in zip(several, scale, strict=True)]
    unit = np.sqrt(np.square(rows[0]).mean() / d)
    first, last = stats.chi.ppf([1e-5, 1 - 1e-5], d) * unit
    # The farthest thousandth would otherwise squeeze all others into one bar. Half-way
    # to a single row that lies far out is too far.
    ends = np.array(
        [
            (
                np.quantile(x, 5e-4, method="higher"),
                np.quantile(x, 0.9995, method="lower"),
            )
            for x in rows
        ]
    )
    low, high = min(ends[:, 0].min(), first), max(ends[:, 1].max(), last)
    outside = 0
    for x, each in zip(rows, several, strict=True):
        inside = x[(x >= low) & (x <= high)]
        bins = min(80, 5 + int(np.sqrt(len(x))))
        counts, edges = np.histogram(inside, bins, (low, high))
        axes.stairs(
            counts / (len(x) * (edges[1] - edges[0])),
            edges,
            fill=fill,
            color=each.color,
            label=each.label,
            lw=None if fill else 2,
        )
        outside += len(x) - len(inside)
    shown = np.linspace(first, last, 300)
    density = stats.chi.pdf(shown / unit, d) / unit
    axes.plot(shown, density, label="isotropic Gaussian", **GAUSSIAN)
    name = "norm / root mean square norm" if relative else "norm"
    if outside:
        between = "\n" if relative else " "
        name += f"{between}({outside:,} of {sum(map(len, rows)):,} lie outside)"
    axes.set(xlabel=name, ylabel="density", xlim=(low, high))


def standardized(z: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1; constant ones are left out."""
    z = z[:, np.ptp(z, axis=0) > 0]
    return (z - z.mean(axis=0)) / z.std(axis=0)


def quantiles(
    axes: mpl_axes.Axes, several: Sequence[Values], *, differences: bool = False
) -> None:
    """Sorted values against those of a normal sample, and a band for each of these.

    Args:
      axes: to draw into.
      several: standardized numbers [n] each, all of one n.
      differences: whether the normal quantile is subtracted, so that the curve of
        normal values is level.
    """
    n = len(several[0].values)
    places = _thinned(n)
    expected = special.ndtri((places + 0.5) / n)
    off = expected if differences else 0.0
    low, high = (
        special.ndtri(stats.beta.ppf(chance, places + 1, n - places))
        for chance in (0.025, 0.975)
    )
    if not differences:
        axes.fill_between(expected, low, high, color="#CCCCCC", lw=0, label="95 % band")
        axes.plot(expected, expected, **GAUSSIAN | {"lw": 0.8})
    for x in several:
        shown = np.sort(x.values)[places] - off
        how = {"ls": "", "ms": 2.5} if x.marker else {"lw": 0.7, "alpha": 0.35}
        axes.plot(
            expected,
            shown,
            marker=x.marker,
            color=x.color,
            label=x.label or None,
            **how,
        )
    if differences:  # on top: so many curves would hide a filled band
        for edge in (low, high):
            axes.plot(expected, edge - off, **GAUSSIAN | {"lw": 1})
    axes.set(xlabel="Gaussian quantile")
    axes.set(ylabel="difference" if differences else "standardized value")


def cosines(axes: mpl_axes.Axes, several: Sequence[Values], d: int) -> None:
    """Histograms of cosines, and the density of those of uniform directions.

    Args:
      axes: to draw into.
      several: counts in bins of one width that fill [-1, 1] each.
      d: columns of the embeddings.
    """
    edges = np.linspace(-1, 1, len(several[0].values) + 1)
    for x in several:
        density = x.values / x.values.sum() / (edges[1] - edges[0])
        axes.stairs(density, edges, fill=True, color=x.color, alpha=0.75, label=x.label)
    at = np.linspace(-1, 1, 1001)[1:-1]  # in two dimensions the ends are infinite
    axes.plot(at, cosine_density(at, d), label="uniform directions", **GAUSSIAN)
    seen = np.flatnonzero(sum(x.values / x.values.sum() for x in several) > 1e-4)
    low = min(edges[seen[0]], -4 / np.sqrt(d))
    high = max(edges[seen[-1] + 1], 4 / np.sqrt(d))
    axes.set(xlabel="cosine", ylabel="density", xlim=(max(low, -1), min(high, 1)))


def cosine_density(x: np.ndarray, d: int) -> np.ndarray:
    """Of the cosine of two independent uniform directions, (1 - x^2)^((d - 3) / 2)."""
    return stats.beta.pdf((x + 1) / 2, (d - 1) / 2, (d - 1) / 2) / 2


def _thinned(n: int, most: int = 400) -> np.ndarray:
    """Order statistics to show: evenly spread in the normal score, all at the ends."""
    if n <= most:
        return np.arange(n)
    scores = np.linspace(special.ndtri(0.5 / n), -special.ndtri(0.5 / n), most)
    places = np.round(special.ndtr(scores) * n - 0.5).astype(int)
    return np.unique(np.clip(places, 0, n - 1))
