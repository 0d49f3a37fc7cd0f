"""What was measured, as a table and as pictures."""

import dataclasses
import datetime
import pathlib
import platform
import shlex
from collections.abc import Mapping
from typing import Any, get_args

import jax
from matplotlib import ticker

import jaxcl
from experiments.benchmark import peers
from experiments.benchmark.settings import FormName, Settings
from jaxcl import _tables
from jaxcl.pictures import style


def table(rows: list[dict[str, Any]], s: Settings, absent: Mapping[str, str]) -> str:
    """All that was measured, in Markdown, and how."""
    measured = {f for row in rows for f, got in row["forms"].items() if "mib" in got}
    forms = tuple(form for form in s.forms if form in measured)
    limit = any(row["product_flops_per_second"] for row in rows)
    names = ["loss", "n", "form", "time", "of dense", "memory", "of dense"]
    names += ["value", "gradient"] + limit * ["of product limit"]
    lines, notes = [], []
    for row in rows:
        exact = row["forms"].get("dense", {})
        for form in s.forms:
            got = row["forms"].get(form)
            if got is None:
                continue
            cells = [
                number(got, "seconds", "{:.3g} s"),
                number(got, "seconds", "{:.2f}x", exact),
                number(got, "mib", "{:,.1f} MiB"),
                number(got, "mib", "{:.1%}", exact),
                number(got, "value_difference", "{:.0e}"),
                number(got, "gradient_difference", "{:.0e}"),
            ] + limit * [number(got, "of_product_limit", "{:.0%}")]
            if "why_not" in got:
                notes.append(f"- {row['loss']}, {row['n']:,}, {form}: {got['why_not']}")
            lines.append([row["loss"], f"{row['n']:,}", form, *cells])
    text = [
        f"{machine()}; {', '.join(peers.versions(forms))}".rstrip("; "),
        f"    {command(s)}",
        f"Value and gradient, {s.dtype}, d = {s.width}, median of {s.repeats}. Memory "
        "is what is set aside besides inputs and outputs; value and gradient are the "
        "largest relative differences from dense.",
        _tables.markdown(names, lines),
    ]
    if notes:
        text += ["Not measured:", "\n".join(notes)]
    if limit:
        best = max(row["product_flops_per_second"] or 0 for row in rows)
        text.append(
            "Of product limit: multiplications and additions that the loss needs, per "
            f"second, relative to a plain product at the same n (up to {best:.3g}/s)."
        )
    if absent:
        text.append(left_out(absent))
    return "\n\n".join(text) + "\n"


def number(got: dict, key: str, form: str, exact: dict | None = None) -> str:
    value = got.get(key)
    if value is None or (exact is not None and not exact.get(key)):
        return "\N{EN DASH}"
    return form.format(value if exact is None else value / exact[key])


def left_out(absent: Mapping[str, str]) -> str:
    return "Left out: " + ", ".join(f"{form} ({why})" for form, why in absent.items())


def machine() -> str:
    model = platform.processor() or platform.machine()
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        lines = [x for x in path.read_text().splitlines() if x.startswith("model name")]
        if lines:
            model = f"{len(lines)} cores of {lines[0].split(':')[1].strip()}"
    kind = jax.devices()[0].device_kind
    versions = f"jaxcl {jaxcl.__version__}, jax {jax.__version__}"
    return f"{kind}, {model}, {versions}, {datetime.date.today()}"


def command(s: Settings) -> str:
    """The command that measures the same."""
    words = ["python", "-m", "experiments.benchmark"]
    for field in dataclasses.fields(Settings):
        value = getattr(s, field.name)
        if field.name == "directory" or value == getattr(Settings(), field.name):
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{field.name}", *map(str, values)]
    return shlex.join(words)


# Ours and what it is compared with stand out; the rest in the order of the forms.
COLOR_OF = (9, 4, 2, 0, 5, 3, 6, 7)


def plot(
    path: pathlib.Path, rows: list[dict[str, Any]], key: str, label: str, title: str
) -> None:
    """Draws a number of each form against n, one panel for each loss."""
    names = list(dict.fromkeys(row["loss"] for row in rows))
    sizes = sorted({row["n"] for row in rows})
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = style.blank(max(7.7, 3.5 * columns + 0.7), 3.0 * lines + 1.0)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = panels.ravel()
    handles = {}
    for axes, name in zip(panels, names, strict=False):
        for i, form in enumerate(get_args(FormName)):
            points = [
                (row["n"], row["forms"][form][key])
                for row in rows
                if row["loss"] == name and row["forms"].get(form, {}).get(key)
            ]
            if points:
                (handles[form],) = axes.plot(
                    *zip(*points, strict=True),
                    color=style.COLORS[COLOR_OF[i]],
                    marker=style.MARKERS[i % len(style.MARKERS)],
                    lw=2,
                    ms=6,
                )
        style.plain(axes)
        axes.set_title(name, fontsize=12, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.tick_params(labelsize=10, labelbottom=True, labelleft=True)
        axes.tick_params(axis="x", rotation=30 if len(sizes) > 5 else 0)
        axes.set_xlabel("number of anchors n", fontsize=11)
        axes.set_ylabel(label, fontsize=11)
        axes.xaxis.set_major_locator(ticker.FixedLocator(sizes))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    for axes in panels[len(names) :]:
        axes.axis("off")
    place: Any = "outside lower left"
    figure.legend(
        handles.values(), handles.keys(), loc=place, ncols=5, frameon=False, fontsize=11
    )
    style.heading(figure, title)
    style.save(figure, path)
