"""What griffe does not know of this package: what rooms offer, what comments say.

A room either has `__all__`, or imports what it offers as `from x import y as y`. A
constant is explained by a comment above it or beside it. The formula of a loss, as one
writes it by hand, is in the table of all losses.
"""

import pathlib
import re

import griffe

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "choosing.md"


def formulas(table: str) -> dict[str, str]:
    """Reads the table of all losses.

    Args:
      table: the page with it.

    Returns:
      The formula of each loss, in Markdown, by its name.
    """
    rows = re.findall(r"^\| \[`(\w+)`\][^|]*\| (.+?) \|", table, re.MULTILINE)
    whole = re.compile(r"\$[^$]+\$")
    return {n: f"${f}$" if whole.fullmatch(f) else f for n, f in rows}


def with_formula(text: str, formula: str) -> str:
    """Puts a formula below the first paragraph of a docstring."""
    first, _, rest = text.partition("\n\n")
    return f"{first}\n\n{formula}\n\n{rest}"


def comment(attribute: griffe.Attribute, lines: list[str]) -> str | None:
    """Finds what is said of a constant.

    Args:
      attribute: the constant.
      lines: of its module.

    Returns:
      The comment beside it or, without one, that right above it; None without either.
    """
    assert attribute.lineno is not None
    first = attribute.lineno - 1
    beside = lines[first].rpartition("  # ")
    if beside[1]:
        text = beside[2]
    else:
        begin = first
        while begin > 0 and lines[begin - 1].startswith("# "):
            begin -= 1
        text = " ".join(line[2:] for line in lines[begin:first])
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else None


class Exported(griffe.Extension):
    """Tells griffe of all three."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Looks at a package that has been read.

        Args:
          pkg: the package.
          **kwargs: not used.
        """
        for room in pkg.modules.values():
            if room.exports is None and room.is_init_module:
                room.exports = [
                    name
                    for name, path in room.imports.items()
                    if path.startswith(f"{pkg.name}.") and not name.startswith("_")
                ]
        self.look(pkg)
        found = formulas(TABLE.read_text(encoding="utf-8"))
        for module in pkg["losses"].modules.values():
            for function in module.functions.values():
                if function.name in found and function.docstring is not None:
                    text = function.docstring.value
                    text = with_formula(text, found[function.name])
                    function.docstring.value = text

    def look(self, module: griffe.Module) -> None:
        """Explains the constants of a module and of those below it.

        Args:
          module: the module.
        """
        file = module.filepath
        assert isinstance(file, pathlib.Path)  # a list of some for namespace packages
        lines = module.lines_collection[file]
        for attribute in module.attributes.values():
            if not attribute.is_alias and attribute.docstring is None:
                text = comment(attribute, lines)
                if text is not None:
                    attribute.docstring = griffe.Docstring(text, parent=attribute)
        for name, below in list(module.modules.items()):
            if below.is_alias:
                continue
            self.look(below)
            # A function that has the name of its module is what a room offers.
            path = f"{below.path}.{name}"
            if module.imports.get(name) == path:
                module.set_member(name, griffe.Alias(name, path, parent=module))
