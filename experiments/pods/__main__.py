"""What a loss or a step of training costs on a pod, planned on a laptop.

python -m experiments.pods                              # NT-Xent on four v5e
python -m experiments.pods --topology v5e:8x8 --problem clip --n 262144 --d 512
python -m experiments.pods --topology v5e:16x16 --mesh 16x16 --problem clip --n 1048576
python -m experiments.pods --topology h100:8 --problem nt_xent --n 262144
python -m experiments.pods --problem simclr --chips 1 --n 512
python -m experiments.pods --topology v5e:8x8 --problem simclr --n 4096 \\
    --encoder resnet50 --size 224
python -m experiments.pods --topology v5e:16x16 --problem towers --n 32768 --size 224
python -m experiments.pods table --problems nt_xent clip --exchanges gather ring
python -m experiments.pods summary runs/pods/*          # one line for each plan
python -m experiments.pods blocks --rows 512 1024       # kernels for TPU by their size

The compilers of Google (pip install 'jaxcl[aot]') and NVIDIA (pip install
'jax[cuda12]') make the very program that would run, and need no chip for it. It tells
memory and collectives as they are, and time as an estimate. A loss takes seconds to
compile, a step minutes; --part compiles a part of a step.
"""

import datetime
import gzip
from typing import Any

from experiments.pods import blocks, plan, problems, report, summary, table
from experiments.pods.settings import Settings
from jaxcl import _cli, _files, _rules

FILES = ("results.json", "plan.md", "program.txt.gz")
# Settings that a loss, or a step of one kind, does not look at.
OF_STEPS = "part size chunks"
OF_SIMCLR = "encoder gradients"
OF_TOWERS = "depth width length"


def main(s: Settings) -> dict[str, Any]:
    _rules.check(s)
    steps = s.problem not in problems.LOSSES
    _rules.unread(s, OF_STEPS, unless=steps, which="a step")
    _rules.unread(s, OF_SIMCLR, unless=s.problem == "simclr", which="'simclr'")
    _rules.unread(s, OF_TOWERS, unless=s.problem == "towers", which="'towers'")
    _rules.unread(s, "d", unless=s.problem != "simclr", which="a loss or 'towers'")
    now = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
    directory = s.directory or f"runs/pods/{now}"
    for name in FILES:
        home = _files.check_new("directory", directory, holds=name)
    found = plan.make(s)
    program = gzip.compress(found.pop("text").encode())
    written = report.text(found)
    print(f"\n{written}")
    with _files.replacing(home / FILES[2]) as path:
        path.write_bytes(program)
    _files.write_json(home / "results.json", found)
    _files.write_text(home / "plan.md", written)
    print(f"In {home}: {', '.join(FILES)}")
    return found


def cli() -> None:
    _cli.run(
        None,
        {
            "plan": _cli.Command(Settings, main),
            "table": _cli.Command(table.Table, table.main),
            "blocks": _cli.Command(blocks.Blocks, blocks.main),
            "summary": _cli.Command(summary.Summary, summary.main),
        },
        prog="python -m experiments.pods",
        default="plan",
    )


if __name__ == "__main__":
    cli()
