"""Norms, quantiles and cosines are drawn where they are."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxcl.pictures import embeddings, style
from tests.pictures import legible

N, D = 3000, 12


def rows(seed, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((N, D))


def panel(draw, *arguments, **options):
    figure = style.blank(5.4, 3.8)
    axes = figure.subplots()
    draw(axes, *arguments, **options)
    style.legend_above(axes)
    legible.check(figure)
    return axes


def line(axes, label):
    (found,) = [x for x in axes.lines if x.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def bars(axes):
    return {patch.get_label(): patch.get_data() for patch in axes.patches}


@pytest.mark.parametrize("relative", [False, True])
def test_norms_of_gaussian_rows_fill_the_density_beside_them(relative):
    norms = np.linalg.norm(rows(0, 3.0), axis=1)
    several = [embeddings.Values(norms, "#332288", "norms")]
    axes = panel(embeddings.norms, several, D, relative=relative)
    x, density = line(axes, "isotropic Gaussian")
    np.testing.assert_allclose(integrate.trapezoid(density, x), 1, atol=1e-3)
    scale = np.sqrt((norms**2).mean()) if relative else 1.0
    mean = integrate.trapezoid(x * density, x)
    # The root mean square is known to 1 / sqrt(2 n d), the mean norm less well.
    np.testing.assert_allclose(mean, norms.mean() / scale, rtol=0.02)
    counts, edges, _ = bars(axes)["norms"]
    middle = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose((counts * np.diff(edges)).sum(), 1, atol=2e-3)
    expected = np.interp(middle, x, density)
    error = np.sqrt(expected / N / np.diff(edges)) + 0.02 * density.max()
    assert (np.abs(counts - expected) < 4 * error).all()


def test_the_farthest_norms_are_counted_and_do_not_squeeze_the_rest():
    norms = np.linalg.norm(rows(0), axis=1)
    norms[0] = 100
    axes = panel(embeddings.norms, [embeddings.Values(norms, "red", "norms")], D)
    low, high = axes.get_xlim()
    assert high < 15
    outside = ((norms < low) | (norms > high)).sum()
    assert 1 <= outside <= 4
    assert f"({outside} of 3,000 lie outside)" in axes.get_xlabel()


def test_norms_of_several_are_drawn_in_one_unit():
    several = [
        embeddings.Values(np.linalg.norm(rows(i, s), axis=1), c, f"{s}")
        for i, (s, c) in enumerate(((1.0, "red"), (50.0, "blue")))
    ]
    axes = panel(embeddings.norms, several, D, relative=True)
    for counts, edges, _ in bars(axes).values():
        middle = (edges[1:] + edges[:-1]) / 2
        mean = (middle * counts).sum() / counts.sum()
        np.testing.assert_allclose(mean, 1, atol=0.05)


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("n", [20, 5000])
def test_normal_scores_lie_on_the_line_and_inside_the_band(n, differences):
    scores = special.ndtri((np.arange(n) + 0.5) / n)
    several = [
        embeddings.Values(np.random.default_rng(0).permutation(scores), "red", "x")
    ]
    axes = panel(embeddings.quantiles, several, differences=differences)
    x, y = line(axes, "x")
    np.testing.assert_allclose(y, 0 * x if differences else x, atol=1e-12)
    np.testing.assert_allclose(x[[0, -1]], scores[[0, -1]])
    assert len(x) == min(n, len(x)) <= 400


def test_a_difference_is_the_value_minus_the_normal_quantile():
    values = np.random.default_rng(0).laplace(size=501)
    several = [embeddings.Values(values, "red", "x")]
    x, plain = line(panel(embeddings.quantiles, several), "x")
    _, off = line(panel(embeddings.quantiles, several, differences=True), "x")
    np.testing.assert_allclose(off, plain - x)
    assert plain[0] == values.min()
    assert plain[-1] == values.max()


def test_the_band_holds_95_of_100_normal_values_at_each_place():
    n = 50
    samples = np.sort(np.random.default_rng(0).standard_normal((4000, n)), axis=1)
    several = [embeddings.Values(samples[0], "red", "x")]
    axes = panel(embeddings.quantiles, several, differences=True)
    low, high = (np.asarray(edge.get_ydata()) for edge in axes.lines[1:])
    inside = samples - special.ndtri((np.arange(n) + 0.5) / n)
    share = ((inside > low) & (inside < high)).mean(axis=0)
    # Four standard errors.
    assert (np.abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)).all()


def test_standardized_columns_leave_out_constant_ones():
    z = rows(0, 3.0) + 5
    z[:, 4] = 2.0
    found = embeddings.standardized(z)
    np.testing.assert_allclose(found, stats.zscore(np.delete(z, 4, axis=1)))


def test_cosines_of_uniform_directions_fill_the_density_beside_them():
    z = rows(0)[:1000]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosine = (z @ z.T)[np.triu_indices(len(z), 1)]
    counts = np.histogram(cosine, 40, (-1, 1))[0]
    several = [embeddings.Values(counts, "#332288", "pairs")]
    axes = panel(embeddings.cosines, several, D)
    x, density = line(axes, "uniform directions")
    heights, edges, _ = bars(axes)["pairs"]
    np.testing.assert_allclose(integrate.trapezoid(density, x), 1, atol=1e-3)
    np.testing.assert_allclose((heights * np.diff(edges)).sum(), 1)
    middle = (edges[1:] + edges[:-1]) / 2
    expected = np.interp(middle, x, density)
    assert np.abs(heights - expected).max() < 0.05 * density.max()
    low, high = axes.get_xlim()
    assert low <= cosine.min() + 0.05
    assert high >= cosine.max() - 0.05


def test_all_cosines_are_seen_however_narrow_they_are():
    counts = np.zeros(200)
    counts[190] = 7
    axes = panel(embeddings.cosines, [embeddings.Values(counts, "red", "x")], 400)
    low, high = axes.get_xlim()
    assert low <= -4 / 20
    assert high >= 0.91
