"""Sizes of the blocks of Pallas kernels for TPU, by the compiler's final schedule."""

import dataclasses
import itertools
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pods import bundles, topologies
from jaxcl import _rules, graphs, kernels, pairwise
from jaxcl.pairwise import (
    mosaic_tpu,
    one_tile,
    reductions,
    slices,
)
from jaxcl.pairwise.mosaic_tpu import blocks

# Of a step of the grid, besides its strips: waits, addresses and branches.
OVERHEAD = 130
NODES = 8192


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Compiles Pallas kernels for chips that are not here, and counts their bundles."""

    chips: Annotated[tuple[Literal["v5e", "v6e"], ...], _rules.Different] = (
        "v5e",
        "v6e",
    )
    """Kinds of chips."""
    problems: Annotated[
        tuple[Literal["nt_xent", "clip", "siglip", "gaussian", "kernel_sum"], ...],
        _rules.Different,
    ] = ("nt_xent", "clip", "kernel_sum")
    """Losses: NT-Xent, Gaussian and sum over a mesh, the others of two node sets."""
    d: Annotated[tuple[_rules.Count, ...], _rules.Different] = (512,)
    """Sizes of bfloat16 embeddings."""
    rows: tuple[_rules.Count, ...] = ()
    """Rows of blocks to try; none: those of the table of `mosaic_tpu`."""
    columns: tuple[_rules.Count, ...] = ()
    """Columns of blocks to try; none: likewise."""
    fast: tuple[_rules.Count, ...] = ()
    """Rows at a time on the fast path to try; none: likewise."""


class Found(NamedTuple):
    """One kernel: its schedule beside what the matrix unit takes.

    Attributes:
      sizes: how it was cut.
      fast: bundles of a strip of the fast path.
      careful: bundles of a strip of the careful path.
      ideal: cycles of the products of a whole block at the chip's peak.
      cycles: of a block on the fast path: bundles, or products, or what memory takes.
      seconds: of CPU to compile it.
    """

    sizes: Any
    fast: int
    careful: int
    ideal: float
    cycles: float
    seconds: float


def main(s: Blocks) -> list[tuple[Any, ...]]:
    _rules.check(s)
    directory = tempfile.mkdtemp()
    bundles.dump_to(directory)
    lines: list[tuple[Any, ...]] = []
    print(
        "chip  loss        d     kernel   block       strips    fast/careful  ", end=""
    )
    print("ideal/all of a block  share  CPU s")
    for chip, problem, d in itertools.product(s.chips, s.problems, s.d):
        for backward in (False, True):
            for sizes in _candidates(s):
                found = measure(chip, problem, d, backward, sizes, directory)
                share = found.ideal / found.cycles
                lines.append((chip, problem, d, backward, found, share))
                cut = found.sizes
                print(
                    f"{chip:4}  {problem:10}  {d:4}  "
                    f"{'gradient' if backward else 'forward ':8} "
                    f"{cut.bm:4} x {cut.bn:4} {cut.strip!s:>10}  "
                    f"{found.fast:5} / {found.careful:5}  "
                    f"{found.ideal:9.0f} / {found.cycles:6.0f}   {share:4.0%}  "
                    f"{found.seconds:4.1f}",
                    flush=True,
                )
    return lines


def _candidates(s: Blocks) -> Iterator[blocks.Largest | None]:
    if not (s.rows or s.columns or s.fast):
        yield None
        return
    for bm, bn, fast in itertools.product(
        s.rows or (1024,), s.columns or (1024,), s.fast or (512,)
    ):
        yield blocks.Largest(bm, bn, fast, min(fast, 256))


def _asked(problem: str) -> tuple[Any, tuple[Any, ...], str]:
    negatives = pairwise.Reduction("logsumexp", graphs.negatives)
    if problem == "clip":
        other = pairwise.Reduction("logsumexp", graphs.negatives, over="anchors")
        return kernels.cosine(0.1), (negatives, other), "both"
    if problem == "siglip":
        match = pairwise.Reduction("sum", graphs.negatives, _match, (0.1,))
        return kernels.cosine(0.1), (match,), "both"
    kernel = {
        "nt_xent": kernels.cosine(0.1),
        "gaussian": kernels.gaussian(0.5),
        "kernel_sum": kernels.kernel_sum(kernels.gaussian(0.5), kernels.laplacian(0.5)),
    }[problem]
    return kernel, (negatives,), "mirrored"


def _match(pair: pairwise.Pair, bias: jax.Array) -> jax.Array:
    return jax.nn.softplus(pair.logits + bias)


def measure(
    kind: str,
    problem: str,
    d: int,
    backward: bool,
    largest: blocks.Largest | None,
    directory: str,
) -> Found:
    """Compiles one kernel and reads its schedule."""
    kernel, asked, schedule = _asked(problem)
    leaves, structure = jax.tree.flatten(kernels.cast_leaves((kernel, asked), "f4"))
    cut: list[blocks.Sizes] = []

    def run(leaves: Any, z: Any, valid: jax.Array, given: jax.Array) -> Any:
        kernel, asked = jax.tree.unflatten(structure, leaves)
        number = jnp.arange(NODES)
        sides = []
        for k in range(2):
            index = number + k * NODES * (schedule == "both")
            nodes = graphs.Nodes(z[k], number // 2, index, valid, ())
            side, layout = slices.side(kernel, nodes)
            sides.append(side.multiplied(True))
        tasks = one_tile.make_tasks(
            asked, schedule, several=True, extras=False, backward=backward
        )
        question = one_tile.Question(kernel, asked, tasks, layout, kernel.multiplier())
        block = mosaic_tpu.Block(schedule, sides[0], sides[1], None, False)
        both = backward and schedule == "both"
        form = mosaic_tpu.form_of(block, question, backward=backward, columns=both)
        table = blocks.TABLE
        entry = blocks.entry(form, backward=backward)
        before = table[entry]
        table[entry] = largest or before
        try:
            cut.append(blocks.sizes(block, form, backward=backward))
            if not backward:
                states = {
                    k: reductions.empty(reduction, given)
                    for k, reduction in enumerate(asked)
                }
                return mosaic_tpu.forward(block, question, states)
            results = dict.fromkeys(range(len(asked)), (given, given))
            gradients = (
                slices.no_gradient(sides[0]),
                slices.no_gradient(sides[1]) if both else None,
                jax.tree.map(jnp.zeros_like, (kernel, asked)),
            )
            return mosaic_tpu.backward(block, question, results, results, gradients)
        finally:
            table[entry] = before

    mesh = topologies.mesh(f"{kind}:2x2", None, 1)
    where = jax.NamedSharding(mesh, jax.P())
    shapes = (
        [jax.ShapeDtypeStruct((), jnp.float32, sharding=where) for _ in leaves],
        [jax.ShapeDtypeStruct((NODES, d), jnp.bfloat16, sharding=where)] * 2,
        jax.ShapeDtypeStruct((NODES,), jnp.bool_, sharding=where),
        jax.ShapeDtypeStruct((NODES,), jnp.float32, sharding=where),
    )
    for path in pathlib.Path(directory).iterdir():
        path.unlink()
    start = time.process_time()
    jax.jit(run).lower(*shapes).compile()
    seconds = time.process_time() - start
    fast, careful = _paths(directory)
    sizes, units = cut[0], 1
    if backward:
        units = 3 if schedule == "both" else 2
    chip = topologies.chip(f"{kind}:2x2")
    pairs = sizes.bm * sizes.bn
    ideal = 2 * pairs * d * units / chip.flops * chip.clock
    issued = fast * sizes.bm / min(sizes.strip[0], sizes.bm) + OVERHEAD
    # Columns come once for each block of rows; their gradients come and go.
    moved = sizes.bn * d * (2 + 8 * (units == 3))
    memory = moved / chip.bandwidth * chip.clock
    cycles = float(np.max([issued, ideal, memory]))
    return Found(sizes, fast, careful, ideal, cycles, seconds)


def _paths(directory: str) -> tuple[int, int]:
    """Bundles of the fast and of the careful path: the last code with products."""
    [path] = [
        path
        for path in pathlib.Path(directory).glob("*jaxcl_pairs*final_bundles.txt")
        if "analysis" not in path.name
    ]
    pieces: list[list[int]] = [[0, 0]]
    for line in path.read_text().splitlines():
        found = re.match(r"^\s*(?:0x[0-9a-f]+|0)\s+(LB|PB|PF)?\s*:", line)
        if not found:
            continue
        if found[1]:
            pieces.append([0, 0])
        pieces[-1][0] += 1
        pieces[-1][1] += "vmatmul" in line
        if "sbr.rel" in line:
            pieces.append([0, 0])
    multiplied = [length for length, products in pieces if products]
    return multiplied[-2], multiplied[-1]
