"""Encoders of vectors, and one step of their training."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxcl
from jaxcl import losses

Name = Literal["linear", "mlp"]


def make(name: Name, dimension: int, *, hidden: int = 512, bias: bool = False) -> Any:
    """A linear map to `dimension` numbers, or one after a hidden layer of ReLU."""
    last = nn.Dense(dimension, use_bias=bias)
    if name == "linear":
        return last
    return nn.Sequential([nn.Dense(hidden), nn.relu, last])


def make_update(
    model: nn.Module, tx: optax.GradientTransformation, temperature: float
) -> Callable[..., Any]:
    """Returns update(params, state of the optimizer, views [b, 2, D], ...): one step.

        loss = InfoNCE(first views, second views) + beta penalty(all views)

    It returns parameters, state, and as metrics InfoNCE in nats and the root of the
    mean squared norm of the views, both before the step.
    """

    def update(
        params: Any,
        state: Any,
        views: jax.Array,
        *,
        beta: float = 0.0,
        lam: float = 0.5,
        valid: jax.Array | None = None,
    ) -> Any:
        def objective(params: Any) -> Any:
            z = jnp.asarray(model.apply(params, views.reshape(-1, views.shape[-1])))
            pairs = z.reshape(*views.shape[:2], -1)
            rows = losses.info_nce(
                pairs[:, 0], pairs[:, 1], temperature=temperature, valid=valid
            )
            loss = jaxcl.mean(rows, valid=valid)
            # Both views together: they have one law.
            penalty = losses.norm_entropy_penalty(z, scale=lam) if beta else 0.0
            norm = jnp.sqrt(jnp.square(z).sum(axis=1).mean())
            return loss + beta * penalty, (loss, norm)

        gradient, metrics = jax.grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes in its count
            updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, metrics

    return update
