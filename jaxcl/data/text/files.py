"""Sentences in files: one a line, or in the columns of a table."""

import csv
import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcl import _checks
from jaxcl._text import printable
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import splits
from jaxcl.data.text import topics as topics_lib

Name = int | str  # of a column: its place, from 0, or what a header calls it

KINDS = (".txt", ".tsv", ".csv", ".jsonl")


def open(
    spec: str,
    split: str = "train",
    *,
    sentence: Name | Sequence[Name] | None = None,
    label: Name | None = None,
    group: Name | None = None,
    score: Name | None = None,
) -> dataset_lib.Dataset:
    """Opens the sentences that a flag such as `--source` names.

    Args:
      spec: "topics", the sentences of Python's own documentation; or a file, as `read`
        takes it.
      split: "train", all of them, or a slice such as "train[:90%]".
      sentence, label, group, score: columns of a file, as `read` takes them.

    Returns:
      The data set, with a column "sentence" of texts.

    Raises:
      FileNotFoundError: if the file is not there.
      ValueError: if the flag names no sentences, or they cannot be read.

    >>> print(open("topics", "train[:1%]").columns["sentence"].dtype)
    object
    """
    if not isinstance(spec, str):
        raise TypeError(f"source must be a string, got {type(spec).__name__}")
    if dataset_lib.split_name(split) != "train":
        raise ValueError(f"split must be 'train' or a slice of it, got {split!r}")
    if spec == "topics":
        given = {"sentence": sentence, "label": label, "group": group, "score": score}
        named = [name for name, column in given.items() if column is not None]
        if named:
            raise ValueError(
                f"{' and '.join(named)} must be None for the source 'topics', which "
                "has no columns to choose from"
            )
        whole = topics_lib.topics()
    elif spec.removesuffix(".gz").endswith(KINDS):
        chosen: Any = 0 if sentence is None else sentence
        whole = read(spec, sentence=chosen, label=label, group=group, score=score)
    else:
        raise ValueError(
            f"source must be 'topics', or a file ending in {', '.join(KINDS)}, or in "
            f"one of these and .gz, got {spec!r}"
        )
    return splits.select(whole, split)


def read(
    path: str | os.PathLike[str],
    *,
    sentence: Name | Sequence[Name] = 0,
    label: Name | None = None,
    group: Name | None = None,
    score: Name | None = None,
) -> dataset_lib.Dataset:
    """Reads sentences, and what is said of them.

    A `.txt` has a sentence in each line; a `.tsv` has columns between tabs, without
    quotes; a `.csv` has columns between commas; a `.jsonl` has an object in each line.
    Each may be compressed, `.gz`. A table whose columns are named begins with a line of
    names; one whose columns are numbered does not.

    Args:
      path: the file, in UTF-8.
      sentence: its column; or several, whose sentences belong together, such as two of
        a pair, or an anchor, its positive and its hard negative.
      label: column of classes, whose names are sorted.
      group: column of what describes the same thing, such as the number of a photo.
      score: column of numbers, such as how similar two sentences are.

    Returns:
      The data set, called after the file: "sentence", texts [n], or [n, v] of several
      columns; "label", int32 [n]; "group", int32 [n], numbered as they come; "score",
      float32 [n]: those that were asked for.

    Raises:
      FileNotFoundError: if there is no such file.
      TypeError: if a column is neither a name nor a number.
      ValueError: if it cannot be read, a column is missing, a line has another number
        of columns, or a sentence is empty; it says which line.
    """
    path = os.path.expanduser(os.fspath(path))
    several = not isinstance(sentence, int | str)
    chosen = (
        list(sentence) if isinstance(sentence, Sequence) and several else [sentence]
    )
    if not chosen:
        raise ValueError("sentence must name one or more columns, got none")
    extra = {"label": label, "group": group, "score": score}
    named = [name for name, column in extra.items() if column is not None]
    columns: list[Any] = [*chosen, *(extra[name] for name in named)]
    lines, rows = _rows(path, columns)
    if not rows:
        raise ValueError(f"{path}: must hold sentences, got none")
    texts = np.empty((len(rows), len(chosen)), object)
    for i, row in enumerate(rows):
        for j in range(len(chosen)):
            text = row[j].strip()
            if not text:
                where = "" if len(columns) == 1 else f" in column {chosen[j]!r}"
                raise ValueError(
                    f"{path}: line {lines[i]} has an empty sentence{where}"
                )
            texts[i, j] = text
    found: dict[str, Any] = {"sentence": texts if several else texts[:, 0]}
    class_names = None
    for place, name in enumerate(named, len(chosen)):
        values = [row[place].strip() for row in rows]
        if name == "score":
            found[name] = _numbers(path, lines, values)
        elif name == "group":
            places: dict[str, int] = {}
            numbers = [places.setdefault(value, len(places)) for value in values]
            found[name] = np.array(numbers, np.int32)
        else:
            class_names = _sorted(set(values))
            classes = {value: c for c, value in enumerate(class_names)}
            found[name] = np.array([classes[value] for value in values], np.int32)
    title = pathlib.Path(path.removesuffix(".gz")).stem
    return dataset_lib.Dataset(title, found, class_names)


def texts_of(dataset: dataset_lib.Dataset) -> np.ndarray:
    """The sentences of a data set.

    Args:
      dataset: with a column "sentence" of texts.

    Returns:
      Texts [n] or [n, v], an array of objects.

    Raises:
      ValueError: if there is no such column, or it holds rows of tokens already.
    """
    column = dataset_lib.column_of(dataset, "sentence")
    found = column[np.arange(dataset_lib.size(dataset))]
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{dataset.name}: must hold texts, got rows of tokens")
    return found


def _rows(path: str, columns: Sequence[Name]) -> tuple[list[int], list[list[str]]]:
    """Numbers of lines, and what the columns hold in each."""
    kind = pathlib.Path(path.removesuffix(".gz")).suffix
    _checks.choice("the ending of the file", kind, KINDS)
    for column in columns:
        if isinstance(column, bool) or not isinstance(column, int | str):
            raise TypeError(
                f"columns must be names or numbers, got {type(column).__name__}"
            )
        if isinstance(column, int):
            _checks.count("a column's number", column, 0)
    if kind == ".jsonl":
        return _objects(path, columns)
    rows: Iterator[tuple[int, list[str]]]
    if kind == ".txt":
        if list(columns) != [0]:
            raise ValueError(
                f"{path}: a .txt has the column 0 alone, got {_listed(columns)}"
            )
        rows = ((number, [line]) for number, line in numbered_lines(path))
    elif kind == ".tsv":
        rows = ((number, line.split("\t")) for number, line in numbered_lines(path))
    else:
        rows = commas(path)
    first = next(rows, None)
    if first is None:
        return [], []
    width, taken = len(first[1]), _taken(path, columns, first[1])
    lines, found = [], []
    for number, cells in (first, *rows) if _numbered(columns) else rows:
        if len(cells) != width:
            raise ValueError(
                f"{path}: line {number} must have {width} columns, as the first line, "
                f"got {len(cells)}"
            )
        lines.append(number)
        found.append([cells[place] for place in taken])
    return lines, found


def _numbered(columns: Sequence[Name]) -> bool:
    return all(isinstance(column, int) for column in columns)


def _taken(path: str, columns: Sequence[Name], first: list[str]) -> list[int]:
    """Places of the columns in a line."""
    names = [name.strip() for name in first]
    named = not _numbered(columns)
    taken = []
    for column in columns:
        if isinstance(column, int) and column < len(names):
            taken.append(column)
        elif isinstance(column, str) and column in names:
            taken.append(names.index(column))
        else:
            there = _listed(names) if named else f"0 to {len(names) - 1}"
            raise ValueError(f"{path}: has no column {column!r}; it has {there}")
    return taken


def _objects(path: str, columns: Sequence[Name]) -> tuple[list[int], list[list[str]]]:
    lines, found = [], []
    for column in columns:
        if not isinstance(column, str):
            raise ValueError(
                f"{path}: columns of a .jsonl have names, such as sentence='text', got "
                f"{column!r}"
            )
    for number, content in numbered_objects(path):
        cells = []
        for column in columns:
            value = content.get(column)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError(
                    f"{path}: line {number} must have a text or number {column!r}; it "
                    f"has {_listed(list(content))}"
                )
            cells.append(str(value))
        lines.append(number)
        found.append(cells)
    return lines, found


def commas(path: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of a `.csv`, by row, with the number of its last line."""
    reader = csv.reader((line + "\n" for _, line in numbered_lines(path)), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
        yield reader.line_num, cells


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1. Nothing but a line feed ends a line."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    unpack: Callable[[str], Any] = gzip.open if path.endswith(".gz") else _plain
    number = 0
    try:
        with unpack(path) as stream:
            for number, line in enumerate(stream, 1):
                encoding = "utf-8-sig" if number == 1 else "utf-8"
                yield number, line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: line {number} is not UTF-8: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: cut short or damaged after line {number}: {error}"
        ) from error


def numbered_objects(path: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """The JSON objects of a file that has one in each line, and their numbers.

    Raises:
      ValueError: as `numbered_lines`, or if a line is no JSON object.
    """
    for number, line in numbered_lines(path):
        try:
            content = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: line {number} must be a JSON object")
        yield number, content


def _plain(path: str) -> Any:
    return pathlib.Path(path).open("rb")


def _numbers(path: str, lines: list[int], values: list[str]) -> np.ndarray:
    found = np.empty(len(values), np.float32)
    for i, value in enumerate(values):
        try:
            found[i] = float(value)
        except ValueError:
            found[i] = np.nan
        if not np.isfinite(found[i]):
            raise ValueError(
                f"{path}: line {lines[i]} must have a finite score, got "
                f"{printable(value)!r}"
            )
    return found


def _sorted(values: set[str]) -> tuple[str, ...]:
    """By their numbers, if all are numbers."""
    try:
        return tuple(sorted(values, key=float))
    except ValueError:
        return tuple(sorted(values))


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown}{', ...' if len(names) > 8 else ''}" or "none"
