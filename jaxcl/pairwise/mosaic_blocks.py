"""Sizes of the blocks that Pallas kernels hold at a time."""

from typing import Any, NamedTuple

LANES = 128


class Sizes(NamedTuple):
    """How rows and columns are cut into blocks.

    Attributes:
      bm: rows of a block.
      row_blocks: number of blocks of rows.
      bn: columns of a block.
      column_blocks: number of blocks of columns.
      strip: rows at a time, on the fast path and on the careful one.
    """

    bm: int
    row_blocks: int
    bn: int
    column_blocks: int
    strip: tuple[int, int]

    @property
    def rows(self) -> int:
        """Number of rows, padded."""
        return self.bm * self.row_blocks

    @property
    def columns(self) -> int:
        """Number of columns, padded."""
        return self.bn * self.column_blocks


FORWARD = (512, 1024, (512, 128))
BACKWARD = (512, 1024, (512, 128))
BOTH = (512, 1024, (512, 128))


def forward_sizes(block: Any, form: Any) -> Sizes:
    return _sizes(block, FORWARD, twice=False)


def backward_sizes(block: Any, form: Any) -> Sizes:
    return _sizes(block, BOTH if form.columns else BACKWARD, twice=form.columns)


def _sizes(block: Any, largest: Any, *, twice: bool) -> Sizes:
    bm, bn, strip = largest
    n, m = (len(side.nodes.index) for side in (block.rows, block.columns))
    if block.schedule == "triangular":
        size, number = _cut(n, min(bm, bn), (1, 6) if twice else (1, 1))
        return Sizes(size, number, size, number, strip)
    rows = _cut(n, bm, (1, 1))
    columns = _cut(m, bn, (1, 3) if twice else (1, 1))
    return Sizes(*rows, *columns, strip)


def _cut(n: int, largest: int, enough: tuple[int, int]) -> tuple[int, int]:
    """Cuts n into blocks of a multiple of 128: one, or not fewer than enough."""
    one, several = enough
    count = -(-n // largest)
    if count > one:
        count = max(count, several)

    def size(count: int) -> int:
        return -(-(-(-n // count)) // LANES) * LANES

    # One or two blocks more where that pads less.
    count = min(range(count, count + 3), key=lambda c: (size(c) * c, c)) if count > one else count
    real = -(-n // size(count))
    if one < real < several:
        return -(-n // LANES) * LANES, 1
    return size(count), real
