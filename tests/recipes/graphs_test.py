"""What the settings of a training on graphs stand for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import data, models, recipes, training
from jaxcl.data.graphs import sets
from jaxcl.recipes import graphs as lib
from tests.data.graphs import made

TINY = lib.Graphs(width=4, depth=2, embedding=4, batch_size=16, epochs=3)
SIZES = [3, 5, 4, 6, 4, 7, 3, 5] * 4


def graphs_of(seed=0):
    graphs = made.random_graphs(SIZES, 0.9, seed)
    return sets.labelled("made", graphs, np.arange(len(SIZES)) % 2)


@pytest.fixture(scope="module")
def dataset():
    return graphs_of()


def variables_of(s, dataset):
    return recipes.first_variables(lib.describe(s, dataset), s.seed)


@pytest.mark.parametrize("batch_size", [5, 32, 100])
def test_representations_are_those_of_each_graph_alone(batch_size, dataset):
    variables = variables_of(TINY, dataset)
    shown, graphs = lib.describe(TINY, dataset), dataset.columns["graph"]
    h = lib.represent(shown, variables, graphs, batch_size=batch_size)
    assert h.shape == (32, TINY.width * TINY.depth)
    part = data.part(dataset, 7, 8).columns["graph"]
    alone = lib.represent(shown, variables, part)
    np.testing.assert_allclose(h[7:8], alone, rtol=1e-4, atol=1e-5 * np.abs(h).max())
    model = models.build(shown)
    whole = data.graphs.pack_in_order(dataset, 32).columns["graph"][np.arange(32)]
    encode = functools.partial(model.apply, train=False, method="represent")
    expected = jax.jit(encode)(variables, whole)[0]
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5 * np.abs(h).max())


def test_the_first_parameters_depend_on_the_seed_and_not_on_the_graphs(dataset):
    first = variables_of(TINY, dataset)
    for same in (
        variables_of(TINY, graphs_of(seed=1)),
        variables_of(dataclasses.replace(TINY, batch_size=8), dataset),
    ):
        jax.tree.map(np.testing.assert_array_equal, same, first)
    other = variables_of(dataclasses.replace(TINY, seed=1), dataset)
    kernel = ("params", "encoder", "Dense_0", "kernel")
    a, b = first, other
    for name in kernel:
        a, b = a[name], b[name]
    assert np.abs(a - b).min() > 0
    assert a.shape == (3, 4)


def test_packs_are_those_of_devices_and_chunks(dataset):
    devices = jax.device_count()
    assert lib.pack(TINY, dataset).columns["graph"].per_pack == 16 // devices
    chunked = dataclasses.replace(TINY, chunks=2)
    assert lib.pack(chunked, dataset).columns["graph"].per_pack == 16 // devices // 2
    given = dataclasses.replace(TINY, packs=2 * devices, nodes=90, edges=99)
    column = lib.pack(given, dataset).columns["graph"]
    assert (column.per_pack, column.nodes, column.edges) == (1, 90, 99)
    wrong = dataclasses.replace(TINY, packs=devices // 2)
    with pytest.raises(ValueError, match="packs must be divisible by the 8 devices"):
        lib.pack(wrong, dataset)
    with pytest.raises(ValueError, match=r"nodes must be at least \d+, what the full"):
        lib.pack(dataclasses.replace(TINY, nodes=8), dataset)


def test_batches_that_the_graphs_do_not_fill_are_refused(tmp_path):
    path = made.npz(tmp_path / "two.npz", made.TWO_NPZ)
    s = dataclasses.replace(TINY, source=str(path))
    with pytest.raises(
        ValueError, match=r"at most the 2 graphs of '.*two\.npz' 'train'"
    ):
        lib.open_graphs(s)


def test_views_are_drawn_of_what_the_settings_name(dataset):
    pack = lib.pack(TINY, dataset).columns["graph"][np.arange(16)]
    pack = jax.tree.map(lambda x: jnp.asarray(x[0]), pack)
    one = dataclasses.replace(TINY, augmentation=("identity",))
    same = jax.jit(lib.make_transform(one))(jax.random.key(0), pack)
    jax.tree.map(np.testing.assert_array_equal, same, pack)
    one = dataclasses.replace(TINY, augmentation=("drop_nodes",), ratio=0.5)
    dropped = jax.jit(lib.make_transform(one))(jax.random.key(0), pack)
    left = [int(dropped.node_valid[pack.node_graph == g].sum()) for g in range(2)]
    assert left == [2, 3]  # of 3 and 5
    with pytest.raises(ValueError, match="augmentation must name one or more"):
        lib.make_transform(dataclasses.replace(TINY, augmentation=()))


def test_apply_gives_embeddings_and_moves_the_statistics(dataset):
    s = dataclasses.replace(
        TINY, projector="normalized", dtype="bfloat16", gradients="float32"
    )
    packed = lib.pack(s, dataset).columns["graph"][np.arange(16)]
    variables = variables_of(s, dataset)
    assert set(variables["batch_stats"]) == {"encoder", "projector"}
    apply = jax.jit(lib.make_apply(s, lib.describe(s, dataset)))
    z, changed = apply(variables, packed)
    assert (z.shape, z.dtype) == ((8, 2, 4), jnp.float32)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 0,
        dict(changed)["batch_stats"],
        variables["batch_stats"],
    )
    assert all(jax.tree.leaves(moved))


def test_knn_is_watched(dataset):
    s = dataclasses.replace(TINY, monitors=("knn",), average=0.9)
    shown = lib.describe(s, dataset)
    params, stats = lib.initialize(s, shown)
    tx = recipes.make_optimizer(s, dataset)
    state = training.create_state(params, stats, tx, average=True)
    state = data.put(state, jaxcl.data_parallel()[2])
    found = lib.make_monitors(s, shown, dataset)(state)
    assert set(found) == {"knn"}
    assert 0 <= found["knn"] <= 1
    assert lib.make_monitors(TINY, shown, dataset)(state) == {}
    assert isinstance(models.build(shown).encoder, models.graphs.GIN)
