"""Losses of labelled embeddings, which may have several positives."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax


def _one(pair: pairwise.Pair) -> jax.Array:
    return jnp.ones_like(pair.logits)


def _against_negatives(pair: pairwise.Pair) -> jax.Array:
    return softmax.softplus(pair.anchor - pair.logits)


EACH_POSITIVE = pairwise.Reduction("mean", graphs.positives, _against_negatives)


def statistics(
    mean_inside: bool, over: str = "candidates"
) -> tuple[pairwise.Reduction, ...]:
    """Asks for what `softmax.of_counted` needs to know.

    Args:
      mean_inside: whether the mean over positives stands inside the logarithm.
      over: "candidates" for each anchor, "anchors" for each candidate.

    Returns:
      Reductions, in the order of its arguments.
    """
    _checks.flag("mean_inside", mean_inside)
    asked = (
        pairwise.Reduction("logsumexp", graphs.negatives, over=over),
        pairwise.Reduction("logsumexp", graphs.positives, over=over),
        pairwise.Reduction("sum", graphs.positives, _one, over=over),
    )
    mean = pairwise.Reduction("mean", graphs.positives, over=over)
    return asked if mean_inside else (*asked, mean)


def sup_con(
    z: jax.Array,
    labels: jax.Array,
    *,
    negatives: jax.Array | None = None,
    negative_labels: jax.Array | None = None,
    temperature: ArrayLike = 0.1,
    kernel: kernels.Kernel | None = None,
    mean_inside: bool = False,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Supervised contrastive loss: the positives are all others of the anchor's label.

        loss_i = log sum_{j != i} exp(s_ij) - mean_{j in positives(i)} s_ij
        s_ij   = cos(z_i, z_j) / temperature

    over all rows and, if there is one, a queue, whose entries are no anchors. With the
    mean over positives inside the logarithm:

        loss_i = log sum_{j != i} exp(s_ij) - log mean_{j in positives(i)} exp(s_ij)

    Args:
      z: embeddings [n, d]; any float dtype. Views of one example are rows of one label.
      labels: integers [n]; any values.
      negatives: further candidates [k, d], such as embeddings of earlier batches.
      negative_labels: integers [k]: entries of the anchor's label are positives, all
        others negatives. None: the entries belong to nobody.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature. Positives are compared in tiles:
        for powers below 2 see `kernels.exponential` on nearly equal embeddings.
      mean_inside: whether the mean over positives stands inside the logarithm. Then the
        nearest of an anchor's positives gets most of the gradient; with it outside each
        gets its share. The paper found outside better.
      valid: rows to keep [n]; the others are neither anchors nor candidates. The queue
        is always valid.
      axis_name: mesh axes over which rows and queue are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each anchor in nats, float32 [n] (float64 for float64 input); 0 where not
      valid, and for an anchor without positives. `jaxcl.mean(loss,
      valid=graphs.has_positive(graphs.labelled(z, labels)))` leaves such anchors out;
      with a queue see `graphs.queued`. Collapsed embeddings give log(n - 1 + k).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, temperature <= 0, or there are labels of a queue
        without one.

    Source:
      Supervised Contrastive Learning, https://arxiv.org/abs/2004.11362, equation 2;
      `mean_inside`: equation 3. A queue with labels: Cross-Batch Memory,
      https://arxiv.org/abs/1912.06798.

    >>> loss = sup_con(jnp.ones((4, 3)), jnp.array([0, 0, 0, 1]))
    >>> print(loss.round(4))  # log(3); the last has no positive
    [1.0986 1.0986 1.0986 0.    ]
    """
    anchors, candidates = _nodes(
        z, labels, negatives, negative_labels, valid, axis_name
    )
    found = pairwise.reduce_pairs(
        anchors,
        candidates,
        kernel=kernels.cosine(temperature) if kernel is None else kernel,
        reductions=statistics(mean_inside),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    return jnp.where(anchors.valid, softmax.of_counted(*found), 0)


def sincere(
    z: jax.Array,
    labels: jax.Array,
    *,
    negatives: jax.Array | None = None,
    negative_labels: jax.Array | None = None,
    temperature: ArrayLike = 0.1,
    kernel: kernels.Kernel | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """SINCERE: `sup_con` in which positives do not compete with each other.

        loss_i = mean_{p in positives(i)} softplus(N_i - s_ip)
        N_i    = log sum_{j in negatives(i)} exp(s_ij)
        s_ij   = cos(z_i, z_j) / temperature

    Each positive stands against the negatives alone, so nothing pushes rows of one
    label apart. With one positive for each anchor it is `sup_con`.

    Args:
      z: embeddings [n, d]; any float dtype. Views of one example are rows of one label.
      labels: integers [n]; any values.
      negatives: further candidates [k, d], such as embeddings of earlier batches.
      negative_labels: integers [k]: entries of the anchor's label are positives, all
        others negatives. None: the entries belong to nobody.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature. Positives are compared in tiles:
        for powers below 2 see `kernels.exponential` on nearly equal embeddings.
      valid: rows to keep [n]; the others are neither anchors nor candidates. The queue
        is always valid.
      axis_name: mesh axes over which rows and queue are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each anchor in nats, float32 [n] (float64 for float64 input); 0 where not
      valid, for an anchor without positives, and without negatives. Collapsed
      embeddings give log(1 + number of negatives).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, temperature <= 0, or there are labels of a queue
        without one.

    Source:
      SINCERE: Supervised Information Noise-Contrastive Estimation REvisited,
      https://arxiv.org/abs/2309.14277.

    >>> loss = sincere(jnp.ones((5, 3)), jnp.array([0, 0, 0, 1, 2]))
    >>> print(loss.round(4))  # log(1 + 2); the last two have no positive
    [1.0986 1.0986 1.0986 0.     0.    ]
    """
    anchors, candidates = _nodes(
        z, labels, negatives, negative_labels, valid, axis_name
    )
    ask = functools.partial(
        pairwise.reduce_pairs,
        candidates=candidates,
        kernel=kernels.cosine(temperature) if kernel is None else kernel,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    (negative,) = ask(anchors, reductions=(softmax.NEGATIVES,))
    counts, negative = softmax.with_negatives(negative, anchors.valid)
    (loss,) = ask(anchors._replace(extra=negative), reductions=(EACH_POSITIVE,))
    return jnp.where(counts, loss, 0)


def _nodes(
    z: jax.Array,
    labels: jax.Array,
    negatives: jax.Array | None,
    negative_labels: jax.Array | None,
    valid: jax.Array | None,
    axis_name: mesh.AxisName | None,
) -> tuple[graphs.Nodes, graphs.Nodes | None]:
    """The anchors, and their candidates where these are more than they."""
    if negatives is not None:
        return graphs.queued(z, labels, negatives, negative_labels, valid, axis_name)
    if negative_labels is not None:
        raise ValueError(
            "negatives must be given with negative_labels, got labels of no queue"
        )
    return graphs.labelled(z, labels, valid, axis_name), None


def uni_cl(
    images: jax.Array,
    texts: jax.Array,
    labels: jax.Array,
    *,
    temperature: ArrayLike = 0.07,
    kernel: kernels.Kernel | None = None,
    mean_inside: bool = False,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Unified contrastive loss: `clip` in which all pairs of one label are positives.

        loss_i = (C(image i; texts) + C(text i; images)) / 2
        C(a; candidates) = log sum_j exp(s_aj) - mean_{j: label_j = label_a} s_aj
        s_ij = cos(image_i, text_j) / temperature

    With a label of its own for each pair it is `clip`; with captions or images that
    occur several times it has no false negatives. With the mean inside the logarithm,
    log mean_{j: label_j = label_a} exp(s_aj) is subtracted in place of the mean.

    Args:
      images: embeddings [b, d]; any float dtype.
      texts: embeddings [b, d]; text i belongs to image i.
      labels: integers [b]; any values.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature. Positives are compared in tiles:
        for powers below 2 see `kernels.exponential` on nearly equal embeddings.
      mean_inside: whether the mean over positives stands inside the logarithm, so that
        the nearest of them gets most of the gradient.
      valid: pairs to keep [b].
      axis_name: mesh axes over which the pairs are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

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
    asked = statistics(mean_inside), statistics(mean_inside, over="anchors")
    image_nodes, text_nodes = graphs.pairs(images, texts, valid, axis_name, labels)
    found = pairwise.reduce_pairs(
        image_nodes,
        text_nodes,
        kernel=kernels.cosine(temperature) if kernel is None else kernel,
        reductions=(*asked[0], *asked[1]),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    half = len(asked[0])
    to_texts = softmax.of_counted(*found[:half])
    to_images = softmax.of_counted(*found[half:])
    return jnp.where(image_nodes.valid, (to_texts + to_images) / 2, 0)
