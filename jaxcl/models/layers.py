"""What every encoder and projector shares: checks of their arguments, normalization."""

import flax.linen as nn
import jax
import jax.numpy as jnp

_COMPUTE_DTYPES = ("bfloat16", "float32")


def check_images(images: jax.Array) -> None:
    """Raises unless images are floating point [n, h, w, c].

    Raises:
      ValueError: if the rank is not 4.
      TypeError: if the dtype is not floating.
    """
    if images.ndim != 4:
        raise ValueError(
            f"images: got shape {images.shape} of rank {images.ndim}; "
            "expected [n, h, w, c], rank 4"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images: got dtype {images.dtype}; expected floating point, "
            "for instance float32 pixels in [0, 1]"
        )


def check_positive(name: str, value: int) -> None:
    """Raises unless the value is an integer of at least 1.

    Raises:
      ValueError: naming the argument otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: got {value!r}; expected an integer >= 1")


def check_dtype(dtype: jax.typing.DTypeLike) -> None:
    """Raises unless the compute dtype is bfloat16 or float32.

    Raises:
      ValueError: otherwise.
    """
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in _COMPUTE_DTYPES:
        raise ValueError(
            f"dtype: got {name}; expected one of {', '.join(_COMPUTE_DTYPES)}"
        )


def batch_norm(
    x: jax.Array,
    *,
    train: bool,
    dtype: jax.typing.DTypeLike,
    axis_name: str | None = None,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
    use_bias: bool = True,
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
    return norm(x.astype(jnp.float32)).astype(dtype)
