"""Images and captions whose pair graph is known, and pairs read from a file."""

import os
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from jaxcl import _checks, graphs


class Pairs(NamedTuple):
    """Edges between images and captions, with the classes of both.

    Attributes:
      w: weights of the edges [n, m].
      classes: of the images, int [n].
      of_caption: classes of the captions, int [m].
    """

    w: np.ndarray
    classes: np.ndarray
    of_caption: np.ndarray


class Embedded(NamedTuple):
    """Pairs, and embeddings of both sides that somebody has trained.

    Attributes:
      pairs: their edges; classes are 0 where the file knows none.
      images: [n, d].
      texts: [m, d].
      num_classes: 1 where the file knows none.
    """

    pairs: Pairs
    images: np.ndarray
    texts: np.ndarray
    num_classes: int


def draw(
    num_classes: int,
    images: int,
    phrases: int,
    captions: int,
    noise: float,
    seed: int,
) -> tuple[Pairs, np.ndarray]:
    """Images that are described by the phrases of their class, now and then by others.

    Args:
      num_classes: c.
      images: of each class.
      phrases: of each class; one phrase describes several images.
      captions: different ones of each image.
      noise: probability that a caption is a phrase of another class.
      seed: of the draw.

    Returns:
      Pairs of all captions, and the captions of each image in the order they were
      drawn, int [n, captions].
    """
    random = np.random.default_rng(seed)
    classes = np.repeat(np.arange(num_classes), images)
    of_caption = np.repeat(np.arange(num_classes), phrases)
    others = max(num_classes - 1, 1) * phrases
    drawn = np.empty((len(classes), captions), np.int64)
    for i, c in enumerate(classes):
        likely = np.where(of_caption == c, (1 - noise) / phrases, noise / others)
        drawn[i] = random.choice(
            len(likely), captions, replace=False, p=likely / likely.sum()
        )
    w = np.zeros((len(classes), len(of_caption)), np.float32)
    np.put_along_axis(w, drawn, 1, axis=1)
    return Pairs(w, classes, of_caption), drawn


def first(pairs: Pairs, drawn: np.ndarray, counts: np.ndarray | int) -> Pairs:
    """Keeps the captions of each image that were drawn first, so many of them [n]."""
    w = np.zeros_like(pairs.w)
    counts = np.broadcast_to(counts, len(w))
    for row, texts, count in zip(w, drawn, counts, strict=True):
        row[texts[:count]] = 1
    return pairs._replace(w=w)


def rewritten(pairs: Pairs, rewrites: int) -> Pairs:
    """Every caption and so many rewrites of it, which describe the same images.

    The weights of `graphs.rewritten_pair_graph`, from which they are read.
    """
    n = len(pairs.w)
    graph = np.asarray(graphs.rewritten_pair_graph(pairs.w, rewrites))
    w = (graph[:n, n:] > 0).astype(np.float32)
    return pairs._replace(w=w, of_caption=np.repeat(pairs.of_caption, rewrites + 1))


def read(path: str | os.PathLike, most_nodes: int, seed: int) -> Embedded:
    """Embeddings of pairs from an .npz file.

    Args:
      path: a file with image [n, d], text [m, d], example [m] (the image of each
        caption) and, if there are, group [n] and label [n].
      most_nodes: of more images and captions, whole groups are drawn.
      seed: of that draw.

    Returns:
      The embeddings; an image and a caption have an edge where they are of one group.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no .npz, or an array is missing or does not fit the others.
    """
    if not zipfile.is_zipfile(path):
        pathlib.Path(path).stat()  # says it if there is no such file
        raise ValueError(f"embeddings must be .npz files, got {path}")
    with np.load(path) as file:
        missing = [k for k in ("image", "text", "example") if k not in file]
        if missing:
            raise ValueError(
                f"embeddings must be an .npz with image, text and example, got {path} "
                f"without {', '.join(missing)}"
            )
        held = {key: file[key] for key in file.files}
    images = _checks.representation("image", held["image"])
    texts = _checks.representation("text", held["text"], images.shape[1])
    example = _checks.classes("example", held["example"], len(texts), len(images))
    n = len(images)
    group = _checks.classes("group", held.get("group", np.arange(n)), n)
    label = _checks.classes("label", held.get("label", np.zeros(n, int)), n)
    order = np.random.default_rng(seed).permutation(np.unique(group))
    sizes = [(group == g).sum() + (group[example] == g).sum() for g in order]
    fitting = max(int(np.searchsorted(np.cumsum(sizes), most_nodes, "right")), 2)
    of_image = np.isin(group, order[:fitting])
    of_text = of_image[example]
    names, label = np.unique(label[of_image], return_inverse=True)
    # The classes of captions are those of their images, which were kept.
    place = np.cumsum(of_image) - 1
    kept = example[of_text]
    w = (group[of_image][:, None] == group[kept][None, :]).astype(np.float32)
    pairs = Pairs(w, label, label[place[kept]])
    return Embedded(pairs, images[of_image], texts[of_text], len(names))
