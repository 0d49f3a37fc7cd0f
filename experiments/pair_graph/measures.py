"""The pair graph beside learned similarities, and what clusters both have."""

from typing import Any

import jax
import numpy as np
from scipy import sparse, special, stats
from sklearn import metrics

from jaxcl import _tables, diagnostics, graphs


def rows(s: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Learned distributions: the softmax of each row of similarities, float64.

        Q_ij = p_j exp(s_ij) / sum_l p_l exp(s_il)

    Args:
      s: [n, m], already divided by the temperature.
      weights: p [m], how often a loss meets each candidate; None: all alike.

    Returns:
      Rows that sum to 1; 0 for a candidate that is never met.
    """
    s = np.asarray(s, np.float64)
    if weights is not None:
        with np.errstate(divide="ignore"):
            s = s + np.log(np.asarray(weights, np.float64))
    return special.softmax(s, axis=1)


def directions(w: np.ndarray, s: np.ndarray, *, weighted: bool = False) -> Any:
    """Pairs (degrees, P, Q) from images to captions and from captions to images.

    Nodes without edges are in neither.

    Args:
      w: weights of the edges [n, m].
      s: learned similarities [n, m].
      weighted: whether candidates count by their degrees, as in batches of edges.

    Returns:
      For each direction the degrees [n], targets and learned distributions [n, m].
    """
    w = np.asarray(w, np.float64)
    keep = np.ix_(w.any(axis=1), w.any(axis=0))
    found = []
    for edges, logits in ((w[keep], s[keep]), (w[keep].T, s[keep].T)):
        met = edges.sum(axis=0) if weighted else None
        p = edges / edges.sum(axis=1, keepdims=True)
        found.append((edges.sum(axis=1), p, rows(logits, met)))
    return found


def cross_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """CE of each row of p with that of q, in nats."""
    return -special.xlogy(p, q).sum(axis=1)  # 0 log 0 is 0


def compare(
    w: np.ndarray, s: np.ndarray, *, weighted: bool = False
) -> dict[str, float]:
    """How near learned distributions are to the pair graph, as `directions` has them.

    Returns:
      By name: for each direction the mean KL of a row in nats and the mean total
      variation; over both directions the cross-entropy where every node counts once
      ("per node"), and where it counts by its edges ("per edge": for pairs one to one,
      CLIP's loss).
    """
    found, costs, degrees = {}, [], []
    both = directions(w, s, weighted=weighted)
    for name, (degree, p, q) in zip(("image", "caption"), both, strict=True):
        cost = cross_entropy(p, q)
        found[f"KL {name}"] = float((cost - cross_entropy(p, p)).mean())
        found[f"TV {name}"] = float(abs(p - q).sum(axis=1).mean() / 2)
        costs.append(cost)
        degrees.append(degree)
    found["per node"] = float(np.mean([cost.mean() for cost in costs]))
    edges = [np.average(c, weights=d) for c, d in zip(costs, degrees, strict=True)]
    found["per edge"] = float(np.mean(edges))
    return found


def entropy(w: np.ndarray) -> dict[str, float]:
    """The least that cross-entropies "per node" and "per edge" can be."""
    with np.errstate(divide="ignore"):
        found = compare(w, np.log(np.asarray(w, np.float64)))
    return {key: found[key] for key in ("per node", "per edge")}


def clusters(w: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Spectral clusters of the nodes of a pair graph: images, then captions."""
    graph = graphs.pair_graph(np.asarray(w, np.float32))
    found = diagnostics.spectral_clusters(graph, count, jax.random.key(seed))
    return np.asarray(found)


def learned_weights(s: np.ndarray) -> np.ndarray:
    """exp(s) but for a factor of all: its pair graph has the learned distributions."""
    return np.exp(s - s.max())


def agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Of two partitions: 1 where they are one, about 0 by chance."""
    return {
        "ARI": float(metrics.adjusted_rand_score(a, b)),
        "AMI": float(metrics.adjusted_mutual_info_score(a, b)),
    }


def components(w: np.ndarray) -> int:
    """Connected components of the images and the captions that have an edge."""
    w = np.asarray(w)
    w = w[np.ix_(w.any(axis=1), w.any(axis=0))]
    both = sparse.block_array(
        [[None, sparse.csr_array(w)], [sparse.csr_array(w.T), None]]
    )
    return int(sparse.csgraph.connected_components(both, directed=False)[0])


def walk(w: np.ndarray) -> np.ndarray:
    """Where two steps of the pair graph lead from each image, [n, n]."""
    n = len(w)
    graph = np.asarray(graphs.pair_graph(w), np.float64)
    return graph[:n, n:] @ graph[n:, :n]


def interval(values: Any) -> tuple[float, float]:
    """Mean, and half of Student's interval of 95 %; NaN for one value."""
    values = np.asarray(values, np.float64)
    if len(values) == 1:
        return float(values[0]), float("nan")
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return float(values.mean()), float(half)


def cell(values: Any, digits: int = 2) -> str:
    mean, half = interval(values)
    shown = f"{mean:.{digits}f}"
    return shown if np.isnan(half) else f"{shown} ± {half:.{digits}f}"


def table(measured: dict[str, list[dict[str, float]]], digits: int = 2) -> str:
    """A row for each name, with the mean over seeds and its interval."""
    keys = list(next(iter(measured.values()))[0])
    lines = [
        [name, *(cell([each[key] for each in of_seeds], digits) for key in keys)]
        for name, of_seeds in measured.items()
    ]
    return _tables.markdown(["", *keys], lines)
