"""The column of captions: several texts for each image, and their tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.data import dataset as dataset_lib
from jaxcl.data import text
from jaxcl.data.text import rows as rows_lib


class Captions:
    """A column of several texts for each example: indices [b] give a list of lists.

    Args:
      texts: all captions, those of one example after those of another, objects [m].
      ptr: where those of each example begin, int64 [n + 1].

    Raises:
      ValueError: if ptr does not cut the texts into n parts, none of them empty.

    >>> captions = Captions(["a cat", "a tom", "a dog"], [0, 2, 3])
    >>> captions[np.array([1, 0])]
    [['a dog'], ['a cat', 'a tom']]
    """

    def __init__(self, texts: Sequence[str] | np.ndarray, ptr: Any) -> None:
        self.texts = np.empty(len(texts), object)
        self.texts[:] = texts
        self.ptr = np.asarray(ptr, np.int64)
        ends = self.ptr[[0, -1]].tolist() if self.ptr.size else []
        if self.ptr.ndim != 1 or ends != [0, len(texts)]:
            raise ValueError(
                f"ptr must lead from 0 to the {len(texts)} texts, got {ends}"
            )
        none = np.flatnonzero(np.diff(self.ptr) < 1)
        if len(none):
            raise ValueError(
                f"each example must have a caption, and {none[0]} has none"
            )

    @property
    def example(self) -> np.ndarray:
        """The example that each caption describes, int64 [m]."""
        return np.repeat(np.arange(len(self)), np.diff(self.ptr))

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __getitem__(self, indices: Any) -> Any:
        index = np.arange(len(self))[indices]
        if np.ndim(index) == 0:
            return self.texts[self.ptr[index] : self.ptr[index + 1]].tolist()
        return [self[i] for i in index.tolist()]

    def subset(self, indices: np.ndarray) -> "Captions":
        """The captions of some examples, as a column of its own."""
        each = self[indices]
        ptr = np.append(0, np.cumsum([len(captions) for captions in each]))
        return Captions([text for captions in each for text in captions], ptr)


def of_lists(each: Sequence[Sequence[str]]) -> Captions:
    """The column of the captions of each example, spaces around them taken away.

    Args:
      each: captions of each example; none of them empty.

    Returns:
      The column.
    """
    ptr = np.append(0, np.cumsum([len(captions) for captions in each]))
    return Captions([text.strip() for captions in each for text in captions], ptr)


def shared(captions: Captions) -> np.ndarray:
    """Groups of the images that share captions.

    Images with a caption in common are of one group, and so are those that others lead
    to: if one shares a caption with a second and this one shares another caption with a
    third, the three are a group. So a caption is never right for images of two groups.

    Args:
      captions: two are the same if all their letters are.

    Returns:
      int32 [n], numbered as they come; all different where nothing is shared.

    >>> print(shared(of_lists([["a dog"], ["a cat"], ["a dog ", "it runs"]])))
    [0 1 0]
    """
    example = captions.example
    same = np.unique(captions.texts.astype(str), return_inverse=True)[1]
    group = np.arange(len(captions))
    while True:
        # Each image takes the least number of those with which it shares a caption.
        least = np.full(len(same), len(group))
        np.minimum.at(least, same, group[example])
        joined = group.copy()
        np.minimum.at(joined, example, least[same])
        if np.array_equal(joined, group):
            return np.unique(group, return_inverse=True)[1].astype(np.int32)
        group = joined


def texts_of(dataset: dataset_lib.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All captions of a set, and which example each describes.

    Args:
      dataset: with a column "caption" of texts.

    Returns:
      (texts, example): objects [m], and int64 [m].

    Raises:
      ValueError: if there is no such column, or it holds rows of tokens already.
    """
    column = dataset_lib.column_of(dataset, "caption")
    if not isinstance(column, Captions):
        each = column[np.arange(dataset_lib.size(dataset))]
        if not isinstance(each, list):
            raise ValueError(f"{dataset.name}: must hold texts, got rows of tokens")
        column = of_lists(each)
    return column.texts, column.example


def tokenize(
    dataset: dataset_lib.Dataset,
    vocabulary: text.Vocabulary,
    *,
    longest: int,
    too_long: rows_lib.TooLong = "refuse",
) -> dataset_lib.Dataset:
    """Makes rows of tokens of the captions of a set, as many for each image.

    Args:
      dataset: with a column "caption" of texts.
      vocabulary: which tokens.
      longest: how many tokens a row may have, the special ones included.
      too_long: what becomes of longer captions. "refuse": an error says how many there
        are; "cut": they lose their ends, and `about` says how many.

    Returns:
      The data set, in which "caption" gives a `TokenBatch` [b, c, L]: c is the number
      of captions of the image that has most of them, L the length of the longest. A row
      of a caption that is missing has no valid token.

    Raises:
      ValueError: if a caption is empty, or too long.
    """
    texts, example = texts_of(dataset)
    singles = dataset_lib.Dataset(dataset.name, {"sentence": texts})
    rows = text.rows_of(
        text.tokenize(singles, vocabulary, longest=longest, too_long=too_long)
    )
    counts = np.bincount(example, minlength=dataset_lib.size(dataset))
    place = np.arange(len(texts)) - np.repeat(np.cumsum(counts) - counts, counts)
    # What is missing is one more sentence, of no tokens.
    members = np.full((len(counts), counts.max()), len(texts))
    members[example, place] = np.arange(len(texts))
    ptr = np.append(rows.ptr, rows.ptr[-1])
    column = text.TokenRows(rows.ids, ptr, members, pad=rows.pad, cut=rows.cut)
    return dataset._replace(columns={**dataset.columns, "caption": column})


def about(dataset: dataset_lib.Dataset) -> str:
    """A line about the images and captions of a set.

    Args:
      dataset: of pairs, with texts or with rows of tokens.

    Returns:
      How many images there are and of what size, how many captions and of what length,
      and how many groups there are, if there are less than images.
    """
    n, column = dataset_lib.size(dataset), dataset_lib.column_of(dataset, "caption")
    height, width = dataset.columns["image"][np.arange(1)].shape[1:3]
    line = f"{dataset.name}: {n:,} images of {width}x{height}"
    if isinstance(column, text.TokenRows):
        sizes = np.diff(column.ptr)[column.members]
        counts, lengths, what = (sizes > 0).sum(axis=1), sizes[sizes > 0], "tokens"
    else:
        texts, example = texts_of(dataset)
        counts = np.bincount(example, minlength=n)
        lengths, what = np.array([len(caption.split()) for caption in texts]), "words"
    fewest, most = int(counts.min()), int(counts.max())
    each = str(fewest) if fewest == most else f"{fewest} to {most}"
    line += f", {each} caption{'s' * (most > 1)} each, {lengths.mean():.1f} {what} long"
    if isinstance(column, text.TokenRows):
        line += f", in rows of {column.lengths[-1]}"
        if column.cut:
            line += f"; {column.cut:,} captions were longer and are cut"
    if "group" in dataset.columns:
        groups = len(np.unique(dataset.columns["group"][np.arange(n)]))
        if groups < n:
            line += f"; they are {groups:,} groups"
    return line


def made(
    name: str,
    images: Any,
    captions: Captions,
    *,
    group: Any = None,
    label: Any = None,
    class_names: Sequence[str] | None = None,
) -> dataset_lib.Dataset:
    """A set of pairs of its columns.

    Args:
      name: what messages call it.
      images: column of n images.
      captions: of these.
      group: integers or texts [n], None: `shared` captions decide.
      label: integers or texts [n], or None.
      class_names: of integers; texts are sorted.

    Returns:
      The data set.

    Raises:
      ValueError: if lengths differ, or labels are no classes.
    """
    n = len(images)
    _check_length(name, "captions", len(captions), n)
    columns: dict[str, Any] = {"image": images, "caption": captions}
    if group is None:
        columns["group"] = shared(captions)
    else:
        group = _checked(name, "group", group, n)
        columns["group"] = as_they_come(group)
    if label is None:
        return dataset_lib.Dataset(name, columns)
    label = _checked(name, "label", label, n)
    if label.dtype.kind in "iu":
        most = int(label.max()) + 1
        names: Any = class_names
        if names is None:
            names = range(most)
        if label.min() < 0 or most > len(names):
            raise ValueError(
                f"{name}: label must lie in [0, {len(names)}), got values from "
                f"{label.min()} to {label.max()}"
            )
    else:
        names, label = np.unique(label.astype(str), return_inverse=True)
    columns["label"] = label.astype(np.int32)
    return dataset_lib.Dataset(name, columns, tuple(str(c) for c in names))


def as_they_come(values: np.ndarray) -> np.ndarray:
    """Numbers for values, in the order in which they come first, int32 [n].

    >>> print(as_they_come(np.array(["b", "a", "b"])))
    [0 1 0]
    """
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which].astype(np.int32)


def _checked(name: str, what: str, values: Any, n: int) -> np.ndarray:
    values = np.asarray(values)
    _check_length(name, what, len(values), n)
    if values.dtype.kind not in "iuU" or values.ndim != 1:
        raise ValueError(
            f"{name}: {what} must be integers or texts [{n}], got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values


def _check_length(name: str, what: str, got: int, n: int) -> None:
    if got != n:
        raise ValueError(
            f"{name}: {what} must be of the {n:,} images, one row each, got {got:,}"
        )
