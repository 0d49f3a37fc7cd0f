"""What every probe asks of its arguments, said once."""

import jax
import jax.numpy as jnp
import numpy as np


def representation(
    name: str, h: jax.typing.ArrayLike, width: int | None = None
) -> np.ndarray:
    """h as a finite NumPy array [n, r] of float32, or float64 where it came so."""
    array = np.asarray(h)
    # Unlike NumPy's, this issubdtype knows that bfloat16 is floating point.
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}")
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{name} must be [n, r] with n, r >= 1, got shape {array.shape}"
        )
    if width is not None and array.shape[1] != width:
        raise ValueError(f"{name} must be [n, {width}], got shape {array.shape}")
    if array.dtype != np.float64:
        array = array.astype(np.float32, copy=False)
    rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(rows):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {len(rows)} of "
            f"{len(array)} rows, the first is row {rows[0]}"
        )
    return array


def labels(
    name: str,
    labels: jax.typing.ArrayLike,
    length: int | None = None,
    num_classes: int | None = None,
) -> np.ndarray:
    """Labels as a NumPy array [n] of int64."""
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be [n] with n >= 1, got shape {array.shape}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} must be [{length}], one per row, got {array.shape}")
    if num_classes is not None and not 0 <= array.min() <= array.max() < num_classes:
        raise ValueError(
            f"{name} must lie in [0, {num_classes}), "
            f"got values from {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def count(name: str, value: int, at_least: int = 1) -> int:
    """An integer that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def positive(name: str, value: float) -> float:
    """A finite number above zero."""
    if not np.ndim(value) == 0 or not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)
