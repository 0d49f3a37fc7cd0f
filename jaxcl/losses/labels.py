"""Losses of labelled embeddings."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax


def _one(pair: pairwise.Pair) -> jax.Array:
    return jnp.ones_like(pair.logits)


STATISTICS = (
    pairwise.Reduction("logsumexp", graphs.negatives),
    pairwise.Reduction("logsumexp", graphs.positives),
    pairwise.Reduction("mean", graphs.positives),
    pairwise.Reduction("sum", graphs.positives, _one),
)


def sup_con(
    z: jax.Array,
    labels: jax.Array,
    *,
    temperature: ArrayLike = 0.1,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
) -> jax.Array:
    """Supervised contrastive loss: the positives are all others of the anchor's label.

        loss_i = log sum_{j != i} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    Args:
      z: embeddings [n, d]; any float dtype. Views of one example are rows of one label.
      labels: integers [n]; any values.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: rows to keep [n]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices, "gather" or "ring".
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

    Returns:
      Loss of each anchor in nats, float32 [n] (float64 for float64 input); 0 where not
      valid, and for an anchor without positives. `jaxcl.mean(loss,
      valid=graphs.has_positive(graphs.labelled(z, labels)))` leaves such anchors out.
      Collapsed embeddings give log(n - 1).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or temperature <= 0.

    Source:
      Supervised Contrastive Learning, https://arxiv.org/abs/2004.11362, equation 2.

    >>> loss = sup_con(jnp.ones((4, 3)), jnp.array([0, 0, 0, 1]))
    >>> print(loss.round(4))  # log(3); the last has no positive
    [1.0986 1.0986 1.0986 0.    ]
    """
    _checks.embeddings("z", z, "n d")
    nodes = graphs.labelled(z, labels, valid, axis_name)
    negative, positive, mean_positive, count = pairwise.reduce_pairs(
        nodes,
        kernel=kernels.cosine(temperature),
        reductions=STATISTICS,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
    )
    # The log-sum-exp of a single positive is that positive. Said so, their difference
    # is 0 exactly, where rounding would outweigh a small gradient.
    positive = jnp.where(count > 1, positive, mean_positive)
    loss = softmax.cross_entropy(negative, positive, mean_positive)
    return jnp.where(nodes.valid & (count > 0), loss, 0)
