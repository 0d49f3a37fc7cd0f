"""A run small enough for a test: eight-pixel images, a few dozen parameters."""

import functools
import os

import jax
import jax.numpy as jnp
import optax

from jaxcl import models, training
from jaxcl.training import checkpoints

model = models.SimCLR(models.ConvEncoder(width=2), models.Projector(4))
tx = training.adamw(training.warmup_cosine(1e-2, 2, 8))
# Unlike Adam, this does not divide rounding errors by the size of a gradient.
sgd = optax.sgd(0.1, momentum=0.9)
example = jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32)


def loss(z):
    """NT-Xent at temperature 0.5, dense: one value per view."""
    n, v = z.shape[0] * z.shape[1], z.shape[1]
    z = z.reshape(n, -1)
    z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
    itself = jnp.eye(n, dtype=bool)
    logits = jnp.where(itself, -jnp.inf, z @ z.T / 0.5)
    partner = jnp.arange(n).reshape(-1, v)[:, ::-1].reshape(n)
    return jax.nn.logsumexp(logits, axis=-1) - logits[jnp.arange(n), partner]


def apply(variables, images):
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


def loss_fn(params, state, views, key):
    variables = {"params": params["model"], **state.model_state}
    z, changed = training.apply_views(apply, variables, views)
    return training.Outcome(loss(z), changed, metrics={"largest": z.max()})


@functools.partial(jax.jit, donate_argnums=0)
def step(state, views):
    return training.train_step(loss_fn, state, views, jax.random.key(0), momentum=0.75)


def views(position, images=8):
    key = jax.random.fold_in(jax.random.key(7), position)
    return jax.random.normal(key, (images, 2, 8, 8, 1))


@functools.cache
def _first_state(key, model, tx, average):
    init = functools.partial(model.init, train=False)
    variables = jax.jit(init)(jax.random.key(key), jnp.zeros(example.shape))
    params = {"model": variables["params"]}
    stats = {"batch_stats": variables["batch_stats"]}
    return training.create_state(params, stats, tx, average=average)


def new_state(key=0, model=model, tx=tx, average=False):
    """A copy, since steps are given the buffers of their state."""
    return jax.tree.map(jnp.copy, _first_state(key, model, tx, average))


def train(directory, num_steps, kill_after=None):
    """Trains, or goes on training, with a checkpoint at every step."""
    with checkpoints.open(directory) as manager:
        state, _ = checkpoints.restore_latest(manager, new_state())
        while (done := int(state.step)) < num_steps:
            state, _ = step(state, views(done))
            checkpoints.save(manager, done + 1, state)
            if done + 1 == kill_after:
                os._exit(9)
    return jax.device_get(state)
