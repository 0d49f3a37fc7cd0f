"""How fast a training is fed from a prepared set, against plain reading of its files.

python -m experiments.benchmark reading --source tfds:NAME

Feeding is `data.feed`: records in the order of an epoch, decoded, put on the devices.
Plain reading is array_record's own, with nothing decoded: of records at random, which
is the least that a shuffled epoch needs, and of one after the other. All are
interleaved, so that whatever else the machine does hits all of them. The system keeps
in memory what it has read; `--cold` asks it to drop the files before each turn.
"""

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import jax
import numpy as np

import jaxcl
from experiments.benchmark import report
from jaxcl import _files, _optional, _rules, _tables, data


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures feeding from a prepared set against plain reading of its files."""

    source: str
    """A set that `jaxcl prepare` has made: tfds:NAME, or its directory."""
    directory: str = "runs/benchmark_reading"
    """Where reading.md and results.json go."""
    split: str = "train"
    """A whole split of the set."""
    batch_size: _rules.Several = 256
    """Images per step, over all devices."""
    steps: _rules.Count = 20
    """Batches in each turn."""
    turns: _rules.Count = 5
    """Turns of each way; times are their medians."""
    threads: Annotated[tuple[_rules.Count, ...], _rules.Different] = (1, 2)
    """Threads that feed; more than one need Grain."""
    cold: bool = False
    """Whether files are dropped from memory before each turn (Linux)."""


def main(s: Settings) -> list[dict[str, Any]]:
    _rules.check(s)
    home = _files.check_new("directory", s.directory)
    module = _optional.require("array_record.python.array_record_module", "it", "data")
    before = anonymous()
    images = data.open(s.source, s.split)
    column: Any = images.columns["image"]
    if not hasattr(column, "column"):
        raise ValueError(f"source must be a prepared set, got {s.source!r}")
    found = column.column.directory.glob(f"*-{s.split}.array_record*")
    paths = [str(path) for path in sorted(found)]
    readers = [module.ArrayRecordReader(path) for path in paths]
    ends = np.cumsum([0, *(reader.num_records() for reader in readers)])
    n, b = data.size(images), s.batch_size
    if ends[-1] != n:
        raise ValueError(f"split must be a whole one, got {s.split!r}")
    index = data.batches(data.from_arrays("", np.zeros((n, 1, 1), np.uint8)), b, 0)
    _, rows, _ = jaxcl.data_parallel()

    def at_random(step: int) -> None:
        wanted = index(step)["index"]
        for k, reader in enumerate(readers):
            own = wanted[(ends[k] <= wanted) & (wanted < ends[k + 1])] - ends[k]
            if len(own):
                reader.read(own.tolist())

    def in_order(step: int) -> None:
        k = step % len(readers)
        count = int(ends[k + 1] - ends[k])
        first = step // len(readers) * b % max(1, count - b)
        readers[k].read(first, min(first + b, count))

    def fed(threads: int) -> Callable[[int], Any]:
        feed = data.feed(images, b, 0, rows, on_device=False, threads=threads)
        return lambda step: jax.block_until_ready(feed(step))

    ways: dict[str, Callable[[int], Any]] = {
        "plain, in order": in_order,
        "plain, at random": at_random,
        **{f"fed, {_count(t)}": fed(t) for t in s.threads},
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(s.turns + 1):
        for name, way in ways.items():
            if s.cold:
                drop(paths)
            wall, cpu = time.perf_counter(), time.process_time()
            for step in range(turn * s.steps, (turn + 1) * s.steps):
                way(step)
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            if turn:  # the first one opens files and starts threads
                times[name].append(took)

    examples, size = s.steps * b, data.size_in_bytes(images) / n
    lines = [_line(name, times, examples, size) for name in ways]
    rows_of = [[str(value) for value in line.values()] for line in lines]
    text = (
        f"{images.name}: {n:,} images of {size / 1e3:.1f} kB, "
        f"{n * size / 1e6:,.0f} MB; the process holds "
        f"{(anonymous() - before) / 1e6:,.0f} MB more than before it opened them.\n\n"
        f"{_tables.markdown(list(lines[0]), rows_of)}\n\n{report.machine()}\n"
    )
    print(f"\n{text}")
    _files.write_text(home / "reading.md", text)
    record = {"settings": dataclasses.asdict(s), "rows": lines}
    _files.write_json(home / "results.json", record)
    return lines


def _line(
    name: str, times: dict[str, list[tuple[float, float]]], examples: int, size: float
) -> dict[str, Any]:
    wall, cpu = (statistics.median(of) for of in zip(*times[name], strict=True))
    # Turn by turn: what slows one down slows its neighbors as well.
    least = times["plain, at random"]
    ratio = statistics.median(
        a[0] / b[0] for a, b in zip(least, times[name], strict=True)
    )
    return {
        "images": name,
        "per second": f"{examples / wall:,.0f}",
        "MB/s": f"{examples * size / wall / 1e6:,.0f}",
        "of plain, at random": f"{ratio:.2f}",
        "CPU µs each": f"{cpu / examples * 1e6:.0f}",
    }


def _count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def anonymous() -> int:
    """Bytes that this process holds and no file does; 0 where that is not known."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("RssAnon")]
    return int(found[0].split()[1]) * 1024 if found else 0


def drop(paths: list[str]) -> None:
    """Asks the system to keep nothing of files that it has read."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
