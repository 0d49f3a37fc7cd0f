"""Brightness, contrast, saturation, hue, grayscale, solarization, normalization.

Inside, colors are planes, [c, h, w] or one by one: contiguous, so that loops vectorize,
and no accelerator fills its lanes with three channels.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcl import _checks
from jaxcl.augment.transforms import Numbers

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_PHASES = ((3.0, -1.0, 2.0), (2.0, 1.0, -1.0), (4.0, 1.0, -1.0))  # of r, g, b
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


def adjust_brightness(image: jax.Array, factor: ArrayLike) -> jax.Array:
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
    return _blend(_checks.image("image", image), 0.0, factor)


def adjust_contrast(image: jax.Array, factor: ArrayLike) -> jax.Array:
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
    planes = _to_planes(_checks.gray_or_color("image", image, "contrast"))
    return _from_planes(_blend(planes, _luma(planes).mean(), factor))


def adjust_saturation(image: jax.Array, factor: ArrayLike) -> jax.Array:
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
    image = _checks.gray_or_color("image", image, "saturation")
    if image.shape[2] == 1:
        return image
    planes = _to_planes(image)
    return _from_planes(_blend(planes, _luma(planes)[None], factor))


def adjust_hue(image: jax.Array, shift: ArrayLike) -> jax.Array:
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
    image = _checks.gray_or_color("image", image, "hue")
    if image.shape[2] == 1:
        return image
    return _from_planes(_turn_hue(_to_planes(image), shift))


def color_jitter(
    image: jax.Array,
    order: Numbers,
    *,
    brightness: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
    saturation: ArrayLike | None = None,
    hue: ArrayLike | None = None,
) -> jax.Array:
    """Adjusts brightness, contrast, saturation and hue, one after another in `order`.

    Equal to calling the four `adjust_*` in that order, also where `order` is traced:
    the first three are one formula, clip(factor x + (1 - factor) base, 0, 1), with
    another base each, and hue, the expensive one, is evaluated once, between those of
    the other three that come before it and those that come after it.

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
    image = _checks.image("image", image)
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
            _checks.gray_or_color("image", image, name)
    if image.shape[2] == 1:
        saturation = hue = None
    grays = contrast is not None or saturation is not None
    if not grays and hue is None:
        return image if brightness is None else adjust_brightness(image, brightness)

    given = (brightness, contrast, saturation)
    factors = [jnp.asarray(1.0 if f is None else f, jnp.float32) for f in given]
    shift = None if hue is None else jnp.asarray(hue, jnp.float32)
    # Two passes over the image where memory is slow beside arithmetic. On a CPU, where
    # XLA would compute all of it anew for each channel, one pass for each adjustment.
    by_passes = functools.partial(_jitter_by_passes, grays=grays)
    return jax.lax.platform_dependent(
        image, order, factors, shift, cpu=by_passes, default=_jitter_at_once
    )


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
    image = _checks.image("image", image)
    _checks.between("brightness", brightness, 0.0, math.inf)
    _checks.between("contrast", contrast, 0.0, math.inf)
    _checks.between("saturation", saturation, 0.0, math.inf)
    _checks.between("hue", hue, 0.0, 0.5)
    _checks.between("probability", probability, 0.0, 1.0)
    # Drawn together, as every call of the generator costs more than its numbers.
    *draws, order_draw, chance = jax.random.uniform(key, (6,), jnp.float32)
    order = jnp.asarray(_ORDERS)[(len(_ORDERS) * order_draw).astype(jnp.int32)]
    chosen = chance < probability

    def factor(strength: float, draw: jax.Array) -> jax.Array | None:
        low = max(0.0, 1 - strength)
        drawn = low + draw * (1 + strength - low)
        return jnp.where(chosen, drawn, 1.0) if strength else None

    # What is not chosen is adjusted by nothing: cheaper than to select between images.
    shift = jnp.where(chosen, hue * (2 * draws[_HUE] - 1), 0.0) if hue else None
    return color_jitter(
        image,
        order,
        brightness=factor(brightness, draws[_BRIGHTNESS]),
        contrast=factor(contrast, draws[_CONTRAST]),
        saturation=factor(saturation, draws[_SATURATION]),
        hue=shift,
    )


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
    image = _checks.gray_or_color("image", image, "grayscale")
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
    image = _checks.image("image", image)
    _checks.between("probability", probability, 0.0, 1.0)
    _checks.gray_or_color("image", image, "grayscale")
    chosen = jax.random.uniform(key, (), jnp.float32) < probability

    def by_planes(chosen: jax.Array, image: jax.Array) -> jax.Array:
        """Undone before it is done where planes come from and go to planes."""
        planes = _unstack(image)
        gray = _luma(planes)
        return jnp.stack([jnp.where(chosen, gray, x) for x in planes], axis=2)

    def as_image(chosen: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.where(chosen, grayscale(image), image)

    return jax.lax.platform_dependent(chosen, image, cpu=as_image, default=by_planes)


def solarize(image: jax.Array, threshold: ArrayLike = 0.5) -> jax.Array:
    """Inverts what is bright: 1 - x where x >= threshold, x elsewhere.

    Args:
      image: [h, w, c] in [0, 1].
      threshold: smallest value that is inverted; anything above 1 changes nothing.

    Returns:
      The solarized image, float32 [h, w, c] in [0, 1].

    Raises:
      TypeError: if image is not float32.
      ValueError: if image is not [h, w, c].

    >>> print(solarize(jnp.array([[[0.25], [0.5], [1.0]]])).ravel())
    [0.25 0.5  0.  ]
    """
    image = _checks.image("image", image)
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
      threshold: smallest value that is inverted.
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
    image = _checks.image("image", image)
    _checks.between("probability", probability, 0.0, 1.0)
    chosen = jax.random.uniform(key, (), jnp.float32) < probability
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
    image = _checks.image("image", image)
    return (image - _checks.per_channel("mean", mean, image)) / _checks.per_channel(
        "std", std, image
    )


def _to_planes(image: jax.Array) -> jax.Array:
    return jnp.moveaxis(image, 2, 0)


def _from_planes(planes: jax.Array) -> jax.Array:
    return jnp.moveaxis(planes, 0, 2)


def _unstack(image: jax.Array) -> list[jax.Array]:
    return [image[:, :, i] for i in range(image.shape[2])]


def _luma(planes: jax.Array | Sequence[jax.Array]) -> jax.Array:
    """Gray [h, w] of one plane [h, w] or three."""
    if len(planes) == 1:
        return planes[0]
    return _LUMA[0] * planes[0] + _LUMA[1] * planes[1] + _LUMA[2] * planes[2]


def _blend(x: jax.Array, base: ArrayLike, factor: ArrayLike) -> jax.Array:
    """clip(factor x + (1 - factor) base, 0, 1), where base broadcasts to x."""
    factor = jnp.asarray(factor, jnp.float32)
    return jnp.clip(factor * x + (1 - factor) * base, 0.0, 1.0)


def _turn_hue(planes: jax.Array, shift: ArrayLike) -> jax.Array:
    """Turns the hue of planes [3, h, w] by `shift` full turns; by 0, not at all."""
    high, chroma, hue = _hue(planes, shift)
    middle, slope, offset = jnp.array(_PHASES, jnp.float32).T[:, :, None, None]
    turned = _channel(high[None], chroma[None], hue[None], middle, slope, offset)
    return jnp.where(jnp.asarray(shift) == 0, planes, turned)


def _turn_hues(planes: Sequence[jax.Array], shift: jax.Array) -> list[jax.Array]:
    """The same of three planes [h, w] that stay apart."""
    high, chroma, hue = _hue(planes, shift)
    turned = [_channel(high, chroma, hue, *phase) for phase in _PHASES]
    return [jnp.where(shift == 0, x, t) for x, t in zip(planes, turned, strict=True)]


def _hue(
    planes: jax.Array | Sequence[jax.Array], shift: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Highest channel, chroma and turned hue, each [h, w], of three planes.

    Hue runs over six sectors, 0 red, 2 green, 4 blue.
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
    return high, chroma, hue - 6 * jnp.floor(hue / 6)


def _channel(
    high: jax.Array,
    chroma: jax.Array,
    hue: jax.Array,
    middle: ArrayLike,
    slope: ArrayLike,
    offset: ArrayLike,
) -> jax.Array:
    """A channel of a hue.

    Going round, each channel stays high, falls, stays low and rises; how far below the
    highest channel it is, in units of the chroma, is a clipped function of the distance
    from the middle of one phase.
    """
    below = jnp.clip(slope * jnp.abs(hue - middle) + offset, 0.0, 1.0)
    return high - chroma * below


def _jitter_by_passes(
    image: jax.Array,
    order: jax.Array,
    factors: list[jax.Array],
    shift: jax.Array | None,
    *,
    grays: bool,
) -> jax.Array:
    """`color_jitter`, one adjustment after another.

    Hue, the expensive one, is evaluated once, between those of the other three that
    come before it and those that come after it.
    """
    hue_at = jnp.argmax(order == _HUE).astype(jnp.int32)
    position = jnp.arange(3, dtype=jnp.int32)
    others = order[jnp.where(position < hue_at, position, position + 1)]
    factor = jnp.stack(factors)[others]

    def adjust(
        planes: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        adjustment, factor = step
        base: ArrayLike = 0.0
        if grays:
            gray = _luma(planes)
            base = jnp.where(adjustment == _SATURATION, gray, 0.0)
            base = jnp.where(adjustment == _CONTRAST, gray.mean(), base)[None]
        return _blend(planes, base, factor), None

    # Scans rather than unrolled: XLA fuses unrolled adjustments and recomputes each
    # for every use by the next.
    planes = _to_planes(image)
    if shift is None:
        return _from_planes(jax.lax.scan(adjust, planes, (others, factor))[0])
    before = jnp.where(position < hue_at, factor, 1.0)
    after = jnp.where(position < hue_at, 1.0, factor)
    planes, _ = jax.lax.scan(adjust, planes, (others, before))
    planes = _turn_hue(planes, shift)
    planes, _ = jax.lax.scan(adjust, planes, (others, after))
    return _from_planes(planes)


def _jitter_at_once(
    image: jax.Array,
    order: jax.Array,
    factors: list[jax.Array],
    shift: jax.Array | None,
) -> jax.Array:
    """`color_jitter` in two passes over the image: up to the mean gray, and from there.

    On either side of contrast, brightness and saturation come before or after hue and
    in either order, so each has its turn wherever it may come, and a factor of one
    where it does not. Planes [h, w] stay apart: whatever is done to three of one shape
    is one loop over memory.
    """
    brightness, contrast, saturation = factors
    at = [jnp.argmax(order == i) for i in range(4)]
    hue_first = at[_HUE] < at[_CONTRAST]

    def scale(planes: list[jax.Array], factor: jax.Array) -> list[jax.Array]:
        return [jnp.clip(factor * x, 0.0, 1.0) for x in planes]

    def between(
        planes: list[jax.Array], start: ArrayLike, end: ArrayLike
    ) -> list[jax.Array]:
        """Brightness and saturation, if they come after `start` and before `end`."""
        bright = (start < at[_BRIGHTNESS]) & (at[_BRIGHTNESS] < end)
        first = at[_BRIGHTNESS] < at[_SATURATION]
        inside = (start < at[_SATURATION]) & (at[_SATURATION] < end)
        planes = scale(planes, jnp.where(bright & first, brightness, 1.0))
        if len(planes) == 3:
            gray, factor = _luma(planes), jnp.where(inside, saturation, 1.0)
            planes = [_blend(x, gray, factor) for x in planes]
        return scale(planes, jnp.where(bright & ~first, brightness, 1.0))

    def turn(planes: list[jax.Array], now: jax.Array) -> list[jax.Array]:
        if shift is None:
            return planes
        return _turn_hues(planes, jnp.where(now, shift, 0.0))

    start, end = -1, 4
    planes = between(_unstack(image), start, jnp.minimum(at[_HUE], at[_CONTRAST]))
    planes = turn(planes, hue_first)
    planes = between(planes, jnp.where(hue_first, at[_HUE], end), at[_CONTRAST])
    mean = _luma(planes).mean()
    planes = [_blend(x, mean, contrast) for x in planes]
    planes = between(planes, at[_CONTRAST], jnp.where(hue_first, end, at[_HUE]))
    planes = turn(planes, ~hue_first)
    planes = between(planes, jnp.where(hue_first, end, at[_HUE]), end)
    return jnp.stack(planes, axis=2)
