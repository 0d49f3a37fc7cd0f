"""InfoNCE Induces Gaussian Distribution: identities of its specification, by number.

alpha is the inverse temperature, u and v are directions of positive pairs, sigma is the
uniform distribution on the sphere, and log C(d, alpha) the least uniformity potential.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import jaxcl
from jaxcl import diagnostics, losses
from tests.diagnostics import oracles

ALPHA = 10.0


@functools.cache
def _gaussian(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def _sphere(n, d, seed=0):
    return oracles.unit(_gaussian(n, d, seed)).astype(np.float32)


def _views(x, correlation, seed):
    """Two views of x by a Gaussian channel."""
    fresh = np.random.default_rng(seed).normal(size=(2, *x.shape)).astype(np.float32)
    return correlation * x + np.float32(math.sqrt(1 - correlation**2)) * fresh


@functools.cache
def _directions(wide, d):
    return np.asarray(diagnostics.random_projections(jax.random.key(0), wide, wide))[
        :, :d
    ]


@jax.jit
def _info_nce(u, v, alpha=ALPHA):
    return losses.info_nce(u, v, temperature=1 / alpha).mean()


def _standard_error(x):
    return np.std(x, ddof=1) / math.sqrt(len(x))


def _tilted(d, kappa):
    """Mean length and divergence from sigma of a von Mises-Fisher distribution."""
    # The ratio of Bessel functions of order d / 2 and d / 2 - 1, as a continued
    # fraction: each of them may lie below float64.
    mean = 0.0
    for order in range(400, -1, -1):
        mean = 1 / ((d + 2 * order) / kappa + mean)
    return mean, kappa * mean - diagnostics.log_sphere_potential(d, kappa)


def test_01_decomposition():
    u, v = _gaussian(37, 6), _gaussian(37, 6) + _gaussian(37, 6, 1)
    s = ALPHA * oracles.unit(u) @ oracles.unit(v).T
    log_sums = special.logsumexp(s, axis=1).mean()
    cosine = diagnostics.alignment_cosine(u, v).mean()
    expected = -ALPHA * float(cosine) + log_sums
    np.testing.assert_allclose(_info_nce(u, v), expected, rtol=1e-6)


def test_02_collapse(x64):
    n = 7
    same = jnp.ones((n, 3))
    np.testing.assert_allclose(_info_nce(same, same), math.log(n), atol=1e-6)
    apart = jnp.eye(n)
    expected = math.log1p((n - 1) * math.exp(-ALPHA))
    np.testing.assert_allclose(_info_nce(apart, apart), expected, rtol=1e-12)


def test_03_invariances(x64):
    u, v = _gaussian(9, 4).astype(float), _gaussian(9, 4, 1).astype(float)
    rng = np.random.default_rng(2)
    radius = rng.uniform(0.1, 10, (2, 9, 1))
    rotation, order = np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.permutation(9)
    value = _info_nce(u, v)
    for x, y in (
        (radius[0] * u, radius[1] * v),
        (u @ rotation, v @ rotation),
        (u[order], v[order]),
    ):
        np.testing.assert_allclose(_info_nce(x, y), value, rtol=1e-12)
    u[4] = 0
    value, slope = jax.value_and_grad(_info_nce)(jnp.asarray(u), jnp.asarray(v))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("d", "alpha", "expected"),
    [
        (32, 10, 1.497904),
        (64, 10, 0.772274),
        (128, 10, 0.389460),
        (256, 10, 0.195165),
        (256, 5, 0.048819),
        (16, 2, 0.124146),
        (3, 2, 0.595220),
    ],
)
def test_04_least_potential(d, alpha, expected):
    exact = diagnostics.log_sphere_potential(d, alpha)
    np.testing.assert_allclose(exact, expected, atol=6e-7)
    scale = special.gammaln(d / 2) + (d / 2 - 1) * math.log(2 / alpha)
    bessel = scale + math.log(special.ive(d / 2 - 1, alpha)) + alpha
    np.testing.assert_allclose(exact, bessel, rtol=1e-9)
    if (d, alpha) == (32, 10):
        u, v = _sphere(4096, d), _sphere(4096, d, 1)
        sampled = diagnostics.uniformity_potential(u, v, temperature=1 / alpha)
        np.testing.assert_allclose(sampled, exact, atol=5e-3)


def test_05_potential_ordering():
    n, d, alpha = 4096, 32, 2.0
    potential = functools.partial(
        diagnostics.uniformity_potential, temperature=1 / alpha
    )
    least = diagnostics.log_sphere_potential(d, alpha)
    atom = np.zeros((n, d), np.float32)
    atom[:, 0] = 1
    np.testing.assert_allclose(potential(atom), alpha, rtol=1e-5)
    antipodal = atom * np.where(np.arange(n) % 2, -1, 1)[:, None].astype(np.float32)
    two = math.log(math.cosh(alpha))
    np.testing.assert_allclose(potential(antipodal), two, atol=4 / n)
    flat = np.pad(_sphere(n, 8), ((0, 0), (0, d - 8)))
    eight = diagnostics.log_sphere_potential(8, alpha)
    np.testing.assert_allclose(potential(flat), eight, atol=5e-3)
    np.testing.assert_allclose(potential(_sphere(n, d)), least, atol=5e-3)
    assert least < eight < two < alpha


def test_06_population_limit():
    d, correlation = 128, 0.6
    r = correlation**2
    limit = -ALPHA * r * (1 - (1 - r**2) / (2 * d))
    limit += diagnostics.log_sphere_potential(d, ALPHA)
    np.testing.assert_allclose(limit, -3.198, atol=5e-4)
    z1, z2 = _views(_gaussian(4096, d), correlation, 1)
    excess = []
    for n, expected in ((64, -2.83), (256, -3.09), (1024, -3.17), (4096, -3.196)):
        # Of the same examples in batches of n.
        batches = z1.reshape(-1, n, d)[:16], z2.reshape(-1, n, d)[:16]
        mean = np.mean([_info_nce(*pair) for pair in zip(*batches, strict=True)])
        excess.append(mean - math.log(n))
        tolerance = 0.03 if n >= 1024 else 0.08
        np.testing.assert_allclose(excess[-1], expected, atol=tolerance)
    assert excess == sorted(excess, reverse=True)
    assert abs(excess[-1] - limit) < 0.03


@pytest.mark.parametrize("d", [32, 128])
def test_07_gaussian_channel_alignment(d):
    n, wide, correlation = 4000, 160, 0.6
    projection = _directions(wide, d)
    z1, z2 = _views(_gaussian(n, wide), correlation, 1) @ projection
    cosines = diagnostics.alignment_cosine(z1, z2)
    r = correlation**2
    std = (1 - r**2) / math.sqrt(d)
    expected = r * (1 - (1 - r**2) / (2 * d))
    tolerance = 4 * std / math.sqrt(n) + 0.003
    np.testing.assert_allclose(cosines.mean(), expected, atol=tolerance)
    np.testing.assert_allclose(cosines.std(), std, rtol=0.05)


@pytest.mark.parametrize("bias", [0.0, 0.5, 3.0])
def test_08_alignment_bound(bias):
    n, q = 20_000, 0.6
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 16)).astype(np.float32)

    def encode(x):
        return np.tanh(x @ mixing) + np.float32(bias)

    x = _gaussian(n, 8)
    keep = rng.uniform(size=(2, n, 1)) < q
    z1, z2 = encode(np.where(keep, x, rng.normal(size=(2, n, 8)).astype(np.float32)))
    cosines = np.asarray(diagnostics.alignment_cosine(z1, z2))
    # The product of independent means has no bias.
    fresh = [oracles.unit(encode(_gaussian(n, 8, seed))) for seed in (1, 2)]
    mean, other = (u.mean(0) for u in fresh)
    squared = mean @ other
    error = math.hypot(_standard_error(cosines), 2 * _standard_error(fresh[0] @ other))
    bound = q**2 + (1 - q**2) * squared
    assert abs(cosines.mean() - bound) < 4 * error
    # A Gaussian channel of the same mildness attains at most that.
    z1, z2 = encode(_views(x, q, 3))
    below = np.asarray(diagnostics.alignment_cosine(z1, z2))
    assert below.mean() <= bound + 4 * error


def test_09_maximal_correlation(x64):
    def rho(joint):
        return float(jax.jit(diagnostics.maximal_correlation)(joint))

    for p in (0.0, 0.1, 0.5, 0.8):
        channel = np.array([[1 - p, p], [p, 1 - p]]) / 2
        np.testing.assert_allclose(rho(channel), abs(1 - 2 * p), atol=1e-12)
    rng = np.random.default_rng(0)
    x, y = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(5))
    assert rho(np.outer(x, y)) < 1e-12
    # On a chain X - Y - Z the correlation of the ends is at most the product.
    to_y, to_z = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(3), 5)
    of_y = x @ to_y
    ends = x[:, None] * (to_y @ to_z)
    product = rho(x[:, None] * to_y) * rho(of_y[:, None] * to_z)
    assert 0 < rho(ends) <= product
    # Views X, Y of X0: their correlation is at most the squared one with X0.
    views = to_y.T @ (x[:, None] * to_y)
    assert rho(views) <= rho(x[:, None] * to_y) ** 2 + 1e-12


def test_10_sphere_coordinates():
    n, d = 20_000, 16
    u = _sphere(n, d).astype(float)
    np.testing.assert_allclose(u.mean(0), 0, atol=5 / math.sqrt(n * d))
    np.testing.assert_allclose(u.var(0), 1 / d, rtol=5 * math.sqrt(2 / n))
    excess = stats.kurtosis(u, axis=0)
    np.testing.assert_allclose(excess, -6 / (d + 2), atol=4 * math.sqrt(24 / n))
    assert diagnostics.gaussian_distance_bound(64, 4) == 2 * 7 / 57
    with pytest.raises(ValueError, match="k must be at most"):
        diagnostics.gaussian_distance_bound(64, 61)


@pytest.mark.slow
def test_11_cosines_of_independent_directions():
    n, d, t = 2048, 32, 2.0
    u = _sphere(n, d)
    mean, std = diagnostics.uniformity_cosine(u)
    # The mean over pairs has variance 2 / (n^2 d).
    np.testing.assert_allclose(mean, 0, atol=4 * math.sqrt(2 / d) / n)
    np.testing.assert_allclose(std, 1 / math.sqrt(d), rtol=0.01)
    got = special.logsumexp(losses.uniformity(u, t)) - math.log(n)
    expected = -2 * t + diagnostics.log_sphere_potential(d, 2 * t)
    np.testing.assert_allclose(got, expected, atol=5e-3)


@pytest.mark.parametrize(
    ("d", "expected"),
    [
        (32, 0.12548),
        (64, 0.08856),
        (128, 0.06256),
        (256, 0.04422),
        (512, 0.03126),
        (768, 0.02552),
    ],
)
def test_12_variation_of_norms(d, expected):
    exact = diagnostics.gaussian_norm_cv(d)
    np.testing.assert_allclose(exact, expected, atol=6e-6)
    np.testing.assert_allclose(exact, 1 / math.sqrt(2 * d), rtol=1 / d)
    if d == 64:
        got = diagnostics.norm_cv(_gaussian(5000, d))
        np.testing.assert_allclose(got, exact, rtol=4 / math.sqrt(2 * 5000))
        np.testing.assert_allclose(diagnostics.norm_cv(_sphere(500, d)), 0, atol=1e-6)


def test_13_thin_shell_is_needed():
    n, d = 5000, 256

    def excess_of(moments):
        return 3 * d / (d + 2) * moments - 3

    for cv in (0.1, 0.5):
        radius = stats.lognorm(math.sqrt(math.log1p(cv**2)))
        np.testing.assert_allclose(radius.std() / radius.mean(), cv, rtol=1e-12)
        ratio = radius.moment(4) / radius.moment(2) ** 2
        np.testing.assert_allclose(ratio, (1 + cv**2) ** 4, rtol=1e-12)
    thin = 1 / math.sqrt(2 * d)
    assert abs(excess_of((1 + thin**2) ** 4)) < 2e-4
    assert abs(excess_of(1.1**4) - 3 * (1.1**4 - 1)) < 0.04  # 12 cv^2 - 6 / d at first
    u = _sphere(n, d)
    for cv, passing in ((0.5, (0, 0.02)), (thin, (0.9, 0.99))):
        sigma = math.sqrt(math.log1p(cv**2))
        normal = np.random.default_rng(1).normal(size=(n, 1))
        z = (np.exp(sigma * normal) * u).astype(np.float32)
        excess = ((z**4).mean(0) / (z**2).mean(0) ** 2).mean() - 3
        moments = np.mean(np.exp(4 * sigma * normal))
        moments /= np.mean(np.exp(2 * sigma * normal)) ** 2
        # Of the radii drawn, whose fourth moment is noisy; columns average the rest.
        np.testing.assert_allclose(excess, excess_of(moments), atol=0.05)
        report = diagnostics.gaussianity_report(z)
        assert passing[0] <= report.ad_pass <= passing[1]
        assert passing[0] <= report.dp_pass <= passing[1]


def test_14_penalty_is_a_divergence(x64):
    n, d, scale = 40, 8, 0.5
    z = _gaussian(n, d).astype(float) @ np.diag(np.linspace(0.5, 2, d)) + 0.3
    penalty = jax.jit(
        functools.partial(losses.norm_entropy_penalty, scale=scale, ridge=0.0)
    )
    least = -d / 2 * math.log(math.pi / scale)
    np.testing.assert_allclose(least, -7.351508, atol=5e-7)
    mean, covariance = z.mean(0), np.cov(z.T, ddof=0)
    # To a Gaussian of covariance I / (2 scale).
    divergence = 2 * scale * (np.trace(covariance) + mean @ mean) - d
    divergence -= np.linalg.slogdet(2 * scale * covariance)[1]
    assert divergence > 0
    np.testing.assert_allclose(penalty(z) - least, divergence / 2, rtol=1e-12)
    whitened = diagnostics.whiten(diagnostics.fit_gaussian(z, ridge=0.0), z)
    matched = whitened / math.sqrt(2 * scale)
    np.testing.assert_allclose(penalty(matched), least, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(penalty)(matched), 0, atol=1e-12)


def test_15_radial_law():
    n, d, scale = 5000, 24, 2.0
    r = np.linalg.norm(_gaussian(n, d).astype(float), axis=1) / math.sqrt(2 * scale)
    assert stats.kstest(scale * r**2, stats.gamma(d / 2).cdf).pvalue > 0.01
    grid = np.linspace(0.01, 6, 60_000)
    mode = grid[np.argmax((d - 1) * np.log(grid) - scale * grid**2)]
    np.testing.assert_allclose(mode, math.sqrt((d - 1) / (2 * scale)), atol=1e-4)
    # In bins of 0.1 the fullest is near the mode.
    counts, edges = np.histogram(r, np.arange(0, 6, 0.1))
    assert abs(edges[np.argmax(counts)] + 0.05 - mode) < 0.2


@pytest.mark.parametrize(
    ("d", "kappa", "expected", "bound"),
    [
        (16, 5, 0.69437, 0.66801),
        (128, 5, 0.09744, 0.09736),
        (128, 50, 8.09151, 7.60710),
        (4, 5, 1.32105, 1.03490),
    ],
)
def test_16_lemma_1(d, kappa, expected, bound):
    mean, divergence = _tilted(d, kappa)
    np.testing.assert_allclose(divergence, expected, atol=6e-6)
    np.testing.assert_allclose(d / 2 * mean**2, bound, atol=6e-6)
    assert divergence >= d / 2 * mean**2
    for t in (0.1, 1.0, 10.0, 100.0):
        assert diagnostics.log_sphere_potential(d, t) <= t**2 / (2 * d)


def test_17_theorem_1_sign():
    eta = 0.36

    def threshold(d):
        return 2 * ALPHA * (1 - eta) / d

    def margin(d, kappa, beta):
        mean, divergence = _tilted(d, kappa)
        return beta * divergence - ALPHA * (1 - eta) * mean**2

    table = ((0.5, 1.2e-8), (2.0, 3.0e-6), (10.0, 1.7e-3), (50.0, 0.358))
    for kappa, expected in table:
        got = margin(64, kappa, threshold(64))
        np.testing.assert_allclose(got, expected, rtol=0.05)
    for d in (8, 64, 512):
        for kappa in np.geomspace(0.1, 300, 20):
            # Near zero the two sides agree to fourth order: rounding remains.
            assert margin(d, kappa, threshold(d)) > -1e-15
        assert margin(d, 0.5, threshold(d) / 2) < 0
        np.testing.assert_allclose(threshold(d) * d, threshold(1), rtol=1e-15)


def test_18_golden_statistics(x64):
    at = (np.arange(1, 102) - 0.5) / 101
    laws = (stats.expon, stats.laplace, stats.uniform, stats.norm)
    x = np.stack([law.ppf(at) for law in laws], axis=1)
    a2 = diagnostics.anderson_darling(x)
    expected = 4.635627, 0.919955, 1.094761, 0.011447
    np.testing.assert_allclose(a2, expected, atol=6e-7)
    k2, p = diagnostics.dagostino_pearson(x)
    np.testing.assert_allclose(k2[0], 46.083782, rtol=1e-5)
    np.testing.assert_allclose(p[0], 9.8409e-11, rtol=1e-5)
    moved = -7.0 + 0.01 * x
    np.testing.assert_allclose(diagnostics.anderson_darling(moved), a2, rtol=1e-8)
    np.testing.assert_allclose(diagnostics.dagostino_pearson(moved)[0], k2, rtol=1e-8)


def test_19_calibration_and_power():
    report = diagnostics.gaussianity_report(_gaussian(2000, 500))
    assert 0.36 <= report.ad_mean <= 0.42
    assert 0.92 <= report.ad_pass <= 0.98
    assert 0.92 <= report.dp_pass <= 0.98
    assert 0.45 <= report.dp_mean <= 0.55
    rng = np.random.default_rng(0)
    heavy = rng.laplace(size=(500, 500)), rng.standard_t(5, size=(500, 500))
    x = np.concatenate(heavy, axis=1).astype(np.float32)
    a2 = np.split(np.asarray(diagnostics.anderson_darling(x)), 2)
    for values, expected in zip(a2, (5.2, 2.7), strict=True):
        tolerance = 4 * _standard_error(values)
        np.testing.assert_allclose(values.mean(), expected, atol=tolerance)
    _, p = diagnostics.dagostino_pearson(x)
    assert p[:500].mean() < 0.01


@pytest.mark.slow
def test_19_power_against_the_sphere():
    table = {
        16: (3.23, 0.0, 0.0, 0.0),
        32: (1.05, 0.22, 0.004, 0.0),
        64: (0.52, 0.84, 0.22, 0.66),
        128: (0.44, 0.88, 0.39, 0.84),
        256: (0.40, 0.93, 0.47, 0.96),
    }
    x = np.concatenate([_sphere(10_000, d) for d in table], axis=1)
    a2 = np.asarray(diagnostics.anderson_darling(x))
    p = np.asarray(diagnostics.dagostino_pearson(x)[1])
    start = 0
    for d, expected in table.items():
        own = slice(start, start + d)
        columns = a2[own], a2[own] < 0.752, p[own], p[own] > 0.05
        for values, value in zip(columns, expected, strict=True):
            # The table is one sample too, and rounded; a share of d columns tells no
            # more than 1 / d.
            error = math.sqrt(2) * max(_standard_error(values), 1 / (4 * d))
            np.testing.assert_allclose(values.mean(), value, atol=4 * error + 0.005)
        start += d


@pytest.mark.slow
def test_20_laplace_views():
    n, wide, d = 600, 512, 128
    projection = _directions(wide, d)
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(n, wide)).astype(np.float32)

    def alignment(correlation, jitter):
        z = _views(x, correlation, 1)
        if jitter:
            z = z + np.float32(0.2) * rng.normal(size=z.shape).astype(np.float32)
            z = np.where(rng.uniform(size=z.shape) < 0.1, 0, z)
            z = z * np.exp(0.1 * rng.normal(size=(2, n, 1))).astype(np.float32)
        return diagnostics.alignment_cosine(*(z @ projection)).mean()

    np.testing.assert_allclose(alignment(0.6, jitter=False), 0.529, atol=0.02)
    for correlation, expected in ((0.2, 0.067), (0.6, 0.463), (0.8, 0.686)):
        squared = correlation**2
        formula = 0.9 * 2 * squared / (1 + squared + 0.04)
        np.testing.assert_allclose(formula, expected, atol=6e-4)
        np.testing.assert_allclose(alignment(correlation, True), formula, atol=0.02)


@pytest.mark.parametrize(("wide", "d"), [(512, 128), (256, 256)])
def test_21_laplace_projection(wide, d):
    n, share = 5000, d / wide
    x = np.random.default_rng(0).laplace(size=(n, wide)).astype(np.float32)
    projection = _directions(wide, d)
    z = x @ projection
    cv = 0.25 * math.sqrt((12 * share + 8) / d)
    np.testing.assert_allclose(diagnostics.norm_cv(z), cv, rtol=4 / math.sqrt(2 * n))
    # A coordinate is Laplace by a sum of fourth powers of its direction.
    excess = 3 * (projection**4).sum(0).mean()
    np.testing.assert_allclose(excess, 9 / wide, rtol=0.03)
    noise = math.sqrt(24 / n / d)
    np.testing.assert_allclose(stats.kurtosis(z).mean(), excess, atol=4 * noise)
    # The data are isotropic, so the true covariance is known: twice the identity.
    isotropic = diagnostics.Gaussian(jnp.zeros(d), 2 * jnp.ones(d), jnp.eye(d))
    of_embeddings = np.asarray(diagnostics.log_likelihood(isotropic, z), float)
    of_data = -np.abs(x).sum(1, dtype=float) - wide * math.log(2)
    expected = 4 * share / math.sqrt(12 * share**2 + 8 * share)
    got = np.corrcoef(of_data, of_embeddings)[0, 1]
    np.testing.assert_allclose(got, expected, atol=0.03)


def _quantities(u, v, axis_name=None, exchange="gather", impl="reference"):
    options = {"axis_name": axis_name, "exchange": exchange, "impl": impl}
    info_nce = losses.info_nce(u, v, **options)
    mean, std = diagnostics.uniformity_cosine(u, **options)
    return {
        "info_nce": jaxcl.mean(info_nce, axis_name=axis_name),
        "potential": diagnostics.uniformity_potential(u, v, **options),
        "penalty": losses.norm_entropy_penalty(
            u, scale=0.5, estimator="kde_loo", **options
        ),
        "mean": mean,
        "std": std,
    }


def _values_and_gradients(quantities):
    u = jnp.asarray(_gaussian(48, 6))
    v = u + jnp.asarray(_gaussian(48, 6, 1))

    def total(u, v):
        values = quantities(u, v)
        return sum(values.values()), values

    of = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, values), gradients = of(u, v)
    return values, gradients


@functools.cache
def _dense():
    return _values_and_gradients(_quantities)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["gather", "ring"])
def test_22_sharded_equals_dense(exchange):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    options = {"axis_name": "data", "exchange": exchange, "impl": "tiled"}
    split = jax.shard_map(
        functools.partial(_quantities, **options),
        mesh=mesh,
        in_specs=jax.P("data"),
        out_specs=jax.P(),
    )
    values, gradients = _values_and_gradients(split)
    expected, dense = _dense()
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
    for got, wanted in zip(gradients, dense, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
