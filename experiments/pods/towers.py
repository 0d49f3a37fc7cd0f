"""Two encoders for a plan: vision transformers of images and of texts.

Each has the size of a ViT-B unless told otherwise. The layers of a tower are one
scanned layer, whose inside is computed again on the way back: it compiles quickly, and
one layer's activations are held at a time.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PATCH = 16
WORDS = 49_408  # of CLIP's vocabulary


class Norm(nn.Module):
    """Layer normalization, computed in float32 whatever comes in, and given back."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        size = jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + 1e-6)
        return (scale * size * y).astype(x.dtype)


class Layer(nn.Module):
    """Attention and a perceptron, each beside a shortcut and after a normalization."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = Norm()(x)
        three = nn.Dense(3 * self.width, dtype=self.dtype)(y)
        heads = three.reshape(*y.shape[:2], 3, -1, min(64, self.width))
        q, k, v = (heads[:, :, i] for i in range(3))
        with jax.numpy_dtype_promotion("standard"):  # which JAX's own function needs
            y = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + nn.Dense(self.width, dtype=self.dtype)(y)
        y = Norm()(x)
        y = nn.Dense(4 * self.width, dtype=self.dtype)(y)
        return x + nn.Dense(self.width, dtype=self.dtype)(nn.gelu(y)), None


class Tower(nn.Module):
    """Tokens [n, length, width] to embeddings [n, d]."""

    d: int
    depth: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        shape = tokens.shape[1:]
        place = self.param("place", nn.initializers.normal(0.02), shape, jnp.float32)
        x = tokens.astype(self.dtype) + place.astype(self.dtype)[None]
        layers = nn.scan(
            nn.remat(Layer, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = layers(self.width, self.dtype)(x, None)
        x = Norm()(x.mean(axis=1))
        return nn.Dense(self.d, use_bias=False, dtype=self.dtype)(x)


class Towers(nn.Module):
    """A batch {"image": uint8 [n, h, w, 3], "text": int [n, length]} to two embeddings.

    Call:
      gives (of images, of texts), float32 [n, d] each.
    """

    d: int
    depth: int
    width: int
    length: int
    dtype: Any

    @nn.compact
    def __call__(self, batch: Any) -> tuple[jax.Array, jax.Array]:
        pixels = batch["image"].astype(self.dtype) / jnp.asarray(255, self.dtype)
        patch = (PATCH, PATCH)
        cut = nn.Conv(self.width, patch, strides=patch, dtype=self.dtype)(pixels)
        patches = cut.reshape(len(cut), -1, self.width)
        words = nn.Embed(WORDS, self.width, dtype=self.dtype)(batch["text"])
        arguments = self.d, self.depth, self.width, self.dtype
        images, texts = Tower(*arguments)(patches), Tower(*arguments)(words)
        return images.astype(jnp.float32), texts.astype(jnp.float32)
