"""Diagnostics in float64 NumPy, from their formulas."""

import numpy as np
from scipy import stats


def unit(z):
    z = np.asarray(z, np.float64)
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(norm > 0, norm, 1)


def norm_cv(z):
    r = np.linalg.norm(np.asarray(z, np.float64), axis=1)
    return r.std() / r.mean()


def uniformity_cosine(z):
    cosines = (unit(z) @ unit(z).T)[~np.eye(len(z), dtype=bool)]
    return cosines.mean(), cosines.std()


def effective_rank(z):
    s = np.linalg.svd(np.asarray(z, np.float64), compute_uv=False)
    p = s[s > 0] / s.sum()
    return np.exp(-(p * np.log(p)).sum())


def retrieval_accuracy(queries, keys, k):
    found = 0
    for i, row in enumerate(unit(queries) @ unit(keys).T):
        found += i in np.argsort(-row)[:k]
    return found / len(queries)


def retrieval_ranks(queries, keys, query_groups, key_groups):
    """How many wrong keys are ahead of the best right one; infinite without any."""
    ranks = []
    for row, group in zip(unit(queries) @ unit(keys).T, query_groups, strict=True):
        right = np.asarray(key_groups) == group
        best = row[right].max() if right.any() else np.nan
        ranks.append((row[~right] >= best).sum() if right.any() else np.inf)
    return np.array(ranks)


def anderson_darling(x):
    x = np.asarray(x, np.float64)
    y = np.sort((x - x.mean(0)) / x.std(0, ddof=1), axis=0)
    n = len(x)
    i = np.arange(1, n + 1)[:, None]
    both = stats.norm.logcdf(y) + stats.norm.logsf(y[::-1])
    return -n - ((2 * i - 1) / n * both).sum(0)


def potential(z, keys, temperature):
    s = unit(z) @ unit(keys).T / temperature
    off = ~np.eye(len(z), dtype=bool)
    rows = [np.log(np.exp(row[keep]).mean()) for row, keep in zip(s, off, strict=True)]
    return np.mean(rows)


def whitened_products(z):
    """y_i . y_j of whitened rows: Mahalanobis inner products."""
    z = np.asarray(z, np.float64)
    centered = z - z.mean(0)
    return centered @ np.linalg.solve(
        np.cov(z.T, ddof=0).reshape(2 * z.shape[1:]), centered.T
    )


def mardia(z):
    """Skewness, its statistic and p, kurtosis, its statistic and p."""
    n, d = z.shape
    g = whitened_products(z)
    skewness, kurtosis = (g**3).mean(), (np.diag(g) ** 2).mean()
    # Mardia 1974: exact means of both in a Gaussian sample, and the variance of one.
    usual = d * (d + 2) * ((n + 1) * (d + 1) - 6) / ((n + 1) * (n + 3))
    chi = skewness / usual * (d * (d + 1) * (d + 2) / 6)
    mean = d * (d + 2) * (n - 1) / (n + 1)
    variance = 8 * d * (d + 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    score = (kurtosis - mean) / np.sqrt(variance * (n - d - 1) * (n - d + 1))
    chi_p = stats.chi2.sf(chi, d * (d + 1) * (d + 2) / 6)
    return skewness, chi, chi_p, kurtosis, score, 2 * stats.norm.sf(abs(score))


def henze_zirkler(z):
    """Statistic and p; beta as in the paper, not its square."""
    n, d = z.shape
    g = whitened_products(z)
    squared = np.diag(g)
    distance = squared[:, None] + squared[None, :] - 2 * g
    beta = ((2 * d + 1) * n / 4) ** (1 / (d + 4)) / np.sqrt(2)
    statistic = n * (
        np.exp(-(beta**2) / 2 * distance).mean()
        - 2
        * (1 + beta**2) ** (-d / 2)
        * np.exp(-(beta**2) / (2 * (1 + beta**2)) * squared).mean()
        + (1 + 2 * beta**2) ** (-d / 2)
    )
    a, w = 1 + 2 * beta**2, (1 + beta**2) * (1 + 3 * beta**2)
    mean = 1 - a ** (-d / 2) * (
        1 + d * beta**2 / a + d * (d + 2) * beta**4 / (2 * a**2)
    )
    variance = (
        2 * (1 + 4 * beta**2) ** (-d / 2)
        + 2
        * a ** (-d)
        * (1 + 2 * d * beta**4 / a**2 + 3 * d * (d + 2) * beta**8 / (4 * a**4))
        - 4
        * w ** (-d / 2)
        * (1 + 3 * d * beta**4 / (2 * w) + d * (d + 2) * beta**8 / (2 * w**2))
    )
    log_mean = np.log(mean**2 / np.sqrt(variance + mean**2))
    log_std = np.sqrt(np.log(1 + variance / mean**2))
    return statistic, stats.norm.sf((np.log(statistic) - log_mean) / log_std)
