"""The page that tells whether embeddings are Gaussian: one HTML file, nothing else.

Pictures are inside it; it needs no network, no scripts and no second file.
"""

import base64
import html
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
from scipy import special, stats

from experiments.gaussianity import samples
from jaxcl.pictures import style

_BLUE, _RED, _GRAY = style.COLORS[0], style.COLORS[6], style.COLORS[9]
_MARKS = {True: "passes", False: "fails", None: "not asked"}


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
      title: heading above it.
      caption: how to read it.
      pngs: one picture, or several side by side where there is room.
    """

    title: str
    caption: str
    pngs: list[bytes]


def pictures(
    *,
    norms: np.ndarray | None,
    z: np.ndarray,
    ad: np.ndarray,
    dp: np.ndarray,
    columns: np.ndarray,
    negative: np.ndarray,
    positive: np.ndarray | None,
    all_pairs: bool,
    eigenvalues: np.ndarray,
    num_rows: int,
    separation: samples.Separation | None,
) -> list[Picture]:
    """Draws all pictures.

    Args:
      norms: of all rows [n]; None where they are equal, and not drawn.
      z: tested rows [m, d].
      ad: Anderson-Darling statistics [d].
      dp: p-values of D'Agostino and Pearson [d].
      columns: numbers of the columns [d].
      negative: histogram of the negatives' cosines over [-1, 1].
      positive: of the positives, or None.
      all_pairs: whether the negatives are all pairs, for want of labels.
      eigenvalues: of the covariance of all rows, the largest first [d].
      num_rows: rows behind the covariance.
      separation: scores of out-of-distribution rows, or None.

    Returns:
      Pictures in the order of the page.
    """
    d = z.shape[1]
    drawn = []
    if norms is not None:
        drawn.append(
            Picture(
                "Norms",
                "Histogram of the norms of all rows. The line is the chi density: "
                f"norms of an isotropic Gaussian in {d} dimensions with the same mean "
                "square.",
                [_norms(norms, d)],
            )
        )
    drawn += [
        Picture(
            "Quantiles",
            "Standardized values against those a Gaussian would have: a straight line "
            "is Gaussian, ends that turn away from it are tails. First the "
            f"best{', the median' if d > 2 else ''} and the worst coordinate by "
            "Anderson-Darling, then all "
            "coordinates together. 95 % of the points of independent Gaussian values "
            "lie inside the gray bands, each point taken by itself.",
            _quantiles(z, ad, columns),
        ),
        Picture(
            "Coordinates",
            "First the Anderson-Darling statistic of each coordinate, sorted; 95 % of "
            "Gaussian coordinates lie below the line. Then p-values of D'Agostino "
            "and Pearson; those of Gaussian coordinates are spread evenly (dashed), "
            "those left of the red line are rejected.",
            [_statistics(ad), _probabilities(dp)],
        ),
        Picture(
            "Cosines",
            ("Cosines of all pairs" if all_pairs else "Cosines of different labels")
            + (" and of positive pairs." if positive is not None else ".")
            + " The line is their density if directions are uniform on the sphere in "
            f"{d} dimensions, in proportion to {_cosine_law(d)}.",
            [_cosines(negative, positive, all_pairs, d)],
        ),
        Picture(
            "Covariance spectrum",
            "Eigenvalues of the covariance divided by their mean, the largest first. "
            "The dashed line (Marchenko-Pastur) is what an isotropic Gaussian gives "
            f"with {num_rows:,} rows.",
            [_spectrum(eigenvalues, num_rows)],
        ),
    ]
    if separation is not None and separation.inside:
        drawn.append(
            Picture(
                "Out of distribution",
                "Strangeness of held-out rows of the file and of the other rows. AUROC "
                "is the chance that a random other row is the stranger of two: 0.5 is "
                "no difference, 1 is complete separation.",
                _separation(separation),
            )
        )
    return drawn


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


def _norms(norms: np.ndarray, d: int) -> bytes:
    figure, axes = _blank()
    unit = np.sqrt(np.square(norms).mean() / d)
    first, last = stats.chi.ppf([1e-5, 1 - 1e-5], d) * unit
    shown = np.linspace(first, last, 300)
    # The farthest thousandth would otherwise squeeze all others into one bar.
    low, high = np.quantile(norms, [5e-4, 1 - 5e-4])
    low, high = min(low, shown[0]), max(high, shown[-1])
    inside = norms[(norms >= low) & (norms <= high)]
    bins = min(80, 5 + int(np.sqrt(len(norms))))
    counts, edges = np.histogram(inside, bins, (low, high))
    axes.stairs(
        counts / (len(norms) * (edges[1] - edges[0])),
        edges,
        fill=True,
        color=style.COLORS[3],
        label="norms",
    )
    axes.plot(
        shown,
        stats.chi.pdf(shown / unit, d) / unit,
        color=_BLUE,
        lw=2,
        label="isotropic Gaussian",
    )
    axes.set(xlabel="norm", ylabel="density", xlim=(low, high))
    if outside := len(norms) - len(inside):
        axes.set_xlabel(f"norm ({outside:,} of {len(norms):,} lie outside)")
    style.legend_above(axes)
    return _png(figure)


def _thinned(n: int, most: int = 400) -> np.ndarray:
    """Order statistics to show: evenly spread in the normal score, all at the ends."""
    if n <= most:
        return np.arange(n)
    scores = np.linspace(special.ndtri(0.5 / n), -special.ndtri(0.5 / n), most)
    places = np.round(special.ndtr(scores) * n - 0.5).astype(int)
    return np.unique(np.clip(places, 0, n - 1))


def _quantiles(z: np.ndarray, ad: np.ndarray, columns: np.ndarray) -> list[bytes]:
    x = (z - z.mean(axis=0)) / z.std(axis=0)
    order = np.argsort(ad)
    chosen = [
        ("best", order[0], style.COLORS[5]),
        ("median", order[len(order) // 2], _BLUE),
        ("worst", order[-1], _RED),
    ]
    if len(order) == 2:
        del chosen[1]  # the median would be the worst again
    panels = [
        [(f"{name}: column {columns[i]}", x[:, i], c) for name, i, c in chosen],
        [("all coordinates", x.ravel(), _BLUE)],
    ]
    drawn = []
    for panel in panels:
        figure, axes = _blank()
        n = len(panel[0][1])
        places = _thinned(n)
        expected = special.ndtri((places + 0.5) / n)
        low, high = (
            special.ndtri(stats.beta.ppf(q, places + 1, n - places))
            for q in (0.025, 0.975)
        )
        axes.fill_between(expected, low, high, color="#CCCCCC", lw=0, label="95 % band")
        axes.plot(expected, expected, color=_GRAY, lw=0.8)
        for (name, values, color), marker in zip(panel, "os^", strict=False):
            shown = np.sort(values)[places]
            axes.plot(expected, shown, marker, color=color, ms=2.5, label=name)
        axes.set(xlabel="Gaussian quantile", ylabel="standardized value")
        style.legend_above(axes)
        drawn.append(_png(figure))
    return drawn


def _whole_numbers() -> ticker.Locator:
    return ticker.MaxNLocator("auto", integer=True, min_n_ticks=1)


def _statistics(ad: np.ndarray) -> bytes:
    figure, axes = _blank()
    places = np.arange(1, len(ad) + 1)
    axes.plot(places, np.sort(ad), "o", color=_BLUE, ms=3, label="Anderson-Darling")
    limit = samples.AD_LIMIT
    axes.axhline(limit, color=_RED, lw=1.5, label=f"limit, {limit}")
    axes.set(xlabel="coordinates, sorted", ylabel="statistic", yscale="log")
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.yaxis.set_major_formatter("{x:g}")
    narrow = ad.max() < 10 * ad.min()
    axes.yaxis.set_minor_formatter("{x:g}" if narrow else ticker.NullFormatter())
    style.legend_above(axes)
    return _png(figure)


def _probabilities(dp: np.ndarray) -> bytes:
    figure, axes = _blank()
    bins = 20
    axes.hist(dp, bins, range=(0, 1), color=style.COLORS[3], label="coordinates")
    axes.axhline(len(dp) / bins, color=_GRAY, ls="--", lw=1.5, label="if Gaussian")
    limit = samples.DP_LIMIT
    axes.axvline(limit, color=_RED, lw=1.5, label=f"limit, {limit}")
    axes.set(xlabel="p of D'Agostino-Pearson", ylabel="coordinates", xlim=(0, 1))
    axes.yaxis.set_major_locator(_whole_numbers())
    style.legend_above(axes)
    return _png(figure)


def cosine_density(x: np.ndarray, d: int) -> np.ndarray:
    """Of the cosine of two independent uniform directions, (1 - x^2)^((d - 3) / 2)."""
    return stats.beta.pdf((x + 1) / 2, (d - 1) / 2, (d - 1) / 2) / 2


def _cosine_law(d: int) -> str:
    return "a constant" if d == 3 else f"(1 - cosine^2)^{(d - 3) / 2:g}"


def _cosines(
    negative: np.ndarray, positive: np.ndarray | None, all_pairs: bool, d: int
) -> bytes:
    figure, axes = _blank()
    edges = np.linspace(-1, 1, len(negative) + 1)
    several = [(negative, style.COLORS[3], "all pairs" if all_pairs else "negatives")]
    if positive is not None:
        several.append((positive, style.COLORS[1], "positives"))
    for counts, color, name in several:
        density = counts / counts.sum() / (edges[1] - edges[0])
        axes.stairs(density, edges, fill=True, color=color, alpha=0.75, label=name)
    x = np.linspace(-1, 1, 1001)[1:-1]  # in two dimensions the ends are infinite
    scale = 1 / np.sqrt(d)
    axes.plot(x, cosine_density(x, d), color=_BLUE, lw=1.5, label="uniform directions")
    seen = np.flatnonzero(sum(c / c.sum() for c, *_ in several) > 1e-4)
    low = min(edges[seen[0]], -4 * scale)
    high = max(edges[seen[-1] + 1], 4 * scale)
    axes.set(xlabel="cosine", ylabel="density", xlim=(max(low, -1), min(high, 1)))
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


def _separation(separation: samples.Separation) -> list[bytes]:
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


def plain_text(results: dict[str, Any]) -> str:
    """The verdict as the terminal shows it."""
    rows, columns = results["rows"], results["columns"]
    lines = [
        f"{results['file']}: {rows['used']:,} of {rows['in_file']:,} rows, "
        f"{columns['tested']:,} of {columns['in_file']:,} columns, {results['dtype']}",
        "",
        results["verdict"]["headline"],
        results["verdict"]["rule"],
        "",
    ]
    for check in results["checks"]:
        lines.append(f"{check['name']} ({_MARKS[check['passed']]}): {check['found']}")
        lines += [f"    {check['means']}", f"    Rule: {check['rule']}."]
    lines += ["", *(f"{line}." for line in beside(results))]
    if results["notes"]:
        lines += ["", *(f"Note: {note}" for note in results["notes"])]
    return "\n".join(
        textwrap.fill(
            line,
            88,
            subsequent_indent="    " if line.startswith(" ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )


def beside(results: dict[str, Any]) -> list[str]:
    """What has no rule: cosines, and how well other embeddings are told apart."""
    cosines, lines = results["cosines"], []
    names = {
        "negative": "all pairs" if cosines["negatives_are_all_pairs"] else "negatives",
        "positive": "positives",
    }
    for kind, name in names.items():
        if cosines[kind]:
            lines.append(
                f"Cosines of {name}: {cosines[kind]['mean']:.3f} on average, standard "
                f"deviation {cosines[kind]['std']:.3f} ({cosines[kind]['pairs']:,} "
                "pairs)"
            )
    lines.append(
        "Cosines of independent isotropic rows: 0, standard deviation "
        f"{cosines['reference_std']:.3f}"
    )
    ood = results["ood"]
    if ood:
        titles = {"gaussian": "Gaussian likelihood", "neighbors": "nearest neighbors"}
        for name, value in ood["auroc"].items():
            lines.append(
                f"Out of distribution by {titles[name]}: "
                + (
                    f"AUROC {value:.3f} (0.5 is chance, +- "
                    f"{2 * ood['chance_std']:.3f} of it is noise; fitted on "
                    f"{ood['num_fitted']:,} rows, {ood['num_held_out']:,} held out, "
                    f"{ood['num_other']:,} others)"
                    if value is not None
                    else f"not computed, {ood['not_computed'][name]}"
                )
            )
    return lines


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 52rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: 6px solid; padding: .3rem 1rem; background: #f6f6f6; }
.yes { border-color: #117733; } .no { border-color: #CC6677; }
.partly { border-color: #DDCC77; } .small { color: #555; font-size: .9rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem; }
img { flex: 1 1 20rem; min-width: 0; max-width: min(100%, 32rem); height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0;
  border-bottom: 1px solid #ddd; overflow-wrap: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.passes { color: #117733; } .fails { color: #a03048; font-weight: bold; }
code, pre { font-size: .85rem; white-space: pre-wrap; }
figure { margin: 0; } figcaption { color: #444; font-size: .9rem; }
"""


def page(results: dict[str, Any], drawn: Sequence[Picture]) -> str:
    """The whole page; whatever came from outside is escaped."""
    e = html.escape
    verdict = results["verdict"]
    color = "no" if not verdict["gaussian"] else "partly"
    color = "yes" if verdict["isotropic_gaussian"] else color
    rows, columns, how = results["rows"], results["columns"], results["how"]
    file = e(results["file"])
    checks = "".join(
        f"<tr><td>{e(c['name'])}</td>"
        f"<td class={_MARKS[c['passed']].split()[0]}>{_MARKS[c['passed']]}</td>"
        f"<td>{e(c['found'])}. {e(c['means'])}"
        f"<div class=small>Rule: {e(c['rule'])}.</div></td></tr>"
        for c in results["checks"]
    )
    left_out = results["notes"] or ["Nothing was left out."]
    figures = "".join(
        f"<h2>{e(p.title)}</h2><figure><div class=pictures>"
        + "".join(
            f"<img alt='{e(p.title)}' "
            f"src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
            for png in p.pngs
        )
        + f"</div><figcaption>{e(p.caption)}</figcaption></figure>"
        for p in drawn
    )
    numbers = "".join(
        f"<tr><td>{e(name)}</td><td class=number>{e(value)}</td></tr>"
        for name, value in _flat(results)
    )
    versions = ", ".join(f"{k} {v}" for k, v in how["versions"].items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gaussianity of {file}</title><style>{_STYLE}</style></head><body>
<h1>Are these embeddings Gaussian?</h1>
<p>{file}: {rows["used"]:,} of {rows["in_file"]:,} rows and {columns["tested"]:,} of
{columns["in_file"]:,} columns, {e(results["dtype"])}</p>
<div class="verdict {color}"><p><b>{e(verdict["headline"])}</b></p>
<p class=small>{e(verdict["rule"])}</p></div>
<h2>Checks</h2><div class=wide><table>{checks}</table></div>
<ul>{_items(f"{line}." for line in beside(results))}</ul>
<h2>Left out, and chosen</h2><ul>{_items(left_out)}</ul>
{figures}
<h2>All numbers</h2><div class=wide><table>{numbers}</table></div>
<h2>Each coordinate</h2>{_per_coordinate(results["per_coordinate"])}
<h2>How it was computed</h2>
<pre>{e(how["command"])}</pre>
<p>Norms, mean, covariance, skewness and kurtosis are those of all
{rows["used"]:,} rows. Tests saw {results["coordinates"]["num_samples"]:,} and cosines
{rows["sampled"]:,} of them, drawn with seed {how["settings"]["seed"]}.
{e(versions)}. {e(how["date"])}, {how["seconds"]} seconds.</p>
</body></html>
"""


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)


def _flat(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of all numbers but those of each coordinate."""
    lines = []
    sections = ("rows", "columns", "norms", "mean", "covariance", "coordinates")
    for section in (*sections, "directions", "joint", "cosines", "ood"):

        def add(name: str, value: Any) -> None:
            if isinstance(value, dict):
                for key, inner in value.items():
                    add(f"{name} {key}", inner)
            elif isinstance(value, float):
                lines.append((name.replace("_", " "), f"{value:.5g}"))
            elif not isinstance(value, str):
                lines.append((name.replace("_", " "), json.dumps(value)))

        add(section, results[section])
    return lines


def _per_coordinate(rows: list[dict[str, Any]]) -> str:
    """The least Gaussian first; the page of many columns shows a hundred."""
    worst = sorted(rows, key=lambda row: -row["ad"])[:100]
    head = "".join(f"<th>{html.escape(k.replace('_', ' '))}</th>" for k in worst[0])
    body = "".join(
        "<tr>"
        + "".join(
            f"<td class=number>{value if isinstance(value, int) else f'{value:.4g}'}"
            "</td>"
            for value in row.values()
        )
        + "</tr>"
        for row in worst
    )
    rest = len(rows) - len(worst)
    more = f" The other {rest} are in results.json." if rest else ""
    return (
        "<p class=small>The least Gaussian first, by Anderson-Darling (ad)."
        f"{more}</p><details><summary>Show</summary><div class=wide><table><tr>{head}"
        f"</tr>{body}</table></div></details>"
    )
