"""Reads the text of a scheduled HLO program.

What is read is what `compiled.as_text()` gives. Operations of a computation stand in
the order in which they run; a fusion is one operation, which calls a computation of its
own.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OP = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_BOOKKEEPING = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
)


class Array(NamedTuple):
    """An array of a shape as HLO writes it: "bf16[64,512]{1,0:T(8,128)S(1)}"."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return self.size * BYTES.get(self.dtype, 4)

    @property
    def on_chip(self) -> bool:
        """Whether the compiler keeps it in the vector memory of a TPU."""
        return "S(1)" in self.layout


class Op(NamedTuple):
    """One operation.

    Attributes:
      name, kind: "fusion.3" and "fusion".
      shape: of the result, or results, as text.
      operands: names of operations of the same computation.
      inside: the text between the parentheses, such as the value of a constant.
      rest: the text behind them: attributes, metadata, the compiler's notes.
      root: whether it is the result of its computation.
    """

    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    inside: str
    rest: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None

    @property
    def op_name(self) -> str:
        """The path of names under which it was traced."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def arrays(self) -> list[Array]:
        return arrays(self.shape)

    @property
    def works(self) -> bool:
        """Whether it does anything but naming what is there."""
        return self.kind not in _BOOKKEEPING


Computation = Mapping[str, Op]


class Program(NamedTuple):
    computations: Mapping[str, Computation]
    entry: str

    def called(self, op: Op) -> Computation:
        """The inside of a fusion or of an asynchronous operation; {} of others."""
        if op.kind in ("fusion", "async-start"):
            return self.computations.get(op.attribute("calls") or "", {})
        return {}


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape, which may be a tuple.

    >>> [a.dims for a in arrays("(f32[8,128]{1,0:T(8,128)}, s32[])")]
    [(8, 128), ()]
    """
    return [
        Array(dtype, tuple(int(d) for d in dims.split(",") if d), layout)
        for dtype, dims, layout in _ARRAY.findall(shape)
    ]


def parse(text: str) -> Program:
    """Reads a program.

    Args:
      text: of a scheduled module.

    Returns:
      Its computations by name.

    Raises:
      ValueError: if there is no entry computation.
    """
    computations: dict[str, dict[str, Op]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = _HEAD.match(line) if line.endswith("{") else None
            if head:
                current = computations[head[2]] = {}
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := _OP.match(line):
            root, name, shape, kind, behind = found.groups()
            inside, rest = _until_closed(behind)
            names = tuple(_NAME.findall(inside))
            current[name] = Op(name, kind, shape, names, inside, rest, bool(root))
    if not entry:
        raise ValueError("text must be a scheduled HLO module, got no ENTRY in it")
    return Program(computations, entry)


def _until_closed(text: str) -> tuple[str, str]:
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return text[: found.start()], text[found.end() :]
    return text, ""
