"""Laws that every loss obeys, each over all losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from tests.losses import cases

ALL = pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
ROWS = 8  # a row for each device


# Those in which each array has a row for each example, so that rows can be moved.
MOVABLE = pytest.mark.parametrize(
    "case",
    [c for c in cases.CASES if all(len(x) == cases.ROWS for x in c.arrays.values())],
    ids=lambda case: case.name,
)


@ALL
def test_what_is_not_valid_changes_nothing_whatever_it_holds(case):
    arrays, _, constants = cases.numbers(case, jnp.float32)
    valid = jnp.arange(cases.ROWS) != 2

    def losses(arrays):
        everything = {**arrays, **constants}
        loss = case.loss(everything, case.parameters, valid=valid, tile=5)
        return loss.sum(), loss

    spoiled = {
        name: x.at[2].set(jnp.nan) if name != "queue" else x
        for name, x in arrays.items()
    }
    run = jax.jit(jax.grad(losses, has_aux=True))
    (gradient, loss), (clean_gradient, clean) = run(spoiled), run(arrays)
    np.testing.assert_array_equal(loss, clean)
    np.testing.assert_array_equal(loss[2], 0)
    for name in arrays:
        np.testing.assert_array_equal(gradient[name], clean_gradient[name])
        if name != "queue":
            np.testing.assert_array_equal(gradient[name][2], 0)


@MOVABLE
def test_padding_with_invalid_rows_changes_nothing(case):
    arrays, _, constants = cases.numbers(case, jnp.float32)
    padded = {n: jnp.concatenate([x, x[:3] * 9]) for n, x in arrays.items()}
    more = cases.take(constants, np.array([*range(cases.ROWS), 0, 1, 2]))
    valid = jnp.arange(cases.ROWS + 3) < cases.ROWS
    plain = case.loss({**arrays, **constants}, case.parameters, tile=5)
    got = case.loss({**padded, **more}, case.parameters, valid=valid, tile=5)
    np.testing.assert_allclose(got[: cases.ROWS], plain, rtol=2e-6, atol=1e-6)


@MOVABLE
def test_order_does_not_matter(case):
    order = np.array([4, 2, 0, 5, 3, 1])
    arrays, _, constants = cases.numbers(case, jnp.float32)
    moved = {n: x[order] for n, x in arrays.items()}
    plain = case.loss({**arrays, **constants}, case.parameters, tile=5)
    other = {**moved, **cases.take(constants, order)}
    np.testing.assert_allclose(
        case.loss(other, case.parameters, tile=5), plain[order], rtol=2e-6, atol=2e-6
    )


def _mesh(kind):
    if kind == "one axis":
        return jax.make_mesh((8,), ("data",), axis_types=(AUTO,)), "data"
    if kind == "beside a model axis":
        return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AUTO,) * 2), "data"
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(EXPLICIT,) * 2)
    return mesh, ("a", "b")


def _tall(case):
    """The arrays repeated with noise to a multiple of eight rows, and their labels."""
    rng = np.random.default_rng(0)

    def tall(x):
        rows = x.shape[0] // cases.ROWS * ROWS
        repeats = -(-rows // x.shape[0])
        x = np.concatenate([x] * repeats)[:rows]
        return jnp.asarray(x + 0.3 * rng.standard_normal(x.shape))

    return {name: tall(x) for name, x in case.arrays.items()}


# All losses over one axis. What a mesh or an exchange cannot see, a kernel or a score,
# is not repeated on the others.
REPRESENTATIVE = ("nt_xent", "clip", "sup_con", "info_nce_with_a_queue")
PLACES = [
    pytest.param(case, kind, exchange, id=f"{case.name}-{kind}-{exchange}")
    for kind, exchange, some in [
        ("one axis", "gather", [case.name for case in cases.CASES]),
        ("one axis", "ring", (*REPRESENTATIVE, "graph_cross_entropy", "siglip")),
        ("beside a model axis", "ring", REPRESENTATIVE),
        ("two axes", "gather", REPRESENTATIVE),
        ("two axes", "ring", REPRESENTATIVE),
    ]
    for case in cases.CASES
    if case.name in some
]


@pytest.mark.parametrize(("case", "kind", "exchange"), PLACES)
def test_sharding_changes_neither_value_nor_gradient(case, kind, exchange, x64):
    mesh, axis_name = _mesh(kind)
    arrays = _tall(case)
    rows = np.arange(ROWS) % cases.ROWS
    _, parameters, constants = cases.numbers(case, jnp.float64)
    arguments = {**arrays, **cases.take(constants, rows)}
    names = sorted(arguments)
    valid = jnp.arange(ROWS) != 3

    def total(run, arrays, parameters):
        everything = {**arguments, **arrays}
        values = run([everything[n] for n in names], parameters)
        weights = jnp.cos(jnp.arange(values.size, dtype=values.dtype))
        return (values * weights.reshape(values.shape)).sum(), values

    def loss(shards, parameters, **options):
        shards = dict(zip(names, shards, strict=True))
        return case.loss(shards, parameters, **options)

    def whole(shards, parameters):
        return loss(shards, parameters, valid=valid, impl="reference")

    def split(shards, parameters):
        def local(*shards, parameters, valid, axis_name):
            return loss(
                shards,
                parameters,
                valid=valid,
                axis_name=axis_name,
                exchange=exchange,
                tile=3,
            )

        run = jaxcl.sharded(local, mesh, axis_name)
        return run(*shards, parameters=parameters, valid=valid)

    gradients = []
    for run in (whole, split):
        differentiate = jax.value_and_grad(
            functools.partial(total, run), (0, 1), has_aux=True
        )
        (_, values), gradient = jax.jit(differentiate)(arrays, parameters)
        gradients.append(jax.device_get((values, gradient)))
    for want, got in zip(*map(jax.tree.leaves, gradients), strict=True):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(scale, 1))


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_vmap_and_checkpoint_pass_through(name):
    case = cases.BY_NAME[name]
    arrays, _, _ = cases.numbers(case, jnp.float32)
    two = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), arrays)

    def total(arrays):
        return case.loss(arrays, case.parameters, tile=5).sum()

    plain = jax.grad(total)(arrays)
    mapped = jax.vmap(jax.grad(total))(two)
    again = jax.grad(jax.checkpoint(total))(arrays)
    for key in arrays:
        np.testing.assert_allclose(mapped[key][0], plain[key], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            mapped[key][1][::-1], plain[key], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(again[key], plain[key], rtol=1e-6, atol=1e-7)


def test_the_reference_is_differentiable_twice_and_the_tiled_form_says_it_is_not():
    case = cases.BY_NAME["nt_xent"]
    arrays, _, _ = cases.numbers(case, jnp.float32)

    def total(impl, arrays):
        return case.loss(arrays, case.parameters, impl=impl).sum()

    hessian = jax.jacfwd(jax.grad(functools.partial(total, "reference")))(arrays)
    assert np.isfinite(jax.tree.leaves(hessian)[0]).all()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(functools.partial(total, "tiled"), (arrays,), (arrays,))


def test_a_zero_derivative_would_be_noticed():
    """The gradient tests compare with a scale that a zero gradient cannot meet."""
    from tests.losses import oracle_test

    case = cases.BY_NAME["nt_xent"]
    expected = oracle_test._oracle_gradient(case)
    for want in jax.tree.leaves(expected):
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(
                np.zeros_like(want), want, rtol=0, atol=1e-7 * np.abs(want).max()
            )
