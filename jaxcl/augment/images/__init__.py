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

from jaxcl.augment.images.affine_maps import (
    affine,
    affine_matrix,
    random_affine,
)
from jaxcl.augment.images.chains import (
    characters,
    simclr,
    views,
)
from jaxcl.augment.images.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    grayscale,
    normalize,
    random_color_jitter,
    random_grayscale,
    random_solarize,
    solarize,
)
from jaxcl.augment.images.crop import (
    horizontal_flip,
    random_box,
    random_horizontal_flip,
    random_resized_crop,
    resized_crop,
)
from jaxcl.augment.images.filters import (
    gaussian_blur,
    random_gaussian_blur,
    random_noise,
)
from jaxcl.augment.transforms import Numbers, Transform, chain, without_key

__all__ = [
    "Numbers",
    "Transform",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "affine",
    "affine_matrix",
    "chain",
    "characters",
    "color_jitter",
    "gaussian_blur",
    "grayscale",
    "horizontal_flip",
    "normalize",
    "random_affine",
    "random_box",
    "random_color_jitter",
    "random_gaussian_blur",
    "random_grayscale",
    "random_horizontal_flip",
    "random_noise",
    "random_resized_crop",
    "random_solarize",
    "resized_crop",
    "simclr",
    "solarize",
    "views",
    "without_key",
]
