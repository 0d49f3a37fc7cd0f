"""Free embeddings of a pair graph's nodes, trained by CLIP or by the whole graph."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import graphs, kernels, losses

How = Literal["batches", "per edge", "per node"]


@functools.partial(
    jax.jit, static_argnames=("how", "dimension", "steps", "batch_size", "rate")
)
def train(
    w: jax.Array,
    keys: jax.Array,
    *,
    how: How,
    dimension: int,
    steps: int,
    batch_size: int,
    rate: float,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Embeddings of several graphs at once.

    Args:
      w: weights of the edges of each graph [k, n, m].
      keys: of each graph's first embeddings and batches [k].
      how: "batches" is CLIP: edges are drawn by their weights, the other pairs of the
        batch are negatives. The others are its two means over the whole graph, where
        all nodes of the other side are negatives: each edge counts once, or each node.
      dimension: d.
      steps: of Adam.
      batch_size: edges of a batch.
      rate: first learning rate, which falls to 0 as a cosine.
      temperature: of the cosines.

    Returns:
      Unit vectors of the images [k, n, d] and of the captions [k, m, d].
    """
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
    n = w.shape[1]

    def both(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = kernels.unit(z)
        return z[:n], z[n:]

    def loss(z: jax.Array, w: jax.Array, key: jax.Array) -> jax.Array:
        images, texts = both(z)
        if how == "batches":
            sums = jnp.cumsum(w.ravel())
            drawn = jax.random.uniform(key, (batch_size,), maxval=sums[-1])
            # Above the sums before its own: an edge of weight 0 is never drawn.
            edges = jnp.searchsorted(sums, drawn, side="right")
            i, j = jnp.divmod(edges, w.shape[1])
            return losses.clip(images[i], texts[j], temperature=temperature).mean()
        s = jnp.matmul(images, texts.T, precision="highest") / temperature
        return (_direction(w, s, how) + _direction(w.T, s.T, how)) / 2

    def one(w: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, rest = jax.random.split(key)
        z = jax.random.normal(first, (sum(w.shape), dimension))

        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            z, momentum = state
            gradient = jax.grad(loss)(z, w, key)
            with jax.numpy_dtype_promotion("standard"):  # which optax needs
                update, momentum = tx.update(gradient, momentum)
            return (z + update, momentum), None

        (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), jax.random.split(rest, steps))
        return both(z)

    return jax.vmap(one)(w, keys)


def _direction(w: jax.Array, s: jax.Array, how: How) -> jax.Array:
    """The mean over rows, or over edges, of -sum_j P_ij log Q_ij."""
    p = graphs.row_normalize(w)
    # A candidate without edges is not there.
    log_q = jax.nn.log_softmax(jnp.where(w.any(axis=0)[None, :], s, -jnp.inf), axis=1)
    costs = -jnp.where(p > 0, p * log_q, 0).sum(axis=1)
    degree = w.sum(axis=1) if how == "per edge" else w.any(axis=1).astype(w.dtype)
    return (degree * costs).sum() / degree.sum()


def embeddings(
    w: np.ndarray, seeds: tuple[int, ...], **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What `train` gives for graphs [k, n, m], a seed each."""
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    images, texts = train(jnp.asarray(w), keys, **how)
    return np.asarray(images), np.asarray(texts)


def similarities(
    images: np.ndarray, texts: np.ndarray, temperature: float
) -> np.ndarray:
    """Cosines over temperature [k, n, m], float64; 0 for a zero vector."""
    units = []
    for z in (images.astype(np.float64), texts.astype(np.float64)):
        norms = np.linalg.norm(z, axis=-1, keepdims=True)
        units.append(z / np.where(norms > 0, norms, 1))
    return np.einsum("knd,kmd->knm", *units) / temperature
