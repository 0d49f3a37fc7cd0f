"""Wrong arguments of losses: errors that name the argument, what came, what should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import kernels, losses

VIEWS = jnp.ones((4, 2, 3))
X = jnp.ones((4, 3))
LABELS = jnp.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: losses.nt_xent(X), ValueError, r"views must have shape \[b, v, d\]"),
        (lambda: losses.nt_xent(VIEWS[:, :1]), ValueError, "at least 2 views"),
        (lambda: losses.nt_xent(VIEWS.astype(int)), TypeError, "views.*dtype int32"),
        (lambda: losses.nt_xent([[1.0]]), TypeError, "views must be an array.*list"),
        (
            lambda: losses.nt_xent(VIEWS, temperature=0),
            ValueError,
            "temperature must be positive and finite, got 0",
        ),
        (
            lambda: losses.nt_xent(VIEWS, valid=jnp.ones(3, bool)),
            ValueError,
            r"valid must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: losses.nt_xent(VIEWS, valid=jnp.ones(4)),
            TypeError,
            "valid must be a boolean",
        ),
        (
            lambda: losses.nt_xent(VIEWS, impl="fast"),
            ValueError,
            "impl must be one of 'auto', 'reference', 'tiled', 'mosaic', got 'fast'",
        ),
        (
            lambda: losses.nt_xent(VIEWS, exchange="carry"),
            ValueError,
            "exchange must be one of 'auto', 'gather'.*got 'carry'",
        ),
        (lambda: losses.nt_xent(VIEWS, tile=0), ValueError, "tile.*at least 1, got 0"),
        (
            lambda: losses.nt_xent(VIEWS, tile=2.0),
            TypeError,
            "tile.*integer, got float",
        ),
        (
            lambda: losses.kernel_info_nce(VIEWS, kernel=0.5),
            TypeError,
            "kernel must be a kernel.*got float",
        ),
        (lambda: losses.dcl(VIEWS, temperature=-1), ValueError, "temperature.*got -1"),
        (
            lambda: losses.info_nce(X, X, decoupled=1),
            TypeError,
            "decoupled must be True or False, got int",
        ),
        (
            lambda: losses.sup_con(X, LABELS.astype(float)),
            TypeError,
            "labels must be an integer array",
        ),
        (
            lambda: losses.sup_con(VIEWS, LABELS),
            ValueError,
            r"z must have shape \[n, d\]",
        ),
        (
            lambda: losses.clip(X, X[:3]),
            ValueError,
            r"images and texts must have one shape, got \(4, 3\) and \(3, 3\)",
        ),
        (
            lambda: losses.info_nce(X, X[:2]),
            ValueError,
            "2 keys for 4 queries",
        ),
        (
            lambda: losses.sc_info_nce(X, X, variant="C"),
            ValueError,
            "variant must be one of 'constant', 'full', 'official', got 'C'",
        ),
        (
            lambda: losses.sc_info_nce(X, X, alpha="1"),
            TypeError,
            "alpha must be a real number, got str",
        ),
        (
            lambda: losses.nt_xent(VIEWS, groups=jnp.ones(4)),
            TypeError,
            "groups must be an integer array",
        ),
        (
            lambda: losses.clip(X, X, groups=LABELS[:3]),
            ValueError,
            r"groups must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: losses.dhel(jnp.ones((4, 3, 2))),
            ValueError,
            r"exactly 2 views of each example, got \(4, 3, 2\)",
        ),
        (
            lambda: losses.is_info_nce(X, X, X[:2]),
            ValueError,
            "z1 and z3 must have one shape",
        ),
        (
            lambda: losses.kcl(VIEWS, kernel="gaussian"),
            TypeError,
            "kernel must be a kernel.*got str",
        ),
        (
            lambda: losses.f_micl(VIEWS, divergence="KL"),
            ValueError,
            "divergence must be one of 'kl'.*got 'KL'",
        ),
        (
            lambda: losses.f_micl(VIEWS, bandwidth=0.0),
            ValueError,
            "bandwidth must be positive",
        ),
        (lambda: losses.siglip(X, X, bias="-10"), TypeError, "bias must be a real"),
        (
            lambda: losses.debiased_nt_xent(VIEWS, prior=1.0),
            ValueError,
            r"prior must lie in \[0, 1\), got 1",
        ),
        (
            lambda: losses.graph_cross_entropy(X, X, kernel=kernels.dot()),
            ValueError,
            r"target must have shape \(4, 4\).*got \(4, 3\)",
        ),
        (
            lambda: losses.graph_cross_entropy(
                X, -jnp.ones((4, 4)), kernel=kernels.dot()
            ),
            ValueError,
            "target must be finite and not negative, got values from -1",
        ),
        (
            lambda: losses.similarity_distillation(X, X[:3]),
            ValueError,
            r"teacher must have a row for each of the 4 rows of z, got \(3, 3\)",
        ),
        (
            lambda: losses.similarity_distillation(X, X, teacher_temperature=-1),
            ValueError,
            "teacher_temperature must be positive and finite, got -1",
        ),
        (
            lambda: losses.similarity_distillation(X, X, candidates=X),
            ValueError,
            "candidates and teacher_candidates must be given together.*got one without",
        ),
        (
            lambda: losses.similarity_distillation(
                X, X, candidates_valid=LABELS == LABELS
            ),
            ValueError,
            "candidates_valid with both",
        ),
        (
            lambda: losses.similarity_distillation(
                X, X, candidates=X, teacher_candidates=X[:3]
            ),
            ValueError,
            r"teacher_candidates must have a row for each of the 4 rows of candidates",
        ),
        (
            lambda: losses.similarity_distillation(
                X, X, candidates=X, teacher_candidates=X[:, :2]
            ),
            ValueError,
            "teacher and teacher_candidates must have one embedding size",
        ),
        (
            lambda: losses.sup_con(X, LABELS, negative_labels=LABELS),
            ValueError,
            "negatives must be given with negative_labels, got labels of no queue",
        ),
        (
            lambda: losses.sincere(X, LABELS, negatives=X, negative_labels=LABELS[:3]),
            ValueError,
            r"negative_labels must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: losses.sup_con(X, LABELS, negatives=X[:, :2]),
            ValueError,
            "z and negatives must have one embedding size",
        ),
        (
            lambda: losses.uni_cl(X, X, LABELS, mean_inside=1),
            TypeError,
            "mean_inside must be True or False, got int",
        ),
        (
            lambda: losses.sup_con(X, LABELS, kernel=0.1),
            TypeError,
            "kernel must be a kernel.*got float",
        ),
        (
            lambda: losses.uni_cl(X, X, LABELS.astype(float)),
            TypeError,
            "labels must be an integer array",
        ),
        (
            lambda: losses.sup_con(X, np.array([1, 2**32 + 1, 3, 4])),
            ValueError,
            "labels must fit into 32 bits, got values from 1 to 4294967297",
        ),
        (
            lambda: losses.nt_xent(VIEWS[:0]),
            ValueError,
            r"views must hold at least one embedding.*got \(0, 2, 3\)",
        ),
        (
            lambda: losses.norm_entropy_penalty(X, scale=1.0, exchange="carry"),
            ValueError,
            "exchange must be one of 'auto', 'gather', 'ring', got 'carry'",
        ),
        (
            lambda: losses.norm_entropy_penalty(X, scale=1.0, ridge=jnp.ones(3)),
            ValueError,
            r"ridge must be a scalar, got shape \(3,\)",
        ),
        (
            lambda: jax.jit(losses.alignment)(VIEWS, 1.5),
            TypeError,
            "power must be a Python number, got a traced value",
        ),
        (
            lambda: kernels.kernel_sum(kernels.dot(), weights=1.0),
            TypeError,
            "weights must be a tuple of 1 numbers, got float",
        ),
        (
            lambda: jaxcl.mean(X, [True] * 4),
            TypeError,
            "valid must be a boolean array, got list",
        ),
        (lambda: losses.uniformity(X, t=0), ValueError, "t must be positive"),
        (lambda: losses.alignment(VIEWS, power=0), ValueError, "power must be pos"),
        (
            lambda: losses.norm_entropy_penalty(X, scale=-1.0),
            ValueError,
            "scale must be positive",
        ),
        (
            lambda: losses.norm_entropy_penalty(X, scale=1.0, estimator="knn"),
            ValueError,
            "estimator must be one of 'gaussian_logdet', 'kde_loo', 'polar'",
        ),
        (lambda: losses.log_temperature(0.0), ValueError, "temperature must be pos"),
        (
            lambda: losses.learned_temperature(0.1),
            TypeError,
            "parameter must be a floating array.*got float",
        ),
        (
            lambda: losses.learned_temperature(
                jnp.float32(0), minimum=2.0, maximum=1.0
            ),
            ValueError,
            "maximum must exceed minimum 2, got 1",
        ),
        (
            lambda: losses.nt_xent(VIEWS, axis_name="data"),
            ValueError,
            "axis_name 'data' is not bound here",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
