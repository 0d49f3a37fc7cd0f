"""Pretraining on images and their captions, with a tower for each.

dataset = pairs.open_pairs(s)
towers = pairs.open_towers(s, dataset)  # descriptions and vocabulary
rows = pairs.tokenize(s, dataset, towers)
params, stats = pairs.initialize(s, towers)
encode = training.in_chunks(pairs.make_encode(s, towers), s.chunks)

A tower is a model like those that learn alone: `recipes.Images` and `recipes.text` make
it, and its directory is read by all that reads encoders.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from jaxcl import _rules, augment, data, models, training
from jaxcl.recipes import images as images_lib
from jaxcl.recipes import runs as runs_lib
from jaxcl.recipes import text as text_lib
from jaxcl.recipes import training as training_lib

Tower = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")


@dataclasses.dataclass(frozen=True)
class Pairs(training_lib.Training):
    """Pretrains an encoder of images and one of their captions."""

    examples: ClassVar[str] = "images"

    directory: str = "runs/pairs"
    """Where settings, metrics, checkpoints and both encoders go."""
    source: str = "digits"
    """Images with captions: "digits" and their names, or what `data.pairs.open` reads:
    a .npz, a folder with a table of captions, .tar shards."""
    size: _rules.Count | None = None
    """Pixels of an edge, where the source has images of several sizes."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """Of images: three convolutions and a dense layer, or a residual network."""
    width: _rules.Count = 32
    """Channels of that encoder's first stage; 64 is the usual residual network."""
    stem: Literal["small", "imagenet"] = "small"
    """Stem of a residual network: 3x3 for images of about 32 pixels, or 7x7."""
    pixels: Literal["unit", "cifar", "imagenet"] = "unit"
    """Pixels in [0, 1], or standardized by the channels' statistics of a data set."""
    augmentation: images_lib.Augmentation = "crops"
    """Of images, once in each step: crops of at least 80 %, as of CLIP; affine maps and
    noise; crops, flips and colors of SimCLR, or of MoCo v2; or none."""
    captions: Literal["drawn", "first"] = "drawn"
    """Of an image with several: one that is drawn in each step, or the first."""
    vocabulary: Annotated[int, _rules.whole(261)] = 4000
    """Tokens that are learnt from the captions."""
    lower: bool = True
    """Whether capital letters are made small."""
    longest: Annotated[int, _rules.whole(3)] = 32
    """Tokens of the longest caption."""
    too_long: Literal["cut", "refuse"] = "cut"
    """What becomes of longer ones."""
    units: _rules.Count = 64
    """Units of each layer of the text encoder."""
    depth: _rules.Count = 2
    """Its layers."""
    heads: _rules.Count = 4
    """Of its attention, which divide the units."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """What makes of tokens a caption: mean, first or last."""
    dropout: Annotated[float, _rules.inside("[0, 1)")] = 0.0
    """Share of the text encoder's units that training sets to 0."""
    weights: str | None = None
    """Directory of a BERT or RoBERTa for the text encoder to begin with."""
    projector: Literal["normalized", "plain"] = "plain"
    """Whether the hidden layers of both projectors are batch-normalized."""
    image_from: str | None = None
    """Directory of a run on images, or of an exported encoder, to begin with: its
    architecture, its pixels and its weights; the projector is drawn."""
    text_from: str | None = None
    """The same of an encoder of text, with its vocabulary."""
    frozen: tuple[Tower, ...] = ()
    """Towers whose encoders stay as they begin, as in LiT; their projectors learn."""
    batch_size: _rules.Several = 128
    """Images per step, over all devices."""
    epochs: _rules.Count = 20
    """Passes over the images."""
    warmup_epochs: _rules.Index = 1
    """Passes during which the learning rate rises from 0."""
    learning_rate: _rules.Positive = 1e-3
    """Highest rate, after the warm-up."""
    weight_decay: _rules.NotNegative = 1e-2
    """Of weights; biases, normalizations, and what the loss learns, have none."""


class Towers(NamedTuple):
    """Two models with embeddings of one size, in words.

    Attributes:
      image: of images.
      text: of captions.
      vocabulary: that the second reads.
    """

    image: models.Description
    text: models.TextDescription
    vocabulary: data.text.Vocabulary


# Settings of the parts. ---------------------------------------------------------------


def images_of(s: Pairs) -> images_lib.Images:
    """What the settings say of the image tower, as `recipes.Images` have it."""
    own = ("encoder", "width", "stem", "pixels", "augmentation", "projector")
    return images_lib.Images(**_common(s), **{name: getattr(s, name) for name in own})


def sentences_of(s: Pairs) -> text_lib.Sentences:
    """What the settings say of the text tower, as `recipes.text` has it."""
    own = "vocabulary lower longest too_long depth heads pooling dropout weights"
    named = {name: getattr(s, name) for name in (*own.split(), "projector")}
    return text_lib.Sentences(**_common(s), **named, width=s.units)


def _common(s: Pairs) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(training_lib.Training)]
    return {name: getattr(s, name) for name in names}


def check(s: Pairs) -> None:
    """Refuses settings that cannot run, and those that nothing reads.

    Raises:
      ValueError: as `recipes.check`; if a tower is frozen twice; or if a setting was
        changed that the others make meaningless.
    """
    training_lib.check(s)
    if len(set(s.frozen)) < len(s.frozen):
        raise ValueError(f"frozen must name a tower once, got {s.frozen}")
    own_image, own_text = s.image_from is None, s.text_from is None
    scratch = own_text and s.weights is None
    for names, read, which in (
        ("encoder width pixels", own_image, "an image tower without image_from"),
        ("stem", own_image and s.encoder != "small", "a residual network"),
        ("weights pooling", own_text, "a text tower without text_from"),
        ("vocabulary lower units depth heads dropout", scratch, "a text tower without "
         "weights and text_from"),
    ):  # fmt: skip
        _rules.unread(s, names, unless=read, which=which)
    if scratch and s.units % s.heads:
        raise ValueError(f"heads must divide the {s.units} units, got {s.heads}")


# Data. --------------------------------------------------------------------------------


def open_pairs(s: Pairs) -> data.Dataset:
    """The images of the settings with their captions, in memory if they fit there.

    Raises:
      ValueError: if they cannot be read, or are fewer than a batch.
    """
    dataset = data.pairs.open(s.source, s.split, size=s.size)
    training_lib.check_size(s, data.size(dataset))
    return dataset


def tokenize(s: Pairs, dataset: data.Dataset, towers: Towers) -> data.Dataset:
    """The same examples, whose captions are rows of tokens [n, c, L].

    Raises:
      ValueError: if captions are too long and are not to be cut.
    """
    return data.pairs.tokenize(
        dataset, towers.vocabulary, longest=s.longest, too_long=s.too_long
    )


# Models. ------------------------------------------------------------------------------


def open_towers(s: Pairs, dataset: data.Dataset) -> Towers:
    """Both models of the settings, for the images and captions of a set.

    A vocabulary is learnt from the captions, where the text tower has none yet.

    Raises:
      FileNotFoundError: if a directory has no encoder.
      ValueError: if it has one of another kind, or of other images; or if captions may
        be longer than the text tower knows.
    """
    shape = images_lib.image_size(dataset)
    if s.image_from is None:
        image = images_lib.describe(images_of(s), shape)
    else:
        image = _described(s, "image")
        if image.shape != shape:
            raise ValueError(
                f"image_from must be an encoder of images {list(shape)}, as those of "
                f"{s.source!r}, got one of {list(image.shape)}"
            )
    if s.text_from is None:
        sentences = sentences_of(s)
        texts = data.pairs.texts_of(dataset)[0]
        captions = data.Dataset(dataset.name, {"sentence": texts})
        vocabulary = text_lib.make_vocabulary(sentences, captions)
        return Towers(image, text_lib.describe(sentences, vocabulary), vocabulary)
    text = _described(s, "text")
    if s.longest > text.positions:
        raise ValueError(
            f"longest must be at most the {text.positions} places of {s.text_from}, "
            f"got {s.longest}"
        )
    return Towers(image, text, text_lib.read_vocabulary(text, s.text_from))


def _described(s: Pairs, tower: Tower) -> Any:
    """The description of a directory, with the projector of the settings."""
    name, kind = f"{tower}_from", {"image": "images", "text": "text"}[tower]
    directory = getattr(s, name)
    described: Any = models.read_description(directory)
    if models.kind_of(described) != kind:
        raise ValueError(
            f"{name} must be an encoder of {kind}, got one of "
            f"{models.kind_of(described)} in {directory}"
        )
    changed: dict[str, Any] = {
        "embedding": s.embedding,
        "projector": s.projector,
        "dtype": s.dtype,
    }
    if tower == "image":
        changed["projector_norm"] = False
    return described._replace(**changed)


def first_variables(s: Pairs, towers: Towers) -> dict[Tower, dict[str, Any]]:
    """Variables of both towers before the first step, as a run of the seed has them."""
    found: dict[Tower, dict[str, Any]] = {
        "image": images_lib.first_variables(towers.image, s.seed),
        "text": training_lib.first_variables(towers.text, s.seed ^ 2**31),
    }
    if s.weights is not None:
        params, _ = text_lib.initialize(sentences_of(s), towers.text, towers.vocabulary)
        found["text"]["params"]["encoder"] = params["model"]["encoder"]
    for tower in TOWERS:
        directory = getattr(s, f"{tower}_from")
        if directory is not None:
            found[tower] = _with_encoder(found[tower], directory)
    return found


def _with_encoder(variables: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """The variables with the encoder of a directory in them."""
    loaded = runs_lib.open_encoder(directory).variables
    return {
        name: {
            part: loaded[name]["encoder"] if part == "encoder" else of_part
            for part, of_part in of_name.items()
        }
        for name, of_name in variables.items()
    }


def initialize(s: Pairs, towers: Towers) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there before the first step.

    Returns:
      (params, model_state): {"model": {"image": ..., "text": ...}}, to which a script
      adds {"loss": `loss_params`}; and {"batch_stats": {"image": ...}}, of the towers
      that have batch normalization.
    """
    variables = first_variables(s, towers)
    params = {tower: of.pop("params") for tower, of in variables.items()}
    stats = {
        tower: of["batch_stats"]
        for tower, of in variables.items()
        if "batch_stats" in of
    }
    return {"model": params}, {"batch_stats": stats} if stats else {}


def split_variables(variables: Mapping[str, Any]) -> dict[Tower, dict[str, Any]]:
    """Variables of each tower, of those of both.

    >>> both = {"params": {"image": 1, "text": 2}, "batch_stats": {"image": 3}}
    >>> split_variables(both)
    {'image': {'params': 1, 'batch_stats': 3}, 'text': {'params': 2}}
    """
    return {
        tower: {name: of[tower] for name, of in variables.items() if tower in of}
        for tower in TOWERS
    }


def make_optimizer(
    s: Pairs, examples: data.Dataset | int
) -> optax.GradientTransformation:
    """The optimizer of the settings, which leaves frozen encoders alone.

    Nothing decays what the loss learns, whatever the optimizer.
    """
    kinds = {
        "moving": training_lib.make_optimizer(s, examples),
        "loss": training_lib.make_optimizer(
            dataclasses.replace(s, weight_decay=0.0), examples
        ),
        "still": optax.set_to_zero(),
    }

    def kind(path: Any, leaf: Any) -> str:
        names = [getattr(entry, "key", None) for entry in path]
        if names[0] == "loss":
            return "loss"
        still = names[1] in s.frozen and names[2] == "encoder"
        return "still" if still else "moving"

    return optax.partition(
        kinds, lambda params: jax.tree_util.tree_map_with_path(kind, params)
    )


def make_apply(
    s: Pairs, described: models.Described, tower: Tower
) -> Callable[..., Any]:
    """Returns apply(variables, inputs, key) -> (z [n, d], changed) of one tower.

    A frozen encoder is evaluated: neither its statistics nor dropout are those of
    training, and no gradient reaches it.
    """
    model: Any = models.build(described)

    def frozen(model: Any, inputs: Any) -> jax.Array:
        h = jax.lax.stop_gradient(model.represent(inputs, train=False))
        return model.projector(h, train=True)

    def apply(variables: Any, inputs: Any, key: jax.Array) -> Any:
        changing = [name for name in variables if name != "params"]
        options: dict[str, Any] = {"mutable": changing, "rngs": {"dropout": key}}
        if tower in s.frozen:
            return model.apply(variables, inputs, method=frozen, **options)
        return model.apply(variables, inputs, train=True, **options)

    return training.float32_gradients(apply) if s.gradients == "float32" else apply


def make_encode(s: Pairs, towers: Towers) -> Callable[..., Any]:
    """Returns encode(variables, {"image", "caption"}, key) -> (z [b, 2, d], changed).

    Images are augmented, and one caption of each is drawn, or the first taken; the
    first of z is that of the image.
    """
    statistics = towers.image.mean, towers.image.std
    transform = images_lib.make_transform(images_of(s), towers.image.shape, statistics)
    of_tower = {
        "image": make_apply(s, towers.image, "image"),
        "text": make_apply(s, towers.text, "text"),
    }
    pick = augment.tokens.pick if s.captions == "drawn" else _first

    def encode(variables: Any, batch: Mapping[str, Any], key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        views = {
            "image": augment.images.views(keys[0], batch["image"], transform, 1),
            "text": augment.views(keys[1], batch["caption"], pick, 1),
        }
        own = split_variables(variables)
        z, stats = [], {}
        for tower, of_dropout in zip(TOWERS, keys[2:], strict=True):
            inputs = jax.tree.map(lambda x: x[:, 0], views[tower])
            rows, changed = of_tower[tower](own[tower], inputs, of_dropout)
            z.append(rows.astype(jnp.float32))
            if "batch_stats" in changed:
                stats[tower] = changed["batch_stats"]
        return jnp.stack(z, axis=1), {"batch_stats": stats} if stats else {}

    return encode


def _first(key: jax.Array, captions: data.text.TokenBatch) -> data.text.TokenBatch:
    """The first caption of an image, as `augment.tokens.pick` draws one."""
    del key
    return jax.tree.map(lambda x: x[0], captions)


# What was trained. --------------------------------------------------------------------


def keep(directory: str | os.PathLike[str], towers: Towers) -> None:
    """Writes the descriptions of both towers, as a run does when it begins."""
    home = pathlib.Path(directory)
    models.write_description(home / "image", towers.image)
    text_lib.keep(home / "text", towers.text, towers.vocabulary)


def export(
    directory: str | os.PathLike[str],
    towers: Towers,
    variables: Mapping[str, Any],
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Writes both towers as encoders, as a run does at its end.

    They are what `jaxcl embed`, `jaxcl probe` and `models.load` read. Of several
    processes only the first writes.

    Args:
      directory: of the run; the towers are in `image` and `text`.
      towers: what they are.
      variables: of both, as `make_encode` takes them.
      trained: what a reader should know of where they come from; JSON can hold it.
    """
    if jax.process_index() == 0:
        home, own = pathlib.Path(directory), split_variables(jax.device_get(variables))
        models.save(home / "image", towers.image, own["image"], trained=trained)
        models.save(home / "text", towers.text, own["text"], trained=trained)
        data.text.write(home / "text", towers.vocabulary)
    if jax.process_count() > 1:  # what follows may read them, in any process
        multihost_utils.sync_global_devices("both towers are written")


class Embedded(NamedTuple):
    """What both towers make of a data set.

    Attributes:
      image: z of the images, float32 [n, d].
      text: z of all captions, float32 [m, d].
      example: image of each caption, int [m].
      group: of each image, int [n].
      label: of each image, int [n]; None where there are no labels.
    """

    image: np.ndarray
    text: np.ndarray
    example: np.ndarray
    group: np.ndarray
    label: np.ndarray | None


def embed(
    towers: Towers,
    variables: Mapping[Tower, Any],
    dataset: data.Dataset,
    *,
    batch_size: int = 256,
) -> Embedded:
    """Embeds images and all of their captions, without augmentation and dropout.

    Args:
      towers: what they are.
      variables: of each of them.
      dataset: images with captions, as `data.pairs.open` gives them; what is longer
        than the text tower is cut.
      batch_size: images, and captions, that are encoded together.
    """
    texts, example = data.pairs.texts_of(dataset)
    everything = np.arange(data.size(dataset))
    of_images: Any = runs_lib.KINDS["images"].represent
    columns = dataset.columns
    return Embedded(
        of_images(
            towers.image,
            variables["image"],
            columns["image"],
            layer="z",
            batch_size=batch_size,
        ),
        embed_texts(towers, variables, texts, batch_size=batch_size),
        np.asarray(example),
        np.asarray(columns["group"][everything]),
        np.asarray(columns["label"][everything]) if "label" in columns else None,
    )


def embed_texts(
    towers: Towers,
    variables: Mapping[Tower, Any],
    texts: np.ndarray,
    *,
    batch_size: int = 256,
) -> np.ndarray:
    """z of texts [n] or [n, v], objects: float32 [n, d] or [n, v, d]."""
    return text_lib.represent_texts(
        towers.text,
        variables["text"],
        towers.vocabulary,
        texts,
        layer="z",
        batch_size=batch_size,
    )
