"""To which part of a step an operation belongs, by the names it was traced under."""

import collections
import re
from collections.abc import Callable

from experiments.pods.hlo import Op, Program

SCOPES = ("augmentation", "optimizer", "encoder", "loss")
OTHER = "other"
SUM = "sum of gradients"


def of(program: Program) -> Callable[[Op], str]:
    """Returns part(operation).

    Args:
      program: of a step whose scopes are called as above.

    Returns:
      A function to "augmentation", "encoder forward", "encoder backward", "loss",
      "sum of gradients", "optimizer" or "other". A fusion whose result has no such
      name belongs where most of it does; what is left, such as a copy that the compiler
      adds, is "other".
    """

    known: dict[Op, str] = {}

    def part(op: Op) -> str:
        if op not in known:
            known[op] = of_name(op.op_name, op)
            if known[op] == OTHER:
                inside = (of_name(o.op_name) for o in program.called(op).values())
                named = collections.Counter(p for p in inside if p != OTHER)
                known[op] = named.most_common(1)[0][0] if named else OTHER
        return known[op]

    return part


def of_name(name: str, op: Op | None = None) -> str:
    """The part of a path of names, and of a collective under it.

    >>> of_name("jit(step)/transpose(jvp(encoder))/Dense_0/dot_general")
    'encoder backward'
    >>> of_name("jit(step)/jvp(loss)/shard_map/while")
    'loss'
    """
    # Statistics of a batch normalization are short; weights have two axes, or are laid
    # end to end.
    large = (
        op is not None
        and op.kind.startswith(("all-reduce", "reduce-scatter"))
        and any(len(a.dims) > 1 or a.size > 2**14 for a in op.arrays)
    )
    backward = "transpose(" in name
    for scope in SCOPES:
        if not re.search(rf"(?:^|[/(]){scope}(?=[/)]|$)", name):
            continue
        if scope != "encoder":
            return scope
        if large:  # what else is summed was named after what it sums
            return SUM if backward else OTHER
        return "encoder backward" if backward else "encoder forward"
    return SUM if large and backward else OTHER
