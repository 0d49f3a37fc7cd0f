"""Augmentations of graphs as data: pure functions of (key, graphs) for one pack.

`jaxcl.graphs` is another subject: the graphs that theory sees on a batch.

A transform takes and gives a `GraphBatch` without a leading axis: nodes [N, f], edges
[E, 2], valid [G]. What it takes away stays where it is and is not valid any more; no
shape changes, and what is not valid is neither counted nor drawn. `views` applies a
transform to a batch, [p, ...].

The key is an array [G], a key for each graph, or a single key that is split into G.
What happens to a graph depends on its own key and on the graph alone: not on its place,
nor on what else is in the pack. For that, every node and every edge draws from the key
of its graph, folded with its place among the graph's.

Ratios are exact: floor(ratio n), for the ratio that was written (0.3 of 10 is 3, though
the nearest float32 to 0.3 lies above, and 0.29 of 100 is 29, though the nearest float64
lies below).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import _checks
from jaxcl._graph_batch import GraphBatch
from jaxcl.augment import transforms

Transform = Callable[[jax.Array, GraphBatch], GraphBatch]


# Transforms. --------------------------------------------------------------------------


def identity(key: jax.Array, graphs: GraphBatch) -> GraphBatch:
    """Gives the graphs as they came.

    Args:
      key: ignored.
      graphs: one pack.

    Returns:
      The same graphs.
    """
    del key
    return graphs


def drop_nodes(key: jax.Array, graphs: GraphBatch, *, ratio: float = 0.2) -> GraphBatch:
    """Drops nodes, drawn uniformly, and the edges to them.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio n) of the n nodes of a graph go, but never the last one.

    Returns:
      The graphs with fewer valid nodes and edges.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.

    Source:
      GraphCL, https://arxiv.org/abs/2010.13902, section 3.2, as are edge perturbation,
      attribute masking and subgraphs.
    """
    ratio, keys = _checked(key, graphs, ratio)
    counts = _count(graphs.node_valid, graphs.node_graph, keys)
    bits = _words(keys, graphs.node_graph)[:, 0]
    lost = _share_but_one(ratio, counts, graphs)
    dropped = _smallest(bits, graphs.node_graph, graphs.node_valid, lost)
    return _with_nodes(graphs, graphs.node_valid & ~dropped)


def drop_edges(key: jax.Array, graphs: GraphBatch, *, ratio: float) -> GraphBatch:
    """Drops edges, drawn uniformly.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio m) of the m edges of a graph go.

    Returns:
      The graphs with fewer valid edges.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.

    Source:
      GRACE, https://arxiv.org/abs/2006.04131, section 3.2.
    """
    ratio, keys = _checked(key, graphs, ratio)
    bits = _words(keys, graphs.edge_graph)[:, 0]
    dropped = _share_of_edges(bits, graphs, keys, ratio)
    return graphs._replace(edge_valid=graphs.edge_valid & ~dropped)


def perturb_edges(
    key: jax.Array, graphs: GraphBatch, *, ratio: float = 0.2
) -> GraphBatch:
    """Lays edges, drawn uniformly, between other nodes.

    Each gets two new ends, drawn uniformly among the pairs of different nodes of its
    graph, whether or not these have an edge already, as in GraphCL: an edge may stand
    twice then, or come back to where it was.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio m) of the m edges of a graph are laid anew; none in a graph of
        fewer than two nodes.

    Returns:
      The graphs, with as many edges as before.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.
    """
    ratio, keys = _checked(key, graphs, ratio)
    of_choice, of_ends = jax.vmap(jax.random.split, out_axes=1)(keys)
    bits = _words(of_choice, graphs.edge_graph)[:, 0]
    first, second = _words(of_ends, graphs.edge_graph).T
    moved = _share_of_edges(bits, graphs, keys, ratio)

    counts = _count(graphs.node_valid, graphs.node_graph, keys)
    n = counts[_owner(graphs.edge_graph, keys)]
    moved &= n >= 2
    # Of 2^32 numbers some remainders come once more than others: n / 2^32 of bias.
    first = (first % jnp.maximum(n, 1).astype(jnp.uint32)).astype(jnp.int32)
    second = (second % jnp.maximum(n - 1, 1).astype(jnp.uint32)).astype(jnp.int32)
    second = jnp.where(second < first, second, second + 1)  # all nodes but the first

    # The valid nodes of the pack, one after the other: a graph's are consecutive.
    rank = jnp.cumsum(graphs.node_valid, dtype=jnp.int32) - 1
    size = len(rank)
    rank = jnp.where(graphs.node_valid, rank, size)
    places = jnp.arange(size, dtype=jnp.int32)
    nodes = jnp.zeros(size, jnp.int32).at[rank].set(places, mode="drop")
    start = (jnp.cumsum(counts) - counts)[_owner(graphs.edge_graph, keys)]
    ends = nodes[jnp.stack([start + first, start + second], axis=1)]
    return graphs._replace(edges=jnp.where(moved[:, None], ends, graphs.edges))


def mask_nodes(key: jax.Array, graphs: GraphBatch, *, ratio: float = 0.2) -> GraphBatch:
    """Sets all features of some nodes, drawn uniformly, to 0: attribute masking.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio n) of the n nodes of a graph are masked.

    Returns:
      The graphs with other features.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.
    """
    ratio, keys = _checked(key, graphs, ratio)
    counts = _count(graphs.node_valid, graphs.node_graph, keys)
    bits = _words(keys, graphs.node_graph)[:, 0]
    lost = _share(ratio, counts, graphs.node_valid)
    masked = _smallest(bits, graphs.node_graph, graphs.node_valid, lost)
    return graphs._replace(nodes=jnp.where(masked[:, None], 0, graphs.nodes))


def mask_features(key: jax.Array, graphs: GraphBatch, *, ratio: float) -> GraphBatch:
    """Sets some features, drawn uniformly for each graph, to 0 for all of its nodes.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio f) of the f features are masked.

    Returns:
      The graphs with other features.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.

    Source:
      GRACE, https://arxiv.org/abs/2006.04131, section 3.2.
    """
    ratio, keys = _checked(key, graphs, ratio)
    f = graphs.nodes.shape[1]
    lost = int(transforms.shares(ratio, f)[f])
    masked = jax.vmap(lambda key: jax.random.permutation(key, f) < lost)(keys)
    masked = masked[_owner(graphs.node_graph, keys)] & graphs.node_valid[:, None]
    return graphs._replace(nodes=jnp.where(masked, 0, graphs.nodes))


def subgraph(key: jax.Array, graphs: GraphBatch, *, ratio: float = 0.2) -> GraphBatch:
    """Keeps a connected part of each graph: the random-walk subgraph of GraphCL.

    It starts at a node drawn uniformly. Again and again, of the edges that lead out of
    what is kept one is drawn uniformly and followed. Where none leads out, it goes on
    from another node, drawn uniformly from those that are left.

    Args:
      key: random keys [G], or one.
      graphs: one pack.
      ratio: floor(ratio n) of the n nodes of a graph go, but never the last one.

    Returns:
      The graphs with fewer valid nodes and edges.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if ratio is not in [0, 1], or a shape is wrong.
    """
    ratio, keys = _checked(key, graphs, ratio)
    of_nodes, of_edges = jax.vmap(jax.random.split, out_axes=1)(keys)
    order = _words(of_nodes, graphs.node_graph)[:, 0]
    uniform = (_words(of_edges, graphs.edge_graph)[:, 0] >> 8).astype(jnp.float32)
    lengths = -jnp.log1p(-uniform / 2**24)
    counts = _count(graphs.node_valid, graphs.node_graph, keys)
    kept = counts - _share_but_one(ratio, counts, graphs)
    # Let every edge be passed after an exponential time. These have no memory: of the
    # edges that lead out, each is as likely as the others to be the next one passed.
    # So nodes are reached in the order of the walk, by shortest paths all at once.
    times = _arrival_times(order, lengths, graphs, kept)
    bits = lax.bitcast_convert_type(times, jnp.uint32)  # >= 0: in the same order
    reached = _smallest(bits, graphs.node_graph, graphs.node_valid, kept)
    return _with_nodes(graphs, reached)


def one_of(*choices: Transform) -> Transform:
    """Makes a transform that applies one of several, drawn uniformly for each graph.

    The key of a graph is split in two: the first draws, the second is what the drawn
    transform gets. That one gives the graph what it would give it alone.

    Args:
      *choices: functions (keys [G], graphs) -> graphs, of which what happens to a graph
        depends on its own key and itself alone.

    Returns:
      A function (key, graphs) -> graphs.

    Raises:
      TypeError: if a choice is not callable.
      ValueError: if there is none.
    """
    transforms.check_functions("choices", choices, "(key, graphs) -> graphs")
    if not choices:
        raise ValueError("choices must be at least one transform, got none")

    def transform(key: jax.Array, graphs: GraphBatch) -> GraphBatch:
        drawing, own = jax.vmap(jax.random.split, out_axes=1)(_keys(key, graphs))
        draw = functools.partial(jax.random.randint, shape=(), minval=0)
        drawn = jax.vmap(lambda key: draw(key, maxval=len(choices)))(drawing)
        result = graphs
        for i, choice in enumerate(choices):
            # The others are not there: loops end when the graphs that count are done.
            mine = drawn == i
            seen = _select(mine, graphs, _emptied(graphs))
            result = _select(mine, choice(own, seen), result)
        return result

    return transform


def graphcl(ratio: float = 0.2) -> Transform:
    """Makes GraphCL's draw among its four augmentations and the identity.

    Args:
      ratio: of nodes, or edges, that each of them changes.

    Returns:
      A function (key, graphs) -> graphs.

    Raises:
      TypeError: if ratio is no number.
      ValueError: if ratio is not in [0, 1].

    Source:
      GraphCL, https://arxiv.org/abs/2010.13902, section 3.2.
    """
    ratio = _checks.between("ratio", ratio, 0, 1)
    steps = (drop_nodes, subgraph, perturb_edges, mask_nodes)
    return one_of(*(functools.partial(step, ratio=ratio) for step in steps), identity)


def views(
    key: jax.Array, graphs: GraphBatch, transform: Transform, count: int = 2
) -> GraphBatch:
    """Makes several views of every graph of a batch.

    View v of graph i of the batch has the (i count + v)-th key split from `key`, where
    i = pack G + place: so the views are the same on one device and, under `jit`,
    sharded over many.

    Args:
      key: random key; the same key gives the same views.
      graphs: packs, [p, ...].
      transform: function (keys [G], graphs of one pack) -> graphs.
      count: views of each graph, >= 1.

    Returns:
      The views, [p, count, ...].

    Raises:
      TypeError: if graphs, or what transform returns, is no GraphBatch, transform is
        no function, or count no integer.
      ValueError: if graphs has no leading axis, or more than one, or count < 1.

    >>> triangle = GraphBatch(
    ...     nodes=jnp.ones((1, 3, 2)),
    ...     node_graph=jnp.zeros((1, 3), jnp.int32),
    ...     node_valid=jnp.ones((1, 3), bool),
    ...     edges=jnp.array([[[0, 1], [1, 2], [2, 0]]]),
    ...     edge_graph=jnp.zeros((1, 3), jnp.int32),
    ...     edge_valid=jnp.ones((1, 3), bool),
    ...     valid=jnp.ones((1, 1), bool),
    ... )
    >>> drop = functools.partial(drop_nodes, ratio=0.4)
    >>> two = views(jax.random.key(0), triangle, drop)
    >>> print(two.node_valid.sum(axis=2), two.edge_valid.sum(axis=2))
    [[2 2]] [[1 1]]
    """
    count = _checks.count("count", count)
    if not callable(transform):
        raise TypeError(
            "transform must be a function (keys, graphs) -> graphs, got "
            f"{type(transform).__name__}; `one_of` draws among several"
        )
    _check(graphs, "p ")
    p, size = graphs.valid.shape
    keys = jnp.moveaxis(jax.random.split(key, (p, size, count)), 2, 1)

    def checked(keys: jax.Array, pack: GraphBatch) -> GraphBatch:
        view = transform(keys, pack)
        if not isinstance(view, GraphBatch):
            raise TypeError(
                "transform must be a function (keys, graphs) -> GraphBatch, got one "
                f"that returns {type(view).__name__}"
            )
        return view

    return transforms.views_by_keys(keys, graphs, checked)


# What they are made of. ---------------------------------------------------------------


def _check(graphs: Any, leading: str = "") -> None:
    if not isinstance(graphs, GraphBatch):
        raise TypeError(f"graphs must be a GraphBatch, got {type(graphs).__name__}")
    if not leading and graphs.valid.ndim > 1:
        raise ValueError(
            "graphs must be one pack, valid [G], got valid "
            f"{list(graphs.valid.shape)}; `views` takes batches"
        )
    _checks.array("graphs.valid", graphs.valid, leading + "G")
    _checks.array("graphs.nodes", graphs.nodes, leading + "N f")


def _keys(key: jax.Array, graphs: GraphBatch) -> jax.Array:
    """A key for each graph, [G]."""
    _check(graphs)
    (size,) = graphs.valid.shape
    typed = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not typed:
        got = getattr(key, "dtype", type(key).__name__)
        raise TypeError(f"key must be random keys made by jax.random.key, got {got}")
    if key.shape not in ((), (size,)):
        raise ValueError(f"key must have shape [] or ({size},), got {key.shape}")
    return key if key.ndim else jax.random.split(key, size)


def _checked(key: jax.Array, graphs: Any, ratio: Any) -> tuple[float, jax.Array]:
    return _checks.between("ratio", ratio, 0, 1), _keys(key, graphs)


def _owner(graph: jax.Array, keys: jax.Array) -> jax.Array:
    """The graph of each node or edge; of padding, one that exists."""
    return jnp.minimum(graph, len(keys) - 1)


def _words(keys: jax.Array, graph: jax.Array) -> jax.Array:
    """Two random words for each node, or each edge, by its graph and its place there.

    They are those of the graph's key folded with the place. Such a key is a hash, so
    its words are random: drawing from it would hash once more.

    Args:
      keys: [G].
      graph: int32 [n], ascending; G for padding.

    Returns:
      uint32 [n, 2].
    """
    owner = _owner(graph, keys)
    place = jnp.arange(len(graph), dtype=jnp.int32)
    start = jax.ops.segment_min(place, graph, len(keys), indices_are_sorted=True)
    folded = jax.vmap(jax.random.fold_in)(keys[owner], place - start[owner])
    return jax.random.key_data(folded)[:, :2]


def _count(valid: jax.Array, graph: jax.Array, keys: jax.Array) -> jax.Array:
    """Valid nodes, or edges, of each graph, int32 [G]."""
    return jax.ops.segment_sum(
        valid.astype(jnp.int32), graph, len(keys), indices_are_sorted=True
    )


def _share(ratio: float, counts: jax.Array, room: jax.Array) -> jax.Array:
    """floor(ratio n) for each graph, int32 [G]."""
    return jnp.asarray(transforms.shares(ratio, len(room)))[counts]


def _share_but_one(ratio: float, counts: jax.Array, graphs: GraphBatch) -> jax.Array:
    """How many nodes may go: never the last one."""
    share = _share(ratio, counts, graphs.node_valid)
    return jnp.minimum(share, jnp.maximum(counts - 1, 0))


def _share_of_edges(
    bits: jax.Array, graphs: GraphBatch, keys: jax.Array, ratio: float
) -> jax.Array:
    """Draws floor(ratio m) of the m edges of each graph, bool [E]."""
    counts = _count(graphs.edge_valid, graphs.edge_graph, keys)
    share = _share(ratio, counts, graphs.edge_valid)
    return _smallest(bits, graphs.edge_graph, graphs.edge_valid, share)


def _smallest(
    bits: jax.Array, graph: jax.Array, valid: jax.Array, share: jax.Array
) -> jax.Array:
    """Which of the valid ones have the smallest bits, as many in each graph as said.

    Equal ones count by their place.

    Args:
      bits: uint32 [n].
      graph: ascending, int32 [n]; G for padding.
      valid: bool [n].
      share: how many, at most as many as are valid, int32 [G].

    Returns:
      bool [n].
    """
    owner = _owner(graph, share)

    def bisect(values: jax.Array, among: jax.Array, share: jax.Array) -> Any:
        """For each graph, the bound with most, but not too many, of values below it."""

        def add_digit(state: Any) -> Any:
            digit, bound, count = state
            higher = bound | digit
            more = _count(among & (values < higher[owner]), graph, share)
            fits = more <= share
            return (
                digit >> 1,
                jnp.where(fits, higher, bound),
                jnp.where(fits, more, count),
            )

        start = np.uint32(2**31), jnp.zeros_like(share, jnp.uint32), share * 0
        _, bound, count = lax.while_loop(
            lambda state: (state[0] > 0) & (state[2] != share).any(), add_digit, start
        )
        return bound[owner], count

    bound, count = bisect(bits, valid, share)
    equal = valid & (bits == bound)  # Where some are missing, they are among these.
    place = jnp.arange(len(bits), dtype=jnp.uint32)
    end, _ = bisect(place, equal, share - count)
    return (valid & (bits < bound)) | (equal & (place < end))


def _with_nodes(graphs: GraphBatch, node_valid: jax.Array) -> GraphBatch:
    """Keeps these nodes, and the edges between them."""
    both = node_valid[graphs.edges].all(axis=1)
    return graphs._replace(node_valid=node_valid, edge_valid=graphs.edge_valid & both)


def _arrival_times(
    order: jax.Array, lengths: jax.Array, graphs: GraphBatch, needed: jax.Array
) -> jax.Array:
    """When a walk that takes all ways at once reaches each node, float32 [N].

    It starts in each graph at the node that is first in `order`, and anew at the first
    of those that are left while fewer nodes than needed are reached; the rest gets
    infinity.
    """
    graph = graphs.node_graph
    owner = _owner(graph, needed)
    lengths = jnp.where(graphs.edge_valid, lengths, jnp.inf)
    one, other = graphs.edges.T

    def pass_edges(times: jax.Array) -> jax.Array:
        times = times.at[other].min(times[one] + lengths)
        return times.at[one].min(times[other] + lengths)

    def too_few(times: jax.Array) -> jax.Array:
        return _count(jnp.isfinite(times), graph, needed) < needed

    def start_anew(times: jax.Array) -> jax.Array:
        reached = jnp.isfinite(times)
        left = graphs.node_valid & ~reached
        ranks = jnp.where(left, order, np.uint32(2**32 - 1))
        first = jax.ops.segment_min(ranks, graph, len(needed), indices_are_sorted=True)
        last = jax.ops.segment_max(
            jnp.where(reached, times, 0), graph, len(needed), indices_are_sorted=True
        )
        starts = left & (ranks == first[owner]) & too_few(times)[owner]
        times = jnp.where(starts, last[owner], times)
        times, _ = lax.while_loop(
            lambda now_and_before: (now_and_before[0] != now_and_before[1]).any(),
            lambda now_and_before: (pass_edges(now_and_before[0]), now_and_before[0]),
            (pass_edges(times), times),
        )
        return times

    nowhere = jnp.full(len(graph), jnp.inf, jnp.float32)
    return lax.while_loop(lambda times: too_few(times).any(), start_anew, nowhere)


def _select(mine: jax.Array, a: GraphBatch, b: GraphBatch) -> GraphBatch:
    """The graphs of `a` where true, and else of `b`, [G]; padding is that of `b`."""
    of_nodes = mine[_owner(b.node_graph, mine)] & (b.node_graph < len(mine))
    of_edges = mine[_owner(b.edge_graph, mine)] & (b.edge_graph < len(mine))
    return GraphBatch(
        nodes=jnp.where(of_nodes[:, None], a.nodes, b.nodes),
        node_graph=b.node_graph,
        node_valid=jnp.where(of_nodes, a.node_valid, b.node_valid),
        edges=jnp.where(of_edges[:, None], a.edges, b.edges),
        edge_graph=b.edge_graph,
        edge_valid=jnp.where(of_edges, a.edge_valid, b.edge_valid),
        valid=jnp.where(mine, a.valid, b.valid),
    )


def _emptied(graphs: GraphBatch) -> GraphBatch:
    """The graphs with nothing that is valid."""
    return graphs._replace(
        node_valid=jnp.zeros_like(graphs.node_valid),
        edge_valid=jnp.zeros_like(graphs.edge_valid),
        valid=jnp.zeros_like(graphs.valid),
    )
