"""Maximal correlation of finite variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import diagnostics

RNG = np.random.default_rng(0)


def _by_alternation(joint):
    """Best functions of X and of Y in turn, each the conditional mean of the other."""
    p = joint / joint.sum()
    x, y = p.sum(1), p.sum(0)
    f = RNG.normal(size=len(x))
    for _ in range(2000):
        g = (p / y).T @ f
        g = (g - y @ g) / np.sqrt(y @ (g - y @ g) ** 2)
        f = (p.T / x).T @ g
        f = (f - x @ f) / np.sqrt(x @ (f - x @ f) ** 2)
    return f @ p @ g


def test_equals_the_correlation_of_the_best_functions(x64):
    joint = RNG.uniform(size=(4, 6)) ** 3
    got = diagnostics.maximal_correlation(jnp.asarray(joint))
    np.testing.assert_allclose(got, _by_alternation(joint), rtol=1e-9)


def test_counts_are_as_good_as_probabilities_and_empty_rows_change_nothing():
    counts = np.array([[4, 1, 0], [1, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(diagnostics.maximal_correlation(counts), 0.6, rtol=1e-6)
    shares = (counts / 10).astype(np.float32)
    np.testing.assert_allclose(diagnostics.maximal_correlation(shares), 0.6, rtol=1e-6)


def test_a_common_event_gives_one():
    joint = np.zeros((4, 4), np.float32)
    joint[:2, :2], joint[2:, 2:] = RNG.uniform(size=(2, 2, 2))
    np.testing.assert_allclose(diagnostics.maximal_correlation(joint), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "flip",
    [
        np.array([[4, 1], [1, 4]]) * 2**32,
        np.array([[4, 1], [1, 4]]) * np.float32(4e37),
        np.array([[4, 1], [1, 4]]) * np.float32(1e-30),
        jnp.array([[4, 1], [1, 4]], jnp.bfloat16),
        jnp.array([[4, 1], [1, 4]], jnp.float16),
    ],
)
def test_counts_of_any_size_and_dtype_have_their_correlation(flip):
    got = diagnostics.maximal_correlation(flip)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, 0.6, rtol=1e-6)


def test_an_event_that_never_occurs_has_gradient_zero():
    joint = jnp.array([[0.4, 0.1, 0.0], [0.1, 0.4, 0.0], [0.0, 0.0, 0.0]])
    gradient = jax.grad(diagnostics.maximal_correlation)(joint)
    wanted = jax.grad(diagnostics.maximal_correlation)(joint[:2, :2])
    np.testing.assert_allclose(gradient[:2, :2], wanted, rtol=0, atol=1e-5)
    assert np.isfinite(gradient).all()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="joint must be finite and not negative"):
        diagnostics.maximal_correlation(jnp.array([[0.5, -0.5]]))
    with pytest.raises(ValueError, match=r"joint must have shape \[k, l\]"):
        diagnostics.maximal_correlation(jnp.ones(3))
    with pytest.raises(TypeError, match="joint must hold real numbers"):
        diagnostics.maximal_correlation(jnp.ones((2, 2), bool))
