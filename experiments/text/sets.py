"""Sets that sentences are tested on: pairs with scores, classes, and topics."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl import data

# Files that a folder may hold: a score and two sentences, or a label and texts.
PAIRS = ("stsb_dev", "sts12", "sts13", "sts14", "sick_trial", "sick_train")
CLASSES = {
    "SST-2": ("sst2_train", "sst2_dev", "sst2_test"),
    "TREC": ("trec_train", "trec_test"),
    "MR": ("mr",),
    "SUBJ": ("subj",),
    "AG News": ("agnews_test7600",),
}
# Where a file has no official test part, this part of it is one, drawn over classes.
TRAINING = "train[:80%,stratified]"
TESTED = "train[80%:,stratified]"


class Pairs(NamedTuple):
    """Two sentences each, and how similar people find them.

    Attributes:
      texts: array of objects [n, 2].
      scores: float32 [n].
    """

    texts: np.ndarray
    scores: np.ndarray


class Classes(NamedTuple):
    """Sentences with classes, to learn from and to be tested on.

    Attributes:
      train, test: arrays of objects [n], [m].
      train_labels, test_labels: int32 [n], [m].
      num_classes: how many there are.
      official: whether the parts are those of the authors.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    official: bool


class Topics(NamedTuple):
    """Topics, each in two halves of its sentences.

    Attributes:
      texts: array of objects [n].
      topic: of each sentence, int [n] in [0, topics).
      second: whether it is in the second half, bool [n].
    """

    texts: np.ndarray
    topic: np.ndarray
    second: np.ndarray


class Tested(NamedTuple):
    """What encoders are tested on, by names."""

    pairs: dict[str, Pairs]
    classes: dict[str, Classes]
    topics: Topics | None


def open_tested(
    folder: str | None, sts: Sequence[str], transfer: bool, sentences: data.Dataset
) -> Tested:
    """The sets that flags name; topics of the sentences where they name none.

    Args:
      folder: with files that are called as PAIRS and CLASSES, ending in .tsv.gz or
        .tsv; those that are missing are left out.
      sts: further pairs, NAME=path.
      transfer: whether classes are taken as well.
      sentences: what encoders learn from.

    Returns:
      The sets, of which there is at least one.

    Raises:
      FileNotFoundError: if a file or the folder is missing.
      ValueError: if a file cannot be read, or nothing is named and the sentences have
        no topics.
    """
    pairs, classes = {}, {}
    if folder is not None:
        home = pathlib.Path(folder).expanduser()
        if not home.is_dir():
            raise FileNotFoundError(f"sets: there is no directory {folder}")
        there = {name: _find(home, name) for name in PAIRS}
        pairs = {name: read_pairs(path) for name, path in there.items() if path}
        if transfer:
            for name, files in CLASSES.items():
                found = [_find(home, file) for file in files]
                if None not in found:
                    classes[name] = read_classes([str(path) for path in found])
        if not (pairs or classes):
            names = ", ".join((*PAIRS, *sum(CLASSES.values(), ())))
            raise ValueError(
                f"sets: {folder} must hold some of {names}, as .tsv.gz or .tsv"
            )
    for named in sts:
        name, equal, path = named.partition("=")
        if not (name and equal and path):
            raise ValueError(f"sts must be NAME=path, got {named!r}")
        if name in pairs:
            raise ValueError(f"sts must name other sets than those before, got {name}")
        pairs[name] = read_pairs(path)
    if pairs or classes:
        return Tested(pairs, classes, None)
    if "group" not in sentences.columns:
        raise ValueError(
            "sets or sts must name what encoders are tested on, or group a column of "
            "topics, got none"
        )
    return Tested({}, {}, read_topics(sentences))


def size(tested: Tested) -> int:
    """How many sentences there are in all, by which other sets are known."""
    topics = 0 if tested.topics is None else len(tested.topics.texts)
    pairs = sum(each.texts.size for each in tested.pairs.values())
    classes = sum(len(c.train) + len(c.test) for c in tested.classes.values())
    return topics + pairs + classes


def read_pairs(path: str) -> Pairs:
    """A file whose columns are a score and two sentences."""
    dataset = data.text.read(path, sentence=(1, 2), score=0)
    scores: Any = dataset.columns["score"]
    return Pairs(data.text.texts_of(dataset), scores)


def read_classes(paths: Sequence[str]) -> Classes:
    """Files whose first column is a label and whose others are one text.

    Args:
      paths: one file, of which a part is tested; or several: the first is learned
        from, the last is tested.
    """
    width = 3 if pathlib.Path(paths[0]).name.startswith("agnews") else 2
    columns = tuple(range(1, width))
    official = len(paths) > 1
    splits = ("train", "train") if official else (TRAINING, TESTED)
    parts = [
        data.text.open(path, split, sentence=columns, label=0)
        for path, split in zip((paths[0], paths[-1]), splits, strict=True)
    ]
    names, others = (part.class_names or () for part in parts)
    if others != names:
        raise ValueError(
            f"{paths[-1]}: must have the classes of {paths[0]}, {', '.join(names)}, "
            f"got {', '.join(others)}"
        )
    train, test = (
        np.array([" ".join(row) for row in data.text.texts_of(part)], object)
        for part in parts
    )
    labels = [np.asarray(part.columns["label"]) for part in parts]
    return Classes(train, labels[0], test, labels[1], len(names), official)


def read_topics(sentences: data.Dataset) -> Topics:
    """Topics that have two sentences or more, in halves that are drawn once."""
    texts = data.text.texts_of(sentences)
    group: Any = sentences.columns["group"]
    texts = texts if texts.ndim == 1 else texts[:, 0]
    _, topic, counts = np.unique(group, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < 2:
        raise ValueError("source must have two topics or more of several sentences")
    kept = counts[topic] > 1
    _, topic = np.unique(topic[kept], return_inverse=True)
    # By rank in a drawn order of its topic: halves differ by one sentence at most.
    order = data.permutation(len(topic), 0, 0)
    by_topic = order[np.argsort(topic[order], kind="stable")]
    sizes = np.bincount(topic)
    rank = np.arange(len(topic)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    second = np.zeros(len(topic), bool)
    second[by_topic] = rank % 2 == 1
    return Topics(texts[kept], topic, second)


def retrieval(h: np.ndarray, topics: Topics) -> float:
    """Share of topics whose second half is the nearest one to their first half.

    Args:
      h: representations of the sentences, [n, r].
      topics: of which topic and half each is.

    Returns:
      Recall at 1: halves are means of unit vectors, and near by cosine. Ties count as
      wrong.
    """
    h = np.asarray(h, np.float64)
    norms = np.linalg.norm(h, axis=1, keepdims=True)
    h = np.divide(h, norms, out=np.zeros_like(h), where=norms > 0)
    halves = np.zeros((2, topics.topic.max() + 1, h.shape[1]))
    np.add.at(halves, (topics.second.astype(int), topics.topic), h)
    norms = np.linalg.norm(halves, axis=2, keepdims=True)
    a, b = np.divide(halves, norms, out=np.zeros_like(halves), where=norms > 0)
    s = a @ b.T
    own = np.diag(s).copy()
    np.fill_diagonal(s, -np.inf)
    return float((own > s.max(axis=1)).mean())


def _find(home: pathlib.Path, name: str) -> str | None:
    for ending in (".tsv.gz", ".tsv"):
        if (home / (name + ending)).is_file():
            return str(home / (name + ending))
    return None
