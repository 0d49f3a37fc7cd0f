"""One network whose nodes have labels, such as papers that cite each other."""

import os
import pathlib

import numpy as np

from jaxcl.data import files
from jaxcl.data.graphs import generated, sets


def open_network(spec: str | os.PathLike[str]) -> sets.Network:
    """Opens the network that a flag such as `--source` names.

    Args:
      spec: "partition", which is made here; or a `.npz` file with `edge_index` [2, E],
        labels `y` [N], features `x` [N, f], or the same as a sparse matrix in rows,
        `x_shape`, `x_indptr`, `x_indices`, `x_data`; and `train_mask`, `val_mask`,
        `test_mask` [N].

    Returns:
      The network.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if networkx is missing, which makes "partition".
      ValueError: if an array is missing or does not fit the others, nodes have no
        features, or nodes for training are of one class or among those for the
        validation or the test.
    """
    if spec == "partition":
        return generated.partition()
    path = os.path.expanduser(os.fspath(spec))
    if not path.endswith(".npz"):
        raise ValueError(
            f"source must be 'partition' or a file ending in .npz, got {path!r}"
        )
    there = files.headers(path)
    masks = ("train_mask", "val_mask", "test_mask")
    missing = [key for key in ("edge_index", "y", *masks) if key not in there]
    if missing:
        hint = "; a set of graphs is for open" if "node_ptr" in there else ""
        raise ValueError(f"{path}: lacks {', '.join(missing)}{hint}")
    y = files.load(path, "y")
    if y.ndim != 1 or not len(y) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: y must be integers [N], got {y.dtype} {y.shape}")
    edges = files.load(path, "edge_index")
    if edges.ndim != 2 or len(edges) != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(
            f"{path}: edge_index must be integers [2, E], got {edges.dtype} "
            f"{list(edges.shape)}"
        )
    graphs = sets.from_edges(
        path, np.zeros(len(y), int), edges.T, nodes=_features(path, there, len(y))
    )
    if not graphs.nodes.shape[1]:
        raise ValueError(f"{path}: nodes must have features, got {len(y)} of none")
    parts = [files.load(path, key) for key in masks]
    for key, part in zip(masks, parts, strict=True):
        if part.shape != y.shape or part.dtype != bool or not part.any():
            raise ValueError(
                f"{path}: {key} must be bool [{len(y)}] and name some nodes, got "
                f"{part.dtype} {list(part.shape)}"
            )
    for key, part in zip(masks[1:], parts[1:], strict=True):
        shared = (parts[0] & part).sum()
        if shared:
            raise ValueError(
                f"{path}: train_mask and {key} must not share nodes, got {shared:,}"
            )
    values, labels = np.unique(y, return_inverse=True)
    train, val, test = parts
    names = tuple(map(str, values))
    taught = np.unique(labels[train])
    if len(taught) < 2:
        raise ValueError(
            f"{path}: nodes of train_mask must be of two classes or more, got "
            f"{names[taught[0]]} only"
        )
    name = pathlib.Path(path).stem
    return sets.Network(name, graphs, labels.astype(np.int32), train, val, test, names)


def _features(path: str, there: dict[str, files.Header], n: int) -> np.ndarray:
    """Features [N, f], dense or from the rows of a sparse matrix."""
    if "x" in there:
        return files.load(path, "x")
    keys = ("x_shape", "x_indptr", "x_indices", "x_data")
    missing = [key for key in keys if key not in there]
    if missing:
        raise ValueError(f"{path}: must have features x, or {', '.join(keys)}")
    arrays = [files.load(path, key) for key in keys]
    for key, x in zip(keys, arrays, strict=True):
        kind, called = (
            (np.number, "numbers") if key == "x_data" else (np.integer, "integers")
        )
        if x.ndim != 1 or not np.issubdtype(x.dtype, kind):
            raise ValueError(
                f"{path}: {key} must be {called} of one axis, got {x.dtype} "
                f"{list(x.shape)}"
            )
    shape, indptr, indices, values = arrays
    if len(shape) != 2 or shape[0] != n or not 0 <= shape[1] < 2**31:
        raise ValueError(
            f"{path}: x_shape must be {n}, one row for each node, and a number of "
            f"features, got {shape.tolist()}"
        )
    f = int(shape[1])
    fits = len(indptr) == n + 1 and indptr[0] == 0 and indptr[-1] == len(indices)
    if (
        not fits
        or len(indices) != len(values)
        or (indptr[1:] < indptr[:-1]).any()  # which may be without sign
    ):
        raise ValueError(
            f"{path}: x_indptr must ascend from 0 to the number of x_indices and of "
            f"x_data in {n + 1} steps, got {len(indptr)} up to {indptr[-1:].tolist()} "
            f"for {len(indices)} and {len(values)}"
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < f:
        raise ValueError(
            f"{path}: x_indices must lie in [0, {f}), got {indices.min()} to "
            f"{indices.max()}"
        )
    x = np.zeros((n, f), np.float32)
    x[np.repeat(np.arange(n), np.diff(indptr)), indices] = values
    return x
