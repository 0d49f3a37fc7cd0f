"""Residual networks for images."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.models import layers

_STEMS = ("imagenet", "small")
_HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _convolution(
    x: jax.Array,
    channels: int,
    *,
    size: int,
    stride: int = 1,
    dtype: jax.typing.DTypeLike,
) -> jax.Array:
    # Symmetric padding: "SAME" would shift the grid by a pixel at every stride of two.
    margin = size // 2
    convolution = nn.Conv(
        channels,
        (size, size),
        strides=(stride, stride),
        padding=((margin, margin), (margin, margin)),
        use_bias=False,
        kernel_init=_HE_NORMAL,
        dtype=dtype,
    )
    return convolution(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; channels in = channels out.

    Args:
      channels: of both convolutions and of the output.
      stride: of the first convolution; 2 halves the image.
      dtype: compute dtype.
      axis_name: mesh axis of the batch inside `shard_map`.

    Source:
      Deep residual learning, https://arxiv.org/abs/1512.03385, figure 5 left.
    """

    channels: int
    stride: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return _residual(
            x,
            ((self.channels, 3, self.stride), (self.channels, 3, 1)),
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )


class BottleneckBlock(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 beside a shortcut; four times the channels out.

    The stride sits in the 3x3 convolution, where it drops no input.

    Args:
      channels: of the two inner convolutions; the output has four times as many.
      stride: of the 3x3 convolution; 2 halves the image.
      dtype: compute dtype.
      axis_name: mesh axis of the batch inside `shard_map`.

    Source:
      Deep residual learning, https://arxiv.org/abs/1512.03385, figure 5 right.
    """

    channels: int
    stride: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return _residual(
            x,
            (
                (self.channels, 1, 1),
                (self.channels, 3, self.stride),
                (4 * self.channels, 1, 1),
            ),
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )


def _residual(
    x: jax.Array,
    convolutions: tuple[tuple[int, int, int], ...],
    *,
    train: bool,
    dtype: jax.typing.DTypeLike,
    axis_name: str | None,
) -> jax.Array:
    """A chain of (channels, size, stride) convolutions plus its input."""
    y = x
    for i, (channels, size, stride) in enumerate(convolutions):
        last = i + 1 == len(convolutions)
        y = _convolution(y, channels, size=size, stride=stride, dtype=dtype)
        # The branch starts at zero, so a deep network starts as a shallow one.
        scale_init = nn.initializers.zeros if last else nn.initializers.ones
        y = layers.batch_norm(
            y, train=train, dtype=dtype, axis_name=axis_name, scale_init=scale_init
        )
        if not last:
            y = nn.relu(y)
    if x.shape != y.shape:
        stride = max(stride for _, _, stride in convolutions)
        x = _convolution(x, y.shape[-1], size=1, stride=stride, dtype=dtype)
        x = layers.batch_norm(x, train=train, dtype=dtype, axis_name=axis_name)
    return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network without its classifier: images to representations.

    Args:
      stages: number of blocks in each stage; every stage after the first halves the
        image and doubles the channels.
      block: `BasicBlock` or `BottleneckBlock`.
      stem: "imagenet" (7x7 convolution with stride 2, then 3x3 max-pooling with
        stride 2) or "small" (3x3 convolution with stride 1: images below 64 pixels).
      width: channels of the first stage; width / 64 is the usual width multiplier.
      dtype: of the computation, bfloat16 or float32. Parameters are float32.
      axis_name: mesh axis to average batch statistics over inside `shard_map`; None
        under `jit`, where they are global by themselves.

    Call:
      images [n, h, w, c], floating point, and `train` (whether to use and update the
      statistics of the batch) give h [n, r], float32.

    Raises:
      ValueError: for an unknown stem, dtype, or a width below 1; for images not of
        rank 4.
      TypeError: for integer images, or a width that is no integer.

    Source:
      Deep residual learning, https://arxiv.org/abs/1512.03385, table 1; the small
      stem is that of SimCLR, https://arxiv.org/abs/2002.05709, appendix B.9.
    """

    stages: tuple[int, ...]
    block: type[BasicBlock] | type[BottleneckBlock]
    stem: str = "imagenet"
    width: int = 64
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _checks.choice("stem", self.stem, _STEMS)
        _checks.count("width", self.width)
        _checks.dtype("dtype", self.dtype, layers.COMPUTE_DTYPES)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers.check_images(images)
        x = images.astype(self.dtype)
        if self.stem == "imagenet":
            x = _convolution(x, self.width, size=7, stride=2, dtype=self.dtype)
        else:
            x = _convolution(x, self.width, size=3, dtype=self.dtype)
        x = layers.batch_norm(
            x, train=train, dtype=self.dtype, axis_name=self.axis_name
        )
        x = nn.relu(x)
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, num_blocks in enumerate(self.stages):
            for i in range(num_blocks):
                x = self.block(
                    channels=self.width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                )(x, train=train)
        return x.astype(jnp.float32).mean(axis=(1, 2))


def resnet18(
    *,
    stem: str = "imagenet",
    width: int = 64,
    dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> ResNet:
    """ResNet-18: 8 basic blocks, r = 8 width; arguments as in `ResNet`.

    >>> encoder = resnet18(stem="small", width=16)
    >>> images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    >>> h, _ = jax.eval_shape(
    ...     lambda x: encoder.init_with_output(jax.random.key(0), x, train=False),
    ...     images,
    ... )
    >>> print(h.shape)
    (2, 128)
    """
    return ResNet(
        stages=(2, 2, 2, 2),
        block=BasicBlock,
        stem=stem,
        width=width,
        dtype=dtype,
        axis_name=axis_name,
    )


def resnet34(
    *,
    stem: str = "imagenet",
    width: int = 64,
    dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> ResNet:
    """ResNet-34: 16 basic blocks, r = 8 width; arguments as in `ResNet`."""
    return ResNet(
        stages=(3, 4, 6, 3),
        block=BasicBlock,
        stem=stem,
        width=width,
        dtype=dtype,
        axis_name=axis_name,
    )


def resnet50(
    *,
    stem: str = "imagenet",
    width: int = 64,
    dtype: jax.typing.DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> ResNet:
    """ResNet-50: 16 bottleneck blocks, r = 32 width; arguments as in `ResNet`."""
    return ResNet(
        stages=(3, 4, 6, 3),
        block=BottleneckBlock,
        stem=stem,
        width=width,
        dtype=dtype,
        axis_name=axis_name,
    )
