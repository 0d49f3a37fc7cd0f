"""SimCLR: contrastive pretraining of an encoder on images, in the order it runs.

python -m experiments.simclr                          # digits, two minutes on a CPU
python -m experiments.simclr --loss dcl --temperature 0.1 --directory runs/dcl
python -m experiments.simclr --source tfds:cifar10 --encoder resnet18 \
    --augmentation photographs --directory runs/cifar10

The same command again resumes from the newest checkpoint. What the encoder has learned
is measured by `python -m experiments.linear_probe DIRECTORY`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

import jaxcl
from jaxcl import (
    _cli,
    _rules,
    augment,
    data,
    evaluation,
    kernels,
    losses,
    models,
    recipes,
    training,
)


@dataclasses.dataclass(frozen=True)
class Settings(recipes.Images):
    """Pretrains an encoder with a contrastive loss and writes a run directory."""

    directory: str = "runs/simclr"
    """Where settings, metrics, checkpoints and pictures go."""
    loss: Literal[
        "nt_xent",
        "kernel_info_nce",
        "dcl",
        "debiased_nt_xent",
        "dhel",
        "is_info_nce",
        "spectral_contrastive",
        "kcl",
        "f_micl",
        "info_nce",
        "sc_info_nce",
        "clip",
        "siglip",
        "sup_con",
    ] = "nt_xent"
    """Loss; "sup_con" uses the labels."""
    temperature: _rules.Positive = 0.5
    """Divides similarities; smaller is sharper."""
    kernel: Literal[
        "gaussian",
        "laplacian",
        "power_half",
        "simple_sum",
        "concatenation_sum",
        "arc_cosine_0",
        "arc_cosine_1",
        "arc_cosine_2",
    ] = "gaussian"
    """Of "kernel_info_nce" and "kcl". Its temperature divides distance^power; the sums
    are of a Gaussian and an exponential kernel."""
    weight: _rules.Share = 0.5
    """Of the sums' exponential member, in [0, 1]; the Gaussian has the rest."""
    power: _rules.Positive = 1.0
    """Of the distance in the sums' exponential member."""
    second_temperature: _rules.Positive | None = None
    """Of the sums' exponential member; None: the same as of the Gaussian."""
    arc_scale: Annotated[float, _rules.inside("(0, 1]")] = 1.0
    """Of the angle in arc-cosine kernels, in (0, 1]; they have no temperature."""
    alpha: _rules.Finite = 1.0
    """Scale of the target of "sc_info_nce"."""
    beta: _rules.Finite = 0.0
    """Bias of the target of "sc_info_nce"."""
    variant: Literal["constant", "full", "official"] = "constant"
    """Form of "sc_info_nce"; the authors' image runs had "official"."""
    penalty: _rules.NotNegative = 0.0
    """Factor c of the penalty on norm and entropy of z, which is added with the weight
    c 2 (1 - penalty_alignment) / (d temperature); 1 is the theory's threshold."""
    penalty_scale: _rules.Positive = 0.5
    """Pins the radius of z near sqrt(d / (2 penalty_scale))."""
    penalty_alignment: _rules.Share = 0.0
    """Mean cosine of positives that is expected, in [0, 1]; 0 is on the safe side."""
    tile: _rules.Count | None = None
    """Edge of a tile of pairs; changes memory and speed, not results."""


MAY_CHANGE = (*recipes.MAY_CHANGE, "tile")


def make_kernel(s: Settings) -> kernels.Kernel:
    t, second = s.temperature, s.second_temperature or s.temperature
    members = kernels.gaussian(t), kernels.exponential(s.power, second)
    weights = (1 - s.weight, s.weight)
    return {
        "gaussian": lambda: kernels.gaussian(t),
        "laplacian": lambda: kernels.laplacian(t),
        "power_half": lambda: kernels.exponential(0.5, t),
        "simple_sum": lambda: kernels.kernel_sum(*members, weights=weights),
        "concatenation_sum": lambda: kernels.concatenation_sum(
            *members, weights=weights
        ),
        "arc_cosine_0": lambda: kernels.arc_cosine(0, s.arc_scale),
        "arc_cosine_1": lambda: kernels.arc_cosine(1, s.arc_scale),
        "arc_cosine_2": lambda: kernels.arc_cosine(2, s.arc_scale),
    }[s.kernel]()


def make_loss(s: Settings) -> Callable[..., jax.Array]:
    """Returns loss(z [b, v, d], labels [b] or None, axis_name=...), one per anchor."""
    t, kernel = s.temperature, make_kernel(s)
    sc: dict[str, Any] = {"alpha": s.alpha, "beta": s.beta, "variant": s.variant}
    of_views: dict[str, Callable[..., jax.Array]] = {
        "nt_xent": functools.partial(losses.nt_xent, temperature=t),
        "kernel_info_nce": functools.partial(losses.kernel_info_nce, kernel=kernel),
        "dcl": functools.partial(losses.dcl, temperature=t),
        "debiased_nt_xent": functools.partial(losses.debiased_nt_xent, temperature=t),
        "dhel": functools.partial(losses.dhel, temperature=t),
        "spectral_contrastive": losses.spectral_contrastive,
        "kcl": functools.partial(losses.kcl, kernel=kernel),
        "f_micl": losses.f_micl,
    }
    of_two: dict[str, Callable[..., jax.Array]] = {
        "info_nce": functools.partial(losses.info_nce, temperature=t),
        "clip": functools.partial(losses.clip, temperature=t),
        "siglip": functools.partial(losses.siglip, temperature=t),
        "sc_info_nce": functools.partial(losses.sc_info_nce, temperature=t, **sc),
    }

    def loss(z: jax.Array, labels: jax.Array | None, axis_name: str) -> jax.Array:
        options: dict[str, Any] = {"tile": s.tile, "axis_name": axis_name}
        if s.loss in of_views:
            return of_views[s.loss](z, **options)
        if s.loss in of_two:
            return of_two[s.loss](z[:, 0], z[:, 1], **options)
        if s.loss == "is_info_nce":
            three = z[:, 0], z[:, 1], z[:, 2]
            return losses.is_info_nce(*three, temperature=t, **options)
        repeated = jnp.repeat(jnp.asarray(labels), z.shape[1])
        rows = z.reshape(-1, z.shape[-1])
        return losses.sup_con(rows, repeated, temperature=t, **options)

    return loss


def add_penalty(s: Settings, loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Adds the penalty that pins the radius of z, over all views."""
    weight = s.penalty * 2 * (1 - s.penalty_alignment) / (s.embedding * s.temperature)

    def penalized(z: jax.Array, labels: Any, axis_name: str) -> jax.Array:
        penalty = losses.norm_entropy_penalty(
            z.reshape(-1, z.shape[-1]), scale=s.penalty_scale, axis_name=axis_name
        )
        return loss(z, labels, axis_name=axis_name) + weight * penalty

    return penalized if s.penalty else loss


def check(s: Settings) -> None:
    views = {"is_info_nce": (3,), "dhel": (2, 2)}.get(s.loss, (2,))
    _rules.whole(*views).check("num_views", s.num_views)
    used = s.kernel if s.loss in ("kernel_info_nce", "kcl") else ""
    for names, read, which in (
        ("kernel", bool(used), "losses 'kernel_info_nce' and 'kcl'"),
        ("weight power second_temperature", used.endswith("_sum"), "a sum of kernels"),
        ("arc_scale", used.startswith("arc"), "an arc-cosine kernel"),
        ("alpha beta variant", s.loss == "sc_info_nce", "loss 'sc_info_nce'"),
        ("penalty_scale penalty_alignment", s.penalty > 0, "a penalty above 0"),
    ):
        _rules.unread(s, names, unless=read, which=which)


def main(s: Settings) -> training.TrainState:
    recipes.start(s)
    check(s)
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
    loss = jaxcl.sharded(add_penalty(s, make_loss(s)), mesh)

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
    )
