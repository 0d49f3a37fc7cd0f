"""Pretraining on graphs: the settings that scripts share, and what they stand for.

Graphs as data, not `jaxcl.graphs`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxcl import _checks, _rules, augment, data, evaluation, models, training
from jaxcl.recipes import training as training_lib

Feature = Literal["labels", "attributes", "degree", "degrees"]
Change = Literal["drop_nodes", "subgraph", "perturb_edges", "mask_nodes", "identity"]


@dataclasses.dataclass(frozen=True)
class Graphs(training_lib.Training):
    """Pretrains an encoder of graphs."""

    examples: ClassVar[str] = "graphs"

    directory: str = "runs/graphs"
    """Where settings, metrics, checkpoints and pictures go."""
    source: str = "families"
    """Graphs: "families" or "atlas", which are made here; a .npz file; a folder or .zip
    of TUDataset."""
    features: tuple[Feature, ...] | None = None
    """What nodes are described by: "labels", "attributes", "degree" as a number,
    "degrees" as zeros and ones; None: labels, and degrees where there are none."""
    packs: _rules.Count | None = None
    """Parts of a batch, each in arrays of one size; None: one for each device and
    chunk. With chunks, it decides which graphs share batch statistics."""
    nodes: _rules.Count | None = None
    """Room of a pack for nodes; None: as many as the fullest pack has."""
    edges: _rules.Count | None = None
    """Room of a pack for edges; None: as many as the fullest pack has."""
    augmentation: tuple[Change, ...] = (
        "drop_nodes",
        "subgraph",
        "perturb_edges",
        "mask_nodes",
        "identity",
    )
    """Each view draws one of these."""
    ratio: _rules.Share = 0.2
    """Share of the nodes or edges that an augmentation drops or changes."""
    num_views: _rules.Several = 2
    """Augmented versions of each graph; losses of pairs take the first two."""
    encoder: Literal["gin", "gcn"] = "gin"
    """Graph isomorphism network, or graph convolutional network."""
    width: _rules.Count = 128
    """Units of each layer."""
    depth: _rules.Count = 3
    """Layers."""
    pooling: Literal["sum", "mean"] = "sum"
    """What makes of nodes a graph."""
    readout: Literal["last", "concatenate"] = "concatenate"
    """Which layers are pooled: the last, or all of them."""
    projector: Literal["normalized", "plain"] = "plain"
    """Whether the projector's hidden layer is batch-normalized."""
    batch_size: _rules.Several = 128
    """Graphs per step, over all devices."""
    epochs: _rules.Count = 10
    """Passes over the graphs."""
    warmup_epochs: _rules.Index = 1
    """Passes during which the learning rate rises from 0."""
    learning_rate: _rules.Positive = 1e-3
    """Highest rate, after the warm-up."""
    weight_decay: _rules.NotNegative = 0.0
    """Of weights; biases and normalizations have none, but with SGD."""
    monitors: tuple[Literal["knn"], ...] = ()
    """Measured while training, on the graphs themselves: accuracy of k-NN."""


def open_graphs(s: Graphs) -> data.Dataset:
    """The graphs of the settings, not packed.

    Raises:
      ValueError: if they are fewer than a batch, or the run would have too many steps.
    """
    dataset = data.graphs.open(s.source, s.split, features=s.features)
    training_lib.check_size(s, data.size(dataset))
    return dataset


def open_like(
    described: models.GraphDescription, source: str, split: str
) -> data.Dataset:
    """Graphs whose nodes have the features that an encoder can be given, not packed.

    Args:
      described: of the encoder.
      source: as `data.graphs.open` takes it.
      split: "train" or a slice of it.

    Raises:
      ValueError: if nodes lack a feature, or have labels or attributes that the encoder
        does not know.
    """
    features = data.graphs.Features(
        described.features, described.columns, described.labels
    )
    return data.graphs.open(source, split, features=features)


def describe(s: Graphs, dataset: data.Dataset) -> models.GraphDescription:
    """The model of the settings, for graphs with the features of a set."""
    graphs = data.graphs.graphs_of(dataset)
    features = graphs.features
    if features is None:  # made by hand
        features = data.graphs.Features(("attributes",), (graphs.nodes.shape[1],))
    return models.GraphDescription(
        features.kinds,
        features.columns,
        features.labels,
        s.encoder,
        s.width,
        s.depth,
        s.pooling,
        s.readout,
        s.dtype,
        s.embedding,
        s.projector,
    )


def pack(s: Graphs, dataset: data.Dataset) -> data.Dataset:
    """The same graphs, packed for the batches of the settings.

    Raises:
      ValueError: if packs do not fit the batch, the devices and the chunks; or the room
        is too small.
    """
    parts = jax.device_count() * s.chunks
    packs = parts if s.packs is None else s.packs
    _checks.divisible("packs", packs, parts, f"{parts} devices times chunks")
    return data.graphs.pack(
        dataset,
        s.batch_size,
        seed=s.seed,
        epochs=s.epochs,
        packs=packs,
        nodes=s.nodes,
        edges=s.edges,
    )


def make_transform(s: Graphs) -> augment.graphs.Transform:
    """Returns transform(key, pack) -> views of the graphs of one pack."""
    named: dict[str, augment.graphs.Transform] = {
        name: functools.partial(function, ratio=s.ratio)
        for name, function in {
            "drop_nodes": augment.graphs.drop_nodes,
            "subgraph": augment.graphs.subgraph,
            "perturb_edges": augment.graphs.perturb_edges,
            "mask_nodes": augment.graphs.mask_nodes,
        }.items()
    }
    named["identity"] = augment.graphs.identity
    if not s.augmentation:
        raise ValueError("augmentation must name one or more, got none")
    return augment.graphs.one_of(*(named[name] for name in s.augmentation))


def initialize(
    s: Graphs, described: models.GraphDescription
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there before the first step: ({"model": ...}, {"batch_stats": ...})."""
    variables = training_lib.first_variables(described, s.seed)
    return {"model": variables.pop("params")}, variables


def make_apply(s: Graphs, described: models.GraphDescription) -> Callable[..., Any]:
    """Returns apply(variables, graphs [p, ...]) -> (z [p, G, d], changed)."""
    model = models.build(described)

    def apply(variables: Any, graphs: data.graphs.GraphBatch) -> Any:
        changing = [name for name in variables if name != "params"]
        return model.apply(variables, graphs, train=True, mutable=changing)

    return training.float32_gradients(apply) if s.gradients == "float32" else apply


def represent(
    described: models.GraphDescription,
    variables: Any,
    column: Any,
    *,
    layer: str = "h",
    batch_size: int = 256,
) -> np.ndarray:
    """h [n, r] or z [n, d] of graphs, with running statistics.

    Args:
      described: the model.
      variables: of the model.
      column: of graphs that are not packed.
      layer: "h" or "z".
      batch_size: graphs that are packed together.
    """
    graphs = data.Dataset("graphs", {"graph": column})
    packed: Any = data.graphs.pack_in_order(graphs, batch_size).columns["graph"]
    encode = training_lib.make_encode(described, layer)
    frozen = jax.tree_util.Partial(encode, variables)
    return evaluation.represent(frozen, packed, packed.per_pack)


def make_monitors(
    s: Graphs, described: models.GraphDescription, dataset: data.Dataset
) -> Callable[[training.TrainState], dict[str, float]]:
    """Returns monitors(state), the scalars that the settings ask for."""

    def knn(state: training.TrainState) -> float:
        variables = jax.device_get(training_lib.variables_of(s, state))
        labels = dataset.columns["label"][np.arange(data.size(dataset))]
        h = represent(described, variables, dataset.columns["graph"])
        classes = len(dataset.class_names or ())
        return evaluation.knn_within(h, labels, num_classes=classes)

    return evaluation.watch(dict.fromkeys(s.monitors, knn))
