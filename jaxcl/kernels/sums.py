"""Sums of kernels, of whole embeddings or of their slices."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcl import _checks
from jaxcl.kernels import base


def kernel_sum(
    *kernels: base.Kernel, weights: Sequence[ArrayLike] | None = None
) -> base.Kernel:
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

    >>> from jaxcl.kernels import radial
    >>> simple_sum = kernel_sum(radial.gaussian(0.5), radial.laplacian(0.5))
    >>> print(simple_sum(jnp.eye(2)[:1], jnp.eye(2)[:1]))  # log(1 + 1)
    [[0.6931472]]
    """
    return KernelSum(_members(kernels), _weights(weights, len(kernels)))


def concatenation_sum(
    *kernels: base.Kernel, weights: Sequence[ArrayLike] | None = None
) -> base.Kernel:
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

    >>> from jaxcl.kernels import radial
    >>> halves = concatenation_sum(radial.gaussian(0.5), radial.laplacian(0.5))
    >>> print(halves(jnp.ones((1, 4)), jnp.ones((1, 4))))  # log(1 + 1)
    [[0.6931472]]
    """
    return ConcatenationSum(_members(kernels), _weights(weights, len(kernels)))


@base.register("kernels", "weights")
@dataclasses.dataclass(frozen=True)
class KernelSum(base.Kernel):
    """log sum_m w_m k_m of whole embeddings; made by `kernel_sum`."""

    kernels: tuple[base.Kernel, ...]
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
            [
                kernel.elementwise(base.scaled(kernel, given), *each)
                for kernel, given, *each in members
            ],
            self.weights,
        )


@base.register("kernels", "weights")
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


def _members(kernels: tuple[base.Kernel, ...]) -> tuple[base.Kernel, ...]:
    if not kernels:
        raise ValueError("a sum of kernels needs at least one kernel, got none")
    for kernel in kernels:
        if not isinstance(kernel, base.Kernel):
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
    # Weights become summands, once for all pairs: one addition for each pair is left.
    kept = [s + _log_weight(w) for s, w in zip(logits, weights, strict=True)]
    top = lax.stop_gradient(functools.reduce(jnp.maximum, kept))
    return top + jnp.log(functools.reduce(jnp.add, [jnp.exp(s - top) for s in kept]))


def _log_weight(weight: ArrayLike) -> jax.Array:
    zero = jnp.asarray(weight == 0)
    return jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, weight)))
