"""Plans of many losses side by side: every combination of what is named."""

import dataclasses
import datetime
import itertools
import shlex
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from experiments.pods import plan, report
from experiments.pods.settings import LossName, Settings
from jaxcl import _files, _rules, _tables


@dataclasses.dataclass(frozen=True)
class Table:
    """Compiles losses for chips that are not here, and writes one line for each."""

    topologies: Annotated[tuple[str, ...], _rules.Different] = ("v5e:8x8",)
    """Chips and shapes, as of a plan."""
    problems: Annotated[tuple[LossName, ...], _rules.Different] = ("nt_xent", "clip")
    """Losses."""
    n: Annotated[tuple[_rules.Several, ...], _rules.Different] = (262_144,)
    """Rows that are compared."""
    d: Annotated[tuple[_rules.Count, ...], _rules.Different] = (512,)
    """Sizes of the embeddings."""
    dtypes: Annotated[tuple[Literal["bfloat16", "float32"], ...], _rules.Different] = (
        "bfloat16",
    )
    """Of the embeddings."""
    exchanges: tuple[str, ...] = ()
    """How embeddings travel; none: as by default."""
    tiles: tuple[_rules.Count, ...] = ()
    """Edges of tiles; none: as by default."""
    impls: tuple[str, ...] = ()
    """Implementations; none: as by default."""
    mesh: str | None = None
    """Shape of the mesh; None: one axis."""
    chips: _rules.Count | None = None
    """How many of a topology's chips to use; None: all."""
    directory: str | None = None
    """Where to write; None is a new folder in runs/pods named by date and time."""


HEAD = [
    "topology",
    "loss",
    "n",
    "d",
    "dtype",
    "exchange",
    "tile",
    "impl",
    "peak",
    "transfers",
    "estimate",
    "links",
    "limit",
    "of the limit",
    "to compile",
]


def combinations(t: Table) -> Iterable[Settings]:
    """The plans of a table, in the order of its lines."""
    default = (None,)
    for topology, problem, n, d, dtype, exchange, tile, impl in itertools.product(
        t.topologies,
        t.problems,
        t.n,
        t.d,
        t.dtypes,
        t.exchanges or default,
        t.tiles or default,
        t.impls or default,
    ):
        yield Settings(
            topology=topology,
            problem=problem,
            n=n,
            d=d,
            dtype=dtype,
            exchange=exchange,
            tile=tile,
            impl=impl,
            mesh=t.mesh,
            chips=t.chips,
        )


def line(s: Settings, found: dict[str, Any] | None) -> list[str]:
    """The cells of a plan; of one that the compiler refuses, that it does."""
    cells = [s.topology, s.problem, f"{s.n:,}", f"{s.d:,}", s.dtype]
    cells += [str(x or "default") for x in (s.exchange, s.tile, s.impl)]
    if found is None:
        return cells + ["does not fit"] + ["\N{EN DASH}"] * (len(HEAD) - len(cells) - 1)
    seconds = found["seconds"]
    estimate = seconds["estimate"]
    return cells + [
        report.size(found["memory"]["peak"]),
        report.size(sum(c["bytes"] for c in found["collectives"])),
        report.ms(estimate),
        report.ms(seconds["links"]),
        report.ms(seconds["limit"]),
        f"{seconds['limit'] / estimate:.0%}" if estimate else "\N{EN DASH}",
        f"{found['compile_cpu_seconds']:.0f} CPU s",
    ]


def main(t: Table) -> list[dict[str, Any]]:
    _rules.check(t)
    now = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
    directory = t.directory or f"runs/pods/{now}"
    home = _files.check_new("directory", directory, holds="table.md")
    rows, lines = [], []
    for s in combinations(t):
        try:
            found = plan.make(s)
        except plan.TooLarge as error:
            plan.say(str(error))
            lines.append(line(s, None))
            continue
        found.pop("text")
        rows.append(found)
        lines.append(line(s, found))
    named = ", ".join(f"{name} {v}" for name, v in plan.versions().items())
    text = (
        f"Estimates without hardware, by {named}. Per chip.\n\n    {command(t)}\n\n"
        f"{_tables.markdown(HEAD, lines)}\n"
    )
    print(f"\n{text}")
    _files.write_text(home / "table.md", text)
    _files.write_json(home / "results.json", rows)
    print(f"In {home}: table.md, results.json")
    return rows


def command(t: Table) -> str:
    """The command that makes the same table."""
    words = ["python", "-m", "experiments.pods", "table"]
    for field in dataclasses.fields(Table):
        value = getattr(t, field.name)
        if field.name != "directory" and value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name}", *map(str, values)]
    return shlex.join(words)
