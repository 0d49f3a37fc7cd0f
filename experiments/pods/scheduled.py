"""What a scheduled program does on one chip: products, collectives, buffers, cycles."""

import collections
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.pods import loops
from experiments.pods.hlo import Array, Computation, Op, Program

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


class Product(NamedTuple):
    """A matrix product or a convolution.

    Attributes:
      flops: multiplications and additions.
      dtype: of the operands, the wider one.
      precision: "default", or what was asked for, such as "highest".
    """

    flops: float
    dtype: str
    precision: str


def cycles(op: Op) -> float:
    """The TPU compiler's own estimate of one run of an operation; 0 without one."""
    told = re.search(r'estimated_cycles":"(\d+)"', op.rest)
    return float(told[1]) if told else 0.0


def inside(program: Program, op: Op) -> Iterator[tuple[Op, Computation]]:
    """The operations of a fusion, and of fusions in it, each with its computation."""
    called = program.called(op)
    for inner in called.values():
        yield inner, called
        yield from inside(program, inner)


def products(program: Program, visit: loops.Visit) -> list[Product]:
    """The matrix products of an operation, a fusion's among them."""
    every = [(visit.op, visit.scope), *inside(program, visit.op)]
    return [p for op, scope in every if (p := _product(op, scope)) is not None]


def _product(op: Op, scope: Computation) -> Product | None:
    target = re.search(r'custom_call_target="([^"]*)"', op.rest)
    called = target[1] if target else ""
    if op.kind not in ("dot", "convolution") and not re.match(
        r"__cublas|__cudnn\$conv", called
    ):
        return None
    given = [scope[name].arrays[0] for name in op.operands[:2] if name in scope]
    if len(given) < 2 or not op.arrays:
        return None
    x, y, result = *given, op.arrays[0]
    if op.kind == "dot" or called.startswith("__cublas"):
        flops = 2.0 * result.size * _contracted(op, x)
    else:
        # A gradient is described as the convolution whose gradient it is.
        if called == "__cudnn$convBackwardFilter":
            result, y = y, result
        elif called == "__cudnn$convBackwardInput":
            result, x = x, result
        flops = 2.0 * result.size * _window(op, x, y, result)
    wider = max(given, key=lambda a: a.bytes / max(a.size, 1))
    asked = re.search(r"operand_precision=\{(\w+)", op.rest)
    return Product(flops, wider.dtype, asked[1] if asked else "default")


def _contracted(op: Op, x: Array) -> int:
    plain = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.rest)
    quoted = re.search(r'"lhs_contracting_dimensions":\[([\d",]*)\]', op.rest)
    found = plain or quoted
    dims = re.findall(r"\d+", found[1]) if found else []
    return math.prod(x.dims[int(d)] for d in dims)


def _window(op: Op, x: Array, kernel: Array, result: Array) -> float:
    """Products per number of a convolution's result, on average.

    Neither what a window reads beyond the border counts, nor the zeros between numbers
    that are spread out.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.rest)
    if not labels:
        return 1.0
    of_x, of_kernel, of_result = labels.groups()
    taps = float(kernel.dims[of_kernel.index("i")])
    for i in range(sum(label.isdigit() for label in of_result)):
        size, stride = _per_axis(op, "size", i), _per_axis(op, "stride", i)
        places = np.arange(result.dims[of_result.index(str(i))])[:, None] * stride
        offsets = np.arange(size) * _per_axis(op, "rhs_dilate", i)
        spread, low = _per_axis(op, "lhs_dilate", i), _per_axis(op, "pad", i)
        read = places + offsets - low
        inside = (read >= 0) & (read <= (x.dims[of_x.index(str(i))] - 1) * spread)
        taps *= (inside & (read % spread == 0)).sum() / len(places)
    return taps


def _per_axis(op: Op, name: str, axis: int) -> int:
    """A number of a convolution's window; of padding, that before the first number."""
    window = re.search(r"window=\{([^}]*)\}", op.rest)
    found = re.search(rf"(?<!\w){name}=([\dx_\-]+)", window[1]) if window else None
    if found is None:
        return 0 if name == "pad" else 1
    return int(found[1].split("x")[axis].split("_")[0])


class Collective(NamedTuple):
    """What one kind of collective moves in one run of the program.

    Attributes:
      kind: "all-gather", for instance.
      dtype: of the arrays.
      number: how often one starts.
      bytes: on the side that has more, of one chip.
      largest: bytes of the largest array.
      part: of the program.
    """

    kind: str
    dtype: str
    number: float
    bytes: float
    largest: float
    part: str


Key = tuple[str, str, str]


def collectives(
    program: Program, seen: Iterable[loops.Visit], part: Any
) -> list[Collective]:
    """The collectives of a program, by kind, dtype and part.

    Args:
      program: scheduled.
      seen: its visits.
      part: function of an operation, the name of its part.

    Returns:
      The largest first.
    """
    number: dict[Key, float] = collections.defaultdict(float)
    total: dict[Key, float] = collections.defaultdict(float)
    largest: dict[Key, float] = collections.defaultdict(float)
    for visit in seen:
        for op, scope in [(visit.op, visit.scope), *inside(program, visit.op)]:
            kind = op.kind.removesuffix("-start")
            if kind not in COLLECTIVES or _goes_on(visit.op):
                continue
            if "all-reduce-scatter" in visit.op.rest and kind == "all-reduce":
                kind = "reduce-scatter"
            moved = _moved(op, scope)
            named = _named(op, scope) if op.op_name or op is visit.op else visit.op
            for dtype in {a.dtype for a in moved}:
                sizes = [a.bytes for a in moved if a.dtype == dtype]
                key = kind, dtype, part(named)
                number[key] += visit.times
                total[key] += visit.times * sum(sizes)
                largest[key] = max(largest[key], *sizes)
    found = [
        Collective(k, dtype, number[key], total[key], largest[key], name)
        for key in number
        for k, dtype, name in [key]
    ]
    return sorted(found, key=lambda c: -c.bytes)


def _named(op: Op, scope: Computation) -> Op:
    """The operation, under the name of what it reads where it has none."""
    source: Op | None = op
    while source is not None and not source.op_name:
        source = scope.get(source.operands[0]) if source.operands else None
    name = source.op_name if source else ""
    return op._replace(rest=f'{op.rest}, op_name="{name}"') if name else op


def _goes_on(op: Op) -> bool:
    """Whether an operation continues or ends a collective that another one started.

    Fusions that compute while something is on its way name it once more.
    """
    return "-done" in op.name or "calls=%async_collective_fusion" in op.rest


def _moved(op: Op, scope: Computation) -> list[Array]:
    """The arrays of the side that has more: what is gathered, or what is reduced."""
    sent = [a for name in op.operands if name in scope for a in scope[name].arrays]
    got = op.arrays
    if op.kind.endswith("-start") and len(got) > len(sent):
        got = got[len(sent) :]  # the operands stand first, and contexts may follow
    got = [a for a in got if a.size > 1 or len(got) == 1]
    return max((sent, got), key=lambda side: sum(a.bytes for a in side))


class Buffer(NamedTuple):
    """Arrays of one shape and part that operations write outside of fusions."""

    dtype: str
    dims: tuple[int, ...]
    number: int
    bytes: float
    part: str


def buffers(seen: Iterable[loops.Visit], part: Any) -> list[Buffer]:
    """What operations write to the chip's main memory, the largest arrays first.

    Updates in place and loops, which give back what they were given, are left out.
    """
    number: dict[tuple[Array, str], int] = collections.Counter()
    for visit in seen:
        op = visit.op
        again = op.kind in ("while", "conditional", "dynamic-update-slice", "call")
        if again or op.kind.endswith("-done"):
            continue
        for a in op.arrays:
            if not a.on_chip:
                number[Array(a.dtype, a.dims, ""), part(op)] += 1
    found = [Buffer(a.dtype, a.dims, n, a.bytes, p) for (a, p), n in number.items()]
    return sorted(found, key=lambda b: -b.bytes)


def by_part(seen: Iterable[loops.Visit], cost: Any, part: Any) -> dict[str, float]:
    """Sums a cost over the visits of each part; the largest first."""
    total: dict[str, float] = collections.defaultdict(float)
    for visit in seen:
        total[part(visit.op)] += cost(visit)
    return dict(sorted(total.items(), key=lambda item: -item[1]))
