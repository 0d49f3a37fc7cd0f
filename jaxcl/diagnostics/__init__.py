"""Diagnostics: what embeddings look like, and how Gaussian their distribution is."""

from jaxcl.diagnostics.clusters import spectral_clusters
from jaxcl.diagnostics.correlation import maximal_correlation
from jaxcl.diagnostics.geometry import (
    alignment_cosine,
    effective_rank,
    norm_cv,
    retrieval_accuracy,
    retrieval_ranks,
    uniformity_cosine,
)
from jaxcl.diagnostics.multivariate import (
    Gaussian,
    HenzeZirkler,
    Mardia,
    MardiaKurtosis,
    fit_gaussian,
    henze_zirkler,
    log_likelihood,
    mardia,
    mardia_kurtosis,
    whiten,
)
from jaxcl.diagnostics.normality import (
    ANDERSON_DARLING_LIMIT,
    GaussianityReport,
    anderson_darling,
    dagostino_pearson,
    gaussianity_report,
    random_projections,
)
from jaxcl.diagnostics.sphere import (
    gaussian_distance_bound,
    gaussian_norm_cv,
    log_sphere_potential,
    uniformity_potential,
)

__all__ = [
    "ANDERSON_DARLING_LIMIT",
    "Gaussian",
    "GaussianityReport",
    "HenzeZirkler",
    "Mardia",
    "MardiaKurtosis",
    "alignment_cosine",
    "anderson_darling",
    "dagostino_pearson",
    "effective_rank",
    "fit_gaussian",
    "gaussian_distance_bound",
    "gaussian_norm_cv",
    "gaussianity_report",
    "henze_zirkler",
    "log_likelihood",
    "log_sphere_potential",
    "mardia",
    "mardia_kurtosis",
    "maximal_correlation",
    "norm_cv",
    "random_projections",
    "retrieval_accuracy",
    "retrieval_ranks",
    "spectral_clusters",
    "uniformity_cosine",
    "uniformity_potential",
    "whiten",
]
