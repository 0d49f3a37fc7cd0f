"""GraphCL's pretraining with any loss of views, in the order it runs."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax

import jaxcl
from jaxcl import _rules, augment, data, models, recipes, training

LossName = recipes.LossName


@dataclasses.dataclass(frozen=True)
class Training(recipes.ViewLoss, recipes.graphs.Graphs):
    """One training on graphs."""

    temperature: _rules.Positive = 0.2
    """Divides similarities; smaller is sharper."""
    variant: Literal["constant", "full", "official"] = "official"
    """Form of "sc_info_nce"; the authors' runs on graphs had "official"."""
    save_every: _rules.Count = 100_000
    """Steps between two checkpoints; there is one at the end."""


MAY_CHANGE = (*recipes.MAY_CHANGE, "tile", "packs", "nodes", "edges")


class Target(NamedTuple):
    """The authors' scale and bias of the target of SC-InfoNCE."""

    alpha: float
    beta: float


# Of their table; they have no figures for other sets.
TARGETS: Mapping[str, Target] = {
    "NCI1": Target(0.7, 0.05),
    "PROTEINS": Target(2.0, -0.4),
    "DD": Target(1.0, -0.3),
    "COLLAB": Target(1.0, -0.3),
}


def check(s: Training) -> None:
    recipes.check(s)
    recipes.check_loss(s, s.num_views)


def pretrain(s: Training) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    check(s)
    mesh, rows, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    dataset = recipes.graphs.open_graphs(s)
    packed = recipes.graphs.pack(s, dataset)
    if s.loss == "sup_con" and "label" not in dataset.columns:
        raise ValueError(f"loss 'sup_con' needs labels, and {s.source!r} has none")
    feed = data.feed(packed, s.batch_size, s.seed, rows, on_device=s.on_device)
    transform = recipes.graphs.make_transform(s)

    # Model and optimizer.
    params, stats = recipes.graphs.initialize(s, dataset)
    apply, tx = recipes.graphs.make_apply(s), recipes.make_optimizer(s, dataset)
    state = training.create_state(params, stats, tx, average=s.average > 0)
    state = data.put(state, whole)

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

    # Loop. The key is an argument, so that seeds share one program.
    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    monitors = recipes.graphs.make_monitors(s, dataset)
    with training.open_run(
        s.directory, s, state, may_change=MAY_CHANGE, **recipes.run_options(s, dataset)
    ) as (run, state):
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
            if run.due(i + 1, s.evaluate_every):
                run.write(i + 1, monitors(state))
    return state
