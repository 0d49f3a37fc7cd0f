"""Pretraining on images: the settings that scripts share, and what they stand for."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import (
    _checks,
    _rules,
    augment,
    data,
    diagnostics,
    evaluation,
    losses,
    models,
    training,
)

Monitor = Literal[
    "knn", "linear", "alignment", "uniformity", "effective_rank", "norm_cv"
]


@dataclasses.dataclass(frozen=True)
class Images:
    """Pretrains an encoder of images."""

    directory: str = "runs/images"
    """Where settings, metrics, checkpoints and pictures go."""
    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    split: str = "train"
    """Part of the source to learn from, such as "train", "train[:90%]" or, drawn evenly
    over the classes, "train[:90%,stratified]"."""
    on_device: bool | None = None
    """Whether the images live on the devices; None: where they take less than a tenth
    of the memory."""
    augmentation: Literal["characters", "photographs", "moco"] = "characters"
    """Affine maps and noise; crops, flips and colors of SimCLR; or of MoCo v2."""
    jitter: Annotated[float, _rules.inside("[0, 2.5]")] = 0.5
    """Strength of the colors of "photographs"; 1 for ImageNet, 0.5 for CIFAR."""
    blur: bool = False
    """Whether "photographs" are blurred, as ImageNet's are and CIFAR's are not."""
    pixels: Literal["unit", "cifar", "imagenet"] = "unit"
    """Pixels in [0, 1], or standardized by the channels' statistics of a data set."""
    num_views: _rules.Several = 2
    """Augmented versions of each image; losses of pairs take the first two."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """Three convolutions and a dense layer, or a residual network."""
    width: _rules.Count = 32
    """Channels of the encoder's first stage; 64 is the usual residual network."""
    stem: Literal["small", "imagenet"] = "small"
    """Stem of a residual network: 3x3 for images of about 32 pixels, or 7x7."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model computes; parameters and losses are float32."""
    gradients: Literal["compute", "float32"] = "compute"
    """In which gradients of weights are summed over devices: that of the computation,
    or float32, which takes twice the bytes of bfloat16."""
    embedding: _rules.Count = 128
    """Size d of the embedding z that the loss sees."""
    projector: Literal["normalized", "plain"] = "normalized"
    """Whether the projector's hidden layer is batch-normalized."""
    projector_norm: bool = False
    """Whether z is batch-normalized, without a bias, as the last step of the model."""
    batch_size: _rules.Several = 128
    """Images per step, over all devices."""
    chunks: _rules.Count = 1
    """Parts in which a batch goes through the encoder, to save memory; the loss sees
    the whole batch. Batch statistics are those of a part. Meant for accelerators: on a
    CPU gradients of convolutions become slow."""
    epochs: _rules.Count = 300
    """Passes over the images."""
    warmup_epochs: _rules.Index = 20
    """Passes during which the learning rate rises from 0."""
    optimizer: Literal["adamw", "lars", "sgd"] = "adamw"
    """LARS is meant for batches of thousands; SGD has a momentum of 0.9."""
    learning_rate: _rules.Positive = 2e-3
    """Highest rate, after the warm-up."""
    weight_decay: _rules.NotNegative = 1e-4
    """Of weights; biases and normalizations have none, but with SGD."""
    average: Annotated[float, _rules.inside("[0, 1)")] = 0.0
    """Momentum of a moving average of the weights, such as 0.999, which is probed and
    exported in place of them; 0: none."""
    seed: _rules.Seed = 0
    """Of parameters, batches and views."""
    monitors: tuple[Monitor, ...] = ("knn",)
    """Measured while training, on training images: accuracy of k-NN; of a linear probe
    that learns beside the model and does not touch it; alignment and uniformity of z;
    effective rank and spread of the norms of h."""
    log_every: _rules.Count = 50
    """Steps between two lines of metrics."""
    evaluate_every: _rules.Count = 300
    """Steps between two measurements of the monitors."""
    save_every: _rules.Count = 500
    """Steps between two checkpoints."""
    max_steps: _rules.Count | None = None
    """Stops early after this many steps; the schedule stays that of all epochs."""
    progress: bool = True
    """Whether a bar shows loss and speed."""
    distributed: bool = False
    """Joins the other processes of a pod or cluster first; run one on each host."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where no cluster is detected; implies `distributed`."""
    num_processes: _rules.Count | None = None
    """Number of processes, where no cluster is detected."""
    process_id: _rules.Index | None = None
    """Which of them this one is, from 0."""


# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (
    "directory",
    "on_device",
    "log_every",
    "evaluate_every",
    "save_every",
    "max_steps",
    "progress",
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
)

# Mean and standard deviation of each channel in [0, 1], over the training images.
STATISTICS: Mapping[str, tuple[Any, Any]] = {
    "unit": (None, None),
    "cifar": ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# How many training images the monitors look at.
WATCHED = 5_000


def open_images(s: Images) -> data.Dataset:
    """The images of the settings, in memory if they fit there.

    Raises:
      ValueError: if they are fewer than a batch, or the run would have too many steps.
    """
    images = data.open(s.source, s.split)
    check_size(s, data.size(images))
    return data.to_memory(images)


def image_size(images: data.Dataset) -> tuple[int, ...]:
    """Height, width and channels of the images of a data set."""
    return tuple(images.columns["image"][np.arange(1)].shape[1:])


def last_step(s: Images, images: data.Dataset) -> int:
    """Steps after which a run ends."""
    total = s.epochs * _steps_per_epoch(s, images)
    return total if s.max_steps is None else min(total, s.max_steps)


def _steps_per_epoch(s: Images, images: data.Dataset) -> int:
    return data.size(images) // s.batch_size


def run_options(s: Images, images: data.Dataset) -> dict[str, Any]:
    """What `training.open_run` is told by the settings."""
    return {
        "last": last_step(s, images),
        "log_every": s.log_every,
        "save_every": s.save_every,
        "progress": s.progress,
    }


def start(s: Images) -> None:
    """Joins the other processes of the settings; call it before anything runs.

    Args:
      s: settings.

    Raises:
      ValueError: as `check`, or if processes are named of which none is found.
    """
    _rules.check(s)
    training.join_processes(
        s.distributed,
        coordinator=s.coordinator,
        num_processes=s.num_processes,
        process_id=s.process_id,
    )
    check(s)
    _rules.unread(
        s,
        "jitter blur",
        unless=s.augmentation == "photographs",
        which="augmentation 'photographs'",
    )
    _rules.unread(
        s, "gradients", unless=s.dtype == "bfloat16", which="dtype 'bfloat16'"
    )
    _rules.unread(s, "stem", unless=s.encoder != "small", which="a residual network")


def check(s: Images) -> None:
    """Refuses settings that cannot run, before anything is opened or written.

    Args:
      s: settings.

    Raises:
      TypeError: if a number is of another type than its field.
      ValueError: if one is out of bounds, the warm-up is no shorter than the run, or
        the batch does not fit the devices and chunks.
    """
    _rules.check(s)
    if s.epochs <= s.warmup_epochs:
        raise ValueError(
            f"epochs must be more than warmup_epochs {s.warmup_epochs}, got {s.epochs}"
        )
    devices = jax.device_count()
    in_chunks = f" times {s.chunks} chunks" if s.chunks > 1 else ""
    _checks.divisible(
        "batch_size", s.batch_size, devices * s.chunks, f"{devices} devices{in_chunks}"
    )


def check_size(s: Images, n: int) -> None:
    """Refuses a data set that the settings do not fit.

    Args:
      s: settings.
      n: number of its images.

    Raises:
      ValueError: if they are fewer than a batch, or the run would have too many steps.
    """
    if s.batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n:,} images of {s.source!r} "
            f"{s.split!r}, got {s.batch_size}"
        )
    most = (2**31 - 1) // (n // s.batch_size)  # JAX counts steps in 32 bits
    if s.epochs > most:
        raise ValueError(
            f"epochs must be at most {most:,}, of {n // s.batch_size:,} steps each, "
            f"got {s.epochs}"
        )


def describe(s: Images, shape: tuple[int, ...]) -> models.Description:
    """The model of the settings, for images of a shape (h, w, c)."""
    mean, std = STATISTICS[s.pixels]
    return models.Description(
        shape,
        s.encoder,
        s.width,
        s.stem,
        s.dtype,
        s.embedding,
        s.projector,
        s.projector_norm,
        mean,
        std,
    )


def make_transform(s: Images, shape: tuple[int, ...]) -> augment.images.Transform:
    """Returns transform(key, image) -> view of one image of a shape (h, w, c)."""
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
            (shape[0], shape[1]), strength=s.jitter, blur=s.blur, mean=mean, std=std
        ),
        "moco": lambda: _moco_transform((shape[0], shape[1]), mean, std),
    }[s.augmentation]()


def _moco_transform(
    size: tuple[int, int], mean: Any, std: Any
) -> augment.images.Transform:
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


def make_optimizer(s: Images, images: data.Dataset) -> optax.GradientTransformation:
    """The optimizer of the settings, with a warm-up and a cosine over all epochs."""
    steps_per_epoch = _steps_per_epoch(s, images)
    schedule = training.warmup_cosine(
        s.learning_rate, s.warmup_epochs * steps_per_epoch, s.epochs * steps_per_epoch
    )
    if s.optimizer == "sgd":
        decay = optax.add_decayed_weights(s.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=0.9))
    make = training.adamw if s.optimizer == "adamw" else training.lars
    return make(schedule, weight_decay=s.weight_decay)


def first_variables(described: models.Description, seed: int) -> dict[str, Any]:
    """Variables of the model with which a run of this seed begins."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return models.initialize(described, key)


def initialize(
    s: Images, described: models.Description, num_classes: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there before the first step.

    Args:
      s: settings; their seed chooses the parameters.
      described: the model.
      num_classes: of the labels; only the monitor "linear" asks for it.

    Returns:
      (params, model_state): {"model": ...}, with {"probe": ...} for the monitor
      "linear"; and {"batch_stats": ...}.

    Raises:
      ValueError: if that monitor is asked for and there are no labels.
    """
    variables = first_variables(described, s.seed)
    params = {"model": variables.pop("params")}
    if "linear" in s.monitors:
        if not num_classes:
            raise ValueError("monitors must not name 'linear' where labels are missing")
        model = models.build(described)
        example = jax.ShapeDtypeStruct((1, *described.shape), jnp.float32)
        h = jax.eval_shape(
            lambda v, x: model.apply(v, x, method="represent"),
            {"params": params["model"], **variables},
            example,
        )
        params["probe"] = evaluation.online_probe_params(h.shape[1], num_classes)
    return params, variables


def make_apply(s: Images, described: models.Description) -> Callable[..., Any]:
    """Returns apply(variables, pixels [n, h, w, c]) -> ({"h": h, "z": z}, changed)."""
    model = models.build(described)

    def both(model: Any, pixels: jax.Array) -> dict[str, jax.Array]:
        h = model.represent(pixels, train=True)
        return {"h": h, "z": model.projector(h, train=True)}

    def apply(variables: Any, pixels: jax.Array) -> Any:
        changing = [name for name in variables if name != "params"]
        return model.apply(variables, pixels, method=both, mutable=changing)

    return training.float32_gradients(apply) if s.gradients == "float32" else apply


def variables_of(s: Images, state: training.TrainState) -> dict[str, Any]:
    """What the encoder is evaluated with: the average, where the settings ask for one.

    Running statistics are those of the weights themselves.
    """
    params = state.average if s.average else state.params
    return {"params": params["model"], **state.model_state}


def make_monitors(
    s: Images, described: models.Description, images: data.Dataset
) -> Callable[[training.TrainState], dict[str, float]]:
    """Returns monitors(state), the scalars that the settings ask for.

    They look at up to 5,000 training images, drawn over the whole set, and touch no
    held-out ones. Only the first of several processes looks, and a failure is a
    warning.

    Args:
      s: settings.
      described: the model.
      images: training images; without labels there is no k-NN.

    Returns:
      A function of the state.
    """
    # An order that says nothing of the labels, of a set that is sorted by them.
    few = data.permutation(data.size(images), 0, 0)[:WATCHED]
    encode = {layer: models.encode(described, layer) for layer in ("h", "z")}
    model, transform = models.build(described), make_transform(s, described.shape)

    def represent(state: training.TrainState, layer: str) -> np.ndarray:
        # A copy of this process: the other ones take no part.
        variables = jax.device_get(variables_of(s, state))
        frozen = jax.tree_util.Partial(encode[layer], variables)
        return evaluation.represent(frozen, images.columns["image"][few], 500)

    def knn(state: training.TrainState) -> float:
        labels = images.columns["label"][few]
        classes = len(images.class_names or ())
        h = represent(state, "h")
        return evaluation.knn_within(h, labels, num_classes=classes)

    @jax.jit
    def embed_views(variables: Any, pixels: jax.Array) -> jax.Array:
        views = augment.images.views(jax.random.key(0), pixels, transform, 2)
        apply = functools.partial(model.apply, train=False)
        return training.apply_views(lambda *x: (apply(*x), {}), variables, views)[0]

    def alignment(state: training.TrainState) -> jax.Array:
        variables = jax.device_get(variables_of(s, state))
        pixels = np.asarray(images.columns["image"][few[:500]])
        return losses.alignment(embed_views(variables, pixels)).mean()

    def uniformity(state: training.TrainState) -> jax.Array:
        per_anchor = losses.uniformity(jnp.asarray(represent(state, "z")))
        return jax.nn.logsumexp(per_anchor) - math.log(len(few))

    measures: dict[str, Callable[[training.TrainState], Any]] = {
        "knn": knn,
        "alignment": alignment,
        "uniformity": uniformity,
        "effective_rank": lambda state: diagnostics.effective_rank(
            jnp.asarray(represent(state, "h"))
        ),
        "norm_cv": lambda state: diagnostics.norm_cv(
            jnp.asarray(represent(state, "h"))
        ),
    }
    asked = [name for name in s.monitors if name in measures]  # "linear" is in the step
    if "label" not in images.columns:
        asked = [name for name in asked if name != "knn"]
    return evaluation.watch({name: measures[name] for name in asked})
