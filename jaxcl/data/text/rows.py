"""Sentences in rows of tokens, whose lengths are a few that suit the sentences."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxcl import _checks
from jaxcl._token_batch import TokenBatch
from jaxcl.data import batching
from jaxcl.data import dataset as dataset_lib
from jaxcl.data.text import files
from jaxcl.data.text import vocabulary as vocabulary_lib

TooLong = Literal["refuse", "cut"]


class TokenRows:
    """The column of sentences: indices [b] give a `TokenBatch` [b, L], or [b, v, L].

    L is the smallest of the lengths that has room for the longest of them.

    Args:
      ids: tokens of all sentences, one after the other, int32 [N].
      ptr: where each sentence begins, int64 [m + 1].
      members: sentences of each example, int [n] or, of v sentences, [n, v]; None: each
        sentence is one.
      lengths: of rows, ascending; None: that of the longest sentence alone.
      pad: what padding holds.
      cut: how many sentences have lost their ends.

    Raises:
      ValueError: if the last of lengths has no room for an example.

    >>> rows = TokenRows(np.arange(2, 9), np.array([0, 3, 7]), lengths=(4, 8))
    >>> print(rows[np.array([0])].tokens, rows[np.array([1, 0])].valid.sum(axis=1))
    [[2 3 4 0]] [4 3]
    """

    def __init__(
        self,
        ids: np.ndarray,
        ptr: np.ndarray,
        members: np.ndarray | None = None,
        *,
        lengths: Sequence[int] | None = None,
        pad: int = 0,
        cut: int = 0,
    ) -> None:
        self.ids, self.ptr, self.pad, self.cut = ids, ptr, pad, cut
        self.members = np.arange(len(ptr) - 1) if members is None else members
        sizes = np.diff(ptr)[self.members]
        self.tokens = int(sizes.sum())
        # Of each example, the size of its longest sentence.
        self.sizes = sizes if sizes.ndim == 1 else sizes.max(axis=1)
        longest = int(self.sizes.max(initial=1))
        self.lengths = (longest,) if lengths is None else tuple(map(int, lengths))
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must ascend, got {self.lengths}")
        if longest > self.lengths[-1]:
            raise ValueError(
                f"lengths must reach the longest sentence, of {longest} tokens, got "
                f"{self.lengths}"
            )
        self._of_example = np.searchsorted(self.lengths, self.sizes).astype(np.int32)

    @property
    def groups(self) -> np.ndarray | None:
        """Which examples have rows of one length, int32 [n]; None where all have.

        `data.batches` draws a batch from one of them.
        """
        return self._of_example if len(self.lengths) > 1 else None

    @property
    def padding(self) -> float:
        """Share of padding in the rows of all examples."""
        room = np.asarray(self.lengths)[self._of_example].sum()
        return 1 - self.tokens / (room * (self.members.size / len(self)))

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, indices: Any) -> TokenBatch:
        index = np.arange(len(self))[indices]
        members = self.members[index]
        length = self.lengths[self._of_example[index].max(initial=0)]
        first, size = self.ptr[members], np.diff(self.ptr)[members]
        place = np.arange(length)
        valid = place < size[..., None]
        where = np.where(valid, first[..., None] + place, 0)
        tokens: Any = np.where(valid, self.ids[where], self.pad).astype(np.int32)
        return TokenBatch(tokens, valid)


def tokenize(
    dataset: dataset_lib.Dataset,
    vocabulary: vocabulary_lib.Vocabulary,
    *,
    longest: int,
    too_long: TooLong = "refuse",
) -> dataset_lib.Dataset:
    """Makes rows of tokens of the texts of a set, all of one length.

    Args:
      dataset: with a column "sentence" of texts, [n] or [n, v].
      vocabulary: which tokens.
      longest: how many tokens a row may have, the special ones included; an encoder has
        so many positions.
      too_long: what becomes of longer sentences. "refuse": an error says how many there
        are; "cut": they lose their ends, and `about` says how many.

    Returns:
      The data set with `TokenRows` in place of texts.

    Raises:
      ValueError: if a sentence is empty, or too long.
    """
    _checks.count("longest", longest, 3)
    _checks.choice("too_long", too_long, ("refuse", "cut"))
    texts = files.texts_of(dataset)
    try:
        ids, ptr = vocabulary_lib.encode(vocabulary, texts.reshape(-1))
    except ValueError as error:
        raise ValueError(f"{dataset.name}: {error}") from error
    sizes = np.diff(ptr)
    over = np.flatnonzero(sizes > longest)
    if len(over) and too_long == "refuse":
        worst = int(sizes.argmax())
        raise ValueError(
            f"{dataset.name}: {len(over):,} of {len(sizes):,} sentences have more than "
            f"{longest} tokens, the longest is sentence {worst} with {sizes[worst]:,}; "
            "too_long='cut' cuts them"
        )
    if len(over):
        kept = np.arange(len(ids)) - np.repeat(ptr[:-1], sizes) < longest
        ids = ids.copy()
        ids[ptr[over] + longest - 1] = ids[ptr[over + 1] - 1]  # the special last token
        ids, ptr = ids[kept], np.append(0, np.cumsum(np.minimum(sizes, longest)))
    members = None
    if texts.ndim == 2:
        members = np.arange(texts.size).reshape(texts.shape)
    column = TokenRows(ids, ptr, members, pad=vocabulary.pad, cut=len(over))
    return _with(dataset, column)


def pairs(
    dataset: dataset_lib.Dataset, *, apart: int | None = None
) -> dataset_lib.Dataset:
    """Makes an example of every two sentences that describe the same thing.

    Which of the two is the first is drawn once. With `once=` their "group", batches
    have one pair of each thing in an epoch, another one in the next.

    Args:
      dataset: with rows of single sentences, and with a column "group".
      apart: by how many tokens two sentences may differ, since the shorter one is
        padded; of a thing without such a pair those that differ least are taken. None:
        by any number.

    Returns:
      The data set of pairs: "sentence" gives a `TokenBatch` [n, 2, L], "group" int32
      [n]. What is described by one sentence alone is left out.

    Raises:
      ValueError: if there is no such column, or nothing has two sentences.
    """
    rows = rows_of(dataset)
    if "group" not in dataset.columns:
        raise ValueError(
            f"{dataset.name}: must have a column 'group' of what belongs together, got "
            f"{', '.join(dataset.columns)}"
        )
    if rows.members.ndim != 1:
        raise ValueError(f"{dataset.name}: must have one sentence in each example")
    group = np.asarray(dataset.columns["group"][np.arange(len(rows))])
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    starts = np.cumsum(counts) - counts
    found, of = [], []
    for size in np.unique(counts[counts > 1]):
        which = np.flatnonzero(counts == size)
        first, second = np.triu_indices(size, 1)
        both = np.stack([first, second], axis=1)
        found.append((starts[which, None, None] + both).reshape(-1, 2))
        of.append(np.repeat(which, len(both)))
    if not found:
        raise ValueError(f"{dataset.name}: must have groups of two sentences or more")
    members, owner = rows.members[order[np.concatenate(found)]], np.concatenate(of)
    if apart is not None:
        _checks.count("apart", apart, 0)
        differ = np.abs(np.diff(np.diff(rows.ptr)[members], axis=1)[:, 0])
        least = np.full(len(counts), np.iinfo(np.int64).max)
        np.minimum.at(least, owner, differ)
        kept = differ <= np.maximum(apart, least[owner])
        members, owner = members[kept], owner[kept]
    swapped = batching.permutation(len(members), 0, 0) % 2 == 1
    members[swapped] = members[swapped, ::-1]
    column = TokenRows(rows.ids, rows.ptr, members, pad=rows.pad, cut=rows.cut)
    columns: Any = {"sentence": column, "group": owner.astype(np.int32)}
    return dataset_lib.Dataset(dataset.name, columns)


def bucket(
    dataset: dataset_lib.Dataset,
    *,
    at_least: int = 1,
    lengths: Sequence[int] | None = None,
    most: int = 8,
    padding: float = 0.15,
) -> dataset_lib.Dataset:
    """Gives rows a few lengths in place of one, so that little of them is padding.

    A step is compiled once for each length. The lengths that are chosen have the least
    padding of all that are so few: multiples of 8 if these can stay below what is asked
    for, else of 4, of 2, or any; and no more of them than it takes. Where none can,
    they are multiples of 4. The last is always that of the longest sentence.

    Args:
      dataset: with rows of tokens. Slices are taken before, not after.
      at_least: examples that each length must have, such as those of a batch.
      lengths: ascending; None: chosen.
      most: how many lengths there may be.
      padding: the share of padding to stay below, if it can be done.

    Returns:
      The data set with rows of these lengths; `data.batches` and `data.feed` draw
      batches of rows of one length.

    Raises:
      ValueError: if given lengths have no room for an example.
    """
    rows = rows_of(dataset)
    _checks.count("at_least", at_least)
    _checks.count("most", most)
    _checks.within("padding", padding, 0, 1)
    if lengths is None:
        lengths = _choose(rows, at_least, most, padding)
    column = TokenRows(
        rows.ids, rows.ptr, rows.members, lengths=lengths, pad=rows.pad, cut=rows.cut
    )
    return _with(dataset, column)


def about(dataset: dataset_lib.Dataset) -> str:
    """A line about the sentences of a set, the lengths of their rows, and the padding.

    Args:
      dataset: with rows of tokens.

    Returns:
      The line.
    """
    rows = rows_of(dataset)
    per = rows.members.size // len(rows)
    what = "sentences" if per == 1 else f"examples of {per} sentences"
    line = (
        f"{dataset.name}: {len(rows):,} {what}, {rows.tokens / rows.members.size:.1f} "
        f"tokens each, in rows of {', '.join(map(str, rows.lengths))}; "
        f"{100 * rows.padding:.0f} % of these are padding"
    )
    if rows.cut:
        line += f"; {rows.cut:,} sentences were longer and are cut"
    return line


def rows_of(dataset: dataset_lib.Dataset) -> TokenRows:
    """The rows of tokens of a set.

    Args:
      dataset: with a column "sentence" as `tokenize` gives it.

    Returns:
      The column.

    Raises:
      ValueError: if it has no such column.
    """
    column = dataset.columns.get("sentence")
    if not isinstance(column, TokenRows):
        raise ValueError(
            f"{dataset.name}: must have a column 'sentence' of rows of tokens; "
            "data.text.tokenize makes them of texts, once slices are taken"
        )
    return column


def _with(dataset: dataset_lib.Dataset, column: TokenRows) -> dataset_lib.Dataset:
    return dataset._replace(columns={**dataset.columns, "sentence": column})


def _choose(
    rows: TokenRows, at_least: int, most: int, padding: float
) -> tuple[int, ...]:
    needed = rows.tokens / (rows.members.size / len(rows))
    for unit in (8, 4, 2, 1):
        for room, lengths in _least_room(rows.sizes, unit, at_least, most):
            if 1 - needed / room <= padding:
                return lengths
    return min(_least_room(rows.sizes, 4, at_least, most))[1]


def _least_room(
    sizes: np.ndarray, unit: int, at_least: int, most: int
) -> list[tuple[float, tuple[int, ...]]]:
    """The least total of tokens that rows hold with 1, 2, ... lengths, and these.

    Lengths but the last are multiples of `unit`, each with enough examples. By dynamic
    programming over the largest length: the best with one more ends where another one
    ended.
    """
    longest = int(sizes.max())
    # The last one has no more room than is needed: an encoder may not know more places.
    ends = np.minimum(unit * np.arange(1, -(-longest // unit) + 1), longest)
    upto = np.searchsorted(np.sort(sizes), ends, side="right")
    count = upto[None] - np.append(0, upto[:-1])[:, None]  # between two ends, [i, j]
    cost = np.where(count >= min(at_least, len(sizes)), count * ends[None], np.inf)
    last = len(ends) - 1
    total, back = cost[0], []
    found: list[tuple[float, tuple[int, ...]]] = [
        (float(total[last]), (int(ends[last]),))
    ]
    for _ in range(1, most):
        # A length before ends at i - 1, the next one begins at i.
        joined = np.append(np.inf, total[:-1])[:, None] + cost
        back.append(joined.argmin(axis=0))
        total = joined.min(axis=0)
        if not np.isfinite(total[last]):
            break
        lengths, j = [], last
        for begins in reversed(back):
            lengths.append(int(ends[j]))
            j = begins[j] - 1
        found.append((float(total[last]), (int(ends[j]), *reversed(lengths))))
    return found
