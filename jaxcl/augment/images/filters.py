"""Gaussian blur and noise."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxcl import _checks

_NONE = 1e-3  # a sigma with which neighbors weigh exp(-500,000) = 0


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
    # A matrix unit multiplies by whole matrices, mostly zeros, sooner than a vector
    # unit adds 2 radius + 1 shifted images; elsewhere it is the other way round.
    return jax.lax.platform_dependent(
        image,
        jnp.asarray(sigma, jnp.float32),
        tpu=functools.partial(_blur_by_products, radius=radius),
        default=functools.partial(_blur_by_sums, radius=radius),
    )


def _blur_by_sums(image: jax.Array, sigma: jax.Array, *, radius: int) -> jax.Array:
    """`gaussian_blur` as sums of shifted images."""
    weights = _weights(jnp.arange(-radius, radius + 1), sigma, radius)
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


def _blur_by_products(image: jax.Array, sigma: jax.Array, *, radius: int) -> jax.Array:
    """`gaussian_blur` as a product with one banded matrix for each axis.

    At the highest precision: one pass of bfloat16 would round weights and pixels to
    eight bits, and an image that is not blurred could not come back as it was.
    """
    rows, columns = (_blur_matrix(size, sigma, radius) for size in image.shape[:2])
    planes = jnp.moveaxis(image, 2, 0)
    planes = jnp.einsum("oh,chw->cow", rows, planes, precision="highest")
    planes = jnp.einsum("cow,pw->cop", planes, columns, precision="highest")
    return jnp.moveaxis(planes, 0, 2)


def _blur_matrix(size: int, sigma: jax.Array, radius: int) -> jax.Array:
    """Weights [size, size] of the pixels of an axis, those beyond the border folded."""
    old, new = jnp.arange(size)[None, :], jnp.arange(size)[:, None]
    below, above = old + new, 2 * (size - 1) - old - new  # distances of mirror images
    weights = _weights(old - new, sigma, radius)
    weights += jnp.where(old > 0, _weights(below, sigma, radius), 0.0)
    weights += jnp.where(old < size - 1, _weights(above, sigma, radius), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _weights(distance: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
    """Of pixels at whole distances, not normalized."""
    weights = jnp.exp(-jnp.square(distance.astype(jnp.float32) / sigma) / 2)
    return jnp.where(jnp.abs(distance) <= radius, weights, 0.0)


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
    drawn = sigma[0] + width * (sigma[1] - sigma[0])
    # Not to blur is to blur by next to nothing, which is exact, and cheaper than to
    # select between images.
    return gaussian_blur(
        image, jnp.where(chance < probability, drawn, _NONE), radius=radius
    )


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
