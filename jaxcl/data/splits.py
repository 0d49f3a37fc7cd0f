"""Parts of a set: slices, and parts that are drawn evenly over its classes."""

import warnings
from collections.abc import Sequence

import numpy as np

from jaxcl.data import batching
from jaxcl.data import dataset as dataset_lib

# A part that should hold this many images of a class, were the order random, holds one
# with a probability of 1 - exp(-7).
_SURELY = 7


def select(whole: dataset_lib.Dataset, split: str) -> dataset_lib.Dataset:
    """The part of a set that a split names.

    Args:
      whole: all examples of the split in front of the slice.
      split: "train"; "train[:80%]", consecutive examples; or "train[:80%,stratified]",
        the same of `stratified_order`.

    Returns:
      The part.

    Raises:
      ValueError: if the split cannot be parsed, reaches outside, or leaves nothing.

    Warns:
      UserWarning: if consecutive examples lack classes that as many drawn ones would
        hold: the set is sorted by class.

    >>> sorted_set = dataset_lib.from_arrays(
    ...     "made up", np.zeros((10, 1, 1), np.uint8), np.arange(10) // 5)
    >>> print(select(sorted_set, "train[80%:,stratified]").columns["label"])
    [0 1]
    """
    n = dataset_lib.size(whole)
    labels = whole.columns.get("label")
    if dataset_lib.is_stratified(split):
        return dataset_lib.take(whole, places(whole, split))
    found = dataset_lib.part(whole, *dataset_lib.split_range(split, n))
    if labels is not None:
        warn_if_sorted(found, split, np.asarray(labels[np.arange(n)]))
    return found


def places(whole: dataset_lib.Dataset, split: str) -> np.ndarray:
    """Where the examples of a split lie in the set that `select` draws it from.

    Args:
      whole: all examples of the split in front of the slice.
      split: as `select` takes it.

    Returns:
      Indices, int64 [m].

    Raises:
      ValueError: as `select`.
    """
    n = dataset_lib.size(whole)
    start, stop = dataset_lib.split_range(split, n)
    if not dataset_lib.is_stratified(split):
        return np.arange(start, stop)
    labels = whole.columns.get("label")
    given = n if labels is None else np.asarray(labels[np.arange(n)])
    return stratified_order(given)[start:stop]


def stratified_order(labels: np.ndarray | int) -> np.ndarray:
    """An order whose every stretch holds the classes in proportion.

    Example r = 0, 1, ... of the m_c of a class, in an order drawn once, is placed by
    r / m_c. So it begins with one example of every class.

    Args:
      labels: integers [n]; or n, where there are none.

    Returns:
      A permutation of 0 .. n - 1, int64 [n], which depends on the labels alone.

    >>> print(stratified_order(np.array([0, 0, 0, 0, 1, 1])) // 4)
    [0 1 0 0 1 0]
    """
    n = labels if isinstance(labels, int) else len(labels)
    order = batching.permutation(n, 0, 0)
    if isinstance(labels, int):
        return order
    _, label, counts = np.unique(labels[order], return_inverse=True, return_counts=True)
    by_class = np.argsort(label, kind="stable")
    first = np.cumsum(counts) - counts
    rank = np.empty(n, np.int64)
    rank[by_class] = np.arange(n) - np.repeat(first, counts)
    return order[np.argsort(rank / counts[label], kind="stable")]


def warn_if_sorted(
    part: dataset_lib.Dataset, split: str, labels: np.ndarray | None = None
) -> None:
    """Warns of classes that a slice lacks and as many drawn examples would hold.

    Args:
      part: the slice, with labels.
      split: what names it.
      labels: of the whole set, where they are known; else its classes are taken to be
        of one size.
    """
    names = part.class_names or ()
    mine = part.columns["label"][np.arange(dataset_lib.size(part))]
    mine = np.bincount(mine[mine >= 0], minlength=len(names))  # TFDS: -1 is unlabelled
    share = np.full(len(mine), 1 / max(1, len(mine)))
    if labels is not None:
        share = np.bincount(labels, minlength=len(mine)) / len(labels)
    lacking = np.flatnonzero((mine == 0) & (share * mine.sum() >= _SURELY))
    if len(lacking):
        warnings.warn(
            f"{part.name}: split {split!r} holds no image of "
            f"{some_classes(lacking, names)}, as slices of a set sorted by class do; "
            f"{_drawn(split)!r} is drawn evenly over the classes",
            stacklevel=2,
        )


def some_classes(labels: Sequence[int] | np.ndarray, names: Sequence[str]) -> str:
    """The number of classes and some of their names, for messages.

    Args:
      labels: their numbers.
      names: of all classes.

    Returns:
      Such as "2 classes (cat, dog)".
    """
    shown = ", ".join(names[c] if c < len(names) else str(c) for c in labels[:5])
    more = f" and {len(labels) - 5:,} more" if len(labels) > 5 else ""
    return f"{len(labels):,} class{'es' * (len(labels) > 1)} ({shown}{more})"


def _drawn(split: str) -> str:
    """The same split, drawn."""
    return split[:-1] + ",stratified]" if split.endswith("]") else split
