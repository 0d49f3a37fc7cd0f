"""Contrastive learning as spectral clustering: free vectors against a given graph.

python -m experiments.spectral_clustering                       # three groups of 20
python -m experiments.spectral_clustering --dimension 3 --num_groups 4 \
    --directory runs/four_groups
python -m experiments.spectral_clustering --graph digits --directory runs/digits_graph
python -m experiments.spectral_clustering --graph cora.npz --largest_component \
    --directory runs/cora

Points of the sphere are moved until InfoNCE with the full graph, the cross-entropy of
the given graph and the learned one, is low. No network, no batch, no sampling: what is
left is the claim of Kernel-InfoNCE (https://arxiv.org/abs/2303.15103) that this is
spectral clustering of the graph, in a weak sense: minimize trace(Z^T L Z) plus a
repulsion. Ordinary spectral clustering of the same graph stands beside it. Groups,
steps and sizes are ours: the settings of the paper's figure are not known to us.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import cluster

from experiments.spectral_clustering import draw
from experiments.spectral_clustering import graph as graph_lib
from experiments.spectral_clustering import theory as theory_lib
from jaxcl import _cli, _files, _rules, diagnostics, graphs, kernels, losses
from jaxcl.pictures import style


@dataclasses.dataclass(frozen=True)
class Settings:
    """Optimizes vectors on the sphere against a graph and draws what happens."""

    directory: str = "runs/spectral_clustering"
    """Where pictures, results.json and embeddings.npz go."""
    overwrite: bool = False
    """Whether results that are there already may be replaced."""
    graph: str = "groups"
    """One of "groups", "digits", or an .npz with edge_index [2, E] or weights [n, n],
    and y [n] if there are labels."""
    largest_component: bool = False
    """Of a file's graph keep the largest connected component only."""
    num_groups: _rules.Several = 3
    """Of "groups"."""
    group_size: _rules.Several = 20
    """Nodes in each group of "groups"."""
    eta: Annotated[float, _rules.inside("[0, 1)")] = 0.0
    """Share of each row of "groups" that leads to other groups."""
    num_images: _rules.Several = 400
    """Nodes of "digits"."""
    views: _rules.Count = 8
    """Augmented views of each image by which "digits" compares two images."""
    neighbors: _rules.Several = 10
    """Heaviest edges that each row of "digits" keeps."""
    num_clusters: _rules.Several | None = None
    """Clusters to look for; None = as many as there are groups or labels."""
    dimension: _rules.Several | None = None
    """Of the vectors, >= 2; None = 2 for "groups", else the number of clusters."""
    tau: _rules.Positive = 0.5
    """Of the kernel exp(-|u|^power / (2 tau)); smaller is sharper."""
    power: _rules.Positive = 2.0
    """Of the distance: 2 is the Gaussian kernel, 1 the Laplacian."""
    step_size: _rules.Positive = 0.5
    """Of plain gradient descent; each vector's gradient is cut to length 1 before."""
    snapshots: tuple[_rules.Index, ...] = (0, 50, 200, 500, 1000)
    """Steps that are drawn, increasing; the last one ends the run."""
    record_every: _rules.Count = 10
    """Steps between two points of the curves; each of the first ten is one."""
    seed: _rules.Seed = 0
    """Of the first vectors, of the views and of k-means."""


def open_graph(s: Settings) -> graph_lib.Graph:
    if s.graph == "groups":
        return graph_lib.of_groups(s.num_groups, s.group_size, s.eta)
    if s.graph == "digits":
        return graph_lib.of_digits(s.num_images, s.views, s.neighbors, s.seed)
    return graph_lib.of_file(s.graph, s.largest_component)


def check(s: Settings) -> None:
    _rules.check(s)
    if s.snapshots[:1] != (0,) or list(s.snapshots) != sorted(set(s.snapshots)):
        raise ValueError(f"snapshots must increase and begin at 0, got {s.snapshots}")
    if s.graph == "digits" and s.neighbors >= s.num_images:
        raise ValueError(
            f"neighbors must be less than num_images {s.num_images}, got {s.neighbors}"
        )
    of_file = s.graph not in ("groups", "digits")
    for names, read, which in (
        ("num_groups group_size eta", s.graph == "groups", "graph 'groups'"),
        ("num_images views neighbors", s.graph == "digits", "graph 'digits'"),
        ("largest_component", of_file, "the graph of a file"),
    ):
        _rules.unread(s, names, unless=read, which=which)


def purity(z: jax.Array, groups: jax.Array) -> jax.Array:
    """The share of nodes whose nearest other node is of their group."""
    cosine = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, z @ z.T)
    return (groups[cosine.argmax(axis=1)] == groups).mean()


def descend(
    s: Settings, graph: graph_lib.Graph, groups: np.ndarray, dimension: int
) -> tuple[list[np.ndarray], list[dict[str, float]], float]:
    """The points at each snapshot, what was recorded, and the last largest gradient."""
    # The kernel divides by lengths, so that gradients are tangent to the sphere.
    kernel = kernels.exponential(s.power, 2 * s.tau)
    p = jnp.asarray(graph.p, jnp.float32)
    operator = graphs.laplacian(graphs.symmetrize(graph.p)).astype(jnp.float32)

    def loss(z: jax.Array, p: jax.Array) -> jax.Array:
        return losses.graph_cross_entropy(z, p, kernel=kernel)

    slope = jax.jit(jax.grad(lambda z, p: loss(z, p).sum()))

    @jax.jit
    def advance(z: jax.Array, p: jax.Array, count: int) -> jax.Array:
        def step(_: Any, z: jax.Array) -> jax.Array:
            gradient = slope(z, p)
            length = jnp.linalg.norm(gradient, axis=1, keepdims=True)
            return kernels.unit(z - s.step_size * gradient / jnp.maximum(length, 1))

        return jax.lax.fori_loop(0, count, step, z)

    @jax.jit
    def measure(z: jax.Array, p: jax.Array, operator: jax.Array) -> dict[str, Any]:
        return {
            "H/n": loss(z, p).mean(),
            # Not negative, but for rounding.
            "trace term": jnp.maximum((z * (operator @ z)).sum() / len(z), 0),
            "1-NN purity": purity(z, jnp.asarray(groups)),
        }

    key = jax.random.fold_in(jax.random.key(s.seed), 0)
    z = kernels.unit(jax.random.normal(key, (len(p), dimension)))
    last, before = s.snapshots[-1], 0
    records = {*range(min(10, last)), *range(0, last + 1, s.record_every)}
    curves: list[dict[str, float]] = []
    drawn: list[np.ndarray] = []
    for stop in sorted(records.union(s.snapshots)):
        z = advance(z, p, stop - before)
        before = stop
        values = {k: float(v) for k, v in measure(z, p, operator).items()}
        if not np.isfinite(list(values.values())).all():
            raise FloatingPointError(f"step {stop}: not finite: {values}")
        curves.append({"step": stop, **values})
        if stop in s.snapshots:
            drawn.append(np.asarray(z))
            shown = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
            print(f"step {stop}: {shown}")
    return drawn, curves, float(jnp.linalg.norm(slope(z, p), axis=1).max())


def main(s: Settings) -> dict[str, float]:
    directory = _files.check_new("directory", s.directory, overwrite=s.overwrite)
    check(s)

    # Graph, and ordinary spectral clustering of it.
    graph = open_graph(s)
    n = len(graph.p)
    if s.num_clusters is None and graph.groups is None:
        raise ValueError(f"{s.graph} has no y: say how many clusters, --num_clusters")
    num_clusters = len(graph.names) if s.num_clusters is None else s.num_clusters
    if not 2 <= num_clusters < n:
        raise ValueError(f"num_clusters must lie in [2, {n}), got {num_clusters}")
    usual = 2 if s.graph == "groups" else num_clusters
    dimension = usual if s.dimension is None else s.dimension
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2, got {dimension}")
    print("\n".join(graph_lib.notes(graph, num_clusters)))
    judged = np.asarray(
        diagnostics.spectral_clusters(graph.p, num_clusters, jax.random.key(s.seed))
    )
    groups = judged if graph.groups is None else graph.groups
    names = graph.names or tuple(f"cluster {i + 1}" for i in range(num_clusters))

    # Vectors, their clusters, and what theory says.
    drawn, curves, steepest = descend(s, graph, groups, dimension)
    means = cluster.KMeans(num_clusters, n_init=10, random_state=s.seed)
    found = means.fit_predict(drawn[-1].astype(np.float64))
    kernel = kernels.exponential(s.power, 2 * s.tau)
    results = curves[-1] | theory_lib.measured(
        drawn[-1], graph, judged, found, kernel, s.tau, curves[-1]["trace term"]
    )
    results["largest gradient"] = steepest
    theory: dict[str, float] = {}
    if s.graph == "groups" and s.power == 2:
        theory = theory_lib.expected(
            s.num_groups, s.group_size, s.eta, dimension, s.tau
        )

    # Results, and pictures of them.
    with _files.replacing(directory / "embeddings.npz") as path:
        np.savez(
            path,
            steps=s.snapshots,
            z=np.stack(drawn),
            groups=groups,
            spectral_clusters=judged,
            learned_clusters=found,
        )
    record = {"settings": dataclasses.asdict(s), "results": results, "theory": theory}
    _files.write_json(directory / "results.json", {**record, "curves": curves})
    print(f"\nIn {directory}: results.json, embeddings.npz and pictures\n")
    print(theory_lib.report(results, theory, s.power == 2))

    about = f"InfoNCE on a graph: {graph.about}"
    for name, function, *drawn_of in (
        ("snapshots", draw.snapshots, drawn, s.snapshots, kernel, groups, names),
        ("curves", draw.curves, curves, theory, results["entropy of P"]),
        ("agreement", draw.partitions, graph, groups, names, judged, found),
    ):
        style.attempt(function, directory / f"{name}.png", about, *drawn_of)
    return results


def cli() -> None:
    _cli.run(main, Settings, prog="python -m experiments.spectral_clustering")


if __name__ == "__main__":
    cli()
