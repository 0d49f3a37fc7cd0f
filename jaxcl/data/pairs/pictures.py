"""The column of images that lie in files, and are decoded when they are asked for."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _optional
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import image_files

_GROUND = 255  # transparent images are put on white, as pages are
_MAX_PIXELS = 178_956_970


class Place(NamedTuple):
    """Where the bytes of an image are.

    Attributes:
      path: the file.
      name: what messages call the image.
      start: first of its bytes.
      length: how many they are; None: all.
    """

    path: str
    name: str
    start: int = 0
    length: int | None = None


class Pictures:
    """Random access to images in files: indices [b] give uint8 [b, h, w, 3].

    Nothing of an image is kept, and several threads may ask at once.

    Args:
      places: of the images.
      shape: height and width that all of them have, or are given.
      edge: pixels of both sides to which images are scaled and cut; None: they have
        that shape.
    """

    lazy = True
    dtype = np.dtype(np.uint8)

    def __init__(
        self, places: Sequence[Place], shape: tuple[int, int], edge: int | None
    ) -> None:
        self.places, self.edge = list(places), edge
        self.shape = (len(self.places), *shape, 3)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: Any) -> np.ndarray:
        index = np.arange(len(self))[indices]
        if np.ndim(index) == 0:
            return self._read(self.places[index])
        images = np.empty((len(index), *self.shape[1:]), np.uint8)
        for i, place in enumerate(index.tolist()):
            images[i] = self._read(self.places[place])
        return images

    def subset(self, indices: np.ndarray) -> "Pictures":
        """Some of the images, as a column of its own."""
        places = [self.places[i] for i in indices.tolist()]
        return Pictures(places, self.shape[1:3], self.edge)

    def _read(self, place: Place) -> np.ndarray:
        pixels = image_files.read(
            place.name,
            gray=False,
            ground=_GROUND,
            max_pixels=_MAX_PIXELS,
            edge=self.edge,
            content=_content(place),
        )
        found = np.asarray(pixels.image, np.uint8)
        if found.shape != self.shape[1:]:
            size = f"{found.shape[1]}x{found.shape[0]} pixels"
            raise image_files.Unreadable(
                place.name, f"changed since it was opened: it has {size} now"
            )
        return found


def pictures(source: str, places: Sequence[Place], size: int | None) -> Pictures:
    """The column of images in files.

    Args:
      source: what messages call them all.
      places: of the images.
      size: edge in pixels to which they are scaled and cut; None: their headers are
        read, and all must be of one size.

    Returns:
      The column; images without color have three equal channels.

    Raises:
      ValueError: if one cannot be read, or they differ in size and none is given.
    """
    if size is not None:
        return Pictures(places, (size, size), size)
    sizes: dict[tuple[int, int], str] = {}
    for place in places:
        found = image_files.look(
            place.name, max_pixels=_MAX_PIXELS, upright=True, content=_content(place)
        )
        sizes.setdefault(found.size, place.name)
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise ValueError(
            f"{source}: images must be of one size, or size must be given, to which "
            f"they are scaled and cut; got {first[0]}x{first[1]} ({one}) and "
            f"{second[0]}x{second[1]} ({other})"
        )
    ((width, height),) = sizes
    return Pictures(places, (height, width), None)


def scaled(dataset: dataset_lib.Dataset, size: int | None) -> dataset_lib.Dataset:
    """The same set with images of another size, if they lie in memory.

    Args:
      dataset: of images.
      size: edge in pixels to which they are scaled and cut; None: as they are.

    Returns:
      The data set.
    """
    images: Any = dataset.columns["image"]
    if size is None or images.shape[1:3] == (size, size):
        return dataset
    if images.shape[3] not in (1, 3):
        raise ValueError(
            f"{dataset.name}: size needs images of 1 or 3 channels, got {images.shape}"
        )
    pillow = _optional.require("PIL.Image", "reading or resizing images", "tools")
    found = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        whole = pillow.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        found[i] = np.asarray(image_files.resized(whole, size)).reshape(found[i].shape)
    return dataset._replace(columns={**dataset.columns, "image": found})


def _content(place: Place) -> bytes:
    try:
        with open(place.path, "rb") as file:
            file.seek(place.start)
            content = file.read(-1 if place.length is None else place.length)
    except OSError as error:
        reason = error.strerror or str(error)
        raise image_files.Unreadable(place.name, reason) from error
    if place.length is not None and len(content) < place.length:
        raise image_files.Unreadable(
            place.name, f"{os.path.basename(place.path)} is shorter than it was"
        )
    return content
