"""Encoders of graphs against dense float64 oracles, and what must change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import data, models
from jaxcl.data.graphs import GraphBatch
from jaxcl.models import graphs as lib
from tests.models import graph_oracles as oracles

P, G, N, E, F, WIDTH, DEPTH = 2, 3, 20, 30, 4, 5, 2

CASES = {
    "GIN": (lib.GIN, oracles.gin, {"pooling": "sum", "readout": "concatenate"}),
    "GIN, mean of the last": (
        lib.GIN,
        oracles.gin,
        {"pooling": "mean", "readout": "last"},
    ),
    "GIN, nodes": (lib.GIN, oracles.gin, {"pooling": "none", "readout": "concatenate"}),
    "GCN": (lib.GCN, oracles.gcn, {"pooling": "sum", "readout": "last"}),
    "GCN, mean of all": (
        lib.GCN,
        oracles.gcn,
        {"pooling": "mean", "readout": "concatenate"},
    ),
    "GCN, nodes, bare": (
        lib.GCN,
        oracles.gcn,
        {"pooling": "none", "readout": "last", "norm": False, "first": False},
    ),
}
SUMS = ("GIN", "GCN")


def made(seed=0, count=P * G):
    """[(features, edges), ...]: ragged, some without edges, one with a double edge."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(count):
        n = [5, 1, 7, 2, 6, 4][i % 6]
        pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
        edges = [pair for pair in pairs if random.random() < 0.45 and i % 6 != 3]
        if i % 6 == 2:
            edges.append((0, 1))
            edges.append((1, 0))
        found.append((random.normal(size=(n, F)).astype(np.float32), edges))
    return found


def packed(graphs, per_pack=G, nodes=N, edges=E):
    """A batch, one node and one edge at a time; None is a graph that is not there."""
    p, f = len(graphs) // per_pack, F
    batch = GraphBatch(
        np.zeros((p, nodes, f), np.float32),
        np.full((p, nodes), per_pack, np.int32),
        np.zeros((p, nodes), bool),
        np.zeros((p, edges, 2), np.int32),
        np.full((p, edges), per_pack, np.int32),
        np.zeros((p, edges), bool),
        np.zeros((p, per_pack), bool),
    )
    for pack in range(p):
        n = m = 0
        for place, graph in enumerate(graphs[pack * per_pack : (pack + 1) * per_pack]):
            if graph is None:
                continue
            batch.valid[pack, place] = True
            for a, b in graph[1]:
                batch.edges[pack, m] = (a + n, b + n)
                batch.edge_graph[pack, m], batch.edge_valid[pack, m] = place, True
                m += 1
            for x in graph[0]:
                batch.nodes[pack, n] = x
                batch.node_graph[pack, n], batch.node_valid[pack, n] = place, True
                n += 1
    return batch


@functools.cache
def model_of(case, **changes):
    make, _, options = CASES[case]
    return make(width=WIDTH, depth=DEPTH, **{**options, **changes})


@functools.cache
def variables_of(case):
    """Parameters and running statistics, all of them random: zeros hide mistakes."""
    shapes = jax.eval_shape(
        functools.partial(model_of(case).init, train=False),
        jax.random.key(0),
        packed(made()),
    )
    random = np.random.default_rng(1)

    def of(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return random.uniform(0.5, 2, leaf.shape).astype(np.float32)
        spread = 0.7 if name == "kernel" else 0.3
        return np.asarray(random.normal(size=leaf.shape) * spread, np.float32)

    return jax.tree_util.tree_map_with_path(of, shapes)


@functools.cache
def applied(case, train, **changes):
    model = model_of(case, **changes)
    mutable = ["batch_stats"] if train else False

    @jax.jit
    def apply(variables, batch):
        return model.apply(variables, batch, train=train, mutable=mutable)

    return apply


def oracle(case, graphs, train, variables=None):
    variables = variables_of(case) if variables is None else variables
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    _, function, options = CASES[case]
    return function(wide, graphs, DEPTH, train=train, **options)


def rows(case, h, batch):
    """What was asked for: valid rows, in the order of the batch."""
    valid = batch.node_valid if "nodes" in case else batch.valid
    assert h.shape[:2] == valid.shape
    assert h.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(h)[~valid], 0)
    return np.asarray(h)[valid]


def close(got, expected):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=4e-6 * scale)


def filled(batch, seed=0):
    """The same batch, with NaN and nonsense in the padding."""
    random = np.random.default_rng(seed)
    nodes, edges, of = batch.nodes.copy(), batch.edges.copy(), batch.edge_graph.copy()
    nodes[~batch.node_valid] = np.nan
    edges[~batch.edge_valid] = random.integers(-3, 99, edges[~batch.edge_valid].shape)
    edges[~batch.edge_valid] %= random.choice([N, 99])
    of[~batch.edge_valid] = G - 1
    return batch._replace(nodes=nodes, edges=edges, edge_graph=of)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_encoders_equal_their_oracle_whatever_the_padding_holds(case, train):
    graphs = made()
    batch = packed(graphs)
    expected, statistics = oracle(case, graphs, train)
    for given in (batch, filled(batch)):
        h = applied(case, train)(variables_of(case), given)
        h, changed = h if train else (h, {})
        close(rows(case, h, batch), expected)
        found = changed.get("batch_stats", {})
        assert set(found) == (set(statistics) if train else set())
        for name, of_layer in found.items():
            for kind, value in of_layer.items():
                close(value, statistics[name][kind])


@pytest.mark.parametrize("case", SUMS)
def test_more_room_changes_nothing(case):
    graphs = made()
    whole, _ = applied(case, True)(variables_of(case), packed(graphs))
    roomy, _ = applied(case, True)(
        variables_of(case), packed(graphs, nodes=33, edges=64)
    )
    close(roomy, whole)


@pytest.mark.parametrize("case", ["GIN", "GCN", "GIN, nodes"])
def test_a_batch_equals_its_graphs_one_by_one(case):
    graphs = made()
    batch = packed(graphs)
    h = rows(case, applied(case, False)(variables_of(case), batch), batch)
    ends = np.cumsum([0, *(len(x) for x, _ in graphs)])
    for i, graph in enumerate(graphs):
        # Alone, at another place of the other pack.
        places = [None] * (P * G)
        places[(i * 5 + 3) % (P * G)] = graph
        alone = packed(places)
        found = rows(case, applied(case, False)(variables_of(case), alone), alone)
        close(found, h[ends[i] : ends[i + 1]] if "nodes" in case else h[i : i + 1])


@pytest.mark.parametrize("case", ["GIN", "GCN", "GIN, nodes", "GCN, nodes, bare"])
def test_the_order_of_nodes_and_edges_changes_nothing(case):
    graphs, random, orders, moved = made(), np.random.default_rng(2), [], []
    for x, edges in graphs:
        order = random.permutation(len(x))  # new place i holds node order[i]
        place = np.argsort(order)
        turned = [(place[b], place[a]) for a, b in edges]
        random.shuffle(turned)
        moved.append((x[order], turned))
        orders.append(order)
    before, after = packed(graphs), packed(moved)
    h, changed = applied(case, True)(variables_of(case), before)
    g, changed_too = applied(case, True)(variables_of(case), after)
    h, g = rows(case, h, before), rows(case, g, after)
    if "nodes" in case:
        ends = np.cumsum([0, *map(len, orders)])
        h = np.concatenate(
            [h[at + order] for at, order in zip(ends, orders, strict=False)]
        )
    close(g, h)
    jax.tree.map(close, changed_too, changed)


@pytest.mark.parametrize("case", ["GIN, mean of the last", "GCN", "GIN, nodes"])
def test_what_was_dropped_was_never_there(case):
    graphs = made()
    batch = packed(graphs)
    node_valid, edge_valid = batch.node_valid.copy(), batch.edge_valid.copy()
    random, left = np.random.default_rng(3), []
    for i, (x, edges) in enumerate(graphs):
        pack, place = divmod(i, G)
        nodes = np.flatnonzero(batch.node_graph[pack] == place)
        lines = np.flatnonzero(batch.edge_graph[pack] == place)
        kept = random.random(len(x)) < 0.7
        kept[0] = True
        stays = [kept[a] and kept[b] and random.random() < 0.7 for a, b in edges]
        node_valid[pack, nodes], edge_valid[pack, lines] = kept, stays
        renamed = np.cumsum(kept) - 1
        left.append(
            (
                x[kept],
                [renamed[list(e)] for e, s in zip(edges, stays, strict=True) if s],
            )
        )
    assert 0 < edge_valid.sum() < batch.edge_valid.sum()
    assert node_valid.sum() < batch.node_valid.sum()
    nodes = np.where(node_valid[..., None], batch.nodes, np.nan)
    dropped = batch._replace(nodes=nodes, node_valid=node_valid, edge_valid=edge_valid)
    h, changed = applied(case, True)(variables_of(case), dropped)
    expected, statistics = oracle(case, left, True)
    close(rows(case, h, dropped), expected)
    jax.tree.map(close, changed["batch_stats"], statistics)


def cost(model, params, rest, batch, weights):
    """A number of all rows, and what has changed."""
    h, changed = model.apply(
        {"params": params, **rest}, batch, train=True, mutable=["batch_stats"]
    )
    return (jnp.asarray(weights) * h).sum(), changed


@functools.cache
def sloped(case):
    model = model_of(case)

    @jax.jit
    def of(variables, batch, weights):
        rest = {"batch_stats": variables["batch_stats"]}
        function = functools.partial(cost, model)
        return jax.value_and_grad(function, (0,), has_aux=True)(
            variables["params"], rest, batch, weights
        )

    return of


def weights_of(h):
    return np.cos(np.arange(h.size, dtype=np.float32)).reshape(h.shape)


@pytest.mark.parametrize("case", SUMS)
def test_gradients_equal_differences_of_the_oracle(case):
    graphs = made()
    variables, batch = variables_of(case), packed(graphs)
    expected, _ = oracle(case, graphs, True)
    weights = weights_of(expected)
    in_packs = weights.reshape(P, G, -1)
    (value, _), (gradient,) = sloped(case)(variables, batch, in_packs)
    np.testing.assert_allclose(value, (weights * expected).sum(), rtol=1e-4)
    (_, _), (with_nan,) = sloped(case)(variables, filled(batch), in_packs)
    jax.tree.map(np.testing.assert_array_equal, with_nan, gradient)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))

    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    leaves, treedef = jax.tree.flatten(wide["params"])
    slopes = jax.tree.leaves(gradient)
    random = np.random.default_rng(4)
    for i, leaf in enumerate(leaves):
        way = random.normal(size=leaf.shape)
        around = []
        for step in (1e-6, -1e-6):
            params = [*leaves[:i], leaf + step * way, *leaves[i + 1 :]]
            moved = {**wide, "params": jax.tree.unflatten(treedef, params)}
            around.append((weights * oracle(case, graphs, True, moved)[0]).sum())
        expected_slope = (around[0] - around[1]) / 2e-6
        size = np.linalg.norm(slopes[i]) * np.linalg.norm(way)
        np.testing.assert_allclose(
            (slopes[i] * way).sum(), expected_slope, rtol=1e-4, atol=2e-5 * size
        )


@pytest.mark.parametrize("case", SUMS)
def test_a_mesh_changes_nothing(case):
    mesh, by_rows, whole = jaxcl.data_parallel()
    graphs = made(count=mesh.size * G)
    batch = packed(graphs)
    expected, _ = oracle(case, graphs, True)
    weights = weights_of(expected).reshape(mesh.size, G, -1)
    one = sloped(case)(variables_of(case), batch, weights)
    many = sloped(case)(
        data.put(variables_of(case), whole),
        data.put(batch, by_rows),
        data.put(weights, by_rows),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=2e-4, atol=1e-5 * np.abs(b).max()
        ),
        jax.device_get(many),
        jax.device_get(one),
    )
    np.testing.assert_allclose(
        one[0][0], (weights.reshape(expected.shape) * expected).sum(), rtol=1e-4
    )


@pytest.mark.parametrize("case", SUMS)
def test_bfloat16_is_close_and_keeps_parameters_in_float32(case):
    batch = packed(made())
    exact = applied(case, False)(variables_of(case), batch)
    rough = applied(case, False, dtype=jnp.bfloat16)(variables_of(case), batch)
    assert rough.dtype == jnp.float32
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 0.02
    model = model_of(case, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), batch
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.float32.dtype}


def test_neighbors_are_summed_in_float32():
    n = 301
    edges = np.stack([np.zeros(n - 1, int), np.arange(1, n)], 1)
    star = packed([(np.ones((n, F), np.float32), edges)], 1, n, n)
    ones = jnp.ones((1, n, 1), jnp.bfloat16)
    summed = np.asarray(jax.jit(lib.neighbor_sum)(star, ones))
    assert summed.dtype == jnp.bfloat16
    assert summed[0, 0, 0] == 300  # bfloat16 alone would stay at 256
    assert (summed[0, 1:] == 1).all()


def test_pooling_is_what_it_says_of_valid_nodes_alone():
    graphs = [*made()[:2], None]
    batch = packed(graphs)
    node_valid = batch.node_valid.copy()
    node_valid[0, batch.node_graph[0] == 1] = False  # nothing is left of that graph
    node_valid[0, 1] = False
    batch = batch._replace(node_valid=node_valid)
    x = np.where(node_valid[..., None], np.float32(np.arange(N)[None, :, None]), np.nan)
    first = np.delete(np.arange(len(graphs[0][0])), 1)
    for kind, value in (("sum", first.sum()), ("mean", first.mean())):
        pooled = lib.pool(batch, jnp.asarray(x), kind)
        np.testing.assert_allclose(pooled[0, :, 0], [value, 0, 0])
    nodes = lib.pool(batch, jnp.asarray(x), "none")
    np.testing.assert_array_equal(nodes[0, :, 0], np.arange(N) * node_valid[0])
    with pytest.raises(ValueError, match="pooling must be"):
        lib.pool(batch, jnp.asarray(x), "max")


def count_of(model, f):
    graphs = [(np.zeros((1, f), np.float32), [])]
    batch = packed(graphs, 1, 1, 1)._replace(nodes=np.zeros((1, 1, f), np.float32))
    init = functools.partial(model.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), batch)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameters_are_as_many_as_the_formulas_have():
    f, w, d = 37, 32, 3
    norm = 2 * w
    gin = (f * w + norm + w * w + norm + 1) + (d - 1) * (2 * (w * w + norm) + 1)
    assert count_of(lib.GIN(w, d), F) == gin - (f - F) * w
    w = 128
    gcn = (2 * F + F * w + w) + d * (2 * w + w * w + w)
    assert count_of(lib.GCN(w, d), F) == gcn
    bare = lib.GCN(w, 2, norm=False, first=False)
    assert count_of(bare, F) == F * w + w + w * w + w


def test_embeddings_of_views_stand_in_the_order_of_the_batch():
    z = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = lib.by_graph(jnp.asarray(z))
    for b in range(8):
        np.testing.assert_array_equal(np.asarray(found)[b], z[b // 4, :, b % 4])
    with pytest.raises(ValueError, match="z must have shape"):
        lib.by_graph(jnp.ones((2, 3, 4)))


@pytest.mark.parametrize("make", [lib.GIN, lib.GCN])
def test_settings_that_mean_nothing_are_refused(make):
    for name, value in (("width", 0), ("depth", 0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            make(**{name: value})
    with pytest.raises(TypeError, match="width must be"):
        make(width=3.5)
    for name, value in (("pooling", "max"), ("readout", "first"), ("dtype", "float16")):
        with pytest.raises(ValueError, match=f"{name} must be"):
            make(**{name: value})


def test_batches_that_do_not_fit_are_refused():
    batch = packed(made())
    run = functools.partial(lib.GIN().init, jax.random.key(0), train=False)
    with pytest.raises(
        TypeError, match=r"must be a jaxcl\.data\.graphs\.GraphBatch, got d"
    ):
        run({})
    with pytest.raises(ValueError, match=r"graphs\.nodes must have shape"):
        run(jax.tree.map(lambda x: x[0], batch))  # without the axis of packs
    with pytest.raises(TypeError, match=r"graphs\.nodes must be floating, got int32"):
        run(batch._replace(nodes=batch.nodes.astype(np.int32)))
    with pytest.raises(
        ValueError, match=r"must have features, got none; .*with_features"
    ):
        run(batch._replace(nodes=batch.nodes[..., :0]))
    for name in batch._fields[1:]:
        wrong = getattr(batch, name)[:1]
        with pytest.raises(ValueError, match=rf"graphs\.{name} must be \["):
            run(batch._replace(**{name: wrong}))
    assert models.graphs is lib
