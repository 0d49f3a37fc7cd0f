"""Sets of graphs in files: TUDataset's folders and zips, and `.npz`."""

import contextlib
import io
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcl.data import dataset as dataset_lib
from jaxcl.data import files, splits
from jaxcl.data.graphs import features as features_lib
from jaxcl.data.graphs import generated, sets

# Ends of the names of the files that are read.
_KINDS = ("A", "graph_indicator", "graph_labels", "node_labels", "node_attributes")
_READ = tuple(f"_{kind}.txt" for kind in _KINDS)


def open(
    spec: str,
    split: str = "train",
    *,
    features: Sequence[str] | sets.Features | None = None,
) -> dataset_lib.Dataset:
    """Opens the graphs that a flag such as `--source` names.

    Args:
      spec: "families" or "atlas", which are made here; a `.npz` file; or a folder or a
        `.zip` of TUDataset.
      split: "train", all graphs, or a slice of them such as "train[:90%,stratified]".
      features: what nodes are described by, of FEATURES; or `Features`, the columns
        that other graphs have; None: their labels, and degrees where they have none.

    Returns:
      The data set, with columns "graph" and "label"; its graphs are not packed.

    Raises:
      FileNotFoundError: if a file is not there.
      ImportError: if networkx is missing, which makes what is made here.
      ValueError: if the flag names no graphs, or they cannot be read.

    >>> dataset = open("families", "train[:10%,stratified]")
    >>> dataset_lib.size(dataset), dataset.class_names[:2]
    (60, ('random', 'preferential'))
    """
    if not isinstance(spec, str):
        raise TypeError(f"source must be a string, got {type(spec).__name__}")
    if dataset_lib.split_name(split) != "train":
        raise ValueError(f"split must be 'train' or a slice of it, got {split!r}")
    path = os.path.expanduser(spec)
    if spec == "families":
        whole = generated.families()
    elif spec == "atlas":
        whole = generated.atlas()
    elif spec.endswith(".npz"):
        # What an encoder knows as label 0 is a label, if it is the only one here too.
        whole = _npz(path, one_label=isinstance(features, sets.Features))
    elif os.path.isdir(path) or spec.endswith(".zip"):
        whole = tu(path)
    else:
        folder = os.sep in spec or spec.startswith(".")
        raise (FileNotFoundError if folder else ValueError)(
            "source must be 'families', 'atlas', a file ending in .npz, or a folder or "
            f".zip of TUDataset, got {spec!r}" + "; there is no such folder" * folder
        )
    return splits.select(features_lib.described(whole, features), split)


def npz(path: str | os.PathLike[str]) -> dataset_lib.Dataset:
    """Graphs in a `.npz` file.

    It holds `edge_index` [2, E] over the nodes of all graphs and `node_ptr` [n + 1],
    where the nodes of each begin; it may hold labels of graphs, `y` [n], and of nodes,
    `node_label` [N], and features `x` [N, f]. Labels of nodes that are all 0 stand for
    none.

    Args:
      path: the file.

    Returns:
      The data set; it is called after the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if an array is missing or does not fit the others.

    Warns:
      UserWarning: of loops, and of graphs without edges.
    """
    return _npz(os.path.expanduser(os.fspath(path)), one_label=False)


def _npz(path: str, one_label: bool) -> dataset_lib.Dataset:
    """Graphs of a file; labels of nodes that are all 0 are none, or are one label."""
    name = pathlib.Path(path).stem
    there = files.headers(path)
    for key in ("edge_index", "node_ptr"):
        if key not in there:
            hint = ""
            if "x_shape" in there or ("edge_index" in there and "y" in there):
                hint = "; one network whose nodes have labels is for open_network"
            raise ValueError(
                f"{path}: must have arrays edge_index and node_ptr, got "
                f"{', '.join(there) or 'nothing'}{hint}"
            )
    ptr, edges = files.load(path, "node_ptr"), files.load(path, "edge_index")
    _check_integers(path, "node_ptr", ptr, 1)
    _check_integers(path, "edge_index", edges, 2)
    if len(edges) != 2:
        raise ValueError(f"{path}: edge_index must be [2, E], got {list(edges.shape)}")
    if len(ptr) < 2 or ptr[0] != 0 or (ptr[1:] < ptr[:-1]).any() or ptr[-1] >= 2**31:
        raise ValueError(
            f"{path}: node_ptr must ascend from 0 to the number of nodes, got "
            f"{', '.join(map(str, ptr[:5]))}{', ...' * (len(ptr) > 5)}"
        )
    ptr = ptr.astype(np.int64)  # differences of unsigned numbers wrap around
    graphs = sets.from_edges(
        path,
        np.repeat(np.arange(len(ptr) - 1), np.diff(ptr)),
        edges.T,
        nodes=files.load(path, "x") if "x" in there else None,
        node_labels=files.load(path, "node_label") if "node_label" in there else None,
        num_graphs=len(ptr) - 1,
    )
    if not one_label:
        graphs = _without_one_label(graphs)
    labels = files.load(path, "y") if "y" in there else None
    return sets.labelled(path, graphs, labels)._replace(name=name)


def tu(path: str | os.PathLike[str]) -> dataset_lib.Dataset:
    """Graphs in the text files of TUDataset.

    `NAME_A.txt`, `NAME_graph_indicator.txt` and `NAME_graph_labels.txt` must be there,
    `NAME_node_labels.txt` and `NAME_node_attributes.txt` may be; labels and attributes
    of edges are not read. Of several node labels in a line the first one is taken.

    Args:
      path: a folder, or a `.zip`, that holds them, whatever the folder inside.

    Returns:
      The data set, called NAME.

    Raises:
      FileNotFoundError: if the folder or a file of it is missing.
      ValueError: if a file is cut short or damaged, or they do not fit each other.

    Warns:
      UserWarning: of loops, and of graphs without edges.

    Source:
      TUDataset, https://arxiv.org/abs/2007.08663, and its file format.
    """
    path = os.path.expanduser(os.fspath(path))
    read = _members(path)
    found = sorted(name[: -len("_A.txt")] for name in read if name.endswith("_A.txt"))
    if len(found) != 1:
        raise (ValueError if found else FileNotFoundError)(
            f"{path}: expected the files of one set, NAME_A.txt and so on, got "
            f"{', '.join(found) or 'none'}"
        )
    name = found[0]

    def table(
        kind: str, number: type = np.int64, width: int | None = None
    ) -> np.ndarray | None:
        member = f"{name}_{kind}.txt"
        if member not in read:
            return None
        return _table(f"{path}: {member}", read[member](), number, width)

    needed: dict[str, Any] = {}
    for kind, columns in (("A", 2), ("graph_indicator", 1), ("graph_labels", 1)):
        needed[kind] = table(kind, width=columns)
        if needed[kind] is None:
            raise FileNotFoundError(f"{path}: {name}_{kind}.txt is missing")
    of = needed["graph_indicator"][:, 0] - 1
    if len(of) and of.min() < 0:
        raise ValueError(
            f"{path}: {name}_graph_indicator.txt must number graphs from 1, got "
            f"{of.min() + 1}"
        )
    labels, attributes = table("node_labels"), table("node_attributes", np.float64)
    for kind, rows in (("node_labels", labels), ("node_attributes", attributes)):
        if rows is not None and len(rows) != len(of):
            raise ValueError(
                f"{path}: {name}_{kind}.txt must have {len(of):,} lines, one for each "
                f"node, got {len(rows):,}"
            )
    graph_labels = needed["graph_labels"][:, 0]
    if len(of) and len(graph_labels) != of.max() + 1:
        raise ValueError(
            f"{path}: {name}_graph_labels.txt must have a line for each of the "
            f"{of.max() + 1:,} graphs, got {len(graph_labels):,}"
        )
    ends = needed["A"]
    outside = ((ends < 1) | (ends > len(of))).any(axis=1)
    if outside.any():
        line = np.flatnonzero(outside)[0]
        raise ValueError(
            f"{path}: {name}_A.txt must join nodes 1 to {len(of):,}, and line "
            f"{line + 1} joins {ends[line, 0]} and {ends[line, 1]}"
        )
    graphs = sets.from_edges(
        path,
        of,
        ends - 1,
        nodes=attributes,
        node_labels=None if labels is None else labels[:, 0],
        num_graphs=len(graph_labels),
        first=1,
    )
    return sets.labelled(path, graphs, graph_labels)._replace(name=name)


def _members(path: str) -> dict[str, Callable[[], str]]:
    """The files of sets in a folder or a zip, by name, and how to read each."""
    folder = pathlib.Path(path)
    if folder.is_dir():
        found = sorted(str(f.relative_to(folder)) for f in folder.rglob("*.txt"))
    elif folder.is_file():
        with (
            _readable(path, "not a readable zip file"),
            zipfile.ZipFile(path) as archive,
        ):
            found = archive.namelist()
    else:
        raise FileNotFoundError(f"{path}: there is no such folder or file")

    def reader(member: str) -> Callable[[], str]:
        def read() -> str:
            with _readable(path, f"{member} is damaged"):
                if folder.is_dir():
                    return (folder / member).read_bytes().decode("utf-8-sig")
                with zipfile.ZipFile(path) as archive:
                    return archive.read(member).decode("utf-8-sig")

        return read

    members: dict[str, str] = {}
    for member in found:
        name = pathlib.PureWindowsPath(member).name  # some zips have backslashes
        if not name.endswith(_READ) or name.startswith("."):
            continue  # a Mac puts a ._NAME_A.txt of its own beside NAME_A.txt
        if name in members:
            raise ValueError(
                f"{path}: must hold the files of one set, got {members[name]} and "
                f"{member}"
            )
        members[name] = member
    return {name: reader(member) for name, member in members.items()}


@contextlib.contextmanager
def _readable(path: str, what: str) -> Iterator[None]:
    """Says which file cannot be read, and why."""
    # RuntimeError: it has a password, or is compressed in a way that is not known.
    known = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
    try:
        yield
    except known as error:
        raise ValueError(f"{path}: {what}: {error}") from error


def _table(where: str, text: str, number: type, width: int | None) -> np.ndarray:
    """Lines of numbers between commas or blanks, all of one width."""
    if not text.strip():
        raise ValueError(f"{where} must hold numbers, and is empty")
    if not text.endswith("\n") and text.rstrip()[-1] in ",+-.eE":
        last = text.splitlines()[-1]
        raise ValueError(f"{where} is cut short: its last line is {last!r}")
    try:
        lines = io.StringIO(text.replace(",", " "), newline=None)  # of any system
        rows: Any = np.loadtxt(lines, number, comments=None, ndmin=2)
    except ValueError:
        rows = np.zeros((0, 0))
    if rows.shape[1] and width in (None, rows.shape[1]):
        return rows
    # Which line it is, where something is wrong.
    kind = "integer" if number is np.int64 else "number"
    for i, line in enumerate(text.splitlines(), 1):
        cells = re.split(r"[,\s]+", line.strip())
        try:
            values = [number(cell) for cell in cells if cell]
        except (ValueError, OverflowError):
            values = []
        width = width or max(1, len(values))
        if len(values) != width and (values or line.strip()):
            kinds = f"{width} {kind}s" if width > 1 else f"1 {kind}"
            shown = line if len(line) <= 60 else f"{line[:60]} ..."
            raise ValueError(
                f"{where} must have {kinds} in each line, got {shown!r} in line {i}"
            )
    raise ValueError(f"{where} must hold {kind}s")


def _without_one_label(graphs: sets.Graphs) -> sets.Graphs:
    """Labels that are all the same are what a file without labels was filled with."""
    if graphs.node_labels is not None and not graphs.node_labels.any():
        return graphs._replace(node_labels=None, label_values=None)
    return graphs


def _check_integers(path: str, key: str, x: np.ndarray, ndim: int) -> None:
    if x.ndim != ndim or not np.issubdtype(x.dtype, np.integer):
        raise ValueError(
            f"{path}: {key} must be integers of {ndim} axes, got {x.dtype} "
            f"{list(x.shape)}"
        )
