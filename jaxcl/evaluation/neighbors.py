"""Cosine neighbors, found block by block: memory grows with n, never with n^2."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks


class Neighbors(NamedTuple):
    """The most similar keys of each query, the most similar first.

    Attributes:
      indices: rows of the keys, int32 [q, k].
      cosines: their cosine similarity with the query, float32 [q, k].
    """

    indices: np.ndarray
    cosines: np.ndarray


def nearest(
    queries: jax.typing.ArrayLike,
    keys: jax.typing.ArrayLike,
    k: int,
    *,
    exclude_self: bool = False,
    block: int = 1024,
) -> Neighbors:
    """The k keys with the largest cosine to each query.

        cos_ij = x_i . y_j / (|x_i| |y_j|)

    Queries and keys are both visited in blocks: the temporary memory is a few
    [block, block] tiles whatever their numbers. A zero vector has cosine 0 with all.
    Equal cosines are ordered by the index of the key.

    Args:
      queries: [q, r], floating point.
      keys: [m, r], floating point.
      k: neighbors per query; at most m, or m - 1 with `exclude_self`.
      exclude_self: `queries` are the same rows as `keys`; none is its own neighbor.
      block: edge of a tile of cosines; changes memory, not results.

    Returns:
      Neighbors(indices, cosines), each [q, k].

    Raises:
      TypeError: if an array is not floating point.
      ValueError: for wrong shapes, values that are not finite, or k too large.

    >>> points = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> print(nearest(points, points, 1, exclude_self=True).indices[:, 0])
    [1 0 1]
    """
    queries = _checks.representation("queries", queries)
    keys = _checks.representation("keys", keys, width=queries.shape[1])
    _checks.count("k", k)
    _checks.count("block", block)
    if exclude_self and len(queries) != len(keys):
        raise ValueError(
            "exclude_self needs queries and keys to be the same rows, "
            f"got {len(queries)} queries and {len(keys)} keys"
        )
    if k > len(keys) - exclude_self:
        others = " other" if exclude_self else ""
        raise ValueError(
            f"k must be at most the {len(keys) - exclude_self}{others} keys, got {k}"
        )
    found = _nearest(
        unit(queries), unit(keys), k=k, exclude_self=exclude_self, block=block
    )
    return Neighbors(*jax.device_get(found))


def knn(
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    test_h: jax.typing.ArrayLike,
    *,
    k: int,
    num_classes: int,
    temperature: float | None = None,
    block: int = 1024,
) -> np.ndarray:
    """Labels by vote of the k nearest training rows in cosine.

        votes_ic = sum_{j in k nearest of i, label_j = c} w_ij
        w_ij     = exp(cos_ij / temperature),   or 1 without a temperature

    A tie goes to the class of the nearest neighbor among those tied.

    Args:
      train_h: frozen representation [n, r].
      train_labels: integers [n] in [0, num_classes).
      test_h: frozen representation [q, r].
      k: neighbors that vote, at most n.
      num_classes: number of classes.
      temperature: dimensionless, > 0. Divides; smaller gives near ones more weight.
        0.07 is usual. None: every neighbor counts alike.
      block: edge of a tile of cosines; changes memory, not results.

    Returns:
      Predicted labels, int64 [q].

    Raises:
      TypeError: if a representation is not floating point or labels not integers.
      ValueError: for wrong shapes, values or labels out of range, or k > n.

    Source:
      Instance discrimination, https://arxiv.org/abs/1805.01978, section 3.4 (the
      weighted vote).

    >>> train = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> print(knn(train, np.array([0, 0, 1]), train, k=1, num_classes=2))
    [0 0 1]
    """
    train_h = _checks.representation("train_h", train_h)
    test_h = _checks.representation("test_h", test_h, width=train_h.shape[1])
    _checks.count("num_classes", num_classes)
    train_labels = _checks.classes(
        "train_labels", train_labels, len(train_h), num_classes
    )
    if temperature is not None:
        _checks.positive("temperature", temperature)
    found = nearest(test_h, train_h, k, block=block)
    cuts = [slice(start, start + block) for start in range(0, len(test_h), block)]
    predicted = [
        _vote(
            train_labels[found.indices[cut]],
            found.cosines[cut],
            num_classes,
            temperature,
        )
        for cut in cuts
    ]
    return np.concatenate(predicted)


def _vote(
    labels: np.ndarray, cosine: np.ndarray, num_classes: int, temperature: float | None
) -> np.ndarray:
    """The winning label of each row; `labels` and `cosine` are [q, k]."""
    weight = np.ones(cosine.shape)
    if temperature is not None:
        # Relative to the nearest neighbor: no overflow at small temperatures.
        weight = np.exp((cosine - cosine[:, :1]).astype(np.float64) / temperature)
    rows = np.arange(len(labels))
    cells = rows[:, None] * num_classes + labels
    votes = np.bincount(cells.ravel(), weight.ravel(), len(labels) * num_classes)
    votes = votes.reshape(len(labels), num_classes)
    winners = votes == votes.max(axis=1, keepdims=True)
    first = np.argmax(np.take_along_axis(winners, labels, axis=1), axis=1)
    return labels[rows, first]


def unit(h: np.ndarray) -> np.ndarray:
    """Rows of length one in float32; a zero row stays zero.

    `kernels.unit` in NumPy: h may hold float64 values that float32 cannot.
    """
    # Divided by the largest entry first, so that squares neither overflow nor vanish.
    largest = np.abs(h).max(axis=1, keepdims=True)
    h = h / np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(h, axis=1, keepdims=True)
    return (h / np.where(norm > 0, norm, 1)).astype(np.float32)


def _blocks(x: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """x cut into equal blocks [., block, r], zeros at the end, and the row numbers."""
    padded = jnp.pad(x, ((0, -len(x) % block), (0, 0)))
    rows = jnp.arange(len(padded), dtype=jnp.int32)
    return padded.reshape(-1, block, x.shape[1]), rows.reshape(-1, block)


@functools.partial(jax.jit, static_argnames=("k", "exclude_self", "block"))
def _nearest(
    queries: jax.Array, keys: jax.Array, *, k: int, exclude_self: bool, block: int
) -> tuple[jax.Array, jax.Array]:
    """Index and cosine [q, k] for rows of length one."""
    key_blocks = _blocks(keys, min(block, len(keys)))

    def search(query_block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, x_row = query_block

        def merge(
            best: tuple[jax.Array, jax.Array], key_block: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            y, y_row = key_block
            # Full float32: the order of neighbors is decided in the last digits.
            cosine = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
            absent = jnp.broadcast_to((y_row >= len(keys))[None, :], cosine.shape)
            if exclude_self:
                absent |= x_row[:, None] == y_row[None, :]
            cosine = jnp.where(absent, -jnp.inf, cosine)
            row = jnp.broadcast_to(y_row[None, :], cosine.shape)
            # The best so far come first: top_k keeps the earlier of two equal ones.
            cosine = jnp.concatenate([best[1], cosine], axis=1)
            row = jnp.concatenate([best[0], row], axis=1)
            cosine, place = jax.lax.top_k(cosine, k)
            return (jnp.take_along_axis(row, place, axis=1), cosine), None

        nothing = (
            jnp.zeros((len(x), k), jnp.int32),
            jnp.full((len(x), k), -jnp.inf, jnp.float32),
        )
        return jax.lax.scan(merge, nothing, key_blocks)[0]

    index, cosine = jax.lax.map(search, _blocks(queries, min(block, len(queries))))
    index, cosine = index.reshape(-1, k), cosine.reshape(-1, k)
    return index[: len(queries)], jnp.clip(cosine[: len(queries)], -1.0, 1.0)
