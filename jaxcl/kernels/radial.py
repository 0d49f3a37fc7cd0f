"""Kernels of an inner product or a distance: cosine, dot, exponential."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks
from jaxcl.kernels import base


def cosine(temperature: ArrayLike) -> base.Kernel:
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


def dot(temperature: ArrayLike = 1.0) -> base.Kernel:
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


def exponential(
    power: float, temperature: ArrayLike, normalize: bool = True
) -> base.Kernel:
    """Makes the exponential kernel: s = -|x - y|^power / temperature.

    With power 2 on unit vectors this is the cosine kernel at half the temperature, up
    to a constant. The kernel is positive definite up to power 2 only: a loss does not
    ask for that, but what is said of kernels as inner products, or of the spectrum of
    their matrices, does not hold above. At distance 0 the gradient is 0.

    From a tile's inner products the distance of two float32 unit vectors is known to
    about 3e-4 at worst, so the logits of nearly equal negatives are off by up to
    (3e-4)^power / temperature; positives of views and of pairs are computed from
    differences. Of raw vectors keep distance^power / temperature below about 1e7, where
    float32 rounds logits by 1.

    Args:
      power: > 0; a Python number. A larger one is flatter near 0 and steeper far away.
      temperature: in units of distance^power, > 0. Divides; smaller is sharper.
      normalize: whether embeddings are divided by their length first.

    Returns:
      A kernel.

    Raises:
      ValueError: if the power or the temperature is not positive.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 5.2.

    >>> print(exponential(1, 0.5)(jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])))
    [[-4.]]
    """
    value = _checks.static("power", power)
    _checks.positive("power", value)
    _checks.positive("temperature", temperature)
    return Exponential(temperature, value, bool(normalize))


def gaussian(temperature: ArrayLike, normalize: bool = True) -> base.Kernel:
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


def laplacian(temperature: ArrayLike, normalize: bool = True) -> base.Kernel:
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


@base.register("temperature")
@dataclasses.dataclass(frozen=True)
class Cosine(base.Kernel):
    """x.y / (|x| |y|) / temperature; made by `cosine`."""

    temperature: ArrayLike

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return unit, ()

    def pair(self, x: Any, y: Any) -> jax.Array:
        return jnp.dot(x, y, precision="highest") / self.temperature

    def multiplier(self) -> ArrayLike:
        return 1 / self.temperature

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        return products


@base.register("temperature")
@dataclasses.dataclass(frozen=True)
class Dot(Cosine):
    """x.y / temperature; made by `dot`."""

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return z, ()


@base.register("temperature")
@dataclasses.dataclass(frozen=True)
class Exponential(base.Kernel):
    """-|x - y|^power / temperature; made by `exponential`."""

    temperature: ArrayLike
    power: float
    normalize: bool

    # |x|^2 + |y|^2 - 2 x.y loses the distance of close vectors in a rounded product.
    precision: ClassVar[Any] = lax.Precision.HIGHEST

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        x = unit if self.normalize else z
        squared = jnp.sum(x * x, axis=-1)
        return x, squared / self.temperature if self.power == 2 else squared

    def pair(self, x: Any, y: Any) -> jax.Array:
        return -self._root(jnp.sum(jnp.square(x - y))) / self.temperature

    def multiplier(self) -> ArrayLike | None:
        return 2 / self.temperature if self.power == 2 else None

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        if self.power == 2:  # all of it is over the temperature already
            logits = products - row - column
            return jnp.where(logits > 0, 0, logits)  # and NaN stays
        squared = row + column - 2 * products
        # Of `maximum`, the derivative would divide for the case of equality.
        squared = jnp.where(squared < 0, 0, squared)
        return self._root(squared) * (-1 / self.temperature)

    def _root(self, squared: jax.Array) -> jax.Array:
        """Turns a squared distance into distance^power, with gradient 0 at 0."""
        if self.power == 2:
            return squared
        # Below power 2 the derivative at 0 is infinite, and the branch not taken by one
        # `where` would still turn it into NaN: hence two. Above it is 0 either way.
        if self.power == 1:
            return _square_root(squared)
        zero = squared == 0
        squared = jnp.where(zero, 1, squared)
        return jnp.where(zero, 0, squared ** (self.power / 2))


@jax.custom_jvp
def _square_root(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0."""
    return jnp.sqrt(x)


@_square_root.defjvp
def _square_root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # The inverse root serves both: where roots and divisions are costly,
    # as on TPUs, that is half of the work.
    (x,), (tangent,) = primals, tangents
    inverse = jnp.where(x > 0, lax.rsqrt(x), 0)
    return x * inverse, inverse * (0.5 * tangent)
