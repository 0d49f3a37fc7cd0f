"""The encoder of a finished run, or of a running one, or of exported files.

What commands do alike with every kind of data, they ask `KINDS` for.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl import data, evaluation, models, training
from jaxcl.recipes import graphs as graphs_lib
from jaxcl.recipes import images as images_lib
from jaxcl.recipes import text as text_lib
from jaxcl.recipes import training as training_lib
from jaxcl.training import checkpoints

# Labels of each class that `evaluation.probe_scores` draws.
_PER_CLASS = 10


class Kind(NamedTuple):
    """What commands need to know of one kind of data.

    Attributes:
      column: name of the column of examples.
      split: part of a source that is encoded where none is named.
      open: (encoder, source, split) to a data set that the encoder can be given.
      first_variables: (described, seed) to those with which a run begins.
      represent: (described, variables, column, layer=..., batch_size=...) to rows.
      takes: from a description to what the encoder takes, in words.
    """

    column: str
    split: str
    open: Callable[[Any, str, str], data.Dataset]
    first_variables: Callable[[Any, int], dict[str, Any]]
    represent: Callable[..., np.ndarray]
    takes: Callable[[Any], str]


def _represent_images(
    described: models.Description,
    variables: Any,
    column: Any,
    *,
    layer: str = "h",
    batch_size: int = 500,
) -> np.ndarray:
    encode = training_lib.make_encode(described, layer)
    frozen = jax.tree_util.Partial(encode, variables)
    return evaluation.represent(frozen, column, batch_size)


def _takes_graphs(described: models.GraphDescription) -> str:
    parts = zip(described.columns, described.features, strict=True)
    return "graphs, features of nodes " + ", ".join(f"{k} [{c}]" for c, k in parts)


def _open_text(encoder: "Encoder", source: str, split: str) -> data.Dataset:
    if encoder.directory is None:
        raise ValueError("encoder must have a directory, where its vocabulary lies")
    described: Any = encoder.described
    return text_lib.open_like(
        described,
        source,
        split,
        directory=encoder.directory,
        settings=encoder.settings,
    )


# What runs of each kind of data are opened with.
KINDS = {
    "images": Kind(
        column="image",
        split="test",
        open=lambda encoder, *which: images_lib.open_like(encoder.described, *which),
        first_variables=images_lib.first_variables,
        represent=_represent_images,
        takes=lambda described: f"images {'x'.join(map(str, described.shape))}",
    ),
    "graphs": Kind(
        column="graph",
        split="train",
        open=lambda encoder, *which: graphs_lib.open_like(encoder.described, *which),
        first_variables=training_lib.first_variables,
        represent=graphs_lib.represent,
        takes=_takes_graphs,
    ),
    "text": Kind(
        column="sentence",
        split="train",
        open=_open_text,
        first_variables=training_lib.first_variables,
        represent=text_lib.represent,
        takes=lambda described: f"sentences of up to {described.positions} tokens",
    ),
}


class Encoder(NamedTuple):
    """A frozen encoder.

    Attributes:
      described: its architecture, and what it is given.
      settings: of its run, by name; {} where it was exported.
      variables: of the model.
      step: of the run's checkpoint; None where it was exported.
      averaged: whether the weights are a moving average.
      directory: where it was opened; None where it was not.
    """

    described: models.Described
    settings: Mapping[str, Any]
    variables: Any
    step: int | None = None
    averaged: bool = False
    directory: pathlib.Path | None = None

    @property
    def kind(self) -> Kind:
        """What is known of the data that it takes."""
        return KINDS[models.kind_of(self.described)]

    def open(self, source: str, split: str) -> data.Dataset:
        """Examples that the encoder can be given."""
        return self.kind.open(self, source, split)

    def represent(
        self, column: Any, *, layer: str = "h", batch_size: int = 500
    ) -> np.ndarray:
        """h [n, r] or z [n, d] of images, of graphs that are not packed, or of rows of
        tokens.
        """
        return self.kind.represent(
            self.described, self.variables, column, layer=layer, batch_size=batch_size
        )

    def untrained(self) -> "Encoder":
        """The encoder before the first step of its run; with seed 0 where unknown."""
        seed = self.settings.get("seed", 0)
        variables = self.kind.first_variables(self.described, seed)
        return self._replace(variables=variables, step=0, averaged=False)


def open_encoder(
    directory: str | os.PathLike, *, step: int | None = None, average: bool = True
) -> Encoder:
    """Opens the encoder of a run, or one that was exported.

    Args:
      directory: a run directory with `encoder.json` and checkpoints, or one with
        `encoder.json` and `encoder.safetensors` alone.
      step: of the checkpoint; None is the newest that can be read.
      average: whether to take the moving average of the weights, where the run has one.

    Returns:
      The encoder. Nothing in the directory is changed.

    Raises:
      FileNotFoundError: if the directory is neither, or has no such checkpoint.
      ValueError: if a file is damaged, or a step is asked of an exported encoder.
    """
    directory = pathlib.Path(directory)
    described = models.read_description(directory)
    if not (directory / "settings.json").exists():
        if step is not None:
            raise ValueError(
                f"step must be None, for {directory} holds an exported encoder, got "
                f"{step}"
            )
        exported = models.read_variables(directory, described)
        return Encoder(described, {}, exported, directory=directory)
    settings = training.load_settings(directory)
    averaged = average and bool(settings.get("average"))
    # Of the shapes alone: nothing is computed.
    variables: dict[str, Any] = dict(
        jax.eval_shape(lambda: models.initialize(described, jax.random.key(0)))
    )
    params = {"model": variables.pop("params")}
    wanted = {"average" if averaged else "params": params, "model_state": variables}
    found, at = checkpoints.restore_variables(directory, wanted, step=step)
    [(model,)] = [tuple(found[k].values()) for k in found if k != "model_state"]
    variables = {"params": model, **found["model_state"]}
    return Encoder(described, settings, variables, at, averaged, directory)


class Labelled(NamedTuple):
    """Images with their labels.

    Attributes:
      images: a column, in memory if it fits there.
      labels: int32 [n].
      class_names: a name for each class.
    """

    images: Any
    labels: np.ndarray
    class_names: tuple[str, ...]


def labelled(source: str, name: str, split: str) -> Labelled:
    """Images of a source that has labels.

    Args:
      source: as `data.open` takes it.
      name: of the setting that gives the split, for the message.
      split: a name or a slice.

    Raises:
      ValueError: if there are no labels, or not of all images.
    """
    found = data.to_memory(data.open(source, split))
    if "label" not in found.columns or found.class_names is None:
        raise ValueError(
            f"{name} must have labels, and {found.name} {split!r} has none"
        )
    labels = np.asarray(found.columns["label"][np.arange(data.size(found))])
    unknown = int((labels < 0).sum())  # as TFDS has them in "unlabelled" of stl10
    if unknown:
        raise ValueError(
            f"{name} must have labels, and {found.name} {split!r} has none for "
            f"{unknown:,} of {len(labels):,} images"
        )
    return Labelled(found.columns["image"], labels, found.class_names)


def check_study(s: images_lib.Images, test_split: str) -> None:
    """Refuses settings whose runs could not be trained and probed, before any of it.

    Args:
      s: settings that the runs share.
      test_split: held-out part of their source.

    Raises:
      ValueError: as `check`; if the images are fewer than a batch; or if a part has no
        labels, or too few of a class for the probes.
    """
    training_lib.check(s)
    train, _ = _parts(s.source, s.split, test_split)
    training_lib.check_size(s, len(train.labels))
    classes, counts = np.unique(train.labels, return_counts=True)
    if counts.min() < _PER_CLASS:
        fewest = train.class_names[classes[counts.argmin()]]
        raise ValueError(
            f"split must have at least {_PER_CLASS} images of each class for the "
            f"probes, got {counts.min()} of {fewest!r} in {s.split!r}"
        )


def probe_features(
    s: images_lib.Images, trained: bool, test_split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """What probes of a run read: h and labels of its images and of held-out ones.

    Args:
      s: settings of the run; its images are those that it learns from.
      trained: False for the encoder before the first step.
      test_split: held-out part of its source.

    Returns:
      (train_h, train_labels, test_h, test_labels, num_classes), as `study.Features`.

    Raises:
      ValueError: if a part has no labels.
      FileNotFoundError: if the run has no checkpoint.
    """
    train, test = _parts(s.source, s.split, test_split)
    if trained:
        encoder = open_encoder(s.directory)
    else:
        shape = tuple(train.images[np.arange(1)].shape[1:])
        seed = {"seed": s.seed}
        encoder = Encoder(images_lib.describe(s, shape), seed, None).untrained()
    of_train, of_test = (encoder.represent(part.images) for part in (train, test))
    classes = len(train.class_names)
    return of_train, train.labels, of_test, test.labels, classes


@functools.lru_cache(maxsize=1)  # a study asks for the same ones again and again
def _parts(source: str, split: str, test_split: str) -> tuple[Labelled, Labelled]:
    return (
        labelled(source, "split", split),
        labelled(source, "test_split", test_split),
    )
