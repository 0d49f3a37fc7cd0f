"""A block of pairs by Pallas kernels for TPU: what `tiled` does, in one program each.

Products, logits, scores, and the sums over them stay in the chip's memory; what leaves
it are a few numbers per node and gradients. `mosaic_body` is what happens inside.
Vectors whose width is no multiple of 128, and nodes whose number is no multiple of a
block, are padded once, with nodes that are not valid.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl import graphs, kernels, mesh
from jaxcl.pairwise import mosaic_blocks, mosaic_body, one_tile, reductions, slices
from jaxcl.pairwise.mosaic_body import LANES, Form

States = dict[int, reductions.Partial]
Sizes = mosaic_blocks.Sizes

# Log-sum-exps that lie less far apart share one reference in the backward pass: half of
# it is far from overflow, and what lies below is lost to float32 anyway.
SPREAD = 80.0


class Block(NamedTuple):
    """A block of pairs.

    Attributes:
      schedule: "triangular", "both" or "mirrored".
      rows: what is compared of n rows, as it is multiplied.
      columns: what is compared of m columns, likewise.
      precision: of products of float32 vectors, as in `jax.lax.dot`.
      interpret: whether kernels are interpreted, where no TPU is.
    """

    schedule: str
    rows: slices.Side
    columns: slices.Side
    precision: Any
    interpret: bool


def why_not(
    schedule: str,
    kernel: kernels.Kernel,
    asked: one_tile.Asked,
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    pair_weight: jax.Array | None,
) -> str | None:
    """Tells what keeps a call from being computed here.

    Args:
      schedule: "triangular", "both" or "mirrored".
      kernel: with array leaves.
      asked: the reductions, likewise.
      anchors: the nodes of the rows.
      candidates: those of the columns; None for the same.
      pair_weight: numbers of pairs, or None.

    Returns:
      A reason, or None.
    """
    if pair_weight is not None:
        return "pair_weight is not read by it"
    for leaf in jax.tree.leaves((kernel, asked)):
        if jnp.shape(leaf) != ():
            return f"the kernel or a parameter holds an array of {jnp.shape(leaf)}"
    columns = anchors if candidates is None else candidates
    if kernels.accumulator(anchors.z.dtype, columns.z.dtype) != jnp.float32:
        return "TPUs have no float64"
    try:
        return _shapes_say(schedule, kernel, asked, anchors, columns)
    except Exception as error:  # whatever it is, tiles say it better
        return f"its scores cannot be traced, {type(error).__name__}: {error}"


def _shapes_say(schedule: str, *args: Any) -> str | None:
    found: list[str | None] = []

    def look(kernel: Any, asked: Any, anchors: Any, columns: Any) -> None:
        rows, layout = slices.side(kernel, anchors)
        others, _ = slices.side(kernel, columns)
        block = Block(
            schedule, rows.multiplied(True), others.multiplied(True), None, False
        )
        extras = bool(jax.tree.leaves(anchors.extra))
        for backward in (False, True):
            tasks = one_tile.make_tasks(
                asked, schedule, several=True, extras=extras, backward=backward
            )
            question = one_tile.Question(kernel, asked, tasks, layout, None)
            both = backward and schedule != "mirrored"
            form = _form(block, question, backward=backward, columns=both)
            names = mosaic_blocks.missing(form)
            if names:
                found.append(f"TPU kernels have no {' and no '.join(names)}")
                return
            try:
                mosaic_blocks.sizes(block, form, backward=backward)
            except ValueError as error:
                found.append(str(error))

    jax.eval_shape(look, *args)
    return found[0] if found else None


def forward(block: Block, question: one_tile.Question, states: States) -> States:
    """Adds a block of pairs to the reductions; like `tiled.forward`.

    Args:
      block: the pairs.
      question: what is asked.
      states: what the reductions have seen before, by number: [n] or, for what belongs
        to columns, [m].

    Returns:
      The states with this block.
    """
    form = _form(block, question, backward=False)
    call = _Call(block, question, form, mosaic_blocks.sizes(block, form, backward=False))
    of_rows, of_columns = (mosaic_body.size(form, axis) for axis in (1, 0))
    sizes = call.sizes
    if of_rows:
        call.output("results", (1, of_rows, sizes.bm))
        call.scratch("state", (of_rows, sizes.bm, LANES))
        call.scratch("backup1", (of_rows, sizes.bm, LANES))
    if of_columns:
        call.resident("columns", (sizes.column_blocks, of_columns, sizes.bn))
        call.scratch("backup0", (of_columns, 1, sizes.bn))
        call.add_scratch("seen", pltpu.SMEM((sizes.column_blocks,), jnp.int32))
    call.add_scratch("redo", pltpu.SMEM((1,), jnp.int32))
    found = call.run(mosaic_body.forward, "jaxcl_pairs_forward", parallel=not of_columns)

    states = dict(states)
    for axis, name, side in ((1, "results", block.rows), (0, "columns", block.columns)):
        for number, at in mosaic_body.places(form, axis).items():
            n = len(side.nodes.index)
            kind = form.kinds[number]
            places = (at, at if kind == "sum" else at + 1)
            part = _partial(
                kind, *(found[name][:, place].reshape(-1)[:n] for place in places)
            )
            states[number] = reductions.combine(
                question.asked[number], states[number], part
            )
    return states


def _partial(kind: str, total: jax.Array, other: jax.Array) -> reductions.Partial:
    zero = jnp.zeros_like(total)
    if kind == "logsumexp":
        none = other == mosaic_body.LOWEST
        total, top = jnp.where(none, 0, total), jnp.where(none, -jnp.inf, other)
        return reductions.Partial(total, top, zero)
    return reductions.Partial(total, zero, other if kind == "mean" else zero)


def backward(
    block: Block,
    question: one_tile.Question,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
    gradients: tuple[slices.Gradient, slices.Gradient | None, Any],
) -> tuple[slices.Gradient, slices.Gradient | None, Any]:
    """Adds a block of pairs to the gradients; like `tiled.backward`.

    Args:
      block: the pairs.
      question: what is asked.
      row_results: cotangent and `reductions.finish`'s number of each row, by reduction.
      column_results: the same of each column.
      gradients: of the rows; of the columns, or None where they get none; and of kernel
        and reductions.

    Returns:
      The gradients with this block.
    """
    of_rows, of_columns, of_theta = gradients
    form = _form(block, question, backward=True, columns=of_columns is not None)
    call = _Call(block, question, form, mosaic_blocks.sizes(block, form, backward=True))
    call.know(row_results, column_results)
    sizes, widths, rest = call.sizes, call.widths, form.rest.num_leaves
    for k, width in enumerate(widths):
        call.output(f"dx{k}", (sizes.bm, width))
    if rest:
        call.output("drow", (1, rest, sizes.bm))
        call.scratch("row_sums", (rest, sizes.bm, LANES))
    if of_columns is not None:
        for k, vector in enumerate(of_columns.vectors):
            call.accumulate(f"dy{k}", f"before{k}", vector)
        if rest:
            call.resident("dcolumn", (sizes.column_blocks, rest, sizes.bn))
    if form.used:
        call.resident("dtheta", (len(form.used), 1, sizes.bn))
    alone = of_columns is None and not form.used
    found = call.run(mosaic_body.backward, "jaxcl_pairs_backward", parallel=alone)

    n, m = len(block.rows.nodes.index), len(block.columns.nodes.index)

    def numbers(name: str, count: int, like: slices.Gradient) -> list[jax.Array]:
        parts = [found[name][:, k].reshape(-1)[:count] for k in range(rest)]
        before = jax.tree.leaves((like.numbers, like.extra))
        return [a + b for a, b in zip(before, parts, strict=True)]

    vectors = []
    for k, before in enumerate(of_rows.vectors):
        part = found[f"dx{k}"][:n, : before.shape[1]]
        factor = call.row_factors[k]
        if of_columns is None and factor is not None:
            part *= factor[:, None]
        vectors.append(before + part)
    of_rows = slices.Gradient(
        vectors, *jax.tree.unflatten(form.rest, numbers("drow", n, of_rows))
    )
    if of_columns is not None:
        vectors = [
            found[f"dy{k}"][:m, : before.shape[1]]
            for k, before in enumerate(of_columns.vectors)
        ]
        of_columns = slices.Gradient(
            vectors, *jax.tree.unflatten(form.rest, numbers("dcolumn", m, of_columns))
        )
    leaves, structure = jax.tree.flatten(of_theta)
    for place, leaf in enumerate(form.used):
        leaves[leaf] += found["dtheta"][place].sum()
    return of_rows, of_columns, jax.tree.unflatten(structure, leaves)


def _form(
    block: Block, question: one_tile.Question, *, backward: bool, columns: bool = False
) -> Form:
    rows, kernel = block.rows, question.kernel
    rest = jax.tree.structure((rows.numbers, rows.nodes.extra))
    theta, structure = jax.tree.flatten((kernel, question.asked))

    def scores(leaves: Any, products: Any, row: Any, column: Any) -> Any:
        kernel, asked = jax.tree.unflatten(structure, leaves)
        asking = question._replace(kernel=kernel, asked=asked)
        ends = [
            (numbers, rows.nodes._replace(extra=extra))
            for numbers, extra in (row, column)
        ]
        return one_tile.scores(asking, products, *ends)

    form = Form(
        tasks=question.tasks,
        kinds=tuple(reduction.accumulate for reduction in question.asked),
        relations=tuple(question.asked[t.number].relation for t in question.tasks),
        scores=scores,
        leaves=len(theta),
        used=(),
        factors=tuple(
            (f is not None or question.scale is not None, g is not None)
            for f, g in zip(
                _factors(rows), _factors(block.columns), strict=True
            )
        ),
        rest=rest,
        strip=(512, 128),
        columns=columns,
        precision=_precision(block.precision),
        order=lambda i, step: (step, True),
    )
    return form._replace(used=_used(form)) if backward else form


def _precision(asked: Any) -> Any:
    """What a kernel for TPU can do: one pass in bfloat16, or float32 as it is."""
    one_pass = asked in (None, "default", "bfloat16", jax.lax.Precision.DEFAULT)
    return None if one_pass else jax.lax.Precision.HIGHEST


def _used(form: Form) -> tuple[int, ...]:
    """The numbers of kernel and reductions on which scores depend."""
    program = mosaic_blocks.program(form)
    read = {id(v) for equation in program.eqns for v in equation.invars}
    read |= {id(v) for v in program.outvars}
    theta = program.invars[: form.leaves]
    return tuple(k for k, variable in enumerate(theta) if id(variable) in read)


class _Call:
    """Collects the operands and results of one Pallas kernel, and calls it."""

    def __init__(
        self, block: Block, question: one_tile.Question, form: Form, sizes: Sizes
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
        for factor in _factors(rows):
            if factor is None and scale is not None:
                factor = jnp.ones(rows.nodes.index.shape, jnp.float32)
            self.row_factors.append(factor if scale is None else factor * scale)
        self.theta = [jnp.asarray(t) for t in _leaves((question.kernel, question.asked))]
        self.floats = {
            1: [f for f in self.row_factors if f is not None]
            + _leaves((rows.numbers, rows.nodes.extra)),
            0: [f for f in _factors(columns) if f is not None]
            + _leaves((columns.numbers, columns.nodes.extra)),
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
                (output.axis, *(row_results if output.axis else column_results)[output.number])
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
                dimension_semantics=("parallel" if parallel else "arbitrary", "arbitrary"),
                vmem_limit_bytes=mosaic_blocks.memory(),
            ),
            interpret=pltpu.InterpretParams() if self.block.interpret else False,
            name=name,
        )(*(x for x, _ in operands.values()))
        return dict(zip(self.outputs, results, strict=True))


def _factors(side: slices.Side) -> list[jax.Array | None]:
    return [vectors.factor for vectors in side.vectors]


def _leaves(tree: Any) -> list[jax.Array]:
    return jax.tree.leaves(tree)


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
    low, high = functools.reduce(jnp.minimum, lows), functools.reduce(jnp.maximum, highs)
    some = low <= high
    return jnp.where(some, low, 0), jnp.where(some, high, 0)
