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
    run = jax.shard_map(
        lambda x, valid: jaxcl.mean(x, valid, "data"),
        mesh=MESH,
        in_specs=(rows, rows),
        out_specs=jax.P(),
    )
    got = jax.jit(run)(loss, jnp.array(VALID))
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


@pytest.mark.slow
def test_arrays_of_losses_are_split_also_where_given_by_keyword():
    x, y = VIEWS[:, 0], VIEWS[:, 1]
    run = jax.jit(jaxcl.sharded(losses.info_nce, MESH))
    np.testing.assert_allclose(
        run(queries=x, keys=y, temperature=0.5),
        losses.info_nce(x, y, temperature=0.5),
        rtol=2e-6,
    )
    labels = jnp.arange(16) % 3
    got = jax.jit(jaxcl.sharded(losses.sup_con, MESH))(x, labels=labels)
    np.testing.assert_allclose(got, losses.sup_con(x, labels), rtol=2e-6)
    # Other keywords go whole, whatever their names.
    run = jaxcl.sharded(
        lambda x, *, target, axis_name: x[:, 0] * 0 + target.sum(), MESH
    )
    np.testing.assert_array_equal(run(x, target=jnp.ones(8)), 8)
    # Scalars have no rows.
    got = jax.jit(lambda t: jaxcl.sharded(losses.uniformity, MESH)(x, t))(1.5)
    np.testing.assert_allclose(got, losses.uniformity(x, 1.5), rtol=2e-6)
    got = jaxcl.sharded(losses.alignment, MESH)(VIEWS, np.float32(2))
    np.testing.assert_allclose(got, losses.alignment(VIEWS), rtol=2e-6)


def test_queues_and_second_sets_are_split_with_their_labels_and_masks():
    names = "negatives", "negative_labels"
    names += "candidates", "teacher_candidates", "candidates_valid"
    seen = {}

    def loss(z, *, axis_name, **rows):
        seen.update({name: len(x) for name, x in rows.items()})
        return z[:, 0]

    run = jaxcl.sharded(loss, MESH)
    run(jnp.ones((16, 3)), **dict.fromkeys(names, jnp.ones(24)))
    assert seen == dict.fromkeys(names, 3)
    for name in names:
        # No `valid` could mask their padding.
        with pytest.raises(ValueError, match=rf"rows of {name} .*\(12,\); pad it$"):
            run(jnp.ones((16, 3)), **{name: jnp.ones(12)})


LABELS = jnp.arange(16) % 3


def _copy_of_sup_con(z, labels, *, temperature=0.1, axis_name=None):
    return losses.sup_con(z, labels, temperature=temperature, axis_name=axis_name)


def _born_nowhere():
    """The same function as a cell makes it that is run by exec: without a module."""
    space = {"losses": losses}
    exec(
        "def copy(z, labels, *, axis_name=None):\n"
        "    return losses.sup_con(z, labels, axis_name=axis_name)",
        space,
    )
    assert space["copy"].__module__ is None
    return space["copy"]


class _Callable:
    def __call__(self, z, labels, *, axis_name=None):
        return _copy_of_sup_con(z, labels, axis_name=axis_name)

    def method(self, z, labels, *, axis_name=None):
        return self(z, labels, axis_name=axis_name)


@pytest.mark.parametrize(
    "loss",
    [
        losses.sup_con,
        _copy_of_sup_con,
        _born_nowhere(),
        jax.jit(_copy_of_sup_con, static_argnames="axis_name"),
        functools.partial(_copy_of_sup_con, temperature=0.1),
        functools.partial(functools.partial(losses.sup_con), temperature=0.1, tile=5),
        _Callable(),
        _Callable().method,
    ],
)
def test_what_is_split_does_not_depend_on_where_a_function_was_born(loss):
    z, run = VIEWS[:, 0], jax.jit(jaxcl.sharded(loss, MESH))
    expected = losses.sup_con(z, LABELS)
    np.testing.assert_allclose(run(z, labels=LABELS), expected, rtol=2e-6)
    np.testing.assert_allclose(run(z, LABELS), expected, rtol=2e-6)


def test_keyword_only_arrays_go_whole_unless_rows_names_them():
    seen = []

    def loss(z, *, labels, axis_name):
        seen.append(labels.shape)
        return z[:, 0]

    z = VIEWS[:, 0]
    jaxcl.sharded(loss, MESH)(z, labels=LABELS)
    jaxcl.sharded(loss, MESH, rows=("labels",))(z, labels=LABELS)
    assert set(seen[: len(seen) // 2]) == {(16,)}
    assert set(seen[len(seen) // 2 :]) == {(2,)}

    def of_anything(z, **options):
        seen.append(options["labels"].shape)
        return z[:, 0]

    jaxcl.sharded(of_anything, MESH, rows=("labels",))(z, labels=LABELS)
    assert seen[-1] == (2,)


def test_a_wrong_name_in_rows_is_refused():
    with pytest.raises(ValueError, match=r"rows must name .* z, labels,.* got 'label'"):
        jaxcl.sharded(_copy_of_sup_con, MESH, rows=("label",))
    with pytest.raises(TypeError, match=r"rows must be a tuple.*got 'labels'"):
        jaxcl.sharded(_copy_of_sup_con, MESH, rows="labels")


def test_a_function_without_a_signature_is_split_by_position_and_by_known_names():
    class Hidden:
        @property
        def __signature__(self):
            raise ValueError("no signature found")

        def __call__(self, z, *, valid, labels, axis_name):
            assert (z.shape, valid.shape, labels.shape) == ((2, 5), (2,), (16,))
            return z[:, 0]

    run = jaxcl.sharded(Hidden(), MESH)
    run(VIEWS[:, 0], valid=jnp.array(VALID), labels=LABELS)


def test_what_a_partial_holds_counts_as_given_in_the_call():
    held = functools.partial(losses.nt_xent, valid=VALID, axis_name=None)
    expected = losses.nt_xent(VIEWS, valid=jnp.array(VALID))
    run = jax.jit(jaxcl.sharded(held, MESH))
    np.testing.assert_allclose(run(VIEWS), expected, rtol=2e-6)
    # What the call gives takes the place of what the partial holds.
    got = run(VIEWS, valid=jnp.ones(16, bool))
    np.testing.assert_allclose(got, losses.nt_xent(VIEWS), rtol=2e-6)
    z = VIEWS[:, 0]
    first = functools.partial(losses.sup_con, z, temperature=jnp.float32(0.2))
    got = jax.jit(jaxcl.sharded(first, MESH))(LABELS)
    expected = losses.sup_con(z, LABELS, temperature=0.2)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_sharded_scalars_are_replicated_and_anything_given_is_resharded():
    run = jaxcl.sharded(
        lambda x, axis_name: jaxcl.mean(x[:, 0], axis_name=axis_name), MESH
    )
    x = jax.device_put(jnp.arange(16.0)[:, None], jax.devices()[3])
    assert run(x) == 7.5
    assert run(x).sharding.is_fully_replicated
    assert jax.jit(run)(np.arange(16.0, dtype=np.float32)[:, None]) == 7.5


def test_a_result_over_all_rows_is_given_once():
    def loss(x, *, axis_name):
        mean = jax.lax.pmean(x.mean(0), axis_name)
        return {"mean": mean, "rows": x - mean[None, :], "scalar": mean.sum()}

    x = VIEWS[:, 0]
    got = jaxcl.sharded(loss, MESH)(x)
    np.testing.assert_allclose(got["mean"], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(got["rows"], x - x.mean(0)[None], rtol=0, atol=1e-6)
    assert got["mean"].sharding.is_fully_replicated
    assert got["rows"].sharding.spec == jax.P("data")
    assert got["scalar"].shape == ()


def test_rows_that_devices_do_not_divide_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"argument 0 .*divisible by the 8.*\(12, 2, 5\).*valid"
    ):
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


# How the gradient of replicated parameters scales on eight devices, by what is
# differentiated and what is done with the gradient afterwards. A caller who writes the
# loop himself finds his row here.
SCALES = [
    ("outside", "mean", None, 1),
    ("inside", "local mean", None, 8),
    ("inside", "local mean", "pmean", 8),
    ("inside", "local mean", "psum", 64),
    ("inside", "mean", None, 1),
    ("inside", "mean", "pmean", 1),
    ("inside", "psum", "pmean", 8),
]


@pytest.mark.parametrize(("grad", "of", "then", "scale"), SCALES)
def test_gradient_scales_are_those_of_the_table(grad, of, then, scale, x64):
    inputs = jax.random.normal(jax.random.key(1), (16, 2, 4), jnp.float64)
    weight = jax.random.normal(jax.random.key(2), (4, 3), jnp.float64)
    rows, whole = jax.P("data"), jax.P()

    def local(weight, inputs):
        values = losses.nt_xent(inputs @ weight, axis_name="data", tile=5)
        if of == "mean":
            return jaxcl.mean(values, axis_name="data")
        if of == "psum":
            return jax.lax.psum(values.mean(), "data")
        return values.mean()

    expected = jax.grad(lambda w: losses.nt_xent(inputs @ w).mean())(weight)
    specs = {"mesh": MESH, "in_specs": (whole, rows), "out_specs": whole}
    if grad == "outside":
        got = jax.jit(jax.grad(jax.shard_map(local, **specs)))(weight, inputs)
    else:

        def gradient(weight, inputs):
            g = jax.grad(local)(weight, inputs)
            after = {"pmean": jax.lax.pmean, "psum": jax.lax.psum}.get(then)
            return g if after is None else after(g, "data")

        got = jax.jit(jax.shard_map(gradient, **specs))(weight, inputs)
    np.testing.assert_allclose(got, scale * expected, rtol=1e-11)


@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_any_number_of_devices_gives_the_same(devices, exchange):
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AUTO,), devices=jax.devices()[:devices]
    )
    # Three rows on the last device are padding: 13 examples, which nothing divides.
    views = jnp.where(jnp.arange(16)[:, None, None] < 13, VIEWS, jnp.nan)
    valid = jnp.arange(16) < 13
    loss = functools.partial(losses.nt_xent, exchange=exchange, tile=5)
    got, gradient = jax.jit(
        jax.value_and_grad(
            lambda v: jaxcl.mean(jaxcl.sharded(loss, mesh)(v, valid=valid), valid)
        )
    )(views)
    expected, wanted = jax.value_and_grad(lambda v: losses.nt_xent(v).mean())(
        VIEWS[:13]
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:13], wanted, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(gradient[13:], 0)
