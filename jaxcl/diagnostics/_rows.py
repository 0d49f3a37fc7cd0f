"""Rows of embeddings, as every diagnostic takes them."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import _checks, kernels, mesh


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


def largest(x: jax.Array, axis_name: mesh.AxisName | None) -> jax.Array:
    """The size of each column, to divide by: its largest magnitude on all devices.

    Args:
      x: embeddings [n, d], or numbers [n].
      axis_name: mesh axes over which the rows are sharded.

    Returns:
      Without a derivative [d] or []; 1 where there is no inverse. The very largest
      numbers are up to four times as large.
    """
    size = lax.stop_gradient(jnp.abs(x).max(axis=0))
    names = mesh.axis_names(axis_name)
    if names:
        size = lax.pmax(mesh.cast_varying(size, frozenset(names)), names)
    # Dividing is multiplying by the inverse, which has to be a normal number.
    tiny = float(jnp.finfo(x.dtype).tiny)
    return jnp.where(size < tiny, 1, jnp.minimum(size, 1 / tiny))
