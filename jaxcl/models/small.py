"""A convolutional encoder for small images, and the projector on top of any encoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.models import layers

_HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class ConvEncoder(nn.Module):
    """Three 3x3 convolutions and a dense layer: images of 8 to 28 pixels to h.

    The convolutions have width, 2 and 2 times width channels, the dense layer has 8
    times width units; each is followed by batch normalization and ReLU. Means of 2x2
    pixels halve the image after the first convolution, unless an edge is below 4
    pixels, and before the dense layer until both edges are below 8: 8x8 ends as 4x4
    and 28x28 as 7x7. The dense layer tells these places apart: in a small image, say of
    a character, it matters where a stroke is, and a mean over places would forget it.
    So the parameters belong to one size of image.

    Args:
      width: channels of the first layer; r = 8 width.
      dtype: of the computation, bfloat16 or float32. Parameters are float32.
      axis_name: mesh axis to average batch statistics over inside `shard_map`.

    Call:
      images [n, h, w, c], floating point, and `train` (whether to use and update the
      statistics of the batch) give h [n, r], float32.

    Raises:
      ValueError: for a width below 1, an unknown dtype, or images not of rank 4.
      TypeError: for integer images, or a width that is no integer.

    >>> encoder = ConvEncoder(width=8)
    >>> images = jax.ShapeDtypeStruct((5, 8, 8, 1), jnp.float32)
    >>> h, _ = jax.eval_shape(
    ...     lambda x: encoder.init_with_output(jax.random.key(0), x, train=False),
    ...     images,
    ... )
    >>> print(h.shape)
    (5, 64)
    """

    width: int = 32
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _checks.count("width", self.width)
        _checks.dtype("dtype", self.dtype, layers.COMPUTE_DTYPES)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers.check_images(images)

        def normalized(x: jax.Array) -> jax.Array:
            x = layers.batch_norm(
                x, train=train, dtype=self.dtype, axis_name=self.axis_name
            )
            return nn.relu(x)

        # Batch normalization has a bias, so the layers before it have none.
        options: dict[str, Any] = {
            "use_bias": False,
            "kernel_init": _HE_NORMAL,
            "dtype": self.dtype,
        }
        around = ((1, 1), (1, 1))
        x = images.astype(self.dtype)
        x = normalized(nn.Conv(self.width, (3, 3), padding=around, **options)(x))
        if min(x.shape[1:3]) >= 4:
            x = _halved(x)
        for _ in range(2):
            x = nn.Conv(2 * self.width, (3, 3), padding=around, **options)(x)
            x = normalized(x)
        while max(x.shape[1:3]) >= 8:
            x = _halved(x)
        x = x.reshape(len(x), -1)
        x = normalized(nn.Dense(8 * self.width, **options)(x))
        return x.astype(jnp.float32)


def _halved(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; at an odd edge of the one or two that there are."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), "edge")
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


class Projector(nn.Module):
    """Multi-layer perceptron from representations h to embeddings z.

    `depth - 1` hidden layers (linear, batch normalization, ReLU), then a linear layer
    without bias. The last layer computes in float32: it is small, and z carries no
    rounding that the loss would amplify by 1 / temperature.

    Args:
      output: d, size of the embedding.
      hidden: units of each hidden layer; None is as many as h has.
      depth: number of linear layers; 1 is a linear map.
      batch_norm: whether hidden layers are normalized; without, they have a bias.
      normalize_output: whether z is batch-normalized as well, with a scale and without
        a bias.
      dtype: of the hidden computation, bfloat16 or float32. Parameters are float32.
      axis_name: mesh axis to average batch statistics over inside `shard_map`.

    Call:
      h [n, r], floating point, and `train` (whether to use and update the statistics
      of the batch) give z [n, d], float32; h [p, n, r], as of packed graphs, gives z
      [p, n, d].

    Raises:
      ValueError: for output, hidden or depth below 1, an unknown dtype, or h not of
        rank 2 or 3.
      TypeError: for output, hidden or depth that is no integer.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, section 4.2; batch normalization and
      the missing bias as in its code.

    >>> projector = Projector(output=16, depth=3)
    >>> h = jax.ShapeDtypeStruct((5, 32), jnp.float32)
    >>> z, _ = jax.eval_shape(
    ...     lambda x: projector.init_with_output(jax.random.key(0), x, train=False),
    ...     h,
    ... )
    >>> print(z.shape)
    (5, 16)
    """

    output: int = 128
    hidden: int | None = None
    depth: int = 2
    batch_norm: bool = True
    normalize_output: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _checks.count("output", self.output)
        _checks.count("depth", self.depth)
        if self.hidden is not None:
            _checks.count("hidden", self.hidden)
        _checks.dtype("dtype", self.dtype, layers.COMPUTE_DTYPES)
        super().__post_init__()

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        _checks.array("h", h, "p n r" if h.ndim == 3 else "n r")
        hidden = h.shape[-1] if self.hidden is None else self.hidden
        x = h
        for _ in range(self.depth - 1):
            x = nn.Dense(hidden, use_bias=not self.batch_norm, dtype=self.dtype)(x)
            if self.batch_norm:
                x = layers.batch_norm(
                    x, train=train, dtype=self.dtype, axis_name=self.axis_name
                )
            x = nn.relu(x)
        z = nn.Dense(self.output, use_bias=False, dtype=jnp.float32)(x)
        if self.normalize_output:
            z = layers.batch_norm(
                z,
                train=train,
                dtype=jnp.float32,
                axis_name=self.axis_name,
                use_bias=False,
            )
        return z
