"""Pairs of rows, and rows from elsewhere: cosines, and how others are told apart."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from sklearn import metrics

from jaxcl import diagnostics, evaluation
from jaxcl.report import moments, reading, results
from jaxcl.report import sample as sampling

_BINS = 200  # of cosines, over [-1, 1]


class Pairs(NamedTuple):
    """Cosines of negative pairs and, where labels or pairs say so, of positive ones.

    Attributes:
      negative: of rows that do not belong together.
      positive: of rows that do, or None.
      usable: which sampled rows of `pairs` are, bool [m]; None without.
    """

    negative: "Cosines"
    positive: "Cosines | None"
    usable: np.ndarray | None


def compare_pairs(
    files: reading.Files, sample: sampling.Sample, *, normalize: bool
) -> Pairs:
    """Cosines of the sampled rows, by labels or by pairs."""
    labels = None if files.labels is None else files.labels[sample.rows]
    negative, positive = cosines(sample.z, labels)
    usable = None
    if files.pairs is not None:
        partner, usable = sampling.clean(
            files.pairs,
            sample.rows,
            sample.kept,
            normalize=normalize,
            unit=files.unit,
        )
        positive = paired_cosines(sample.z[usable], partner)
    return Pairs(negative, positive, usable)


class Apart(NamedTuple):
    """Separation of out-of-distribution embeddings, where there are any.

    Attributes:
      separation: of them, or None.
      usable: which rows drawn of `ood` are, bool [m]; None without.
    """

    separation: "Separation | None"
    usable: np.ndarray | None


def tell_apart(
    files: reading.Files,
    m: moments.Moments,
    kept: np.ndarray,
    random: np.random.Generator,
    *,
    max_samples: int,
    k: int,
    normalize: bool,
) -> Apart:
    """How well other embeddings are told from rows of the file."""
    if files.ood is None:
        return Apart(None, None)
    count = max(2 * max_samples, 20 * int(kept.sum()))
    rows = sampling.draw(random, np.flatnonzero(m.usable), count)
    more = random.permutation(rows)
    half = len(more) // 2
    clean = functools.partial(
        sampling.clean, kept=kept, normalize=normalize, unit=files.unit
    )
    fitted, held_out = (
        clean(files.array, np.sort(rows))[0]
        for rows in (more[:half], more[half:][:max_samples])
    )
    chosen = sampling.draw(random, np.arange(len(files.ood)), max_samples)
    outside, usable = clean(files.ood, chosen)
    if not usable.any():
        raise ValueError(f"ood must hold finite rows, got none of {len(usable)}")
    return Apart(separation(fitted, held_out, outside, k), usable)


class Cosines(NamedTuple):
    """Histogram of cosines over [-1, 1], and their exact moments."""

    counts: np.ndarray
    mean: float
    std: float

    def summary(self) -> results.Pairs:
        return results.Pairs(int(self.counts.sum()), self.mean, self.std)


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
    norm = moments.lengths(z)[:, None]
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
      inside: scores of held-out rows, by name; larger is stranger.
      outside: scores of the other rows, by name.
      num_fitted: rows that the scores were fitted on.
      num_inside: held-out rows.
      num_outside: other rows.
      dimension: columns.
      k: of the neighbor.
    """

    auroc: dict[str, float | None]
    inside: dict[str, np.ndarray]
    outside: dict[str, np.ndarray]
    num_fitted: int
    num_inside: int
    num_outside: int
    dimension: int
    k: int

    @property
    def chance_std(self) -> float:
        """Standard deviation of an AUROC if both samples are of one law."""
        m, q = self.num_inside, self.num_outside
        return float(np.sqrt((m + q + 1) / (12 * m * q)))


def separation(
    fitted: np.ndarray, inside: np.ndarray, outside: np.ndarray, k: int
) -> Separation:
    """Scores of strangeness: of a Gaussian fit, and of the k-th nearest neighbor."""
    scores: dict[str, list[np.ndarray]] = {}
    n, d = fitted.shape
    if n > d:  # else the covariance is singular
        with jax.enable_x64(True):
            gaussian = diagnostics.fit_gaussian(jax.numpy.asarray(fitted))
            scores["gaussian"] = [
                -np.asarray(diagnostics.log_likelihood(gaussian, jax.numpy.asarray(x)))
                for x in (inside, outside)
            ]
    if k <= n:
        scores["neighbors"] = [
            1 - evaluation.nearest(x, fitted, k).cosines[:, -1]
            for x in (inside, outside)
        ]
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    auroc: dict[str, float | None] = {"gaussian": None, "neighbors": None}
    for name, both in scores.items():
        auroc[name] = float(metrics.roc_auc_score(is_outside, np.concatenate(both)))
    return Separation(
        auroc=auroc,
        inside={name: both[0] for name, both in scores.items()},
        outside={name: both[1] for name, both in scores.items()},
        num_fitted=n,
        num_inside=len(inside),
        num_outside=len(outside),
        dimension=d,
        k=k,
    )
