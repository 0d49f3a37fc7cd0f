"""Pictures of queries and their nearest neighbors: images, or graphs.

Every function takes arrays and a path, and writes one PNG.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import collections, lines, patches

from jaxcl.data.graphs import Graphs
from jaxcl.pictures import layouts, style

SAME, OTHER = "#009E73", "#D3380F"  # green and red of different lightness


def montage(
    path: str | os.PathLike,
    queries: np.ndarray,
    query_labels: np.ndarray,
    keys: np.ndarray,
    key_labels: np.ndarray,
    indices: np.ndarray,
    cosines: np.ndarray,
    *,
    class_names: Sequence[str],
    title: str = "",
    note: str = "",
) -> None:
    """Draws each query beside its nearest neighbors, framed by right and wrong.

    Args:
      path: the PNG to write.
      queries: images [q, h, w], [q, h, w, 1] or [q, h, w, 3]; uint8, or floating
        point in [0, 1].
      query_labels: integers [q].
      keys: images [m, h, w, c] among which the neighbors are.
      key_labels: integers [m].
      indices: rows of the keys [q, k], the nearest first.
      cosines: their cosine with the query [q, k].
      class_names: one per class.
      title: of the picture.
      note: a line below it, such as the same share over all queries there are.

    Raises:
      ValueError: for wrong shapes, values or labels out of range, or a path that is
        no PNG.
    """
    queries, keys = pixels("queries", queries), pixels("keys", keys)
    if queries.shape[1:] != keys.shape[1:]:
        raise ValueError(
            f"queries and keys must be images of one shape, got {queries.shape[1:]} "
            f"and {keys.shape[1:]}"
        )
    tall = queries.shape[1] / queries.shape[2]

    def draw(axes: mpl_axes.Axes, image: np.ndarray, x: float, y: float) -> None:
        axes.imshow(
            image,
            extent=(x, x + 1, y + tall, y),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            aspect="auto",
        )

    _sheet(
        path,
        lambda axes, i, x, y: draw(axes, queries[i], x, y),
        lambda axes, i, x, y: draw(axes, keys[i], x, y),
        (1.0, tall),
        (query_labels, len(queries)),
        (key_labels, len(keys)),
        indices,
        cosines,
        class_names,
        title,
        note,
    )


def graph_montage(
    path: str | os.PathLike,
    graphs: Graphs,
    labels: np.ndarray,
    queries: np.ndarray,
    neighbors: np.ndarray,
    cosines: np.ndarray,
    *,
    class_names: Sequence[str],
    node_names: Sequence[str] | None = None,
    title: str = "",
    note: str = "",
    seed: int = 0,
) -> None:
    """Draws graphs beside their nearest neighbors, framed by right and wrong.

    Nodes are colored by their labels. Of more labels than there are colors, the rarest
    of the picture share gray.

    Args:
      path: the PNG to write.
      graphs: n graphs.
      labels: classes of the graphs, integers [n].
      queries: which graphs to draw, integers [q].
      neighbors: the graphs nearest to each [q, k], the nearest first.
      cosines: of the representations of a graph and its neighbor [q, k].
      class_names: one per class.
      node_names: one per label of nodes; None: their numbers.
      title: of the picture.
      note: a line below it, such as the same share over all graphs.
      seed: of the layout of graphs above 250 nodes.

    Raises:
      ImportError: without networkx.
      ValueError: for wrong shapes, values or labels out of range, node labels without
        a name, or a path that is no PNG.
    """
    queries, labels = np.asarray(queries), np.asarray(labels)
    style.check_labels("labels", labels, (graphs.num_graphs,), class_names)
    if queries.ndim != 1 or not np.issubdtype(queries.dtype, np.integer):
        raise ValueError(
            f"queries must be integers [q], got {queries.dtype} {queries.shape}"
        )
    if not (len(queries) and 0 <= queries.min() <= queries.max() < graphs.num_graphs):
        raise ValueError(
            f"queries must lie in [0, {graphs.num_graphs}), got {queries.tolist()}"
        )
    key: dict[str, str] = {}
    colors = np.full(len(graphs.nodes), style.COLORS[0])
    if graphs.node_labels is not None:
        near = np.asarray(neighbors).ravel()
        shown = np.isin(_graph_of(graphs), np.append(near, queries))
        colors, key = _node_colors(graphs.node_labels, shown, node_names)

    remarks = [f"{n} node{'s' * (n != 1)}" for n in np.diff(graphs.node_ptr).tolist()]
    drawn: dict[int, tuple[np.ndarray, float]] = {}

    def draw(axes: mpl_axes.Axes, i: int, x: float, y: float) -> None:
        nodes = slice(*graphs.node_ptr[i : i + 2])
        edges = graphs.edges[slice(*graphs.edge_ptr[i : i + 2])]
        if i not in drawn:
            drawn[i] = layouts.layout(nodes.stop - nodes.start, edges, seed)
        points, length = drawn[i]
        inner = _CELL - 2 * _PAD
        points = np.array([x, y]) + _PAD + inner * points
        radius = float(np.clip(0.3 * inner * length, 0.006, 0.055))
        crowded = max(1.0, len(edges) / (2 * len(points) + 1))  # lines would be a disk
        axes.add_collection(
            collections.LineCollection(
                points[edges],
                colors="#888888",
                lw=min(1.3, 36 * radius) / crowded,
                zorder=1,
            )
        )
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=(144 * radius) ** 2,  # the square of the diameter in points
            c=colors[nodes],
            lw=min(0.5, 12 * radius),
            edgecolors="white",
            zorder=2,
        )

    _sheet(
        path,
        lambda axes, i, x, y: draw(axes, int(queries[i]), x, y),
        draw,
        (_CELL, _CELL),
        (labels[queries], len(queries)),
        (labels, graphs.num_graphs),
        neighbors,
        cosines,
        class_names,
        title,
        note,
        ([remarks[i] for i in queries], remarks),
        key,
    )


_CELL, _PAD = 1.3, 0.1  # of a graph, and free around it inside the frame, in inches


def _graph_of(graphs: Graphs) -> np.ndarray:
    """The graph of each node [N]."""
    return np.repeat(np.arange(graphs.num_graphs), np.diff(graphs.node_ptr))


def _node_colors(
    labels: np.ndarray, shown: np.ndarray, names: Sequence[str] | None
) -> tuple[np.ndarray, dict[str, str]]:
    """The color of each node [N], and of each name, for the nodes that are shown."""
    if names is not None:
        style.check_labels("node_labels", labels, labels.shape, names)
        named = style.distinct(names, 14)
    else:
        named = [str(c) for c in range(labels.max(initial=0) + 1)]
    present, counts = np.unique(labels[shown], return_counts=True)
    frequent = present[np.argsort(-counts, kind="stable")]
    own = frequent if len(frequent) < len(style.COLORS) else frequent[:9]
    colors, key = np.full(len(labels), style.COLORS[9]), {}
    for color, label in zip(style.COLORS, own, strict=False):
        colors[labels == label] = color
    for label in np.sort(own):
        key[named[label]] = style.COLORS[int(np.flatnonzero(own == label)[0])]
    if len(own) < len(frequent):
        key[f"{len(frequent) - len(own)} others"] = style.COLORS[9]
    return colors, key


def _sheet(
    path: str | os.PathLike,
    draw_query: Callable[[mpl_axes.Axes, int, float, float], None],
    draw_key: Callable[[mpl_axes.Axes, int, float, float], None],
    cell: tuple[float, float],
    of_queries: tuple[np.ndarray, int],
    of_keys: tuple[np.ndarray, int],
    indices: np.ndarray,
    cosines: np.ndarray,
    class_names: Sequence[str],
    title: str,
    note: str,
    remarks: tuple[Sequence[str], Sequence[str]] | None = None,
    key: Mapping[str, str] | None = None,
) -> None:
    """Queries [q] and neighbors [q, k], each drawn by a function of its number.

    Args:
      path: the PNG to write.
      draw_query: draws a query with its upper left corner at (x, y), in inches.
      draw_key: draws a key in the same way.
      cell: width and height of what they draw.
      of_queries: their labels, and how many there are.
      of_keys: likewise.
      indices: keys [q, k].
      cosines: [q, k].
      class_names: one per class.
      title: of the picture.
      note: a line below it.
      remarks: of the queries and of the keys, drawn below them.
      key: colors of node labels by name, told at the end.
    """
    indices, cosines = np.asarray(indices), np.asarray(cosines, np.float64)
    (query_labels, num_queries), (key_labels, num_keys) = of_queries, of_keys
    if indices.ndim != 2 or len(indices) != num_queries or not indices.size:
        raise ValueError(f"indices must be [{num_queries}, k], got {indices.shape}")
    if cosines.shape != indices.shape:
        raise ValueError(f"cosines must be {indices.shape}, got {cosines.shape}")
    if not 0 <= indices.min() <= indices.max() < num_keys:
        raise ValueError(f"indices must lie in [0, {num_keys}), got {indices.max()}")
    query_labels, key_labels = np.asarray(query_labels), np.asarray(key_labels)
    style.check_labels("query_labels", query_labels, (num_queries,), class_names)
    style.check_labels("key_labels", key_labels, (num_keys,), class_names)

    # Everything is placed in inches.
    wide, tall = cell
    between, caption, aside, margin = 0.22, 0.52, 0.4, 0.2
    head = 1.15 if note else 0.95
    names = style.distinct(class_names, 14)
    # What fits under an image, also where names have wide letters.
    room = 10 * (wide + between - 0.06)
    sizes = [min(10.0, room / style.width(name, 10, "bold")) for name in names]
    title, note = style.literal(title), style.literal(note, 120)
    q, k = indices.shape
    width = 2 * margin + wide + aside + k * (wide + between) - between
    width = max(width, 7.0 if remarks is None else 7.5)
    told = margin + style.width("node labels:", 10)
    columns = style.fitting(width - told - margin, list(key or ()), 10, len(key or ()))
    foot = 0.2 + 0.22 * -(-len(key) // columns) if key else 0.0
    height = head + q * (tall + caption) + margin / 2 + foot
    figure = style.blank(width, height, layout=None)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")

    def write(text: str, x: float, y: float, size: float, **look: Any) -> None:
        look = {"color": style.TEXT, "va": "top"} | look
        axes.text(x, y, text, fontsize=size, **look)

    right = int(np.sum(key_labels[indices] == query_labels[:, None]))
    # A bold letter is some 0.65 of its size wide; the legend takes 1.9 inches.
    fitting = 72 * (width - 1.9) / (0.65 * max(len(title), 1))
    write(title, margin, 0.12, min(13.0, fitting), weight="bold")
    classes = len(np.unique(query_labels))
    write(
        f"{right} of {q * k} neighbors shown are of the query's class "
        f"({classes} of {len(class_names)} classes). Below: class, cosine"
        + ", size"
        * (remarks is not None),
        margin,
        0.4,
        9.5,
    )
    write(note, margin, 0.6, 9.5)
    first = margin + wide + aside
    write(
        "query",
        margin + wide / 2,
        head - 0.1,
        10,
        ha="center",
        va="bottom",
        color=style.QUIET,
    )
    for j in range(k):
        x = first + j * (wide + between) + wide / 2
        text = "nearest" if j == 0 else f"{j + 1}"
        write(text, x, head - 0.1, 10, ha="center", va="bottom", color=style.QUIET)
    line = margin + wide + aside / 2
    axes.plot([line, line], [head - 0.1, height - margin - foot], color="#BBBBBB", lw=1)
    for i in range(q):
        y = head + i * (tall + caption)
        draw_query(axes, i, margin, y)
        c = query_labels[i]
        place = margin + wide / 2, y + tall + 0.06
        write(names[c], *place, sizes[c], ha="center", weight="bold")
        if remarks is not None:
            place = margin + wide / 2, y + tall + 0.23
            write(remarks[0][i], *place, 9, ha="center", color=style.QUIET)
        for j in range(k):
            x = first + j * (wide + between)
            label = key_labels[indices[i, j]]
            same = label == query_labels[i]
            draw_key(axes, int(indices[i, j]), x, y)
            pad = 0.035
            axes.add_patch(
                patches.Rectangle(
                    (x - pad, y - pad),
                    wide + 2 * pad,
                    tall + 2 * pad,
                    fill=False,
                    lw=3,
                    ls="-" if same else (0, (2.2, 1.1)),
                    ec=SAME if same else OTHER,
                )
            )
            write(
                names[label],
                x + wide / 2,
                y + tall + 0.07,
                sizes[label],
                ha="center",
                color=style.TEXT if same else OTHER,
                weight="normal" if same else "bold",
            )
            cosine = f"{cosines[i, j]:.2f}"
            if remarks is not None:
                cosine += f", {remarks[1][indices[i, j]]}"
            write(
                cosine, x + wide / 2, y + tall + 0.23, 9, ha="center", color=style.QUIET
            )
    keyed = (("same class", "-", SAME), ("another class", (0, (2.2, 1.1)), OTHER))
    legend = axes.legend(
        [patches.Patch(fill=False, ec=c, lw=2.5, ls=s) for _, s, c in keyed],
        [name for name, _, _ in keyed],
        loc="upper right",
        frameon=False,
        fontsize=10,
        ncols=1,
    )
    if key:
        axes.add_artist(legend)
        write("node labels:", margin, height - 0.18, 10, va="bottom")
        dots = [lines.Line2D([], [], ls="", marker="o", color=c) for c in key.values()]
        axes.legend(
            dots,
            list(key),
            loc="lower left",
            bbox_to_anchor=(told / width, 0.1 / height),
            borderaxespad=0,
            borderpad=0.4,
            frameon=False,
            fontsize=10,
            handletextpad=0.1,
            columnspacing=1.2,
            ncols=columns,
        )
    style.save(figure, path)


def pixels(name: str, images: np.ndarray) -> np.ndarray:
    """Images as floats in [0, 1], [n, h, w] or [n, h, w, 3]."""
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    gray, color = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
    if not (gray or color) or not images.size:
        raise ValueError(
            f"{name} must be [n, h, w], [n, h, w, 1] or [n, h, w, 3], "
            f"got {images.shape}"
        )
    if images.dtype == np.uint8:
        return images / np.float32(255)
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name} must be uint8 or floating point, got {images.dtype}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got from {low:.3g} to {high:.3g}")
    return images
