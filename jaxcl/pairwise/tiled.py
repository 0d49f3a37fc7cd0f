"""Reductions over all pairs by tiles: the pair matrix is never stored.

The forward pass visits each tile and keeps a few numbers per node. The backward pass
visits each tile again, computes its logits anew, and multiplies the derivatives with
respect to the scores into the gradients. Residuals are the inputs and those few
numbers. `slices` cuts nodes, `one_tile` is what happens to a pair of slices.

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
from jaxcl.pairwise import exchange, one_tile, reductions, slices, trees


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
    asked: one_tile.Asked,
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
    asked: one_tile.Asked,
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    pair_weight: jax.Array | None,
) -> tuple[tuple[jax.Array, ...], Any]:
    rows = slices.side(anchors)
    columns = rows if candidates is None else slices.side(candidates)
    schedule = _schedule(plan, candidates)
    row_cut = slices.cut(rows, plan.tile)
    tasks = one_tile.make_tasks(asked, schedule, anchors, row_cut)
    # Results that belong to columns, and travel with them.
    of_columns = {
        number
        for number, reduction in enumerate(asked)
        if schedule == "both" and reduction.over == "anchors"
    }
    varying = mesh.varying_axes((rows, columns, kernel, asked, pair_weight))

    def empty(numbers: Collection[int], side: slices.Side) -> dict[int, Any]:
        states = {k: reductions.empty(asked[k], side.factor) for k in numbers}
        return mesh.cast_varying(states, varying)

    def visit_block(block: slices.Side, first: Any, owed: Any, kept: Any) -> Any:
        column_cut = slices.cut(block, plan.tile)

        def visit_row(i: Any, states: dict[int, Any]) -> dict[int, Any]:
            row = slices.take(rows, row_cut, i)
            row_own, layout = slices.prepare(kernel, row)

            def visit_tile(j: Any, states: dict[int, Any]) -> dict[int, Any]:
                column = slices.take(block, column_cut, j)
                tile = one_tile.Tile(
                    row, column, i, j, row_cut, column_cut, layout, first, pair_weight
                )
                return one_tile.add_to(states, tasks, tile, (kernel, asked), row_own)

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
    rows = slices.side(anchors)
    columns = rows if candidates is None else slices.side(candidates)
    schedule = _schedule(plan, candidates)
    row_cut = slices.cut(rows, plan.tile)
    tasks = one_tile.make_tasks(asked, schedule, anchors, row_cut, backward=True)
    # What a tile needs to know about results: of its rows, and of its columns.
    results = dict(enumerate(zip(cotangents, known, strict=True)))
    of_columns = {o.number for task in tasks for o in task.outputs if o.axis == 0}
    traveling = columns, {number: results[number] for number in of_columns}
    varying = mesh.varying_axes((rows, columns, kernel, asked, pair_weight, cotangents))

    def visit_block(traveling: Any, first: Any, owed: Any, kept: Any) -> Any:
        block, column_results = traveling
        column_cut = slices.cut(block, plan.tile)

        def visit_row(i: Any, carry: Any) -> Any:
            column_gradient, (gradient, prepare_gradient, theta_gradient) = carry
            row = slices.take(rows, row_cut, i)
            row_own, layout = slices.prepare(kernel, row)
            # The barrier keeps XLA from folding the transposition into each product.
            transposed = lax.optimization_barrier([v.T for v in row_own.vectors])

            def visit_tile(j: Any, carry: Any) -> Any:
                row_gradient, column_gradient, theta_gradient = carry
                column = slices.take(block, column_cut, j)
                tile = one_tile.Tile(
                    row, column, i, j, row_cut, column_cut, layout, first, pair_weight
                )
                row_part, column_part, theta_part = one_tile.gradient(
                    tasks,
                    tile,
                    (kernel, asked),
                    row_own,
                    None if schedule == "mirrored" else transposed,
                    results,
                    column_results,
                )
                if schedule != "mirrored":
                    column_gradient = trees.update(
                        trees.add,
                        column_gradient,
                        column_part,
                        slices.start(column_cut, j),
                        axis=-1,
                    )
                return (
                    trees.add(row_gradient, row_part),
                    column_gradient,
                    trees.add(theta_gradient, theta_part),
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
                start, size = slices.start(row_cut, i), row_cut.size
                due = trees.transpose(trees.take(column_gradient, start, size, axis=-1))
                row_gradient = trees.add(
                    row_gradient, trees.mask_rows(due, slices.new_rows(row_cut, i))
                )
            prepare_part, part = slices.pull_back(kernel, row.nodes, row_gradient)
            gradient = trees.update(trees.add, gradient, part, slices.start(row_cut, i))
            prepare_gradient = trees.add(prepare_gradient, prepare_part)
            return column_gradient, (gradient, prepare_gradient, theta_gradient)

        return lax.fori_loop(0, row_cut.number, visit_row, (owed, kept))

    def empty(traveling: Any) -> Any:
        if schedule == "mirrored":
            return ()
        return mesh.cast_varying(slices.column_zeros(kernel, traveling[0]), varying)

    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    nothing = (
        zeros(slices.NodeGradient(anchors.z, anchors.extra)),
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
        own = trees.transpose(column_gradient)
        prepare_part, part = slices.pull_back(kernel, columns.nodes, own)
        prepare_gradient = trees.add(prepare_gradient, prepare_part)
        candidates_gradient = part.of_nodes()
    kernel_gradient, asked_gradient = theta_gradient
    return (
        trees.add(kernel_gradient, prepare_gradient),
        asked_gradient,
        gradient.of_nodes(),
        candidates_gradient,
        None,
    )


reduce_tiles.defvjp(_forward, _backward)


def _schedule(plan: Plan, candidates: graphs.Nodes | None) -> str:
    if candidates is not None:
        return "both"
    return "mirrored" if plan.names else "triangular"


def _over_columns(
    schedule: str,
    i: Any,
    cut: slices.Cut,
    visit_tile: Callable[[Any, Any], Any],
    carry: Any,
) -> Any:
    first = i if schedule == "triangular" else 0
    return lax.fori_loop(first, cut.number, visit_tile, carry)
