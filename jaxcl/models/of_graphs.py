"""Encoders of graphs, in words that JSON can hold."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxcl import _checks
from jaxcl._graph_batch import GraphBatch
from jaxcl.models import graphs as graphs_lib
from jaxcl.models.embedder import Embedder
from jaxcl.models.small import Projector


class GraphDescription(NamedTuple):
    """What a model of whole graphs is, and what it is given.

    Attributes:
      features: what nodes are described by, side by side, such as ("labels", "degree");
        names of `data.graphs.FEATURES`.
      columns: how many columns each of them has; f is their sum.
      labels: values of node labels in the source, one for each of their columns.
      encoder: "gin" or "gcn".
      width: units of each layer.
      depth: layers.
      pooling: what makes of nodes a graph, "sum" or "mean".
      readout: which layers are pooled, "last" or "concatenate".
      dtype: in which the model computes, "float32" or "bfloat16".
      embedding: size d of the projector's output.
      projector: "normalized" with batch normalization inside, or "plain" without.
    """

    features: tuple[str, ...]
    columns: tuple[int, ...]
    labels: tuple[int, ...] = ()
    encoder: str = "gin"
    width: int = 32
    depth: int = 3
    pooling: str = "sum"
    readout: str = "concatenate"
    dtype: str = "float32"
    embedding: int = 128
    projector: str = "plain"


def build(described: GraphDescription) -> Embedder:
    """From a `GraphBatch` of packs [p, ...] to embeddings z [p, G, d]."""
    if not described.columns or len(described.columns) != len(described.features):
        raise ValueError(
            f"columns must be a count for each of features {described.features}, got "
            f"{described.columns}"
        )
    _checks.choice("encoder", described.encoder, ("gin", "gcn"))
    _checks.choice("pooling", described.pooling, ("sum", "mean"))
    _checks.choice("projector", described.projector, ("normalized", "plain"))
    make = graphs_lib.GIN if described.encoder == "gin" else graphs_lib.GCN
    dtype = jnp.dtype(described.dtype)
    encoder = make(
        width=described.width,
        depth=described.depth,
        pooling=described.pooling,  # type: ignore[arg-type]
        readout=described.readout,  # type: ignore[arg-type]
        dtype=dtype,
    )
    projector = Projector(
        described.embedding, batch_norm=described.projector == "normalized", dtype=dtype
    )
    return Embedder(encoder, projector)


def example(described: GraphDescription) -> GraphBatch:
    """The least that the model can be given, for the shapes of its parameters."""
    nodes = jnp.zeros((1, 1, sum(described.columns)), jnp.float32)
    one, there = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    edges = jnp.zeros((1, 1, 2), jnp.int32)
    return GraphBatch(nodes, one, there, edges, one, there, there)


def prepare(described: GraphDescription, graphs: GraphBatch) -> GraphBatch:
    """Graphs as `data.graphs` packs them, once they are known to fit the model."""
    graphs_lib.check_graphs(graphs)
    got, expected = graphs.nodes.shape[-1], sum(described.columns)
    if got != expected:
        parts = zip(described.columns, described.features, strict=True)
        raise ValueError(
            f"graphs.nodes must have the {expected} features of the graphs that the "
            "encoder learned from, "
            + " and ".join(f"{count} of {kind}" for count, kind in parts)
            + f", got {got}; data.graphs.with_same_features makes them"
        )
    return graphs
