"""Tiles as Pallas kernels for TPU (Mosaic): draft."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl import graphs
from jaxcl.pairwise import reductions
from jaxcl.pairwise.reductions import Partial

LANES = 128
LOWEST = -3.0e38
INTERPRET = False
VMEM = 100 * 2**20


class Side(NamedTuple):
    vectors: list
    factors: list
    numbers: Any
    extra: Any
    group: Any
    index: Any
    valid: Any


class Question(NamedTuple):
    kernel: Any
    asked: Any
    tasks: Any
    layout: Any


def cut(n, target):
    count = -(-n // target)
    size = -(-(-(-n // count)) // LANES) * LANES
    return size, count


def pad(x, rows, width=None):
    shape = [(0, rows - x.shape[0])]
    if x.ndim == 2:
        shape.append((0, -x.shape[1] % LANES))
    return x if all(b == 0 for _, b in shape) else jnp.pad(x, shape)


def floats(side):
    """Numbers of each node that tiles read, in one list."""
    return [f for f in side.factors if f is not None] + jax.tree.leaves((side.numbers, side.extra))


def rebuild(side, arrays):
    """The inverse of `floats`, of arrays of another shape."""
    arrays = list(arrays)
    factors = [None if f is None else arrays.pop(0) for f in side.factors]
    numbers, extra = jax.tree.unflatten(jax.tree.structure((side.numbers, side.extra)), arrays)
    return factors, numbers, extra


def pack(arrays, size, count, dtype):
    """Arrays [n] as blocks [count, k, size]."""
    if not arrays:
        arrays = [jnp.zeros(size * count, dtype)]
    stacked = jnp.stack([pad(a.astype(dtype), size * count) for a in arrays])
    return stacked.reshape(len(arrays), count, size).transpose(1, 0, 2)


def bounds(side, size, count):
    valid = pad(side.valid, size * count).reshape(count, size)
    big = jnp.iinfo(jnp.int32).max
    out = []
    for x in (side.group, side.index):
        x = pad(x.astype(jnp.int32), size * count).reshape(count, size)
        out += [jnp.where(valid, x, big).min(1), jnp.where(valid, x, -big).max(1)]
    return jnp.stack([*out, valid.all(1).astype(jnp.int32)], 1).reshape(-1)


def fold(x):
    """Adds lane groups: [n, m] to [n, 128]."""
    return functools.reduce(jnp.add, groups_of(x))


def groups_of(x):
    return [x[:, k : k + LANES] for k in range(0, x.shape[1], LANES)]


def wide(x, bn):
    return jnp.concatenate([x] * (bn // LANES), axis=1)


def as_column(x, bm):
    return jnp.transpose(jnp.broadcast_to(x, (LANES, bm)))


def as_row(x, bm):
    return jnp.transpose(jnp.broadcast_to(x, (bm, LANES)))[:1]


def scores_of(question, theta, products, row, column):
    kernel, asked = theta
    structure, places = question.layout
    logits = kernel.elementwise(
        jax.tree.unflatten(structure, [products[p] for p in places]), row[0], column[0]
    )
    nodes = [graphs.Nodes(None, None, None, None, side[1]) for side in (row, column)]
    out = []
    for task in question.tasks:
        anchor, candidate = nodes[::-1] if task.swapped else nodes
        out.append(reductions.score(asked[task.number], logits, anchor, candidate, None))
    return out


def members_of(question, row, column):
    """row, column: (group, index, valid)."""
    nodes = [graphs.Nodes(None, g, i, v != 0, None) for g, i, v in (row, column)]
    out = []
    for task in question.tasks:
        anchor, candidate = nodes[::-1] if task.swapped else nodes
        relation = question.asked[task.number].relation
        out.append(relation(anchor, candidate) & anchor.valid & candidate.valid)
    return out


# What a pair is where neither groups nor indices of two blocks overlap.
APART = {graphs.negatives: True, graphs.others: True, graphs.positives: False}


def slots(question):
    """Where states are: {(axis, number): (first, accumulate)}, and how many of each axis."""
    places, size = {}, [0, 0]
    for task in question.tasks:
        for output in task.outputs:
            kind = question.asked[output.number].accumulate
            places[output.axis, output.number] = size[output.axis]
            size[output.axis] += 1 if kind == "sum" else 2
    return places, size


def dot(x, y, axes):
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return lax.dot_general(x, y, ((axes[:1], axes[1:]), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def tile_inputs(question, sides, refs, j, bm, bn):
    row, column = sides
    rows = [wide(refs["rows"][k], bn) for k in range(len(floats(row)))]
    columns = [jnp.broadcast_to(refs["cf"][0, k : k + 1, :], (bm, bn)) for k in range(len(floats(column)))]
    return rebuild(row, rows), rebuild(column, columns)


def scaled(raw, row_factors, column_factors):
    out = []
    for p, f, g in zip(raw, row_factors, column_factors, strict=True):
        p = p if f is None else p * f
        out.append(p if g is None else p * g)
    return out


def variants(question, refs, i, j, run):
    """Runs the tile without masks where that is right, or not at all."""
    known = [APART.get(question.asked[t.number].relation) for t in question.tasks]
    if None in known:
        run(None)
        return
    a = [refs["rb"][5 * i + k] for k in range(5)]
    b = [refs["cb"][5 * j + k] for k in range(5)]
    apart = (a[4] + b[4] == 2) & ((a[0] > b[1]) | (a[1] < b[0])) & ((a[2] > b[3]) | (a[3] < b[2]))
    pl.when(jnp.logical_not(apart))(lambda: run(None))
    if any(known):
        pl.when(apart)(lambda: run(known))


def load_theta(question, refs):
    leaves, structure = jax.tree.flatten((question.kernel, question.asked))
    return jax.tree.unflatten(structure, [refs["theta"][k] for k in range(len(leaves))])


def start_row(refs, bm):
    for k in range(refs["rf"].shape[1]):
        refs["rows"][k] = as_column(refs["rf"][0, k : k + 1, :], bm)
    for k in range(3):
        refs["row_ids"][k] = as_column(refs["ri"][0, k : k + 1, :], bm)


def member_masks(question, refs, bm, bn):
    row = [wide(refs["row_ids"][k], bn) for k in range(3)]
    column = [jnp.broadcast_to(refs["ci"][0, k : k + 1, :], (bm, bn)) for k in range(3)]
    return members_of(question, row, column)


def forward_kernel(*refs, names, question, sides, order):
    refs = dict(zip(names, refs, strict=True))
    v = len(sides[0].vectors)
    i, j = pl.program_id(0), pl.program_id(1)
    last = j == pl.num_programs(1) - 1
    j, mirrored, visit = order(i, j)
    bm, bn = refs["x0"].shape[0], refs["y0"].shape[0]
    places, (column_states, row_states) = slots(question)
    kinds = {k: question.asked[k[1]].accumulate for k in places}

    @pl.when(pl.program_id(1) == 0)
    def _():
        start_row(refs, bm)
        for (axis, n), at in places.items():
            if axis == 1:
                refs["state"][at] = jnp.zeros((bm, LANES), jnp.float32)
                if kinds[axis, n] != "sum":
                    top = LOWEST if kinds[axis, n] == "logsumexp" else 0.0
                    refs["state"][at + 1] = jnp.full((bm, LANES), top, jnp.float32)

    @pl.when((i == 0) & (pl.program_id(1) == 0))
    def _():
        for (axis, n), at in places.items():
            if axis == 0:
                shape = (refs["columns"].shape[0], bn)
                refs["columns"][:, at, :] = jnp.zeros(shape, jnp.float32)
                if kinds[axis, n] != "sum":
                    top = LOWEST if kinds[axis, n] == "logsumexp" else 0.0
                    refs["columns"][:, at + 1, :] = jnp.full(shape, top, jnp.float32)

    def run(known):
        theta = load_theta(question, refs)
        row, column = tile_inputs(question, sides, refs, j, bm, bn)
        raw = [dot(refs[f"x{k}"][...], refs[f"y{k}"][...], (1, 1)) for k in range(v)]
        products = scaled(raw, row[0], column[0])
        scores = scores_of(question, theta, products, row[1:], column[1:])
        masks = known if known is not None else member_masks(question, refs, bm, bn)
        for task, score, mask in zip(question.tasks, scores, masks, strict=True):
            if mask is False:
                continue
            kind = question.asked[task.number].accumulate
            empty = LOWEST if kind == "logsumexp" else 0.0
            if mask is not True:
                score = jnp.where(mask, score, empty)
            for output in task.outputs:
                at = places[output.axis, output.number]
                if output.axis == 1:
                    old = [refs["state"][at + k] for k in range(1 + (kind != "sum"))]
                    new = add_rows(kind, old, score, mask)
                else:
                    old = [refs["columns"][j, at + k : at + k + 1, :] for k in range(1 + (kind != "sum"))]
                    new = add_columns(kind, old, score, mask)
                if output.mirror:
                    new = [jnp.where(mirrored, n, o) for n, o in zip(new, old, strict=True)]
                for k, value in enumerate(new):
                    if output.axis == 1:
                        refs["state"][at + k] = value
                    else:
                        refs["columns"][j, at + k : at + k + 1, :] = value

    if visit is None:
        variants(question, refs, i, j, run)
    else:
        pl.when(visit)(lambda: variants(question, refs, i, j, run))

    @pl.when(last)
    def _():
        for (axis, n), at in places.items():
            if axis == 1:
                kind = kinds[axis, n]
                total = refs["state"][at]
                if kind == "logsumexp":
                    m = refs["state"][at + 1]
                    top = jnp.max(m, axis=1, keepdims=True)
                    total *= jnp.exp(m - top)
                    refs["out"][0, at + 1 : at + 2, :] = as_row(top, bm)
                elif kind == "mean":
                    members = jnp.sum(refs["state"][at + 1], axis=1, keepdims=True)
                    refs["out"][0, at + 1 : at + 2, :] = as_row(members, bm)
                total = jnp.sum(total, axis=1, keepdims=True)
                refs["out"][0, at : at + 1, :] = as_row(total, bm)


def add_rows(kind, old, score, mask):
    if kind == "logsumexp":
        total, top = old
        parts = groups_of(score)
        new = functools.reduce(jnp.maximum, parts, top)
        total *= jnp.exp(top - new)
        for part in parts:
            total += jnp.exp(part - new)
        return [total, new]
    return [old[0] + fold(score)] + (
        [] if kind == "sum" else [old[1] + (score.shape[1] / LANES if mask is True else fold(jnp.where(mask, 1.0, 0.0)))]
    )


def add_columns(kind, old, score, mask):
    if kind == "logsumexp":
        total, top = old
        new = jnp.maximum(top, jnp.max(score, axis=0, keepdims=True))
        total = total * jnp.exp(top - new) + jnp.sum(jnp.exp(score - new), axis=0, keepdims=True)
        return [total, new]
    return [old[0] + jnp.sum(score, axis=0, keepdims=True)] + (
        [] if kind == "sum" else [old[1] + (float(score.shape[0]) if mask is True else jnp.sum(jnp.where(mask, 1.0, 0.0), axis=0, keepdims=True))]
    )


def all_orders(i, j):
    return j, None, None


def specs(row, column, bm, bn, at, backward=False):
    width = [pad(x, x.shape[0]).shape[1] for x in row.vectors]
    smem = pl.BlockSpec(memory_space=pltpu.SMEM)
    block = {"rb": smem, "cb": smem, "theta": smem}
    for k, w in enumerate(width):
        block[f"x{k}"] = pl.BlockSpec((bm, w), lambda i, j: (i, 0))
    for k, w in enumerate(width):
        block[f"y{k}"] = pl.BlockSpec((bn, w), lambda i, j: (at(i, j), 0))
    return block, width


def operands(question, row, column, bm, I, bn, J, row_floats, column_floats):
    theta = jax.tree.leaves((question.kernel, question.asked)) or [jnp.zeros(())]
    ids = lambda s, size, count: pack([s.group, s.index, s.valid], size, count, jnp.int32)
    return {
        "rb": bounds(row, bm, I),
        "cb": bounds(column, bn, J),
        "theta": jnp.stack([jnp.asarray(t, jnp.float32) for t in theta]),
        **{f"x{k}": pad(x, bm * I) for k, x in enumerate(row.vectors)},
        **{f"y{k}": pad(y, bn * J) for k, y in enumerate(column.vectors)},
        "rf": pack(row_floats, bm, I, jnp.float32),
        "cf": pack(column_floats, bn, J, jnp.float32),
        "ri": ids(row, bm, I),
        "ci": ids(column, bn, J),
    }


def call(body, question, sides, row_floats, column_floats, blocks, outputs, scratch, name, semantics, order=all_orders, **static):
    """outputs: {name: (shape, block, index_map)}"""
    row, column = sides
    (bm, I), (bn, J) = cut(len(row.valid), blocks[0]), cut(len(column.valid), blocks[1])
    at = lambda i, j: order(i, j)[0]
    ops = operands(question, row, column, bm, I, bn, J, row_floats, column_floats)
    block, width = specs(row, column, bm, bn, at)
    for name_, index in (("rf", lambda i, j: (i, 0, 0)), ("ri", lambda i, j: (i, 0, 0)), ("cf", lambda i, j: (at(i, j), 0, 0)), ("ci", lambda i, j: (at(i, j), 0, 0))):
        block[name_] = pl.BlockSpec((1, *ops[name_].shape[1:]), index)
    outs = outputs(bm, I, bn, J, width)
    scr = {
        "rows": pltpu.VMEM((ops["rf"].shape[1], bm, LANES), jnp.float32),
        "row_ids": pltpu.VMEM((3, bm, LANES), jnp.int32),
        **scratch(bm, I, bn, J, width),
    }
    names = (*ops, *outs, *scr)
    mat = jax.typeof(ops["x0"]).manual_axis_type
    flat = pl.pallas_call(
        functools.partial(body, names=names, question=question_static(question), sides=sides_static(sides), order=order, **static),
        grid=(I, J),
        in_specs=[block[k] for k in ops],
        out_specs=[pl.BlockSpec(b, f) for _, b, f in outs.values()],
        out_shape=[jax.ShapeDtypeStruct(s, jnp.float32, manual_axis_type=mat) for s, _, _ in outs.values()],
        scratch_shapes=list(scr.values()),
        compiler_params=pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=VMEM),
        interpret=pltpu.InterpretParams() if INTERPRET else False,
        name=name,
    )(*ops.values())
    return dict(zip(outs, flat, strict=True)), (bm, I, bn, J)


def question_static(question):
    """Without arrays: leaves are replaced by None-like placeholders."""
    leaves, structure = jax.tree.flatten((question.kernel, question.asked))
    kernel, asked = jax.tree.unflatten(structure, [0.0] * len(leaves))
    return question._replace(kernel=kernel, asked=asked)


def sides_static(sides):
    return tuple(jax.tree.map(lambda x: 0.0, side) for side in sides)


def forward(question, row, column, blocks=(512, 1024)):
    """{(axis, number): Partial}."""
    places, (c, r) = slots(question)

    def outputs(bm, I, bn, J, width):
        outs = {}
        if r:
            outs["out"] = ((I, r, bm), (1, r, bm), lambda i, j: (i, 0, 0))
        if c:
            outs["columns"] = ((J, c, bn), (J, c, bn), lambda i, j: (0, 0, 0))
        return outs

    def scratch(bm, I, bn, J, width):
        return {"state": pltpu.VMEM((r, bm, LANES), jnp.float32)} if r else {}

    out, (bm, I, bn, J) = call(
        forward_kernel, question, (row, column), floats(row), floats(column), blocks, outputs, scratch,
        "jaxcl_forward", ("arbitrary" if c else "parallel", "arbitrary"),
    )
    result = {}
    for (axis, number), at in places.items():
        kind = question.asked[number].accumulate
        array = out["out"] if axis else out["columns"]
        length = len((row if axis else column).valid)
        get = lambda k: array[:, k].reshape(-1)[:length]
        total = get(at)
        zero = jnp.zeros_like(total)
        if kind == "logsumexp":
            top = get(at + 1)
            none = top == LOWEST
            result[axis, number] = Partial(jnp.where(none, 0, total), jnp.where(none, -jnp.inf, top), zero)
        else:
            result[axis, number] = Partial(total, zero, get(at + 1) if kind == "mean" else zero)
    return result


def used_theta(question, row, column):
    """Which leaves the scores depend on."""
    leaves, structure = jax.tree.flatten((question.kernel, question.asked))
    spec = jax.ShapeDtypeStruct((8, LANES), jnp.float32)

    def ask(leaves, products, row_floats, column_floats):
        theta = jax.tree.unflatten(structure, leaves)
        return scores_of(question, theta, products, rebuild(row, row_floats)[1:], rebuild(column, column_floats)[1:])

    jaxpr = jax.make_jaxpr(ask)(
        [jax.ShapeDtypeStruct((), jnp.float32) for _ in leaves], [spec for _ in row.vectors], [spec for _ in floats(row)], [spec for _ in floats(column)]
    ).jaxpr
    used = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
    return [k for k in range(len(leaves)) if id(jaxpr.invars[k]) in used]


def backward_kernel(*refs, names, question, sides, order, theta_used):
    refs = dict(zip(names, refs, strict=True))
    row, column = sides
    v = len(row.vectors)
    i, j = pl.program_id(0), pl.program_id(1)
    last = j == pl.num_programs(1) - 1
    bm, bn = refs["x0"].shape[0], refs["y0"].shape[0]
    nr, nc = len(floats(row)), len(floats(column))
    row_numbers = jax.tree.structure((row.numbers, row.extra)).num_leaves

    @pl.when(j == 0)
    def _():
        start_row(refs, bm)
        for k in range(v):
            refs[f"dx{k}"][...] = jnp.zeros(refs[f"dx{k}"].shape, jnp.float32)
        for k in range(row_numbers):
            refs["sums"][k] = jnp.zeros((bm, LANES), jnp.float32)

    @pl.when((i == 0) & (j == 0))
    def _():
        if theta_used:
            refs["dtheta"][...] = jnp.zeros(refs["dtheta"].shape, jnp.float32)

    def run(known):
        theta = load_theta(question, refs)
        leaves, structure = jax.tree.flatten(theta)
        (row_factors, *row_rest), (column_factors, *column_rest) = tile_inputs(question, sides, refs, j, bm, bn)
        raw = [dot(refs[f"x{k}"][...], refs[f"y{k}"][...], (1, 1)) for k in range(v)]
        products = scaled(raw, row_factors, column_factors)
        scores, pull = jax.vjp(lambda p, r: scores_of(question, theta, p, r, column_rest), products, row_rest)
        masks = known if known is not None else member_masks(question, refs, bm, bn)
        slopes = []
        at = [nr, nc]
        for task, score, mask in zip(question.tasks, scores, masks, strict=True):
            slope = None
            for output in task.outputs:
                if output.axis == 1:
                    cotangent, known_ = (wide(refs["rows"][at[0] + k], bn) for k in range(2))
                    at[0] += 2
                else:
                    cotangent, known_ = (jnp.broadcast_to(refs["cf"][0, at[1] + k : at[1] + k + 1, :], (bm, bn)) for k in range(2))
                    at[1] += 2
                part = reductions.slope(question.asked[task.number], score, cotangent, known_)
                slope = part if slope is None else slope + part
            if mask is False:
                slope = jnp.zeros_like(score)
            elif mask is not True:
                slope = jnp.where(mask, slope, 0.0)
            slopes.append(slope)
        pulled, pulled_rest = pull(slopes)
        for k in range(v):
            h = pulled[k]
            if column_factors[k] is not None:
                h = h * column_factors[k]
            y = refs[f"y{k}"][...]
            refs[f"dx{k}"][...] += dot(h.astype(y.dtype), y, (1, 0))
        for k, leaf in enumerate(jax.tree.leaves(pulled_rest)):
            refs["sums"][k] += fold(leaf)
        for k, leaf in enumerate(theta_used):
            def of_leaf(value, leaf=leaf):
                changed = jax.tree.unflatten(structure, [*leaves[:leaf], value, *leaves[leaf + 1 :]])
                return scores_of(question, changed, products, row_rest, column_rest)

            _, tangents = jax.jvp(of_leaf, (leaves[leaf],), (jnp.ones((), jnp.float32),))
            part = functools.reduce(jnp.add, [s * t for s, t in zip(slopes, tangents, strict=True)])
            refs["dtheta"][k] += fold(part).reshape(bm // 8, 8, LANES).sum(0)

    variants(question, refs, i, j, run)

    @pl.when(last)
    def _():
        for k in range(row_numbers):
            total = jnp.sum(refs["sums"][k], axis=1, keepdims=True)
            refs["dnumbers"][0, k : k + 1, :] = as_row(total, bm)


def backward(question, row, column, row_results, column_results, blocks=(512, 1024)):
    """Rows only: (vectors, numbers, extra) gradient and theta; *_results {number: (cotangent, known)}."""
    row_floats, column_floats = list(floats(row)), list(floats(column))
    for task in question.tasks:
        for output in task.outputs:
            if output.axis == 1:
                row_floats += row_results[output.number]
            else:
                column_floats += column_results[output.number]
    used = used_theta(question, row, column)
    structure = jax.tree.structure((row.numbers, row.extra))
    r = structure.num_leaves

    def outputs(bm, I, bn, J, width):
        outs = {f"dx{k}": ((bm * I, w), (bm, w), lambda i, j: (i, 0)) for k, w in enumerate(width)}
        if r:
            outs["dnumbers"] = ((I, r, bm), (1, r, bm), lambda i, j: (i, 0, 0))
        if used:
            outs["dtheta"] = ((len(used), 8, LANES), (len(used), 8, LANES), lambda i, j: (0, 0, 0))
        return outs

    def scratch(bm, I, bn, J, width):
        return {"sums": pltpu.VMEM((r, bm, LANES), jnp.float32)} if r else {}

    out, (bm, I, bn, J) = call(
        backward_kernel, question, (row, column), row_floats, column_floats, blocks, outputs, scratch,
        "jaxcl_row_gradient", ("arbitrary" if used else "parallel", "arbitrary"), theta_used=tuple(used),
    )
    n = len(row.valid)
    vectors = []
    for k, x in enumerate(row.vectors):
        g = out[f"dx{k}"][:n, : x.shape[1]]
        vectors.append(g if row.factors[k] is None else g * row.factors[k][:, None])
    numbers, extra = jax.tree.unflatten(structure, [out["dnumbers"][:, k].reshape(-1)[:n] for k in range(r)])
    leaves, theta_structure = jax.tree.flatten((question.kernel, question.asked))
    gradient = [out["dtheta"][used.index(k)].sum() if k in used else jnp.zeros(()) for k in range(len(leaves))]
    return vectors, numbers, extra, jax.tree.unflatten(theta_structure, gradient)
