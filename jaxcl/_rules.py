"""Rules of settings: what the number of a flag must be stands in its annotation.

@dataclasses.dataclass(frozen=True)
class Settings:
    steps: _rules.Count = 100
    rate: Annotated[float, _rules.inside("(0, 1]")] = 0.1

_rules.check(settings)  # before any work is done
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from jaxcl import _checks


class Rule(typing.NamedTuple):
    """Stands in `Annotated`: a check of a name and a value."""

    check: Callable[[str, Any], Any]


def whole(lowest: int, highest: int = 2**31 - 1) -> Rule:
    """Integers from `lowest` to `highest`, which is that of JAX's own."""
    return Rule(functools.partial(_checks.count, at_least=lowest, at_most=highest))


def inside(interval: str) -> Rule:
    """Finite numbers in an interval, written as "(0, 2]" or "[0, inf)"."""
    low, high = map(float, interval[1:-1].split(","))

    def check(name: str, x: Any) -> None:
        value = _checks.static(name, x)
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        if not (above and below and np.isfinite(value)):
            raise ValueError(f"{name} must lie in {interval}, got {value:g}")

    return Rule(check)


def _different(name: str, x: Any) -> None:
    if not x or len(set(x)) < len(x):
        raise ValueError(f"{name} must be one or more different ones, got {x}")


Count = Annotated[int, whole(1)]
Several = Annotated[int, whole(2)]
Index = Annotated[int, whole(0)]  # of what is numbered from 0
# JAX's keys hold 32 bits: seeds beyond would repeat the draws of smaller ones.
Seed = Annotated[int, whole(0, 2**32 - 1)]
Positive = Annotated[float, Rule(_checks.positive)]
NotNegative = Annotated[float, inside("[0, inf)")]
Share = Annotated[float, inside("[0, 1]")]
Finite = Annotated[float, inside("(-inf, inf)")]
Different = Rule(_different)


def check(s: Any) -> None:
    """Checks the numbers of a dataclass of settings, before any work is done.

    Args:
      s: the settings; their fields are named as flags are.

    Returns:
      Nothing.

    Raises:
      TypeError: if a value is of another type than its field.
      ValueError: if it breaks the rule of its field.
    """
    hints = typing.get_type_hints(type(s), include_extras=True)
    for field in dataclasses.fields(s):
        value = getattr(s, field.name)
        if dataclasses.is_dataclass(value):
            check(value)
        else:
            _keep(field.name, hints[field.name], value)


def _keep(name: str, hint: Any, value: Any) -> None:
    """Checks a value, or the values of a tuple, by the rules in an annotation."""
    inner, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is Annotated:
        for rule in hint.__metadata__:
            if isinstance(rule, Rule):
                rule.check(name, value)
        _keep(name, inner[0], value)
    elif origin in (typing.Union, types.UnionType) and value is not None:
        for each in inner:
            _keep(name, each, value)
    elif origin is tuple:
        for each in value:
            _keep(name, inner[0], each)


def unread(s: Any, names: str, *, unless: bool, which: str) -> None:
    """Refuses settings that were changed and that the others make meaningless.

    Args:
      s: a dataclass of settings, all of whose fields have defaults.
      names: of fields, separated by spaces.
      unless: whether something reads them.
      which: what does so, for the message.

    Returns:
      Nothing.

    Raises:
      ValueError: if nothing reads one of them, and it is not as by default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(s)}
    for name in () if unless else names.split():
        value = getattr(s, name)
        if value != defaults[name]:
            raise ValueError(
                f"{name} must be left at {defaults[name]!r}, since only {which} reads "
                f"it, got {value!r}"
            )
