"""What losses converge to, against golden values, algebra and simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs

PI = np.array([0.5, 0.3, 0.2])
TRANSITION = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])


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


def test_targets_that_no_softmax_can_reach_warn():
    with pytest.warns(UserWarning, match="cannot become negative"):
        graphs.sc_infonce_target(PI, TRANSITION, 4, alpha=0.1, beta=1.0)


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


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
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
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
