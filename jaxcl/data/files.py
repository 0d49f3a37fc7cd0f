"""Sources that are arrays: scikit-learn's digits, `.npz` and `.npy` files."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from jaxcl import _optional
from jaxcl.data import batching, splits
from jaxcl.data import dataset as dataset_lib

IMAGE_KEYS = ("images", "image", "x")
LABEL_KEYS = ("labels", "label", "y")
CLASS_KEYS = ("class_names", "classes")


def digits(split: str = "train") -> dataset_lib.Dataset:
    """The 1,797 handwritten 8x8 digits inside scikit-learn: real, and no download.

    The images are shuffled once, by `permutation(1797, 0, 0)`. The last 497 are "test",
    held out for good; the first 1,300 are "train". Gray levels 0 to 16 become 0 to 255.

    Args:
      split: "train" or "test", or a slice such as "train[:90%]" or
        "train[:90%,stratified]".

    Returns:
      Images uint8 [n, 8, 8, 1] and labels of 10 classes.

    Raises:
      ImportError: if scikit-learn is not installed.
      ValueError: if the split is unknown.

    >>> digits("test").columns["image"].shape
    (497, 8, 8, 1)
    """
    name = dataset_lib.split_name(split)
    if name not in ("train", "test"):
        raise ValueError(f"digits has splits 'train' and 'test', got {split!r}")
    datasets = _optional.require("sklearn.datasets", "the source 'digits'", "tools")
    bunch = datasets.load_digits()
    order = batching.permutation(1797, 0, 0)
    order = order[:1300] if name == "train" else order[1300:]
    images = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    names = [str(c) for c in range(10)]
    whole = dataset_lib.from_arrays("digits", images, bunch.target[order], names)
    return splits.select(whole, split)


def arrays(path: str | os.PathLike[str], split: str = "train") -> dataset_lib.Dataset:
    """Images in a NumPy file.

    A `.npz` file holds images under one of the keys `images`, `image`, `x`, and may
    hold labels under `labels`, `label`, `y` and names of the classes under
    `class_names`, `classes`. With several splits, the keys of images and labels begin
    or end with the split's name: `train_images`, `y_test`. Without, all images are
    "train". A `.npy` file holds images alone. What is not compressed is mapped, not
    read.

    Args:
      path: the file; images uint8 [n, h, w] or [n, h, w, c], labels integers [n].
      split: which images; or a slice of them such as "train[:90%]", or one drawn
        evenly over the classes, "train[:90%,stratified]".

    Returns:
      The data set; it is called after the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file cannot be read, lacks the split, or holds something else.
    """
    path = os.path.expanduser(os.fspath(path))
    name = dataset_lib.split_name(split)
    if path.endswith(".npy"):
        _check_split(path, name, ("train",))
        whole = dataset_lib.from_arrays(path, load(path))
    else:
        whole = _from_npz(path, name)
    return splits.select(whole, split)


def array_splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the splits in a NumPy file that `arrays` reads.

    Args:
      path: a `.npz` or `.npy` file.

    Returns:
      The names, sorted; ("train",) where the keys name no split.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file cannot be read or holds no images.
    """
    path = os.path.expanduser(os.fspath(path))
    found = list(headers(path))
    return ("train",) if path.endswith(".npy") else _splits(path, found)


class Header(NamedTuple):
    """What a file says about an array before its numbers.

    Attributes:
      shape: of the array.
      dtype: of its numbers; `object` where they would have to be unpickled.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def headers(path: str | os.PathLike[str]) -> dict[str, Header]:
    """Shapes and dtypes of the arrays in a NumPy file; no number is read.

    Args:
      path: a `.npz` or `.npy` file.

    Returns:
      A header for each key, in the order of the file; the key of a `.npy` file is "".

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a whole file that NumPy saved.
    """
    path = _checked_path(path)
    if path.endswith(".npy"):
        with _readable(path), open(path, "rb") as stream:
            return {"": _header(stream)}
    found = {}
    with _readable(path), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):  # others are no arrays
                with archive.open(member) as stream:
                    found[member.removesuffix(".npy")] = _header(stream)
    return found


def load(path: str | os.PathLike[str], key: str = "") -> np.ndarray:
    """One array of a NumPy file: mapped, not read, unless it is compressed.

    Args:
      path: a `.npz` or `.npy` file.
      key: name of an array of a `.npz` file.

    Returns:
      The array, read-only where it is mapped.

    Raises:
      FileNotFoundError: if there is no such file.
      KeyError: if it has no such array.
      ValueError: if it is damaged, or holds Python objects, which are not unpickled.
    """
    path = _checked_path(path)
    if path.endswith(".npy"):
        with _readable(path):
            return np.lib.format.open_memmap(path, "r")
    with _readable(path), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
    with _readable(path, f"cannot read array {key!r}"):
        if info.compress_type == zipfile.ZIP_STORED:
            return _stored(path, info.header_offset)
        with np.load(path, allow_pickle=False) as content:
            return content[key]


def first_key(keys: Any, choices: tuple[str, ...], split: str = "") -> str | None:
    """The first of some keys that a file has, alone or joined with a split's name.

    Args:
      keys: the keys of the file.
      choices: names in order of preference.
      split: name of a split, or "" for keys that name none.

    Returns:
      The key, or None.
    """
    for choice in choices:
        for key in (f"{split}_{choice}", f"{choice}_{split}") if split else (choice,):
            if key in keys:
                return key
    return None


def _checked_path(path: str | os.PathLike[str]) -> str:
    path = os.path.expanduser(os.fspath(path))
    if not path.endswith((".npz", ".npy")):
        raise ValueError(f"{path}: expected a file ending in .npz or .npy")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    return path


@contextlib.contextmanager
def _readable(path: str, what: str = "not a readable NumPy file") -> Iterator[None]:
    """Says which file cannot be read, and why."""
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {what}: {error}") from error


def _header(stream: IO[bytes]) -> Header:
    """Reads a header and leaves the stream at the numbers."""
    shape, _, dtype = _layout(stream)
    return Header(shape, dtype)


def _layout(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns are contiguous, and dtype."""
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"format version {version}")
    return readers[version](stream)


def _stored(path: str, offset: int) -> np.ndarray:
    """An array of a .npz file that lies there as it is, behind its local header."""
    with open(path, "rb") as stream:
        stream.seek(offset + 26)
        lengths = np.frombuffer(stream.read(4), "<u2")
        stream.seek(offset + 30 + int(lengths.sum()))
        shape, fortran, dtype = _layout(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not unpickled")
        if 0 in shape:
            return np.empty(shape, dtype)
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", stream.tell(), shape, order)


def _from_npz(path: str, name: str) -> dataset_lib.Dataset:
    keys = list(headers(path))
    there = _splits(path, keys)
    _check_split(path, name, there)
    prefix = "" if first_key(keys, IMAGE_KEYS) else name
    image_key = first_key(keys, IMAGE_KEYS, prefix)
    label_key = first_key(keys, LABEL_KEYS, prefix)
    class_key = first_key(keys, CLASS_KEYS)
    assert image_key is not None
    images = load(path, image_key)
    if label_key is None:
        return dataset_lib.from_arrays(path, images)
    labels = load(path, label_key)
    if class_key is not None:
        names = load(path, class_key)
        return dataset_lib.from_arrays(path, images, labels, [str(c) for c in names])
    whole = dataset_lib.from_arrays(path, images, labels)
    # A small split may lack the last classes: the number comes from all of them.
    others = {first_key(keys, LABEL_KEYS, s) for s in there} - {None, label_key}
    most = len(whole.class_names or ())
    for key in filter(None, others):
        most = max(most, int(np.max(load(path, key), initial=0)) + 1)
    return whole._replace(class_names=tuple(str(c) for c in range(most)))


def _splits(path: str, keys: list[str]) -> tuple[str, ...]:
    if first_key(keys, IMAGE_KEYS):
        return ("train",)
    found = set()
    for key in keys:
        for choice in IMAGE_KEYS:
            if key.endswith(f"_{choice}"):
                found.add(key.removesuffix(f"_{choice}"))
            if key.startswith(f"{choice}_"):
                found.add(key.removeprefix(f"{choice}_"))
    if not found:
        raise ValueError(
            f"{path}: expected images under one of the keys {', '.join(IMAGE_KEYS)} "
            f"(or train_images, x_test and so on), got {', '.join(keys) or 'nothing'}"
        )
    return tuple(sorted(found))


def _check_split(path: str, name: str, there: tuple[str, ...]) -> None:
    if name not in there:
        hint = ""
        if there == ("train",):
            hint = (
                "; hold images out with slices drawn evenly over the classes: "
                "'train[:80%,stratified]', 'train[80%:,stratified]'"
            )
        raise ValueError(
            f"{path}: has split {', '.join(map(repr, there))}, got {name!r}{hint}"
        )
