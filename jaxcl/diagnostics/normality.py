"""Whether coordinates are Gaussian: tests of each column, and a report on embeddings.

Tests of columns do not prove that embeddings are jointly Gaussian. `random_projections`
gives further directions to look from; `mardia` and `henze_zirkler` test all at once.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, kernels
from jaxcl.diagnostics import _rows, geometry

# Stephens' 5 % value of the statistic of Anderson and Darling, mean and variance
# estimated.
ANDERSON_DARLING_LIMIT = 0.752
# The smallest number of rows for which the omnibus test is made.
_MIN_ROWS = 20


def anderson_darling(x: jax.Array, *, corrected: bool = False) -> jax.Array:
    """Anderson and Darling's statistic of each column, mean and variance estimated.

        A2 = -sum_i [(2 i - 1) / n (log F(y_i) + log(1 - F(y_{n+1-i}))) + 1]
        y  = sort((x - mean) / std), std over n - 1; F the normal distribution

    Columns are independent: over a mesh, shard them.

    Args:
      x: numbers [n, d], one sample in each column; any float dtype.
      corrected: multiplies by 1 + 0.75 / n + 2.25 / n^2, Stephens' correction for small
        samples; from n = 500 on it is below 0.2 %.

    Returns:
      Dimensionless statistics, float32 [d] (float64 for float64 input), the smaller the
      closer to Gaussian: 0.385 on average for a Gaussian sample, below 0.752 for 95 %
      of them. NaN for a constant column, and for one that is not finite.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if x is not [n, d].

    Source:
      EDF Statistics for Goodness of Fit and Some Comparisons, Stephens 1974, case 3.

    >>> x = jnp.array([[-1.0, 3.0], [0.0, 3.0], [1.0, 3.0]])
    >>> print(np.round(anderson_darling(x), 2))
    [0.19  nan]
    """
    _checks.embeddings("x", x, "n d")
    _checks.flag("corrected", corrected)
    n = x.shape[0]
    factor = 1 + 0.75 / n + 2.25 / n**2 if corrected else 1.0
    return factor * _anderson_darling(x)


@jax.jit
def _anderson_darling(x: jax.Array) -> jax.Array:
    n = x.shape[0]
    deviation, variance = _standardize(x)
    # Over n - 1; a single row is constant.
    std = jnp.sqrt(variance * (n / max(n - 1, 1)))
    y = jnp.sort(deviation / std[None, :], axis=0)
    log_ndtr = jax.scipy.special.log_ndtr
    # Each term is taken relative to that of the middle u of its share of the
    # distribution. The differences are small; the terms themselves add up to the size
    # of n on the way, which at a million rows leaves float32 one digit of the result.
    middle = (np.arange(1, n + 1) - 0.5) / n
    reference = float((4 * middle * np.log(middle) + 1).sum())
    u = jnp.asarray(middle, y.dtype)[:, None]
    log_u = jnp.asarray(np.log(middle), y.dtype)[:, None]
    below, above = log_ndtr(y) - log_u, log_ndtr(-y[::-1]) - log_u
    return -(2 * u * (below + above)).sum(axis=0) - reference


def dagostino_pearson(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """D'Agostino and Pearson's omnibus test of each column: skewness and kurtosis.

        K2 = Z1(skewness)^2 + Z2(kurtosis)^2,    p = exp(-K2 / 2)

    with Z1 and Z2 transformed to be nearly standard normal for a Gaussian sample.
    Columns are independent: over a mesh, shard them.

    Args:
      x: numbers [n, d], n >= 20, one sample in each column; any float dtype.

    Returns:
      K2, dimensionless, and p, a probability, float32 [d] each (float64 for float64
      input). Large K2, small p: not Gaussian; p > 0.05 for 95 % of Gaussian samples.
      NaN for a constant column, and for one that is not finite.

    Raises:
      TypeError: if x has the wrong type or dtype.
      ValueError: if x is not [n, d], or n < 20.

    Source:
      A suggestion for using powerful and informative tests of normality, D'Agostino,
      Belanger and D'Agostino 1990, equations 8 to 20.

    >>> x = jnp.linspace(0.0, 1.0, 21)[:, None] ** 3
    >>> statistic, p = dagostino_pearson(x)
    >>> print(statistic.shape, p < 0.2)
    (1,) [ True]
    """
    _checks.embeddings("x", x, "n d")
    _enough("x", x.shape[0])
    return _dagostino_pearson(x)


@jax.jit
def _dagostino_pearson(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    n = x.shape[0]
    deviation, variance = _standardize(x)
    y = deviation / jnp.sqrt(variance)[None, :]
    z1 = _skewness_z(jnp.mean(y**3, axis=0), n)
    z2 = _kurtosis_z(jnp.mean(y**4, axis=0), n)
    statistic = jnp.square(z1) + jnp.square(z2)
    return statistic, jnp.exp(-statistic / 2)


def _skewness_z(skewness: jax.Array, n: int) -> jax.Array:
    y = skewness * math.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    top = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3)
    fourth = top / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = math.sqrt(2 * (fourth - 1)) - 1
    return jnp.asinh(y / math.sqrt(2 / (w2 - 1))) / math.sqrt(math.log(w2) / 2)


def _kurtosis_z(kurtosis: jax.Array, n: int) -> jax.Array:
    mean = 3 * (n - 1) / (n + 1)
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (kurtosis - mean) / math.sqrt(variance)
    s = 6 * (n**2 - 5 * n + 2) / ((n + 7) * (n + 9))
    s *= math.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    a = 6 + 8 / s * (2 / s + math.sqrt(1 + 4 / s**2))
    # Two equal clusters make the denominator negative, and a cube root bears it.
    root = jnp.cbrt((1 - 2 / a) / (1 + x * math.sqrt(2 / (a - 4))))
    return (1 - 2 / (9 * a) - root) / math.sqrt(2 / (9 * a))


def random_projections(key: jax.Array, d: int, num: int) -> jax.Array:
    """Draws directions uniformly from the sphere, as orthogonal as can be.

    Columns 0 to d - 1 are orthonormal, as are the next d, and so on. A Gaussian in d
    dimensions is Gaussian along each of them, `x @ random_projections(key, d, num)`.

    Args:
      key: a random key.
      d: embedding size.
      num: how many directions.

    Returns:
      Unit vectors as columns, float32 [d, num].

    Raises:
      TypeError: if d or num is no integer.
      ValueError: if d or num < 1.

    >>> print(random_projections(jax.random.key(0), 5, 12).shape)
    (5, 12)
    """
    for name, count in (("d", d), ("num", num)):
        _checks.count(name, count, 1)
    blocks = -(-num // d)
    width = min(d, num)  # the first columns of a whole rotation, without the others
    gaussian = jax.random.normal(key, (blocks, d, width), jnp.float32)
    q, r = jnp.linalg.qr(gaussian)
    # QR favors one sign of the diagonal; only with the sign undone is q uniform.
    sign = jnp.where(jnp.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    columns = jnp.swapaxes(q * sign[:, None, :], 0, 1)
    return columns.reshape(d, blocks * width)[:, :num]


class GaussianityReport(NamedTuple):
    """How Gaussian embeddings are, column by column.

    Attributes:
      cv: coefficient of variation of the norms, as `norm_cv`.
      ad_mean: mean of `anderson_darling` over columns; 0.385 for Gaussian ones.
      ad_pass: share of columns below 0.752; 0.95 for Gaussian ones.
      dp_mean: mean p of `dagostino_pearson` over columns; 0.5 for Gaussian ones.
      dp_pass: share of columns with p > 0.05; 0.95 for Gaussian ones.
      num_samples: how many rows were looked at.
      num_constant: how many columns are constant; they are in no mean or share.
    """

    cv: jax.Array
    ad_mean: jax.Array
    ad_pass: jax.Array
    dp_mean: jax.Array
    dp_pass: jax.Array
    num_samples: int
    num_constant: jax.Array


def gaussianity_report(
    z: jax.Array,
    *,
    max_samples: int = 5000,
    key: jax.Array | None = None,
    directions: jax.Array | None = None,
) -> GaussianityReport:
    """Tests each column of embeddings for normality and sums up.

    With many samples the tests see any deviation. Directions uniform on the sphere have
    an excess kurtosis of -6 / (d + 2) in each column, which the tests start to see at
    2 / 3 (d + 2)^2 samples: `max_samples` should stay below for normalized embeddings.

    Args:
      z: embeddings [n, d], n >= 20; any float dtype.
      max_samples: >= 20; of more rows as many are drawn, without replacement.
      key: for the draw; None is `jax.random.key(0)`.
      directions: unit vectors as columns [d, m], such as `random_projections`, to test
        `z @ directions` instead of the coordinates; the norms stay those of z.

    Returns:
      A `GaussianityReport` of the rows that were drawn. Means and shares are NaN where
      all columns are constant.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, there are too few rows, or values are not finite,
        or so small that they have few digits (a traced z passes, and gives NaN).

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012, sections
      5 and 6: its tables. It does not say how many samples went into its tests.

    >>> report = gaussianity_report(jax.random.normal(jax.random.key(1), (500, 64)))
    >>> print(report.num_samples, bool(report.ad_pass > 0.85))
    500 True
    """
    x, _ = _rows.checked("z", z, None)
    _enough("z", x.shape[0])
    _checks.count("max_samples", max_samples, _MIN_ROWS)
    if not isinstance(x, jax.core.Tracer):
        bad = int((~jnp.isfinite(x).all(axis=1)).sum())
        if bad:
            raise ValueError(
                f"z must be finite, got {bad} of {x.shape[0]} rows that are not"
            )
        largest, digits = np.abs(np.asarray(x)).max(), jnp.finfo(x.dtype)
        if 0 < largest < digits.tiny / digits.eps:
            # Where numbers are below the normal ones, processors take them for 0.
            raise ValueError(
                f"z must hold numbers above {digits.tiny / digits.eps:.1g} in "
                f"{x.dtype}, got none above {largest:.3g}; multiply z by a constant"
            )
    if x.shape[0] > max_samples:
        key = jax.random.key(0) if key is None else key
        drawn = jax.random.choice(key, x.shape[0], (max_samples,), replace=False)
        x = x[drawn]
    if directions is not None:
        _checks.embeddings("directions", directions, "d m")
        if directions.shape[0] != x.shape[1]:
            raise ValueError(
                f"directions must have {x.shape[1]} rows, one for each coordinate of "
                f"z, got {directions.shape}"
            )
        directions = directions.astype(x.dtype)
    return _report(x, directions)._replace(num_samples=x.shape[0])


@jax.jit
def _report(x: jax.Array, directions: jax.Array | None) -> GaussianityReport:
    columns = x
    if directions is not None:
        columns = jnp.matmul(x, directions, precision="highest")
    varies = columns.max(axis=0) != columns.min(axis=0)
    # A constant column would give NaN, also to the gradient of what is then left out:
    # a ramp stands in for it. A column with a NaN varies, and keeps it.
    ramp = jnp.arange(x.shape[0]).astype(x.dtype)
    columns = jnp.where(varies[None, :], columns, ramp[:, None])
    statistic = anderson_darling(columns)
    _, p = dagostino_pearson(columns)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.where(varies, values, 0).sum() / varies.sum().astype(x.dtype)

    def share(passes: jax.Array) -> jax.Array:
        return mean(jnp.where(jnp.isnan(p), p, passes.astype(p.dtype)))

    return GaussianityReport(
        cv=geometry.norm_cv(x),
        ad_mean=mean(statistic),
        ad_pass=share(statistic < ANDERSON_DARLING_LIMIT),
        dp_mean=mean(p),
        dp_pass=share(p > 0.05),
        num_samples=x.shape[0],
        num_constant=(~varies).sum(),
    )


def _standardize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Deviations of each column from its mean, in a unit of its own; their variance.

    NaN for a constant column.
    """
    x = x.astype(kernels.accumulator(x.dtype))
    low, high = x.min(axis=0), x.max(axis=0)
    span = jnp.where(high == low, jnp.nan, high / 2 - low / 2)
    # From the middle, in units of half the span: neither squares nor sums can leave
    # float32. The rounding of the first mean is taken out by the second.
    unit = _rows.largest(span[None, :], None)
    x = (x - (low / 2 + high / 2)[None, :]) / unit[None, :]
    x = x - x.mean(axis=0)[None, :]
    x = x - x.mean(axis=0)[None, :]
    return x, jnp.square(x).mean(axis=0)


def _enough(name: str, n: int) -> None:
    if n < _MIN_ROWS:
        raise ValueError(f"{name} must have at least {_MIN_ROWS} rows, got {n}")
