"""Sets of graphs written by hand, as files and as arrays."""

import pathlib
import zipfile

import numpy as np

from jaxcl.data.graphs import sets

# A path of three nodes and an edge of two; classes as in MUTAG.
TWO = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n",
    "graph_labels": "1\n-1\n",
}
TWO_NPZ = {
    "edge_index": np.array([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]], np.int32),
    "node_ptr": np.array([0, 3, 5], np.int32),
    "y": np.array([1, -1], np.int8),
}
NETWORK = {
    "edge_index": np.array([[0, 1, 2, 3], [1, 2, 3, 4]], np.int32),
    "y": np.array([2, 2, 5, 5, 5], np.int8),
    "train_mask": np.arange(5) % 2 == 0,
    "val_mask": np.arange(5) == 1,
    "test_mask": np.arange(5) == 3,
    "x": np.array([[0, 2, 0], [0, 0, 0], [1, 0, 3], [0, 0, 4], [5, 0, 0]], np.int8),
}


def tu(folder, name="TWO", **changes):
    """A folder of TWO; what is changed to None is missing."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    for kind, text in {**TWO, **changes}.items():
        if text is not None:
            raw = text if isinstance(text, bytes) else text.encode()
            (folder / f"{name}_{kind}.txt").write_bytes(raw)
    return folder


def zipped(folder, path, inside="TWO/"):
    """The files of a folder in a zip, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def npz(path, arrays, **changes):
    """A file of arrays; what is changed to None is missing."""
    kept = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(path, **kept)
    return path


def random_graphs(sizes, density=0.4, seed=0, features=3):
    """Graphs of these sizes; where density is 0 they have no edges."""
    random = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(sizes)])
    edges = [
        (a + at, b + at)
        for n, at in zip(sizes, first, strict=False)
        for a in range(n)
        for b in range(a + 1, n)
        if random.random() < density
    ]
    return sets.from_edges(
        "random",
        np.repeat(np.arange(len(sizes)), sizes),
        np.array(edges, int).reshape(-1, 2),
        nodes=random.normal(size=(first[-1], features)),
    )


def by_graph(graphs):
    """(features, set of edges) of each graph, of the ragged arrays."""
    found = []
    for i in range(graphs.num_graphs):
        rows = slice(graphs.node_ptr[i], graphs.node_ptr[i + 1])
        places = slice(graphs.edge_ptr[i], graphs.edge_ptr[i + 1])
        found.append((graphs.nodes[rows], graphs.edges[places].tolist()))
    return found
