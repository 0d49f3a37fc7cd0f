"""Defined numbers where training takes embeddings: close to 1, to 0, and beyond."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxcl import kernels, losses
from tests import oracles
from tests.losses import cases

ROWS, WIDTH = 24, 16


def _trained(case):
    """A case's arrays, so that positives are close and negatives are far apart.

    Rows of one label, or else of one number, lie around a common center.
    """
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((ROWS, WIDTH))
    of_row = np.arange(ROWS)
    if any(x.ndim == 1 for x in case.constants.values()):
        of_row = np.arange(ROWS) // 3
    if "target" in case.constants:
        of_row = np.arange(ROWS) // 2

    def constant(name, x):
        if name == "target":
            return np.equal.outer(of_row, of_row) * 1.0
        if x.ndim == 1:
            return of_row
        # A teacher, a guide, or a mask.
        z = rng.standard_normal((ROWS * len(x) // cases.ROWS, *x.shape[1:]))
        return z > 0 if x.dtype == bool else z

    def near(x):
        middle = x.shape[1:-1]
        z = centers[of_row].reshape(ROWS, *(1,) * len(middle), WIDTH)
        z = z + 0.1 * rng.standard_normal((ROWS, *middle, WIDTH))
        if len(x) == cases.ROWS:
            return z
        return np.concatenate([z, rng.standard_normal((ROWS, WIDTH))])

    def far(x):
        return rng.standard_normal((ROWS * len(x) // cases.ROWS, *x.shape[1:-1], WIDTH))

    apart = {"hard"} if "queue_labels" in case.constants else {"hard", "queue"}
    arrays = {
        name: (far if name in apart else near)(x) for name, x in case.arrays.items()
    }
    constants = {name: constant(name, x) for name, x in case.constants.items()}
    return arrays, jax.tree.map(jnp.asarray, constants)


KINDS = [
    *cases.KINDS,
    *(
        cases.BY_NAME[name]
        for name in (
            "kernel_info_nce_laplacian",
            "nt_xent_of_three_views",
            "sc_official",
        )
    ),
]


def check_the_gradient(case):
    """Compares float32 and bfloat16 gradients with float64 where p is close to 1."""
    arrays, constants = _trained(case)
    parameters = {**case.parameters}
    if "temperature" in parameters and not case.name.startswith("kernel_info_nce"):
        parameters["temperature"] = 0.05

    def gradient(**options):
        def mean(arrays, constants):
            return case.loss({**arrays, **constants}, parameters, **options).mean()

        return jax.jit(jax.grad(mean))

    tiled, dense = gradient(tile=20), gradient(impl="reference")

    def cast(tree, dtype):
        def leaf(x):
            x = jnp.asarray(x)
            floating = jnp.issubdtype(x.dtype, jnp.floating)
            return x.astype(dtype) if floating else x

        return jax.tree.map(leaf, tree)

    for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.bfloat16, 1e-2)):
        rounded = cast((arrays, constants), dtype)
        got = tiled(*rounded)
        with jax.enable_x64(True):
            wide = cast(jax.device_get(rounded), jnp.float64)
            exact = jax.device_get(dense(*wide))
        scale = max(np.abs(g).max() for g in exact.values())
        assert scale > 0
        for name, want in exact.items():
            error = np.abs(np.asarray(got[name], np.float64) - want).max()
            assert error < tolerance * scale, (dtype, name, error / scale)


TRAINED = [
    *cases.FEW,
    *(cases.BY_NAME[name] for name in ("kernel_info_nce_laplacian", "sc_official")),
]


@cases.over([case for case in KINDS if case.softmax], TRAINED[:2])
def test_the_gradient_keeps_its_digits_when_training_has_succeeded(case):
    check_the_gradient(case)


@functools.cache
def _compiled(name):
    """Loss and gradient of a case, compiled once for all that is drawn."""
    case = cases.BY_NAME[name]

    def run(arrays, constants, parameters, valid):
        def total(arrays, parameters):
            everything = {**arrays, **constants}
            loss = case.loss(everything, parameters, valid=valid, tile=5)
            return loss.sum(), loss

        return jax.grad(total, (0, 1), has_aux=True)(arrays, parameters)

    return jax.jit(run)


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    half=st.booleans(),
    temperature=st.sampled_from([0.01, 0.1, 2.0]),
    valid=st.lists(st.booleans(), min_size=cases.ROWS, max_size=cases.ROWS),
    same=st.lists(st.integers(0, cases.ROWS - 1), min_size=4, max_size=4),
    zero=st.integers(0, cases.ROWS - 1),
    length=st.sampled_from([1e-12, 1.0, 1e12]),
)
def _check_what_is_drawn(case, half, temperature, valid, same, zero, length):
    """Duplicates, zero vectors, any mask, tiny and huge vectors, sharp temperatures."""
    if case.name in UNNORMALIZED:
        length = 1.0
    dtype = jnp.bfloat16 if half else jnp.float32
    arrays, parameters, constants = cases.numbers(case, dtype)
    parameters = jax.tree.map(lambda x: x.astype(jnp.float32), parameters)
    if "temperature" in parameters:
        parameters["temperature"] = jnp.float32(temperature)
    source = np.arange(cases.ROWS)
    source[same[0]], source[same[1]] = same[2], same[3]
    arrays = {
        name: (x.at[: cases.ROWS].set(x[source]).at[zero].set(0) * length).astype(dtype)
        for name, x in arrays.items()
    }
    keep = np.array(valid)
    gradient, loss = _compiled(case.name)(
        arrays, constants, parameters, jnp.array(keep)
    )
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(loss)[~keep], 0)
    for leaf in jax.tree.leaves((loss, gradient)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    if keep.sum() == 1 and case.name in NOTHING_TO_COMPARE:
        np.testing.assert_array_equal(loss, 0)
    for name, x in gradient[0].items():
        if name != "queue":
            np.testing.assert_array_equal(np.asarray(x[: cases.ROWS][~keep], float), 0)


def _check_that_no_nan_is_hidden(case):
    arrays, parameters, constants = cases.numbers(case, jnp.float32)
    arrays = {
        name: x.at[1].set(jnp.nan) if name != "queue" else x
        for name, x in arrays.items()
    }
    valid = jnp.ones(cases.ROWS, bool)
    _, loss = _compiled(case.name)(arrays, constants, parameters, valid)
    assert np.isnan(loss[1]).all()


@cases.over(KINDS, cases.FEW[:2])
def test_numbers_are_defined_and_a_valid_nan_is_never_hidden(case):
    # In one test, since compiling costs the most and serves both.
    _check_what_is_drawn(case=case)
    _check_that_no_nan_is_hidden(case)


# Losses that read lengths, whose squares leave float32 at 1e12; and one whose gradient
# is so large already that dividing it by a length of 1e-12 leaves float32.
UNNORMALIZED = ("spectral_contrastive", "kcl", "sc_official")
# Losses that are 0 for an example alone: nothing positive, or nothing negative.
NOTHING_TO_COMPARE = (
    "dcl",
    "dhel",
    "is_info_nce",
    "nt_xent",
    "sup_con",
    "sincere",
    "clip",
    "sc_constant",
    "sc_full",
    "sc_official",
    "uniformity",
    "graph_cross_entropy",
    "similarity_distillation",
    "uni_cl",
    "debiased_nt_xent_at_its_floor",
)


def test_rows_far_below_the_tiles_highest_score_do_not_underflow():
    # Cosines of 1 beside rows whose best cosine is -1: at temperature 0.01 their scores
    # lie 200 apart, more than float32 can hold relative to one reference.
    z = jnp.asarray([[1.0, 0.0]] * 3 + [[-1.0, 0.0]], jnp.float32)
    x, y = z, jnp.asarray([[1.0, 0.0]] * 4, jnp.float32)
    got = losses.clip(x, y, temperature=0.01)
    expected = oracles.clip(np.asarray(x), np.asarray(y), oracles.cosine(0.01))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_row_without_pairs_beside_high_scores_stays_empty():
    # Rows that are not valid have no pairs; next to scores of 100 they once gave NaN.
    views = jnp.broadcast_to(jnp.eye(3)[:, None], (3, 2, 3)).at[1].set(jnp.eye(3)[0])
    valid = jnp.array([True, True, False])
    loss = losses.dcl(views, temperature=0.01, valid=valid)
    np.testing.assert_allclose(loss[:2], np.log(2), rtol=1e-5)
    np.testing.assert_array_equal(loss[2], 0)


def test_a_valid_nan_makes_the_losses_that_depend_on_it_nan():
    views = jnp.ones((4, 2, 3)).at[1, 0, 0].set(jnp.nan)
    for impl in ("reference", "tiled"):
        assert np.isnan(losses.nt_xent(views, impl=impl)).all()
        assert np.isnan(losses.dcl(views, impl=impl)).all()


@pytest.mark.parametrize("impl", ["reference", "tiled"])
@pytest.mark.slow
def test_weights_of_what_does_not_count_may_be_anything(impl):
    x = jnp.asarray(cases.X, jnp.float32)
    valid = np.arange(cases.ROWS) != 1
    clean = jnp.asarray(cases.TARGET, jnp.float32)
    spoiled = clean.at[1].set(jnp.nan).at[:, 1].set(-1)
    spoiled = spoiled.at[jnp.diag_indices(cases.ROWS)].set(jnp.inf)

    def total(x, target):
        loss = losses.graph_cross_entropy(
            x, target, kernel=kernels.gaussian(0.5), valid=valid, impl=impl
        )
        return loss.sum()

    for got, want in zip(
        jax.value_and_grad(total)(x, spoiled),
        jax.value_and_grad(total)(x, clean),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
