"""One training on sentences, with any loss, by the loop of all scripts."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import jaxcl
from experiments.text import settings
from experiments.text.settings import MAY_CHANGE, Training
from jaxcl import data, recipes, training


class Prepared(NamedTuple):
    """Sentences in rows of tokens, with their vocabulary, of all trainings."""

    vocabulary: data.text.Vocabulary
    rows: data.Dataset


class Steps(NamedTuple):
    """What a loop needs.

    Attributes:
      state: of step 0.
      step: (state, batch, key) to the next state and metrics.
      feed: number of a step to its batch.
      key: of all that is drawn.
    """

    state: training.TrainState
    step: Any
    feed: Callable[[int], Any]
    key: jax.Array


def prepare(s: Training, dataset: data.Dataset | None = None) -> Prepared:
    """Opens the sentences, learns their vocabulary, and makes rows of them."""
    dataset = recipes.text.open_sentences(s) if dataset is None else dataset
    vocabulary = recipes.text.make_vocabulary(s, dataset)
    return Prepared(vocabulary, recipes.text.tokenize(s, dataset, vocabulary))


def prepare_steps(s: Training, made: Prepared) -> Steps:
    """What a training of these settings does, on a mesh of all devices."""
    mesh, rows, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    feed = recipes.text.feed(s, made.rows, rows)

    # Model and optimizer.
    described = recipes.text.describe(s, made.vocabulary)
    params, stats = recipes.text.initialize(s, described, made.vocabulary)
    tx = recipes.make_optimizer(s, recipes.text.examples_of_epoch(s, made.rows))
    state = training.create_state(params, stats, tx, average=s.average > 0)

    # Loss: views of the batch, their embeddings [b, v, d], and what these cost.
    hard = settings.hard_negatives(s)
    loss = jaxcl.sharded(recipes.make_loss(s, hard_negatives=hard), mesh)
    encode_views = recipes.text.make_encode_views(s, described, made.vocabulary)
    encode = training.in_chunks(encode_views, s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        variables = {"params": params["model"], **state.model_state}
        z, changed = encode(variables, batch["sentence"], key)
        return training.Outcome(loss(z), changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key, momentum=s.average)

    # The key is an argument, so that seeds share one program.
    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    return Steps(data.put(state, whole), step, feed, key)


def pretrain(s: Training, made: Prepared | None = None) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    made = prepare(s) if made is None else made
    state, step, feed, key = prepare_steps(s, made)
    options = recipes.run_options(s, recipes.text.examples_of_epoch(s, made.rows))
    described = recipes.text.describe(s, made.vocabulary)
    with training.open_run(s.directory, s, state, may_change=MAY_CHANGE, **options) as (
        run,
        state,
    ):
        recipes.text.keep(s.directory, described, made.vocabulary)
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
    return state


def variables_of(s: Training, made: Prepared, trained: bool) -> dict[str, Any]:
    """Variables of the model: of the run, or those that it begins with."""
    if trained:
        return jax.device_get(recipes.variables_of(s, pretrain(s, made)))
    described = recipes.text.describe(s, made.vocabulary)
    params, rest = recipes.text.initialize(s, described, made.vocabulary)
    return {"params": params["model"], **rest}
