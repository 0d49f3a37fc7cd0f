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
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
from scipy import linalg, optimize, sparse
from sklearn import cluster, metrics

from jaxcl import augment, data, graphs, kernels, losses
from jaxcl.pictures import style

# A dense graph of this many nodes takes 400 MB.
MOST_NODES = 10_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Optimizes vectors on the sphere against a graph and draws what happens."""

    directory: str = "runs/spectral_clustering"
    """Where pictures, results.json and embeddings.npz go."""
    overwrite: bool = False
    """Whether results that are there already may be replaced."""
    graph: str = "groups"
    """ "groups", "digits", or an .npz with edge_index [2, E] or weights [n, n]; y."""
    largest_component: bool = False
    """Of a file's graph keep the largest connected component only."""
    num_groups: int = 3
    """Of "groups"."""
    group_size: int = 20
    """Nodes in each group of "groups"."""
    eta: float = 0.0
    """Share of each row of "groups" that leads to other groups."""
    num_images: int = 400
    """Nodes of "digits"."""
    views: int = 8
    """Augmented views of each image by which "digits" compares two images."""
    neighbors: int = 10
    """Heaviest edges that each row of "digits" keeps."""
    num_clusters: int | None = None
    """Clusters to look for; None = as many as there are groups or labels."""
    dimension: int | None = None
    """Of the vectors, >= 2; None = 2 for "groups", else the number of clusters."""
    tau: float = 0.5
    """Of the kernel exp(-|u|^power / (2 tau)); smaller is sharper."""
    power: float = 2.0
    """Of the distance: 2 is the Gaussian kernel, 1 the Laplacian."""
    step_size: float = 0.5
    """Of plain gradient descent; each vector's gradient is cut to length 1 before."""
    snapshots: tuple[int, ...] = (0, 50, 200, 500, 1000)
    """Steps that are drawn, increasing; the last one ends the run."""
    record_every: int = 10
    """Steps between two points of the curves; each of the first ten is one."""
    seed: int = 0
    """Of the first vectors, of the views and of k-means."""


class Graph(NamedTuple):
    """What the vectors are fitted to: rows that sum to 1, groups [n], and its name."""

    p: np.ndarray
    groups: np.ndarray | None
    names: tuple[str, ...]
    about: str


def of_groups(s: Settings) -> Graph:
    """Equal weight on the own group, and a share eta on all other nodes."""
    c, m = s.num_groups, s.group_size
    if c < 2 or m < 2:
        raise ValueError(
            f"num_groups and group_size must be at least 2, got {c} and {m}"
        )
    if not 0 <= s.eta < 1:
        raise ValueError(f"eta must lie in [0, 1), got {s.eta}")
    groups = np.repeat(np.arange(c), m)
    inside = np.asarray(graphs.views_graph(jnp.asarray(groups)))
    outside = (groups[:, None] != groups[None]) / (m * (c - 1))
    names = tuple(f"group {i + 1}" for i in range(c))
    about = f"{c} groups of {m}, eta {s.eta:g}"
    return Graph((1 - s.eta) * inside + s.eta * outside, groups, names, about)


def of_digits(s: Settings) -> Graph:
    """How alike the augmented views of two real images are.

        w_ij = sum_vw exp(-|a_v(x_i) - a_w(x_j)|^2 / (2 h^2))

    over all views a_v(x_i), as pixels, with h the median distance from a view to the
    nearest view of another image; of each row the heaviest edges are kept, and rows are
    divided by their sums. It estimates how often augmentation takes two images to the
    same view. Labels are not used.
    """
    if not 2 <= s.neighbors < s.num_images or s.views < 1:
        raise ValueError(
            "neighbors must lie in [2, num_images) and views be at least 1, got "
            f"{s.neighbors}, {s.num_images} and {s.views}"
        )
    images = data.to_memory(data.open("digits", f"train[:{s.num_images}]"))
    n = len(images.images)
    key = jax.random.fold_in(jax.random.key(s.seed), 1)
    transform = augment.images.characters()
    views = augment.images.views(key, jnp.asarray(images.images), transform, s.views)
    x = np.asarray(views, np.float64).reshape(n * s.views, -1)
    square = (x**2).sum(1)
    distance = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0)
    blocks = distance.reshape(n, s.views, n, s.views)
    blocks[np.arange(n), :, np.arange(n)] = np.inf
    h2 = np.median(distance.min(axis=1))
    w = np.exp(-blocks / (2 * h2)).sum(axis=(1, 3))
    heaviest = np.argsort(-w, axis=1)[:, : s.neighbors]
    kept = np.zeros_like(w)
    np.put_along_axis(kept, heaviest, np.take_along_axis(w, heaviest, 1), 1)
    about = f"{n} images of digits, {s.views} views each, {s.neighbors} neighbors"
    p = np.asarray(graphs.similarity_graph(kept))
    names = tuple(f"digit {i}" for i in range(10))
    return Graph(p, np.asarray(images.labels), names, about)


def of_file(s: Settings) -> Graph:
    """Edges of weight 1, or weights as given; rows are divided by their sums."""
    path = pathlib.Path(s.graph)
    if not path.exists():
        raise FileNotFoundError(
            f'{path}: no such file; graph must be "groups", "digits" or an .npz file'
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz file, which numpy.savez writes")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {k: file[k] for k in ("edge_index", "weights", "y") if k in file}
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"{path}: not an .npz file of arrays ({error})") from error
    y = arrays.get("y")
    if "weights" in arrays:
        if "edge_index" in arrays:
            print(f"{path} has weights and edge_index: the weights are taken")
        w = arrays["weights"]
        if w.ndim != 2 or w.shape[0] != w.shape[1]:
            raise ValueError(
                f"{path}: weights must be a square matrix [n, n], got shape {w.shape}"
            )
    elif "edge_index" in arrays:
        edges = arrays["edge_index"]
        if (
            edges.ndim != 2
            or len(edges) != 2
            or not np.issubdtype(edges.dtype, np.integer)
        ):
            raise ValueError(
                f"{path}: edge_index must be integers [2, E], got shape {edges.shape} "
                f"of {edges.dtype}"
            )
        if not edges.size or edges.min() < 0:
            raise ValueError(f"{path}: edge_index must hold edges between nodes >= 0")
        n = int(edges.max()) + 1 if y is None else len(y)
        _check_size(path, n)
        if edges.max() >= n:
            raise ValueError(
                f"{path}: edge_index names node {edges.max()}, but y has {n} nodes"
            )
        w = np.zeros((n, n), np.float32)
        w[edges[0], edges[1]] = 1
    else:
        raise ValueError(f"{path}: needs an array edge_index [2, E] or weights [n, n]")
    _check_size(path, len(w))
    if y is not None and (
        y.shape != (len(w),) or not np.issubdtype(y.dtype, np.integer)
    ):
        raise ValueError(
            f"{path}: y must be integers [{len(w)}], got shape {y.shape} of {y.dtype}"
        )
    about = f"{path.name}, {len(w):,} nodes"
    if s.largest_component:
        _, component = sparse.csgraph.connected_components(sparse.csr_array(w), False)
        kept = component == np.bincount(component).argmax()
        w, y = w[np.ix_(kept, kept)], None if y is None else y[kept]
        about = f"{path.name}, largest component of {kept.sum():,} nodes"
    names: tuple[str, ...] = ()
    if y is not None:
        values, y = np.unique(y, return_inverse=True)
        names = tuple(f"label {v}" for v in values)
    try:
        p = np.asarray(graphs.similarity_graph(w))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Graph(p, y, names, about)


def _check_size(path: pathlib.Path, n: int) -> None:
    if not 3 <= n <= MOST_NODES:
        raise ValueError(
            f"{path}: the graph is kept as a dense matrix and must have 3 to "
            f"{MOST_NODES:,} nodes, got {n:,}"
        )


def spectral(p: np.ndarray, num_clusters: int, seed: int) -> tuple[Any, np.ndarray]:
    """Ordinary spectral clustering: the judge. Returns its points and clusters.

    Eigenvectors of the lowest eigenvalues of I - D^-1/2 P_s D^-1/2, P_s = (P + P^T)/2,
    rows of length one, and k-means.
    """
    p = np.asarray(graphs.symmetrize(p), np.float64)
    degree = p.sum(axis=1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    operator = np.eye(len(p)) - scale[:, None] * p * scale[None]
    _, points = linalg.eigh(operator, subset_by_index=(0, num_clusters - 1))
    length = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.where(length > 0, length, 1)
    return points, k_means(points, num_clusters, seed)


def k_means(points: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    means = cluster.KMeans(num_clusters, n_init=10, random_state=seed)
    return np.asarray(means.fit_predict(np.asarray(points, np.float64)))


def purity(z: jax.Array, groups: jax.Array) -> jax.Array:
    """The share of nodes whose nearest other node is of their group."""
    cosine = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, z @ z.T)
    return (groups[cosine.argmax(axis=1)] == groups).mean()


def expected(s: Settings, dimension: int) -> dict[str, float] | None:
    """Values for groups that have collapsed onto the corners of a regular simplex.

        H / n = log((m - 1) + (c - 1) m exp(-D^2 / (2 tau))) + eta D^2 / (2 tau)

    with D^2 = 2 c / (c - 1), c groups of m nodes. None where no simplex fits in, where
    a node of the own group weighs no more than another, or the kernel is not Gaussian,
    for which full collapse is not expected.
    """
    c, m = s.num_groups, s.group_size
    if s.graph != "groups" or s.power != 2 or c > dimension + 1:
        return None
    if (1 - s.eta) / (m - 1) <= s.eta / (m * (c - 1)):
        return None
    far = 2 * c / (c - 1)
    repulsion = np.log(m - 1 + (c - 1) * m * np.exp(-far / (2 * s.tau)))
    return {
        "H/n": float(repulsion + s.eta * far / (2 * s.tau)),
        "trace term": s.eta * far / 2,
        "cosine within groups": 1.0,
        "cosine between groups": -1 / (c - 1),
        "1-NN purity": 1.0,
        "ARI with spectral clustering": 1.0,
    }


def main(s: Settings) -> dict[str, float]:
    directory = pathlib.Path(s.directory)
    if (directory / "results.json").exists() and not s.overwrite:
        raise FileExistsError(
            f"{directory} holds results already; give another --directory, or "
            "--overwrite"
        )
    if s.snapshots[:1] != (0,) or list(s.snapshots) != sorted(set(s.snapshots)):
        raise ValueError(f"snapshots must increase and begin at 0, got {s.snapshots}")
    if s.record_every < 1 or s.step_size <= 0:
        raise ValueError("record_every and step_size must be positive")
    if not s.tau > 0:
        raise ValueError(f"tau must be positive, got {s.tau:g}")

    # Graph.
    make = {"groups": of_groups, "digits": of_digits}.get(s.graph, of_file)
    graph = make(s)
    n = len(graph.p)
    if s.num_clusters is None and graph.groups is None:
        raise ValueError(f"{s.graph} has no y: say how many clusters, --num_clusters")
    num_clusters = len(graph.names) if s.num_clusters is None else s.num_clusters
    if not 2 <= num_clusters < n:
        raise ValueError(f"num_clusters must lie in [2, {n}), got {num_clusters}")
    dimension = s.dimension
    if dimension is None:
        dimension = 2 if s.graph == "groups" else num_clusters
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2, got {dimension}")
    symmetric = graphs.symmetrize(graph.p)
    components, _ = sparse.csgraph.connected_components(sparse.csr_array(symmetric))
    print(f"{graph.about}: {n} nodes, {components} connected components")
    if not np.array_equal(graph.p > 0, graph.p.T > 0):
        print("some edges lead one way: spectral clustering sees both ways averaged")
    alone = np.flatnonzero(np.asarray(symmetric).sum(axis=1) == 0)
    if len(alone):
        some = ", ".join(map(str, alone[:5])) + (", ..." if len(alone) > 5 else "")
        print(
            f"{len(alone)} nodes without edges ({some}): nothing attracts them, and "
            "they are a cluster of their own or of chance; see --largest_component"
        )
    elif components > num_clusters:
        print(
            "more components than clusters: spectral clustering may cut off small ones "
            "instead of parting large ones; see --largest_component"
        )
    points, judged = spectral(graph.p, num_clusters, s.seed)
    if graph.groups is None:
        print("no y: colors and purity are of the clusters of spectral clustering")
    groups = judged if graph.groups is None else graph.groups
    names = graph.names or tuple(f"cluster {i + 1}" for i in range(num_clusters))

    # Loss: the kernel divides by lengths, so that gradients are tangent to the sphere.
    kernel = kernels.exponential(s.power, 2 * s.tau)
    p, operator = jnp.asarray(graph.p, jnp.float32), graphs.laplacian(symmetric)
    operator = operator.astype(jnp.float32)

    def slope(z: jax.Array, p: jax.Array) -> jax.Array:
        return jax.grad(
            lambda z: losses.graph_cross_entropy(z, p, kernel=kernel).sum()
        )(z)

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
            "H/n": losses.graph_cross_entropy(z, p, kernel=kernel).mean(),
            # Not negative, but for rounding.
            "trace term": jnp.maximum((z * (operator @ z)).sum() / n, 0),
            "1-NN purity": purity(z, jnp.asarray(groups)),
        }

    # Loop.
    key = jax.random.fold_in(jax.random.key(s.seed), 0)
    z = kernels.unit(jax.random.normal(key, (n, dimension)))
    last = s.snapshots[-1]
    records = {*range(min(10, last)), *range(0, last + 1, s.record_every)}
    stops = sorted(records.union(s.snapshots))
    curves: list[dict[str, float]] = []
    drawn: list[np.ndarray] = []
    before = 0
    for stop in stops:
        z = advance(z, p, stop - before)
        before = stop
        measured = measure(z, p, operator)
        values = {k: float(measured[k]) for k in ("H/n", "trace term", "1-NN purity")}
        if not np.isfinite(list(values.values())).all():
            raise FloatingPointError(f"step {stop}: not finite: {values}")
        curves.append({"step": stop, **values})
        if stop in s.snapshots:
            drawn.append(np.asarray(z))
            shown = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
            print(f"step {stop}: {shown}")

    # What came out, and what theory says.
    found = k_means(drawn[-1], num_clusters, s.seed)
    ends = curves[-1]
    results = ends | summary(
        drawn[-1], graph, judged, found, kernel, s.tau, ends["trace term"]
    )
    steepest = np.linalg.norm(jax.jit(slope)(z, p), axis=1).max()
    results["largest gradient"] = float(steepest)
    theory = expected(s, dimension)
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(
        directory / "embeddings.npz",
        steps=s.snapshots,
        z=np.stack(drawn),
        groups=groups,
        spectral_clusters=judged,
        learned_clusters=found,
    )
    title = f"InfoNCE on a graph: {graph.about}"
    draw_snapshots(
        directory / "snapshots.png", drawn, kernel, s.snapshots, groups, names, title
    )
    draw_curves(
        directory / "curves.png", curves, theory or {}, results["entropy of P"], title
    )
    draw_agreement(
        directory / "agreement.png",
        graph.p,
        points,
        groups,
        names,
        judged,
        found,
        title,
    )
    written = {"settings": dataclasses.asdict(s), "results": results, "theory": theory}
    text = json.dumps({**written, "curves": curves}, indent=2) + "\n"
    (directory / "results.json").write_text(text, encoding="utf-8")
    print(f"pictures and results are in {directory}")
    report(results, theory, s.power == 2, graph.groups is not None)
    return results


def summary(
    z: np.ndarray,
    graph: Graph,
    judged: np.ndarray,
    found: np.ndarray,
    kernel: kernels.Kernel,
    tau: float,
    trace_term: float,
) -> dict[str, float]:
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
        "cosine within groups": float(cosine[same & others].mean()),
        "cosine between groups": float(cosine[~same].mean()),
        "ARI of k-means on Z with the groups": float(score(graph.groups, found)),
        "ARI of spectral clustering with the groups": float(
            score(graph.groups, judged)
        ),
    }


def report(
    results: dict[str, float],
    theory: dict[str, float] | None,
    is_gaussian: bool,
    has_groups: bool,
) -> None:
    """Prints what agreed with theory and what did not."""

    moving = results["largest gradient"] > 1e-2

    def line(name: str, value: float, sign: str, target: float, agrees: bool) -> None:
        verdict = "agrees" if agrees else "not yet" if moving else "DIFFERS"
        print(f"  {verdict:8} {name}: {value:.4f} {sign} {target:.4f}")

    print("theory that holds for every graph:")
    floor = results["entropy of P"]
    line("H/n, at least the entropy of P", results["H/n"], ">=", floor,
         results["H/n"] >= floor - 1e-4)  # fmt: skip
    if is_gaussian:
        other = results["trace term / tau + log R / n"]
        line("H/n, attraction by the Laplacian plus repulsion", results["H/n"], "=",
             other, abs(results["H/n"] - other) < 1e-3)  # fmt: skip
    if theory:
        print("theory of groups that collapse onto a regular simplex:")
        for name, target in theory.items():
            close = abs(results[name] - target) < (1e-3 if name == "H/n" else 1e-2)
            line(name, results[name], "=", target, close)
        if moving:
            print(
                "  After these steps the points still move (gradient up to "
                f"{results['largest gradient']:.2g}): theory is of the optimum."
            )
        return
    print(
        "no closed form for this graph and kernel, and since spectral clustering also\n"
        "asks for orthogonal columns, its clusters need not be the same; measured:"
    )
    for name in (
        "ARI with spectral clustering",
        *(
            (
                "ARI of k-means on Z with the groups",
                "ARI of spectral clustering with the groups",
                "1-NN purity",
                "cosine within groups",
                "cosine between groups",
            )
            if has_groups
            else ()
        ),
    ):
        print(f"  {name}: {results[name]:.4f}")


def draw_snapshots(
    path: pathlib.Path,
    drawn: Sequence[np.ndarray],
    kernel: kernels.Kernel,
    steps: Sequence[int],
    groups: np.ndarray,
    names: Sequence[str],
    title: str,
) -> None:
    """Above the points, below the kernel's matrix sorted by group, at each snapshot."""
    d, count = drawn[0].shape[1], len(drawn)
    second = {2: "points on the circle", 3: "points on the sphere"}.get(
        d, f"d = {d}: the two principal directions of the last step"
    )
    figure = style.blank(2.5 * count + 1.6, 6.4)
    below = f"kernel, sorted by group{_averaged(len(groups))}"
    style.heading(figure, title, f"above: {second}; below: {below}")
    grid = figure.add_gridspec(2, count)
    basis = np.eye(d)
    if d > 3:
        centered = drawn[-1] - drawn[-1].mean(axis=0)
        basis = np.linalg.svd(centered, full_matrices=False)[2][:2].T
    order = np.argsort(groups, kind="stable")
    of_kernel = []
    for z in drawn:
        ordered = jnp.asarray(z[order])
        of_kernel.append(block_means(np.exp(kernel(ordered, ordered))))
    # A sharp kernel is small nearly everywhere; all steps have one scale.
    most = float(np.quantile(of_kernel[-1], 0.99))
    beyond = "max" if most < 0.999 else "neither"
    shown: Any = None
    for i, (z, step) in enumerate(zip(drawn, steps, strict=True)):
        solid: dict[str, Any] = {"projection": "3d"} if d == 3 else {}
        axes = figure.add_subplot(grid[0, i], **solid)
        axes.set_title(f"step {step:,}", fontsize=12)
        scatter(axes, z @ basis, groups, names)
        if d == 2:
            angle = np.linspace(0, 2 * np.pi, 200)
            axes.plot(np.cos(angle), np.sin(angle), color="#CCCCCC", lw=1, zorder=0)
        if d <= 3:
            limits = {f"{a}lim": (-1.2, 1.2) for a in "xyz"[:d]}
            axes.set(**limits)
        lower = figure.add_subplot(grid[1, i])
        shown = matrix(lower, of_kernel[i], vmin=0, vmax=most)
        if i == 0:
            lower.set_ylabel("node i", fontsize=11)
        lower.set_xlabel("node j", fontsize=11)
    lower_row = figure.axes[1::2]
    figure.colorbar(
        shown, ax=lower_row, shrink=0.8, label="kernel", pad=0.01, extend=beyond
    )
    legend(figure, axes)
    style.save(figure, path)


def draw_curves(
    path: pathlib.Path,
    curves: Sequence[dict[str, float]],
    theory: dict[str, float],
    entropy: float,
    title: str,
) -> None:
    figure = style.blank(11.4, 4.2)
    style.heading(figure, title)
    steps = [c["step"] for c in curves]
    panels = (
        ("H/n", "H/n (nats per node)"),
        ("trace term", "trace term tr(Z$^T$L Z)/n"),
        ("1-NN purity", "1-NN purity"),
    )
    for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
        style.plain(axes)
        axes.plot(steps, [c[name] for c in curves], color=style.COLORS[0], lw=2)
        lines: list[tuple[str, float, tuple[float, float], int]] = []
        if name in theory:
            lines.append(("theory", theory[name], (5, 2), 4))
        if name == "H/n":
            lines.append(("entropy of the graph", entropy, (1.5, 1.5), 2))
        for text, value, dashes, color in lines:
            axes.axhline(
                value,
                color=style.COLORS[color],
                lw=1.6,
                dashes=dashes,
                label=f"{text}, {value:.4f}",
            )
        if lines:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0.0, 1.0),
                frameon=False,
                fontsize=10,
                handlelength=2.8,
                borderaxespad=0.2,
            )
        if name == "1-NN purity":
            axes.set_ylim(0, 1.05)
        # Most happens in the first steps.
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, max(1, steps[-1]))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("step (logarithmic)")
        axes.set_ylabel(label)
    style.save(figure, path)


def draw_agreement(
    path: pathlib.Path,
    p: np.ndarray,
    points: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    judged: np.ndarray,
    found: np.ndarray,
    title: str,
) -> None:
    """The graph, the points of spectral clustering, and both clusterings counted."""
    figure = style.blank(13.2, 4.8)
    score = metrics.adjusted_rand_score(judged, found)
    style.heading(
        figure,
        title,
        f"adjusted Rand index of the two clusterings: {score:.3f}",
    )
    left, middle, right = figure.subplots(1, 3)
    order = np.argsort(groups, kind="stable")
    drawn = block_means(p[np.ix_(order, order)])
    # A few heavy edges would leave all others dark.
    most = float(np.quantile(drawn[drawn > 0], 0.95))
    shown = matrix(left, drawn, vmin=0, vmax=most)
    beyond = "max" if most < drawn.max() else "neither"
    figure.colorbar(shown, ax=left, shrink=0.75, label="P$_{ij}$", extend=beyond)
    left.set_title("the graph, sorted by group", fontsize=12)
    left.set_xlabel(f"node j{_averaged(len(p))}", fontsize=11)
    left.set_ylabel("node i", fontsize=11)

    centered = points - points.mean(axis=0)
    basis = np.linalg.svd(centered, full_matrices=False)[2][:2].T
    scatter(middle, centered @ basis, groups, names)
    middle.set_title("eigenvectors of the graph's Laplacian", fontsize=12)
    middle.set_xlabel("two principal directions of their rows", fontsize=11)

    counts = metrics.cluster.contingency_matrix(judged, found)
    # Clusters have no numbers of their own: like stands opposite like.
    rows, columns = optimize.linear_sum_assignment(-counts)
    rest = [j for j in range(counts.shape[1]) if j not in columns]
    counts = counts[:, [*columns[np.argsort(rows)], *rest]]
    right.imshow(counts, cmap="Grays", vmin=0, vmax=1.4 * counts.max(), aspect="auto")
    for i, j in np.ndindex(counts.shape):
        if counts[i, j]:
            color = "white" if counts[i, j] > 0.7 * counts.max() else "#222222"
            right.text(
                j, i, f"{counts[i, j]}", ha="center", va="center", color=color,
                fontsize=9,
            )  # fmt: skip
    right.set_xticks(range(counts.shape[1]), range(1, counts.shape[1] + 1))
    right.set_yticks(range(counts.shape[0]), range(1, counts.shape[0] + 1))
    right.set_title("nodes in both clusters", fontsize=12)
    right.set_xlabel("k-means on the learned Z", fontsize=11)
    right.set_ylabel("spectral clustering", fontsize=11)
    legend(figure, middle)
    style.save(figure, path)


def scatter(
    axes: mpl_axes.Axes, points: np.ndarray, groups: np.ndarray, names: Sequence[str]
) -> None:
    size = float(np.clip(6_000 / len(points), 4, 36))
    for c in np.unique(groups):
        axes.scatter(
            *points[groups == c].T,
            s=size,  # type: ignore[misc]
            c=style.COLORS[c % len(style.COLORS)],
            marker=style.MARKERS[style.marker_of(c)],
            alpha=0.8,
            linewidths=0.3,
            edgecolors="white",
            label=names[c],
        )
    axes.set_aspect("equal")
    axes.set(xticks=[], yticks=[])
    if points.shape[1] == 3:
        axes.set(zticks=[])


def legend(figure: mpl_figure.Figure, axes: mpl_axes.Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 12:
        return
    drawn = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=min(len(labels), 10),
        frameon=False,
        fontsize=10,
    )
    for handle in drawn.legend_handles:
        if handle is not None:
            handle.set_sizes([45.0])  # type: ignore[attr-defined]


def block_means(values: np.ndarray) -> np.ndarray:
    """What is drawn of a large matrix: the means of its blocks."""
    block = _block(len(values))
    edges = np.arange(0, len(values), block)
    size = np.diff([*edges, len(values)])
    sums = np.add.reduceat(np.add.reduceat(values, edges, 0), edges, 1)
    return np.asarray(sums / (size[:, None] * size[None]))


def matrix(axes: mpl_axes.Axes, values: np.ndarray, **limits: Any) -> Any:
    axes.set(xticks=[], yticks=[])
    return axes.imshow(values, cmap="viridis", interpolation="nearest", **limits)


def _block(n: int) -> int:
    """Nodes that share a pixel of a matrix."""
    return -(-n // 400)


def _averaged(n: int) -> str:
    return f" (means over blocks of {_block(n)} nodes)" if _block(n) > 1 else ""


def cli() -> None:
    try:
        main(tyro.cli(Settings))
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    cli()
