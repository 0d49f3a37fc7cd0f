"""Reductions over all pairs, densely: short, obvious, differentiable twice.

It stores the whole pair matrix. Everything else is tested against it.
"""

import jax
import jax.numpy as jnp

from jaxcl import graphs, kernels
from jaxcl.pairwise import exchange, reductions


def reduce_dense(
    names: tuple[str, ...],
    kernel: kernels.Kernel,
    asked: tuple[reductions.Reduction, ...],
    anchors: graphs.Nodes,
    candidates: graphs.Nodes,
    pair_weight: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """Computes reductions from the whole pair matrix.

    Args:
      names: mesh axes over which the nodes are sharded.
      kernel: with float array leaves.
      asked: the reductions.
      anchors: n nodes of this device.
      candidates: m nodes of this device.
      pair_weight: [n, devices * m] or None.

    Returns:
      One array for each reduction.
    """

    def result(reduction: reductions.Reduction) -> jax.Array:
        rows, columns, weight = anchors, candidates, pair_weight
        if reduction.over == "candidates":
            columns, axis = exchange.gather(columns, names), 1
        else:
            rows, axis = exchange.gather(rows, names), 0
            if weight is not None:
                weight = exchange.gather_columns(weight, names)
        logits = kernels.log_kernel(kernel, rows.z, columns.z)
        anchor, candidate = reductions.side(rows, 1), reductions.side(columns, 0)
        scores = reductions.score(reduction, logits, anchor, candidate, weight)
        member = reduction.relation(anchor, candidate) & anchor.valid & candidate.valid
        return _accumulate(reduction, scores, member, axis)

    return tuple(result(reduction) for reduction in asked)


def _accumulate(
    reduction: reductions.Reduction, scores: jax.Array, member: jax.Array, axis: int
) -> jax.Array:
    if reduction.accumulate == "logsumexp":
        member &= scores != -jnp.inf  # a score may drop a pair
        any_member = member.any(axis)
        # Where there is no member, log(0) has no derivative: it sees zeros instead.
        inner = member | ~jnp.expand_dims(any_member, axis)
        scores = jnp.where(member, scores, 0)
        result = jax.nn.logsumexp(scores, axis=axis, where=inner)
        return jnp.where(any_member, result, -jnp.inf)
    total = jnp.where(member, scores, 0).sum(axis)
    if reduction.accumulate == "mean":
        return total / jnp.maximum(member.sum(axis).astype(total.dtype), 1)
    return total
