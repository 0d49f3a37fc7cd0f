"""Losses with all pairs in memory, as one writes them first: what plans compare with.

Embeddings are normalized in float32 and multiplied in the dtype in which they came.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def cosines(x: jax.Array, y: jax.Array) -> jax.Array:
    """Cosines [n, m] in float32."""

    def unit(z: jax.Array) -> jax.Array:
        wide = z.astype(jnp.float32)
        length = jnp.linalg.norm(wide, axis=-1, keepdims=True)
        return (wide / length).astype(z.dtype)

    return jnp.dot(unit(x), unit(y).T, preferred_element_type=jnp.float32)


def _of_views(logits: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def loss(views: jax.Array, *, temperature: Any) -> jax.Array:
        z = views.reshape(-1, views.shape[-1])
        n = len(z)
        s = logits(cosines(z, z), temperature)
        s = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, s)
        rows = jnp.arange(n)
        return jax.nn.logsumexp(s, axis=1) - s[rows, rows ^ 1]

    return loss


def _gaussian(cosine: jax.Array, temperature: Any) -> jax.Array:
    return (2 * cosine - 2) / temperature


def _sum(cosine: jax.Array, temperature: Any) -> jax.Array:
    squared = jnp.maximum(2 - 2 * cosine, 1e-12)
    return jnp.logaddexp(-squared / temperature, -jnp.sqrt(squared) / temperature)


def _sup_con(z: jax.Array, labels: jax.Array, *, temperature: Any) -> jax.Array:
    n = len(z)
    itself = jnp.eye(n, dtype=bool)
    s = jnp.where(itself, -jnp.inf, cosines(z, z) / temperature)
    positive = (labels[:, None] == labels[None]) & ~itself
    log_p = s - jax.nn.logsumexp(s, axis=1, keepdims=True)
    total = jnp.where(positive, log_p, 0).sum(1)
    return -total / jnp.maximum(positive.sum(1), 1)


def _clip(x: jax.Array, y: jax.Array, *, temperature: Any) -> jax.Array:
    s = cosines(x, y) / temperature
    both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
    return both / 2 - jnp.diagonal(s)


def _siglip(x: jax.Array, y: jax.Array, *, temperature: Any) -> jax.Array:
    s = cosines(x, y) / temperature - 10.0
    own = jnp.eye(len(x), dtype=bool)
    return jax.nn.softplus(jnp.where(own, -s, s)).sum(1)


LOSSES: Mapping[str, Callable[..., jax.Array]] = {
    "nt_xent": _of_views(lambda cosine, temperature: cosine / temperature),
    "gaussian": _of_views(_gaussian),
    "kernel_sum": _of_views(_sum),
    "sup_con": _sup_con,
    "clip": _clip,
    "siglip": _siglip,
}
