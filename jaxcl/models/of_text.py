"""Encoders of sentences, in words that JSON can hold."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks
from jaxcl._token_batch import TokenBatch
from jaxcl.models import text as text_lib
from jaxcl.models.embedder import Embedder
from jaxcl.models.small import Projector

PROJECTORS = ("normalized", "plain", "none")


class TextDescription(NamedTuple):
    """What a model of sentences is, and what it is given.

    Attributes:
      vocabulary: how many tokens there are.
      positions: places of the longest row.
      tokenizer: checksum of the `tokenizer.json` that tokens are made with; "" where
        it is not known.
      encoder: "transformer" or "bert".
      width: units of each layer.
      depth: layers; "transformer" may have none.
      heads: of the attention.
      hidden: units inside of the perceptrons.
      pooling: what makes of tokens a sentence: "mean", "cls" or "last"; "pooler" of
        "bert" alone.
      last_norm, order: of "transformer", as `text.Transformer` has them.
      dropout: share of the units that training sets to 0.
      attention_dropout: the same of the weights of the attention.
      types, offset, epsilon, activation: of "bert", as `text.Bert` has them.
      dtype: in which the model computes, "float32" or "bfloat16".
      embedding: size d of the projector's output.
      projector: "normalized" with batch normalization inside, "plain" without, or
        "none": z is h, and `embedding` the width.
    """

    vocabulary: int
    positions: int
    tokenizer: str = ""
    encoder: str = "transformer"
    width: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int = 512
    pooling: str = "mean"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    types: int = 2
    offset: int = 0
    epsilon: float = 1e-12
    activation: str = "gelu"
    dtype: str = "float32"
    embedding: int = 128
    projector: str = "plain"
    last_norm: bool = True
    order: bool = True


class NoProjector(nn.Module):
    """Gives h as it came: z is h."""

    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        del train
        return h


def build(described: TextDescription) -> Embedder:
    """From a `TokenBatch` [n, L] to embeddings z [n, d]."""
    _checks.choice("encoder", described.encoder, ("transformer", "bert"))
    bert = described.encoder == "bert"
    poolings = ("mean", "cls", "last", "pooler") if bert else ("mean", "cls", "last")
    _checks.choice("pooling", described.pooling, poolings)
    _checks.choice("projector", described.projector, PROJECTORS)
    dtype = jnp.dtype(described.dtype)
    names = ["vocabulary", "positions", "width", "depth", "heads", "hidden", "pooling"]
    names += ["dropout", "attention_dropout"]
    if bert:
        names += ["types", "offset", "epsilon", "activation"]
    else:
        names += ["last_norm", "order"]
    options: dict[str, Any] = {name: getattr(described, name) for name in names}
    make: Any = text_lib.Bert if bert else text_lib.Transformer
    encoder, kind = make(**options, dtype=dtype), described.projector
    if kind == "none":
        if described.embedding != described.width:
            raise ValueError(
                f"embedding must be the width {described.width} with projector 'none', "
                f"got {described.embedding}"
            )
        return Embedder(encoder, NoProjector())
    normalized = kind == "normalized"
    return Embedder(
        encoder, Projector(described.embedding, batch_norm=normalized, dtype=dtype)
    )


def example(described: TextDescription) -> TokenBatch:
    """The least that the model can be given, for the shapes of its parameters."""
    return TokenBatch(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))


def prepare(described: TextDescription, tokens: TokenBatch) -> TokenBatch:
    """Rows as `data.text` makes them, once they are known to fit the model."""
    text_lib.check_tokens(tokens, described.positions)
    if isinstance(tokens.tokens, np.ndarray) and tokens.tokens.size:
        low, high = int(tokens.tokens.min()), int(tokens.tokens.max())
        if low < 0 or high >= described.vocabulary:
            raise ValueError(
                f"tokens must lie in [0, {described.vocabulary}), the encoder's "
                f"vocabulary, got {low} to {high}"
            )
    return tokens
