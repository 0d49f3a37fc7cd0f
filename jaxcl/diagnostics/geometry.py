"""How embeddings lie: norms, cosines, rank, and whether partners find each other."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.diagnostics import _rows

# Something of queries and of keys; one array serves both.
Both = jax.Array | tuple[jax.Array, jax.Array]

# Binary digits by which cosines are scaled; float32 ends at 2^127.
SHARPNESS = 60


def norm_cv(
    z: jax.Array,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> jax.Array:
    """Coefficient of variation of the norms: how thick the shell is.

        cv = std_i |z_i| / mean_i |z_i|,    std over n, not n - 1

    Args:
      z: embeddings [n, d]; any float dtype.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      A dimensionless scalar, float32 (float64 for float64 input). Normalized embeddings
      give 0, Gaussian ones `gaussian_norm_cv(d)`, about 1 / sqrt(2 d); NaN where all
      norms are 0, or nothing is valid.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong.

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012,
      equation 20.

    >>> print(norm_cv(jnp.array([[3.0, 0.0], [0.0, 1.0]])))
    0.5
    """
    x, keep = _rows.checked("z", z, valid)
    # The square of an embedding may lie outside of float32, and a sum of norms as well.
    x = x / _rows.largest(x, axis_name).max()
    norm = jnp.sum(x * kernels.unit(x), axis=1)
    mean = mesh.mean(norm, keep, axis_name)
    # Of the differences: a mean of squares minus the squared mean has no digits left
    # where the shell is thin.
    relative = norm / mean - 1
    cv = _root(mesh.mean(jnp.square(relative), keep, axis_name))
    return jnp.where(mean > 0, cv, jnp.nan)


def alignment_cosine(
    z1: jax.Array,
    z2: jax.Array,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> jax.Array:
    """Cosine of positive pairs.

        cos_i = z1_i . z2_i / (|z1_i| |z2_i|)

    Args:
      z1: embeddings [n, d]; any float dtype.
      z2: embeddings [n, d], row i the positive of row i.
      valid: pairs to keep [n].
      axis_name: for `jaxcl.sharded`, which gives it; nothing crosses devices here.

    Returns:
      Cosines, float32 [n] (float64 for float64 input); 0 where not valid, and for a
      zero vector.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong.

    >>> print(alignment_cosine(jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0]])))
    [0.6]
    """
    _checks.paired("z1", z1, "z2", z2)
    first, second = graphs.pairs(z1, z2, valid, axis_name)
    return kernels.matched(kernels.cosine(1.0), first.z, second.z)


def uniformity_cosine(
    z: jax.Array,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the cosine over all pairs of embeddings.

        mean, std of cos(z_i, z_j) over i != j

    Args:
      z: embeddings [n, d]; any float dtype.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      The mean and the standard deviation, float32 (float64 for float64 input).
      Directions uniform on the sphere give 0 and 1 / sqrt(d) in expectation; fewer than
      two embeddings NaN.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong.

    >>> mean, std = uniformity_cosine(jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
    >>> print(f"{mean:.4f} {std:.4f}")  # one pair of three is parallel
    0.3333 0.4714
    """
    _checks.embeddings("z", z, "n d")
    nodes = graphs.labelled(z, jnp.zeros(z.shape[0], int), valid, axis_name)
    unit = kernels.unit(nodes.z.astype(kernels.accumulator(nodes.z.dtype)))
    count = graphs.count_valid(nodes, axis_name).astype(unit.dtype)
    pairs = jnp.maximum(count * (count - 1), 1)
    # The mean of all cosines is that of the sum of all directions with itself. Around
    # it the squares are taken: far from it they would cancel.
    whole = jnp.square(mesh.total(unit.sum(axis=0), axis_name)).sum()
    center = (whole - mesh.total(jnp.square(unit).sum(), axis_name)) / pairs
    # Cosines are compared with each other: reduced precision would widen them.
    with jax.default_matmul_precision("highest"):
        first, second = pairwise.reduce_pairs(
            nodes,
            kernel=kernels.cosine(1.0),
            reductions=(
                pairwise.Reduction("mean", graphs.others, _deviation, (center,)),
                pairwise.Reduction("mean", graphs.others, _squared, (center,)),
            ),
            axis_name=axis_name,
            exchange=exchange,
            tile=tile,
            impl=impl,
            precision=precision,
        )
    shift = mesh.mean(first, nodes.valid, axis_name)
    variance = mesh.mean(second, nodes.valid, axis_name) - jnp.square(shift)
    std = _root(jnp.maximum(variance, 0))
    enough = count > 1
    return jnp.where(enough, center + shift, jnp.nan), jnp.where(enough, std, jnp.nan)


def _root(squared: jax.Array) -> jax.Array:
    """The square root, with gradient 0 at 0 and not infinity."""
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))


def _deviation(pair: pairwise.Pair, center: jax.Array) -> jax.Array:
    return pair.logits - center


def _squared(pair: pairwise.Pair, center: jax.Array) -> jax.Array:
    return jnp.square(pair.logits - center)


def effective_rank(
    z: jax.Array,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> jax.Array:
    """Effective rank: how many directions the embeddings use.

        exp(-sum_k p_k log p_k),    p = singular values of z / their sum

    The embeddings are taken as they are, not centered.

    Args:
      z: embeddings [n, d]; any float dtype.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      A number from 1 to min(n, d), float32 (float64 for float64 input). Collapsed
      embeddings give 1; NaN where all embeddings are 0. Its gradient leaves out
      directions whose singular value is 0 to rounding, and has no derivative itself.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong.

    Source:
      The effective rank: a measure of effective dimensionality, Roy and Vetterli,
      EUSIPCO 2007, definition 1.

    >>> print(f"{effective_rank(2.0 * jnp.eye(3)):.4f}")
    3.0000
    """
    x, _ = _rows.checked("z", z, valid)
    x = x / _rows.largest(x, axis_name).max()
    # The triangular factor has the singular values of z. Those of z^T z are squares,
    # in which small singular values are lost in rounding.
    factor = jnp.linalg.qr(lax.stop_gradient(x), mode="r")
    devices = mesh.size(axis_name)
    if devices > 1:
        # Summed with zeros elsewhere rather than gathered: then JAX knows that the
        # result is the same on all devices.
        mine = jnp.arange(devices) == mesh.position(axis_name)
        parts = jnp.where(mine[:, None, None], factor[None], 0)
        factor = mesh.total(parts, axis_name).reshape(-1, x.shape[1])
    _, values, axes = jnp.linalg.svd(factor, full_matrices=False)
    # A singular value is u^T z v. Its derivative holds u and v constant; that of the
    # factorizations divides by singular values, and by their differences.
    smallest = x.shape[1] * float(jnp.finfo(x.dtype).eps) * values[0]
    nonzero = values > smallest
    rotated = jnp.matmul(x, axes.T, precision="highest")
    left = lax.stop_gradient(rotated) / jnp.where(nonzero, values, jnp.inf)[None, :]
    moving = mesh.total((left * rotated).sum(axis=0), axis_name)
    values = values + moving - lax.stop_gradient(moving)
    share = values / values.sum()
    # The logarithm of a share of 0 would give NaN even to the gradient of the others.
    entropy = jax.scipy.special.entr(jnp.where(share == 0, 1, share)).sum()
    return jnp.exp(entropy)


def retrieval_accuracy(
    queries: jax.Array,
    keys: jax.Array,
    k: int = 1,
    *,
    groups: Both | None = None,
    valid: Both | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Retrieval accuracy, recall at k: how often a right key is among the k nearest.

        mean_i [ rank_i < k ],    rank_i as of `retrieval_ranks`

    For several k take `retrieval_ranks` and average its comparisons: one pass over the
    pairs serves all of them.

    Args:
      queries: embeddings [n, d]; any float dtype.
      keys: embeddings [m, d], compared by cosine.
      k: >= 1; an integer.
      groups: what is right, as in `retrieval_ranks`. None: key i for query i, m >= n.
      valid: queries and keys to keep, as in `retrieval_ranks`.
      axis_name: mesh axes over which all rows are sharded, inside `shard_map`.
      exchange: how keys travel between devices: "gather", "ring", or "auto", which
        gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      A share of the valid queries from 0 to 1, float32 (float64 for float64 input); 0
      where nothing is valid. Chance is k / m with one right key. A query that is not a
      number, or has no right key, is not found for any k.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, there are fewer keys than queries and no groups,
        or k < 1.

    >>> queries = jnp.array([[1.0, 0.1], [0.3, 1.0], [1.0, 0.4]])
    >>> keys = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 5.0]])
    >>> print(f"{retrieval_accuracy(queries, keys):.4f}")
    0.3333
    >>> groups = jnp.array([0, 1, 0]), jnp.array([0, 1, 1])
    >>> print(retrieval_accuracy(queries, keys, groups=groups))
    1.0
    """
    k = _checks.count("k", k, 1)
    ranks = retrieval_ranks(
        queries,
        keys,
        groups=groups,
        valid=valid,
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    # At most all keys but one are ahead; a larger k need not fit into 32 bits.
    k = min(k, keys.shape[0] * mesh.size(axis_name))
    return mesh.mean((ranks < k).astype(ranks.dtype), _of_both(valid)[0], axis_name)


def retrieval_ranks(
    queries: jax.Array,
    keys: jax.Array,
    *,
    groups: Both | None = None,
    valid: Both | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Rank of each query's best right key: how many wrong keys are ahead of it.

        rank_i = #{wrong j: cos(q_i, k_j) >= max_{right l} cos(q_i, k_l)}

    Recall at any k is a mean of `ranks < k`, the mean reciprocal rank one of
    `1 / (1 + ranks)`. A wrong key as similar as the best right one counts as ahead of
    it, to 8 units of rounding of a cosine, 1e-6 in float32: collapsed embeddings find
    nothing. Right keys are never ahead of each other. Nothing of size n x m is kept.

    Args:
      queries: embeddings [n, d]; any float dtype.
      keys: embeddings [m, d].
      groups: integers of queries [n] and of keys [m], a pair of arrays, or one array
        that serves both. Right are all keys of the query's group, such as the five
        captions of an image. None: key i alone is right for query i, m >= n.
      valid: queries and keys to keep, [n] and [m], with groups a pair or one array that
        serves both. Without, [n]: it masks query i and key i, further keys are valid.
      axis_name: mesh axes over which all rows are sharded, inside `shard_map`.
      exchange: how keys travel between devices: "gather", "ring", or "auto", which
        gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Ranks [n], from 0, whole numbers in float32 (float64 for float64 input); infinite
      where nothing can be found: for a query that is not valid or not a number, or that
      has no valid right key.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or there are fewer keys than queries and no
        groups.

    >>> texts = jnp.array([[1.0, 0.1], [1.0, 0.3], [0.2, 1.0], [1.0, 0.9]])
    >>> images, of_text = jnp.eye(2), jnp.array([0, 0, 1, 1])
    >>> print(retrieval_ranks(texts, images, groups=(of_text, jnp.arange(2))))
    [0. 0. 0. 1.]
    """
    query, key, own = _asked(queries, keys, groups, valid, axis_name)

    def ask(anchors: graphs.Nodes, *asked: Any, kernel: kernels.Kernel) -> Any:
        # In reduced precision equal keys would lie apart.
        with jax.default_matmul_precision("highest"):
            (result,) = pairwise.reduce_pairs(
                anchors,
                key,
                kernel=kernel,
                reductions=(pairwise.Reduction(*asked),),
                axis_name=axis_name,
                exchange=exchange,
                tile=tile,
                impl=impl,
                precision=precision,
            )
        return result

    if own is None:
        # A log-sum-exp this sharp is a maximum: of two different cosines the smaller
        # one has no weight, and equal ones add less than rounding. A power of two
        # scales exactly.
        sharp = kernels.cosine(2.0**-SHARPNESS)
        own = ask(query, "logsumexp", graphs.positives, kernel=sharp) / 2.0**SHARPNESS
    # How far two sums of the same rounded products of unit vectors may lie apart, added
    # in different orders.
    limit = own - 8 * float(jnp.finfo(own.dtype).eps)
    ahead = ask(
        query._replace(extra=limit),
        "sum",
        graphs.negatives,
        _not_below,
        kernel=kernels.cosine(1.0),
    )
    return jnp.where(query.valid & jnp.isfinite(own), ahead, jnp.inf)


def _of_both(given: Any) -> tuple[Any, Any]:
    """What is given for queries and keys, where one array serves both."""
    return given if isinstance(given, tuple) else (given, given)


def _asked(
    queries: jax.Array,
    keys: jax.Array,
    groups: Both | None,
    valid: Any,
    axis_name: mesh.AxisName | None,
) -> tuple[graphs.Nodes, graphs.Nodes, jax.Array | None]:
    """Queries and keys; without groups also the cosine of each query and its key."""
    _checks.embeddings("queries", queries, "n d")
    _checks.embeddings("keys", keys, "m d")
    _checks.same_width("queries", queries, "keys", keys)
    n, m = queries.shape[0], keys.shape[0]
    if groups is not None:
        query, key = (
            _labelled(*each, axis_name)
            for each in zip(
                ("queries", "keys"),
                (queries, keys),
                _of_both(groups),
                _of_both(valid),
                strict=True,
            )
        )
        # No key is the same node as a query.
        return query, key._replace(index=~key.index), None
    if m < n:
        raise ValueError(
            "keys must have at least as many rows as queries, of which key i belongs "
            f"to query i, got {m} keys for {n} queries; say by groups which are right"
        )
    query, key = graphs.keyed(queries, keys, None, valid, axis_name)
    first = key.z
    if m > n:
        # Then the own key may live on another device.
        first = mesh.own_rows(mesh.all_rows(key.z, axis_name), n, axis_name)
    return query, key, kernels.matched(kernels.cosine(1.0), query.z, first)


def _labelled(
    name: str,
    z: jax.Array,
    groups: jax.Array,
    valid: jax.Array | None,
    axis_name: mesh.AxisName | None,
) -> graphs.Nodes:
    _checks.labels(f"groups of {name}", groups, z.shape[0])
    _checks.mask(f"valid of {name}", valid, z.shape[0])
    return graphs.labelled(z, groups, valid, axis_name)


def _not_below(pair: pairwise.Pair) -> jax.Array:
    # NaN is not below anything: a query or key that is none counts against.
    return 1 - (pair.logits < pair.anchor).astype(pair.logits.dtype)
