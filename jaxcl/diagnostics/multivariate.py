"""All coordinates at once: a fitted Gaussian, whitening, and tests of joint normality.

With mean m and covariance S = V diag(s) V^T, whitened embeddings are
y = (z - m) V diag(s)^(-1/2): what is Gaussian becomes standard normal.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.diagnostics import _rows

# From so many degrees of freedom on, Wilson and Hilferty's cube root gives chi-square
# probabilities more accurately than the float32 incomplete gamma function.
_MANY_DEGREES = 300

# A direction is tested where its variance is so many times that of the rounding of z.
_ABOVE_ROUNDING = 100


class Gaussian(NamedTuple):
    """A Gaussian distribution, by the principal axes of its covariance.

    Attributes:
      mean: [d].
      variances: along the axes, ascending [d].
      axes: unit vectors as columns [d, d].
    """

    mean: jax.Array
    variances: jax.Array
    axes: jax.Array


def fit_gaussian(
    z: jax.Array,
    *,
    ridge: ArrayLike = 1e-6,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
) -> Gaussian:
    """Fits a Gaussian to embeddings by their mean and covariance.

        S = mean_i (z_i - m)(z_i - m)^T + ridge trace(S) / d

    Args:
      z: embeddings [n, d]; any float dtype.
      ridge: dimensionless, >= 0. With n <= d only a ridge > 0 keeps S invertible.
      valid: rows to keep [n].
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      A `Gaussian`, float32 (float64 for float64 input), the same on all devices. Of a
      traced z its variances are 0 or infinite where they leave the dtype.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, ridge < 0, or the variances leave the dtype, such
        as those of float32 embeddings of the size of 1e-20 or 1e20.

    >>> z = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> print(fit_gaussian(z, ridge=0.0).variances)
    [0.5 2. ]
    """
    x, keep = _rows.checked("z", z, valid)
    _checks.within("ridge", ridge, 0, np.inf)
    mean, centered, unit = _centered(x, keep, axis_name)
    largest = _rows.largest(unit, None)
    relative = centered * (unit / largest)[None, :]
    values, axes = jnp.linalg.eigh(_covariance(relative, keep, axis_name))
    # Rounding may leave a direction without variance slightly below zero.
    values = jnp.maximum(values, 0)
    values = values + jnp.asarray(ridge, x.dtype) * values.mean()
    variances = largest * (largest * values)
    known = not isinstance(variances, jax.core.Tracer) and float(values[-1]) > 0
    if known and not jnp.finfo(x.dtype).tiny <= float(variances[-1]) < math.inf:
        raise ValueError(
            f"z must have variances that {x.dtype} holds, got rows up to "
            f"{float(largest):.3g} from their mean; multiply z by a constant"
        )
    return Gaussian(mean, variances, axes)


def _centered(
    x: jax.Array, keep: jax.Array, axis_name: mesh.AxisName | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean, and deviations from it as multiples of the largest of each column.

    Neither sums nor squares of what is between -1 and 1 can leave float32.
    """
    count = _count(keep, axis_name).astype(x.dtype)

    def mean(x: jax.Array) -> jax.Array:
        return mesh.total(x.sum(axis=0), axis_name) / count

    size = _rows.largest(x, axis_name)
    x = x / size[None, :]
    center = mean(x)
    x = jnp.where(keep[:, None], x - center[None, :], 0)
    unit = _rows.largest(x, axis_name)
    x = x / unit[None, :]
    # Far from zero the first mean was rounded: the second takes out what is left.
    shift = mean(x)
    x = jnp.where(keep[:, None], x - shift[None, :], 0)
    return size * (center + unit * shift), x, size * unit


def _count(keep: jax.Array, axis_name: mesh.AxisName | None) -> jax.Array:
    return jnp.maximum(mesh.total(keep.sum(), axis_name), 1)


def _covariance(
    centered: jax.Array, keep: jax.Array, axis_name: mesh.AxisName | None
) -> jax.Array:
    product = jnp.matmul(centered.T, centered, precision="highest")
    count = _count(keep, axis_name).astype(centered.dtype)
    return mesh.total(product, axis_name) / count


def whiten(gaussian: Gaussian, z: jax.Array) -> jax.Array:
    """Whitens embeddings by a Gaussian, fitted to these or to others.

        y = (z - m) V diag(s)^(-1/2)

    The embeddings of a fit without ridge get zero mean and unit covariance whatever
    they are: whether whitening helped shows on held-out ones.

    Args:
      gaussian: from `fit_gaussian`.
      z: embeddings [n, d]; any float dtype.

    Returns:
      Dimensionless coordinates, floating [n, d]; infinite or NaN along an axis without
      variance.

    Raises:
      TypeError: if z has the wrong type or dtype.
      ValueError: if z is not [n, d], or of another d than the Gaussian.

    >>> z = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> y = whiten(fit_gaussian(z, ridge=0.0), z)
    >>> print((y.T @ y / 4).round(3))
    [[1. 0.]
     [0. 1.]]
    """
    x, _ = _rows.checked("z", z, None)
    _checks.same_width("z", z, "gaussian.axes", gaussian.axes)
    centered = x - gaussian.mean.astype(x.dtype)[None, :]
    rotated = jnp.matmul(centered, gaussian.axes.astype(x.dtype), precision="highest")
    return rotated / jnp.sqrt(gaussian.variances.astype(x.dtype))[None, :]


def log_likelihood(gaussian: Gaussian, z: jax.Array) -> jax.Array:
    """Log-likelihood of embeddings under a Gaussian.

        log p(z_i) = -(|y_i|^2 + log det S + d log(2 pi)) / 2,    y whitened

    Args:
      gaussian: from `fit_gaussian`.
      z: embeddings [n, d]; any float dtype.

    Returns:
      Log-densities in nats, floating [n].

    Raises:
      TypeError: if z has the wrong type or dtype.
      ValueError: if z is not [n, d], or of another d than the Gaussian.

    >>> standard = Gaussian(jnp.zeros(2), jnp.ones(2), jnp.eye(2))
    >>> (value,) = log_likelihood(standard, jnp.zeros((1, 2)))
    >>> print(f"{value:.4f}")  # -log(2 pi)
    -1.8379
    """
    y = whiten(gaussian, z)
    constant = jnp.log(gaussian.variances).sum().astype(y.dtype)
    constant += y.shape[1] * math.log(2 * math.pi)
    return -(jnp.square(y).sum(axis=1) + constant) / 2


class MardiaKurtosis(NamedTuple):
    """Mardia's test of joint normality by kurtosis.

    Attributes:
      kurtosis: mean of |y_i|^4; d (d + 2) for a Gaussian and many rows.
      statistic: its deviation from what a Gaussian sample has on average, over its
        standard deviation there.
      p: probability of so large a deviation to either side, for a standard normal.
    """

    kurtosis: jax.Array
    statistic: jax.Array
    p: jax.Array


def mardia_kurtosis(
    z: jax.Array, *, axis_name: mesh.AxisName | None = None
) -> MardiaKurtosis:
    """Mardia's test of joint normality by kurtosis, with exact moments.

        kurtosis  = mean_i |y_i|^4
        statistic = (kurtosis - d (d + 2) (n - 1) / (n + 1)) / sqrt(
            8 d (d + 2) (n - 3) (n - d - 1) (n - d + 1) / ((n + 1)^2 (n + 3) (n + 5)))

    of whitened embeddings y. It does not depend on an affine map of z. With the moments
    for n to infinity instead, which are common, Gaussian samples would be rejected as
    soon as n is not many times d: 3 in 4 at n = 300 and d = 64.

    Args:
      z: embeddings [n, d], n > d; any float dtype.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.

    Returns:
      A `MardiaKurtosis` of scalars, float32 (float64 for float64 input); NaN where the
      covariance is singular, or a direction varies by little more than the rounding to
      the dtype of z. Where n = d + 1 or n = 3 all samples have one kurtosis,
      and statistic and p are NaN.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or n <= d.

    Source:
      Applications of some measures of multivariate skewness and kurtosis in testing
      normality and robustness studies, Mardia 1974, section 3.

    >>> z = jax.random.normal(jax.random.key(0), (80, 20))
    >>> print(bool(mardia_kurtosis(z).p > 0.05))
    True
    """
    return _kurtosis(*_whitened(z, axis_name), axis_name)


def _kurtosis(y: jax.Array, n: int, axis_name: mesh.AxisName | None) -> MardiaKurtosis:
    d = y.shape[1]
    # The mean of |y|^2 is d, since y is whitened. Around it the fourth powers differ
    # from those of a Gaussian by a small number, without it by a difference of large.
    squared = jnp.square(y).sum(axis=1)
    excess = mesh.mean(jnp.square(squared - d), axis_name=axis_name) - 2 * d
    left = 8 * d * (d + 2) * (n - 3) * (n - d - 1) * (n - d + 1)
    variance = left / ((n + 1) ** 2 * (n + 3) * (n + 5))
    std = math.sqrt(variance) if variance > 0 else math.nan
    score = (excess + 2 * d * (d + 2) / (n + 1)) / std
    p = jax.scipy.special.erfc(jnp.abs(score) / math.sqrt(2))
    return MardiaKurtosis(excess + d * (d + 2), score, p)


class Mardia(NamedTuple):
    """Mardia's two tests of joint normality.

    Attributes:
      skewness: mean over all pairs of (y_i . y_j)^3; 0 for a Gaussian and many rows.
      skewness_statistic: about n / 6 of it; chi-square of d (d + 1) (d + 2) / 6
        degrees.
      skewness_p: probability of so large a statistic in a Gaussian sample.
      kurtosis, kurtosis_statistic, kurtosis_p: as of `mardia_kurtosis`.
    """

    skewness: jax.Array
    skewness_statistic: jax.Array
    skewness_p: jax.Array
    kurtosis: jax.Array
    kurtosis_statistic: jax.Array
    kurtosis_p: jax.Array


def mardia(
    z: jax.Array,
    *,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> Mardia:
    """Mardia's tests of joint normality, of skewness and of kurtosis.

        skewness  = mean_ij (y_i . y_j)^3
        statistic = skewness (d + 1) (n + 1) (n + 3) / (6 ((n + 1) (d + 1) - 6))

    of whitened embeddings y; kurtosis as `mardia_kurtosis`. Neither depends on an
    affine map of z. All pairs are visited, without storing them. The factor gives the
    statistic the mean of its chi-square at any n. Its spread is asymptotic: it requires
    n >> d.

    Args:
      z: embeddings [n, d], n > d; any float dtype.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      A `Mardia` of scalars, float32 (float64 for float64 input); NaN where the
      covariance is singular to the dtype of z. Statistic and p of the kurtosis are NaN
      where n = d + 1 or n = 3, and those of the skewness where n = 2: no two samples
      differ in them.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or n <= d.

    Source:
      Measures of multivariate skewness and kurtosis with applications, Mardia 1970,
      equations 2.23 and 3.10; the factor is from Mardia 1974, section 3.

    >>> result = mardia(jax.random.normal(jax.random.key(0), (200, 2)))
    >>> print(bool(result.skewness_p > 0.05), bool(result.kurtosis_p > 0.05))
    True True
    """
    y, n = _whitened(z, axis_name)
    d = y.shape[1]
    with jax.default_matmul_precision("highest"):
        (others,) = pairwise.reduce_pairs(
            graphs.labelled(y, jnp.zeros(y.shape[0], int), None, axis_name),
            kernel=kernels.dot(),
            reductions=(pairwise.Reduction("sum", graphs.others, _cubed),),
            axis_name=axis_name,
            exchange=exchange,
            tile=tile,
            impl=impl,
            precision=precision,
        )
    # A row with itself is known from its length.
    itself = jnp.square(y).sum(axis=1) ** 3
    skewness = mesh.mean((others + itself) / n, axis_name=axis_name)
    # Two rows of one column have no skewness to test.
    below = 6 * ((n + 1) * (d + 1) - 6)
    factor = (d + 1) * (n + 1) * (n + 3) / below if below else math.nan
    statistic = factor * skewness
    tail = _chi_square_tail(statistic, d * (d + 1) * (d + 2) // 6)
    return Mardia(skewness, statistic, tail, *_kurtosis(y, n, axis_name))


class HenzeZirkler(NamedTuple):
    """Henze and Zirkler's test of joint normality.

    Attributes:
      statistic: distance from a Gaussian.
      p: probability of so large a statistic in a Gaussian sample.
    """

    statistic: jax.Array
    p: jax.Array


def henze_zirkler(
    z: jax.Array,
    *,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> HenzeZirkler:
    """Henze and Zirkler's test of joint normality, by characteristic functions.

        HZ = (1 / n) sum_ij exp(-b |y_i - y_j|^2 / 2)
             - 2 (1 + b)^(-d / 2) sum_i exp(-b |y_i|^2 / (2 (1 + b)))
             + n (1 + 2 b)^(-d / 2)
        b  = ((2 d + 1) n / 4)^(2 / (d + 4)) / 2

    of whitened embeddings y. It does not depend on an affine map of z, and is zero only
    for a Gaussian. All pairs are visited, without storing them. p takes the statistic
    of a Gaussian sample as log-normal. It loses power where d is large for n: of 300
    rows of Student's t with 5 degrees it rejects 9 in 10 samples at d = 20 and 4 in 10
    at d = 40. Of 500 rows p is 0.5 for these as for Gaussian ones at d = 200, and NaN
    from about d = 300 on, where the spread of the statistic leaves float32.

    Args:
      z: embeddings [n, d], n > d; any float dtype.
      axis_name: mesh axes over which the rows are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      A `HenzeZirkler` of scalars, float32 (float64 for float64 input); NaN where the
      covariance is singular to the dtype of z.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if a shape is wrong, or n <= d.

    Source:
      A class of invariant consistent tests for multivariate normality, Henze and
      Zirkler 1990, section 2 and theorem 3.2.

    >>> result = henze_zirkler(jax.random.normal(jax.random.key(0), (200, 2)))
    >>> print(bool(result.p > 0.05))
    True
    """
    y, n = _whitened(z, axis_name)
    d = y.shape[1]
    b = ((2 * d + 1) * n / 4) ** (2 / (d + 4)) / 2
    (others,) = pairwise.reduce_pairs(
        graphs.labelled(y, jnp.zeros(y.shape[0], int), None, axis_name),
        kernel=kernels.gaussian(2 / b, normalize=False),
        reductions=(pairwise.Reduction("sum", graphs.others, _exponential),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    center = jnp.exp(-b / (2 * (1 + b)) * jnp.square(y).sum(axis=1))
    center *= 2 * (1 + b) ** (-d / 2)
    # Row by row, so that sums of the size of n never stand against each other. Rows
    # with themselves add up to 1, beside which all else may be tiny.
    row = others / n - center + (1 + 2 * b) ** (-d / 2)
    excess = n * mesh.mean(row, axis_name=axis_name)
    shortfall, variance = _henze_zirkler_moments(d, b)
    mean = 1 - shortfall
    spread = math.log1p(max(variance, 0) / mean**2)
    center_log = math.log1p(-shortfall) - spread / 2
    std = math.sqrt(spread)
    std = std if std > float(jnp.finfo(y.dtype).tiny) else math.nan
    score = (jnp.log1p(excess) - center_log) / std
    return HenzeZirkler(1 + excess, jax.scipy.special.erfc(score / math.sqrt(2)) / 2)


def _henze_zirkler_moments(d: int, b: float) -> tuple[float, float]:
    """One minus the mean, and the variance, of the statistic of a Gaussian sample."""
    a = 1 + 2 * b
    w = (1 + b) * (1 + 3 * b)
    shortfall = 1 + d * b / a + d * (d + 2) * b**2 / (2 * a**2)
    shortfall *= a ** (-d / 2)
    variance = 2 * (1 + 4 * b) ** (-d / 2)
    second = 1 + 2 * d * b**2 / a**2 + 3 * d * (d + 2) * b**4 / (4 * a**4)
    variance += 2 * a**-d * second
    third = 1 + 3 * d * b**2 / (2 * w) + d * (d + 2) * b**4 / (2 * w**2)
    variance -= 4 * w ** (-d / 2) * third
    return shortfall, variance


def _whitened(z: jax.Array, axis_name: mesh.AxisName | None) -> tuple[jax.Array, int]:
    """Embeddings whitened by their own covariance, and how many all devices hold.

    They are whitened up to a rotation, and NaN where the covariance is singular.
    """
    x, keep = _rows.checked("z", z, None)
    n, d = z.shape[0] * mesh.size(axis_name), z.shape[1]
    if n <= d:
        raise ValueError(f"z must have more rows than columns, got {n} rows of {d}")
    mean, y, unit = _centered(x, keep, axis_name)
    variance = jnp.diagonal(_covariance(lax.stop_gradient(y), keep, axis_name))
    variance = jnp.where(variance > 0, variance, jnp.nan)
    y = y / jnp.sqrt(variance)[None, :]
    # What rounding to the dtype of z adds to variances that are 1 now.
    step = float(jnp.finfo(z.dtype).eps) / math.sqrt(12)
    square = 1 + jnp.square(lax.stop_gradient(mean) / unit) / variance
    rounding = step**2 * square
    # Twice: variances are squares, and those of weak directions are lost in rounding.
    # Raised to its level the first time, they are seen the second time. What is below
    # it then is what rounding leaves of no variance: no direction to test.
    y, above = _nearly_white(y, keep, rounding, axis_name)
    y, regular = _nearly_white(y, keep, None, axis_name)
    regular = regular & above
    # The covariance is the identity by now, to rounding. That rounding, and all of the
    # derivative, is in its Cholesky factor: what was divided by until here is constant.
    covariance = _covariance(jnp.where(regular, y, jnp.nan), keep, axis_name)
    factor = jnp.linalg.cholesky(covariance)
    return jax.scipy.linalg.solve_triangular(factor, y.T, lower=True).T, n


def _nearly_white(
    y: jax.Array,
    keep: jax.Array,
    rounding: jax.Array | None,
    axis_name: mesh.AxisName | None,
) -> tuple[jax.Array, jax.Array]:
    """Whitens by constant axes; whether all variances were above rounding, bool [].

    Above that of this arithmetic, or above `rounding`, the variances that rounding has
    put into the columns [d].
    """
    covariance = lax.stop_gradient(_covariance(y, keep, axis_name))
    values, axes = jnp.linalg.eigh(covariance)
    smallest = y.shape[1] * float(jnp.finfo(y.dtype).eps) * values[-1]
    raised = jnp.maximum(values, smallest)
    if rounding is None:
        above = values[0] > smallest
    else:
        added = (jnp.square(axes) * rounding[:, None]).sum(axis=0)
        above = (raised > _ABOVE_ROUNDING * added).all()
    axes = axes / jnp.sqrt(raised)[None, :]
    return jnp.matmul(y, axes, precision="highest"), above


def _cubed(pair: pairwise.Pair) -> jax.Array:
    return pair.logits**3


def _exponential(pair: pairwise.Pair) -> jax.Array:
    return jnp.exp(pair.logits)


def _chi_square_tail(x: jax.Array, degrees: int) -> jax.Array:
    """Probability that a chi-square variable exceeds x."""
    if degrees <= _MANY_DEGREES:
        half = jnp.asarray(degrees / 2, x.dtype)
        return jax.scipy.special.gammaincc(half, x / 2)
    variance = 2 / (9 * degrees)
    score = (jnp.cbrt(x / degrees) - (1 - variance)) / math.sqrt(variance)
    return jax.scipy.special.erfc(score / math.sqrt(2)) / 2
