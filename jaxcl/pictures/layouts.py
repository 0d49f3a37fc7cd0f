"""Where the nodes of a small graph are drawn."""

import math

import numpy as np

from jaxcl import _optional

# Nodes of a component up to which the best layout takes a fraction of a second.
_CAREFUL = 250


def layout(size: int, edges: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """Places of the nodes in a unit square, each component apart from the others.

    A component of up to 250 nodes is laid out by Kamada and Kawai's method, so that
    distances are those along the edges; a larger one by springs, from its spectrum.

    Args:
      size: number of nodes.
      edges: pairs of nodes, int [m, 2].
      seed: of the springs.

    Returns:
      Places [size, 2] in [0, 1], and how long an edge is there at the median.
    """
    networkx, threads = (
        _optional.require(module, "a picture of graphs", "tools")
        for module in ("networkx", "threadpoolctl")
    )
    graph = networkx.Graph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from(edges.tolist())
    parts = sorted(
        networkx.connected_components(graph), key=lambda p: (-len(p), min(p))
    )
    placed: list[tuple[list[int], np.ndarray]] = []
    for part in parts:
        nodes = sorted(part)
        # A graph of its own: a view would be walked in the order of a set.
        component = networkx.Graph()
        component.add_nodes_from(nodes)
        component.add_edges_from(sorted(map(sorted, graph.edges(nodes))))
        # One thread: as fast as two on an idle machine, much faster on a busy one.
        with threads.threadpool_limits(1, "blas"):
            if len(nodes) < 3:
                places = {node: (float(i), 0.0) for i, node in enumerate(nodes)}
            elif len(nodes) <= _CAREFUL:
                places = networkx.kamada_kawai_layout(component)
            else:
                start = networkx.spectral_layout(component)
                places = networkx.spring_layout(
                    component, pos=start, iterations=100, seed=seed
                )
        row = {node: i for i, node in enumerate(nodes)}
        points = np.array([places[node] for node in nodes], np.float64)
        ends = [(row[a], row[b]) for a, b in component.edges]
        placed.append((nodes, _of_unit_edges(points, np.array(ends, int))))
    return _packed(size, placed)


def _of_unit_edges(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Places [n, 2] whose median edge has length 1, as long as high."""
    if len(ends):
        lengths = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
        points /= max(float(np.median(lengths)), 1e-9)
        # The longest direction along the diagonal: there a square has most room.
        points -= points.mean(axis=0)
        axis = np.linalg.eigh(points.T @ points)[1][:, -1]
        turn = math.pi / 4 - math.atan2(axis[1], axis[0])
        sine, cosine = math.sin(turn), math.cos(turn)
        points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return points - points.min(axis=0)


def _packed(
    size: int, placed: list[tuple[list[int], np.ndarray]]
) -> tuple[np.ndarray, float]:
    """Components in rows, the largest first, in the smallest square that is tried."""
    boxes = [points.max(axis=0) + 1.0 for _, points in placed]  # an edge between them
    widest = max((box[0] for box in boxes), default=1.0)
    wanted = math.sqrt(sum(box[0] * box[1] for box in boxes))
    best, corners = math.inf, []
    for width in (max(widest, wanted * stretch) for stretch in (1.0, 1.15, 1.3, 1.6)):
        x = y = tall = 0.0
        tried = []
        for box in boxes:
            if x and x + box[0] > width:
                x, y, tall = 0.0, y + tall, 0.0
            tried.append((x, y))
            x, tall = x + box[0], max(tall, box[1])
        if max(width, y + tall) < best:
            best, corners = max(width, y + tall), tried
    everything = np.empty((size, 2))
    for (nodes, points), corner in zip(placed, corners, strict=True):
        everything[nodes] = points + corner
    if not size:
        return everything, 1.0
    everything -= (everything.min(axis=0) + everything.max(axis=0)) / 2
    extent = max(float(np.ptp(everything, axis=0).max()), 2.0)  # one node is not a disk
    return everything / extent + 0.5, 1 / extent
