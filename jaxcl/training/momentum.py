"""What MoCo carries from step to step: a slow copy of the encoder, a queue of keys."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks, kernels

Params = TypeVar("Params")


class Queue(NamedTuple):
    """Keys of earlier batches, the negatives of the next ones.

    Every row of a batch has k / b rows of the queue to itself, one after another, and
    in each of them the newest key replaces the oldest. So a queue and batches that are
    sharded by rows over one mesh exchange nothing: each device keeps keys of its own
    rows. A loss does not ask in which order its negatives are.

    Attributes:
      keys: embeddings [k, d].
      position: which of its rows each row of a batch writes next, int32 [].
    """

    keys: jax.Array
    position: jax.Array


def create_queue(key: jax.Array, size: int, d: int) -> Queue:
    """Fills a queue with random directions, uniform on the sphere.

    Until `size` keys were pushed, some negatives are these: easy ones, since they are
    of no image.

    Args:
      key: random key.
      size: k, number of keys that the queue holds, >= 1.
      d: size of an embedding, >= 1.

    Returns:
      The queue; its keys are float32 vectors of length one.

    Raises:
      TypeError: if size or d is no integer.
      ValueError: if size or d is below 1.

    Source:
      MoCo, https://arxiv.org/abs/1911.05722, section 3.2; that a queue begins with
      random directions is a habit of its implementations.

    >>> print(create_queue(jax.random.key(0), 6, 4).keys.shape)
    (6, 4)
    """
    _checks.count("size", size)
    _checks.count("d", d)
    keys = kernels.unit(jax.random.normal(key, (size, d), jnp.float32))
    return Queue(keys, jnp.zeros((), jnp.int32))


def push(queue: Queue, keys: jax.Array) -> Queue:
    """Puts the keys of a batch into the queue, in place of the oldest ones.

    Pure: jit it, donate the queue, and shard both by rows over one mesh; then no key
    leaves its device. After k / b pushes the queue holds the keys of these batches, in
    an order of its own.

    Args:
      queue: of k keys.
      keys: embeddings [b, d] as the losses read them, of unit length for instance; k a
        multiple of b, and b the same in every push. No gradient passes.

    Returns:
      The queue, its keys in the dtype that they had.

    Raises:
      TypeError: if keys are not a floating array.
      ValueError: if keys are not [b, d] with the queue's d, or b does not divide k.

    Source:
      MoCo, https://arxiv.org/abs/1911.05722, algorithm 1.

    >>> queue = Queue(jnp.zeros((4, 1)), jnp.zeros((), jnp.int32))
    >>> queue = push(queue, jnp.array([[1.0], [2.0]]))
    >>> print(queue.keys[:, 0], queue.position)
    [1. 0. 2. 0.] 1
    """
    _checks.embeddings("keys", keys, "b d")
    _checks.same_width("keys", keys, "queue.keys", queue.keys)
    (b, d), k = keys.shape, queue.keys.shape[0]
    if k % b:
        raise ValueError(
            f"keys must divide the queue's {k} rows into equal batches, got {b} keys"
        )
    keys = lax.stop_gradient(keys).astype(queue.keys.dtype)
    # The axis that is written along lies inside each device.
    of_row = queue.keys.reshape(b, k // b, d)
    of_row = lax.dynamic_update_slice_in_dim(
        of_row, keys[:, None], queue.position, axis=1
    )
    return Queue(of_row.reshape(k, d), (queue.position + 1) % (k // b))


def momentum_update(params: Params, key_params: Params, momentum: ArrayLike) -> Params:
    """Moves the parameters of the key encoder a little towards those of the query's.

        key_params <- momentum key_params + (1 - momentum) params

    Keep key parameters in float32. Kept in bfloat16 they lose every step below half a
    unit of their last place, about 1 / 512 of their size, and so stop short of those
    they follow, at a momentum of 0.999 almost where they are.

    Args:
      params: of the query encoder, a pytree of floating arrays.
      key_params: of the key encoder, the same pytree; dtypes may differ.
      momentum: in [0, 1); 0 copies, to rounding.

    Returns:
      New parameters of the key encoder, in the dtypes that they had. No gradient
      passes.

    Raises:
      TypeError: if momentum is no real number.
      ValueError: if momentum is out of range, the pytrees or the shapes of two leaves
        differ, or a leaf is not floating.

    Source:
      MoCo, https://arxiv.org/abs/1911.05722, equation 2.

    >>> moved = momentum_update({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, 0.75)
    >>> print(moved["w"])
    [0.25 0.25]
    """
    _checks.within("momentum", momentum, 0, 1)
    # Of the number as it was given: rounded to bfloat16, 0.999 would be 1.
    share = 1 - momentum
    ours: Any = jax.tree.structure(params)
    theirs: Any = jax.tree.structure(key_params)
    if ours != theirs:
        raise ValueError(
            f"key_params must be a pytree like params, {ours}, got {theirs}"
        )

    def moved(path: tuple[Any, ...], new: ArrayLike, old: ArrayLike) -> jax.Array:
        where = jax.tree_util.keystr(path)
        for name, leaf in (("params", new), ("key_params", old)):
            dtype = jnp.result_type(leaf)
            if not jnp.issubdtype(dtype, jnp.floating):
                raise ValueError(f"{name}{where} must be floating, got dtype {dtype}")
        if jnp.shape(new) != jnp.shape(old):
            raise ValueError(
                f"key_params{where} must have the shape {jnp.shape(new)} of "
                f"params{where}, got {jnp.shape(old)}"
            )
        dtype = jnp.result_type(old)
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
        before, after = jnp.asarray(old, wide), jnp.asarray(new, wide)
        # As a step, so that equal parameters stay as they are.
        result = before + jnp.asarray(share, wide) * (after - before)
        return lax.stop_gradient(result.astype(dtype))

    return jax.tree_util.tree_map_with_path(moved, params, key_params)
