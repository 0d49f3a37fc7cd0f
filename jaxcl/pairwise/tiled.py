"""A block of pairs by XLA tiles: the pair matrix is never stored.

`forward` visits each tile and keeps a few numbers per node. `backward` visits each tile
again, computes its logits anew, and multiplies the derivatives by the products into the
gradients. `one_tile` is what happens inside of a tile.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import kernels, mesh
from jaxcl.pairwise import one_tile, plans, reductions, slices, trees


class Tiles:
    """A block of pairs, in tiles.

    Args:
      plan: of the call.
      form: of the platform.
      schedule: "triangular", "both" or "mirrored".
      rows: what is compared of n rows.
      columns: what is compared of m columns.
      first: number of the first column among those of all devices.
      pair_weight: [n, all columns], or None.
    """

    def __init__(
        self,
        plan: plans.Plan,
        form: plans.Form,
        schedule: str,
        rows: slices.Side,
        columns: slices.Side,
        first: Any,
        pair_weight: jax.Array | None,
    ) -> None:
        self.plan, self.form, self.schedule = plan, form, schedule
        self.rows, self.columns = rows, columns
        self.first, self.pair_weight = first, pair_weight
        n, m = (len(side.nodes.index) for side in (rows, columns))
        self.cuts = plans.cuts(form, schedule, n, m)

    def visit(self, visit_row: Any, carry: Any) -> Any:
        """Lets a function of (i, slice, carry) see each slice of rows."""

        def visit_slice(i: Any, carry: Any) -> Any:
            return visit_row(i, self._slice(self.cuts.row, self.rows, i), carry)

        return lax.fori_loop(0, self.cuts.row.number, visit_slice, carry)

    def visit_columns(
        self, i: Any, row: slices.Side, visit_tile: Any, carry: Any
    ) -> Any:
        """Lets a function of (j, tile, products, carry) see each tile of these rows."""

        def visit_number(k: Any, carry: Any) -> Any:
            j = self.cuts.column_of(self.schedule, i, k)
            column = self._slice(self.cuts.column, self.columns, j)
            tile = one_tile.Tile(row, column, i == j, self._weight(i, j))
            pairs = zip(row.vectors, column.vectors, strict=True)
            products = [self.product(x.rows, y.rows, 1) for x, y in pairs]
            return visit_tile(j, tile, products, carry)

        return lax.fori_loop(0, self.cuts.met, visit_number, carry)

    def product(self, x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
        """Multiplies two matrices; coefficients take the dtype of vectors."""
        x = x.astype(y.dtype)
        return lax.dot_general(
            x,
            y,
            (((1,), (axis,)), ((), ())),
            precision=None if x.dtype == jnp.bfloat16 else self.plan.precision,
            preferred_element_type=kernels.accumulator(y.dtype),
        )

    def _slice(self, cut: slices.Cut, side: slices.Side, number: Any) -> slices.Side:
        """A slice, with vectors as they are multiplied here."""
        return slices.take(side, cut, number).multiplied(self.form.narrow)

    def _weight(self, i: Any, j: Any) -> jax.Array | None:
        """The tile of `pair_weight`, if there is one."""
        if self.pair_weight is None:
            return None
        row, column = self.cuts.row, self.cuts.column
        at = slices.start(row, i), self.first + slices.start(column, j)
        return lax.dynamic_slice(self.pair_weight, at, (row.size, column.size))


def forward(
    tiles: Tiles, question: one_tile.Question, states: reductions.States
) -> reductions.States:
    """Adds a block of pairs to the reductions.

    Args:
      tiles: the block.
      question: what is asked.
      states: what the reductions have seen before, by number: [n] or, for what belongs
        to columns, [m].

    Returns:
      The states with this block.
    """
    asked = question.asked
    outputs = {(o.number, o.axis) for task in question.tasks for o in task.outputs}
    of_rows = sorted(number for number, axis in outputs if axis == 1)
    of_columns = sorted(number for number, axis in outputs if axis == 0)

    def merge(
        states: reductions.States, number: int, part: Any, cut: Any, at: Any
    ) -> None:
        states[number] = trees.update(
            lambda a, b: reductions.combine(asked[number], a, b),
            states[number],
            part,
            slices.start(cut, at),
        )

    def visit_row(
        i: Any, row: slices.Side, states: reductions.States
    ) -> reductions.States:
        def visit_tile(j: Any, tile: Any, products: Any, carry: Any) -> Any:
            own, states = dict(carry[0]), dict(carry[1])
            parts = one_tile.add_up(question, tile, products, tiles.form.at_once)
            for number in of_rows:
                own[number] = reductions.combine(
                    asked[number], own[number], parts[number, 1]
                )
            for number in of_columns:
                merge(states, number, parts[number, 0], tiles.cuts.column, j)
            return own, states

        like = {k: trees.take(states[k], 0, tiles.cuts.row.size) for k in of_rows}
        nothing = {k: reductions.empty(asked[k], x.total) for k, x in like.items()}
        nothing = mesh.cast_varying(nothing, mesh.varying_axes(states))
        own, states = tiles.visit_columns(i, row, visit_tile, (nothing, states))
        for number, part in own.items():
            merge(states, number, part, tiles.cuts.row, i)
        return states

    return tiles.visit(visit_row, states)


def backward(
    tiles: Tiles,
    question: one_tile.Question,
    row_results: dict[int, Any],
    column_results: dict[int, Any],
    gradients: tuple[slices.Gradient, slices.Gradient | None, Any],
) -> tuple[slices.Gradient, slices.Gradient | None, Any]:
    """Adds a block of pairs to the gradients.

    Args:
      tiles: the block.
      question: what is asked.
      row_results: cotangent and `reductions.finish`'s number of each row, by reduction.
      column_results: the same of each column.
      gradients: of the rows; of the columns, or None where they get none, with the
        nodes as the last axis if the form says so; and of kernel and reductions.

    Returns:
      The gradients with this block.
    """
    cuts, across = tiles.cuts, tiles.form.across

    def visit_row(i: Any, row: slices.Side, carry: Any) -> Any:
        of_rows, of_columns, of_theta = carry
        at, size = slices.start(cuts.row, i), cuts.row.size
        own_results = trees.take(row_results, at, size)
        transposed = [x.rows for x in row.vectors]
        if across:
            # The barrier keeps XLA from folding the transposition into each product.
            transposed = lax.optimization_barrier([x.T for x in transposed])

        def visit_tile(j: Any, tile: Any, products: Any, carry: Any) -> Any:
            own, of_columns, of_theta = carry
            place = slices.start(cuts.column, j)
            slopes, row_part, column_part, theta_part = one_tile.differentiate(
                question,
                tile,
                products,
                own_results,
                trees.take(column_results, place, cuts.column.size),
            )
            pairs = zip(slopes, tile.column.vectors, strict=True)
            row_vectors = [tiles.product(slope, y.rows, 0) for slope, y in pairs]
            own = trees.add(own, slices.Gradient(row_vectors, *row_part))
            if of_columns is not None:
                pairs = zip(slopes, transposed, strict=True)
                vectors = [
                    tiles.product(x, slope.astype(x.dtype), 0)
                    if across
                    else tiles.product(slope.T, x, 0)
                    for slope, x in pairs
                ]
                add = trees.add
                of_columns = slices.Gradient(
                    trees.update(add, of_columns.vectors, vectors, place, int(across)),
                    *trees.update(add, of_columns[1:], column_part, place),
                )
            return own, of_columns, trees.add(of_theta, theta_part)

        nothing = slices.no_gradient(row)
        nothing = mesh.cast_varying(nothing, mesh.varying_axes(of_rows))
        own, of_columns, of_theta = tiles.visit_columns(
            i, row, visit_tile, (nothing, of_columns, of_theta)
        )
        return trees.update(trees.add, of_rows, own, at), of_columns, of_theta

    return tiles.visit(visit_row, gradients)


def upright(gradient: slices.Gradient, across: bool) -> slices.Gradient:
    """Gives the gradient of columns with the nodes as the first axis.

    Args:
      gradient: of columns.
      across: whether the nodes are the last axis of its vectors.

    Returns:
      The gradient, like that of rows.
    """
    if not across:
        return gradient
    return gradient._replace(vectors=[x.T for x in gradient.vectors])
