"""Diagnostics over a mesh are those of one device."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import diagnostics

RNG = np.random.default_rng(0)
N, D = 48, 4
Z = jnp.asarray(RNG.normal(size=(N, D)) + 0.3, jnp.float32)
KEYS = Z + jnp.asarray(0.8 * RNG.normal(size=(N, D)), jnp.float32)
MORE = jnp.concatenate([KEYS, Z[::-1] + 0.1])
KEEP = jnp.arange(N) % 5 != 3
GROUPS, MORE_GROUPS = jnp.arange(N) // 3, jnp.arange(2 * N) % N // 3
ALL = Z, KEYS, MORE, KEEP, GROUPS, MORE_GROUPS


def _everything(
    z, keys, more, keep, groups, more_groups, axis_name=None, exchange="gather"
):
    options = {"axis_name": axis_name, "exchange": exchange}
    masked = {"valid": keep, "axis_name": axis_name}
    return {
        "norm_cv": diagnostics.norm_cv(z, **masked),
        "alignment_cosine": diagnostics.alignment_cosine(z, keys, **masked),
        "uniformity_cosine": diagnostics.uniformity_cosine(z, valid=keep, **options),
        "effective_rank": diagnostics.effective_rank(z, **masked),
        "retrieval_accuracy": diagnostics.retrieval_accuracy(z, more, 2, **options),
        "masked_retrieval": diagnostics.retrieval_accuracy(
            z, keys, valid=keep, **options
        ),
        "ranks": diagnostics.retrieval_ranks(
            z, more, groups=(groups, more_groups), valid=(keep, None), **options
        ),
        "potential": diagnostics.uniformity_potential(z, keys, valid=keep, **options),
        "mardia": diagnostics.mardia(z, **options),
        "henze_zirkler": diagnostics.henze_zirkler(z, **options),
        "variances": diagnostics.fit_gaussian(z, **masked).variances,
    }


def _one(name, *arrays, **options):
    return _everything(*arrays, **options)[name]


@functools.cache
def _whole():
    return jax.jit(_everything)(*ALL)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["gather", "ring"])
def test_sharding_changes_nothing(exchange):
    """A program for each: in one with several rings, XLA may start another collective
    on some CPU devices while a ring still turns on others, and both wait forever.
    """
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    rows = jax.P("data")
    for name, want in _whole().items():
        split = jax.shard_map(
            functools.partial(_one, name, axis_name="data", exchange=exchange),
            mesh=mesh,
            in_specs=rows,
            out_specs=rows if name in ("alignment_cosine", "ranks") else jax.P(),
        )
        got = jax.jit(split)(*ALL)
        # Scores, as of kurtosis, come in standard deviations and may lie near 0.
        chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)


def test_global_arrays_need_no_shard_map():
    mesh = jax.make_mesh((8,), ("data",))
    got = jax.jit(jaxcl.sharded(diagnostics.norm_cv, mesh))(Z, valid=KEEP)
    np.testing.assert_allclose(got, diagnostics.norm_cv(Z, valid=KEEP), rtol=1e-5)


def test_ranks_of_global_arrays_are_split_by_rows_with_all_their_groups():
    mesh = jax.make_mesh((8,), ("data",))
    queries, of_query = Z[:8], GROUPS[:8]
    options = {"groups": (of_query, MORE_GROUPS), "valid": (KEEP[:8], MORE_GROUPS > 0)}
    got = jax.jit(jaxcl.sharded(diagnostics.retrieval_ranks, mesh))(
        queries, MORE, **options
    )
    expected = diagnostics.retrieval_ranks(queries, MORE, **options)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_a_fit_is_given_once():
    mesh = jax.make_mesh((8,), ("data",))
    got = jaxcl.sharded(diagnostics.fit_gaussian, mesh)(Z, valid=KEEP)
    expected = diagnostics.fit_gaussian(Z, valid=KEEP)
    chex.assert_trees_all_equal_shapes(got, expected)
    np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(got.variances, expected.variances, rtol=1e-5)


@pytest.mark.parametrize("case", ["generic", "zero rows", "dead column", "few valid"])
def test_the_gradient_of_the_rank_is_that_of_one_device(case):
    z = {
        "zero rows": Z.at[:7].set(0),  # a whole device of them
        "dead column": Z.at[:, 1].set(0),
    }.get(case, Z)
    keep = jnp.arange(N) < (2 if case == "few valid" else N)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    split = jaxcl.sharded(diagnostics.effective_rank, mesh)
    got, whole = (
        jax.jit(jax.grad(lambda z, run=run: run(z, valid=keep)))(z)
        for run in (split, diagnostics.effective_rank)
    )
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-5)
