"""Nodes in slices: how they are cut, and what a kernel compares of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import graphs, kernels
from jaxcl.pairwise import trees

# Fastest edge on a CPU for embeddings of 64 to 1024 numbers; a float32 tile is 4 MB.
DEFAULT_TILE = 1024


class Cut(NamedTuple):
    """How rows are cut into slices of one size; the last may begin early.

    Its first rows are then also the last rows of the slice before, which has counted
    them: nothing is padded.
    """

    size: int
    number: int
    length: int


def cut(side: "Side", tile: int | None) -> Cut:
    """Cuts nodes into as few slices as a tile allows, of one size.

    Args:
      side: n nodes.
      tile: the largest size of a slice; None is chosen.

    Returns:
      How they are cut.
    """
    n = side.factor.shape[0]
    count = -(-n // (tile or DEFAULT_TILE))
    return Cut(-(-n // count), count, n)


def start(cut: Cut, number: Any) -> Any:
    """Gives the row at which a slice begins.

    Args:
      cut: how rows are cut.
      number: of the slice.

    Returns:
      The number of its first row.
    """
    return jnp.minimum(number * cut.size, cut.length - cut.size)


def new_rows(cut: Cut, number: Any) -> jax.Array:
    """Tells which rows of a slice the slice before has not counted.

    Args:
      cut: how rows are cut.
      number: of the slice.

    Returns:
      Booleans [size].
    """
    return start(cut, number) + jnp.arange(cut.size) >= number * cut.size


class Side(NamedTuple):
    """Nodes, and one over the length of each embedding, [n]."""

    nodes: graphs.Nodes
    factor: jax.Array


class Prepared(NamedTuple):
    """What a kernel compares and a score reads; also the gradient with respect to it.

    Attributes:
      vectors: arrays [n, d_k]. One that a kernel uses twice is here once.
      numbers: the kernel's numbers, a pytree of [n].
      extra: the nodes' extras, a pytree of [n].
    """

    vectors: list[jax.Array]
    numbers: Any
    extra: Any


class Layout(NamedTuple):
    """How a kernel's pytree is made of the vectors in `Prepared`."""

    structure: Any
    places: tuple[int, ...]


class NodeGradient(NamedTuple):
    """The gradient with respect to the floating parts of nodes."""

    z: jax.Array
    extra: Any

    def of_nodes(self) -> Any:
        """The gradient in the form of the nodes it belongs to."""
        return graphs.Nodes(self.z, None, None, None, self.extra)  # type: ignore[arg-type]


def side(nodes: graphs.Nodes) -> Side:
    """Measures the embeddings of nodes.

    Args:
      nodes: n nodes.

    Returns:
      The nodes with one over their lengths.
    """
    dtype = kernels.accumulator(nodes.z.dtype)
    return Side(nodes, kernels.inverse_norm(nodes.z.astype(dtype)))


def take(side: Side, cut: Cut, number: Any) -> Side:
    """Takes a slice of nodes.

    Args:
      side: n nodes.
      cut: how they are cut.
      number: of the slice.

    Returns:
      Its nodes; those that the slice before has counted are not valid here.
    """
    side = trees.take(side, start(cut, number), cut.size)
    valid = side.nodes.valid & new_rows(cut, number)
    return side._replace(nodes=side.nodes._replace(valid=valid))


def prepare(kernel: kernels.Kernel, side: Side) -> tuple[Prepared, Layout]:
    """Asks the kernel what it compares.

    Args:
      kernel: a log-kernel.
      side: nodes of a slice.

    Returns:
      What it compares, each vector once, and how its pytree is made of them.
    """
    z = side.nodes.z.astype(side.factor.dtype)
    vectors, numbers, layout = _different(kernel, z, z * side.factor[:, None])
    extra = jax.tree.map(lambda x: x.astype(side.factor.dtype), side.nodes.extra)
    return Prepared(vectors, numbers, extra), layout


def _different(
    kernel: kernels.Kernel, z: jax.Array, unit: jax.Array
) -> tuple[list[jax.Array], Any, Layout]:
    vectors, numbers = kernel.prepare(z, unit)
    leaves, structure = jax.tree.flatten(vectors)
    different: list[jax.Array] = []
    places = []
    for leaf in leaves:
        known = [k for k, seen in enumerate(different) if seen is leaf]
        places.append(known[0] if known else len(different))
        different += [] if known else [leaf]
    return different, numbers, Layout(structure, tuple(places))


def pull_back(
    kernel: kernels.Kernel, nodes: graphs.Nodes, gradient: Prepared
) -> tuple[kernels.Kernel, NodeGradient]:
    """Takes the gradient from what is compared to kernel and embeddings.

    Args:
      kernel: a log-kernel.
      nodes: the nodes that were compared.
      gradient: with respect to what `prepare` gave for them.

    Returns:
      The gradients with respect to the kernel and to the nodes.
    """

    def compared(kernel: kernels.Kernel, z: jax.Array) -> Any:
        return _different(kernel, z, kernels.unit(z))[:2]

    dtype = kernels.accumulator(nodes.z.dtype)
    _, pull = jax.vjp(compared, kernel, nodes.z.astype(dtype))
    kernel_gradient, z = pull((gradient.vectors, gradient.numbers))
    extra = jax.tree.map(lambda g, x: g.astype(x.dtype), gradient.extra, nodes.extra)
    return kernel_gradient, NodeGradient(z.astype(nodes.z.dtype), extra)


def column_zeros(kernel: kernels.Kernel, block: Side) -> Prepared:
    """Makes zeros for the gradient of columns.

    Args:
      kernel: a log-kernel.
      block: the columns, m nodes.

    Returns:
      Zeros in the form of what `prepare` gives, each array transposed.
    """
    shapes = jax.eval_shape(lambda block: prepare(kernel, block)[0], block)
    return jax.tree.map(lambda x: jnp.zeros(x.shape[::-1], x.dtype), shapes)
