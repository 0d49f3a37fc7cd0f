"""Which modules are public, and what they offer, read without importing them.

A module of a room is public if the room offers it. What a module offers is its
`__all__`; of a room without one, what it imports as `from x import y as y`; of any
other module, the functions and classes without an underscore.
"""

import ast
import pathlib


def offered(path: pathlib.Path) -> list[str]:
    """Reads what a module offers.

    Args:
      path: its file.

    Returns:
      Names, in the order of the file.
    """
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for line in body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
            return list(ast.literal_eval(line.value))
    if path.name == "__init__.py":
        imports = (line.names for line in body if isinstance(line, ast.ImportFrom))
        names = [each.name for line in imports for each in line if each.asname]
    else:
        kinds = ast.FunctionDef, ast.ClassDef
        names = [line.name for line in body if isinstance(line, kinds)]
    return [name for name in names if not name.startswith("_")]


def _file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file of a module of a folder; None: there is no such module."""
    for path in (folder / name / "__init__.py", folder / f"{name}.py"):
        if path.exists():
            return path
    return None


def public(package: pathlib.Path) -> dict[str, list[str]]:
    """Finds the public modules of a package.

    Args:
      package: its folder.

    Returns:
      What each of them offers besides modules, by its name with dots; modules that
      offer nothing else are left out.
    """
    found: dict[str, list[str]] = {}

    def look(name: str, path: pathlib.Path) -> None:
        found[name] = []
        for each in offered(path):
            below = _file(path.parent, each) if path.name == "__init__.py" else None
            # A function may have the name of the module that it is from.
            if below is None or f".{each} import" in path.read_text(encoding="utf-8"):
                found[name].append(each)
            else:
                look(f"{name}.{each}", below)

    for path in sorted(package.iterdir()):
        file = _file(package, path.stem)
        if file is not None and not path.name.startswith("_"):
            look(f"{package.name}.{path.stem}", file)
    return {name: names for name, names in found.items() if names}
