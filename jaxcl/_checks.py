"""Checks of arguments, for all rooms: "NAME must be ..., got ...".

They read shapes, dtypes and numbers that are known, so under `jit` they cost nothing.
What an argument should be is said here, what a function needs is said where it is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike


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


def count(name: str, value: Any, at_least: int = 1, at_most: float = np.inf) -> int:
    """Checks that a number of things is an integer, and neither too small nor large.

    Args:
      name: what the caller calls the argument.
      value: the argument; NumPy's integers count, booleans do not.
      at_least: the smallest allowed value.
      at_most: the largest allowed value.

    Returns:
      A Python integer, whose powers do not wrap.

    Raises:
      TypeError: if it is no integer.
      ValueError: if it is smaller, or larger.

    >>> count("batch_size", np.int32(8))
    8
    """
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    if value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, got {value}")
    return int(value)


def divisible(name: str, value: int, by: int, what: str) -> None:
    """Checks that a number of things can be dealt out evenly.

    Args:
      name: what the caller calls the argument.
      value: the argument.
      by: number of parts.
      what: the parts in words, with their number.

    Returns:
      Nothing.

    Raises:
      ValueError: if something is left over.

    >>> divisible("batch_size", 12, 4, "4 devices")
    """
    if value % by:
        raise ValueError(f"{name} must be divisible by the {what}, got {value}")


def flag(name: str, x: Any) -> None:
    """Checks that an argument is True or False, and known.

    Args:
      name: what the caller calls the argument.
      x: the argument.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is something else, such as a number or a traced value.
    """
    if not isinstance(x, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {type(x).__name__}")


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
      low: the smallest allowed value.
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


def between(name: str, x: Any, low: float, high: float) -> float:
    """Checks that a number whose value is known lies in [low, high], and returns it.

    Args:
      name: what the caller calls the argument.
      x: a number.
      low: the smallest allowed value.
      high: the largest allowed value; infinity allows every finite number.

    Returns:
      The value.

    Raises:
      TypeError: if `x` is traced, or no real number.
      ValueError: if `x` has axes, or is outside.

    >>> between("probability", 0.5, 0, 1)
    0.5
    """
    value = static(name, x)
    if not low <= value <= high or not np.isfinite(value):
        end = f"{high:g}]" if np.isfinite(high) else "inf)"
        raise ValueError(f"{name} must lie in [{low:g}, {end}, got {value:g}")
    return value


def interval(name: str, x: Any, largest: float = np.inf) -> None:
    """Checks that `x` is two positive numbers in order.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      largest: what neither may exceed.

    Returns:
      Nothing.

    Raises:
      TypeError: if `x` is not two real numbers.
      ValueError: if they are out of order or bounds.

    >>> interval("scale", (0.08, 1.0), 1)
    """
    if not hasattr(x, "__len__") or len(x) != 2:
        raise TypeError(f"{name} must be two numbers, got {x!r}")
    low, high = (static(name, number) for number in x)
    if not 0 < low <= high <= largest:
        above = f" and <= {largest:g}" if np.isfinite(largest) else ""
        raise ValueError(f"{name} must be two numbers in order, > 0{above}, got {x!r}")


def sides(name: str, x: Any) -> tuple[int, int]:
    """Checks the size of an image: an integer >= 1, or two.

    Args:
      name: what the caller calls the argument.
      x: height and width; an integer means both.

    Returns:
      Height and width.

    Raises:
      TypeError: if `x` is neither an integer nor two of them.
      ValueError: if one is below 1.

    >>> sides("size", 8)
    (8, 8)
    """
    two = x if isinstance(x, Sequence) else (x, x)
    if len(two) != 2 or not all(_is_integer(side) for side in two):
        raise TypeError(f"{name} must be an integer or two, got {x!r}")
    height, width = int(two[0]), int(two[1])
    if min(height, width) < 1:
        raise ValueError(f"{name} must be >= 1, got {x!r}")
    return height, width


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


def dtype(name: str, x: DTypeLike, choices: Sequence[str]) -> None:
    """Checks that `x` names one of a few dtypes.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      choices: names of the allowed dtypes.

    Returns:
      Nothing.

    Raises:
      ValueError: if `x` is none of them, or no dtype.
    """
    try:
        got = jnp.dtype(x).name
    except TypeError:
        got = repr(x)
    if got not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {got}")


# Weights and probabilities. -----------------------------------------------------------

# How far sums of probabilities may be from 1.
_ROUNDING = 1e-4


def real(name: str, x: Any, axes: str, booleans: bool = True) -> jax.Array:
    """Checks that `x` holds real numbers, and returns them as floating ones.

    Args:
      name: what the caller calls the argument.
      x: an array, or lists of numbers; integers are counts.
      axes: names of the expected axes, separated by spaces.
      booleans: whether these are numbers, too.

    Returns:
      The numbers, float32 or float64.

    Raises:
      TypeError: if `x` is no array, or not of real numbers.
      ValueError: if the number of axes is another one.
    """
    x = np.asarray(x) if isinstance(x, list | tuple) else x
    array(name, x, axes)
    dtype = jnp.result_type(x)
    kinds = (jnp.floating, jnp.integer) + booleans * (jnp.bool_,)
    if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}")
    # Half precision would give sums of rows few digits, and eigenvalues none.
    return jnp.asarray(x, jnp.float64 if dtype == jnp.float64 else jnp.float32)


def weights(name: str, w: Any) -> jax.Array:
    """Checks that `w` holds weights, and returns them as floating numbers.

    Args:
      name: what the caller calls the argument.
      w: the argument.

    Returns:
      The weights, float32 or float64 [n, m].

    Raises:
      TypeError: if they are not real numbers.
      ValueError: if the shape is wrong, or a weight is negative or not finite.
    """
    w = real(name, w, "n m")
    no_negative(name, w)
    return w


def square(name: str, w: jax.Array) -> jax.Array:
    """Checks that a matrix is square, and returns it.

    Args:
      name: what the caller calls the argument.
      w: the matrix.

    Returns:
      The matrix [n, n].

    Raises:
      ValueError: if it is not square.
    """
    if w.shape[0] != w.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {w.shape}")
    return w


def distribution(name: str, x: jax.Array, given: Any) -> None:
    """Checks that rows sum to 1, but for the rounding of what the caller gave.

    Args:
      name: what the caller calls the argument.
      x: numbers [n] or [n, m], floating; traced ones pass.
      given: the same as it came, whose dtype says how it was rounded.

    Returns:
      Nothing.

    Raises:
      ValueError: if there are no rows, a number is negative or not finite, or a sum is
        not 1.
    """
    no_negative(name, x)
    if not x.shape[0]:
        raise ValueError(f"{name} must have at least one row, got shape {x.shape}")
    if isinstance(x, jax.core.Tracer):
        return
    sums = np.asarray(x, np.float64).sum(axis=-1)
    dtype = jnp.result_type(given) if hasattr(given, "dtype") else x.dtype
    floating = jnp.issubdtype(dtype, jnp.floating)
    rounding = max(_ROUNDING, float(jnp.finfo(dtype).eps) if floating else 0)
    if np.abs(sums - 1).max() > rounding:
        rows = "" if x.ndim == 1 else " in each row"
        raise ValueError(f"{name} must sum to 1{rows}, got sums {sums}")


# Images. ------------------------------------------------------------------------------


def image(name: str, x: Any) -> jax.Array:
    """Checks that `x` is one image, and returns it as a JAX array.

    Args:
      name: what the caller calls the argument.
      x: the argument.

    Returns:
      The image, float32 [h, w, c].

    Raises:
      TypeError: if the dtype is not float32.
      ValueError: if it is not [h, w, c], or empty.
    """
    x = jnp.asarray(x)
    if x.ndim != 3:
        raise ValueError(
            f"{name} must be [h, w, c], one image without a batch axis, "
            f"got shape {x.shape}"
        )
    if x.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {x.shape}")
    if x.dtype != jnp.float32:
        raise TypeError(f"{name} must be float32 in [0, 1], got {x.dtype}")
    return x


def gray_or_color(name: str, x: Any, operation: str) -> jax.Array:
    """Checks that `x` is one image of one channel or of three, and returns it.

    Args:
      name: what the caller calls the argument.
      x: the argument.
      operation: what needs it to be so.

    Returns:
      The image, float32 [h, w, 1] or [h, w, 3].

    Raises:
      TypeError: if the dtype is not float32.
      ValueError: if the shape is another one.
    """
    x = image(name, x)
    if x.shape[2] not in (1, 3):
        raise ValueError(
            f"{name} must be [h, w, 1] or [h, w, 3] for {operation}, got {x.shape}"
        )
    return x


def per_channel(name: str, value: Any, image: jax.Array) -> jax.Array:
    """Checks that there is one number for each channel, or one for all.

    Args:
      name: what the caller calls the argument.
      value: the argument.
      image: [h, w, c].

    Returns:
      float32 [1, 1, c], or [] for a single number.

    Raises:
      ValueError: if the shape is another one.
    """
    value = jnp.asarray(value, jnp.float32)
    if value.ndim == 0:
        return value
    if value.shape != image.shape[2:]:
        raise ValueError(
            f"{name} must be [] or [c] for an image of shape {image.shape}, "
            f"got shape {value.shape}"
        )
    return value[None, None, :]


# Representations and their labels, on the host. ---------------------------------------


def representation(name: str, h: ArrayLike, width: int | None = None) -> np.ndarray:
    """Checks that `h` is a finite floating array [n, r], and returns it in NumPy.

    Args:
      name: what the caller calls the argument.
      h: the argument.
      width: r, where it is known.

    Returns:
      float32 [n, r], or float64 where it came so.

    Raises:
      TypeError: if it is not floating point.
      ValueError: if the shape is wrong, or a value not finite.
    """
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


def classes(
    name: str,
    labels: ArrayLike,
    length: int | None = None,
    num_classes: int | None = None,
) -> np.ndarray:
    """Checks that labels are integers [n], and returns them in NumPy.

    Args:
      name: what the caller calls the argument.
      labels: the argument.
      length: n, where it is known.
      num_classes: labels must lie in [0, num_classes); None allows any.

    Returns:
      int64 [n].

    Raises:
      TypeError: if they are not integers.
      ValueError: if the shape is wrong, or a label outside.
    """
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


def _is_integer(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _shape(axes: str) -> str:
    return "[" + ", ".join(axes.split()) + "]"
