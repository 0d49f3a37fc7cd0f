"""A temperature that is learned: as its logarithm, kept above a smallest value.

    parameter = losses.log_temperature(0.07)
    ...
    loss = losses.clip(x, y, temperature=losses.learned_temperature(parameter))

A bias, such as SigLIP's, is learned as it is: `jnp.float32(-10.0)`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks


def log_temperature(temperature: ArrayLike = 0.07) -> jax.Array:
    """Makes the parameter of a learned temperature: its logarithm.

    Args:
      temperature: where to begin, > 0. CLIP begins at 0.07, SigLIP at 0.1.

    Returns:
      A scalar, float32.

    Raises:
      ValueError: if the temperature is not positive.

    >>> print(log_temperature(1.0))
    0.0
    """
    _checks.positive("temperature", temperature)
    return jnp.log(jnp.asarray(temperature, jnp.float32))


def learned_temperature(
    parameter: jax.Array, *, minimum: float = 0.01, maximum: float = 100.0
) -> jax.Array:
    """Turns the parameter into a temperature between two bounds.

        temperature = exp(clip(parameter, log(minimum), log(maximum)))

    At a bound the gradient passes only if a step against it leads back inside, so the
    parameter neither runs away nor gets stuck there.

    Args:
      parameter: from `log_temperature`, as training has changed it.
      minimum: smallest temperature; CLIP stops at 0.01.
      maximum: largest temperature.

    Returns:
      The temperature, of the parameter's dtype.

    Raises:
      TypeError: if the parameter is not a floating array.
      ValueError: if it is not a scalar, or the bounds are not 0 < minimum < maximum.

    Source:
      CLIP, https://arxiv.org/abs/2103.00020, section 2.5.

    >>> print(learned_temperature(jnp.float32(-50.0)))
    0.01
    """
    if not (
        isinstance(parameter, jax.Array)
        and jnp.issubdtype(parameter.dtype, jnp.floating)
    ):
        raise TypeError(
            "parameter must be a floating array, such as log_temperature(), got "
            f"{type(parameter).__name__}"
        )
    if parameter.ndim:
        raise ValueError(f"parameter must be a scalar, got shape {parameter.shape}")
    _checks.positive("minimum", minimum)
    if not minimum < maximum:
        raise ValueError(f"maximum must exceed minimum {minimum:g}, got {maximum:g}")
    return _clipped((float(minimum), float(maximum)), parameter)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _clipped(bounds: tuple[float, float], parameter: jax.Array) -> jax.Array:
    return jnp.clip(jnp.exp(parameter), *bounds)


def _forward(
    bounds: tuple[float, float], parameter: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _clipped(bounds, parameter), parameter


def _backward(
    bounds: tuple[float, float], parameter: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array]:
    value, (low, high) = jnp.exp(parameter), bounds
    # Descent subtracts the gradient: a negative one raises the parameter.
    outward = ((value < low) & (cotangent > 0)) | ((value > high) & (cotangent < 0))
    return (jnp.where(outward, 0, cotangent * jnp.clip(value, low, high)),)


_clipped.defvjp(_forward, _backward)
