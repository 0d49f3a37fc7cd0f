"""Small problems, compiled for chips that are not here.

A further case is a line in `CASES`; `python -m tests.aot` then records what the tests
compare with.
"""

import functools
import importlib.metadata
import json
import pathlib
from typing import Any, NamedTuple

from experiments.pods import chips, hlo, loops, plan, problems, scheduled, topologies
from experiments.pods.settings import Settings

TOPOLOGY = "v5e:2x2"
ROWS, WIDTH, TILE = 2048, 128, 256
RECORDED = pathlib.Path(__file__).parent / "recorded.json"


def _case(problem: Any, **changes: Any) -> Settings:
    small = Settings(topology=TOPOLOGY, problem=problem, n=ROWS, d=WIDTH, tile=TILE)
    return Settings(**{**vars(small), **changes})


CASES = {
    "nt_xent": _case("nt_xent"),
    "nt_xent float32": _case("nt_xent", dtype="float32"),
    "nt_xent ring": _case("nt_xent", exchange="ring"),
    "clip": _case("clip"),
    "clip gather": _case("clip", exchange="gather"),
    "clip ring": _case("clip", exchange="ring"),
    "clip on a square": _case("clip", mesh="2x2"),
    "siglip": _case("siglip"),
    "sup_con": _case("sup_con"),
    "gaussian": _case("gaussian"),
}
# Losses of cosines, whose products one pass of bfloat16 is enough for.
COSINES = [name for name in CASES if name != "gaussian"]


class Compiled(NamedTuple):
    """A program, what runs in it, and what `plan.measure` says of it."""

    program: hlo.Program
    visits: list[loops.Visit]
    found: dict[str, Any]


@functools.cache
def compiled(name: str) -> Compiled:
    """Compiles a case, once in a process."""
    s = CASES[name]
    mesh = topologies.mesh(s.topology, s.mesh, s.chips)
    problem = problems.of_loss(s, mesh)
    made = plan.compile_(problem)
    text, chip = made.as_text(), topologies.chip(s.topology)
    found = plan.measure(text, plan.memory(made), chip, mesh.size, problem.flops)
    program = hlo.parse(text)
    seen = loops.visits(program, lambda visit: scheduled.cycles(visit.op))
    return Compiled(program, seen, found)


def version() -> str:
    """Of the compiler, which decides over all numbers."""
    return f"libtpu {importlib.metadata.version('libtpu')}"


def record(name: str) -> dict[str, Any]:
    """What is recorded of a case."""
    found = compiled(name).found
    number: dict[str, float] = {}
    for c in found["collectives"]:
        number[c["kind"]] = number.get(c["kind"], 0) + c["number"]
    return {
        "cycles": round(found["cycles"]),
        "peak": found["memory"]["peak"],
        "collectives": dict(sorted(number.items())),
    }


def recorded() -> dict[str, Any]:
    """What was recorded with this version of the compiler; {} if nothing was."""
    return json.loads(RECORDED.read_text()).get(version(), {})


CHIP = chips.CHIPS[TOPOLOGY.split(":")[0]]
