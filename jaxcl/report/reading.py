"""Embeddings and labels in other people's files: read in place, never unpickled.

Arrays are memory-mapped wherever the file allows it, so that opening a file costs
nothing; what a file cannot be used for is said in one line.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcl.data import files as numpy_files

_BFLOAT16 = np.dtype(jnp.bfloat16)
_READABLE = tuple(np.dtype(t) for t in (np.float16, np.float32, np.float64)) + (
    _BFLOAT16,
)


class Rows(NamedTuple):
    """Embeddings in a file.

    Attributes:
      array: [n, d], floating; memory-mapped where possible.
      name: the file, and the key inside it.
      notes: choices made while reading, as sentences.
    """

    array: np.ndarray
    name: str
    notes: tuple[str, ...]


def embeddings(argument: str, path: str, *, key: str = "", raw: str = "") -> Rows:
    """Opens embeddings without reading them.

    Args:
      argument: what the caller calls the file, for errors.
      path: of a .npy or .npz file, or with `raw` of a file of bare numbers.
      key: array of a .npz file; "" takes the first floating [n, d].
      raw: "dtype,width" of a file that is nothing but rows of numbers.

    Returns:
      The rows as they are in the file.

    Raises:
      FileNotFoundError: if there is no such file.
      TypeError: if the numbers are not floating.
      ValueError: if the file is broken, or its array not [n, d].
    """
    file = _existing(argument, path)
    if raw:
        return _raw(argument, file, raw)
    notes: tuple[str, ...] = ()
    if file.suffix == ".npz":
        found = _headers(argument, file)
        if not key:
            usable = [k for k, header in found.items() if _fits(header)]
            if not usable:
                raise ValueError(
                    f"{argument}: {file} must hold a floating array [n, d], got "
                    + _listed(found)
                )
            key = usable[0]
            if len(usable) > 1:
                others = ", ".join(repr(k) for k in usable[1:])
                notes += (f"Array {key!r} of {file.name} is read, and not {others}.",)
        elif key not in found:
            raise ValueError(f"key must be one of {_listed(found)}; got {key!r}")
        name = f"{path}[{key}]"
    elif file.suffix == ".npy":
        if key:
            raise ValueError(f"key is for .npz files, got {key!r} for {file}")
        name = path
    else:
        raise ValueError(
            f"{argument} must end in .npy or .npz, or be described by raw, got {path!r}"
        )
    array = _load(argument, file, key)
    if array.dtype == np.dtype("V2"):
        # NumPy's format has no name for bfloat16: two bytes without meaning.
        array = array.view(_BFLOAT16)
        notes += (f"Numbers of two unnamed bytes in {file.name} are read as bfloat16.",)
    _check(f"{argument}: {name}", array.shape, array.dtype)
    return Rows(array, name, notes)


def classes(choice: str, path: str, length: int) -> np.ndarray:
    """Reads one label per row, from a key of the embeddings' file or a file.

    Args:
      choice: a key of the .npz file at `path`, or a .npy or .npz file of one array.
      path: of the embeddings.
      length: rows of the embeddings.

    Returns:
      Class numbers int [length]; equal where the labels are equal.

    Raises:
      FileNotFoundError: if there is neither.
      TypeError: if labels are not integers, booleans or text.
      ValueError: if they are not [length], or the file is broken.
    """
    file = pathlib.Path(path)
    inside = _headers("file", file) if file.suffix == ".npz" else {}
    if choice in inside:
        array = _load("labels", file, choice)
    else:
        if not pathlib.Path(choice).is_file():
            keys = f"; keys of {path}: {_listed(inside)}" if inside else ""
            raise FileNotFoundError(
                f"labels must be a file or a key, got {choice!r}{keys}"
            )
        file = _existing("labels", choice)
        found = _headers("labels", file)
        if len(found) != 1:
            raise ValueError(
                f"labels: {choice} must hold one array, got {_listed(found)}"
            )
        array = _load("labels", file, next(iter(found)))
    if array.dtype.kind not in "iubUS":
        raise TypeError(
            f"labels must be integers, booleans or text, got dtype {array.dtype}"
        )
    if array.shape != (length,):
        raise ValueError(
            f"labels must be [{length}], one for each row, got shape {array.shape}"
        )
    return np.unique(array, return_inverse=True)[1]


class Files(NamedTuple):
    """What the command names, opened and not yet read.

    Attributes:
      array: embeddings [n, width].
      name: their file, and the key inside it.
      unit: what to divide all embeddings by, so that float64 holds their moments.
      pairs: positives [n, width], or None.
      ood: other embeddings [m, width], or None.
      labels: one class per row, int [n], or None.
      notes: choices made while opening, as sentences.
    """

    array: np.ndarray
    name: str
    unit: float
    pairs: np.ndarray | None
    ood: np.ndarray | None
    labels: np.ndarray | None
    notes: tuple[str, ...]


def files(
    file: str,
    *,
    key: str,
    raw: str,
    pairs: str,
    ood: str,
    labels: str,
    normalize: bool = False,
) -> Files:
    """Opens all that one command names; "" is not there.

    Args:
      file: of the embeddings, as `embeddings` takes it.
      key: array of `file`, and of other .npz files.
      raw: for `file` and other files of bare numbers.
      pairs: a file, or a key of `file`, of as many rows.
      ood: a file, or a key of `file`.
      labels: as `classes` takes them.
      normalize: whether rows are divided by their norms, whatever these are.

    Returns:
      The arrays, as they are in the files.

    Raises:
      FileNotFoundError: if a file is not there.
      TypeError: if embeddings are not floating, or labels are.
      ValueError: if a file is broken, or shapes do not fit.
    """
    source = embeddings("file", file, key=key, raw=raw)
    n, width = source.array.shape
    notes = source.notes
    others: dict[str, np.ndarray | None] = {"pairs": None, "ood": None}
    for argument, choice in (("pairs", pairs), ("ood", ood)):
        if not choice:
            continue
        if file.endswith(".npz") and not pathlib.Path(choice).suffix:
            found = embeddings(argument, file, key=choice)
        else:
            inside = key if choice.endswith(".npz") else ""
            found = embeddings(argument, choice, key=inside, raw=raw)
        expected = (n if argument == "pairs" else len(found.array), width)
        if found.array.shape != expected:
            raise ValueError(
                f"{argument} must have shape {expected} as {source.name} asks, got "
                f"{found.array.shape}"
            )
        others[argument] = found.array
        notes += found.notes
    known = classes(labels, file, n) if labels else None
    size = 1.0 if normalize else unit(source.array)
    return Files(source.array, source.name, size, **others, labels=known, notes=notes)


def unit(array: np.ndarray) -> float:
    """The size of extreme numbers, a power of 2; 1 for any whose moments fit float64.

    Read from the first rows that are finite and not zero.
    """
    for x in blocks(array, max(1, 2**20 // array.shape[1])):
        largest = np.abs(x[np.isfinite(x).all(axis=1)]).max(initial=0)
        if largest > 0:
            return 1.0 if 1e-50 < largest < 1e50 else float(power_of_two(largest))
    return 1.0


def power_of_two(x: np.ndarray) -> np.ndarray:
    """About as large as x, not negative; 1 for 0. Dividing by it rounds nothing."""
    exponent = np.frexp(x)[1].clip(-1000, 1000)
    return np.where(x > 0, np.ldexp(1.0, exponent), 1.0)


def blocks(array: np.ndarray, size: int, unit: float = 1.0) -> Iterator[np.ndarray]:
    """Consecutive rows in float64, `size` at a time; the last block may be shorter."""
    for start in range(0, len(array), size):
        yield np.asarray(array[start : start + size]).astype(np.float64) / unit


def pick(array: np.ndarray, rows: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """Some rows in float64."""
    return np.asarray(array[rows]).astype(np.float64) / unit


def _existing(argument: str, path: str) -> pathlib.Path:
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(f"{argument} must be a file, got the folder {path!r}")
    if not file.exists():
        raise FileNotFoundError(f"{argument} must be a file, got {path!r}: none there")
    return file


def _raw(argument: str, file: pathlib.Path, raw: str) -> Rows:
    dtypes = {dtype.name: dtype for dtype in _READABLE}
    name, _, width = raw.partition(",")
    if name not in dtypes or not width.strip().isdigit() or int(width) == 0:
        raise ValueError(
            f"raw must be a dtype of {', '.join(dtypes)}, a comma and the width of a "
            f"row, such as float32,768; got {raw!r}"
        )
    d, size = int(width), file.stat().st_size
    n, rest = divmod(size, d * dtypes[name].itemsize)
    if rest or not n:
        raise ValueError(
            f"{argument}: {file} must hold whole rows of {d} numbers of {name}, "
            f"{d * dtypes[name].itemsize} bytes each; got {size} bytes"
        )
    return Rows(np.memmap(file, dtypes[name], "r", shape=(n, d)), str(file), ())


def _readable(dtype: np.dtype) -> bool:
    return dtype.newbyteorder("=") in _READABLE or dtype == _BFLOAT16


def _fits(header: numpy_files.Header) -> bool:
    readable = _readable(header.dtype) or header.dtype == np.dtype("V2")
    return len(header.shape) == 2 and readable


def _check(where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not _readable(dtype):
        hint = "; convert integers yourself" if dtype.kind in "iub" else ""
        raise TypeError(
            f"{where} must be float16, float32, float64 or bfloat16, got dtype "
            f"{dtype}{hint}"
        )
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{where} must be embeddings [n, d] with n, d > 0, got shape {shape}"
        )


def _listed(found: dict[str, numpy_files.Header]) -> str:
    if not found:
        return "no array"
    return ", ".join(f"{k!r} {h.dtype} {list(h.shape)}" for k, h in found.items())


def _headers(argument: str, file: pathlib.Path) -> dict[str, numpy_files.Header]:
    with _named(argument):
        return numpy_files.headers(file)


def _load(argument: str, file: pathlib.Path, key: str) -> np.ndarray:
    with _named(argument):
        return numpy_files.load(file, key)


@contextlib.contextmanager
def _named(argument: str) -> Iterator[None]:
    """Says which of several files cannot be read."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error
