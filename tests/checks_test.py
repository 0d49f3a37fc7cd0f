"""Checks of arguments: what passes, what is refused, and in which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import _checks, losses


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_a_count_is_any_integer_and_becomes_pythons(value):
    got = _checks.count("k", value, at_least=3)
    assert type(got) is int
    assert got == 3


ONE = jnp.ones(())


@pytest.mark.parametrize(
    ("check", "error", "words"),
    [
        (lambda: _checks.count("k", 0), ValueError, "k must be at least 1, got 0"),
        (lambda: _checks.count("k", 2, 3), ValueError, "k must be at least 3, got 2"),
        (lambda: _checks.count("k", True), TypeError, "k must be an integer, got bool"),
        (lambda: _checks.count("k", 2.0), TypeError, "k must be an integer, got float"),
        (
            lambda: _checks.count("k", np.True_),
            TypeError,
            "k must be an integer, got bool",
        ),
        (lambda: _checks.flag("f", 1), TypeError, "f must be True or False, got int"),
        (
            lambda: _checks.between("p", 1.5, 0, 1),
            ValueError,
            r"p must lie in \[0, 1\], got 1.5",
        ),
        (
            lambda: _checks.between("s", np.inf, 0, np.inf),
            ValueError,
            r"s must lie in \[0, inf\), got inf",
        ),
        (
            lambda: _checks.between("p", np.ones(2), 0, 1),
            ValueError,
            "p must be a scalar",
        ),
        (
            lambda: _checks.interval("scale", (2, 1)),
            ValueError,
            r"scale must be two numbers in order, > 0, got \(2, 1\)",
        ),
        (
            lambda: _checks.interval("scale", 2.0),
            TypeError,
            "scale must be two numbers, got 2.0",
        ),
        (
            lambda: _checks.sides("size", "44"),
            TypeError,
            "size must be an integer or two, got '44'",
        ),
        (lambda: _checks.sides("size", (4, 0)), ValueError, "size must be >= 1, got"),
        (
            lambda: _checks.dtype("dtype", jnp.int8, ("float32",)),
            ValueError,
            "dtype must be one of float32, got int8",
        ),
        (
            lambda: jax.jit(lambda x: _checks.between("p", x, 0, 1))(ONE),
            TypeError,
            "p must be a Python number, got a traced value",
        ),
    ],
)
def test_what_is_refused_is_named(check, error, words):
    with pytest.raises(error, match=words):
        check()


def test_what_passes_is_returned():
    assert _checks.between("p", np.float32(0.5), 0, 1) == 0.5
    assert _checks.sides("size", (np.int64(4), 3)) == (4, 3)
    assert _checks.sides("size", [4, 3]) == (4, 3)
    _checks.interval("scale", (0.1, 1), 1)
    _checks.flag("f", np.True_)
    _checks.dtype("dtype", "bfloat16", ("bfloat16",))


def test_a_tile_may_be_numpys_integer():
    z = jax.random.normal(jax.random.key(0), (5, 3))
    np.testing.assert_allclose(
        losses.uniformity(z, tile=np.int64(2)), losses.uniformity(z), rtol=1e-6
    )
