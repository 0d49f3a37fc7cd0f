"""All that should be seen on a GPU, in one command: `make gpu`.

python -m experiments.gpu
python -m experiments.gpu --cifar10 tfds:cifar10    # or any prepared directory
python -m experiments.gpu --rehearse                # tiny, on whatever is here

The benchmark of losses in float32 and bfloat16; SimCLR of a ResNet-18 on CIFAR-10 and
its probe; and whether embeddings of images are Gaussian. Each part is a command of its
own, in a process of its own, which has the card to itself; parts that are done are not
run again. Their tables make one page in docs/benchmark, named after the card.
"""

import dataclasses
import datetime
import json
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from jaxcl import _cli, _files


@dataclasses.dataclass(frozen=True)
class Settings:
    """Runs benchmark, CIFAR-10 and Gaussianity on a GPU; writes a page of tables."""

    cifar10: str = ""
    """CIFAR-10: "tfds:cifar10", or a prepared directory; without it SimCLR is left out,
    and Gaussianity is of the digits."""
    directory: str = "runs/gpu"
    """Where each card has a directory for its runs."""
    pages: str = "docs/benchmark"
    """Where the page goes; that of a rehearsal goes with its runs."""
    rehearse: bool = False
    """Runs the same parts at tiny sizes, on a CPU too; numbers mean nothing."""


class Part(NamedTuple):
    """A command, and whether what it prints belongs on the page."""

    name: str
    title: str
    words: list[str]
    shown: bool = True


# One process asks, since whoever has asked keeps memory of the card.
_ASK = """
import json, jax
d = jax.devices()[0]
version = d.client.platform_version.splitlines()[-1]
print(json.dumps([d.platform, d.device_kind, f"jax {jax.__version__}, {version}"]))
"""


def ask_machine() -> tuple[str, str, str]:
    """The platform, the name of the card, and versions, with that of its driver."""
    answer = subprocess.run([sys.executable, "-c", _ASK], stdout=subprocess.PIPE)
    if answer.returncode:
        raise OSError("JAX finds no device that it can use; its message is above")
    platform, card, versions = json.loads(answer.stdout.splitlines()[-1])
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True)
        versions += f", driver {found.stdout.split()[0]}"
    except (OSError, subprocess.CalledProcessError, IndexError):
        pass  # a card of another make, or none
    return platform, card, versions


def parts(s: Settings, home: pathlib.Path) -> Iterator[Part]:
    """The commands, with directories in `home`."""
    sizes, steps, probe = "--sizes 4096 8192 16384 32768 65536 --width 512", "", ""
    sizes += " --block 4096 --repeats 9"
    small = "--width 64 --batch_size 512 --epochs 200 --warmup_epochs 10"
    epochs = "--width 64 --batch_size 256 --epochs 100"
    if s.rehearse:
        sizes = "--sizes 64 128 --width 16 --block 32 --repeats 1 --losses nt_xent clip"
        small = "--width 2 --batch_size 64 --epochs 1 --warmup_epochs 0"
        steps, probe = "--max_steps 2 --embedding 8 --monitors knn", "--no-linear"
        epochs = "--width 2 --dimension 16 --batch_size 512 --epochs 1"
        epochs += " --measurements 1 --max_samples 200"
    forms = "--forms dense jaxcl scan lightly open_clip metric_learning inf_cl"

    def part(name: str, title: str, script: str, flags: str, **options: bool) -> Part:
        words = shlex.split(f"-m experiments.{script} {flags}")
        if script != "linear_probe":
            words += ["--directory", f"{home}/{name}"]
        return Part(name, title, words, **options)

    for dtype in ("float32", "bfloat16"):
        title, flags = f"Losses, {dtype}", f"{sizes} {forms} --dtype {dtype}"
        yield part(f"benchmark_{dtype}", title, "benchmark", flags)
    photographs = ""
    if s.cifar10:
        source = f"--source {shlex.quote(s.cifar10)} --encoder resnet18"
        photographs = f"{source} --augmentation photographs"
        flags = f"{photographs} --pixels cifar --dtype bfloat16 {small} {steps}"
        yield part("simclr", "SimCLR on CIFAR-10", "simclr", flags, shown=False)
        flags = f"{shlex.quote(f'{home}/simclr')} {probe}"
        yield part("probe", "SimCLR on CIFAR-10, probed", "linear_probe", flags)
    title = f"Gaussianity of embeddings, {'CIFAR-10' if s.cifar10 else 'digits'}"
    if not s.cifar10 and not s.rehearse:
        epochs = ""
    flags = f"images {photographs} {epochs}"
    yield part("gaussianity", title, "gaussianity", flags)


def run(part: Part, home: pathlib.Path) -> tuple[str, bool]:
    """Runs a part that has not been; returns its section, and whether it succeeded."""
    command = f"    {shlex.join(['python', *part.words])}\n"
    done = home / f"{part.name}.txt"
    start = f"## {part.title}\n\n{command}"
    if done.exists() and done.read_text().startswith(start):
        print(f"{part.title}: done before, {done}")
        return done.read_text(), True
    print(f"\n{part.title}:\n{command}", flush=True)
    began = time.perf_counter()
    got = subprocess.run(
        [sys.executable, *part.words], stdout=subprocess.PIPE, text=True
    )
    print(got.stdout, flush=True)
    if got.returncode:
        return f"{start}\nFailed, exit code {got.returncode}.\n", False
    # Where files are is of no use on a page, and the command says it.
    lines = got.stdout.splitlines()
    kept = "\n".join(x for x in lines if not re.match(r"In .*: |    python ", x))
    text = f"{kept.strip()}\n" if part.shown else ""
    minutes = (time.perf_counter() - began) / 60
    section = f"{start}\n{minutes:.1f} minutes, compilation included.\n\n{text}"
    _files.write_text(done, section)
    return section, True


def main(s: Settings) -> pathlib.Path:
    platform, card, versions = ask_machine()
    if platform != "gpu" and not s.rehearse:
        raise OSError(f"JAX sees no GPU here, but {card} on platform {platform!r}")
    name = re.sub(r"\W+", "_", card.lower()).strip("_")
    name += "_rehearsal" if s.rehearse else ""
    home = pathlib.Path(s.directory) / name
    page = (home if s.rehearse else pathlib.Path(s.pages)) / f"{name}.md"
    sections, failed = [], []
    if not s.cifar10:
        why = "SimCLR on CIFAR-10 was left out: `make gpu CIFAR10=...` adds it."
        print(why)
        sections.append(f"{why}\n")
    for part in parts(s, home):
        section, is_done = run(part, home)
        sections.append(section)
        if not is_done:
            failed.append(part.title)
        head = f"# {card}\n\n{versions}, {datetime.date.today()}, by `make gpu`\n"
        _files.write_text(page, "\n".join([head, *sections]))
    print(f"\nIn {page}")
    if failed:
        raise OSError(f"failed: {', '.join(failed)}; the same command tries them again")
    return page


if __name__ == "__main__":
    _cli.run(main, Settings, prog="python -m experiments.gpu")
