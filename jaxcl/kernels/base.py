"""What a kernel is, how it is evaluated on rows, and unit vectors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks


class Kernel:
    """What a kernel says about a pair of embeddings; see the module's docstring.

    Attributes:
      precision: what products of float32 vectors need at least, as in `jax.lax.dot`;
        None leaves it to `pairwise.reduce_pairs`.
    """

    precision: ClassVar[Any] = None

    def multiplier(self) -> ArrayLike | None:
        """A number that products are multiplied with before `elementwise` sees them.

        What is said here costs nothing per pair, and nor does its derivative.

        Returns:
          A number; None for one.
        """
        return None

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        """Chooses the vectors that are compared, and numbers that belong to each.

        Args:
          z: embeddings [..., d] as given.
          unit: the same, each divided by its length; zero stays zero.

        Returns:
          A pytree of vectors [..., d_k], each to be multiplied with its partner of the
          other side, and a pytree of numbers [...].
        """
        raise _undefined(self, "prepare(self, z, unit)")

    def pair(self, x: Any, y: Any) -> jax.Array:
        """Computes the logit of one pair.

        Args:
          x: the vectors of one embedding, from `prepare`, [d_k] each.
          y: the vectors of the other embedding.

        Returns:
          The logit [].
        """
        raise _undefined(self, "pair(self, x, y)")

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        """Computes the logits of all pairs of two sets from inner products.

        Args:
          products: the pytree of vectors, as inner products [n, m] times `multiplier`.
          row: the numbers of the rows, as arrays [n, 1].
          column: the numbers of the columns, as arrays [1, m].

        Returns:
          Logits [n, m].
        """
        raise _undefined(self, "elementwise(self, products, row, column)")

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Computes the log-kernel matrix densely: for reading, tests and plots.

        Args:
          x: embeddings [n, d].
          y: embeddings [m, d].

        Returns:
          Logits [n, m], float32 (float64 for float64 input).
        """
        check(self)
        _checks.embeddings("x", x, "n d")
        _checks.embeddings("y", y, "m d")
        _checks.same_width("x", x, "y", y)
        return log_kernel(self, x, y)


def _undefined(kernel: Kernel, method: str) -> NotImplementedError:
    return NotImplementedError(
        f"{type(kernel).__name__} must define {method}, got a kernel without it; "
        "help(jaxcl.kernels) shows a whole one"
    )


def check(kernel: Any) -> None:
    """Checks that an argument called `kernel` is one, and a pytree.

    Args:
      kernel: the argument.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is something else, or its class is not registered.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(
            "kernel must be a kernel, such as jaxcl.kernels.cosine(0.1), "
            f"got {type(kernel).__name__}"
        )
    # A class that is not registered is a leaf, on its own or inside of a sum.
    for leaf in jax.tree.leaves(kernel):
        if isinstance(leaf, Kernel):
            raise TypeError(
                f"{type(leaf).__name__} must be registered as a pytree, got a class "
                "that is not; put @jax.tree_util.register_dataclass above its "
                "@dataclasses.dataclass(frozen=True)"
            )


def check_shapes(kernel: Kernel, width: int, dtype: Any) -> None:
    """Checks what the methods of a kernel return, without computing anything.

    Args:
      kernel: with array leaves.
      width: the embedding size.
      dtype: of the embeddings.

    Returns:
      Nothing.

    Raises:
      TypeError: if `prepare` does not return two things.
      ValueError: if a shape is wrong.
    """
    leaves, structure = jax.tree.flatten(kernel)

    def ask(leaves: list[jax.Array], x: jax.Array, y: jax.Array) -> None:
        kernel = jax.tree.unflatten(structure, leaves)
        (xs, row), (ys, column) = _prepare(kernel, x), _prepare(kernel, y)
        _logit(kernel, *(jax.tree.map(lambda v: v[0], side) for side in (xs, ys)))
        products = scaled(kernel, jax.tree.map(lambda a, b: a @ b.T, xs, ys))
        _tile(kernel, products, row, column, (len(x), len(y)))

    # Two rows and three columns: what is turned around shows in its shape.
    shapes = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    rows, columns = ((n, width) for n in (2, 3))
    jax.eval_shape(
        ask,
        [jax.ShapeDtypeStruct(*shape) for shape in shapes],
        jax.ShapeDtypeStruct(rows, dtype),
        jax.ShapeDtypeStruct(columns, dtype),
    )


def disagreement(kernel: Kernel, z: jax.Array) -> float:
    """Tells how far the two forms of a kernel lie apart, to test one that you wrote.

    Tiles use `elementwise`, everything else `pair`, and both ends of a pair share its
    logit. So this compares, for different rows of z, the logits by `pair` with those by
    `elementwise` and with those of the rows in exchanged roles.

    Args:
      kernel: a log-kernel.
      z: embeddings [n, d], n >= 2; any that the kernel should get right.

    Returns:
      The largest absolute difference; NaN if a logit is. For a kernel that is right it
      is rounding: about 1e-6 times the largest logit in float32, more near a distance
      of 0 where the kernel has a kink.

    Raises:
      TypeError: if something has the wrong type.
      ValueError: if z has fewer than two rows, or a method returns a wrong shape.

    >>> from jaxcl import kernels
    >>> z = jax.random.normal(jax.random.key(0), (8, 3))
    >>> print(disagreement(kernels.gaussian(0.5), z) < 1e-5)
    True
    """
    check(kernel)
    _checks.embeddings("z", z, "n d")
    n, d = z.shape
    if n < 2:
        raise ValueError(f"z must have at least two rows, got {z.shape}")
    kernel, z, _ = _accumulating(kernel, z, z)
    check_shapes(kernel, d, z.dtype)
    # No row with itself, which no loss compares.
    x, y = jnp.split(z, [max(1, (n - 1) // 2)])
    (xs, row), (ys, column) = _prepare(kernel, x), _prepare(kernel, y)
    products = scaled(
        kernel,
        jax.tree.map(lambda a, b: jnp.dot(a, b.T, precision="highest"), xs, ys),
    )
    defined = jax.tree.leaves(log_kernel(kernel, x, y))
    tile = jax.tree.leaves(_tile(kernel, products, row, column, (len(x), len(y))))
    exchanged = [s.T for s in jax.tree.leaves(log_kernel(kernel, y, x))]
    return max(
        float(jnp.max(jnp.where(s == other, 0, jnp.abs(s - other))))
        for others in (tile, exchanged)
        for s, other in zip(defined, others, strict=True)
    )


def scaled(kernel: Kernel, products: Any) -> Any:
    """Multiplies inner products with the multiplier of a kernel.

    Args:
      kernel: a log-kernel.
      products: a pytree of inner products.

    Returns:
      What its `elementwise` takes.
    """
    scale = kernel.multiplier()
    return products if scale is None else jax.tree.map(lambda p: p * scale, products)


@jax.jit
def log_kernel(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the log-kernel matrix from its definition.

    Args:
      kernel: a log-kernel.
      x: embeddings [n, d].
      y: embeddings [m, d].

    Returns:
      Logits [n, m], float32 (float64 for float64 input).
    """
    kernel, x, y = _accumulating(kernel, x, y)
    (xs, _), (ys, _) = _prepare(kernel, x), _prepare(kernel, y)
    return jax.vmap(lambda a: jax.vmap(lambda b: _logit(kernel, a, b))(ys))(xs)


def matched(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the logits of matched rows: of x_i with y_i, or with each of several.

    Args:
      kernel: a log-kernel.
      x: embeddings [n, d].
      y: embeddings [n, d], or [n, k, d] with k for each row of x.

    Returns:
      Logits [n] or [n, k], float32 (float64 for float64 input).

    >>> from jaxcl import kernels
    >>> print(matched(kernels.cosine(0.5), jnp.eye(2), jnp.eye(2)))
    [2. 2.]
    """
    check(kernel)
    kernel, x, y = _accumulating(kernel, x, y)

    def of_row(x: jax.Array, y: jax.Array) -> jax.Array:
        (x, _), (several, _) = _prepare(kernel, x), _prepare(kernel, y)
        one = functools.partial(_logit, kernel, x)
        return one(several) if y.ndim == 1 else jax.vmap(one)(several)

    return _map_rows(of_row, x, y)


def matched_views(kernel: Kernel, views: jax.Array) -> jax.Array:
    """Computes the logits of each view with the other views of its example.

    Args:
      kernel: a log-kernel.
      views: embeddings [b, v, d].

    Returns:
      Logits [b, v, v - 1], float32 (float64 for float64 input).

    >>> from jaxcl import kernels
    >>> print(matched_views(kernels.cosine(0.5), jnp.ones((1, 3, 2))).shape)
    (1, 3, 2)
    """
    check(kernel)
    kernel, views, _ = _accumulating(kernel, views, views)
    v = views.shape[1]

    def of_example(*z: jax.Array) -> jax.Array:
        at = [_prepare(kernel, each)[0] for each in z]
        # Each unordered pair is computed once and stands twice in the result.
        logits = {
            (i, j): _logit(kernel, at[i], at[j])
            for i in range(v)
            for j in range(i + 1, v)
        }
        return jnp.stack(
            [
                jnp.stack([logits[min(i, j), max(i, j)] for j in range(v) if j != i])
                for i in range(v)
            ]
        )

    # View by view: registers of TPUs are filled by the last two axes, of which two
    # views would be the first.
    return _map_rows(of_example, *(views[:, i] for i in range(v)))


# Rows that are handled at once where each is independent of the others.
ROWS_AT_ONCE = 1024


def _map_rows(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    if arrays[0].shape[0] <= ROWS_AT_ONCE:
        return jax.vmap(function)(*arrays)
    # In blocks that are computed again in the backward pass: of many intermediate
    # results of the size of the embeddings, none is ever stored whole.
    return lax.map(
        jax.checkpoint(lambda rows: function(*rows)), arrays, batch_size=ROWS_AT_ONCE
    )


# Shapes are known while tracing, so these checks cost nothing.


def _prepare(kernel: Kernel, z: jax.Array) -> tuple[Any, Any]:
    """What the kernel compares, checked."""
    name = f"{type(kernel).__name__}.prepare"
    prepared = kernel.prepare(z, unit(z))
    if not isinstance(prepared, tuple | list) or len(prepared) != 2:
        if isinstance(prepared, tuple | list):
            got = f"{len(prepared)} things"
        else:
            got = "one array" if hasattr(prepared, "shape") else repr(prepared)
        raise TypeError(
            f"{name} must return two things, vectors and numbers, such as `z, ()`, "
            f"got {got}"
        )
    vectors, numbers = prepared
    for leaf in jax.tree.leaves(vectors):
        if jnp.shape(leaf)[:-1] != z.shape[:-1] or not jnp.ndim(leaf):
            raise ValueError(
                f"{name} must return vectors [..., d_k] for embeddings [..., d], "
                f"got shape {jnp.shape(leaf)} for {z.shape}"
            )
    for leaf in jax.tree.leaves(numbers):
        if jnp.shape(leaf) != z.shape[:-1]:
            raise ValueError(
                f"{name} must return numbers [...] for embeddings [..., d], "
                f"got shape {jnp.shape(leaf)} for {z.shape}"
            )
    return vectors, numbers


def _logit(kernel: Kernel, x: Any, y: Any) -> Any:
    """The logit of one pair, checked."""
    logit = kernel.pair(x, y)
    for leaf in jax.tree.leaves(logit):
        if jnp.shape(leaf) != ():
            raise ValueError(
                f"{type(kernel).__name__}.pair must return a number [], "
                f"got shape {jnp.shape(leaf)}; is a sum missing?"
            )
    return logit


def _tile(
    kernel: Kernel, products: Any, row: Any, column: Any, shape: tuple[int, int]
) -> Any:
    """The logits of a tile by inner products, checked."""
    logits = kernel.elementwise(
        products,
        jax.tree.map(lambda x: x[:, None], row),
        jax.tree.map(lambda x: x[None, :], column),
    )
    for leaf in jax.tree.leaves(logits):
        if jnp.shape(leaf) != shape:
            raise ValueError(
                f"{type(kernel).__name__}.elementwise must return logits [n, m] for "
                f"products [n, m], got shape {jnp.shape(leaf)} for {shape}"
            )
    return logits


def _accumulating(
    kernel: Kernel, x: jax.Array, y: jax.Array
) -> tuple[Kernel, jax.Array, jax.Array]:
    dtype = accumulator(x.dtype, y.dtype)
    return cast_leaves(kernel, dtype), x.astype(dtype), y.astype(dtype)


def accumulator(*dtypes: Any) -> Any:
    """Returns the dtype in which embeddings of these dtypes are compared.

    Args:
      *dtypes: floating dtypes.

    Returns:
      float32, or float64 where one of them is.

    >>> print(accumulator(jnp.bfloat16))
    float32
    """
    wide = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def cast_leaves(tree: Any, dtype: Any) -> Any:
    """Casts the leaves of a pytree to one floating dtype.

    Args:
      tree: a pytree of numbers and arrays, such as a kernel.
      dtype: the dtype.

    Returns:
      The pytree with array leaves.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def unit(z: jax.Array) -> jax.Array:
    """Divides each embedding by its length.

    Args:
      z: embeddings [..., d].

    Returns:
      Vectors of length one [..., d]. A zero vector stays zero and has gradient zero.

    >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [[0.6 0.8]
     [0.  0. ]]
    """
    return _unit(z)


@jax.custom_jvp
def _unit(z: jax.Array) -> jax.Array:
    shrink, inverse = lengths(z)
    wide = z.astype(shrink.dtype) * shrink[..., None] * inverse[..., None]
    return wide.astype(z.dtype)


@_unit.defjvp
def _unit_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # By hand, in half of the operations: what lies along the vector changes nothing.
    (z,), (tangent,) = primals, tangents
    x = _unit(z)
    along = jnp.sum(x * tangent, axis=-1, keepdims=True)
    return x, (tangent - x * along) * inverse_norm(z)[..., None]


def inverse_norm(z: jax.Array) -> jax.Array:
    """Computes one over the length of each embedding.

    Args:
      z: embeddings [..., d].

    Returns:
      Numbers [...]; 0 for a zero vector.

    >>> print(inverse_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [0.2 0. ]
    """
    shrink, inverse = lengths(z)
    return (shrink * inverse).astype(z.dtype)


def lengths(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Measures embeddings, however long or short they are.

    Args:
      z: embeddings [..., d] of any floating dtype.

    Returns:
      Powers of two [...], so that the largest entries of z times these lie in [1, 2),
      and one over the lengths of that [...]; both as `accumulator` says. A row of
      zeros, or without normal numbers, has 1 and 0.
    """
    dtype = accumulator(z.dtype)
    wide = z.astype(dtype)
    tiny = float(jnp.finfo(dtype).tiny)
    # Below the smallest normal number there is no inverse: such a vector counts as 0.
    # Above one over it the inverse is none: what is left is a few times 1. The power
    # cancels from what is computed of it, so its derivative may be left out.
    largest = lax.stop_gradient(jnp.max(jnp.abs(wide), axis=-1))
    largest = jnp.where(largest < tiny, 1, jnp.minimum(largest, 1 / tiny))
    shrink = _inverse_power(largest)
    squared = jnp.sum(jnp.square(wide * shrink[..., None]), axis=-1)
    # Where the length is 0, the root sees a one: its derivative would be NaN.
    zero = squared == 0
    return shrink, jnp.where(zero, 0, 1 / jnp.sqrt(jnp.where(zero, 1, squared)))


def _inverse_power(x: jax.Array) -> jax.Array:
    """One over the largest power of two that is at most x, without rounding."""
    info = jnp.finfo(x.dtype)
    digits = lax.bitcast_convert_type(x, jnp.dtype(f"int{info.bits}"))
    # An exponent e is stored as e + bias above the digits of x, and -e as bias - e.
    exponent = (digits >> info.nmant) << info.nmant
    twice_bias = (2 ** (info.nexp - 1) - 1) * 2 << info.nmant
    return lax.bitcast_convert_type(twice_bias - exponent, x.dtype)


def register(*data_fields: str) -> Any:
    """Makes a dataclass a pytree whose named fields are leaves and the rest static.

    Args:
      *data_fields: names of the differentiable fields.

    Returns:
      A decorator of classes.
    """

    def register_class(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls)]
        static = [name for name in names if name not in data_fields]
        return jax.tree_util.register_dataclass(cls, list(data_fields), static)

    return register_class
