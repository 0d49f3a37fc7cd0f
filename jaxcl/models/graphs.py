"""Encoders of graphs: GIN and GCN, for whole graphs or for each node.

Graphs are data here, a `GraphBatch` of packs; `jaxcl.graphs` is another subject. What
is not valid in a batch changes nothing, and neither does the order of the nodes.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import _checks
from jaxcl._graph_batch import GraphBatch
from jaxcl.models import layers

Pooling = Literal["sum", "mean", "none"]
Readout = Literal["last", "concatenate"]


class GIN(nn.Module):
    """Graph isomorphism network.

        x_i <- ReLU(norm(MLP((1 + eps) x_i + sum of x_j over neighbors j)))

    with a multi-layer perceptron of two linear layers, eps learned, from 0.

    Args:
      width: units of every layer.
      depth: layers.
      pooling: what makes of the nodes a graph, "sum" or "mean"; "none" gives nodes.
      readout: what of them is pooled: the "last" layer, or all, in a row
        ("concatenate", jumping knowledge): r is width, or depth times width.
      dtype: of the computation, bfloat16 or float32. Parameters are float32.

    Call:
      A `GraphBatch` [p, ...] with features and `train` (whether to use and update the
      statistics of the batch) give h [p, G, r], or [p, N, r] of nodes, float32, 0 where
      not valid. Statistics are of the valid nodes of all packs; over a mesh that needs
      `jit` on global arrays, since devices inside `shard_map` differ in their nodes.

    Raises:
      ValueError: for a width or depth below 1, another pooling, read-out or dtype; when
        called, if arrays do not fit or nodes have no features.
      TypeError: when called, if graphs are no GraphBatch.

    Source:
      How powerful are graph neural networks?, https://arxiv.org/abs/1810.00826,
      equation 4.1; jumping knowledge as in its equation 4.2.
    """

    width: int = 32
    depth: int = 3
    pooling: Pooling = "sum"
    readout: Readout = "concatenate"
    dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, graphs: GraphBatch, *, train: bool) -> jax.Array:
        check_graphs(graphs)
        x = _features(graphs).astype(self.dtype)
        taken: list[jax.Array] = []
        for layer in range(self.depth):
            eps = self.param(f"eps_{layer}", nn.initializers.zeros, (), jnp.float32)
            x = (1 + eps).astype(self.dtype) * x + neighbor_sum(graphs, x)
            x = nn.Dense(self.width, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(_norm(self, graphs, x, train))
            x = nn.Dense(self.width, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(_norm(self, graphs, x, train))
            taken.append(x)
        return _read(self, graphs, taken)


class GCN(nn.Module):
    """Graph convolutional network.

        x <- ReLU(D^-1/2 (A + 1) D^-1/2 norm(x) W + b)

    with the adjacency A of the edges and the degrees D of A + 1.

    Args:
      width: units of every layer.
      depth: convolutions.
      pooling: as in `GIN`.
      readout: as in `GIN`.
      norm: whether x is batch-normalized before each convolution.
      first: whether a normalized linear layer with ReLU comes before the convolutions.
      dtype: of the computation, bfloat16 or float32. Parameters are float32.

    Call:
      As `GIN`.

    Raises:
      TypeError, ValueError: as `GIN`.

    Source:
      Semi-supervised classification with graph convolutional networks,
      https://arxiv.org/abs/1609.02907, equation 2. The authors of SC-InfoNCE have
      width 128, depth 3, "sum", "last", norm and first; GRACE's for Cora
      (https://arxiv.org/abs/2006.04131) has depth 2, neither norm nor first.
    """

    width: int = 128
    depth: int = 3
    pooling: Pooling = "sum"
    readout: Readout = "last"
    norm: bool = True
    first: bool = True
    dtype: jax.typing.DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, graphs: GraphBatch, *, train: bool) -> jax.Array:
        check_graphs(graphs)
        x = _features(graphs).astype(self.dtype)
        options: dict[str, Any] = {"dtype": self.dtype}
        if self.first:
            x = _norm(self, graphs, x, train)
            x = nn.relu(nn.Dense(self.width, **options)(x))
        taken: list[jax.Array] = []
        for _ in range(self.depth):
            if self.norm:
                x = _norm(self, graphs, x, train)
            # Narrower than the features of some sets: first the product, then the sum.
            x = nn.Dense(self.width, use_bias=False, **options)(x)
            x = smoothed(graphs, x)
            bias = self.param(
                f"bias_{len(taken)}", nn.initializers.zeros, (self.width,), jnp.float32
            )
            x = nn.relu(x + bias.astype(self.dtype)[None, None])
            taken.append(x)
        return _read(self, graphs, taken)


def neighbor_sum(graphs: GraphBatch, x: jax.Array) -> jax.Array:
    """The sum of what the neighbors of each node hold, over valid edges.

        y_i = sum_{j: i - j is an edge} x_j

    Args:
      graphs: edges [p, E, 2].
      x: a row for each node, [p, N, c].

    Returns:
      [p, N, c], summed in float32.

    >>> two = GraphBatch(*(jnp.asarray(a)[None] for a in (
    ...     [[1.0], [2.0]], [0, 0], [True, True], [[0, 1]], [0], [True], [True])))
    >>> print(neighbor_sum(two, two.nodes).tolist())
    [[[2.0], [1.0]]]
    """
    n = x.shape[1]

    def of_pack(x: jax.Array, edges: jax.Array, valid: jax.Array) -> jax.Array:
        source = jnp.concatenate([edges[:, 0], edges[:, 1]])
        target = jnp.concatenate([edges[:, 1], edges[:, 0]])
        target = jnp.where(jnp.concatenate([valid, valid]), target, n)  # n is dropped
        return jax.ops.segment_sum(x[source], target, n)

    summed = jax.vmap(of_pack)(x.astype(jnp.float32), graphs.edges, graphs.edge_valid)
    return summed.astype(x.dtype)


def smoothed(graphs: GraphBatch, x: jax.Array) -> jax.Array:
    """The mean of a node and its neighbors, as graph convolutions weigh them.

        y = D^-1/2 (A + 1) D^-1/2 x

    with the adjacency A of the valid edges and the degrees D of A + 1.

    Args:
      graphs: edges [p, E, 2].
      x: a row for each node, [p, N, c].

    Returns:
      [p, N, c], in the dtype of x.
    """
    ones = jnp.ones((*x.shape[:2], 1), jnp.float32)
    scale = jax.lax.rsqrt(1 + neighbor_sum(graphs, ones)).astype(x.dtype)
    x = scale * x
    return scale * (x + neighbor_sum(graphs, x))


def pool(graphs: GraphBatch, x: jax.Array, kind: Pooling) -> jax.Array:
    """What the valid nodes of each graph hold, in one row.

    Args:
      graphs: the graph of each node, [p, N].
      x: a row for each node, [p, N, c].
      kind: "sum"; "mean", which is 0 for a graph without valid nodes; or "none", the
        rows of nodes, 0 where not valid.

    Returns:
      float32 [p, G, c], or [p, N, c] for "none".

    Raises:
      ValueError: for another kind.
    """
    _checks.choice("pooling", kind, ("sum", "mean", "none"))
    kept = graphs.node_valid[..., None]
    x = jnp.where(kept, x.astype(jnp.float32), 0)
    if kind == "none":
        return x
    g = graphs.valid.shape[1]

    def summed(x: jax.Array, graph: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(x, graph, g, indices_are_sorted=True)

    total = jax.vmap(summed)(x, graphs.node_graph)
    if kind == "sum":
        return total
    count = jax.vmap(summed)(kept.astype(jnp.float32), graphs.node_graph)
    return total / jnp.maximum(count, 1)


def by_graph(z: jax.Array) -> jax.Array:
    """Embeddings of views of packs, as losses take them.

    Args:
      z: [p, v, G, d], what `training.apply_views` gives for views of a `GraphBatch`.

    Returns:
      [b, v, d] with b = p G, in the order of the batch.

    >>> print(by_graph(jnp.zeros((2, 3, 5, 4))).shape)
    (10, 3, 4)
    """
    _checks.array("z", z, "p v G d")
    p, v, g, d = z.shape
    return jnp.swapaxes(z, 1, 2).reshape(p * g, v, d)


def check_graphs(graphs: Any) -> None:
    """Checks what every encoder of graphs is given.

    Args:
      graphs: the argument.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is no GraphBatch, or its features are not floating.
      ValueError: if the arrays of packs do not fit each other, or have no features.
    """
    if not isinstance(graphs, GraphBatch):
        raise TypeError(
            "graphs must be a jaxcl.data.graphs.GraphBatch, got "
            f"{type(graphs).__name__}"
        )
    _checks.array("graphs.nodes", graphs.nodes, "p N f")
    if not jnp.issubdtype(graphs.nodes.dtype, jnp.floating):
        raise TypeError(f"graphs.nodes must be floating, got {graphs.nodes.dtype}")
    p, n, f = graphs.nodes.shape
    if not f:
        raise ValueError(
            "graphs.nodes must have features, got none; data.graphs.with_features "
            "makes them of labels or degrees"
        )
    e, g = graphs.edge_valid.shape[-1], graphs.valid.shape[-1]
    for name, shape in (
        ("node_graph", (p, n)),
        ("node_valid", (p, n)),
        ("edges", (p, e, 2)),
        ("edge_graph", (p, e)),
        ("edge_valid", (p, e)),
        ("valid", (p, g)),
    ):
        got = getattr(graphs, name).shape
        if got != shape:
            raise ValueError(f"graphs.{name} must be {list(shape)}, got {list(got)}")


def _check(encoder: Any) -> None:
    _checks.count("width", encoder.width)
    _checks.count("depth", encoder.depth)
    _checks.choice("pooling", encoder.pooling, ("sum", "mean", "none"))
    _checks.choice("readout", encoder.readout, ("last", "concatenate"))
    _checks.dtype("dtype", encoder.dtype, layers.COMPUTE_DTYPES)


def _features(graphs: GraphBatch) -> jax.Array:
    """What is not valid may hold NaN, of which a derivative would make more."""
    return jnp.where(graphs.node_valid[..., None], graphs.nodes, 0)


def _norm(encoder: Any, graphs: GraphBatch, x: jax.Array, train: bool) -> jax.Array:
    return layers.batch_norm(
        x,
        train=train,
        dtype=encoder.dtype,
        mask=graphs.node_valid[..., None],
    )


def _read(encoder: Any, graphs: GraphBatch, taken: list[jax.Array]) -> jax.Array:
    last = taken[-1]
    x = last if encoder.readout == "last" else jnp.concatenate(taken, axis=-1)
    return pool(graphs, x, encoder.pooling)
