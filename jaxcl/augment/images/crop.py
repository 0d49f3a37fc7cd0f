"""Boxes cut out of an image and resized, and mirror images."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks
from jaxcl.augment.transforms import Numbers

_TRIALS = 10  # as torchvision


def resized_crop(
    image: jax.Array, box: Numbers, size: int | tuple[int, int]
) -> jax.Array:
    """Cuts a box out of an image and resizes it bilinearly.

    Each axis is one small matrix: output pixel o is centered at u_o = start +
    (o + 1/2) s with s = length / size, and weighs the pixels i of the box by

        max(0, 1 - |i + 1/2 - u_o| / max(s, 1)),

    divided by their sum. So it interpolates between two pixels where the box is
    enlarged, and averages over all pixels (no aliasing) where it is reduced. Pixels
    outside the box have no influence. For boxes of whole pixels this is Pillow's
    `crop(box).resize(size, BILINEAR)`, which is also torchvision's with antialias=True.

    Args:
      image: [h, w, c] in [0, 1].
      box: top, left, height, width [4], in pixels, inside the image, at least one pixel
        high and wide; need not be whole. A pixel belongs to it if its center does.
      size: height and width of the result in pixels; an int means both.

    Returns:
      The resized box, float32 [size[0], size[1], c].

    Raises:
      TypeError: if image is not float32 or size not made of ints.
      ValueError: if image is not [h, w, c], box not [4], or size < 1.

    Source:
      Pillow's `Image.resize`, https://pillow.readthedocs.io/en/stable/reference/Image.html

    >>> ramp = jnp.array([[[0.0], [0.25], [0.5], [0.75]]])
    >>> print(resized_crop(ramp, (0, 2, 1, 2), (1, 4)).ravel())
    [0.5    0.5625 0.6875 0.75  ]
    """
    image = _checks.image("image", image)
    height, width = _checks.sides("size", size)
    box = jnp.asarray(box, jnp.float32)
    if box.shape != (4,):
        raise ValueError(
            f"box must be [4] (top, left, height, width), got shape {box.shape}"
        )
    h, w = image.shape[:2]
    top, left, box_height, box_width = box
    rows = _resize_matrix(top, box_height, h, height)
    columns = _resize_matrix(left, box_width, w, width)
    return jax.lax.platform_dependent(
        image, rows, columns, cpu=_resize_each_plane, default=_resize_planes
    )


# Highest precision: the default would round pixels to eight bits on a TPU and ten on a
# GPU. As planes, since three channels would fill few of a TPU's 128 lanes.


def _resize_planes(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    planes = jnp.moveaxis(image, 2, 0)
    planes = jnp.einsum("oh,chw->cow", rows, planes, precision="highest")
    planes = jnp.einsum("cow,pw->cop", planes, columns, precision="highest")
    return jnp.moveaxis(planes, 0, 2)


def _resize_each_plane(
    image: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """The same, with products that need no transposed copies."""
    planes = [
        jnp.matmul(
            jnp.matmul(rows, image[:, :, i], precision="highest"),
            columns.T,
            precision="highest",
        )
        for i in range(image.shape[2])
    ]
    return jnp.stack(planes, axis=2)


def _resize_matrix(
    start: jax.Array, length: jax.Array, old: int, new: int
) -> jax.Array:
    """Weights [new, old] that resample the pixels of [start, start + length)."""
    step = length / new
    centers = start + (jnp.arange(new, dtype=jnp.float32)[:, None] + 0.5) * step
    pixels = jnp.arange(old, dtype=jnp.float32)[None, :] + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixels - centers) / jnp.maximum(step, 1.0), 0.0)
    weights = jnp.where((pixels >= start) & (pixels < start + length), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def random_box(
    key: jax.Array,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Draws a box of random area, shape and place inside an image.

    The area is uniform, the ratio of the sides log-uniform:

        area ~ U(scale) h w,  log r ~ U(log ratio),
        sides round(sqrt(area / r)), round(sqrt(area r)),

    the place uniform over whole pixels. The first of ten such draws that fits is taken;
    if none does, the largest centered box within `ratio`, whatever its area.

    Args:
      key: random key.
      height: of the image, in pixels.
      width: of the image, in pixels.
      scale: smallest and largest area, as a share of the image's; > 0, <= 1.
      ratio: smallest and largest width / height of the box; > 0.

    Returns:
      top, left, height, width, whole numbers in float32 [4], in pixels.

    Raises:
      ValueError: if a range is not ordered or outside its bounds, or a side is < 1.

    Source:
      torchvision's RandomResizedCrop,
      https://docs.pytorch.org/vision/stable/transforms.html

    >>> print(random_box(jax.random.key(0), 8, 8, scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    [0. 0. 8. 8.]
    """
    height, width = _checks.sides("height and width", (height, width))
    _checks.interval("scale", scale, 1.0)
    _checks.interval("ratio", ratio)
    draws = jax.random.uniform(key, (2 * _TRIALS + 2,), jnp.float32)
    shares, shapes = draws[:_TRIALS], draws[_TRIALS : 2 * _TRIALS]
    area = (scale[0] + shares * (scale[1] - scale[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = jnp.exp(low + shapes * (high - low))
    box_height = jnp.round(jnp.sqrt(area / shape))
    box_width = jnp.round(jnp.sqrt(area * shape))
    fits = (box_height > 0) & (box_height <= height)
    fits &= (box_width > 0) & (box_width <= width)
    first = jnp.argmax(fits)
    sides = jnp.stack([box_height[first], box_width[first]])
    room = jnp.array([height, width], jnp.float32) - sides
    # A draw just below one can round up to room + 1.
    place = jnp.minimum(jnp.floor(draws[-2:] * (room + 1)), room)
    drawn = jnp.concatenate([place, sides])
    return jnp.where(fits.any(), drawn, _central_box(height, width, ratio))


def _central_box(
    height: int, width: int, ratio: tuple[float, float]
) -> jax.typing.ArrayLike:
    """The largest centered box [4] whose width / height lies within `ratio`."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    place = (height - box_height) // 2, (width - box_width) // 2
    return np.array([*place, box_height, box_width], np.float32)


def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    *,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cuts out a random box and resizes it: `random_box`, then `resized_crop`.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1].
      size: height and width of the result in pixels; an int means both.
      scale: smallest and largest area, as a share of the image's; > 0, <= 1.
      ratio: smallest and largest width / height of the box; > 0.

    Returns:
      The resized box, float32 [size[0], size[1], c].

    Raises:
      TypeError: if image is not float32 or size not made of ints.
      ValueError: if image is not [h, w, c], size < 1, or a range is out of order.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix A.

    >>> key, image = jax.random.key(0), jnp.ones((12, 10, 3))
    >>> print(random_resized_crop(key, image, size=8).shape)
    (8, 8, 3)
    """
    image = _checks.image("image", image)
    box = random_box(key, *image.shape[:2], scale=scale, ratio=ratio)
    return resized_crop(image, box, size)


def horizontal_flip(image: jax.Array) -> jax.Array:
    """Mirrors left and right.

    Args:
      image: [h, w, c].

    Returns:
      The mirrored image, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c].

    >>> print(horizontal_flip(jnp.array([[[0.25], [0.5]]])).ravel())
    [0.5  0.25]
    """
    return jnp.flip(_checks.image("image", image), axis=1)


def random_horizontal_flip(
    key: jax.Array, image: jax.Array, *, probability: float = 0.5
) -> jax.Array:
    """Mirrors left and right with a probability.

    Args:
      key: random key.
      image: [h, w, c].
      probability: of mirroring, in [0, 1].

    Returns:
      The image or its mirror image, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c] or probability outside [0, 1].

    >>> image = jnp.array([[[0.25], [0.5]]])
    >>> print(random_horizontal_flip(jax.random.key(0), image, probability=1.0).ravel())
    [0.5  0.25]
    """
    image = _checks.image("image", image)
    _checks.between("probability", probability, 0.0, 1.0)
    chosen = jax.random.uniform(key, (), jnp.float32) < probability
    return jnp.where(chosen, horizontal_flip(image), image)
