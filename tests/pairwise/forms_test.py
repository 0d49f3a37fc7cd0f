"""What is done differently on accelerators, run here; precision, exchange, platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import graphs, kernels, losses, pairwise
from jaxcl.pairwise import plans, reductions, slices
from tests.losses import cases, numerics_test


@pytest.fixture
def accelerator(monkeypatch):
    """Computes on a CPU what is computed on accelerators, in tiny tiles."""
    form = plans.Form(8, multiple=4, narrow=True, across=False, at_once=True)
    monkeypatch.setattr(plans, "WORTH", 1)
    monkeypatch.setattr(plans, "FORMS", dict.fromkeys(plans.FORMS, form))
    jax.clear_caches()
    yield
    monkeypatch.undo()
    jax.clear_caches()


# Kernels of cosines, distances, angles, parts and several vectors; one of two sets.
FORMED = [
    cases.BY_NAME[name]
    for name in (
        "nt_xent_of_three_views",
        "clip",
        "siglip",
        "kernel_info_nce_gaussian",
        "kernel_info_nce_laplacian",
        "kernel_info_nce_kernel_sum",
        "kernel_info_nce_concatenation_sum",
        "kernel_info_nce_dot",
        "info_nce_with_hard_negatives_and_a_guide",
    )
]


def _wide(tree):
    """A pytree with its bfloat16 as float32."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree
    )


@cases.over([*cases.KINDS, *(c for c in FORMED if c not in cases.KINDS)], FORMED[:5])
def test_bfloat16_is_multiplied_as_it_is_and_equals_float32(case, accelerator):
    arrays, parameters, constants = cases.numbers(case, jnp.bfloat16)
    parameters = jax.tree.map(lambda x: x.astype(jnp.float32), parameters)
    valid = jnp.arange(cases.ROWS) != 2

    def run(arrays, parameters, **options):
        everything = {**arrays, **(_wide(constants) if options else constants)}
        loss = case.loss(everything, parameters, valid=valid, **options)
        return (loss * jnp.cos(jnp.arange(loss.size)).reshape(loss.shape)).sum(), loss

    differentiated = jax.grad(run, (0, 1), has_aux=True)
    narrow = jax.jit(differentiated)(arrays, parameters)
    # Two slices of rows at least, so that there is more than one tile.
    assert plans.FORMS["cpu"].tile < cases.ROWS * 2
    exact = jax.jit(functools.partial(differentiated, impl="reference"))(
        _wide(arrays), parameters
    )
    np.testing.assert_allclose(narrow[1], exact[1], rtol=2e-5, atol=2e-5)
    for got, want in zip(
        jax.tree.leaves(narrow[0]), jax.tree.leaves(exact[0]), strict=True
    ):
        # Coefficients are rounded to 8 binary digits, before what lies along a row is
        # taken out of their sum: what is left may be a small part of it.
        error = np.abs(np.asarray(got, float) - np.asarray(want, float)).max()
        assert error < 1e-2 * max(0.5, np.abs(want).max())


@cases.over([case for case in numerics_test.KINDS if case.softmax], FORMED[:1])
def test_bfloat16_keeps_its_digits_when_training_has_succeeded(case, accelerator):
    # The same tolerances as on a CPU.
    numerics_test.check_the_gradient(case)


def test_a_cosine_of_bfloat16_is_exact_before_it_is_scaled():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((64, 512)) * rng.uniform(0.5, 2, (64, 1))
    z[1::2] = z[::2] + 0.05 * rng.standard_normal((32, 512))
    z = jnp.asarray(z, jnp.bfloat16)
    side, _ = slices.side(kernels.cosine(jnp.float32(1)), graphs.labelled(z, LABELS))
    rows, _, factor = side.multiplied(narrow=True).vectors[0]
    assert rows.dtype == jnp.bfloat16
    got = jnp.dot(rows, rows.T, preferred_element_type=jnp.float32)
    got = np.asarray(got * factor[:, None] * factor[None, :], np.float64)
    exact = np.asarray(z, np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.abs(got - exact @ exact.T).max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_maximum_and_sum_are_found_in_one_reading(axis):
    rng = np.random.default_rng(0)
    scores = jnp.asarray(30 * rng.standard_normal((37, 29)), jnp.float32)
    member = jnp.asarray(rng.random((37, 29)) < 0.3)
    member = member.at[5].set(False).at[:, 7].set(False)
    reduction = pairwise.Reduction("logsumexp", graphs.others)

    @functools.partial(jax.jit, static_argnums=0)
    def summarize(at_once):
        parts = reductions.summarize(reduction, scores, member, {axis}, at_once)
        nothing = reductions.empty(reduction, parts[axis].total)
        part = reductions.combine(reduction, parts[axis], nothing)
        return reductions.finish(reduction, part)[0]

    got, want = summarize(True), summarize(False)
    assert (want == -jnp.inf).sum() == 1
    np.testing.assert_allclose(got, want, rtol=1e-6)
    lowered = jax.jit(summarize, static_argnums=0).lower
    assert lowered(True).as_text().count("stablehlo.reduce(") == 1


LABELS = jnp.arange(64) // 2


@pytest.mark.parametrize("length", [1e-34, 3e38])
def test_rows_of_any_length_have_their_cosines(length, accelerator):
    x = jnp.asarray(cases.X, jnp.float32) * 0.5
    y = jnp.asarray(cases.Y, jnp.float32) * 0.5
    largest = jnp.abs(x).max()
    want = losses.clip(x, y)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.1)):
        long = (x / largest * length).astype(dtype)
        value, gradient = jax.value_and_grad(lambda z: losses.clip(z, y).mean())(long)
        np.testing.assert_allclose(value, want.mean(), rtol=tolerance)
        assert np.isfinite(np.asarray(gradient, np.float32)).all()


def _program(*arguments, **options):
    """The program of a loss before it is compiled."""
    return (
        jax.jit(functools.partial(losses.clip, **options)).lower(*arguments).as_text()
    )


X = jnp.asarray(cases.X, jnp.float32)


def test_the_precision_of_products_is_stated_and_settable():
    stated = {
        precision: {
            line.split("precision = [")[1].split(",")[0]
            for line in _program(X, X, precision=precision).splitlines()
            if "dot_general" in line and "batching" not in line
        }
        for precision in (None, "bfloat16", "high", "highest")
    }
    assert stated == {
        None: {"HIGH"},
        "bfloat16": {"DEFAULT"},
        "high": {"HIGH"},
        "highest": {"HIGHEST"},
    }
    with jax.default_matmul_precision("highest"):
        assert "HIGH," not in _program(X, X)
    with pytest.raises(ValueError, match="precision must be one of 'bfloat16', 'high'"):
        losses.clip(X, X, precision="float32")


def test_bfloat16_asked_for_is_the_loss_of_rounded_embeddings():
    y = jnp.asarray(cases.Y, jnp.float32)
    rounded = [z.astype(jnp.bfloat16).astype(jnp.float32) for z in (X, y)]
    kernel = kernels.cosine(0.1)
    asked = (pairwise.Reduction("logsumexp", graphs.negatives),)

    def negatives(x, y, **options):
        nodes = graphs.pairs(x, y)
        return pairwise.reduce_pairs(*nodes, kernel=kernel, reductions=asked, **options)

    (got,) = negatives(X, y, precision="bfloat16")
    (want,) = negatives(*rounded)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.abs(got - negatives(X, y)[0]).max() > 1e-3


def test_auto_gathers_what_is_small(monkeypatch):
    mesh = jax.make_mesh((8,), ("data",))
    x = jax.ShapeDtypeStruct((64, 4), jnp.float32)

    def program(loss, *arguments):
        return jax.jit(jaxcl.sharded(loss, mesh)).lower(*arguments).as_text()

    for bytes_of_each, loss, arguments in (
        (
            4,
            lambda z, **options: losses.sup_con(z, z[:, 0].astype(int), **options),
            (x,),
        ),
        (4 + 8, losses.clip, (x, x)),
    ):
        for limit, ring in ((64 * 4 * bytes_of_each, False), (64 * 4, True)):
            monkeypatch.setattr(pairwise, "GATHERED", limit)
            assert ("collective_permute" in program(loss, *arguments)) == ring


def test_each_platform_has_its_tiles():
    z = jax.ShapeDtypeStruct((1200, 4), jnp.float32)
    traced = jax.jit(lambda z: losses.uniformity(z, impl="tiled")).trace(z)
    for platform, count, size in (("cpu", 3, 400), ("tpu", 1, 1200), ("cuda", 1, 1200)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert f"tensor<{size}x{size}xf32>" in program
        assert (f"tensor<{1200 // 3}x{1200 // 3}xf32>" in program) == (count == 3)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100])
@pytest.mark.parametrize("multiple", [1, 8])
def test_triangular_tiles_meet_every_pair_once(n, multiple):
    form = plans.Form(10, multiple, narrow=False, across=False, at_once=False)
    cuts = plans.cuts(form, "triangular", n, n)
    met = np.zeros((n, n), int)
    for i in range(cuts.row.number):
        rows = int(slices.start(cuts.row, i)) + np.flatnonzero(
            slices.new_rows(cuts.row, i)
        )
        for k in range(cuts.met):
            j = cuts.column_of("triangular", i, k)
            columns = int(slices.start(cuts.row, j)) + np.flatnonzero(
                slices.new_rows(cuts.row, j)
            )
            met[np.ix_(rows, columns)] += 1
            if i != j:
                met[np.ix_(columns, rows)] += 1
    np.testing.assert_array_equal(met, 1)
