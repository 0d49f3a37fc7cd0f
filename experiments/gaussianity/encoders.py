"""Encoders of vectors, and what their training minimizes."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxcl
from jaxcl import losses, training

Name = Literal["linear", "mlp"]


def make(name: Name, dimension: int, *, hidden: int = 512, bias: bool = False) -> Any:
    """A linear map to `dimension` numbers, or one after a hidden layer of ReLU."""
    last = nn.Dense(dimension, use_bias=bias)
    if name == "linear":
        return last
    return nn.Sequential([nn.Dense(hidden), nn.relu, last])


def create_state(
    model: nn.Module, key: jax.Array, example: jax.Array, learning_rate: float
) -> training.TrainState:
    """The state before the first step of Adam, at a constant rate."""
    tx = optax.adam(learning_rate)
    return training.create_state(model.init(key, example), {}, tx)


def make_loss(
    model: nn.Module, temperature: float, *, beta: float = 0.0, lam: float = 0.5
) -> Callable[..., training.Outcome]:
    """Returns the loss of a batch of views [b, 2, D], for `training.train_step`.

        loss = InfoNCE(first views, second views) + beta penalty(all views)

    The batch is {"views": ..., "valid": [b]}; without `valid` all examples count. Its
    metrics are InfoNCE in nats and the root of the mean squared norm of the views.
    """

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        views, valid = batch["views"], batch.get("valid")
        z = jnp.asarray(model.apply(params, views.reshape(-1, views.shape[-1])))
        pairs = z.reshape(*views.shape[:2], -1)
        rows = losses.info_nce(
            pairs[:, 0], pairs[:, 1], temperature=temperature, valid=valid
        )
        loss = jaxcl.mean(rows, valid=valid)
        # Both views together: they have one law.
        penalty = losses.norm_entropy_penalty(z, scale=lam) if beta else 0.0
        norm = jnp.sqrt(jnp.square(z).sum(axis=1).mean())
        return training.Outcome(
            loss + beta * penalty, metrics={"info_nce": loss, "norm": norm}
        )

    return loss_fn
