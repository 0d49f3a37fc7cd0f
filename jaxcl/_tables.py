"""One way to write a table."""

from collections.abc import Iterable, Sequence

from jaxcl import _text


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, its columns aligned so that it also reads well in a terminal.

    Args:
      head: names of the columns; the first is aligned left, the others right.
      rows: cells, made text with `str`; as many as there are columns. What would end
        a cell or a line is escaped.

    Returns:
      Lines without a newline at the end.

    >>> print(markdown(["loss", "5-NN"], [["dcl", "98.8"], ["nt_xent", "99"]]))
    | loss    | 5-NN |
    | ------- | ---: |
    | dcl     | 98.8 |
    | nt_xent |   99 |
    """
    cells = [
        [_text.printable(cell).replace("|", r"\|") for cell in row]
        for row in (head, *rows)
    ]
    widths = [
        max(3, *(len(cell) for cell in column)) for column in zip(*cells, strict=True)
    ]
    lines = [
        [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
