"""Tests of a sample: of each coordinate, of random directions, of several at once."""

from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxcl import diagnostics
from jaxcl.report import moments, results, rounding, rules


class Normality(NamedTuple):
    """Two tests of every column of a sample.

    Attributes:
      ad: Anderson-Darling statistics, corrected for the number of rows [d].
      dp: p-values of D'Agostino and Pearson [d].
      num_samples: rows tested.
      independent: to how many independent columns they amount, 1 to d.
    """

    ad: np.ndarray
    dp: np.ndarray
    num_samples: int
    independent: float

    def summary(self) -> results.Normality:
        return results.Normality(
            num_samples=self.num_samples,
            num_tested=len(self.ad),
            ad_mean=float(self.ad.mean()),
            ad_pass=float((self.ad < rules.AD_LIMIT).mean()),
            dp_mean=float(self.dp.mean()),
            dp_pass=float((self.dp > rules.DP_LIMIT).mean()),
            needed_pass=rules.needed_share(round(self.independent)),
        )


class Joint(NamedTuple):
    """Tests of several directions at once.

    Attributes:
      tests: by name.
      missing: why there are no others: "sphere" (normalized rows), "few_rows",
        "few_rows_for_directions", "no_direction" that varies by more than rounding,
        "singular" (the covariance of the few directions).
      num_samples: rows tested.
      dimension: columns.
      rank: directions that vary by more than rounding.
    """

    tests: dict[str, results.JointTest]
    missing: tuple[str, ...]
    num_samples: int
    dimension: int
    rank: int

    @property
    def level(self) -> float:
        """Smallest p that passes: 0.05 shared among the tests."""
        return 0.05 / max(len(self.tests), 1)

    @property
    def passed(self) -> bool | None:
        """Whether all do; None where there is none."""
        if not self.tests:
            return None
        return all(test.p > self.level for test in self.tests.values())


class Outcome(NamedTuple):
    """Tests of coordinates, of random directions, and of several directions at once."""

    coordinates: Normality
    directions: Normality
    joint: Joint

    @property
    def passed(self) -> bool:
        """Whether coordinates and random directions do."""
        return passes(self.coordinates.summary()) and passes(self.directions.summary())


def of_sample(
    tested: np.ndarray,
    step: np.ndarray,
    *,
    normalized: bool,
    directions: int,
    seed: int,
) -> Outcome:
    """All tests of the rows tested [m, d], rounded in steps [d] as `rounding` says."""
    d = tested.shape[1]
    centered = tested - tested.mean(axis=0)
    keys = jax.random.split(jax.random.key(seed))
    basis = diagnostics.random_projections(keys[0], d, min(d, directions))
    return Outcome(
        normality(tested),
        normality(centered @ np.asarray(basis, np.float64)),
        joint(centered, step, normalized, keys[1]),
    )


def passes(x: results.Normality) -> bool:
    """Whether columns cannot be told from a Gaussian's."""
    return rules.coordinates_pass(
        ad_mean=x.ad_mean,
        ad_pass=x.ad_pass,
        dp_mean=x.dp_mean,
        dp_pass=x.dp_pass,
        needed=x.needed_pass,
    )


def normality(x: np.ndarray) -> Normality:
    """Tests the columns of x [n, d], which all vary."""
    x = x - x.mean(axis=0)
    x = x / np.abs(x).max(axis=0)  # squares of tiny numbers are 0
    x = x / x.std(axis=0)
    with jax.enable_x64(True):
        columns = jax.numpy.asarray(x)
        ad = np.asarray(diagnostics.anderson_darling(columns, corrected=True))
        dp = np.asarray(diagnostics.dagostino_pearson(columns)[1])
    return Normality(ad, dp, len(x), _independent(x))


def _independent(x: np.ndarray) -> float:
    """To how many independent columns standardized ones [n, d] amount.

    d^2 / sum_ij r_ij^2 of their correlations r: d if there are none, and about the rank
    for columns that mix few directions. By chance alone each square is 1 / n.
    """
    n, d = x.shape
    products = x.T @ x if d <= n else x @ x.T  # of one sum of squares
    squares = np.square(products / n).sum() - d * (d - 1) / n
    return float(np.clip(d**2 / max(squares, d), 1, d))


def joint(x: np.ndarray, step: np.ndarray, normalized: bool, key: jax.Array) -> Joint:
    """Tests of several directions at once.

    In a few random directions the usual tests keep their level. In all d they do not,
    unless n is many times d; Mardia's kurtosis does with its exact moments. Directions
    that vary by no more than rounding are not tested: rounding is not Gaussian.

    Args:
      x: centered rows [n, d].
      step: between neighboring numbers of each column [d].
      normalized: rows on a sphere, for which nothing is computed.
      key: for the directions.

    Returns:
      The tests, and why others are missing.
    """
    along, x = rounding.resolved(x, step)
    (n, d), rank = x.shape, along.shape[1]
    if normalized:
        return Joint({}, ("sphere",), n, d, rank)
    if not rank:
        return Joint({}, ("no_direction",), n, d, rank)
    with jax.enable_x64(True):
        few, without_few = _few_directions(x, rank, key)
        whole, without_whole = _all_directions(along)
    computed = few | whole
    tests = {k: test for k, test in computed.items() if np.isfinite(test.p)}
    without_some = "singular" if len(tests) < len(computed) else None
    reasons = (without_few, without_whole, without_some)
    missing = tuple(reason for reason in reasons if reason)
    return Joint(tests, missing, n, d, rank)


def centered(m: moments.Moments) -> float:
    """The p of a test that the rows lie around 0.

    Of rows around 0, n |mean|^2 / tr(S) is F-distributed: exactly so if isotropic, else
    with about as many degrees of freedom as there are directions in use.
    """
    n, trace = len(m.norms), moments.trace(m)
    used = trace**2 / moments.square_trace(m)
    statistic = n * float(np.square(m.mean).sum()) / trace
    return float(stats.f.sf(statistic, used, used * (n - 1)))


def _few_directions(
    x: np.ndarray, rank: int, key: jax.Array
) -> tuple[dict[str, results.JointTest], str | None]:
    """Tests of the rows along random directions, or why there are none."""
    n, d = x.shape
    if n < 100:
        return {}, "few_rows"
    few = min(rank, 8, n // 50)
    basis = np.asarray(diagnostics.random_projections(key, d, few), np.float64)
    seen = jax.numpy.asarray(x @ basis)
    mardia, zirkler = diagnostics.mardia(seen), diagnostics.henze_zirkler(seen)
    return {
        "mardia_skewness": results.JointTest(
            few, float(mardia.skewness_statistic), float(mardia.skewness_p)
        ),
        "mardia_kurtosis": results.JointTest(
            few, float(mardia.kurtosis_statistic), float(mardia.kurtosis_p)
        ),
        "henze_zirkler": results.JointTest(
            few, float(zirkler.statistic), float(zirkler.p)
        ),
    }, None


def _all_directions(
    x: np.ndarray,
) -> tuple[dict[str, results.JointTest], str | None]:
    """The test of the rows in all directions that vary, or why there is none."""
    n, rank = x.shape
    if n <= rank + 1:
        return {}, "few_rows_for_directions"
    found = diagnostics.mardia_kurtosis(jax.numpy.asarray(x))
    return {
        "mardia_kurtosis_of_all": results.JointTest(
            rank, float(found.statistic), float(found.p)
        )
    }, None
