"""Affine maps: shear, rotation, scale and translation."""

import math

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.augment.transforms import Numbers


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
    image = _checks.image("image", image)
    matrix = jnp.asarray(matrix, jnp.float32)
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix must be [2, 3], got shape {matrix.shape}")
    fill = _checks.per_channel("fill", fill, image)
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
      rotation: largest angle in degrees, >= 0; uniform in [-rotation, rotation].
      translation: largest shift as a share of the height (down or up) and of the width
        (left or right), in [0, 1]; both uniform.
      scale: smallest and largest magnification, > 0; uniform between.
      shear: largest angle in degrees, in [0, 89]; uniform in [-shear, shear].
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
    image = _checks.image("image", image)
    _checks.between("rotation", rotation, 0.0, math.inf)
    _checks.between("translation", translation, 0.0, 1.0)
    _checks.interval("scale", scale)
    _checks.between("shear", shear, 0.0, 89.0)
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
