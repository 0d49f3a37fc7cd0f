"""Packages that only some rooms need, and the extra that brings them."""

import importlib
import types


def require(module: str, purpose: str, extra: str) -> types.ModuleType:
    """Imports a package that `pip install jaxcl` alone does not bring.

    Args:
      module: dotted name.
      purpose: what needs it, for the message: "the source 'digits'", "jaxcl.models".
      extra: of jaxcl, that brings it: "train", "data", "tools".

    Returns:
      The module.

    Raises:
      ImportError: if it cannot be imported, with the command that installs it.

    >>> require("no_such_package", "a wish", "tools")
    Traceback (most recent call last):
    ImportError: a wish needs no_such_package: pip install 'jaxcl[tools]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == module
        because = "" if absent else f", which could not be imported ({error})"
        raise ImportError(
            f"{purpose} needs {module}{because}: pip install 'jaxcl[{extra}]'"
        ) from error
