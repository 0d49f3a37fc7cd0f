"""What an encoder has learned: probes of frozen representations, and pictures.

Of images it compares raw pixels, the untrained encoder and the pretrained one:
k-nearest neighbors, and logistic regression from 10 labels per class and from all
labels. Everything that a probe chooses, it chooses on training images. Of graphs, which
are few, each is tested once, by a machine that has seen the others: `tools.folds`.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcl import (
    _checks,
    _files,
    _rules,
    _tables,
    data,
    evaluation,
    models,
    pictures,
    recipes,
)
from jaxcl.data import dataset, splits
from jaxcl.pictures import style
from jaxcl.tools import curves, folds

# Images whose neighbors are drawn.
_SHOWN = 12

# Settings that are for one kind of data only.
_READ = {"images": "test_split k per_class draws linear", "graphs": "folds"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Probes the encoder of a run and writes probe.json and pictures beside it."""

    directory: Annotated[str, tyro.conf.Positional] = "runs/simclr"
    """Directory of a run."""
    train_split: str = "train"
    """Images whose labels the probes may see; or the graphs that are tested."""
    test_split: str = "test"
    """Held-out images on which accuracy is measured."""
    source: str | None = None
    """Images or graphs with labels; None: the source of the run."""
    step: _rules.Index | None = None
    """Checkpoint to probe; None is the newest."""
    average: bool = True
    """Whether to probe the moving average of the weights, where the run has one."""
    k: _rules.Count = 5
    """Neighbors that vote."""
    per_class: _rules.Count = 10
    """Labels per class of the few-label probe."""
    draws: _rules.Count = 5
    """Draws of these few labels, over which accuracy is averaged."""
    linear: bool = True
    """Also fit logistic regressions; of raw pixels of many images it takes long."""
    folds: _rules.Several = 10
    """Parts of the graphs, each of which is tested once."""
    batch_size: _rules.Count = 500
    """Images or graphs encoded at a time."""
    seed: _rules.Seed = 0
    """Of the draws, or of the folds."""


def main(
    s: Settings,
) -> Mapping[str, evaluation.ProbeScores] | Mapping[str, evaluation.FoldScores]:
    """Probes a run.

    Args:
      s: settings.

    Returns:
      Accuracies by what was probed: "raw pixels" or histograms, "untrained encoder" and
      "pretrained encoder".

    Raises:
      FileNotFoundError: if there is no such run, or it has no checkpoint.
      ValueError: if examples have no labels or do not fit the encoder, or a setting was
        changed that is for another kind of data.
    """
    _rules.check(s)
    # The encoder, untrained and pretrained. Frozen: probes see arrays only.
    pretrained = recipes.open_encoder(s.directory, step=s.step, average=s.average)
    source = s.source or pretrained.settings.get("source")
    if source is None:
        raise ValueError(
            f"source must be given (--source): {s.directory} is no run that names it"
        )
    kind = models.kind_of(pretrained.described)
    if kind not in _READ:
        raise ValueError(
            f"directory must be a run on {' or '.join(_READ)}, got one on {kind}; "
            "jaxcl embed writes what its encoder makes of a source"
        )
    for other, names in _READ.items():
        _rules.unread(s, names, unless=kind == other, which=f"a run on {other}")
    probe: Any = {"images": probe_images, "graphs": folds.probe}[kind]
    return probe(s, pretrained, source)


def probe_images(
    s: Settings, pretrained: recipes.Encoder, source: str
) -> dict[str, evaluation.ProbeScores]:
    """Probes a run on images, on training and held-out parts of a source."""
    train = recipes.labelled(source, "train_split", s.train_split)
    test = recipes.labelled(source, "test_split", s.test_split)

    _warn_of_shared(s, source, pretrained)
    # What labels are too few for is said before anything is encoded.
    _checks.count("k", s.k, at_most=len(train.labels))
    if s.linear:
        evaluation.few_labels(train.labels, s.per_class, s.seed)

    def features(encoder: recipes.Encoder) -> list[np.ndarray]:
        return [
            encoder.represent(part.images, batch_size=s.batch_size)
            for part in (train, test)
        ]

    found = {
        "raw pixels": [
            evaluation.represent(_flat, part.images, s.batch_size)
            for part in (train, test)
        ],
        "untrained encoder": features(pretrained.untrained()),
        "pretrained encoder": features(pretrained),
    }
    scores = {
        name: _scores(s, of_train, train, of_test, test)
        for name, (of_train, of_test) in found.items()
    }

    directory = pathlib.Path(s.directory)
    record = {
        "settings": dataclasses.asdict(s),
        "step": pretrained.step,
        "averaged": pretrained.averaged,
        "num_test": len(test.labels),
        "accuracy": {
            name: {k: v for k, v in each._asdict().items() if v == v}
            for name, each in scores.items()
        },
    }
    _files.write_json(directory / "probe.json", record)
    weights = ", moving average of the weights" if pretrained.averaged else ""
    print(
        f"\n{s.directory}, step {pretrained.step}{weights}: accuracy on "
        f"{len(test.labels):,} held-out images (%)\n"
    )
    head = ["", f"{s.k}-NN", f"{s.per_class} labels/class", "all labels"]
    rows = [
        [name, *(f"{100 * x:.1f}" if x == x else "-" for x in each)]
        for name, each in scores.items()
    ]
    print(_tables.markdown(head, rows))
    draw(
        directory,
        train,
        test,
        *found["pretrained encoder"],
        watched=_watched(pretrained),
    )
    return scores


def _warn_of_shared(s: Settings, source: str, encoder: recipes.Encoder) -> None:
    """Warns of held-out images that the probes or the run have learned from."""
    name = dataset.split_name(s.test_split)
    run, learned = (encoder.settings.get(key) for key in ("source", "split"))
    others = [(s.train_split, f"in train_split {s.train_split!r}, too")]
    if run == source and isinstance(learned, str):
        hint = f"{learned!r}; its --split can hold them out"
        others.append((learned, f"among those the run learned from, {hint}"))
    for split, what in others:
        if dataset.split_name(split) != name:
            continue
        whole = data.open(source, name)
        held_out = splits.places(whole, s.test_split)
        shared = np.isin(held_out, splits.places(whole, split)).sum()
        if shared:
            warnings.warn(
                f"{shared:,} of {len(held_out):,} images of test_split "
                f"{s.test_split!r} are {what}",
                stacklevel=3,
            )


def _watched(encoder: recipes.Encoder) -> str:
    """What the k-NN accuracy was measured on while training, if that can be told."""
    s = encoder.settings
    try:
        n = data.size(data.open(s["source"], s["split"]))
    except (KeyError, OSError, ValueError, ImportError):  # they may be elsewhere now
        return "training images"
    return f"{min(n, recipes.WATCHED):,} training images"


def _flat(images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def _scores(
    s: Settings,
    of_train: np.ndarray,
    train: recipes.Labelled,
    of_test: np.ndarray,
    test: recipes.Labelled,
) -> evaluation.ProbeScores:
    options: dict[str, Any] = {"k": s.k, "num_classes": len(train.class_names)}
    given = of_train, train.labels, of_test
    if s.linear:
        return evaluation.probe_scores(
            *given,
            test.labels,
            seed=s.seed,
            per_class=s.per_class,
            draws=s.draws,
            class_names=train.class_names,
            **options,
        )
    evaluation.warn_of_unseen(train.labels, test.labels, train.class_names)
    predicted = evaluation.knn(*given, temperature=0.07, **options)
    accuracy = evaluation.accuracy(predicted, test.labels)
    return evaluation.ProbeScores(accuracy, float("nan"), float("nan"))


def draw(
    directory: pathlib.Path,
    train: recipes.Labelled,
    test: recipes.Labelled,
    of_train: np.ndarray,
    of_test: np.ndarray,
    *,
    watched: str = "training images",
) -> None:
    """Writes the run's curves, a map of its embedding, and neighbors of images.

    Args:
      directory: of the run.
      train: images with labels.
      test: held-out images with labels.
      of_train: their representations [n, r].
      of_test: their representations [m, r].
      watched: what the k-NN accuracy was measured on while training.
    """
    curves.draw(directory, watched)
    style.attempt(
        pictures.embedding_map,
        directory / "embedding.png",
        of_test,
        test.labels,
        class_names=test.class_names,
        title="pretrained h of held-out images",
    )
    # The first images of each class, as many of all as fit, of the first classes.
    present = np.unique(test.labels)
    each = max(1, _SHOWN // len(present))
    chosen = np.concatenate(
        [np.flatnonzero(test.labels == c)[:each] for c in present[:_SHOWN]]
    )
    k = min(8, len(of_train))
    found = evaluation.nearest(of_test, of_train, k)
    right = (train.labels[found.indices] == test.labels[:, None]).mean()
    # Of the training images only those that are shown.
    shown, places = np.unique(found.indices[chosen], return_inverse=True)
    style.attempt(
        pictures.montage,
        directory / "neighbors.png",
        test.images[chosen],
        test.labels[chosen],
        train.images[shown],
        train.labels[shown],
        places.reshape(len(chosen), k),
        found.cosines[chosen],
        class_names=test.class_names,
        title="held-out images and their nearest training images",
        note=f"Over all {len(test.labels):,} held-out images: {100 * right:.1f} % of "
        f"their {k} nearest",
    )
