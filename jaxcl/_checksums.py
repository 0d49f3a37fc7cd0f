"""Arrays by name, and a checksum of each: a flipped bit on a disk is noticed."""

import json
import typing
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils


def described(tree: typing.Any) -> dict[str, str]:
    """Names the arrays of a pytree.

    Args:
      tree: with arrays or `jax.ShapeDtypeStruct` leaves; others are left out.

    Returns:
      Dtype and shape of each, by the keys that lead to it.

    >>> described({"a": {"w": np.zeros((2, 3), np.float32)}, "name": "x"})
    {'a/w': 'float32[2, 3]'}
    """
    return {name: _described(leaf) for name, leaf in _leaves(tree)}


def of_arrays(tree: typing.Any) -> dict[str, str]:
    """Takes the CRC-32 of each array of a pytree, which any single error changes.

    Fetches the arrays. Of several processes all must call it: an array that is
    sharded over them is brought together.

    Args:
      tree: with arrays; other leaves are left out.

    Returns:
      Eight hexadecimal digits for each array, by the keys that lead to it.

    >>> of_arrays({"w": np.arange(3, dtype=np.int32)})
    {'w': '1d760e7a'}
    """
    return {name: _crc(_bytes(leaf)) for name, leaf in _leaves(tree)}


def of_json(content: typing.Any) -> str:
    """Takes the CRC-32 of what JSON can hold, however it is laid out.

    >>> of_json({"a": 1, "b": [2]}) == of_json({"b": (2,), "a": 1})
    True
    """
    return _crc(json.dumps(content, sort_keys=True).encode())


def _crc(content: bytes | memoryview) -> str:
    return f"{zlib.crc32(content):08x}"


def _bytes(leaf: typing.Any) -> memoryview:
    """The bytes of an array, on the host and not copied there once more."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)
        else:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _described(leaf: typing.Any) -> str:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)  # what is written of a key
    return f"{leaf.dtype}{list(leaf.shape)}"


def _is_key(leaf: typing.Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaves(tree: typing.Any) -> list[tuple[str, typing.Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        ("/".join(map(_name, path)), leaf)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    ]


def _name(entry: typing.Any) -> str:
    """Of one step of a path: checkpoints turn fields into keys, so only names count."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
