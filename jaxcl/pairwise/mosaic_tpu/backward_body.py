"""Gradients of one block of pairs, inside a Pallas kernel for TPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from jaxcl.pairwise.mosaic_tpu import body


def add_block(*refs: Any, names: tuple[str, ...], form: body.Form) -> None:
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
        body.start_rows(ref)
        for k in vectors:
            ref[f"dx{k}"][...] = jnp.zeros(ref[f"dx{k}"].shape, jnp.float32)
        for name in ("row_sums",) if form.rest[1].num_leaves else ():
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

    known, apart = body.known_of(form, ref, i, j)

    def strip(strip: body.Strip, known: Any) -> None:
        _add_gradients(form, strip, j, i == j, known)

    def carefully() -> None:
        body.run(form, ref, True, strip, None)

    if apart is None:
        pl.when(visited)(carefully)
    elif any(known):
        fast = apart & (ref["theta"][0, form.leaves + len(form.tasks)] > 0)
        pl.when(visited & fast)(lambda: body.run(form, ref, False, strip, known))
        pl.when(visited & jnp.logical_not(fast))(carefully)
    else:
        pl.when(visited & jnp.logical_not(apart))(carefully)

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        for k in range(form.rest[1].num_leaves):
            total = jnp.sum(ref["row_sums"][k], axis=1, keepdims=True)
            ref["drow"][0, k : k + 1, :] = body.of_rows(total)


def _add_gradients(
    form: body.Form, strip: body.Strip, j: Any, diagonal: Any, known: Any
) -> None:
    refs = strip.refs
    products, (row_factors, row), (column_factors, column) = body.products(form, strip)
    theta = body.theta(form, refs)
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
        slope = body.times(slope, column_factors[k])
        if form.columns:  # else the factor of the row is left to the end
            slope = body.times(slope, row_factors[k])
        y = refs[f"y{k}"][...]
        slope = slope.astype(y.dtype)
        refs[f"dx{k}"][strip.rows, :] += body.dot(form, slope, y, 1, 0)
        if form.columns:
            refs[f"dy{k}"][...] += body.dot(
                form, slope, refs[f"x{k}"][strip.rows, :], 0, 0
            )
    for k, leaf in enumerate(jax.tree.leaves(of_row)):
        refs["row_sums"][k, strip.rows, :] += body.fold(leaf)
    for k, leaf in enumerate(jax.tree.leaves(of_column)):
        refs["dcolumn"][j, k : k + 1, :] += body.down(leaf)
    for k, leaf in enumerate(form.used):
        refs["dtheta"][k] += of_theta[leaf]


def _slopes(
    form: body.Form, strip: body.Strip, scores: list[Any], diagonal: Any, known: Any
) -> list[Any]:
    """The derivatives of all results with respect to the scores of each task."""
    first = {axis: body.node_floats(form, axis) for axis in (0, 1)}
    slopes = []
    members = zip(form.tasks, scores, body.members(form, strip, known), strict=True)
    for number, (task, score, mask) in enumerate(members):
        shared, apart = [], []
        for output in task.outputs:
            read = strip.row if output.axis else strip.column
            at = first[output.axis]
            first[output.axis] += 3
            keep = jnp.where(diagonal, 0.0, 1.0) if output.mirror else None
            if form.kinds[task.number] != "logsumexp" or known is not None:
                shared.append(body.times(read(at), keep))
            else:
                weight = body.times(read(at + 1), keep)
                apart.append(weight * jnp.exp(score - read(at + 2)))
        if mask is False:
            slopes.append(jnp.zeros_like(score))
            continue
        slope = functools.reduce(jnp.add, shared + apart)
        if shared and form.kinds[task.number] == "logsumexp":
            slope *= jnp.exp(score - strip.refs["theta"][0, form.leaves + number])
        slopes.append(slope if mask is True else jnp.where(mask, slope, 0))
    return slopes
