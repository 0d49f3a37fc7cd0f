"""Results have the dtype of the embeddings, also where JAX is set to 64 bits.

Everything is only traced: dtypes are known then, and nothing is compiled.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import diagnostics, evaluation, graphs, kernels, losses, pairwise, training
from jaxcl.augment import images
from tests.losses import cases

N, D = 24, 4
KEY = jax.random.key(0)
LABELS = np.arange(N) % 5
# Strict promotion shows numbers of NumPy, which are float64 and stay it.
POTENTIAL = pairwise.Reduction("logsumexp", graphs.others)
KERNELS = {
    "cosine": kernels.cosine(np.float64(0.5)),
    "dot": kernels.dot(np.float64(0.5)),
    "gaussian": kernels.gaussian(np.float64(0.5)),
    "laplacian": kernels.laplacian(np.float64(0.5)),
    "exponential": kernels.exponential(np.float64(2.5), np.float64(0.5)),
    "arc_cosine": kernels.arc_cosine(1, np.float64(0.5)),
    "kernel_sum": kernels.kernel_sum(
        kernels.gaussian(0.5), kernels.dot(), weights=np.array([0.5, 0.5])
    ),
    "concatenation_sum": kernels.concatenation_sum(
        kernels.laplacian(0.5), kernels.arc_cosine(0), weights=np.array([0.5, 0.5])
    ),
}


def two_views(z):
    return z.reshape(N // 2, 2, D)


def weights(z):
    """Of a graph [n, n]."""
    return jnp.square(z @ z.T)


def name_of(case):
    """Of the public function that a case calls, and of the case."""
    called = {*case.loss.__code__.co_names}
    closed_over = inspect.getclosurevars(case.loss).nonlocals.values()
    called |= {getattr(value, "__name__", "") for value in closed_over}
    return f"losses.{(called & set(losses.__all__)).pop()}:{case.name}"


def of_case(case):
    """A loss of the table of all losses, of arrays in the dtype of z."""

    def loss(z):
        arrays, _, constants = cases.numbers(case, z.dtype)
        arrays = {name: x + z[0, 0] for name, x in arrays.items()}
        parameters = {name: np.float64(p) for name, p in case.parameters.items()}
        return case.loss({**arrays, **constants}, parameters)

    return loss


def of_laws(function):
    """Of a distribution [k] and a transition matrix [k, k]."""
    return lambda z: function(
        graphs.row_normalize(weights(z))[0], graphs.row_normalize(weights(z))
    )


def fit(z):
    return diagnostics.fit_gaussian(z)


# What is tested, by module and name, and after a colon how: functions of z [n, d].
OF_CASES = {
    name_of(case): of_case(case)
    for case in cases.CASES
    # Kernels are told apart below.
    if not case.name.startswith("kernel_info_nce") or case in cases.KINDS
}
OF_KINDS = {name_of(case) for case in cases.KINDS}
# In these, embeddings are compared in float32, or in float64 if they came in that.
COMPARED = {
    **OF_CASES,
    "losses.alignment": lambda z: losses.alignment(two_views(z), np.float64(1.5)),
    **{
        f"losses.norm_entropy_penalty:{estimator}": (
            lambda z, estimator=estimator: losses.norm_entropy_penalty(
                z, scale=np.float64(0.5), ridge=np.float64(0.1), estimator=estimator
            )
        )
        for estimator in ("gaussian_logdet", "kde_loo", "polar")
    },
    **{
        f"kernels.{name}": lambda z, kernel=kernel: kernel(z, z[::-1])
        for name, kernel in KERNELS.items()
    },
    "kernels.log_kernel": lambda z: kernels.log_kernel(KERNELS["gaussian"], z, z),
    "kernels.matched": lambda z: kernels.matched(KERNELS["gaussian"], z, z[::-1]),
    "kernels.matched_views": lambda z: kernels.matched_views(
        KERNELS["laplacian"], two_views(z)
    ),
    "pairwise.reduce_pairs": lambda z: pairwise.reduce_pairs(
        graphs.labelled(z, LABELS), kernel=KERNELS["dot"], reductions=(POTENTIAL,)
    ),
    "pairwise.reduce_pairs:reference": lambda z: pairwise.reduce_pairs(
        graphs.labelled(z, LABELS),
        kernel=KERNELS["dot"],
        reductions=(POTENTIAL,),
        impl="reference",
    ),
    "graphs.row_normalize": lambda z: graphs.row_normalize(weights(z)),
    "graphs.similarity_graph": lambda z: graphs.similarity_graph(weights(z)),
    "graphs.laplacian": lambda z: graphs.laplacian(weights(z)),
    "graphs.symmetrize": lambda z: graphs.symmetrize(weights(z)),
    "graphs.without_loops": lambda z: graphs.without_loops(weights(z)),
    "graphs.pair_graph": lambda z: graphs.pair_graph(weights(z)),
    "graphs.rewritten_pair_graph": lambda z: graphs.rewritten_pair_graph(weights(z), 2),
    "graphs.augmentation_graph": lambda z: graphs.augmentation_graph(weights(z)),
    "graphs.pair_distributions": of_laws(graphs.pair_distributions),
    "graphs.infonce_target": of_laws(lambda p, a: graphs.infonce_target(p, a, 8)),
    "graphs.sc_infonce_target": of_laws(
        lambda p, a: graphs.sc_infonce_target(
            p, a, 8, alpha=np.float64(1.5), beta=np.float64(0.5)
        )
    ),
    "diagnostics.norm_cv": diagnostics.norm_cv,
    "diagnostics.alignment_cosine": lambda z: diagnostics.alignment_cosine(z, z[::-1]),
    "diagnostics.uniformity_cosine": diagnostics.uniformity_cosine,
    "diagnostics.effective_rank": diagnostics.effective_rank,
    "diagnostics.retrieval_accuracy": lambda z: diagnostics.retrieval_accuracy(z, z),
    "diagnostics.retrieval_ranks": lambda z: diagnostics.retrieval_ranks(z, z),
    "diagnostics.maximal_correlation": lambda z: diagnostics.maximal_correlation(
        weights(z)
    ),
    "diagnostics.fit_gaussian": fit,
    "diagnostics.whiten": lambda z: diagnostics.whiten(fit(z), z),
    "diagnostics.log_likelihood": lambda z: diagnostics.log_likelihood(fit(z), z),
    "diagnostics.mardia_kurtosis": diagnostics.mardia_kurtosis,
    "diagnostics.mardia": diagnostics.mardia,
    "diagnostics.henze_zirkler": diagnostics.henze_zirkler,
    "diagnostics.anderson_darling": diagnostics.anderson_darling,
    "diagnostics.anderson_darling:corrected": lambda z: diagnostics.anderson_darling(
        z, corrected=True
    ),
    "diagnostics.dagostino_pearson": diagnostics.dagostino_pearson,
    "diagnostics.gaussianity_report": lambda z: diagnostics.gaussianity_report(z)[:5],
    "diagnostics.gaussianity_report:directions": (
        lambda z: diagnostics.gaussianity_report(
            z, directions=diagnostics.random_projections(KEY, D, 8)
        )[:5]
    ),
    "diagnostics.uniformity_potential": lambda z: diagnostics.uniformity_potential(
        z, temperature=np.float64(0.5)
    ),
    "diagnostics.uniformity_potential:keys": lambda z: diagnostics.uniformity_potential(
        z, z[::-1]
    ),
}


def node_embeddings(*nodes):
    return [each.z for each in nodes]


# In these, results have the dtype that came in.
KEPT = {
    "losses.learned_temperature": lambda z: losses.learned_temperature(z[0, 0]),
    "kernels.unit": kernels.unit,
    "kernels.inverse_norm": kernels.inverse_norm,
    "graphs.views": lambda z: graphs.views(two_views(z)).z,
    "graphs.labelled": lambda z: graphs.labelled(z, LABELS).z,
    "graphs.pairs": lambda z: node_embeddings(*graphs.pairs(z, z)),
    "graphs.two_views": lambda z: node_embeddings(*graphs.two_views(two_views(z))),
    "graphs.two_sets": lambda z: node_embeddings(*graphs.two_sets(z, z[1:])),
    "graphs.keyed": lambda z: node_embeddings(*graphs.keyed(z, z, z)),
    "graphs.queued": lambda z: node_embeddings(*graphs.queued(z, LABELS, z)),
    "jaxcl.mean": lambda z: jaxcl.mean(z, valid=LABELS > 0),
    "training.momentum_update": lambda z: training.momentum_update(z, z, 0.9),
    "training.push": lambda z: training.push(of_zeros(z), z[:3]).keys,
}


def of_zeros(z):
    return training.Queue(jnp.zeros_like(z), jnp.int32(0))


def image(z):
    return jax.nn.sigmoid(z[:12].astype(jnp.float32)).reshape(4, 4, 3)


# In these, results are float32 whatever came in, and images have to be.
FLOAT32 = {
    "losses.log_temperature": lambda z: losses.log_temperature(np.float64(0.1)),
    "diagnostics.random_projections": lambda z: diagnostics.random_projections(
        KEY, 3, 5
    ),
    "training.create_queue": lambda z: training.create_queue(KEY, 6, 4).keys,
    "training.apply_views": lambda z: training.apply_views(
        lambda variables, x: (2 * x, {}), {}, two_views(z)
    ),
    "evaluation.online_probe_params": lambda z: evaluation.online_probe_params(D, 5),
    "evaluation.online_probe": lambda z: evaluation.online_probe(
        evaluation.online_probe_params(D, 5), z, jnp.asarray(LABELS)
    ),
    "images.adjust_brightness": lambda z: images.adjust_brightness(image(z), 0.5),
    "images.adjust_contrast": lambda z: images.adjust_contrast(image(z), 0.5),
    "images.adjust_saturation": lambda z: images.adjust_saturation(image(z), 0.5),
    "images.adjust_hue": lambda z: images.adjust_hue(image(z), 0.1),
    "images.affine_matrix": lambda z: images.affine_matrix(rotation=9.0),
    "images.affine": lambda z: images.affine(image(z), images.affine_matrix(scale=0.5)),
    "images.color_jitter": lambda z: images.color_jitter(
        image(z), jnp.arange(4), brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1
    ),
    "images.gaussian_blur": lambda z: images.gaussian_blur(image(z), 0.5),
    "images.grayscale": lambda z: images.grayscale(image(z)),
    "images.horizontal_flip": lambda z: images.horizontal_flip(image(z)),
    "images.normalize": lambda z: images.normalize(image(z), (0.5,) * 3, (0.2,) * 3),
    "images.random_box": lambda z: images.random_box(KEY, 8, 8),
    "images.random_solarize": lambda z: images.random_solarize(KEY, image(z)),
    "images.resized_crop": lambda z: images.resized_crop(image(z), (0, 0, 3, 3), 4),
    "images.solarize": lambda z: images.solarize(image(z)),
    "images.simclr": lambda z: images.simclr(4)(KEY, image(z)),
    "images.characters": lambda z: images.characters()(KEY, image(z)),
    "images.views": lambda z: images.views(KEY, image(z)[None], images.simclr(4)),
}

# What these give has no dtype that could be wrong: Python's numbers, NumPy's of the
# host, integers and masks, functions, counts of states; what has been tested as a part
# of another function.
OTHERS = {
    "diagnostics": "gaussian_distance_bound gaussian_norm_cv log_sphere_potential "
    "spectral_clusters",
    "evaluation": "accuracy augmented_probe average_vectors chance_recall "
    "class_indices count_words degree_histogram few_labels hold_out kernel_svm_folds "
    "knn knn_within label_histogram "
    "logistic_probe logits nearest pair_correlation predict probe_scores prompts "
    "protocol_differences protocol_text recall represent ridge_probe sgd_probe "
    "share_of_labels spearman stratified_folds svm_folds tf_idf "
    "warn_of_unseen watch weisfeiler_lehman word_vectors zero_shot",
    "graphs": "count_negatives count_positives count_valid has_positive negatives "
    "others positives estimate_pair_distributions estimate_transition "
    "sample_neighbors views_graph without_overflow",
    "images": "chain without_key random_affine random_color_jitter "
    "random_gaussian_blur random_grayscale random_horizontal_flip random_noise "
    "random_resized_crop",
    "jaxcl": "data_parallel sharded",
    "kernels": "accumulator cast_leaves check check_shapes disagreement lengths scaled",
    "losses": "",
    "pairwise": "logit",
    "training": "adamw lars warmup_cosine linear_scaling is_weight in_chunks "
    "create_state train_step check_finite read_metrics join_processes open_run "
    "float32_gradients load_settings save_settings",
}
MODULES = {
    "diagnostics": diagnostics,
    "evaluation": evaluation,
    "graphs": graphs,
    "images": images,
    "jaxcl": jaxcl,
    "kernels": kernels,
    "losses": losses,
    "pairwise": pairwise,
    "training": training,
}


def test_every_public_function_is_held_to_its_dtype():
    tested = {name.partition(":")[0] for name in (*COMPARED, *KEPT, *FLOAT32)}
    for place, module in MODULES.items():
        public = {
            f"{place}.{name}"
            for name, value in vars(module).items()
            if not name.startswith("_") and inspect.isroutine(value)
        }
        others = {f"{place}.{name}" for name in OTHERS[place].split()}
        assert not others & tested
        assert public == others | {n for n in tested if n.startswith(f"{place}.")}


def dtypes_of(function, dtype):
    """Of what a function of embeddings returns, and of its gradient."""

    def total(z):
        leaves = jax.tree.leaves(function(z))
        return sum(leaf.astype(jnp.float32).sum() for leaf in leaves), leaves

    z = jax.ShapeDtypeStruct((N, D), dtype)
    gradient, leaves = jax.eval_shape(jax.grad(total, has_aux=True), z)
    return gradient.dtype, {leaf.dtype for leaf in leaves}


# One half precision for each function in the ordinary run.
HALVES = [
    pytest.param(
        name,
        dtype,
        id=f"{name}-{dtype.__name__}",
        marks=pytest.mark.slow if (number + which) % 2 else (),
    )
    for number, name in enumerate((*COMPARED, *KEPT))
    for which, dtype in enumerate((jnp.bfloat16, jnp.float16))
]


def single_and_double(name):
    """Whether losses keep their dtype, oracle_test asks in the ordinary run."""
    asked = pytest.mark.slow if name in OF_CASES else ()
    again = asked if name not in OF_KINDS else ()
    yield pytest.param(name, jnp.float32, id=f"{name}-float32", marks=again)
    yield pytest.param(name, jnp.float64, id=f"{name}-float64", marks=asked)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [each for name in (*COMPARED, *KEPT) for each in single_and_double(name)],
)
def test_results_have_the_dtype_of_the_embeddings(name, dtype, x64):
    function = {**COMPARED, **KEPT}[name]
    assert dtypes_of(function, dtype) == (dtype, {jnp.dtype(dtype)})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_half_precision_is_compared_in_float32(name, dtype, x64):
    expected = jnp.dtype(jnp.float32 if name in COMPARED else dtype)
    assert dtypes_of({**COMPARED, **KEPT}[name], dtype) == (dtype, {expected})


@pytest.mark.parametrize("name", FLOAT32)
def test_what_is_float32_stays_so_in_64_bits(name, x64):
    gradient, results = dtypes_of(FLOAT32[name], jnp.float64)
    assert (gradient, results) == (jnp.float64, {jnp.dtype(jnp.float32)})
