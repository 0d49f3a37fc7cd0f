"""What an encoder has learned: probes of a run's frozen representations, and pictures.

python -m experiments.linear_probe runs/simclr

Compares raw pixels, the untrained encoder and the pretrained one: k-nearest neighbors,
and logistic regression from 10 labels per class and from all labels. Everything that a
probe chooses, it chooses on training images.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import simclr
from jaxcl import data, evaluation, pictures, training
from jaxcl.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Settings:
    """Probes the encoder of a run and writes probe.json and pictures beside it."""

    directory: Annotated[str, tyro.conf.Positional] = "runs/simclr"
    """Run directory of experiments.simclr."""
    train_split: str = "train"
    """Images whose labels the probes may see."""
    test_split: str = "test"
    """Held-out images on which accuracy is measured."""
    step: int | None = None
    """Checkpoint to probe; None is the newest."""
    k: int = 5
    """Neighbors that vote."""
    per_class: int = 10
    """Labels per class of the few-label probe."""
    draws: int = 5
    """Draws of these few labels, over which accuracy is averaged."""
    linear: bool = True
    """Also fit logistic regressions; of raw pixels of many images it takes long."""
    batch_size: int = 500
    """Images encoded at a time."""
    seed: int = 0
    """Of the draws."""


class Labelled(NamedTuple):
    """Images in memory with their labels."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def labelled(source: str, name: str, split: str) -> Labelled:
    found = data.to_memory(data.open(source, split))
    if found.labels is None or found.num_classes is None:
        raise ValueError(
            f"{name} must have labels, and {found.name} {split!r} has none"
        )
    names = found.class_names or tuple(str(c) for c in range(found.num_classes))
    return Labelled(np.asarray(found.images[:]), np.asarray(found.labels), tuple(names))


class Frozen(NamedTuple):
    """The encoder of a run.

    Attributes:
      untrained: its variables before the first step.
      represent: (variables, uint8 images [n, h, w, c]) -> h [n, r].
    """

    untrained: Any
    represent: Callable[[Any, np.ndarray], np.ndarray]


def frozen_encoder(
    run: simclr.Settings,
    shape: tuple[int, ...],
    batch_size: int = 500,
    layer: Literal["h", "z"] = "h",
) -> Frozen:
    """The encoder of a run, up to h or z, for images of a shape [h, w, c]."""
    model = simclr.make_model(run)
    example = jnp.zeros((1, *shape))
    key = jax.random.fold_in(jax.random.key(run.seed), 0)
    untrained = jax.jit(lambda key: model.init(key, example, train=False))(key)
    encode = simclr.make_encode(model, run.pixels, layer)

    def represent(variables: Any, images: np.ndarray) -> np.ndarray:
        frozen = jax.tree_util.Partial(encode, variables)
        return evaluation.represent(frozen, images, batch_size)

    return Frozen(untrained, represent)


def main(s: Settings) -> dict[str, evaluation.ProbeScores]:
    # The run and its data.
    run = simclr.Settings(**training.load_settings(s.directory))
    train = labelled(run.source, "train_split", s.train_split)
    test = labelled(run.source, "test_split", s.test_split)

    # The encoder, untrained and pretrained. Frozen: probes see arrays only.
    frozen = frozen_encoder(run, train.images.shape[1:], s.batch_size)
    represent, untrained = frozen.represent, frozen.untrained
    pretrained, step = checkpoints.restore_variables(
        s.directory, untrained, step=s.step
    )

    features = {
        "raw pixels": [
            part.images.reshape(len(part.images), -1).astype(np.float32) / 255
            for part in (train, test)
        ],
        "untrained encoder": [represent(untrained, p.images) for p in (train, test)],
        "pretrained encoder": [represent(pretrained, p.images) for p in (train, test)],
    }

    # Probes.
    def score(of_train: np.ndarray, of_test: np.ndarray) -> evaluation.ProbeScores:
        classes = len(train.class_names)
        if s.linear:
            return evaluation.probe_scores(
                of_train,
                train.labels,
                of_test,
                test.labels,
                num_classes=classes,
                seed=s.seed,
                k=s.k,
                per_class=s.per_class,
                draws=s.draws,
            )
        predicted = evaluation.knn(
            of_train,
            train.labels,
            of_test,
            k=s.k,
            num_classes=classes,
            temperature=0.07,
        )
        knn = evaluation.accuracy(predicted, test.labels)
        return evaluation.ProbeScores(knn, float("nan"), float("nan"))

    scores = {name: score(*both) for name, both in features.items()}
    directory = pathlib.Path(s.directory)
    (directory / "probe.json").write_text(
        json.dumps(
            {
                "settings": dataclasses.asdict(s),
                "step": step,
                "num_test": len(test.images),
                "accuracy": {
                    name: {k: v for k, v in each._asdict().items() if v == v}
                    for name, each in scores.items()
                },
            },
            indent=2,
        )
        + "\n"
    )
    draw(directory, train, test, features["pretrained encoder"])

    print(
        f"\n{s.directory}, step {step}: accuracy on {len(test.images)} held-out images"
    )
    few = f"{s.per_class} labels/class"
    print(f"{'':20s} {f'{s.k}-NN':>8s} {few:>16s} {'all labels':>12s}")
    for name, each in scores.items():
        knn, few_labels, all_labels = (
            f"{100 * x:.1f} %" if x == x else "-" for x in each
        )
        print(f"{name:20s} {knn:>8s} {few_labels:>16s} {all_labels:>12s}")
    return scores


def draw(
    directory: pathlib.Path,
    train: Labelled,
    test: Labelled,
    features: list[np.ndarray],
) -> None:
    """Writes the run's curves, a map of its embedding, and neighbors of images."""
    of_train, of_test = features
    lines = training.read_metrics(directory)
    losses = [line for line in lines if "loss" in line]
    neighbors = [line for line in lines if line.get("knn") is not None]
    pictures.learning_curves(
        directory / "curves.png",
        [line["step"] for line in losses],
        [line["loss"] for line in losses],
        [line["step"] for line in neighbors],
        [line["knn"] for line in neighbors],
        title=directory.name,
    )
    pictures.embedding_map(
        directory / "embedding.png",
        of_test,
        test.labels,
        class_names=test.class_names,
        title="pretrained h of held-out images",
    )
    # Two queries of each class, as they come.
    order = np.argsort(test.labels, kind="stable")
    firsts = np.searchsorted(test.labels[order], np.arange(len(test.class_names)))
    chosen = order[np.unique(np.concatenate([firsts, firsts + 1]) % len(order))][:12]
    found = evaluation.nearest(of_test[chosen], of_train, 8)
    pictures.montage(
        directory / "neighbors.png",
        test.images[chosen],
        test.labels[chosen],
        train.images,
        train.labels,
        found.indices,
        found.cosines,
        class_names=test.class_names,
        title="held-out images and their nearest training images",
    )


def cli() -> None:
    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells too much
    try:
        main(tyro.cli(Settings, prog="python -m experiments.linear_probe"))
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    cli()
