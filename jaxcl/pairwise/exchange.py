"""Moving rows between the devices of a mesh axis; nothing happens on one device."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax

Tree = TypeVar("Tree")


def gather(tree: Tree, names: tuple[str, ...]) -> Tree:
    """Collects the rows of all devices on each device.

    Args:
      tree: a pytree of arrays [n, ...].
      names: mesh axes over which the rows are sharded.

    Returns:
      The pytree of arrays [devices * n, ...], in the order of the devices.
    """
    if not names:
        return tree
    return jax.tree.map(lambda x: lax.all_gather(x, names, tiled=True), tree)


def gather_columns(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """Gives each device all rows of its own columns.

    Args:
      x: this device's rows and all columns, [n, devices * m].
      names: mesh axes over which the rows are sharded.

    Returns:
      All rows and this device's columns, [devices * n, m].
    """
    if not names:
        return x
    return lax.all_to_all(x, names, split_axis=1, concat_axis=0, tiled=True)


def scatter_sum(tree: Tree, names: tuple[str, ...]) -> Tree:
    """Adds what all devices have and gives each device its rows: undoes `gather`.

    Args:
      tree: a pytree of arrays [devices * n, ...].
      names: mesh axes over which the rows are sharded.

    Returns:
      The pytree of arrays [n, ...].
    """
    if not names:
        return tree
    return jax.tree.map(
        lambda x: lax.psum_scatter(x, names, scatter_dimension=0, tiled=True), tree
    )


def scatter_combine(
    combine: Callable[[Tree, Tree], Tree], tree: Tree, names: tuple[str, ...]
) -> Tree:
    """Combines what all devices have and gives each device its rows.

    Args:
      combine: joins the pytrees of two devices.
      tree: a pytree of arrays [devices * n].
      names: mesh axes over which the rows are sharded.

    Returns:
      The pytree of arrays [n].
    """
    if not names:
        return tree
    devices = lax.axis_size(names)
    parts = jax.tree.map(
        lambda x: lax.all_to_all(x.reshape(devices, -1), names, 0, 0), tree
    )
    by_device = [
        jax.tree.map(lambda x, device=device: x[device], parts)
        for device in range(devices)
    ]
    return functools.reduce(combine, by_device)
