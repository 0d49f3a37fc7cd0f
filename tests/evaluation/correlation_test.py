import numpy as np
import pytest
from scipy import stats

from jaxcl import evaluation

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("levels", [4, 1000])
def test_ranks_and_ties_are_those_of_scipy(levels):
    x = RANDOM.integers(0, levels, 60).astype(float)
    y = x + RANDOM.normal(0, levels / 3, 60)
    expected = stats.spearmanr(x, y).statistic
    np.testing.assert_allclose(evaluation.spearman(x, y), expected, rtol=1e-12)
    assert evaluation.spearman(x, -x) == -1
    assert np.isnan(evaluation.spearman(x, np.ones(60)))


def test_pairs_are_ranked_by_cosine_all_at_once():
    first, second = RANDOM.normal(size=(2, 30, 5)).astype(np.float32)
    second[4] = 0
    scores = RANDOM.uniform(0, 5, 30).astype(np.float32)
    cosines = []
    for a, b in zip(first.astype(float), second.astype(float), strict=True):
        length = np.sqrt((a**2).sum() * (b**2).sum())
        cosines.append((a * b).sum() / length if length else 0.0)
    expected = stats.spearmanr(cosines, scores).statistic
    got = evaluation.pair_correlation(first, second, scores)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    scaled = evaluation.pair_correlation(7 * first, second, scores)
    np.testing.assert_allclose(scaled, got, rtol=1e-12)


def test_wrong_numbers_are_refused():
    ok = np.arange(3.0)
    with pytest.raises(ValueError, match="x and y must have one length, got 3 and 2"):
        evaluation.spearman(ok, ok[:2])
    with pytest.raises(ValueError, match="y must be two or more finite numbers"):
        evaluation.spearman(ok, np.array([0, np.nan, 1]))
    with pytest.raises(ValueError, match="first and second must have one shape"):
        evaluation.pair_correlation(np.ones((3, 2)), np.ones((3, 3)), ok)
