"""What is asked of the pair matrix: a relation, a score, and how to add it up."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import graphs

# Scores that lie less far apart than this share exponentials: the smaller ones keep
# their float32 precision above the smallest normal number, exp(-87).
SHARED_SPREAD = 60.0


class Pair(NamedTuple):
    """What a score may look at, all of it of one pair or broadcasting like one.

    Attributes:
      logits: s_ij, whatever the kernel returns.
      anchor: the `extra` of the anchor's node; differentiable.
      candidate: the `extra` of the candidate's node.
      weight: the entry of `pair_weight`, or None; 0 where the pair does not count.
    """

    logits: Any
    anchor: Any
    candidate: Any
    weight: Any


def logit(pair: Pair) -> jax.Array:
    """Scores a pair by its logit.

    Args:
      pair: the pair.

    Returns:
      The logit.
    """
    return pair.logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reduction:
    """Adds up the scores of all pairs that stand in a relation.

    Attributes:
      accumulate: "logsumexp", "sum" or "mean". Over no pairs they are -inf, 0 and 0.
      relation: an elementwise test on the identities of two nodes; symmetric where
        nodes are compared with each other.
      score: of a `Pair` and the parameters; elementwise and differentiable. A score of
        -inf drops a pair from a "logsumexp". Define it once: a new lambda at each call
        is a new function, which outside of `jit` is compiled again.
      parameters: differentiable numbers for the score.
      over: "candidates" for one number per anchor, "anchors" for one per candidate.
    """

    accumulate: str = dataclasses.field(metadata={"static": True})
    relation: Callable[[graphs.Nodes, graphs.Nodes], jax.Array] = dataclasses.field(
        metadata={"static": True}
    )
    score: Callable[..., jax.Array] = dataclasses.field(
        default=logit, metadata={"static": True}
    )
    parameters: tuple[Any, ...] = ()
    over: str = dataclasses.field(default="candidates", metadata={"static": True})


class Partial(NamedTuple):
    """A reduction that has seen some of the pairs.

    Attributes:
      total: the sum so far, for "logsumexp" relative to `top`.
      top: the largest score so far; -inf for none. Unused (0) otherwise.
      members: how many pairs, for "mean". Unused (0) otherwise.
    """

    total: jax.Array
    top: jax.Array
    members: jax.Array


# Reductions by their numbers.
States = dict[int, Partial]


def empty(reduction: Reduction, like: jax.Array) -> Partial:
    """Starts a reduction.

    Args:
      reduction: what is asked.
      like: an array of the shape and dtype of the result, [n].

    Returns:
      The reduction over no pairs, [n].
    """
    zero = jnp.zeros(like.shape, like.dtype)
    top = zero - jnp.inf if reduction.accumulate == "logsumexp" else zero
    return Partial(zero, top, zero)


def summarize(
    reduction: Reduction,
    scores: jax.Array,
    member: jax.Array,
    axes: Collection[int],
    at_once: bool,
) -> dict[int, Partial]:
    """Reduces one tile along one axis or both.

    Args:
      reduction: what is asked.
      scores: [n, m].
      member: which pairs count, bool [n, m].
      axes: the axes that are added up, each on its own.
      at_once: whether a log-sum-exp reads its scores once, for maximum and sum.

    Returns:
      For each axis, the reduction over the tile's pairs.
    """
    if reduction.accumulate == "logsumexp":
        scores = jnp.where(member, scores, -jnp.inf)
        if at_once:
            return {axis: _exponentials_at_once(scores, axis) for axis in axes}
        return _exponentials(scores, axes)
    scores = jnp.where(member, scores, 0)
    parts = {}
    for axis in axes:
        total = scores.sum(axis)
        count = jnp.zeros_like(total)
        if reduction.accumulate == "mean":
            count = member.astype(total.dtype).sum(axis)
        parts[axis] = Partial(total, jnp.zeros_like(total), count)
    return parts


def _exponentials(scores: jax.Array, axes: Collection[int]) -> dict[int, Partial]:
    """Sums of exponentials along each axis, relative to the largest score."""
    tops = {axis: jnp.max(scores, axis) for axis in axes}

    def apart() -> list[jax.Array]:
        return [
            jnp.exp(scores - jnp.expand_dims(_finite(top), axis)).sum(axis)
            for axis, top in tops.items()
        ]

    def together() -> list[jax.Array]:
        powers = jnp.exp(scores - highest)
        return [
            powers.sum(axis) * jnp.exp(highest - _or(highest, top))
            for axis, top in tops.items()
        ]

    if len(tops) == 1:
        totals = apart()
    else:
        # Rows and columns can share their exponentials, the costly part, where no row
        # or column lies so far below the highest score that its own would underflow.
        highest = _finite(jnp.max(tops[0]))
        lowest = jnp.stack([jnp.min(_or(highest, top)) for top in tops.values()]).min()
        totals = lax.cond(highest - lowest < SHARED_SPREAD, together, apart)
    return {
        axis: Partial(total, top, jnp.zeros_like(total))
        for total, (axis, top) in zip(totals, tops.items(), strict=True)
    }


def _exponentials_at_once(scores: jax.Array, axis: int) -> Partial:
    """The same along one axis, with an exponential for each step that joins two sums.

    GPUs compute both sides of a branch, and wait for memory: there, read scores once.
    """

    def join(a: Any, b: Any) -> Any:
        (top, total), (other, added) = a, b
        high, low = jnp.maximum(top, other), jnp.minimum(top, other)
        shrink = jnp.exp(low - _finite(high))
        total, added = (
            jnp.where(top < other, total * shrink, total),
            jnp.where(top < other, added, added * shrink),
        )
        return high, total + added

    one, zero = jnp.ones_like(scores), jnp.zeros((), scores.dtype)
    top, total = lax.reduce((scores, one), (zero - jnp.inf, zero), join, (axis,))
    return Partial(total, top, jnp.zeros_like(total))


def combine(reduction: Reduction, a: Partial, b: Partial) -> Partial:
    """Joins what two disjoint sets of pairs gave.

    Args:
      reduction: what is asked.
      a: of some pairs.
      b: of other pairs.

    Returns:
      The reduction over both.
    """
    if reduction.accumulate == "logsumexp":
        top = jnp.maximum(a.top, b.top)
        reference = _finite(top)
        total = a.total * jnp.exp(a.top - reference)
        total += b.total * jnp.exp(b.top - reference)
        return Partial(total, top, a.members)
    return Partial(a.total + b.total, a.top, a.members + b.members)


def combine_all(reduction: Reduction, parts: Partial) -> Partial:
    """Joins what several disjoint sets of pairs gave.

    Args:
      reduction: what is asked.
      parts: of each set, along the first axis.

    Returns:
      The reduction over all of them.
    """
    if reduction.accumulate == "logsumexp":
        top = parts.top.max(axis=0)
        total = parts.total * jnp.exp(parts.top - _finite(top)[None])
        return Partial(total.sum(axis=0), top, parts.members[0])
    return Partial(parts.total.sum(0), parts.top[0], parts.members.sum(0))


def finish(reduction: Reduction, partial: Partial) -> tuple[jax.Array, jax.Array]:
    """Ends a reduction.

    Args:
      reduction: what is asked.
      partial: the reduction over all pairs.

    Returns:
      The result, and the one number that `slope` needs to know again.
    """
    if reduction.accumulate == "logsumexp":
        result = partial.top + jnp.log(partial.total)
        return result, _finite(result)
    if reduction.accumulate == "mean":
        count = jnp.maximum(partial.members, 1)
        return partial.total / count, 1 / count
    return partial.total, jnp.zeros_like(partial.total)


def slope(
    reduction: Reduction, scores: jax.Array, cotangent: jax.Array, known: jax.Array
) -> jax.Array:
    """Computes the derivative of the results with respect to the scores of one tile.

    Args:
      reduction: what is asked.
      scores: [n, m].
      cotangent: of the results, [n, 1] or [1, m].
      known: from `finish`, [n, 1] or [1, m].

    Returns:
      One number per pair, broadcasting to [n, m]; anything where not a member.
    """
    if reduction.accumulate == "logsumexp":
        return cotangent * jnp.exp(scores - known)
    return cotangent * known if reduction.accumulate == "mean" else cotangent


def score(
    reduction: Reduction,
    logits: Any,
    anchor: graphs.Nodes,
    candidate: graphs.Nodes,
    weight: jax.Array | None,
) -> jax.Array:
    """Evaluates the score of a reduction on one tile.

    Args:
      reduction: what is asked.
      logits: of the tile, [n, m], or a pytree of such.
      anchor: nodes that broadcast with the tile.
      candidate: nodes that broadcast with the tile.
      weight: of the pairs [n, m], or None.

    Returns:
      Scores [n, m].
    """
    if weight is not None:
        # Where a pair does not count its weight may be anything, NaN included.
        member = reduction.relation(anchor, candidate) & anchor.valid & candidate.valid
        weight = jnp.where(member, weight, 0)
    pair = Pair(logits, anchor.extra, candidate.extra, weight)
    shape = jax.tree.leaves(logits)[0].shape
    try:
        scores = reduction.score(pair, *reduction.parameters)
    except Exception as error:
        missing = _read_but_missing(reduction, pair, shape)
        if not missing:
            raise
        name = called(reduction.score)
        given = [_WHERE_GIVEN[field] for field in missing]
        raise ValueError(
            f"what a score reads must be given, got the score {name}, which reads "
            f"{' and '.join(f'pair.{field}' for field in missing)}, without "
            f"{' and '.join(given)}"
        ) from error
    if jnp.ndim(scores) not in (0, len(shape)):
        name = called(reduction.score)
        raise ValueError(
            f"the score {name} must be elementwise, got scores of shape "
            f"{jnp.shape(scores)} for logits [n, m]; is an axis summed?"
        )
    return jnp.broadcast_to(scores, shape)


_WHERE_GIVEN = {
    "anchor": "an extra of the anchors (nodes._replace(extra=...))",
    "candidate": "an extra of the candidates (nodes._replace(extra=...))",
    "weight": "pair_weight",
}


def _read_but_missing(
    reduction: Reduction, pair: Pair, shape: tuple[int, ...]
) -> list[str]:
    """What a score that failed reads of a pair and was not given.

    It succeeds with numbers in place of all that is missing, but not without this one.
    """
    numbers = jnp.zeros(shape, jax.tree.leaves(pair.logits)[0].dtype)
    missing = {
        field: numbers
        for field in _WHERE_GIVEN
        if not jax.tree.leaves(getattr(pair, field))
    }

    def succeeds(given: dict[str, Any]) -> bool:
        try:
            reduction.score(pair._replace(**given), *reduction.parameters)
        except Exception:
            return False
        return True

    if not succeeds(missing):
        return []
    return [
        field
        for field in missing
        if not succeeds({k: v for k, v in missing.items() if k != field})
    ]


def called(function: Callable[..., Any]) -> str:
    """Tells how a function is called, for a message.

    Args:
      function: any callable.

    Returns:
      Its name, or what it prints as.
    """
    return getattr(function, "__name__", repr(function))


def side(nodes: graphs.Nodes, axis: int) -> graphs.Nodes:
    """Gives the per-node numbers of nodes a second axis, so that they broadcast.

    Args:
      nodes: n nodes.
      axis: where the new axis goes: 1 for rows, 0 for columns.

    Returns:
      The nodes with arrays [n, 1] or [1, n] in place of [n]; z is left alone.
    """
    z, *rest = nodes
    return graphs.Nodes(z, *jax.tree.map(lambda x: jnp.expand_dims(x, axis), rest))


def _finite(x: jax.Array) -> jax.Array:
    """Replaces -inf, which stands for no pairs, by a number safe to subtract."""
    return _or(0, x)


def _or(number: jax.typing.ArrayLike, x: jax.Array) -> jax.Array:
    """Replaces -inf, which stands for no pairs, by another number."""
    return jnp.where(x == -jnp.inf, number, x)
