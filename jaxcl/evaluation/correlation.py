"""How well similarities of sentences agree with those that people have given."""

import numpy as np

from jaxcl import _checks


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation.

    Pearson's correlation of the ranks, where equal values share the mean of theirs.

    Args:
      x: numbers [n], n >= 2.
      y: numbers [n].

    Returns:
      A number in [-1, 1]; NaN where all of x, or all of y, are equal.

    Raises:
      ValueError: if they are not finite numbers [n], of one length, n >= 2.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]))
    1.0
    """
    x, y = _numbers("x", x), _numbers("y", y)
    if len(x) != len(y):
        raise ValueError(f"x and y must have one length, got {len(x)} and {len(y)}")
    a, b = (_ranks(values) - (len(x) + 1) / 2 for values in (x, y))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")


def pair_correlation(
    first: np.ndarray, second: np.ndarray, scores: np.ndarray
) -> float:
    """Spearman's correlation of the cosines of pairs with their scores.

    Pairs of all parts of a set are ranked together: the aggregation that is called
    "all", and not the mean over parts.

    Args:
      first: representations of one sentence of each pair, [n, r].
      second: of the other, [n, r].
      scores: how similar people find them, [n].

    Returns:
      A number in [-1, 1]. The cosine with a row of zeros is 0.

    Raises:
      ValueError: if the shapes do not fit.

    Source:
      SimCSE, https://arxiv.org/abs/2104.08821, appendix B.

    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> y = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> pair_correlation(x, y, np.array([5.0, 3.0, 0.0]))
    1.0
    """
    first, second = np.asarray(first), np.asarray(second)
    _checks.array("first", first, "n r")
    _checks.array("second", second, "n r")
    _checks.same_shape("first", first, "second", second)
    a, b = (x.astype(np.float64) for x in (first, second))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = (a * b).sum(axis=1)
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return spearman(cosines, scores)


def _numbers(name: str, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    _checks.array(name, x, "n")
    if len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"{name} must be two or more finite numbers, got {len(x)}")
    return x.astype(np.float64)


def _ranks(x: np.ndarray) -> np.ndarray:
    """From 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
