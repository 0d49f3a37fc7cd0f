"""Transforms of one example, a pytree of any kind: composed, and applied to a batch.

A transform is a pure function of (key, example). Examples may be images, token rows or
padded graphs: nothing here looks inside.
"""

import fractions
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks

# Of a key and an example: one view of it.
Transform = Callable[[jax.Array, Any], Any]
Numbers = jax.typing.ArrayLike | Sequence[float]  # what transforms take as parameters


def chain(*steps: Transform) -> Transform:
    """Composes transforms into one; the first is applied first.

    Step i gets the i-th key split from the chain's: what one step draws does not depend
    on the others, nor on how many follow.

    Args:
      *steps: functions (key, example) -> example. `without_key` makes one of a function
        of the example alone.

    Returns:
      A function (key, example) -> example.

    Raises:
      TypeError: if a step is not callable.

    >>> transform = chain(jax.random.permutation, without_key(lambda x: x[:2]))
    >>> print(transform(jax.random.key(0), jnp.arange(5)).shape)
    (2,)
    """
    check_functions("steps", steps, "(key, example) -> example")

    def transform(key: jax.Array, example: Any) -> Any:
        keys = jax.random.split(key, len(steps)) if steps else ()
        for key, step in zip(keys, steps, strict=True):
            example = step(key, example)
        return example

    return transform


def check_functions(name: str, given: Sequence[Any], signature: str) -> None:
    """Refuses what cannot be called among several functions.

    Args:
      name: what messages call them.
      given: the functions.
      signature: what they take and give, in words.

    Raises:
      TypeError: if one is not callable; it says where.
    """
    for i, function in enumerate(given):
        if not callable(function):
            raise TypeError(
                f"{name} must be functions {signature}, got {function!r} at {i}"
            )


def without_key(function: Callable[[Any], Any]) -> Transform:
    """Makes a transform of a function of the example alone.

    Args:
      function: example -> example.

    Returns:
      A function (key, example) -> example that ignores its key.

    >>> print(without_key(jnp.negative)(None, jnp.arange(3)))
    [ 0 -1 -2]
    """
    return lambda key, example: function(example)


def one_of(*choices: Transform) -> Transform:
    """Makes a transform that applies one of several, drawn uniformly for each example.

    The key is split in two: the first draws, the second is what the drawn transform
    gets. All must give arrays of the same shapes. Under `vmap`, as in `views`, all are
    computed.

    Args:
      *choices: functions (key, example) -> example.

    Returns:
      A function (key, example) -> example.

    Raises:
      TypeError: if a choice is not callable.
      ValueError: if there is none.

    >>> flip = one_of(without_key(jnp.negative), without_key(lambda x: x))
    >>> print(abs(flip(jax.random.key(0), jnp.arange(3))))
    [0 1 2]
    """
    check_functions("choices", choices, "(key, example) -> example")
    if not choices:
        raise ValueError("choices must be at least one transform, got none")

    def transform(key: jax.Array, example: Any) -> Any:
        drawing, own = jax.random.split(key)
        drawn = jax.random.randint(drawing, (), 0, len(choices))
        return jax.lax.switch(drawn, choices, own, example)

    return transform


def views(key: jax.Array, batch: Any, transform: Transform, count: int = 2) -> Any:
    """Makes several views of every example of a batch.

    View v of example i has the (i count + v)-th key split from `key`, whatever the size
    of the batch: so the views are the same on one device and, under `jit`, sharded over
    many. Inside `shard_map` every device counts its own examples from 0: there, fold
    the device's index into the key.

    Args:
      key: random key; the same key gives the same views.
      batch: a pytree of arrays whose first axis counts the examples, [b, ...].
      transform: function (key, example) -> view; an example is the pytree without that
        axis, a view any pytree of arrays.
      count: views of each example, >= 1.

    Returns:
      The pytree of views, [b, count, ...].

    Raises:
      TypeError: if count is no integer.
      ValueError: if count < 1, or the arrays have no first axis in common.

    >>> rows = {"tokens": jnp.arange(12).reshape(4, 3), "length": jnp.ones(4, int)}
    >>> shuffle = lambda key, row: jax.random.permutation(key, row["tokens"])
    >>> print(views(jax.random.key(0), rows, shuffle).shape)
    (4, 2, 3)
    """
    count = _checks.count("count", count)
    batch = jax.tree.map(jnp.asarray, batch)
    leaves = jax.tree.leaves(batch)
    sizes = {leaf.shape[:1] for leaf in leaves}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "batch must be arrays with one first axis in common, got shapes "
            f"{[leaf.shape for leaf in leaves]}"
        )
    keys = jax.random.split(key, (leaves[0].shape[0], count))
    return views_by_keys(keys, batch, transform)


def views_by_keys(keys: jax.Array, batch: Any, transform: Transform) -> Any:
    """Makes a view of an example for each of the keys that are given for it.

    Args:
      keys: random keys [b, count, ...]; without the first two axes, they are what the
        transform takes.
      batch: a pytree of arrays [b, ...].
      transform: function (key, example) -> view.

    Returns:
      The pytree of views, [b, count, ...].
    """

    def views_of_one(keys: jax.Array, example: Any) -> Any:
        return jax.vmap(transform, (0, None))(keys, example)

    views_of_all = jax.vmap(views_of_one)
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(batch)]
    split = [sharding for sharding in shardings if sharding.spec[0] is not None]
    if split:  # A mesh with explicit axes: inside, leave placement to XLA.
        rows = split[0].update(spec=jax.P(split[0].spec[0]))
        views_of_all = jax.sharding.auto_axes(views_of_all, out_sharding=rows)
    return views_of_all(keys, batch)


def shares(ratio: float, largest: int) -> np.ndarray:
    """floor(ratio n) for n = 0 ... largest, int32.

    On the host in integers. The ratio is the simplest fraction close to the float:
    nothing but rounding lies between, since up to 10^6 no other fraction does.
    """
    exact = fractions.Fraction(ratio).limit_denominator(10**6)
    n = np.arange(largest + 1, dtype=np.int64)
    return (n * exact.numerator // exact.denominator).astype(np.int32)
