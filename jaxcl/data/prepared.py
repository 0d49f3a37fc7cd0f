"""Image sets that TFDS prepared as array_record, read without TensorFlow."""

import os
import pathlib
import re
from typing import Any

import numpy as np

from jaxcl import _optional
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import splits as splits_lib

_NAME = re.compile(r"(\w+)(?:/([\w+.-]+))?(?::(\d+\.\d+\.\d+))?")
_UNREADABLE = (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError)


def tfds(
    name_or_directory: str | os.PathLike[str],
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    labels: bool = True,
) -> dataset_lib.Dataset:
    """A prepared TFDS image set; images are read when they are asked for.

    Only files on this machine are looked at, never the network. Images are the feature
    "image", or the only image there is: uint8 `features.Image` or `features.Tensor`,
    all of one size. Labels are the feature "label", or the only `features.ClassLabel`.
    They are read once, here, in a pass over all records. A split whose labels are all
    -1 has none.

    Args:
      name_or_directory: "mnist", "mnist:3.0.1", "set/config", or the directory of a
        set.
      split: as TFDS writes it: "train", "train[:90%]", "train+test"; or a slice drawn
        evenly over the classes: "train[:90%,stratified]".
      data_dir: where named sets are; by default $TFDS_DATA_DIR, else
        ~/tensorflow_datasets.
      labels: whether to read the labels.

    Returns:
      The data set, in the order of its files.

    Raises:
      FileNotFoundError: if no such set is prepared; it says what to run.
      ImportError: if tensorflow_datasets or array_record is not installed.
      ValueError: if the set is damaged, of another format, or has no such split.

    Warns:
      UserWarning: if a slice lacks classes, as one of a set sorted by class does.
    """
    if split.endswith("stratified]"):  # of all labels, which TFDS does not know
        whole = tfds(
            name_or_directory, dataset_lib.split_name(split), data_dir, labels=True
        )
        part = splits_lib.select(whole, split)
        if labels:
            return part
        return dataset_lib.Dataset(part.name, {"image": part.columns["image"]})
    directory, name = _find(os.fspath(name_or_directory), data_dir)
    purpose = f"the source {name!r}"
    package = _optional.require("tensorflow_datasets", purpose, "data")
    _optional.require("array_record", purpose, "data")
    broken = f"{directory}: not a readable TFDS set: "
    # TFDS raises many types here, among them protobuf's own.
    try:
        builder = package.builder_from_directory(os.fspath(directory))
        features, splits = dict(builder.info.features), builder.info.splits
        formats = builder.info.available_file_formats()
    except Exception as error:
        raise ValueError(f"{broken}{error}") from error
    if "array_record" not in {f.value for f in formats}:
        raise ValueError(
            f"{directory}: must be prepared as array_record, got "
            f"{', '.join(sorted(f.value for f in formats)) or 'no format'}: "
            "`jaxcl prepare` writes that format"
        )
    image_key = _image_key(directory, package, features)
    label_key = _label_key(package, features) if labels else None
    try:
        records = builder.as_data_source(
            split,
            deserialize_method=package.decode.DeserializeMethod.RAW_BYTES,
            file_format="array_record",
        )
        length = len(records)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"{directory}: split must be one of {', '.join(splits)} or a part of it "
            f"such as 'train[:90%]' or 'train[:90%,stratified]', got {split!r}: "
            f"{error}"
        ) from error
    if length < 1:
        raise ValueError(f"{directory}: split {split!r} holds no image")

    def column(key: str) -> _Column:
        return _Column(
            directory, records, package.features.FeaturesDict({key: features[key]}), key
        )

    columns: dict[str, Any] = {"image": _Images(column(image_key))}
    if label_key is None:
        return dataset_lib.Dataset(name, columns)
    classes = column(label_key).read(range(length))
    if all(label == -1 for label in classes):
        return dataset_lib.Dataset(name, columns)
    columns["label"] = np.asarray(classes, np.int32)
    found = dataset_lib.Dataset(name, columns, _names(features[label_key]))
    if split.endswith("]"):
        splits_lib.warn_if_sorted(found, split)
    return found


def is_prepared(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a prepared set, itself or one or two levels below.

    Args:
      directory: any path.

    Returns:
      True if a `dataset_info.json` is there.
    """
    return bool(_builder_directories(pathlib.Path(directory).expanduser()))


def default_data_dir() -> str:
    """Where TFDS keeps its sets: $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The directory; it need not exist.
    """
    place = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return os.path.expanduser(place)


class _Column:
    """One feature of all records."""

    def __init__(
        self, directory: pathlib.Path, records: Any, features: Any, key: str
    ) -> None:
        self.directory, self.records = directory, records
        self.features, self.key = features, key

    def __len__(self) -> int:
        return len(self.records)

    def read(self, indices: Any) -> list[Any]:
        values: list[Any] = []
        # In blocks: the encoded records of a large set would not fit in memory.
        for start in range(0, len(indices), 4096):
            block = [int(i) for i in indices[start : start + 4096]]
            try:
                for record in self.records.__getitems__(block):
                    example = self.features.deserialize_example_np(record)
                    values.append(example[self.key])
            except ImportError:
                raise
            except _UNREADABLE as error:
                raise ValueError(
                    f"{self.directory}: cannot read {self.key!r}, prepare the set "
                    f"again (--overwrite): {error}"
                ) from error
        return values


class _Images:
    """Random access to images of a prepared set; several threads may ask at once."""

    lazy = True

    def __init__(self, column: _Column) -> None:
        self.column = column
        first = self._read([0])
        self.shape = (len(column), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        indices = np.arange(len(self))[key]
        if np.ndim(indices) == 0:
            return self._read([indices])[0]
        if len(indices) == 0:
            return np.empty((0, *self.shape[1:]), np.uint8)
        return self._read(indices)

    def _read(self, indices: Any) -> np.ndarray:
        images = [np.asarray(image) for image in self.column.read(indices)]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ValueError(
                f"{self.column.directory}: images must have one size, got "
                f"{', '.join(map(str, sorted(shapes)))}: prepare the set with --resize"
            )
        stacked = np.stack(images)
        if stacked.ndim == 3:
            stacked = stacked[..., None]
        if stacked.dtype != np.uint8 or stacked.ndim != 4:
            raise ValueError(
                f"{self.column.directory}: images must be uint8 [h, w, c], got "
                f"{stacked.dtype} {images[0].shape}"
            )
        return stacked


def _find(
    given: str, data_dir: str | os.PathLike[str] | None
) -> tuple[pathlib.Path, str]:
    """Directory of the files and name of a set, or an error that says what to run."""
    directory = pathlib.Path(given).expanduser()
    if directory.is_absolute() or given.startswith(".") or is_prepared(directory):
        found = _builder_directories(directory)
        if not found:
            raise FileNotFoundError(
                f"{given}: no prepared TFDS set in this directory; "
                "`jaxcl prepare --help` says how to make one"
            )
        return _newest(given, found), given
    match = _NAME.fullmatch(given)
    if match is None:
        raise ValueError(
            "a TFDS set must be written NAME, NAME/CONFIG, NAME:1.0.0 or as a "
            f"directory, got {given!r}"
        )
    root = pathlib.Path(data_dir or default_data_dir()).expanduser()
    name, config, version = match.groups()
    found = _builder_directories(root / name / config if config else root / name)
    if version:
        found = [path for path in found if path.name == version]
    if not found:
        there = sorted(p.name for p in root.glob("[!.]*") if _builder_directories(p))
        raise FileNotFoundError(
            f"no prepared TFDS set {given!r} in {root} (there: "
            f"{', '.join(there) or 'none'}). Prepare it from files with `jaxcl "
            f"prepare --name {name} --train FILES --test FILES`, or a set known to "
            f"TFDS with `jaxcl prepare --stock {given}`; or set TFDS_DATA_DIR to where "
            "it is"
        )
    return _newest(given, found), given


def _builder_directories(root: pathlib.Path) -> list[pathlib.Path]:
    """Directories of prepared files: root, root/version or root/config/version."""
    if (root / "dataset_info.json").is_file():
        return [root]
    # Runs that were stopped leave "incomplete.*" (TFDS) or hidden directories.
    finished = "[!.]*/"
    for pattern in (finished, finished + finished):
        paths = sorted(root.glob(pattern + "dataset_info.json"))
        found = [p.parent for p in paths if not p.parent.name.startswith("incomplete")]
        if found:
            return found
    return []


def _newest(given: str, found: list[pathlib.Path]) -> pathlib.Path:
    configs = sorted({path.parent.name for path in found})
    if len(configs) > 1:
        raise ValueError(
            f"{given!r} holds several sets or configurations, name one: "
            f"{', '.join(configs)}"
        )

    def version(path: pathlib.Path) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", path.name))

    return max(found, key=version)


def _image_key(directory: pathlib.Path, package: Any, features: dict[str, Any]) -> str:
    def is_image(feature: Any) -> bool:
        shape = getattr(feature, "shape", None)
        if isinstance(feature, package.features.Image):
            return True
        is_tensor = type(feature) is package.features.Tensor
        return is_tensor and shape is not None and len(shape) in (2, 3)

    keys = [key for key, feature in features.items() if is_image(feature)]
    if "image" in keys:
        return "image"
    if len(keys) != 1:
        raise ValueError(
            f"{directory}: expected one image in each record, got features "
            f"{', '.join(sorted(features))}"
        )
    return keys[0]


def _label_key(package: Any, features: dict[str, Any]) -> str | None:
    is_label = package.features.ClassLabel
    keys = [key for key, feature in features.items() if isinstance(feature, is_label)]
    if "label" in keys:
        return "label"
    return keys[0] if len(keys) == 1 else None


def _names(feature: Any) -> tuple[str, ...]:
    numbers = tuple(str(c) for c in range(feature.num_classes))
    try:
        return tuple(feature.names or numbers)
    except ValueError:  # TFDS: only the number of classes is known
        return numbers
