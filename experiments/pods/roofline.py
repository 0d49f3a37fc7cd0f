"""Kernels of a scheduled GPU program, and what each takes at least.

A kernel takes the longest of three: to be launched, to move its bytes, to multiply. An
argument that a kernel reads slices of counts as its slices. Nobody measured it.
"""

import re
from typing import NamedTuple

from experiments.pods import loops, scheduled
from experiments.pods.chips import Chip
from experiments.pods.hlo import Array, Program

LAUNCH = 2.5e-6  # seconds from one kernel to the next
SYNC = 12e-6  # seconds until the host has read whether a loop or branch goes on
REACHED = 0.8  # of the peak of products, and 0.9 of the memory's
CACHE = 30e6  # bytes that stay in the L2 cache
CACHED = 5.5e12  # its bytes per second
_NO_KERNELS = ("while", "conditional", "copy-start", "async-start", "async-update")


class Kernel(NamedTuple):
    seconds: float
    bytes: float
    flops: float


def kernel(program: Program, visit: loops.Visit, chip: Chip) -> Kernel:
    """One run of an operation; nothing of one that is no kernel, as a collective."""
    op = visit.op
    if op.kind in ("while", "conditional"):
        told = "known_trip_count" in op.rest
        return Kernel(0.0 if told else SYNC, 0.0, 0.0)
    collective = op.kind.removesuffix("-start") in scheduled.COLLECTIVES
    if collective or op.kind in _NO_KERNELS or op.kind.endswith("-done"):
        return Kernel(0.0, 0.0, 0.0)
    moved = _written(program, visit) + sum(_read(program, visit))
    multiplied = scheduled.products(program, visit)
    flops = sum(p.flops for p in multiplied)
    speed = CACHED if moved < CACHE else 0.9 * chip.bandwidth
    products = sum(p.flops * chip.slower(p.dtype, p.precision) for p in multiplied)
    times = LAUNCH, moved / speed, products / (REACHED * chip.flops)
    return Kernel(max(times), moved, flops)


def _read(program: Program, visit: loops.Visit) -> list[float]:
    """Bytes of each argument, or of the slices that are read of it."""
    called = program.called(visit.op)
    inner = {
        int(op.inside): op.name
        for op in called.values()
        if op.kind == "parameter" and re.fullmatch(r"\d+", op.inside)
    }
    sizes = []
    for i, name in enumerate(visit.op.operands):
        whole = visit.scope[name].arrays if name in visit.scope else []
        size = sum(a.bytes for a in whole)
        users = [op for op in called.values() if inner.get(i) in op.operands]
        read = ("dynamic-slice", "slice")
        if users and all(op.kind in (*read, "dynamic-update-slice") for op in users):
            slices = [a for op in users if op.kind in read for a in op.arrays]
            size = sum(a.bytes for a in slices)
        sizes.append(size)
    return sizes


def _written(program: Program, visit: loops.Visit) -> float:
    """Bytes of the results; of one that is updated in place, of the update, twice."""
    op, called = visit.op, program.called(visit.op)
    updates: list[Array] = []
    updated: set[tuple[str, tuple[int, ...]]] = set()
    for inner in called.values() if called else [op]:
        if inner.kind == "dynamic-update-slice":
            source = called or visit.scope
            updates += source[inner.operands[1]].arrays
            updated |= {(a.dtype, a.dims) for a in inner.arrays}
    rest = [a for a in op.arrays if (a.dtype, a.dims) not in updated]
    return sum(a.bytes for a in rest) + 2 * sum(a.bytes for a in updates)
