"""The losses that are measured: by jaxcl, dense, and scanned by blocks of rows.

All of them return the mean over anchors of the same numbers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import kernels, losses

TEMPERATURE, BIAS = 0.1, -10.0


class NotRun(Exception):
    """Says why a form is not measured."""


def unit(z: jax.Array) -> jax.Array:
    """Vectors of length one, rounded to the dtype of z."""
    wide = z.astype(jnp.float32)
    return (wide / jnp.linalg.norm(wide, axis=-1, keepdims=True)).astype(z.dtype)


def cosines(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y.T, preferred_element_type=jnp.float32)


def labels_of(n: int) -> jax.Array:
    return jnp.arange(n) * 7919 % max(1, min(100, n // 8))


def cosine_logits(x: jax.Array, y: jax.Array) -> jax.Array:
    return cosines(x, y) / TEMPERATURE


def kernel_sum_logits(x: jax.Array, y: jax.Array) -> jax.Array:
    squared = jnp.maximum(2 - 2 * cosines(x, y), 1e-12)
    return jnp.logaddexp(-squared / 0.5, -jnp.sqrt(squared) / 0.5)


def views_rows(logits: Any, x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    """Logits, the diagonal masked, a log-sum-exp per row.

    Like the three below it takes rows x, their numbers i, and all candidates y.
    """
    s = logits(x, y)
    s = jnp.where(i[:, None] == jnp.arange(len(y))[None], -jnp.inf, s)
    return jax.nn.logsumexp(s, axis=1) - s[jnp.arange(len(i)), i ^ 1]


def sup_con_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    labels = labels_of(len(y))
    itself = i[:, None] == jnp.arange(len(y))[None]
    s = jnp.where(itself, -jnp.inf, cosine_logits(x, y))
    log_p = s - jax.nn.logsumexp(s, axis=1, keepdims=True)
    positive = (labels[i][:, None] == labels[None]) & ~itself
    number = positive.sum(1).astype(s.dtype)
    return -jnp.where(positive, log_p, 0).sum(1) / number


def info_nce_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    s = cosine_logits(x, y)
    return jax.nn.logsumexp(s, axis=1) - s[jnp.arange(len(i)), i]


def siglip_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    s = cosine_logits(x, y) + BIAS
    own = i[:, None] == jnp.arange(len(y))[None]
    return jax.nn.softplus(jnp.where(own, -s, s)).sum(1)


class Loss(NamedTuple):
    """A loss of one set of embeddings, or of pairs, as it is and by jaxcl.

    Attributes:
      rows: the loss of some rows, dense.
      ours: the same by jaxcl; of the inputs and `tile`.
      products: matrix products n x d x n that value and gradient need at least, in
        multiplications and additions: half as many where s_ij = s_ji.
      pairs: whether it compares images with texts.
    """

    rows: Callable[..., jax.Array]
    ours: Callable[..., jax.Array]
    products: int
    pairs: bool = False


def our_kernel_sum(z: jax.Array, tile: int | None) -> jax.Array:
    kernel = kernels.kernel_sum(kernels.gaussian(0.5), kernels.laplacian(0.5))
    return losses.kernel_info_nce(z, kernel=kernel, tile=tile)


def our_sup_con(z: jax.Array, tile: int | None) -> jax.Array:
    labels = labels_of(len(z))
    return losses.sup_con(z, labels, temperature=TEMPERATURE, tile=tile)


LOSSES = {
    "nt_xent": Loss(
        functools.partial(views_rows, cosine_logits),
        functools.partial(losses.nt_xent, temperature=TEMPERATURE),
        products=2,
    ),
    "clip": Loss(
        info_nce_rows,
        functools.partial(losses.clip, temperature=TEMPERATURE),
        products=4,
        pairs=True,
    ),
    "sup_con": Loss(sup_con_rows, our_sup_con, products=2),
    "kernel_sum": Loss(
        functools.partial(views_rows, kernel_sum_logits), our_kernel_sum, products=2
    ),
    "siglip": Loss(
        siglip_rows,
        functools.partial(losses.siglip, temperature=TEMPERATURE, bias=BIAS),
        products=4,
        pairs=True,
    ),
}


def dense(name: str, *inputs: jax.Array) -> jax.Array:
    """What people write: all pairs at once."""
    x, y = unit_rows(inputs)
    if name == "clip":  # one matrix serves both directions
        s = cosine_logits(x, y)
        both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
        return jnp.mean(both / 2 - jnp.diagonal(s))
    return jnp.mean(LOSSES[name].rows(x, jnp.arange(len(x)), y))


def scan(name: str, block: int, *inputs: jax.Array) -> jax.Array:
    """The usual advice where memory is short: rows by blocks, each computed twice."""
    x, y = unit_rows(inputs)
    n, block = len(x), min(block, len(x))
    if n % block:
        raise NotRun(f"n is not a multiple of the block of {block} rows")

    def sum_by_blocks(x: jax.Array, y: jax.Array) -> jax.Array:
        @jax.checkpoint
        def add(total: jax.Array, rows: Any) -> tuple[jax.Array, None]:
            return total + LOSSES[name].rows(*rows, y).sum(), None

        blocks = x.reshape(-1, block, x.shape[1]), jnp.arange(n).reshape(-1, block)
        return jax.lax.scan(add, jnp.float32(0), blocks)[0]

    if name == "clip":
        return (sum_by_blocks(x, y) + sum_by_blocks(y, x)) / (2 * n)
    return sum_by_blocks(x, y) / n


def unit_rows(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Anchors and candidates [n, d] of length one; the same where there is one set."""
    rows = [unit(z.reshape(-1, z.shape[-1])) for z in inputs]
    return rows[0], rows[-1]


def make_inputs(name: str, n: int, d: int) -> list[np.ndarray]:
    """Embeddings of two views of n / 2 examples [n / 2, 2, d] or [n, d], or n pairs."""
    random = np.random.default_rng(0)
    examples = n if LOSSES[name].pairs else n // 2
    z = random.standard_normal((examples, 1, d), np.float32)
    z = z + np.float32(0.7) * random.standard_normal((examples, 2, d), np.float32)
    if LOSSES[name].pairs:
        return [np.ascontiguousarray(z[:, 0]), np.ascontiguousarray(z[:, 1])]
    return [z.reshape(n, d) if name == "sup_con" else z]
