"""Reductions over all pairs in blocks, with their derivative and over a mesh.

Residuals are the inputs and a few numbers per node; the backward pass computes the
logits anew. What is compared decides the schedule:

- `triangular`, a node set with itself on one device: each unordered pair of tiles is
  visited once and serves as (row, column) and as (column, row). That is the work of two
  matrix products, forward and backward, where autodiff of the dense form does three.
- `both`, two node sets: a tile serves the reductions of its rows and of its columns.
- `mirrored`, a node set with itself over several devices: local rows meet all columns.
  In the backward pass each device also takes, for its rows, what they owe to the
  results of other rows, so that no gradient has to travel.

Gradients are added up in the space of the kernel's vectors.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import graphs, kernels, mesh
from jaxcl.pairwise import (
    exchange,
    mosaic_tpu,
    one_tile,
    plans,
    reductions,
    slices,
    tiled,
    trees,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def reduce_streamed(
    plan: plans.Plan,
    kernel: kernels.Kernel,
    asked: one_tile.Asked,
    anchors: graphs.Nodes,
    candidates: graphs.Nodes | None,
    pair_weight: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """Computes reductions block by block.

    Args:
      plan: the mesh axes, and how to compute.
      kernel: a symmetric kernel with float array leaves.
      asked: the reductions.
      anchors: n nodes of this device.
      candidates: m nodes of this device; None for the anchors themselves.
      pair_weight: [n, devices * m] or None; a constant.

    Returns:
      One array for each reduction.
    """
    return _forward(plan, kernel, asked, anchors, candidates, pair_weight)[0]


def _forward(plan: plans.Plan, *args: Any) -> tuple[tuple[jax.Array, ...], Any]:
    results, known = _on_each_platform(plan, _forward_in, *args)
    return results, (*args, known)


def _backward(plan: plans.Plan, residuals: Any, cotangents: Any) -> Any:
    *args, known = residuals
    return _on_each_platform(plan, _backward_in, *args, known, cotangents)


reduce_streamed.defvjp(_forward, _backward)


def _on_each_platform(plan: plans.Plan, run: Any, *args: Any) -> Any:
    _, _, anchors, candidates, *_ = args
    columns = anchors if candidates is None else candidates
    m = len(columns.z)
    if plan.exchange == "gather":
        m *= mesh.size(plan.names or None)
    narrow = jnp.bfloat16 in (anchors.z.dtype, columns.z.dtype)
    return plans.on_each_platform(
        plan,
        len(anchors.z),
        m,
        narrow,
        _mosaic(plan, m, *args[:5]),
        functools.partial(run, plan),
        *args,
    )


def _mosaic(plan: plans.Plan, m: int, *args: Any) -> tuple[str, ...]:
    """The platforms on which blocks of pairs are Pallas kernels."""
    if plan.impl == "mosaic":
        return tuple(plans.MOSAIC)
    _, _, anchors, candidates, _ = args
    small = min(len(anchors.z), m) < plans.WINS
    # Of float32 they know one pass, or six where tiles take three.
    columns = anchors if candidates is None else candidates
    exact = plan.precision is not None and not (
        anchors.z.dtype == columns.z.dtype == jnp.bfloat16
    )
    if plan.impl != "auto" or plan.tile is not None or small or exact:
        return ()
    reason = mosaic_tpu.why_not(_schedule(plan, candidates), *args)
    return ("tpu",) if reason is None else ()


def check_mosaic(plan: plans.Plan, *args: Any) -> None:
    """Checks that Pallas kernels can compute a call.

    Args:
      plan: of the call.
      *args: those of `reduce_streamed`.

    Returns:
      Nothing.

    Raises:
      ValueError: if they cannot.
    """
    reason = mosaic_tpu.why_not(_schedule(plan, args[3]), *args)
    if jax.default_backend() in ("gpu", "cuda", "rocm"):
        reason = "it is for TPUs, and this process computes on GPUs"
    if reason is not None:
        raise ValueError(
            'impl must be "auto", "tiled" or "reference" for this call, got "mosaic": '
            f"{reason}"
        )


def _schedule(plan: plans.Plan, candidates: graphs.Nodes | None) -> str:
    if candidates is not None:
        return "both"
    return "mirrored" if plan.names else "triangular"


class _Pass:
    """What the forward and the backward pass have in common."""

    def __init__(
        self,
        plan: plans.Plan,
        form: plans.Form,
        kernel: kernels.Kernel,
        asked: one_tile.Asked,
        anchors: graphs.Nodes,
        candidates: graphs.Nodes | None,
        pair_weight: jax.Array | None,
        *,
        backward: bool,
    ) -> None:
        self.schedule = _schedule(plan, candidates)
        self.rows, layout = slices.side(kernel, anchors)
        self.columns = self.rows
        if candidates is not None:
            self.columns, _ = slices.side(kernel, candidates)
        n = len(anchors.z)
        tasks = one_tile.make_tasks(
            asked,
            self.schedule,
            several=form.mosaic is not None
            or plans.cuts(form, "triangular", n, n).row.number > 1,
            extras=bool(jax.tree.leaves(anchors.extra)),
            backward=backward,
        )
        self.question = one_tile.Question(
            kernel, asked, tasks, layout, kernel.multiplier()
        )
        self.varying = mesh.varying_axes(
            (self.rows, self.columns, kernel, asked, pair_weight)
        )
        self._block = plan, form, pair_weight

    def block(self, columns: slices.Side, first: Any) -> tuple[Any, Any]:
        """The pairs with some columns, and the module that computes them."""
        plan, form, weight = self._block
        if form.mosaic is not None:
            rows, columns = (
                side.multiplied(form.narrow) for side in (self.rows, columns)
            )
            interpret = form.mosaic == "interpreted"
            block = mosaic_tpu.Block(
                self.schedule, rows, columns, plan.precision, interpret
            )
            return block, mosaic_tpu
        tiles = tiled.Tiles(
            plan, form, self.schedule, self.rows, columns, first, weight
        )
        return tiles, tiled


def _forward_in(plan: plans.Plan, form: plans.Form, *args: Any) -> Any:
    _, asked, *_ = args
    this = _Pass(plan, form, *args, backward=False)
    # Results that belong to columns, and travel with them.
    of_columns = {
        number
        for number, reduction in enumerate(asked)
        if this.schedule == "both" and reduction.over == "anchors"
    }
    dtype = kernels.accumulator(*(x.rows.dtype for x in this.rows.vectors))

    def empty(numbers: Any, side: slices.Side) -> dict[int, Any]:
        like = jnp.zeros(side.nodes.index.shape, dtype)
        states = {k: reductions.empty(asked[k], like) for k in numbers}
        return mesh.cast_varying(states, this.varying)

    def visit_block(block: slices.Side, first: Any, owed: Any, kept: Any) -> Any:
        pairs, module = this.block(block, first)
        states = module.forward(pairs, this.question, {**owed, **kept})
        return {k: states[k] for k in owed}, {k: states[k] for k in kept}

    def bring_home(owed: dict[int, Any]) -> dict[int, Any]:
        return {
            k: exchange.scatter_combine(
                functools.partial(reductions.combine_all, asked[k]), state, plan.names
            )
            for k, state in owed.items()
        }

    owed, kept = exchange.visit_blocks(
        plan.exchange,
        plan.names,
        this.columns,
        functools.partial(empty, of_columns),
        visit_block,
        bring_home,
        empty(set(range(len(asked))) - of_columns, this.rows),
    )
    states = {**owed, **kept}
    finished = [reductions.finish(r, states[k]) for k, r in enumerate(asked)]
    return tuple(result for result, _ in finished), [known for _, known in finished]


def _backward_in(plan: plans.Plan, form: plans.Form, *args: Any) -> Any:
    kernel, asked, anchors, candidates, _, known, cotangents = args
    this = _Pass(plan, form, *args[:5], backward=True)
    # What a tile needs to know about results: of its rows, and of its columns.
    results = dict(enumerate(zip(cotangents, known, strict=True)))
    outputs = [o for task in this.question.tasks for o in task.outputs]
    of_columns = {o.number for o in outputs if o.axis == 0}
    of_rows = {o.number: results[o.number] for o in outputs if o.axis == 1}
    traveling = this.columns, {number: results[number] for number in of_columns}
    varying = this.varying | mesh.varying_axes(cotangents)

    def visit_block(traveling: Any, first: Any, owed: Any, kept: Any) -> Any:
        block, column_results = traveling
        of_rows_so_far, of_theta = kept
        pairs, module = this.block(block, first)
        gradients = module.backward(
            pairs,
            this.question,
            of_rows,
            column_results,
            (of_rows_so_far, owed, of_theta),
        )
        return gradients[1], (gradients[0], gradients[2])

    def empty(traveling: Any) -> Any:
        if this.schedule == "mirrored":
            return None
        zeros = slices.no_gradient(traveling[0], form.across)
        return mesh.cast_varying(zeros, varying)

    def bring_home(owed: Any) -> Any:
        if owed is None:
            return None
        vectors = exchange.scatter_sum(owed.vectors, plan.names, int(form.across))
        return slices.Gradient(vectors, *exchange.scatter_sum(owed[1:], plan.names))

    nothing = (
        slices.no_gradient(this.rows),
        jax.tree.map(jnp.zeros_like, (kernel, asked)),
    )
    owed, (gradient, of_theta) = exchange.visit_blocks(
        plan.exchange,
        plan.names,
        traveling,
        empty,
        visit_block,
        bring_home,
        mesh.cast_varying(nothing, varying),
    )
    if this.schedule == "triangular":
        gradient = trees.add(gradient, tiled.upright(owed, form.across))
    if this.schedule == "mirrored":
        # Each pair was seen from both of its ends.
        of_theta = jax.tree.map(lambda x: x / 2, of_theta)
    kernel_gradient, asked_gradient = of_theta
    if this.question.scale is not None:
        along = slices.along_products(this.rows, gradient, form.narrow)
        if this.schedule != "both":  # from both ends here, too
            along /= 2
        kernel_gradient = trees.add(kernel_gradient, _by_multiplier(kernel, along))
    pull_back = functools.partial(
        slices.pull_back, kernel, narrow=form.narrow, tile=form.tile
    )
    part, anchors_gradient = pull_back(anchors, this.rows, gradient)
    kernel_gradient = trees.add(kernel_gradient, part)
    candidates_gradient = None
    if candidates is not None:
        own = tiled.upright(owed, form.across)
        part, candidates_gradient = pull_back(candidates, this.columns, own)
        kernel_gradient = trees.add(kernel_gradient, part)
    return (
        kernel_gradient,
        asked_gradient,
        anchors_gradient,
        candidates_gradient,
        None,
    )


def _by_multiplier(kernel: kernels.Kernel, along: jax.Array) -> kernels.Kernel:
    """The gradient of a kernel through its multiplier, from that by its logarithm."""
    scale, pull = jax.vjp(lambda kernel: kernel.multiplier(), kernel)
    zero = scale == 0
    (gradient,) = pull(jnp.where(zero, 0, along / jnp.where(zero, 1, scale)))
    return gradient
