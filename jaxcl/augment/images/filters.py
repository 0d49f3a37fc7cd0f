"""Gaussian blur and noise."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxcl import _checks


def gaussian_blur(
    image: jax.Array, sigma: jax.typing.ArrayLike, *, radius: int | None = None
) -> jax.Array:
    """Convolves both axes with exp(-d^2 / (2 sigma^2)) for |d| <= radius, normalized.

    Beyond the border the image is reflected about its outermost pixels.

    Args:
      image: [h, w, c] in [0, 1].
      sigma: standard deviation in pixels; > 0.
      radius: of the kernel in pixels, so that 2 radius + 1 pixels are weighed; less
        than h and w. None means a kernel of a tenth of the smaller side, of 3 pixels
        at least: radius max(1, min(h, w) // 20), but 0 for a single row or column.

    Returns:
      The blurred image, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32 or radius no integer.
      ValueError: if image is not [h, w, c] or radius not in [0, min(h, w)).

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix A, for the size.

    >>> print(gaussian_blur(jnp.ones((8, 8, 3)), 1.0).shape)
    (8, 8, 3)
    """
    image = _checks.image("image", image)
    side = min(image.shape[:2])
    if radius is None:
        radius = min(max(1, side // 20), side - 1)
    radius = _checks.count("radius", radius, 0)
    if radius >= side:
        raise ValueError(
            f"radius must lie in [0, {side}) for an image of shape {image.shape}, "
            f"got {radius}"
        )
    sigma = jnp.asarray(sigma, jnp.float32)
    distance = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-jnp.square(distance / sigma) / 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        size = image.shape[axis]
        border = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        # The barrier keeps XLA from computing the padded image anew for every weight.
        padded = jax.lax.optimization_barrier(jnp.pad(image, border, mode="reflect"))
        image = functools.reduce(
            jnp.add,
            [
                weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
                for i in range(2 * radius + 1)
            ],
        )
    return image


def random_gaussian_blur(
    key: jax.Array,
    image: jax.Array,
    *,
    sigma: tuple[float, float] = (0.1, 2.0),
    radius: int | None = None,
    probability: float = 1.0,
) -> jax.Array:
    """Blurs an image with a random width, with a probability.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1].
      sigma: smallest and largest standard deviation in pixels; > 0. Uniform between.
      radius: of the kernel in pixels; see `gaussian_blur`.
      probability: of blurring, in [0, 1].

    Returns:
      The image or its blurred version, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c], sigma out of order, or probability outside
        [0, 1].

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix A.

    >>> print(random_gaussian_blur(jax.random.key(0), jnp.ones((8, 8, 3))).shape)
    (8, 8, 3)
    """
    image = _checks.image("image", image)
    _checks.interval("sigma", sigma)
    _checks.between("probability", probability, 0.0, 1.0)
    width, chance = jax.random.uniform(key, (2,), jnp.float32)
    blurred = gaussian_blur(
        image, sigma[0] + width * (sigma[1] - sigma[0]), radius=radius
    )
    return jnp.where(chance < probability, blurred, image)


def random_noise(key: jax.Array, image: jax.Array, *, deviation: float) -> jax.Array:
    """Adds independent Gaussian noise to every value: clip(x + deviation e, 0, 1).

    Args:
      key: random key.
      image: [h, w, c] in [0, 1].
      deviation: standard deviation of the noise, in the units of the image; >= 0.

    Returns:
      The noisy image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c] or deviation < 0.

    >>> print(random_noise(jax.random.key(0), jnp.ones((8, 8, 1)), deviation=0.1).shape)
    (8, 8, 1)
    """
    image = _checks.image("image", image)
    _checks.between("deviation", deviation, 0.0, math.inf)
    noise = jax.random.normal(key, image.shape, jnp.float32)
    return jnp.clip(image + deviation * noise, 0.0, 1.0)
