"""From a flag to a data set."""

import os

from jaxcl.data import dataset as dataset_lib
from jaxcl.data import files, prepared


def open(
    spec: str,
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> dataset_lib.Dataset:
    """Opens the data set that a flag such as `--source` names.

    Args:
      spec: "digits"; a path ending in .npz or .npy; "tfds:NAME"; or the directory of a
        prepared TFDS set.
      split: a name, or a slice of consecutive examples, "train[:90%]", or of ones drawn
        evenly over the classes, "train[:90%,stratified]".
      data_dir: where "tfds:NAME" is looked for; by default $TFDS_DATA_DIR, else
        ~/tensorflow_datasets.

    Returns:
      The data set.

    Raises:
      FileNotFoundError: if the file or the prepared set is not there.
      ImportError: if a package that reads it is missing.
      ValueError: if the flag names no source, or what it names cannot be read.

    Warns:
      UserWarning: if consecutive examples lack classes, as of a set sorted by class.

    >>> open("digits", "train[:10%]").columns["image"].shape
    (130, 8, 8, 1)
    """
    if not isinstance(spec, str):
        raise TypeError(f"source must be a string, got {type(spec).__name__}")
    if spec == "digits":
        return files.digits(split)
    if spec.endswith((".npz", ".npy")):
        return files.arrays(spec, split)
    if spec.startswith("tfds:"):
        return prepared.tfds(spec.removeprefix("tfds:"), split, data_dir)
    if os.path.isdir(os.path.expanduser(spec)):
        return prepared.tfds(os.path.abspath(os.path.expanduser(spec)), split)
    raise ValueError(
        "source must be 'digits', a file ending in .npz or .npy, 'tfds:NAME', or the "
        f"directory of a prepared TFDS set, got {spec!r}"
    )
