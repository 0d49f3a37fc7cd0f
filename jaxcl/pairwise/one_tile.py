"""One tile: the scores of its pairs, what they add to the reductions, and back."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import graphs, kernels
from jaxcl.pairwise import reductions, slices, trees

Asked = tuple[reductions.Reduction, ...]


class Output(NamedTuple):
    """A reduction that a tile contributes to.

    Attributes:
      number: which reduction.
      axis: which axis of the tile is added up; 1 leaves a number for each row.
      mirror: whether a tile on the diagonal holds these pairs a second time.
    """

    number: int
    axis: int
    mirror: bool


class Task(NamedTuple):
    """Scores of a tile, and what they contribute to.

    Attributes:
      number: the reduction whose relation and score are evaluated.
      swapped: whether the tile's columns are the anchors.
      outputs: the reductions that share these scores.
    """

    number: int
    swapped: bool
    outputs: tuple[Output, ...]


def make_tasks(
    asked: Asked,
    schedule: str,
    anchors: graphs.Nodes,
    row_cut: slices.Cut,
    backward: bool = False,
) -> list[Task]:
    """Says what each tile contributes to.

    Args:
      asked: the reductions.
      schedule: "triangular", "both" or "mirrored".
      anchors: the nodes of the rows.
      row_cut: how they are cut.
      backward: whether derivatives are contributed.

    Returns:
      Tasks; reductions that differ in their direction only share one.
    """
    kinds: dict[Any, list[int]] = {}
    for number, reduction in enumerate(asked):
        kind = (reduction.accumulate, reduction.relation, reduction.score)
        key = (*kind, number) if reduction.parameters else kind
        kinds.setdefault(key, []).append(number)

    tasks = []
    for numbers in kinds.values():
        # By whether the tile's columns are the anchors.
        outputs: dict[bool, list[Output]] = {False: [], True: []}
        for number in numbers:
            of_rows = asked[number].over == "candidates"
            if schedule == "mirrored":
                outputs[not of_rows].append(Output(number, 1, False))
                if backward:
                    outputs[of_rows].append(Output(number, 0, False))
                continue
            outputs[False].append(Output(number, int(of_rows), False))
            if schedule == "triangular" and row_cut.number > 1:
                outputs[True].append(Output(number, int(not of_rows), True))
        if schedule != "both" and not jax.tree.leaves(anchors.extra):
            # Without extras a score cannot tell its anchor from its candidate.
            outputs = {False: outputs[False] + outputs[True]}
        tasks += [
            Task(numbers[0], swapped, tuple(those))
            for swapped, those in outputs.items()
            if those
        ]
    return tasks


class Tile(NamedTuple):
    """Where a tile is, who its rows and columns are, and what is known of its pairs."""

    row: slices.Side
    column: slices.Side
    i: Any
    j: Any
    row_cut: slices.Cut
    column_cut: slices.Cut
    layout: slices.Layout
    first: Any  # column of the block, among those of all devices
    pair_weight: jax.Array | None

    def weight(self) -> jax.Array | None:
        """The tile of `pair_weight`, if there is one."""
        if self.pair_weight is None:
            return None
        column = self.first + slices.start(self.column_cut, self.j)
        start = slices.start(self.row_cut, self.i), column
        size = self.row_cut.size, self.column_cut.size
        return lax.dynamic_slice(self.pair_weight, start, size)


def add_to(
    states: dict[int, Any],
    tasks: list[Task],
    tile: Tile,
    theta: tuple[kernels.Kernel, Asked],
    row: slices.Prepared,
) -> dict[int, Any]:
    """Adds the scores of one tile to the reductions.

    Args:
      states: reductions that have seen some of the pairs, by number.
      tasks: what the tile contributes to.
      tile: where it is.
      theta: the kernel and the reductions.
      row: what the kernel compares of the tile's rows.

    Returns:
      The reductions with the tile's pairs.
    """
    kernel, asked = theta
    column, _ = slices.prepare(kernel, tile.column)
    scores = _scores(tasks, tile, theta, _products(kernel, row, column), row, column)
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
                part = trees.where(tile.i == tile.j, nothing, part)
            cut, at = (tile.row_cut, tile.i) if axis else (tile.column_cut, tile.j)
            states[number] = trees.update(
                merge, states[number], part, slices.start(cut, at)
            )
    return states


def gradient(
    tasks: list[Task],
    tile: Tile,
    theta: tuple[kernels.Kernel, Asked],
    row: slices.Prepared,
    transposed: list[jax.Array] | None,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
) -> tuple[slices.Prepared, slices.Prepared, tuple[kernels.Kernel, Asked]]:
    """Computes what one tile adds to the gradients.

    Args:
      tasks: what the tile contributes to.
      tile: where it is.
      theta: the kernel and the reductions.
      row: what the kernel compares of the tile's rows.
      transposed: the row vectors, for the product that the columns need; without them
        the columns get no vectors.
      row_results: cotangent and `reductions.finish`'s number of each row, by reduction.
      column_results: the same of each column.

    Returns:
      The gradients with respect to rows, columns and theta.
    """
    kernel, asked = theta
    column, _ = slices.prepare(kernel, tile.column)
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


def _products(
    kernel: kernels.Kernel, row: slices.Prepared, column: slices.Prepared
) -> list[jax.Array]:
    pairs = zip(row.vectors, column.vectors, strict=True)
    return [_dot(kernel, x, y, 1) for x, y in pairs]


def _dot(kernel: kernels.Kernel, x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(
        x, y, (((1,), (axis,)), ((), ())), precision=kernel.precision
    )


def _scores(
    tasks: list[Task],
    tile: Tile,
    theta: tuple[kernels.Kernel, Asked],
    products: list[jax.Array],
    row: slices.Prepared,
    column: slices.Prepared,
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


def _slope(
    task: Task,
    score: jax.Array,
    tile: Tile,
    asked: Asked,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
) -> jax.Array:
    """The derivative of all results with respect to the scores of a task."""
    reduction = asked[task.number]
    slope = jnp.zeros_like(score)
    for number, axis, mirror in task.outputs:
        if axis == 1:
            results, cut, at = row_results[number], tile.row_cut, tile.i
        else:
            results, cut, at = column_results[number], tile.column_cut, tile.j
        cotangent, known = trees.take(results, slices.start(cut, at), cut.size)
        if mirror:
            cotangent = jnp.where(tile.i == tile.j, 0, cotangent)
        slope += reductions.slope(
            reduction,
            score,
            jnp.expand_dims(cotangent, axis),
            jnp.expand_dims(known, axis),
        )
    return jnp.where(_member(task, reduction, tile), slope, 0)


def _member(task: Task, reduction: reductions.Reduction, tile: Tile) -> jax.Array:
    """Tells which pairs of a tile a task counts."""
    anchor, candidate = _roles(task, tile.row.nodes, tile.column.nodes)
    return reduction.relation(anchor, candidate) & anchor.valid & candidate.valid


def _roles(
    task: Task, row: graphs.Nodes, column: graphs.Nodes
) -> tuple[graphs.Nodes, graphs.Nodes]:
    """Gives the tile's anchors and candidates, as arrays [n, 1] and [1, m]."""
    rows, columns = reductions.side(row, 1), reductions.side(column, 0)
    return (columns, rows) if task.swapped else (rows, columns)
