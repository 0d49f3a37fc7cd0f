"""MoCo: a queue of keys from a slow encoder, under InfoNCE and Kernel-InfoNCE.

python -m experiments.moco                            # digits, 3 minutes on a CPU
python -m experiments.moco digits --kernels cosine laplacian --decoupled
python -m experiments.moco cifar10                    # settings of the authors' code
python -m experiments.moco --help                     # the names; then NAME --help

Each kernel is a run of its own in DIRECTORY/KERNEL; the same command again resumes it.
In the end the encoders are probed on held-out images, beside the untrained one. The
settings of the digits are first guesses, tuned on nothing.

Against the code of Kernel-InfoNCE, whose experiment this is: batch statistics are those
of the whole batch, over all devices, where MoCo shuffles and the authors' code splits
the batch into eight parts; nothing is added to the denominator, since losses are
computed from logarithms; the learning rate falls at every step and not at every epoch;
the last layer of the head has no bias; and the linear probe is that of
`jaxcl.evaluation`, without augmentation.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro

import jaxcl
from experiments import compare, linear_probe, simclr
from jaxcl import (
    augment,
    data,
    evaluation,
    graphs,
    kernels,
    losses,
    models,
    pairwise,
    pictures,
    training,
)
from jaxcl.training import checkpoints

Kernel = Literal["cosine", "gaussian", "laplacian", "power_half", "simple_sum"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Pretrains an encoder by MoCo for each kernel, and probes what they learned."""

    directory: str = "runs/moco"
    """Holds a run directory for each kernel, and the table of accuracies."""
    source: str = "digits"
    """Images with labels, as `experiments.simclr` takes them."""
    split: str = "train"
    """Part to learn from, whose labels the probes see."""
    test_split: str = "test"
    """Held-out part on which accuracy is measured."""
    augmentation: Literal["characters", "photographs"] = "characters"
    """Affine maps and noise, or MoCo v2's crops, flips and colors without blur."""
    pixels: Literal["unit", "cifar", "imagenet"] = "unit"
    """Pixels in [0, 1], or standardized by the channels' statistics of a data set."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """Three convolutions and a dense layer, or a residual network with a 3x3 stem."""
    width: int = 32
    """Channels of the encoder's first stage; 64 is the usual residual network."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model computes; parameters and losses are float32."""
    embedding: int = 128
    """Size d of the embedding that the loss and the queue see."""
    kernels: tuple[Kernel, ...] = ("cosine", "simple_sum")
    """What compares queries with keys; "cosine" is MoCo's own InfoNCE."""
    decoupled: bool = False
    """Leaves the positive out of the denominator, as the code of Kernel-InfoNCE."""
    temperature: float = 0.2
    """Divides cosines, or distance^power; in a sum that of the Gaussian."""
    second_temperature: float = 0.2
    """Of the exponential member of "simple_sum"."""
    power: float = 1.0
    """Of the distance in the exponential member of "simple_sum"."""
    mixture: Literal["kernels", "losses"] = "kernels"
    """What "simple_sum" adds: kernels, as the paper, or losses, as its code."""
    weight: float = 0.5
    """Of the exponential member of "simple_sum"; the Gaussian has the rest."""
    queue_size: int = 512
    """Keys in the queue, a multiple of the batch size."""
    momentum: float = 0.99
    """Of the key encoder's parameters, per step."""
    batch_size: int = 128
    """Images per step, over all devices."""
    epochs: int = 150
    """Passes over the images."""
    learning_rate: float = 0.06
    """Of SGD with momentum 0.9, at the first step; it falls along a cosine."""
    weight_decay: float = 5e-4
    """Of all parameters, through the gradient."""
    seed: int = 0
    """Of parameters, batches, views and the first queue."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    evaluate_every: int = 150
    """Steps between two measurements of k-NN accuracy, on training images."""
    save_every: int = 500
    """Steps between two checkpoints."""
    max_steps: int | None = None
    """Stops early after this many steps; the schedule stays that of all epochs."""


CIFAR10 = Settings(
    directory="runs/moco_cifar10",
    source="tfds:cifar10",
    augmentation="photographs",
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
# All but "digits" as the code of Kernel-InfoNCE has them by default, as far as we could
# read it. Its plain losses: --kernels laplacian (or gaussian) --temperature 0.1.
PROTOCOLS = {
    "digits": ("The 1,797 digits of scikit-learn: nothing to download.", Settings()),
    "cifar10": ("CIFAR-10, prepared by TFDS.", CIFAR10),
    "cifar100": (
        "CIFAR-100, prepared by TFDS.",
        dataclasses.replace(
            CIFAR10, directory="runs/moco_cifar100", source="tfds:cifar100"
        ),
    ),
    "tinyimagenet": (
        "TinyImageNet; first `jaxcl prepare --name tinyimagenet --resize 32`.",
        dataclasses.replace(
            CIFAR10,
            directory="runs/moco_tinyimagenet",
            source="tfds:tinyimagenet",
            test_split="validation",
        ),
    ),
}

# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (
    "directory",
    "test_split",
    "log_every",
    "evaluate_every",
    "save_every",
    "max_steps",
)


class State(NamedTuple):
    """All that changes while training.

    query: what learns by gradients, and is probed.
    key_params, key_batch_stats: of the key encoder; only its parameters are averages.
    queue: keys of earlier batches.
    """

    query: training.TrainState
    key_params: Any
    key_batch_stats: Any
    queue: training.Queue


def as_simclr(s: Settings) -> simclr.Settings:
    """The settings that both scripts have, for what is made in the other one."""
    [kernel] = s.kernels
    return simclr.Settings(
        augmentation=s.augmentation,
        pixels=s.pixels,
        encoder=s.encoder,
        width=s.width,
        dtype=s.dtype,
        kernel="gaussian" if kernel == "cosine" else kernel,
        temperature=s.temperature,
        second_temperature=s.second_temperature,
        power=s.power,
        mixture=s.mixture,
        weight=s.weight,
    )


def make_model(s: Settings) -> models.SimCLR:
    encoder = simclr.make_model(as_simclr(s)).encoder
    head = models.Projector(s.embedding, batch_norm=False, dtype=jnp.dtype(s.dtype))
    return models.SimCLR(encoder, head)


def make_transform(s: Settings, size: tuple[int, int]) -> augment.images.Transform:
    if s.augmentation == "characters":
        return simclr.make_transform(as_simclr(s), size)
    mean, std = simclr.STATISTICS[s.pixels]
    steps: list[augment.images.Transform] = [
        functools.partial(
            augment.images.random_resized_crop, size=size, scale=(0.2, 1.0)
        ),
        augment.images.random_horizontal_flip,
        functools.partial(
            augment.images.random_color_jitter,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            probability=0.8,
        ),
        augment.images.random_grayscale,
    ]
    if mean is not None:
        standardize = functools.partial(augment.images.normalize, mean=mean, std=std)
        steps.append(augment.images.without_key(standardize))
    return augment.images.chain(*steps)


def decoupled(
    queries: jax.Array,
    keys: jax.Array,
    *,
    negatives: jax.Array,
    groups: jax.Array,
    kernel: kernels.Kernel,
    axis_name: str | None = None,
) -> jax.Array:
    """Contrasts with negatives alone: loss_i = log sum_j exp(s_ij) - s_ii, [n].

    It may become negative.
    """
    anchors, candidates = graphs.keyed(
        queries, keys, negatives, axis_name=axis_name, groups=groups
    )
    (negative,) = pairwise.reduce_pairs(
        anchors,
        candidates,
        kernel=kernel,
        reductions=(pairwise.Reduction("logsumexp", graphs.negatives),),
        axis_name=axis_name,
    )
    return negative - kernels.matched(kernel, anchors.z, keys)


def make_loss(s: Settings) -> Callable[..., jax.Array]:
    """Returns loss(queries [b, d], keys [b, d], negatives=[k, d], groups=[b])."""
    if s.kernels == ("cosine",):
        weighted = [(1.0, kernels.cosine(s.temperature))]
    else:
        weighted = simclr.make_kernels(as_simclr(s))
    one = decoupled if s.decoupled else losses.info_nce

    def loss(queries: jax.Array, keys: jax.Array, **options: Any) -> jax.Array:
        return sum(
            (w * one(queries, keys, kernel=k, **options) for w, k in weighted),
            start=jnp.zeros(len(queries)),
        )

    return loss


def pretrain(s: Settings) -> State:
    """Trains by the one kernel of the settings, or goes on where it was stopped."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=auto)
    rows = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    key = jax.random.key(s.seed)

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    images = data.to_memory(data.open(s.source, s.split))
    batches = data.batches(images, s.batch_size, s.seed)
    num_steps = s.epochs * (len(images.images) // s.batch_size)
    last_step = min(num_steps, s.max_steps or num_steps)
    height, width = images.images.shape[1:3]
    transform = make_transform(s, (height, width))

    # Model, optimizer, and a second encoder and a queue to begin with.
    model = make_model(s)
    tx = optax.chain(
        optax.add_decayed_weights(s.weight_decay),
        optax.sgd(training.warmup_cosine(s.learning_rate, 0, num_steps), momentum=0.9),
    )
    example = jax.ShapeDtypeStruct((1, *images.images.shape[1:]), jnp.float32)
    query = training.create_state(jax.random.fold_in(key, 0), model, tx, example)
    queue = training.create_queue(jax.random.fold_in(key, 2), s.queue_size, s.embedding)
    # Copies, since a step is given the buffers of its state.
    params, batch_stats = jax.tree.map(jnp.copy, (query.params, query.batch_stats))
    state = State(query, params, batch_stats, queue)
    placed = jax.tree.map(lambda _: whole, state)
    placed = placed._replace(queue=placed.queue._replace(keys=rows))
    state = jax.device_put(state, placed)

    loss = jaxcl.sharded(make_loss(s), mesh)
    view_key = jax.random.fold_in(key, 1)
    # All queries in one group: keys of other images in the batch are not negatives.
    groups = jnp.zeros(s.batch_size, int)

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placed, whole))
    def step(state: State, images: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        views = augment.images.views(
            jax.random.fold_in(view_key, state.query.step), images, transform
        )
        key_params = training.momentum_update(
            state.query.params, state.key_params, s.momentum
        )
        keys, updated = model.apply(
            {"params": key_params, "batch_stats": state.key_batch_stats},
            views[:, 1],
            train=True,
            mutable=["batch_stats"],
        )
        keys = kernels.unit(keys)
        # Keys and queue are constants here: gradients are those of queries.
        query, metrics = training.train_step(
            lambda z: loss(z[:, 0], keys, negatives=state.queue.keys, groups=groups),
            state.query,
            views[:, :1],
        )
        queue = training.push(state.queue, keys)
        return State(query, key_params, updated["batch_stats"], queue), metrics

    encode = simclr.make_encode(model, s.pixels)
    training.save_settings(s.directory, dataclasses.asdict(s), may_change=MAY_CHANGE)
    with checkpoints.open(s.directory) as manager:
        state, position = checkpoints.restore_latest(manager, state)
        first = int(state.query.step)
        if position is not None:
            print(f"resuming {s.directory} after step {first}")
        writer = training.MetricWriter(
            s.directory, tensorboard=True, resumed_from=first
        )
        bar = tqdm.tqdm(total=last_step, initial=first, unit="step", desc=s.kernels[0])
        with bar, writer:
            for i in range(first, last_step):
                state, metrics = step(state, jax.device_put(batches(i)["image"], rows))
                done = i + 1
                end = done == last_step
                if done % s.log_every == 0 or end:
                    # The only place where the host waits for the device.
                    metrics = jax.device_get(metrics)
                    training.check_finite(done, metrics)
                    writer.write(done, metrics)
                    bar.set_postfix_str(f"loss {metrics['loss']:.3f}")
                    bar.update(done - bar.n)
                if done % s.evaluate_every == 0 or end:
                    accuracy = simclr.knn_accuracy(encode, state.query, images)
                    writer.write(done, {"knn": accuracy})
                if done % s.save_every == 0 or end:
                    checkpoints.save(manager, done, state, {"step": done})
    return state


def main(s: Settings) -> dict[str, evaluation.ProbeScores]:
    """Trains by each kernel, probes the encoders, draws, and returns accuracies."""
    for name, divisor, what in (
        ("batch_size", jax.device_count(), "devices"),
        ("queue_size", s.batch_size, "rows of a batch"),
    ):
        if getattr(s, name) % divisor:
            raise ValueError(
                f"{name} must be divisible by the {divisor} {what}, "
                f"got {getattr(s, name)}"
            )
    if len(set(s.kernels)) != len(s.kernels) or not s.kernels:
        raise ValueError(f"kernels must be one or more different ones, got {s.kernels}")
    train = linear_probe.labelled(s.source, "split", s.split)
    test = linear_probe.labelled(s.source, "test_split", s.test_split)
    directory = pathlib.Path(s.directory)
    runs = {
        name: dataclasses.replace(s, directory=str(directory / name), kernels=(name,))
        for name in s.kernels
    }
    model = make_model(runs[s.kernels[0]])
    encode = simclr.make_encode(model, s.pixels)
    example = jnp.zeros((1, *train.images.shape[1:]))
    start = jax.random.fold_in(jax.random.key(s.seed), 0)
    untrained = jax.jit(lambda key: model.init(key, example, train=False))(start)

    def score(variables: Any) -> tuple[evaluation.ProbeScores, np.ndarray]:
        frozen = jax.tree_util.Partial(encode, jax.device_get(variables))
        of_train, of_test = (
            evaluation.represent(frozen, part.images, 500) for part in (train, test)
        )
        return evaluation.probe_scores(
            of_train,
            train.labels,
            of_test,
            test.labels,
            num_classes=len(train.class_names),
            seed=s.seed,
        ), of_test

    scores = {"untrained": score(untrained)[0]}
    for name, run in runs.items():
        query = pretrain(run).query
        variables = {"params": query.params, "batch_stats": query.batch_stats}
        scores[name], of_test = score(variables)
        draw(directory / name, name, of_test, test)
    report(s, scores, len(test.labels))
    return scores


def draw(
    directory: pathlib.Path, name: str, h: np.ndarray, test: linear_probe.Labelled
) -> None:
    """Writes the curves of a run, and a map of what held-out images became."""
    lines = training.read_metrics(directory)
    curves = [
        [line[of] for line in lines if what in line]
        for what in ("loss", "knn")
        for of in ("step", what)
    ]
    pictures.learning_curves(directory / "curves.png", *curves, title=f"MoCo, {name}")
    pictures.embedding_map(
        directory / "embedding.png",
        h,
        test.labels,
        class_names=test.class_names,
        title=f"MoCo, {name}: h of held-out images",
    )


def report(
    s: Settings, scores: dict[str, evaluation.ProbeScores], num_test: int
) -> None:
    """Writes the table and says in words what came out."""
    path = pathlib.Path(s.directory) / "probe.json"
    table = {name: each._asdict() for name, each in scores.items()}
    text = json.dumps({"num_test": num_test, "accuracy": table}, indent=2) + "\n"
    compare.keep_text(path, text)
    print(f"\n{s.directory}: accuracy on {num_test:,} held-out images")
    print(f"{'':20s} {'5-NN':>8s} {'10 labels/class':>16s} {'all labels':>12s}")
    for name, each in scores.items():
        knn, few, every = (f"{100 * x:.1f} %" for x in each)
        print(f"{name:20s} {knn:>8s} {few:>16s} {every:>12s}")
    before = scores["untrained"].few_labels
    for name in s.kernels:
        after = scores[name].few_labels
        print(
            f"From 10 labels per class, {name} has {100 * after:.1f} %, "
            f"{100 * (after - before):+.1f} points against the untrained encoder."
        )
    noise = 2 * np.sqrt(2 * after * (1 - after) / num_test)
    print(
        f"Between two encoders, less than {100 * noise:.1f} points may be the draw of "
        f"these {num_test:,} images; the seed varies as well."
    )


def cli() -> None:
    try:
        given = compare.arguments("digits") or ["digits"]
        prog = "python -m experiments.moco"
        main(tyro.extras.overridable_config_cli(PROTOCOLS, args=given, prog=prog))
    except (ValueError, FileNotFoundError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from its checkpoint")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    cli()
