"""Augmentations of sentences: pure functions of (key, row of tokens).

A transform takes and gives a `TokenBatch` of one row: tokens [L], valid [L]. What it
takes away stays where it is and is not valid any more; no shape changes, and what is
not valid is neither counted nor drawn. `augment.views` applies a transform to a batch.
`pick` is for images with several captions: it takes a row of each, and gives one.

What happens to a row depends on its key and on what is valid in it: not on the room
that it has. The first token, which is special, is never changed. Ratios are exact:
floor(ratio m) of the m other tokens, for the ratio that was written.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl._token_batch import TokenBatch
from jaxcl.augment import transforms

Transform = Callable[[jax.Array, TokenBatch], TokenBatch]


def identity(key: jax.Array, row: TokenBatch) -> TokenBatch:
    """Gives the row as it came: what differs between views is the encoder's dropout.

    Args:
      key: ignored.
      row: tokens [L].

    Returns:
      The same row.

    Source:
      SimCSE, https://arxiv.org/abs/2104.08821, section 3.
    """
    del key
    return row


def drop(key: jax.Array, row: TokenBatch, *, ratio: float = 0.2) -> TokenBatch:
    """Drops tokens, drawn uniformly.

    Args:
      key: random key.
      row: tokens [L].
      ratio: floor(ratio m) of the m valid tokens but the first go.

    Returns:
      The row with fewer valid tokens.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.

    >>> row = TokenBatch(jnp.arange(8), jnp.arange(8) < 6)
    >>> print(drop(jax.random.key(0), row, ratio=0.4).valid.sum())
    4
    """
    ratio, among = _checked(row, ratio)
    drawn = _drawn(key, among, ratio)
    return row._replace(valid=row.valid & ~drawn)


def mask(
    key: jax.Array, row: TokenBatch, *, token: int, ratio: float = 0.15
) -> TokenBatch:
    """Puts one token in place of others, drawn uniformly.

    Args:
      key: random key.
      row: tokens [L].
      token: what is put there, such as the vocabulary's `mask`.
      ratio: floor(ratio m) of the m valid tokens but the first are masked.

    Returns:
      The row with other tokens.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.
    """
    _checks.count("token", token, 0)
    ratio, among = _checked(row, ratio)
    drawn = _drawn(key, among, ratio)
    tokens = jnp.where(drawn, jnp.asarray(token, row.tokens.dtype), row.tokens)
    return row._replace(tokens=tokens)


def crop(key: jax.Array, row: TokenBatch, *, ratio: float = 0.2) -> TokenBatch:
    """Keeps a stretch of tokens, whose place is drawn uniformly.

    Args:
      key: random key.
      row: tokens [L].
      ratio: floor(ratio m) of the m valid tokens but the first go, from both ends.

    Returns:
      The row with fewer valid tokens.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.
    """
    ratio, among = _checked(row, ratio)
    m = jnp.sum(among, dtype=jnp.int32)
    lost = _share(ratio, m, len(among))
    start = jax.random.randint(key, (), 0, lost + 1, jnp.int32)
    rank = jnp.cumsum(among, dtype=jnp.int32) - 1
    kept = (rank >= start) & (rank < start + m - lost)
    return row._replace(valid=row.valid & (kept | ~among))


def pick(key: jax.Array, captions: TokenBatch) -> TokenBatch:
    """Draws one of the captions of an image, evenly.

    Args:
      key: random key.
      captions: tokens [c, L]. Those that are missing have no valid token and are never
        drawn.

    Returns:
      A row, tokens [L]; the first one if all are missing.

    Raises:
      TypeError: if captions is no `TokenBatch`.
      ValueError: if a shape is wrong, or there is no row.

    Source:
      LaCLIP, https://arxiv.org/abs/2305.20088, of a caption and its rewrites.

    >>> three = TokenBatch(jnp.arange(6).reshape(3, 2), jnp.array([[True] * 2] * 3))
    >>> print(pick(jax.random.key(0), three).tokens.shape)
    (2,)
    """
    if not isinstance(captions, TokenBatch):
        raise TypeError(f"captions must be a TokenBatch, got {type(captions).__name__}")
    _checks.array("captions.tokens", captions.tokens, "c L")
    _checks.same_shape(
        "captions.tokens", captions.tokens, "captions.valid", captions.valid
    )
    if not len(captions.tokens):
        raise ValueError("captions must hold at least one row, got none")
    there = jnp.any(captions.valid, axis=1)
    count = jnp.sum(there, dtype=jnp.int32)
    drawn = jax.random.randint(key, (), 0, jnp.maximum(count, 1), jnp.int32)
    rank = jnp.cumsum(there, dtype=jnp.int32) - 1
    place = jnp.argmax(there & (rank == drawn))
    return jax.tree.map(lambda x: x[place], captions)


def _checked(row: Any, ratio: Any) -> tuple[float, jax.Array]:
    """The ratio, and which tokens may change: valid ones but the first, bool [L]."""
    if not isinstance(row, TokenBatch):
        raise TypeError(f"row must be a TokenBatch, got {type(row).__name__}")
    _checks.array("row.tokens", row.tokens, "L")
    _checks.same_shape("row.tokens", row.tokens, "row.valid", row.valid)
    among = row.valid & (jnp.cumsum(row.valid, dtype=jnp.int32) > 1)
    return _checks.between("ratio", ratio, 0, 1), among


def _share(ratio: float, m: jax.Array, largest: int) -> jax.Array:
    return jnp.asarray(transforms.shares(ratio, largest))[m]


def _drawn(key: jax.Array, among: jax.Array, ratio: float) -> jax.Array:
    """Draws floor(ratio m) of m tokens, bool [L].

    A place draws from the key folded with it, so more room changes nothing. Such a key
    is a hash, so its words are random.
    """
    places = jnp.arange(len(among), dtype=jnp.int32)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    bits = jax.random.key_data(folded)[:, 0]
    order = jnp.lexsort((bits, ~among))
    rank = jnp.zeros_like(places).at[order].set(places)
    share = _share(ratio, jnp.sum(among, dtype=jnp.int32), len(among))
    return rank < share
