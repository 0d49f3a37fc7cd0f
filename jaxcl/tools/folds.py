"""What an encoder of graphs has learned: machines that are tested fold by fold.

Compares histograms of the labels and degrees of nodes, which need no encoder, the
untrained encoder and the pretrained one, on the same folds.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxcl import _files, _tables, data, evaluation, pictures, recipes
from jaxcl.pictures import embeddings, style
from jaxcl.tools import curves

# Graphs whose neighbors are drawn.
_SHOWN = 8


def probe(
    s: Any, pretrained: recipes.Encoder, source: str
) -> dict[str, evaluation.FoldScores]:
    """Probes a run on graphs and writes probe.json and pictures beside it.

    Args:
      s: settings of `tools.probe`.
      pretrained: the encoder.
      source: of the graphs.

    Returns:
      Scores of linear support vector machines, by what was probed.

    Raises:
      ValueError: if graphs do not fit the encoder, or a class is too small for the
        folds.
    """
    dataset = pretrained.open(source, s.train_split)
    labels = labels_of(dataset)
    evaluation.stratified_folds(labels, s.folds)  # refuses before anything is encoded
    graphs, column = data.graphs.graphs_of(dataset), dataset.columns["graph"]
    found: dict[str, np.ndarray] = {}
    if graphs.node_labels is not None:
        found["label histogram"] = evaluation.label_histogram(graphs)
    found["degree histogram"] = evaluation.degree_histogram(graphs)
    for name, encoder in (
        ("untrained encoder", pretrained.untrained()),
        ("pretrained encoder", pretrained),
    ):
        found[name] = encoder.represent(column, batch_size=s.batch_size)
    scores = {
        name: evaluation.svm_folds(h, labels, folds=s.folds, seed=s.seed)
        for name, h in found.items()
    }

    directory = pathlib.Path(s.directory)
    record = {
        "settings": dataclasses.asdict(s),
        "step": pretrained.step,
        "averaged": pretrained.averaged,
        "num_test": len(labels),
        "accuracy": {
            name: {"svm": float(each.accuracy.mean()), "folds": each.accuracy.tolist()}
            for name, each in scores.items()
        },
    }
    _files.keep_json(directory / "probe.json", record)
    weights = ", moving average of the weights" if pretrained.averaged else ""
    print(
        f"\n{s.directory}, step {pretrained.step}{weights}: accuracy of a linear "
        f"support vector machine on {len(labels):,} graphs,\neach tested once in "
        f"{s.folds} folds (%)\n"
    )
    rows = [
        [name, *(f"{100 * x:.1f}" for x in (each.accuracy.mean(), each.accuracy.std()))]
        for name, each in scores.items()
    ]
    print(_tables.markdown(["", "mean", "deviation of folds"], rows))
    curves.draw(directory, "the graphs it learns from")
    draw(directory, dataset, found["pretrained encoder"])
    return scores


def draw(directory: pathlib.Path, dataset: data.Dataset, h: np.ndarray) -> None:
    """Writes a map of represented graphs, and some of them beside their neighbors.

    Args:
      directory: of embedding.png and neighbors.png.
      dataset: labelled graphs that are not packed.
      h: their representations [n, r].
    """
    labels = labels_of(dataset)
    # As the machine sees them: else the sizes of graphs hide all that is not size.
    h, names = embeddings.standardized(h), dataset.class_names or ()
    title = f"{dataset.name}: graphs as the pretrained encoder represents them"
    style.attempt(
        pictures.embedding_map,
        directory / "embedding.png",
        h,
        labels,
        class_names=names,
        title=title,
    )
    near = evaluation.nearest(h, h, min(5, len(h) - 1), exclude_self=True)
    # The first graphs of each class, as many of all as fit, of the first classes.
    present = np.unique(labels)[:_SHOWN]
    each = max(1, _SHOWN // len(present))
    shown = np.concatenate([np.flatnonzero(labels == c)[:each] for c in present])
    alike = (labels[near.indices] == labels[:, None]).mean()
    style.attempt(
        pictures.graph_montage,
        directory / "neighbors.png",
        data.graphs.graphs_of(dataset),
        labels,
        shown,
        near.indices[shown],
        near.cosines[shown],
        class_names=names,
        title=title,
        note=f"Over all {len(labels):,} graphs: {100 * alike:.1f} % of their "
        f"{near.indices.shape[1]} nearest are of their class",
    )


def labels_of(dataset: data.Dataset) -> np.ndarray:
    """The classes of labelled graphs, integers [n]."""
    return np.asarray(dataset.columns["label"][np.arange(data.size(dataset))])
