"""Chains of steps that papers use, and views of a batch of images."""

import functools

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.augment import transforms
from jaxcl.augment.images import affine_maps, color, crop, filters
from jaxcl.augment.transforms import Numbers, Transform


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
    _checks.sides("size", size)
    _checks.between("strength", strength, 0.0, 2.5)
    jitter = functools.partial(
        color.random_color_jitter,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        probability=0.8,
    )
    steps: list[Transform] = [
        functools.partial(crop.random_resized_crop, size=size),
        crop.random_horizontal_flip,
        jitter,
        color.random_grayscale,
    ]
    if blur:
        steps.append(functools.partial(filters.random_gaussian_blur, probability=0.5))
    return transforms.chain(*steps, *_normalization(mean, std))


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
      rotation: largest angle in degrees; see `random_affine`, here and below.
      translation: largest shift, as a share of the height and of the width.
      scale: smallest and largest magnification.
      shear: largest angle in degrees.
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
        affine_maps.random_affine,
        rotation=rotation,
        translation=translation,
        scale=scale,
        shear=shear,
        fill=fill,
    )
    disturb = functools.partial(filters.random_noise, deviation=noise)
    return transforms.chain(move, disturb, *_normalization(mean, std))


def views(
    key: jax.Array, images: jax.Array, transform: Transform, count: int = 2
) -> jax.Array:
    """Makes several views of every image of a batch: `jaxcl.augment.views` of pixels.

    Args:
      key: random key; the same key gives the same views.
      images: [b, h, w, c]; uint8, which is divided by 255, or floating in [0, 1].
      transform: function (key, image [h, w, c]) -> view [h', w', c'] of one image,
        such as `simclr(32)`.
      count: views per image, >= 1.

    Returns:
      Views, float32 [b, count, h', w', c'] for the transforms of `augment.images`.

    Raises:
      TypeError: if images are neither uint8 nor floating, or count is no integer.
      ValueError: if images are not [b, h, w, c] or count < 1.

    >>> images = jnp.zeros((4, 12, 10, 3), jnp.uint8)
    >>> print(views(jax.random.key(0), images, crop.random_horizontal_flip).shape)
    (4, 2, 12, 10, 3)
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images must be [b, h, w, c], got shape {images.shape}")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be uint8, or floating in [0, 1], got {images.dtype}"
        )
    whole = 255.0 if images.dtype == jnp.uint8 else 1.0

    def of_pixels(key: jax.Array, image: jax.Array) -> jax.Array:
        return transform(key, image.astype(jnp.float32) / whole)

    return transforms.views(key, images, of_pixels, count)


def _normalization(mean: Numbers | None, std: Numbers | None) -> list[Transform]:
    """The last step of a chain, or none."""
    if (mean is None) != (std is None):
        raise ValueError(
            f"mean and std must be given together, got mean {mean} and std {std}"
        )
    if mean is None or std is None:
        return []
    return [
        transforms.without_key(functools.partial(color.normalize, mean=mean, std=std))
    ]
