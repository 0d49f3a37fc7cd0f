"""Static checks that name the argument, what came and what was expected.

They read shapes, dtypes and concrete numbers only, so under `jit` they cost nothing.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def embeddings(name: str, x: Any, axes: str) -> None:
    """Checks that `x` is a floating array with one axis for each word of `axes`.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      axes: names of the expected axes, separated by spaces: "b v d".

    Returns:
      Nothing.

    Raises:
      TypeError: if `x` is no array, or not of a floating dtype.
      ValueError: if the number of axes is another one.
    """
    array(name, x, axes)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating array {_shape(axes)}, got dtype {x.dtype}"
        )
    if 0 in x.shape and axes != "k d":  # a queue may be empty
        raise ValueError(
            f"{name} must hold at least one embedding of one number, got {x.shape}"
        )


def array(name: str, x: Any, axes: str) -> None:
    """Checks that `x` is an array with one axis for each word of `axes`.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      axes: names of the expected axes, separated by spaces.

    Returns:
      Nothing.

    Raises:
      TypeError: if `x` is no array.
      ValueError: if the number of axes is another one.
    """
    if not isinstance(x, jax.Array | np.ndarray):
        raise TypeError(
            f"{name} must be an array {_shape(axes)}, got {type(x).__name__}"
        )
    if x.ndim != len(axes.split()):
        raise ValueError(f"{name} must have shape {_shape(axes)}, got {x.shape}")


def same_shape(name: str, x: Any, other_name: str, other: Any) -> None:
    """Checks that two arrays have one shape.

    Args:
      name: what the caller calls the first array.
      x: the first array.
      other_name: what the caller calls the second array.
      other: the second array.

    Returns:
      Nothing.

    Raises:
      ValueError: if the shapes differ.
    """
    if x.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name} must have one shape, "
            f"got {x.shape} and {other.shape}"
        )


def paired(name: str, x: Any, other_name: str, other: Any) -> None:
    """Checks that two arrays are embeddings [b, d] of one shape.

    Args:
      name: what the caller calls the first array.
      x: the first array.
      other_name: what the caller calls the second array.
      other: the second array.

    Returns:
      Nothing.

    Raises:
      TypeError: as `embeddings`.
      ValueError: as `embeddings`, or if the shapes differ.
    """
    embeddings(name, x, "b d")
    embeddings(other_name, other, "b d")
    same_shape(name, x, other_name, other)


def same_width(name: str, x: Any, other_name: str, other: Any) -> None:
    """Checks that two arrays of embeddings have one embedding size.

    Args:
      name: what the caller calls the first array.
      x: the first array [..., d].
      other_name: what the caller calls the second array.
      other: the second array [..., d].

    Returns:
      Nothing.

    Raises:
      ValueError: if the last axes differ.
    """
    if x.shape[-1] != other.shape[-1]:
        raise ValueError(
            f"{name} and {other_name} must have one embedding size, "
            f"got {x.shape} and {other.shape}"
        )


def mask(name: str, x: Any, length: int) -> None:
    """Checks that `x` is None or a boolean array [length].

    Args:
      name: what the caller calls the argument.
      x: the argument.
      length: the expected number of entries.

    Returns:
      Nothing.

    Raises:
      TypeError: if the dtype is not bool.
      ValueError: if the shape is not [length].
    """
    if x is None:
        return
    array(name, x, "n")
    if x.dtype != bool:
        raise TypeError(f"{name} must be a boolean array [n], got dtype {x.dtype}")
    if x.shape[0] != length:
        raise ValueError(f"{name} must have shape ({length},), got {x.shape}")


def labels(name: str, x: Any, length: int) -> None:
    """Checks that `x` is an integer array [length].

    Args:
      name: what the caller calls the argument.
      x: the argument.
      length: the expected number of entries.

    Returns:
      Nothing.

    Raises:
      TypeError: if the dtype is not an integer.
      ValueError: if the shape is not [length].
    """
    array(name, x, "n")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} must be an integer array [n], got dtype {x.dtype}")
    if x.shape[0] != length:
        raise ValueError(f"{name} must have shape ({length},), got {x.shape}")
    if isinstance(x, np.ndarray) and x.size and jnp.result_type(int) == jnp.int32:
        # JAX would cut these to 32 bits, and make different labels equal.
        lowest, highest = int(x.min()), int(x.max())
        if not -(2**31) <= lowest <= highest < 2**31:
            raise ValueError(
                f"{name} must fit into 32 bits, got values from {lowest} to {highest}; "
                "number them anew, or enable jax_enable_x64"
            )


def count(name: str, value: Any, at_least: int = 1) -> int:
    """Checks that a number of things is an integer and large enough.

    Args:
      name: what the caller calls the argument.
      value: the argument; NumPy's integers count, booleans do not.
      at_least: the smallest allowed value.

    Returns:
      A Python integer, whose powers do not wrap.

    Raises:
      TypeError: if it is no integer.
      ValueError: if it is smaller.

    >>> count("batch_size", np.int32(8))
    8
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def positive(name: str, x: Any) -> None:
    """Checks that a number is positive, where its value is known already.

    Args:
      name: what the caller calls the argument.
      x: a number or an array of shape []; a traced value passes.

    Returns:
      Nothing.

    Raises:
      TypeError: if `x` is no real number.
      ValueError: if `x` is not a scalar, or not positive and finite.
    """
    value = scalar(name, x)
    if value is not None and not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value:g}")


def within(name: str, x: Any, low: float, high: float) -> None:
    """Checks that a number lies in [low, high), where its value is known already.

    Args:
      name: what the caller calls the argument.
      x: a number or an array of shape []; a traced value passes.
      low: the least allowed value.
      high: what it must stay below.

    Returns:
      Nothing.

    Raises:
      TypeError: if `x` is no real number.
      ValueError: if `x` is not a scalar, or outside.
    """
    value = scalar(name, x)
    if value is not None and not low <= value < high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {value:g}")


def no_negative(name: str, x: Any) -> None:
    """Checks that weights are finite and not negative, where they are known already.

    Args:
      name: what the caller calls the argument.
      x: an array; a traced one passes.

    Returns:
      Nothing.

    Raises:
      ValueError: if a number is negative or not finite.
    """
    if isinstance(x, jax.core.Tracer) or not x.size:
        return
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return
    known = np.asarray(x)
    lowest, highest = float(known.min()), float(known.max())
    if not (lowest >= 0 and np.isfinite(highest)):
        raise ValueError(
            f"{name} must be finite and not negative, got values from {lowest:g} to "
            f"{highest:g}"
        )


def scalar(name: str, x: Any) -> float | None:
    """Checks that `x` is a real scalar and returns its value where it is known.

    Args:
      name: what the caller calls the argument.
      x: a number or an array of shape [].

    Returns:
      The value, or None while it is traced.

    Raises:
      TypeError: if `x` is no real number.
      ValueError: if `x` has axes.
    """
    if isinstance(x, bool) or not isinstance(
        x, int | float | np.number | np.ndarray | jax.Array
    ):
        raise TypeError(f"{name} must be a real number, got {type(x).__name__}")
    if np.ndim(x) != 0:
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(x)}")
    dtype = jnp.result_type(x)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"{name} must be a real number, got dtype {dtype}")
    return None if isinstance(x, jax.core.Tracer) else float(x)


def static(name: str, x: Any) -> float:
    """Checks that `x` is a real scalar whose value is known, and returns it.

    Args:
      name: what the caller calls the argument.
      x: a number.

    Returns:
      The value.

    Raises:
      TypeError: if `x` is traced, or no real number.
      ValueError: if `x` has axes.
    """
    value = scalar(name, x)
    if value is None:
        raise TypeError(f"{name} must be a Python number, got a traced value")
    return value


def choice(name: str, x: Any, choices: Sequence[Any]) -> None:
    """Checks that `x` is one of a few allowed values.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      choices: the allowed values.

    Returns:
      Nothing.

    Raises:
      ValueError: if `x` is none of them.
    """
    if x not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name} must be one of {listed}, got {x!r}")


def _shape(axes: str) -> str:
    return "[" + ", ".join(axes.split()) + "]"
