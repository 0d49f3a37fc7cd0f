"""Time and memory of the losses against their dense forms and other packages.

python -m experiments.benchmark
python -m experiments.benchmark --sizes 16384 --losses nt_xent clip --repeats 9
python -m experiments.benchmark --forms dense jaxcl --directory runs/two_forms
python -m experiments.benchmark loop                # of a script, against its step
python -m experiments.benchmark chunks              # of a batch, against its memory
python -m experiments.benchmark reading --source tfds:NAME     # against the disk

Each line is the value and the gradient of a mean loss of embeddings that are not
normalized beforehand. Repeats of all forms are interleaved, so that whatever else
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

import dataclasses
import datetime
import gc
import os
from typing import Any

import jax
import tqdm

from experiments.benchmark import chunks, loop, measure, peers, reading, report
from experiments.benchmark.settings import Settings
from jaxcl import _checks, _cli, _files, _rules, _text
from jaxcl.pictures import style

FILES = ("results.json", "benchmark.md", "time.png", "memory.png")


def main(s: Settings) -> list[dict[str, Any]]:
    # JAX would take most of a GPU for itself, and torch could not run beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _rules.check(s)
    wide = s.dtype == "float32"
    _rules.unread(s, "precision", unless=wide, which="dtype 'float32'")
    for n in s.sizes:
        _checks.divisible("sizes", n, 2, "2 views of an example")
    now = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
    directory = s.directory or f"runs/benchmark/{now}"
    for name in FILES:
        home = _files.check_new("directory", directory, holds=name)
    found: dict[str, str | None] = {form: peers.why_absent(form) for form in s.forms}
    absent = {form: why for form, why in found.items() if why is not None}
    if absent:
        print(report.left_out(absent))
    forms = [form for form in s.forms if form not in absent]
    peers.set_precision(s.precision, forms)
    # Products of bfloat16 are exact whatever is asked.
    precision = s.precision if wide else "default"

    rows = []
    cases = [(name, n) for name in s.losses for n in s.sizes]
    with jax.default_matmul_precision(precision):
        for name, n in tqdm.tqdm(cases, unit="case", file=_text.TERMINAL):
            rows.append(measure.measure(name, n, s, forms))
            gc.collect()  # what a case held must not stand in the way of the next

    text = report.table(rows, s, absent)
    print(f"\n{text}")
    machine = report.machine()
    pictures = "\n![time](time.png)\n\n![memory](memory.png)\n"
    _files.write_text(home / "benchmark.md", f"{text}{pictures}")
    record = {"machine": machine, "settings": dataclasses.asdict(s), "rows": rows}
    _files.write_json(home / "results.json", record)
    title = f"Value and gradient, {s.dtype}, d = {s.width}\n{machine}"
    style.attempt(report.plot, home / "time.png", rows, "seconds", "time (s)", title)
    style.attempt(report.plot, home / "memory.png", rows, "mib", "memory (MiB)", title)
    print(f"In {home}: {', '.join(FILES)}")
    return rows


def cli() -> None:
    _cli.run(
        None,
        {
            "losses": _cli.Command(Settings, main),
            "chunks": _cli.Command(chunks.Settings, chunks.main),
            "loop": _cli.Command(loop.Settings, loop.main),
            "reading": _cli.Command(reading.Settings, reading.main),
        },
        prog="python -m experiments.benchmark",
        default="losses",
    )


if __name__ == "__main__":
    cli()
