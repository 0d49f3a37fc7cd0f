"""Folders of images: which files are taken, of which class and split.

Nothing is left out, changed or skipped without a word: `Account` keeps all of it.
"""

import collections
import dataclasses
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _text
from jaxcl.data import batching, image_files
from jaxcl.data import dataset as dataset_lib

# Names of folders that are splits where all have such names: train, val2017, test_set.
_SPLIT = re.compile(
    r"(train|test|val|valid|validation|dev|eval)(?:ing)?"
    r"(?:[-_ ]?(?:set|split|data|images|\d+))?"
)
# What systems leave in folders, beside what begins with a dot.
_LEFTOVERS = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
)


@dataclasses.dataclass
class Account:
    """What became of the files of a folder; names are given from there on.

    Attributes:
      folder: the folder.
      looked: number of files that are meant to be images.
      formats: number of images decoded so far, by format.
      done: names of images by what was done to them.
      left_out: names of files and folders that are not meant, by why.
      unreadable: why, by name of the file.
      empty: folders of classes, or of splits, without an image.
    """

    folder: str
    looked: int = 0
    formats: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    done: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    empty: list[str] = dataclasses.field(default_factory=list)

    def check(self, max_unreadable: float) -> None:
        """Refuses a folder of which more than a share cannot be read.

        Args:
          max_unreadable: the share of the files that are meant to be images.

        Raises:
          ValueError: with names and reasons.
        """
        count = len(self.unreadable)
        if count > max_unreadable * self.looked:
            raise ValueError(
                f"{self.folder}: {count:,} of {self.looked:,} files not a readable "
                f"image, more than --max_unreadable {max_unreadable:g} lets be left "
                f"out: {self.reasons()}"
            )

    def reasons(self) -> str:
        """Names of the files that cannot be read, and why."""
        return some((f"{k} ({v})" for k, v in self.unreadable.items()), 10)

    def lines(self) -> list[str]:
        """What was taken, what was done to it, and what was left out."""
        taken = ", ".join(f"{n:,} {kind}" for kind, n in self.formats.most_common())
        lines = [f"{self.folder}: images taken: {self.formats.total():,} ({taken})"]
        left = {f"left out, {why}": names for why, names in self.left_out.items()}
        for what in (self.done, left):
            ranked = sorted(what.items(), key=lambda item: (-len(item[1]), item[0]))
            lines += [
                f"  {w}: {len(names):,} ({some(names)})" for w, names in ranked[:9]
            ]
            if rest := sum(len(names) for _, names in ranked[9:]):
                lines.append(f"  and {len(ranked) - 9} more kinds: {rest:,}")
        return lines


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, and how many there are more.

    >>> some("abcdef")
    'a, b, c and 3 more'
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class _File(NamedTuple):
    path: str
    parts: tuple[str, ...]  # names from the folder on, as they are shown
    any_name: bool  # whether the ending says that it is an image


def read(
    folder: str, *, resize: int | None, ground: int, max_pixels: int
) -> tuple[dict[str, dataset_lib.Dataset], Account]:
    """Finds the images of a folder; they are decoded when they are asked for.

    Args:
      folder: classes as sub-folders; or splits with such sub-folders; or images.
      resize: edge in pixels, or None.
      ground: gray level on which transparent images are put.
      max_pixels: of an image; one that has more cannot be read.

    Returns:
      A data set for each split, and what is known so far of all files. The images are
      in an order drawn once, so that a slice such as "train[:90%]" holds all classes.
      Asking for one that cannot be decoded raises `image_files.Unreadable`.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no images, or images of several sizes without `resize`.
    """
    root = os.path.expanduser(folder)
    if os.path.isfile(root):
        raise ValueError(f"{folder}: must be a folder, got a file; unpack an archive")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{folder}: there is no such folder")
    account = Account(folder)
    found, folders = _walk(root, account)
    looks = _look(found, account, resize is None, max_pixels)
    groups, depth = _splits([file for file in found if file.path in looks], account)
    files = [file for group in groups.values() for file in group]
    account.looked = len(files) + len(account.unreadable)
    if not files:
        why = [f"cannot be read: {account.reasons()}"] if account.unreadable else []
        why += [line.strip() for line in account.lines()[1:]]
        raise ValueError(
            "; ".join([f"{folder}: no images in it that can be read", *why])
        )
    if resize is None:
        _check_sizes({file.path: looks[file.path].size for file in files})
    width, height = (resize, resize) if resize else looks[files[0].path].size
    gray = all(looks[file.path].gray for file in files)
    how = {"gray": gray, "ground": ground, "max_pixels": max_pixels, "edge": resize}
    shape = (height, width, 1 if gray else 3)

    classes = _classes(folder, groups, depth)
    used = {file.parts[:length] for file in files for length in (1, depth + 1)}
    account.empty = [
        "/".join(parts) + "/"
        for parts in folders
        if len(parts) <= depth + 1 and parts not in used
    ]
    number = {name: label for label, name in enumerate(classes)}
    datasets = {}
    for split, group in sorted(groups.items()):
        group = [group[i] for i in batching.permutation(len(group), 0, 0)]
        columns: dict[str, Any] = {
            "image": Images(group, shape, how, account),
        }
        if len(group[0].parts) > depth + 1:
            labels = [number[file.parts[depth]] for file in group]
            columns["label"] = np.array(labels, np.int32)
        names = classes if "label" in columns else None
        datasets[split] = dataset_lib.Dataset(folder, columns, names)
    return datasets, account


class Images:
    """Random access to image files; what is done to them is put to account."""

    def __init__(
        self,
        files: list[_File],
        shape: tuple[int, int, int],
        how: dict[str, Any],
        account: Account,
    ) -> None:
        self.files, self.how, self.account = files, how, account
        self.shape = (len(files), *shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Any) -> np.ndarray:
        indices = np.arange(len(self))[key]
        if np.ndim(indices) == 0:
            return self._read(self.files[indices])
        return np.stack([self._read(self.files[i]) for i in indices])

    def _read(self, file: _File) -> np.ndarray:
        name = "/".join(file.parts)
        try:
            image, form, done = image_files.read(file.path, **self.how)
            pixels = np.asarray(image, np.uint8)
            if pixels.shape[:2] != self.shape[1:3]:
                size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
                raise image_files.Unreadable(
                    file.path, f"changed while it was read: it has {size} now"
                )
        except image_files.Unreadable as error:
            self.account.unreadable[name] = error.reason
            raise
        self.account.formats[form] += 1
        for what in done:
            self.account.done.setdefault(what, []).append(name)
        return pixels.reshape(self.shape[1:])


def _walk(root: str, account: Account) -> tuple[list[_File], list[tuple[str, ...]]]:
    """Files that may be images, and folders, in the order of their names.

    Links are followed; a folder is visited once below each of those that `root` holds,
    so that no link leads in circles.
    """
    files: list[_File] = []
    folders: list[tuple[str, ...]] = []
    visited = {os.path.realpath(root)}
    known = image_files.endings()

    def leave(why: str, parts: tuple[str, ...], end: str = "") -> None:
        account.left_out.setdefault(why, []).append("/".join(parts) + end)

    def visit(place: str, above: tuple[str, ...]) -> None:
        for name in sorted(os.listdir(place)):
            path, parts = os.path.join(place, name), (*above, _shown(name))
            is_folder, ending = os.path.isdir(path), os.path.splitext(name)[1].lower()
            end = "/" if is_folder else ""
            if name.startswith(".") or name.lower() in _LEFTOVERS:
                leave("hidden or left behind by a system", parts, end)
            elif is_folder:
                if not above:
                    visited.clear()
                    visited.add(os.path.realpath(root))
                real = os.path.realpath(path)
                if real in visited:
                    leave("reached before, through a link", parts, end)
                    continue
                visited.add(real)
                folders.append(parts)
                visit(path, parts)
            elif not os.path.isfile(path):
                leave("broken links or no files", parts)
            elif ending in known or not ending:
                files.append(_File(path, parts, bool(ending)))
            else:
                leave(f"{_shown(ending)} files", parts)

    visit(root, ())
    joined = [k for k, n in collections.Counter(folders).items() if n > 1]
    if joined:
        names = some("/".join(parts) + "/" for parts in joined)
        warnings.warn(f"folders that bear the same name are one: {names}", stacklevel=3)
    return files, folders


def _shown(name: str) -> str:
    """A name as it can be printed, compared and written: composed, and one line."""
    return "".join(
        c if c.isprintable() else _text.escaped(c)
        for c in unicodedata.normalize("NFC", name)
    )


def _look(
    files: list[_File], account: Account, upright: bool, max_pixels: int
) -> dict[str, image_files.Look]:
    """Headers by path; what is no image is put to account."""
    looks = {}
    for file in files:
        try:
            looks[file.path] = image_files.look(
                file.path,
                max_pixels=max_pixels,
                upright=upright,
                any_name=file.any_name,
            )
        except image_files.Unreadable as error:
            name = "/".join(file.parts)
            if error.unknown and not file.any_name:
                why = "without an ending and no image"
                account.left_out.setdefault(why, []).append(name)
            else:
                account.unreadable[name] = error.reason
    return looks


def split_of(name: str) -> str | None:
    """The split that a folder's name means: "train", "test", "val" and so on, or None.

    >>> split_of("Training"), split_of("val2017"), split_of("trains")
    ('train', 'val', None)
    """
    match = _SPLIT.fullmatch(name.lower())
    return match[1] if match else None


def _splits(files: list[_File], account: Account) -> tuple[dict[str, list[_File]], int]:
    """Files by split, and the number of folders that a split is: 1 or 0."""
    inside = sorted({file.parts[0] for file in files if len(file.parts) > 1})
    named = {name: split for name in inside if (split := split_of(name))}
    if len(named) < len(inside):  # a class may be called "train"
        if "train" in named.values() and len(named) > 1:
            other = next(name for name in inside if name not in named)
            raise ValueError(
                f"{account.folder}: must hold splits or classes, got both: "
                f"{', '.join(named)} and {other}"
            )
        _check_depth(inside, files, account)
        return {"train": files}, 0
    if not named:
        return {"train": files} if files else {}, 0
    groups: dict[str, list[_File]] = {split: [] for split in named.values()}
    if len(groups) < len(named):
        raise ValueError(
            f"{account.folder}: must hold each split once, got {', '.join(named)}"
        )
    for file in files:
        if len(file.parts) > 1:
            groups[named[file.parts[0]]].append(file)
        else:
            account.left_out.setdefault("beside the splits", []).append(file.parts[0])
    return groups, 1


def _check_depth(inside: list[str], files: list[_File], account: Account) -> None:
    """Notices splits or classes that lie one folder deeper than they are looked for."""
    below = sorted({file.parts[1] for file in files if len(file.parts) > 2})
    alone = f": give --folder {account.folder}/{inside[0]}" if len(inside) == 1 else ""
    splits = {split_of(name) for name in below} - {None}
    if "train" in splits and len(splits) > 1:
        raise ValueError(
            f"{account.folder}: must hold splits above classes, got splits within "
            f"folders, {inside[0]}/{below[0]}{alone}"
        )
    if alone and len(below) > 1:
        warnings.warn(
            f"all images are of one class, {inside[0]}; to make {some(below)} classes"
            f"{alone}",
            stacklevel=4,
        )


def _classes(
    folder: str, groups: dict[str, list[_File]], depth: int
) -> tuple[str, ...]:
    """Names of the classes of all splits."""
    names: set[str] = set()
    for group in groups.values():
        alone = [file for file in group if len(file.parts) == depth + 1]
        within = [file for file in group if len(file.parts) > depth + 1]
        if alone and within:
            raise ValueError(
                f"{folder}: expected images or a sub-folder for each class, got both: "
                f"{'/'.join(alone[0].parts)}, {'/'.join(within[0].parts[:-1])}/"
            )
        names.update(file.parts[depth] for file in within)
    return tuple(sorted(names))


def _check_sizes(sizes: dict[str, tuple[int, int]]) -> None:
    """Refuses images of several sizes, and names the usual one and another."""
    counts = collections.Counter(sizes.values()).most_common()
    if len(counts) > 1:
        first, second = (
            f"{size[0]}x{size[1]} {next(p for p, s in sizes.items() if s == size)}"
            for size, _ in counts[:2]
        )
        raise ValueError(
            f"images must have one size, or use --resize; got {len(counts)} sizes: "
            f"{first}, {second}"
        )
