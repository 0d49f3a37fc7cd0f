"""Moving rows between the devices of a mesh axis; nothing happens on one device."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

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


def scatter_sum(tree: Tree, names: tuple[str, ...], axis: int = 0) -> Tree:
    """Adds what all devices have and gives each device its nodes.

    One mesh axis after the other: over several at once, and over one of many devices,
    TPUs add up everything everywhere and throw most of it away.

    Args:
      tree: a pytree of arrays with devices * m nodes along one axis.
      names: mesh axes over which the nodes are sharded.
      axis: which axis of the arrays that is.

    Returns:
      The pytree of arrays with m nodes.
    """
    for name in names:
        scatter = functools.partial(
            lax.psum_scatter, axis_name=name, scatter_dimension=axis, tiled=True
        )
        tree = jax.tree.map(scatter, tree)
    return tree


def scatter_combine(
    combine: Callable[[Tree], Tree], tree: Tree, names: tuple[str, ...]
) -> Tree:
    """Combines what all devices have and gives each device its rows.

    Args:
      combine: joins what the devices have, along the first axis of every array.
      tree: a pytree of arrays [devices * n].
      names: mesh axes over which the rows are sharded.

    Returns:
      The pytree of arrays [n].
    """
    if not names:
        return tree
    devices = lax.axis_size(names)
    return combine(
        jax.tree.map(
            lambda x: lax.all_to_all(x.reshape(devices, -1), names, 0, 0), tree
        )
    )


def visit_blocks(
    how: str,
    names: tuple[str, ...],
    columns: Tree,
    empty: Callable[[Tree], Any],
    visit: Callable[[Tree, Any, Any, Any], tuple[Any, Any]],
    bring_home: Callable[[Any], Any],
    kept: Any,
) -> tuple[Any, Any]:
    """Shows the columns of all devices to this device, and returns what they are owed.

    What a column is owed is a partial result, or a part of a gradient, that belongs to
    the device which holds the column; what is kept belongs to this device's rows.

    By "gather" all columns arrive at once, and what each device owes them is sent back
    when all is done. By "ring" the devices stand in a circle: each holds the columns of
    one device, passes them on together with what they are owed so far, and after a full
    turn both are at home. Two blocks of columns are then held instead of all.

    Args:
      how: "gather" or "ring".
      names: mesh axes over which the columns are sharded; none is one device.
      columns: a pytree of arrays [m, ...].
      empty: gives what a block is owed before it has been seen.
      visit: of a block, the number of its first column among all, what it is owed and
        what is kept here; returns the last two.
      bring_home: of what all columns are owed, by each device; gives this device's own.
      kept: what stays here, carried from block to block.

    Returns:
      What this device's columns are owed by all devices, and what was kept.
    """
    if not names or how == "gather":
        block = gather(columns, names)
        owed, kept = visit(block, 0, empty(block), kept)
        return bring_home(owed), kept

    devices = lax.axis_size(names)
    m = jax.tree.leaves(columns)[0].shape[0]
    to_the_left = [(device, (device - 1) % devices) for device in range(devices)]

    def pass_on(tree: Any) -> Any:
        return jax.tree.map(lambda x: lax.ppermute(x, names, to_the_left), tree)

    def step(turn: Any, state: Any) -> Any:
        block, owed, kept = state
        owner = (lax.axis_index(names) + turn) % devices
        owed, kept = visit(block, owner.astype(int) * m, owed, kept)
        # Sending the block does not wait for the visit, so the two can overlap.
        return pass_on(block), pass_on(owed), kept

    _, owed, kept = lax.fori_loop(0, devices, step, (columns, empty(columns), kept))
    return owed, kept
