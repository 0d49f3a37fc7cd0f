"""Everything that one run finds out, and the numbers of it that are kept."""

from typing import NamedTuple

import jax
import numpy as np

from jaxcl import diagnostics
from jaxcl.report import comparisons, moments, reading, results, tests, verdict, words
from jaxcl.report import hints as hints_lib
from jaxcl.report import sample as sampling


class Found(NamedTuple):
    """All that the results and the pictures tell."""

    files: reading.Files
    moments: moments.Moments
    table: moments.Table
    sample: sampling.Sample
    eigenvalues: np.ndarray  # of the covariance of all rows, the largest first [d]
    tests: tests.Outcome
    different: tests.Outcome | None  # of rows without copies, where there are many
    pairs: comparisons.Pairs
    apart: comparisons.Apart


def numbers(found: Found) -> results.Numbers:
    """All that was measured, in numbers and notes."""
    files, m, table, sample, eigenvalues, outcome, different, pairs, apart = found
    n, width, d, used = *files.array.shape, len(eigenvalues), len(m.norms)
    bad = np.flatnonzero(m.not_finite)
    scaled = jax.numpy.asarray(sample.z / np.abs(sample.z).max(), "f4")
    rank = float(diagnostics.effective_rank(scaled))
    hints = hints_lib.find(m, table, sample, outcome, different)
    separation, coordinates = apart.separation, outcome.coordinates
    return results.Numbers(
        file=files.name,
        shape=(n, width),
        dtype=str(files.array.dtype),
        normalized=table.normalized,
        rows=results.Rows(
            in_file=n,
            not_finite=len(bad),
            first_not_finite=bad[:5].tolist(),
            without_direction=n - used - len(bad),
            used=used,
            sampled=len(sample.z),
        ),
        columns=results.Columns(
            in_file=width,
            left_out=width - d,
            first_left_out=np.flatnonzero(~sample.kept)[:5].tolist(),
            tested=d,
        ),
        norms=moments.norms(m, table, d),
        mean=moments.mean(m, tests.centered(m)),
        covariance=moments.covariance(m, eigenvalues, rank, outcome.joint.rank),
        coordinates=coordinates.summary(),
        directions=outcome.directions.summary(),
        joint=verdict.of_joint_tests(outcome.joint),
        cosines=results.Cosines(
            reference_std=float(1 / np.sqrt(d)),
            negatives_are_all_pairs=files.labels is None,
            negative=pairs.negative.summary(),
            positive=pairs.positive.summary() if pairs.positive else None,
        ),
        ood=words.out_of_distribution(separation) if separation else None,
        hints=hints,
        notes=[
            *files.notes,
            *words.of_rows(m, table),
            *words.of_hints(m, sample, hints),
            *words.of_sample(sample, table),
            *words.of_comparisons(files, pairs, apart),
        ],
        per_coordinate=moments.coordinates(
            m, sample.kept, coordinates.ad, coordinates.dp
        ),
    )
