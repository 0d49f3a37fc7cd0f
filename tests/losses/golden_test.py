"""Numbers that are known beforehand: the papers' specifications and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import kernels, losses


def _circle(degrees):
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


# Identity E9 of Kernel-InfoNCE: unit vectors at these angles, mean over six anchors.
FIRST, SECOND = _circle([0, 90, 200]), _circle([30, 150, 230])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: kernels.gaussian(0.5), 0.42658163582926917),
        (lambda: kernels.cosine(0.25), 0.42658163582926917),
        (lambda: kernels.laplacian(0.5), 0.6519686867499507),
        (lambda: kernels.exponential(0.5, 0.5), 1.0107739356824783),
        (
            lambda: kernels.kernel_sum(kernels.laplacian(0.5), kernels.gaussian(0.5)),
            0.5258385908768105,
        ),
        (
            lambda: kernels.kernel_sum(
                kernels.laplacian(0.5), kernels.gaussian(0.5), weights=(0.3, 0.7)
            ),
            0.4838748778068001,
        ),
    ],
)
def test_kernel_info_nce_has_the_golden_values(make, expected, x64):
    views = jnp.asarray(np.stack([FIRST, SECOND], axis=1))
    loss = losses.kernel_info_nce(views, kernel=make())
    np.testing.assert_allclose(loss.mean(), expected, rtol=1e-14)


def test_the_concatenation_sum_has_its_golden_value(x64):
    halves = [_circle([10, 100, 250]), _circle([40, 120, 300])]
    views = np.concatenate(
        [np.stack([FIRST, SECOND], axis=1), np.stack(halves, axis=1)], axis=-1
    ) / np.sqrt(2)
    kernel = kernels.concatenation_sum(kernels.gaussian(0.5), kernels.laplacian(0.5))
    loss = losses.kernel_info_nce(jnp.asarray(views), kernel=kernel)
    np.testing.assert_allclose(loss.mean(), 0.6203413856738337, rtol=1e-14)


# Test 11 of SC-InfoNCE fixes the matrix of cosines. Embeddings in which z2 is the
# standard basis and z1's first coordinates are that matrix have these cosines.
COSINES = np.array([[0.9, 0.1, -0.2], [0.0, 0.8, 0.3], [-0.1, 0.2, 0.7]])


def _with_cosines():
    rest = np.sqrt(1 - (COSINES**2).sum(1, keepdims=True))
    z1 = np.concatenate([COSINES, rest], axis=1)
    return jnp.asarray(z1), jnp.eye(3, 4)


@pytest.mark.parametrize(
    ("variant", "expected", "diagonal"),
    [
        ("full", -0.1927896831, [-0.2333333] * 3),
        ("official", -3.9263618260, [-1.2993189, -0.8183586, -0.8183586]),
        ("constant", -0.2525120495, [-0.2333333] * 3),
    ],
)
def test_sc_info_nce_has_the_golden_values(variant, expected, diagonal, x64):
    z1, z2 = _with_cosines()

    def mean(z1):
        loss = losses.sc_info_nce(
            z1, z2, temperature=0.5, alpha=0.7, beta=0.3, variant=variant
        )
        return loss.mean()

    value, gradient = jax.value_and_grad(mean)(z1)
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9)
    # By z1_i the gradient is the sum over j of dL/dS_ij (z2_j - cos_ij z1_i) / t.
    of_logits = {
        "full": [
            [diagonal[0], 0.10126751, 0.0781362],
            [0.09287162, diagonal[1], 0.12811719],
            [0.09287162, 0.12811719, diagonal[2]],
        ]
    }.get(
        variant,
        [
            [diagonal[0], 0.26521877, 0.16811456],
            [0.16811456, diagonal[1], 0.26521877],
            [0.16811456, 0.26521877, diagonal[2]],
        ],
    )
    of_logits = np.array(of_logits)
    basis = np.eye(3, 4)
    expected_gradient = np.stack(
        [
            sum(
                of_logits[i, j] * (basis[j] - COSINES[i, j] * np.asarray(z1)[i])
                for j in range(3)
            )
            / 0.5
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=3e-7)


def test_info_nce_and_dcl_have_the_golden_values_of_the_same_case(x64):
    z1, z2 = _with_cosines()
    loss = losses.info_nce(z1, z2, temperature=0.5)
    np.testing.assert_allclose(loss.mean(), 0.3913172181, rtol=0, atol=1e-10)
    for decoupled in (
        losses.sc_info_nce(z1, z2, temperature=0.5),
        losses.info_nce(z1, z2, temperature=0.5, decoupled=True),
    ):
        np.testing.assert_allclose(decoupled.mean(), -0.7625120495, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_collapse_costs_the_log_of_the_number_of_candidates():
    views, flat = jnp.ones((5, 2, 3)), jnp.ones((5, 3))
    kernel = kernels.gaussian(0.5)
    labels = jnp.array([0, 0, 1, 1, 2])
    for loss, candidates in [
        (losses.nt_xent(views), 9),
        (losses.nt_xent(jnp.ones((5, 3, 4))), 14),
        (losses.dcl(views), 8),
        (losses.debiased_nt_xent(views, prior=0.2, hardness=2.0), 9),
        (losses.sup_con(flat, jnp.zeros(5, int)), 4),
        (losses.sup_con(flat, jnp.zeros(5, int), mean_inside=True), 4),
        (losses.sincere(flat, labels, negatives=flat), np.array([9, 9, 9, 9, 1])),
        (losses.uni_cl(flat, flat, labels), 5),
        (losses.clip(flat, flat), 5),
        (losses.clip(flat, flat, groups=labels), np.array([4, 4, 4, 4, 5])),
        (losses.info_nce(flat, jnp.ones((7, 3)), negatives=jnp.ones((4, 3))), 11),
        (losses.info_nce(flat, flat, negatives=flat, decoupled=True), 9),
        (losses.info_nce(flat, flat, hard_negatives=jnp.ones((5, 2, 3))), 7),
        (losses.clip(flat, flat, hard_negatives=jnp.ones((5, 2, 3))), np.sqrt(5 * 7)),
        (losses.is_info_nce(flat, flat, flat), 4),
        (losses.dhel(views, temperature=1.0), 16 * np.e),
        (losses.graph_cross_entropy(flat, jnp.ones((5, 5)), kernel=kernel), 4),
        (losses.similarity_distillation(flat, jnp.eye(5)), 4),
        (
            losses.similarity_distillation(
                flat, jnp.eye(5), candidates=flat[:2], teacher_candidates=jnp.eye(2, 5)
            ),
            2,
        ),
    ]:
        np.testing.assert_allclose(
            loss, np.broadcast_to(np.log(candidates), loss.shape), rtol=1e-5
        )
    for loss, value in [
        (losses.spectral_contrastive(views / np.sqrt(3)), -1),
        (losses.uniformity(flat), 0),
        (losses.alignment(views), 0),
        (losses.kcl(views, kernel=kernel, weight=3.0), 4),
        (losses.f_micl(views, weight=3.0), 2),
    ]:
        np.testing.assert_allclose(loss, value, rtol=1e-5, atol=1e-6)


def test_one_example_has_no_negatives():
    views, flat = jnp.ones((1, 2, 3)), jnp.ones((1, 3))
    for loss in (
        losses.nt_xent(views),
        losses.dcl(views),
        losses.clip(flat, flat),
        losses.info_nce(flat, flat),
        losses.info_nce(flat, flat, decoupled=True),
        losses.sc_info_nce(flat, flat),
        losses.sup_con(flat, jnp.array([4])),
    ):
        np.testing.assert_array_equal(loss, 0)


def test_an_anchor_without_positives_costs_nothing_and_has_no_gradient():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    labels = jnp.array([0, 0, 1, 2])
    loss = losses.sup_con(z, labels)
    np.testing.assert_array_equal(loss[2:], 0)
    assert (loss[:2] > 0).all()
    gradient = jax.grad(lambda z: losses.sup_con(z, labels)[2:].sum())(z)
    np.testing.assert_array_equal(gradient, 0)
