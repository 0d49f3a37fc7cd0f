"""The uniformity potential and its exact values."""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import diagnostics
from tests.diagnostics import oracles

RNG = np.random.default_rng(0)
N, D = 37, 5
Z = RNG.normal(size=(N, D)).astype(np.float32)
KEYS = (Z + RNG.normal(size=(N, D))).astype(np.float32)
KEEP = np.arange(N) % 5 != 3


def _log_potential(d, alpha):
    """The series of 0F1 in 60 digits."""
    with decimal.localcontext(prec=60):
        x = decimal.Decimal(alpha) ** 2 / 4
        term = total = decimal.Decimal(1)
        k = 0
        while term > total * decimal.Decimal(10) ** -50:
            term *= x / ((decimal.Decimal(d) / 2 + k) * (k + 1))
            total += term
            k += 1
        return float(total.ln())


@pytest.mark.parametrize("d", [1, 2, 3, 32, 256, 4096])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0, 100.0, 1000.0])
def test_the_exact_potential_equals_its_series_in_sixty_digits(d, alpha):
    got = diagnostics.log_sphere_potential(d, alpha)
    np.testing.assert_allclose(got, _log_potential(d, alpha), rtol=1e-12)


def test_the_exact_potential_has_its_closed_forms():
    for alpha in (0.3, 7.0):
        line, ball = (diagnostics.log_sphere_potential(d, alpha) for d in (1, 3))
        np.testing.assert_allclose(line, math.log(math.cosh(alpha)), rtol=1e-13)
        np.testing.assert_allclose(ball, math.log(math.sinh(alpha) / alpha), rtol=1e-13)
    assert diagnostics.log_sphere_potential(8, 0) == 0
    at = diagnostics.log_sphere_potential
    assert at(8, -3.0) == at(8, 3.0)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_potential_equals_the_formula(temperature):
    spoiled = jnp.asarray(np.where(KEEP[:, None], Z, np.nan))
    options = {"temperature": temperature}
    got = (
        diagnostics.uniformity_potential(Z, **options),
        diagnostics.uniformity_potential(Z, KEYS, **options),
        diagnostics.uniformity_potential(spoiled, valid=KEEP, **options),
        diagnostics.uniformity_potential(spoiled, KEYS, valid=KEEP, **options),
    )
    expected = (
        oracles.potential(Z, Z, temperature),
        oracles.potential(Z, KEYS, temperature),
        oracles.potential(Z[KEEP], Z[KEEP], temperature),
        oracles.potential(Z[KEEP], KEYS[KEEP], temperature),
    )
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_the_gradient_of_the_potential_is_that_of_differences(x64):
    z, step = Z[:6].astype(float), RNG.normal(size=(6, D))
    keep = np.arange(6) != 2
    z[2] = 0
    slope = jax.grad(diagnostics.uniformity_potential)(jnp.asarray(z), valid=keep)
    ahead, behind = (
        oracles.potential((z + t * step)[keep], (z + t * step)[keep], 0.1)
        for t in (1e-5, -1e-5)
    )
    np.testing.assert_allclose((slope * step).sum(), (ahead - behind) / 2e-5, rtol=1e-6)


def test_one_embedding_has_no_potential():
    assert np.isnan(diagnostics.uniformity_potential(Z[:1]))


def test_norms_of_a_gaussian_vary_as_products_of_neighboring_sizes_say():
    # E |x_d| E |x_{d+1}| = d, so (1 + cv_d^2) (1 + cv_{d+1}^2) = 1 + 1 / d.
    for d in (1, 7, 99, 100, 101, 512, 4096, 10**6):
        first, second = (diagnostics.gaussian_norm_cv(size) for size in (d, d + 1))
        excess = math.log1p(first**2) + math.log1p(second**2)
        np.testing.assert_allclose(excess, math.log1p(1 / d), rtol=1e-9)
    half_normal = math.sqrt(math.pi / 2 - 1)
    np.testing.assert_allclose(diagnostics.gaussian_norm_cv(1), half_normal, rtol=1e-13)


def test_sizes_of_numpy_are_as_good_as_pythons():
    for size in (np.int32, np.int64):
        for exact in (
            diagnostics.gaussian_norm_cv,
            lambda d: diagnostics.log_sphere_potential(d, 3.0),
            lambda d: diagnostics.gaussian_distance_bound(d, d.__class__(4)),
        ):
            assert exact(size(65536)) == exact(65536)


def test_the_least_number_has_no_potential_beside_zero():
    assert diagnostics.log_sphere_potential(3, 5e-324) == 0


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="d must be an integer, got float"):
        diagnostics.log_sphere_potential(8.0, 1.0)
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        diagnostics.gaussian_norm_cv(0)
    with pytest.raises(ValueError, match="alpha must be finite, got inf"):
        diagnostics.log_sphere_potential(8, math.inf)
    with pytest.raises(ValueError, match="k must be at most d - 4 = 6, got 7"):
        diagnostics.gaussian_distance_bound(10, 7)
    with pytest.raises(ValueError, match="temperature must be positive"):
        diagnostics.uniformity_potential(Z, temperature=0.0)
    with pytest.raises(ValueError, match="z and keys must have one shape"):
        diagnostics.uniformity_potential(Z, KEYS[:4])
