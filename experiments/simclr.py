"""SimCLR: contrastive pretraining of an encoder on images, in the order it runs.

python -m experiments.simclr                          # digits, two minutes on a CPU
python -m experiments.simclr --loss dcl --temperature 0.1 --directory runs/dcl
python -m experiments.simclr --source tfds:cifar10_25k --encoder resnet18 \
    --augmentation photographs --directory runs/cifar10

The same command again resumes from the newest checkpoint. What the encoder has learned
is measured by `python -m experiments.linear_probe DIRECTORY`.
"""

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

import jaxcl
from jaxcl import augment, data, evaluation, kernels, losses, models, training
from jaxcl.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Settings:
    """Pretrains an encoder with a contrastive loss and writes a run directory."""

    directory: str = "runs/simclr"
    """Where settings, metrics, checkpoints and pictures go."""
    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    split: str = "train"
    """Part of the source to learn from, such as "train" or "train[:90%]"."""
    augmentation: Literal["characters", "photographs"] = "characters"
    """Affine maps and noise, or crops, flips and colors."""
    jitter: float = 0.5
    """Strength of the colors of "photographs"; 1 for ImageNet, 0.5 for CIFAR."""
    blur: bool = False
    """Whether "photographs" are blurred, as ImageNet's are and CIFAR's are not."""
    pixels: Literal["unit", "cifar", "imagenet"] = "unit"
    """Pixels in [0, 1], or standardized by the channels' statistics of a data set."""
    num_views: int = 2
    """Augmented versions of each image; losses of pairs take the first two."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """Three convolutions and a dense layer, or a residual network."""
    width: int = 32
    """Channels of the encoder's first stage; 64 is the usual residual network."""
    stem: Literal["small", "imagenet"] = "small"
    """Stem of a residual network: 3x3 for images of about 32 pixels, or 7x7."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model computes; parameters and losses are float32."""
    embedding: int = 128
    """Size d of the embedding z that the loss sees."""
    projector_norm: bool = False
    """Whether z is batch-normalized, without a bias, as the last step of the model."""
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
    temperature: float = 0.5
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
    mixture: Literal["kernels", "losses"] = "kernels"
    """What the sums add: kernels inside the logarithm, as the paper of Kernel-InfoNCE,
    or the losses of the members, as its code."""
    weight: float = 0.5
    """Of the sums' exponential member, in [0, 1]; the Gaussian has the rest."""
    power: float = 1.0
    """Of the distance in the sums' exponential member, in (0, 2]."""
    second_temperature: float | None = None
    """Of the sums' exponential member; None: the same as of the Gaussian."""
    arc_scale: float = 1.0
    """Of the angle in arc-cosine kernels, in (0, 1]; they have no temperature."""
    alpha: float = 1.0
    """Scale of the target of "sc_info_nce"."""
    beta: float = 0.0
    """Bias of the target of "sc_info_nce"."""
    variant: Literal["constant", "full", "official"] = "constant"
    """Form of "sc_info_nce"; the authors' image runs had "official"."""
    penalty: float = 0.0
    """Factor c of the penalty on norm and entropy of z, which is added with the weight
    c 2 (1 - penalty_alignment) / (d temperature); 1 is the theory's threshold."""
    penalty_scale: float = 0.5
    """Pins the radius of z near sqrt(d / (2 penalty_scale))."""
    penalty_alignment: float = 0.0
    """Mean cosine of positives that is expected, in [0, 1]; 0 is on the safe side."""
    tile: int | None = None
    """Edge of a tile of pairs; changes memory and speed, not results."""
    batch_size: int = 128
    """Images per step, over all devices."""
    epochs: int = 300
    """Passes over the images."""
    warmup_epochs: int = 20
    """Passes during which the learning rate rises from 0."""
    optimizer: Literal["adamw", "lars"] = "adamw"
    """LARS is meant for batches of thousands."""
    learning_rate: float = 2e-3
    """Highest rate, after the warm-up."""
    weight_decay: float = 1e-4
    """Of weights; biases and normalizations have none."""
    seed: int = 0
    """Of parameters, batches and views."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    evaluate_every: int = 300
    """Steps between two measurements of k-NN accuracy, on training images."""
    save_every: int = 500
    """Steps between two checkpoints."""
    max_steps: int | None = None
    """Stops early after this many steps; the schedule stays that of all epochs."""
    progress: bool = True
    """Whether a bar shows loss and speed."""
    distributed: bool = False
    """Joins the other processes of a pod or cluster first; run one on each host."""


# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (
    "directory",
    "tile",
    "log_every",
    "evaluate_every",
    "save_every",
    "max_steps",
    "progress",
    "distributed",
)


# Mean and deviation of each channel in [0, 1], over the training images.
STATISTICS: dict[str, tuple[Any, Any]] = {
    "unit": (None, None),
    "cifar": ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def make_model(s: Settings) -> models.SimCLR:
    dtype = jnp.dtype(s.dtype)
    residual: dict[str, Any] = {"stem": s.stem, "width": s.width, "dtype": dtype}
    encoder = {
        "small": lambda: models.ConvEncoder(width=s.width, dtype=dtype),
        "resnet18": lambda: models.resnet18(**residual),
        "resnet34": lambda: models.resnet34(**residual),
        "resnet50": lambda: models.resnet50(**residual),
    }[s.encoder]()
    projector = models.Projector(
        s.embedding, normalize_output=s.projector_norm, dtype=dtype
    )
    return models.SimCLR(encoder, projector)


def make_transform(s: Settings, size: tuple[int, int]) -> augment.images.Transform:
    """Returns transform(key, image) -> view of one image of a size [height, width]."""
    mean, std = STATISTICS[s.pixels]
    return {
        "characters": lambda: augment.images.characters(
            rotation=20,
            translation=0.15,
            scale=(0.7, 1.3),
            shear=20,
            noise=0.1,
            mean=mean,
            std=std,
        ),
        "photographs": lambda: augment.images.simclr(
            size, strength=s.jitter, blur=s.blur, mean=mean, std=std
        ),
    }[s.augmentation]()


def make_kernels(s: Settings) -> list[tuple[float, kernels.Kernel]]:
    """Returns kernels and the weights with which their losses are added."""
    t, second = s.temperature, s.second_temperature or s.temperature

    def of_sum(combine: Callable[..., kernels.Kernel]) -> list[Any]:
        if not 0 <= s.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {s.weight:g}")
        members = kernels.gaussian(t), kernels.exponential(s.power, second)
        weights = (1 - s.weight, s.weight)
        if s.mixture == "kernels":
            return [(1.0, combine(*members, weights=weights))]
        # A weight of 0 drops a member, and each loss sees one member alone.
        alone = ((1.0, 0.0), (0.0, 1.0))
        return [
            (w, combine(*members, weights=one))
            for w, one in zip(weights, alone, strict=True)
        ]

    return {
        "gaussian": lambda: [(1.0, kernels.gaussian(t))],
        "laplacian": lambda: [(1.0, kernels.laplacian(t))],
        "power_half": lambda: [(1.0, kernels.exponential(0.5, t))],
        "simple_sum": lambda: of_sum(kernels.kernel_sum),
        "concatenation_sum": lambda: of_sum(kernels.concatenation_sum),
        "arc_cosine_0": lambda: [(1.0, kernels.arc_cosine(0, s.arc_scale))],
        "arc_cosine_1": lambda: [(1.0, kernels.arc_cosine(1, s.arc_scale))],
        "arc_cosine_2": lambda: [(1.0, kernels.arc_cosine(2, s.arc_scale))],
    }[s.kernel]()


def make_loss(s: Settings) -> Callable[..., jax.Array]:
    """Returns loss(z [b, v, d], labels [b], axis_name=...) with a value per anchor."""
    t, tile = s.temperature, s.tile
    weighted = make_kernels(s)

    def of_labels(z: jax.Array, labels: jax.Array, axis_name: str) -> jax.Array:
        b, v, d = z.shape
        repeated = jnp.repeat(labels, v)
        return losses.sup_con(
            z.reshape(b * v, d), repeated, temperature=t, tile=tile, axis_name=axis_name
        )

    def of_views(loss: Callable[..., jax.Array], **options: Any) -> Callable[..., Any]:
        return lambda z, labels, axis_name: loss(
            z, **options, tile=tile, axis_name=axis_name
        )

    def of_two(loss: Callable[..., jax.Array], **options: Any) -> Callable[..., Any]:
        return lambda z, labels, axis_name: loss(
            z[:, 0], z[:, 1], **options, tile=tile, axis_name=axis_name
        )

    def of_kernels(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
        return lambda z, labels, axis_name: sum(
            weight * loss(z, kernel=kernel, tile=tile, axis_name=axis_name)
            for weight, kernel in weighted
        )

    return {
        "nt_xent": of_views(losses.nt_xent, temperature=t),
        "kernel_info_nce": of_kernels(losses.kernel_info_nce),
        "dcl": of_views(losses.dcl, temperature=t),
        "debiased_nt_xent": of_views(losses.debiased_nt_xent, temperature=t),
        "dhel": of_views(losses.dhel, temperature=t),
        "spectral_contrastive": of_views(losses.spectral_contrastive),
        "kcl": of_kernels(losses.kcl),
        "f_micl": of_views(losses.f_micl),
        "info_nce": of_two(losses.info_nce, temperature=t),
        "clip": of_two(losses.clip, temperature=t),
        "siglip": of_two(losses.siglip, temperature=t),
        "sc_info_nce": of_two(
            losses.sc_info_nce,
            temperature=t,
            alpha=s.alpha,
            beta=s.beta,
            variant=s.variant,
        ),
        "is_info_nce": lambda z, labels, axis_name: losses.is_info_nce(
            z[:, 0], z[:, 1], z[:, 2], temperature=t, tile=tile, axis_name=axis_name
        ),
        "sup_con": of_labels,
    }[s.loss]


def add_penalty(s: Settings, loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Adds the penalty that pins the radius of z, over all views of a batch."""
    if not (s.penalty >= 0 and 0 <= s.penalty_alignment <= 1):
        raise ValueError(
            "penalty must be >= 0 and penalty_alignment in [0, 1], got "
            f"{s.penalty:g} and {s.penalty_alignment:g}"
        )
    weight = s.penalty * 2 * (1 - s.penalty_alignment) / (s.embedding * s.temperature)

    def penalized(z: jax.Array, labels: jax.Array, axis_name: str) -> jax.Array:
        penalty = losses.norm_entropy_penalty(
            z.reshape(-1, z.shape[-1]), scale=s.penalty_scale, axis_name=axis_name
        )
        return loss(z, labels, axis_name=axis_name) + weight * penalty

    return penalized if s.penalty else loss


def make_encode(
    model: models.SimCLR, pixels: str = "unit", layer: Literal["h", "z"] = "h"
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns encode(variables, uint8 images) -> h or z, for `evaluation.represent`."""
    mean, std = STATISTICS[pixels]
    method = "represent" if layer == "h" else "__call__"

    def encode(variables: Any, images: jax.Array) -> jax.Array:
        pixels = images.astype(jnp.float32) / 255
        if mean is not None and std is not None:
            standardize = functools.partial(
                augment.images.normalize, mean=mean, std=std
            )
            pixels = jax.vmap(standardize)(pixels)
        return jnp.asarray(model.apply(variables, pixels, train=False, method=method))

    return encode


def main(s: Settings) -> training.TrainState:
    if s.distributed:
        jax.distributed.initialize()
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=auto)
    rows = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    key = jax.random.key(s.seed)
    if s.batch_size % jax.device_count():
        raise ValueError(
            f"batch_size must be divisible by the {jax.device_count()} devices, "
            f"got {s.batch_size}"
        )

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    images = data.open(s.source, s.split)
    if s.loss == "sup_con" and images.labels is None:
        raise ValueError(f"loss 'sup_con' needs labels, and {s.source!r} has none")
    if jax.process_count() == 1 and len(images.images) <= 200_000:
        images = data.to_memory(images)
    batches = data.batches(
        images,
        s.batch_size,
        s.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    steps_per_epoch = len(images.images) // s.batch_size
    num_steps = s.epochs * steps_per_epoch
    last_step = min(num_steps, s.max_steps or num_steps)
    if s.num_views < (3 if s.loss == "is_info_nce" else 2):
        raise ValueError(
            f"num_views must be at least 2, and 3 for is_info_nce, got {s.num_views}"
        )
    height, width = images.images.shape[1:3]
    transform = make_transform(s, (height, width))

    # Model and optimizer.
    model = make_model(s)
    schedule = training.warmup_cosine(
        s.learning_rate, s.warmup_epochs * steps_per_epoch, num_steps
    )
    make_optimizer = training.adamw if s.optimizer == "adamw" else training.lars
    tx = make_optimizer(schedule, weight_decay=s.weight_decay)
    example = jax.ShapeDtypeStruct((1, *images.images.shape[1:]), jnp.float32)
    state = training.create_state(jax.random.fold_in(key, 0), model, tx, example)
    state = jax.device_put(state, whole)

    # Loss: a function of embeddings [b, v, d], spread over the mesh.
    loss = jaxcl.sharded(add_penalty(s, make_loss(s)), mesh)
    view_key = jax.device_put(jax.random.fold_in(key, 1), whole)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: training.TrainState,
        images: jax.Array,
        labels: jax.Array,
        view_key: jax.Array,  # an argument, so that seeds share one program
    ) -> Any:
        views = augment.images.views(
            jax.random.fold_in(view_key, state.step), images, transform, s.num_views
        )
        return training.train_step(lambda z: loss(z, labels), state, views)

    encode = make_encode(model, s.pixels)
    leader = jax.process_index() == 0
    training.save_settings(s.directory, dataclasses.asdict(s), may_change=MAY_CHANGE)

    with checkpoints.open(s.directory) as manager:
        state, position = checkpoints.restore_latest(manager, state)
        first = int(state.step)
        if position is not None and s.progress:
            print(f"resuming {s.directory} after step {first}")
        bar = tqdm.tqdm(
            total=last_step,
            initial=first,
            unit="step",
            disable=not (leader and s.progress),
        )
        pending: list[tuple[int, dict[str, jax.Array]]] = []
        with (
            bar,
            training.MetricWriter(
                s.directory, tensorboard=True, resumed_from=first
            ) as writer,
        ):
            began, seen = time.perf_counter(), 0
            for i in range(first, last_step):
                batch = batches(i)
                arrays = [
                    jax.make_array_from_process_local_data(rows, x)
                    for x in (batch["image"], batch.get("label", batch["index"]))
                ]
                state, metrics = step(state, *arrays, view_key)
                pending.append((i + 1, metrics))
                done = i + 1
                end = done == last_step
                if done % s.log_every == 0 or end:
                    # The only place where the host waits for the device.
                    fetched = jax.device_get(pending)
                    pending = []
                    for number, values in fetched:
                        training.check_finite(number, values)
                    now = time.perf_counter()
                    rate = (done - first - seen) * s.batch_size / (now - began)
                    began, seen = now, done - first
                    writer.write(done, {**fetched[-1][1], "images_per_second": rate})
                    bar.set_postfix_str(
                        f"loss {fetched[-1][1]['loss']:.3f}, {rate:.0f} images/s"
                    )
                    bar.update(done - bar.n)
                if leader and (done % s.evaluate_every == 0 or end):
                    writer.write(done, {"knn": knn_accuracy(encode, state, images)})
                    began, seen = time.perf_counter(), done - first
                if done % s.save_every == 0 or end:
                    checkpoints.save(manager, done, state, {"step": done})
    return state


def knn_accuracy(encode: Callable[..., Any], state: Any, images: data.Dataset) -> float:
    """Accuracy of k-NN inside the training images: a fifth is asked, the rest answers.

    It watches a run without touching held-out images.
    """
    if images.labels is None or images.num_classes is None:
        return float("nan")
    few = np.arange(min(len(images.images), 5_000))
    cut = len(few) * 4 // 5
    # A copy of this process: the other ones take no part.
    variables = jax.device_get(
        {"params": state.params, "batch_stats": state.batch_stats}
    )
    h = evaluation.represent(
        jax.tree_util.Partial(encode, variables), images.images[few], 500
    )
    labels = np.asarray(images.labels)[few]
    predicted = evaluation.knn(
        h[:cut], labels[:cut], h[cut:], k=5, num_classes=images.num_classes
    )
    return evaluation.accuracy(predicted, labels[cut:])


def cli() -> None:
    try:
        main(tyro.cli(Settings, prog="python -m experiments.simclr"))
    except (ValueError, FileNotFoundError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes from the newest checkpoint")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    cli()
