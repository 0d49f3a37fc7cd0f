"""Encoders of sentences: a Transformer to train, and BERT for weights from files.

Sentences are a `TokenBatch` of rows. What is not valid in a row changes nothing, and
neither does the room that a row has.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl._token_batch import TokenBatch
from jaxcl.models import layers

Pooling = Literal["mean", "cls", "last", "none"]
Activation = Literal["gelu", "gelu_tanh"]

POOLINGS = ("mean", "cls", "last", "none")


class Transformer(nn.Module):
    """Transformer encoder, normalized before each of its parts.

        x <- x + attention(norm(x));   x <- x + MLP(norm(x))

    with learned embeddings of tokens and of places, a multi-layer perceptron with GELU,
    and a last normalization. Without layers it is a bag of tokens; without the last
    normalization the length of a token's vector is its weight in the mean.

    Args:
      vocabulary: how many tokens there are.
      positions: places of the longest row.
      width: units of every layer.
      depth: layers; 0: none, and tokens do not see one another.
      heads: of the attention, which divide the width.
      hidden: units inside of the perceptron; None: four times the width.
      pooling: what makes of the tokens a sentence: their "mean", the first one ("cls"),
        or the "last" valid one; "none" gives tokens.
      dropout: share of the units that training sets to 0 after the embeddings and after
        each part.
      attention_dropout: the same of the weights of the attention.
      dtype: of the computation, bfloat16 or float32. Parameters are float32.
      last_norm: whether each token is normalized before pooling.
      order: whether there are embeddings of places; without them the order of tokens
        changes nothing.

    Call:
      A `TokenBatch` [n, L] and `train` (whether there is dropout, whose key is
      `rngs={"dropout": key}`) give h [n, width], or [n, L, width] of tokens, 0 where
      not valid; float32.

    Raises:
      ValueError: for a number out of bounds or another pooling or dtype; when called,
        if rows are longer than positions, or arrays do not fit.
      TypeError: when called, if tokens are no TokenBatch.

    Source:
      Attention is all you need, https://arxiv.org/abs/1706.03762; the order of the
      normalizations as in https://arxiv.org/abs/2002.04745, figure 1b.
    """

    vocabulary: int
    positions: int
    width: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int | None = None
    pooling: Pooling = "mean"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    last_norm: bool = True
    order: bool = True

    def __post_init__(self) -> None:
        _check(self, POOLINGS, least_depth=0)
        _checks.flag("last_norm", self.last_norm)
        _checks.flag("order", self.order)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: TokenBatch, *, train: bool) -> jax.Array:
        check_tokens(tokens, self.positions)
        places = jnp.arange(tokens.tokens.shape[1], dtype=jnp.int32)
        x = _embed("tokens", self.vocabulary, self.width, None)(tokens.tokens)
        if self.order:
            x = x + _embed("positions", self.positions, self.width, 0.02)(places)[None]
        x = _drop(self.dropout, train, x.astype(self.dtype))
        for layer in range(self.depth):
            part = _Parts(self, layer)
            y = _norm(f"norm_{layer}_attention", 1e-6, self.dtype)(x)
            x = x + _drop(self.dropout, train, part.attend(y, tokens.valid, train))
            y = _norm(f"norm_{layer}_mlp", 1e-6, self.dtype)(x)
            x = x + _drop(self.dropout, train, part.perceive(y, _gelu))
        if self.last_norm:
            x = _norm("norm", 1e-6, jnp.float32)(x)
        return pool(x, tokens.valid, self.pooling)


class Bert(nn.Module):
    """The encoder of BERT, and of RoBERTa, normalized behind each of its parts.

        x <- norm(x + attention(x));   x <- norm(x + MLP(x))

    Args:
      vocabulary: as in `Transformer`, and so are positions, width, depth, heads,
        hidden, dropout, attention_dropout and dtype; the defaults are those of
        BERT-base.
      types: kinds of tokens, of which all have the first.
      offset: number of the first place; RoBERTa's is 2.
      epsilon: of the normalizations.
      activation: "gelu", or "gelu_tanh", which approximates it.
      pooling: as in `Transformer`; or "pooler", tanh of a linear map of the first
        token, as BERT was trained with.

    Call:
      As `Transformer`.

    Raises:
      TypeError, ValueError: as `Transformer`.

    Source:
      BERT, https://arxiv.org/abs/1810.04805, and RoBERTa,
      https://arxiv.org/abs/1907.11692.
    """

    vocabulary: int = 30522
    positions: int = 512
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None
    types: int = 2
    offset: int = 0
    epsilon: float = 1e-12
    activation: Activation = "gelu"
    pooling: Pooling | Literal["pooler"] = "cls"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        _check(self, (*POOLINGS, "pooler"))
        _checks.count("types", self.types)
        _checks.count("offset", self.offset, 0)
        _checks.choice("activation", self.activation, ("gelu", "gelu_tanh"))
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: TokenBatch, *, train: bool) -> jax.Array:
        check_tokens(tokens, self.positions)
        act = _gelu if self.activation == "gelu" else nn.gelu
        length = tokens.tokens.shape[1]
        places = self.offset + jnp.arange(length, dtype=jnp.int32)
        known = self.positions + self.offset
        x = _embed("tokens", self.vocabulary, self.width, 0.02)(tokens.tokens)
        x = x + _embed("positions", known, self.width, 0.02)(places)[None]
        types = _embed("types", self.types, self.width, 0.02)
        x = x + types(jnp.zeros_like(places))[None]
        x = _norm("norm", self.epsilon, self.dtype)(x)
        x = _drop(self.dropout, train, x)
        for layer in range(self.depth):
            part = _Parts(self, layer)
            y = _drop(self.dropout, train, part.attend(x, tokens.valid, train))
            x = _norm(f"norm_{layer}_attention", self.epsilon, self.dtype)(x + y)
            y = _drop(self.dropout, train, part.perceive(x, act))
            x = _norm(f"norm_{layer}_mlp", self.epsilon, self.dtype)(x + y)
        if self.pooling == "pooler":
            first = pool(x, tokens.valid, "cls")
            return jnp.tanh(nn.Dense(self.width, name="pooler")(first))
        return pool(x, tokens.valid, self.pooling)


def pool(x: jax.Array, valid: jax.Array, kind: Pooling) -> jax.Array:
    """What the valid tokens of each row hold, in one.

    Args:
      x: a row for each token, [n, L, c].
      valid: which are there, bool [n, L].
      kind: "mean", which is 0 where none is valid; "cls", the first; "last", the last
        valid one; or "none", all of them, 0 where not valid.

    Returns:
      float32 [n, c], or [n, L, c] for "none".

    Raises:
      ValueError: for another kind.

    >>> x = jnp.arange(6.0).reshape(1, 3, 2)
    >>> print(pool(x, jnp.array([[True, True, False]]), "mean"))
    [[1. 2.]]
    """
    _checks.choice("pooling", kind, POOLINGS)
    x = x.astype(jnp.float32)
    if kind == "cls":
        return x[:, 0]
    if kind == "last":
        places = jnp.arange(x.shape[1], dtype=jnp.int32)
        last = jnp.where(valid, places[None], 0).max(axis=1)
        return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    x = jnp.where(valid[..., None], x, 0)
    if kind == "none":
        return x
    count = valid.sum(axis=1, keepdims=True).astype(jnp.float32)
    return x.sum(axis=1) / jnp.maximum(count, 1)


def check_tokens(tokens: Any, positions: int) -> None:
    """Checks what every encoder of sentences is given.

    Args:
      tokens: the argument.
      positions: places of the longest row.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is no TokenBatch, or its arrays are of other dtypes.
      ValueError: if they do not fit each other, or rows are too long.
    """
    if not isinstance(tokens, TokenBatch):
        raise TypeError(
            f"tokens must be a jaxcl.data.text.TokenBatch, got {type(tokens).__name__}"
        )
    _checks.array("tokens.tokens", tokens.tokens, "n L")
    if not jnp.issubdtype(tokens.tokens.dtype, jnp.integer):
        raise TypeError(f"tokens.tokens must be integers, got {tokens.tokens.dtype}")
    if tokens.valid.dtype != bool:
        raise TypeError(f"tokens.valid must be boolean, got {tokens.valid.dtype}")
    _checks.same_shape("tokens.tokens", tokens.tokens, "tokens.valid", tokens.valid)
    length = tokens.tokens.shape[1]
    if not 1 <= length <= positions:
        raise ValueError(
            f"tokens must have 1 to {positions} places, as many as the encoder knows, "
            f"got {length}; data.text.tokenize with longest={positions} cuts sentences"
        )


class _Parts:
    """Attention and perceptron of one layer, inside a compact module."""

    def __init__(self, encoder: Any, layer: int) -> None:
        self.of, self.layer = encoder, layer

    def linear(self, name: str, units: int) -> nn.Dense:
        return nn.Dense(units, dtype=self.of.dtype, name=f"{name}_{self.layer}")

    def attend(self, x: jax.Array, valid: jax.Array, train: bool) -> jax.Array:
        n, length, width = x.shape
        heads = self.of.heads
        query, key, value = (
            self.linear(name, width)(x).reshape(n, length, heads, width // heads)
            for name in ("query", "key", "value")
        )
        among = valid[:, None, None]  # the same keys for all heads and queries
        rate = self.of.attention_dropout
        if train and rate > 0:
            mixed = self._with_dropout(query, key, value, among, rate)
        else:
            # Inside, JAX promotes bfloat16, which its own strict setting forbids.
            with jax.numpy_dtype_promotion("standard"):
                mixed = jax.nn.dot_product_attention(query, key, value, mask=among)
        return self.linear("output", width)(mixed.reshape(n, length, width))

    def _with_dropout(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        among: jax.Array,
        rate: float,
    ) -> jax.Array:
        """JAX's attention has no dropout."""
        scores = jnp.einsum(
            "nqhc,nkhc->nhqk", query, key, preferred_element_type=jnp.float32
        )
        scores = scores * jnp.float32(query.shape[-1] ** -0.5)
        # Finite: a row without valid tokens has a derivative then.
        scores = jnp.where(among, scores, jnp.finfo(jnp.float32).min / 2)
        weights = _drop(rate, True, nn.softmax(scores).astype(value.dtype))
        return jnp.einsum("nhqk,nkhc->nqhc", weights, value)

    def perceive(self, x: jax.Array, activation: Any) -> jax.Array:
        width, hidden = self.of.width, self.of.hidden
        x = activation(self.linear("up", 4 * width if hidden is None else hidden)(x))
        return self.linear("down", width)(x)


def _check(encoder: Any, poolings: tuple[str, ...], least_depth: int = 1) -> None:
    for name in ("vocabulary", "positions", "width", "heads"):
        _checks.count(name, getattr(encoder, name))
    _checks.count("depth", encoder.depth, least_depth)
    if encoder.hidden is not None:
        _checks.count("hidden", encoder.hidden)
    _checks.divisible("width", encoder.width, encoder.heads, f"{encoder.heads} heads")
    _checks.choice("pooling", encoder.pooling, poolings)
    _checks.within("dropout", encoder.dropout, 0, 1)
    _checks.within("attention_dropout", encoder.attention_dropout, 0, 1)
    _checks.dtype("dtype", encoder.dtype, layers.COMPUTE_DTYPES)


def _embed(name: str, count: int, width: int, deviation: float | None) -> nn.Embed:
    """Looks rows up; they begin with a norm of 1 on average where None is given."""
    init = nn.initializers.normal(width**-0.5 if deviation is None else deviation)
    return nn.Embed(count, width, embedding_init=init, name=name)


def _norm(name: str, epsilon: float, dtype: jax.typing.DTypeLike) -> Any:
    """Layer normalization in float32, whatever the rest computes in."""
    norm = nn.LayerNorm(
        epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name
    )
    return lambda x: norm(x.astype(jnp.float32)).astype(dtype)


def _drop(rate: float, train: bool, x: jax.Array) -> jax.Array:
    return nn.Dropout(rate, deterministic=not train)(x)


def _gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)
