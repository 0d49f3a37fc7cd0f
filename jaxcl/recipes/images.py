"""Pretraining on images: their settings, and what these stand for."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import (
    _rules,
    _text,
    augment,
    data,
    diagnostics,
    evaluation,
    losses,
    models,
    training,
)
from jaxcl.recipes import training as training_lib

Monitor = Literal[
    "knn", "linear", "alignment", "uniformity", "effective_rank", "norm_cv"
]

Augmentation = Literal[
    "characters", "photographs", "moco", "cifar", "crops", "identity"
]


@dataclasses.dataclass(frozen=True)
class Images(training_lib.Training):
    """Pretrains an encoder of images."""

    examples: ClassVar[str] = "images"

    directory: str = "runs/images"
    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    augmentation: Augmentation = "characters"
    """Affine maps and noise; crops, flips and colors of SimCLR, or of MoCo v2, or these
    with grayscale half as often, which suits CIFAR; crops alone, of at least 80 % of
    the image; or none."""
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
    projector: Literal["normalized", "plain"] = "normalized"
    """Whether the projector's hidden layer is batch-normalized."""
    projector_norm: bool = False
    """Whether z is batch-normalized, without a bias, as the last step of the model."""
    monitors: tuple[Monitor, ...] = ("knn",)
    """Measured while training, on training images: accuracy of k-NN; of a linear probe
    that learns beside the model and does not touch it; alignment and uniformity of z;
    effective rank and spread of the norms of h."""


# Mean and standard deviation of each channel in [0, 1], over the training images.
STATISTICS: Mapping[str, tuple[Any, Any]] = {
    "unit": (None, None),
    "cifar": ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# How many training images the monitors look at.
WATCHED = 5_000


def open_images(s: Images) -> data.Dataset:
    """The images of the settings, in memory if they fit there; says so if they do not.

    Raises:
      ValueError: if they are fewer than a batch, or the run would have too many steps.
    """
    images = data.open(s.source, s.split)
    training_lib.check_size(s, data.size(images))
    held = data.to_memory(images)
    if getattr(held.columns["image"], "lazy", False):
        _say_once(
            f"{images.name}: {data.size(images):,} images would take "
            f"{data.size_in_bytes(images) / 1e9:,.1f} GB, more than a quarter of the "
            "memory: they are read from the disk as they are needed"
        )
    return held


@functools.cache  # the runs of a comparison open the same ones
def _say_once(text: str) -> None:
    _text.TERMINAL.write(f"{_text.printable(text)}\n")


def image_size(images: data.Dataset) -> tuple[int, ...]:
    """Height, width and channels of the images of a data set."""
    return tuple(images.columns["image"][np.arange(1)].shape[1:])


def open_like(described: models.Description, source: str, split: str) -> data.Dataset:
    """Images that an encoder can be given.

    Args:
      described: of the encoder.
      source: as `data.open` takes it.
      split: a name or a slice.

    Raises:
      ValueError: if they are of another size.
    """
    images = data.open(source, split)
    shape = image_size(images)
    if shape != described.shape:
        raise ValueError(
            f"source must hold images {list(described.shape)} as the encoder's, got "
            f"{list(shape)}"
        )
    return images


def check_images(s: Images) -> None:
    """Refuses settings of images that the others make meaningless.

    Args:
      s: settings.

    Raises:
      ValueError: if one of them was changed.
    """
    _rules.unread(
        s,
        "jitter blur",
        unless=s.augmentation == "photographs",
        which="augmentation 'photographs'",
    )
    _rules.unread(s, "stem", unless=s.encoder != "small", which="a residual network")


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


def make_transform(
    s: Images, shape: tuple[int, ...], statistics: tuple[Any, Any] | None = None
) -> augment.images.Transform:
    """Returns transform(key, image) -> view of one image of a shape (h, w, c).

    Pixels are standardized by (mean, std); None: as the settings say.
    """
    mean, std = STATISTICS[s.pixels] if statistics is None else statistics
    size: Any = tuple(shape[:2])
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
        "moco": lambda: _chain(_of_moco(size), mean, std),
        "cifar": lambda: _chain(_of_moco(size, grayscale=0.1), mean, std),
        "crops": lambda: _chain([_light_crop(size)], mean, std),
        "identity": lambda: _chain([], mean, std),
    }[s.augmentation]()


def _light_crop(size: tuple[int, int]) -> augment.images.Transform:
    """What CLIP does to an image: left and right stay what they are, so do colors."""
    return functools.partial(
        augment.images.random_resized_crop, size=size, scale=(0.8, 1.0), ratio=(1, 1)
    )


def _of_moco(
    size: tuple[int, int], grayscale: float = 0.2
) -> list[augment.images.Transform]:
    return [
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
        functools.partial(augment.images.random_grayscale, probability=grayscale),
    ]


def _chain(
    steps: list[augment.images.Transform], mean: Any, std: Any
) -> augment.images.Transform:
    """The steps, and pixels standardized at their end."""
    if mean is not None:
        standardize = functools.partial(augment.images.normalize, mean=mean, std=std)
        steps = [*steps, augment.images.without_key(standardize)]
    return augment.images.chain(*steps)


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
        variables = jax.device_get(training_lib.variables_of(s, state))
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
        variables = jax.device_get(training_lib.variables_of(s, state))
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
