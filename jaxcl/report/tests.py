"""Tests of a sample: of each coordinate, of random directions, of several at once."""

from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxcl import diagnostics
from jaxcl.report import moments, results, rules


class Normality(NamedTuple):
    """Two tests of every column of a sample.

    Attributes:
      ad: Anderson-Darling statistics, corrected for the number of rows [d].
      dp: p-values of D'Agostino and Pearson [d].
      num_samples: rows tested.
    """

    ad: np.ndarray
    dp: np.ndarray
    num_samples: int

    def summary(self) -> results.Normality:
        return results.Normality(
            num_samples=self.num_samples,
            num_tested=len(self.ad),
            ad_mean=float(self.ad.mean()),
            ad_pass=float((self.ad < rules.AD_LIMIT).mean()),
            dp_mean=float(self.dp.mean()),
            dp_pass=float((self.dp > rules.DP_LIMIT).mean()),
            needed_pass=rules.needed_share(len(self.ad)),
        )


class Joint(NamedTuple):
    """Tests of several directions at once.

    Attributes:
      tests: by name.
      missing: why there are no others: "sphere" (normalized rows), "few_rows",
        "few_rows_for_columns", "singular" (the covariance).
      num_samples: rows tested.
      dimension: columns.
    """

    tests: dict[str, results.JointTest]
    missing: tuple[str, ...]
    num_samples: int
    dimension: int

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


def of_sample(
    tested: np.ndarray, *, normalized: bool, directions: int, seed: int
) -> Outcome:
    """All tests of the rows tested [m, d]."""
    d = tested.shape[1]
    centered = tested - tested.mean(axis=0)
    keys = jax.random.split(jax.random.key(seed))
    basis = diagnostics.random_projections(keys[0], d, min(d, directions))
    return Outcome(
        normality(tested),
        normality(centered @ np.asarray(basis, np.float64)),
        joint(centered, normalized, keys[1]),
    )


def normality(x: np.ndarray) -> Normality:
    """Tests the columns of x [n, d], which all vary."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    with jax.enable_x64(True):
        columns = jax.numpy.asarray(x)
        ad = np.asarray(diagnostics.anderson_darling(columns, corrected=True))
        dp = np.asarray(diagnostics.dagostino_pearson(columns)[1])
    return Normality(ad, dp, len(x))


def joint(x: np.ndarray, normalized: bool, key: jax.Array) -> Joint:
    """Tests of several directions at once.

    In a few random directions the usual tests keep their level. In all d they do not,
    unless n is many times d; Mardia's kurtosis does with its exact moments.

    Args:
      x: rows [n, d].
      normalized: rows on a sphere, for which nothing is computed.
      key: for the directions.

    Returns:
      The tests, and why others are missing.
    """
    if normalized:
        return Joint({}, ("sphere",), *x.shape)
    with jax.enable_x64(True):
        few, without_few = _few_directions(x, key)
        whole, without_whole = _all_columns(x)
    tests = {k: test for k, test in (few | whole).items() if np.isfinite(test.p)}
    missing = tuple(reason for reason in (without_few, without_whole) if reason)
    return Joint(tests, missing, *x.shape)


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
    x: np.ndarray, key: jax.Array
) -> tuple[dict[str, results.JointTest], str | None]:
    """Tests of the rows along random directions, or why there are none."""
    n, d = x.shape
    few = min(d, 8, n // 50)
    if few < 2:
        return {}, "few_rows"
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


def _all_columns(x: np.ndarray) -> tuple[dict[str, results.JointTest], str | None]:
    """The test of the rows as they are, or why there is none."""
    n, d = x.shape
    if n <= d + 1:
        return {}, "few_rows_for_columns"
    found = diagnostics.mardia_kurtosis(jax.numpy.asarray(x))
    if not np.isfinite(found.p):
        return {}, "singular"
    return {
        "mardia_kurtosis_of_all": results.JointTest(
            d, float(found.statistic), float(found.p)
        )
    }, None
