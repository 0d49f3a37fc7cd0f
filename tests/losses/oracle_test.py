"""Every loss, tiled and dense, equals an independent float64 oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.pairwise import streamed
from tests import oracles
from tests.losses import cases

VALID = np.array([True, True, False, True, True, True])


def _oracle(case, arrays, parameters, valid, **options):
    return case.oracle({**arrays, **case.constants}, parameters, valid, **options)


def _weighted(loss):
    """Adds up losses with unequal weights, so that no two anchors can be confused."""
    return (loss * np.cos(np.arange(loss.size)).reshape(loss.shape)).sum()


@functools.cache
def _oracle_gradient(name):
    case = cases.BY_NAME[name]
    names, parameters = list(case.arrays), list(case.parameters)
    options = {}
    if case.name in ("sc_full", "sc_official"):
        options["held"] = oracles.sc_share(
            case.arrays["z1"],
            case.arrays["z2"],
            oracles.cosine(case.parameters["temperature"]),
            variant=case.name.removeprefix("sc_"),
            valid=VALID,
        )

    def value(*numbers):
        arrays = dict(zip(names, numbers, strict=False))
        rest = dict(zip(parameters, numbers[len(names) :], strict=True))
        return _weighted(_oracle(case, arrays, rest, VALID, **options))

    numbers = [*case.arrays.values(), *case.parameters.values()]
    gradients = oracles.gradient(value, *numbers)
    return (
        dict(zip(names, gradients, strict=False)),
        dict(zip(parameters, gradients[len(names) :], strict=True)),
    )


def _assert_equal_to_the_oracle(case, **options):
    *numbers, constants = cases.numbers(case, jnp.float64)
    expected = _oracle(case, case.arrays, case.parameters, VALID)

    def run(arrays, parameters):
        everything = {**arrays, **constants}
        loss = case.loss(everything, parameters, valid=jnp.array(VALID), **options)
        return _weighted(loss), loss

    gradient, loss = jax.jit(jax.grad(run, (0, 1), has_aux=True))(*numbers)
    assert loss.dtype == jnp.float64
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)
    for got, want in zip(
        jax.tree.leaves(gradient),
        jax.tree.leaves(_oracle_gradient(case.name)),
        strict=True,
    ):
        scale = np.abs(want).max()
        assert scale > 1e-3, "a gradient that is zero shows nothing"
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-7 * scale + 1e-8)


@cases.over(cases.CASES)
def test_value_and_gradient_equal_the_oracle(case, x64):
    _assert_equal_to_the_oracle(case, tile=5)


@cases.over(cases.KINDS, cases.FEW)
def test_value_and_gradient_of_the_dense_reference_equal_the_oracle(case, x64):
    _assert_equal_to_the_oracle(case, impl="reference")


@cases.over(cases.KINDS, cases.FEW)
def test_value_and_gradient_equal_the_oracle_in_one_tile(case, x64):
    _assert_equal_to_the_oracle(case)


@pytest.fixture
def break_the_derivative(monkeypatch):
    """Lets one argument of the streamed reductions have a derivative of zero."""

    def replace(argument):
        right = streamed.reduce_streamed.bwd

        def wrong(*residuals):
            gradients = list(right(*residuals))
            gradients[argument] = jax.tree.map(jnp.zeros_like, gradients[argument])
            return tuple(gradients)

        monkeypatch.setattr(streamed.reduce_streamed, "bwd", wrong)
        jax.clear_caches()  # of what was traced with the right one

    yield replace
    monkeypatch.undo()
    jax.clear_caches()


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param("nt_xent", 0, id="kernel"),
        pytest.param("siglip", 1, id="score"),
        pytest.param("nt_xent", 2, id="anchors"),
        pytest.param("clip", 3, id="candidates"),
    ],
)
def test_a_derivative_of_zero_is_noticed(name, argument, break_the_derivative, x64):
    break_the_derivative(argument)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        _assert_equal_to_the_oracle(cases.BY_NAME[name], tile=5)


@cases.over(cases.CASES)
def test_float32_equals_the_oracle_to_rounding(case):
    arrays, parameters, constants = cases.numbers(case, jnp.float32)
    loss = case.loss(
        {**arrays, **constants}, parameters, valid=jnp.array(VALID), tile=5
    )
    expected = _oracle(case, case.arrays, case.parameters, VALID)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["nt_xent", "sup_con", "clip", "info_nce_with_a_queue", "sc_constant"]
)
def test_bfloat16_input_is_compared_in_float32(name):
    case = cases.BY_NAME[name]
    arrays, _, constants = cases.numbers(case, jnp.bfloat16)
    loss = case.loss({**arrays, **constants}, case.parameters, tile=5)
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float64), arrays)
    expected = _oracle(case, rounded, case.parameters, None)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda a: case.loss({**a, **constants}, case.parameters).sum())(
        arrays
    )
    assert all(g.dtype == jnp.bfloat16 for g in jax.tree.leaves(gradient))
