"""What a data set is, and what its sources share: checks, slices, a copy in memory."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxcl import _host


class Column(Protocol):
    """Random access to one kind of thing: an array, or an object that reads files.

    An array of indices [n] gives a pytree of arrays [n, ...], always of one shape, so
    that no program is compiled twice: rows of tokens are columns too. A column with an
    attribute `per_pack`, such as `graphs.Packed`, puts so many examples together: n of
    them give arrays [n / per_pack, ...]. One with an attribute `groups` int [n], such
    as `text.TokenRows`, gives arrays of one shape for examples of one group; it may be
    None. One with a method `subset`, such as `pairs.Captions`, gives the column of some
    examples, of its own kind; those of other columns are read when they are asked. One
    whose `lazy` is true reads files, and several threads may ask at once.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> Any: ...


class Dataset(NamedTuple):
    """Columns of one length, in a fixed order.

    Attributes:
      name: what messages and plots call it.
      columns: by name, for instance "image" uint8 [n, h, w, c] and "label" int32 [n]. A
        set without labels has no column "label": nothing stands in for it.
      class_names: what the classes are called, or None.
    """

    name: str
    columns: Mapping[str, Column]
    class_names: tuple[str, ...] | None = None


def size(dataset: Dataset) -> int:
    """The number of examples of a data set.

    Args:
      dataset: any.

    Returns:
      The length of its columns.

    Raises:
      TypeError: if its columns are no mapping, or one takes no array of indices.
      ValueError: if it has no columns, or they differ in length.

    >>> size(from_arrays("made up", np.zeros((4, 8, 8), np.uint8)))
    4
    """
    if not isinstance(dataset.columns, Mapping):
        raise TypeError(
            f"{dataset.name}: columns must be a mapping from names to columns, got "
            f"{type(dataset.columns).__name__}"
        )
    for name, column in dataset.columns.items():
        if isinstance(column, list | tuple):
            raise TypeError(
                f"{dataset.name}: column {name!r} must take an array of indices, as "
                f"NumPy arrays do, got {type(column).__name__}"
            )
    lengths = {name: len(column) for name, column in dataset.columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"{dataset.name}: columns must be one or more of one length, got {lengths}"
        )
    return next(iter(lengths.values()))


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
      class_names: a name for each class, or None: their numbers.
      num_classes: number of classes; by default the number of names, else one more
        than the largest label.

    Returns:
      The data set, with a channel axis and a name for each class, if there are labels.
      The images are not copied.

    Raises:
      ValueError: if a shape, dtype or value is not as above.

    >>> gray = np.zeros((4, 8, 8), np.uint8)
    >>> digits = from_arrays("made up", gray, [0, 1, 0, 1])
    >>> digits.columns["image"].shape, digits.class_names
    ((4, 8, 8, 1), ('0', '1'))
    """
    images = _checked_images(name, images)
    if labels is None:
        return Dataset(name, {"image": images})
    labels = _checked_labels(name, labels, len(images))
    if class_names is None:
        class_names = [str(c) for c in range(num_classes or int(labels.max()) + 1)]
    if labels.max() >= len(class_names):
        raise ValueError(
            f"{name}: labels must be smaller than the number of classes "
            f"{len(class_names)}, got {labels.max()}"
        )
    columns = {"image": images, "label": labels}
    return Dataset(name, columns, tuple(str(c) for c in class_names))


def part(dataset: Dataset, start: int, stop: int) -> Dataset:
    """The examples from `start` up to `stop`, as a data set of its own.

    Args:
      dataset: any.
      start: first index.
      stop: index after the last.

    Returns:
      A data set of stop - start examples; arrays are views, other columns are read when
      they are asked.

    Raises:
      ValueError: if nothing would be left.
    """
    n = size(dataset)
    if not 0 <= start < stop <= n:
        raise ValueError(
            f"{dataset.name}: a part must hold examples, got [{start}:{stop}] of {n}"
        )

    def cut(column: Any) -> Any:
        if isinstance(column, np.ndarray):
            return column[start:stop]
        if hasattr(column, "subset"):
            return column.subset(np.arange(start, stop))
        return _Part(column, start, stop)

    columns = {name: cut(column) for name, column in dataset.columns.items()}
    return dataset._replace(columns=columns)


def take(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """Some examples in an order of their own, as a data set.

    Args:
      dataset: any.
      indices: of the examples, int [k], k > 0.

    Returns:
      A data set of k examples; arrays in memory are copied, other columns are read when
      they are asked.

    Raises:
      ValueError: if nothing would be left.
    """
    if not len(indices):
        raise ValueError(f"{dataset.name}: a part must hold examples, got none")

    def taken(column: Any) -> Any:
        if type(column) is np.ndarray:
            return column[indices]
        if hasattr(column, "subset"):
            return column.subset(indices)
        return _Taken(column, indices)

    columns = {name: taken(column) for name, column in dataset.columns.items()}
    return dataset._replace(columns=columns)


class _Taken:
    """Some rows of a column that is no array in memory."""

    def __init__(self, column: Column, indices: np.ndarray) -> None:
        self.column, self.indices = column, indices

    @property
    def shape(self) -> tuple[int, ...]:
        column: Any = self.column
        return (len(self), *column.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: Any) -> Any:
        return self.column[self.indices[indices]]


class _Part:
    """Some consecutive rows of a column that is no array."""

    def __init__(self, column: Column, start: int, stop: int) -> None:
        self.column, self.start, self.stop = column, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, indices: Any) -> Any:
        return self.column[np.arange(self.start, self.stop)[indices]]


def size_in_bytes(dataset: Dataset) -> int:
    """What a data set would take in memory, judged by its first example.

    Args:
      dataset: any.

    Returns:
      Bytes of all columns.
    """
    total = 0
    for column in dataset.columns.values():
        one = jax.tree.leaves(column[np.arange(1)])
        total += len(column) * sum(np.asarray(leaf).nbytes for leaf in one)
    return total


def is_packed(dataset: Dataset) -> bool:
    """Whether a column puts batches together on the host.

    Args:
      dataset: any.

    Returns:
      True if so: then an example has no row of its own, or rows differ in shape.
    """
    packs = any(hasattr(column, "per_pack") for column in dataset.columns.values())
    return packs or groups_of(dataset) is not None


def column_of(dataset: Dataset, name: str) -> Column:
    """A column of a data set.

    Raises:
      ValueError: if it is missing; it says which columns there are.
    """
    if name not in dataset.columns:
        raise ValueError(
            f"{dataset.name}: must have a column {name!r}, got "
            f"{', '.join(dataset.columns)}"
        )
    return dataset.columns[name]


def groups_of(dataset: Dataset) -> np.ndarray | None:
    """The group of each example, of which batches are drawn.

    Args:
      dataset: any.

    Returns:
      int [n], of the first column that has groups; None where none has.
    """
    for column in dataset.columns.values():
        groups = getattr(column, "groups", None)
        if groups is not None:
            return groups
    return None


def memory_limit() -> int:
    """How much of a data set is held in memory unless told otherwise.

    Returns:
      A quarter of this machine's memory in bytes, or of what a container or a job has
      of it; processes of one run on one machine share it evenly.
    """
    return _host.memory() // 4


def to_memory(
    dataset: Dataset, *, limit: int | None = None, block: int = 4096
) -> Dataset:
    """The same data set with its columns as arrays, if they fit into memory.

    Args:
      dataset: any data set.
      limit: bytes that may be read; None is `memory_limit()`.
      block: examples read at a time.

    Returns:
      The data set with all columns as arrays, or pytrees of them. As it came, to be
      read as it is needed, if more than the limit would have to be read. Arrays stay
      what they are, and those that are mapped from a file stay mapped: nothing of them
      is copied, and the system keeps of them what is used. A packed set stays as it is.

    Raises:
      ValueError: if an example cannot be read.
    """
    if is_packed(dataset):
        return dataset  # it lies there, and has no rows
    elsewhere = {
        name: column
        for name, column in dataset.columns.items()
        if not isinstance(column, np.ndarray | Rows)
    }
    unread = size_in_bytes(dataset._replace(columns=elsewhere))
    if unread > (memory_limit() if limit is None else limit):
        return dataset
    columns = {name: _read(column, block) for name, column in dataset.columns.items()}
    if all(column is dataset.columns[name] for name, column in columns.items()):
        return dataset
    return dataset._replace(columns=columns)


def _read(column: Column, block: int) -> Column:
    if type(column) is np.ndarray or isinstance(column, Rows):
        return column
    if isinstance(column, np.ndarray):
        return np.asarray(column)  # the same memory, mapped or not
    if isinstance(column[np.arange(1)], list):
        return column  # of texts, which are there
    n, everything = len(column), None
    for start in range(0, n, block):
        rows = column[np.arange(start, min(start + block, n))]
        if everything is None:
            everything = jax.tree.map(
                lambda x: np.empty((n, *x.shape[1:]), x.dtype), rows
            )
        for whole, new in zip(
            jax.tree.leaves(everything), jax.tree.leaves(rows), strict=True
        ):
            whole[start : start + len(new)] = new
    return everything if isinstance(everything, np.ndarray) else Rows(everything)


class Rows:
    """A column of a pytree of arrays [n, ...]: indices are taken of each leaf.

    Args:
      tree: pytree of arrays of one length.

    >>> print(Rows((np.arange(3), np.ones((3, 2))))[np.array([2])])
    (array([2]), array([[1., 1.]]))
    """

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.tree)[0])

    def __getitem__(self, indices: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[indices], self.tree)


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


def is_stratified(split: str) -> bool:
    """Whether a slice is one of an order drawn evenly over the classes.

    Args:
      split: such as "train[:90%]" or "train[:90%,stratified]".

    Returns:
      True for the second.

    Raises:
      ValueError: if it is not written like that.
    """
    return _parsed(split)[3]


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
    _, low, high, _ = _parsed(split)
    start, stop = _position(low, 0, size), _position(high, size, size)
    if not 0 <= start < stop <= size:
        raise ValueError(
            f"split {split!r} must be a part of {size} images that is not empty, "
            f"got [{start}:{stop}]"
        )
    return start, stop


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


_SPLIT = re.compile(r"([\w-]+)(?:\[(-?\d+%?)?:(-?\d+%?)?(, ?stratified)?\])?")


def _parsed(split: str) -> tuple[str, str | None, str | None, bool]:
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise ValueError(
            "split must be a name or a slice such as 'train[:90%]' or "
            f"'train[:90%,stratified]', got {split!r}"
        )
    return match[1], match[2], match[3], match[4] is not None


def _position(bound: str | None, default: int, size: int) -> int:
    if bound is None:
        return default
    if bound.endswith("%"):
        position = round(int(bound[:-1]) * size / 100)
    else:
        position = int(bound)
    return position + size if position < 0 else position
