"""Alignment, and the penalty on norm and entropy; uniformity is in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import losses
from tests import oracles
from tests.losses import cases

ESTIMATORS = ["gaussian_logdet", "kde_loo", "polar"]
Z = 1.5 * cases.random(16, 3) + 0.3
VALID = np.arange(16) % 5 != 2


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_alignment_is_a_power_of_the_distance(power, x64):
    views = jnp.asarray(cases.TWO)
    valid = np.arange(cases.ROWS) != 1
    x, y = oracles.unit(cases.TWO[:, 0]), oracles.unit(cases.TWO[:, 1])
    expected = np.where(valid, np.linalg.norm(x - y, axis=1) ** power, 0)
    got = losses.alignment(views, power, valid=jnp.array(valid))
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    same = jax.grad(lambda v: losses.alignment(v, power).sum())(jnp.ones((2, 2, 3)))
    np.testing.assert_allclose(same, 0, atol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_penalty_equals_the_oracle_in_value_and_gradient(estimator, x64):
    options = {"scale": 0.7, "estimator": estimator, "ridge": 1e-2}

    def oracle(z):
        return oracles.norm_entropy_penalty(z, valid=VALID, **options)

    def penalty(z):
        return losses.norm_entropy_penalty(z, valid=jnp.array(VALID), tile=5, **options)

    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(Z))
    np.testing.assert_allclose(value, oracle(Z), rtol=1e-12)
    if estimator == "kde_loo":
        # Its bandwidth is held constant, which no difference of its value can be.
        wanted = jax.grad(
            lambda z: losses.norm_entropy_penalty(
                z, valid=jnp.array(VALID), impl="reference", **options
            )
        )(jnp.asarray(Z))
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-12)
        return
    (wanted,) = oracles.gradient(oracle, Z)
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_entropy_does_not_see_the_mean(mean):
    # On a grid of 1 / 512, which float32 holds also beside 1e4.
    z = (np.round(512 * cases.random(40, 5)) / 512).astype(np.float32)
    options = {"scale": 1e-30, "estimator": "kde_loo", "tile": 16}

    def penalty(z):
        return losses.norm_entropy_penalty(z, **options)

    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(z + np.float32(mean)))
    expected = oracles.norm_entropy_penalty(
        z, scale=0.0, estimator="kde_loo", ridge=0.0
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    wanted = jax.grad(penalty)(jnp.asarray(z))
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=2e-5 * abs(wanted).max())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_penalty_on_numpy_float64_is_float32_and_does_not_warn(estimator):
    value = losses.norm_entropy_penalty(Z, scale=0.5, estimator=estimator)
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sharding_the_penalty_changes_nothing(estimator, x64):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    options = {"scale": 0.7, "estimator": estimator}

    def local(z, *, valid, axis_name):
        return losses.norm_entropy_penalty(
            z, valid=valid, axis_name=axis_name, **options
        )

    def both(run):
        return jax.jit(jax.value_and_grad(lambda z: run(z, valid=jnp.array(VALID))))

    split = both(jaxcl.sharded(local, mesh))(jnp.asarray(Z))
    whole = both(lambda z, valid: local(z, valid=valid, axis_name=None))(jnp.asarray(Z))
    for got, want in zip(split, whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["gaussian_logdet", "polar"])
def test_the_penalty_pins_the_radius(estimator):
    # Along any ray it is least where the mean squared length is d / (2 scale) = 2.5.
    z = 3 * cases.random(200, 4) + 0.5
    z = jnp.asarray(z * np.sqrt(2.5 / (z**2).sum(1).mean()), jnp.float32)

    def penalty(factor):
        return losses.norm_entropy_penalty(
            factor * z, scale=0.8, estimator=estimator, ridge=0.0
        )

    np.testing.assert_allclose(jax.grad(penalty)(1.0), 0, atol=1e-5)
    assert penalty(0.9) > penalty(1.0) < penalty(1.1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_collapsed_zero_and_absent_embeddings_give_finite_numbers(estimator):
    for z in (jnp.ones((6, 3)), jnp.zeros((6, 3)), jnp.ones((1, 3))):
        for valid in (None, jnp.zeros(len(z), bool)):
            value, gradient = jax.value_and_grad(
                lambda z, valid=valid: losses.norm_entropy_penalty(
                    z, scale=0.5, estimator=estimator, valid=valid
                )
            )(z)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
            assert valid is None or value == 0


def test_a_learned_temperature_neither_runs_away_nor_gets_stuck():
    parameter = losses.log_temperature(0.02)
    np.testing.assert_allclose(losses.learned_temperature(parameter), 0.02, rtol=1e-6)
    slope = jax.grad(losses.learned_temperature)
    np.testing.assert_allclose(slope(parameter), 0.02, rtol=1e-6)
    below = losses.log_temperature(0.001)
    np.testing.assert_allclose(losses.learned_temperature(below), 0.01, rtol=1e-6)
    # A loss that would lower it further has no say; one that raises it has.
    assert slope(below) == 0
    up = jax.grad(lambda p: -losses.learned_temperature(p))(below)
    np.testing.assert_allclose(up, -0.01, rtol=1e-6)


@pytest.mark.slow
def test_clip_learns_its_temperature():
    x = jnp.asarray(cases.X, jnp.float32)
    y = jnp.asarray(cases.Y, jnp.float32)

    def loss(parameter):
        t = losses.learned_temperature(parameter)
        return losses.clip(x, y, temperature=t).mean()

    parameter = losses.log_temperature(1.0)
    before = loss(parameter)
    for _ in range(20):
        parameter -= 0.5 * jax.grad(loss)(parameter)
    assert loss(parameter) < before
