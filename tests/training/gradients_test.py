"""Gradients of kernels in float32 against layers that compute in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import training

BF16 = jnp.bfloat16
LAYERS = {
    "dense": (nn.Dense(5, dtype=BF16), (4, 3, 7)),
    "same": (nn.Conv(5, (3, 2), strides=(3, 1), dtype=BF16), (4, 8, 9, 3)),
    "valid": (nn.Conv(5, 1, strides=2, padding="VALID", dtype=BF16), (4, 8, 3)),
    "padded": (
        nn.Conv(5, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)), dtype=BF16),
        (4, 8, 9, 3),
    ),
}


def rounded(tree):
    """Float32 numbers that bfloat16 holds."""
    return jax.tree.map(lambda x: x.astype(BF16).astype(jnp.float32), tree)


def gradients(apply, weights, *args):
    def of_sum(variables, x):
        return (apply(variables, x).astype(jnp.float32) * weights).sum()

    return jax.jit(jax.grad(of_sum, (0, 1)))(*args)


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_have_the_gradients_of_float32(name):
    layer, shape = LAYERS[name]
    x = jax.random.normal(jax.random.key(0), shape).astype(BF16)
    variables = rounded(layer.init(jax.random.key(1), x))
    y = layer.apply(variables, x)
    weights = rounded(jax.random.normal(jax.random.key(2), y.shape))
    changed = training.float32_gradients(layer.apply)
    np.testing.assert_array_equal(changed(variables, x), y)
    of_variables, of_x = gradients(changed, weights, variables, x)
    exact = layer.clone(dtype=jnp.float32).apply
    expected, _ = gradients(exact, weights, variables, x.astype(jnp.float32))
    np.testing.assert_allclose(
        of_variables["params"]["kernel"], expected["params"]["kernel"], atol=1e-5
    )
    before, same = gradients(layer.apply, weights, variables, x)
    np.testing.assert_array_equal(of_x, same)
    np.testing.assert_array_equal(
        of_variables["params"]["bias"], before["params"]["bias"]
    )
    assert layer.promote_dtype is nn.Dense(1).promote_dtype


@pytest.mark.parametrize(("changed", "dtype"), [(False, "bf16"), (True, "f32")])
def test_what_is_summed_over_devices(changed, dtype):
    layer = nn.Conv(5, (3, 3), use_bias=False, dtype=BF16)
    apply = training.float32_gradients(layer.apply) if changed else layer.apply

    def of_sum(kernel, x):
        y = apply({"params": {"kernel": kernel}}, x)
        return jnp.square(y.astype(jnp.float32)).sum()

    x = jax.ShapeDtypeStruct((16, 6, 6, 3), BF16)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
    program = jax.jit(jax.grad(of_sum)).lower(kernel, x).as_text()
    # With x sharded, each device has a share of this product's result.
    products = [line for line in program.splitlines() if "convolution(" in line]
    assert len(products) == 2
    assert products[1].endswith(f"-> tensor<3x3x3x5x{dtype}>")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dense(4),
        nn.Dense(4, dtype=jnp.float32),
        nn.Dense(4, dtype=BF16, param_dtype=BF16),
        nn.Dense(4, dtype=BF16, dot_general=jax.lax.dot_general),
        nn.Conv(4, 3, dtype=BF16, feature_group_count=2),
        nn.Conv(4, 3, dtype=BF16, kernel_dilation=2),
        nn.Conv(4, 3, dtype=BF16, conv_general_dilated=jax.lax.conv_general_dilated),
    ],
)
def test_other_layers_stay_as_they_are(layer):
    x = jnp.ones((2, 8, 2), layer.dtype or jnp.float32)
    variables = layer.init(jax.random.key(0), x)
    plain = jax.make_jaxpr(layer.apply)(variables, x)
    changed = jax.make_jaxpr(training.float32_gradients(layer.apply))(variables, x)
    assert str(plain) == str(changed)


def test_apply_is_a_function():
    with pytest.raises(TypeError, match="apply must be a function, got str"):
        training.float32_gradients("apply")
