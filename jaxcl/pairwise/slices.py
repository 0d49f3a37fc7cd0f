"""Nodes in slices: what a kernel compares of them, and how they are cut."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import graphs, kernels, mesh
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


class Vectors(NamedTuple):
    """Vectors that are multiplied with those of the other side.

    Attributes:
      rows: as they were given, [n, d_k].
      shrink: a power of two for each, so that products neither overflow nor vanish, [n]
        or None: rows times these are multiplied.
      factor: what products are multiplied with, [n] or None.
    """

    rows: jax.Array
    shrink: jax.Array | None
    factor: jax.Array | None

    def multiplied(self, narrow: bool) -> "Vectors":
        """What is multiplied, with the factor that is left for products.

        Args:
          narrow: whether bfloat16 stays what it is. Then nothing is rounded before the
            product, and factors come after it; float32 takes them before.
        """
        rows, shrink, factor = self
        after = narrow and rows.dtype == jnp.bfloat16
        if not after:
            rows = rows.astype(kernels.accumulator(rows.dtype))
        if shrink is not None:
            rows = rows * shrink.astype(rows.dtype)[:, None]
        if factor is not None and not after:
            rows, factor = rows * factor[:, None], None
        return Vectors(rows, None, factor)


class Side(NamedTuple):
    """What is compared of n nodes, and who they are.

    Attributes:
      vectors: what is multiplied.
      numbers: the kernel's numbers, a pytree of [n].
      nodes: identities and extras; without embeddings.
    """

    vectors: list[Vectors]
    numbers: Any
    nodes: graphs.Nodes

    def multiplied(self, narrow: bool) -> "Side":
        """The side with vectors as they are multiplied; see `Vectors.multiplied`."""
        return self._replace(vectors=[v.multiplied(narrow) for v in self.vectors])


class Layout(NamedTuple):
    """How a kernel's pytree is made of the vectors of a `Side`."""

    structure: Any
    places: tuple[int, ...]


class Gradient(NamedTuple):
    """The gradient of one side.

    Attributes:
      vectors: with respect to products, times what is multiplied of the other side,
        [n, d_k]: the gradient of the kernel's vectors, times the factor that was left.
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
    shrink, inverse = kernels.lengths(z)
    wide = z.astype(dtype)
    unit = wide * shrink[:, None] * inverse[:, None]
    computed, numbers, layout, origins = _different(kernel, wide, unit)
    # Lengths of raw vectors come back after the product if it needs them shrunk.
    beside = any(origin is not None and origin.unit for origin in origins)
    vectors = []
    for vector, origin in zip(computed, origins, strict=True):
        if origin is None:
            vectors.append(Vectors(vector, None, None))
        elif beside:
            factor = inverse if origin.unit else 1 / shrink
            vectors.append(Vectors(origin.of(z), shrink, factor))
        else:
            vectors.append(Vectors(origin.of(z), None, None))
    extra = jax.tree.map(lambda x: x.astype(dtype), nodes.extra)
    who = nodes._replace(z=None, extra=extra)  # type: ignore[arg-type]
    return Side(vectors, numbers, who), layout


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
    for x, *_ in side.vectors:
        shape = x.shape[::-1] if last else x.shape
        vectors.append(jnp.zeros(shape, kernels.accumulator(x.dtype)))
    zeros = jax.tree.map(jnp.zeros_like, (side.numbers, side.nodes.extra))
    return Gradient(vectors, *zeros)


def pull_back(
    kernel: kernels.Kernel,
    nodes: graphs.Nodes,
    side: Side,
    gradient: Gradient,
    *,
    narrow: bool,
    tile: int,
) -> tuple[kernels.Kernel, graphs.Nodes]:
    """Takes the gradient from what is compared to kernel and nodes.

    Args:
      kernel: a log-kernel.
      nodes: the nodes that were compared.
      side: what `side` gave for them.
      gradient: with respect to it.
      narrow: how vectors were multiplied.
      tile: how many nodes are handled at a time: what lies between is never stored
        whole.

    Returns:
      The gradients with respect to the kernel, besides that of its multiplier, and to
      the nodes.
    """
    rows = cut(len(nodes.z), tile)
    # Each slice takes the place of what it was computed from, if that has its shape.
    of_vectors, numbers, _ = gradient
    in_place = [x.shape for x in of_vectors] == [nodes.z.shape]
    z = of_vectors[0] if in_place else jnp.zeros(nodes.z.shape, of_vectors[0].dtype)

    def of_slice(i: Any, totals: Any) -> Any:
        of_kernel, z = totals
        at, new = start(rows, i), new_rows(rows, i)
        given = ([z] if in_place else of_vectors), numbers, side, nodes.z, z
        *own, own_side, own_z, before = trees.take(given, at, rows.size)
        own = trees.mask_rows(Gradient(own[0], own[1], ()), new)
        part, now = _pulled(kernel, own_z, own_side, own, narrow)
        now = jnp.where(new[:, None], now, before)
        z = lax.dynamic_update_slice_in_dim(z, now, at, 0)
        return trees.add(of_kernel, part), z

    totals = jax.tree.map(jnp.zeros_like, kernel), z
    totals = mesh.cast_varying(totals, mesh.varying_axes((kernel, nodes.z, gradient)))
    of_kernel, z = lax.fori_loop(0, rows.number, of_slice, totals)
    z = z.astype(nodes.z.dtype)
    extra = jax.tree.map(lambda g, x: g.astype(x.dtype), gradient.extra, nodes.extra)
    return of_kernel, graphs.Nodes(z, None, None, None, extra)  # type: ignore[arg-type]


def _pulled(
    kernel: kernels.Kernel, z: jax.Array, side: Side, gradient: Gradient, narrow: bool
) -> tuple[kernels.Kernel, jax.Array]:
    """The gradients of kernel and embeddings, at once for all rows."""

    def compared(kernel: kernels.Kernel, z: jax.Array) -> Any:
        return _different(kernel, z, kernels.unit(z))[:2]

    def without(factor: jax.Array | None, g: jax.Array) -> jax.Array:
        if factor is None:
            return g
        zero = factor == 0  # of a zero vector, which has no gradient
        return g * jnp.where(zero, 0, 1 / jnp.where(zero, 1, factor))[:, None]

    pairs = zip(side.vectors, gradient.vectors, strict=True)
    vectors = [without(v.multiplied(narrow).factor, g) for v, g in pairs]
    _, pull = jax.vjp(compared, kernel, z.astype(kernels.accumulator(z.dtype)))
    return pull((vectors, gradient.numbers))


def along_products(side: Side, gradient: Gradient, narrow: bool) -> jax.Array:
    """Adds up products, each times its gradient.

    Args:
      side: what is compared of n nodes.
      gradient: with respect to it.
      narrow: how vectors were multiplied.

    Returns:
      The derivative by the logarithm of what all products are multiplied with.
    """
    total = jnp.zeros((), gradient.vectors[0].dtype)
    for vectors, g in zip(side.vectors, gradient.vectors, strict=True):
        total += jnp.sum(vectors.multiplied(narrow).rows.astype(g.dtype) * g)
    return total
