"""How often each operation of a scheduled program runs."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from experiments.pods.hlo import Computation, Op, Program


class Visit(NamedTuple):
    """An operation, how often it runs, and where.

    Attributes:
      op, scope: the operation and its computation.
      times: in one run of the program.
      guessed: whether a loop around it does not tell how often it runs.
      looped: whether there is a loop around it.
    """

    op: Op
    scope: Computation
    times: float
    guessed: bool
    looped: bool


Cost = Callable[[Visit], float]


def visits(program: Program, cost: Cost) -> list[Visit]:
    """All operations that run, each with the number of times.

    A loop whose count the text does not tell is taken to run as often as its bound
    says, or half as often where its start varies, as in a loop over a triangle. Of
    branches the most expensive one is taken.

    Args:
      program: scheduled.
      cost: of a visit, by which branches are compared.

    Returns:
      The visits, without those inside of fusions.
    """
    return list(_walk(program, program.entry, 1.0, False, False, cost, {}))


def _walk(
    program: Program,
    name: str,
    times: float,
    guessed: bool,
    looped: bool,
    cost: Cost,
    known: Mapping[int, int],
) -> Iterator[Visit]:
    scope = program.computations[name]
    for op in scope.values():
        if op.kind == "while":
            body = op.attribute("body") or ""
            count, sure = trip_count(program, scope, op, known)
            constants = _invariants(program, scope, op, known)
            rest = times * count, guessed or not sure, True, cost, constants
            yield from _walk(program, body, *rest)
            yield Visit(op, scope, times * count, guessed or not sure, looped)
        elif op.kind == "conditional":
            branches = [
                list(_walk(program, branch, times, guessed, looped, cost, {}))
                for branch in _branches(op)
            ]
            yield from max(branches, key=lambda seen: sum(map(cost, seen)))
            yield Visit(op, scope, times, guessed, looped)
        elif op.kind == "call":
            inner = op.attribute("to_apply") or ""
            yield from _walk(program, inner, times, guessed, looped, cost, {})
        elif op.works:
            yield Visit(op, scope, times, guessed, looped)


def _branches(op: Op) -> list[str]:
    listed = re.search(r"branch_computations=\{(.*?)\}", op.rest)
    if listed:
        return re.findall(r"%([\w.\-]+)", listed[1])
    pair = op.attribute("true_computation"), op.attribute("false_computation")
    return [name for name in pair if name]


def trip_count(
    program: Program, scope: Computation, loop: Op, known: Mapping[int, int]
) -> tuple[float, bool]:
    """How often a loop runs, and whether that is sure."""
    told = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest)
    if told:
        return int(told[1]), True
    condition = program.computations[loop.attribute("condition") or ""]
    inits = scope[loop.operands[0]].operands
    [root] = [op for op in condition.values() if op.root]
    compare, sides = _comparison(program, condition, root)
    values: list[int | None] = []
    for inner, name in sides:
        op = inner.get(name)
        if op is not None and op.kind == "get-tuple-element":
            values.append(_constant(scope, inits[_index(op)], known))
        else:
            values.append(_constant(inner, name, {}))
    if len(values) == 2 and "direction=LT" in compare.rest:
        start, bound = values
        if bound is not None:
            return ((bound + 1) / 2, False) if start is None else (bound - start, True)
    integers = [value for value in values if value is not None]
    return float(max(integers, default=1)), False


def _comparison(
    program: Program, condition: Computation, root: Op
) -> tuple[Op, list[tuple[Computation, str]]]:
    """What a loop's condition compares; each side is a name in a computation."""
    called = program.called(root)
    if not called:
        return root, [(condition, name) for name in root.operands]
    [compare] = [op for op in called.values() if op.root]
    sides: list[tuple[Computation, str]] = []
    for name in compare.operands:
        given = called[name].kind == "parameter"
        where = root.operands[int(called[name].inside)] if given else name
        sides.append((condition if given else called, where))
    return compare, sides


def _index(op: Op) -> int:
    found = re.search(r"index=(\d+)", op.rest)
    return int(found[1]) if found else 0


def _constant(scope: Computation, name: str, known: Mapping[int, int]) -> int | None:
    """The integer that an operation is, if copies lead to a constant."""
    op = scope.get(name)
    while op is not None and op.kind in ("copy", "bitcast", "convert"):
        op = scope.get(op.operands[0])
    if op is None:
        return None
    if op.kind == "constant" and re.fullmatch(r"-?\d+", op.inside):
        return int(op.inside)
    if op.kind == "get-tuple-element" and scope[op.operands[0]].kind == "parameter":
        return known.get(_index(op))
    return None


def _invariants(
    program: Program, scope: Computation, loop: Op, known: Mapping[int, int]
) -> dict[int, int]:
    """Integers that a loop carries from its start to its end, by their place."""
    body = program.computations[loop.attribute("body") or ""]
    [root] = [op for op in body.values() if op.root]
    found = {}
    for i, (before, after) in enumerate(
        zip(scope[loop.operands[0]].operands, root.operands, strict=False)
    ):
        op, value = body.get(after), _constant(scope, before, known)
        same = op is not None and op.kind == "get-tuple-element" and _index(op) == i
        if value is not None and (same or _constant(body, after, {}) == value):
            found[i] = value
    return found
