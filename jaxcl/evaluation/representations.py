"""From examples to the representation h, once, in batches of one size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks


def represent(
    encode: Callable[[Any], jax.Array],
    examples: Any,
    batch_size: int,
) -> np.ndarray:
    """The frozen representation of every example.

        h_i = encode(examples)_i

    The function is compiled once for a batch size: the last batch begins earlier, with
    examples of the one before, whose rows are cut off. `encode` must treat the examples
    of a batch independently (batch norm in inference mode does).

    Args:
      encode: pure function of examples [batch, ...], as the column gives them, to h
        [batch, r]. As `jax.tree_util.Partial(apply, variables)`, with
        `apply` defined once, the variables are inputs of the compiled program, which
        serves every later call with other variables; a new lambda is compiled anew.
      examples: array [n, ...], or another column of a data set, whose indices give
        pytrees of arrays; read and moved to the device one batch at a time.
      batch_size: examples per call, over all devices.

    Returns:
      h, float32 [n, r], on the host.

    Raises:
      ValueError: if there are no examples, or encode does not return [batch, r] of
        numbers that float32 holds.

    >>> double = lambda images: 2.0 * images.reshape(len(images), -1)
    >>> print(represent(double, np.ones((5, 2, 2), np.float32), batch_size=3).shape)
    (5, 4)
    """
    _checks.count("batch_size", batch_size)
    if isinstance(examples, jax.Array | list | tuple):
        examples = np.asarray(examples)
    n = 0 if getattr(examples, "shape", None) == () else len(examples)
    if n < 1:
        shape = getattr(examples, "shape", "a column of none")
        raise ValueError(f"examples must be [n, ...], n >= 1, got {shape}")
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)
    size = min(batch_size, n)
    h = []
    for start in range(0, n, size):
        first = min(start, n - size)
        out = _apply(encode, examples[np.arange(first, first + size)])
        if out.ndim != 2 or len(out) != size:
            raise ValueError(
                f"encode must return [batch, r], got {out.shape} from {size} examples"
            )
        rows = np.asarray(out)
        largest, info = np.abs(rows).max(initial=0), jnp.finfo(jnp.float32)
        if rows.dtype == np.float64 and not (
            largest == 0 or info.tiny <= largest <= info.max
        ):
            raise ValueError(
                "encode must return numbers that float32 holds, got up to "
                f"{largest:.3g}; multiply them by a constant"
            )
        h.append(rows[start - first :].astype(np.float32))
    return np.concatenate(h)


@jax.jit
def _apply(encode: Callable[[Any], jax.Array], examples: Any) -> jax.Array:
    return encode(examples)
