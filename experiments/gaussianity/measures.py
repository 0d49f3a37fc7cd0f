"""What is measured of an encoder, and the table that shows it."""

import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _tables, diagnostics, report, training


class Measures(NamedTuple):
    """Diagnostics of unnormalized embeddings z [n, d] of inputs as they are.

    Attributes:
      cv: standard deviation of the norm divided by its mean; 1 / sqrt(2 d) if Gaussian.
      ad_mean: mean over coordinates of the Anderson-Darling statistic; 0.385.
      ad_pass: share of coordinates in which it is below 0.752; 0.95.
      dp_mean: mean over coordinates of the D'Agostino-Pearson p-value; 0.5.
      dp_pass: share of coordinates in which it is above 0.05; 0.95.
      num_samples: embeddings that the two tests saw.
      num_constant: coordinates that do not vary; the tests leave them out.
      alignment: mean cosine of two views of one input.
      negative_mean: mean cosine of two inputs.
      negative_std: its standard deviation; 1 / sqrt(d) if uniform on the sphere.
      mean_norm: mean of |z|.
      mean_direction: length of the mean of z / |z|; 0 if centered.
      effective_rank: dimensions that the embeddings fill, at most d.
    """

    cv: float
    ad_mean: float
    ad_pass: float
    dp_mean: float
    dp_pass: float
    num_samples: int
    num_constant: int
    alignment: float
    negative_mean: float
    negative_std: float
    mean_norm: float
    mean_direction: float
    effective_rank: float


class Snapshot(NamedTuple):
    """Embeddings of one moment, and what is measured of them.

    Attributes:
      z: of inputs as they are [n, d].
      positives: cosines of two views [n].
      negatives: cosines of two inputs, of some pairs.
      measures: of them.
    """

    z: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    measures: Measures


def snapshot(
    z: Any, views: Any, *, max_samples: int = 5000, seed: int = 0, pairs: int = 500
) -> Snapshot:
    """Measures embeddings.

    Args:
      z: unnormalized embeddings of inputs as they are [n, d].
      views: of two views of each [n, 2, d].
      max_samples: embeddings that the tests see at most; more make them stricter.
      seed: of their choice.
      pairs: inputs of which cosines are kept for a histogram.

    Returns:
      A snapshot.
    """
    z, views = jnp.asarray(z), jnp.asarray(views)
    found = diagnostics.gaussianity_report(
        z, max_samples=max_samples, key=jax.random.key(seed)
    )
    positives = np.asarray(diagnostics.alignment_cosine(views[:, 0], views[:, 1]))
    negative_mean, negative_std = diagnostics.uniformity_cosine(z)
    host = np.asarray(z, np.float64)
    norms = np.linalg.norm(host, axis=1)
    u = host / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    # Inputs may be sorted by class, and those of one class are alike.
    some = u[np.sort(np.random.default_rng(seed).permutation(len(u))[:pairs])]
    measures = Measures(
        cv=float(found.cv),
        ad_mean=float(found.ad_mean),
        ad_pass=float(found.ad_pass),
        dp_mean=float(found.dp_mean),
        dp_pass=float(found.dp_pass),
        num_samples=int(found.num_samples),
        num_constant=int(found.num_constant),
        alignment=float(positives.mean()),
        negative_mean=float(negative_mean),
        negative_std=float(negative_std),
        mean_norm=float(norms.mean()),
        mean_direction=float(np.linalg.norm(u.mean(axis=0))),
        effective_rank=float(diagnostics.effective_rank(z)),
    )
    negatives = (some @ some.T)[np.triu_indices(len(some), 1)]
    return Snapshot(host, positives, negatives, measures)


def of_run(directory: str | os.PathLike) -> dict[int, Measures]:
    """What was measured while a run was trained, by step; none where that is lost."""
    try:
        records = training.read_metrics(directory)
    except (OSError, ValueError) as error:
        warnings.warn(f"measures of earlier steps are left out: {error}", stacklevel=2)
        return {}
    names = Measures._fields
    # A full disk may leave some of them out, a hand may add more.
    return {
        r["step"]: Measures(*(r[name] for name in names))
        for r in records
        if r.keys() >= set(names)
    }


def is_gaussian(m: Measures) -> bool:
    """Whether coordinates pass by the rule of `jaxcl.report`."""
    return report.coordinates_pass(
        ad_mean=m.ad_mean, ad_pass=m.ad_pass, dp_mean=m.dp_mean, dp_pass=m.dp_pass
    )


def table(rows: Sequence[tuple[str, Measures]], d: int) -> str:
    """The columns of the paper's Table 1, and what explains them.

    Args:
      rows: names and measures.
      d: size of the embedding.

    Returns:
      A Markdown table, with what Gaussian embeddings have as its last row.
    """
    head = ["", "CV", "AD avg", "AD pass", "DP avg", "DP pass", "Gaussian"]
    head += ["alignment", "neg. std", "norm", "norm m", "rank"]
    lines = [
        [
            name,
            f"{m.cv:.3f}",
            f"{m.ad_mean:.2f}",
            f"{m.ad_pass:.0%}",
            f"{m.dp_mean:.2f}",
            f"{m.dp_pass:.0%}",
            "yes" if is_gaussian(m) else "no",
            f"{m.alignment:.3f}",
            f"{m.negative_std:.3f}",
            f"{m.mean_norm:.2f}",
            f"{m.mean_direction:.2f}",
            f"{m.effective_rank:.0f}",
        ]
        for name, m in rows
    ]
    cv = f"{diagnostics.gaussian_norm_cv(d):.3f}"
    ideal = ["if Gaussian", cv, "0.38", "95%", "0.50", "95%", "yes"]
    ideal += ["", f"{d**-0.5:.3f}", "", "0.00", f"{d}"]
    return _tables.markdown(head, [*lines, ideal])
