"""Pytrees of arrays: added, chosen, cut out and put back."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def add(a: Any, b: Any) -> Any:
    """Adds two pytrees.

    Args:
      a: a pytree of arrays.
      b: a pytree of the same form.

    Returns:
      Their sum, leaf by leaf.
    """
    return jax.tree.map(jnp.add, a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Chooses between two pytrees.

    Args:
      condition: a boolean that broadcasts with every leaf.
      a: what is taken where it holds.
      b: what is taken elsewhere.

    Returns:
      The chosen pytree.
    """
    return jax.tree.map(functools.partial(jnp.where, condition), a, b)


def take(tree: Any, start: Any, size: int, axis: int = 0) -> Any:
    """Takes a slice of every leaf.

    Args:
      tree: a pytree of arrays.
      start: where the slice begins.
      size: how long it is.
      axis: along which axis.

    Returns:
      The pytree of slices.
    """
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, axis), tree)


def update(
    merge: Callable[[Any, Any], Any], tree: Any, part: Any, start: Any, axis: int = 0
) -> Any:
    """Merges a part into the rows (or the last axis) of a pytree.

    Args:
      merge: joins two pytrees of the size of the part.
      tree: a pytree of arrays.
      part: a pytree of shorter arrays.
      start: where the part begins.
      axis: along which axis.

    Returns:
      The pytree with the part merged in.
    """
    leaves = jax.tree.leaves(part)
    if not leaves:
        return tree
    size = leaves[0].shape[axis]
    merged = merge(take(tree, start, size, axis), part)
    return jax.tree.map(
        lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, axis), tree, merged
    )


def transpose(tree: Any) -> Any:
    """Transposes every leaf.

    Args:
      tree: a pytree of arrays.

    Returns:
      The pytree with all axes in reverse order.
    """
    return jax.tree.map(jnp.transpose, tree)


def mask_rows(tree: Any, keep: jax.Array) -> Any:
    """Zeroes rows of every leaf.

    Args:
      tree: a pytree of arrays [n, ...].
      keep: rows to keep, bool [n].

    Returns:
      The pytree with zeros in the other rows.
    """

    def mask(x: jax.Array) -> jax.Array:
        return jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

    return jax.tree.map(mask, tree)
