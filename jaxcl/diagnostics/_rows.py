"""Rows of embeddings, as every diagnostic takes them."""

import jax
import jax.numpy as jnp

from jaxcl import _checks, kernels


def checked(
    name: str, z: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Gives embeddings the dtype of results, and zeroes rows that are not valid.

    Args:
      name: what the caller calls the embeddings.
      z: embeddings [n, d].
      valid: rows to keep [n]; None keeps all.

    Returns:
      The embeddings, float32 or float64 [n, d], and which rows are valid, bool [n].

    Raises:
      TypeError: if `z` is not floating, or `valid` not boolean.
      ValueError: if a shape is wrong.
    """
    _checks.embeddings(name, z, "n d")
    _checks.mask("valid", valid, z.shape[0])
    x = jnp.asarray(z)
    x = x.astype(kernels.accumulator(x.dtype))
    if valid is None:
        return x, jnp.ones(z.shape[0], bool)
    keep = jnp.asarray(valid)
    return jnp.where(keep[:, None], x, 0), keep
