"""Where results go, checked before the work is done."""

import pathlib


def check(name: str, directory: pathlib.Path) -> None:
    """Refuses a directory that cannot be made, for a file is in its way.

    Args:
      name: of the setting that gives it.
      directory: to be made later.

    Raises:
      NotADirectoryError: if it, or a folder above it, is a file.
    """
    for path in (directory, *directory.parents):
        if path.exists():
            if not path.is_dir():
                raise NotADirectoryError(
                    f"{name} must be a directory, and {path} is a file"
                )
            return


def check_new(name: str, directory: pathlib.Path) -> None:
    """Refuses also a directory that holds results, with FileExistsError."""
    check(name, directory)
    if (directory / "results.json").exists():
        raise FileExistsError(f"{name} must be new, and {directory} holds results")
