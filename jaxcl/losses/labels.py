"""Losses of labelled embeddings, which may have several positives."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax


def _one(pair: pairwise.Pair) -> jax.Array:
    return jnp.ones_like(pair.logits)


def statistics(over: str = "candidates") -> tuple[pairwise.Reduction, ...]:
    """Asks for what `softmax.of_counted` needs to know.

    Args:
      over: "candidates" for each anchor, "anchors" for each candidate.

    Returns:
      Reductions, in the order of its arguments.
    """
    return (
        pairwise.Reduction("logsumexp", graphs.negatives, over=over),
        pairwise.Reduction("logsumexp", graphs.positives, over=over),
        pairwise.Reduction("mean", graphs.positives, over=over),
        pairwise.Reduction("sum", graphs.positives, _one, over=over),
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
    found = pairwise.reduce_pairs(
        nodes,
        kernel=kernels.cosine(temperature),
        reductions=statistics(),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
    )
    return jnp.where(nodes.valid, softmax.of_counted(*found), 0)


def uni_cl(
    images: jax.Array,
    texts: jax.Array,
    labels: jax.Array,
    *,
    temperature: ArrayLike = 0.07,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "gather",
    tile: int | None = None,
    impl: str = "auto",
) -> jax.Array:
    """Unified contrastive loss: `clip` in which all pairs of one label are positives.

        loss_i = (C(image i; texts) + C(text i; images)) / 2
        C(a; candidates) = log sum_j exp(s_aj) - mean_{j: label_j = label_a} s_aj
        s_ij = cos(image_i, text_j) / temperature

    With a label of its own for each pair it is `clip`; with captions or images that
    occur several times it has no false negatives.

    Args:
      images: embeddings [b, d]; any float dtype.
      texts: embeddings [b, d]; text i belongs to image i.
      labels: integers [b]; any values.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: pairs to keep [b].
      axis_name: mesh axes over which the pairs are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices, "gather" or "ring".
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "reference" (dense), or "auto", which is "tiled".

    Returns:
      Loss of each pair in nats, float32 [b] (float64 for float64 input); 0 where not
      valid. Collapsed embeddings give log(b).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if the shapes differ or are wrong, or temperature <= 0.

    Source:
      Unified Contrastive Learning in Image-Text-Label Space,
      https://arxiv.org/abs/2204.03610.

    >>> loss = uni_cl(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.array([0, 0, 1]))
    >>> print(loss.round(4))  # log(3)
    [1.0986 1.0986 1.0986]
    """
    _checks.paired("images", images, "texts", texts)
    _checks.labels("labels", labels, images.shape[0])
    image_nodes, text_nodes = graphs.pairs(images, texts, valid, axis_name, labels)
    found = pairwise.reduce_pairs(
        image_nodes,
        text_nodes,
        kernel=kernels.cosine(temperature),
        reductions=(*statistics(), *statistics(over="anchors")),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
    )
    to_texts, to_images = softmax.of_counted(*found[:4]), softmax.of_counted(*found[4:])
    return jnp.where(image_nodes.valid, (to_texts + to_images) / 2, 0)
