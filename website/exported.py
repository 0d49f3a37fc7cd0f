"""What a room imports under the same name is its own: a rule that griffe does not know.

A room either has `__all__`, or imports what it offers as `from x import y as y`.
"""

import griffe


class Exported(griffe.Extension):
    """Gives rooms without `__all__` one, of what they import from the package."""

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
