"""Hard negatives and guides beyond the formula: ties, NaN, dtypes, meshes, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import kernels, losses
from tests import oracles
from tests.losses import cases

N, WIDTH, OF_GUIDE = 16, 4, 3
X, Y = (jnp.asarray(cases.random(N, WIDTH, seed=s), jnp.float32) for s in (0, 1))
VIEWS = jnp.stack([X, Y], axis=1)
HARD = jnp.asarray(cases.random(N, 3, WIDTH, seed=2), jnp.float32)
EXIST = jnp.asarray(cases.random(N, 3, seed=3) < 0.5)
GUIDE = tuple(
    jnp.asarray(cases.random(N, *middle, OF_GUIDE, seed=s), jnp.float32)
    for s, middle in ((4, ()), (5, ()), (6, (3,)))
)


def info_nce(x, y, hard, guide, **options):
    return losses.info_nce(
        x, y, hard_negatives=hard, hard_negatives_valid=EXIST, guide=guide, **options
    )


def nt_xent(x, y, hard, guide, **options):
    of_views = jnp.stack(guide[:2], axis=1)
    return losses.nt_xent(jnp.stack([x, y], axis=1), guide=of_views, **options)


def clip(x, y, hard, guide, **options):
    return losses.clip(x, y, hard_negatives=hard, guide=guide, **options)


ALL = pytest.mark.parametrize("loss", [info_nce, nt_xent, clip])


def test_a_pair_may_be_dropped_from_one_side_only():
    guide = np.asarray(GUIDE[0], float), np.asarray(GUIDE[1], float)
    similar = oracles.unit(guide[0]) @ oracles.unit(guide[1]).T
    of_image = similar > np.diag(similar)[:, None]
    of_text = similar > np.diag(similar)[None, :]
    assert 0.2 < of_image.mean() < 0.8
    assert (of_image != of_text).mean() > 0.2


@ALL
def test_what_is_as_similar_as_the_positive_stays_and_a_margin_drops_it(loss):
    # Rows come in pairs that are equal in the guide: each has a second positive there.
    pairs = tuple(jnp.repeat(z[: N // 2], 2, axis=0) for z in GUIDE)
    exact = tuple(oracles.unit(np.asarray(z)) for z in pairs)
    own = (exact[0] * exact[1]).sum(1)

    def run(guide, margin, **options):
        limit = {"guide_limit": lambda own: own - margin, "temperature": 1.0}
        return loss(X, Y, HARD, guide, **limit, **options)

    run = jax.jit(run, static_argnames=("tile", "impl"))
    plain, strict = run(pairs, -1e-3, tile=5), run(pairs, 1e-3, tile=5)
    for options in ({"tile": 5}, {"impl": "reference"}):
        got = run(pairs, 0.0, **options)
        np.testing.assert_allclose(got, plain, rtol=1e-5)
    assert len(np.unique(own.round(5))) == N // 2
    assert (strict < plain - 1e-3).all()


@ALL
def test_a_guide_has_no_gradient_and_hides_no_nan(loss):
    keep = jnp.arange(N) != 3

    @jax.jit
    def run(guide):
        def total(arrays):
            values = loss(*arrays[:3], arrays[3], valid=keep, tile=5)
            return values.sum(), values

        return jax.grad(total, has_aux=True)((X, Y, HARD, guide))

    (*gradient, of_guide), clean = run(GUIDE)
    for leaf in jax.tree.leaves(of_guide):
        np.testing.assert_array_equal(leaf, 0)
    assert all(jnp.abs(g).max() > 0 for g in gradient[:2])
    # What is not valid may hold anything.
    spoiled = jax.tree.map(lambda z: z.at[3].set(jnp.nan), GUIDE)
    for got, want in zip(
        jax.tree.leaves(run(spoiled)),
        jax.tree.leaves(((*gradient, of_guide), clean)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
    for k in range(2):
        spoiled = list(GUIDE)
        spoiled[k] = GUIDE[k].at[5].set(jnp.nan)
        assert np.isnan(run(tuple(spoiled))[1][5]).any()


@pytest.mark.parametrize(
    ("loss", "impl"),
    [(info_nce, "reference"), (info_nce, "tiled"), (nt_xent, "tiled"), (clip, "tiled")],
)
def test_where_a_guide_drops_all_nothing_is_left_to_tell_apart(loss, impl):
    options = {"guide_limit": lambda own: -2.0, "impl": impl}

    def total(x):
        values = loss(x, Y, HARD, GUIDE, **options)
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(X)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradient, 0)


def test_a_threshold_of_examples_is_one_of_their_views():
    run = jax.jit(functools.partial(losses.dcl, guide_limit=lambda own: 0.3))
    of_views = jnp.stack([GUIDE[0]] * 2, axis=1)
    got, plain = run(VIEWS, guide=GUIDE[0]), losses.dcl(VIEWS)
    np.testing.assert_allclose(got, run(VIEWS, guide=of_views), rtol=1e-6)
    assert (got < plain - 1e-3).any()
    similar = oracles.unit(np.asarray(GUIDE[0], float))
    groups = similar @ similar.T > 0.3
    assert 0.1 < groups.mean() < 0.9
    z = oracles.unit(np.asarray(VIEWS, float))
    s = np.einsum("ivd,jwd->ivjw", z, z) / 0.1
    s = np.where(groups[:, None, :, None], -np.inf, s)
    negative = np.log(np.exp(s).sum((2, 3)))
    expected = negative - (z[:, :1] * z[:, 1:]).sum(-1) / 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.slow
def test_what_belongs_to_rows_is_split_with_them():
    mesh, _, _ = jaxcl.data_parallel()
    queue, of_queue = HARD[:, 0] * 2, GUIDE[2][:, 1]
    keys, of_keys = jnp.concatenate([Y, -X]), jnp.concatenate([GUIDE[1], -GUIDE[0]])
    options = {
        "negatives": queue,
        "hard_negatives": HARD,
        "hard_negatives_valid": EXIST,
        "guide": (GUIDE[0], of_keys, of_queue, GUIDE[2]),
        "valid": jnp.arange(N) != 3,
    }
    loss = functools.partial(losses.info_nce, tile=3, exchange="ring")
    got = jax.jit(jaxcl.sharded(loss, mesh))(X, keys, **options)
    expected = losses.info_nce(X, keys, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert len(got.sharding.device_set) == 8


def test_results_have_the_dtype_of_the_embeddings_whatever_the_guide_has(x64):
    def dtypes(x, guide):
        z, of = (jax.ShapeDtypeStruct((4, 3), dtype) for dtype in (x, guide))
        several = jax.ShapeDtypeStruct((4, 2, 3), x)
        of_several = jax.ShapeDtypeStruct((4, 2, 3), guide)

        def run(z, several, of, of_several):
            def total(z):
                loss = losses.clip(
                    z, z, hard_negatives=several, guide=(of, of, of_several)
                )
                return loss.sum()

            return jax.value_and_grad(total)(z)

        value, gradient = jax.eval_shape(run, z, several, of, of_several)
        return value.dtype, gradient.dtype

    f16, f32, f64 = jnp.bfloat16, jnp.float32, jnp.float64
    assert dtypes(f16, f32) == (f32, f16)
    assert dtypes(f32, f64) == (f32, f32)
    assert dtypes(f64, f16) == (f64, f64)


def test_rounded_embeddings_are_compared_in_float32():
    arrays = [z.astype(jnp.bfloat16) for z in (X, Y, HARD)]
    got = jax.jit(info_nce)(*arrays, GUIDE)
    expected = jax.jit(info_nce)(*(z.astype(jnp.float32) for z in arrays), GUIDE)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_each_of_several_is_matched_with_its_row_in_blocks_as_well():
    x, y = cases.random(1030, 3), cases.random(1030, 2, 3, seed=1)
    kernel = kernels.laplacian(0.5)
    got = jax.jit(kernels.matched)(kernel, jnp.asarray(x), jnp.asarray(y))
    apart = np.linalg.norm(oracles.unit(x)[:, None] - oracles.unit(y), axis=-1)
    np.testing.assert_allclose(got, -apart / 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: losses.info_nce(X, Y, guide=GUIDE[0]),
            TypeError,
            "guide must be a tuple of second embeddings of queries, keys, got ",
        ),
        (
            lambda: losses.info_nce(X, Y, negatives=X, guide=GUIDE[:2]),
            ValueError,
            "second embeddings of queries, keys, negatives, got 2 of them",
        ),
        (
            lambda: losses.clip(X, Y, guide=(GUIDE[0], GUIDE[1][:3])),
            ValueError,
            r"guide of texts must have the rows of texts, \(16,\), got \(3, 3\)",
        ),
        (
            lambda: losses.clip(X, Y, guide=(GUIDE[0], GUIDE[1][:, :2])),
            ValueError,
            "guide of images and guide of texts must have one embedding size",
        ),
        (
            lambda: losses.info_nce(X, Y, guide=GUIDE[:2], guide_limit=0.1),
            TypeError,
            "guide_limit must be a function .*got float",
        ),
        (
            lambda: losses.info_nce(X, Y, guide=GUIDE[:2], guide_limit=lambda s: s[:2]),
            ValueError,
            r"guide_limit must return .*\(16,\), or one for all, got shape \(2,\)",
        ),
        (
            lambda: losses.info_nce(X, Y, guide_limit=lambda s: s),
            ValueError,
            "guide must be given with guide_limit",
        ),
        (
            lambda: losses.nt_xent(VIEWS, guide=GUIDE[0]),
            ValueError,
            "guide_limit must be given with a guide of examples",
        ),
        (
            lambda: losses.nt_xent(VIEWS, guide=GUIDE[2]),
            ValueError,
            r"guide must have a row for each of the views \(16, 2\).*got \(16, 3, 3\)",
        ),
        (
            lambda: losses.info_nce(X, Y, hard_negatives=X),
            ValueError,
            r"hard_negatives must have shape \[n, h, d\], got \(16, 4\)",
        ),
        (
            lambda: losses.clip(X, Y, hard_negatives=HARD[:3]),
            ValueError,
            r"hard_negatives must have shape \(16, h, 4\).*got \(3, 3, 4\)",
        ),
        (
            lambda: losses.info_nce(X, Y, hard_negatives_valid=EXIST),
            ValueError,
            "hard_negatives must be given with hard_negatives_valid",
        ),
        (
            lambda: losses.info_nce(
                X, Y, hard_negatives=HARD, hard_negatives_valid=EXIST[0]
            ),
            ValueError,
            r"hard_negatives_valid must have shape \[n, h\], got \(3,\)",
        ),
        (
            lambda: losses.info_nce(
                X, Y, hard_negatives=HARD, hard_negatives_valid=EXIST.astype(int)
            ),
            TypeError,
            r"hard_negatives_valid must be a boolean array \[n, h\], got dtype int32",
        ),
        (
            lambda: losses.siglip(X, Y, kernel=0.1),
            TypeError,
            "kernel must be a kernel.*got float",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
