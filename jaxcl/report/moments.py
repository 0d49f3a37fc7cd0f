"""Norms, moments and extremes of all rows, in one pass and bounded memory."""

from typing import NamedTuple

import numpy as np
import tqdm

from jaxcl import diagnostics
from jaxcl.report import reading, results


class Moments(NamedTuple):
    """What one pass over the whole file gives, in float64.

    Attributes:
      usable: rows that count, bool [n]; norms, moments and extremes are theirs.
      not_finite: rows with a NaN or an infinity, bool [n].
      norms: of the rows as they are in the file [usable rows].
      mean: [d].
      covariance: divided by the number of rows [d, d].
      spread: mean of the fourth power of the distance from the mean.
      skewness: of each column [d]; NaN where it does not vary.
      kurtosis: excess over a Gaussian's, as skewness.
      constant: columns of one value, bool [d].
    """

    usable: np.ndarray
    not_finite: np.ndarray
    norms: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    spread: float
    skewness: np.ndarray
    kurtosis: np.ndarray
    constant: np.ndarray


def of_rows(
    array: np.ndarray, *, normalize: bool = False, block: int | None = None
) -> Moments:
    """Reads all rows once, `block` at a time; None is about 32 MiB."""
    n, d = array.shape
    block = block or max(1, 2**22 // d)
    usable, not_finite = np.zeros(n, bool), np.zeros(n, bool)
    norms = np.zeros(n)
    shift: np.ndarray | None = None
    sums = np.zeros((3, d))  # of first, third and fourth powers
    second = np.zeros((d, d))
    cubes, quartic = np.zeros(d), 0.0  # of |x|^2 x and |x|^4
    lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
    bar = tqdm.tqdm(total=n, unit="row", unit_scale=True, desc="moments")
    for i, x in enumerate(reading.blocks(array, block)):
        rows = slice(i * block, i * block + len(x))
        finite = np.isfinite(x).all(axis=1)
        not_finite[rows] = ~finite
        with np.errstate(over="ignore", invalid="ignore"):
            norms[rows] = np.sqrt(np.einsum("nd,nd->n", x, x))
        usable[rows] = finite & (norms[rows] > 0) if normalize else finite
        x = x[usable[rows]]
        if normalize:
            x = x / norms[rows][usable[rows], None]
        if len(x):
            # Around rows of the file itself, so that a large mean cancels nothing.
            shift = x.mean(axis=0) if shift is None else shift
            lowest = np.minimum(lowest, x.min(axis=0))
            highest = np.maximum(highest, x.max(axis=0))
            x -= shift
            with np.errstate(over="ignore", invalid="ignore"):
                second += x.T @ x
                square = x * x
                sums[0] += x.sum(axis=0)
                sums[1] += np.einsum("nd,nd->d", square, x)
                sums[2] += np.einsum("nd,nd->d", square, square)
                length = square.sum(axis=1)
                cubes += length @ x
                quartic += length @ length
        bar.update(rows.stop - rows.start)
    bar.close()
    if shift is None:
        count, shift = 1, np.zeros(d)
    else:
        count = int(usable.sum())
    sums, second = sums / count, second / count
    if not np.isfinite(sums).all() or not np.isfinite(norms[usable]).all():
        largest = max(abs(lowest).max(), abs(highest).max())
        raise ValueError(
            "embeddings must have finite fourth moments in float64, got values up to "
            f"{largest:.3g}; divide them by a constant"
        )
    first, covariance, third, fourth = _central(sums, second)
    # E|x - f|^4, f the mean, from moments around 0.
    far = first @ first
    spread = quartic / count - 4 * first @ cubes / count
    spread += 2 * far * np.trace(second) + 4 * first @ second @ first - 3 * far**2
    constant = (lowest == highest) | (np.diag(covariance) <= 0)
    variance = np.where(constant, np.nan, np.diag(covariance))
    return Moments(
        usable=usable,
        not_finite=not_finite,
        norms=norms[usable],
        mean=shift + first,
        covariance=covariance,
        spread=float(spread),
        skewness=third / variance**1.5,
        kurtosis=fourth / variance**2 - 3,
        constant=constant,
    )


def _central(
    powers: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance, third and fourth central moments, from those around 0.

    Args:
      powers: means of the first, third and fourth powers of each column [3, d].
      second: means of the products of two columns [d, d].
    """
    first, third, fourth = powers
    square = np.diag(second)
    return (
        first,
        second - np.outer(first, first),
        third - 3 * first * square + 2 * first**3,
        fourth - 4 * first * third + 6 * first**2 * square - 3 * first**4,
    )


def square_trace(m: Moments) -> float:
    """tr(S^2) of the covariance S of the law behind n rows x, of any law.

        n / ((n - 2) (n - 3)) ((n - 2) tr(C^2) + tr(C)^2 / (n - 1) - mean |x - mean|^4)

    is unbiased, C the covariance of the rows. tr(C^2) itself is too large, by about
    tr(C)^2 / n: with fewer rows than columns by more than what is asked for. No S has
    less than tr(S)^2 / d, where chance can put the estimate.
    """
    n, biased = len(m.norms), np.trace(m.covariance)
    inner = (n - 2) * np.square(m.covariance).sum() + biased**2 / (n - 1) - m.spread
    smallest = trace(m) ** 2 / np.sum(~m.constant)
    return float(max(n / ((n - 2) * (n - 3)) * inner, smallest))


def trace(m: Moments) -> float:
    """tr(S) of the covariance S of the law behind the rows, unbiased."""
    n = len(m.norms)
    return float(np.trace(m.covariance) * n / (n - 1))


def norm_cv(m: Moments) -> tuple[float, float]:
    """Standard deviation of the norms over their mean, here and if Gaussian.

    Returns:
      That of the rows as they are in the file, and to first order that of a Gaussian
      with the same mean and covariance: sqrt(2 tr(S^2) + 4 m'Sm) / (2 E|z|^2).
    """
    n, square = len(m.norms), square_trace(m)
    # By chance alone the mean of n rows adds tr(S^2) / n to m'Sm.
    along = m.mean @ m.covariance @ m.mean * n / (n - 1) - square / n
    gaussian = np.sqrt(2 * square + 4 * max(along, 0.0)) / (2 * _mean_square(m))
    return float(m.norms.std() / m.norms.mean()), float(gaussian)


def _mean_square(m: Moments) -> float:
    return float(np.square(m.mean).sum() + np.trace(m.covariance))


class Table(NamedTuple):
    """What the pass over all rows says about them.

    Attributes:
      kept: columns that vary, bool [width].
      cv: standard deviation of the norms over their mean, as they are in the file.
      gaussian_cv: of a Gaussian with the same mean and covariance.
      one_norm: whether all rows have the same norm in the file.
      normalized: whether they have, or were given it.
    """

    kept: np.ndarray
    cv: float
    gaussian_cv: float
    one_norm: bool
    normalized: bool


def look_over(m: Moments, name: str, *, normalize: bool = False) -> Table:
    """Finds rows and columns without information.

    Args:
      m: of all rows.
      name: of the file, for errors.
      normalize: whether the moments are those of normalized rows.

    Returns:
      What can be tested, and as what.

    Raises:
      ValueError: if that is less than 20 rows of 2 columns.
    """
    n, width = len(m.usable), len(m.mean)
    used, kept = len(m.norms), ~m.constant
    d = int(kept.sum())
    if used < 20:
        raise ValueError(
            f"file must hold at least 20 rows of finite numbers, got {used} of {n}"
        )
    if d == 0:
        raise ValueError(
            f"file must hold rows that differ: all {used} usable rows of {name} "
            "are equal"
        )
    if d < 2:
        raise ValueError(
            f"file must hold at least 2 columns that vary, got {d} of {width}"
        )
    cv, gaussian_cv = norm_cv(m)
    # Rounding to bfloat16 leaves normalized rows 0.2 to 0.4 % of a Gaussian's spread.
    one_norm = cv < 0.02 * gaussian_cv
    return Table(kept, cv, gaussian_cv, one_norm, normalize or one_norm)


def norms(m: Moments, table: Table, d: int) -> results.Norms:
    """Of the norms as they are in the file, and what they would be in d dimensions."""
    return results.Norms(
        mean=float(m.norms.mean()),
        std=float(m.norms.std()),
        min=float(m.norms.min()),
        max=float(m.norms.max()),
        cv=table.cv,
        cv_isotropic_gaussian=diagnostics.gaussian_norm_cv(d),
        cv_thin_shell_approximation=float(1 / np.sqrt(2 * d)),
        cv_gaussian_of_this_covariance=None if table.normalized else table.gaussian_cv,
    )


def mean(m: Moments, p_if_centered: float) -> results.Mean:
    """Of the mean row, and the p of a test that it is 0."""
    chance, square = trace(m) / len(m.norms), float(np.square(m.mean).sum())
    return results.Mean(
        norm=float(np.linalg.norm(m.mean)),
        share_of_mean_square=square / _mean_square(m),
        share_beyond_chance=max(square - chance, 0.0) / _mean_square(m),
        p_if_centered=p_if_centered,
    )


def eigenvalues(m: Moments, kept: np.ndarray) -> np.ndarray:
    """Of the covariance of the columns kept, the largest first."""
    return np.linalg.eigvalsh(m.covariance[np.ix_(kept, kept)])[::-1].clip(0)


def covariance(
    m: Moments, spectrum: np.ndarray, effective_rank: float
) -> results.Covariance:
    """Of all rows, and of the eigenvalues of their covariance [d], largest first."""
    d, total = len(spectrum), float(spectrum.sum())
    largest, smallest = float(spectrum[0]), float(spectrum[-1])
    return results.Covariance(
        trace=total,
        largest_share=largest / total,
        condition=largest / smallest if smallest > 1e-12 * largest else None,
        participation=min(trace(m) ** 2 / square_trace(m), float(d)),
        # Of isotropic Gaussian rows, where tr(S^2) scatters by 2 / n of itself.
        participation_std_if_isotropic=2 * d / len(m.norms),
        effective_rank_of_sample=effective_rank,
    )


def coordinates(
    m: Moments, kept: np.ndarray, ad: np.ndarray, dp: np.ndarray
) -> list[results.Coordinate]:
    """Moments of each column kept, its place in the file, and its tests [kept]."""
    std = np.sqrt(np.diag(m.covariance))
    return [
        results.Coordinate(
            column=int(i),
            mean=float(m.mean[i]),
            std=float(std[i]),
            skewness=float(m.skewness[i]),
            excess_kurtosis=float(m.kurtosis[i]),
            ad=float(statistic),
            dp_p=float(p),
        )
        for i, statistic, p in zip(np.flatnonzero(kept), ad, dp, strict=True)
    ]
