"""Files of results: each appears whole or not at all."""

import contextlib
import json
import os
import pathlib
import re
import tempfile
import typing
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a path to write to, which takes the place of `path` when all went well.

    A process killed half-way leaves the old file, or none. Missing folders are made.

    Args:
      path: of the file.

    Yields:
      A hidden path beside it, with the same suffix.

    Raises:
      OSError: if it cannot be written; the message names the file.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename is not None:
            raise
        # A disk that is full does not say which file it has no room for.
        raise OSError(f"{path}: could not be written ({error})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave an empty file


def write_json(path: str | os.PathLike, content: typing.Any) -> None:
    """Writes JSON with an indent of two, whole or not at all."""
    write_text(path, _in_json(content))


def keep_json(path: str | os.PathLike, content: typing.Any) -> None:
    """`write_json`; another file of that name is kept under a free name beside it."""
    path = pathlib.Path(path)
    if path.exists() and path.read_bytes() != _in_json(content).encode():
        count = 1
        while (aside := path.with_stem(f"{path.stem}_{count}")).exists():
            count += 1
        path.rename(aside)
        print(f"\n{path} was there with other results: it is {aside.name} now")
    write_json(path, content)


def _in_json(content: typing.Any) -> str:
    return json.dumps(content, indent=2) + "\n"


def check_directory(name: str, directory: str | os.PathLike) -> pathlib.Path:
    """Refuses a directory that cannot be made, since a file is in its way.

    Args:
      name: of the argument that gives it.
      directory: to be made later.

    Returns:
      The directory as a path.

    Raises:
      ValueError: if it is an address, such as gs://BUCKET: it would become a folder
        "gs:" here.
      NotADirectoryError: if it, or a folder above it, is a file.
    """
    # More than a letter, for those are drives; and a `Path` has lost a slash.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(directory)):
        raise ValueError(
            f"{name} must be a folder of a disk, or of a bucket that is mounted as one,"
            f" got {os.fspath(directory)!r}"
        )
    directory = pathlib.Path(directory)
    for path in (directory, *directory.parents):
        if path.exists():
            if not path.is_dir():
                raise NotADirectoryError(
                    f"{name} must be a directory, and {path} is a file"
                )
            break
    return directory


def check_writable(name: str, directory: str | os.PathLike) -> pathlib.Path:
    """Refuses a directory in which nothing can be written, before any work is done.

    Args:
      name: of the argument that gives it.
      directory: to be made later.

    Returns:
      The directory as a path.

    Raises:
      OSError: if it cannot be made, or written to.
    """
    directory = check_directory(name, directory)
    there = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise type(error)(
            f"{name} must be a directory to write to, got {directory}: nothing can be "
            f"written in {there} ({error.strerror})"
        ) from error
    return directory


def check_new(
    name: str,
    directory: str | os.PathLike,
    *,
    overwrite: bool = False,
    holds: str = "results.json",
) -> pathlib.Path:
    """Refuses a directory that already holds results, before any work is done.

    Args:
      name: of the argument that gives it.
      directory: to be made later.
      overwrite: whether the user asked to replace the results.
      holds: the file by which results are known.

    Returns:
      The directory as a path.

    Raises:
      NotADirectoryError: if it, or a folder above it, is a file.
      OSError: if it cannot be made, or written to.
      FileExistsError: if it holds results.
    """
    directory = check_writable(name, directory)
    if (directory / holds).exists() and not overwrite:
        raise FileExistsError(f"{name} must be new, and {directory} holds {holds}")
    return directory
