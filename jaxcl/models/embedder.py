"""An encoder and a projector as one model."""

from typing import Any

import flax.linen as nn
import jax


class Embedder(nn.Module):
    """Encoder for the probes, projector for the loss.

        h = encoder(inputs),   z = projector(h)

    Args:
      encoder: module from inputs, such as images [n, h, w, c], to representations
        [n, r].
      projector: module from representations [n, r] to embeddings [n, d].

    Call:
      inputs and `train` (whether to use and update the statistics of the batch) give z
      [n, d]; `model.apply(variables, inputs, method="represent")` gives h [n, r].

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, figure 2.

    >>> from jaxcl import models
    >>> model = Embedder(models.ConvEncoder(width=8), models.Projector(output=16))
    >>> images = jax.ShapeDtypeStruct((5, 8, 8, 1), "float32")
    >>> z, _ = jax.eval_shape(
    ...     lambda x: model.init_with_output(jax.random.key(0), x, train=False),
    ...     images,
    ... )
    >>> print(z.shape)
    (5, 16)
    """

    encoder: nn.Module
    projector: nn.Module

    def __call__(self, inputs: Any, *, train: bool) -> jax.Array:
        return self.projector(self.represent(inputs, train=train), train=train)

    def represent(self, inputs: Any, *, train: bool = False) -> jax.Array:
        """Representations h [n, r] of inputs: what probes read."""
        return self.encoder(inputs, train=train)
