"""Log-kernels: the similarity s_ij = log k(z_i, z_j) of two embeddings, as pytrees.

A kernel is a frozen dataclass whose float fields (temperatures, weights, scales) are
differentiable leaves and whose other fields are static. It says three things:

    prepare(z, unit)                     which vectors it compares, and numbers of each
    pair(x, y)                           the logit of two such vectors
    elementwise(products, row, column)   the same logits of a tile, from inner products

`pair` is the definition and may use differences, which stay exact for close vectors;
`elementwise` is what a tile of one matrix product can afford. Anyone can write one:

    @functools.partial(
        jax.tree_util.register_dataclass, data_fields=["scale"], meta_fields=[]
    )
    @dataclasses.dataclass(frozen=True)
    class Linear(kernels.Kernel):
        scale: jax.typing.ArrayLike

        def prepare(self, z, unit):
            return z, ()

        def pair(self, x, y):
            return self.scale * jnp.dot(x, y)

        def elementwise(self, products, row, column):
            return self.scale * products
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks

# The least arc-cosine kernel: near the opposite pole the kernel falls to zero faster
# than float32 can tell, so its logarithm stops here.
ARC_COSINE_FLOOR = 1e-6


class Kernel:
    """What a kernel says about a pair of embeddings; see the module's docstring.

    Attributes:
      precision: of the matrix product, as in `jax.lax.dot`. None leaves JAX's default.
    """

    precision: ClassVar[Any] = None

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        """Chooses the vectors that are compared, and numbers that belong to each.

        Args:
          z: embeddings [..., d] as given.
          unit: the same, each divided by its length; zero stays zero.

        Returns:
          A pytree of vectors [..., d_k], each to be multiplied with its partner of the
          other side, and a pytree of numbers [...].
        """
        raise NotImplementedError

    def pair(self, x: Any, y: Any) -> jax.Array:
        """Computes the logit of one pair.

        Args:
          x: the vectors of one embedding, from `prepare`, [d_k] each.
          y: the vectors of the other embedding.

        Returns:
          The logit [].
        """
        raise NotImplementedError

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        """Computes the logits of all pairs of two sets from inner products.

        Args:
          products: the pytree of vectors, as inner products [n, m].
          row: the numbers of the rows, as arrays [n, 1].
          column: the numbers of the columns, as arrays [1, m].

        Returns:
          Logits [n, m].
        """
        raise NotImplementedError

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Computes the log-kernel matrix densely: for reading, tests and plots.

        Args:
          x: embeddings [n, d].
          y: embeddings [m, d].

        Returns:
          Logits [n, m], float32 (float64 for float64 input).
        """
        _checks.embeddings("x", x, "n d")
        _checks.embeddings("y", y, "m d")
        _checks.same_width("x", x, "y", y)
        return log_kernel(self, x, y)


def check(kernel: Any) -> None:
    """Checks that an argument called `kernel` is one.

    Args:
      kernel: the argument.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is something else.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(
            "kernel must be a kernel, such as jaxcl.kernels.cosine(0.1), "
            f"got {type(kernel).__name__}"
        )


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
    (xs, _), (ys, _) = kernel.prepare(x, unit(x)), kernel.prepare(y, unit(y))
    return jax.vmap(lambda a: jax.vmap(lambda b: kernel.pair(a, b))(ys))(xs)


def matched(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the logits of matched rows: of x_i with y_i.

    Args:
      kernel: a log-kernel.
      x: embeddings [n, d].
      y: embeddings [n, d].

    Returns:
      Logits [n], float32 (float64 for float64 input).

    >>> print(matched(cosine(0.5), jnp.eye(2), jnp.eye(2)))
    [2. 2.]
    """
    check(kernel)
    kernel, x, y = _accumulating(kernel, x, y)
    return _map_rows(lambda x, y: _pair(kernel, x, y), x, y)


def matched_views(kernel: Kernel, views: jax.Array) -> jax.Array:
    """Computes the logits of each view with the other views of its example.

    Args:
      kernel: a log-kernel.
      views: embeddings [b, v, d].

    Returns:
      Logits [b, v, v - 1], float32 (float64 for float64 input).

    >>> print(matched_views(cosine(0.5), jnp.ones((1, 3, 2))).shape)
    (1, 3, 2)
    """
    check(kernel)
    kernel, views, _ = _accumulating(kernel, views, views)
    v = views.shape[1]

    def of_example(z: jax.Array) -> jax.Array:
        vectors, _ = kernel.prepare(z, unit(z))
        at = [jax.tree.map(lambda x, i=i: x[i], vectors) for i in range(v)]
        # Each unordered pair is computed once and stands twice in the result.
        logits = {
            (i, j): kernel.pair(at[i], at[j]) for i in range(v) for j in range(i + 1, v)
        }
        return jnp.stack(
            [
                jnp.stack([logits[min(i, j), max(i, j)] for j in range(v) if j != i])
                for i in range(v)
            ]
        )

    return _map_rows(of_example, views)


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


def _pair(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    (x, _), (y, _) = kernel.prepare(x, unit(x)), kernel.prepare(y, unit(y))
    return kernel.pair(x, y)


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
    """Casts the numbers of a pytree to one floating dtype.

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
    z, _, squared = _scaled(z)
    # Where the length is 0, the division sees a one: its derivative would be NaN.
    zero = squared == 0
    length = jnp.sqrt(jnp.where(zero, 1, squared))
    # One division for each embedding, and not for each of its entries.
    return z * jnp.where(zero, 0, 1 / length)[..., None]


def inverse_norm(z: jax.Array) -> jax.Array:
    """Computes one over the length of each embedding.

    Args:
      z: embeddings [..., d].

    Returns:
      Numbers [...]; 0 for a zero vector.

    >>> print(inverse_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [0.2 0. ]
    """
    _, largest, squared = _scaled(z)
    return jnp.where(squared == 0, 0, 1 / (largest * jnp.sqrt(squared)))


def _scaled(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Embeddings over their largest entry, that entry, and their squared lengths.

    Divided like this, the squares of 1e-30 and of 1e30 stay inside float32. The factor
    cancels from what is computed of it, so its gradient may be left out.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1))
    # Below the smallest normal number there is no inverse: such a vector counts as 0.
    largest = jnp.where(largest < jnp.finfo(z.dtype).tiny, 1, largest)
    z = z * (1 / largest)[..., None]
    return z, largest, jnp.sum(jnp.square(z), axis=-1)


def cosine(temperature: ArrayLike) -> Kernel:
    """Makes the cosine kernel: s = x.y / (|x| |y|) / temperature.

    Args:
      temperature: dimensionless, > 0. Divides; smaller is sharper.

    Returns:
      A kernel. A zero vector has cosine 0 with everything.

    Raises:
      ValueError: if the temperature is not positive.

    >>> print(cosine(0.5)(jnp.eye(2), jnp.eye(2)))
    [[2. 0.]
     [0. 2.]]
    """
    _checks.positive("temperature", temperature)
    return Cosine(temperature)


def dot(temperature: ArrayLike = 1.0) -> Kernel:
    """Makes the inner-product kernel: s = x.y / temperature, of vectors as given.

    Args:
      temperature: > 0. Divides; smaller is sharper.

    Returns:
      A kernel.

    Raises:
      ValueError: if the temperature is not positive.

    >>> print(dot()(2 * jnp.eye(2), jnp.eye(2)))
    [[2. 0.]
     [0. 2.]]
    """
    _checks.positive("temperature", temperature)
    return Dot(temperature)


def exponential(power: float, temperature: ArrayLike, normalize: bool = True) -> Kernel:
    """Makes the exponential kernel: s = -|x - y|^power / temperature.

    With power 2 on unit vectors this is the cosine kernel at half the temperature, up
    to a constant. At distance 0 the gradient is 0. From a tile's inner products the
    distance of two float32 unit vectors is known to about 3e-4 at worst, so the logits
    of nearly equal negatives are off by up to (3e-4)^power / temperature; positives are
    computed from differences.

    Args:
      power: in (0, 2], where the kernel is positive definite.
      temperature: in units of distance^power, > 0. Divides; smaller is sharper.
      normalize: whether embeddings are divided by their length first.

    Returns:
      A kernel.

    Raises:
      ValueError: if the power is outside (0, 2] or the temperature not positive.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 5.2.

    >>> print(exponential(1, 0.5)(jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])))
    [[-4.]]
    """
    value = _checks.static("power", power)
    if not 0 < value <= 2:
        raise ValueError(f"power must lie in (0, 2], got {value}")
    _checks.positive("temperature", temperature)
    return Exponential(temperature, value, bool(normalize))


def gaussian(temperature: ArrayLike, normalize: bool = True) -> Kernel:
    """Makes the Gaussian kernel: s = -|x - y|^2 / temperature.

    Args:
      temperature: in units of squared distance, > 0. Divides; smaller is sharper.
      normalize: whether embeddings are divided by their length first.

    Returns:
      A kernel; see `exponential`.

    Raises:
      ValueError: if the temperature is not positive.

    >>> print(gaussian(0.5)(jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])))
    [[-8.]]
    """
    return exponential(2, temperature, normalize)


def laplacian(temperature: ArrayLike, normalize: bool = True) -> Kernel:
    """Makes the Laplacian kernel of the Euclidean distance: s = -|x - y| / temperature.

    Args:
      temperature: in units of distance, > 0. Divides; smaller is sharper.
      normalize: whether embeddings are divided by their length first.

    Returns:
      A kernel; see `exponential`.

    Raises:
      ValueError: if the temperature is not positive.

    >>> print(laplacian(0.5)(jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])))
    [[-4.]]
    """
    return exponential(1, temperature, normalize)


def arc_cosine(order: int, scale: ArrayLike = 1.0) -> Kernel:
    """Makes the arc-cosine kernel of order 0, 1 or 2 at a scaled angle.

    With angle a = arccos(1 - scale (1 - cos(x, y))) and without the factor 1 / pi:

        k_0 = pi - a
        k_1 = sin a + (pi - a) cos a
        k_2 = 3 sin a cos a + (pi - a) (1 + 2 cos^2 a)

    The logit is log max(k, 1e-6). The gradient is 0 at coincidence, and near the
    opposite pole, where k <= 1e-6.

    Args:
      order: 0, 1 or 2.
      scale: in (0, 1]; below 1 the opposite pole is never reached.

    Returns:
      A kernel.

    Raises:
      ValueError: if the order or the scale is another one.

    Source:
      Cho and Saul, Kernel Methods for Deep Learning, 2009, equations 3 to 6.

    >>> print(arc_cosine(0)(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])))
    [[0.45158273]]
    """
    _checks.choice("order", order, (0, 1, 2))
    _checks.positive("scale", scale)
    value = _checks.scalar("scale", scale)
    if value is not None and value > 1:
        raise ValueError(f"scale must lie in (0, 1], got {value:g}")
    return ArcCosine(scale, order)


def kernel_sum(*kernels: Kernel, weights: Sequence[ArrayLike] | None = None) -> Kernel:
    """Adds kernels: s = log sum_m w_m k_m(x, y), the sum inside the logarithm.

    Args:
      *kernels: at least one kernel.
      weights: one number >= 0 for each kernel; None is 1 for all; 0 drops a kernel.

    Returns:
      A kernel.

    Raises:
      TypeError: if something is not a kernel.
      ValueError: if there is no kernel, or the weights are wrong.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 5.2 ("simple sum").

    >>> simple_sum = kernel_sum(gaussian(0.5), laplacian(0.5))
    >>> print(simple_sum(jnp.eye(2)[:1], jnp.eye(2)[:1]))  # log(1 + 1)
    [[0.6931472]]
    """
    return KernelSum(_members(kernels), _weights(weights, len(kernels)))


def concatenation_sum(
    *kernels: Kernel, weights: Sequence[ArrayLike] | None = None
) -> Kernel:
    """Adds kernels of parts: kernel m sees the m-th equal slice of the embedding.

    Kernels that normalize do so on the whole vector, before it is sliced.

    Args:
      *kernels: at least one kernel; their number divides the embedding size.
      weights: one number >= 0 for each kernel; None is 1 for all; 0 drops a kernel,
        whose slice still counts in the length of the whole vector.

    Returns:
      A kernel.

    Raises:
      TypeError: if something is not a kernel.
      ValueError: if there is no kernel, the weights are wrong, or, when used, the
        embedding size is not divisible.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 5.2.

    >>> halves = concatenation_sum(gaussian(0.5), laplacian(0.5))
    >>> print(halves(jnp.ones((1, 4)), jnp.ones((1, 4))))  # log(1 + 1)
    [[0.6931472]]
    """
    return ConcatenationSum(_members(kernels), _weights(weights, len(kernels)))


def _register(*data_fields: str) -> Any:
    """Makes a dataclass a pytree whose named fields are leaves and the rest static."""

    def register(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls)]
        static = [name for name in names if name not in data_fields]
        return jax.tree_util.register_dataclass(cls, list(data_fields), static)

    return register


@_register("temperature")
@dataclasses.dataclass(frozen=True)
class Cosine(Kernel):
    """x.y / (|x| |y|) / temperature; made by `cosine`."""

    temperature: ArrayLike

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return unit, ()

    def pair(self, x: Any, y: Any) -> jax.Array:
        return jnp.dot(x, y) / self.temperature

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        return products / self.temperature


@_register("temperature")
@dataclasses.dataclass(frozen=True)
class Dot(Cosine):
    """x.y / temperature; made by `dot`."""

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return z, ()


@_register("temperature")
@dataclasses.dataclass(frozen=True)
class Exponential(Kernel):
    """-|x - y|^power / temperature; made by `exponential`."""

    temperature: ArrayLike
    power: float
    normalize: bool

    # |x|^2 + |y|^2 - 2 x.y loses the distance of close vectors in a rounded product.
    precision: ClassVar[Any] = lax.Precision.HIGHEST

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        x = unit if self.normalize else z
        return x, jnp.sum(x * x, axis=-1)

    def pair(self, x: Any, y: Any) -> jax.Array:
        return -self._root(jnp.sum(jnp.square(x - y))) / self.temperature

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        squared = row + column - 2 * products
        return -self._root(jnp.maximum(squared, 0)) / self.temperature

    def _root(self, squared: jax.Array) -> jax.Array:
        """Turns a squared distance into distance^power, with gradient 0 at 0."""
        if self.power == 2:
            return squared
        # Below power 2 the derivative at 0 is infinite, and the branch not taken by one
        # `where` would still turn it into NaN: hence two.
        zero = squared == 0
        squared = jnp.where(zero, 1, squared)
        root = jnp.sqrt(squared) if self.power == 1 else squared ** (self.power / 2)
        return jnp.where(zero, 0, root)


@_register("scale")
@dataclasses.dataclass(frozen=True)
class ArcCosine(Kernel):
    """Log of the arc-cosine kernel at a scaled angle; made by `arc_cosine`."""

    scale: ArrayLike
    order: int

    precision: ClassVar[Any] = lax.Precision.HIGHEST

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return unit, ()

    def pair(self, x: Any, y: Any) -> jax.Array:
        # 1 - cos from the difference is exact for close vectors; a zero vector has
        # cosine 0 with everything.
        zero = (jnp.dot(x, x) == 0) | (jnp.dot(y, y) == 0)
        height = jnp.where(zero, 1, jnp.sum(jnp.square(x - y)) / 2)
        return _log_arc_cosine(self.order, jnp.asarray(self.scale * height))

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        return _log_arc_cosine(self.order, jnp.asarray(self.scale * (1 - products)))


@_register("kernels", "weights")
@dataclasses.dataclass(frozen=True)
class KernelSum(Kernel):
    """log sum_m w_m k_m of whole embeddings; made by `kernel_sum`."""

    kernels: tuple[Kernel, ...]
    weights: tuple[ArrayLike, ...]

    @property
    def precision(self) -> Any:
        """The first precision that a member asks for."""
        asked = (kernel.precision for kernel in self.kernels)
        return next((precision for precision in asked if precision is not None), None)

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        prepared = [kernel.prepare(z, unit) for kernel in self.kernels]
        return [vectors for vectors, _ in prepared], [
            numbers for _, numbers in prepared
        ]

    def pair(self, x: Any, y: Any) -> jax.Array:
        members = zip(self.kernels, x, y, strict=True)
        return _log_sum([kernel.pair(*each) for kernel, *each in members], self.weights)

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        members = zip(self.kernels, products, row, column, strict=True)
        return _log_sum(
            [kernel.elementwise(*each) for kernel, *each in members], self.weights
        )


@_register("kernels", "weights")
@dataclasses.dataclass(frozen=True)
class ConcatenationSum(KernelSum):
    """log sum_m w_m k_m of equal slices; made by `concatenation_sum`."""

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        parts, d = len(self.kernels), z.shape[-1]
        if d % parts:
            raise ValueError(
                f"the embedding size must be divisible by the {parts} kernels of "
                f"concatenation_sum, got {d}"
            )
        zs, units = jnp.split(z, parts, axis=-1), jnp.split(unit, parts, axis=-1)
        members = zip(self.kernels, zs, units, strict=True)
        prepared = [kernel.prepare(*each) for kernel, *each in members]
        return [vectors for vectors, _ in prepared], [
            numbers for _, numbers in prepared
        ]


def _members(kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    if not kernels:
        raise ValueError("a sum of kernels needs at least one kernel, got none")
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernels must be kernels, got {type(kernel).__name__}")
    return kernels


def _weights(weights: Sequence[ArrayLike] | None, count: int) -> tuple[ArrayLike, ...]:
    if weights is None:
        return (1.0,) * count
    if not hasattr(weights, "__len__"):
        raise TypeError(
            f"weights must be a tuple of {count} numbers, got {type(weights).__name__}"
        )
    if len(weights) != count:
        raise ValueError(
            f"weights must be one number for each of the {count} kernels, "
            f"got {len(weights)}"
        )
    values = [_checks.scalar("weights", weight) for weight in weights]
    known = [value for value in values if value is not None]
    if any(not 0 <= value < math.inf for value in known):
        raise ValueError(f"weights must be finite and not negative, got {known}")
    if len(known) == count and not any(known):
        raise ValueError("weights must not all be 0")
    return tuple(weights)


def _log_sum(logits: list[jax.Array], weights: tuple[ArrayLike, ...]) -> jax.Array:
    """log sum_m w_m exp(l_m); a kernel of weight 0 takes no part, nor its gradient."""
    dropped = [jnp.asarray(weight == 0) for weight in weights]
    kept = [jnp.where(d, -jnp.inf, s) for d, s in zip(dropped, logits, strict=True)]
    top = lax.stop_gradient(functools.reduce(jnp.maximum, kept))
    parts = [
        jnp.where(d, 0, w * jnp.exp(jnp.where(d, 0, s - top)))
        for d, s, w in zip(dropped, logits, weights, strict=True)
    ]
    return top + jnp.log(functools.reduce(jnp.add, parts))


def _log_arc_cosine(order: int, height: jax.Array) -> jax.Array:
    """Log of the kernel from height = 1 - cos(angle) in [0, 2]."""
    value = _arc_cosine(order, jnp.clip(height, 0, 2))
    low = value <= ARC_COSINE_FLOOR
    return jnp.where(low, math.log(ARC_COSINE_FLOOR), jnp.log(jnp.where(low, 1, value)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _arc_cosine(order: int, height: jax.Array) -> jax.Array:
    rest, sine, cosine = _angle(height)
    if order == 0:
        return rest
    if order == 1:
        return sine + rest * cosine
    return 3 * sine * cosine + rest * (1 + 2 * cosine * cosine)


@_arc_cosine.defjvp
def _arc_cosine_jvp(
    order: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # By hand: each derivative by the height is simple, where the chain rule through the
    # angle would divide zero by zero at both ends.
    (height,), (tangent,) = primals, tangents
    rest, sine, cosine = _angle(height)
    if order == 0:
        end = sine == 0
        slope = jnp.where(end, 0, -1 / jnp.where(end, 1, sine))
    elif order == 1:
        slope = -rest
    else:
        slope = -4 * (sine + rest * cosine)
    return _arc_cosine(order, height), slope * tangent


def _angle(height: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """pi minus the angle, its sine and its cosine, from height = 1 - cos(angle)."""
    depth = 2 - height
    rest = 2 * jnp.atan2(jnp.sqrt(depth), jnp.sqrt(height))
    return rest, jnp.sqrt(height * depth), 1 - height
