"""One tile: the scores of its pairs, what they add to the reductions, and back."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import graphs, kernels
from jaxcl.pairwise import reductions, slices

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
    *,
    several: bool,
    extras: bool,
    backward: bool = False,
) -> tuple[Task, ...]:
    """Says what each tile contributes to.

    Args:
      asked: the reductions.
      schedule: "triangular", "both" or "mirrored".
      several: whether there is more than one tile.
      extras: whether nodes carry any.
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
            if schedule == "triangular" and several:
                outputs[True].append(Output(number, int(not of_rows), True))
        if schedule != "both" and not extras:
            # Without extras a score cannot tell its anchor from its candidate.
            outputs = {False: outputs[False] + outputs[True]}
        tasks += [
            Task(numbers[0], swapped, tuple(those))
            for swapped, those in outputs.items()
            if those
        ]
    return tuple(tasks)


class Tile(NamedTuple):
    """What a tile compares, and what is known of its pairs.

    Attributes:
      row: what is compared of its rows; numbers [n].
      column: what is compared of its columns; numbers [m].
      diagonal: whether both are the same nodes.
      weight: the tile of `pair_weight` [n, m], or None.
    """

    row: slices.Side
    column: slices.Side
    diagonal: Any
    weight: jax.Array | None = None


class Question(NamedTuple):
    """What is asked of every tile.

    Attributes:
      kernel: a log-kernel.
      asked: the reductions.
      tasks: what a tile contributes to.
      layout: how the kernel's products are made of those of vectors.
      scale: what products are multiplied with, or None.
    """

    kernel: kernels.Kernel
    asked: Asked
    tasks: tuple[Task, ...]
    layout: slices.Layout
    scale: ArrayLike | None


def add_up(
    question: Question, tile: Tile, products: list[jax.Array], at_once: bool
) -> dict[tuple[int, int], reductions.Partial]:
    """Reduces the pairs of one tile.

    Args:
      question: what is asked.
      tile: what it compares.
      products: of its vectors, [n, m] each.
      at_once: whether scores are read once; see `reductions.summarize`.

    Returns:
      By the number of a reduction and the axis that was added up, what the tile adds.
    """
    scores = _scores(question, tile, products)
    found: dict[tuple[int, int], reductions.Partial] = {}
    for task, score in zip(question.tasks, scores, strict=True):
        reduction = question.asked[task.number]
        axes = {output.axis for output in task.outputs}
        member = _member(task, reduction, tile)
        parts = reductions.summarize(reduction, score, member, axes, at_once)
        for number, axis, mirror in task.outputs:
            part = parts[axis]
            if mirror:
                nothing = reductions.empty(reduction, part.total)
                part = jax.tree.map(
                    functools.partial(jnp.where, tile.diagonal), nothing, part
                )
            if (number, axis) in found:
                part = reductions.combine(reduction, found[number, axis], part)
            found[number, axis] = part
    return found


def differentiate(
    question: Question,
    tile: Tile,
    products: list[jax.Array],
    row_results: dict[int, Any],
    column_results: dict[int, Any],
) -> tuple[list[jax.Array], tuple[Any, Any], tuple[Any, Any], Any]:
    """Computes the derivatives that one tile adds.

    Args:
      question: what is asked.
      tile: what it compares.
      products: of its vectors, [n, m] each.
      row_results: cotangent and `reductions.finish`'s number of each row, by reduction.
      column_results: the same of each column.

    Returns:
      The gradients with respect to products, to numbers and extras of the rows, to
      those of the columns, and to kernel and reductions.
    """

    def of(
        theta: Any, products: list[jax.Array], row: Any, column: Any
    ) -> list[jax.Array]:
        kernel, asked = theta
        ends = (_with(tile.row, *row), _with(tile.column, *column))
        replaced = tile._replace(row=ends[0], column=ends[1])
        return _scores(
            question._replace(kernel=kernel, asked=asked), replaced, products
        )

    def ends(side: slices.Side) -> tuple[Any, Any]:
        return side.numbers, side.nodes.extra

    theta = question.kernel, question.asked
    given, pull = jax.vjp(of, theta, products, ends(tile.row), ends(tile.column))
    slopes = [
        _slope(task, score, tile, question.asked, row_results, column_results)
        for task, score in zip(question.tasks, given, strict=True)
    ]
    theta_part, slopes, row_part, column_part = pull(slopes)
    return slopes, row_part, column_part, theta_part


def _with(side: slices.Side, numbers: Any, extra: Any) -> slices.Side:
    return side._replace(numbers=numbers, nodes=side.nodes._replace(extra=extra))


def _scores(
    question: Question, tile: Tile, products: list[jax.Array]
) -> list[jax.Array]:
    """Computes the scores of one tile, for each task."""
    ends = zip(products, tile.row.vectors, tile.column.vectors, strict=True)
    seen = [_rescaled(question.scale, p, x.factor, y.factor) for p, x, y in ends]
    row = jax.tree.map(lambda x: x[:, None], tile.row.numbers)
    column = jax.tree.map(lambda x: x[None, :], tile.column.numbers)
    row_nodes = reductions.side(tile.row.nodes, 1)
    column_nodes = reductions.side(tile.column.nodes, 0)
    return scores(question, seen, (row, row_nodes), (column, column_nodes), tile.weight)


def scores(
    question: Question,
    products: list[jax.Array],
    row: tuple[Any, graphs.Nodes],
    column: tuple[Any, graphs.Nodes],
    weight: jax.Array | None = None,
) -> list[jax.Array]:
    """Computes the scores of pairs, for each task.

    Args:
      question: what is asked.
      products: what the kernel's `elementwise` takes, each vector once, [n, m].
      row: the kernel's numbers of the rows, and their nodes, broadcasting with [n, m].
      column: the same of the columns.
      weight: of the pairs [n, m], or None.

    Returns:
      For each task scores [n, m].
    """
    structure, places = question.layout
    logits = question.kernel.elementwise(
        jax.tree.unflatten(structure, [products[place] for place in places]),
        row[0],
        column[0],
    )
    found = []
    for task in question.tasks:
        anchor, candidate = roles(task, row[1], column[1])
        reduction = question.asked[task.number]
        found.append(reductions.score(reduction, logits, anchor, candidate, weight))
    return found


def _rescaled(
    scale: ArrayLike | None,
    product: jax.Array,
    row: jax.Array | None,
    column: jax.Array | None,
) -> jax.Array:
    """Multiplies what every product has in common, with each row's number first."""
    if row is not None:
        product = product * (row if scale is None else row * scale)[:, None]
    elif scale is not None:
        product = product * scale
    return product if column is None else product * column[None, :]


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
        cotangent, known = (row_results if axis else column_results)[number]
        if mirror:
            cotangent = jnp.where(tile.diagonal, 0, cotangent)
        slope += reductions.slope(
            reduction,
            score,
            jnp.expand_dims(cotangent, axis),
            jnp.expand_dims(known, axis),
        )
    return jnp.where(_member(task, reduction, tile), slope, 0)


def _member(task: Task, reduction: reductions.Reduction, tile: Tile) -> jax.Array:
    """Tells which pairs of a tile a task counts."""
    ends = reductions.side(tile.row.nodes, 1), reductions.side(tile.column.nodes, 0)
    anchor, candidate = roles(task, *ends)
    return reduction.relation(anchor, candidate) & anchor.valid & candidate.valid


def roles(
    task: Task, row: graphs.Nodes, column: graphs.Nodes
) -> tuple[graphs.Nodes, graphs.Nodes]:
    """Tells anchors and candidates from rows and columns.

    Args:
      task: of a tile.
      row: nodes of its rows.
      column: nodes of its columns.

    Returns:
      The anchors and the candidates.
    """
    return (column, row) if task.swapped else (row, column)
