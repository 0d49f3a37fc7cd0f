"""Pretraining on graphs: the settings that scripts share, and what they stand for.

Graphs as data, not `jaxcl.graphs`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
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


def build(s: Graphs) -> models.Embedder:
    """The model of the settings: a `GraphBatch` to z [p, G, d]."""
    make = models.graphs.GIN if s.encoder == "gin" else models.graphs.GCN
    encoder = make(
        width=s.width,
        depth=s.depth,
        pooling=s.pooling,
        readout=s.readout,
        dtype=jnp.dtype(s.dtype),
    )
    projector = models.Projector(
        s.embedding, batch_norm=s.projector == "normalized", dtype=jnp.dtype(s.dtype)
    )
    return models.Embedder(encoder, projector)


def initialize(
    s: Graphs, dataset: data.Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there before the first step: ({"model": ...}, {"batch_stats": ...})."""
    f = data.graphs.graphs_of(dataset).nodes.shape[1]
    key = jax.random.fold_in(jax.random.key(s.seed), 0)
    variables = _first_variables(_model_settings(s), f)(key)
    return {"model": variables.pop("params")}, variables


def make_apply(s: Graphs) -> Callable[..., Any]:
    """Returns apply(variables, graphs [p, ...]) -> (z [p, G, d], changed)."""
    model = build(s)

    def apply(variables: Any, graphs: data.graphs.GraphBatch) -> Any:
        changing = [name for name in variables if name != "params"]
        return model.apply(variables, graphs, train=True, mutable=changing)

    return training.float32_gradients(apply) if s.gradients == "float32" else apply


def represent(
    s: Graphs, variables: Any, dataset: data.Dataset, *, batch_size: int = 256
) -> np.ndarray:
    """h [n, r] of all graphs of a set that is not packed, with running statistics."""
    packed = data.graphs.pack_in_order(dataset, batch_size)
    frozen = jax.tree_util.Partial(_encode(_model_settings(s)), variables)
    size = min(batch_size, data.size(dataset))
    return evaluation.represent(frozen, packed.columns["graph"], size)


def make_monitors(
    s: Graphs, dataset: data.Dataset
) -> Callable[[training.TrainState], dict[str, float]]:
    """Returns monitors(state), the scalars that the settings ask for."""

    def knn(state: training.TrainState) -> float:
        variables = jax.device_get(training_lib.variables_of(s, state))
        labels = dataset.columns["label"][np.arange(data.size(dataset))]
        h = represent(s, variables, dataset)
        classes = len(dataset.class_names or ())
        return evaluation.knn_within(h, labels, num_classes=classes)

    return evaluation.watch(dict.fromkeys(s.monitors, knn))


def _model_settings(s: Graphs) -> Graphs:
    """What the model is made of, so that runs share what they compile."""
    names = ("encoder", "width", "depth", "pooling", "readout", "projector")
    kept = {name: getattr(s, name) for name in (*names, "embedding", "dtype")}
    return Graphs(**kept)


@functools.cache
def _first_variables(s: Graphs, f: int) -> Callable[[jax.Array], dict[str, Any]]:
    # Parameters do not depend on how many nodes and edges there are.
    one = jnp.zeros((1, 1), jnp.int32)
    there = jnp.ones((1, 1), bool)
    edges = jnp.zeros((1, 1, 2), jnp.int32)
    tiny = data.graphs.GraphBatch(
        jnp.zeros((1, 1, f), jnp.float32), one, there, edges, one, there, there
    )
    model = build(s)
    return jax.jit(lambda key: dict(model.init(key, tiny, train=False)))


@functools.cache
def _encode(s: Graphs) -> Callable[..., jax.Array]:
    model = build(s)

    def encode(variables: Any, graphs: data.graphs.GraphBatch) -> jax.Array:
        h = jnp.asarray(model.apply(variables, graphs, train=False, method="represent"))
        return h.reshape(-1, h.shape[-1])

    return encode
