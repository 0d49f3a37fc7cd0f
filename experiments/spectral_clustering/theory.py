"""What theory says of the vectors, what is measured of them, and how both compare."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from sklearn import metrics

from experiments.spectral_clustering import graph as graph_lib
from jaxcl import _tables, kernels

# Of what is measured, what is said where no closed form is known.
AGREEMENTS = (
    "ARI with spectral clustering",
    "ARI of k-means on Z with the groups",
    "ARI of spectral clustering with the groups",
    "1-NN purity",
    "cosine within groups",
    "cosine between groups",
)


def expected(
    num_groups: int, group_size: int, eta: float, dimension: int, tau: float
) -> dict[str, float]:
    """Values for groups that have collapsed onto the corners of a regular simplex.

        H / n = log((m - 1) + (c - 1) m exp(-D^2 / (2 tau))) + eta D^2 / (2 tau)

    with D^2 = 2 c / (c - 1), c groups of m nodes, and the Gaussian kernel. None are
    known where no simplex fits in, or where a node of the own group weighs no more than
    another; for other kernels full collapse is not expected.
    """
    c, m = num_groups, group_size
    if c > dimension + 1 or (1 - eta) / (m - 1) <= eta / (m * (c - 1)):
        return {}
    far = 2 * c / (c - 1)
    repulsion = np.log(m - 1 + (c - 1) * m * np.exp(-far / (2 * tau)))
    return {
        "H/n": float(repulsion + eta * far / (2 * tau)),
        "trace term": eta * far / 2,
        "cosine within groups": 1.0,
        "cosine between groups": -1 / (c - 1),
        "1-NN purity": 1.0,
        "ARI with spectral clustering": 1.0,
    }


def measured(
    z: np.ndarray,
    graph: graph_lib.Graph,
    judged: np.ndarray,
    found: np.ndarray,
    kernel: kernels.Kernel,
    tau: float,
    trace_term: float,
) -> dict[str, float]:
    """Numbers about the last points z [n, d].

    Args:
      z: unit vectors.
      graph: that they were fitted to.
      judged: clusters of spectral clustering.
      found: clusters of z.
      kernel: of the loss.
      tau: of the kernel.
      trace_term: tr(Z^T L Z) / n.
    """
    p, n = np.asarray(graph.p, np.float64), len(graph.p)
    positive = p[p > 0]
    logits = np.array(kernel(jnp.asarray(z), jnp.asarray(z)), np.float64)
    np.fill_diagonal(logits, -np.inf)
    edges = p.sum(axis=1) > 0
    repulsion = np.logaddexp.reduce(logits[edges], axis=1).sum() / n
    score = metrics.adjusted_rand_score
    results = {
        "entropy of P": float(-(positive * np.log(positive)).sum() / n),
        "trace term / tau + log R / n": float(trace_term / tau + repulsion),
        "ARI with spectral clustering": float(score(judged, found)),
    }
    if graph.groups is None:
        return results
    same = graph.groups[:, None] == graph.groups[None]
    others = ~np.eye(n, dtype=bool)
    cosine = z @ z.T
    return results | {
        "ARI of k-means on Z with the groups": float(score(graph.groups, found)),
        "ARI of spectral clustering with the groups": float(
            score(graph.groups, judged)
        ),
        "cosine within groups": float(cosine[same & others].mean()),
        "cosine between groups": float(cosine[~same].mean()),
    }


def report(
    results: dict[str, float], theory: dict[str, float], is_gaussian: bool
) -> str:
    """A table of what was measured and what theory says, with a verdict on each.

    Args:
      results: from `measured`, with H/n, purity and the largest gradient.
      theory: from `expected`; may be empty.
      is_gaussian: whether the kernel is; the identity of the loss holds for it alone.
    """
    moving = results["largest gradient"] > 1e-2

    def line(name: str, value: float, sign: str, target: float, holds: bool) -> list:
        verdict = "agrees" if holds else "not yet" if moving else "DIFFERS"
        return [name, f"{value:.4f}", f"{sign} {target:.4f}", verdict]

    def lines() -> Iterator[list]:
        loss, floor = results["H/n"], results["entropy of P"]
        yield line("H/n, at least the entropy", loss, ">=", floor, loss >= floor - 1e-4)
        if is_gaussian:
            other = results["trace term / tau + log R / n"]
            holds = abs(loss - other) < 1e-3
            yield line("H/n, attraction plus repulsion", loss, "=", other, holds)
        for name, target in theory.items():
            holds = abs(results[name] - target) < (1e-3 if name == "H/n" else 1e-2)
            yield line(name, results[name], "=", target, holds)
        if theory:
            return
        for name in AGREEMENTS:
            if name in results:
                yield [name, f"{results[name]:.4f}", "", ""]

    text = _tables.markdown(["", "measured", "theory", ""], lines())
    if theory and moving:
        text += (
            "\n\nAfter these steps the points still move (gradient up to "
            f"{results['largest gradient']:.2g}): theory is of the optimum."
        )
    if not theory:
        text += (
            "\n\nNo closed form for this graph and kernel. Spectral clustering also "
            "asks for orthogonal\ncolumns, so its clusters need not be the same."
        )
    return text
