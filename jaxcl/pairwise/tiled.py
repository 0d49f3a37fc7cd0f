"""Reductions over all pairs by tiles: the pair matrix is never stored.

The forward pass visits each tile and keeps a few numbers per node. The backward pass
visits each tile again, computes its logits anew, and multiplies the derivatives by the
scores into the gradients. Residuals are the inputs and those few numbers.

What is compared decides the schedule:

- `triangular`, a node set with itself on one device: each unordered pair of tiles is
  visited once and serves as (row, column) and as (column, row). That is the work of two
  matrix products, forward and backward, where autodiff of the dense form does three.
- `both`, two node sets: a tile serves the reductions of its rows and of its columns.
- `mirrored`, a node set with itself over several devices: local rows meet all columns.
  In the backward pass each device also takes, for its rows, what they owe to the
  results of other rows, so that no gradient has to travel.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import graphs, kernels, mesh
from jaxcl.pairwise import exchange, reductions

# Fastest edge on a CPU for embeddings of 64 to 1024 numbers; three float32 tiles of it
# take 12 MB.
DEFAULT_TILE = 1024

Asked = tuple[reductions.Reduction, ...]


class Plan(NamedTuple):
    """What is static about a call.

    Attributes:
      names: mesh axes over which the nodes are sharded.
      tile: the largest edge of a tile; None is chosen here.
    """

    names: tuple[str, ...]
    tile: int | None


class _Side(NamedTuple):
    """Nodes, and one over the length of each embedding, [n]."""

    nodes: graphs.Nodes
    factor: jax.Array


class _Gradient(NamedTuple):
    """Of one side. `scale` is what a factor on each unit vector would receive."""

    z: jax.Array
    scale: jax.Array
    extra: Any


class _Output(NamedTuple):
    """A reduction that a tile contributes to.

    Attributes:
      number: which reduction.
      axis: which axis of the tile is added up; 1 leaves a number for each row.
      mirror: whether a tile on the diagonal holds these pairs a second time.
    """

    number: int
    axis: int
    mirror: bool


class _Task(NamedTuple):
    """Scores of a tile, and what they contribute to.

    Attributes:
      number: the reduction whose relation and score are evaluated.
      swapped: whether the tile's columns are the anchors.
      outputs: the reductions that share these scores.
    """

    number: int
    swapped: bool
    outputs: tuple[_Output, ...]


class _Position(NamedTuple):
    """Where a tile begins, and from which row and column on its pairs are new."""

    row: Any
    new_row: Any
    column: Any
    new_column: Any


class _Cut(NamedTuple):
    """How rows are cut into slices of one size; the last may begin early."""

    size: int
    starts: np.ndarray
    firsts: np.ndarray


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def reduce_tiles(
    plan: Plan,
    kernel: kernels.Kernel,
    asked: Asked,
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    pair_weight: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """Computes reductions tile by tile.

    Args:
      plan: the mesh axes and the edge of a tile.
      kernel: a symmetric kernel with float array leaves.
      asked: the reductions.
      anchors: n nodes of this device.
      candidates: m nodes of this device; None for the anchors themselves.
      pair_weight: [n, devices * m] or None; a constant.

    Returns:
      One array for each reduction.
    """
    return _forward(plan, kernel, asked, anchors, candidates, pair_weight)[0]


def _forward(
    plan: Plan,
    kernel: kernels.Kernel,
    asked: Asked,
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    pair_weight: jax.Array | None,
) -> tuple[tuple[jax.Array, ...], Any]:
    rows = _side(anchors)
    block = exchange.gather(
        rows if candidates is None else _side(candidates), plan.names
    )
    schedule = _schedule(plan, candidates)
    row_cut, column_cut = _cut(rows, plan.tile), _cut(block, plan.tile)
    tasks = _tasks(asked, schedule, anchors, len(row_cut.starts) == 1)

    states = [
        reductions.empty(
            r,
            (block if schedule == "both" and r.over == "anchors" else rows).factor,
        )
        for r in asked
    ]
    varying = mesh.varying_axes((rows, block, kernel, asked, pair_weight))

    def visit(states: Any, at: _Position) -> tuple[Any, None]:
        row = _take(rows, at.row, at.new_row, row_cut.size)
        column = _take(block, at.column, at.new_column, column_cut.size)
        weight = _take_weight(pair_weight, at, row_cut.size, column_cut.size)
        scores = _scores(tasks, (kernel, asked), row, column, weight)
        states = list(states)
        for task, score in zip(tasks, scores, strict=True):
            reduction = asked[task.number]
            member = _member(task, reduction, row, column)
            axes = {output.axis for output in task.outputs}
            parts = reductions.summarize(reduction, score, member, axes)
            for number, axis, mirror in task.outputs:
                part = parts[axis]
                if mirror:
                    nothing = reductions.empty(reduction, part.total)
                    again = at.row == at.column
                    part = jax.tree.map(
                        functools.partial(jnp.where, again), nothing, part
                    )
                states[number] = _update(
                    functools.partial(reductions.combine, reduction),
                    states[number],
                    part,
                    at.row if axis == 1 else at.column,
                )
        return states, None

    positions = _positions(row_cut, column_cut, schedule)
    states, _ = lax.scan(visit, mesh.cast_varying(states, varying), positions)
    if schedule == "both":
        states = [
            exchange.scatter_combine(
                functools.partial(reductions.combine, r), state, plan.names
            )
            if r.over == "anchors"
            else state
            for r, state in zip(asked, states, strict=True)
        ]
    finished = [reductions.finish(r, s) for r, s in zip(asked, states, strict=True)]
    known = [number for _, number in finished]
    residuals = (kernel, asked, anchors, candidates, pair_weight, known)
    return tuple(result for result, _ in finished), residuals


def _backward(plan: Plan, residuals: Any, cotangents: tuple[jax.Array, ...]) -> Any:
    kernel, asked, anchors, candidates, pair_weight, known = residuals
    rows = _side(anchors)
    columns = rows if candidates is None else _side(candidates)
    block = exchange.gather(columns, plan.names)
    schedule = _schedule(plan, candidates)
    row_cut, column_cut = _cut(rows, plan.tile), _cut(block, plan.tile)
    tasks = _tasks(asked, schedule, anchors, len(row_cut.starts) == 1, backward=True)

    # What a tile needs to know about results: of its rows, and of its columns.
    row_results = list(zip(cotangents, known, strict=True))
    column_results = exchange.gather(row_results, plan.names)

    theta = (kernel, asked)
    varying = mesh.varying_axes((rows, block, theta, pair_weight, cotangents))
    zeros = [_zeros(rows), _zeros(block) if schedule == "both" else ()]
    carry = mesh.cast_varying((zeros, jax.tree.map(jnp.zeros_like, theta)), varying)

    def visit(carry: Any, at: _Position) -> tuple[Any, None]:
        (row_gradient, column_gradient), theta_gradient = carry
        row = _take(rows, at.row, at.new_row, row_cut.size)
        column = _take(block, at.column, at.new_column, column_cut.size)
        weight = _take_weight(pair_weight, at, row_cut.size, column_cut.size)

        def scores_of(theta: Any, row_free: Any, column_free: Any) -> list[jax.Array]:
            return _scores(
                tasks, theta, _bind(row, row_free), _bind(column, column_free), weight
            )

        free = [mesh.cast_varying(_free(side), varying) for side in (row, column)]
        if schedule == "mirrored":
            scores, pull = jax.vjp(
                lambda theta, row_free: scores_of(theta, row_free, free[1]),
                theta,
                free[0],
            )
        else:
            scores, pull = jax.vjp(scores_of, theta, *free)
        slopes = []
        for task, score in zip(tasks, scores, strict=True):
            reduction = asked[task.number]
            slope = jnp.zeros_like(score)
            for number, axis, mirror in task.outputs:
                results = row_results if axis == 1 else column_results
                start, size = (
                    (at.row, row_cut.size)
                    if axis == 1
                    else (at.column, column_cut.size)
                )
                cotangent, number_known = (
                    lax.dynamic_slice_in_dim(x, start, size) for x in results[number]
                )
                if mirror:
                    cotangent = jnp.where(at.row == at.column, 0, cotangent)
                slope += reductions.slope(
                    reduction,
                    score,
                    jnp.expand_dims(cotangent, axis),
                    jnp.expand_dims(number_known, axis),
                )
            member = _member(task, reduction, row, column)
            slopes.append(jnp.where(member, slope, 0))
        theta_part, row_part, *column_part = pull(slopes)
        theta_gradient = jax.tree.map(jnp.add, theta_gradient, theta_part)
        row_gradient = _update(_add, row_gradient, row_part, at.row)
        if schedule == "triangular":
            row_gradient = _update(_add, row_gradient, column_part[0], at.column)
        elif schedule == "both":
            column_gradient = _update(_add, column_gradient, column_part[0], at.column)
        return ([row_gradient, column_gradient], theta_gradient), None

    positions = _positions(row_cut, column_cut, schedule)
    (gradients, theta_gradient), _ = lax.scan(visit, carry, positions)
    row_gradient, column_gradient = gradients
    if schedule == "mirrored":
        # Each pair was seen from both of its ends.
        theta_gradient = jax.tree.map(lambda x: x / 2, theta_gradient)
    anchors_gradient = _node_gradient(rows, row_gradient)
    candidates_gradient = None
    if schedule == "both":
        own = exchange.scatter_sum(column_gradient, plan.names)
        candidates_gradient = _node_gradient(columns, own)
    return (*theta_gradient, anchors_gradient, candidates_gradient, None)


reduce_tiles.defvjp(_forward, _backward)


def _schedule(plan: Plan, candidates: graphs.Nodes | None) -> str:
    if candidates is not None:
        return "both"
    return "mirrored" if plan.names else "triangular"


def _tasks(
    asked: Asked,
    schedule: str,
    anchors: graphs.Nodes,
    single: bool,
    backward: bool = False,
) -> list[_Task]:
    # Reductions that differ in their direction only share relation and score.
    kinds: dict[Any, list[int]] = {}
    for number, reduction in enumerate(asked):
        kind = (reduction.accumulate, reduction.relation, reduction.score)
        key = (*kind, number) if reduction.parameters else kind
        kinds.setdefault(key, []).append(number)

    tasks = []
    for numbers in kinds.values():
        # By whether the tile's columns are the anchors.
        outputs: dict[bool, list[_Output]] = {False: [], True: []}
        for number in numbers:
            of_rows = asked[number].over == "candidates"
            if schedule == "mirrored":
                outputs[not of_rows].append(_Output(number, 1, False))
                if backward:
                    outputs[of_rows].append(_Output(number, 0, False))
                continue
            outputs[False].append(_Output(number, int(of_rows), False))
            if schedule == "triangular" and not single:
                outputs[True].append(_Output(number, int(not of_rows), True))
        if schedule != "both" and not jax.tree.leaves(anchors.extra):
            # Without extras a score cannot tell its anchor from its candidate.
            outputs = {False: outputs[False] + outputs[True]}
        tasks += [
            _Task(numbers[0], swapped, tuple(those))
            for swapped, those in outputs.items()
            if those
        ]
    return tasks


def _side(nodes: graphs.Nodes) -> _Side:
    dtype = kernels.accumulator(nodes.z.dtype)
    return _Side(nodes, kernels.inverse_norm(nodes.z.astype(dtype)))


def _cut(side: _Side, tile: int | None) -> _Cut:
    n = side.factor.shape[0]
    count = -(-n // (tile or DEFAULT_TILE))
    size = -(-n // count)
    firsts = np.arange(count, dtype=np.int32) * size
    return _Cut(size, np.minimum(firsts, n - size), firsts)


def _positions(rows: _Cut, columns: _Cut, schedule: str) -> _Position:
    if schedule == "triangular":
        i, j = np.triu_indices(len(rows.starts))
    else:
        i, j = np.indices((len(rows.starts), len(columns.starts))).reshape(2, -1)
    return _Position(
        rows.starts[i], rows.firsts[i], columns.starts[j], columns.firsts[j]
    )


def _take(side: _Side, start: Any, first: Any, size: int) -> _Side:
    side = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), side)
    # Rows that an overlapping last slice shares with the one before are seen there.
    new = start + jnp.arange(size, dtype=jnp.int32) >= first
    nodes = side.nodes._replace(
        z=side.nodes.z.astype(side.factor.dtype), valid=side.nodes.valid & new
    )
    return side._replace(nodes=nodes)


def _take_weight(
    weight: jax.Array | None, at: _Position, rows: int, columns: int
) -> jax.Array | None:
    if weight is None:
        return None
    return lax.dynamic_slice(weight, (at.row, at.column), (rows, columns))


def _update(merge: Callable[[Any, Any], Any], state: Any, part: Any, start: Any) -> Any:
    """Merges what a tile gave into its rows of the state."""
    size = jax.tree.leaves(part)[0].shape[0]
    old = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), state)
    return jax.tree.map(
        lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0),
        state,
        merge(old, part),
    )


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _free(side: _Side) -> _Gradient:
    """What a tile is differentiated by: embeddings, a one per unit vector, extras."""
    return _Gradient(side.nodes.z, jnp.ones_like(side.factor), side.nodes.extra)


def _bind(side: _Side, free: _Gradient) -> _Side:
    nodes = side.nodes._replace(z=free.z, extra=free.extra)
    return _Side(nodes, side.factor * free.scale)


def _zeros(side: _Side) -> _Gradient:
    return jax.tree.map(
        lambda x: jnp.zeros(x.shape, side.factor.dtype),
        _Gradient(side.nodes.z, side.factor, side.nodes.extra),
    )


def _node_gradient(side: _Side, gradient: _Gradient) -> graphs.Nodes:
    # A unit vector is z times a factor. The tiles took the factor for a constant; its
    # own derivative, the projection onto the sphere's tangent, is added here once.
    nodes, factor = side
    unit = nodes.z.astype(factor.dtype) * factor[:, None]
    z = gradient.z - unit * (gradient.scale * factor)[:, None]
    extra = jax.tree.map(lambda g, x: g.astype(x.dtype), gradient.extra, nodes.extra)
    return graphs.Nodes(z.astype(nodes.z.dtype), None, None, None, extra)  # type: ignore[arg-type]


def _scores(
    tasks: list[_Task],
    theta: tuple[kernels.Kernel, Asked],
    row: _Side,
    column: _Side,
    weight: jax.Array | None,
) -> list[jax.Array]:
    """Computes the scores of one tile, for each task."""
    kernel, asked = theta
    prepared = [
        kernel.prepare(side.nodes.z, side.nodes.z * side.factor[:, None])
        for side in (row, column)
    ]
    (row_vectors, row_numbers), (column_vectors, column_numbers) = prepared
    logits = kernel.elementwise(
        reductions.products(kernel, row_vectors, column_vectors),
        jax.tree.map(lambda x: x[:, None], row_numbers),
        jax.tree.map(lambda x: x[None, :], column_numbers),
    )
    scores = []
    for task in tasks:
        anchor, candidate = _roles(task, row, column)
        scores.append(
            reductions.score(asked[task.number], logits, anchor, candidate, weight)
        )
    return scores


def _roles(task: _Task, row: _Side, column: _Side) -> Iterator[graphs.Nodes]:
    """Gives the tile's anchors and candidates, as arrays [n, 1] and [1, m]."""
    rows, columns = reductions.side(row.nodes, 1), reductions.side(column.nodes, 0)
    return iter((columns, rows) if task.swapped else (rows, columns))


def _member(
    task: _Task, reduction: reductions.Reduction, row: _Side, column: _Side
) -> jax.Array:
    """Tells which pairs of a tile a task counts."""
    anchor, candidate = _roles(task, row, column)
    return reduction.relation(anchor, candidate) & anchor.valid & candidate.valid
