"""Target graphs as dense matrices, against numbers and identities of the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs, losses
from jaxcl import kernels as log_kernels

PI = np.array([0.5, 0.3, 0.2])
TRANSITION = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])


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


def test_pair_distributions_have_the_marginals_of_a_view(x64):
    same, apart = graphs.pair_distributions(jnp.asarray(PI), jnp.asarray(TRANSITION))
    q = PI @ TRANSITION
    np.testing.assert_allclose(same.sum(1), q, rtol=1e-14)
    np.testing.assert_allclose(same, same.T, rtol=1e-14)
    np.testing.assert_allclose(apart, np.outer(q, q), rtol=1e-14)
    np.testing.assert_allclose((same / apart) @ q, 1, rtol=1e-14)


# Section 3.1 of the specification of SC-InfoNCE: three classes, N candidates.
THIRDS = np.full(3, 1 / 3)
CLASSES = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5]])
INFONCE_4 = [
    [0.289474, 0.238462, 0.224138],
    [0.238462, 0.262195, 0.246575],
    [0.224138, 0.246575, 0.275362],
]
SCALED_4 = [
    [0.407407, 0.313131, 0.288889],
    [0.313131, 0.355372, 0.327273],
    [0.288889, 0.327273, 0.38],
]
INFONCE_1000 = [
    [0.00122195, 0.00093945, 0.00086678],
    [0.00093945, 0.00106605, 0.00098184],
    [0.00086678, 0.00098184, 0.00113984],
]


def test_targets_have_the_golden_values(x64):
    def infonce(n):
        return graphs.infonce_target(THIRDS, CLASSES, n)

    np.testing.assert_allclose(infonce(4), INFONCE_4, atol=5e-7)
    np.testing.assert_allclose(infonce(1000), INFONCE_1000, atol=5e-9)
    scaled = graphs.sc_infonce_target(THIRDS, CLASSES, 4, alpha=1.0, beta=0.0)
    np.testing.assert_allclose(scaled, SCALED_4, atol=5e-7)


def test_targets_obey_their_algebra(x64):
    pi, transition = jnp.asarray(PI), jnp.asarray(TRANSITION)
    q = PI @ TRANSITION
    _, apart = graphs.pair_distributions(pi, transition)
    target = graphs.infonce_target(pi, transition, 4)
    scaled = graphs.sc_infonce_target(pi, transition, 4, alpha=1.3, beta=0.2)
    odds = target / (1 - target)
    plain = graphs.sc_infonce_target(pi, transition, 4, alpha=1.0, beta=0.0)
    np.testing.assert_allclose(odds, plain, rtol=1e-13)
    np.testing.assert_allclose((3 * apart * scaled).sum(1), 1.1 * q, rtol=1e-13)


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
            lambda: graphs.infonce_target(PI, TRANSITION[:2, :2], 4),
            ValueError,
            r"transition must be \[3, 3\]",
        ),
        (
            lambda: graphs.infonce_target(2 * PI, TRANSITION, 4),
            ValueError,
            "pi must sum to 1",
        ),
        (
            lambda: graphs.infonce_target(PI, TRANSITION.T, 4),
            ValueError,
            "transition must sum to 1 in each row",
        ),
        (
            lambda: graphs.infonce_target(PI, TRANSITION, 1),
            ValueError,
            "num_candidates must be at least 2, got 1",
        ),
        (
            lambda: graphs.infonce_target(PI, TRANSITION, 4.0),
            TypeError,
            "num_candidates must be an integer, got float",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_targets_that_no_softmax_can_reach_warn():
    with pytest.warns(UserWarning, match="cannot become negative"):
        graphs.sc_infonce_target(PI, TRANSITION, 4, alpha=0.1, beta=1.0)


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


def _simulated(n, v):
    """States of n sources and of v views of each, by PI and TRANSITION."""
    rng = np.random.default_rng(5)
    sources = rng.choice(3, n, p=PI)
    draws = rng.random((n, v, 1))
    return sources, (draws > TRANSITION.cumsum(1)[sources][:, None]).sum(-1)


def test_estimates_converge_to_the_distributions_of_the_simulation(x64):
    n, v = 40_000, 2
    sources, views = _simulated(n, v)
    same_source = sum(PI[s] * np.outer(TRANSITION[s], TRANSITION[s]) for s in range(3))
    q = PI @ TRANSITION
    estimate = graphs.estimate_pair_distributions(views[:, 0], views[:, 1], 3)
    pi, transition = graphs.estimate_transition(sources, views, 3)
    for got, truth, draws in (
        (estimate.same_source, same_source, n),
        (estimate.marginal, q, n),
        (pi, PI, n),
        (transition, TRANSITION, v * n * PI[:, None]),
    ):
        error = np.sqrt(truth * (1 - truth) / draws)
        assert (np.abs(got - truth) < 4 * error).all()
        assert np.abs(got - truth).max() > 0  # drawn, and not the truth handed back
    # The ratio's error is that of a count, relative: some 1 / sqrt(n C1_ij).
    truth = same_source / np.outer(q, q)
    relative = np.abs(np.asarray(estimate.ratio) / truth - 1)
    assert (relative < 4 * np.sqrt(1 / (n * same_source))).all()
    # What is estimated feeds the targets: the two ways to one quantity agree.
    by_transition, _ = graphs.pair_distributions(pi, transition)
    difference = np.abs(by_transition - estimate.same_source)
    assert (difference < 6 * np.sqrt(same_source / n)).all()


def test_estimates_are_counts_of_views_in_both_orders():
    first, second = np.array([0, 0, 2, 2, 0]), np.array([2, 0, 0, 2, 2])
    estimate = graphs.estimate_pair_distributions(first, second, 4)
    counts = np.zeros((4, 4))
    for i, j in zip(first, second, strict=True):
        counts[i, j] += 1
        counts[j, i] += 1
    np.testing.assert_allclose(estimate.same_source, counts / 10, rtol=1e-6)
    np.testing.assert_allclose(estimate.marginal, [0.5, 0, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(estimate.ratio[0], [0.8, 0, 1.2, 0], rtol=1e-6)


def test_a_state_that_no_source_is_in_changes_no_target():
    sources, views = np.array([0, 0, 2]), np.array([[0, 1], [1, 1], [2, 0]])
    pi, transition = graphs.estimate_transition(sources, views, 4)
    np.testing.assert_allclose(pi, [2 / 3, 0, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(transition[0], [0.25, 0.75, 0, 0])
    np.testing.assert_allclose(transition[1], 0.25)
    target = graphs.infonce_target(pi, transition, 4)
    other = transition.at[jnp.array([1, 3])].set(jnp.eye(4)[0])
    np.testing.assert_array_equal(target, graphs.infonce_target(pi, other, 4))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
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
        (
            lambda: graphs.estimate_pair_distributions(np.arange(3), np.arange(3), 2),
            ValueError,
            r"states1 must lie in \[0, 2\), got values from 0 to 2",
        ),
        (
            lambda: graphs.estimate_pair_distributions(
                np.arange(3), np.array([0, -1, 1]), 3
            ),
            ValueError,
            r"states2 must lie in \[0, 3\), got values from -1 to 1",
        ),
        (
            lambda: graphs.estimate_pair_distributions(np.arange(3), np.arange(2), 3),
            ValueError,
            "states1 and states2 must have one shape",
        ),
        (
            lambda: graphs.estimate_pair_distributions(np.ones(3), np.arange(3), 3),
            TypeError,
            "states1 must be an integer array",
        ),
        (
            lambda: graphs.estimate_transition(np.arange(3), np.ones((3, 2)), 3),
            TypeError,
            "view_states must be an integer array",
        ),
        (
            lambda: graphs.estimate_transition(np.arange(3), np.arange(3), 3),
            ValueError,
            r"view_states must have shape \[n, v\]",
        ),
        (
            lambda: graphs.estimate_transition(np.arange(3), np.ones((2, 2), int), 3),
            ValueError,
            r"view_states must hold the views of 3 sources, got \(2, 2\)",
        ),
        (
            lambda: graphs.estimate_transition(np.arange(3), np.ones((3, 0), int), 3),
            ValueError,
            "view_states must hold at least one state",
        ),
        (
            lambda: graphs.estimate_transition(np.arange(3), np.ones((3, 2), int), 0),
            ValueError,
            "num_states must be at least 1, got 0",
        ),
    ],
)
def test_wrong_arguments_of_constructions_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


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


def test_states_of_few_bits_index_any_number_of_states():
    first, second = (np.array(x, np.int8) for x in ([0, 1, 100], [1, 1, 0]))
    for k in (128, 300):
        got = graphs.estimate_pair_distributions(first, jnp.asarray(second), k)
        wanted = graphs.estimate_pair_distributions(
            first.astype(int), second.astype(int), k
        )
        np.testing.assert_array_equal(got.same_source, wanted.same_source)
        pi, transition = graphs.estimate_transition(first, second[:, None], k)
        assert transition[100, 0] == transition[0, 1] == 1
        np.testing.assert_allclose(pi[100], 1 / 3, rtol=1e-6)


def test_everything_passes_through_jit():
    run = jax.jit(graphs.sc_infonce_target, static_argnums=2)
    target = run(jnp.asarray(PI), jnp.asarray(TRANSITION), 4, alpha=0.1, beta=1.0)
    assert np.isfinite(target).all()
    sources, views = _simulated(20, 2)
    estimate = jax.jit(graphs.estimate_transition, static_argnums=2)
    pi, transition = estimate(sources, views, 3)
    pi_now, transition_now = graphs.estimate_transition(sources, views, 3)
    np.testing.assert_allclose(pi, pi_now, rtol=1e-6)
    np.testing.assert_allclose(transition, transition_now, rtol=1e-6)
