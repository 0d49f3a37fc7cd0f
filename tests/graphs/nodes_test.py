"""Nodes and relations, on one device and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs

MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def _relation(relation, anchors, candidates):
    def at(nodes, axis):
        z, *rest = nodes
        return graphs.Nodes(z, *(jnp.expand_dims(x, axis) for x in rest[:3]))

    return np.asarray(relation(at(anchors, 1), at(candidates, 0)))


def test_views_of_one_example_are_positives_and_no_view_is_its_own():
    nodes = graphs.views(jnp.ones((2, 3, 4)))
    expected = np.kron(np.eye(2), np.ones((3, 3))) - np.eye(6)
    np.testing.assert_array_equal(
        _relation(graphs.positives, nodes, nodes), expected.astype(bool)
    )
    np.testing.assert_array_equal(
        _relation(graphs.negatives, nodes, nodes),
        np.kron(1 - np.eye(2), np.ones((3, 3))).astype(bool),
    )
    np.testing.assert_array_equal(
        _relation(graphs.others, nodes, nodes), ~np.eye(6, dtype=bool)
    )


def test_pairs_are_positives_across_and_a_queue_belongs_to_nobody():
    queries, candidates = graphs.keyed(
        jnp.ones((2, 4)), jnp.ones((3, 4)), jnp.ones((2, 4))
    )
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    np.testing.assert_array_equal(
        _relation(graphs.positives, queries, candidates), np.array(expected, bool)
    )
    assert len(set(map(int, [*queries.index, *candidates.index]))) == 7


def test_a_float32_queue_beside_bfloat16_keys_is_kept_exact():
    keys, queue = jnp.ones((2, 4), jnp.bfloat16), jnp.full((2, 4), 1.001)
    _, candidates = graphs.keyed(keys, keys, queue)
    np.testing.assert_array_equal(candidates.z[2:], queue)


def test_what_is_not_valid_is_zeroed_whatever_it_held():
    z = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    nodes = graphs.labelled(z, jnp.array([0, 1]), jnp.array([True, False]))
    np.testing.assert_array_equal(nodes.z, [[1, 2], [0, 0]])


LABELS = np.array([5, -3, 5, 5, 8, -3, 0, 0, 5, 9, -3, 5, 1, 1, 1, 2])
VALID = np.arange(16) % 5 != 3


def _counts():
    same = (LABELS[:, None] == LABELS[None]) & VALID[:, None] & VALID[None]
    return np.where(VALID, same.sum(1) - 1, 0)


def test_counting_positives_equals_comparing_all_pairs():
    nodes = graphs.labelled(jnp.ones((16, 2)), jnp.array(LABELS), jnp.array(VALID))
    np.testing.assert_array_equal(graphs.count_positives(nodes), _counts())
    np.testing.assert_array_equal(graphs.has_positive(nodes), _counts() > 0)


def test_sharded_nodes_know_their_place_in_the_whole():
    def build(z, labels, valid):
        views = graphs.views(z[:, None], valid, "data")
        x, y = graphs.pairs(z, z, axis_name="data")
        nodes = graphs.labelled(z, labels, valid, "data")
        return views.group, x.index, y.index, graphs.count_positives(nodes, "data")

    rows = jax.P("data")
    run = jax.shard_map(build, mesh=MESH, in_specs=(rows,) * 3, out_specs=(rows,) * 4)
    group, x, y, counts = jax.jit(run)(
        jnp.ones((16, 2)), jnp.array(LABELS), jnp.array(VALID)
    )
    np.testing.assert_array_equal(group, np.arange(16))
    np.testing.assert_array_equal(x, np.arange(16))
    np.testing.assert_array_equal(y, np.arange(16) + 16)
    np.testing.assert_array_equal(counts, _counts())


@pytest.mark.parametrize("labelled", [True, False])
def test_positives_in_a_queue_are_counted_on_all_devices(labelled):
    of_queue = np.arange(24) % 7
    same = (LABELS[:, None] == of_queue) & VALID[:, None] & labelled
    expected = _counts() + same.sum(1)

    def build(z, queue, labels, of_queue, valid):
        anchors, candidates = graphs.queued(
            z, labels, queue, of_queue if labelled else None, valid, "data"
        )
        counts = graphs.count_positives(anchors, "data", candidates=candidates)
        pairs = graphs.pairs(z, z, valid, "data")
        return counts, graphs.count_positives(pairs[0], "data", candidates=pairs[1])

    rows = jax.P("data")
    run = jax.shard_map(build, mesh=MESH, in_specs=(rows,) * 5, out_specs=(rows,) * 2)
    given = jnp.ones((16, 2)), jnp.ones((24, 2)), LABELS, of_queue, VALID
    counts, of_pairs = jax.jit(run)(*map(jnp.asarray, given))
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(of_pairs, VALID)  # the partner, who is nobody's self


def test_key_i_of_more_keys_is_masked_with_query_i_across_devices():
    valid = np.arange(8) != 3

    def build(queries, keys, valid):
        return graphs.keyed(queries, keys, valid=valid, axis_name="data")[1].valid

    rows = jax.P("data")
    run = jax.shard_map(build, mesh=MESH, in_specs=(rows,) * 3, out_specs=rows)
    got = jax.jit(run)(jnp.ones((8, 2)), jnp.ones((16, 2)), jnp.array(valid))
    np.testing.assert_array_equal(got, [*valid, *[True] * 8])


Z = jnp.ones((4, 2))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: graphs.views(Z), ValueError, r"z must have shape \[b, v, d\], got"),
        (lambda: graphs.views([1.0]), TypeError, "z must be an array.*got list"),
        (
            lambda: graphs.labelled(Z, jnp.ones(4)),
            TypeError,
            "labels must be an integer array.*float32",
        ),
        (
            lambda: graphs.labelled(Z, jnp.ones(3, int)),
            ValueError,
            r"labels must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: graphs.labelled(Z, jnp.ones(4, int), jnp.ones(4)),
            TypeError,
            "valid must be a boolean array.*float32",
        ),
        (
            lambda: graphs.pairs(Z, Z[:3]),
            ValueError,
            r"x and y must have one shape, got \(4, 2\) and \(3, 2\)",
        ),
        (
            lambda: graphs.keyed(Z, Z[:3]),
            ValueError,
            "keys must have at least as many rows.*3 keys for 4 queries",
        ),
        (
            lambda: graphs.keyed(Z, Z, jnp.ones((2, 3))),
            ValueError,
            "queries and negatives must have one embedding size",
        ),
        (
            lambda: graphs.views(Z[:, None], axis_name="data"),
            ValueError,
            "axis_name 'data' is not bound here",
        ),
        (
            lambda: graphs.views(Z[:, None], axis_name=3),
            TypeError,
            "axis_name must be None, a string or a tuple",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
