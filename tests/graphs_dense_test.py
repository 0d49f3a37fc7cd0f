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


def test_everything_passes_through_jit():
    run = jax.jit(graphs.sc_infonce_target, static_argnums=2)
    target = run(jnp.asarray(PI), jnp.asarray(TRANSITION), 4, alpha=0.1, beta=1.0)
    assert np.isfinite(target).all()
