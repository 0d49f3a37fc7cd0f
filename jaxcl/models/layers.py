"""What encoders and projectors share: checks of their arguments, normalization."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import _checks

COMPUTE_DTYPES = ("bfloat16", "float32")


def check_images(images: jax.Array) -> None:
    """Checks what every encoder of images is given.

    Args:
      images: the argument.

    Returns:
      Nothing.

    Raises:
      ValueError: if the rank is not 4.
      TypeError: if the dtype is not floating.
    """
    _checks.array("images", images, "n h w c")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            "images must be floating point, for instance float32 pixels in [0, 1], "
            f"got dtype {images.dtype}"
        )


def batch_norm(
    x: jax.Array,
    *,
    train: bool,
    dtype: jax.typing.DTypeLike,
    axis_name: str | None = None,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
    use_bias: bool = True,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Batch normalization over every axis but the last, inside a compact module.

        y = (x - mean) / sqrt(variance + 1e-5) * scale + bias

    Statistics are computed in float32 whatever the compute dtype: a mean over a million
    bfloat16 pixels would keep two or three digits.

    Args:
      x: activations [..., c]; any float dtype.
      train: whether to use the statistics of this batch and update the running ones.
      dtype: of the result.
      axis_name: mesh axis to average statistics over inside `shard_map`; under `jit`
        on global arrays statistics are global without it.
      scale_init: initializer of the scale [c].
      use_bias: whether a bias is added.
      mask: rows that statistics are of, bool [..., 1]; None: all of them.

    Returns:
      Normalized activations [..., c].
    """
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=jnp.float32,
        axis_name=axis_name,
        scale_init=scale_init,
        use_bias=use_bias,
    )
    return norm(x.astype(jnp.float32), mask=mask).astype(dtype)
