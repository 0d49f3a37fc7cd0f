"""Pairs in a NumPy file."""

import json
from typing import Any

import numpy as np

from jaxcl._text import printable
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import files
from jaxcl.data.pairs import captions

CAPTION_KEYS = ("captions", "caption")
GROUP_KEYS = ("groups", "group")
_MOST_KEYWORDS = 8


def arrays(path: str, split: str) -> dataset_lib.Dataset:
    """Images and captions of a `.npz`.

    Images are under `images` or `image`, uint8 [n, h, w] or [n, h, w, c], or as
    differences under `delta`, uint8 [n, 3, h, w]. Captions are under `captions` or
    `caption`, texts [n] or [n, c], of which some may be empty; or they are made of the
    name and the keywords in `meta`, JSON [n]. There may be `group`, `label` and
    `class_names`. With several splits, keys begin or end with the split's name.

    Args:
      path: the file.
      split: name of one of its splits; "train" where its keys name none.

    Returns:
      The whole split.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, or lacks images or captions.
    """
    found = list(files.headers(path))
    alone = "delta" in found or files.first_key(found, files.IMAGE_KEYS)
    there = ("train",) if alone else files.array_splits(path)
    if split not in there:
        names = ", ".join(map(repr, there))
        raise ValueError(f"{path}: has split {names}, got {split!r}")
    prefix = "" if alone else split

    def first(choices: tuple[str, ...]) -> Any:
        key = files.first_key(found, choices, prefix)
        return None if key is None else files.load(path, key)

    images = first(files.IMAGE_KEYS)
    if images is None:
        images = _decoded(path, files.load(path, "delta"))
    images = dataset_lib.from_arrays(path, images).columns["image"]
    texts, meta = first(CAPTION_KEYS), first(("meta",))
    group, label = first(GROUP_KEYS), first(files.LABEL_KEYS)
    class_key = files.first_key(found, files.CLASS_KEYS)
    described = (
        [] if meta is None else [_object(path, i, m) for i, m in enumerate(meta)]
    )
    if texts is not None:
        each = _rows(path, texts, len(images))
    elif meta is not None:
        each = [_captions_of(path, i, content) for i, content in enumerate(described)]
    else:
        raise ValueError(
            f"{path}: expected captions under one of the keys "
            f"{', '.join(CAPTION_KEYS)}, or JSON under meta, got {', '.join(found)}"
        )
    if group is None and all("key" in content for content in described):
        group = [content["key"] for content in described] or None
    if label is None and all("group" in content for content in described):
        label = [content["group"] for content in described] or None
    return captions.made(
        path,
        images,
        captions.of_lists(each),
        group=group,
        label=label,
        class_names=None if class_key is None else files.load(path, class_key).tolist(),
    )


def _decoded(path: str, delta: np.ndarray) -> np.ndarray:
    """Images of differences along both axes, modulo 256, of R - G, G and B - G."""
    if delta.ndim != 4 or delta.shape[1] != 3 or delta.dtype != np.uint8:
        raise ValueError(
            f"{path}: delta must be uint8 [n, 3, h, w], got {delta.dtype} "
            f"{list(delta.shape)}"
        )
    images = np.empty((*delta.shape[:1], *delta.shape[2:], 3), np.uint8)
    down = np.cumsum(delta, axis=2, dtype=np.uint8)
    np.cumsum(down, axis=3, dtype=np.uint8, out=np.moveaxis(images, 3, 1))
    images[..., 0] += images[..., 1]
    images[..., 2] += images[..., 1]
    return images


def _rows(path: str, texts: np.ndarray, n: int) -> list[list[str]]:
    if texts.dtype.kind != "U":
        raise ValueError(f"{path}: captions must be texts, got dtype {texts.dtype}")
    if texts.ndim not in (1, 2) or len(texts) != n:
        raise ValueError(
            f"{path}: captions must be [{n}] or [{n}, c], as many rows as there are "
            f"images, got {list(texts.shape)}"
        )
    rows = texts.reshape(n, -1).tolist()
    each = [[text for text in row if text.strip()] for row in rows]
    none = [i for i, row in enumerate(each) if not row]
    if none:
        raise ValueError(
            f"{path}: each image must have a caption; {len(none)} have none, the first "
            f"is image {none[0]}"
        )
    return each


def _object(path: str, i: int, line: Any) -> dict[str, Any]:
    try:
        content = json.loads(str(line))
    except ValueError as error:
        raise ValueError(f"{path}: meta of image {i} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: meta of image {i} must be a JSON object, got "
            f"{printable(line)[:40]!r}"
        )
    return content


def _captions_of(path: str, i: int, content: dict[str, Any]) -> list[str]:
    """The name, and the name with what else is said."""
    name, keywords = content.get("name"), content.get("keywords", [])
    texts = isinstance(keywords, list) and all(isinstance(k, str) for k in keywords)
    if not isinstance(name, str) or not name.strip() or not texts:
        raise ValueError(
            f"{path}: meta of image {i} must have a text 'name' and may have a list of "
            f"texts 'keywords', got {printable(content)[:80]}"
        )
    name = name.strip()
    unique = dict.fromkeys(keyword.strip() for keyword in content.get("keywords", []))
    others = [keyword for keyword in unique if keyword not in ("", name)]
    if not others:
        return [name]
    return [name, f"{name}: {', '.join(others[:_MOST_KEYWORDS])}"]
