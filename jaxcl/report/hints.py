"""What makes embeddings look other than they are: copies, far rows, values that repeat.

None of it changes a test. It is counted, so that the verdict can say why.
"""

import numpy as np

from jaxcl.report import moments, results, tests
from jaxcl.report import sample as sampling

_FEW_VALUES = 50
_LEAST_ROWS = 100  # among fewer rows a value that repeats says little


def find(
    m: moments.Moments,
    table: moments.Table,
    sample: sampling.Sample,
    outcome: tests.Outcome,
    different: tests.Outcome | None,
) -> results.Hints:
    """Counts what stands out.

    Args:
      m: of all rows.
      table: what can be tested, and as what.
      sample: the rows tested.
      outcome: of the tests.
      different: of the same tests without copies, where there are many.
    """
    used, width = len(m.norms), len(m.constant)
    x = sample.tested[sample.different]
    repeated, few = np.zeros(x.shape[1]), np.zeros(x.shape[1], bool)
    if len(x) >= _LEAST_ROWS:
        ends = (x.min(axis=0), x.max(axis=0), np.zeros(x.shape[1]))
        shares = np.array([(x == end).mean(axis=0) for end in ends])
        repeated = shares.max(axis=0)
        values = 1 + (np.diff(np.sort(x, axis=0), axis=0) > 0).sum(axis=0)
        few = values < min(_FEW_VALUES, len(x) / 2)
        # Of k equal steps of a Gaussian's rounding the middle one has about 3 / k.
        repeated = np.where(repeated > 10 / values, repeated, 0)
    repeating = repeated > 0.01
    norms = m.norms[m.norms > 0] / m.norms.max()
    return results.Hints(
        copies=used - len(np.unique(m.prints)),
        copies_explain=explains(outcome, different),
        zero_rows=int((m.norms == 0).sum()),
        others_of_one_norm=bool(norms.std() < 0.02 * table.gaussian_cv * norms.mean()),
        level_rows=int((m.level & (m.norms > 0)).sum()),
        columns_of_few_values=int((few & ~repeating).sum()),
        columns_repeating=int(repeating.sum()),
        repeated_share=float(np.median(repeated[repeating])) if repeating.any() else 0,
        repeated_zero=bool(((x == 0).mean(axis=0) == repeated)[repeating].all()),
        maybe_transposed=width > 4 * len(m.usable),
    )


def explains(outcome: tests.Outcome, different: tests.Outcome | None) -> bool | None:
    """Whether rows without copies pass what all fail; None: not asked."""
    if different is None or (outcome.passed and outcome.joint.passed is not False):
        return None
    return different.passed and different.joint.passed is not False
