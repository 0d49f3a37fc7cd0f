"""Shards: `.tar` files of images and captions, as webdataset writes them."""

import glob
import json
import os
import re
import tarfile
from typing import Any

from jaxcl._text import printable
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import folders, image_files
from jaxcl.data.pairs import described, pictures

_BLOCK = 512  # bytes; headers begin at multiples of it
_LOOKED_AT = 2**20  # bytes behind the end
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_shards(source: str) -> bool:
    """Whether a source means shards: a `.tar`, several, or a folder of them."""
    path = os.path.expanduser(source)
    inside = os.path.isdir(path) and any(n.endswith(".tar") for n in os.listdir(path))
    return source.endswith(".tar") or inside


def shards(source: str, split: str, size: int | None) -> dataset_lib.Dataset:
    """Images and captions in `.tar` files.

    What belongs together has one KEY, the name up to its first dot: KEY.jpg, .png or
    .webp, with KEY.txt, a caption in each line, or KEY.json, with captions under
    "caption", and perhaps "group" and "label". The places of the images are read once;
    nothing is unpacked.

    Args:
      source: a `.tar`; several, as "shards/*.tar" or "train-{000..007}.tar"; or a
        folder of them. In a folder, names that begin with those of splits, such as
        train-000.tar and test-000.tar, are these splits.
      split: name of a split; "train" where there are none.
      size: edge in pixels, or None.

    Returns:
      The whole split, in the order of the shards.

    Raises:
      FileNotFoundError: if there is no shard, or one is missing.
      ValueError: if one cannot be read, or is cut short.

    Warns:
      UserWarning: of what is left out, a line for each kind.
    """
    account = described.Account(source)
    found: list[described.Described] = []
    for path in _paths(source, split):
        found.extend(_described(path, account))
    return described.made(source, found, account, size)


def expanded(pattern: str) -> list[str]:
    """All names that a pattern with braces stands for.

    >>> expanded("a-{08..10}.tar"), expanded("{x,y}.tar")
    (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['x.tar', 'y.tar'])
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    choices = match[1].split(",")
    if numbers:
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        choices = [f"{number:0{width}}" for number in range(first, last + 1)]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for choice in choices for name in expanded(before + choice + after)]


def _paths(source: str, split: str) -> list[str]:
    """Paths of the shards of a split."""
    path = os.path.expanduser(source)
    splits = {"train": [path]}
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if name.endswith(".tar"))
        first = [re.match("[A-Za-z]*", name) for name in names]
        of = [folders.split_of(match[0]) if match else None for match in first]
        splits = {}
        for name, its in zip(names, of, strict=True):
            key = "train" if None in of else str(its)
            splits.setdefault(key, []).append(os.path.join(path, name))
    elif not os.path.isfile(path):
        found: list[str] = []
        for name in expanded(path):
            matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
            found.extend(matches)
        missing = [name for name in found if not os.path.isfile(name)]
        if not found or missing:
            what = f"there is no such file: {folders.some(missing)}"
            raise FileNotFoundError(
                f"{source}: {what if missing else 'no shard is called so'}"
            )
        splits = {"train": found}
    if split not in splits:
        have = ", ".join(map(repr, splits))
        raise ValueError(f"{source}: has split {have}, got {split!r}")
    return splits[split]


def _described(path: str, account: described.Account) -> list[described.Described]:
    """The images of one shard that have captions."""
    texts: dict[str, tuple[str, bytes]] = {}
    images: dict[str, pictures.Place] = {}
    keys: dict[str, None] = {}
    known = image_files.endings()
    try:
        with tarfile.open(path, "r:") as archive:
            end = 0
            for member in archive:
                blocks = -(-member.size // _BLOCK)
                end = member.offset_data + blocks * _BLOCK
                folder, name = os.path.split(member.name)
                stem, _, ending = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key, ending = os.path.join(folder, stem), f".{ending.lower()}"
                shown = f"{path}: {printable(member.name)}"
                taken: Any
                value: Any
                if ending in known:
                    start, length = member.offset_data, member.size
                    taken, value = images, pictures.Place(path, shown, start, length)
                elif ending in (".txt", ".json"):
                    file = archive.extractfile(member)
                    taken, value = texts, (shown, file.read() if file else b"")
                else:
                    if os.path.splitext(ending)[1] in known:
                        account.leave("images with two endings", shown)
                    continue
                if key in taken:
                    raise ValueError(
                        f"{shown}: its key must have one image and one text, and has "
                        "another one"
                    )
                taken[key], keys[key] = value, None
            _check_end(path, end)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole .tar file: {error}") from error
    found = []
    for key in keys:
        name = f"{os.path.basename(path)}: {key}"
        if key not in texts:
            account.leave("keys without a caption", name)
        elif key not in images:
            account.leave("keys without an image", name)
        else:
            shown, content = texts[key]
            each, group, label = _said(shown, content)
            each = account.kept(name, each)
            if each:
                found.append(described.Described(images[key], each, group, label))
    return found


def _check_end(path: str, end: int) -> None:
    """Refuses a shard that ends without the mark that whole ones have, or goes on.

    Else what is cut between two members, or behind a damaged one, would look whole, and
    of joined ones the first alone would be read.
    """
    with open(path, "rb") as file:
        file.seek(end)
        rest = file.read(_LOOKED_AT)
    if rest[:_BLOCK] != bytes(_BLOCK):
        raise EOFError("damaged or cut short behind the last image or caption")
    if rest.strip(b"\0"):
        raise EOFError("something follows its end, as where several are joined")


def _said(shown: str, content: bytes) -> tuple[list[str], Any, Any]:
    """Captions, group and label."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown} is not UTF-8: {error}") from error
    if not shown.endswith(".json"):
        return [line.strip() for line in text.strip().split("\n")], None, None
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{shown} is no JSON: {error}") from error
    values = said if isinstance(said, dict) else {}
    key = next((k for k in described.CAPTION_KEYS if k in values), None)
    texts = None if key is None else described.texts_in(values[key])
    if texts is None:
        raise ValueError(
            f"{shown} must be a JSON object with a caption, or a list, under one of "
            f"{', '.join(described.CAPTION_KEYS)}, got {printable(text)[:60]}"
        )
    return texts, values.get("group"), values.get("label")
