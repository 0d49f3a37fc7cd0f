"""Similarity graphs as small matrices, against numbers and identities of the papers."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs, losses
from jaxcl import kernels as log_kernels


def test_a_similarity_graph_has_no_loops_and_rows_that_sum_to_one():
    w = np.abs(np.random.default_rng(0).standard_normal((5, 5)))
    w[2] = 0
    graph = graphs.similarity_graph(jnp.asarray(w, jnp.float32))
    np.testing.assert_allclose(np.diag(graph), 0)
    np.testing.assert_allclose(graph.sum(1), [1, 1, 0, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(graphs.row_normalize(w)[0], w[0] / w[0].sum(), rtol=1e-6)


def test_the_laplacian_is_the_quadratic_form_of_squared_distances(x64):
    rng = np.random.default_rng(1)
    w, z = np.abs(rng.standard_normal((6, 6))), rng.standard_normal((6, 3))
    symmetric = (w + w.T) / 2
    squares = ((z[:, None] - z[None]) ** 2).sum(-1)
    operator = graphs.laplacian(jnp.asarray(symmetric))
    np.testing.assert_allclose(operator.sum(1), 0, atol=1e-14)
    np.testing.assert_allclose(
        2 * np.trace(z.T @ operator @ z), (w * squares).sum(), rtol=1e-12
    )


def test_graph_cross_entropy_is_attraction_by_the_laplacian_plus_repulsion(x64):
    # Identity L1 with equation 5c: the Gaussian kernel of temperature 2 tau.
    rng = np.random.default_rng(2)
    z, w = rng.standard_normal((7, 3)), np.abs(rng.standard_normal((7, 7)))
    graph = np.asarray(graphs.similarity_graph(jnp.asarray(w)))
    tau = 0.4
    kernel = log_kernels.gaussian(2 * tau, normalize=False)
    operator = graphs.laplacian(jnp.asarray((graph + graph.T) / 2))
    squares = ((z[:, None] - z[None]) ** 2).sum(-1) / (2 * tau)
    np.fill_diagonal(squares, np.inf)
    repulsion = np.log(np.exp(-squares).sum(1)).sum()
    expected = np.trace(z.T @ operator @ z) / tau + repulsion
    got = losses.graph_cross_entropy(jnp.asarray(z), jnp.asarray(w), kernel=kernel)
    np.testing.assert_allclose(got.sum(), expected, rtol=1e-12)


def test_clip_over_drawn_rewrites_has_the_rewritten_pair_graphs_cross_entropy(x64):
    # Two images share the first text; the expectation is over every draw, by name.
    images, texts, rewrites = 3, 2, 2
    w = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    versions = rewrites + 1
    s = np.random.default_rng(3).standard_normal((images, texts * versions))
    to_text = -np.log(np.exp(s) / np.exp(s).sum(1, keepdims=True))
    to_image = -np.log(np.exp(s) / np.exp(s).sum(0, keepdims=True)).T
    graph = np.asarray(graphs.rewritten_pair_graph(w, rewrites))
    assert graph.shape == (images + texts * versions,) * 2
    for i in range(images):
        expected = 0.0
        for j in range(texts):
            for m in range(versions):
                probability = w[i, j] / w[i].sum() / versions
                expected += probability * to_text[i, j * versions + m]
        row = graph[i]
        np.testing.assert_allclose(row[images:] @ to_text[i], expected, rtol=1e-14)
        assert not row[:images].any()
    for j in range(texts):
        expected = 0.0
        for m in range(versions):
            for i in range(images):
                probability = w[i, j] / w[:, j].sum() / versions
                expected += probability * to_image[j * versions + m, i]
        rows = slice(images + j * versions, images + (j + 1) * versions)
        entropies = (graph[rows, :images] * to_image[j * versions :][:versions]).sum(1)
        np.testing.assert_allclose(entropies.mean(), expected, rtol=1e-14)
        assert not graph[rows, images:].any()


def test_a_pair_of_its_own_gives_each_of_its_texts_an_equal_share():
    graph = graphs.rewritten_pair_graph(np.eye(2), 3)
    np.testing.assert_allclose(graph[0], [0, 0] + [0.25] * 4 + [0] * 4)
    np.testing.assert_allclose(graph[2:6, 0], 1)
    without = graphs.rewritten_pair_graph(np.eye(2), 0)
    np.testing.assert_array_equal(without, graphs.pair_graph(np.eye(2)))


def test_an_augmentation_graph_is_the_law_of_the_other_view(x64):
    rng = np.random.default_rng(4)
    law = rng.dirichlet(np.ones(5), 3)
    graph = np.asarray(graphs.augmentation_graph(law))
    for i in range(5):
        posterior = law[:, i] / law[:, i].sum()  # of the image, given view i
        other = [sum(posterior[s] * law[s, j] for s in range(3)) for j in range(5)]
        expected = np.array(other) / (sum(other) - other[i])
        expected[i] = 0
        np.testing.assert_allclose(graph[i], expected, rtol=1e-12)


def test_images_that_share_no_view_have_the_graph_of_their_groups():
    law = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]])
    graph = graphs.augmentation_graph(law.astype(np.float32))
    expected = graphs.views_graph(np.array([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(graph, expected, rtol=1e-6)


HALVES = [jnp.bfloat16, jnp.float16]


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_gives_graphs_in_float32(dtype):
    w = jnp.ones((2, 7), dtype)
    np.testing.assert_allclose(graphs.row_normalize(w), 1 / 7, rtol=1e-6)
    # A law as half precision holds it sums to 1 to its own rounding only.
    for law in (jnp.full((2, 7), 1 / 7, dtype), graphs.row_normalize(w)):
        graph = graphs.augmentation_graph(law)
        assert graph.dtype == jnp.float32
        np.testing.assert_allclose(graph[0, 1:], 1 / 6, rtol=1e-6)
    with pytest.raises(ValueError, match="law must sum to 1"):
        graphs.augmentation_graph(jnp.full((2, 7), 1 / 7 + 1e-2, dtype))


@pytest.mark.parametrize("weight", [jnp.float16(4e4), jnp.float32(3e38), 1e-30])
def test_the_size_of_weights_does_not_change_a_graph(weight):
    graph = graphs.rewritten_pair_graph(jnp.full((2, 2), weight), 1)
    expected = graphs.rewritten_pair_graph(jnp.ones((2, 2)), 1)
    np.testing.assert_allclose(graph, expected, rtol=1e-6)
    large = jnp.full((2, 2), 3e38)
    np.testing.assert_array_equal(graphs.symmetrize(large), large)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: graphs.row_normalize(-np.ones((2, 2))),
            ValueError,
            "w must.*negative",
        ),
        (
            lambda: graphs.similarity_graph(np.ones((2, 3))),
            ValueError,
            r"w must be a square matrix, got shape \(2, 3\)",
        ),
        (lambda: graphs.laplacian(np.ones(3)), ValueError, r"w must have shape \[n, m"),
        (
            lambda: graphs.laplacian(np.full((2, 2), np.nan)),
            ValueError,
            "w must be finite",
        ),
        (lambda: graphs.laplacian("w"), TypeError, "w must be an array"),
        (
            lambda: graphs.rewritten_pair_graph(np.eye(2), -1),
            ValueError,
            "num_rewrites must be at least 0, got -1",
        ),
        (
            lambda: graphs.rewritten_pair_graph(np.eye(2), 1.0),
            TypeError,
            "num_rewrites must be an integer, got float",
        ),
        (
            lambda: graphs.augmentation_graph(np.ones((2, 3))),
            ValueError,
            "law must sum to 1 in each row",
        ),
        (
            lambda: graphs.augmentation_graph(np.zeros((0, 2))),
            ValueError,
            r"law must have at least one row, got shape \(0, 2\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
