"""What a data set is, and what its sources share: checks, slices, a copy in memory."""

import operator
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Images(Protocol):
    """Random access to uint8 images: an array, or an object that reads files."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


class Dataset(NamedTuple):
    """Images with their labels, in a fixed order.

    Args:
      name: what messages and plots call it.
      images: uint8 [n, h, w, c]; an integer, a slice or an array of indices reads them.
      labels: class of each image, int32 [n], or None.
      num_classes: number of classes, or None where there are no labels.
      class_names: what the classes are called, or None.
    """

    name: str
    images: Images
    labels: np.ndarray | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def from_arrays(
    name: str,
    images: Any,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Dataset:
    """Checks images and labels and makes a data set of them.

    Args:
      name: what messages call the data, for example its file.
      images: uint8 [n, h, w] or [n, h, w, c], n > 0.
      labels: integers [n] or [n, 1] that are not negative, or None.
      class_names: a name for each class, or None.
      num_classes: number of classes; by default the number of names, else one more
        than the largest label.

    Returns:
      The data set, with a channel axis. The images are not copied.

    Raises:
      ValueError: if a shape, dtype or value is not as above.

    >>> gray = np.zeros((4, 8, 8), np.uint8)
    >>> from_arrays("made up", gray, [0, 1, 0, 1]).images.shape
    (4, 8, 8, 1)
    """
    images = _checked_images(name, images)
    if labels is None:
        return Dataset(name, images)
    labels = _checked_labels(name, labels, len(images))
    names = None if class_names is None else tuple(str(c) for c in class_names)
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if names is None else len(names)
    if labels.max() >= num_classes:
        raise ValueError(
            f"{name}: labels must be smaller than the number of classes "
            f"{num_classes}, got {labels.max()}"
        )
    return Dataset(name, images, labels, num_classes, names)


def part(dataset: Dataset, start: int, stop: int) -> Dataset:
    """The images from `start` up to `stop`, as a data set of its own.

    Args:
      dataset: a data set whose images can be sliced without reading them.
      start: first index.
      stop: index after the last.

    Returns:
      A data set of stop - start images; arrays are views.

    Raises:
      ValueError: if nothing would be left.
    """
    if not 0 <= start < stop <= len(dataset.images):
        raise ValueError(
            f"{dataset.name}: a part must hold images, got [{start}:{stop}] of "
            f"{len(dataset.images)}"
        )
    labels = None if dataset.labels is None else dataset.labels[start:stop]
    return dataset._replace(images=dataset.images[start:stop], labels=labels)


def to_memory(dataset: Dataset, block: int = 4096) -> Dataset:
    """The same data set with all its images in one array.

    Args:
      dataset: any data set; n * h * w * c bytes must fit.
      block: images read at a time.

    Returns:
      The data set with images uint8 [n, h, w, c] in memory; the same object if they
      are there already.

    Raises:
      ValueError: if an image cannot be read.
    """
    images = dataset.images
    if type(images) is np.ndarray:
        return dataset
    everything = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), block):
        everything[start : start + block] = images[start : start + block]
    return dataset._replace(images=everything)


def split_name(split: str) -> str:
    """The name in front of a split's slice.

    Args:
      split: such as "train" or "train[:90%]".

    Returns:
      The name: "train".

    Raises:
      ValueError: if it is not written like that.
    """
    return _parsed(split)[0]


def split_range(split: str, size: int) -> tuple[int, int]:
    """First and last index of a slice such as "train[:90%]".

    Counts and whole percentages, negative ones from the end, rounded as TFDS does.

    Args:
      split: a name, or a name and a slice.
      size: number of images in the whole split.

    Returns:
      (start, stop) with 0 <= start < stop <= size.

    Raises:
      ValueError: if it cannot be parsed, reaches outside, or leaves nothing.

    >>> split_range("train[:90%]", 1300), split_range("train[-100:]", 1300)
    ((0, 1170), (1200, 1300))
    """
    _, low, high = _parsed(split)
    start, stop = _position(low, 0, size), _position(high, size, size)
    if not 0 <= start < stop <= size:
        raise ValueError(
            f"split {split!r} must be a part of {size} images that is not empty, "
            f"got [{start}:{stop}]"
        )
    return start, stop


def checked_int(name: str, value: Any, least: int = 1) -> int:
    """Checks that an argument is an integer of at least `least`.

    Args:
      name: what the caller calls it.
      value: any integer type, also a NumPy or JAX scalar.
      least: smallest allowed value.

    Returns:
      The value as an int.

    Raises:
      TypeError: if it is no integer.
      ValueError: if it is smaller.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"{name} must be an integer, got {type(value).__name__}"
        ) from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _checked_images(name: str, images: Any) -> Any:
    if not isinstance(images, np.ndarray):
        images = np.asarray(images)
    if images.dtype != np.uint8:
        hint = ""
        if images.dtype.kind == "f":
            hint = ": float images have no agreed range, convert them first"
            if images.size and not np.isfinite(images).all():
                hint = ", with NaN or infinite values"
        raise ValueError(f"{name}: images must be uint8, got {images.dtype}{hint}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise ValueError(
            f"{name}: images must be [n, h, w] or [n, h, w, c], got {images.shape}"
        )
    if 0 in images.shape:
        raise ValueError(
            f"{name}: there must be at least one image, got shape {images.shape}"
        )
    if images.shape[1] in (1, 3) and images.shape[3] not in (1, 2, 3, 4):
        raise ValueError(
            f"{name}: images must be [n, h, w, c], got {images.shape}, which looks "
            "like [n, c, h, w]: transpose(0, 2, 3, 1)"
        )
    return images


def _checked_labels(name: str, labels: Any, length: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iub":
        broken = labels.dtype.kind == "f" and not np.isfinite(labels).all()
        raise ValueError(
            f"{name}: labels must be integers, got {labels.dtype}"
            + (" with NaN or infinite values" if broken else "")
        )
    if labels.shape != (length,):
        raise ValueError(
            f"{name}: there must be one label for each of {length} images, got labels "
            f"of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{name}: labels must be between 0 and 2^31 - 1, got "
            f"{labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)


_SPLIT = re.compile(r"([\w-]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def _parsed(split: str) -> tuple[str, str | None, str | None]:
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise ValueError(
            f"split must be a name or a slice such as 'train[:90%]', got {split!r}"
        )
    return match[1], match[2], match[3]


def _position(bound: str | None, default: int, size: int) -> int:
    if bound is None:
        return default
    if bound.endswith("%"):
        position = round(int(bound[:-1]) * size / 100)
    else:
        position = int(bound)
    return position + size if position < 0 else position
