"""Spectral clustering, beside that of scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster, metrics

from jaxcl import diagnostics

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
GROUPS = np.repeat(np.arange(4), (5, 11, 8, 16))


def _blocks(inside, between):
    """A random graph, not symmetric, with more weight inside of groups."""
    same = GROUPS[:, None] == GROUPS[None, :]
    w = RNG.uniform(size=same.shape) * np.where(same, inside, between)
    return w.astype(np.float32)


@pytest.mark.parametrize("between", [0.0, 0.3])
def test_groups_are_found_as_scikit_learn_finds_them(between):
    w = _blocks(1.0, between)
    labels = np.asarray(diagnostics.spectral_clusters(w, 4, KEY))
    assert labels.dtype == np.int32
    assert set(labels) == set(range(4))
    assert metrics.adjusted_rand_score(GROUPS, labels) == 1
    if between:  # scikit-learn warns of a graph in pieces
        their = cluster.SpectralClustering(4, affinity="precomputed", random_state=0)
        expected = their.fit_predict((w + w.T) / 2)
        assert metrics.adjusted_rand_score(expected, labels) == 1


def test_rings_that_k_means_would_cut_are_told_apart():
    angle = 2 * np.pi * np.arange(40) / 40
    radius = np.repeat([1.0, 3.0], 40)[:, None]
    points = np.tile(np.stack([np.cos(angle), np.sin(angle)], 1), (2, 1)) * radius
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    labels = diagnostics.spectral_clusters(jnp.exp(-4.0 * jnp.asarray(squared)), 2, KEY)
    assert metrics.adjusted_rand_score(radius[:, 0], labels) == 1


def test_the_key_drives_the_result_and_the_order_of_nodes_does_not():
    w = _blocks(1.0, 0.3)
    first = diagnostics.spectral_clusters(w, 4, KEY)
    np.testing.assert_array_equal(first, diagnostics.spectral_clusters(w, 4, KEY))
    keys = jax.random.split(KEY, 5)
    names = {tuple(np.asarray(diagnostics.spectral_clusters(w, 4, k))) for k in keys}
    assert len(names) > 1  # the same groups under other numbers
    order = RNG.permutation(len(w))
    moved = diagnostics.spectral_clusters(w[np.ix_(order, order)], 4, KEY)
    assert metrics.adjusted_rand_score(GROUPS[order], moved) == 1


def test_loops_do_not_count_and_a_node_without_edges_is_alone():
    w = np.zeros((7, 7), np.float32)
    w[:3, :3] = w[3:6, 3:6] = 1
    expected = np.array([0, 0, 0, 1, 1, 1, 2])
    for diagonal in (0.0, 100.0):
        np.fill_diagonal(w, diagonal)
        labels = diagnostics.spectral_clusters(w, 3, KEY)
        assert metrics.adjusted_rand_score(expected, labels) == 1


def test_one_cluster_holds_all_and_n_clusters_one_each():
    w = _blocks(1.0, 0.3)[:6, :6]
    assert (diagnostics.spectral_clusters(w, 1, KEY) == 0).all()
    labels = diagnostics.spectral_clusters(w, 6, KEY)
    assert len(set(np.asarray(labels))) == 6
    assert diagnostics.spectral_clusters(jnp.zeros((3, 3)), 2, KEY).shape == (3,)


def test_neither_dtype_nor_scale_nor_the_diagonal_changes_clusters():
    w = (GROUPS[:, None] == GROUPS[None, :]).astype(np.float32)
    half = diagnostics.spectral_clusters(jnp.asarray(w, jnp.bfloat16), 4, KEY)
    large = w * np.float32(3e38)
    np.fill_diagonal(large, np.inf)
    for labels in (half, diagnostics.spectral_clusters(large, 4, KEY)):
        assert metrics.adjusted_rand_score(GROUPS, labels) == 1


def test_wrong_arguments_are_named():
    w = jnp.ones((4, 4))
    with pytest.raises(ValueError, match="num_clusters must be from 1 to the 4 nodes"):
        diagnostics.spectral_clusters(w, 5, KEY)
    with pytest.raises(ValueError, match="num_clusters must be at least 1, got 0"):
        diagnostics.spectral_clusters(w, 0, KEY)
    with pytest.raises(TypeError, match="num_clusters must be an integer, got float"):
        diagnostics.spectral_clusters(w, 2.0, KEY)
    with pytest.raises(ValueError, match="w must be a square matrix"):
        diagnostics.spectral_clusters(w[:2], 2, KEY)
    with pytest.raises(ValueError, match="w must be finite and not negative"):
        diagnostics.spectral_clusters(-w, 2, KEY)
