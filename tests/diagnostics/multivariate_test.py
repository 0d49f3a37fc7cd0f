"""Whitening, likelihood and tests of joint normality, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import datasets

from jaxcl import diagnostics
from jaxcl.diagnostics import multivariate
from tests.diagnostics import oracles

# Compiled once for each shape.
MARDIA = jax.jit(diagnostics.mardia, static_argnames="tile")
HENZE_ZIRKLER = jax.jit(diagnostics.henze_zirkler, static_argnames="tile")

RNG = np.random.default_rng(0)
N, D = 150, 3
MIXING = RNG.normal(size=(D, D))
GAUSSIAN = RNG.normal(size=(N, D)) @ MIXING + 2
LAPLACE = RNG.laplace(size=(N, D)) @ MIXING
SPHERE = oracles.unit(RNG.normal(size=(N, D)))


@pytest.mark.parametrize("z", [GAUSSIAN, LAPLACE, SPHERE])
def test_tests_equal_their_formulas(x64, z):
    np.testing.assert_allclose(MARDIA(z), oracles.mardia(z), rtol=1e-9)
    got, expected = HENZE_ZIRKLER(z), oracles.henze_zirkler(z)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def test_tests_agree_with_published_values_for_the_flowers_of_iris_setosa(x64):
    # Korkmaz, Goksuluk and Zararsiz, MVN: An R Package for Assessing Multivariate
    # Normality, The R Journal 2014.
    flowers = datasets.load_iris().data[:50]
    got = MARDIA(flowers)
    np.testing.assert_allclose(got.skewness, 3.079721, rtol=1e-6)
    np.testing.assert_allclose(got.kurtosis, 26.53766, rtol=1e-6)
    # "Small sample" there.
    np.testing.assert_allclose(got[1:3], (27.85973, 0.1127617), rtol=1e-6)
    got = HENZE_ZIRKLER(flowers)
    np.testing.assert_allclose(got, (0.9488453, 0.04995356), rtol=1e-6)


@pytest.mark.parametrize("d", [2, 20])
def test_float32_is_enough(d):
    z = (RNG.standard_t(30, size=(2000, d)) + 5).astype(np.float32)
    got, expected = MARDIA(z), oracles.mardia(z)
    np.testing.assert_allclose(got[:4], expected[:4], rtol=1e-4)
    np.testing.assert_allclose(got[4:], expected[4:], rtol=2e-3, atol=1e-5)
    got, expected = HENZE_ZIRKLER(z), oracles.henze_zirkler(z)
    np.testing.assert_allclose(got.statistic, expected[0], rtol=1e-4)
    np.testing.assert_allclose(got.p, expected[1], rtol=2e-3, atol=1e-4)


def test_affine_maps_change_nothing(x64):
    moved = LAPLACE @ RNG.normal(size=(D, D)) + RNG.normal(size=D)
    for test in (MARDIA, HENZE_ZIRKLER):
        np.testing.assert_allclose(test(moved), test(LAPLACE), rtol=1e-8, atol=1e-15)


def test_gaussian_samples_pass_and_others_do_not():
    keys = jax.random.split(jax.random.key(0), 100)
    draw = jax.vmap(lambda key: jax.random.normal(key, (N, D)))(keys)

    @jax.jit
    @jax.vmap
    def probabilities(z):
        mardia, other = MARDIA(z), HENZE_ZIRKLER(z)
        return mardia.skewness_p, mardia.kurtosis_p, other.p

    for p in probabilities(draw):
        # Three standard deviations of a share of 100 samples.
        assert abs(np.mean(p < 0.05) - 0.05) < 0.065
    others = np.stack([LAPLACE, SPHERE]).astype(np.float32)
    _, kurtosis_p, p = probabilities(jnp.concatenate([others, draw[2:]]))
    assert (kurtosis_p[:2] < 1e-3).all()
    assert (p[:2] < 1e-3).all()


@pytest.mark.parametrize(
    ("n", "d"), [(30, 20), pytest.param(300, 64, marks=pytest.mark.slow)]
)
def test_kurtosis_keeps_its_level_when_rows_are_few_for_the_columns(n, d):
    keys = jax.random.split(jax.random.key(1), 300)
    draw = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (n, d))))
    got = jax.jit(jax.vmap(diagnostics.mardia_kurtosis))(draw(keys))
    # Mean 0 and variance 1 are exact: three standard errors of 300 samples.
    assert abs(np.mean(got.statistic)) < 3 / np.sqrt(300)
    assert abs(np.std(got.statistic) - 1) < 0.15
    assert np.mean(got.p < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_one_row_more_than_columns_has_no_kurtosis_to_test():
    z = jax.random.normal(jax.random.key(0), (4, 3))
    got = diagnostics.mardia_kurtosis(z)
    assert np.isnan(got.statistic)
    assert np.isfinite(got.kurtosis)


def test_a_singular_covariance_is_nan():
    z = np.concatenate([GAUSSIAN, GAUSSIAN[:, :1]], axis=1).astype(np.float32)
    assert np.isnan(MARDIA(z)).all()
    assert np.isnan(HENZE_ZIRKLER(z)).all()


def _outlier():
    z = GAUSSIAN.copy()
    z[0, 0] = 1e5
    return z


REGULAR = {
    "tiny": GAUSSIAN * 1e-19,
    "large": GAUSSIAN * 1e19,
    "huge": GAUSSIAN * 1e30,
    "the largest": GAUSSIAN * (3e38 / abs(GAUSSIAN).max()),
    "one small column": GAUSSIAN * np.array([1, 1e-3, 1]),
    "columns far apart": GAUSSIAN * np.array([1e-18, 1, 1e18]),
    "an outlier": _outlier(),
    "close columns": GAUSSIAN @ np.array([[1, 1, 0], [0, 1e-3, 0], [0, 0, 1]]),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_to_half_precision_is_no_direction_to_test(dtype):
    z = jnp.asarray(RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 3)), dtype)
    for function in (MARDIA, HENZE_ZIRKLER):
        assert np.isnan(function(z)).all()
    z = jnp.asarray(GAUSSIAN, dtype)
    expected = oracles.mardia(np.asarray(z, float))
    np.testing.assert_allclose(MARDIA(z)[:2], expected[:2], rtol=2e-4)
    # Far from 0 the same numbers are rounded to steps as large as their spread.
    assert np.isnan(MARDIA(z + 300)).all()


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_fit_whose_variances_leave_the_dtype_is_refused(scale):
    with pytest.raises(ValueError, match="z must have variances that float32 holds"):
        diagnostics.fit_gaussian((GAUSSIAN * scale).astype(np.float32))
    assert diagnostics.fit_gaussian(np.ones((5, 2), np.float32)).variances.max() == 0


@pytest.mark.parametrize("name", REGULAR)
def test_what_is_regular_is_tested_in_float32(name):
    z = REGULAR[name].astype(np.float32)
    # In units of each column, in which the oracle in turn keeps its digits.
    expected = z.astype(float) / abs(z.astype(float)).max(0)
    rtol = 1e-3 if name == "close columns" else 2e-4
    got, wanted = MARDIA(z), oracles.mardia(expected)
    np.testing.assert_allclose(got[:2], wanted[:2], rtol=rtol)
    np.testing.assert_allclose(got.kurtosis, wanted[3], rtol=rtol)
    wanted = oracles.henze_zirkler(expected)[0]
    np.testing.assert_allclose(HENZE_ZIRKLER(z).statistic, wanted, rtol=rtol)


def test_a_column_that_is_the_sum_of_others_is_nan_and_not_a_number_of_rounding():
    for n in (150, 20_000):
        z = RNG.normal(size=(n, D)).astype(np.float32) + 2
        z = np.concatenate([z, z.sum(1, keepdims=True)], axis=1)
        assert np.isnan(diagnostics.mardia_kurtosis(z).kurtosis)


def test_the_gradient_of_the_tests_is_that_of_differences(x64):
    z, step = LAPLACE[:20], 1e-5

    def mix(z, module):
        found = module.mardia(z)
        return found[0] + 0.1 * found[3] + module.henze_zirkler(z)[0]

    gradient = jax.jit(jax.grad(mix), static_argnums=1)(jnp.asarray(z), diagnostics)
    for i, j in ((0, 0), (3, 2), (11, 1)):
        move = np.zeros_like(z)
        move[i, j] = step
        difference = mix(z + move, oracles) - mix(z - move, oracles)
        np.testing.assert_allclose(gradient[i, j], difference / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_a_fit_has_variances_wherever_float32_has_them(scale):
    z = (GAUSSIAN * scale).astype(np.float32)
    expected = np.linalg.eigvalsh(np.cov(z.astype(float).T, ddof=0))
    gaussian = diagnostics.fit_gaussian(z, ridge=0.0)
    np.testing.assert_allclose(gaussian.variances, expected, rtol=1e-4)
    y = np.asarray(diagnostics.whiten(gaussian, z))
    np.testing.assert_allclose(np.cov(y.T, ddof=0), np.eye(D), atol=1e-4)


def test_a_spread_that_leaves_float32_has_no_p():
    z = jax.random.normal(jax.random.key(0), (360, 350))
    assert np.isnan(diagnostics.henze_zirkler(z).p)


def test_two_rows_have_a_skewness_but_no_test_of_it():
    got = diagnostics.mardia(jnp.array([[1.0], [2.0]]))
    np.testing.assert_allclose(got.skewness, 0, atol=1e-6)
    assert np.isnan((got.skewness_statistic, got.skewness_p)).all()
    assert np.isnan((got.kurtosis_statistic, got.kurtosis_p)).all()
    three = diagnostics.mardia(jnp.array([[1.0], [2.0], [5.0]]))
    assert np.isfinite((three.skewness_statistic, three.kurtosis)).all()
    assert np.isnan((three.kurtosis_statistic, three.kurtosis_p)).all()


def test_tiles_do_not_change_the_tests():
    z = GAUSSIAN.astype(np.float32)
    for test in (MARDIA, HENZE_ZIRKLER):
        np.testing.assert_allclose(test(z, tile=16), test(z), rtol=1e-5)


@pytest.mark.parametrize("degrees", [4, 286, 364, 2_829_056])
def test_the_tail_of_chi_square_holds_for_any_degrees(degrees):
    probabilities = np.array([0.999, 0.9, 0.5, 0.1, 1e-3])
    x = stats.chi2.isf(probabilities, degrees)
    got = multivariate._chi_square_tail(jnp.asarray(x, jnp.float32), degrees)
    np.testing.assert_allclose(got, probabilities, atol=2e-4)


def test_whitening_gives_its_own_embeddings_unit_covariance_and_held_out_ones_not():
    z = LAPLACE.astype(np.float32)
    seen, held_out = z[:100], z[100:]
    gaussian = diagnostics.fit_gaussian(seen, ridge=0.0)
    y = np.asarray(diagnostics.whiten(gaussian, seen))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(y.T, ddof=0), np.eye(D), atol=1e-5)
    y = np.asarray(diagnostics.whiten(gaussian, held_out))
    centered = held_out.astype(float) - seen.astype(float).mean(0)
    covariance = np.cov(seen.astype(float).T, ddof=0)
    expected = np.einsum(
        "id,id->i", centered, np.linalg.solve(covariance, centered.T).T
    )
    np.testing.assert_allclose((y**2).sum(1), expected, rtol=1e-4)
    assert abs(np.cov(y.T, ddof=0) - np.eye(D)).max() > 0.1


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_log_likelihood_is_that_of_scipy(ridge):
    keep = np.arange(N) % 4 != 0
    z = np.where(keep[:, None], GAUSSIAN, np.nan).astype(np.float32)
    gaussian = diagnostics.fit_gaussian(z, ridge=ridge, valid=keep)
    kept = GAUSSIAN[keep]
    covariance = np.cov(kept.T, ddof=0)
    covariance += ridge * np.trace(covariance) / D * np.eye(D)
    expected = stats.multivariate_normal(kept.mean(0), covariance).logpdf(GAUSSIAN)
    got = diagnostics.log_likelihood(gaussian, GAUSSIAN.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_a_ridge_whitens_fewer_embeddings_than_coordinates():
    z = jax.random.normal(jax.random.key(0), (4, 9))
    y = diagnostics.whiten(diagnostics.fit_gaussian(z), z)
    assert np.isfinite(y).all()


def test_wrong_arguments_are_named():
    z = jnp.ones((3, 3))
    with pytest.raises(ValueError, match="more rows than columns, got 3 rows of 3"):
        MARDIA(z)
    with pytest.raises(ValueError, match="more rows than columns, got 3 rows of 3"):
        HENZE_ZIRKLER(z)
    with pytest.raises(ValueError, match=r"ridge must lie in \[0, inf\), got -1"):
        diagnostics.fit_gaussian(z, ridge=-1.0)
    with pytest.raises(ValueError, match="must have one embedding size"):
        diagnostics.whiten(diagnostics.fit_gaussian(z), jnp.ones((3, 2)))
