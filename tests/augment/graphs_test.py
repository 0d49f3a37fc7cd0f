"""Augmentations of packs of graphs, against their definitions.

Every test looks at one pack of the same shapes under many keys: each transform is
compiled once.
"""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxcl import augment
from jaxcl._graph_batch import GraphBatch
from tests.augment import graph_oracles as oracles

G, N, E, F = 9, 64, 72, 5
DRAWS = 2000
KEY = jax.random.key(3)

ratio = functools.partial
TRANSFORMS = {
    "drop_nodes": ratio(augment.graphs.drop_nodes, ratio=0.4),
    "drop_edges": ratio(augment.graphs.drop_edges, ratio=0.4),
    "perturb_edges": ratio(augment.graphs.perturb_edges, ratio=0.4),
    "mask_nodes": ratio(augment.graphs.mask_nodes, ratio=0.4),
    "mask_features": ratio(augment.graphs.mask_features, ratio=0.4),
    "subgraph": ratio(augment.graphs.subgraph, ratio=0.4),
    "graphcl": augment.graphs.graphcl(0.4),
}
ALL = pytest.mark.parametrize("name", TRANSFORMS)


def graph(nodes, edges, gone=(), gone_edges=()):
    """A graph by its number of nodes and its edges, and what is not valid of them."""
    edges = np.array(list(edges), int).reshape(-1, 2)
    node_valid = np.isin(np.arange(nodes), gone, invert=True)
    edge_valid = oracles.edges_between(edges, np.ones(len(edges), bool), node_valid)
    edge_valid = edge_valid & ~np.isin(np.arange(len(edges)), gone_edges)
    return {"edges": edges, "node_valid": node_valid, "edge_valid": edge_valid}


def some_graphs():
    rng = np.random.default_rng(0)
    pairs = np.array(list(itertools.combinations(range(13), 2)))
    path = [(i, i + 1) for i in range(8)]
    square = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
    return [
        graph(5, itertools.combinations(range(5), 2)),  # whose draws are counted
        graph(1, []),
        graph(9, path, gone=(8,)),
        graph(7, [*square, (4, 5), (5, 6)]),  # of two components
        graph(4, []),
        graph(13, pairs[rng.permutation(len(pairs))[:26]], (2, 7), (3, 4)),
        graph(2, [(1, 0)]),
        graph(8, [*square, (0, 1), (1, 6), (6, 7), (4, 5)], (7,), (4,)),
    ]


def pack(graphs, seed=0):
    """One pack; what is not valid holds what would be seen if it counted."""
    rng = np.random.default_rng(seed)
    nodes = rng.normal(size=(N, F)).astype(np.float32)
    node_graph, edge_graph = np.full(N, G, np.int32), np.full(E, G, np.int32)
    node_valid, edge_valid = np.zeros(N, bool), np.zeros(E, bool)
    edges = rng.integers(-3, 2 * N, (E, 2)).astype(np.int32)
    n = m = 0
    for place, one in enumerate(graphs):
        own = slice(n, n + len(one["node_valid"]))
        node_graph[own], node_valid[own] = place, one["node_valid"]
        nodes[own] = np.random.default_rng(len(one["node_valid"])).normal(
            size=nodes[own].shape
        )
        own = slice(m, m + len(one["edges"]))
        edge_graph[own], edge_valid[own] = place, one["edge_valid"]
        edges[own] = one["edges"] + n
        n, m = n + len(one["node_valid"]), m + len(one["edges"])
    nodes[~node_valid] = np.nan
    edges[edge_graph == G] = rng.integers(-3, 2 * N, edges[edge_graph == G].shape)
    valid = np.arange(G) < len(graphs)
    return GraphBatch(
        nodes, node_graph, node_valid, edges, edge_graph, edge_valid, valid
    )


GRAPHS = some_graphs()
PACK = pack(GRAPHS)


@functools.cache
def keys():
    return jax.random.split(KEY, (DRAWS, G))


@functools.cache
def compiled(name):
    return jax.jit(jax.vmap(TRANSFORMS[name], (0, None)))


@functools.cache
def draws(name):
    """What a transform gives under each of many keys, in NumPy."""
    return jax.tree.map(np.asarray, compiled(name)(keys(), PACK))


def one(result, g):
    """A graph of many results, numbered from 0: all that can be seen of it."""
    own, edges = result.node_graph[0] == g, result.edge_graph[0] == g
    start = np.argmax(own)
    valid = result.edge_valid[:, edges]
    ends = np.where(valid[..., None], result.edges[:, edges] - start, -1)
    return {
        "nodes": np.where(result.node_valid[:, own, None], result.nodes[:, own], 0),
        "node_valid": result.node_valid[:, own],
        "edges": ends,
        "edge_valid": valid,
    }


def counts(valid, owner):
    """Of nodes or edges of each graph [..., G]."""
    return np.stack([valid[..., owner == g].sum(-1) for g in range(G)], axis=-1)


def some(sizes):
    """The share of each that the transforms of this file take."""
    return np.array([oracles.share("0.4", size) for size in sizes])


def p_value(seen, probabilities):
    """Of Pearson's test that outcomes have these probabilities."""
    seen = collections.Counter(seen)
    assert seen.keys() <= probabilities.keys()
    expected = np.array(list(probabilities.values())) * seen.total()
    return scipy.stats.chisquare([seen[x] for x in probabilities], expected).pvalue


def uniform(outcomes):
    outcomes = list(outcomes)
    return dict.fromkeys(outcomes, 1 / len(outcomes))


def sets(chosen):
    """Rows of booleans [k, n] as tuples of places."""
    return [tuple(np.flatnonzero(row).tolist()) for row in chosen]


# Laws of all. -------------------------------------------------------------------------


@ALL
def test_nothing_comes_back_and_no_edge_leads_to_a_node_that_is_gone(name):
    result = draws(name)
    assert not (result.node_valid & ~PACK.node_valid).any()
    assert not (result.edge_valid & ~PACK.edge_valid).any()
    for field in ("node_graph", "edge_graph", "valid"):
        expected = np.broadcast_to(
            getattr(PACK, field), (DRAWS, len(getattr(PACK, field)))
        )
        np.testing.assert_array_equal(getattr(result, field), expected)
    for k, e in zip(*np.nonzero(result.edge_valid), strict=True):
        i, j = result.edges[k, e]
        assert result.node_valid[k, i]
        assert result.node_valid[k, j]
        assert PACK.node_graph[i] == PACK.node_graph[j] == PACK.edge_graph[e]
    assert np.isfinite(result.nodes[result.node_valid]).all()


@ALL
def test_a_graph_does_not_depend_on_the_others_nor_on_its_place(name):
    whole = draws(name)
    order = np.random.default_rng(1).permutation(len(GRAPHS))
    padded = np.append(order, np.arange(len(GRAPHS), G))
    other = pack([GRAPHS[g] for g in order], seed=1)
    permuted = compiled(name)(keys()[:, padded], other)
    permuted = jax.tree.map(np.asarray, permuted)
    for place, g in enumerate(order):
        jax.tree.map(np.testing.assert_array_equal, one(permuted, place), one(whole, g))
    for g in (0, 5, 7):
        alone = compiled(name)(jnp.roll(keys(), -g, axis=1), pack([GRAPHS[g]], seed=2))
        alone = one(jax.tree.map(np.asarray, alone), 0)
        jax.tree.map(np.testing.assert_array_equal, alone, one(whole, g))


def test_one_key_is_split_into_one_for_each_graph():
    transform = jax.jit(TRANSFORMS["mask_nodes"])
    single, several = transform(KEY, PACK), transform(jax.random.split(KEY, G), PACK)
    jax.tree.map(np.testing.assert_array_equal, single, several)


@ALL
def test_dtypes_stay_where_jax_is_set_to_64_bits(name, x64):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PACK)
    result = jax.eval_shape(TRANSFORMS[name], jax.random.key(0), shapes)
    for x, expected in zip(result, shapes, strict=True):
        assert (x.shape, x.dtype) == (expected.shape, expected.dtype)


# How many. ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["0", "0.1", "0.2", "0.29", "0.3", "1/3", "0.57", "0.7", "2/3", "0.999", "1"],
)
def test_shares_are_exact(written):
    numerator, _, denominator = written.partition("/")
    value = float(numerator) / float(denominator or 1)
    got = augment.transforms.shares(value, 5000)
    np.testing.assert_array_equal(got, [oracles.share(written, n) for n in range(5001)])


def test_ratios_are_exact_of_what_is_valid():
    n = counts(PACK.node_valid, PACK.node_graph)
    m = counts(PACK.edge_valid, PACK.edge_graph)
    for name in ("drop_nodes", "subgraph"):
        left = counts(draws(name).node_valid, PACK.node_graph)
        assert (left == n - some(n)).all()
    left = counts(draws("drop_edges").edge_valid, PACK.edge_graph)
    assert (left == m - some(m)).all()
    masked = (draws("mask_nodes").nodes == 0).all(axis=2)
    assert (counts(masked, PACK.node_graph) == some(n)).all()
    masked = (draws("mask_features").nodes == 0).sum(axis=2)
    assert (masked[:, PACK.node_valid] == oracles.share("0.4", F)).all()
    assert (masked[:, ~PACK.node_valid] == 0).all()


@pytest.mark.parametrize("name", ["drop_nodes", "subgraph"])
def test_the_last_node_stays(name):
    transform = jax.jit(functools.partial(getattr(augment.graphs, name), ratio=1))
    left = counts(transform(KEY, PACK).node_valid, PACK.node_graph)
    np.testing.assert_array_equal(left, [1] * len(GRAPHS) + [0])


def test_all_edges_may_go_and_all_features_be_masked():
    def run(transform):
        return jax.jit(functools.partial(transform, ratio=1))(KEY, PACK)

    assert not run(augment.graphs.drop_edges).edge_valid.any()
    for mask in (augment.graphs.mask_nodes, augment.graphs.mask_features):
        nodes = run(mask).nodes
        assert (nodes[PACK.node_valid] == 0).all()
        assert np.isnan(nodes[~PACK.node_valid]).all()


@pytest.mark.parametrize("distinct", [2, 7, 2**32])
def test_the_smallest_of_each_graph_are_found(distinct):
    rng = np.random.default_rng(0)
    graph, valid = PACK.node_graph, PACK.node_valid
    most = counts(valid, graph)
    find = jax.jit(augment.graphs._smallest)
    for _ in range(20):
        bits = rng.integers(0, distinct, N, np.uint32) * np.uint32(2**32 // distinct)
        share = rng.integers(0, most + 1, dtype=np.int32)
        np.testing.assert_array_equal(
            find(bits, graph, valid, share),
            oracles.smallest(bits, graph, valid, share),
        )


# What is done to whom. ----------------------------------------------------------------


def test_nodes_are_dropped_uniformly_with_their_edges_and_with_nothing_else():
    result = draws("drop_nodes")
    dropped = PACK.node_valid & ~result.node_valid
    expected = uniform(itertools.combinations(range(5), 2))
    assert p_value(sets(dropped[:, :5]), expected) > 0.01
    for k in range(20):
        np.testing.assert_array_equal(
            result.edge_valid[k],
            oracles.edges_between(PACK.edges, PACK.edge_valid, result.node_valid[k]),
        )
        np.testing.assert_array_equal(result.nodes[k], PACK.nodes)
        np.testing.assert_array_equal(result.edges[k], PACK.edges)


def test_edges_are_dropped_uniformly_and_nothing_else():
    result = draws("drop_edges")
    dropped = PACK.edge_valid & ~result.edge_valid
    expected = uniform(itertools.combinations(range(10), 4))
    assert p_value(sets(dropped[:, :10]), expected) > 0.01
    for k in range(20):
        np.testing.assert_array_equal(result.nodes[k], PACK.nodes)
        np.testing.assert_array_equal(result.edges[k], PACK.edges)
        np.testing.assert_array_equal(result.node_valid[k], PACK.node_valid)


def test_edges_are_perturbed_uniformly_and_nothing_else():
    result = draws("perturb_edges")
    changed = (result.edges != PACK.edges).any(axis=2)
    # At most as many as the ratio says: some come back to where they were.
    m = counts(PACK.edge_valid, PACK.edge_graph)
    moved = counts(changed, PACK.edge_graph)
    assert (moved <= some(m)).all()
    assert (moved.max(axis=0) == some(m)).all()
    # 4 of the 10 edges of a complete graph get one of its 10 pairs, in some order: at
    # each edge, 6 of 10 keep theirs, and the others are at one of 20 ordered pairs.
    pairs = dict.fromkeys(itertools.permutations(range(5), 2), 0.4 / 20)
    for e in (0, 3, 9):
        there = tuple(PACK.edges[e].tolist())
        seen = map(tuple, result.edges[:, e].tolist())
        assert p_value(seen, {**pairs, there: pairs[there] + 0.6}) > 0.01
    # Which edges, from those that moved to a pair the other way around.
    flipped = (result.edges[:, :10, 0] > result.edges[:, :10, 1]).sum(axis=1)
    binomial = scipy.stats.binom(4, 0.5).pmf(range(5))
    assert p_value(flipped.tolist(), dict(enumerate(binomial))) > 0.01
    for k in range(20):
        np.testing.assert_array_equal(result.nodes[k], PACK.nodes)
        np.testing.assert_array_equal(result.node_valid[k], PACK.node_valid)
        np.testing.assert_array_equal(result.edge_valid[k], PACK.edge_valid)


def test_ends_are_drawn_among_the_valid_nodes_alone():
    valid = GRAPHS[7]["node_valid"]
    ends = one(draws("perturb_edges"), 7)["edges"][:, GRAPHS[7]["edge_valid"]]
    assert set(np.unique(ends)) == set(np.flatnonzero(valid))
    assert (ends[..., 0] != ends[..., 1]).all()


def test_an_edge_of_a_graph_with_one_node_left_stays_as_it_is():
    loop = pack([graph(2, [(0, 0)], gone=(1,))])
    transform = functools.partial(augment.graphs.perturb_edges, ratio=1)
    result = jax.jit(transform)(KEY, loop)
    jax.tree.map(np.testing.assert_array_equal, result, loop)


def test_nodes_are_masked_uniformly_and_nothing_else():
    result = draws("mask_nodes")
    masked = (result.nodes == 0).any(axis=2)
    expected = uniform(itertools.combinations(range(5), 2))
    assert p_value(sets(masked[:, :5]), expected) > 0.01
    np.testing.assert_array_equal(
        result.nodes, np.where(masked[..., None], 0, PACK.nodes)
    )
    for k in range(20):
        for field in GraphBatch._fields[1:]:
            np.testing.assert_array_equal(
                getattr(result, field)[k], getattr(PACK, field)
            )


def test_features_are_masked_uniformly_for_all_nodes_of_a_graph():
    result = draws("mask_features")
    masked = result.nodes == 0
    expected = uniform(itertools.combinations(range(F), 2))
    assert p_value(sets(masked[:, 0]), expected) > 0.01
    assert (masked[:, :5] == masked[:, :1]).all()
    together = [(masked[k, 0] == masked[k, 6]).all() for k in range(DRAWS)]
    assert p_value(map(bool, together), {True: 0.1, False: 0.9}) > 0.01
    np.testing.assert_array_equal(result.nodes, np.where(masked, 0, PACK.nodes))


@pytest.mark.parametrize("g", [0, 2, 3, 4, 7])
def test_subgraphs_have_the_probabilities_of_the_sequential_walk(g):
    nodes = np.flatnonzero(GRAPHS[g]["node_valid"]).tolist()
    edges = GRAPHS[g]["edges"][GRAPHS[g]["edge_valid"]].tolist()
    size = len(nodes) - oracles.share("0.4", len(nodes))
    expected = oracles.growth(nodes, edges, size)
    assert p_value(sets(one(draws("subgraph"), g)["node_valid"]), expected) > 0.01


def test_subgraphs_keep_the_edges_between_what_they_keep():
    result = draws("subgraph")
    for k in range(20):
        np.testing.assert_array_equal(
            result.edge_valid[k],
            oracles.edges_between(PACK.edges, PACK.edge_valid, result.node_valid[k]),
        )
        np.testing.assert_array_equal(result.nodes[k], PACK.nodes)
        np.testing.assert_array_equal(result.edges[k], PACK.edges)
    nodes = np.flatnonzero(GRAPHS[5]["node_valid"])
    edges = GRAPHS[5]["edges"][GRAPHS[5]["edge_valid"]].tolist()
    for kept in sets(one(result, 5)["node_valid"])[:50]:
        assert oracles.is_walk(nodes.tolist(), edges, set(kept))


# Compositions. ------------------------------------------------------------------------


def test_a_graph_gets_what_the_drawn_transform_would_give_it_alone():
    names = ("drop_nodes", "subgraph", "perturb_edges", "mask_nodes")
    own = jax.vmap(jax.vmap(jax.random.split))(keys())[..., 1]
    alone = [compiled(name)(own, PACK) for name in names]
    alone.append(jax.tree.map(lambda x: np.broadcast_to(x, (DRAWS, *x.shape)), PACK))
    alone = [jax.tree.map(np.asarray, result) for result in alone]
    for g in range(len(GRAPHS)):
        got = one(draws("graphcl"), g)
        same = np.stack(
            [
                np.all(
                    [(got[x] == theirs[x]).reshape(DRAWS, -1).all(axis=1) for x in got],
                    axis=0,
                )
                for theirs in (one(result, g) for result in alone)
            ]
        )
        assert same.any(axis=0).all()
        if g in (5, 7):  # where two transforms hardly ever do the same
            clear = same.sum(axis=0) == 1
            assert clear.mean() > 0.95
            drawn = same.argmax(axis=0)[clear].tolist()
            assert p_value(drawn, uniform(range(5))) > 0.01


def test_one_of_one_is_that_one():
    transform = jax.jit(TRANSFORMS["drop_edges"])
    own = jax.vmap(jax.random.split)(keys()[0])[:, 1]
    got = augment.graphs.one_of(transform)(keys()[0], PACK)
    expected = transform(own, PACK)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def packs():
    """Eight of them, each in another order."""
    orders = [np.random.default_rng(i).permutation(len(GRAPHS)) for i in range(8)]
    return jax.tree.map(
        lambda *x: np.stack(x),
        *(pack([GRAPHS[g] for g in order], i) for i, order in enumerate(orders)),
    )


def test_views_have_the_keys_that_they_state():
    transform = jax.jit(TRANSFORMS["mask_nodes"])
    views = augment.graphs.views(KEY, packs(), transform, count=3)
    keys = jax.random.split(KEY, 8 * G * 3)

    def part(graphs, *at):
        return jax.tree.map(lambda x: x[at], graphs)

    for p, v in ((0, 0), (3, 1), (7, 2)):
        own = keys[jnp.array([(p * G + place) * 3 + v for place in range(G)])]
        alone = transform(own, part(packs(), p))
        jax.tree.map(np.testing.assert_array_equal, part(views, p, v), alone)


@jax.jit
def views_of_packs(graphs):
    return augment.graphs.views(KEY, graphs, TRANSFORMS["graphcl"])


@functools.cache
def on_one_device():
    return jax.tree.map(np.asarray, views_of_packs(packs()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_sharding_changes_nothing(kind):
    axis_type = getattr(jax.sharding.AxisType, kind)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    views = views_of_packs(jax.device_put(packs(), rows))
    for x, expected in zip(views, on_one_device(), strict=True):
        assert x.sharding.is_equivalent_to(rows, x.ndim)
        np.testing.assert_array_equal(x, expected)


# Errors. ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", list(TRANSFORMS)[:-1])
def test_a_ratio_outside_is_refused(name, wrong):
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\], got"):
        getattr(augment.graphs, name)(KEY, PACK, ratio=wrong)
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\], got"):
        augment.graphs.graphcl(wrong)


@ALL
def test_what_is_no_pack_is_refused(name):
    transform = TRANSFORMS[name]
    with pytest.raises(TypeError, match="graphs must be a GraphBatch, got tuple"):
        transform(KEY, tuple(PACK))
    with pytest.raises(ValueError, match=r"graphs must be one pack.*`views` takes"):
        transform(KEY, packs())


@pytest.mark.parametrize(
    ("error", "words", "key"),
    [
        (TypeError, "key must be random keys .* got int", 0),
        (TypeError, "key must be random keys .* got uint32", np.zeros(2, np.uint32)),
        (ValueError, r"key must have shape \[\] or \(9,\), got \(3,\)", (3,)),
    ],
)
def test_a_wrong_key_is_named(error, words, key):
    key = jax.random.split(KEY, key) if isinstance(key, tuple) else key
    with pytest.raises(error, match=words):
        augment.graphs.drop_nodes(key, PACK)


def test_views_of_one_pack_are_refused():
    transform = augment.graphs.identity
    with pytest.raises(ValueError, match=r"graphs.valid must have shape \[p, G\]"):
        augment.graphs.views(KEY, PACK, transform)
    with pytest.raises(TypeError, match="graphs must be a GraphBatch, got dict"):
        augment.graphs.views(KEY, {}, transform)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        augment.graphs.views(KEY, packs(), transform, 0)


def test_what_is_no_transform_is_refused_by_views():
    drop = augment.graphs.drop_nodes
    with pytest.raises(TypeError, match="got tuple; `one_of` draws among several"):
        augment.graphs.views(KEY, packs(), (drop, drop))
    for wrong in (lambda keys, pack: pack.nodes, lambda pack, keys: pack):
        with pytest.raises(TypeError, match=r"transform must .* one that returns"):
            augment.graphs.views(KEY, packs(), wrong)


def test_one_of_nothing_or_of_no_functions_is_refused():
    with pytest.raises(ValueError, match="choices must be at least one transform"):
        augment.graphs.one_of()
    with pytest.raises(TypeError, match=r"choices must be functions .* got 3 at 1"):
        augment.graphs.one_of(augment.graphs.identity, 3)
