"""MoCo: a queue of keys from a slow encoder, under InfoNCE and Kernel-InfoNCE.

python -m experiments.moco                            # digits, 3 minutes on a CPU
python -m experiments.moco digits --kernels cosine laplacian --decoupled
python -m experiments.moco cifar10                    # settings of the authors' code
python -m experiments.moco --help                     # the names; then NAME --help

Each kernel is a run of its own in DIRECTORY/KERNEL/seed_N; the same command again
resumes it. In the end the encoders are probed on held-out images, beside the untrained
one; `jaxcl probe DIRECTORY/KERNEL/seed_N` draws what one has learned.

Against the code of Kernel-InfoNCE, whose experiment this is: batch statistics are those
of the whole batch, over all devices, where MoCo shuffles and the authors' code splits
the batch into eight parts; nothing is added to the denominator, since losses are
computed from logarithms; the learning rate falls at every step and not at every epoch;
the last layer of the head has no bias; and the linear probe is that of
`jaxcl.evaluation`, without augmentation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

import jaxcl
from jaxcl import (
    _checks,
    _cli,
    _rules,
    augment,
    data,
    kernels,
    losses,
    models,
    recipes,
    study,
    training,
)

Kernel = Literal["cosine", "gaussian", "laplacian", "power_half", "simple_sum"]


@dataclasses.dataclass(frozen=True)
class Settings(recipes.Images):
    """Pretrains an encoder by MoCo for each kernel, and probes what they learned."""

    directory: str = "runs/moco"
    """Holds a run directory for each kernel, and the table of accuracies."""
    test_split: str = "test"
    """Held-out part of the source on which accuracy is measured."""
    projector: Literal["normalized", "plain"] = "plain"
    """Whether the projector's hidden layer is batch-normalized."""
    kernels: Annotated[tuple[Kernel, ...], _rules.Different] = ("cosine", "simple_sum")
    """What compares queries with keys; "cosine" is MoCo's own InfoNCE."""
    decoupled: bool = False
    """Leaves the positive out of the denominator, as the code of Kernel-InfoNCE."""
    temperature: _rules.Positive = 0.2
    """Divides cosines, or distance^power; in a sum that of the Gaussian."""
    second_temperature: _rules.Positive = 0.2
    """Of the exponential member of "simple_sum"."""
    power: _rules.Positive = 1.0
    """Of the distance in the exponential member of "simple_sum"."""
    mixture: Literal["kernels", "losses"] = "kernels"
    """What "simple_sum" adds: kernels, as the paper, or losses, as its code."""
    weight: _rules.Share = 0.5
    """Of the exponential member of "simple_sum"; the Gaussian has the rest."""
    queue_size: _rules.Count = 512
    """Keys in the queue, a multiple of the batch size."""
    momentum: Annotated[float, _rules.inside("[0, 1)")] = 0.99
    """Of the key encoder's parameters, per step."""
    epochs: _rules.Count = 150
    warmup_epochs: _rules.Index = 0
    optimizer: Literal["adamw", "lars", "sgd"] = "sgd"
    """SGD has a momentum of 0.9, and decays all parameters."""
    learning_rate: _rules.Positive = 0.06
    """At the first step; it falls along a cosine."""
    weight_decay: _rules.NotNegative = 5e-4
    """Of all parameters, through the gradient."""
    evaluate_every: _rules.Count = 150


# Defaults of Kernel-InfoNCE's code. Its plain losses: --kernels gaussian (or laplacian)
# --temperature 0.1.
authors = functools.partial(
    Settings,
    augmentation="moco",
    pixels="imagenet",
    encoder="resnet18",
    width=64,
    kernels=("simple_sum",),
    decoupled=True,
    temperature=0.3,
    second_temperature=0.1,
    mixture="losses",
    weight=0.2,
    queue_size=4096,
    batch_size=512,
    epochs=200,
    seed=1,
    evaluate_every=1000,
)
PROTOCOLS = {
    "digits": _cli.Command(
        Settings(), help="The 1,797 digits of scikit-learn: nothing to download."
    ),
    "cifar10": _cli.Command(
        authors("runs/moco_cifar10", "tfds:cifar10"),
        help="CIFAR-10, prepared by TFDS.",
    ),
    "cifar100": _cli.Command(
        authors("runs/moco_cifar100", "tfds:cifar100"),
        help="CIFAR-100, prepared by TFDS.",
    ),
    "tinyimagenet": _cli.Command(
        authors("runs/moco_tinyimagenet", "tfds:tinyimagenet", test_split="validation"),
        help="TinyImageNet; first `jaxcl prepare --name tinyimagenet --resize 32`.",
    ),
}

# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (*recipes.MAY_CHANGE, "test_split")


def make_loss(s: Settings) -> Callable[..., jax.Array]:
    """Returns loss(queries [b, d], keys [b, d], negatives=[k, d], groups=[b])."""
    [name] = s.kernels
    gaussian = kernels.gaussian(s.temperature)
    members = gaussian, kernels.exponential(s.power, s.second_temperature)
    weights = (1 - s.weight, s.weight)
    mixtures = {
        "kernels": [(1.0, kernels.kernel_sum(*members, weights=weights))],
        "losses": list(zip(weights, members, strict=True)),
    }
    weighted = {
        "cosine": [(1.0, kernels.cosine(s.temperature))],
        "gaussian": [(1.0, gaussian)],
        "laplacian": [(1.0, kernels.laplacian(s.temperature))],
        "power_half": [(1.0, kernels.exponential(0.5, s.temperature))],
        "simple_sum": mixtures[s.mixture],
    }[name]
    one = functools.partial(losses.info_nce, decoupled=s.decoupled)

    def loss(queries: jax.Array, keys: jax.Array, **options: Any) -> jax.Array:
        return sum(
            (w * one(queries, keys, kernel=k, **options) for w, k in weighted),
            start=jnp.zeros(len(queries)),
        )

    return loss


def pretrain(s: Settings) -> training.TrainState:
    """Trains by the one kernel of the settings, or goes on where it was stopped."""
    mesh, rows, whole = jaxcl.data_parallel()

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    images = recipes.open_images(s)
    feed = data.feed(images, s.batch_size, s.seed, rows, on_device=s.on_device)
    shape = recipes.image_size(images)
    transform = recipes.make_transform(s, shape)

    # Model, optimizer, and a second encoder and a queue to begin with.
    described = recipes.describe(s, shape)
    params, stats = recipes.initialize(s, described)
    apply, tx = recipes.make_apply(s, described), recipes.make_optimizer(s, images)
    key = jax.random.key(s.seed)
    queue = training.create_queue(jax.random.fold_in(key, 2), s.queue_size, s.embedding)
    memory = {"queue": queue, "key_state": jax.tree.map(jnp.copy, stats)}
    state = training.create_state(params, stats, tx, average=True, memory=memory)
    state = data.put(state, whole)
    # Each device keeps the keys of its own rows.
    queue = state.memory["queue"]
    queue = queue._replace(keys=jax.device_put(queue.keys, rows))
    state = state.replace(memory={**state.memory, "queue": queue})
    placed = jax.tree.map(lambda x: x.sharding, state)

    # Loss: queries learn, keys and queue are constants.
    loss = jaxcl.sharded(make_loss(s), mesh)
    groups = jnp.zeros(s.batch_size, int)  # keys of other images are not negatives

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        views = augment.images.views(key, batch["image"], transform)
        slow = {"params": state.average["model"], **state.memory["key_state"]}
        keys, key_state = apply(slow, views[:, 1])
        keys = jax.lax.stop_gradient(kernels.unit(keys["z"]))
        fast = {"params": params["model"], **state.model_state}
        queries, changed = apply(fast, views[:, 0])
        queue = state.memory["queue"]
        values = loss(queries["z"], keys, negatives=queue.keys, groups=groups)
        memory = {"queue": training.push(queue, keys), "key_state": key_state}
        norm = jnp.linalg.norm(queries["z"], axis=-1).mean()
        return training.Outcome(values, changed, memory, {"embedding_norm": norm})

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placed, whole))
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key, momentum=s.momentum)

    # Loop: the same command resumes it.
    view_key = data.put(jax.random.fold_in(key, 1), whole)
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


def main(s: Settings) -> list[study.Row]:
    """Trains by each kernel, probes the encoders, and prints a table."""
    recipes.start(s)
    recipes.check_images(s)
    _checks.divisible("queue_size", s.queue_size, s.batch_size, f"{s.batch_size} rows")
    recipes.check_study(s, s.test_split)

    def features(s: Settings, trained: bool) -> study.Features:
        return study.Features(*recipes.probe_features(s, trained, s.test_split))

    variants: dict[str, Any] = {name: {"kernels": (name,)} for name in s.kernels}
    of_moco = study.Study(pretrain, features)
    rows = study.run(of_moco, s, variants, [s.seed], may_change=MAY_CHANGE)
    study.report(
        s.directory,
        rows,
        settings=s,
        variants=variants,
        title="MoCo: accuracy on held-out images",
        baseline=s.kernels[0],
    )
    return rows


if __name__ == "__main__":
    _cli.run(
        main,
        PROTOCOLS,
        prog="python -m experiments.moco",
        default="digits",
        stopped="stopped; the same command goes on from its checkpoint",
    )
