"""Partial results of one block of pairs, inside a Pallas kernel for TPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from jaxcl.pairwise.mosaic_tpu import body

# Sums of exponentials above this are computed again, relative to their own maximum.
LARGEST_SUM = 1e30


def add_block(*refs: Any, names: tuple[str, ...], form: body.Form) -> None:
    """Adds one block of pairs to the partial results of its rows and columns.

    Args:
      *refs: what the names say.
      names: of the references.
      form: of the block.
    """
    ref = dict(zip(names, refs, strict=True))
    i, step = pl.program_id(0), pl.program_id(1)
    j, visited = form.order(i, step)
    of_rows, of_columns = body.places(form, 1), body.places(form, 0)

    @pl.when(step == 0)
    def _() -> None:
        body.start_rows(ref)
        for number, at in of_rows.items():
            for k, value in enumerate(body.empty(form.kinds[number])):
                ref["state"][at + k] = jnp.full(ref["state"].shape[1:], value)

    @pl.when((i == 0) & (step == 0))
    def _() -> None:
        for number, at in of_columns.items():
            for k, value in enumerate(body.empty(form.kinds[number])):
                blocks, _, width = ref["columns"].shape
                ref["columns"][:, at + k, :] = jnp.full((blocks, width), value)
        if of_columns:

            def unseen(number: Any, _: Any) -> Any:
                ref["seen"][number] = 0
                return _

            jax.lax.fori_loop(0, ref["columns"].shape[0], unseen, 0)

    known, apart = body.known_of(form, ref, i, j)

    def strip(strip: body.Strip, known: Any) -> None:
        _add_strip(form, strip, j, i == j, known)

    def carefully() -> None:
        body.run(form, ref, True, strip, None)

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


def _exponentials(form: body.Form) -> list[tuple[int, int, int]]:
    """Log-sum-exps: axis, place of the total, and number of the task."""
    return [
        (output.axis, body.places(form, output.axis)[output.number], number)
        for number, task in enumerate(form.tasks)
        for output in task.outputs
        if form.kinds[output.number] == "logsumexp"
    ]


def _refer(form: body.Form, refs: Any, j: Any, step: Any, known: Any) -> None:
    """Takes references from a few pairs for rows and columns that have none."""
    given = [e for e in _exponentials(form) if known[e[2]]]

    def scores_of(strip: body.Strip) -> Any:
        products, (_, row), (_, column) = body.products(form, strip)
        return form.scores(body.theta(form, refs), products, row, column)

    def of_rows(strip: body.Strip, _: Any) -> None:
        scores = scores_of(strip)
        for axis, at, task in given:
            if axis:
                top = jnp.max(scores[task], axis=1, keepdims=True)
                top = jnp.broadcast_to(top, (strip.shape[0], body.LANES))
                refs["state"][at + 1, strip.rows, :] = top

    def of_columns() -> None:
        shape = body.LANES, refs["y0"].shape[0]
        scores = scores_of(body.Strip(refs, pl.ds(0, body.LANES), shape))
        for axis, at, task in given:
            if not axis:
                top = jnp.max(scores[task], axis=0, keepdims=True)
                refs["columns"][j, at + 1 : at + 2, :] = top

    if any(axis == 1 for axis, *_ in given):
        pl.when(step == 0)(
            lambda: body.run(form, refs, False, of_rows, known, body.LANES)
        )
    if any(axis == 0 for axis, *_ in given):
        pl.when(refs["seen"][j] == 0)(of_columns)


def _run_fast(form: body.Form, refs: Any, j: Any, strip: Any, known: Any) -> None:
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
    body.run(form, refs, False, strip, known)
    if not sums:
        return
    largest = [jnp.max(array[place]) for array, place in sums]
    sound = functools.reduce(jnp.maximum, largest) < LARGEST_SUM
    refs["redo"][0] = jnp.where(sound, 0, 1)

    @pl.when(jnp.logical_not(sound))
    def _() -> None:
        for (array, place), backup in zip(sums, backups, strict=True):
            array[place] = backup[...]


def _add_strip(
    form: body.Form, strip: body.Strip, j: Any, diagonal: Any, known: Any
) -> None:
    refs = strip.refs
    products, (_, row), (_, column) = body.products(form, strip)
    scores = form.scores(body.theta(form, refs), products, row, column)
    masks = body.members(form, strip, known)
    for task, score, mask in zip(form.tasks, scores, masks, strict=True):
        if mask is False:
            continue
        kind = form.kinds[task.number]
        if mask is not True:
            score = jnp.where(mask, score, body.LOWEST if kind == "logsumexp" else 0)
        for output in task.outputs:
            at = body.places(form, output.axis)[output.number]
            if output.axis:
                array = refs["state"]
                where = [(at + k, strip.rows) for k in range(len(body.empty(kind)))]
                add = _add_to_rows
            else:
                array = refs["columns"]
                where = [(j, pl.ds(at + k, 1)) for k in range(len(body.empty(kind)))]
                add = _add_to_columns
            old = [array[place] for place in where]
            new = add(kind, old, score, mask)
            if output.mirror:
                new = [
                    jnp.where(diagonal, *both) for both in zip(old, new, strict=True)
                ]
            for place, value in zip(where, new, strict=True):
                array[place] = value


def _add_to_rows(kind: str, old: list[Any], score: Any, mask: Any) -> list[Any]:
    if kind != "logsumexp":
        one = [] if kind == "sum" else [_ones(score, mask)]
        return [a + body.fold(b) for a, b in zip(old, [score, *one], strict=True)]
    total, top = old
    parts = body.groups(score)
    if mask is not True:
        # A lane alone may have seen no pair yet: the maximum of the row is a reference
        # for later blocks, too.
        highest = functools.reduce(jnp.maximum, parts)
        highest = jnp.max(highest, axis=1, keepdims=True)
        new = jnp.maximum(top, jnp.broadcast_to(highest, top.shape))
        total *= jnp.exp(top - new)
        top = new
    return [functools.reduce(jnp.add, [jnp.exp(p - top) for p in parts], total), top]


def _add_to_columns(kind: str, old: list[Any], score: Any, mask: Any) -> list[Any]:
    if kind != "logsumexp":
        one = [] if kind == "sum" else [_ones(score, mask)]
        return [a + body.down(b) for a, b in zip(old, [score, *one], strict=True)]
    total, top = old
    if mask is not True:
        new = jnp.maximum(top, jnp.max(score, axis=0, keepdims=True))
        total *= jnp.exp(top - new)
        top = new
    return [total + body.down(jnp.exp(score - top)), top]


def _ones(score: jax.Array, mask: Any) -> jax.Array:
    return jnp.ones_like(score) if mask is True else jnp.where(mask, 1.0, 0.0)


def _finish_rows(refs: Any, kind: str, at: int) -> None:
    total = refs["state"][at]
    if kind == "logsumexp":
        tops = refs["state"][at + 1]
        top = jnp.max(tops, axis=1, keepdims=True)
        total *= jnp.exp(tops - top)
        refs["results"][0, at + 1 : at + 2, :] = body.of_rows(top)
    elif kind == "mean":
        members = jnp.sum(refs["state"][at + 1], axis=1, keepdims=True)
        refs["results"][0, at + 1 : at + 2, :] = body.of_rows(members)
    total = jnp.sum(total, axis=1, keepdims=True)
    refs["results"][0, at : at + 1, :] = body.of_rows(total)
