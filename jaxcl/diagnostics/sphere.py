"""Uniformity on the sphere: the potential that InfoNCE minimizes, and exact values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise


def uniformity_potential(
    z: jax.Array,
    keys: jax.Array | None = None,
    *,
    temperature: ArrayLike = 0.1,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Uniformity potential: the part of InfoNCE that sees the marginal law only.

        Phi = mean_i log mean_{j != i} exp(cos(z_i, k_j) / temperature)

    with k = z, or a second view. Among all laws on the sphere the uniform one has the
    smallest, `log_sphere_potential(d, 1 / temperature)`.

    Args:
      z: embeddings [n, d]; any float dtype.
      keys: embeddings [n, d] of a second view, row i the positive of row i; None
        compares z with itself. Row i never meets row i: a positive would weigh in with
        up to exp(1 / temperature) / n.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      A scalar in nats, float32 (float64 for float64 input). Collapsed embeddings give
      1 / temperature; fewer than two NaN.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or temperature <= 0.

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012,
      equation 4.

    >>> print(uniformity_potential(jnp.ones((3, 4)), temperature=0.5).round(4))
    2.0
    """
    _checks.embeddings("z", z, "n d")
    if keys is None:
        labels = jnp.zeros(z.shape[0], int)
        anchors, candidates = graphs.labelled(z, labels, valid, axis_name), None
        relation = graphs.others
    else:
        _checks.paired("z", z, "keys", keys)
        anchors, candidates = graphs.pairs(z, keys, valid, axis_name)
        relation = graphs.negatives
    # 1 / temperature multiplies the error of a product of reduced precision.
    with jax.default_matmul_precision("highest"):
        (log_sum,) = pairwise.reduce_pairs(
            anchors,
            candidates,
            kernel=kernels.cosine(temperature),
            reductions=(pairwise.Reduction("logsumexp", relation),),
            axis_name=axis_name,
            exchange=exchange,
            tile=tile,
            impl=impl,
            precision=precision,
        )
    others = graphs.count_valid(anchors, axis_name).astype(log_sum.dtype) - 1
    # Without others the sum is -inf, and so is what a row that is not valid holds.
    alone = log_sum == -jnp.inf
    log_mean = jnp.where(alone, 0, log_sum) - jnp.log(jnp.maximum(others, 1))
    mean = mesh.mean(log_mean, anchors.valid, axis_name)
    return jnp.where(others > 0, mean, jnp.nan)


def log_sphere_potential(d: int, alpha: float) -> float:
    """The smallest uniformity potential: that of directions uniform on the sphere.

        log E exp(alpha u.w) = log 0F1(; d / 2; alpha^2 / 4)

    for a fixed unit vector w. About alpha^2 / (2 d), and never more.

    Args:
      d: embedding size, >= 1; an integer.
      alpha: inverse temperature, dimensionless; a Python number. Time and memory grow
        with it.

    Returns:
      Nats, a Python float, to float64 rounding.

    Raises:
      TypeError: if d is no integer, or alpha no Python number.
      ValueError: if d < 1, or alpha is not finite.

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012, lemma 2;
      the series is that of the hypergeometric function.

    >>> print(f"{log_sphere_potential(32, 10.0):.6f}")
    1.497904
    """
    d = _checks.count("d", d, 1)
    size = abs(_checks.static("alpha", alpha))
    if not np.isfinite(size):
        raise ValueError(f"alpha must be finite, got {alpha}")
    if size == 0:
        return 0.0
    # Term k over term k - 1; all terms are positive. From k = alpha on a term is less
    # than a quarter of the one before.
    k = np.arange(1, math.ceil(size) + 40)
    log_ratio = 2 * (math.log(size) - math.log(2)) - np.log((d / 2 + k - 1) * k)
    log_terms = np.cumsum(log_ratio)
    top = log_terms.max()
    rest = top + math.log(np.exp(log_terms - top).sum())
    # Beside the first term, 1: the sum of the others may be tiny.
    return float(np.logaddexp(0, rest))


def gaussian_norm_cv(d: int) -> float:
    """The coefficient of variation of the norm of a Gaussian vector.

        sqrt(d / m^2 - 1),    m = sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)

    Args:
      d: embedding size, >= 1; an integer.

    Returns:
      A dimensionless Python float, about 1 / sqrt(2 d).

    Raises:
      TypeError: if d is no integer.
      ValueError: if d < 1.

    >>> print(f"{gaussian_norm_cv(128):.5f}")
    0.06256
    """
    d = _checks.count("d", d, 1)
    if d <= 100:
        log_mean = math.log(2) / 2 + math.lgamma((d + 1) / 2) - math.lgamma(d / 2)
        excess = math.log(d) - 2 * log_mean
    else:
        # The same by Stirling's series: logarithms of large factorials would cancel.
        excess = 1 / (2 * d) - 1 / (12 * d**3) + 1 / (10 * d**5)
    return math.sqrt(math.expm1(excess))


def gaussian_distance_bound(d: int, k: int) -> float:
    """Bounds how far k coordinates of a uniform direction are from Gaussian.

        d_TV(sqrt(d) u_{1..k}, N(0, I_k)) <= 2 (k + 3) / (d - k - 3)

    Args:
      d: embedding size; an integer.
      k: how many coordinates, 1 <= k <= d - 4; an integer.

    Returns:
      The bound on the total variation distance, a Python float; vacuous above 1.

    Raises:
      TypeError: if d or k is no integer.
      ValueError: if k is not in 1 to d - 4.

    Source:
      A dozen de Finetti-style results in search of a theory, Diaconis and Freedman
      1987, theorem 1.

    >>> print(gaussian_distance_bound(104, 1))
    0.08
    """
    d, k = _checks.count("d", d, 1), _checks.count("k", k, 1)
    if k > d - 4:
        raise ValueError(f"k must be at most d - 4 = {d - 4}, got {k}")
    return 2 * (k + 3) / (d - k - 3)
