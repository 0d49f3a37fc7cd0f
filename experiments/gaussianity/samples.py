"""What a random sample of the rows tells: tests of normality, cosines, separation."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from experiments.gaussianity import reading
from jaxcl import diagnostics, evaluation

AD_LIMIT = diagnostics.ANDERSON_DARLING_LIMIT
DP_LIMIT = 0.05
_BINS = 200  # of cosines, over [-1, 1]


def draw(random: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Sorted, as disks like it; `rows` themselves if there are not more."""
    if len(rows) <= count:
        return rows
    return np.sort(random.choice(rows, count, replace=False))


def clean(
    array: np.ndarray, rows: np.ndarray, kept: np.ndarray, *, normalize: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Some rows as they are tested.

    Args:
      array: embeddings [n, width].
      rows: places of the rows to read [m].
      kept: columns to keep, bool [width].
      normalize: whether rows are divided by their norms.

    Returns:
      Rows in float64 [usable rows, kept columns], and which of `rows` are usable:
      finite and, if normalized, not zero, bool [m].
    """
    x = reading.pick(array, rows)
    usable = np.isfinite(x).all(axis=1)
    if normalize:
        norm = np.linalg.norm(np.where(usable[:, None], x, 0), axis=1)
        usable = norm > 0
        x = x / np.where(usable, norm, 1)[:, None]
    return x[usable][:, kept], usable


class Normality(NamedTuple):
    """Two tests of every column of a sample.

    Attributes:
      ad: Anderson-Darling statistics, corrected for the number of rows [d].
      dp: p-values of D'Agostino and Pearson [d].
      needed: share of columns that must pass; perfect Gaussian data reach it in 99 of
        100 cases.
      num_samples: rows tested.
    """

    ad: np.ndarray
    dp: np.ndarray
    needed: float
    num_samples: int

    def summary(self) -> dict[str, Any]:
        return {
            "num_samples": self.num_samples,
            "num_tested": len(self.ad),
            "ad_mean": float(self.ad.mean()),
            "ad_pass": float((self.ad < AD_LIMIT).mean()),
            "dp_mean": float(self.dp.mean()),
            "dp_pass": float((self.dp > DP_LIMIT).mean()),
            "needed_pass": self.needed,
        }


def normality(x: np.ndarray) -> Normality:
    """Tests the columns of x [n, d], which all vary."""
    n, d = x.shape
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    with jax.enable_x64(True):
        columns = jax.numpy.asarray(x)
        ad = np.asarray(diagnostics.anderson_darling(columns, corrected=True))
        dp = np.asarray(diagnostics.dagostino_pearson(columns)[1])
    needed = min(0.85, float(stats.binom.ppf(0.01, d, 0.95)) / d)
    return Normality(ad, dp, needed, n)


def joint(x: np.ndarray, normalized: bool, key: jax.Array) -> dict[str, Any]:
    """Tests of several directions at once.

    In a few random directions the usual tests keep their level. In all d they do not,
    unless n is many times d; Mardia's kurtosis does with its exact moments.

    Args:
      x: rows [n, d].
      normalized: rows on a sphere, for which nothing is computed.
      key: for the directions.

    Returns:
      passed (None: not computed), tests, rule, found and means.
    """
    tests: dict[str, Any] = {}
    reasons = ["rows on a sphere are not jointly Gaussian, whatever the rest"]
    if not normalized:
        with jax.enable_x64(True):
            few, without_few = _few_directions(x, key)
            whole, without_whole = _all_columns(x)
        found = (few | whole).items()
        tests = {name: test for name, test in found if np.isfinite(test["p"])}
        reasons = [reason for reason in (without_few, without_whole) if reason]
    least = 0.05 / max(len(tests), 1)
    passed = all(test["p"] > least for test in tests.values()) if tests else None
    told = [", ".join(_told(*named) for named in tests.items())] if tests else []
    if reasons:
        told.append("not computed: " + "; ".join(reasons))
    means = {
        True: "Taken together, directions cannot be told from a Gaussian's.",
        False: "Taken together, directions differ from a Gaussian's: "
        f"{len(x)} rows tell.",
        None: "Nothing is known about directions taken together.",
    }[passed]
    rule = f"p > {least:.3g}"
    if len(tests) > 1:
        rule = f"all {rule}, which is 0.05 shared among {len(tests)} tests"
    return {
        "passed": passed,
        "tests": tests,
        "num_samples": len(x),
        "not_computed": reasons,
        "rule": rule if tests else "none",
        "found": "; ".join(told),
        "means": means,
    }


def _few_directions(x: np.ndarray, key: jax.Array) -> tuple[dict[str, Any], str]:
    """Tests of the rows along random directions, or why there are none."""
    n, d = x.shape
    few = min(d, 8, n // 50)
    if few < 2:
        return {}, f"fewer than 100 rows, {n}, are too few for joint tests"
    basis = np.asarray(diagnostics.random_projections(key, d, few), np.float64)
    seen = jax.numpy.asarray(x @ basis)
    mardia, zirkler = diagnostics.mardia(seen), diagnostics.henze_zirkler(seen)
    return {
        "mardia_skewness": {
            "directions": few,
            "statistic": float(mardia.skewness_statistic),
            "p": float(mardia.skewness_p),
        },
        "mardia_kurtosis": {
            "directions": few,
            "statistic": float(mardia.kurtosis_statistic),
            "p": float(mardia.kurtosis_p),
        },
        "henze_zirkler": {
            "directions": few,
            "statistic": float(zirkler.statistic),
            "p": float(zirkler.p),
        },
    }, ""


def _all_columns(x: np.ndarray) -> tuple[dict[str, Any], str]:
    """The test of the rows as they are, or why there is none."""
    n, d = x.shape
    if n <= d + 1:
        return {}, (
            f"a test of all columns at once needs more rows than columns, and {n} rows "
            f"of {d} were tested"
        )
    found = diagnostics.mardia_kurtosis(jax.numpy.asarray(x))
    if not np.isfinite(found.p):
        return {}, (
            f"the covariance of all {d} columns is singular: some depend linearly on "
            "others"
        )
    return {
        "mardia_kurtosis_of_all": {
            "directions": d,
            "statistic": float(found.statistic),
            "p": float(found.p),
        }
    }, ""


def _told(name: str, test: dict[str, Any]) -> str:
    if name == "mardia_kurtosis_of_all":
        return (
            f"mardia kurtosis of all {test['directions']} columns "
            f"{test['statistic']:.2f} standard errors off, p {test['p']:.2g}"
        )
    return (
        f"{name.replace('_', ' ')} p {test['p']:.2g} ({test['directions']} directions)"
    )


class Cosines(NamedTuple):
    """Histogram of cosines over [-1, 1], and their exact moments."""

    counts: np.ndarray
    mean: float
    std: float

    def summary(self) -> dict[str, Any]:
        return {"pairs": int(self.counts.sum()), "mean": self.mean, "std": self.std}


def cosines(z: np.ndarray, labels: np.ndarray | None) -> tuple[Cosines, Cosines | None]:
    """Of all pairs of rows: those of different labels, and those of the same.

    Without labels all pairs are negatives. One block of rows at a time.
    """
    unit = _unit(z)
    counts, sums = np.zeros((2, _BINS), np.int64), np.zeros((2, 2))
    for start in range(0, len(unit), 512):
        rows = np.arange(start, min(start + 512, len(unit)))
        cosine = unit[rows] @ unit[start:].T
        later = rows[:, None] < np.arange(start, len(unit))[None, :]
        same = np.zeros_like(later)
        if labels is not None:
            same = labels[rows][:, None] == labels[start:][None, :]
        for kind, chosen in enumerate((later & ~same, later & same)):
            _count(cosine[chosen], counts[kind], sums[kind])
    negative, positive = (_cosines(c, s) for c, s in zip(counts, sums, strict=True))
    if negative is None:
        raise ValueError("labels must have at least two classes among the rows sampled")
    return negative, positive


def paired_cosines(z: np.ndarray, positives: np.ndarray) -> Cosines | None:
    """Of row i with its positive, row i of the other array."""
    counts, sums = np.zeros(_BINS, np.int64), np.zeros(2)
    _count(np.einsum("nd,nd->n", _unit(z), _unit(positives)), counts, sums)
    return _cosines(counts, sums)


def _unit(z: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(norm > 0, norm, 1)


def _count(cosine: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> None:
    counts += np.histogram(cosine.clip(-1, 1), _BINS, (-1, 1))[0]
    sums += cosine.sum(), np.square(cosine).sum()


def _cosines(counts: np.ndarray, sums: np.ndarray) -> Cosines | None:
    if not counts.sum():
        return None
    mean, square = sums / counts.sum()
    return Cosines(counts, float(mean), float(np.sqrt(max(square - mean**2, 0))))


class Separation(NamedTuple):
    """How well scores tell other embeddings from held-out ones.

    Attributes:
      auroc: by name of the score; None where it could not be computed.
      reasons: why not, by name of the score.
      inside: scores of held-out rows, by name; larger is stranger.
      outside: scores of the other rows, by name.
      num_fitted: rows that the scores were fitted on.
      num_inside: held-out rows.
      num_outside: other rows.
    """

    auroc: dict[str, float | None]
    reasons: dict[str, str]
    inside: dict[str, np.ndarray]
    outside: dict[str, np.ndarray]
    num_fitted: int
    num_inside: int
    num_outside: int

    def summary(self) -> dict[str, Any]:
        m, q = self.num_inside, self.num_outside
        return {
            "auroc": self.auroc,
            "not_computed": self.reasons,
            "chance_std": float(np.sqrt((m + q + 1) / (12 * m * q))),
            "num_fitted": self.num_fitted,
            "num_held_out": m,
            "num_other": q,
        }


def separation(
    fitted: np.ndarray, inside: np.ndarray, outside: np.ndarray, k: int
) -> Separation:
    """Scores of strangeness: of a Gaussian fit, and of the k-th nearest neighbor."""
    scores: dict[str, list[np.ndarray]] = {}
    reasons: dict[str, str] = {}
    n, d = fitted.shape
    if n > d:
        with jax.enable_x64(True):
            gaussian = diagnostics.fit_gaussian(jax.numpy.asarray(fitted))
            scores["gaussian"] = [
                -np.asarray(diagnostics.log_likelihood(gaussian, jax.numpy.asarray(x)))
                for x in (inside, outside)
            ]
    else:
        reasons["gaussian"] = f"a covariance needs more rows than columns, {n} <= {d}"
    if k <= n:
        scores["neighbors"] = [
            1 - evaluation.nearest(x, fitted, k).cosines[:, -1]
            for x in (inside, outside)
        ]
    else:
        reasons["neighbors"] = f"k = {k} neighbors of {n} rows"
    return Separation(
        auroc={name: auroc(*both) for name, both in scores.items()}
        | dict.fromkeys(reasons),
        reasons=reasons,
        inside={name: both[0] for name, both in scores.items()},
        outside={name: both[1] for name, both in scores.items()},
        num_fitted=n,
        num_inside=len(inside),
        num_outside=len(outside),
    )


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a row from outside scores higher than one from inside; ties half."""
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    excess = ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    return float(excess / (len(inside) * len(outside)))
