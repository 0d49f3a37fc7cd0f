"""Losses of augmented views: a view is an anchor, its siblings are its positives."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax

NEGATIVES = pairwise.Reduction("logsumexp", graphs.negatives)


def nt_xent(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.5,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
) -> jax.Array:
    """Normalised temperature-scaled cross entropy (NT-Xent), SimCLR's loss.

    Every view is an anchor. Its positives are the other views of its example, its
    candidates are all views but itself:

        loss_i = log sum_{j != i} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices, "gather" or "ring".
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

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
        valid=valid,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
    )


def kernel_info_nce(
    views: jax.Array,
    *,
    kernel: kernels.Kernel,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
) -> jax.Array:
    """Kernel-InfoNCE: `nt_xent` with any kernel in place of the cosine.

        loss_i = log sum_{j != i} k(z_i, z_j) - mean_{j in positives(i)} log k(z_i, z_j)

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      kernel: a log-kernel, such as `kernels.gaussian(0.5)`. Its numbers are
        differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices, "gather" or "ring".
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

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
    negative, positive, valid = _statistics(
        views, kernel, valid, axis_name, exchange, tile, impl
    )
    mean_positive = positive.mean(axis=1)
    if positive.shape[1] == 1:
        all_positive = mean_positive
    else:
        all_positive = jax.nn.logsumexp(positive, axis=1)
    loss = softmax.cross_entropy(negative, all_positive, mean_positive)
    return jnp.where(valid, loss, 0).reshape(views.shape[:2])


def dcl(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.1,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
) -> jax.Array:
    """Decoupled contrastive loss: `nt_xent` whose denominator has no positives.

        loss_i = log sum_{j in negatives(i)} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    Args:
      views: embeddings [b, v, d], v >= 2 views of each example; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices, "gather" or "ring".
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

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
    negative, positive, valid = _statistics(
        views, kernels.cosine(temperature), valid, axis_name, exchange, tile, impl
    )
    counts = valid & (negative > -jnp.inf)
    loss = jnp.where(counts, negative, 0) - positive.mean(axis=1)
    return jnp.where(counts, loss, 0).reshape(views.shape[:2])


def _statistics(
    views: jax.Array,
    kernel: kernels.Kernel,
    valid: jax.Array | None,
    axis_name: mesh.AxisName | None,
    exchange: str,
    tile: int | None,
    impl: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-sum-exp over negatives [b v], positive logits [b v, v - 1], valid [b v]."""
    _checks.embeddings("views", views, "b v d")
    if views.shape[1] < 2:
        raise ValueError(
            f"views must hold at least 2 views of each example, got {views.shape}"
        )
    nodes = graphs.views(views, valid, axis_name)
    (negative,) = pairwise.reduce_pairs(
        nodes,
        kernel=kernel,
        reductions=(NEGATIVES,),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
    )
    positive = kernels.matched_views(kernel, nodes.z.reshape(views.shape))
    return negative, positive.reshape(negative.size, -1), nodes.valid
