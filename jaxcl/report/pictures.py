"""The pictures of the page."""

import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from jaxcl.pictures import embeddings, style
from jaxcl.report import comparisons, moments, rules
from jaxcl.report import found as found_lib

_BLUE, _RED, _GRAY = style.COLORS[0], style.COLORS[6], style.COLORS[9]


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
      title: heading above it.
      caption: how to read it.
      pngs: one picture, or several side by side where there is room; none if it could
        not be drawn.
    """

    title: str
    caption: str
    pngs: list[bytes]


def of(found: found_lib.Found) -> list[Picture]:
    """Draws all pictures, in the order of the page."""
    z, d = found.sample.tested, len(found.eigenvalues)
    tested, separation = found.tests.coordinates, found.apart.separation
    all_pairs, num_rows = found.files.labels is None, len(found.moments.norms)
    drawn = []
    if not found.table.one_norm:
        drawn.append(
            _picture(
                "Norms",
                "Histogram of the norms of all rows. The dashed line is the chi "
                f"density: norms of an isotropic Gaussian in {d} dimensions with the "
                "same mean square.",
                lambda: [_norms(found.moments, d)],
            )
        )
    drawn += [
        _picture(
            "Quantiles",
            "Standardized values against those a Gaussian would have: a straight line "
            "is Gaussian, ends that turn away from it are tails, a level stretch is a "
            "value that many rows share, such as the 0 of a ReLU. First the "
            f"best{', the median' if d > 2 else ''} and the worst coordinate by "
            "Anderson-Darling, then all coordinates together. 95 % of the points of "
            "independent Gaussian values lie inside the gray bands, each taken by "
            "itself.",
            lambda: _quantiles(z, tested.ad, np.flatnonzero(found.sample.kept)),
        ),
        _picture(
            "Coordinates",
            "First the Anderson-Darling statistic of each coordinate, sorted; 95 % of "
            "Gaussian coordinates lie below the line. Then p-values of D'Agostino "
            "and Pearson; those of Gaussian coordinates are spread evenly (dashed), "
            "those left of the red line are rejected.",
            lambda: [_statistics(tested.ad), _probabilities(tested.dp)],
        ),
        _picture(
            "Cosines",
            ("Cosines of all pairs" if all_pairs else "Cosines of different labels")
            + (" and of positive pairs." if found.pairs.positive is not None else ".")
            + " The dashed line is their density if directions are uniform on the "
            "sphere in "
            f"{d} dimensions, in proportion to {_cosine_law(d)}.",
            lambda: [_cosines(found.pairs, all_pairs, d)],
        ),
        _picture(
            "Covariance spectrum",
            "Eigenvalues of the covariance divided by their mean, the largest first. "
            "The dashed line (Marchenko-Pastur) is what an isotropic Gaussian gives "
            f"with {num_rows:,} rows.",
            lambda: [_spectrum(found.eigenvalues, num_rows)],
        ),
    ]
    if separation is not None and separation.inside:
        drawn.append(
            _picture(
                "Out of distribution",
                "Strangeness of held-out rows of the file and of the other rows. AUROC "
                "is the chance that a random other row is the stranger of two: 0.5 is "
                "no difference, 1 is complete separation.",
                lambda: _separation(separation),
            )
        )
    return drawn


def _picture(title: str, caption: str, draw: Callable[[], list[bytes]]) -> Picture:
    """A picture, or why there is none: numbers outlive their pictures."""
    try:
        return Picture(title, caption, draw())
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
        warnings.warn(f"picture {title!r} was not drawn, {wrong}", stacklevel=2)
        return Picture(title, f"Not drawn, {wrong}", [])


def marchenko_pastur(d: int, n: int) -> np.ndarray:
    """Expected eigenvalues of the covariance of n rows of N(0, I_d), largest first."""
    ratio = d / n
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    # x = middle + radius cos(angle) takes the square root's ends out of the density.
    angle = np.linspace(0, np.pi, 4001)
    x = (low + high) / 2 + (high - low) / 2 * np.cos(angle)
    density = np.sin(angle) ** 2 / np.maximum(x, 1e-12)
    above = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    share = min(1.0, 1 / ratio)  # the others are 0
    wanted = (np.arange(d) + 0.5) / d
    values = np.interp(wanted, share * above / above[-1], x)
    return np.where(wanted < share, values, 0.0)


def _blank() -> tuple[mpl_figure.Figure, mpl_axes.Axes]:
    """Small, so that its letters stay legible on a phone."""
    figure = style.blank(5.4, 3.8)
    axes = figure.subplots()
    style.plain(axes)
    return figure, axes


def _png(figure: mpl_figure.Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def _norms(m: moments.Moments, d: int) -> bytes:
    figure, axes = _blank()
    bars = embeddings.Values(m.norms, style.COLORS[3], "norms")
    embeddings.norms(axes, [bars], d, fill=True)
    if m.unit != 1:  # sizes that axes cannot show
        axes.set_xlabel(f"{axes.get_xlabel()}, in multiples of {m.unit:.3g}")
    style.legend_above(axes)
    return _png(figure)


def _quantiles(z: np.ndarray, ad: np.ndarray, columns: np.ndarray) -> list[bytes]:
    x = embeddings.standardized(z)
    order = np.argsort(ad)
    chosen = [
        ("best", order[0], style.COLORS[5], "o"),
        ("median", order[len(order) // 2], _BLUE, "s"),
        ("worst", order[-1], _RED, "^"),
    ]
    if len(order) == 2:
        del chosen[1]  # the median would be the worst again
    panels = [
        [
            embeddings.Values(x[:, i], color, f"{name}: column {columns[i]}", marker)
            for name, i, color, marker in chosen
        ],
        [embeddings.Values(x.ravel(), _BLUE, "all coordinates", "o")],
    ]
    drawn = []
    for panel in panels:
        figure, axes = _blank()
        embeddings.quantiles(axes, panel)
        style.legend_above(axes)
        drawn.append(_png(figure))
    return drawn


def _whole_numbers() -> ticker.Locator:
    return ticker.MaxNLocator("auto", integer=True, min_n_ticks=1)


def _statistics(ad: np.ndarray) -> bytes:
    figure, axes = _blank()
    places = np.arange(1, len(ad) + 1)
    axes.plot(places, np.sort(ad), "o", color=_BLUE, ms=3, label="Anderson-Darling")
    limit = rules.AD_LIMIT
    axes.axhline(limit, color=_RED, lw=1.5, label=f"limit, {limit}")
    axes.set(xlabel="coordinates, sorted", ylabel="statistic", yscale="log")
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.yaxis.set_major_formatter("{x:g}")
    narrow = max(ad.max(), limit) < 10 * min(ad.min(), limit)
    axes.yaxis.set_minor_formatter("{x:g}" if narrow else ticker.NullFormatter())
    style.legend_above(axes)
    return _png(figure)


def _probabilities(dp: np.ndarray) -> bytes:
    figure, axes = _blank()
    bins = 20
    axes.hist(dp, bins, range=(0, 1), color=style.COLORS[3], label="coordinates")
    axes.axhline(len(dp) / bins, color=_GRAY, ls="--", lw=1.5, label="if Gaussian")
    limit = rules.DP_LIMIT
    axes.axvline(limit, color=_RED, lw=1.5, label=f"limit, {limit}")
    axes.set(xlabel="p of D'Agostino-Pearson", ylabel="coordinates", xlim=(0, 1))
    axes.yaxis.set_major_locator(_whole_numbers())
    style.legend_above(axes)
    return _png(figure)


def _cosine_law(d: int) -> str:
    return "a constant" if d == 3 else f"(1 - cosine^2)^{(d - 3) / 2:g}"


def _cosines(pairs: comparisons.Pairs, all_pairs: bool, d: int) -> bytes:
    figure, axes = _blank()
    name = "all pairs" if all_pairs else "negatives"
    several = [embeddings.Values(pairs.negative.counts, style.COLORS[3], name)]
    if pairs.positive is not None:
        counts = pairs.positive.counts
        several.append(embeddings.Values(counts, style.COLORS[1], "positives"))
    embeddings.cosines(axes, several, d)
    style.legend_above(axes)
    return _png(figure)


def _spectrum(eigenvalues: np.ndarray, n: int) -> bytes:
    figure, axes = _blank()
    relative = eigenvalues / eigenvalues.mean()
    place = np.arange(1, len(relative) + 1)
    axes.plot(place, relative, "o", color=_BLUE, ms=3, label="eigenvalues")
    axes.plot(
        place,
        marchenko_pastur(len(relative), n),
        "--",
        color=_GRAY,
        lw=1.5,
        label="isotropic Gaussian",
    )
    axes.set(xlabel="eigenvalue, largest first", ylabel="relative to the mean")
    axes.xaxis.set_major_locator(_whole_numbers())
    if relative[0] > 10:
        axes.set_yscale("log")
        axes.set_ylim(max(relative[-1], 1e-6) / 2, relative[0] * 2)
    else:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)  # room for half a marker
    style.legend_above(axes)
    return _png(figure)


def _separation(separation: comparisons.Separation) -> list[bytes]:
    names = {"gaussian": "- log likelihood, nats", "neighbors": "neighbor's distance"}
    drawn = []
    for name, inside in separation.inside.items():
        figure, axes = _blank()
        outside = separation.outside[name]
        low, high = np.quantile(np.concatenate([inside, outside]), [0.002, 0.998])
        for values, color, label in (
            (inside, style.COLORS[3], "held out"),
            (outside, _RED, "others"),
        ):
            counts, edges = np.histogram(values.clip(low, high), 50, (low, high))
            axes.stairs(
                counts / counts.sum(),
                edges,
                fill=True,
                alpha=0.65,
                color=color,
                label=label,
            )
        axes.set(xlabel=names[name], ylabel="share of rows")
        style.legend_above(axes)
        drawn.append(_png(figure))
    return drawn
