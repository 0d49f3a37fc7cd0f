"""Instruction bundles of TPU kernels, counted in the final schedule.

The compiler gives a Pallas kernel no estimate. What a core issues is in its own
listing, which it writes if told so before it is loaded (`dump_to`). A bundle takes a
cycle or more: waits for memory, and of the matrix unit, are not in it.
"""

import os
import pathlib
import re
from typing import NamedTuple

_LINE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(LH|LB|LE|PB|PF|CT)?\s*:\s*((?:>\s?)*)\{")
_FINAL = "final_bundles.txt"


class Schedule(NamedTuple):
    """A kernel as it is issued.

    Attributes:
      name: of the kernel.
      total: bundles in all.
      body: of those, inside the loop over the grid. Branches that exclude each other
        are all in it.
      pieces: lengths of straight code in the body, the longest first; a branch jumps
        over whole pieces.
      steps: of the loop; the grid's, and two to fill and drain. None: not told.
    """

    name: str
    total: int
    body: int
    pieces: tuple[int, ...]
    steps: int | None


def dump_to(directory: str | os.PathLike) -> None:
    """Tells libtpu, which must not be loaded yet, to write listings to a directory."""
    flags = f"--xla_jf_dump_to={directory} --xla_jf_dump_llo_text=true"
    before = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = f"{before} {flags}".strip()


def bundles(directory: str | os.PathLike) -> list[Schedule]:
    """Counts the bundles of the Pallas kernels whose listings are in a directory.

    Args:
      directory: given to `dump_to` before anything was compiled.

    Returns:
      A schedule for each kernel, in the order of their names.
    """
    found = []
    home = pathlib.Path(directory)
    for analysis in sorted(home.glob(f"*-schedule-analysis_{_FINAL}")):
        which = re.match(r"(\d+-(.+))-\d+-schedule-analysis", analysis.name)
        if which and '="tpu_custom_call"' in analysis.read_text():
            listing = re.compile(rf"{re.escape(which[1])}-\d+-{_FINAL}")
            [path] = [p for p in home.iterdir() if listing.fullmatch(p.name)]
            schedule = read(which[2].split(".")[0], path.read_text())
            found += [schedule] if schedule.body else []
    return sorted(found)


def read(name: str, text: str) -> Schedule:
    """Counts the bundles of one listing."""
    total, body, steps = 0, 0, None
    pieces = [0]
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        total += 1
        bound = re.search(r"totalorder %\S+, (\d+) /\* loop exit test \*/", line)
        steps = int(bound[1]) if bound else steps
        if not found[2]:
            continue
        body += 1
        if found[1]:
            pieces.append(0)
        pieces[-1] += 1
        if "sbr.rel" in line:
            pieces.append(0)
    lengths = tuple(sorted((n for n in pieces if n), reverse=True))
    return Schedule(name, total, body, lengths, steps)
