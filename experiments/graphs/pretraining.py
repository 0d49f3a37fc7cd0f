"""GraphCL's pretraining with any loss of views, in the order it runs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import jaxcl
from experiments.graphs import settings
from experiments.graphs.settings import MAY_CHANGE, Compared, Training
from jaxcl import augment, data, models, recipes, training


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


def prepare_steps(s: Training, dataset: data.Dataset, packed: data.Dataset) -> Steps:
    """What a training of these settings does, on a mesh of all devices."""
    mesh, rows, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    feed = data.feed(packed, s.batch_size, s.seed, rows, on_device=s.on_device)
    transform = recipes.graphs.make_transform(s)

    # Model and optimizer.
    described = recipes.graphs.describe(s, dataset)
    params, stats = recipes.graphs.initialize(s, described)
    apply = recipes.graphs.make_apply(s, described)
    tx = recipes.make_optimizer(s, dataset)
    state = training.create_state(params, stats, tx, average=s.average > 0)

    # Loss: views of the batch, their embeddings, and what these cost.
    loss = jaxcl.sharded(recipes.make_loss(s), mesh)

    def encode_views(variables: Any, graphs: Any, key: jax.Array) -> Any:
        views = augment.graphs.views(key, graphs, transform, s.num_views)
        return training.apply_views(apply, variables, views)

    encode = training.in_chunks(encode_views, s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        variables = {"params": params["model"], **state.model_state}
        z, changed = encode(variables, batch["graph"], key)  # [packs, views, graphs, d]
        values = loss(models.graphs.by_graph(z), batch.get("label"))
        return training.Outcome(values, changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key, momentum=s.average)

    # The key is an argument, so that seeds share one program.
    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    return Steps(data.put(state, whole), step, feed, key)


def pretrain(s: Training) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    dataset = recipes.graphs.open_graphs(s)
    state, step, feed, key = prepare_steps(s, dataset, recipes.graphs.pack(s, dataset))
    described = recipes.graphs.describe(s, dataset)
    monitors = recipes.graphs.make_monitors(s, described, dataset)
    with training.open_run(
        s.directory, s, state, may_change=MAY_CHANGE, **recipes.run_options(s, dataset)
    ) as (run, state):
        models.write_description(s.directory, described)
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
            if run.due(i + 1, s.evaluate_every):
                run.write(i + 1, monitors(state))
    return state


def variables_of(s: Training, dataset: data.Dataset, trained: bool) -> dict[str, Any]:
    """Variables of the model: of the run, or those that it begins with."""
    if trained:
        return jax.device_get(recipes.variables_of(s, pretrain(s)))
    described = recipes.graphs.describe(s, dataset)
    return recipes.first_variables(described, s.seed)


def prepare(s: Compared) -> tuple[Training, dict[str, Any], data.Dataset]:
    """What all trainings share, what differs, and their graphs; refuses what cannot
    run before anything does.
    """
    recipes.start(s)
    if "sup_con" in s.losses:
        raise ValueError(
            "losses must not name 'sup_con': it would learn from the labels of the "
            "graphs that it is tested on"
        )
    dataset = data.graphs.open(s.source, s.split, features=s.features)
    if "label" not in dataset.columns:
        raise ValueError(f"source must have labels to test with, {s.source!r} has none")
    known = settings.TARGETS.get(dataset.name, settings.Target())
    base, variants = settings.trainings(s, settings.Training, known)
    recipes.check_size(base, data.size(dataset))
    room = recipes.graphs.pack(base, dataset)  # refuses what does not fit
    if jax.process_index() == 0:
        print(data.graphs.about(room))
    return base, variants, dataset
