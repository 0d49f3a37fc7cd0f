"""From images to the representation h, once, in batches of one size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks


def represent(
    encode: Callable[[jax.Array], jax.Array],
    images: jax.typing.ArrayLike,
    batch_size: int,
) -> np.ndarray:
    """The frozen representation of every image.

        h_i = encode(images)_i

    The function is compiled once for a batch size: the last batch is filled up with
    copies of its last image, whose rows are then cut off. `encode` must treat the
    images of a batch independently (batch norm in inference mode does).

    Args:
      encode: pure function of images [batch, ...], with the dtype and range of
        `images`, to h [batch, r]. As `jax.tree_util.Partial(apply, variables)`, with
        `apply` defined once, the variables are inputs of the compiled program, which
        serves every later call with other variables; a new lambda is compiled anew.
      images: [n, ...], any dtype; only one batch at a time goes to the device.
      batch_size: images per call, over all devices.

    Returns:
      h, float32 [n, r], on the host.

    Raises:
      ValueError: if there are no images, or encode does not return [batch, r].

    >>> double = lambda images: 2.0 * images.reshape(len(images), -1)
    >>> print(represent(double, np.ones((5, 2, 2), np.float32), batch_size=3).shape)
    (5, 4)
    """
    _checks.count("batch_size", batch_size)
    if jnp.ndim(images) < 1 or len(images) < 1:  # type: ignore[arg-type]
        raise ValueError(f"images must be [n, ...], n >= 1, got {jnp.shape(images)}")
    if not isinstance(encode, jax.tree_util.Partial):
        encode = jax.tree_util.Partial(encode)
    images = np.asarray(images)
    size = min(batch_size, len(images))
    h = []
    for start in range(0, len(images), size):
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        out = _apply(encode, images[rows])
        if out.ndim != 2 or len(out) != size:
            raise ValueError(
                f"encode must return [batch, r], got {out.shape} from {size} images"
            )
        h.append(np.asarray(out.astype(jnp.float32)))
    return np.concatenate(h)[: len(images)]


@jax.jit
def _apply(encode: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    return encode(images)
