"""From a flag to a set of pairs."""

import os

from jaxcl import _checks
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import splits
from jaxcl.data.pairs import arrays, digits, pictures, shards, tables


def open(
    source: str, split: str = "train", *, size: int | None = None
) -> dataset_lib.Dataset:
    """Opens the images and captions that a flag such as `--source` names.

    Args:
      source: "digits", each with its name; a `.npz` of images and captions; a folder of
        images with a table of captions, `.csv`, `.tsv` or `.jsonl`, or the table; or
        `.tar` files as webdataset writes them: one, "shards/*.tar",
        "train-{000..007}.tar", or a folder of them.
      split: a name, or a slice such as "train[:90%]" or "train[:90%,stratified]".
      size: edge in pixels to which images are scaled and cut; None: as they are, all of
        one size.

    Returns:
      The data set: "image" uint8 [n, h, w, c], decoded as they are asked for where they
      are files; "caption", `Captions`; "group" int32 [n], images of one group are right
      for one another's captions; and, where the source has classes, "label" int32 [n].

    Raises:
      FileNotFoundError: if a file is not there.
      ImportError: if a package that reads it is missing.
      TypeError: if source is no text.
      ValueError: if it names no pairs, or they cannot be read.

    Warns:
      UserWarning: of captions without images, images without captions, empty and
        repeated captions, which are left out: a line for each kind.

    >>> print(open("digits", "train[:1%]").columns["caption"][0][0])
    the digit two
    """
    if not isinstance(source, str):
        raise TypeError(f"source must be a string, got {type(source).__name__}")
    if size is not None:
        _checks.count("size", size)
    name = dataset_lib.split_name(split)
    if source == "digits":
        return pictures.scaled(digits.digits(split), size)
    if source.endswith(".npz"):
        whole = arrays.arrays(source, name)
    elif shards.is_shards(source):
        whole = shards.shards(source, name, size)
    elif tables.is_table(source) or os.path.isdir(os.path.expanduser(source)):
        whole = tables.table(source, name, size)
    elif os.path.sep in source and not os.path.exists(os.path.expanduser(source)):
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    else:
        raise ValueError(
            "source must be 'digits', a .npz file, a folder of images with a table of "
            f"captions, or .tar files, got {source!r}"
        )
    return pictures.scaled(splits.select(whole, split), size)
