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
# Sums of exponentials above this are computed again, relative to their own maximum.
LARGEST_SUM = 1e30

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
      rest: tree structure of (numbers, extra), the same of rows and columns.
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
    rest: Any
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
                size += len(_empty(form.kinds[output.number]))
    return found


def size(form: Form, axis: int) -> int:
    """Counts the numbers that `places` numbers.

    Args:
      form: of the block.
      axis: 1 for results of rows, 0 for those of columns.

    Returns:
      Their number.
    """
    return sum(len(_empty(form.kinds[number])) for number in places(form, axis))


def _empty(kind: str) -> tuple[float, ...]:
    return {"logsumexp": (0.0, LOWEST), "mean": (0.0, 0.0), "sum": (0.0,)}[kind]


def node_floats(form: Form, axis: int) -> int:
    """Counts the numbers of a node that scores read, factors included.

    Args:
      form: of the block.
      axis: 1 for rows, 0 for columns.

    Returns:
      Their number.
    """
    return sum(given[1 - axis] for given in form.factors) + form.rest.num_leaves


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


def _groups(x: jax.Array) -> list[jax.Array]:
    return [x[:, k : k + LANES] for k in range(0, x.shape[1], LANES)]


def _fold(x: jax.Array) -> jax.Array:
    """Adds up lanes that stand for the same row, [n, m] to [n, 128]."""
    return functools.reduce(jnp.add, _groups(x))


def _down(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=0, keepdims=True)


def _rest(
    form: Form, axis: int, read: Callable[[int], jax.Array]
) -> tuple[list[Any], Any]:
    """Factors (or None) of each vector, and (numbers, extra)."""
    arrays = [read(k) for k in range(node_floats(form, axis))]
    factors = [arrays.pop(0) if given[1 - axis] else None for given in form.factors]
    return factors, jax.tree.unflatten(form.rest, arrays)


def _products(form: Form, strip: Strip) -> tuple[list[jax.Array], Any, Any]:
    refs = strip.refs
    row_factors, row = _rest(form, 1, strip.row)
    column_factors, column = _rest(form, 0, strip.column)
    products = []
    for k, (f, g) in enumerate(zip(row_factors, column_factors, strict=True)):
        product = _dot(form, refs[f"x{k}"][strip.rows, :], refs[f"y{k}"][: strip.shape[1], :], 1, 1)
        products.append(_times(_times(product, f), g))
    return products, (row_factors, row), (column_factors, column)


def _dot(form: Form, x: jax.Array, y: jax.Array, a: int, b: int) -> jax.Array:
    """Multiplies two matrices, adding up axis a of one and axis b of the other."""
    return lax.dot_general(
        x,
        y,
        (((a,), (b,)), ((), ())),
        precision=form.precision if x.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _members(form: Form, strip: Strip, known: Any) -> list[Any]:
    """For each task which pairs count: booleans [n, m], True or False."""
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


def _theta(form: Form, refs: Any) -> list[Any]:
    return [refs["theta"][0, k] for k in range(form.leaves)]


def _known(form: Form, refs: Any, i: Any, j: Any) -> tuple[Any, Any]:
    """What is known of all pairs of a block, by task, and whether it is."""
    known = [APART.get(relation) for relation in form.relations]
    if None in known:
        return known, None
    a = [refs["row_bounds"][0, 5 * i + k] for k in range(5)]
    b = [refs["column_bounds"][0, 5 * j + k] for k in range(5)]
    groups = (a[0] > b[1]) | (b[0] > a[1])
    indices = (a[2] > b[3]) | (b[2] > a[3])
    return known, groups & indices & (a[4] + b[4] == 2)


def _run(
    form: Form,
    refs: Any,
    careful: bool,
    strip: Callable[[Strip, Any], None],
    known: Any,
    width: int | None = None,
) -> None:
    """Goes through the rows of a block; `known` is None on the careful path."""
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


def _start_rows(refs: Any) -> None:
    """Spreads numbers of rows over the lanes."""
    rows = refs["x0"].shape[0]
    for given, kept in (("row_floats", "rows"), ("row_id", "row_ids")):
        for k in range(refs[given].shape[1]):
            value = jnp.broadcast_to(refs[given][0, k : k + 1, :], (LANES, rows))
            refs[kept][k] = jnp.transpose(value)


def _of_rows(x: jax.Array) -> jax.Array:
    """Turns [n, 1] into [1, n]."""
    return jnp.transpose(jnp.broadcast_to(x, (x.shape[0], LANES)))[:1]


# Forward.


def forward(*refs: Any, names: tuple[str, ...], form: Form) -> None:
    """Adds one block of pairs to the partial results of its rows and columns.

    Args:
      *refs: what the names say.
      names: of the references.
      form: of the block.
    """
    ref = dict(zip(names, refs, strict=True))
    i, step = pl.program_id(0), pl.program_id(1)
    j, visited = form.order(i, step)
    of_rows, of_columns = places(form, 1), places(form, 0)

    @pl.when(step == 0)
    def _() -> None:
        _start_rows(ref)
        for number, at in of_rows.items():
            for k, value in enumerate(_empty(form.kinds[number])):
                ref["state"][at + k] = jnp.full(ref["state"].shape[1:], value)

    @pl.when((i == 0) & (step == 0))
    def _() -> None:
        for number, at in of_columns.items():
            for k, value in enumerate(_empty(form.kinds[number])):
                blocks, _, width = ref["columns"].shape
                ref["columns"][:, at + k, :] = jnp.full((blocks, width), value)
        if of_columns:

            def unseen(number: Any, _: Any) -> Any:
                ref["seen"][number] = 0
                return _

            lax.fori_loop(0, ref["columns"].shape[0], unseen, 0)

    known, apart = _known(form, ref, i, j)

    def strip(strip: Strip, known: Any) -> None:
        _add_strip(form, strip, j, i == j, known)

    def carefully() -> None:
        _run(form, ref, True, strip, None)

    if apart is None:
        pl.when(visited)(carefully)
    elif any(known):
        ref["redo"][0] = jnp.where(apart, 0, 1)

        @pl.when(visited & apart)
        def _() -> None:
            _refer(form, ref, j, step, known)
            _run_fast(form, ref, j, strip, known)

        pl.when(visited & (ref["redo"][0] == 1))(carefully)
    else:
        pl.when(visited & jnp.logical_not(apart))(carefully)
    if of_columns:
        ref["seen"][j] = 1

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        for number, at in of_rows.items():
            _finish_rows(ref, form.kinds[number], at)


def _exponentials(form: Form) -> list[tuple[int, int, int]]:
    """Log-sum-exps: axis, place of the total, and number of the task."""
    return [
        (output.axis, places(form, output.axis)[output.number], number)
        for number, task in enumerate(form.tasks)
        for output in task.outputs
        if form.kinds[output.number] == "logsumexp"
    ]


def _refer(form: Form, refs: Any, j: Any, step: Any, known: Any) -> None:
    """Takes references from a few pairs for rows and columns that have none."""
    for axis in (0, 1):
        places = [e[1:] for e in _exponentials(form) if e[0] == axis and known[e[2]]]

        def refer(strip: Strip, _: Any, axis: int = axis, places: Any = places) -> None:
            products, (_, row), (_, column) = _products(form, strip)
            scores = form.scores(_theta(form, refs), products, row, column)
            for at, task in places:
                top = jnp.max(scores[task], axis=axis, keepdims=True)
                if axis:
                    top = jnp.broadcast_to(top, (strip.shape[0], LANES))
                    refs["state"][at + 1, strip.rows, :] = top
                else:
                    refs["columns"][j, at + 1 : at + 2, :] = top

        if places and axis:
            pl.when(step == 0)(lambda: _run(form, refs, False, refer, known, LANES))
        elif places:
            shape = LANES, refs["y0"].shape[0]
            strip = Strip(refs, pl.ds(0, LANES), shape)
            pl.when(refs["seen"][j] == 0)(lambda: refer(strip, known))


def _run_fast(form: Form, refs: Any, j: Any, strip: Any, known: Any) -> None:
    """The fast path; undone, and marked for repetition, if a sum grows too large."""

    def total(axis: int, at: int) -> Any:
        if axis:
            return refs["state"], (at,)
        return refs["columns"], (j, slice(at, at + 1))

    sums = [total(axis, at) for axis, at, task in _exponentials(form) if known[task]]
    backups = [
        refs[f"backup{axis}"].at[at]
        for axis, at, task in _exponentials(form)
        if known[task]
    ]
    for (array, place), backup in zip(sums, backups, strict=True):
        backup[...] = array[place]
    _run(form, refs, False, strip, known)
    if not sums:
        return
    largest = [jnp.max(array[place]) for array, place in sums]
    sound = functools.reduce(jnp.maximum, largest) < LARGEST_SUM
    refs["redo"][0] = jnp.where(sound, 0, 1)

    @pl.when(jnp.logical_not(sound))
    def _() -> None:
        for (array, place), backup in zip(sums, backups, strict=True):
            array[place] = backup[...]


def _add_strip(form: Form, strip: Strip, j: Any, diagonal: Any, known: Any) -> None:
    refs = strip.refs
    products, (_, row), (_, column) = _products(form, strip)
    scores = form.scores(_theta(form, refs), products, row, column)
    masks = _members(form, strip, known)
    for task, score, mask in zip(form.tasks, scores, masks, strict=True):
        if mask is False:
            continue
        kind = form.kinds[task.number]
        if mask is not True:
            score = jnp.where(mask, score, LOWEST if kind == "logsumexp" else 0)
        for output in task.outputs:
            at = places(form, output.axis)[output.number]
            if output.axis:
                array = refs["state"]
                where = [(at + k, strip.rows) for k in range(len(_empty(kind)))]
                add = _add_to_rows
            else:
                array = refs["columns"]
                where = [(j, pl.ds(at + k, 1)) for k in range(len(_empty(kind)))]
                add = _add_to_columns
            old = [array[place] for place in where]
            new = add(kind, old, score, mask)
            if output.mirror:
                new = [jnp.where(diagonal, *both) for both in zip(old, new, strict=True)]
            for place, value in zip(where, new, strict=True):
                array[place] = value


def _add_to_rows(kind: str, old: list[Any], score: Any, mask: Any) -> list[Any]:
    if kind != "logsumexp":
        one = [] if kind == "sum" else [_ones(score, mask)]
        return [a + _fold(b) for a, b in zip(old, [score, *one], strict=True)]
    total, top = old
    parts = _groups(score)
    if mask is not True:
        # The maximum of a lane alone may be LOWEST: that of the row is a reference for
        # later blocks, too.
        highest = functools.reduce(jnp.maximum, parts)
        highest = jnp.max(highest, axis=1, keepdims=True)
        new = jnp.maximum(top, jnp.broadcast_to(highest, top.shape))
        total *= jnp.exp(top - new)
        top = new
    return [functools.reduce(jnp.add, [jnp.exp(p - top) for p in parts], total), top]


def _add_to_columns(kind: str, old: list[Any], score: Any, mask: Any) -> list[Any]:
    if kind != "logsumexp":
        one = [] if kind == "sum" else [_ones(score, mask)]
        return [a + _down(b) for a, b in zip(old, [score, *one], strict=True)]
    total, top = old
    if mask is not True:
        new = jnp.maximum(top, jnp.max(score, axis=0, keepdims=True))
        total *= jnp.exp(top - new)
        top = new
    return [total + _down(jnp.exp(score - top)), top]


def _ones(score: jax.Array, mask: Any) -> jax.Array:
    return jnp.ones_like(score) if mask is True else jnp.where(mask, 1.0, 0.0)


def _finish_rows(refs: Any, kind: str, at: int) -> None:
    total = refs["state"][at]
    if kind == "logsumexp":
        tops = refs["state"][at + 1]
        top = jnp.max(tops, axis=1, keepdims=True)
        total *= jnp.exp(tops - top)
        refs["results"][0, at + 1 : at + 2, :] = _of_rows(top)
    elif kind == "mean":
        members = jnp.sum(refs["state"][at + 1], axis=1, keepdims=True)
        refs["results"][0, at + 1 : at + 2, :] = _of_rows(members)
    total = jnp.sum(total, axis=1, keepdims=True)
    refs["results"][0, at : at + 1, :] = _of_rows(total)


# Backward.


def backward(*refs: Any, names: tuple[str, ...], form: Form) -> None:
    """Adds one block of pairs to the gradients of its rows and columns.

    Args:
      *refs: what the names say.
      names: of the references.
      form: of the block.
    """
    ref = dict(zip(names, refs, strict=True))
    i, step = pl.program_id(0), pl.program_id(1)
    j, visited = form.order(i, step)
    vectors = range(len(form.factors))

    @pl.when(step == 0)
    def _() -> None:
        _start_rows(ref)
        for k in vectors:
            ref[f"dx{k}"][...] = jnp.zeros(ref[f"dx{k}"].shape, jnp.float32)
        for name in ("row_sums",) if form.rest.num_leaves else ():
            ref[name][...] = jnp.zeros(ref[name].shape, jnp.float32)

    @pl.when((i == 0) & (step == 0))
    def _() -> None:
        for name in ("dtheta", "dcolumn"):
            if name in ref:
                ref[name][...] = jnp.zeros(ref[name].shape, jnp.float32)

    if form.columns:
        # What earlier blocks of rows have added. With one block of columns it stays.
        alone = pl.num_programs(1) == 1

        @pl.when(jnp.logical_not(alone) | (i == 0))
        def _() -> None:
            for k in vectors:
                ref[f"dy{k}"][...] = ref[f"before{k}"][...]

    known, apart = _known(form, ref, i, j)

    def strip(strip: Strip, known: Any) -> None:
        _add_gradients(form, strip, j, i == j, known)

    def carefully() -> None:
        _run(form, ref, True, strip, None)

    if apart is None:
        pl.when(visited)(carefully)
    elif any(known):
        fast = apart & (ref["theta"][0, form.leaves + len(form.tasks)] > 0)
        pl.when(visited & fast)(lambda: _run(form, ref, False, strip, known))
        pl.when(visited & jnp.logical_not(fast))(carefully)
    else:
        pl.when(visited & jnp.logical_not(apart))(carefully)

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        for k in range(form.rest.num_leaves):
            total = jnp.sum(ref["row_sums"][k], axis=1, keepdims=True)
            ref["drow"][0, k : k + 1, :] = _of_rows(total)


def _add_gradients(form: Form, strip: Strip, j: Any, diagonal: Any, known: Any) -> None:
    refs = strip.refs
    products, (row_factors, row), (column_factors, column) = _products(form, strip)
    theta = _theta(form, refs)
    # As rows, so that their gradient is summed over the columns of a block at the end.
    spread = {k: jnp.full((1, strip.shape[1]), theta[k]) for k in form.used}

    def scores(spread: Any, products: Any, row: Any, *rest: Any) -> Any:
        leaves = [spread.get(k, value) for k, value in enumerate(theta)]
        return form.scores(leaves, products, row, *(rest or (column,)))

    given = (spread, products, row, *((column,) if form.columns else ()))
    found, pull = jax.vjp(scores, *given)
    of_theta, of_products, of_row, *of_column = pull(
        _slopes(form, strip, found, diagonal, known)
    )
    for k, slope in enumerate(of_products):
        slope = _times(slope, column_factors[k])
        if form.columns:  # else the factor of the row is left to the end
            slope = _times(slope, row_factors[k])
        y = refs[f"y{k}"][...]
        slope = slope.astype(y.dtype)
        refs[f"dx{k}"][strip.rows, :] += _dot(form, slope, y, 1, 0)
        if form.columns:
            refs[f"dy{k}"][...] += _dot(form, slope, refs[f"x{k}"][strip.rows, :], 0, 0)
    for k, leaf in enumerate(jax.tree.leaves(of_row)):
        refs["row_sums"][k, strip.rows, :] += _fold(leaf)
    for k, leaf in enumerate(jax.tree.leaves(of_column)):
        refs["dcolumn"][j, k : k + 1, :] += _down(leaf)
    for k, leaf in enumerate(form.used):
        refs["dtheta"][k] += of_theta[leaf]


def _slopes(
    form: Form, strip: Strip, scores: list[Any], diagonal: Any, known: Any
) -> list[Any]:
    """The derivatives of all results with respect to the scores of each task."""
    first = {axis: node_floats(form, axis) for axis in (0, 1)}
    slopes = []
    members = zip(form.tasks, scores, _members(form, strip, known), strict=True)
    for number, (task, score, mask) in enumerate(members):
        shared, apart = [], []
        for output in task.outputs:
            read = strip.row if output.axis else strip.column
            at = first[output.axis]
            first[output.axis] += 3
            keep = jnp.where(diagonal, 0.0, 1.0) if output.mirror else None
            if form.kinds[task.number] != "logsumexp" or known is not None:
                shared.append(_times(read(at), keep))
            else:
                weight = _times(read(at + 1), keep)
                apart.append(weight * jnp.exp(score - read(at + 2)))
        if mask is False:
            slopes.append(jnp.zeros_like(score))
            continue
        slope = functools.reduce(jnp.add, shared + apart)
        if shared and form.kinds[task.number] == "logsumexp":
            slope *= jnp.exp(score - strip.refs["theta"][0, form.leaves + number])
        slopes.append(slope if mask is True else jnp.where(mask, slope, 0))
    return slopes


def _times(x: jax.Array, scale: Any) -> jax.Array:
    return x if scale is None else x * scale
