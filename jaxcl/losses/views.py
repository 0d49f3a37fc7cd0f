"""Losses of augmented views: a view is an anchor, its siblings are its positives."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import apart, softmax


def nt_xent(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.5,
    groups: jax.Array | None = None,
    guide: jax.Array | None = None,
    guide_limit: apart.Limit | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Normalized temperature-scaled cross entropy (NT-Xent), SimCLR's loss.

    Every view is an anchor. Its positives are the other views of its example, its
    candidates are all views but itself:

        loss_i = log sum_{j != i} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      groups: integers [b]; views of examples with one number are not negatives of each
        other, nor positives.
      guide: second embeddings, constants, that drop false negatives: of each view
        [b, v, g] or of each example [b, g].
      guide_limit: how similar a negative may be in the guide: a function of the cosines
        [b, v] of the anchor and its farthest positive there. None: as similar as that.
        `lambda own: own - 0.05` leaves a margin; `lambda own: 0.8` is a threshold, as a
        guide of examples needs.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each view in nats, float32 [b, v] (float64 for float64 input); 0 where not
      valid. Collapsed embeddings give log(b * v - 1).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, v, d] with v >= 2, or temperature <= 0.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, equation 1.

    >>> print(nt_xent(jnp.ones((4, 2, 3))).shape)
    (4, 2)
    """
    return kernel_info_nce(
        views,
        kernel=kernels.cosine(temperature),
        groups=groups,
        guide=guide,
        guide_limit=guide_limit,
        valid=valid,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )


def kernel_info_nce(
    views: jax.Array,
    *,
    kernel: kernels.Kernel,
    groups: jax.Array | None = None,
    guide: jax.Array | None = None,
    guide_limit: apart.Limit | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Kernel-InfoNCE: `nt_xent` with any kernel in place of the cosine.

        loss_i = log sum_{j != i} k(z_i, z_j) - mean_{j in positives(i)} log k(z_i, z_j)

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      kernel: a log-kernel, such as `kernels.gaussian(0.5)`. Its parameters are
        differentiable.
      groups: integers [b]; views of examples with one number are not negatives of each
        other, nor positives.
      guide: second embeddings, constants, that drop false negatives: of each view
        [b, v, g] or of each example [b, g].
      guide_limit: how similar a negative may be in the guide: a function of the cosines
        [b, v] of the anchor and its farthest positive there. None: as similar as that.
        `lambda own: own - 0.05` leaves a margin; `lambda own: 0.8` is a threshold, as a
        guide of examples needs.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each view in nats, float32 [b, v] (float64 for float64 input); 0 where not
      valid. Collapsed embeddings give log(b * v - 1).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, v, d] with v >= 2.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 5.2.

    >>> loss = kernel_info_nce(jnp.ones((2, 2, 3)), kernel=kernels.laplacian(0.5))
    >>> print(loss.round(4))  # log(3)
    [[1.0986 1.0986]
     [1.0986 1.0986]]
    """
    nodes, positive = _compared(views, kernel, groups, valid, axis_name)
    (negative,) = apart.negatives(
        kernel,
        (nodes,),
        guide=_guided(guide, guide_limit, views, positive.dtype, valid, axis_name),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    loss = softmax.of_positives(negative, positive)
    return jnp.where(nodes.valid, loss, 0).reshape(views.shape[:2])


def dcl(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.1,
    kernel: kernels.Kernel | None = None,
    groups: jax.Array | None = None,
    guide: jax.Array | None = None,
    guide_limit: apart.Limit | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Decoupled contrastive loss: `nt_xent` whose denominator has no positives.

        loss_i = log sum_{j in negatives(i)} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature.
      groups: integers [b]; views of examples with one number are not negatives of each
        other, nor positives.
      guide: second embeddings, constants, that drop false negatives: of each view
        [b, v, g] or of each example [b, g].
      guide_limit: how similar a negative may be in the guide: a function of the cosines
        [b, v] of the anchor and its farthest positive there. None: as similar as that.
        `lambda own: own - 0.05` leaves a margin; `lambda own: 0.8` is a threshold, as a
        guide of examples needs.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each view in nats, float32 [b, v] (float64 for float64 input); may be
      negative; 0 where not valid, and without negatives. Collapsed embeddings give
      log(v * (b - 1)).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, v, d] with v >= 2, or temperature <= 0.

    Source:
      Decoupled Contrastive Learning, https://arxiv.org/abs/2110.06848, equation 5.

    >>> print(dcl(jnp.ones((2, 2, 3))).round(4))  # log(2)
    [[0.6931 0.6931]
     [0.6931 0.6931]]
    """
    kernel = kernels.cosine(temperature) if kernel is None else kernel
    nodes, positive = _compared(views, kernel, groups, valid, axis_name)
    (negative,) = apart.negatives(
        kernel,
        (nodes,),
        guide=_guided(guide, guide_limit, views, positive.dtype, valid, axis_name),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    counts, negative = softmax.with_negatives(negative, nodes.valid)
    loss = negative - positive.mean(axis=1)
    return jnp.where(counts, loss, 0).reshape(views.shape[:2])


def debiased_nt_xent(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.5,
    prior: ArrayLike = 0.1,
    hardness: ArrayLike = 0.0,
    groups: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Debiased NT-Xent with hard negatives: weights inside the log-partition.

    Among the M negatives of an anchor are some of its own class, with probability
    `prior`. Their share is taken out, and hard negatives get weights in proportion to
    exp(hardness s):

        loss_i = log(exp(P_i) + G_i) - mean_{j in positives(i)} s_ij
        G_i    = max((W_i - M prior E_i) / (1 - prior), M exp(-1 / temperature))
        W_i    = M sum_j exp((1 + hardness) s_ij) / sum_j exp(hardness s_ij)
        s_ij   = cos(z_i, z_j) / temperature

    with sums over negatives, P_i the log-sum-exp over positives, and E_i the mean of
    exp(s_ij) over positives. With prior 0 and hardness 0 it is `nt_xent`.

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      prior: probability that a negative is of the anchor's class, in [0, 1).
        Differentiable.
      hardness: 0 weighs all negatives alike; larger prefers near ones. Differentiable.
      groups: integers [b]; views of examples with one number are not negatives of each
        other, nor positives.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each view in nats, float32 [b, v] (float64 for float64 input); 0 where not
      valid. Collapsed embeddings give log(b * v - 1), as `nt_xent`.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, v, d] with v >= 2, temperature <= 0, or prior is
        outside [0, 1).

    Source:
      Debiased Contrastive Learning, https://arxiv.org/abs/2007.00224; hardness:
      Contrastive Learning with Hard Negative Samples,
      https://arxiv.org/abs/2010.04592.

    >>> loss = debiased_nt_xent(jnp.ones((2, 2, 3)), prior=0.2, hardness=1.0)
    >>> print(loss.round(4))  # log(3)
    [[1.0986 1.0986]
     [1.0986 1.0986]]
    """
    _checks.within("prior", prior, 0, 1)
    _checks.scalar("hardness", hardness)
    kernel = kernels.cosine(temperature)
    nodes, positive = _compared(views, kernel, groups, valid, axis_name)
    prior, hardness = kernels.cast_leaves((prior, hardness), positive.dtype)
    sharp, weights = pairwise.reduce_pairs(
        nodes,
        kernel=kernel,
        reductions=(
            pairwise.Reduction("logsumexp", graphs.negatives, _scaled, (1 + hardness,)),
            pairwise.Reduction("logsumexp", graphs.negatives, _scaled, (hardness,)),
        ),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    alone = sharp == -jnp.inf
    count = graphs.count_negatives(nodes, axis_name).astype(sharp.dtype)
    log_count = jnp.log(jnp.maximum(count, 1))
    sharp, weights = (jnp.where(alone, 0, x) for x in (sharp, weights))
    all_negative = log_count + sharp - weights
    own = log_count + jax.nn.logsumexp(positive, axis=1) - math.log(positive.shape[1])
    # (exp(a) - prior exp(b)) / (1 - prior) as a multiple of exp(a), which is replaced,
    # before the logarithm, where it falls below what cosines allow. Above exp(40) it
    # has done so for every prior worth the name, and its derivatives stay finite.
    share = (1 - prior * jnp.exp(jnp.minimum(own - all_negative, 40))) / (1 - prior)
    lowest = log_count - kernels.cast_leaves(1 / temperature, sharp.dtype)
    low = share <= jnp.exp(lowest - all_negative)
    corrected = all_negative + jnp.log(jnp.where(low, 1, share))
    negative = jnp.where(alone, -jnp.inf, jnp.where(low, lowest, corrected))
    loss = softmax.of_positives(negative, positive)
    return jnp.where(nodes.valid, loss, 0).reshape(views.shape[:2])


def spectral_contrastive(
    views: jax.Array,
    *,
    groups: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Spectral contrastive loss: a factorization of the augmentation graph.

        loss_i = mean_{j in negatives(i)} (z_i . z_j)^2
                 - 2 mean_{j in positives(i)} z_i . z_j

    The embeddings are taken as they are: their lengths matter.

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      groups: integers [b]; views of examples with one number are not negatives of each
        other, nor positives.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each view, float32 [b, v] (float64 for float64 input), in units of squared
      length squared; may be negative; 0 where not valid. Equal unit vectors give -1.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, v, d] with v >= 2.

    Source:
      Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive
      Loss, https://arxiv.org/abs/2106.04156.

    >>> print(spectral_contrastive(jnp.ones((2, 2, 1))))  # 1 - 2
    [[-1. -1.]
     [-1. -1.]]
    """
    kernel = kernels.dot()
    nodes, positive = _compared(views, kernel, groups, valid, axis_name)
    (squared,) = pairwise.reduce_pairs(
        nodes,
        kernel=kernel,
        reductions=(pairwise.Reduction("mean", graphs.negatives, _square),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    loss = squared - 2 * positive.mean(axis=1)
    return jnp.where(nodes.valid, loss, 0).reshape(views.shape[:2])


def _scaled(pair: pairwise.Pair, factor: jax.Array) -> jax.Array:
    return factor * pair.logits


def _square(pair: pairwise.Pair) -> jax.Array:
    return jnp.square(pair.logits)


def _compared(
    views: jax.Array,
    kernel: kernels.Kernel,
    groups: jax.Array | None,
    valid: jax.Array | None,
    axis_name: mesh.AxisName | None,
) -> tuple[graphs.Nodes, jax.Array]:
    """The views as nodes, and the logits of their siblings, [b v, v - 1]."""
    _checks.embeddings("views", views, "b v d")
    if views.shape[1] < 2:
        raise ValueError(
            f"views must hold at least 2 views of each example, got {views.shape}"
        )
    nodes = graphs.views(views, valid, axis_name, groups)
    positive = kernels.matched_views(kernel, nodes.z.reshape(views.shape))
    return nodes, positive.reshape(nodes.z.shape[0], -1)


def _guided(
    guide: jax.Array | None,
    guide_limit: apart.Limit | None,
    views: jax.Array,
    dtype: Any,
    valid: jax.Array | None,
    axis_name: mesh.AxisName | None,
) -> apart.Guide | None:
    """The guide of views, with the limit of each."""
    if apart.absent(guide, guide_limit):
        return None
    assert guide is not None
    b, v, _ = views.shape
    if jnp.ndim(guide) == 2:
        _checks.embeddings("guide", guide, "b g")
        if guide_limit is None:
            raise ValueError(
                "guide_limit must be given with a guide of examples, in which views of "
                "one example are equal, got None; try `lambda own: 0.8`"
            )
        guide = jnp.repeat(guide[:, None], v, axis=1)
    _checks.embeddings("guide", guide, "b v g")
    if guide.shape[:2] != (b, v):
        raise ValueError(
            f"guide must have a row for each of the views {(b, v)}, or of the examples "
            f"{(b,)}, got {guide.shape}"
        )
    nodes = graphs.views(apart.constant(guide, dtype), valid, axis_name)
    similar = kernels.matched_views(apart.COSINE, nodes.z.reshape(guide.shape))
    limit = apart.limits(similar.min(axis=2), guide_limit)
    return apart.Guide((nodes,), limit.reshape(-1))
