"""How embeddings lie: alignment, uniformity, and a penalty on norm and entropy."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax


def alignment(
    views: jax.Array,
    power: float = 2,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> jax.Array:
    """Alignment: how far the two views of an example lie apart.

        loss_i = |x_i - y_i|^power,    x and y normalized

    Args:
      views: embeddings [b, 2, d]; any float dtype.
      power: > 0; a Python number. Below 2 the gradient at coincidence is 0.
      valid: examples to keep [b].
      axis_name: for `jaxcl.sharded`, which gives it; nothing crosses devices here.

    Returns:
      Loss of each example, float32 [b] (float64 for float64 input), in units of
      distance^power; 0 where not valid. Collapsed embeddings give 0, opposite ones
      2^power.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, 2, d], or power <= 0.

    Source:
      Understanding Contrastive Representation Learning through Alignment and Uniformity
      on the Hypersphere, https://arxiv.org/abs/2005.10242, section 4.1.1.

    >>> print(alignment(jnp.array([[[1.0, 0.0], [0.0, 1.0]]])))
    [2.]
    """
    kernel = kernels.exponential(power, 1.0)
    x, y = graphs.two_views(views, valid, axis_name)
    return jnp.where(x.valid, -kernels.matched(kernel, x.z, y.z), 0)


def uniformity(
    z: jax.Array,
    t: ArrayLike = 2.0,
    *,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Uniformity: log of the mean Gaussian similarity to all other embeddings.

        loss_i = log mean_{j != i} exp(-t |z_i - z_j|^2),    z normalized

    The scalar that is usually published is the log of the mean of exp over anchors:
    `jax.nn.logsumexp(loss) - log(n)`.

    Args:
      z: embeddings [n, d]; any float dtype.
      t: inverse squared length, > 0. Multiplies; larger is sharper. Differentiable.
      valid: rows to keep [n]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each anchor in nats, float32 [n] (float64 for float64 input), <= 0; 0
      where not valid, and without others. Collapsed embeddings give 0.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if z is not [n, d], or t <= 0.

    Source:
      Understanding Contrastive Representation Learning through Alignment and Uniformity
      on the Hypersphere, https://arxiv.org/abs/2005.10242, section 4.1.2.

    >>> print(uniformity(jnp.eye(3)))
    [-4. -4. -4.]
    """
    _checks.embeddings("z", z, "n d")
    _checks.positive("t", t)
    nodes = graphs.labelled(z, jnp.zeros(z.shape[0], int), valid, axis_name)
    (log_sum,) = pairwise.reduce_pairs(
        nodes,
        kernel=kernels.gaussian(1 / t),
        reductions=(pairwise.Reduction("logsumexp", graphs.others),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    counts, log_sum = softmax.with_negatives(log_sum, nodes.valid)
    others = graphs.count_valid(nodes, axis_name).astype(log_sum.dtype) - 1
    return jnp.where(counts, log_sum - jnp.log(jnp.maximum(others, 1)), 0)


def norm_entropy_penalty(
    z: jax.Array,
    *,
    scale: ArrayLike,
    estimator: str = "gaussian_logdet",
    ridge: ArrayLike = 1e-4,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Pins the radius of embeddings and spreads them: minus entropy plus squared norm.

        penalty = -H(z) + scale mean_i |z_i|^2

    over the distribution of z as given, not normalized. Its smallest value belongs to a
    Gaussian of variance 1 / (2 scale) in each direction: scale = 1/2 pins the radius at
    sqrt(d), scale = d / 2 at 1. The entropy H is estimated by

        "gaussian_logdet"  log det(2 pi e (S + ridge trace(S) / d)) / 2 with the
                           centered covariance S: an upper bound of H
        "kde_loo"          -mean_i log of a Gaussian density estimate at z_i from all
                           others, of bandwidth sigma (4 / ((d + 2) n))^(1 / (d + 4)),
                           sigma^2 = trace(S) / d, held constant; too high in high d
        "polar"            that of the radius r alone, with log r taken as Gaussian:
                           d mean log r + log(2 pi e (var(log r) + ridge / (2 d))) / 2

    Args:
      z: embeddings [n, d]; any float dtype.
      scale: lambda, in units of inverse squared length, > 0. Differentiable.
      estimator: "gaussian_logdet", "kde_loo" or "polar".
      ridge: of the estimators above, dimensionless, >= 0; unused by "kde_loo". With
        n <= d or a collapsed z, only a ridge > 0 keeps the value finite. Variances
        below 1e-12 count as 1e-12.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      A scalar in nats, float32 (float64 for float64 input), the same on all devices; 0
      where nothing is valid.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if z is not [n, d], scale <= 0, or the estimator is unknown.

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012, for the
      functional; it names no estimator, so these are ours.

    >>> z = jnp.array([[1.0], [-1.0]])
    >>> value = norm_entropy_penalty(z, scale=0.5, ridge=0.0)
    >>> print(f"{value:.4f}")  # 1 / 2 - log(2 pi e) / 2
    -0.9189
    """
    _checks.embeddings("z", z, "n d")
    _checks.positive("scale", scale)
    _checks.choice("estimator", estimator, ("gaussian_logdet", "kde_loo", "polar"))
    _checks.within("ridge", ridge, 0, np.inf)
    _checks.choice("exchange", exchange, pairwise.EXCHANGES)
    _checks.choice("impl", impl, pairwise.IMPLEMENTATIONS)
    nodes = graphs.labelled(z, jnp.zeros(z.shape[0], int), valid, axis_name)
    dtype = kernels.accumulator(nodes.z.dtype)
    x = nodes.z.astype(dtype)
    weight, ridge = jnp.asarray(scale, dtype), jnp.asarray(ridge, dtype)
    n = graphs.count_valid(nodes, axis_name).astype(dtype)
    squared = mesh.mean(jnp.square(x).sum(axis=1), nodes.valid, axis_name)
    if estimator == "polar":
        entropy = _polar_entropy(x, nodes.valid, ridge, axis_name)
    else:
        centered = _centered(x, nodes.valid, n, axis_name)
        covariance = _covariance(centered, n, axis_name)
        if estimator == "gaussian_logdet":
            entropy = _gaussian_entropy(covariance, ridge)
        else:
            variance = lax.stop_gradient(jnp.trace(covariance)) / x.shape[1]
            # Entropy does not see the mean, and squared distances that a tile makes of
            # inner products would lose their digits to it.
            nodes = nodes._replace(z=centered)
            ask = functools.partial(
                pairwise.reduce_pairs,
                nodes,
                axis_name=axis_name,
                exchange=exchange,
                tile=tile,
                impl=impl,
                precision=precision,
            )
            density = _log_density(ask, nodes, variance, n)
            entropy = -mesh.mean(*density, axis_name)
    return jnp.where(n > 0, weight * squared - entropy, 0)


# The smallest variance treated as nonzero: derivatives with respect to it stay inside
# float32.
_SMALLEST_VARIANCE = 1e-12


def _centered(
    x: jax.Array, valid: jax.Array, n: jax.Array, axis_name: mesh.AxisName | None
) -> jax.Array:
    center = mesh.total(x.sum(axis=0), axis_name) / jnp.maximum(n, 1)
    return jnp.where(valid[:, None], x - center[None, :], 0)


def _covariance(
    centered: jax.Array, n: jax.Array, axis_name: mesh.AxisName | None
) -> jax.Array:
    product = jnp.matmul(centered.T, centered, precision=lax.Precision.HIGHEST)
    return mesh.total(product, axis_name) / jnp.maximum(n, 1)


def _gaussian_entropy(covariance: jax.Array, ridge: jax.Array) -> jax.Array:
    d = covariance.shape[0]
    mean_variance = jnp.maximum(jnp.trace(covariance) / d, _SMALLEST_VARIANCE)
    # As a multiple of the mean variance: its determinant stays inside float32.
    identity = jnp.eye(d, dtype=covariance.dtype)
    relative = covariance / mean_variance + ridge * identity
    logdet = jnp.linalg.slogdet(relative)[1] + d * jnp.log(mean_variance)
    return (logdet + d * math.log(2 * math.pi * math.e)) / 2


def _log_density(
    ask: Callable[..., tuple[jax.Array, ...]],
    nodes: graphs.Nodes,
    variance: jax.Array,
    n: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The log-density at each node as all others estimate it, and where there are any.

    `ask` is `pairwise.reduce_pairs` of these nodes.
    """
    d = nodes.z.shape[1]
    variance = jnp.maximum(variance, _SMALLEST_VARIANCE)
    squared_bandwidth = variance * (4 / ((d + 2) * jnp.maximum(n, 1))) ** (2 / (d + 4))
    (log_sum,) = ask(
        kernel=kernels.Exponential(2 * squared_bandwidth, 2, False),
        reductions=(pairwise.Reduction("logsumexp", graphs.others),),
    )
    counts, log_sum = softmax.with_negatives(log_sum, nodes.valid)
    constant = jnp.log(jnp.maximum(n - 1, 1))
    constant += d / 2 * jnp.log(2 * np.pi * squared_bandwidth)
    return log_sum - constant, counts


def _polar_entropy(
    x: jax.Array, valid: jax.Array, ridge: jax.Array, axis_name: mesh.AxisName | None
) -> jax.Array:
    d = x.shape[1]
    squared = jnp.square(x).sum(axis=1)
    # A zero vector has the smallest length treated as nonzero, and no gradient.
    log_r = (
        jnp.log(jnp.where(squared > _SMALLEST_VARIANCE, squared, _SMALLEST_VARIANCE))
        / 2
    )
    mean = mesh.mean(log_r, valid, axis_name)
    variance = mesh.mean(jnp.square(log_r - mean), valid, axis_name)
    variance = jnp.maximum(variance + ridge / (2 * d), _SMALLEST_VARIANCE)
    return d * mean + jnp.log(2 * np.pi * np.e * variance) / 2
