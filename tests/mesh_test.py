"""The global mean, losses on global arrays, and meshes that are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import losses

AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
MESH = jax.make_mesh((8,), ("data",), axis_types=(AUTO,))
VIEWS = jax.random.normal(jax.random.key(0), (16, 2, 5))
VALID = np.arange(16) % 5 != 3


def test_mean_counts_what_is_valid_and_is_zero_over_nothing():
    loss = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(jaxcl.mean(loss), 2.5)
    valid = jnp.array([True, False, True])
    np.testing.assert_allclose(jaxcl.mean(loss, valid), 2.5)
    np.testing.assert_allclose(jaxcl.mean(loss[:, 0], valid), 2.0)
    assert jaxcl.mean(loss, jnp.zeros(3, bool)) == 0
    assert jaxcl.mean(loss.at[1].set(jnp.nan), valid) == 2.5


def test_mean_over_a_mesh_weighs_devices_by_what_is_valid():
    loss = jnp.asarray(np.random.default_rng(0).standard_normal(16), jnp.float32)
    rows = jax.P("data")
    got = jax.shard_map(
        lambda x, valid: jaxcl.mean(x, valid, "data"),
        mesh=MESH,
        in_specs=(rows, rows),
        out_specs=jax.P(),
    )(loss, jnp.array(VALID))
    np.testing.assert_allclose(got, np.asarray(loss)[VALID].mean(), rtol=1e-6)


def test_gradient_of_the_mean_inside_shard_map_is_that_of_one_device():
    def loss(views, temperature, axis_name=None):
        values = losses.nt_xent(
            views, temperature=temperature, axis_name=axis_name, tile=5
        )
        return jaxcl.mean(values, axis_name=axis_name)

    rows, whole = jax.P("data"), jax.P()
    t = jnp.float32(0.3)
    expected = jax.value_and_grad(loss, (0, 1))(VIEWS, t)
    inside = jax.shard_map(
        jax.value_and_grad(functools.partial(loss, axis_name="data"), (0, 1)),
        mesh=MESH,
        in_specs=(rows, whole),
        out_specs=(whole, (rows, whole)),
    )
    got = jax.jit(inside)(VIEWS, t)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)


def test_sharded_passes_masks_by_rows_and_other_keywords_whole():
    seen = {}

    def loss(x, *, valid, table, name, axis_name):
        seen.update(x=x.shape, valid=valid.shape, table=table.shape, name=name)
        return x[:, 0] + table.sum()

    run = jaxcl.sharded(loss, MESH)
    x = jnp.ones((16, 3))
    result = run(x, valid=jnp.ones(16, bool), table=jnp.ones(5), name="words")
    assert seen == {"x": (2, 3), "valid": (2,), "table": (5,), "name": "words"}
    assert result.shape == (16,)
    assert result.sharding.spec == jax.P("data")


def test_sharded_scalars_are_replicated_and_anything_given_is_resharded():
    run = jaxcl.sharded(
        lambda x, axis_name: jaxcl.mean(x[:, 0], axis_name=axis_name), MESH
    )
    x = jax.device_put(jnp.arange(16.0)[:, None], jax.devices()[3])
    assert run(x) == 7.5
    assert run(x).sharding.is_fully_replicated
    assert jax.jit(run)(np.arange(16.0, dtype=np.float32)[:, None]) == 7.5


def test_rows_that_devices_do_not_divide_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"divisible by the 8.*\(12, 2, 5\).*valid"):
        jaxcl.sharded(losses.nt_xent, MESH)(VIEWS[:12])


def test_a_mesh_without_the_axis_is_refused():
    with pytest.raises(ValueError, match=r"'model' is not an axis.*data"):
        jaxcl.sharded(losses.nt_xent, MESH, "model")


def test_untracked_axes_are_refused():
    loss = functools.partial(losses.nt_xent, axis_name="data")
    rows = jax.P("data")
    unchecked = jax.shard_map(
        loss, mesh=MESH, in_specs=rows, out_specs=rows, check_vma=False
    )
    with pytest.raises(ValueError, match="check_vma=False"):
        unchecked(VIEWS)
    with pytest.raises(ValueError, match=r"vmap\(axis_name"):
        jax.vmap(loss, axis_name="data")(VIEWS[None])
