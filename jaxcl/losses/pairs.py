"""Losses of two sets of embeddings: queries with keys, images with texts, two views."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import apart, softmax

MEAN_NEGATIVE = pairwise.Reduction("mean", graphs.negatives)


def info_nce(
    queries: jax.Array,
    keys: jax.Array,
    *,
    negatives: jax.Array | None = None,
    hard_negatives: jax.Array | None = None,
    hard_negatives_valid: jax.Array | None = None,
    temperature: ArrayLike = 0.1,
    kernel: kernels.Kernel | None = None,
    decoupled: bool = False,
    groups: jax.Array | None = None,
    guide: tuple[jax.Array, ...] | None = None,
    guide_limit: apart.Limit | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """InfoNCE: tells the key of each query from all other keys.

    Key i is the positive of query i. Negatives are all other keys, the queue, and hard
    negatives of query i, which no other query sees:

        loss_i = log sum_j exp(s_ij) - s_ii
        s_ij   = cos(query_i, candidate_j) / temperature

    with the sum over all candidates or, if decoupled, over negatives only, j != i. A
    guide, the embeddings of another model, drops false negatives: with g_ij its cosine
    of query i and candidate j, those with g_ij > limit(g_ii).

    Args:
      queries: embeddings [n, d]; any float dtype.
      keys: embeddings [m, d], m >= n.
      negatives: embeddings [k, d] that belong to nobody, such as a MoCo queue. Inside
        `shard_map`, append local negatives here, not to `keys`. MoCo contrasts with the
        queue alone: `groups=jnp.zeros(n, int)` leaves the other keys out.
      hard_negatives: embeddings [n, h, d], h of each query alone. For all queries to
        see them, append `hard_negatives.reshape(-1, d)` to `negatives`.
      hard_negatives_valid: which of them there are [n, h], where queries have fewer.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature.
      decoupled: whether the positive leaves the sum, as in `dcl`: what pulls a pair
        together then does not weaken as it succeeds.
      groups: integers [n] of query i and key i; keys of other rows with the same number
        are not negatives, nor positives.
      guide: second embeddings of queries [n, g], keys [m, g] and, where these are
        given, of negatives [k, g] and of hard negatives [n, h, g], in this order;
        constants.
      guide_limit: how similar a negative may be in the guide: a function of the cosines
        [n] of query and key there. None: as similar as the key.
        `lambda own: own - 0.05` leaves a margin, `lambda own: 0.95 * own` a relative
        one, and `lambda own: 0.8` is a threshold.
      valid: masks query i and key i [n]; further keys are always valid.
      axis_name: mesh axes over which all rows are sharded, inside `shard_map`. Row i
        means row i of the global array.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each query in nats, float32 [n] (float64 for float64 input); 0 where not
      valid. Collapsed embeddings give log(m + k + h). If decoupled it may be negative,
      is 0 without negatives, and log(m - 1 + k + h) for collapsed embeddings.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if there are fewer keys than queries, a shape is wrong, or
        temperature <= 0.

    Source:
      CPC, https://arxiv.org/abs/1807.03748, equation 4; with a queue: MoCo,
      https://arxiv.org/abs/1911.05722, equation 1; decoupled: Decoupled Contrastive
      Learning, https://arxiv.org/abs/2110.06848, equation 5; guide: GISTEmbed,
      https://arxiv.org/abs/2402.16829; its limits: NV-Retriever,
      https://arxiv.org/abs/2407.15831.

    >>> print(info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0))  # log(1 + 1 / e)
    [0.3132617 0.3132617]
    """
    _checks.flag("decoupled", decoupled)
    kernel = kernels.cosine(temperature) if kernel is None else kernel
    anchors, candidates = graphs.keyed(
        queries, keys, negatives, valid, axis_name, groups
    )
    hard = apart.hard_of(anchors, hard_negatives, hard_negatives_valid)
    n, m = queries.shape[0], keys.shape[0]
    positive = kernels.matched(kernel, anchors.z, _own(candidates, n, m, axis_name))
    of = apart.checked(
        guide,
        guide_limit,
        positive.dtype,
        queries=queries,
        keys=keys,
        negatives=negatives,
        hard_negatives=hard_negatives,
    )
    guided = None
    if of is not None:
        given = of["queries"], of["keys"], of["negatives"]
        nodes = graphs.keyed(*given, valid, axis_name)
        similar = kernels.matched(
            apart.COSINE, nodes[0].z, _own(nodes[1], n, m, axis_name)
        )
        limit = apart.limits(similar, guide_limit)
        guided = apart.Guide(nodes, limit, of["hard_negatives"])
    (negative,) = apart.negatives(
        kernel,
        (anchors, candidates),
        guide=guided,
        hard=hard,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    if decoupled:
        counts, negative = softmax.with_negatives(negative, anchors.valid)
        return jnp.where(counts, negative - positive, 0)
    loss = softmax.cross_entropy(negative, positive)
    return jnp.where(anchors.valid, loss, 0)


def _own(
    candidates: graphs.Nodes, n: int, m: int, axis_name: mesh.AxisName | None
) -> jax.Array:
    """The keys of this device's n queries, of m keys per device."""
    own = candidates.z[:m]
    if m == n:
        return own
    # Key i may live on another device than query i.
    return mesh.own_rows(mesh.all_rows(own, axis_name), n, axis_name)


def clip(
    images: jax.Array,
    texts: jax.Array,
    *,
    hard_negatives: jax.Array | None = None,
    hard_negatives_valid: jax.Array | None = None,
    temperature: ArrayLike = 0.07,
    kernel: kernels.Kernel | None = None,
    groups: jax.Array | None = None,
    guide: tuple[jax.Array, ...] | None = None,
    guide_limit: apart.Limit | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """CLIP's loss: InfoNCE from images to texts and from texts to images, averaged.

        loss_i = (log sum_j exp(s_ij) + log sum_j exp(s_ji)) / 2 - s_ii
        s_ij   = cos(image_i, text_j) / temperature

    Both directions come from one pass over the pairs. A guide drops false negatives as
    in `info_nce`, in each direction by the anchor's limit: with g_ij its cosine of
    image i and text j, text j is no negative of image i if g_ij > limit(g_ii), and
    image i none of text j if g_ij > limit(g_jj).

    Args:
      images: embeddings [b, d]; any float dtype.
      texts: embeddings [b, d]; text i belongs to image i.
      hard_negatives: texts [b, h, d], h that only the sum of their image sees.
      hard_negatives_valid: which of them there are [b, h], where images have fewer.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      kernel: replaces the cosine and its temperature.
      groups: integers [b]; images and texts of different rows with one number are not
        negatives of each other, nor positives (see `uni_cl` for that).
      guide: second embeddings of images [b, g], texts [b, g] and, where they are given,
        of hard negatives [b, h, g]; constants.
      guide_limit: how similar a negative may be in the guide: a function of the cosines
        [b] of image and text there. None: as similar as the partner.
        `lambda own: own - 0.05` leaves a margin, `lambda own: 0.95 * own` a relative
        one, and `lambda own: 0.8` is a threshold.
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
      valid. Collapsed embeddings give log(b); with hard negatives the mean of that and
      log(b + h).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if the shapes differ or are wrong, or temperature <= 0.

    Source:
      CLIP, https://arxiv.org/abs/2103.00020, figure 3; guide: GISTEmbed,
      https://arxiv.org/abs/2402.16829; its limits: NV-Retriever,
      https://arxiv.org/abs/2407.15831.

    >>> print(clip(jnp.eye(2), jnp.eye(2), temperature=1.0))  # log(1 + 1 / e)
    [0.3132617 0.3132617]
    """
    _checks.paired("images", images, "texts", texts)
    kernel = kernels.cosine(temperature) if kernel is None else kernel
    nodes = graphs.pairs(images, texts, valid, axis_name, groups)
    hard = apart.hard_of(nodes[0], hard_negatives, hard_negatives_valid)
    positive = kernels.matched(kernel, nodes[0].z, nodes[1].z)
    of = apart.checked(
        guide,
        guide_limit,
        positive.dtype,
        images=images,
        texts=texts,
        hard_negatives=hard_negatives,
    )
    guided = None
    if of is not None:
        seconds = graphs.pairs(of["images"], of["texts"], valid, axis_name)
        similar = kernels.matched(apart.COSINE, seconds[0].z, seconds[1].z)
        limit = apart.limits(similar, guide_limit)
        guided = apart.Guide(seconds, limit, of["hard_negatives"])
    of_image, of_text = apart.negatives(
        kernel,
        nodes,
        guide=guided,
        hard=hard,
        both=True,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    to_text = softmax.cross_entropy(of_image, positive)
    to_image = softmax.cross_entropy(of_text, positive)
    return jnp.where(nodes[0].valid, (to_text + to_image) / 2, 0)


def siglip(
    images: jax.Array,
    texts: jax.Array,
    *,
    temperature: ArrayLike = 0.1,
    bias: ArrayLike = -10.0,
    kernel: kernels.Kernel | None = None,
    groups: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """SigLIP's loss: each pair on its own is classified as matching or not.

        loss_i = softplus(-(s_ii + bias)) + sum_{j != i} softplus(s_ij + bias)
        s_ij   = cos(image_i, text_j) / temperature

    Args:
      images: embeddings [b, d]; any float dtype.
      texts: embeddings [b, d]; text i belongs to image i.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      bias: added to each logit; -10 begins where almost nothing matches.
        Differentiable.
      kernel: replaces the cosine and its temperature; the bias stays.
      groups: integers [b]; images and texts of different rows with one number are not
        negatives of each other, nor positives.
      valid: pairs to keep [b].
      axis_name: mesh axes over which the pairs are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each image in nats, float32 [b] (float64 for float64 input): its sum over
      candidates, which grows with b; 0 where not valid. Collapsed embeddings give
      b log(2) at the defaults.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if the shapes differ or are wrong, or temperature <= 0.

    Source:
      SigLIP, https://arxiv.org/abs/2303.15343, section 3.2.

    >>> x = jnp.eye(2)
    >>> print(siglip(x, x, temperature=1.0, bias=0.0).round(4))
    [1.0064 1.0064]
    """
    _checks.paired("images", images, "texts", texts)
    _checks.scalar("bias", bias)
    kernel = kernels.cosine(temperature) if kernel is None else kernel
    image_nodes, text_nodes = graphs.pairs(images, texts, valid, axis_name, groups)
    (others,) = pairwise.reduce_pairs(
        image_nodes,
        text_nodes,
        kernel=kernel,
        reductions=(pairwise.Reduction("sum", graphs.negatives, _match, (bias,)),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    positive = kernels.matched(kernel, image_nodes.z, text_nodes.z)
    bias = kernels.cast_leaves(bias, positive.dtype)
    return jnp.where(image_nodes.valid, others + jax.nn.softplus(-positive - bias), 0)


def _match(pair: pairwise.Pair, bias: jax.Array) -> jax.Array:
    return softmax.softplus(pair.logits + bias)


def sc_info_nce(
    z1: jax.Array,
    z2: jax.Array,
    *,
    temperature: ArrayLike = 0.15,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 0.0,
    variant: str = "constant",
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """SC-InfoNCE: an InfoNCE whose convergence target is scaled and shifted.

    With N_i the log-sum-exp over the negatives j != i, S_i their mean, sg the
    stop-gradient and s_ij = cos(z1_i, z2_j) / temperature:

        "constant":  loss_i = N_i - alpha s_ii + beta S_i
        "full":      loss_i = -log p_i - (sg(p_i) - 1 + alpha) s_ii + beta S_i
        "official":  loss_i = -log o_i - (sg(o_i) - 1 + alpha) s_ii + beta S_i

    where p_i = sigmoid(s_ii - N_i) is the softmax over all candidates and
    o_i = exp(s_ii - N_i) its odds. "constant" is the default because it is a true
    objective, convex in the logits, whose optimum is the scaled target exactly when
    alpha - beta = 1. The values of "full" and "official" are no measure of progress,
    since part of them is held constant, and the odds of "official" grow like
    exp(1 / temperature) / n (held below exp(60)): avoid it below a temperature of 0.1.

    Args:
      z1: embeddings of the first view [b, d], the anchors; any float dtype.
      z2: embeddings of the second view [b, d], the candidates.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      alpha: scale of the target; believed to be the paper's delta. Differentiable.
      beta: bias of the target; believed to be the paper's gamma. Differentiable.
      variant: "constant", "full" or "official"; all three occur in the authors' code.
      valid: examples to keep [b].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each row in nats, float32 [b] (float64 for float64 input); 0 where not
      valid, and without negatives. Not symmetric in z1 and z2. With "constant",
      collapsed embeddings give log(b - 1) + (1 - alpha + beta) / temperature.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if the shapes differ or are wrong, temperature <= 0, or the variant is
        unknown.

    Source:
      SC-InfoNCE, https://arxiv.org/abs/2511.12180, as read from the authors' code.

    >>> print(sc_info_nce(jnp.eye(2), jnp.eye(2), temperature=0.5))  # 0 - 1 / 0.5
    [-2. -2.]
    """
    _checks.choice("variant", variant, ("constant", "full", "official"))
    _checks.paired("z1", z1, "z2", z2)
    for name, value in (("alpha", alpha), ("beta", beta)):
        _checks.scalar(name, value)
    kernel = kernels.cosine(temperature)
    first, second = graphs.pairs(z1, z2, valid, axis_name)
    negative, mean_negative = pairwise.reduce_pairs(
        first,
        second,
        kernel=kernel,
        reductions=(softmax.NEGATIVES, MEAN_NEGATIVE),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    positive = kernels.matched(kernel, first.z, second.z)
    alpha, beta = kernels.cast_leaves((alpha, beta), positive.dtype)
    counts, negative = softmax.with_negatives(negative, first.valid)
    if variant == "constant":
        loss = negative - alpha * positive
    elif variant == "full":
        held = lax.stop_gradient(jax.nn.sigmoid(positive - negative))
        entropy = softmax.cross_entropy(negative, positive)
        loss = entropy - (held - 1 + alpha) * positive
    else:
        # Held below exp(60): odds beyond what float32 can hold are no number at all.
        odds = jnp.exp(jnp.minimum(positive - negative, 60))
        held = lax.stop_gradient(odds)
        loss = negative - positive - (held - 1 + alpha) * positive
    return jnp.where(counts, loss + beta * mean_negative, 0)
