"""Encoders of images, in words that JSON can hold."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.models.embedder import Embedder
from jaxcl.models.resnet import resnet18, resnet34, resnet50
from jaxcl.models.small import ConvEncoder, Projector


class Description(NamedTuple):
    """What a model of images is, and what it is given.

    Attributes:
      shape: of an image, (h, w, c).
      encoder: "small", "resnet18", "resnet34" or "resnet50".
      width: channels of the encoder's first stage.
      stem: of a residual network, "small" or "imagenet".
      dtype: in which the model computes, "float32" or "bfloat16".
      embedding: size d of the projector's output.
      projector: "normalized" with batch normalization inside, or "plain" without.
      projector_norm: whether z is batch-normalized, as the last step.
      mean, std: of each channel in [0, 1], by which pixels are standardized; None: not.
    """

    shape: tuple[int, ...]
    encoder: str = "small"
    width: int = 32
    stem: str = "small"
    dtype: str = "float32"
    embedding: int = 128
    projector: str = "normalized"
    projector_norm: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def build(described: Description) -> Embedder:
    """From pixels [n, h, w, c] to embeddings z [n, d]."""
    dtype = jnp.dtype(described.dtype)
    residual = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
    _checks.choice("encoder", described.encoder, ("small", *residual))
    _checks.choice("projector", described.projector, ("normalized", "plain"))
    encoder: Any
    if described.encoder == "small":
        encoder = ConvEncoder(width=described.width, dtype=dtype)
    else:
        encoder = residual[described.encoder](
            stem=described.stem, width=described.width, dtype=dtype
        )
    projector = Projector(
        described.embedding,
        batch_norm=described.projector == "normalized",
        normalize_output=described.projector_norm,
        dtype=dtype,
    )
    return Embedder(encoder, projector)


def example(described: Description) -> jax.Array:
    """The least that the model can be given, for the shapes of its parameters."""
    return jnp.zeros((1, *described.shape), jnp.float32)


def prepare(described: Description, images: jax.Array) -> jax.Array:
    """Images as they are stored, uint8 [n, h, w, c], as the model is given them.

    (uint8 / 255 - mean) / std
    """
    if images.dtype != jnp.uint8 or images.shape[1:] != tuple(described.shape):
        raise ValueError(
            f"images must be uint8 [n, {', '.join(map(str, described.shape))}], "
            f"got {images.dtype} {list(images.shape)}"
        )
    pixels = images.astype(jnp.float32) / 255
    if described.mean is not None and described.std is not None:
        mean, std = (
            jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1)
            for x in (described.mean, described.std)
        )
        pixels = (pixels - mean) / std
    return pixels
