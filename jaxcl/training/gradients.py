"""Gradients of weights in float32, for Flax layers that compute in bfloat16."""

import functools
import typing
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def float32_gradients(apply: Callable[..., typing.Any]) -> Callable[..., typing.Any]:
    """Makes the gradients of kernels float32 before they are summed over devices.

    A layer that computes in bfloat16 rounds its kernel, so the gradient of the kernel
    is a product of bfloat16 with a bfloat16 result. Over a mesh, each device has a
    share of that product, and the shares are rounded, sent and summed as bfloat16; only
    the sum becomes float32. With this, the product accumulates into a float32 result:
    twice the bytes between the devices, and no rounding of gradients. What the layers
    compute, forward and for their inputs, stays the same.

    `nn.Dense` and `nn.Conv` with a `dtype` and neither groups nor dilation are changed,
    and their kernels only: biases and other layers stay as they are.

    Args:
      apply: any function that calls Flax modules, such as `model.apply`.

    Returns:
      The function with such gradients; with respect to float32 kernels only, and in
      reverse mode only.

    Raises:
      TypeError: if apply is not callable.

    >>> model = nn.Dense(3, use_bias=False, dtype=jnp.bfloat16)
    >>> params = {"params": {"kernel": jnp.ones((2, 3))}}
    >>> rows = jnp.full((300, 2), 1 + 2**-7, jnp.bfloat16)
    >>> for f in (model.apply, float32_gradients(model.apply)):
    ...     g = jax.grad(lambda p: f(p, rows).astype(jnp.float32).sum())(params)
    ...     print(g["params"]["kernel"][0, 0])
    302.0
    302.34375
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function, got {type(apply).__name__}")

    @functools.wraps(apply)
    def changed(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        with nn.intercept_methods(_intercept):
            return apply(*args, **kwargs)

    return changed


def _intercept(
    call: Callable[..., typing.Any],
    args: typing.Any,
    kwargs: typing.Any,
    context: nn.module.InterceptorContext,
) -> typing.Any:
    """Lends a layer other products for the time of a call."""
    layer = context.module
    if context.method_name != "__call__" or not _computes_lower(layer):
        return call(*args, **kwargs)
    product = "dot_general" if isinstance(layer, nn.Dense) else "conv_general_dilated"
    lent = {
        "promote_dtype": _keep_kernel,
        product: _dot if isinstance(layer, nn.Dense) else _convolve,
    }
    own = {name: getattr(layer, name) for name in lent}
    try:
        for name, value in lent.items():
            object.__setattr__(layer, name, value)  # Flax freezes bound modules.
        return call(*args, **kwargs)
    finally:
        for name, value in own.items():
            object.__setattr__(layer, name, value)


def _computes_lower(layer: nn.Module) -> bool:
    """Whether this is a plain layer that rounds its float32 kernel."""
    if not isinstance(layer, nn.Dense | nn.Conv) or layer.dtype is None:
        return False
    if layer.param_dtype != jnp.float32 or jnp.dtype(layer.dtype) == jnp.float32:
        return False
    if isinstance(layer, nn.Dense):
        return layer.dot_general is None and layer.dot_general_cls is None
    ones = (None, 1, (1,) * len(_sides(layer.kernel_size)))
    return (
        layer.conv_general_dilated is None
        and layer.conv_general_dilated_cls is None
        and layer.feature_group_count == 1
        and layer.input_dilation in ones
        and layer.kernel_dilation in ones
    )


def _sides(size: int | Sequence[int]) -> Sequence[int]:
    return (size,) if isinstance(size, int) else size


def _keep_kernel(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, *, dtype: typing.Any
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Flax's `promote_dtype`, but for the kernel, which the product rounds."""
    return x.astype(dtype), kernel, None if bias is None else bias.astype(dtype)


def _dot(
    x: jax.Array,
    kernel: jax.Array,
    dimension_numbers: typing.Any,
    **options: typing.Any,
) -> jax.Array:
    """x [..., m] times a kernel [m, n]."""

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.dot_general(x, kernel, dimension_numbers, **options)

    def of_kernel(x: jax.Array, g: jax.Array) -> jax.Array:
        rows = tuple(range(x.ndim - 1))
        pairs = ((rows, rows), ((), ()))
        return lax.dot_general(
            x, g, pairs, preferred_element_type=jnp.float32, **options
        )

    return _rounding(product, of_kernel)(x, kernel)


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: typing.Any,
    dimension_numbers: typing.Any,
    **dilations_and_groups: typing.Any,  # all one
) -> jax.Array:
    """x [n, ..., c] convolved with a kernel [..., c, d]."""
    sizes, sides = x.shape[1:-1], kernel.shape[:-2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, sides, strides, padding)

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=dimension_numbers,
            precision=precision,
        )

    def of_kernel(x: jax.Array, g: jax.Array) -> jax.Array:
        # Places of the kernel are those of the result; batch and channels of x change
        # roles, and the gradient is a kernel with holes where strides left some.
        pads = [
            (low, side + (count - 1) * stride - size - low)
            for (low, _), side, count, stride, size in zip(
                padding, sides, g.shape[1:-1], strides, sizes, strict=True
            )
        ]
        places = "".join("DHW"[-len(sides) :])
        return lax.conv_general_dilated(
            x,
            g,
            (1,) * len(sides),
            pads,
            rhs_dilation=strides,
            dimension_numbers=(f"C{places}N", f"I{places}O", f"{places}NC"),
            precision=precision,
            preferred_element_type=jnp.float32,
        )

    return _rounding(product, of_kernel)(x, kernel)


def _rounding(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    of_kernel: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """product(x, rounded kernel), with of_kernel(x, g) for the kernel's gradient."""

    @jax.custom_vjp
    def rounding(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return product(x, kernel.astype(x.dtype))

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, typing.Any]:
        rounded = kernel.astype(x.dtype)
        return product(x, rounded), (x, rounded)

    def backward(saved: typing.Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, rounded = saved
        (of_x,) = jax.linear_transpose(lambda x: product(x, rounded), x)(g)
        return of_x, of_kernel(x, g)

    rounding.defvjp(forward, backward)
    return rounding
