"""From a flag to a set of pairs."""

from jaxcl.data import dataset as dataset_lib
from jaxcl.data import splits
from jaxcl.data.pairs import arrays, captions, digits


def open(
    source: str, split: str = "train", *, size: int | None = None
) -> dataset_lib.Dataset:
    """Opens the images and captions that a flag such as `--source` names.

    Args:
      source: "digits", each with its name; or a `.npz` of images and captions.
      split: a name, or a slice such as "train[:90%]" or "train[:90%,stratified]".
      size: edge in pixels to which images are scaled and cut; None: as they are.

    Returns:
      The data set: "image" uint8 [n, h, w, c]; "caption", `Captions`; "group" int32
      [n], images of one group are right for one another's captions; and, where the
      source has classes, "label" int32 [n].

    Raises:
      FileNotFoundError: if the file is not there.
      TypeError: if source is no text.
      ValueError: if it names no pairs, or they cannot be read.

    >>> print(open("digits", "train[:1%]").columns["caption"][0][0])
    the digit two
    """
    if not isinstance(source, str):
        raise TypeError(f"source must be a string, got {type(source).__name__}")
    captions.check_size(size)
    name = dataset_lib.split_name(split)
    if source == "digits":
        return digits.digits(split)
    if source.endswith(".npz"):
        return splits.select(arrays.arrays(source, name), split)
    raise ValueError(
        f"source must be 'digits' or a file ending in .npz, got {source!r}"
    )
