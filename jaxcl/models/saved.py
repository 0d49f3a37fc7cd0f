"""A model in words that JSON can hold, and an encoder as two files.

    encoder.json          architecture, and what is done to pixels
    encoder.safetensors   parameters and running statistics, with checksums of all

What was trained with one description of pixels is evaluated with the same one: `encode`
is the only place where an encoder is given images outside of training.
"""

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, _checksums, _files, _optional
from jaxcl.models.embedder import Embedder
from jaxcl.models.resnet import resnet18, resnet34, resnet50
from jaxcl.models.small import ConvEncoder, Projector

FORMAT = "jaxcl encoder 1"


class Description(NamedTuple):
    """What a model of images is, and what it is given.

    Attributes:
      shape: of an image, (h, w, c).
      encoder: "small", "resnet18", "resnet34" or "resnet50".
      width: channels of the encoder's first stage.
      stem: of a residual network, "small" or "imagenet".
      dtype: in which the model computes, "float32" or "bfloat16".
      embedding: size d of the projector's output.
      projector: "normalized" with batch normalization inside, or "plain" without.
      projector_norm: whether z is batch-normalized, as the last step.
      mean, std: of each channel in [0, 1], by which pixels are standardized; None: not.
    """

    shape: tuple[int, ...]
    encoder: str = "small"
    width: int = 32
    stem: str = "small"
    dtype: str = "float32"
    embedding: int = 128
    projector: str = "normalized"
    projector_norm: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def build(described: Description) -> Embedder:
    """The model of a description.

    Args:
      described: of images.

    Returns:
      A Flax module from pixels [n, h, w, c] to embeddings z [n, d]; its method
      "represent" gives h [n, r].

    Raises:
      ValueError: if a name is not one of those above.

    >>> build(Description((8, 8, 1), width=4, embedding=16)).projector.output
    16
    """
    dtype = jnp.dtype(described.dtype)
    residual = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
    _checks.choice("encoder", described.encoder, ("small", *residual))
    _checks.choice("projector", described.projector, ("normalized", "plain"))
    encoder: Any
    if described.encoder == "small":
        encoder = ConvEncoder(width=described.width, dtype=dtype)
    else:
        encoder = residual[described.encoder](
            stem=described.stem, width=described.width, dtype=dtype
        )
    projector = Projector(
        described.embedding,
        batch_norm=described.projector == "normalized",
        normalize_output=described.projector_norm,
        dtype=dtype,
    )
    return Embedder(encoder, projector)


def initialize(described: Description, key: jax.Array) -> dict[str, Any]:
    """Variables of an untrained model, in one program that never runs the model.

    Args:
      described: of images.
      key: random key.

    Returns:
      {"params": ..., "batch_stats": ...}, on the default device; without
      "batch_stats" where nothing is batch-normalized.
    """
    model = build(described)

    def init(key: jax.Array) -> dict[str, Any]:
        image = jnp.zeros((1, *described.shape), jnp.float32)
        return dict(model.init(key, image, train=False))

    if isinstance(key, jax.core.Tracer):  # inside `jax.eval_shape`, for instance
        return init(key)
    # Runs once, so compile it fast rather than well: a ResNet-18 in 2 s and not in 9.
    on_cpu = jax.default_backend() == "cpu"
    options: dict[str, str | bool] = (
        {"xla_backend_optimization_level": "0"} if on_cpu else {}
    )
    return jax.jit(init).lower(key).compile(compiler_options=options)(key)


def encode(described: Description, layer: str = "h") -> Callable[..., jax.Array]:
    """What an encoder makes of images as they are stored.

        h = encoder((uint8 / 255 - mean) / std)

    Args:
      described: of images.
      layer: "h", the encoder's output, which probes read, or "z", the projector's,
        which the loss saw.

    Returns:
      A function (variables, uint8 images [n, h, w, c]) to float32 [n, r] or [n, d],
      with running statistics. Make it once: what it compiles belongs to it.

    Raises:
      ValueError: if the layer is another one; when called, if images are not uint8 or
        of another size.
    """
    _checks.choice("layer", layer, ("h", "z"))
    model = build(described)
    method = "represent" if layer == "h" else "__call__"

    def encode(variables: Any, images: jax.Array) -> jax.Array:
        if images.dtype != jnp.uint8 or images.shape[1:] != tuple(described.shape):
            raise ValueError(
                f"images must be uint8 [n, {', '.join(map(str, described.shape))}], "
                f"got {images.dtype} {list(images.shape)}"
            )
        pixels = images.astype(jnp.float32) / 255
        if described.mean is not None and described.std is not None:
            mean, std = (
                jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1)
                for x in (described.mean, described.std)
            )
            pixels = (pixels - mean) / std
        return jnp.asarray(model.apply(variables, pixels, train=False, method=method))

    return encode


def save(
    directory: str | os.PathLike,
    described: Description,
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
                    "format": FORMAT,
                    "model": _checksums.of_json(described._asdict()),
                    "arrays": json.dumps(_checksums.of_arrays(arrays), sort_keys=True),
                },
            )
        )
    write_description(directory, described, trained=trained)


def write_description(
    directory: str | os.PathLike,
    described: Description,
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
    content = {"format": FORMAT, "model": described._asdict()}
    if trained is not None:
        content["trained"] = dict(trained)
    _files.write_json(pathlib.Path(directory) / "encoder.json", content)


def read_description(directory: str | os.PathLike) -> Description:
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
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected the directory of an exported encoder, or "
            "of a run whose script calls models.write_description, as those of "
            "experiments on images do"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT!r}, got {content['format']!r}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["model"].items()
        }
        return Description(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not an encoder's description: {error}") from error


def load(
    directory: str | os.PathLike, *, layer: str = "h"
) -> Callable[[jax.Array], jax.Array]:
    """Brings an exported encoder back.

        encoder = models.load("encoders/digits")
        h = jax.jit(encoder)(images)

    Args:
      directory: with `encoder.safetensors` and `encoder.json`.
      layer: "h" or "z", as `encode`.

    Returns:
      A function from uint8 images [n, h, w, c] to h [n, r]; a `jax.tree_util.Partial`,
      so its variables are inputs of a compiled program.

    Raises:
      FileNotFoundError: if a file is missing.
      ImportError: if safetensors is not installed.
      ValueError: if the files are damaged, or do not belong together.
    """
    described = read_description(directory)
    variables = read_variables(directory, described)
    return jax.tree_util.Partial(encode(described, layer), variables)


def read_variables(
    directory: str | os.PathLike, described: Description
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
        raise FileNotFoundError(f"{path}: no such file; expected an exported encoder")
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


def _verify(
    path: pathlib.Path,
    described: Description,
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
