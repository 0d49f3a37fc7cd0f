"""What an encoder has learned: probes of frozen representations, and pictures.

Of images it compares raw pixels, the untrained encoder and the pretrained one:
k-nearest neighbors, and logistic regression from 10 labels per class and from all
labels; if asked, the probes of papers (`measures`, `tuning`). Everything that a probe
chooses, it chooses on training images, and each number has its protocol beside it. Of
graphs, which are few, each is tested once, by a machine that has seen the others:
`tools.folds`.
"""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcl import (
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
from jaxcl.tools import curves, folds, measures

# Images whose neighbors are drawn.
_SHOWN = 12

# Settings that are for one kind of data only.
_READ = {
    "images": "test_split protocol k per_class draws linear linear_epochs linear_rates "
    "tuning_epochs tuning_rates validation probe_batch_size",
    "graphs": "folds",
}
# Settings that are for some protocols only, by how the names of these begin.
_READ_BY = {
    "knn": "k",
    "logistic": "per_class draws",
    "linear": "linear_epochs linear_rates",
    "fine_tune": "tuning_epochs tuning_rates",
    "linear fine_tune": "validation probe_batch_size",
}


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
    protocol: Annotated[tuple[measures.Name, ...], _rules.Different] = (
        "knn",
        "logistic",
    )
    """What is measured. On frozen features: k-NN; logistic regression; a linear layer
    by SGD as in most papers, from all, 1 % or 10 % of the labels. Of the pretrained
    encoder also a linear layer on augmented images, and fine-tuning of all weights:
    both run it again and again, and take long."""
    k: Annotated[tuple[_rules.Count, ...], _rules.Different] = (5,)
    """Neighbors that vote, weighted by exp(cosine / 0.07); papers have 20 and 200."""
    per_class: _rules.Count = 10
    """Labels per class of the few-label probe."""
    draws: _rules.Count = 5
    """Draws of these few labels, over which accuracy is averaged."""
    linear: bool = True
    """Also fit logistic regressions; of raw pixels of many images it takes long."""
    linear_epochs: _rules.Count = 100
    """Passes of linear layers over the labelled images."""
    linear_rates: Annotated[tuple[_rules.Positive, ...], _rules.Different] = (
        evaluation.LEARNING_RATES
    )
    """Learning rates of linear layers, of which one is chosen."""
    tuning_epochs: _rules.Count = 30
    """Passes of fine-tuning over the labelled images."""
    tuning_rates: Annotated[tuple[_rules.Positive, ...], _rules.Different] = (
        0.01,
        0.03,
        0.1,
    )
    """Learning rates of fine-tuning, of which one is chosen."""
    validation: Annotated[float, _rules.inside("(0, 1)")] = 0.1
    """Share of the labelled training images that chooses a learning rate."""
    probe_batch_size: _rules.Several = 256
    """Images of a step of linear layers and of fine-tuning, or all if fewer."""
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
      OSError: if nothing can be written into its directory.
      ValueError: if examples have no labels or do not fit the encoder, or a setting was
        changed that is for another kind of data.
    """
    if isinstance(s.k, int):  # one of them
        s = dataclasses.replace(s, k=(s.k,))
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
    _files.check_writable("directory", s.directory)  # before hours of fine-tuning
    probe: Any = {"images": probe_images, "graphs": folds.probe}[kind]
    return probe(s, pretrained, source)


def probe_images(
    s: Settings, pretrained: recipes.Encoder, source: str
) -> dict[str, evaluation.ProbeScores]:
    """Probes a run on images, on training and held-out parts of a source."""
    train = recipes.labelled(source, "train_split", s.train_split)
    test = recipes.labelled(source, "test_split", s.test_split)

    _warn_of_shared(s, source, pretrained)
    if not s.linear:
        kept = tuple(name for name in s.protocol if name != "logistic")
        s = dataclasses.replace(s, protocol=kept)
    if not s.protocol:
        raise ValueError("protocol must name more than 'logistic' without --linear")
    for names, settings in _READ_BY.items():
        read = any(name.startswith(tuple(names.split())) for name in s.protocol)
        which = " or ".join(f"a {name!r} protocol" for name in names.split())
        _rules.unread(s, settings, unless=read, which=which)
    # What labels are too few for is said before anything is encoded.
    measures.check(s, train.labels, train.class_names)
    parts = measures.Parts(
        train,
        test,
        measures.in_words(s.train_split, len(train.labels))[0],
        measures.in_words(s.test_split, len(test.labels))[1],
    )

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
    measured = {
        name: measures.of_features(s, of_train, of_test, parts)
        for name, (of_train, of_test) in found.items()
    }
    of_train, of_test = found["pretrained encoder"]
    measured["pretrained encoder"] |= measures.of_encoder(
        s, pretrained, of_train, of_test, parts
    )
    published = measures.published_lines(
        pretrained.settings,
        measured["pretrained encoder"].values(),
        _unfinished(pretrained),
    )

    directory = pathlib.Path(s.directory)
    record = {
        "settings": {**dataclasses.asdict(s), "source": source},
        "step": pretrained.step,
        "averaged": pretrained.averaged,
        "num_test": len(test.labels),
        "accuracy": {
            name: {key: each.accuracy for key, each in several.items()}
            for name, several in measured.items()
        },
        "protocol": {
            name: {key: each.protocol._asdict() for key, each in several.items()}
            for name, several in measured.items()
        },
        "published": published,
    }
    _keep(directory / "probe.json", record)
    weights = ", moving average of the weights" if pretrained.averaged else ""
    print(
        f"\n{s.directory}, step {pretrained.step}{weights}: accuracy on "
        f"{len(test.labels):,} held-out images (%)\n"
    )
    columns = {k: each.head for k, each in measured["pretrained encoder"].items()}
    rows = [
        [name]
        + [f"{100 * each[k].accuracy:.1f}" if k in each else "-" for k in columns]
        for name, each in measured.items()
    ]
    print(_tables.markdown(["", *columns.values()], rows) + "\n")
    for line in (*measures.protocol_lines(measured), *published):
        print(line)
    draw(
        directory,
        train,
        test,
        *found["pretrained encoder"],
        watched=_watched(pretrained),
    )
    nothing = float("nan")
    return {
        name: evaluation.ProbeScores(
            *(
                several[key].accuracy if key in several else nothing
                for key in evaluation.ProbeScores._fields
            )
        )
        for name, several in measured.items()
    }


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


# Where an earlier probe differs in one of these, it is of something else.
_SAME = ("train_split", "test_split", "source", "seed")


def _keep(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes a record with what other protocols have measured of the same checkpoint
    and images: each number has its own protocol, and some take hours. A file with
    numbers that cannot stand in it gets another name.
    """
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it is no record
        old = None
    whole = _with_earlier(old, record)
    replaced = whole is record or any(
        whole["protocol"][name].get(key) != protocol
        for name, several in old["protocol"].items()
        for key, protocol in several.items()
    )
    write = _files.keep_json if replaced else _files.write_json
    write(path, whole)


def _with_earlier(old: Any, record: dict[str, Any]) -> dict[str, Any]:
    """A record with what an older one has of the same checkpoint and images."""
    try:
        same = all(old[name] == record[name] for name in ("step", "averaged"))
        given, asked = old["settings"], record["settings"]
        if not (same and all(given[name] == asked[name] for name in _SAME)):
            return record
        kept = {
            part: {
                name: {**old[part].get(name, {}), **record[part][name]}
                for name in record[part]
            }
            for part in ("accuracy", "protocol")
        }
    except (KeyError, TypeError, AttributeError):
        return record  # there is none, or it is of another version
    return {**record, **kept}


def _unfinished(encoder: recipes.Encoder) -> str:
    """Where the checkpoint is, if before the end of its run and that can be told."""
    s = encoder.settings
    try:
        n = data.size(data.open(s["source"], s["split"]))
        last = s["epochs"] * (n // s["batch_size"])
    except (KeyError, OSError, ValueError, ImportError):  # they may be elsewhere now
        return ""
    step = encoder.step or 0
    return f"step {step:,} of {last:,}" if step < last else ""


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
