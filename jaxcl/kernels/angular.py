"""Kernels of an angle: arc-cosine."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks
from jaxcl.kernels import base

# The smallest arc-cosine kernel: near the opposite pole the kernel falls to zero faster
# than float32 can resolve, so its logarithm stops here.
ARC_COSINE_FLOOR = 1e-6


def arc_cosine(order: int, scale: ArrayLike = 1.0) -> base.Kernel:
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
    known = _checks.scalar("scale", scale)
    if known is not None and known > 1:
        raise ValueError(f"scale must lie in (0, 1], got {known:g}")
    return ArcCosine(scale, order)


@base.register("scale")
@dataclasses.dataclass(frozen=True)
class ArcCosine(base.Kernel):
    """Log of the arc-cosine kernel at a scaled angle; made by `arc_cosine`."""

    scale: ArrayLike
    order: int

    precision: ClassVar[Any] = lax.Precision.HIGHEST

    def prepare(self, z: jax.Array, unit: jax.Array) -> tuple[Any, Any]:
        return unit, ()

    def pair(self, x: Any, y: Any) -> jax.Array:
        # 1 - cos from the difference is exact for close vectors; a zero vector has
        # cosine 0 with everything.
        zero = ~(jnp.any(x) & jnp.any(y))
        height = jnp.where(zero, 1, jnp.sum(jnp.square(x - y)) / 2)
        return _log_arc_cosine(self.order, jnp.asarray(self.scale * height))

    def elementwise(self, products: Any, row: Any, column: Any) -> jax.Array:
        return _log_arc_cosine(self.order, jnp.asarray(self.scale * (1 - products)))


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
    # By hand: each derivative with respect to the height is simple, where the chain
    # rule through the angle would divide zero by zero at both ends.
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
    if height.dtype == jnp.float64:
        rest = 2 * jnp.atan2(jnp.sqrt(depth), jnp.sqrt(height))
    else:
        # Half of it is the arcsine of the root of depth / 2: of the smaller of both.
        # Where pairs are many, `atan2` costs ten times that.
        near = 2 * _arcsine_of_root(jnp.minimum(height, depth) / 2)
        rest = jnp.where(depth < height, near, math.pi - near)
    return rest, jnp.sqrt(height * depth), 1 - height


# arcsin(x) / x in powers of x^2, interpolated between Chebyshev nodes for x^2 in
# [0, 1/2]; relative error 3e-9, and 7e-8 in float32.
_ARCSINE = (
    1.0,
    0.166666142,
    0.0750275732,
    0.0440916167,
    0.0358142392,
    -0.00702057876,
    0.10740002,
    -0.13591627,
    0.123913494,
)


def _arcsine_of_root(x: jax.Array) -> jax.Array:
    """The arcsine of sqrt(x) for x in [0, 1/2], float32."""
    value = jnp.full_like(x, _ARCSINE[-1])
    for coefficient in _ARCSINE[-2::-1]:
        value = value * x + coefficient
    return jnp.sqrt(x) * value
