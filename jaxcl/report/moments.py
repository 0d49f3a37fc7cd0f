"""Norms, moments and extremes of all rows, in one pass and bounded memory."""

import math
from typing import NamedTuple

import numpy as np
import tqdm
from scipy import stats

from jaxcl import _text, diagnostics
from jaxcl.report import reading, results

_CANDIDATES = 100  # rows that are looked at again, since they lie far away


class Moments(NamedTuple):
    """What one pass over the whole file gives, in float64 and in multiples of `unit`.

    Attributes:
      unit: what all is a multiple of: 1 but for numbers of extreme sizes.
      usable: rows that count, bool [n]; norms, moments and extremes are theirs.
      not_finite: rows with a NaN or an infinity, bool [n].
      norms: of the rows as they are in the file [usable rows].
      level: rows of one value in all columns, zero or another [usable rows].
      prints: numbers that are equal where rows are equal, uint64 [usable rows].
      mean: [d].
      std: [d].
      covariance: divided by the number of rows [d, d].
      spread: mean of the fourth power of the distance from the mean.
      skewness: of each column [d]; NaN where it does not vary.
      kurtosis: excess over a Gaussian's, as skewness.
      constant: columns of one value, bool [d].
      far: rows of the largest shares of the variance, the largest first.
    """

    unit: float
    usable: np.ndarray
    not_finite: np.ndarray
    norms: np.ndarray
    level: np.ndarray
    prints: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray
    spread: float
    skewness: np.ndarray
    kurtosis: np.ndarray
    constant: np.ndarray
    far: list[results.RowShare]


def of_rows(
    array: np.ndarray,
    *,
    normalize: bool = False,
    unit: float = 1.0,
    block: int | None = None,
) -> Moments:
    """Reads all rows once, `block` at a time; None is about 32 MiB."""
    n, d = array.shape
    block = block or max(1, 2**22 // d)
    usable, not_finite, level = np.zeros((3, n), bool)
    norms, away, prints = np.zeros(n), np.zeros(n), np.zeros(n, np.uint64)
    random = np.random.default_rng(0)
    multipliers = random.integers(2**64, size=(d,), dtype=np.uint64)
    shift = width = np.zeros(d)
    count = 0
    sums = np.zeros((4, d))  # of the first four powers, each column in its width
    second = np.zeros((d, d))
    cubes, quartic = np.zeros(d), 0.0  # of |x|^2 x and |x|^4
    lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
    bar = tqdm.tqdm(
        total=n, unit="row", unit_scale=True, desc="moments", file=_text.TERMINAL
    )
    for i, x in enumerate(reading.blocks(array, block, unit)):
        rows = slice(i * block, i * block + len(x))
        finite = np.isfinite(x).all(axis=1)
        not_finite[rows] = ~finite
        norms[rows] = lengths(x)
        usable[rows] = finite & (norms[rows] > 0) if normalize else finite
        level[rows] = x.max(axis=1) == x.min(axis=1)
        prints[rows] = _prints(x, multipliers)
        x = x[usable[rows]]
        if normalize:
            x = x / norms[rows][usable[rows], None]
        if len(x):
            if not count:
                # Around rows of the file itself, so that a large mean cancels nothing,
                # and each column in about its own size, so that no power vanishes.
                shift = x.mean(axis=0)
                width = reading.power_of_two(np.abs(x - shift).max(axis=0))
            count += len(x)
            lowest = np.minimum(lowest, x.min(axis=0))
            highest = np.maximum(highest, x.max(axis=0))
            x -= shift
            with np.errstate(over="ignore", invalid="ignore"):
                second += x.T @ x
                square = x * x
                length = square.sum(axis=1)
                cubes += length @ x
                quartic += length @ length
                away[np.flatnonzero(usable[rows]) + rows.start] = length
                x /= width
                np.square(x, out=square)
                sums[0] += x.sum(axis=0)
                sums[1] += square.sum(axis=0)
                sums[2] += np.einsum("nd,nd->d", square, x)
                sums[3] += np.einsum("nd,nd->d", square, square)
        bar.update(rows.stop - rows.start)
    bar.close()
    sums, second, count = sums / max(count, 1), second / max(count, 1), max(count, 1)
    if not np.isfinite([quartic, *sums.ravel(), *norms[usable]]).all():
        largest = max(abs(lowest).max(), abs(highest).max()) * unit
        raise ValueError(
            "embeddings must have finite fourth moments in float64, got values up to "
            f"{largest:.3g} beside others of about {unit:.3g}; leave them out"
        )
    first = width * sums[0]
    variance, third, fourth = _central(sums)
    covariance = second - np.outer(first, first)
    # E|x - f|^4, f the mean, from moments around 0.
    square = first @ first
    spread = quartic / count - 4 * first @ cubes / count
    spread += 2 * square * np.trace(second) + 4 * first @ second @ first - 3 * square**2
    constant = (lowest == highest) | (variance <= 0)
    varies = np.where(constant, np.nan, variance)
    m = Moments(
        unit=unit,
        usable=usable,
        not_finite=not_finite,
        norms=norms[usable],
        level=level[usable],
        prints=prints[usable],
        mean=shift + first,
        std=width * np.sqrt(variance.clip(0)),
        covariance=covariance,
        spread=float(spread),
        skewness=third / varies**1.5,
        kurtosis=fourth / varies**2 - 3,
        constant=constant,
        far=[],
    )
    return m._replace(far=_far(array, m, away, normalize=normalize))


def lengths(x: np.ndarray) -> np.ndarray:
    """Norms of rows [n], also where squares of their numbers leave float64."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(x).max(axis=1, initial=0)
        size = np.where(largest > 0, largest, 1)
        scaled = x / size[:, None]
        return size * np.sqrt(np.einsum("nd,nd->n", scaled, scaled))


def _prints(x: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, equal where rows are, and hardly ever else."""
    bits = (x + 0.0).view(np.uint64)  # there is one zero
    # The last bits of a number that was a float32 are zeros, and would stay so.
    bits ^= bits >> np.uint64(32)
    bits *= np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    return (bits * multipliers).sum(axis=1, dtype=np.uint64)


def _central(powers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second to fourth central moments from means of the first four powers [4, d]."""
    first, second, third, fourth = powers
    return (
        second - first**2,
        third - 3 * first * second + 2 * first**3,
        fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4,
    )


def _far(
    array: np.ndarray, m: Moments, away: np.ndarray, *, normalize: bool
) -> list[results.RowShare]:
    """Rows of the largest shares in sum_i |x_i - mean|^2.

    Args:
      array: embeddings [n, d].
      m: of all rows.
      away: squared distances of the rows from a point that is about the mean [n].
      normalize: whether rows are divided by their norms.
    """
    total, rows = len(m.norms) * np.trace(m.covariance), np.flatnonzero(m.usable)
    if not total > 0:
        return []
    farthest = np.argsort(away[rows], kind="stable")[::-1][:_CANDIDATES]
    rows = np.union1d(rows[farthest], rows[:1])  # of which that point may be the first
    x = reading.pick(array, rows, m.unit)
    if normalize:
        x = x / lengths(x)[:, None]
    share = np.square(x - m.mean).sum(axis=1) / total
    order = np.argsort(-share, kind="stable")
    return [results.RowShare(int(rows[i]), float(share[i])) for i in order]


def outlying(m: Moments) -> list[results.RowShare]:
    """Rows with more of the variance than any of as many Gaussian rows would have.

    That is what the largest of n of them stays below in 99 of 100 cases, if of the same
    covariance. At most a hundred rows are named.
    """
    limit = largest_share(m)
    return [row for row in m.far if row.share > limit]


def largest_share(m: Moments) -> float:
    """Bound of the share that one of n Gaussian rows has of the variance."""
    n, total = len(m.norms), np.trace(m.covariance)
    if not total > 0:
        return 1.0
    # A chi-square of the same mean and variance; its tail is too light where one
    # direction is much longer than the others, and then that one's counts. It has at
    # most the length that all have together.
    along = np.linalg.norm(m.covariance) / total
    chance, degrees = 0.01 / n, 1 / along**2
    bound = stats.chi2.isf(chance, degrees) / degrees
    return float(max(bound, 1 - along + along * stats.chi2.isf(chance, 1)) / n)


def square_trace(m: Moments) -> float:
    """tr(S^2) of the covariance S of the law behind n rows x, of any law.

        n / ((n - 2) (n - 3)) ((n - 2) tr(C^2) + tr(C)^2 / (n - 1) - mean |x - mean|^4)

    is unbiased, C the covariance of the rows. tr(C^2) itself is too large, by about
    tr(C)^2 / n: with fewer rows than columns by more than what is asked for.

    The estimate leaves out what each row has with itself. Where a few rows have most of
    the variance nothing is left of them, and it tells of the others alone: below
    tr(S)^2 / d, which no S has, or below 0. There, and wherever it is out of its range
    by more than chance, it is that of the rows as they are.
    """
    n, d, biased = len(m.norms), np.sum(~m.constant), np.trace(m.covariance)
    own = np.square(m.covariance).sum()
    inner = (n - 2) * own + biased**2 / (n - 1) - m.spread
    unbiased, smallest = n / ((n - 2) * (n - 3)) * inner, trace(m) ** 2 / d
    # Of isotropic Gaussian rows it scatters by 2 / n of itself.
    if outlying(m) or unbiased * (1 + 4 * 2 / n) < smallest:
        return float(own * (n / (n - 1)) ** 2)
    return float(max(unbiased, smallest))


def participation(m: Moments) -> float:
    """tr(S)^2 / tr(S^2): as many dimensions as if all had the same variance."""
    return trace(m) ** 2 / square_trace(m)


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
    # By chance alone the mean of n rows adds tr(S^2) / n to m'Sm, which is not below 0.
    along = m.mean @ m.covariance @ m.mean * n / (n - 1) - square / n
    gaussian = np.sqrt(2 * square + 4 * max(along, 0.0)) / (2 * _mean_square(m))
    relative = m.norms / m.norms.max()
    return float(relative.std() / relative.mean()), float(gaussian)


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
            + f"; if each of its {width:,} columns is an embedding, transpose it"
            * (n < 20 <= width)
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
        mean=float(m.norms.mean() * m.unit),
        std=float(table.cv * m.norms.mean() * m.unit),
        min=float(m.norms.min() * m.unit),
        max=float(m.norms.max() * m.unit),
        cv=table.cv,
        cv_isotropic_gaussian=diagnostics.gaussian_norm_cv(d),
        cv_thin_shell_approximation=float(1 / np.sqrt(2 * d)),
        cv_gaussian_of_this_covariance=None if table.normalized else table.gaussian_cv,
    )


def mean(m: Moments, p_if_centered: float) -> results.Mean:
    """Of the mean row, and the p of a test that it is 0."""
    chance, square = trace(m) / len(m.norms), float(np.square(m.mean).sum())
    return results.Mean(
        norm=float(np.linalg.norm(m.mean) * m.unit),
        share_of_mean_square=square / _mean_square(m),
        # The rows themselves put it at -1 / (n - 1) at least: cutting it at 0 hides
        # nothing but chance.
        share_beyond_chance=max(square - chance, 0.0) / _mean_square(m),
        p_if_centered=p_if_centered,
    )


def eigenvalues(m: Moments, kept: np.ndarray) -> np.ndarray:
    """Of the covariance of the columns kept, the largest first."""
    return np.linalg.eigvalsh(m.covariance[np.ix_(kept, kept)])[::-1].clip(0)


def covariance(
    m: Moments,
    spectrum: np.ndarray,
    effective_rank: float,
    rank: int,
) -> results.Covariance:
    """Of all rows, and of the eigenvalues of their covariance [d], largest first."""
    d, n, total = len(spectrum), len(m.norms), float(spectrum.sum())
    largest, smallest = float(spectrum[0]), float(spectrum[-1])
    whole = smallest > 1e-12 * largest and rank == d
    return results.Covariance(
        trace=total * m.unit * m.unit or math.nan,
        largest_share=largest / total,
        condition=largest / smallest if whole else None,
        participation=participation(m),
        # Of isotropic Gaussian rows, where tr(S^2) scatters by 2 / n of itself.
        participation_std_if_isotropic=2 * d / n,
        rank_of_sample=rank,
        effective_rank_of_sample=effective_rank,
        rows=m.far[:5],
        outlying_rows=len(outlying(m)),
        share_of_outlying_rows=sum(row.share for row in outlying(m)),
        share_of_largest_gaussian_row=largest_share(m),
    )


def coordinates(
    m: Moments, kept: np.ndarray, ad: np.ndarray, dp: np.ndarray
) -> list[results.Coordinate]:
    """Moments of each column kept, its place in the file, and its tests [kept]."""
    return [
        results.Coordinate(
            column=int(i),
            mean=float(m.mean[i] * m.unit),
            std=float(m.std[i] * m.unit),
            skewness=float(m.skewness[i]),
            excess_kurtosis=float(m.kurtosis[i]),
            ad=float(statistic),
            dp_p=float(p),
        )
        for i, statistic, p in zip(np.flatnonzero(kept), ad, dp, strict=True)
    ]
