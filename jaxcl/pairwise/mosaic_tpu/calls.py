"""How a Pallas kernel for TPU is given a block of pairs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl import mesh
from jaxcl.pairwise import one_tile, slices
from jaxcl.pairwise.mosaic_tpu import blocks
from jaxcl.pairwise.mosaic_tpu.body import LANES, Form

# Log-sum-exps that lie less far apart share one reference in the backward pass: half of
# it is far from overflow, and what lies below is lost to float32 anyway.
SPREAD = 80.0


class Call:
    """Collects the operands and results of one Pallas kernel, and calls it."""

    def __init__(
        self,
        block: Any,
        question: one_tile.Question,
        form: Form,
        sizes: blocks.Sizes,
    ) -> None:
        self.block, self.question, self.sizes = block, question, sizes
        rows, columns = block.rows, block.columns
        self.operands: dict[str, tuple[jax.Array, Any]] = {}
        self.outputs: dict[str, tuple[jax.ShapeDtypeStruct, Any]] = {}
        self.scratches: dict[str, Any] = {}
        self.aliases: dict[str, str] = {}
        number = sizes.column_blocks
        self.grid = (sizes.row_blocks, number)
        order = form.order
        if block.schedule == "triangular":
            self.grid = (number, number // 2 + 1)
            order = functools.partial(_around, number)
        self.form = form._replace(order=order, strip=sizes.strip)

        scale = question.scale
        self.row_factors = []
        for factor in factors(rows):
            if scale is not None:
                one = jnp.ones(rows.nodes.index.shape, jnp.float32)
                factor = (one if factor is None else factor) * scale
            self.row_factors.append(factor)
        self.theta = [
            jnp.asarray(t) for t in jax.tree.leaves((question.kernel, question.asked))
        ]
        self.floats: dict[int, list[jax.Array]] = {
            1: [f for f in self.row_factors if f is not None]
            + jax.tree.leaves((rows.numbers, rows.nodes.extra)),
            0: [f for f in factors(columns) if f is not None]
            + jax.tree.leaves((columns.numbers, columns.nodes.extra)),
        }
        self.widths = []
        pairs = zip(rows.vectors, columns.vectors, strict=True)
        for k, (x, y) in enumerate((x.rows, y.rows) for x, y in pairs):
            dtype = jnp.promote_types(x.dtype, y.dtype)
            x, y = (
                _padded(v.astype(dtype), count)
                for v, count in ((x, sizes.rows), (y, sizes.columns))
            )
            self.widths.append(x.shape[1])
            self.operands[f"x{k}"] = x, self._spec(1, (sizes.bm, x.shape[1]))
            self.operands[f"y{k}"] = y, self._spec(0, (sizes.bn, x.shape[1]))
        smem = pl.BlockSpec(memory_space=pltpu.SMEM)
        for name, side, axis in (("row", rows, 1), ("column", columns, 0)):
            nodes = side.nodes
            bounds = _bounds(nodes, *self._cut(axis))
            self.operands[f"{name}_bounds"] = bounds, smem
            ids = [x.astype(jnp.int32) for x in (nodes.group, nodes.index, nodes.valid)]
            self._pack("row_id" if axis else "column_ids", ids, axis)
        self.scratch("row_ids", (3, sizes.bm, LANES), jnp.int32)

    def _cut(self, axis: int) -> tuple[int, int]:
        sizes = self.sizes
        if axis:
            return sizes.bm, sizes.row_blocks
        return sizes.bn, sizes.column_blocks

    def _spec(self, axis: int, shape: tuple[int, ...]) -> Any:
        rest = (0,) * (len(shape) - 1)
        order = self.form.order
        if axis:
            return pl.BlockSpec(shape, lambda i, step: (i, *rest))
        return pl.BlockSpec(shape, lambda i, step: (order(i, step)[0], *rest))

    def _pack(self, name: str, arrays: list[jax.Array], axis: int) -> None:
        """Arrays [n], as blocks [number, arrays, size]."""
        size, number = self._cut(axis)
        packed = jnp.stack([_padded(x, size * number) for x in arrays])
        packed = packed.reshape(len(arrays), number, size).swapaxes(0, 1)
        self.operands[name] = packed, self._spec(axis, (1, len(arrays), size))

    def output(self, name: str, shape: tuple[int, ...]) -> None:
        """A result of the rows, a block of which each row of tiles writes."""
        whole = (self.sizes.row_blocks * shape[0], *shape[1:])
        self.outputs[name] = self._struct(whole), self._spec(1, shape)

    def resident(self, name: str, shape: tuple[int, ...]) -> None:
        """A result that stays in the chip's memory until the end."""
        zeros = (0,) * len(shape)
        spec = pl.BlockSpec(shape, lambda i, step: zeros)
        self.outputs[name] = self._struct(shape), spec

    def accumulate(self, name: str, before: str, start: jax.Array) -> None:
        """A gradient of the columns, which is read and written block by block."""
        start = _padded(start, self.sizes.columns)
        spec = self._spec(0, (self.sizes.bn, start.shape[1]))
        self.operands[before] = start, spec
        self.outputs[name] = self._struct(start.shape), spec
        self.aliases[before] = name

    def scratch(
        self, name: str, shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> None:
        """Memory of the chip."""
        self.add_scratch(name, pltpu.VMEM(shape, dtype))

    def add_scratch(self, name: str, what: Any) -> None:
        """Any other memory."""
        self.scratches[name] = what

    def know(self, row_results: dict[int, Any], column_results: dict[int, Any]) -> None:
        """Says what the backward pass needs to know of results."""
        sound = jnp.ones((), bool)
        for task in self.form.tasks:
            kind = self.form.kinds[task.number]
            given = [
                (
                    output.axis,
                    *(row_results if output.axis else column_results)[output.number],
                )
                for output in task.outputs
            ]
            middle = jnp.zeros((), jnp.float32)
            if kind == "logsumexp":
                low, high = _range([each[1:] for each in given])
                middle = (low + high) / 2
                sound &= high - low < SPREAD
            for axis, cotangent, known in given:
                if kind == "logsumexp":
                    counts = (cotangent != 0) | (known != 0)
                    distance = jnp.where(counts, middle - known, 0)
                    shared = cotangent * jnp.exp(distance)
                else:
                    shared = cotangent * known if kind == "mean" else cotangent
                self.floats[axis] += [shared, cotangent, known]
            self.theta.append(middle)
        self.theta.append(sound.astype(jnp.float32))

    def _struct(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        kind = jax.typeof(self.operands["x0"][0]).manual_axis_type
        return jax.ShapeDtypeStruct(shape, jnp.float32, manual_axis_type=kind)

    def run(
        self, body: Callable[..., None], name: str, *, parallel: bool
    ) -> dict[str, jax.Array]:
        """Calls the kernel."""
        for axis, floats in self.floats.items():
            # A kernel reads at least one number of each node, if only a zero.
            nodes = (self.block.rows if axis else self.block.columns).nodes
            floats = floats or [jnp.zeros(nodes.index.shape, jnp.float32)]
            self._pack("row_floats" if axis else "column_floats", floats, axis)
            if axis:
                self.scratch("rows", (len(floats), self.sizes.bm, LANES))
        theta = jnp.stack(self.theta or [jnp.zeros(())])[None]
        smem = pl.BlockSpec(memory_space=pltpu.SMEM)
        self.operands["theta"] = theta.astype(jnp.float32), smem
        axes = mesh.varying_axes([x for x, _ in self.operands.values()])
        operands = {
            k: (mesh.cast_varying(x, axes), s) for k, (x, s) in self.operands.items()
        }
        names = [*operands, *self.outputs, *self.scratches]
        order = list(operands)
        results = pl.pallas_call(
            functools.partial(body, names=tuple(names), form=self.form),
            grid=self.grid,
            in_specs=[spec for _, spec in operands.values()],
            out_specs=[spec for _, spec in self.outputs.values()],
            out_shape=[struct for struct, _ in self.outputs.values()],
            scratch_shapes=list(self.scratches.values()),
            input_output_aliases={
                order.index(a): list(self.outputs).index(b)
                for a, b in self.aliases.items()
            },
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=(
                    "parallel" if parallel else "arbitrary",
                    "arbitrary",
                ),
                vmem_limit_bytes=blocks.memory(),
            ),
            interpret=pltpu.InterpretParams() if self.block.interpret else False,
            name=name,
        )(*(x for x, _ in operands.values()))
        return dict(zip(self.outputs, results, strict=True))


def factors(side: slices.Side) -> list[jax.Array | None]:
    """Collects what products are multiplied with.

    Args:
      side: what is compared of n nodes.

    Returns:
      For each vector numbers [n], or None.
    """
    return [vectors.factor for vectors in side.vectors]


def _around(number: int, i: Any, step: Any) -> tuple[Any, Any]:
    """Block i meets i, i + 1, ..., i + number // 2, counted around.

    Of an even number, blocks that lie opposite would meet twice.
    """
    j = i + step
    j = jnp.where(j >= number, j - number, j)
    if number % 2:
        return j, True
    return j, (step < number // 2) | (i < number // 2)


def _padded(x: jax.Array, rows: int) -> jax.Array:
    """Arrays [n] or [n, d] with zeros up to so many rows, and d a multiple of 128."""
    missing = [(0, rows - x.shape[0]), *((0, -k % LANES) for k in x.shape[1:])]
    return x if not any(k for _, k in missing) else jnp.pad(x, missing)


def _bounds(nodes: Any, size: int, number: int) -> jax.Array:
    """Of each block the ends of its groups and indices, and whether all are valid."""
    valid = _padded(nodes.valid, size * number).reshape(number, size)
    limit = jnp.iinfo(jnp.int32).max
    found = []
    for x in (nodes.group, nodes.index):
        x = _padded(x.astype(jnp.int32), size * number).reshape(number, size)
        found.append(jnp.where(valid, x, limit).min(1))
        found.append(jnp.where(valid, x, -limit).max(1))
    found.append(valid.all(1).astype(jnp.int32))
    return jnp.stack(found, axis=1).reshape(1, -1)


def _range(given: list[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest log-sum-exp of nodes that have one."""
    lows, highs = [], []
    for cotangent, known in given:
        counts = (cotangent != 0) | (known != 0)
        lows.append(jnp.min(jnp.where(counts, known, jnp.inf)))
        highs.append(jnp.max(jnp.where(counts, known, -jnp.inf)))
    low, high = (
        functools.reduce(jnp.minimum, lows),
        functools.reduce(jnp.maximum, highs),
    )
    some = low <= high
    return jnp.where(some, low, 0), jnp.where(some, high, 0)
