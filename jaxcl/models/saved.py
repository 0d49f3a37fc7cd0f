"""An encoder as two files.

    encoder.json          kind of data, architecture, and what is done to the data
    encoder.safetensors   parameters and running statistics, with checksums of all

What was trained with one description of the data is evaluated with the same one:
`encode` is the only place where an encoder is given data outside of training.
"""

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, _checksums, _files, _optional
from jaxcl.models import kinds
from jaxcl.models.kinds import Described, encode, initialize

# Images were the only kind at first: their files name none, and stay as they were.
FIRST_FORMAT = "jaxcl encoder 1"
FORMAT = "jaxcl encoder 2"


def save(
    directory: str | os.PathLike,
    described: Described,
    variables: Mapping[str, Any],
    *,
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Writes `encoder.safetensors` and `encoder.json`, which `load` reads.

    Args:
      directory: of the files; made if needed. Files of these names are replaced.
      described: of the model.
      variables: of the model, as `model.init` gives them.
      trained: what a reader should know of where they come from; JSON can hold it.

    Raises:
      ImportError: if safetensors is not installed.
    """
    numpy: Any = _optional.require("safetensors.numpy", "an encoder's file", "train")
    directory = pathlib.Path(directory)
    leaves = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    with _files.replacing(directory / "encoder.safetensors") as unfinished:
        unfinished.write_bytes(
            numpy.save(
                arrays,
                metadata={
                    "format": _content(described)["format"],
                    "model": _checksums.of_json(described._asdict()),
                    "arrays": json.dumps(_checksums.of_arrays(arrays), sort_keys=True),
                },
            )
        )
    write_description(directory, described, trained=trained)


def write_description(
    directory: str | os.PathLike,
    described: Described,
    *,
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Writes `encoder.json` alone, as a run does when it begins.

    Of several processes only the first writes.

    Args:
      directory: of the file.
      described: of the model.
      trained: as `save`.
    """
    if jax.process_index() != 0:
        return
    content = _content(described)
    if trained is not None:
        content["trained"] = dict(trained)
    _files.write_json(pathlib.Path(directory) / "encoder.json", content)


def read_description(directory: str | os.PathLike) -> Described:
    """Reads `encoder.json`.

    Args:
      directory: of an exported encoder, or of a run.

    Returns:
      The description.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is of another format, or damaged.
    """
    path = pathlib.Path(directory) / "encoder.json"
    if not path.parent.exists():
        raise FileNotFoundError(f"there is no directory {path.parent}")
    if not path.is_file():
        towers = [p.parent.name for p in sorted(path.parent.glob("*/encoder.json"))]
        if towers:
            raise FileNotFoundError(
                f"{path}: no such file; there are encoders in its directories "
                f"{', '.join(towers)}"
            )
        raise FileNotFoundError(
            f"{path}: no such file; expected the directory of an exported encoder, or "
            "of a run whose script calls models.write_description, as those of "
            "experiments on images, on sets of graphs and on text do"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] not in (FIRST_FORMAT, FORMAT):
            raise ValueError(
                f"format must be {FIRST_FORMAT!r} or {FORMAT!r}, got "
                f"{content['format']!r}"
            )
        kind = "images" if content["format"] == FIRST_FORMAT else content["kind"]
        _checks.choice("kind", kind, tuple(kinds.KINDS))
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["model"].items()
        }
        described: Described = kinds.KINDS[kind].description(**values)
        return described
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not an encoder's description: {error}") from error


def load(
    directory: str | os.PathLike, *, layer: str = "h"
) -> Callable[[Any], jax.Array]:
    """Brings an exported encoder back.

        encoder = models.load("encoders/digits")
        h = jax.jit(encoder)(images)

    Args:
      directory: with `encoder.safetensors` and `encoder.json`.
      layer: "h" or "z", as `encode`.

    Returns:
      A function from uint8 images [n, h, w, c], from a `TokenBatch` [n, L], or from a
      `GraphBatch` of n graphs whose nodes have the features of the description, to h
      [n, r]; a
      `jax.tree_util.Partial`, so its variables are inputs of a compiled program.

    Raises:
      FileNotFoundError: if a file is missing.
      ImportError: if safetensors is not installed.
      ValueError: if the files are damaged, or do not belong together.
    """
    described = read_description(directory)
    variables = read_variables(directory, described)
    return jax.tree_util.Partial(encode(described, layer), variables)


def read_variables(
    directory: str | os.PathLike, described: Described
) -> dict[str, Any]:
    """Reads `encoder.safetensors`, and checks that it is of a description.

    Args:
      directory: of the file.
      described: of the model.

    Returns:
      Variables of the model.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if safetensors is not installed.
      ValueError: if it is damaged, or of another model.
    """
    safetensors: Any = _optional.require("safetensors", "an encoder's file", "train")
    path = pathlib.Path(directory) / "encoder.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected an exported encoder, which `jaxcl export "
            "RUN` writes of a run"
        )
    try:
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:  # safetensors has an error of its own
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    wanted = jax.eval_shape(
        lambda: initialize(described, jax.random.key(0))  # of the shapes alone
    )
    expected = {
        name: (leaf.dtype, leaf.shape)
        for name, leaf in flax.traverse_util.flatten_dict(wanted, sep="/").items()
    }
    found = {name: (x.dtype, x.shape) for name, x in arrays.items()}
    if found != expected:
        names = sorted(
            name
            for name in found.keys() | expected.keys()
            if found.get(name) != expected.get(name)
        )
        first = names[0]
        raise ValueError(
            f"{path}: must hold the arrays of encoder.json; {len(names)} differ, the "
            f"first is {first}: expected {expected.get(first, 'none')}, got "
            f"{found.get(first, 'none')}"
        )
    _verify(path, described, arrays, metadata)
    leaves = {name: jnp.asarray(x) for name, x in arrays.items()}
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def _content(described: Described) -> dict[str, Any]:
    """What `encoder.json` says of a model."""
    kind, model = kinds.kind_of(described), described._asdict()
    if kind == "images":
        return {"format": FIRST_FORMAT, "model": model}
    return {"format": FORMAT, "kind": kind, "model": model}


def _verify(
    path: pathlib.Path,
    described: Described,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Raises unless an exported encoder is as it was written."""
    if not {"model", "arrays"} <= metadata.keys():
        warnings.warn(
            f"{path}: has no checksums, so damage to it would not be noticed",
            stacklevel=3,
        )
        return
    if metadata["model"] != _checksums.of_json(described._asdict()):
        raise ValueError(
            f"{path}: must lie beside the encoder.json that it was written with, and "
            "this one says something else"
        )
    found = json.dumps(_checksums.of_arrays(arrays), sort_keys=True)
    if found != metadata["arrays"]:
        raise ValueError(
            f"{path}: must be as it was written, and its arrays are not; export the "
            "encoder again"
        )
