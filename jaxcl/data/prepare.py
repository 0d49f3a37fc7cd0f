"""Turns image files into a TFDS set that is read without TensorFlow.

jaxcl prepare --name my_set --train a.npz b.npz --test c.npz
jaxcl prepare --name my_photos --folder photos --resize 64
jaxcl prepare --stock cifar10

In the order it runs: settings, reading, writing, putting in place.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import importlib.util
import io
import itertools
import os
import pathlib
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from jaxcl import _files, _optional, _rules, _text
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import files, folders, image_files, prepared
from jaxcl.data import splits as splits_lib

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Turns image files into a TFDS set (array_record) for `--source tfds:NAME`.

    Give `--name` with `--train` (and `--test`) or with `--folder`; or give `--stock`.

    Files may be: .npz with images and labels; .npy with images or labels; MNIST's idx
    files, plain or .gz, with images or labels. Several files are joined in the order
    given.

    A folder may hold images in a sub-folder for each class; or train, test, val, valid,
    validation, dev, eval (or train2017, test_set) with such sub-folders; or images
    alone, which have no labels.
    All formats that Pillow decodes are read as a viewer shows them: turned as their tag
    says, the upper 8 of 16 bits, transparent ones on a gray ground, the first of
    several frames. What was done, left out and cannot be read is said at the end.
    """

    name: str = ""
    """Of the new set: lower case letters, digits, underscores."""
    train: tuple[str, ...] = ()
    """Files of the split "train"."""
    test: tuple[str, ...] = ()
    """Files of the split "test"; a .npz may serve both."""
    folder: str | None = None
    """Folder of images, instead of files."""
    stock: str | None = None
    """A set TFDS knows, to download: cifar10, cifar100, stl10, mnist, ...; needs
    'jaxcl[prepare]'. Its images must have one size, so not imagenet2012."""
    resize: _rules.Count | None = None
    """Pixels: scale the shorter side, keep a square from the middle (center crop)."""
    held_out: Annotated[float, _rules.inside("[0, 1)")] = 0.0
    """Share of the images drawn evenly over the classes as "test"."""
    ground: Annotated[int, _rules.whole(0, 255)] = 128
    """Gray level under transparent images; 128 is neither white nor black."""
    max_unreadable: _rules.Share = 0.01
    """Share of a folder's images that may be left out."""
    max_pixels: _rules.Count = 178_956_970
    """Of one image; a larger one is not read."""
    data_dir: str | None = None
    """Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    npz: str | None = None
    """Write this .npz instead, for machines without TFDS."""
    overwrite: bool = False
    """Replace what is there, once the new files are complete."""


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

    Warns:
      UserWarning: with the names of images that cannot be read and are left out, of
        classes that a split lacks, and of splits that share images.
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
    account = folders.Account("")
    if s.folder:
        splits, account = folders.read(
            s.folder, resize=s.resize, ground=s.ground, max_pixels=s.max_pixels
        )
        account.check(s.max_unreadable)
    else:
        for split, paths in (("train", s.train), ("test", s.test)):
            if paths:
                splits[split] = read_files(paths, split, s.resize)
    splits = _same_classes(_with_held_out(splits, s.held_out))
    parts = {k: Part(d, account, s.max_unreadable) for k, d in splits.items()}

    if s.npz:
        write_npz(parts, pathlib.Path(s.npz))
        source = s.npz
    else:
        place = data_dir / s.name / VERSION
        with _new_directory(place, s.overwrite) as new:
            write_tfds(s.name, parts, new)
        for split, part in parts.items():
            written = dataset_lib.size(prepared.tfds(place, split))
            if written != len(part.labels):
                raise ValueError(
                    f"{place}: {split} holds {written} images after writing, expected "
                    f"{len(part.labels)}"
                )
        source = _source(s.name, data_dir)
    _tell(parts, account)
    if not s.npz:
        print(_text.printable(f"In {place.parent}"))
    print(f"Use it with: --source {source}")
    return source


class Part:
    """A split on its way into files: images that cannot be read are left out.

    Args:
      dataset: the split.
      account: of the folder it comes from.
      max_unreadable: the share of unreadable images at which to stop.
    """

    def __init__(
        self,
        dataset: dataset_lib.Dataset,
        account: folders.Account,
        max_unreadable: float,
    ) -> None:
        self.dataset, self.account = dataset, account
        self.max_unreadable = max_unreadable
        self.labels: list[int] = []  # of what was read; -1 without labels
        self.contents: list[int] = []  # 64 bits of each, by which equal ones are known

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Reads all images once, with their labels."""
        images = self.dataset.columns["image"]
        labels = self.dataset.columns.get("label")
        for i in range(dataset_lib.size(self.dataset)):
            try:
                image = images[i]
            except image_files.Unreadable:  # it is in the account
                continue
            self.labels.append(-1 if labels is None else int(labels[i]))
            content = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
            self.contents.append(int.from_bytes(content))
            yield image, self.labels[-1]
        self.account.check(self.max_unreadable)
        if not self.labels:
            raise ValueError(
                f"{self.dataset.name}: each split must hold an image that can be read, "
                f"got only {self.account.reasons()}"
            )


def _with_held_out(
    splits: dict[str, dataset_lib.Dataset], share: float
) -> dict[str, dataset_lib.Dataset]:
    """Draws the split "test" out of "train"."""
    if not share:
        return splits
    if list(splits) != ["train"]:
        raise ValueError(
            f"--held_out needs the split 'train' alone, got {', '.join(splits)}"
        )
    whole = splits["train"]
    n = dataset_lib.size(whole)
    labels = whole.columns.get("label")
    order = splits_lib.stratified_order(n if labels is None else labels[np.arange(n)])
    cut = round((1 - share) * n)
    if not 0 < cut < n:
        raise ValueError(
            f"--held_out must leave images to both of train and test, got {share:g} of "
            f"{n} images"
        )
    of = {"train": order[:cut], "test": order[cut:]}
    return {k: dataset_lib.take(whole, np.sort(v)) for k, v in of.items()}


def _tell(parts: dict[str, Part], account: folders.Account) -> None:
    """Says what was written, and warns of what its user should know."""
    if account.folder:
        print("\n".join(account.lines()))
    for split, part in parts.items():
        size = "x".join(map(str, _shape(part.dataset)))
        names = part.dataset.class_names
        line = f"{split}: {len(part.labels):,} images {size}"
        if names:
            line += f", {splits_lib.some_classes(range(len(names)), names)}"
        print(line)
    if account.unreadable:
        warnings.warn(
            f"{len(account.unreadable):,} of {account.looked:,} files are not readable "
            f"images and were left out: {account.reasons()}",
            stacklevel=3,
        )
    if account.empty:
        warnings.warn(
            f"folders without an image that is read: {folders.some(account.empty, 10)}",
            stacklevel=3,
        )
    for split, part in parts.items():
        names = part.dataset.class_names or ()
        lacking = sorted(set(range(len(names))) - set(part.labels))
        if lacking:
            warnings.warn(
                f"{split} holds no image of {splits_lib.some_classes(lacking, names)}",
                stacklevel=3,
            )
        repeated = len(part.contents) - len(set(part.contents))
        if repeated:
            print(f"{split}: images that repeat others in it: {repeated:,}")
    for one, other in itertools.combinations(parts, 2):
        known = set(parts[one].contents)
        shared = sum(content in known for content in parts[other].contents)
        if shared:
            warnings.warn(
                f"{shared:,} of {len(parts[other].contents):,} images of {other} are "
                f"in {one}, too",
                stacklevel=3,
            )


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
    if os.path.isdir(path):
        raise ValueError(f"{path}: must be a file, got a folder; --folder takes one")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.endswith(".npz"):
        splits = files.array_splits(path)
        chosen = "train" if splits == ("train",) else split
        others = [each for each in splits if each not in ("train", "test")]
        if others:
            print(f"{path}: left out, splits but train and test: {', '.join(others)}")
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
            "labels [n]; for image files there is --folder"
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


def _resize_all(images: np.ndarray, edge: int) -> np.ndarray:
    resized = np.empty((len(images), edge, edge, *images.shape[3:]), np.uint8)
    pillow: Any = _optional.require("PIL.Image", "resizing images", "tools")
    for i, image in enumerate(images):
        # One channel at a time: Pillow has no image type for every channel count.
        planes = image.reshape(*image.shape[:2], -1)
        for c in range(planes.shape[2]):
            plane = pillow.fromarray(np.ascontiguousarray(planes[:, :, c]))
            small = image_files.resized(plane, edge)
            resized[i].reshape(edge, edge, -1)[:, :, c] = small
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
            f"all splits must have labels, or none; only {', '.join(labelled)} has: "
            "prepare the others as a set of their own"
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
    bare = {c.strip() for c in chosen}  # as TFDS keeps them
    if len(bare) != len(chosen) or "" in bare:
        raise ValueError(f"class names must differ and not be empty, got {chosen}")
    return {k: d._replace(class_names=chosen) for k, d in splits.items()}


def _named(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of classes, unless they are the numbers that stand for none."""
    return None if names is None or names == _numbers(len(names)) else names


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(str(c) for c in range(classes))


def _shape(dataset: dataset_lib.Dataset) -> tuple[int, ...]:
    """Of one image."""
    images: Any = dataset.columns["image"]
    return tuple(images.shape[1:])


# Writing.


def write_tfds(name: str, parts: dict[str, Part], directory: pathlib.Path) -> None:
    """Writes a TFDS set with array_record files; the order of the images is kept.

    Args:
      name: name of the set.
      parts: splits with equal image sizes and classes.
      directory: where its files go.

    Raises:
      ImportError: if tensorflow_datasets or array_record is not installed.
    """
    tfds: Any = _optional.require("tensorflow_datasets", "writing a TFDS set", "data")
    _optional.require("array_record", "writing a TFDS set", "data")
    any_split = next(iter(parts.values())).dataset
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
            return {k: self._generate_examples(k, part) for k, part in parts.items()}

        def _generate_examples(
            self, split: str, part: Part
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            tqdm = _optional.require("tqdm", "the progress bar", "tools")
            total = dataset_lib.size(part.dataset)
            bar = tqdm.tqdm(part, split, total=total, unit="image", file=_text.TERMINAL)
            for i, (image, label) in enumerate(bar):
                yield i, {"image": image} | ({"label": label} if label >= 0 else {})

    ImageSet.name = name
    tfds.disable_progress_bar()
    with (
        tempfile.TemporaryDirectory(prefix=".writing-", dir=directory.parent) as root,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder = ImageSet(data_dir=root, file_format="array_record")
        builder.download_and_prepare()
        os.replace(os.fspath(builder.data_dir), directory)


def write_npz(parts: dict[str, Part], path: pathlib.Path) -> None:
    """Writes the splits as one `.npz` file that `jaxcl.data.arrays` reads.

    Args:
      parts: splits; they must fit in memory.
      path: the file; it is complete or not there.
    """
    content: dict[str, Any] = {}
    for split, part in parts.items():
        dataset = part.dataset
        images = np.empty((dataset_lib.size(dataset), *_shape(dataset)), np.uint8)
        for i, (image, _) in enumerate(part):
            images[i] = image
        content[f"{split}_images"] = images[: len(part.labels)]
        if "label" in dataset.columns:
            content[f"{split}_labels"] = np.array(part.labels, np.int32)
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
    print(_text.printable(f"In {new.parent}"))
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
    _rules.check(s)
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
        if s.name or s.npz or s.resize or s.held_out:
            raise ValueError("--stock takes no --name, --npz, --resize or --held_out")
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
