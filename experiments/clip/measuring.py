"""What both towers have learned: retrieval, classes by their names, a linear probe."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.clip import settings
from experiments.clip.settings import Settings, Training
from jaxcl import _files, data, evaluation, models, recipes, study

AT = (1, 5, 10)
RECALLS = {
    f"{way}_{k}": f"R@{k} {label}"
    for way, label in (("to_text", "image to text"), ("to_image", "text to image"))
    for k in AT
}
OF_LABELS = {"zero_shot": "zero-shot", "linear": "linear probe"}


class Held(NamedTuple):
    """Held-out pairs, and what is asked of them.

    Attributes:
      train: pairs that are learned from.
      test: those that are not.
      labels: of the latter, as classes of the former, int [n]; None without labels.
      prompts: of each class that is told apart by its name.
      classes: the numbers of these classes.
    """

    train: data.Dataset
    test: data.Dataset
    labels: np.ndarray | None
    prompts: list[list[str]]
    classes: np.ndarray

    @property
    def keys(self) -> dict[str, str]:
        """What is measured, and what it is called."""
        return RECALLS if self.labels is None else RECALLS | OF_LABELS


class OfLabels(NamedTuple):
    """What accuracies are made of.

    Attributes:
      class_z: of the prompts, [classes, templates, d].
      train_h: representations [n, r] of the images that were learned from.
      train_labels: of these, int [n].
      test_h: representations of the held-out ones.
    """

    class_z: np.ndarray
    train_h: np.ndarray
    train_labels: np.ndarray
    test_h: np.ndarray


class Seen(NamedTuple):
    """What the scores of one run are made of.

    Attributes:
      pairs: held-out embeddings.
      of_labels: None where there are no labels.
    """

    pairs: recipes.pairs.Embedded
    of_labels: OfLabels | None = None


def hold(s: Settings) -> Held:
    """Opens both parts; refuses what could not be measured."""
    source, split = settings.held_out(s)
    train = recipes.pairs.open_pairs(s)
    test = data.pairs.open(source, split, size=s.size)
    shapes = [list(recipes.image_size(each)) for each in (train, test)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"test must hold images {shapes[0]} as the source, got {shapes[1]}"
        )
    names = train.class_names
    if names is None or test.class_names is None:
        if s.classes is not None:
            raise ValueError(f"classes must be None: {source!r} has no classes")
        return Held(train, test, None, [], np.arange(0))
    if set(test.class_names) - set(names):
        other = sorted(set(test.class_names) - set(names))[0]
        raise ValueError(f"test must hold classes of the source, got {other!r}")
    order = evaluation.class_indices(names, test.class_names)
    labels = order[_column(test, "label")]
    chosen = names if s.classes is None else s.classes
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(
            f"classes must be some of {', '.join(map(repr, names))}, got "
            f"{', '.join(map(repr, unknown))}"
        )
    classes = evaluation.class_indices(names, chosen)
    if not np.isin(labels, classes).any():
        raise ValueError(f"classes must name some of the held-out images, got {chosen}")
    return Held(train, test, labels, evaluation.prompts(chosen, s.templates), classes)


def see(held: Held, s: Training, trained: bool) -> Seen:
    """What the towers of a run, or those before its first step, make of the pairs."""
    towers = recipes.pairs.open_towers(s, held.train)
    home = pathlib.Path(s.directory)
    variables: dict[Any, Any] = recipes.pairs.first_variables(s, towers)
    if trained:
        variables = {
            "image": models.read_variables(home / "image", towers.image),
            "text": models.read_variables(home / "text", towers.text),
        }
    pairs = recipes.pairs.embed(towers, variables, held.test)
    if trained and jax.process_index() == 0:
        keep(home / "embeddings.npz", pairs)
    if held.labels is None:
        return Seen(pairs)
    prompts = np.array(held.prompts, object)
    class_z = recipes.pairs.embed_texts(towers, variables, prompts)
    train_h, test_h = (
        recipes.KINDS["images"].represent(
            towers.image, variables["image"], part.columns["image"]
        )
        for part in (held.train, held.test)
    )
    labels = _column(held.train, "label")
    return Seen(pairs, OfLabels(class_z, train_h, labels, test_h))


def score(held: Held, seen: Seen) -> study.Measured:
    """Recall both ways and, where there are labels, accuracies; all in [0, 1]."""
    scores: dict[str, float] = {}
    for way, (queries, candidates, groups) in _ways(seen.pairs).items():
        found = evaluation.recall(queries, candidates, groups, at=AT)
        scores |= {f"{way}_{k}": value for k, value in found.items()}
    if held.labels is not None and seen.of_labels is not None:
        of = seen.of_labels
        asked = np.isin(held.labels, held.classes)
        named = evaluation.zero_shot(seen.pairs.image[asked], of.class_z)
        scores["zero_shot"] = evaluation.accuracy(
            held.classes[named], held.labels[asked]
        )
        probe = evaluation.logistic_probe(
            of.train_h, of.train_labels, num_classes=len(held.train.class_names or ())
        )
        predicted = evaluation.predict(probe, of.test_h)
        scores["linear"] = evaluation.accuracy(predicted, held.labels)
    return study.Measured(scores, len(seen.pairs.image))


def by_chance(held: Held) -> dict[str, float]:
    """What towers that know nothing reach, without ties."""
    example = data.pairs.texts_of(held.test)[1]
    group = _column(held.test, "group")
    scores: dict[str, float] = {}
    for way, groups in (
        ("to_text", (group, group[example])),
        ("to_image", (group[example], group)),
    ):
        found = evaluation.chance_recall(groups, at=AT)
        scores |= {f"{way}_{k}": value for k, value in found.items()}
    if held.labels is not None:
        scores["zero_shot"] = 1 / len(held.classes)
        # The class that is most frequent among those that were learned from.
        labels = _column(held.train, "label")
        scores["linear"] = float(np.mean(held.labels == np.bincount(labels).argmax()))
    return scores


def _column(dataset: data.Dataset, name: str) -> np.ndarray:
    return np.asarray(dataset.columns[name][np.arange(data.size(dataset))])


def _ways(pairs: recipes.pairs.Embedded) -> Mapping[str, Any]:
    of_text = pairs.group[pairs.example]
    return {
        "to_text": (pairs.image, pairs.text, (pairs.group, of_text)),
        "to_image": (pairs.text, pairs.image, (of_text, pairs.group)),
    }


def keep(path: pathlib.Path, pairs: recipes.pairs.Embedded) -> None:
    """Writes the embeddings of the held-out pairs."""
    arrays = {name: x for name, x in pairs._asdict().items() if x is not None}
    with _files.replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def kept(path: pathlib.Path) -> recipes.pairs.Embedded:
    """What `keep` has written."""
    with np.load(path) as arrays:
        return recipes.pairs.Embedded(
            **{name: arrays.get(name) for name in recipes.pairs.Embedded._fields}
        )
