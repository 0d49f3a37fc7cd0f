"""Pictures of a run: the points, the curves, and both partitions."""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy import linalg
from scipy.sparse import csgraph

from experiments.spectral_clustering import graph as graph_lib
from jaxcl import graphs, kernels
from jaxcl.pictures import graphs as pictures

LABELS = {
    "H/n": "H/n (nats per node)",
    "trace term": "trace term tr(Z$^T$L Z)/n",
    "1-NN purity": "1-NN purity",
}


def snapshots(
    path: pathlib.Path,
    title: str,
    drawn: Sequence[np.ndarray],
    steps: Sequence[int],
    kernel: kernels.Kernel,
    groups: np.ndarray,
    names: Sequence[str],
) -> None:
    def similarity(z: np.ndarray) -> np.ndarray:
        return np.exp(kernel(jnp.asarray(z), jnp.asarray(z)))

    pictures.snapshots(path, drawn, similarity, steps, groups, names, title=title)


def curves(
    path: pathlib.Path,
    title: str,
    recorded: Sequence[dict[str, float]],
    theory: dict[str, float],
    entropy: float,
) -> None:
    levels = {
        label: {"theory": theory[name]} if name in theory else {}
        for name, label in LABELS.items()
    }
    levels[LABELS["H/n"]]["entropy of the graph"] = entropy
    pictures.curves(
        path,
        [record["step"] for record in recorded],
        {label: [r[name] for r in recorded] for name, label in LABELS.items()},
        levels,
        shares=[LABELS["1-NN purity"]],
        title=title,
    )


def partitions(
    path: pathlib.Path,
    title: str,
    graph: graph_lib.Graph,
    groups: np.ndarray,
    names: Sequence[str],
    judged: np.ndarray,
    found: np.ndarray,
) -> None:
    symmetric = np.asarray(graphs.symmetrize(graph.p), np.float64)
    laplacian = csgraph.laplacian(symmetric, normed=True)
    last = int(judged.max())  # as many eigenvectors as clusters
    _, vectors = linalg.eigh(laplacian, subset_by_index=(0, last))
    pictures.partitions(
        path,
        graph.p,
        np.asarray(kernels.unit(jnp.asarray(vectors, jnp.float32))),
        groups,
        names,
        ("spectral clustering", judged),
        ("k-means on the learned Z", found),
        title=title,
    )
