"""The graphs that vectors are fitted to: groups, images, or what a file holds."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csgraph, csr_array

from jaxcl import augment, data, graphs
from jaxcl.data import similarity


class Graph(NamedTuple):
    """What the vectors are fitted to.

    Attributes:
      p: rows that sum to 1, [n, n].
      groups: integers [n], or None.
      names: of the groups.
      about: what it is, in words.
    """

    p: np.ndarray
    groups: np.ndarray | None
    names: tuple[str, ...]
    about: str


def of_groups(num_groups: int, group_size: int, eta: float) -> Graph:
    """Equal weight on the own group, and a share eta on all other nodes."""
    c, m = num_groups, group_size
    groups = np.repeat(np.arange(c), m)
    inside = np.asarray(graphs.views_graph(jnp.asarray(groups)))
    outside = (groups[:, None] != groups[None]) / (m * (c - 1))
    names = tuple(f"group {i + 1}" for i in range(c))
    about = f"{c} groups of {m}, eta {eta:g}"
    return Graph((1 - eta) * inside + eta * outside, groups, names, about)


def of_digits(num_images: int, num_views: int, neighbors: int, seed: int) -> Graph:
    """How alike the augmented views of two real images are.

        w_ij = sum_vw exp(-|a_v(x_i) - a_w(x_j)|^2 / (2 h^2))

    over all views a_v(x_i), as pixels, with h the median distance from a view to the
    nearest view of another image; of each row the heaviest edges are kept, and rows are
    divided by their sums. It estimates how often augmentation takes two images to the
    same view. Labels are not used.
    """
    images = data.to_memory(data.open("digits", f"train[:{num_images}]"))
    n = data.size(images)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    transform = augment.images.characters()
    pixels = jnp.asarray(images.columns["image"][np.arange(n)])
    views = augment.images.views(key, pixels, transform, num_views)
    x = np.asarray(views, np.float64).reshape(n * num_views, -1)
    square = (x**2).sum(1)
    distance = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0)
    blocks = distance.reshape(n, num_views, n, num_views)
    blocks[np.arange(n), :, np.arange(n)] = np.inf
    h2 = np.median(distance.min(axis=1))
    w = np.exp(-blocks / (2 * h2)).sum(axis=(1, 3))
    heaviest = np.argsort(-w, axis=1)[:, :neighbors]
    kept = np.zeros_like(w)
    np.put_along_axis(kept, heaviest, np.take_along_axis(w, heaviest, 1), 1)
    about = f"{n} images of digits, {num_views} views each, {neighbors} neighbors"
    p = np.asarray(graphs.similarity_graph(kept))
    names = tuple(f"digit {i}" for i in range(10))
    return Graph(p, np.asarray(images.columns["label"][np.arange(n)]), names, about)


def of_file(path: str, largest_component: bool) -> Graph:
    """The graph of a file; rows are divided by their sums."""
    w, y = similarity.similarity_file(path)
    about = f"{path.split('/')[-1]}, {len(w):,} nodes"
    if largest_component:
        _, component = csgraph.connected_components(csr_array(w), False)
        kept = component == np.bincount(component).argmax()
        w, y = w[np.ix_(kept, kept)], None if y is None else y[kept]
        about = f"{path.split('/')[-1]}, largest component of {kept.sum():,} nodes"
    names: tuple[str, ...] = ()
    if y is not None:
        values, y = np.unique(y, return_inverse=True)
        names = tuple(f"label {v}" for v in values)
    try:
        p = np.asarray(graphs.similarity_graph(w))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Graph(p, y, names, about)


def notes(graph: Graph, num_clusters: int) -> Iterator[str]:
    """Lines about what a reader of the results should know of the graph."""
    symmetric = np.asarray(graphs.symmetrize(graph.p))
    components, _ = csgraph.connected_components(csr_array(symmetric))
    yield f"{graph.about}: {len(graph.p)} nodes, {components} connected components"
    if not np.array_equal(graph.p > 0, graph.p.T > 0):
        yield "some edges lead one way: spectral clustering sees both ways averaged"
    alone = np.flatnonzero(symmetric.sum(axis=1) == 0)
    if len(alone):
        some = ", ".join(map(str, alone[:5])) + (", ..." if len(alone) > 5 else "")
        yield (
            f"{len(alone)} nodes without edges ({some}): nothing attracts them, and "
            "they are clusters of their own or of chance; see --largest_component"
        )
    elif components > num_clusters:
        yield (
            "more components than clusters: spectral clustering may cut off small ones "
            "instead of parting large ones; see --largest_component"
        )
    if graph.groups is None:
        yield "no y: colors and purity are of the clusters of spectral clustering"
