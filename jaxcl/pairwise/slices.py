"""Nodes in slices: what a kernel compares of them, and how they are cut."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import graphs, kernels
from jaxcl.pairwise import trees


class Cut(NamedTuple):
    """How rows are cut into slices of one size; the last may begin early.

    Its first rows are then also the last rows of the slice before, which has counted
    them: nothing is padded.
    """

    size: int
    number: int
    length: int


def cut(n: int, tile: int, multiple: int = 1, odd: bool = False) -> Cut:
    """Cuts rows into as few slices as a tile allows, of one size.

    Args:
      n: number of rows.
      tile: the largest size of a slice.
      multiple: what sizes are rounded up to, where there are several slices.
      odd: whether the number of slices must be odd.

    Returns:
      How they are cut.
    """
    count = -(-n // tile)
    count += odd and count % 2 == 0
    size = -(-n // count)
    if count > 1:
        size = min(n, -(-size // multiple) * multiple)
    return Cut(size, count, n)


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
    """What is compared of n nodes, and who they are.

    Attributes:
      vectors: arrays [n, d_k] that are multiplied with those of the other side.
      factors: for each of them, what its products are multiplied with, [n], or None.
      numbers: the kernel's numbers, a pytree of [n].
      nodes: identities and extras; without embeddings.
    """

    vectors: list[jax.Array]
    factors: list[jax.Array | None]
    numbers: Any
    nodes: graphs.Nodes


class Layout(NamedTuple):
    """How a kernel's pytree is made of the vectors of a `Side`."""

    structure: Any
    places: tuple[int, ...]


class Gradient(NamedTuple):
    """The gradient of one side.

    Attributes:
      vectors: with respect to products, times the vectors of the other side, [n, d_k]:
        the gradient of the vectors that the kernel gave, times `Side.factors`.
      numbers: with respect to the kernel's numbers.
      extra: with respect to the extras.
    """

    vectors: list[jax.Array]
    numbers: Any
    extra: Any


def side(kernel: kernels.Kernel, nodes: graphs.Nodes) -> tuple[Side, Layout]:
    """Asks the kernel what it compares.

    Vectors that are embeddings, unit vectors or slices of either are not computed: the
    embeddings are multiplied as they came, up to a power of two, and products are
    multiplied with one over the lengths. Nothing is rounded before the product, and
    bfloat16 is multiplied as bfloat16.

    Args:
      kernel: a log-kernel.
      nodes: n nodes.

    Returns:
      What is compared, each vector once, and how the kernel's pytree is made of them.
    """
    z = nodes.z
    dtype = kernels.accumulator(z.dtype)
    if z.dtype not in (dtype, jnp.bfloat16):  # such as float16, which chips lack
        z = z.astype(dtype)
    rows, power = kernels.balanced(z)
    inverse = kernels.inverse_norm(rows.astype(dtype))
    unit = rows.astype(dtype) * inverse[:, None]
    computed, numbers, layout, origins = _different(kernel, z.astype(dtype), unit)
    beside = any(origin is not None and origin.unit for origin in origins)
    vectors: list[jax.Array] = []
    factors: list[jax.Array | None] = []
    for vector, origin in zip(computed, origins, strict=True):
        if origin is None:
            vectors.append(vector)
            factors.append(None)
        elif beside:
            vectors.append(origin.of(rows))
            factors.append(inverse if origin.unit else power)
        else:
            vectors.append(origin.of(z))
            factors.append(None)
    extra = jax.tree.map(lambda x: x.astype(dtype), nodes.extra)
    who = nodes._replace(z=None, extra=extra)  # type: ignore[arg-type]
    return Side(vectors, factors, numbers, who), layout


class Origin(NamedTuple):
    """A vector that is a part of the embeddings, or of unit vectors.

    Attributes:
      unit: whether of unit vectors.
      steps: how it is cut out of them: primitives with their parameters and which of
        their results is meant.
    """

    unit: bool
    steps: tuple[tuple[Any, dict[str, Any], int], ...]

    def of(self, x: jax.Array) -> jax.Array:
        """The same part of other rows."""
        for primitive, params, which in self.steps:
            results = primitive.bind(x, **params)
            x = results[which] if primitive.multiple_results else results
        return x

    def key(self) -> Any:
        """Equal for equal parts."""
        steps = [(p.name, str(params), which) for p, params, which in self.steps]
        return self.unit, tuple(steps)


def _different(
    kernel: kernels.Kernel, z: jax.Array, unit: jax.Array
) -> tuple[list[jax.Array], Any, Layout, list[Origin | None]]:
    """The kernel's vectors, each once; its numbers; the layout; where vectors are from.

    Which are the same, and parts of what, is read off the program of `prepare`.
    """
    program, (vectors, numbers) = jax.make_jaxpr(kernel.prepare, return_shape=True)(
        z, unit
    )
    known: dict[int, Origin] = {
        id(variable): Origin(bool(number), ())
        for number, variable in enumerate(program.jaxpr.invars)
    }
    for equation in program.eqns:
        if equation.primitive.name not in ("slice", "split"):
            continue
        origin = known.get(id(equation.invars[0]))
        for which, variable in enumerate(equation.outvars):
            if origin is not None and variable.aval.shape[0] == z.shape[0]:
                step = equation.primitive, equation.params, which
                known[id(variable)] = origin._replace(steps=(*origin.steps, step))
    values = jax.core.eval_jaxpr(program.jaxpr, program.consts, z, unit)
    count = len(jax.tree.leaves(vectors))
    structure = jax.tree.structure(vectors)
    different: dict[Any, tuple[jax.Array, Origin | None]] = {}
    keys = []
    for variable, value in zip(program.jaxpr.outvars[:count], values, strict=False):
        origin = known.get(id(variable))
        keys.append(id(variable) if origin is None else origin.key())
        different.setdefault(keys[-1], (value, origin))
    order = list(different)
    layout = Layout(structure, tuple(order.index(key) for key in keys))
    numbers = jax.tree.unflatten(jax.tree.structure(numbers), values[count:])
    return (
        [value for value, _ in different.values()],
        numbers,
        layout,
        [origin for _, origin in different.values()],
    )


def take(side: Side, cut: Cut, number: Any) -> Side:
    """Takes a slice of one side.

    Args:
      side: what is compared of n nodes.
      cut: how they are cut.
      number: of the slice.

    Returns:
      The slice; nodes that the slice before has counted are not valid here.
    """
    side = trees.take(side, start(cut, number), cut.size)
    valid = side.nodes.valid & new_rows(cut, number)
    return side._replace(nodes=side.nodes._replace(valid=valid))


def no_gradient(side: Side, last: bool = False) -> Gradient:
    """Makes zeros for the gradient of one side.

    Args:
      side: what is compared of n nodes.
      last: whether the nodes are the last axis of the vectors' gradient.

    Returns:
      Zeros.
    """
    vectors = []
    for x in side.vectors:
        shape = x.shape[::-1] if last else x.shape
        vectors.append(jnp.zeros(shape, kernels.accumulator(x.dtype)))
    zeros = jax.tree.map(jnp.zeros_like, (side.numbers, side.nodes.extra))
    return Gradient(vectors, *zeros)


def pull_back(
    kernel: kernels.Kernel, nodes: graphs.Nodes, side: Side, gradient: Gradient
) -> tuple[kernels.Kernel, graphs.Nodes]:
    """Takes the gradient from what is compared to kernel and nodes.

    Args:
      kernel: a log-kernel.
      nodes: the nodes that were compared.
      side: what `side` gave for them.
      gradient: with respect to it.

    Returns:
      The gradients with respect to the kernel, besides that of its scale, and to the
      nodes.
    """

    def compared(kernel: kernels.Kernel, z: jax.Array) -> Any:
        return _different(kernel, z, kernels.unit(z))[:2]

    def without(factor: jax.Array | None, g: jax.Array) -> jax.Array:
        if factor is None:
            return g
        zero = factor == 0  # of a zero vector, which has no gradient
        return g * jnp.where(zero, 0, 1 / jnp.where(zero, 1, factor))[:, None]

    pairs = zip(side.factors, gradient.vectors, strict=True)
    vectors = [without(factor, g) for factor, g in pairs]
    dtype = kernels.accumulator(nodes.z.dtype)
    _, pull = jax.vjp(compared, kernel, nodes.z.astype(dtype))
    kernel_gradient, z = pull((vectors, gradient.numbers))
    extra = jax.tree.map(lambda g, x: g.astype(x.dtype), gradient.extra, nodes.extra)
    of_nodes = graphs.Nodes(z.astype(nodes.z.dtype), None, None, None, extra)  # type: ignore[arg-type]
    return kernel_gradient, of_nodes


def along_scale(side: Side, gradient: Gradient) -> jax.Array:
    """Adds up products and their gradients: the derivative by a factor of all of them.

    Args:
      side: what is compared of n nodes.
      gradient: with respect to it.

    Returns:
      A number.
    """
    pairs = zip(side.vectors, gradient.vectors, strict=True)
    return sum(jnp.vdot(x.astype(g.dtype), g) for x, g in pairs)  # type: ignore[return-value]
