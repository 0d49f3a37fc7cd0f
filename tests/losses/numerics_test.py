"""Defined numbers where training takes embeddings: close to 1, to 0, and beyond."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import kernels, losses
from tests import oracles

TEMPERATURE = 0.05


def _trained(b=24, d=16):
    """Pairs so close that the positive's probability is nearly 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, 1, d))
    return x + 0.05 * rng.standard_normal((b, 2, d))


def _exact_gradient(z):
    """The gradient of the mean of nt_xent by its closed form, in float64."""
    b, v, d = z.shape
    flat = z.reshape(b * v, d)
    u = oracles.unit(flat)
    s = u @ u.T / TEMPERATURE
    np.fill_diagonal(s, -np.inf)
    p = np.exp(s - s.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    partner = np.arange(b * v) ^ 1
    rows = np.arange(b * v)
    # p - 1 without cancellation: minus the sum of all other probabilities.
    p[rows, partner] = 0
    p[rows, partner] = -p.sum(1)
    by_logits = (p + p.T) / (b * v * TEMPERATURE)
    by_unit = by_logits @ u
    tangent = by_unit - (by_unit * u).sum(1, keepdims=True) * u
    return (tangent / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(z.shape)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 1e-2)]
)
def test_the_gradient_keeps_its_digits_when_training_has_succeeded(dtype, tolerance):
    z = jnp.asarray(_trained(), dtype)
    exact = _exact_gradient(np.asarray(z, np.float64))
    loss, got = jax.value_and_grad(
        lambda z: losses.nt_xent(z, temperature=TEMPERATURE, tile=20).mean()
    )(z)
    assert loss < 1e-2, "the embeddings should look trained"
    error = np.abs(np.asarray(got, np.float64) - exact).max() / np.abs(exact).max()
    assert error < tolerance


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_duplicates_zeros_and_opposites_give_finite_numbers(temperature):
    z = np.random.default_rng(0).standard_normal((6, 4))
    z[1], z[2], z[3] = z[0], -z[0], 0
    views = jnp.asarray(np.stack([z, z[[0, 1, 2, 3, 5, 4]]], axis=1), jnp.float32)
    flat, labels = views[:, 0], jnp.array([0, 0, 0, 1, 1, 2])
    for run in (
        lambda v: losses.nt_xent(v, temperature=temperature, tile=5),
        lambda v: losses.dcl(v, temperature=temperature, tile=5),
        lambda v: losses.sup_con(v[:, 0], labels, temperature=temperature, tile=5),
        lambda v: losses.clip(v[:, 0], v[:, 1], temperature=temperature, tile=5),
        lambda v: losses.kernel_info_nce(
            v, kernel=kernels.exponential(0.5, temperature), tile=5
        ),
        lambda v: losses.kernel_info_nce(v, kernel=kernels.arc_cosine(0), tile=5),
        lambda v: losses.sc_info_nce(flat, v[:, 1], temperature=temperature, tile=5),
    ):
        loss, gradient = jax.value_and_grad(lambda v, run=run: run(v).sum())(views)
        assert loss.dtype == jnp.float32
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


def test_rows_far_below_the_tiles_highest_score_do_not_underflow():
    # Cosines of 1 beside rows whose best cosine is -1: at temperature 0.01 their scores
    # lie 200 apart, more than float32 can hold relative to one reference.
    z = jnp.asarray([[1.0, 0.0]] * 3 + [[-1.0, 0.0]], jnp.float32)
    x, y = z, jnp.asarray([[1.0, 0.0]] * 4, jnp.float32)
    got = losses.clip(x, y, temperature=0.01)
    expected = oracles.clip(np.asarray(x), np.asarray(y), oracles.cosine(0.01))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_valid_nan_makes_the_losses_that_depend_on_it_nan():
    views = jnp.ones((4, 2, 3)).at[1, 0, 0].set(jnp.nan)
    for impl in ("reference", "tiled"):
        assert np.isnan(losses.nt_xent(views, impl=impl)).all()
