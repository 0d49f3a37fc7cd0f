"""The training of both towers, in the order it runs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

import jaxcl
from experiments.clip.settings import MAY_CHANGE, Training
from jaxcl import data, recipes, training


def pretrain(s: Training) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    mesh, split, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    dataset = recipes.pairs.open_pairs(s)
    towers = recipes.pairs.open_towers(s, dataset)
    rows = recipes.pairs.tokenize(s, dataset, towers)
    feed = data.feed(rows, s.batch_size, s.seed, split, on_device=s.on_device)

    # Models, what the loss learns, and the optimizer.
    params, stats = recipes.pairs.initialize(s, towers)
    if learned := recipes.loss_params(s):
        params["loss"] = learned
    tx = recipes.pairs.make_optimizer(s, dataset)
    state = training.create_state(params, stats, tx, average=s.average > 0)
    state = data.put(state, whole)

    # Loss: both towers see the whole batch, in chunks if it is large.
    loss = jaxcl.sharded(recipes.make_pair_loss(s), mesh)
    encode = training.in_chunks(recipes.pairs.make_encode(s, towers), s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        variables = {"params": params["model"], **state.model_state}
        inputs = {name: batch[name] for name in ("image", "caption")}
        z, changed = encode(variables, inputs, key)
        numbers = recipes.loss_numbers(s, params.get("loss", {}))
        groups = {"groups": batch["group"]} if recipes.takes_groups(s) else {}
        values = loss(z[:, 0], z[:, 1], **numbers, **groups)
        metrics = {name: jnp.asarray(number) for name, number in numbers.items()}
        return training.Outcome(values, changed, metrics=metrics)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key, momentum=s.average)

    # Loop: the same command resumes it.
    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    with training.open_run(
        s.directory, s, state, may_change=MAY_CHANGE, **recipes.run_options(s, dataset)
    ) as (run, state):
        recipes.pairs.keep(s.directory, towers)
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
    variables = recipes.variables_of(s, state)
    recipes.pairs.export(s.directory, towers, variables, trained={"step": run.last})
    return state
