"""What is packed is what was there, in room that was known before."""

import functools
import re

import jax
import numpy as np
import pytest

import jaxcl
from jaxcl import data, evaluation
from jaxcl.data.graphs import sets
from tests.data.graphs import made

SIZES = [3, 7, 1, 5, 2, 9, 4, 1, 6, 3, 8, 2, 5, 4, 3, 6, 2, 7]


@functools.cache
def ragged():
    """Eighteen graphs, some without edges."""
    with pytest.warns(UserWarning, match="graphs have no edges"):
        graphs = made.random_graphs(SIZES)
    return sets.labelled("random", graphs, np.arange(len(SIZES)) % 3)


def naive(graphs, index, per_pack, nodes, edges):
    """A batch as it is defined, one node and one edge at a time."""
    packs, f = len(index) // per_pack, graphs.nodes.shape[1]
    x = np.zeros((packs, nodes, f), np.float32)
    of = np.full((packs, nodes), per_pack)
    ends = np.zeros((packs, edges, 2), int)
    of_edge = np.full((packs, edges), per_pack)
    whole = made.by_graph(graphs)
    for p in range(packs):
        n = m = 0
        for place in range(per_pack):
            rows, pairs = whole[index[p * per_pack + place]]
            for a, b in pairs:
                ends[p, m], of_edge[p, m] = (a + n, b + n), place
                m += 1
            for row in rows:
                x[p, n], of[p, n] = row, place
                n += 1
    there = np.ones((packs, per_pack), bool)
    return x, of, of < per_pack, ends, of_edge, of_edge < per_pack, there


def assert_same(batch, expected):
    for name, a, b in zip(batch._fields, batch, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("per_pack", "packs"), [(1, 1), (1, 5), (3, 4), (18, 1)])
def test_what_comes_out_is_what_went_in(per_pack, packs):
    graphs = data.graphs.graphs_of(ragged())
    column = data.graphs.Packed(graphs, per_pack, nodes=80, edges=150)
    index = np.random.default_rng(0).permutation(18)[: per_pack * packs]
    batch = column[index]
    assert_same(batch, naive(graphs, index, per_pack, 80, 150))
    dtypes = [np.float32, np.int32, bool, np.int32, np.int32, bool, bool]
    assert [x.dtype for x in batch] == dtypes


def test_a_graph_may_come_twice_and_none_may_have_edges():
    with pytest.warns(UserWarning, match="3 of 3 graphs have no edges"):
        lonely = made.random_graphs([2, 1, 3], density=0)
    packed = data.graphs.pack_batches(sets.labelled("x", lonely, [0, 1, 2]), [[0, 2]])
    column = packed.columns["graph"]
    assert (column.nodes, column.edges) == (8, 8)
    index = np.array([2, 2])
    assert_same(column[index], naive(lonely, index, 2, 8, 8))
    none = data.graphs.Packed(lonely, 2, nodes=6, edges=0)[index]
    assert none.edges.shape == (1, 0, 2)


@pytest.mark.parametrize(
    ("batch_size", "packs", "seed"), [(6, 2, 0), (18, 3, 1), (5, 5, 7)]
)
def test_the_room_holds_every_batch_and_is_at_most_a_sixteenth_above(
    batch_size, packs, seed
):
    epochs, most = 7, np.zeros(2, int)
    packed = data.graphs.pack(
        ragged(), batch_size, seed=seed, epochs=epochs, packs=packs
    )
    column, batches = packed.columns["graph"], data.batches(packed, batch_size, seed)
    for step in range(epochs * (len(SIZES) // batch_size)):
        batch = batches(step)["graph"]
        assert batch.nodes.shape == (packs, column.nodes, 3)
        assert batch.edges.shape == (packs, column.edges, 2)
        used = [v.sum(axis=1).max() for v in (batch.node_valid, batch.edge_valid)]
        most = np.maximum(most, used)
    for room, fullest in zip((column.nodes, column.edges), most, strict=True):
        assert room >= fullest
        assert room % 8 == 0
        assert room - fullest < 8 or room <= fullest * (1 + 1 / 16)


def test_room_of_real_sizes_is_at_most_a_sixteenth_above():
    # 128 cliques of 9 nodes, 36 edges: 1152 nodes and 4608 edges, and one clique more.
    a, b = np.triu_indices(9, 1)
    edges = np.concatenate([np.stack([a, b], 1) + 9 * i for i in range(130)])
    graphs = sets.from_edges("cliques", np.repeat(np.arange(130), 9), edges)
    dataset = sets.labelled("cliques", graphs, np.arange(130) % 2)
    packed = data.graphs.pack(dataset, 129, seed=0, epochs=1)
    column = packed.columns["graph"]
    assert (column.nodes, column.edges) == (1216, 4864)  # of 1161 and 4644
    assert data.graphs.about(packed) == (
        "cliques: 130 graphs of 9.0 nodes and 36.0 edges on average; a pack of 129 has "
        "room for 1,216 nodes and 4,864 edges, of which 95 % and 95 % are used"
    )


def test_a_batch_depends_on_seed_and_step_alone():
    pack = functools.partial(data.graphs.pack, ragged(), 6, epochs=3, packs=2)
    first, again = (data.batches(pack(seed=5), 6, 5) for _ in range(2))
    order = [first(step) for step in range(9)]
    for step in (8, 2, 5, 0):
        assert_same(again(step)["graph"], order[step]["graph"])
    labels = data.batches(ragged()._replace(columns={"label": np.arange(18)}), 6, 5)
    graphs = data.graphs.graphs_of(ragged())
    for step, batch in enumerate(order):
        index = labels(step)["label"]
        np.testing.assert_array_equal(batch["index"], index)
        room = batch["graph"].node_graph.shape[1], batch["graph"].edges.shape[1]
        assert_same(batch["graph"], naive(graphs, index, 3, *room))
    other = data.batches(pack(seed=6), 6, 6)(0)
    assert other["index"].tolist() != order[0]["index"].tolist()


def test_parts_of_processes_put_together_are_the_whole():
    packed = data.graphs.pack(ragged(), 12, seed=0, epochs=2, packs=4)
    whole = data.batches(packed, 12, 0)
    parts = [
        data.batches(packed, 12, 0, process_index=i, process_count=2) for i in range(2)
    ]
    for step in range(2):
        halves = [part(step) for part in parts]
        assert halves[0]["graph"].valid.shape == (2, 3)
        together = jax.tree.map(lambda *x: np.concatenate(x), *halves)
        jax.tree.map(np.testing.assert_array_equal, together, whole(step))
    odd = data.graphs.pack(ragged(), 12, seed=0, epochs=1, packs=3)
    part = data.batches(odd, 12, 0, process_index=0, process_count=2)
    with pytest.raises(ValueError, match="whole packs of 4 graphs, got 6"):
        part(0)


def test_one_program_serves_all_batches():
    packed = data.graphs.pack(ragged(), 6, seed=0, epochs=4, packs=2)
    feed, traced = data.batches(packed, 6, 0), []

    @jax.jit
    def nodes(batch):
        traced.append(batch)
        return batch["graph"].node_valid.sum()

    found = [int(nodes(feed(step))) for step in range(12)]
    assert len(traced) == 1
    assert [sum(found[3 * e : 3 * e + 3]) for e in range(4)] == [sum(SIZES)] * 4


def test_a_slice_of_the_set_is_packed_as_it_is():
    part = data.dataset.take(ragged(), np.array([5, 2, 9, 9]))
    packed = data.graphs.pack_in_order(part, 2)
    batch = packed.columns["graph"][np.array([1, 2])]
    assert batch.node_valid.sum() == SIZES[2] + SIZES[9]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 17, 18, 100])
def test_graphs_in_order_are_represented_in_batches_of_any_size(batch_size):
    def encode(graphs):
        (nodes,) = graphs.node_graph
        size = jax.ops.segment_sum(graphs.nodes[0], nodes, graphs.valid.shape[1])
        return size

    packed = data.graphs.pack_in_order(ragged(), batch_size)
    h = evaluation.represent(encode, packed.columns["graph"], batch_size)
    graphs = data.graphs.graphs_of(ragged())
    expected = [x.astype(np.float64).sum(axis=0) for x, _ in made.by_graph(graphs)]
    np.testing.assert_allclose(h, expected, atol=1e-5)


def test_the_feed_gives_the_same_on_the_mesh():
    dataset = data.dataset.take(ragged(), np.arange(36) % 18)
    packed = data.graphs.pack(dataset, 16, seed=2, epochs=2, packs=8)
    _, rows, _ = jaxcl.data_parallel()
    host, feed = data.batches(packed, 16, 2), data.feed(packed, 16, 2, rows)
    for step in (0, 1, 3):
        on_mesh = feed(step)
        assert on_mesh["graph"].edges.sharding == rows
        jax.tree.map(np.testing.assert_array_equal, on_mesh, host(step))
    with pytest.raises(ValueError, match="on_device must not be True for random"):
        data.feed(packed, 16, 2, rows, on_device=True)
    assert data.to_memory(packed) is packed


def test_room_that_is_too_small_is_refused_with_what_would_fit():
    pack = functools.partial(data.graphs.pack, ragged(), 6, seed=0, epochs=3, packs=2)
    column = pack().columns["graph"]
    drawn = data.batches(pack(), 6, 0)
    fullest = max(
        int(drawn(step)["graph"].node_valid.sum(axis=1).max()) for step in range(9)
    )
    assert pack(nodes=fullest).columns["graph"].nodes == fullest
    for nodes in (8, fullest - 1):  # less than the largest graph; than a batch
        said = (
            f"nodes must be at least {fullest}, what the fullest pack of 3 graphs has "
            f"(the largest graph has 9), got {nodes}; smaller batches need less"
        )
        with pytest.raises(ValueError, match=re.escape(said)):
            pack(nodes=nodes)
    with pytest.raises(ValueError, match=r"edges must be at least \d+, what .*got 0"):
        pack(edges=0)
    with pytest.raises(TypeError, match="nodes must be an integer"):
        pack(nodes=50.0)
    with pytest.raises(ValueError, match="fit into memory, got 1,000,000,000,000 and"):
        pack(nodes=10**12)
    assert pack(edges=column.edges + 1).columns["graph"].edges == column.edges + 1
    graphs = data.graphs.graphs_of(ragged())
    with pytest.raises(ValueError, match="the largest graph, 9 of graph 5, got 8"):
        data.graphs.Packed(graphs, 1, nodes=8, edges=99)
    with pytest.raises(ValueError, match="nodes must be at least 16, what 2 graphs of"):
        data.graphs.Packed(graphs, 2, nodes=15, edges=99)[np.array([1, 5])]


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="batch_size must be divisible by the 4 packs"):
        data.graphs.pack(ragged(), 6, seed=0, epochs=1, packs=4)
    with pytest.raises(ValueError, match="at most the 18 graphs of random, got 20"):
        data.graphs.pack(ragged(), 20, seed=0, epochs=1)
    with pytest.raises(ValueError, match=r"of one size, got sizes \[1, 2\]"):
        data.graphs.pack_batches(ragged(), [[0, 1], [2]])
    with pytest.raises(ValueError, match="of one size"):
        data.graphs.pack_batches(ragged(), [])
    packed = data.graphs.pack_in_order(ragged(), 2)
    with pytest.raises(ValueError, match="must hold graphs that are not packed yet"):
        data.graphs.pack_in_order(packed, 2)
    with pytest.raises(ValueError, match="batch_size must be"):
        data.graphs.pack_in_order(ragged(), 0)
