"""A block of pairs by Pallas kernels for TPU: what `tiled` does, in one program each.

Products, logits, scores, and the sums over them stay in the chip's memory; what leaves
it are a few numbers per node and gradients. `body` is what happens inside.
Vectors whose width is no multiple of 128, and nodes whose number is no multiple of a
block, are padded once, with nodes that are not valid.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from jaxcl import graphs, kernels
from jaxcl.pairwise import one_tile, reductions, slices
from jaxcl.pairwise.mosaic_tpu import backward_body, blocks, body, calls, forward_body
from jaxcl.pairwise.mosaic_tpu.body import LANES, Form


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
            form = form_of(block, question, backward=backward, columns=both)
            names = blocks.missing(form)
            if names:
                found.append(f"TPU kernels have no {' and no '.join(names)}")
                return
            try:
                blocks.sizes(block, form, backward=backward)
            except ValueError as error:
                found.append(str(error))

    jax.eval_shape(look, *args)
    return found[0] if found else None


def forward(
    block: Block, question: one_tile.Question, states: reductions.States
) -> reductions.States:
    """Adds a block of pairs to the reductions; like `tiled.forward`.

    Args:
      block: the pairs.
      question: what is asked.
      states: what the reductions have seen before, by number: [n] or, for what belongs
        to columns, [m].

    Returns:
      The states with this block.
    """
    form = form_of(block, question, backward=False)
    call = calls.Call(block, question, form, blocks.sizes(block, form, backward=False))
    of_rows, of_columns = (body.size(form, axis) for axis in (1, 0))
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
    found = call.run(
        forward_body.add_block, "jaxcl_pairs_forward", parallel=not of_columns
    )

    states = dict(states)
    for axis, name, side in ((1, "results", block.rows), (0, "columns", block.columns)):
        for number, at in body.places(form, axis).items():
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
        none = other == body.LOWEST
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
    form = form_of(block, question, backward=True, columns=of_columns is not None)
    call = calls.Call(block, question, form, blocks.sizes(block, form, backward=True))
    call.know(row_results, column_results)
    sizes, widths = call.sizes, call.widths
    column_rest, rest = (each.num_leaves for each in form.rest)
    for k, width in enumerate(widths):
        call.output(f"dx{k}", (sizes.bm, width))
    if rest:
        call.output("drow", (1, rest, sizes.bm))
        call.scratch("row_sums", (rest, sizes.bm, LANES))
    if of_columns is not None:
        for k, vector in enumerate(of_columns.vectors):
            call.accumulate(f"dy{k}", f"before{k}", vector)
        if column_rest:
            call.resident("dcolumn", (sizes.column_blocks, column_rest, sizes.bn))
    if form.used:
        call.resident("dtheta", (len(form.used), 1, sizes.bn))
    alone = of_columns is None and not form.used
    found = call.run(backward_body.add_block, "jaxcl_pairs_backward", parallel=alone)

    n, m = len(block.rows.nodes.index), len(block.columns.nodes.index)

    def numbers(name: str, count: int, like: slices.Gradient) -> Any:
        before, structure = jax.tree.flatten((like.numbers, like.extra))
        parts = (found[name][:, k].reshape(-1)[:count] for k in range(len(before)))
        return jax.tree.unflatten(structure, map(jnp.add, before, parts))

    vectors = []
    for k, before in enumerate(of_rows.vectors):
        part = found[f"dx{k}"][:n, : before.shape[1]]
        factor = call.row_factors[k]
        if of_columns is None and factor is not None:
            part *= factor[:, None]
        vectors.append(before + part)
    of_rows = slices.Gradient(vectors, *numbers("drow", n, of_rows))
    if of_columns is not None:
        vectors = [
            found[f"dy{k}"][:m, : before.shape[1]]
            for k, before in enumerate(of_columns.vectors)
        ]
        of_columns = slices.Gradient(vectors, *numbers("dcolumn", m, of_columns))
    leaves, structure = jax.tree.flatten(of_theta)
    for place, leaf in enumerate(form.used):
        leaves[leaf] += found["dtheta"][place].sum()
    return of_rows, of_columns, jax.tree.unflatten(structure, leaves)


def form_of(
    block: Block, question: one_tile.Question, *, backward: bool, columns: bool = False
) -> Form:
    """Describes a block of pairs to kernels.

    Args:
      block: the pairs.
      question: what is asked.
      backward: whether gradients are computed.
      columns: whether columns get them, too.

    Returns:
      What is static about it.
    """
    rows, kernel = block.rows, question.kernel
    rest = [
        jax.tree.structure((side.numbers, side.nodes.extra))
        for side in (block.columns, rows)
    ]
    theta, structure = jax.tree.flatten((kernel, question.asked))

    def scores(leaves: Any, products: Any, row: Any, column: Any) -> Any:
        kernel, asked = jax.tree.unflatten(structure, leaves)
        asking = question._replace(kernel=kernel, asked=asked)
        given, other = (
            (numbers, rows.nodes._replace(extra=extra))
            for numbers, extra in (row, column)
        )
        return one_tile.scores(asking, products, given, other)

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
                calls.factors(rows),
                calls.factors(block.columns),
                strict=True,
            )
        ),
        rest=(rest[0], rest[1]),
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
    program = blocks.program(form)
    read = {id(v) for equation in program.eqns for v in equation.invars}
    read |= {id(v) for v in program.outvars}
    theta = program.invars[: form.leaves]
    return tuple(k for k, variable in enumerate(theta) if id(variable) in read)
