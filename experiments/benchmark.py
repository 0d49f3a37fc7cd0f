"""Time and memory of the losses against their dense forms and other packages.

python -m experiments.benchmark
python -m experiments.benchmark --sizes 16384 --losses nt_xent clip --repeats 9
python -m experiments.benchmark --forms dense jaxcl --directory runs/two_forms

Each line is the value and the gradient of a mean loss of float32 embeddings that are
not normalized beforehand. Repeats of all forms are interleaved, so that whatever else
the machine does hits all of them. Times are medians; memory is what XLA, or torch on a
GPU, sets aside besides inputs and outputs. The forms:

    dense            jitted jnp that holds all pairs; the others are compared with it
    jaxcl            this package
    scan             jax.lax.scan over blocks of rows, each under jax.checkpoint
    optax            optax.losses.ntxent, jitted
    lightly          lightly.loss.NTXentLoss
    open_clip        open_clip.loss.ClipLoss and SigLipLoss
    metric_learning  pytorch_metric_learning.losses.SupConLoss
    inf_cl           the kernel of Inf-CL, on CUDA only; its products are always TF32

The last four are torch, eager, and are left out where they are not installed.
"""

import contextlib
import dataclasses
import datetime
import functools
import gc
import json
import os
import pathlib
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro
from matplotlib import figure as mpl_figure
from matplotlib import ticker

import jaxcl
from experiments import peers

LossName = Literal["nt_xent", "clip", "sup_con", "kernel_sum", "siglip"]
FormName = Literal[
    "dense",
    "jaxcl",
    "scan",
    "optax",
    "lightly",
    "open_clip",
    "metric_learning",
    "inf_cl",
]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compares forms of losses; writes a table in Markdown, two plots and JSON."""

    losses: tuple[LossName, ...] = get_args(LossName)
    """Losses to measure."""
    forms: tuple[FormName, ...] = get_args(FormName)
    """Forms to measure."""
    sizes: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Numbers n of anchors; even."""
    width: int = 256
    """Size d of the embeddings."""
    repeats: int = 3
    """Measurements of each form, interleaved."""
    tile: int | None = None
    """Edge of a tile of jaxcl; None is chosen."""
    block: int = 512
    """Rows at a time of the form with scan; at most n, and n is a multiple of it."""
    dense_limit: int | None = None
    """Largest n of the forms that hold all pairs: dense and torch but for inf_cl."""
    optax_limit: int = 1024
    """Largest n of optax, which holds n * n * d numbers: 12 GiB for n = 2048."""
    precision: Literal["float32", "tensorfloat32"] = "float32"
    """Precision of matrix products; the same on a CPU."""
    matmul_limit: Literal["auto", "yes", "no"] = "auto"
    """Also measure a matrix product, as a limit; auto does so on an accelerator."""
    directory: str | None = None
    """Where to write; None is a new folder in runs/benchmark named by date and time."""


def prepare(form: str, name: str, arrays: list[np.ndarray], s: Settings) -> peers.Run:
    """Makes a form of a loss ready to run; `NotRun` says why it should not."""
    n = arrays[0].size // s.width
    holds_all = form in ("dense", "lightly", "open_clip", "metric_learning")
    if holds_all and s.dense_limit is not None and n > s.dense_limit:
        raise peers.NotRun(f"not run above n = {s.dense_limit:,} (--dense-limit)")
    if form == "optax" and n > s.optax_limit:
        raise peers.NotRun(f"not run above n = {s.optax_limit:,} (--optax-limit)")
    if form == "jaxcl":
        ours = peers.LOSSES[name].ours
        return peers.jax_run(lambda *z: ours(*z, tile=s.tile).mean(), arrays)
    if form == "dense":
        return peers.jax_run(functools.partial(peers.dense, name), arrays)
    if form == "scan":
        return peers.jax_run(functools.partial(peers.scan, name, s.block), arrays)
    if form == "optax":
        return peers.jax_run(peers.optax_nt_xent, arrays)
    return peers.torch_run(peers.torch_loss(form, name, n), arrays)


def measure(name: str, n: int, s: Settings, forms: Sequence[str]) -> dict[str, Any]:
    """Measures forms of one loss at one size, interleaved."""
    arrays = peers.make_inputs(name, n, s.width)
    runs: dict[str, peers.Run] = {}
    results: dict[str, Any] = {}
    row: dict[str, Any] = {}
    for form in forms:
        if form in peers.PEERS and name not in peers.PEERS[form].losses:
            continue
        # Ours may run out of memory; another package may fail in any way, and the
        # rest is still worth measuring.
        ours = (peers.NotRun, MemoryError, jax.errors.JaxRuntimeError)
        try:
            run = prepare(form, name, arrays, s)
            results[form] = run.fetch(run.run())
            runs[form] = run
        except Exception as error:
            if form not in peers.PEERS and not isinstance(error, ours):
                raise
            row[form] = {"why_not": reason(error)}
    accelerated = jax.default_backend() != "cpu"
    if s.matmul_limit == "yes" or (s.matmul_limit == "auto" and accelerated):
        x = arrays[0].reshape(-1, s.width)
        shapes = [x, np.ascontiguousarray(x[:8192].T)]
        with contextlib.suppress(peers.NotRun, jax.errors.JaxRuntimeError):
            product = peers.jax_run(jnp.matmul, shapes, gradient=False)
            product.run()
            runs["product"] = product
    seconds: dict[str, list[float]] = {form: [] for form in runs}
    previous = None
    for _ in range(s.repeats):
        for form, run in runs.items():
            # Other packages leave gigabytes to give back, or threads that still spin:
            # a second of untimed runs keeps that out of the next time.
            rest = time.perf_counter() + (previous in peers.PEERS)
            while time.perf_counter() < rest:
                run.run()
            previous = form
            began = time.perf_counter()
            run.run()
            seconds[form].append(time.perf_counter() - began)
    flops = None
    if "product" in runs:
        flops = 2 * n * min(n, 8192) * s.width / float(np.median(seconds["product"]))
        del runs["product"]
    useful = peers.LOSSES[name].products * 2 * n * n * s.width
    for form, run in runs.items():
        taken = float(np.median(seconds[form]))
        peak = run.peak_bytes()
        row[form] = {
            "seconds": taken,
            "mib": None if peak is None else peak / 2**20,
            "of_product_limit": None if flops is None else useful / taken / flops,
            **differences(results[form], results.get("dense")),
        }
    return {"loss": name, "n": n, "product_flops_per_second": flops, "forms": row}


def reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if "out of memory" in text.lower() or "RESOURCE_EXHAUSTED" in text:
        return "out of memory"
    if isinstance(error, peers.NotRun):
        return text
    return f"{type(error).__name__}: {text}"[:200]


def differences(result: Any, exact: Any) -> dict[str, float | None]:
    """Relative differences of value and gradients from those of the dense form."""
    if exact is None:
        return {"value_difference": None, "gradient_difference": None}
    return {
        "value_difference": abs(float(result[0]) / float(exact[0]) - 1),
        "gradient_difference": max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(result[1], exact[1], strict=True)
        ),
    }


# The table.


def table(rows: list[dict[str, Any]], s: Settings, absent: Mapping[str, str]) -> str:
    """All that was measured, in Markdown, and how."""
    measured = {f for row in rows for f, got in row["forms"].items() if "mib" in got}
    forms = tuple(form for form in s.forms if form in measured)
    limit = any(row["product_flops_per_second"] for row in rows)
    names = ["loss", "n", "form", "time", "of dense", "memory", "of dense"]
    names += ["value", "gradient"] + limit * ["of product limit"]
    lines = [
        f"{machine()}; {', '.join(peers.versions(forms))}".rstrip("; "),
        "",
        f"    {command(s)}",
        "",
        f"Value and gradient, float32, d = {s.width}, median of {s.repeats}. Memory is "
        "what is set aside besides inputs and outputs; value and gradient are the "
        "largest relative differences from dense.",
        "",
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
    ]
    notes = []
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
            start = f"{row['loss']} | {row['n']:,} | {form}"
            lines.append(f"| {start} | {' | '.join(cells)} |")
    if notes:
        lines += ["", "Not measured:", "", *notes]
    if limit:
        best = max(row["product_flops_per_second"] or 0 for row in rows)
        lines += [
            "",
            "Of product limit: multiplications and additions that the loss needs, per "
            f"second, relative to a plain product at the same n (up to {best:.3g}/s).",
        ]
    if absent:
        lines += ["", left_out(absent)]
    return "\n".join(lines) + "\n"


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
        flag = field.name.replace("_", "-")
        if field.name == "directory" or value == getattr(Settings(), field.name):
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{flag}", *map(str, values)]
    return shlex.join(words)


# The plots.

# Okabe and Ito's colors, which stay apart for color-blind readers; shapes help.
STYLES = {
    "dense": ("#555555", "s"),
    "jaxcl": ("#D55E00", "o"),
    "scan": ("#0072B2", "^"),
    "optax": ("#009E73", "D"),
    "lightly": ("#CC79A7", "v"),
    "open_clip": ("#56B4E9", "P"),
    "metric_learning": ("#E69F00", "X"),
    "inf_cl": ("#000000", "*"),
}


def plot(
    path: pathlib.Path, rows: list[dict[str, Any]], key: str, label: str, title: str
) -> None:
    """Draws a number of each form against n, one panel for each loss."""
    names = list(dict.fromkeys(row["loss"] for row in rows))
    sizes = sorted({row["n"] for row in rows})
    columns = min(3, len(names))
    # The legend has a panel of its own, below or in the corner that is left.
    lines = -(-(len(names) + 1) // columns)
    size = (3.5 * columns + 0.7, 3.0 * lines + 0.4)
    figure = mpl_figure.Figure(size, dpi=150, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = panels.ravel()
    handles = {}
    for axes, name in zip(panels, names, strict=False):
        for form, (color, marker) in STYLES.items():
            points = [
                (row["n"], row["forms"][form][key])
                for row in rows
                if row["loss"] == name and row["forms"].get(form, {}).get(key)
            ]
            if points:
                (handles[form],) = axes.plot(
                    *zip(*points, strict=True), color=color, marker=marker, lw=2, ms=6
                )
        axes.set_title(name, fontsize=12, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(color="#DDDDDD", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
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
    panels[len(names)].legend(
        handles.values(), handles.keys(), loc="upper left", frameon=False, fontsize=12
    )
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.savefig(path)


def main(s: Settings) -> list[dict[str, Any]]:
    # JAX would take most of a GPU for itself, and torch could not run beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    for n in s.sizes:
        if n < 2 or n % 2:
            raise ValueError(f"sizes must be even, at least 2, got {n}")
    now = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
    directory = pathlib.Path(s.directory or f"runs/benchmark/{now}")
    files = [directory / f"benchmark.{end}" for end in ("md", "json")]
    files += [directory / "time.png", directory / "memory.png"]
    for path in files:
        if path.exists():
            raise FileExistsError(f"directory must be new, and {path} exists")
    found: dict[str, str | None] = {form: peers.why_absent(form) for form in s.forms}
    absent = {form: why for form, why in found.items() if why is not None}
    if absent:
        print(left_out(absent))
    forms = [form for form in s.forms if form not in absent]
    peers.set_precision(s.precision, forms)

    rows = []
    cases = [(name, n) for name in s.losses for n in s.sizes]
    with jax.default_matmul_precision(s.precision):
        for name, n in tqdm.tqdm(cases, unit="case"):
            rows.append(measure(name, n, s, forms))
            gc.collect()  # what a case held must not stand in the way of the next

    text = table(rows, s, absent)
    print(f"\n{text}")
    directory.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "settings": dataclasses.asdict(s), "rows": rows}
    files[0].write_text(f"{text}\n![time](time.png)\n\n![memory](memory.png)\n")
    files[1].write_text(json.dumps(record, indent=2) + "\n")
    title = f"Value and gradient, float32, d = {s.width}\n{machine()}"
    plot(files[2], rows, "seconds", "time (s)", title)
    plot(files[3], rows, "mib", "memory (MiB)", title)
    print(f"Written to {directory}: {', '.join(path.name for path in files)}")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Settings))
