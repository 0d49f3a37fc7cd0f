"""Tests of columns and the report, against SciPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcl import diagnostics
from tests.diagnostics import oracles

RNG = np.random.default_rng(0)


def _columns(n):
    """Gaussian, heavy, skewed, flat, two clusters, and one far outlier."""
    outlier = RNG.normal(size=n)
    outlier[0] = 1e3
    columns = [
        RNG.normal(size=n),
        RNG.laplace(size=n),
        RNG.exponential(size=n),
        RNG.uniform(size=n),
        np.sign(RNG.normal(size=n)) + 0.01 * RNG.normal(size=n),
        outlier,
    ]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("n", [20, 501])
def test_statistics_are_those_of_scipy(x64, n):
    x = _columns(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about its critical values
        expected = [stats.anderson(column).statistic for column in x.T]
    a2 = diagnostics.anderson_darling(jnp.asarray(x))
    np.testing.assert_allclose(a2, expected, rtol=1e-9)
    np.testing.assert_allclose(a2, oracles.anderson_darling(x), rtol=1e-9)
    k2, p = diagnostics.dagostino_pearson(jnp.asarray(x))
    expected = stats.normaltest(x)
    np.testing.assert_allclose(k2, expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(p, expected.pvalue, rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize(
    ("shift", "scale"), [(0, 1), (100, 1), (0, 1e-30), (0, 1e30), (0, 4e37)]
)
def test_float32_is_enough_for_ten_thousand_rows(shift, scale):
    columns = [RNG.normal(size=10_000), RNG.standard_t(20, size=10_000)]
    x = ((np.stack(columns, axis=1) + shift) * scale).astype(np.float32)
    exact = (x.astype(np.float64)) / scale
    a2 = diagnostics.anderson_darling(x)
    np.testing.assert_allclose(a2, oracles.anderson_darling(exact), rtol=5e-4)
    k2, p = diagnostics.dagostino_pearson(x)
    expected = stats.normaltest(exact)
    np.testing.assert_allclose(k2, expected.statistic, rtol=5e-4, atol=1e-3)
    np.testing.assert_allclose(p, expected.pvalue, rtol=1e-2)


def test_float32_is_enough_for_many_rows():
    # Terms added up to the size of n on the way would leave more rounding than that.
    x = RNG.normal(size=(500_000, 1)).astype(np.float32)
    a2 = diagnostics.anderson_darling(x)
    np.testing.assert_allclose(a2, oracles.anderson_darling(x), atol=1e-3)


def test_the_correction_for_small_samples_is_that_of_stephens():
    x = RNG.normal(size=(20, 2)).astype(np.float32)
    got = diagnostics.anderson_darling(x, corrected=True)
    expected = oracles.anderson_darling(x) * (1 + 0.75 / 20 + 2.25 / 400)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_constant_column_is_nan_and_leaves_others_alone():
    x = RNG.normal(size=(30, 3)).astype(np.float32)
    x[:, 1] = 0.1
    a2 = diagnostics.anderson_darling(x)
    k2, p = diagnostics.dagostino_pearson(x)
    for values in (a2, k2, p):
        assert np.isnan(values).tolist() == [False, True, False]
    np.testing.assert_allclose(a2[0], oracles.anderson_darling(x[:, :1])[0], rtol=1e-5)


def test_a_column_that_is_not_finite_is_nan():
    x = RNG.normal(size=(30, 3)).astype(np.float32)
    x[4, 0], x[5, 2] = np.nan, np.inf
    assert np.isnan(diagnostics.anderson_darling(x)).tolist() == [True, False, True]
    assert np.isnan(diagnostics.dagostino_pearson(x)[1]).tolist() == [True, False, True]


def test_the_report_averages_columns_that_vary():
    z = _columns(501).astype(np.float32)
    dead = np.concatenate([z, np.full((501, 2), 3.0, np.float32)], axis=1)
    report = diagnostics.gaussianity_report(dead)
    a2, p = oracles.anderson_darling(z), stats.normaltest(z.astype(float)).pvalue
    assert report.num_samples == 501
    assert report.num_constant == 2
    expected = a2.mean(), (a2 < 0.752).mean(), p.mean(), (p > 0.05).mean()
    np.testing.assert_allclose(report[1:5], expected, rtol=1e-3)
    np.testing.assert_allclose(report.cv, oracles.norm_cv(dead), rtol=1e-5)


def test_embeddings_without_a_varying_column_have_no_mean():
    report = diagnostics.gaussianity_report(jnp.ones((30, 4)))
    assert report.num_constant == 4
    assert np.isnan(report[1:5]).all()


def test_a_constant_column_leaves_the_gradient_of_the_others_alone():
    z = _columns(31).astype(np.float32)
    dead = np.concatenate([z, np.full((31, 1), 3.0, np.float32)], axis=1)

    def score(z):
        report = diagnostics.gaussianity_report(z)
        return report.ad_mean + report.dp_mean

    gradient = jax.jit(jax.grad(score))(dead)
    np.testing.assert_array_equal(gradient[:, -1], 0)
    wanted = jax.jit(jax.grad(score))(z)
    np.testing.assert_allclose(gradient[:, :-1], wanted, rtol=1e-4, atol=1e-6)


def test_the_report_draws_rows_by_its_key():
    z = RNG.normal(size=(200, 3)).astype(np.float32)
    by_default = diagnostics.gaussianity_report(z, max_samples=50)
    assert by_default.num_samples == 50
    first, second = (
        diagnostics.gaussianity_report(z, max_samples=50, key=jax.random.key(seed))
        for seed in (0, 1)
    )
    assert by_default == first
    assert first.ad_mean != second.ad_mean
    rows = jax.random.choice(jax.random.key(1), 200, (50,), replace=False)
    np.testing.assert_allclose(second.cv, oracles.norm_cv(z[rows]), rtol=1e-5)


def test_directions_replace_coordinates():
    z = RNG.normal(size=(100, 3)).astype(np.float32)
    directions = diagnostics.random_projections(jax.random.key(0), 3, 7)
    report = diagnostics.gaussianity_report(z, directions=directions)
    expected = oracles.anderson_darling(z @ np.asarray(directions)).mean()
    np.testing.assert_allclose(report.ad_mean, expected, rtol=1e-4)
    np.testing.assert_allclose(report.cv, oracles.norm_cv(z), rtol=1e-5)


def test_a_traced_report_does_not_hide_what_is_not_finite():
    z = RNG.normal(size=(30, 3)).astype(np.float32)
    z[3, 1] = np.nan
    report = jax.jit(diagnostics.gaussianity_report)(z)
    assert np.isnan(report[:5]).all()


def test_projections_are_orthonormal_in_blocks_and_favor_no_sign():
    d, num = 5, 12
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jax.jit(jax.vmap(lambda key: diagnostics.random_projections(key, d, num)))
    drawn = np.asarray(draw(keys))
    assert drawn.shape == (400, d, num)
    for start in range(0, num, d):
        block = drawn[0][:, start : start + d]
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-6)
    mean, second = drawn.mean(0), (drawn**2).mean(0)
    np.testing.assert_allclose(mean, 0, atol=5 / np.sqrt(400 * d))
    np.testing.assert_allclose(second, 1 / d, atol=5 * np.sqrt(2) / d / np.sqrt(400))


def test_wrong_arguments_are_named():
    z = RNG.normal(size=(30, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="x must have at least 20 rows, got 19"):
        diagnostics.dagostino_pearson(z[:19])
    with pytest.raises(ValueError, match="z must have at least 20 rows, got 19"):
        diagnostics.gaussianity_report(z[:19])
    with pytest.raises(ValueError, match="max_samples must be at least 20, got 5"):
        diagnostics.gaussianity_report(z, max_samples=5)
    with pytest.raises(ValueError, match="directions must have 3 rows"):
        diagnostics.gaussianity_report(z, directions=z)
    with pytest.raises(TypeError, match="x must be a floating array"):
        diagnostics.anderson_darling(jnp.ones((30, 3), int))
    with pytest.raises(TypeError, match="num must be an integer, got float"):
        diagnostics.random_projections(jax.random.key(0), 3, 2.0)
    z[3, 1], z[8] = np.inf, np.nan
    with pytest.raises(ValueError, match="z must be finite, got 2 of 30 rows"):
        diagnostics.gaussianity_report(z)


@pytest.mark.parametrize("scale", [1e-42, 1e-35])
def test_numbers_of_few_digits_are_refused(scale):
    z = (RNG.normal(size=(20, 2)) * scale).astype(np.float32)
    with pytest.raises(ValueError, match=r"z must hold numbers above 1e-31 in float32"):
        diagnostics.gaussianity_report(z)
    assert diagnostics.gaussianity_report(np.zeros((20, 2))).num_constant == 2
