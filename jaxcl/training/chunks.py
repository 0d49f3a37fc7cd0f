"""A batch larger than the encoder's memory allows, exactly."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.training import state as state_lib

Encode = Callable[[Any, Any, jax.Array], tuple[Any, Mapping[str, Any]]]


def in_chunks(encode: Encode, chunks: int) -> Encode:
    """Encodes a batch in chunks, of which only the embeddings are kept.

        z = concatenate(encode(variables_c, x[c::chunks], fold_in(key, c)) for c)

    The loss sees all embeddings at once, so the batch and its negatives are those of
    the whole; activations are those of one chunk. On the way back each chunk is encoded
    once more, with its own key, so dropout and augmentation are replayed: value and
    gradient are exact, at the price of one more forward pass. (Plain accumulation of
    gradients over small batches is something else: it has fewer negatives.) On a CPU,
    XLA computes gradients of convolutions inside a loop, as here, about fifteen times
    slower; products of matrices it does not.

    Chunk c holds rows c, c + chunks, ..., so that rows sharded over a mesh stay on
    their devices. What encode changes is handed on: a later chunk sees
    `{**variables, **changed}` of the one before. So with batch normalization each chunk
    has its own statistics (those of b / chunks examples: more chunks, noisier ones),
    and running statistics move once per chunk.

    Args:
      encode: (variables, x, key) to (z, changed). x and z are pytrees of arrays with
        leading axis b; `changed` is a mapping that replaces entries of variables, as
        Flax's `mutable` returns it; {} for none. Random choices, dropout and
        augmentation for instance, come from key alone.
      chunks: how many; 1 is encode itself.

    Returns:
      A function like encode. z has the order of the rows of x, whatever `chunks`.

    Raises:
      TypeError: if chunks is not an integer, or encode does not return a pair.
      ValueError: if chunks is below 1; when called, if chunks does not divide b, or
        encode changes what was not in variables.

    Source:
      Gradient cache, https://arxiv.org/abs/2101.06983, section 3.2.

    >>> encode = lambda variables, x, key: (variables["w"] * x, {})
    >>> z, _ = in_chunks(encode, 2)({"w": 3.0}, jnp.arange(4.0), jax.random.key(0))
    >>> print(z)
    [0. 3. 6. 9.]
    """
    _checks.count("chunks", chunks, 1)
    if chunks == 1:
        return encode

    def encode_in_chunks(
        variables: Any, x: Any, key: jax.Array
    ) -> tuple[Any, Mapping[str, Any]]:
        leading = {leaf.shape[:1] for leaf in jax.tree.leaves(x)}
        if len(leading) != 1 or () in leading:
            raise ValueError(
                f"x must be arrays with one leading axis b, got lengths {leading}"
            )
        [(b,)] = leading
        if b % chunks:
            raise ValueError(
                f"x must have a number of rows that chunks {chunks} divides, got {b}"
            )

        # Rows of one device follow one another: the first of both axes is sharded, and
        # none moves.
        def split(leaf: jax.Array) -> jax.Array:
            return jnp.moveaxis(
                leaf.reshape(b // chunks, chunks, *leaf.shape[1:]), 1, 0
            )

        def merge(leaf: jax.Array) -> jax.Array:
            return jnp.moveaxis(leaf, 0, 1).reshape(b, *leaf.shape[2:])

        pieces = jax.tree.map(split, x)
        keys = jax.vmap(lambda c: jax.random.fold_in(key, c))(jnp.arange(chunks))
        first = jax.tree.map(lambda leaf: leaf[0], (pieces, keys))
        _, described = state_lib.pair(
            "encode", jax.eval_shape(encode, variables, *first)
        )
        unknown = sorted(set(described) - set(variables)) if described else []
        if unknown:
            raise ValueError(
                f"encode must change entries of variables alone, got {unknown}, which "
                f"they lack; they hold {sorted(variables)}"
            )
        changing = {name: variables[name] for name in described}

        @jax.checkpoint
        def encode_chunk(changing: Any, variables: Any, piece: Any, key: Any) -> Any:
            given = {**variables, **changing} if changing else variables
            z, changed = encode(given, piece, key)
            return {**changing, **changed}, z

        def body(changing: Any, chunk: Any) -> Any:
            return encode_chunk(changing, variables, *chunk)

        changed, z = jax.lax.scan(body, changing, (pieces, keys))
        return jax.tree.map(merge, z), changed

    return encode_in_chunks
