"""What happens to one block of pairs inside a Pallas kernel for TPU.

The body is written once, for any kernel and any reduction: it asks the kernel for its
logits and the reductions for their scores, and differentiates both where it stands.

Two paths compute the same. The careful path masks each pair by the relations and keeps
running maxima. The fast path is for blocks of which a comparison of two intervals tells
that every pair counts, or none: it takes exponentials relative to a score of the first
pairs that were met, so that no product waits for a maximum, and the block is repeated
with care if a sum comes near overflow.

Numbers of rows are held as arrays [rows, 128], each row one value, so that nothing is
moved across the 128 lanes of a register before the last block of columns.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from jaxcl import graphs
from jaxcl.pairwise import one_tile

LANES = 128
# Below every score: stands for no pair where -inf would give NaN.
LOWEST = -3.0e38
# Whether pairs of two blocks count whose groups and indices do not overlap.
APART: dict[Any, bool] = {
    graphs.negatives: True,
    graphs.others: True,
    graphs.positives: False,
}


class Form(NamedTuple):
    """What is static about a block of pairs.

    Attributes:
      tasks: scores, and what they contribute to; see `one_tile.Task`.
      kinds: for each reduction how it accumulates.
      relations: for each task its relation.
      scores: computes the tasks' scores of (theta, products, row, column), where theta
        is a list and row and column are pairs (numbers, extra).
      leaves: how many numbers the kernel and the reductions hold.
      used: those on which the scores depend.
      factors: for each vector whether its rows, and its columns, have factors.
      rest: tree structures of (numbers, extra) of columns, and of rows.
      strip: rows at a time on the fast path, and on the careful one.
      columns: whether columns get gradients, too.
      precision: of products of float32 vectors.
      order: of a grid step, the block of columns, and whether it is to be visited.
    """

    tasks: Any
    kinds: tuple[str, ...]
    relations: tuple[Any, ...]
    scores: Callable[..., Any]
    leaves: int
    used: tuple[int, ...]
    factors: tuple[tuple[bool, bool], ...]
    rest: tuple[Any, Any]
    strip: tuple[int, int]
    columns: bool
    precision: Any
    order: Callable[[Any, Any], tuple[Any, Any]]


def places(form: Form, axis: int) -> dict[int, int]:
    """Numbers the partial results that a kernel keeps along one axis.

    Args:
      form: of the block.
      axis: 1 for results of rows, 0 for those of columns.

    Returns:
      For each reduction the place of its first number; "sum" has one, others two.
    """
    found, size = {}, 0
    for task in form.tasks:
        for output in task.outputs:
            if output.axis == axis:
                found[output.number] = size
                size += len(empty(form.kinds[output.number]))
    return found


def size(form: Form, axis: int) -> int:
    """Counts the numbers that `places` numbers.

    Args:
      form: of the block.
      axis: 1 for results of rows, 0 for those of columns.

    Returns:
      Their number.
    """
    return sum(len(empty(form.kinds[number])) for number in places(form, axis))


def empty(kind: str) -> tuple[float, ...]:
    """Gives a reduction over no pairs.

    Args:
      kind: how it accumulates.

    Returns:
      The numbers that stand for it.
    """
    return {"logsumexp": (0.0, LOWEST), "mean": (0.0, 0.0), "sum": (0.0,)}[kind]


def node_floats(form: Form, axis: int) -> int:
    """Counts the numbers of a node that scores read, factors included.

    Args:
      form: of the block.
      axis: 1 for rows, 0 for columns.

    Returns:
      Their number.
    """
    return sum(given[1 - axis] for given in form.factors) + form.rest[axis].num_leaves


# One strip: some rows of the block with all its columns.


class Strip(NamedTuple):
    """Where a strip is, and how to read what belongs to its rows and first columns."""

    refs: Any
    rows: Any
    shape: tuple[int, int]

    def row(self, number: int, name: str = "rows") -> jax.Array:
        value = self.refs[name][number, self.rows, :]
        return _wide(value, self.shape[1])

    def column(self, number: int, name: str = "column_floats") -> jax.Array:
        value = self.refs[name][0, number : number + 1, 0 : self.shape[1]]
        return jnp.broadcast_to(value, self.shape)


def _wide(x: jax.Array, width: int) -> jax.Array:
    return jnp.concatenate([x] * (width // LANES), axis=1)


def groups(x: jax.Array) -> list[jax.Array]:
    """Cuts columns into as many groups as fill the lanes once.

    Args:
      x: [n, m].

    Returns:
      Arrays [n, 128].
    """
    return [x[:, k : k + LANES] for k in range(0, x.shape[1], LANES)]


def fold(x: jax.Array) -> jax.Array:
    """Adds up lanes that stand for the same row.

    Args:
      x: [n, m].

    Returns:
      Sums [n, 128].
    """
    return functools.reduce(jnp.add, groups(x))


def down(x: jax.Array) -> jax.Array:
    """Adds up rows.

    Args:
      x: [n, m].

    Returns:
      Sums [1, m].
    """
    return jnp.sum(x, axis=0, keepdims=True)


def _rest(
    form: Form, axis: int, read: Callable[[int], jax.Array]
) -> tuple[list[Any], Any]:
    """Factors (or None) of each vector, and (numbers, extra)."""
    arrays = [read(k) for k in range(node_floats(form, axis))]
    factors = [arrays.pop(0) if given[1 - axis] else None for given in form.factors]
    return factors, jax.tree.unflatten(form.rest[axis], arrays)


def products(form: Form, strip: Strip) -> tuple[list[jax.Array], Any, Any]:
    """Multiplies the vectors of a strip.

    Args:
      form: of the block.
      strip: rows and columns.

    Returns:
      What the kernel's `elementwise` takes; and of the rows and of the columns what
      products were multiplied with, and (numbers, extra).
    """
    refs = strip.refs
    row_factors, row = _rest(form, 1, strip.row)
    column_factors, column = _rest(form, 0, strip.column)
    found = []
    for k, (f, g) in enumerate(zip(row_factors, column_factors, strict=True)):
        product = dot(
            form, refs[f"x{k}"][strip.rows, :], refs[f"y{k}"][: strip.shape[1], :], 1, 1
        )
        found.append(times(times(product, f), g))
    return found, (row_factors, row), (column_factors, column)


def dot(form: Form, x: jax.Array, y: jax.Array, a: int, b: int) -> jax.Array:
    """Multiplies two matrices.

    Args:
      form: of the block.
      x: a matrix.
      y: another one of the same dtype.
      a: the axis of x that is added up.
      b: the axis of y that is added up.

    Returns:
      The product, float32.
    """
    return lax.dot_general(
        x,
        y,
        (((a,), (b,)), ((), ())),
        precision=form.precision if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def members(form: Form, strip: Strip, known: Any) -> list[Any]:
    """Tells which pairs count.

    Args:
      form: of the block.
      strip: rows and columns.
      known: for each task whether all pairs count; None if that is not known.

    Returns:
      For each task booleans [n, m], or one for all.
    """
    if known is not None:
        return list(known)

    def nodes(read: Any, name: str) -> graphs.Nodes:
        group, index, valid = (read(k, name) for k in range(3))
        return graphs.Nodes(group, group, index, valid != 0, ())

    row = nodes(strip.row, "row_ids")
    column = nodes(strip.column, "column_ids")
    return [
        relation(*one_tile.roles(task, row, column)) & row.valid & column.valid
        for task, relation in zip(form.tasks, form.relations, strict=True)
    ]


def theta(form: Form, refs: Any) -> list[Any]:
    """Reads the numbers of the kernel and the reductions.

    Args:
      form: of the block.
      refs: of the Pallas kernel.

    Returns:
      The numbers.
    """
    return [refs["theta"][0, k] for k in range(form.leaves)]


def known_of(form: Form, refs: Any, i: Any, j: Any) -> tuple[Any, Any]:
    """Tells what is known of all pairs of a block.

    Args:
      form: of the block.
      refs: of the Pallas kernel.
      i: which block of rows.
      j: which block of columns.

    Returns:
      For each task whether all pairs count, and whether that holds; None if it is not
      known of any block.
    """
    found = [APART.get(relation) for relation in form.relations]
    if None in found:
        return found, None
    a = [refs["row_bounds"][0, 5 * i + k] for k in range(5)]
    b = [refs["column_bounds"][0, 5 * j + k] for k in range(5)]
    apart = (a[0] > b[1]) | (b[0] > a[1])
    indices = (a[2] > b[3]) | (b[2] > a[3])
    return found, apart & indices & (a[4] + b[4] == 2)


def run(
    form: Form,
    refs: Any,
    careful: bool,
    strip: Callable[[Strip, Any], None],
    known: Any,
    width: int | None = None,
) -> None:
    """Goes through the rows of a block.

    Args:
      form: of the block.
      refs: of the Pallas kernel.
      careful: whether on the careful path.
      strip: what to do with each strip, and what is known of its pairs.
      known: from `known_of`; None on the careful path.
      width: how many of the columns to show; None is all.
    """
    rows = refs["x0"].shape[0]
    height = min(form.strip[careful], rows)
    height = next(h for h in range(height, 0, -16) if rows % h == 0)
    shape = (height, width or refs["y0"].shape[0])

    def at(number: Any, _: Any) -> Any:
        start = pl.multiple_of(number * height, height)
        strip(Strip(refs, pl.ds(start, height), shape), known)
        return _

    if rows == height:
        at(0, 0)
    else:
        lax.fori_loop(0, rows // height, at, 0)


def start_rows(refs: Any) -> None:
    """Spreads numbers of rows over the lanes.

    Args:
      refs: of the Pallas kernel.
    """
    rows = refs["x0"].shape[0]
    for given, kept in (("row_floats", "rows"), ("row_id", "row_ids")):
        for k in range(refs[given].shape[1]):
            value = jnp.broadcast_to(refs[given][0, k : k + 1, :], (LANES, rows))
            refs[kept][k] = jnp.transpose(value)


def of_rows(x: jax.Array) -> jax.Array:
    """Turns a column into a row.

    Args:
      x: [n, 1].

    Returns:
      The same numbers, [1, n].
    """
    return jnp.transpose(jnp.broadcast_to(x, (x.shape[0], LANES)))[:1]


def times(x: jax.Array, scale: Any) -> jax.Array:
    """Multiplies, unless there is nothing to multiply with.

    Args:
      x: an array.
      scale: a factor, or None.

    Returns:
      The product.
    """
    return x if scale is None else x * scale
