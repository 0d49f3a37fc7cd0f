"""Results have the dtype of the embeddings, also where JAX is set to 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import diagnostics, losses

Z = np.random.default_rng(0).normal(size=(24, 3))
EYE = np.eye(3)
KEY = jax.random.key(0)


def _fit(z):
    return diagnostics.fit_gaussian(z)


EVERYTHING = {
    "norm_cv": diagnostics.norm_cv,
    "alignment_cosine": lambda z: diagnostics.alignment_cosine(z, z[::-1]),
    "uniformity_cosine": diagnostics.uniformity_cosine,
    "effective_rank": diagnostics.effective_rank,
    "retrieval_accuracy": lambda z: diagnostics.retrieval_accuracy(z, z),
    "retrieval_ranks": lambda z: diagnostics.retrieval_ranks(
        z, z, groups=jnp.zeros(24, int)
    ),
    "maximal_correlation": lambda z: diagnostics.maximal_correlation(z * z),
    "fit_gaussian": _fit,
    "whiten": lambda z: diagnostics.whiten(_fit(z), z),
    "log_likelihood": lambda z: diagnostics.log_likelihood(_fit(z), z),
    "mardia_kurtosis": diagnostics.mardia_kurtosis,
    "mardia": diagnostics.mardia,
    "henze_zirkler": diagnostics.henze_zirkler,
    "anderson_darling": diagnostics.anderson_darling,
    "corrected": lambda z: diagnostics.anderson_darling(z, corrected=True),
    "dagostino_pearson": diagnostics.dagostino_pearson,
    "gaussianity_report": lambda z: diagnostics.gaussianity_report(z)[:5],
    "directions": lambda z: diagnostics.gaussianity_report(
        z, directions=diagnostics.random_projections(KEY, 3, 4)
    )[:5],
    "uniformity_potential": diagnostics.uniformity_potential,
    "gaussian_logdet": lambda z: losses.norm_entropy_penalty(z, scale=0.5),
    "kde_loo": lambda z: losses.norm_entropy_penalty(z, scale=0.5, estimator="kde_loo"),
    "polar": lambda z: losses.norm_entropy_penalty(z, scale=0.5, estimator="polar"),
}


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_results_have_the_dtype_of_the_embeddings(name, dtype, x64):
    # Only traced, which costs nothing: dtypes are known then.
    result = jax.eval_shape(EVERYTHING[name], jax.ShapeDtypeStruct(Z.shape, dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(dtype)}


def test_every_diagnostic_of_embeddings_is_held_to_its_dtype():
    classes = {"Gaussian", "GaussianityReport", "HenzeZirkler", "Mardia"}
    classes |= {"MardiaKurtosis", "ANDERSON_DARLING_LIMIT"}
    others = {"gaussian_distance_bound", "gaussian_norm_cv", "log_sphere_potential"}
    others |= {"random_projections", "spectral_clusters"}  # have a dtype of their own
    assert set(diagnostics.__all__) - classes - others <= set(EVERYTHING)
