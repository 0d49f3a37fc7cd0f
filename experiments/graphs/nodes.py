"""Nodes of one network, told apart by what surrounds them: GRACE with any loss.

python -m experiments.graphs nodes --source path/to/cora.npz

Two views of the network lose edges and columns of features; the two views of a node
belong together. A linear probe of frozen representations learns from the few nodes of
the training part and is tested on the test part.
"""

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from sklearn import linear_model

import jaxcl
from experiments.graphs import results, settings
from jaxcl import _rules, augment, data, evaluation, models, recipes, study, training

PROTOCOL = "linear probe"
METRIC = study.Metric({"linear": PROTOCOL}, compared=("linear",), phrase="accuracy, {}")
MAY_CHANGE = ("directory", "tile")


@dataclasses.dataclass(frozen=True)
class Training(recipes.ViewLoss):
    """One training on a network."""

    directory: str = "runs/graphs_nodes"
    """Where settings, metrics, checkpoints and results go."""
    source: str = "partition"
    """Network: "partition", which is made here, or a .npz file."""
    temperature: _rules.Positive = 0.4
    """Divides similarities; smaller is sharper."""
    num_views: _rules.Several = 2
    """Corrupted versions of the network; every other one is made as the first is."""
    drop_edges: tuple[_rules.Share, _rules.Share] = (0.2, 0.4)
    """Share of the edges that the first and the second view lose."""
    mask_features: tuple[_rules.Share, _rules.Share] = (0.3, 0.4)
    """Share of the columns of features that they lose."""
    normalize: bool = True
    """Whether the features of a node are divided by their sum, as counts of words are
    for GRACE."""
    width: _rules.Count = 256
    """Units of each layer; a node's representation has as many."""
    depth: _rules.Count = 2
    """Convolutions."""
    embedding: _rules.Count = 128
    """Size d of the embedding z that the loss sees."""
    steps: _rules.Count = 200
    """Steps, each on the whole network."""
    learning_rate: _rules.Positive = 5e-4
    """Of Adam."""
    weight_decay: _rules.NotNegative = 1e-5
    """Of weights."""
    seed: _rules.Seed = 0
    """Of parameters and views."""


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Contrasts the nodes of a network with each loss and seed, and probes them."""

    loss: tyro.conf.Suppress[recipes.LossName] = "nt_xent"
    seed: tyro.conf.Suppress[_rules.Seed] = 0
    losses: Annotated[tuple[recipes.LossName, ...], _rules.Different] = (
        "nt_xent",
        "info_nce",
        "sc_info_nce",
    )
    """Losses; the first is what the others are compared with. GRACE's is "nt_xent"."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0, 1, 2)
    """Of parameters and views."""


def main(s: Settings) -> list[results.Result]:
    _rules.check(s)
    network = open_network(s)
    base, variants = settings.trainings(s, Training, settings.Target(s.alpha, s.beta))
    if "sup_con" in s.losses:
        raise ValueError("losses must not name 'sup_con', since few nodes have labels")

    def represent(run: Training, trained: bool) -> np.ndarray:
        state = pretrain(run, network) if trained else first_state(run, network)
        variables = {"params": state.params["model"], **state.model_state}
        encode = functools.partial(make_model(run).apply, method="represent")
        return np.asarray(jax.jit(encode)(variables, graphs_of(network, 1)))[0]

    def score(h: np.ndarray) -> study.Measured:
        accuracy = probe(network, h[: len(network.labels)])
        return study.Measured({"linear": accuracy}, int(network.test.sum()))

    compared = study.Study(
        functools.partial(pretrain, network=network), represent, score, METRIC
    )
    rows = study.run(compared, base, variants, s.seeds, may_change=MAY_CHANGE)
    for name, h in untaught(network).items():
        scores = {"linear": [probe(network, h)] * len(s.seeds)}
        rows.append(study.Row(name, scores, int(network.test.sum()), METRIC))
    found = results.of_rows(rows, network.name, PROTOCOL, "linear", 1)
    results.tell(s, found)
    study.tell_differences(rows, next(iter(variants)))
    return found


def open_network(s: Settings) -> data.graphs.Network:
    network = data.graphs.open_network(s.source)
    if not s.normalize:
        return network
    x = network.graphs.nodes
    sums = x.sum(axis=1, keepdims=True)
    if (x < 0).any():
        raise ValueError(
            f"normalize must be False for features that are no counts, got {x.min():g} "
            f"in {network.name}"
        )
    graphs = network.graphs._replace(nodes=x / np.where(sums > 0, sums, 1))
    return network._replace(graphs=graphs)


def probe(network: data.graphs.Network, h: np.ndarray) -> float:
    """Accuracy on the test nodes of a logistic regression on rows of length one, which
    has seen the nodes for training; its penalty is chosen on those for validation.
    """
    x = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    labels, best = network.labels, (-1.0, 0.0)
    for cost in evaluation.COSTS:
        machine = linear_model.LogisticRegression(C=cost, max_iter=1000)
        machine.fit(x[network.train], labels[network.train])
        on_val, on_test = (
            evaluation.accuracy(machine.predict(x[part]), labels[part])
            for part in (network.val, network.test)
        )
        if on_val > best[0]:
            best = on_val, on_test
    return best[1]


def untaught(network: data.graphs.Network) -> dict[str, np.ndarray]:
    """Features, and their means over what two steps in the network reach."""
    graphs = graphs_of(network, 1)
    x = graphs.nodes
    for _ in range(2):
        x = models.graphs.smoothed(graphs, x)
    return {"features": graphs.nodes[0], "features, smoothed twice": np.asarray(x)[0]}


def graphs_of(network: data.graphs.Network, devices: int) -> data.graphs.GraphBatch:
    """The network as a batch of one pack, whose nodes so many devices can divide."""
    n, edges = len(network.labels), len(network.graphs.edges)
    room = -(-n // devices) * devices
    column = data.graphs.Packed(network.graphs, 1, nodes=room, edges=edges)
    return jax.tree.map(jnp.asarray, column[np.arange(1)])


def make_model(s: Training) -> models.Embedder:
    encoder = models.graphs.GCN(
        s.width, s.depth, pooling="none", norm=False, first=False
    )
    projector = models.Projector(s.embedding, hidden=s.embedding, batch_norm=False)
    return models.Embedder(encoder, projector)


def first_state(s: Training, network: data.graphs.Network) -> training.TrainState:
    key = jax.random.fold_in(jax.random.key(s.seed), 0)
    init = functools.partial(make_model(s).init, train=False)
    variables = dict(jax.jit(init)(key, graphs_of(network, 1)))
    tx = training.adamw(s.learning_rate, weight_decay=s.weight_decay)
    return training.create_state({"model": variables.pop("params")}, variables, tx)


def pretrain(s: Training, network: data.graphs.Network) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    mesh, _, whole = jaxcl.data_parallel()
    graphs = data.put(graphs_of(network, mesh.size), whole)
    state = data.put(first_state(s, network), whole)
    loss, model = jaxcl.sharded(recipes.make_loss(s), mesh), make_model(s)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])

    # Views differ in how much they lose.
    transforms = [
        augment.chain(
            functools.partial(augment.graphs.drop_edges, ratio=edges),
            functools.partial(augment.graphs.mask_features, ratio=columns),
        )
        for edges, columns in zip(s.drop_edges, s.mask_features, strict=True)
    ]

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        pack = jax.tree.map(lambda x: x[0], batch)
        keys = jax.random.split(key, s.num_views)
        made = [transforms[v % 2](keys[v], pack) for v in range(s.num_views)]
        views = jax.tree.map(lambda *x: jnp.stack(x)[None], *made)  # [1, views, ...]
        variables = {"params": params["model"], **state.model_state}
        z, changed = training.apply_views(apply, variables, views)
        values = loss(models.graphs.by_graph(z), valid=batch.node_valid[0])
        # The mean is over the nodes that are there.
        return training.Outcome(
            values * (values.shape[0] / len(network.labels)), changed
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key)

    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    with training.open_run(
        s.directory, s, state, last=s.steps, may_change=MAY_CHANGE, progress=False
    ) as (run, state):
        for i in run.steps():
            state, metrics = step(state, graphs, key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
    return state
