"""The training of one encoder on inputs of a known law, measured on the way."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gaussianity import encoders, inputs, measures
from experiments.gaussianity.synthetic_settings import Settings
from jaxcl import training


class Trained(NamedTuple):
    """A run of one encoder.

    Attributes:
      epochs: at which it was measured, 0 first.
      history: what was measured then.
      first: the untrained encoder.
      last: the trained encoder.
      norm: root of the mean squared norm of the views in each step.
      loss: InfoNCE in each step, in nats.
    """

    epochs: list[int]
    history: list[measures.Measures]
    first: measures.Snapshot
    last: measures.Snapshot
    norm: np.ndarray
    loss: np.ndarray


def train(s: Settings, name: inputs.Name, beta: float, bar: Any) -> Trained:
    """Trains one encoder and measures it on the way."""
    source = inputs.make(name, s)
    train_key, test_key, init_key, run_key = jax.random.split(jax.random.key(s.seed), 4)
    items = source.draw(train_key, s.num_train)
    tests = source.draw(test_key, s.num_test)
    clean = source.clean(jax.random.fold_in(test_key, 1), tests)
    test_views = source.views(jax.random.fold_in(test_key, 2), tests)

    model = encoders.make(s.encoder, s.dimension, hidden=s.hidden, bias=s.bias)
    state = encoders.create_state(model, init_key, clean[:1], s.learning_rate)
    loss_fn = encoders.make_loss(model, s.temperature, beta=beta, lam=s.lam)
    steps = s.num_train // s.batch_size

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> Any:
        order_key, view_key = jax.random.split(key)
        order = jax.random.permutation(order_key, s.num_train)
        chosen = order[: steps * s.batch_size].reshape(steps, s.batch_size)

        def step(state: Any, batch: Any) -> Any:
            i, rows = batch
            views = source.views(jax.random.fold_in(view_key, i), items[rows])
            return training.train_step(loss_fn, state, {"views": views}, view_key)

        return jax.lax.scan(step, state, (jnp.arange(steps), chosen))

    @jax.jit
    def encode(params: Any, x: jax.Array) -> jax.Array:
        z = jnp.asarray(model.apply(params, x.reshape(-1, s.size)))
        return z.reshape(*x.shape[:-1], s.dimension)

    def measured(params: Any) -> measures.Snapshot:
        return measures.snapshot(
            encode(params, clean),
            encode(params, test_views),
            max_samples=s.max_samples,
            seed=s.seed,
        )

    snapshots, epochs, metrics = [measured(state.params)], [0], []
    every = max(1, s.epochs // s.measurements)
    for i in range(1, s.epochs + 1):
        state, in_epoch = epoch(state, jax.random.fold_in(run_key, i))
        metrics.append(jax.device_get(in_epoch))
        if i % every == 0 or i == s.epochs:
            snapshots.append(measured(state.params))
            epochs.append(i)
        bar.update()
    loss, norm = (
        np.concatenate([each[name] for each in metrics])
        for name in ("info_nce", "norm")
    )
    if not np.isfinite(loss).all():
        raise FloatingPointError(f"the loss of {name} is not finite")
    history = [each.measures for each in snapshots]
    return Trained(epochs, history, snapshots[0], snapshots[-1], norm, loss)
