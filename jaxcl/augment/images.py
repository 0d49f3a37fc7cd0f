"""Augmentations of one image, to be vmapped and run inside the jitted train step.

An image is float32 [h, w, c] in [0, 1], and stays in [0, 1] up to rounding until it is
normalized. Every operation with randomness comes as two functions: the operation itself
with explicit parameters (`resized_crop`, `adjust_hue`), and `random_*`, a function of
(key, image) that draws them. `chain` composes steps of the second kind, `simclr` and
`characters` are two such chains, and `views` applies one to a batch.

Color means three channels, red, green and blue. With one channel, saturation, hue and
grayscale change nothing, since a gray image has neither; with any other number of
channels, they and contrast are errors. Everything else takes any number of channels.

Hyper-parameters (ranges, probabilities, sizes) are Python numbers and checked at once;
the parameters of a single operation may be traced.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Transform = Callable[[jax.Array, jax.Array], jax.Array]
Numbers = jax.typing.ArrayLike | Sequence[float]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
_CROP_TRIALS = 10  # as torchvision


# Crop and flip.


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
    image = _check_image(image)
    height, width = _check_size(size)
    box = jnp.asarray(box, jnp.float32)
    if box.shape != (4,):
        raise ValueError(
            f"box must be [4] (top, left, height, width), got shape {box.shape}"
        )
    h, w, c = image.shape
    top, left, box_height, box_width = box
    rows = _resize_matrix(top, box_height, h, height)
    columns = _resize_matrix(left, box_width, w, width)
    # Highest precision: on a GPU the default would round pixels to ten bits.
    image = jnp.matmul(rows, image.reshape(h, w * c), precision="highest")
    image = image.reshape(height, w, c).swapaxes(1, 2).reshape(height * c, w)
    image = jnp.matmul(image, columns.T, precision="highest")
    return image.reshape(height, c, width).swapaxes(1, 2)


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
      scale: least and greatest area, as a share of the image's; > 0, <= 1.
      ratio: least and greatest width / height of the box; > 0.

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
    height, width = _check_size((height, width), "height and width")
    _check_range("scale", scale, 1.0)
    _check_range("ratio", ratio)
    draws = jax.random.uniform(key, (2 * _CROP_TRIALS + 2,))
    shares, shapes = draws[:_CROP_TRIALS], draws[_CROP_TRIALS : 2 * _CROP_TRIALS]
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
      scale: least and greatest area, as a share of the image's; > 0, <= 1.
      ratio: least and greatest width / height of the box; > 0.

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
    image = _check_image(image)
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
    return jnp.flip(_check_image(image), axis=1)


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
    image = _check_image(image)
    _check_number("probability", probability, 0.0, 1.0)
    chosen = jax.random.uniform(key) < probability
    return jnp.where(chosen, horizontal_flip(image), image)


# Color. Inside, colors are planes [c, h, w]: contiguous, so that loops vectorize.


def adjust_brightness(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Multiplies an image: clip(factor x, 0, 1).

    Args:
      image: [h, w, c] in [0, 1].
      factor: >= 0; 0 is black, 1 changes nothing.

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c].

    >>> print(adjust_brightness(jnp.array([[[0.25], [0.75]]]), 2.0).ravel())
    [0.5 1. ]
    """
    return _blend(_check_image(image), 0.0, factor)


def adjust_contrast(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Moves an image from its mean gray m: clip(factor x + (1 - factor) m, 0, 1).

    Args:
      image: [h, w, c] in [0, 1], c = 1 or 3; m is the mean of its luma.
      factor: >= 0; 0 is the mean everywhere, 1 changes nothing.

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, 1] or [h, w, 3].

    >>> print(adjust_contrast(jnp.array([[[0.25], [0.75]]]), 0.5).ravel())
    [0.375 0.625]
    """
    planes = _to_planes(_check_colors(image, "contrast"))
    return _from_planes(_blend(planes, _luma(planes).mean(), factor))


def adjust_saturation(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Moves each pixel from its own gray g: clip(factor x + (1 - factor) g, 0, 1).

    Args:
      image: [h, w, c] in [0, 1], c = 1 or 3; g is the luma of the pixel.
      factor: >= 0; 0 is gray, 1 changes nothing.

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1]; image itself if c = 1.

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, 1] or [h, w, 3].

    >>> print(adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0).ravel())
    [0.299 0.299 0.299]
    """
    image = _check_colors(image, "saturation")
    if image.shape[2] == 1:
        return image
    planes = _to_planes(image)
    return _from_planes(_blend(planes, _luma(planes)[None], factor))


def adjust_hue(image: jax.Array, shift: jax.typing.ArrayLike) -> jax.Array:
    """Turns the hue (of hue, saturation, value) of every pixel.

    Args:
      image: [h, w, c] in [0, 1], c = 1 or 3.
      shift: in full turns; 1/3 takes red to green, green to blue and blue to red.

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1]; image itself if c = 1.

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, 1] or [h, w, 3].

    >>> print(adjust_hue(jnp.array([[[0.75, 0.25, 0.25]]]), 0.5).ravel())
    [0.25 0.75 0.75]
    """
    image = _check_colors(image, "hue")
    if image.shape[2] == 1:
        return image
    return _from_planes(_turn_hue(_to_planes(image), shift))


def color_jitter(
    image: jax.Array,
    order: Numbers,
    *,
    brightness: jax.typing.ArrayLike | None = None,
    contrast: jax.typing.ArrayLike | None = None,
    saturation: jax.typing.ArrayLike | None = None,
    hue: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Adjusts brightness, contrast, saturation and hue, one after another in `order`.

    Equal to calling the four `adjust_*` in that order, also where `order` is traced:
    the first three are one formula, clip(factor x + (1 - factor) base, 0, 1), with
    another base each, and hue, the dear one, is evaluated once, between those of the
    other three that come before it and those that come after it.

    Args:
      image: [h, w, c] in [0, 1].
      order: int32 [4], a permutation of 0, 1, 2, 3 for brightness, contrast, saturation
        and hue: order[0] is adjusted first.
      brightness: factor of `adjust_brightness`; None leaves it out, here and below.
      contrast: factor of `adjust_contrast`.
      saturation: factor of `adjust_saturation`.
      hue: shift of `adjust_hue`, in full turns.

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32 or order not int.
      ValueError: if order is not [4], or an adjustment makes no sense for c channels.

    >>> image = jnp.array([[[0.5], [0.75]]])
    >>> print(color_jitter(image, [0, 1, 2, 3], brightness=2.0, contrast=0.0).ravel())
    [1. 1.]
    >>> print(color_jitter(image, [1, 0, 2, 3], brightness=1.0, contrast=0.0).ravel())
    [0.625 0.625]
    """
    image = _check_image(image)
    order = jnp.asarray(order)
    if order.shape != (4,):
        raise ValueError(f"order must be [4], got shape {order.shape}")
    if not jnp.issubdtype(order.dtype, jnp.integer):
        raise TypeError(f"order must be int, got {order.dtype}")
    order = order.astype(jnp.int32)
    for name, value in (
        ("contrast", contrast),
        ("saturation", saturation),
        ("hue", hue),
    ):
        if value is not None:
            _check_colors(image, name)
    if image.shape[2] == 1:
        saturation = hue = None
    grays = contrast is not None or saturation is not None
    if not grays and hue is None:
        return image if brightness is None else adjust_brightness(image, brightness)

    factors = jnp.stack(
        [
            jnp.asarray(1.0 if factor is None else factor, jnp.float32)
            for factor in (brightness, contrast, saturation)
        ]
    )
    hue_at = jnp.argmax(order == _HUE).astype(jnp.int32)
    position = jnp.arange(3, dtype=jnp.int32)
    others = order[jnp.where(position < hue_at, position, position + 1)]
    factors = factors[others]

    def adjust(
        planes: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        adjustment, factor = step
        base: jax.typing.ArrayLike = 0.0
        if grays:
            gray = _luma(planes)
            base = jnp.where(adjustment == _SATURATION, gray, 0.0)
            base = jnp.where(adjustment == _CONTRAST, gray.mean(), base)[None]
        return _blend(planes, base, factor), None

    # Scans rather than unrolled: XLA fuses unrolled adjustments and recomputes each
    # for every use by the next. A factor of one changes nothing, not even rounding.
    planes = _to_planes(image)
    if hue is None:
        return _from_planes(jax.lax.scan(adjust, planes, (others, factors))[0])
    before = jnp.where(position < hue_at, factors, 1.0)
    after = jnp.where(position < hue_at, 1.0, factors)
    planes, _ = jax.lax.scan(adjust, planes, (others, before))
    planes = _turn_hue(planes, hue)
    planes, _ = jax.lax.scan(adjust, planes, (others, after))
    return _from_planes(planes)


def random_color_jitter(
    key: jax.Array,
    image: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> jax.Array:
    """Adjusts the colors by random amounts in random order, with a probability.

    Factors are uniform in [max(0, 1 - s), 1 + s] for the strength s of each, the shift
    of hue in [-s, s], the order uniform over all 24. A strength of 0 leaves its
    adjustment out.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1]; c = 1 or 3 unless only brightness is adjusted.
      brightness: strength, >= 0.
      contrast: strength, >= 0.
      saturation: strength, >= 0.
      hue: strength, in [0, 1/2] full turns.
      probability: of adjusting at all, in [0, 1].

    Returns:
      The adjusted image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c], an adjustment makes no sense for c
        channels, or a strength or the probability is out of bounds.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix A; torchvision's ColorJitter,
      https://docs.pytorch.org/vision/stable/transforms.html

    >>> key, image = jax.random.key(0), jnp.ones((8, 8, 3))
    >>> print(random_color_jitter(key, image, brightness=0.4, hue=0.1).shape)
    (8, 8, 3)
    """
    image = _check_image(image)
    _check_number("brightness", brightness, 0.0, math.inf)
    _check_number("contrast", contrast, 0.0, math.inf)
    _check_number("saturation", saturation, 0.0, math.inf)
    _check_number("hue", hue, 0.0, 0.5)
    _check_number("probability", probability, 0.0, 1.0)
    # Drawn together, as every call of the generator costs more than its numbers.
    *draws, order_draw, chance = jax.random.uniform(key, (6,))
    order = jnp.asarray(_ORDERS)[(len(_ORDERS) * order_draw).astype(jnp.int32)]

    def factor(strength: float, draw: jax.Array) -> jax.Array | None:
        low = max(0.0, 1 - strength)
        return low + draw * (1 + strength - low) if strength else None

    adjusted = color_jitter(
        image,
        order,
        brightness=factor(brightness, draws[_BRIGHTNESS]),
        contrast=factor(contrast, draws[_CONTRAST]),
        saturation=factor(saturation, draws[_SATURATION]),
        hue=hue * (2 * draws[_HUE] - 1) if hue else None,
    )
    return jnp.where(chance < probability, adjusted, image)


def grayscale(image: jax.Array) -> jax.Array:
    """Replaces every channel by the luma 0.299 r + 0.587 g + 0.114 b.

    Args:
      image: [h, w, c] in [0, 1], c = 1 or 3.

    Returns:
      The gray image, float32 [h, w, c]; image itself if c = 1.

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, 1] or [h, w, 3].

    >>> print(grayscale(jnp.array([[[0.0, 1.0, 0.0]]])).ravel())
    [0.587 0.587 0.587]
    """
    image = _check_colors(image, "grayscale")
    gray = _luma(_to_planes(image))
    return jnp.broadcast_to(gray[:, :, None], image.shape)


def random_grayscale(
    key: jax.Array, image: jax.Array, *, probability: float = 0.2
) -> jax.Array:
    """Makes an image gray with a probability.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1], c = 1 or 3.
      probability: of making it gray, in [0, 1].

    Returns:
      The image or its gray version, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, 1] or [h, w, 3], or probability outside [0, 1].

    >>> image = jnp.array([[[0.0, 1.0, 0.0]]])
    >>> print(random_grayscale(jax.random.key(0), image, probability=0.0).ravel())
    [0. 1. 0.]
    """
    image = _check_image(image)
    _check_number("probability", probability, 0.0, 1.0)
    chosen = jax.random.uniform(key) < probability
    return jnp.where(chosen, grayscale(image), image)


def solarize(image: jax.Array, threshold: jax.typing.ArrayLike = 0.5) -> jax.Array:
    """Inverts what is bright: 1 - x where x >= threshold, x elsewhere.

    Args:
      image: [h, w, c] in [0, 1].
      threshold: least value that is inverted; anything above 1 changes nothing.

    Returns:
      The solarized image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c].

    >>> print(solarize(jnp.array([[[0.25], [0.5], [1.0]]])).ravel())
    [0.25 0.5  0.  ]
    """
    image = _check_image(image)
    return jnp.where(image >= jnp.asarray(threshold, jnp.float32), 1 - image, image)


def random_solarize(
    key: jax.Array,
    image: jax.Array,
    *,
    threshold: float = 0.5,
    probability: float = 0.2,
) -> jax.Array:
    """Inverts what is bright with a probability.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1].
      threshold: least value that is inverted.
      probability: of solarizing, in [0, 1].

    Returns:
      The image or its solarized version, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c] or probability outside [0, 1].

    Source:
      BYOL, https://arxiv.org/abs/2006.07733, appendix B.

    >>> image = jnp.array([[[0.25], [0.5], [1.0]]])
    >>> print(random_solarize(jax.random.key(0), image, probability=1.0).ravel())
    [0.25 0.5  0.  ]
    """
    image = _check_image(image)
    _check_number("probability", probability, 0.0, 1.0)
    chosen = jax.random.uniform(key) < probability
    return jnp.where(chosen, solarize(image, threshold), image)


def normalize(image: jax.Array, mean: Numbers, std: Numbers) -> jax.Array:
    """Subtracts a mean and divides by a standard deviation.

    Args:
      image: [h, w, c] in [0, 1].
      mean: of every channel [c], or one for all []; in the units of the image.
      std: standard deviation of every channel [c], or one for all []; > 0.

    Returns:
      The normalized image, float32 [h, w, c], no longer in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c], or mean or std neither [c] nor [].

    >>> print(normalize(jnp.array([[[0.25], [0.75]]]), 0.5, 0.25).ravel())
    [-1.  1.]
    """
    image = _check_image(image)
    return (image - _per_channel("mean", mean, image)) / _per_channel("std", std, image)


def _to_planes(image: jax.Array) -> jax.Array:
    return jnp.moveaxis(image, 2, 0)


def _from_planes(planes: jax.Array) -> jax.Array:
    return jnp.moveaxis(planes, 0, 2)


def _luma(planes: jax.Array) -> jax.Array:
    """Gray [h, w] of planes [1, h, w] or [3, h, w]."""
    if planes.shape[0] == 1:
        return planes[0]
    return _LUMA[0] * planes[0] + _LUMA[1] * planes[1] + _LUMA[2] * planes[2]


def _blend(
    x: jax.Array, base: jax.typing.ArrayLike, factor: jax.typing.ArrayLike
) -> jax.Array:
    """clip(factor x + (1 - factor) base, 0, 1), where base broadcasts to x."""
    factor = jnp.asarray(factor, jnp.float32)
    return jnp.clip(factor * x + (1 - factor) * base, 0.0, 1.0)


def _turn_hue(planes: jax.Array, shift: jax.typing.ArrayLike) -> jax.Array:
    """Turns the hue of planes [3, h, w] by `shift` full turns.

    Hue runs over six sectors, 0 red, 2 green, 4 blue. Going round, each channel stays
    high, falls, stays low and rises; how far below the highest channel it is, in units
    of the chroma, is a clipped function of the distance from the middle of one phase.
    """
    red, green, blue = planes
    high = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = high - jnp.minimum(jnp.minimum(red, green), blue)
    sector = jnp.where(high == red, 0.0, jnp.where(high == green, 2.0, 4.0))
    within = jnp.where(
        high == red,
        green - blue,
        jnp.where(high == green, blue - red, red - green),
    )
    # Gray pixels have no hue: any will do, as nothing is subtracted below.
    hue = sector + within / jnp.where(chroma > 0, chroma, 1.0)
    hue = hue + 6 * jnp.asarray(shift, jnp.float32)
    hue = hue - 6 * jnp.floor(hue / 6)
    middle = jnp.array([3.0, 2.0, 4.0])[:, None, None]
    slope = jnp.array([-1.0, 1.0, 1.0])[:, None, None]
    offset = jnp.array([2.0, -1.0, -1.0])[:, None, None]
    below = jnp.clip(slope * jnp.abs(hue[None] - middle) + offset, 0.0, 1.0)
    return high[None] - chroma[None] * below


# Blur and noise.


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
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c] or radius not in [0, min(h, w)).

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix A, for the size.

    >>> print(gaussian_blur(jnp.ones((8, 8, 3)), 1.0).shape)
    (8, 8, 3)
    """
    image = _check_image(image)
    side = min(image.shape[:2])
    if radius is None:
        radius = min(max(1, side // 20), side - 1)
    if not 0 <= radius < side:
        raise ValueError(
            f"radius must be in [0, {side}) for an image of shape {image.shape}, "
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
      sigma: least and greatest standard deviation in pixels; > 0. Uniform between.
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
    image = _check_image(image)
    _check_range("sigma", sigma)
    _check_number("probability", probability, 0.0, 1.0)
    width, chance = jax.random.uniform(key, (2,))
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
    image = _check_image(image)
    _check_number("deviation", deviation, 0.0, math.inf)
    noise = jax.random.normal(key, image.shape, jnp.float32)
    return jnp.clip(image + deviation * noise, 0.0, 1.0)


# Affine maps.


def affine_matrix(
    *,
    rotation: jax.typing.ArrayLike = 0.0,
    translation: Numbers = (0.0, 0.0),
    scale: jax.typing.ArrayLike = 1.0,
    shear: jax.typing.ArrayLike = 0.0,
) -> jax.Array:
    """The matrix that makes `affine` shear, rotate, scale and then move a picture.

    A point p = (row, column) of the picture, relative to its center, goes to

        q = scale R S p + translation,
        R = [[cos r, -sin r], [sin r, cos r]],  S = [[1, 0], [-tan s, 1]].

    Args:
      rotation: r in degrees, counter-clockwise as seen.
      translation: down and to the right [2], in pixels.
      scale: > 0; 2 makes the picture twice as large.
      shear: s in degrees, less than 90 in size; positive leans the top to the right.

    Returns:
      The inverse map, from q to p, float32 [2, 3]: p = m[:, :2] q + m[:, 2].

    Raises:
      ValueError: if translation is not [2].

    >>> print(affine_matrix(translation=(1.0, 2.0), scale=2.0))
    [[ 0.5  0.  -0.5]
     [ 0.   0.5 -1. ]]
    """
    translation = jnp.asarray(translation, jnp.float32)
    if translation.shape != (2,):
        raise ValueError(f"translation must be [2], got shape {translation.shape}")
    angle = jnp.deg2rad(jnp.asarray(rotation, jnp.float32))
    lean = jnp.tan(jnp.deg2rad(jnp.asarray(shear, jnp.float32)))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    row = jnp.stack([cos, sin])
    column = jnp.stack([lean * cos - sin, lean * sin + cos])
    inverse = jnp.stack([row, column]) / jnp.asarray(scale, jnp.float32)
    moved = -(inverse * translation[None, :]).sum(axis=1)
    return jnp.concatenate([inverse, moved[:, None]], axis=1)


def affine(
    image: jax.Array,
    matrix: Numbers,
    *,
    fill: Numbers = 0.0,
) -> jax.Array:
    """Samples an image bilinearly at the points that an affine map gives.

    The value at q = (row, column), relative to the center of the image, is that of the
    input at p = m[:, :2] q + m[:, 2]. Outside, the input goes on as `fill`, and the
    border is interpolated with it like any two pixels.

    Args:
      image: [h, w, c] in [0, 1].
      matrix: m [2, 3], from places in the output to places in the input, in pixels; see
        `affine_matrix`.
      fill: value outside the image, [c] or one for all [].

    Returns:
      The mapped image, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c], matrix not [2, 3], or fill neither
        [c] nor [].

    >>> image = jnp.array([[[0.25], [0.5], [0.75]]])
    >>> print(affine(image, affine_matrix(translation=(0.0, 1.0))).ravel())
    [0.   0.25 0.5 ]
    """
    image = _check_image(image)
    matrix = jnp.asarray(matrix, jnp.float32)
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix must be [2, 3], got shape {matrix.shape}")
    fill = _per_channel("fill", fill, image)
    h, w, c = image.shape
    row = jnp.arange(h, dtype=jnp.float32)[:, None] - (h - 1) / 2
    column = jnp.arange(w, dtype=jnp.float32)[None, :] - (w - 1) / 2
    from_row = matrix[0, 0] * row + matrix[0, 1] * column + matrix[0, 2] + (h - 1) / 2
    from_column = (
        matrix[1, 0] * row + matrix[1, 1] * column + matrix[1, 2] + (w - 1) / 2
    )
    top, left = jnp.floor(from_row), jnp.floor(from_column)
    down, right = (from_row - top)[:, :, None], (from_column - left)[:, :, None]
    pixels = image.reshape(h * w, c)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        # Clipped before it becomes an int, which far away it could not be.
        row = jnp.clip(row, 0.0, h - 1.0).astype(jnp.int32)
        column = jnp.clip(column, 0.0, w - 1.0).astype(jnp.int32)
        return jnp.where(inside[:, :, None], pixels[row * w + column], fill)

    upper = (1 - right) * at(top, left) + right * at(top, left + 1)
    lower = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def random_affine(
    key: jax.Array,
    image: jax.Array,
    *,
    rotation: float = 0.0,
    translation: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    fill: Numbers = 0.0,
) -> jax.Array:
    """Shears, rotates, scales and moves an image by random amounts.

    Args:
      key: random key.
      image: [h, w, c] in [0, 1].
      rotation: greatest angle in degrees, >= 0; uniform in [-rotation, rotation].
      translation: greatest shift as a share of the height (down or up) and of the width
        (left or right), in [0, 1]; both uniform.
      scale: least and greatest magnification, > 0; uniform between.
      shear: greatest angle in degrees, in [0, 89]; uniform in [-shear, shear].
      fill: value outside the image, [c] or one for all [].

    Returns:
      The mapped image, float32 [h, w, c].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c] or a range is out of bounds or order.

    >>> image = jnp.ones((8, 8, 1))
    >>> print(random_affine(jax.random.key(0), image, rotation=10.0).shape)
    (8, 8, 1)
    """
    image = _check_image(image)
    _check_number("rotation", rotation, 0.0, math.inf)
    _check_number("translation", translation, 0.0, 1.0)
    _check_range("scale", scale)
    _check_number("shear", shear, 0.0, 89.0)
    draws = jax.random.uniform(key, (5,), jnp.float32, -1.0, 1.0)
    middle, half = (scale[0] + scale[1]) / 2, (scale[1] - scale[0]) / 2
    size = jnp.array(image.shape[:2], jnp.float32)
    matrix = affine_matrix(
        rotation=rotation * draws[0],
        translation=translation * size * draws[1:3],
        scale=middle + half * draws[3],
        shear=shear * draws[4],
    )
    return affine(image, matrix, fill=fill)


# Chains.


def chain(*steps: Transform) -> Transform:
    """Composes steps, functions of (key, image), into one; the first is applied first.

    Step i gets the i-th key split from the chain's: what one step draws does not depend
    on the others, nor on how many follow.

    Args:
      *steps: functions (key, image) -> image. `without_key` makes one of a function of
        the image alone.

    Returns:
      A function (key, image) -> image.

    Raises:
      TypeError: if a step is not callable.

    >>> transform = chain(random_horizontal_flip, without_key(solarize))
    >>> print(transform(jax.random.key(0), jnp.ones((12, 10, 3))).shape)
    (12, 10, 3)
    """
    for i, step in enumerate(steps):
        if not callable(step):
            raise TypeError(
                f"steps must be functions (key, image) -> image, got {step!r} at {i}"
            )

    def transform(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(steps)) if steps else ()
        for key, step in zip(keys, steps, strict=True):
            image = step(key, image)
        return image

    return transform


def without_key(function: Callable[[jax.Array], jax.Array]) -> Transform:
    """Makes a step of a chain of a function of the image alone.

    Args:
      function: image -> image.

    Returns:
      A function (key, image) -> image that ignores its key.

    >>> print(without_key(horizontal_flip)(None, jnp.array([[[0.25], [0.5]]])).ravel())
    [0.5  0.25]
    """
    return lambda key, image: function(image)


def simclr(
    size: int | tuple[int, int],
    *,
    strength: float = 1.0,
    blur: bool = True,
    mean: Numbers | None = None,
    std: Numbers | None = None,
) -> Transform:
    """SimCLR's chain for photographs.

    Random resized crop (area 8 to 100 %, ratio 3/4 to 4/3), flip, color jitter
    (0.8 strength for brightness, contrast and saturation, 0.2 strength for hue) with
    probability 0.8, grayscale with 0.2, Gaussian blur (sigma 0.1 to 2) with 0.5. The
    paper uses strength 1 for ImageNet, 0.5 and no blur for CIFAR-10.

    Args:
      size: height and width of the views in pixels; an int means both.
      strength: of the color jitter, in [0, 2.5].
      blur: whether to blur.
      mean: subtracted in the end, [c] or one for all []; None: no normalization.
      std: divided by in the end, [c] or one for all []; given with mean.

    Returns:
      A function (key, image [h, w, c]) -> view [size[0], size[1], c], for c = 1 or 3.

    Raises:
      TypeError: if size is not made of ints.
      ValueError: if size < 1, strength is out of bounds, or only one of mean and std is
        given.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendices A and B.9.

    >>> transform = simclr(8, strength=0.5, blur=False)
    >>> print(transform(jax.random.key(0), jnp.ones((12, 10, 3))).shape)
    (8, 8, 3)
    """
    _check_size(size)
    _check_number("strength", strength, 0.0, 2.5)
    jitter = functools.partial(
        random_color_jitter,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        probability=0.8,
    )
    steps: list[Transform] = [
        functools.partial(random_resized_crop, size=size),
        random_horizontal_flip,
        jitter,
        random_grayscale,
    ]
    if blur:
        steps.append(functools.partial(random_gaussian_blur, probability=0.5))
    return chain(*steps, *_normalization(mean, std))


def characters(
    *,
    rotation: float = 15.0,
    translation: float = 0.1,
    scale: tuple[float, float] = (0.8, 1.2),
    shear: float = 10.0,
    noise: float = 0.05,
    fill: Numbers = 0.0,
    mean: Numbers | None = None,
    std: Numbers | None = None,
) -> Transform:
    """A chain for small images of characters: affine map and noise, and no flips.

    Args:
      rotation: greatest angle in degrees; see `random_affine`, here and below.
      translation: greatest shift, as a share of the height and of the width.
      scale: least and greatest magnification.
      shear: greatest angle in degrees.
      noise: standard deviation of the noise, in the units of the image; see
        `random_noise`.
      fill: value outside the image, that of the paper; [c] or one for all [].
      mean: subtracted in the end, [c] or one for all []; None: no normalization.
      std: divided by in the end, [c] or one for all []; given with mean.

    Returns:
      A function (key, image [h, w, c]) -> view [h, w, c].

    Raises:
      ValueError: if only one of mean and std is given; what is out of bounds is found
        when the chain is called.

    >>> print(characters()(jax.random.key(0), jnp.ones((8, 8, 1))).shape)
    (8, 8, 1)
    """
    move = functools.partial(
        random_affine,
        rotation=rotation,
        translation=translation,
        scale=scale,
        shear=shear,
        fill=fill,
    )
    disturb = functools.partial(random_noise, deviation=noise)
    return chain(move, disturb, *_normalization(mean, std))


def views(
    key: jax.Array, images: jax.Array, transform: Transform, count: int = 2
) -> jax.Array:
    """Makes several views of every image of a batch.

    View v of image i has the (i count + v)-th key split from `key`, whatever the size
    of the batch: so the views are the same on one device and, under `jit`, sharded over
    many. Inside `shard_map` every device counts its own images from 0: there, fold the
    device's index into the key.

    Args:
      key: random key; the same key gives the same views.
      images: [b, h, w, c]; uint8, which is divided by 255, or floating in [0, 1].
      transform: function (key, image [h, w, c]) -> view [h', w', c'] of one image,
        such as `simclr(32)`.
      count: views per image, >= 1.

    Returns:
      Views, float32 [b, count, h', w', c'] for the transforms of this module.

    Raises:
      TypeError: if images are neither uint8 nor floating, or count is not an int.
      ValueError: if images are not [b, h, w, c] or count < 1.

    >>> images = np.zeros((4, 12, 10, 3), np.uint8)
    >>> print(views(jax.random.key(0), images, random_horizontal_flip).shape)
    (4, 2, 12, 10, 3)
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images must be [b, h, w, c], got shape {images.shape}")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be uint8, or floating in [0, 1], got {images.dtype}"
        )
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, got {count!r}")
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    keys = jax.random.split(key, (images.shape[0], count))

    def views_of_one(keys: jax.Array, image: jax.Array) -> jax.Array:
        whole = 255.0 if image.dtype == jnp.uint8 else 1.0
        image = image.astype(jnp.float32) / whole
        return jax.vmap(transform, (0, None))(keys, image)

    views_of_all = jax.vmap(views_of_one)
    sharding = jax.typeof(images).sharding
    rows = sharding.spec[0]
    if rows is not None:  # A mesh with explicit axes: inside, leave placement to XLA.
        views_of_all = jax.sharding.auto_axes(
            views_of_all, out_sharding=sharding.update(spec=jax.P(rows))
        )
    return views_of_all(keys, images)


def _normalization(mean: Numbers | None, std: Numbers | None) -> list[Transform]:
    """The last step of a chain, or none."""
    if (mean is None) != (std is None):
        raise ValueError(
            f"mean and std must be given together, got mean {mean} and std {std}"
        )
    if mean is None or std is None:
        return []
    return [without_key(functools.partial(normalize, mean=mean, std=std))]


# What came in. These run while tracing and cost nothing afterwards.


def _check_image(image: jax.Array) -> jax.Array:
    image = jnp.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            f"image must be [h, w, c], one image without a batch axis, "
            f"got shape {image.shape}"
        )
    if image.size == 0:
        raise ValueError(f"image must not be empty, got shape {image.shape}")
    if image.dtype != jnp.float32:
        raise TypeError(f"image must be float32 in [0, 1], got {image.dtype}")
    return image


def _check_colors(image: jax.Array, operation: str) -> jax.Array:
    image = _check_image(image)
    if image.shape[2] not in (1, 3):
        raise ValueError(
            f"{operation} needs an image [h, w, 1] or [h, w, 3], got {image.shape}"
        )
    return image


def _check_size(size: int | tuple[int, int], name: str = "size") -> tuple[int, int]:
    sides: Sequence[int] = size if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(
        isinstance(side, int | np.integer) and not isinstance(side, bool)
        for side in sides
    ):
        raise TypeError(f"{name} must be an int or two ints, got {size!r}")
    height, width = int(sides[0]), int(sides[1])
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be >= 1, got {size!r}")
    return height, width


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value!r}")


def _check_range(
    name: str, values: tuple[float, float], greatest: float = math.inf
) -> None:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= greatest:
        raise ValueError(
            f"{name} must be two numbers in order, > 0 and <= {greatest:g}, "
            f"got {values!r}"
        )


def _per_channel(name: str, value: Numbers, image: jax.Array) -> jax.Array:
    """A value per channel as [1, 1, c], a single one as []."""
    value = jnp.asarray(value, jnp.float32)
    if value.ndim == 0:
        return value
    if value.shape != image.shape[2:]:
        raise ValueError(
            f"{name} must be [] or [c] for an image of shape {image.shape}, "
            f"got shape {value.shape}"
        )
    return value[None, None, :]
