"""To which part of a step an operation belongs, by the names it was traced under."""

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
      "sum of gradients", "optimizer" or "other". What has no name, such as a copy that
      the compiler adds, is "other".
    """

    def part(op: Op) -> str:
        name = op.op_name
        if not name:
            named = (o.op_name for o in program.called(op).values() if o.op_name)
            name = next(named, "")
        return of_name(name, op)

    return part


def of_name(name: str, op: Op | None = None) -> str:
    """The part of a path of names, and of a collective under it.

    >>> of_name("jit(step)/transpose(jvp(encoder))/Dense_0/dot_general")
    'encoder backward'
    >>> of_name("jit(step)/jvp(loss)/shard_map/while")
    'loss'
    """
    for scope in SCOPES:
        if not re.search(rf"(?:^|[/(]){scope}(?=[/)]|$)", name):
            continue
        if scope != "encoder":
            return scope
        if "transpose(" not in name:
            return "encoder forward"
        # Statistics of a batch normalization have one axis; weights have more.
        sums = op is not None and op.kind.startswith(("all-reduce", "reduce-scatter"))
        weights = op is not None and any(len(a.dims) > 1 for a in op.arrays)
        return SUM if sums and weights else "encoder backward"
    return OTHER
