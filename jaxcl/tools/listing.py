"""Lists the recipes: named settings, with what others published for them."""

import dataclasses
from typing import Annotated

import tyro

from jaxcl import _rules
from jaxcl.recipes import named


@dataclasses.dataclass(frozen=True)
class Settings:
    """Lists the recipes of SimCLR, which its script takes as `--recipe NAME`."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """One of them, of which all is said; none: a table of all."""
    every: bool = False
    """Says all of every recipe, in Markdown."""


def main(s: Settings) -> None:
    """Prints a table of the recipes, or all of one or of each.

    Args:
      s: settings.

    Raises:
      ValueError: if there is no recipe of the name; or for one and `every` at once.
    """
    _rules.unread(s, "every", unless=s.name is None, which="a table of all recipes")
    if s.name is not None:
        print(named.section(s.name))
        return
    print(named.table())
    if s.every:
        for name in named.RECIPES:
            print("\n" + named.section(name))
