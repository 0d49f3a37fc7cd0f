"""Turns image files into a TFDS set that is read without TensorFlow.

jaxcl prepare --name my_set --train a.npz b.npz --test c.npz
jaxcl prepare --name my_photos --folder photos --resize 64
jaxcl prepare --stock cifar10

In the order it runs: settings, reading, writing, putting in place.
"""

import contextlib
import dataclasses
import gzip
import importlib.util
import io
import os
import pathlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _checks, _files, _optional
from jaxcl.data import batching, files, prepared
from jaxcl.data import dataset as dataset_lib

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Turns image files into a TFDS set (array_record) for `--source tfds:NAME`.

    Give `--name` with `--train` (and `--test`) or with `--folder`; or give `--stock`.

    Files may be: .npz with images and labels; .npy with images or labels; MNIST's idx
    files, plain or .gz, with images or labels. Several files are joined in the order
    given.

    A folder may hold .png, .jpg or .jpeg images in a sub-folder for each class; or
    train, test, val with such sub-folders; or images alone, which have no labels.
    """

    name: str = ""  # name of the new set: lower case letters, digits, underscores
    train: tuple[str, ...] = ()  # files of the split "train"
    test: tuple[str, ...] = ()  # files of the split "test"; a .npz may serve both
    folder: str | None = None  # folder of images, instead of files
    stock: str | None = None  # a set TFDS knows, to download; needs 'jaxcl[prepare]'
    resize: _checks.Count | None = (
        None  # pixels: scale the shorter side, cut the middle out
    )
    data_dir: str | None = None  # default: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    npz: str | None = None  # write this .npz instead, for machines without TFDS
    overwrite: bool = False  # replace what is there, once the new files are complete


def main(s: Settings) -> str:
    """Prepares a set.

    Args:
      s: the settings.

    Returns:
      What to give as `--source`.

    Raises:
      FileExistsError: if the set is there already and `overwrite` is not given.
      FileNotFoundError: if an input is not there.
      ImportError: if a package is missing.
      ValueError: if settings contradict each other or an input cannot be read.
    """
    _check(s)
    data_dir = pathlib.Path(s.data_dir or prepared.default_data_dir()).expanduser()
    if s.stock:
        return prepare_stock(s.stock, data_dir, s.overwrite)
    if s.npz:
        _refuse_existing(pathlib.Path(s.npz), s.overwrite)
    else:
        _check_place(data_dir, s.name, s.overwrite)

    splits: dict[str, dataset_lib.Dataset] = {}
    if s.folder:
        splits = read_folder(s.folder, s.resize)
    else:
        for split, paths in (("train", s.train), ("test", s.test)):
            if paths:
                splits[split] = read_files(paths, split, s.resize)
    splits = _same_classes(splits)

    if s.npz:
        write_npz(splits, pathlib.Path(s.npz))
        source = s.npz
    else:
        place = data_dir / s.name / VERSION
        with _new_directory(place, s.overwrite) as new:
            write_tfds(s.name, splits, new)
        for split, dataset in splits.items():
            written = dataset_lib.size(prepared.tfds(place, split))
            if written != dataset_lib.size(dataset):
                raise ValueError(
                    f"{place}: {split} holds {written} images after writing, expected "
                    f"{dataset_lib.size(dataset)}"
                )
        source = _source(s.name, data_dir)
    for split, dataset in splits.items():
        size = "x".join(map(str, _shape(dataset)))
        names = dataset.class_names
        classes = f", {len(names)} classes" if names else ""
        print(f"{split}: {dataset_lib.size(dataset):,} images {size}{classes}")
    print(f"Use it with: --source {source}")
    return source


# Reading.


class Piece(NamedTuple):
    """What one file holds: images, labels, or both."""

    path: str
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None


def read_files(
    paths: Sequence[str], split: str, resize: int | None
) -> dataset_lib.Dataset:
    """Joins files to one split.

    Args:
      paths: files with images, labels or both.
      split: which part to take of `.npz` files with several.
      resize: edge in pixels, or None.

    Returns:
      The data set, in the order of the files.

    Raises:
      ValueError: if the files do not fit together.
    """
    pieces = [read_file(path, split) for path in paths]
    name = ", ".join(paths)
    images = [piece.images for piece in pieces if piece.images is not None]
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    names = {piece.class_names for piece in pieces if piece.class_names}
    if not images:
        raise ValueError(f"--{split} must hold images, got only labels: {name}")
    if len({x.shape[1:] for x in images}) > 1 and resize is None:
        shapes = ", ".join(
            f"{piece.path} {piece.images.shape}"
            for piece in pieces
            if piece.images is not None
        )
        raise ValueError(f"images must have one size (or use --resize), got {shapes}")
    if len(names) > 1:
        raise ValueError(f"files must agree on the class names, got {sorted(names)}")
    if resize is not None:
        images = [_resize_all(x, resize) for x in images]
    return dataset_lib.from_arrays(
        name,
        np.concatenate(images) if len(images) > 1 else images[0],
        np.concatenate(labels) if labels else None,
        names.pop() if names else None,
    )


def read_file(path: str, split: str) -> Piece:
    """Reads one file of images or labels.

    Args:
      path: `.npz`, `.npy`, or idx, plain or compressed.
      split: which part to take of a `.npz` file with several.

    Returns:
      What it holds.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it cannot be read.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.endswith(".npz"):
        splits = files.array_splits(path)
        chosen = "train" if splits == ("train",) else split
        dataset = files.arrays(path, chosen)
        images: Any = dataset.columns["image"]
        labels: Any = dataset.columns.get("label")
        return Piece(path, np.asarray(images), labels, _named(dataset.class_names))
    if path.endswith(".npy"):
        array = files.load(path)
        if array.ndim == 1:
            return Piece(path, labels=np.asarray(array))
        images = files.arrays(path).columns["image"]
        assert isinstance(images, np.ndarray)
        return Piece(path, images)
    return _read_idx(path)


def _read_idx(path: str) -> Piece:
    """MNIST's format: two zeros, 8 for uint8, the number of axes, sizes, values."""
    with open(path, "rb") as file:
        raw = file.read()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
    axes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    if axes not in (1, 3):
        raise ValueError(
            f"{path}: expected .npz, .npy, or an idx file of uint8 images [n, h, w] or "
            "labels [n]"
        )
    start = 4 + 4 * axes
    shape = tuple(int(i) for i in np.frombuffer(raw[4:start], ">u4"))
    if len(shape) != axes or len(raw) - start != np.prod(shape):
        raise ValueError(
            f"{path}: expected {shape} values after the header, got {len(raw) - start} "
            "bytes"
        )
    values = np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
    return Piece(path, labels=values) if axes == 1 else Piece(path, values)


def read_folder(folder: str, resize: int | None) -> dict[str, dataset_lib.Dataset]:
    """Finds the images of a folder; they are decoded when they are asked for.

    Args:
      folder: classes as sub-folders; or splits with such sub-folders; or images.
      resize: edge in pixels, or None.

    Returns:
      A data set for each split. The classes are mixed in a fixed order, so that a slice
      such as "train[:90%]" holds all of them.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no images, or images of several sizes without `resize`.
    """
    root = pathlib.Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    inside = {place.name for place in root.glob("[!.]*") if place.is_dir()}
    # A class may be called "train": only these names together are splits.
    if "train" in inside <= {"train", "test", "val", "validation"}:
        found = {split: _find_images(root / split) for split in sorted(inside)}
    else:
        found = {"train": _find_images(root)}
    paths = [path for _, listed in found.values() for path, _ in listed]
    opened = [_measure(path) for path in paths]
    gray = all(mode in ("1", "L") for mode, _ in opened)
    sizes = {size: path for path, (_, size) in zip(paths, opened, strict=True)}
    if resize is None and len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise ValueError(
            f"images must have one size, or use --resize; got {first} {a}, {second} {b}"
        )
    width, height = (resize, resize) if resize else next(iter(sizes))
    datasets = {}
    for split, (names, listed) in found.items():
        order = batching.permutation(len(listed), 0, 0)
        images = _Files(
            [listed[i][0] for i in order], (height, width, 1 if gray else 3), resize
        )
        labels = np.array([listed[i][1] for i in order], np.int32)
        columns = {"image": images} | ({"label": labels} if names else {})
        datasets[split] = dataset_lib.Dataset(folder, columns, names or None)
    return datasets


def _find_images(
    folder: pathlib.Path,
) -> tuple[tuple[str, ...], list[tuple[pathlib.Path, int]]]:
    """Class names, and the paths of all images with their classes."""

    def images(place: pathlib.Path, pattern: str) -> list[pathlib.Path]:
        kinds = (".png", ".jpg", ".jpeg")
        return sorted(p for p in place.glob(pattern) if p.suffix.lower() in kinds)

    folders = sorted(p for p in folder.glob("[!.]*") if p.is_dir())
    alone = images(folder, "*")
    if alone and folders:
        raise ValueError(
            f"{folder}: expected images or a sub-folder for each class, got both: "
            f"{alone[0].name}, {folders[0].name}/"
        )
    listed = [(path, 0) for path in alone]
    for label, place in enumerate(folders):
        inside = images(place, "**/*")
        if not inside:
            raise ValueError(f"{place}: a class without .png, .jpg or .jpeg images")
        listed += [(path, label) for path in inside]
    if not listed:
        raise ValueError(f"{folder}: no .png, .jpg or .jpeg images in it")
    return tuple(place.name for place in folders), listed


class _Files:
    """Random access to image files."""

    def __init__(
        self, paths: list[pathlib.Path], shape: tuple[int, int, int], resize: int | None
    ) -> None:
        self.paths, self.resize = paths, resize
        self.shape = (len(paths), *shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Any) -> np.ndarray:
        indices = np.arange(len(self))[key]
        if np.ndim(indices) == 0:
            return self._read(self.paths[indices])
        return np.stack([self._read(self.paths[i]) for i in indices])

    def _read(self, path: pathlib.Path) -> np.ndarray:
        pillow = _pillow()
        try:
            with pillow.open(path) as image:
                image = image.convert("L" if self.shape[3] == 1 else "RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"{path}: not a readable image: {error}") from error
        if self.resize is not None:
            image = _resize(image, self.resize)
        return np.asarray(image, np.uint8).reshape(self.shape[1:])


def _measure(path: pathlib.Path) -> tuple[str, tuple[int, int]]:
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return image.mode, image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: not a readable image: {error}") from error


def _pillow() -> Any:
    return _optional.require("PIL.Image", "reading or resizing images", "tools")


def _resize(image: Any, edge: int) -> Any:
    """Scales the shorter side to `edge` and cuts the middle out."""
    scale = edge / min(image.size)
    width, height = (max(edge, round(side * scale)) for side in image.size)
    image = image.resize((width, height), _pillow().Resampling.BICUBIC)
    left, top = (width - edge) // 2, (height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def _resize_all(images: np.ndarray, edge: int) -> np.ndarray:
    resized = np.empty((len(images), edge, edge, *images.shape[3:]), np.uint8)
    pillow = _pillow()
    for i, image in enumerate(images):
        # One channel at a time: Pillow has no image type for every channel count.
        planes = image.reshape(*image.shape[:2], -1)
        for c in range(planes.shape[2]):
            plane = pillow.fromarray(np.ascontiguousarray(planes[:, :, c]))
            resized[i].reshape(edge, edge, -1)[:, :, c] = _resize(plane, edge)
    return resized


def _same_classes(
    splits: dict[str, dataset_lib.Dataset],
) -> dict[str, dataset_lib.Dataset]:
    """Gives all splits the same classes and checks that they fit together."""
    labelled = {k: d for k, d in splits.items() if "label" in d.columns}
    if len({_shape(d) for d in splits.values()}) > 1:
        shapes = ", ".join(
            f"{k} {(dataset_lib.size(d), *_shape(d))}" for k, d in splits.items()
        )
        raise ValueError(f"splits must have images of one size, got {shapes}")
    if labelled and len(labelled) < len(splits):
        raise ValueError(
            f"all splits must have labels, or none; only {', '.join(labelled)} has"
        )
    if not labelled:
        return splits
    named = (_named(d.class_names) for d in labelled.values())
    names = {each for each in named if each is not None}
    if len(names) > 1:
        raise ValueError(f"splits must agree on the class names, got {sorted(names)}")
    classes = max(len(d.class_names or ()) for d in labelled.values())
    if names and len(next(iter(names))) < classes:
        raise ValueError(f"expected {classes} class names, got {sorted(names)}")
    chosen = names.pop() if names else _numbers(classes)
    if len(set(chosen)) != len(chosen) or any(not c.strip() for c in chosen):
        raise ValueError(f"class names must differ and not be empty, got {chosen}")
    return {k: d._replace(class_names=chosen) for k, d in splits.items()}


def _named(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of classes, unless they are the numbers that stand for none."""
    return None if names is None or names == _numbers(len(names)) else names


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(str(c) for c in range(classes))


def _shape(dataset: dataset_lib.Dataset) -> tuple[int, ...]:
    """Of one image."""
    return dataset.columns["image"][np.arange(1)].shape[1:]


# Writing.


def write_tfds(
    name: str, splits: dict[str, dataset_lib.Dataset], directory: pathlib.Path
) -> None:
    """Writes a TFDS set with array_record files; the order of the images is kept.

    Args:
      name: name of the set.
      splits: data sets with equal image sizes and classes.
      directory: where its files go.

    Raises:
      ImportError: if tensorflow_datasets or array_record is not installed.
    """
    tfds: Any = _optional.require("tensorflow_datasets", "writing a TFDS set", "data")
    _optional.require("array_record", "writing a TFDS set", "data")
    any_split = next(iter(splits.values()))
    # Raw bytes: PNG images could only be written with TensorFlow's help.
    features: dict[str, Any] = {
        "image": tfds.features.Tensor(
            shape=_shape(any_split), dtype=np.uint8, encoding="bytes"
        )
    }
    if "label" in any_split.columns:
        features["label"] = tfds.features.ClassLabel(names=any_split.class_names)

    class ImageSet(  # type: ignore[call-arg]
        tfds.core.GeneratorBasedBuilder, skip_registration=True
    ):
        VERSION = tfds.core.Version(VERSION)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description="Images prepared by jaxcl.",
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label") if len(features) == 2 else None,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {k: self._generate_examples(k, d) for k, d in splits.items()}

        def _generate_examples(
            self, split: str, dataset: dataset_lib.Dataset
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            tqdm = _optional.require("tqdm", "the progress bar", "tools")
            for i in tqdm.tqdm(range(dataset_lib.size(dataset)), split, unit="image"):
                example: dict[str, Any] = {"image": dataset.columns["image"][i]}
                if "label" in dataset.columns:
                    example["label"] = int(dataset.columns["label"][i])
                yield i, example

    ImageSet.name = name
    tfds.disable_progress_bar()
    with (
        tempfile.TemporaryDirectory(prefix=".writing-", dir=directory.parent) as root,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder = ImageSet(data_dir=root, file_format="array_record")
        builder.download_and_prepare()
        os.replace(os.fspath(builder.data_dir), directory)


def write_npz(splits: dict[str, dataset_lib.Dataset], path: pathlib.Path) -> None:
    """Writes the splits as one `.npz` file that `jaxcl.data.arrays` reads.

    Args:
      splits: data sets; they must fit in memory.
      path: the file; it is complete or not there.
    """
    content: dict[str, Any] = {}
    for split, dataset in splits.items():
        content[f"{split}_images"] = dataset.columns["image"][:]
        if "label" in dataset.columns:
            content[f"{split}_labels"] = dataset.columns["label"]
            content["class_names"] = np.array(dataset.class_names)
    with _files.replacing(path) as unfinished:
        np.savez(unfinished, **content)


def prepare_stock(name: str, data_dir: pathlib.Path, overwrite: bool) -> str:
    """Lets TFDS download and prepare one of its own sets as array_record.

    Args:
      name: as TFDS writes it.
      data_dir: where it goes.
      overwrite: whether to replace it.

    Returns:
      What to give as `--source`.

    Raises:
      FileExistsError: if it is there already.
      ImportError: if TensorFlow is not installed.
      ValueError: if TFDS does not know the name, or fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"TFDS needs TensorFlow to prepare {name!r} (not to read it): "
            "pip install 'jaxcl[prepare]'"
        )
    tfds: Any = _optional.require("tensorflow_datasets", "preparing a TFDS set", "data")
    # TFDS raises its own types for unknown names, failed downloads and the like.
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]  # the rest lists every set
        raise ValueError(f"TFDS does not know {name!r}: {reason}") from error
    with _new_directory(pathlib.Path(builder.data_dir), overwrite) as new:
        try:
            builder = tfds.builder(
                name, data_dir=new.parent, file_format="array_record"
            )
            builder.download_and_prepare(download_dir=data_dir / "downloads")
        except Exception as error:
            raise ValueError(f"TFDS could not prepare {name!r}: {error}") from error
        os.replace(os.fspath(builder.data_dir), new)
    source = _source(name, data_dir)
    print(f"Use it with: --source {source}")
    return source


# Putting in place.


@contextlib.contextmanager
def _new_directory(place: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
    """A path for new files, which become `place` once they are complete."""
    _refuse_existing(place, overwrite)
    place.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=".preparing-", dir=place.parent))
    try:
        yield work / "new"
        if place.exists():
            os.replace(place, work / "old")
        try:
            os.replace(work / "new", place)
        except OSError:
            if (work / "old").exists():
                os.replace(work / "old", place)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty, unless the run failed
            place.parent.rmdir()


def _refuse_existing(place: pathlib.Path, overwrite: bool) -> None:
    if place.exists() and not overwrite:
        raise FileExistsError(
            f"{place} is there already: use --overwrite to replace it"
        )


def _check_place(data_dir: pathlib.Path, name: str, overwrite: bool) -> None:
    place = data_dir / name / VERSION
    _refuse_existing(place, overwrite)
    others = [p for p in place.parent.glob("[!.]*") if p.name != VERSION]
    if others or (place.exists() and not (place / "dataset_info.json").is_file()):
        raise FileExistsError(
            f"{place.parent} holds something else: choose another --name"
        )


def _source(name: str, data_dir: pathlib.Path) -> str:
    if os.path.abspath(data_dir) == os.path.abspath(prepared.default_data_dir()):
        return f"tfds:{name}"
    return os.path.abspath(data_dir / re.sub(r":.*", "", name))


def _check(s: Settings) -> None:
    _checks.settings(s)
    kinds = [
        flag
        for flag, given in (
            ("--train", s.train or s.test),
            ("--folder", s.folder),
            ("--stock", s.stock),
        )
        if given
    ]
    if len(kinds) != 1:
        raise ValueError(
            "give one of --train (with --test), --folder and --stock, got "
            f"{' and '.join(kinds) or 'none'}"
        )
    if s.stock:
        if s.name or s.npz or s.resize:
            raise ValueError("--stock takes no --name, --npz or --resize")
        return
    if s.test and not s.train:
        raise ValueError("--test needs --train")
    if s.npz and not s.npz.endswith(".npz"):
        raise ValueError(f"--npz must end in .npz, got {s.npz!r}")
    if s.npz and s.name:
        raise ValueError("give --name for a TFDS set or --npz for a file, got both")
    if not s.npz and not re.fullmatch(r"[a-z][a-z0-9_]*", s.name):
        raise ValueError(
            "--name must be lower case letters, digits and underscores, starting with "
            f"a letter, got {s.name!r}"
        )
