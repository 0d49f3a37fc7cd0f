"""Spectral clustering of a small graph."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels

# k-means ends in a local optimum: the best of so many starts is kept.
_STARTS = 10
_MOST_STEPS = 300

# Centers, labels, whether labels have changed, and how many steps were made.
_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def spectral_clusters(w: ArrayLike, num_clusters: int, key: jax.Array) -> jax.Array:
    """Spectral clustering: groups of nodes with much weight inside and little between.

    The rows of the bottom eigenvectors of I - D^(-1/2) W D^(-1/2), normalized, are put
    into groups by k-means, with W the symmetrized weights and D their row sums. The
    best of ten starts by k-means++ is kept.

    Args:
      w: weights [n, n], not negative; the diagonal is ignored. Needs n x n memory.
      num_clusters: from 1 to n; an integer.
      key: for the starts.

    Returns:
      The cluster of each node, int32 [n], from 0 to num_clusters - 1; the numbers have
      no order. A node without edges is a component of its own.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if w is not square, a weight is negative or not finite, or
        num_clusters is not in 1 to n.

    Source:
      On Spectral Clustering: Analysis and an algorithm, Ng, Jordan and Weiss 2001,
      section 2.

    >>> w = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> labels = spectral_clusters(w, 2, jax.random.key(0))
    >>> print(labels[0] == labels[1], labels[0] == labels[2])
    True False
    """
    num_clusters = _checks.count("num_clusters", num_clusters)
    w = graphs.symmetrize(graphs.without_loops(w))
    n = w.shape[0]
    if num_clusters > n:
        raise ValueError(
            f"num_clusters must be from 1 to the {n} nodes of w, got {num_clusters}"
        )
    return _spectral_clusters(w, num_clusters, key)


@functools.partial(jax.jit, static_argnums=1)
def _spectral_clusters(w: jax.Array, num_clusters: int, key: jax.Array) -> jax.Array:
    w = graphs.without_overflow(w)
    degree = w.sum(axis=1)
    connected = degree > 0
    scale = jnp.where(connected, 1 / jnp.sqrt(jnp.where(connected, degree, 1)), 0)
    # Zero on the diagonal for a node without edges: it is a component of its own.
    laplacian = jnp.diag(connected.astype(w.dtype))
    laplacian = laplacian - scale[:, None] * w * scale[None, :]
    _, vectors = jnp.linalg.eigh(laplacian)  # in ascending order
    rows = kernels.unit(vectors[:, :num_clusters])
    starts = jax.random.split(key, _STARTS)
    labels, costs = jax.vmap(lambda key: _k_means(key, rows, num_clusters))(starts)
    return labels[jnp.argmin(costs)]


def _k_means(
    key: jax.Array, x: jax.Array, num_clusters: int
) -> tuple[jax.Array, jax.Array]:
    """Lloyd's iteration from one start: labels [n], and the sum of squares left."""

    def assign(centers: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = jnp.square(x[:, None, :] - centers[None, :, :]).sum(axis=2)
        return jnp.argmin(squared, axis=1).astype(jnp.int32), squared.min(axis=1)

    def step(state: _State) -> _State:
        centers, labels, _, count = state
        member = jax.nn.one_hot(labels, num_clusters, dtype=x.dtype)
        size = member.sum(axis=0)[:, None]
        mean = jnp.matmul(member.T, x, precision="highest") / jnp.maximum(size, 1)
        # A center that has lost all its rows stays where it is.
        centers = jnp.where(size > 0, mean, centers)
        new, _ = assign(centers)
        return centers, new, (new != labels).any(), count + 1

    centers = _spread(key, x, num_clusters)
    labels, _ = assign(centers)
    centers, labels, _, _ = jax.lax.while_loop(
        lambda state: state[2] & (state[3] < _MOST_STEPS),
        step,
        (centers, labels, jnp.array(True), jnp.array(0)),
    )
    return labels, assign(centers)[1].sum()


def _spread(key: jax.Array, x: jax.Array, num_clusters: int) -> jax.Array:
    """k-means++: draws rows as centers, by squared distance to those before."""
    n = x.shape[0]
    keys = jax.random.split(key, num_clusters)
    first = x[jax.random.randint(keys[0], (), 0, n)]

    def draw(nearest: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Where all rows are taken already, any will do.
        weight = jnp.where(nearest.max() > 0, nearest, 1)
        center = x[jax.random.categorical(key, jnp.log(weight))]
        squared = jnp.square(x - center[None, :]).sum(axis=1)
        return jnp.minimum(nearest, squared), center

    nearest = jnp.square(x - first[None, :]).sum(axis=1)
    _, rest = jax.lax.scan(draw, nearest, keys[1:])
    return jnp.concatenate([first[None, :], rest])
