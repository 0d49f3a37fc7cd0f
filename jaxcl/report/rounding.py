"""How finely numbers are rounded, and which directions vary by more than that."""

import jax.numpy as jnp
import numpy as np

# A direction counts where its variance is so many times that of rounding: tests do not
# see the rest. Sums made in the precision of the file carry the rounding of some terms.
_ABOVE = 100


def steps(x: np.ndarray, dtype: np.dtype, unit: float = 1.0) -> np.ndarray:
    """Root mean square of the distance between neighboring numbers, of each column.

    Numbers may have been rounded before they came to the file: float32 that are stored
    as float64, or bfloat16 as float32. The coarsest precision that has all of them
    tells.

    Args:
      x: rows in float64, in multiples of `unit` [m, d].
      dtype: of the file.
      unit: a power of 2.

    Returns:
      Steps in multiples of `unit` [d]; the rounding of uniform numbers between two has
      a twelfth of their square as variance.
    """
    mantissa, exponent = np.frexp(x)
    info = jnp.finfo(dtype)
    bits = info.nmant + 1
    for fewer in (8, 11, 24):  # bfloat16, float16, float32
        if fewer < bits and _whole(np.ldexp(mantissa, fewer)):
            bits = fewer
            break
    step = np.where(x == 0, 0.0, np.ldexp(1.0, exponent - bits))
    step = np.maximum(step, float(info.smallest_subnormal) / unit)
    largest = step.max(axis=0)
    return largest * np.sqrt(np.square(step / largest).mean(axis=0))


def resolved(x: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out what rounding may have put into directions that do not vary.

    Args:
      x: centered rows [m, d].
      step: of each column, as `steps` gives it [d].

    Returns:
      The rows along all r directions that vary by more than rounding [m, r], and the
      rows in the file's columns without the others [m, d]: both as they came if r = d.
    """
    (m, d), noise = x.shape, step / np.sqrt(12)
    # In multiples of it rounding is alike in all directions, whatever columns are.
    y = x / noise
    arithmetic = max(m, d) * np.finfo(float).eps
    if m <= d:
        _, values, axes = np.linalg.svd(y / np.sqrt(m), full_matrices=False)
        above = values**2 > max(_ABOVE, (arithmetic * values[0]) ** 2)
        strong = axes[above].T
    else:
        strong = _strong(y, arithmetic)
    if strong.shape[1] == d:
        return x, x
    along = y @ strong
    return along / along.std(axis=0), along @ strong.T * noise


def _strong(y: np.ndarray, arithmetic: float) -> np.ndarray:
    """Orthonormal directions of more variance than rounding has, as columns [d, r]."""
    m, d = y.shape
    covariance = y.T @ y / m
    most = float(np.linalg.norm(covariance))
    smallest = max(_ABOVE, arithmetic**2 * most)
    if _above(covariance, max(_ABOVE, arithmetic * most)):
        return np.eye(d)
    # Squares have lost weak directions: they are looked at again without strong ones.
    strong, rest = np.empty((d, 0)), np.eye(d)
    while rest.shape[1]:
        left = y @ rest
        values, axes = np.linalg.eigh(left.T @ left / m)
        kept = values > max(smallest, arithmetic * values[-1])
        strong = np.concatenate([strong, rest @ axes[:, kept]], axis=1)
        if values[-1] <= smallest:
            break
        rest = rest @ axes[:, ~kept]
    return strong


def _above(covariance: np.ndarray, smallest: float) -> bool:
    """Whether all eigenvalues are."""
    try:
        np.linalg.cholesky(covariance - smallest * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        return False
    return True


def _whole(x: np.ndarray) -> bool:
    return bool((x == np.round(x)).all())
