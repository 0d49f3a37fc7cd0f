"""What softmax losses push apart: all negatives of a row, hard ones, guided ones.

Hard negatives belong to one anchor alone. They are few, so their logits leave the work
over all pairs. A guide is a second embedding that drops false negatives: candidate j is
none of anchor i's negatives where

    cos(guide_i, guide_j) > limit_i = limit(cos(guide_i, guide of i's positive))

It travels beside the first embedding, through a kernel that compares both: the rule is
applied to each pair of a tile, and no mask is stored. Each anchor has its own limit, so
of two anchors one may drop the other and be kept by it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, pairwise
from jaxcl.losses import beside, softmax

Limit = Callable[[jax.Array], ArrayLike]

# How the guide's embeddings are compared.
COSINE = kernels.cosine(1.0)


def checked(
    guide: Any, limit: Limit | None, dtype: Any, **given: jax.Array | None
) -> dict[str, Any] | None:
    """Checks a guide's embeddings against the embeddings that they stand beside.

    Args:
      guide: a tuple of arrays, one for each argument that is given, in their order.
      limit: of the guide.
      dtype: of results.
      **given: those arguments, checked [..., d]; None for what is not given.

    Returns:
      The guide's embeddings by the argument's name, constants of the dtype; None for
      what is not given. None without a guide.

    Raises:
      TypeError: if the guide is no tuple, or an array in it not floating.
      ValueError: if their number or a shape is wrong, or there is a limit alone.
    """
    if absent(guide, limit):
        return None
    names = [name for name, z in given.items() if z is not None]
    asked = f"guide must be a tuple of second embeddings of {', '.join(names)}"
    if not isinstance(guide, tuple | list):
        raise TypeError(f"{asked}, got {type(guide).__name__}")
    if len(guide) != len(names):
        raise ValueError(f"{asked}, got {len(guide)} of them")
    of_each = dict(zip(names, guide, strict=True))
    for name, of_guide in of_each.items():
        rows = given[name].shape[:-1]  # type: ignore[union-attr]
        axes = {"negatives": "k d", "hard_negatives": "n h g"}.get(name, "n g")
        _checks.embeddings(f"guide of {name}", of_guide, axes)
        if of_guide.shape[:-1] != rows:
            raise ValueError(
                f"guide of {name} must have the rows of {name}, {rows}, "
                f"got {of_guide.shape}"
            )
        first = f"guide of {names[0]}"
        _checks.same_width(first, guide[0], f"guide of {name}", of_guide)
    return given | {name: constant(x, dtype) for name, x in of_each.items()}


def absent(guide: Any, limit: Limit | None) -> bool:
    """Tells whether there is no guide, in which case there is no limit either.

    Args:
      guide: None for none.
      limit: of the guide.

    Returns:
      Whether there is none.

    Raises:
      ValueError: if there is a limit alone.
    """
    if guide is None and limit is not None:
        raise ValueError("guide must be given with guide_limit, got None")
    return guide is None


def constant(guide: jax.Array, dtype: Any) -> jax.Array:
    """Holds a guide constant, in the dtype in which all is compared.

    Args:
      guide: embeddings.
      dtype: of results.

    Returns:
      The embeddings; no gradient reaches them.
    """
    return lax.stop_gradient(jnp.asarray(guide, dtype))


def limits(own: jax.Array, limit: Limit | None) -> jax.Array:
    """Says how similar a negative may be to its anchor.

    Args:
      own: the guide's cosine of each anchor with its positive.
      limit: a function of them; None takes them as they are.

    Returns:
      A number for each anchor, of the shape and dtype of `own`; a constant. Above the
      limit by rounding, so that what equals it in exact numbers stays a negative.

    Raises:
      TypeError: if the limit is no function.
      ValueError: if it returns a wrong shape.
    """
    if limit is not None and not callable(limit):
        raise TypeError(
            "guide_limit must be a function of the positive's similarity, such as "
            f"`lambda own: own - 0.05`, got {type(limit).__name__}"
        )
    largest = own if limit is None else jnp.asarray(limit(own), own.dtype)
    if largest.shape not in ((), own.shape):
        raise ValueError(
            f"guide_limit must return a number for each anchor, {own.shape}, or one "
            f"for all, got shape {largest.shape}"
        )
    # How far two sums of the same products of unit vectors may lie apart.
    rounding = 8 * float(jnp.finfo(own.dtype).eps)
    return lax.stop_gradient(jnp.broadcast_to(largest, own.shape) + rounding)


def kept(logit: jax.Array, similarity: jax.Array, limit: jax.Array) -> jax.Array:
    """Drops what is too similar in the guide, by a score of -inf.

    Args:
      logit: of a pair.
      similarity: the guide's.
      limit: of the anchor.

    Returns:
      The logit, or -inf; NaN where the guide is no number.
    """
    dropped = jnp.where(similarity > limit, -jnp.inf, jnp.nan)
    return jnp.where(similarity <= limit, logit, dropped)


def _of_anchor(pair: pairwise.Pair) -> jax.Array:
    logit, similarity = pair.logits
    return kept(logit, similarity, pair.anchor)


def _of_candidate(pair: pairwise.Pair) -> jax.Array:
    logit, similarity = pair.logits
    return kept(logit, similarity, pair.candidate)


PLAIN = (
    softmax.NEGATIVES,
    pairwise.Reduction("logsumexp", graphs.negatives, over="anchors"),
)
GUIDED = (
    pairwise.Reduction("logsumexp", graphs.negatives, _of_anchor),
    pairwise.Reduction("logsumexp", graphs.negatives, _of_candidate, over="anchors"),
)


class Guide(NamedTuple):
    """A second embedding of nodes.

    Attributes:
      nodes: the same one or two sets of nodes, with the guide's embeddings.
      limit: how similar a negative may be, of each node of the first set [n]; also of
        the second where those are anchors, too.
      hard: the guide's embeddings of hard negatives, where there are any [n, h, g].
    """

    nodes: tuple[graphs.Nodes, ...]
    limit: jax.Array
    hard: jax.Array | None = None


class Hard(NamedTuple):
    """Negatives of each anchor alone: embeddings [n, h, d], and which there are."""

    z: jax.Array
    valid: jax.Array


def hard_of(
    anchors: graphs.Nodes, z: jax.Array | None, valid: jax.Array | None
) -> Hard | None:
    """Checks hard negatives, by the names that losses give them.

    Args:
      anchors: n nodes.
      z: embeddings [n, h, d]; None for none.
      valid: which of them there are [n, h]; None for all.

    Returns:
      The hard negatives of valid anchors; the others are zero. None for none.

    Raises:
      TypeError: if `z` is not floating, or `valid` not boolean.
      ValueError: if a shape is wrong.
    """
    if z is None:
        if valid is not None:
            raise ValueError(
                "hard_negatives must be given with hard_negatives_valid, got None"
            )
        return None
    _checks.embeddings("hard_negatives", z, "n h d")
    n, d = anchors.z.shape
    if z.shape[0] != n or z.shape[2] != d:
        raise ValueError(
            f"hard_negatives must have shape ({n}, h, {d}), h embeddings for each "
            f"anchor, got {z.shape}"
        )
    exist = jnp.broadcast_to(anchors.valid[:, None], z.shape[:2])
    if valid is not None:
        _checks.array("hard_negatives_valid", valid, "n h")
        if valid.dtype != bool:
            raise TypeError(
                "hard_negatives_valid must be a boolean array [n, h], "
                f"got dtype {valid.dtype}"
            )
        if valid.shape != exist.shape:
            raise ValueError(
                f"hard_negatives_valid must have shape {exist.shape}, got {valid.shape}"
            )
        exist &= valid
    return Hard(jnp.where(exist[..., None], z, 0), exist)


def negatives(
    kernel: kernels.Kernel,
    nodes: tuple[graphs.Nodes, ...],
    *,
    guide: Guide | None = None,
    hard: Hard | None = None,
    both: bool = False,
    **options: Any,
) -> tuple[jax.Array, ...]:
    """Reduces the negatives of each anchor.

    Args:
      kernel: a log-kernel.
      nodes: anchors and candidates, or one set of nodes compared with each other.
      guide: drops false negatives; None drops nothing.
      hard: further negatives of each anchor.
      both: whether candidates are anchors, too.
      **options: of `pairwise.reduce_pairs`.

    Returns:
      Log-sum-exp over negatives of each anchor [n] and, if both, of each candidate;
      -inf for none.
    """
    compared, joined, reductions = kernel, nodes, PLAIN
    if guide is not None:
        compared = beside.Beside(kernel, COSINE, nodes[0].z.shape[1])
        reductions = GUIDED
        limits = guide.limit, guide.limit if both else ()
        joined = tuple(
            of._replace(z=_beside(of.z, second.z), extra=limit)
            for of, second, limit in zip(nodes, guide.nodes, limits, strict=False)
        )
    first, *back = pairwise.reduce_pairs(
        *joined, kernel=compared, reductions=reductions[: 1 + both], **options
    )
    if hard is not None:
        logits = kernels.matched(kernel, nodes[0].z, hard.z).astype(first.dtype)
        if guide is not None and guide.hard is not None:
            of_guide = jnp.where(hard.valid[..., None], guide.hard, 0)
            similar = kernels.matched(COSINE, guide.nodes[0].z, of_guide)
            logits = kept(logits, similar, guide.limit[:, None])
        first = softmax.joined(first, jnp.where(hard.valid, logits, -jnp.inf))
    return first, *back


def _beside(z: jax.Array, guide: jax.Array) -> jax.Array:
    return jnp.concatenate([z.astype(guide.dtype), guide], axis=1)
