"""The page that tells whether embeddings are Gaussian: one HTML file, nothing else.

Pictures are inside it; it needs no network, no scripts and no second file.
"""

import base64
import importlib.resources
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from jaxcl import _text
from jaxcl.report import pictures, results

_MARKS = {True: "passes", False: "fails", None: "not asked"}


def html(said: results.Results, drawn: Sequence[pictures.Picture]) -> str:
    """The whole page, `page.html.j2` filled in; whatever came from outside is escaped.

    Args:
      said: the results.
      drawn: the pictures.

    Returns:
      HTML.
    """
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = importlib.resources.files("jaxcl.report") / "page.html.j2"
    x, verdict = said.numbers, said.verdict
    color = "no" if not verdict.gaussian else "partly"
    # The page of many columns shows a hundred.
    worst = sorted(x.per_coordinate, key=lambda coordinate: -coordinate.ad)[:100]
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        x=x,
        checks=said.checks,
        verdict=verdict,
        how=said.how,
        pictures=drawn,
        color="yes" if verdict.isotropic_gaussian else color,
        marks=_MARKS,
        beside=beside(x),
        all_numbers=_all_numbers(x),
        worst=worst,
        rest=len(x.per_coordinate) - len(worst),
        thousands=_thousands,
        short=_short,
        base64=_base64,
    )


def plain_text(said: results.Results) -> str:
    """The verdict as the terminal shows it."""
    x, rows, columns = said.numbers, said.numbers.rows, said.numbers.columns
    lines = [
        f"{x.file}: {rows.used:,} of {rows.in_file:,} rows, "
        f"{columns.tested:,} of {columns.in_file:,} columns, {x.dtype}",
        "",
        said.verdict.headline,
        said.verdict.rule,
        "",
    ]
    for check in said.checks:
        lines.append(f"{check.name} ({_MARKS[check.passed]}): {check.found}")
        lines += [f"    {check.means}", f"    Rule: {check.rule}."]
    lines += ["", *(f"{line}." for line in beside(x))]
    if x.notes:
        lines += ["", *(f"Note: {note}" for note in x.notes)]
    lines = [_text.printable(line) for line in lines]
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


def beside(x: results.Numbers) -> list[str]:
    """What has no rule: cosines, and how well other embeddings are told apart."""
    lines = []
    negatives = "all pairs" if x.cosines.negatives_are_all_pairs else "negatives"
    for name, of in (
        (negatives, x.cosines.negative),
        ("positives", x.cosines.positive),
    ):
        if of is not None:
            lines.append(
                f"Cosines of {name}: {of.mean:.3f} on average, standard deviation "
                f"{of.std:.3f} ({of.pairs:,} pairs)"
            )
    lines.append(
        "Cosines of independent isotropic rows: 0, standard deviation "
        f"{x.cosines.reference_std:.3f}"
    )
    if x.ood is not None:
        titles = {"gaussian": "Gaussian likelihood", "neighbors": "nearest neighbors"}
        for name, value in x.ood.auroc.items():
            found = "not computed, " + x.ood.not_computed.get(name, "")
            if value is not None:
                found = (
                    f"AUROC {value:.3f} (0.5 is chance, +- {2 * x.ood.chance_std:.3f} "
                    f"of it is noise; fitted on {x.ood.num_fitted:,} rows, "
                    f"{x.ood.num_held_out:,} held out, {x.ood.num_other:,} others)"
                )
            lines.append(f"Out of distribution by {titles[name]}: {found}")
    return lines


def _all_numbers(x: results.Numbers) -> list[tuple[str, str]]:
    """Name and value of all numbers but those of each coordinate."""
    found, lines = results.plain(x), []
    sections = ("rows", "columns", "norms", "mean", "covariance", "coordinates")
    for section in (*sections, "directions", "joint", "cosines", "ood", "hints"):

        def add(name: str, value: Any) -> None:
            if isinstance(value, dict):
                for key, inner in value.items():
                    add(f"{name} {key}", inner)
            elif isinstance(value, float):
                lines.append((name.replace("_", " "), f"{value:.5g}"))
            elif not isinstance(value, str):
                lines.append((name.replace("_", " "), json.dumps(value)))

        add(section, found[section])
    return lines


def _thousands(value: int) -> str:
    return f"{value:,}"


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _base64(png: bytes) -> markupsafe.Markup:
    return markupsafe.Markup(base64.b64encode(png).decode())


def _printable(value: Any) -> Any:
    """What a reader can see, of text that is not HTML already."""
    return _text.printable(value) if type(value) is str else value
