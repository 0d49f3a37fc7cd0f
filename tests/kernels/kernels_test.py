"""Kernels as matrices, in corners, and as pytrees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs, kernels, pairwise
from tests import oracles
from tests.losses import cases

X = cases.random(5, 4, seed=7)
Y = cases.random(3, 4, seed=8)
ALL = pytest.mark.parametrize("name", cases.KERNELS)


@ALL
def test_calling_a_kernel_gives_the_oracles_matrix(name):
    make, oracle, parameters = cases.KERNELS[name]
    got = make(parameters)(jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32))
    expected = [[oracle(parameters)(x, y) for y in Y] for x in X]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@ALL
def test_matched_is_the_diagonal_of_the_matrix(name):
    make, _, parameters = cases.KERNELS[name]
    x, y = jnp.asarray(X[:3], jnp.float32), jnp.asarray(Y, jnp.float32)
    np.testing.assert_allclose(
        kernels.matched(make(parameters), x, y),
        jnp.diagonal(make(parameters)(x, y)),
        rtol=1e-6,
        atol=1e-6,
    )


@ALL
def test_coincident_zero_and_opposite_vectors_have_finite_value_and_gradient(name):
    make, _, parameters = cases.KERNELS[name]
    x = jnp.asarray(X[:4], jnp.float32).at[2].set(0)
    y = jnp.stack([x[0], -x[1], x[2], jnp.zeros(4)])

    def total(x, y, parameters):
        return kernels.matched(make(parameters), x, y).sum()

    value, gradient = jax.value_and_grad(total, (0, 1, 2))(x, y, parameters)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("power", [0.5, 1, 1.5, 2, 2.5, 3, 4])
def test_gradient_at_coincidence_is_zero_for_every_power(power):
    x = jnp.asarray(X[:1], jnp.float32)
    kernel = kernels.exponential(power, 0.5)
    gradient = jax.grad(lambda x, y: kernels.matched(kernel, x, y).sum())(x, x)
    np.testing.assert_array_equal(gradient, 0)


def test_matched_distances_of_near_duplicates_keep_their_digits():
    x = oracles.unit(cases.random(1, 64))
    for distance in (1e-2, 1e-4):
        y = oracles.unit(x + distance * oracles.unit(cases.random(1, 64, seed=3)))
        x32, y32 = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        got = kernels.matched(kernels.laplacian(1.0), x32, y32)
        exact = oracles.exponential(1, 1.0)(np.float64(x32[0]), np.float64(y32[0]))
        # Rounding unit vectors moves them by 1e-8; a Gram form would move d by 3e-4.
        np.testing.assert_allclose(got[0], exact, rtol=0, atol=2e-7)


@pytest.mark.parametrize("power", [2.5, 3, 4])
def test_near_duplicates_in_a_tile_are_as_near_as_high_powers_need(power):
    x = cases.random(5, 8)
    x = jnp.asarray([*x, *(x + 1e-4 * cases.random(5, 8, seed=3)), *x], jnp.float32)
    # |x|^2 + |y|^2 - 2 x.y, sums of eight terms, times the slope of the power at d = 2.
    bound = 8 * np.finfo(np.float32).eps * power / 2 * 2 ** (power - 2)
    assert kernels.disagreement(kernels.exponential(power, 1.0), x) < bound


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_unit_vectors_of_tiny_and_huge_vectors_are_right_with_finite_gradient(size):
    x = jnp.asarray(X * size, jnp.float32)
    np.testing.assert_allclose(kernels.unit(x), oracles.unit(X), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: (kernels.unit(x) ** 3).sum())(x)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_a_nan_is_never_hidden():
    x = jnp.asarray(X[:1], jnp.float32).at[0, 0].set(jnp.nan)
    for make, _, parameters in cases.KERNELS.values():
        assert np.isnan(kernels.matched(make(parameters), x, x)).all()


def test_arc_cosine_stops_at_its_floor_with_gradient_zero():
    x, y = jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 1e-3]])
    for order in (1, 2):
        kernel = kernels.arc_cosine(order)
        value, gradient = jax.value_and_grad(
            lambda x, kernel=kernel: kernels.matched(kernel, x, y).sum()
        )(x)
        np.testing.assert_allclose(value, np.log(kernels.ARC_COSINE_FLOOR), rtol=1e-6)
        np.testing.assert_array_equal(gradient, 0)


def test_weight_zero_drops_a_kernel_and_scaling_all_weights_shifts_the_logits():
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    parts = kernels.gaussian(0.5), kernels.dot(0.01)
    alone = parts[0](x, y)
    dropped = kernels.kernel_sum(*parts, weights=(1.0, 0.0))(x, y)
    np.testing.assert_allclose(dropped, alone, rtol=1e-6, atol=1e-6)
    tripled = kernels.kernel_sum(*parts, weights=(3.0, 0.0))(x, y)
    np.testing.assert_allclose(tripled, alone + np.log(3), rtol=1e-5, atol=1e-5)

    def value(weights):
        return kernels.kernel_sum(*parts, weights=tuple(weights))(x, y).sum()

    gradient = jax.jit(jax.grad(value))(jnp.array([1.0, 0.0]))
    assert np.isfinite(gradient).all()


def test_kernels_are_pytrees_whose_numbers_are_leaves():
    kernel = kernels.kernel_sum(kernels.exponential(0.5, 0.25), weights=(2.0,))
    assert jax.tree.leaves(kernel) == [0.25, 2.0]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, kernel)
    assert doubled.kernels[0].power == 0.5
    assert hash(jax.tree.structure(kernel)) == hash(jax.tree.structure(doubled))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: kernels.cosine(0.0),
            ValueError,
            "temperature must be positive.*got 0",
        ),
        (lambda: kernels.cosine(-1.0), ValueError, "temperature.*got -1"),
        (lambda: kernels.dot(float("nan")), ValueError, "temperature.*got nan"),
        (lambda: kernels.gaussian("0.5"), TypeError, "temperature.*got str"),
        (lambda: kernels.cosine(jnp.ones(3)), ValueError, r"scalar, got shape \(3,\)"),
        (lambda: kernels.cosine(True), TypeError, "temperature.*got bool"),
        (lambda: kernels.exponential(0, 0.5), ValueError, "power must be pos.*got 0"),
        (lambda: kernels.exponential(-1, 0.5), ValueError, "power.*got -1"),
        (lambda: kernels.exponential(np.inf, 0.5), ValueError, "power.*got inf"),
        (
            lambda: kernels.arc_cosine(3),
            ValueError,
            "order must be one of 0, 1, 2, got 3",
        ),
        (lambda: kernels.arc_cosine(1, 1.5), ValueError, r"scale.*\(0, 1\], got 1.5"),
        (lambda: kernels.kernel_sum(), ValueError, "at least one kernel"),
        (lambda: kernels.kernel_sum(0.5), TypeError, "kernels.*got float"),
        (
            lambda: kernels.kernel_sum(kernels.dot(), weights=(1.0, 2.0)),
            ValueError,
            "weights.*1 kernels, got 2",
        ),
        (
            lambda: kernels.kernel_sum(kernels.dot(), weights=(-1.0,)),
            ValueError,
            "weights must be finite and not negative",
        ),
        (
            lambda: kernels.kernel_sum(kernels.dot(), weights=(0.0,)),
            ValueError,
            "weights must not all be 0",
        ),
        (
            lambda: kernels.concatenation_sum(kernels.dot(), kernels.dot())(
                jnp.ones((2, 3)), jnp.ones((2, 3))
            ),
            ValueError,
            "divisible by the 2 kernels.*got 3",
        ),
        (
            lambda: kernels.dot()(jnp.ones((2, 3)), jnp.ones((2, 4))),
            ValueError,
            r"one embedding size, got \(2, 3\) and \(2, 4\)",
        ),
        (
            lambda: kernels.dot()(jnp.ones((2, 3), int), jnp.ones((2, 3))),
            TypeError,
            "x must be a floating array.*got dtype int",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled(kernels.Kernel):
    """A kernel that is right, of which one method is exchanged below."""

    scale: float = 2.0

    def prepare(self, z, unit):
        return z, jnp.sum(z * z, axis=-1)

    def pair(self, x, y):
        return -self.scale * jnp.sum(jnp.square(x - y))

    def elementwise(self, products, row, column):
        return self.scale * (2 * products - row - column)


def _with(name="Broken", **methods):
    cls = type(name, (Scaled,), methods)
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))()


def _undefined(method):
    """A kernel in which a method was forgotten."""
    methods = {"__annotations__": {}, "scale": 2.0}
    for name in {"prepare", "pair", "elementwise"} - {method}:
        methods[name] = getattr(Scaled, name)
    cls = dataclasses.dataclass(frozen=True)(type("Bare", (kernels.Kernel,), methods))
    return jax.tree_util.register_dataclass(cls)()


class Unregistered(Scaled):
    """A class of a kernel that is no pytree, though the one it inherits from is."""


BROKEN = {
    "a forgotten sum": (
        _with(pair=lambda self, x, y: x * y),
        ValueError,
        r"Broken.pair must return a number \[\], got shape \(4,\); is a sum missing",
    ),
    "a sum too many": (
        _with(elementwise=lambda self, products, row, column: products.sum()),
        ValueError,
        r"Broken.elementwise must return logits \[n, m\].*got shape \(\) for \(2, 3\)",
    ),
    "numbers of rows alone": (
        _with(elementwise=lambda self, products, row, column: row),
        ValueError,
        r"Broken.elementwise must return.*got shape \(2, 1\) for \(2, 3\)",
    ),
    "a transposed tile": (
        _with(elementwise=lambda self, products, row, column: products.T),
        ValueError,
        r"Broken.elementwise must return.*got shape \(3, 2\) for \(2, 3\)",
    ),
    "vectors without numbers": (
        _with(prepare=lambda self, z, unit: z),
        TypeError,
        "Broken.prepare must return two things.*got one array",
    ),
    "three things": (
        _with(prepare=lambda self, z, unit: (z, z, ())),
        TypeError,
        "Broken.prepare must return two things.*got 3 things",
    ),
    "numbers with an axis": (
        _with(prepare=lambda self, z, unit: (z, jnp.sum(z, -1, keepdims=True))),
        ValueError,
        r"Broken.prepare must return numbers \[...\].*got shape \(.*1,?\)",
    ),
    "numbers as vectors": (
        _with(prepare=lambda self, z, unit: (jnp.sum(z, -1), ())),
        ValueError,
        r"Broken.prepare must return vectors \[..., d_k\].*got shape \(",
    ),
    "no pair": (_undefined("pair"), NotImplementedError, r"Bare must define pair\(sel"),
    "no elementwise": (
        _undefined("elementwise"),
        NotImplementedError,
        r"Bare must define elementwise\(self, products, row, column\)",
    ),
    "no prepare": (
        _undefined("prepare"),
        NotImplementedError,
        r"Bare must define prepare\(self, z, unit\)",
    ),
    "no pytree": (
        Unregistered(),
        TypeError,
        "Unregistered must be registered as a pytree.*register_dataclass above",
    ),
    "no pytree in a sum": (
        kernels.kernel_sum(kernels.dot(), Unregistered()),
        TypeError,
        "Unregistered must be registered as a pytree",
    ),
}


def _reduced(impl):
    def run(kernel, z):
        nodes = graphs.labelled(z, jnp.arange(len(z)))
        asked = (pairwise.Reduction("sum", graphs.others),)
        return pairwise.reduce_pairs(nodes, kernel=kernel, reductions=asked, impl=impl)

    return run


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("impl", ["tiled", "reference"])
def test_a_broken_kernel_is_refused_by_its_class_and_method(name, impl):
    kernel, error, words = BROKEN[name]
    z = jnp.asarray(X, jnp.float32)
    for run in (_reduced(impl), jax.jit(_reduced(impl), static_argnums=0)):
        with pytest.raises(error, match=words):
            run(kernel, z)


@pytest.mark.parametrize(
    "name", [n for n, (_, _, words) in BROKEN.items() if "elementwise" not in words]
)
def test_matched_rows_and_the_matrix_refuse_the_same_kernels(name):
    kernel, error, words = BROKEN[name]
    z = jnp.asarray(X, jnp.float32)
    for run in (
        lambda: kernels.matched(kernel, z, z),
        lambda: kernels.matched_views(kernel, z[:4].reshape(2, 2, 4)),
        lambda: kernel(z, z),
    ):
        with pytest.raises(error, match=words):
            run()


@ALL
def test_the_two_forms_of_every_kernel_agree(name, x64):
    make, _, parameters = cases.KERNELS[name]
    z = jnp.asarray(cases.random(9, 4, seed=3))
    assert kernels.disagreement(make(parameters), z) < 1e-12


@pytest.mark.parametrize(
    "kernel",
    [
        _with(elementwise=lambda self, p, row, column: 2 * p - row - column),
        _with(elementwise=lambda self, p, row, column: self.scale * (2 * p - row)),
        _with(elementwise=lambda self, p, row, column: jnp.full(p.shape, jnp.nan)),
        _with(  # both forms agree, but the logit depends on who is the anchor
            pair=lambda self, x, y: jnp.dot(x, y) - jnp.dot(x, x),
            elementwise=lambda self, p, row, column: p - row,
        ),
    ],
)
def test_forms_that_disagree_are_told(kernel):
    z = jnp.asarray(X, jnp.float32)
    assert kernels.disagreement(Scaled(), z) < 1e-5
    assert not kernels.disagreement(kernel, z) < 0.1


def test_disagreement_needs_two_rows():
    with pytest.raises(ValueError, match=r"z must have at least two.*got \(1, 4\)"):
        kernels.disagreement(Scaled(), jnp.ones((1, 4)))
