"""Random rows of a file: those that tests of normality and cosines see."""

from typing import NamedTuple

import numpy as np

from jaxcl.report import moments, reading


class Sample(NamedTuple):
    """Random rows of the file.

    Attributes:
      rows: their places in the file [m].
      z: the rows, for cosines [m, d].
      tested: those of them that tests of normality see, in random order [., d].
      different: those tested that are no copies of one before them, bool [.].
      kept: columns that vary among the rows tested, bool [width] of sum d.
    """

    rows: np.ndarray
    z: np.ndarray
    tested: np.ndarray
    different: np.ndarray
    kept: np.ndarray


def of_file(
    files: reading.Files,
    m: moments.Moments,
    table: moments.Table,
    random: np.random.Generator,
    *,
    max_samples: int,
    normalize: bool,
) -> Sample:
    """Draws rows, and leaves out columns that do not vary among them.

    Args:
      files: opened.
      m: of all rows.
      table: what can be tested.
      random: of the choice.
      max_samples: rows at most.
      normalize: whether rows are divided by their norms.

    Returns:
      The sample.

    Raises:
      ValueError: if fewer than 2 columns vary.
    """
    rows = draw(random, np.flatnonzero(m.usable), max_samples)
    z, _ = clean(files.array, rows, table.kept, normalize=normalize, unit=files.unit)
    order = random.permutation(len(z))
    # Normalized rows are never exactly Gaussian, and enough of them tell: at
    # 2/3 (d + 2)^2 rows one in seven perfectly uniform spheres fails the rule, at half
    # as many one in thirty.
    limit = max(20, (z.shape[1] + 2) ** 2 // 3) if table.normalized else len(z)
    tested = z[order[:limit]]
    prints = m.prints[np.searchsorted(np.flatnonzero(m.usable), rows)]
    different = np.zeros(len(tested), bool)
    different[np.unique(prints[order[:limit]], return_index=True)[1]] = True
    kept = table.kept.copy()
    varies = np.ptp(tested, axis=0) > 0
    if not varies.all():
        kept[np.flatnonzero(kept)[~varies]] = False
        z, tested = z[:, varies], tested[:, varies]
        if kept.sum() < 2:
            raise ValueError(
                "file must hold at least 2 columns that vary among the rows tested, "
                f"got {kept.sum()} of {len(kept)}; more max_samples may help"
            )
    return Sample(rows, z, tested, different, kept)


def draw(random: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Some of the rows, sorted, as disks like it; all if there are not more."""
    if len(rows) <= count:
        return rows
    return np.sort(random.choice(rows, count, replace=False))


def clean(
    array: np.ndarray,
    rows: np.ndarray,
    kept: np.ndarray,
    *,
    normalize: bool,
    unit: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Some rows as they are tested.

    Args:
      array: embeddings [n, width].
      rows: places of the rows to read [m].
      kept: columns to keep, bool [width].
      normalize: whether rows are divided by their norms.
      unit: what to divide all rows by.

    Returns:
      Rows in float64 [usable rows, kept columns], and which of `rows` are usable:
      finite and, if normalized, not zero, bool [m].
    """
    x = reading.pick(array, rows, unit)
    usable = np.isfinite(x).all(axis=1)
    if normalize:
        norm = moments.lengths(np.where(usable[:, None], x, 0))
        usable = norm > 0
        x = x / np.where(usable, norm, 1)[:, None]
    return x[usable][:, kept], usable
