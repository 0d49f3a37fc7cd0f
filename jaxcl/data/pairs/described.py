"""Images that files describe: what belongs to which, and what is wrong with them."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxcl._text import printable
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import folders
from jaxcl.data.pairs import captions, pictures

FILE_KEYS = ("file_name", "filename", "filepath", "file", "image", "path")
CAPTION_KEYS = ("caption", "captions", "text", "title", "comment")
GROUP_KEYS = ("group", "groups")
LABEL_KEYS = ("label", "labels", "class")


class Described(NamedTuple):
    """An image and what is said of it.

    Attributes:
      place: of its bytes.
      captions: texts without spaces around them, none of them empty.
      group: what it is called, or None.
      label: its class, or None.
    """

    place: pictures.Place
    captions: list[str]
    group: Any = None
    label: Any = None


class Account:
    """What is left out, and a line for each kind of it.

    Args:
      source: what messages call the whole.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.left_out: dict[str, list[str]] = {}

    def leave(self, why: str, name: str) -> None:
        """Puts one thing to account; `why` is of many."""
        self.left_out.setdefault(why, []).append(printable(name))

    def kept(
        self, name: str, texts: list[str], before: Iterable[str] = ()
    ) -> list[str]:
        """Captions of an image that are neither empty nor there already.

        Args:
          name: what messages call it.
          texts: captions without spaces around them.
          before: captions that it has.
        """
        found = dict.fromkeys(before)
        size = len(found)
        for text in texts:
            if not text:
                self.leave("empty captions", name)
            elif text in found:
                self.leave("captions that an image has already", name)
            else:
                found[text] = None
        return list(found)[size:]

    def lines(self) -> list[str]:
        """A line for each kind."""
        return [
            f"{self.source}: {len(names):,} {why}, left out: {folders.some(names)}"
            for why, names in self.left_out.items()
        ]

    def warn(self) -> None:
        """Says what is left out."""
        for line in self.lines():
            warnings.warn(line, stacklevel=5)


def made(
    source: str, found: Iterable[Described], account: Account, size: int | None
) -> dataset_lib.Dataset:
    """The set of the images that have captions.

    Args:
      source: what messages call it.
      found: images with one or more captions each.
      account: of what is left out already, of which it warns.
      size: edge in pixels, or None.

    Returns:
      The data set. There are given groups if all images have one, and labels likewise.

    Raises:
      ValueError: if there are none, or some have a group or a label and others not.
    """
    whole = list(found)
    if not whole:
        why = "; ".join(["must hold images with captions, got none", *account.lines()])
        raise ValueError(f"{source}: {why}")
    account.warn()
    columns: dict[str, Any] = {}
    for name in ("group", "label"):
        values = [getattr(each, name) for each in whole]
        lacking = [e.place.name for e in whole if getattr(e, name) in (None, "")]
        if 0 < len(lacking) < len(whole):
            raise ValueError(
                f"{source}: all images or none must have a {name}; {len(lacking):,} of "
                f"{len(whole):,} have none, the first is {lacking[0]}"
            )
        columns[name] = None if lacking else [str(value) for value in values]
    names = None
    if columns["label"] is not None:
        names, columns["label"] = _classes(columns["label"])
    places = [each.place for each in whole]
    return captions.made(
        source,
        pictures.pictures(source, places, size),
        captions.of_lists([each.captions for each in whole]),
        group=columns["group"],
        label=columns["label"],
        class_names=names,
    )


def texts_in(value: Any) -> list[str] | None:
    """The texts of a caption's field: one, or a list of them.

    Returns:
      The texts without spaces around them, some perhaps empty; None if it is of another
      kind.
    """
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in several):
        return None
    return [text.strip() for text in several]


def _classes(labels: list[str]) -> tuple[list[str], list[int]]:
    """Names of classes, by their numbers if all are numbers, and the labels."""
    try:
        names = sorted(set(labels), key=float)
    except ValueError:
        names = sorted(set(labels))
    places = {name: label for label, name in enumerate(names)}
    return names, [places[label] for label in labels]
