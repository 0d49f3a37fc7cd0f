"""SimCLR: contrastive pretraining of an encoder on images, in the order it runs.

python -m experiments.simclr                          # digits, two minutes on a CPU
python -m experiments.simclr --loss dcl --temperature 0.1 --directory runs/dcl
python -m experiments.simclr --source tfds:cifar10 --encoder resnet18 \
    --augmentation photographs --directory runs/cifar10
python -m experiments.simclr --recipe cifar10-resnet18-100ep     # docs/recipes.md

The same command again resumes from the newest checkpoint. What the encoder has learned
is measured by `python -m experiments.linear_probe DIRECTORY`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

import jaxcl
from jaxcl import _cli, augment, data, evaluation, models, recipes, training


@dataclasses.dataclass(frozen=True)
class Settings(recipes.ViewLoss, recipes.Images):
    """Pretrains an encoder with a contrastive loss and writes a run directory."""

    directory: str = "runs/simclr"
    recipe: str | None = None
    """Name of settings that replace the defaults; other flags win over them. In Python
    it is a name only: `recipes.with_recipe` gives the settings."""


# Without a name, the settings of a recipe are still those of its run.
MAY_CHANGE = (*recipes.MAY_CHANGE, "tile", "recipe")
RECIPES = _cli.Named(
    "recipe",
    {name: each.about for name, each in recipes.RECIPES.items()},
    recipes.with_recipe,
    recipes.shortened,
)


def main(s: Settings) -> training.TrainState:
    recipes.start(s)
    if s.recipe is not None:
        recipes.recipe(s.recipe)
    recipes.check_images(s)
    recipes.check_loss(s, s.num_views)
    mesh, rows, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    images = recipes.open_images(s)
    if s.loss == "sup_con" and "label" not in images.columns:
        raise ValueError(f"loss 'sup_con' needs labels, and {s.source!r} has none")
    feed = data.feed(images, s.batch_size, s.seed, rows, on_device=s.on_device)
    shape = recipes.image_size(images)
    transform = recipes.make_transform(s, shape)

    # Model and optimizer.
    described = recipes.describe(s, shape)
    params, stats = recipes.initialize(s, described, len(images.class_names or ()))
    apply, tx = recipes.make_apply(s, described), recipes.make_optimizer(s, images)
    state = training.create_state(params, stats, tx, average=s.average > 0)
    state = data.put(state, whole)

    # Loss: views of the batch, their embeddings [b, v, d], and what these cost.
    loss = jaxcl.sharded(recipes.make_loss(s), mesh)

    def encode_views(variables: Any, images: jax.Array, key: jax.Array) -> Any:
        views = augment.images.views(key, images, transform, s.num_views)
        return training.apply_views(apply, variables, views)

    encode = training.in_chunks(encode_views, s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        variables = {"params": params["model"], **state.model_state}
        out, changed = encode(variables, batch["image"], key)
        values = loss(out["z"], batch.get("label"))
        metrics = {"embedding_norm": jnp.linalg.norm(out["z"], axis=-1).mean()}
        # A probe learns beside the model; the loss stays the number that it is.
        if "probe" in params:
            h, labels = out["h"][:, 0], batch["label"]
            of_probe, accuracy = evaluation.online_probe(params["probe"], h, labels)
            values = values + (of_probe - jax.lax.stop_gradient(of_probe))
            metrics["linear"] = accuracy
        return training.Outcome(values, changed, metrics=metrics)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key, momentum=s.average)

    # Loop: the same command resumes it.
    view_key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    monitors = recipes.make_monitors(s, described, images)
    with training.open_run(
        s.directory, s, state, may_change=MAY_CHANGE, **recipes.run_options(s, images)
    ) as (run, state):
        models.write_description(s.directory, described)
        for i in run.steps():
            state, metrics = step(state, feed(i), view_key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
            if run.due(i + 1, s.evaluate_every):
                run.write(i + 1, monitors(state))
    return state


if __name__ == "__main__":
    _cli.run(
        main,
        Settings,
        prog="python -m experiments.simclr",
        stopped="stopped; the same command resumes from the newest checkpoint",
        named=RECIPES,
    )
