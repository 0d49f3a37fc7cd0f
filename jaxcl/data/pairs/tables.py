"""A folder of images with a table of captions."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxcl._text import printable
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import folders, image_files
from jaxcl.data.pairs import described, pictures
from jaxcl.data.text import files as text_files

ENDINGS = (".csv", ".tsv", ".jsonl")


def is_table(path: str) -> bool:
    """Whether a name is that of a table of captions."""
    return path.removesuffix(".gz").endswith(ENDINGS)


def table(source: str, split: str, size: int | None) -> dataset_lib.Dataset:
    """Images in a folder, and their captions in a table that lies there.

    A line has the name of a file and a caption; an image may have several lines. Names
    are given from the folder on; a name without folders is found in those inside, too.

    Args:
      source: the folder, with one table, or with one for each split, such as train.csv
        and test.csv; or the table itself.
      split: name of a split; "train" where there is one table.
      size: edge in pixels, or None.

    Returns:
      The whole split, in the order of the table.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ValueError: if there is no table, or it cannot be read.

    Warns:
      UserWarning: of what is left out, a line for each kind.
    """
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        folder, path = path, _table_of(source, path, split)
    else:
        folder = os.path.dirname(path) or "."
        if split != "train":
            raise ValueError(f"{source}: has split 'train', got {split!r}")
    account = described.Account(source)
    there = _images(folder)
    by_name: dict[str, list[str]] = {}
    for name in there:
        by_name.setdefault(os.path.basename(name), []).append(name)
    found: dict[str, described.Described] = {}
    for number, line in _lines(path, there, by_name):
        where = f"line {number}"
        means = _resolved(path, number, line["file"], there, by_name)
        if means is None:
            account.leave("captions of missing images", f"{line['file']} ({where})")
            continue
        name = means
        if name not in found:
            place = pictures.Place(there[name], there[name])
            group, label = line["group"], line["label"]
            found[name] = described.Described(place, [], group, label)
        for key in ("group", "label"):
            if getattr(found[name], key) != line[key]:
                raise ValueError(
                    f"{path}: line {number} must give {name} one {key}, as before: "
                    f"{getattr(found[name], key)!r}, got {line[key]!r}"
                )
        have = found[name].captions
        have += account.kept(f"{name} ({where})", line["captions"], have)
    # Images that other tables describe lack nothing.
    for name in there if len(_tables(folder)) == 1 else found:
        if name not in found or not found[name].captions:
            account.leave("images without a caption", name)
    whole = [each for each in found.values() if each.captions]
    return described.made(source, whole, account, size)


def _tables(folder: str) -> list[str]:
    return [name for name in sorted(os.listdir(folder)) if is_table(name)]


def _table_of(source: str, folder: str, split: str) -> str:
    """The table of a split."""
    names = _tables(folder)
    if not names:
        raise ValueError(
            f"{source}: must hold images and a table of captions, ending in "
            f"{', '.join(ENDINGS)}; or shards, ending in .tar; got neither"
        )
    splits = {"train": names[0]}
    if len(names) > 1:
        stems = [name.removesuffix(".gz").rsplit(".", 1)[0] for name in names]
        splits = {
            folders.split_of(stem) or "": n
            for stem, n in zip(stems, names, strict=True)
        }
        if "" in splits or len(splits) < len(names):
            raise ValueError(
                f"{source}: must hold one table of captions, or one for each split, "
                f"such as train.csv and test.csv, got {', '.join(names)}; the table "
                "itself may be given"
            )
    if split not in splits:
        have = ", ".join(map(repr, splits))
        raise ValueError(f"{source}: has split {have}, got {split!r}")
    return os.path.join(folder, splits[split])


def _images(folder: str) -> dict[str, str]:
    """Paths of the images in a folder and those inside, by name from there on."""
    known, found = image_files.endings(), {}
    for place, inside, names in os.walk(folder):
        inside[:] = sorted(n for n in inside if n[0] != "." and n != "__MACOSX")
        for name in sorted(names):
            path = os.path.join(place, name)
            ending = os.path.splitext(name)[1].lower()
            if name[0] != "." and ending in known and os.path.isfile(path):
                found[pathlib.Path(os.path.relpath(path, folder)).as_posix()] = path
    return found


def _resolved(
    path: str,
    number: int,
    name: str,
    there: dict[str, str],
    by_name: dict[str, list[str]],
) -> str | None:
    """The image that a table means, from the folder on, or None."""
    name = os.path.normpath(name).replace("\\", "/")
    if name in there:
        return name
    found = by_name.get(name, [])
    if len(found) > 1:
        raise ValueError(
            f"{path}: line {number} must name one image, got {printable(name)!r} for "
            f"{folders.some(found)}"
        )
    return found[0] if found else None


def _lines(
    path: str, there: dict[str, str], by_name: dict[str, list[str]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What each line says: "file", "captions", "group" and "label", with its number."""
    if path.removesuffix(".gz").endswith(".jsonl"):
        rows = text_files.numbered_objects(path)
    else:
        rows = _cells(path, {*there, *by_name})
    for number, content in rows:
        name = _first(content, described.FILE_KEYS)
        texts = described.texts_in(_first(content, described.CAPTION_KEYS))
        if not isinstance(name, str) or not name.strip() or texts is None:
            raise ValueError(
                f"{path}: line {number} must have the name of a file under one of "
                f"{', '.join(described.FILE_KEYS)}, and a caption, or a list, under "
                f"one of {', '.join(described.CAPTION_KEYS)}; it has "
                f"{folders.some(map(printable, content)) or 'nothing'}"
            )
        yield (
            number,
            {
                "file": name.strip(),
                "captions": texts,
                "group": _first(content, described.GROUP_KEYS),
                "label": _first(content, described.LABEL_KEYS),
            },
        )


def _first(content: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((content[key] for key in keys if key in content), None)


def _cells(path: str, there: set[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The cells of a table by the names in its first line.

    Without such a line there are two columns: names of files, and captions.
    """
    if path.removesuffix(".gz").endswith(".csv"):
        rows = text_files.commas(path)
    else:
        lines = text_files.numbered_lines(path)
        rows = ((number, line.split("\t")) for number, line in lines)
    names: list[str] | None = None
    for number, cells in rows:
        if names is None:
            names = [cell.strip().lower() for cell in cells]
            headed = set(names) & set(described.FILE_KEYS)
            if headed or len(cells) != 2:
                continue
            if cells[0].strip() not in there:
                continue
            names = ["file", "caption"]
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: line {number} must have {len(names)} columns, as the first "
                f"line, got {len(cells)}"
            )
        yield number, dict(zip(names, cells, strict=True))
