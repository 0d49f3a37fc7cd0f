"""One image file as pixels of 8 bits, upright and opaque, as a viewer shows it."""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _optional

# What Pillow knows by name but cannot decode, or hands to another program.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Formats that no other file is mistaken for, where a name has no ending.
_CERTAIN = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_MORE = "; --max_pixels allows more"  # of `jaxcl prepare`, which reads files


class Unreadable(ValueError):
    """A file that is no image, or one that cannot be read rightly.

    Attributes:
      path: the file.
      reason: why.
      unknown: whether its content is that of no known format.
    """

    def __init__(self, path: str, reason: str, unknown: bool = False) -> None:
        super().__init__(f"{path}: not a readable image: {reason}")
        self.path, self.reason, self.unknown = path, reason, unknown


class Look(NamedTuple):
    """What is known of an image before its pixels are decoded.

    Attributes:
      size: width and height in pixels, upright; as stored where it was not asked.
      gray: whether it has no color.
    """

    size: tuple[int, int]
    gray: bool


class Pixels(NamedTuple):
    """A decoded image.

    Attributes:
      image: Pillow's, of mode "L" or "RGB".
      format: of the file, as Pillow calls it.
      done: what was done to it but decoding, in words.
    """

    image: Any
    format: str
    done: tuple[str, ...]


def look(
    path: str,
    *,
    max_pixels: int,
    upright: bool,
    any_name: bool = True,
    content: bytes | None = None,
) -> Look:
    """Reads the header of an image file.

    Args:
      path: the file.
      max_pixels: width times height that are allowed.
      upright: whether `size` is needed as it is after turning; a PNG is decoded for it.
      any_name: False if the name says nothing of the format: it must be a usual one.
      content: as of `read`.

    Returns:
      What the header says.

    Raises:
      Unreadable: if it is no image, too large, or of numbers without a known range.
    """
    formats = None if any_name else _CERTAIN
    with _opened(path, max_pixels, formats, content) as (image, _):
        _check_numbers(path, image)
        size = image.size
        if upright and image.format == "TIFF":  # its `size` depends on Pillow's version
            size = image.tag_v2[256], image.tag_v2[257]
        if upright and _orientation(image) >= 5:
            size = size[1], size[0]
        gray = image.mode in ("1", "L", "LA", "La") or _is_deep(image)
        return Look(size, gray)


def read(
    path: str,
    *,
    gray: bool,
    ground: int,
    max_pixels: int,
    edge: int | None = None,
    content: bytes | None = None,
) -> Pixels:
    """Decodes an image file: the first frame, turned as its tag says, without alpha.

        16 bits: v >> 8        alpha: (alpha v + (255 - alpha) ground) / 255

    Args:
      path: the file.
      gray: whether one channel is wanted, of an image that has no color.
      ground: gray level 0 to 255 on which transparent images are composited.
      max_pixels: width times height that are allowed, of a scaled strip, too.
      edge: pixels of both sides, as `resized` makes them, or None.
      content: of the file, where it is known; path is what messages call it then, and
        other threads may read images at the same time, so what a decoder warns of is
        not in `done`.

    Returns:
      The image, and what was done to it.

    Raises:
      Unreadable: if it is damaged, too large, or of numbers without a known range.
    """
    done: list[str] = []
    with _opened(path, max_pixels, content=content) as (image, said):
        _check_numbers(path, image)
        form = image.format
        # Of colors Pillow keeps the upper 8 bits, as can be seen before it loads.
        if form in ("PNG", "TIFF") and not _is_deep(image) and ";16" in str(image.tile):
            done.append("upper 8 of 16 bits kept")
        if levels := _clear_levels(image):  # which Pillow compares with 0 to 255
            image.info["transparency"] *= 255 // levels
        # Pillow turns a TIFF while it loads it, and nothing else.
        turned = image.format == "TIFF" and _orientation(image) > 1
        image.load()
        turn = _orientation(image)
        flat = _opaque(image, ground, done)
        if turn > 1:
            flat = flat.transpose(_turns()[turn])
        if turned or turn > 1:
            done.append("turned upright as their tag says")
        if image.format != "PSD" and _has_frames(image):  # there, frames are layers
            done.append("first of several frames taken")
        if said:
            done.append("taken although the decoder warned")
    if flat.mode == "L" and not gray:
        done.append("gray among colors, given three channels")
    if gray and flat.mode != "L":
        raise Unreadable(path, "changed while it was read: it has colors now")
    flat = flat.convert("L" if gray else "RGB")
    if edge is not None:
        width, height = _scaled(flat.size, edge)
        if width * height > max_pixels:
            raise Unreadable(
                path,
                f"scaled to {width}x{height}, it has more than {max_pixels:,} pixels"
                + _MORE * (content is None),
            )
        if min(flat.size) < edge:
            done.append("smaller than --resize, enlarged")
        flat = resized(flat, edge)
    return Pixels(flat, form, tuple(done))


def resized(image: Any, edge: int) -> Any:
    """Scales the shorter side to `edge` and keeps a square from the middle.

    Args:
      image: Pillow's.
      edge: pixels of both sides.

    Returns:
      The square.
    """
    width, height = _scaled(image.size, edge)
    image = image.resize((width, height), _pillow().Resampling.BICUBIC)
    left, top = (width - edge) // 2, (height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def _scaled(size: tuple[int, int], edge: int) -> tuple[int, ...]:
    return tuple(max(edge, round(side * (edge / min(size)))) for side in size)


@functools.cache
def endings() -> frozenset[str]:
    """Endings of the names of files that can be decoded: ".png", ".webp" and so on."""
    pillow = _pillow()
    known = pillow.registered_extensions()
    formats = {*_formats(), "MPO"}  # several of JPEG, which is how it is opened
    return frozenset(ending for ending, name in known.items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    pillow = _pillow()
    pillow.init()
    return tuple(sorted(set(pillow.OPEN) - _NOT_DECODED))


@contextlib.contextmanager
def _opened(
    path: str,
    max_pixels: int,
    formats: tuple[str, ...] | None = None,
    content: bytes | None = None,
) -> Iterator[tuple[Any, list[Any]]]:
    """An open file and what is warned of it; whatever fails names it and says why."""
    pillow = _pillow()
    try:
        with contextlib.ExitStack() as stack:
            said: list[Any] = []
            if content is None:
                said = stack.enter_context(_listening(max_pixels))
            # Not by its name: Pillow maps a TIFF then, and scrambles a turned one.
            if content is None:
                file: Any = stack.enter_context(open(path, "rb"))
            else:
                file = io.BytesIO(content)
            of = formats or _formats()
            image = stack.enter_context(pillow.open(file, formats=of))
            if image.width * image.height > max_pixels:
                raise pillow.DecompressionBombError
            yield image, said
    except (Unreadable, ImportError):
        raise
    except pillow.DecompressionBombError as error:
        raise Unreadable(
            path, f"more than {max_pixels:,} pixels{_MORE * (content is None)}"
        ) from error
    except pillow.UnidentifiedImageError as error:
        reason, unknown = _unidentified(path, content)
        raise Unreadable(path, reason, unknown) from error
    # A damaged file makes decoders raise whatever they come upon.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(path, " ".join(reason.split())) from error


@contextlib.contextmanager
def _listening(max_pixels: int) -> Iterator[list[Any]]:
    """What is warned of, and Pillow's limit set: both are the whole process's."""
    pillow = _pillow()
    limit = pillow.MAX_IMAGE_PIXELS
    try:
        pillow.MAX_IMAGE_PIXELS = max_pixels / 2  # it warns above, and ends at twice
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            yield said
    finally:
        pillow.MAX_IMAGE_PIXELS = limit


def _unidentified(path: str, content: bytes | None = None) -> tuple[str, bool]:
    """Why nothing opens a file, and whether it is of no known format."""
    if content is None:
        with open(path, "rb") as file:
            start = file.read(16)
    else:
        start = content[:16]
    if not start:
        return "the file is empty", True
    for name in _CERTAIN:
        if _pillow().OPEN[name][1](start):
            return f"a {name} file, but damaged or of a kind Pillow cannot read", False
    return "of no format that Pillow knows", True


def _orientation(image: Any) -> int:
    """1 to 8, as EXIF counts them; 1 where the tag is missing or damaged."""
    try:
        if image.format == "TIFF":
            turn = image.tag_v2.get(_ORIENTATION, 1)
        else:
            turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata do not make the pixels unreadable
        return 1
    return turn if turn in range(1, 9) else 1


@functools.cache
def _turns() -> dict[int, Any]:
    to = _pillow().Transpose
    return {
        2: to.FLIP_LEFT_RIGHT,
        3: to.ROTATE_180,
        4: to.FLIP_TOP_BOTTOM,
        5: to.TRANSPOSE,
        6: to.ROTATE_270,
        7: to.TRANSVERSE,
        8: to.ROTATE_90,
    }


def _has_frames(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what follows the first frame is damaged: it is there
        return True


def _is_deep(image: Any) -> bool:
    """Whether it is gray of 16 bits."""
    # Two formats give 16 bits in 32; in a TIFF these are any numbers.
    wide = image.mode == "I" and image.format in ("PPM", "PNG")
    return wide or image.mode.startswith("I;16")


def _clear_levels(image: Any) -> int:
    """Largest value of a PNG's transparent color, where Pillow forgets it; or 0."""
    if image.format != "PNG" or "transparency" not in image.info:
        return 0
    return {"L;2": 3, "L;4": 15, "RGB;16B": 65535}.get(image.tile[0][3], 0)


def _check_numbers(path: str, image: Any) -> None:
    """Refuses, before it is loaded, what Pillow would load as something else."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits, planes = tags.get(258, (1,)), tags.get(284, 1) == 2
    if image.mode in ("I", "F") and not _is_deep(image):
        kind = "32-bit integers" if image.mode == "I" else "32-bit floats"
    elif 2 in tags.get(339, (1,)):
        kind = "signed numbers"
    elif planes and len(bits) > 1 and max(bits) > 8 and image.tile[0][0] == "raw":
        raise Unreadable(path, "Pillow scrambles planes of 16 bits: save it compressed")
    elif _clear_levels(image) == 65535:
        raise Unreadable(
            path,
            "Pillow takes a transparent color of 16 bits for one of 8: convert it to 8",
        )
    else:
        return
    raise Unreadable(path, f"{kind} have no agreed range: convert it to 8 or 16 bits")


def _opaque(image: Any, ground: int, done: list[str]) -> Any:
    """The pixels as mode "L" or "RGB", on the ground where they are transparent."""
    pillow = _pillow()
    if _is_deep(image):
        values = np.asarray(image).astype(np.uint16)
        bits, clear = 16, image.info.get("transparency")
        alpha = pillow.fromarray(np.uint8(255) * (values != clear))
        if image.format == "TIFF":
            bits = image.tag_v2.get(258, (16,))[0]
            if image.tag_v2.get(262) == 0:  # white is zero, which Pillow passes on
                values = np.uint16(2**bits - 1) - values
        done.append(f"upper 8 of {bits} bits kept")
        if values.max() < 2 ** (bits - 4):  # a camera of 12 bits, perhaps
            done.append(f"dark, since less than a 16th of {bits} bits is used")
        colors = pillow.fromarray((values >> (bits - 8)).astype(np.uint8))
    elif image.has_transparency_data:
        gray = image.mode in ("1", "L", "LA", "La")
        both = image.convert("LA" if gray else "RGBA")
        alpha, colors = both.getchannel("A"), both.convert("L" if gray else "RGB")
    else:
        if image.mode in ("CMYK", "HSV", "LAB", "YCbCr"):
            done.append(f"{image.mode} made RGB")
        if image.mode == "LAB":
            return _from_lab(image)
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    if alpha.getextrema()[0] == 255:
        return colors
    done.append(f"transparent, put on gray {ground} (--ground)")
    levels = (ground,) * len(colors.getbands())
    return pillow.composite(colors, pillow.new(colors.mode, colors.size, levels), alpha)


def _from_lab(image: Any) -> Any:
    profiles: Any = _optional.require("PIL.ImageCms", "reading LAB images", "tools")
    transform = profiles.buildTransform(
        profiles.createProfile("LAB"), profiles.createProfile("sRGB"), "LAB", "RGB"
    )
    return profiles.applyTransform(image, transform)


def _pillow() -> Any:
    return _optional.require("PIL.Image", "reading or resizing images", "tools")
