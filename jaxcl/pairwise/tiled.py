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

Gradients are added up in the space of the kernel's vectors, transposed for columns:
matrix libraries are fastest at that form of the product.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import graphs, kernels, mesh
from jaxcl.pairwise import exchange, reductions

# Fastest edge on a CPU for embeddings of 64 to 1024 numbers; a float32 tile is 4 MB.
DEFAULT_TILE = 1024

Asked = tuple[reductions.Reduction, ...]


class Plan(NamedTuple):
    """What is static about a call.

    Attributes:
      names: mesh axes over which the nodes are sharded.
      exchange: how candidates travel over them, "gather" or "ring".
      tile: the largest edge of a tile; None is chosen here.
    """

    names: tuple[str, ...]
    exchange: str
    tile: int | None


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
    columns = rows if candidates is None else _side(candidates)
    schedule = _schedule(plan, candidates)
    row_cut = _cut(rows, plan.tile)
    tasks = _tasks(asked, schedule, anchors, row_cut)
    # Results that belong to columns, and travel with them.
    of_columns = {
        number
        for number, reduction in enumerate(asked)
        if schedule == "both" and reduction.over == "anchors"
    }
    varying = mesh.varying_axes((rows, columns, kernel, asked, pair_weight))

    def empty(numbers: Collection[int], side: _Side) -> dict[int, Any]:
        states = {k: reductions.empty(asked[k], side.factor) for k in numbers}
        return mesh.cast_varying(states, varying)

    def visit_block(block: _Side, first: Any, owed: Any, kept: Any) -> Any:
        column_cut = _cut(block, plan.tile)

        def visit_row(i: Any, states: dict[int, Any]) -> dict[int, Any]:
            row = _take(rows, row_cut, i)
            row_own, layout = _prepare(kernel, row)

            def visit_tile(j: Any, states: dict[int, Any]) -> dict[int, Any]:
                column = _take(block, column_cut, j)
                column_own, _ = _prepare(kernel, column)
                tile = _Tile(
                    row, column, i, j, row_cut, column_cut, layout, first, pair_weight
                )
                products = _products(kernel, row_own, column_own)
                scores = _scores(
                    tasks, tile, (kernel, asked), products, row_own, column_own
                )
                return _add_tile(tasks, tile, asked, scores, states)

            return _over_columns(schedule, i, column_cut, visit_tile, states)

        states = lax.fori_loop(0, row_cut.number, visit_row, {**owed, **kept})
        return {k: states[k] for k in owed}, {k: states[k] for k in kept}

    def bring_home(owed: dict[int, Any]) -> dict[int, Any]:
        return {
            k: exchange.scatter_combine(
                functools.partial(reductions.combine, asked[k]), state, plan.names
            )
            for k, state in owed.items()
        }

    owed, kept = exchange.visit_blocks(
        plan.exchange,
        plan.names,
        columns,
        functools.partial(empty, of_columns),
        visit_block,
        bring_home,
        empty(set(range(len(asked))) - of_columns, rows),
    )
    states = {**owed, **kept}
    finished = [reductions.finish(r, states[k]) for k, r in enumerate(asked)]
    known = [number for _, number in finished]
    residuals = (kernel, asked, anchors, candidates, pair_weight, known)
    return tuple(result for result, _ in finished), residuals


def _backward(plan: Plan, residuals: Any, cotangents: tuple[jax.Array, ...]) -> Any:
    kernel, asked, anchors, candidates, pair_weight, known = residuals
    rows = _side(anchors)
    columns = rows if candidates is None else _side(candidates)
    schedule = _schedule(plan, candidates)
    row_cut = _cut(rows, plan.tile)
    tasks = _tasks(asked, schedule, anchors, row_cut, backward=True)
    # What a tile needs to know about results: of its rows, and of its columns.
    results = dict(enumerate(zip(cotangents, known, strict=True)))
    of_columns = {o.number for task in tasks for o in task.outputs if o.axis == 0}
    traveling = columns, {number: results[number] for number in of_columns}
    varying = mesh.varying_axes((rows, columns, kernel, asked, pair_weight, cotangents))

    def visit_block(traveling: Any, first: Any, owed: Any, kept: Any) -> Any:
        block, column_results = traveling
        column_cut = _cut(block, plan.tile)

        def visit_row(i: Any, carry: Any) -> Any:
            column_gradient, (gradient, prepare_gradient, theta_gradient) = carry
            row = _take(rows, row_cut, i)
            row_own, layout = _prepare(kernel, row)
            # The barrier keeps XLA from folding the transposition into each product.
            transposed = lax.optimization_barrier([v.T for v in row_own.vectors])

            def visit_tile(j: Any, carry: Any) -> Any:
                row_gradient, column_gradient, theta_gradient = carry
                column = _take(block, column_cut, j)
                tile = _Tile(
                    row, column, i, j, row_cut, column_cut, layout, first, pair_weight
                )
                row_part, column_part, theta_part = _tile_gradient(
                    tasks,
                    tile,
                    (kernel, asked),
                    row_own,
                    None if schedule == "mirrored" else transposed,
                    results,
                    column_results,
                )
                if schedule != "mirrored":
                    column_gradient = _update(
                        _add,
                        column_gradient,
                        column_part,
                        _start(column_cut, j),
                        axis=-1,
                    )
                return (
                    _add(row_gradient, row_part),
                    column_gradient,
                    _add(theta_gradient, theta_part),
                )

            zero = jax.tree.map(jnp.zeros_like, row_own)
            row_gradient, column_gradient, theta_gradient = _over_columns(
                schedule,
                i,
                column_cut,
                visit_tile,
                (zero, column_gradient, theta_gradient),
            )
            if schedule == "triangular":
                # By now all tiles in which these rows were columns have been visited.
                start, size = _start(row_cut, i), row_cut.size
                due = _transpose(_slice(column_gradient, start, size, axis=-1))
                row_gradient = _add(row_gradient, _mask_rows(due, _new(row_cut, i)))
            prepare_part, part = _pull_back(kernel, row.nodes, row_gradient)
            gradient = _update(_add, gradient, part, _start(row_cut, i))
            prepare_gradient = _add(prepare_gradient, prepare_part)
            return column_gradient, (gradient, prepare_gradient, theta_gradient)

        return lax.fori_loop(0, row_cut.number, visit_row, (owed, kept))

    def empty(traveling: Any) -> Any:
        if schedule == "mirrored":
            return ()
        return mesh.cast_varying(_column_zeros(kernel, traveling[0]), varying)

    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    nothing = (
        zeros(_NodeGradient(anchors.z, anchors.extra)),
        zeros(kernel),
        zeros((kernel, asked)),
    )
    column_gradient, (gradient, prepare_gradient, theta_gradient) = (
        exchange.visit_blocks(
            plan.exchange,
            plan.names,
            traveling,
            empty,
            visit_block,
            lambda owed: exchange.scatter_sum(owed, plan.names),
            mesh.cast_varying(nothing, varying),
        )
    )
    if schedule == "mirrored":
        # Each pair was seen from both of its ends.
        theta_gradient = jax.tree.map(lambda x: x / 2, theta_gradient)
    candidates_gradient = None
    if schedule == "both":
        own = _transpose(column_gradient)
        prepare_part, part = _pull_back(kernel, columns.nodes, own)
        prepare_gradient = _add(prepare_gradient, prepare_part)
        candidates_gradient = part.of_nodes()
    kernel_gradient, asked_gradient = theta_gradient
    return (
        _add(kernel_gradient, prepare_gradient),
        asked_gradient,
        gradient.of_nodes(),
        candidates_gradient,
        None,
    )


reduce_tiles.defvjp(_forward, _backward)


# Which tiles are visited, and what each contributes to. -------------------------------


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


class _Cut(NamedTuple):
    """How rows are cut into slices of one size; the last may begin early.

    Its first rows are then also the last rows of the slice before, which has counted
    them: nothing is padded.
    """

    size: int
    number: int
    length: int


def _schedule(plan: Plan, candidates: graphs.Nodes | None) -> str:
    if candidates is not None:
        return "both"
    return "mirrored" if plan.names else "triangular"


def _tasks(
    asked: Asked,
    schedule: str,
    anchors: graphs.Nodes,
    row_cut: _Cut,
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
            if schedule == "triangular" and row_cut.number > 1:
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


def _over_columns(
    schedule: str,
    i: Any,
    cut: _Cut,
    visit_tile: Callable[[Any, Any], Any],
    carry: Any,
) -> Any:
    first = i if schedule == "triangular" else 0
    return lax.fori_loop(first, cut.number, visit_tile, carry)


def _cut(side: "_Side", tile: int | None) -> _Cut:
    n = side.factor.shape[0]
    count = -(-n // (tile or DEFAULT_TILE))
    return _Cut(-(-n // count), count, n)


def _start(cut: _Cut, number: Any) -> Any:
    return jnp.minimum(number * cut.size, cut.length - cut.size)


def _new(cut: _Cut, number: Any) -> jax.Array:
    """Tells which rows of a slice the slice before has not counted."""
    return _start(cut, number) + jnp.arange(cut.size) >= number * cut.size


# Nodes, whole and in slices. ----------------------------------------------------------


class _Side(NamedTuple):
    """Nodes, and one over the length of each embedding, [n]."""

    nodes: graphs.Nodes
    factor: jax.Array


class _Prepared(NamedTuple):
    """What a kernel compares and a score reads; also the gradient by it.

    Attributes:
      vectors: arrays [n, d_k]. One that a kernel uses twice is here once.
      numbers: the kernel's numbers, a pytree of [n].
      extra: the nodes' extras, a pytree of [n].
    """

    vectors: list[jax.Array]
    numbers: Any
    extra: Any


class _Layout(NamedTuple):
    """How a kernel's pytree is made of the vectors in `_Prepared`."""

    structure: Any
    places: tuple[int, ...]


class _NodeGradient(NamedTuple):
    """The gradient by the floating parts of nodes."""

    z: jax.Array
    extra: Any

    def of_nodes(self) -> Any:
        return graphs.Nodes(self.z, None, None, None, self.extra)  # type: ignore[arg-type]


def _side(nodes: graphs.Nodes) -> _Side:
    dtype = kernels.accumulator(nodes.z.dtype)
    return _Side(nodes, kernels.inverse_norm(nodes.z.astype(dtype)))


def _take(side: _Side, cut: _Cut, number: Any) -> _Side:
    side = _slice(side, _start(cut, number), cut.size)
    valid = side.nodes.valid & _new(cut, number)
    return side._replace(nodes=side.nodes._replace(valid=valid))


def _prepare(kernel: kernels.Kernel, side: _Side) -> tuple[_Prepared, _Layout]:
    z = side.nodes.z.astype(side.factor.dtype)
    vectors, numbers, layout = _different(kernel, z, z * side.factor[:, None])
    extra = jax.tree.map(lambda x: x.astype(side.factor.dtype), side.nodes.extra)
    return _Prepared(vectors, numbers, extra), layout


def _different(
    kernel: kernels.Kernel, z: jax.Array, unit: jax.Array
) -> tuple[list[jax.Array], Any, _Layout]:
    vectors, numbers = kernel.prepare(z, unit)
    leaves, structure = jax.tree.flatten(vectors)
    different: list[jax.Array] = []
    places = []
    for leaf in leaves:
        known = [k for k, seen in enumerate(different) if seen is leaf]
        places.append(known[0] if known else len(different))
        different += [] if known else [leaf]
    return different, numbers, _Layout(structure, tuple(places))


def _pull_back(
    kernel: kernels.Kernel, nodes: graphs.Nodes, gradient: _Prepared
) -> tuple[kernels.Kernel, _NodeGradient]:
    """Takes the gradient from what is compared to kernel and embeddings."""

    def prepare(kernel: kernels.Kernel, z: jax.Array) -> Any:
        return _different(kernel, z, kernels.unit(z))[:2]

    dtype = kernels.accumulator(nodes.z.dtype)
    _, pull = jax.vjp(prepare, kernel, nodes.z.astype(dtype))
    kernel_gradient, z = pull((gradient.vectors, gradient.numbers))
    extra = jax.tree.map(lambda g, x: g.astype(x.dtype), gradient.extra, nodes.extra)
    return kernel_gradient, _NodeGradient(z.astype(nodes.z.dtype), extra)


def _column_zeros(kernel: kernels.Kernel, block: _Side) -> _Prepared:
    shapes = jax.eval_shape(lambda block: _prepare(kernel, block)[0], block)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape[::-1], x.dtype), shapes)
    return zeros


# One tile. ----------------------------------------------------------------------------


class _Tile(NamedTuple):
    """Where a tile is, who its rows and columns are, and what is known of its pairs."""

    row: _Side
    column: _Side
    i: Any
    j: Any
    row_cut: _Cut
    column_cut: _Cut
    layout: _Layout
    first: Any  # column of the block, among those of all devices
    pair_weight: jax.Array | None

    def weight(self) -> jax.Array | None:
        if self.pair_weight is None:
            return None
        column = self.first + _start(self.column_cut, self.j)
        start = _start(self.row_cut, self.i), column
        size = self.row_cut.size, self.column_cut.size
        return lax.dynamic_slice(self.pair_weight, start, size)


def _products(
    kernel: kernels.Kernel, row: _Prepared, column: _Prepared
) -> list[jax.Array]:
    pairs = zip(row.vectors, column.vectors, strict=True)
    return [_dot(kernel, x, y, 1) for x, y in pairs]


def _dot(kernel: kernels.Kernel, x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(
        x, y, (((1,), (axis,)), ((), ())), precision=kernel.precision
    )


def _scores(
    tasks: list[_Task],
    tile: _Tile,
    theta: tuple[kernels.Kernel, Asked],
    products: list[jax.Array],
    row: _Prepared,
    column: _Prepared,
) -> list[jax.Array]:
    """Computes the scores of one tile, for each task."""
    kernel, asked = theta
    structure, places = tile.layout
    logits = kernel.elementwise(
        jax.tree.unflatten(structure, [products[place] for place in places]),
        jax.tree.map(lambda x: x[:, None], row.numbers),
        jax.tree.map(lambda x: x[None, :], column.numbers),
    )
    of_row = tile.row.nodes._replace(extra=row.extra)
    of_column = tile.column.nodes._replace(extra=column.extra)
    scores = []
    for task in tasks:
        anchor, candidate = _roles(task, of_row, of_column)
        scores.append(
            reductions.score(
                asked[task.number], logits, anchor, candidate, tile.weight()
            )
        )
    return scores


def _add_tile(
    tasks: list[_Task],
    tile: _Tile,
    asked: Asked,
    scores: list[jax.Array],
    states: dict[int, Any],
) -> dict[int, Any]:
    """Adds the scores of one tile to the reductions."""
    states = dict(states)
    for task, score in zip(tasks, scores, strict=True):
        reduction = asked[task.number]
        merge = functools.partial(reductions.combine, reduction)
        axes = {output.axis for output in task.outputs}
        member = _member(task, reduction, tile)
        parts = reductions.summarize(reduction, score, member, axes)
        for number, axis, mirror in task.outputs:
            part = parts[axis]
            if mirror:
                nothing = reductions.empty(reduction, part.total)
                part = _where(tile.i == tile.j, nothing, part)
            cut, at = (tile.row_cut, tile.i) if axis else (tile.column_cut, tile.j)
            states[number] = _update(merge, states[number], part, _start(cut, at))
    return states


def _tile_gradient(
    tasks: list[_Task],
    tile: _Tile,
    theta: tuple[kernels.Kernel, Asked],
    row: _Prepared,
    transposed: list[jax.Array] | None,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
) -> tuple[_Prepared, _Prepared, tuple[kernels.Kernel, Asked]]:
    """Computes what one tile adds to the gradient by its rows, columns and theta.

    `transposed` are the row vectors, for the product that the columns need; without
    them the columns get no vectors.
    """
    kernel, asked = theta
    column, _ = _prepare(kernel, tile.column)
    products = _products(kernel, row, column)
    scores, pull = jax.vjp(
        functools.partial(_scores, tasks, tile),
        theta,
        products,
        row._replace(vectors=[]),
        column._replace(vectors=[]),
    )
    slopes = [
        _slope(task, score, tile, asked, row_results, column_results)
        for task, score in zip(tasks, scores, strict=True)
    ]
    theta_part, slopes, row_part, column_part = pull(slopes)
    row_part = row_part._replace(
        vectors=[
            _dot(kernel, slope, vector, 0)
            for slope, vector in zip(slopes, column.vectors, strict=True)
        ]
    )
    if transposed is not None:
        column_part = column_part._replace(
            vectors=[
                _dot(kernel, vector, slope, 0)
                for slope, vector in zip(slopes, transposed, strict=True)
            ]
        )
    return row_part, column_part, theta_part


def _slope(
    task: _Task,
    score: jax.Array,
    tile: _Tile,
    asked: Asked,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
) -> jax.Array:
    """Computes the derivative of all results by the scores of a task."""
    reduction = asked[task.number]
    slope = jnp.zeros_like(score)
    for number, axis, mirror in task.outputs:
        if axis == 1:
            results, cut, at = row_results[number], tile.row_cut, tile.i
        else:
            results, cut, at = column_results[number], tile.column_cut, tile.j
        cotangent, known = _slice(results, _start(cut, at), cut.size)
        if mirror:
            cotangent = jnp.where(tile.i == tile.j, 0, cotangent)
        slope += reductions.slope(
            reduction,
            score,
            jnp.expand_dims(cotangent, axis),
            jnp.expand_dims(known, axis),
        )
    return jnp.where(_member(task, reduction, tile), slope, 0)


def _member(task: _Task, reduction: reductions.Reduction, tile: _Tile) -> jax.Array:
    """Tells which pairs of a tile a task counts."""
    anchor, candidate = _roles(task, tile.row.nodes, tile.column.nodes)
    return reduction.relation(anchor, candidate) & anchor.valid & candidate.valid


def _roles(
    task: _Task, row: graphs.Nodes, column: graphs.Nodes
) -> tuple[graphs.Nodes, graphs.Nodes]:
    """Gives the tile's anchors and candidates, as arrays [n, 1] and [1, m]."""
    rows, columns = reductions.side(row, 1), reductions.side(column, 0)
    return (columns, rows) if task.swapped else (rows, columns)


# Pytrees of arrays. -------------------------------------------------------------------


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, condition), a, b)


def _slice(tree: Any, start: Any, size: int, axis: int = 0) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, axis), tree)


def _update(
    merge: Callable[[Any, Any], Any], tree: Any, part: Any, start: Any, axis: int = 0
) -> Any:
    """Merges a part into the rows (or the last axis) of a pytree from `start` on."""
    size = jax.tree.leaves(part)[0].shape[axis]
    merged = merge(_slice(tree, start, size, axis), part)
    return jax.tree.map(
        lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, axis), tree, merged
    )


def _transpose(tree: Any) -> Any:
    return jax.tree.map(jnp.transpose, tree)


def _mask_rows(tree: Any, keep: jax.Array) -> Any:
    def mask(x: jax.Array) -> jax.Array:
        return jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

    return jax.tree.map(mask, tree)
