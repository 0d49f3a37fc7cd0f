"""Models by the kind of data that they are given: images, graphs, text.

What differs between kinds is in a module of each; here is what they have in common, and
the table of them. Another kind is another module and another line of the table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl.models import of_graphs, of_images, of_text
from jaxcl.models.embedder import Embedder

# What says how to build an encoder, of any kind of data.
Described = of_images.Description | of_graphs.GraphDescription | of_text.TextDescription


class Kind(NamedTuple):
    """What is done with the descriptions of one kind.

    Attributes:
      description: their type.
      build: from a description to its model.
      example: from a description to the least that the model can be given.
      prepare: from a description and data as they are stored to what the model is
        given; refuses what does not fit.
    """

    description: type[Any]
    build: Callable[[Any], Embedder]
    example: Callable[[Any], Any]
    prepare: Callable[[Any, Any], Any]


def _of(module: Any, description: type[Any]) -> Kind:
    return Kind(description, module.build, module.example, module.prepare)


KINDS = {
    "images": _of(of_images, of_images.Description),
    "graphs": _of(of_graphs, of_graphs.GraphDescription),
    "text": _of(of_text, of_text.TextDescription),
}


def kind_of(described: Described) -> str:
    """Which kind of data a model is given.

    Args:
      described: of the model.

    Returns:
      A name of the table, "images", "graphs" or "text".

    Raises:
      TypeError: if it is no description.

    >>> kind_of(of_images.Description((8, 8, 1)))
    'images'
    """
    for name, kind in KINDS.items():
        if isinstance(described, kind.description):
            return name
    names = " or ".join(kind.description.__name__ for kind in KINDS.values())
    raise TypeError(f"described must be a {names}, got {type(described).__name__}")


def build(described: Described) -> Embedder:
    """The model of a description.

    Args:
      described: of images, of graphs or of text.

    Returns:
      A Flax module from pixels [n, h, w, c] or from a `TokenBatch` [n, L] to embeddings
      z [n, d], or from a `GraphBatch` to z [p, G, d]; its method "represent" gives h in
      place of z.

    Raises:
      ValueError: if a name is not one of those that the description lists.

    >>> images = of_images.Description((8, 8, 1), width=4, embedding=16)
    >>> build(images).projector.output
    16
    """
    return KINDS[kind_of(described)].build(described)


def initialize(described: Described, key: jax.Array) -> dict[str, Any]:
    """Variables of an untrained model, in one program that never runs the model.

    Args:
      described: of images, of graphs or of text.
      key: random key.

    Returns:
      {"params": ..., "batch_stats": ...}, on the default device; without
      "batch_stats" where nothing is batch-normalized.
    """
    model, kind = build(described), KINDS[kind_of(described)]

    def init(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, kind.example(described), train=False))

    if isinstance(key, jax.core.Tracer):  # inside `jax.eval_shape`, for instance
        return init(key)
    # Runs once, so compile it fast rather than well: a ResNet-18 in 2 s and not in 9.
    on_cpu = jax.default_backend() == "cpu"
    options: dict[str, str | bool] = (
        {"xla_backend_optimization_level": "0"} if on_cpu else {}
    )
    return jax.jit(init).lower(key).compile(compiler_options=options)(key)


def encode(described: Described, layer: str = "h") -> Callable[..., jax.Array]:
    """What an encoder makes of data as they are stored.

    Images are uint8 [n, h, w, c], which are standardized as in training,

        h = encoder((uint8 / 255 - mean) / std)

    graphs a `GraphBatch` with features, p packs of G graphs: n = p G, and sentences a
    `TokenBatch` [n, L].

    Args:
      described: of images, of graphs or of text.
      layer: "h", the encoder's output, which probes read, or "z", the projector's,
        which the loss saw.

    Returns:
      A function (variables, data) to float32 [n, r] or [n, d], with running statistics.
      Make it once: what it compiles belongs to it.

    Raises:
      ValueError: if the layer is another one; when called, if images are not uint8 or
        of another size, nodes have another number of features, or rows of tokens have
        more places than the encoder knows.
    """
    _checks.choice("layer", layer, ("h", "z"))
    model, kind = build(described), KINDS[kind_of(described)]
    method = "represent" if layer == "h" else "__call__"

    def encode(variables: Any, stored: Any) -> jax.Array:
        given = kind.prepare(described, stored)
        rows = jnp.asarray(model.apply(variables, given, train=False, method=method))
        return rows.reshape(-1, rows.shape[-1])

    return encode
