"""Laws that every loss obeys, each over all losses.

The ordinary run asks one of each kind: what a law cannot see, a kernel or a score, is
not repeated there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from tests.losses import cases

AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
ROWS = 8  # a row for each device


# Those in which each array has a row for each example, so that rows can be moved.
def _movable(case):
    return "queue" not in case.arrays and all(
        len(x) == cases.ROWS for x in case.arrays.values()
    )


MOVABLE = [case for case in cases.CASES if _movable(case)]
PADDED = cases.ROWS + 3


def _padded(case):
    """Arrays and constants in float32, with rows of padding where rows can be moved."""
    arrays, _, constants = cases.numbers(case, jnp.float32)
    if _movable(case):
        arrays = {n: jnp.concatenate([x, x[:3] * 9]) for n, x in arrays.items()}
        constants = cases.take(constants, np.arange(PADDED) % cases.ROWS)
    return arrays, constants


@functools.cache
def _compiled(name):
    """Loss and gradient of a case, compiled once for all laws."""
    case = cases.BY_NAME[name]

    def run(arrays, constants, valid):
        def losses(arrays):
            everything = {**arrays, **constants}
            loss = case.loss(everything, case.parameters, valid=valid, tile=5)
            return loss.sum(), loss

        return jax.grad(losses, has_aux=True)(arrays)

    return jax.jit(run)


@cases.over(cases.CASES, cases.FEW)
def test_what_is_not_valid_changes_nothing_whatever_it_holds(case):
    arrays, constants = _padded(case)
    rows = np.arange(min(map(len, arrays.values())))
    valid = (rows != 2) & (rows < cases.ROWS)
    spoiled = {
        name: x.at[np.flatnonzero(~valid)].set(jnp.nan) if name != "queue" else x
        for name, x in arrays.items()
    }
    run = _compiled(case.name)
    gradient, loss = run(spoiled, constants, valid)
    clean_gradient, clean = run(arrays, constants, valid)
    np.testing.assert_array_equal(loss, clean)
    np.testing.assert_array_equal(loss[~valid], 0)
    for name in arrays:
        np.testing.assert_array_equal(gradient[name], clean_gradient[name])
        if name != "queue":
            np.testing.assert_array_equal(gradient[name][: valid.size][~valid], 0)


@cases.over(MOVABLE)
def test_padding_with_invalid_rows_changes_nothing(case):
    arrays, _, constants = cases.numbers(case, jnp.float32)
    plain = case.loss({**arrays, **constants}, case.parameters, tile=5)
    _, got = _compiled(case.name)(*_padded(case), np.arange(PADDED) < cases.ROWS)
    np.testing.assert_allclose(got[: cases.ROWS], plain, rtol=2e-6, atol=1e-6)


@cases.over(MOVABLE)
def test_order_does_not_matter(case):
    order = np.array([4, 2, 7, 0, 5, 8, 3, 6, 1])
    arrays, constants = _padded(case)
    moved = {n: x[order] for n, x in arrays.items()}
    valid = np.arange(PADDED) < cases.ROWS
    run = _compiled(case.name)
    _, plain = run(arrays, constants, valid)
    _, other = run(moved, cases.take(constants, order), valid[order])
    np.testing.assert_allclose(other, plain[order], rtol=2e-6, atol=2e-6)


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


# All losses over one axis; what a mesh or an exchange cannot see is not repeated on the
# others.
FEW = [case.name for case in cases.FEW]
# Their limits travel with the candidates, too.
GUIDED = [
    "clip_with_hard_negatives_a_kernel_and_a_guide",
    "kernel_info_nce_with_a_guide",
]
ORDINARY = [
    *FEW,
    "clip_with_hard_negatives_a_kernel_and_a_guide",
    "graph_cross_entropy",
    "spectral_contrastive",
]
SLOW = pytest.mark.slow
PLACES = [
    pytest.param(
        case,
        kind,
        exchange,
        id=f"{case.name}-{kind}-{exchange}",
        marks=() if case.name in (ORDINARY, FEW[:1])[kind != "one axis"] else SLOW,
    )
    for kind, exchange, some in [
        ("one axis", "gather", [case.name for case in cases.CASES]),
        ("one axis", "ring", (*FEW, *GUIDED, "graph_cross_entropy", "siglip")),
        ("beside a model axis", "ring", FEW),
        ("two axes", "gather", FEW),
        ("two axes", "ring", FEW),
    ]
    for case in cases.CASES
    if case.name in some
]


VALID = np.arange(ROWS) != 3


def _sharding_problem(case):
    """A weighted sum of a case's losses with their values, its shards and arguments."""
    arrays = _tall(case)
    _, parameters, constants = cases.numbers(case, jnp.float64)
    rows = np.arange(ROWS) % cases.ROWS
    arguments = {**arrays, **cases.take(constants, rows)}
    names = sorted(arguments)

    def loss(shards, parameters, **options):
        shards = dict(zip(names, shards, strict=True))
        return case.loss(shards, parameters, **options)

    def differentiate(run):
        def total(arrays, parameters):
            everything = {**arguments, **arrays}
            values = run([everything[n] for n in names], parameters)
            weights = jnp.cos(jnp.arange(values.size, dtype=values.dtype))
            return (values * weights.reshape(values.shape)).sum(), values

        gradient, values = jax.jit(jax.grad(total, (0, 1), has_aux=True))(
            arrays, parameters
        )
        return jax.device_get((values, gradient))

    return loss, differentiate


@functools.cache
def _of_one_device(name):
    loss, differentiate = _sharding_problem(cases.BY_NAME[name])

    def whole(shards, parameters):
        return loss(shards, parameters, valid=jnp.array(VALID), impl="reference")

    return differentiate(whole)


@pytest.mark.parametrize(("case", "kind", "exchange"), PLACES)
def test_sharding_changes_neither_value_nor_gradient(case, kind, exchange, x64):
    mesh, axis_name = _mesh(kind)
    loss, differentiate = _sharding_problem(case)

    def split(shards, parameters):
        def local(*shards, **options):
            parameters = options.pop("parameters")
            return loss(shards, parameters, exchange=exchange, tile=3, **options)

        run = jaxcl.sharded(local, mesh, axis_name)
        return run(*shards, parameters=parameters, valid=jnp.array(VALID))

    for want, got in zip(
        jax.tree.leaves(_of_one_device(case.name)),
        jax.tree.leaves(differentiate(split)),
        strict=True,
    ):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(scale, 1))


@pytest.mark.parametrize("name", ["nt_xent", "clip"])
def test_vmap_and_checkpoint_pass_through(name):
    case = cases.BY_NAME[name]
    arrays, _, _ = cases.numbers(case, jnp.float32)
    two = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), arrays)

    def total(arrays):
        return case.loss(arrays, case.parameters, tile=5).sum()

    plain = jax.jit(jax.grad(total))(arrays)
    mapped = jax.jit(jax.vmap(jax.grad(total)))(two)
    again = jax.jit(jax.grad(jax.checkpoint(total)))(arrays)
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

    gradient = jax.grad(functools.partial(total, "reference"))
    hessian = jax.jit(jax.jacfwd(gradient))(arrays)
    assert np.isfinite(jax.tree.leaves(hessian)[0]).all()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(functools.partial(total, "tiled"), (arrays,), (arrays,))
