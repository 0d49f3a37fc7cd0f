"""Pixels of unusual files, against what their formats say."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from jaxcl.data import image_files

RAMP = (np.arange(48, dtype=np.uint16) * 1365).reshape(6, 8)  # 0 to 64155
RGB = np.random.RandomState(0).randint(0, 256, (6, 8, 3)).astype(np.uint8)


def read(path, gray=False, ground=100, max_pixels=10**6):
    found = image_files.read(str(path), gray=gray, ground=ground, max_pixels=max_pixels)
    return np.asarray(found.image), found.done


def look(path, **options):
    options = {"max_pixels": 10**6, "upright": True, **options}
    return image_files.look(str(path), **options)


def tiff(values, bits=16, order="<", photometric=1, kind=1, orientation=1):
    """A gray TIFF, as section 2 of its specification lays it out."""
    raw = values.astype(order + "u2").tobytes()
    if bits == 12:  # two values in three bytes
        pairs = values.reshape(-1, 2)
        high, low = pairs[:, 0], pairs[:, 1]
        packed = [high >> 4, (high & 15) << 4 | low >> 8, low & 255]
        raw = np.stack(packed, 1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 274: orientation, 277: 1, 278: height, 279: len(raw), 339: kind}
    file = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + len(raw))
    file += raw + struct.pack(order + "H", len(tags))
    for tag, value in tags.items():
        file += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    return file + bytes(4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("little.tif", tiff(RAMP)),
        ("big.tif", tiff(RAMP, order=">")),
        ("white_is_zero.tif", tiff(65535 - RAMP, photometric=0)),
        ("twelve.tif", tiff(RAMP >> 4, bits=12)),
        ("a.pgm", b"P5 8 6 65535\n" + RAMP.astype(">u2").tobytes()),
        ("a.png", None),
        ("a.jp2", None),
    ],
)
def test_of_16_bits_the_upper_8_are_kept(tmp_path, name, content):
    if content is None:
        PIL.Image.fromarray(RAMP).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    pixels, done = read(tmp_path / name, gray=True)
    np.testing.assert_array_equal(pixels, RAMP >> 8)
    bits = 12 if name.startswith("twelve") else 16
    assert done == (f"upper 8 of {bits} bits kept",)
    assert look(tmp_path / name).gray


def planes_of(path, bits, packed, count=3):
    """An RGB TIFF, one plane after another: PlanarConfiguration 2."""
    array = np.stack([RAMP + 1000 * c for c in range(count)])
    raw = array.astype("<u2") if bits == 16 else (array >> 8).astype(np.uint8)
    strips = [zlib.compress(x.tobytes()) if packed else x.tobytes() for x in raw]
    starts = np.cumsum([8, *map(len, strips)])
    lists = starts[-1] + starts[-1] % 2
    tags = {256: 8, 257: 6, 258: lists, 259: 8 if packed else 1, 262: 2}
    tags |= {273: lists + 8, 277: count, 278: 6, 279: lists + 24, 284: 2}
    file = struct.pack("<2sHI", b"II", 42, lists + 40) + b"".join(strips)
    file = file.ljust(lists, b"\0") + struct.pack("<4H", *[bits] * count, 0)
    file += struct.pack("<4I", *starts[:-1], 0)
    file += struct.pack("<4I", *map(len, strips), 0) + struct.pack("<H", len(tags))
    for tag, value in tags.items():
        several = tag in (258, 273, 279)
        file += struct.pack("<HHII", tag, 4 - (tag == 258), 3 if several else 1, value)
    path.write_bytes(file + bytes(4))
    return (array >> 8).transpose(1, 2, 0)


def test_planes_of_16_bits_are_read_rightly_or_refused(tmp_path):
    path = tmp_path / "a.tif"
    for bits, packed in ((8, False), (8, True), (16, True)):
        expected = planes_of(path, bits, packed)
        pixels, done = read(path)
        np.testing.assert_array_equal(pixels, expected)
        assert done == (("upper 8 of 16 bits kept",) if bits == 16 else ())
    planes_of(path, 16, False)
    for reader in (read, look):
        with pytest.raises(image_files.Unreadable, match="scrambles planes of 16"):
            reader(path)


def test_16_bits_that_use_12_are_called_dark(tmp_path):
    PIL.Image.fromarray(RAMP >> 4).save(tmp_path / "a.png")
    assert "dark" in " ".join(read(tmp_path / "a.png", gray=True)[1])


@pytest.mark.parametrize(
    "kind", ["signed.tif", "bytes.tif", "float.tif", "integers.tif"]
)
def test_numbers_without_a_range_are_refused(tmp_path, kind):
    if kind == "signed.tif":
        (tmp_path / kind).write_bytes(tiff(RAMP, kind=2))
    elif kind == "bytes.tif":
        (tmp_path / kind).write_bytes(tiff(RAMP, bits=8, kind=2))
    else:
        dtype = np.float32 if kind == "float.tif" else np.int32
        PIL.Image.fromarray(RAMP.astype(dtype)).save(tmp_path / kind)
    for reader in (read, look):
        with pytest.raises(image_files.Unreadable, match=f"{kind}.*no agreed range"):
            reader(tmp_path / kind)


ALPHA = np.full((8, 8), 0, np.uint8)
ALPHA[2:6, 2:6] = 255
ALPHA[3, 3] = 77


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.tga", "gray.png"])
@pytest.mark.parametrize("ground", [0, 100, 255])
def test_alpha_is_composited_on_the_ground(tmp_path, name, ground):
    color = np.full((8, 8), 250)
    planes = [color] * (1 if name == "gray.png" else 3) + [ALPHA]
    array = np.stack(planes, -1).astype(np.uint8)
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    PIL.Image.fromarray(array).save(tmp_path / name, **options)
    alpha = ALPHA / 255
    expected = np.rint(alpha * color + (1 - alpha) * ground)
    pixels, done = read(tmp_path / name, ground=ground)
    np.testing.assert_array_equal(pixels, np.stack([expected] * 3, -1))
    assert f"transparent, put on gray {ground} (--ground)" in done
    assert look(tmp_path / name).gray == (name == "gray.png")


@pytest.mark.parametrize(
    ("mode", "values", "transparency"),
    [
        ("P", (0, 1), 0),
        ("P", (0, 1), bytes([0, 255])),
        ("L", (255, 250), 255),
        ("RGB", ((255,) * 3, (250,) * 3), (255,) * 3),
        ("I;16", (65535, 250 << 8), 65535),
        ("1", (255, 0), 255),
    ],
)
def test_a_transparent_color_is_composited(tmp_path, mode, values, transparency):
    image = PIL.Image.new(mode, (8, 8), values[0])
    image.paste(values[1], (2, 2, 6, 6))
    if mode == "P":
        image.putpalette([255] * 3 + [250] * 3)
    if mode == "I;16":  # into which Pillow pastes 8 bits
        array = np.full((8, 8), values[0], np.uint16)
        array[2:6, 2:6] = values[1]
        image = PIL.Image.fromarray(array)
    image.save(tmp_path / "a.png", transparency=transparency)
    pixels, done = read(tmp_path / "a.png")
    expected = np.full((8, 8, 3), 100)
    expected[2:6, 2:6] = 0 if mode == "1" else 250
    np.testing.assert_array_equal(pixels, expected)
    assert any(word.startswith("transparent") for word in done)


def png(values, bits, kind, clear):
    """A PNG with a transparent color, as sections 11.2 and 11.3 of its standard say."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif bits < 8:
        packed = np.unpackbits(rows.astype(np.uint8)[..., None], -1)[..., -bits:]
        rows = np.packbits(packed.reshape(len(rows), -1), 1)
    body = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, kind, 0, 0, 0)
    clear = struct.pack(f">{len(clear)}H", *clear)
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in (
        (b"IHDR", head),
        (b"tRNS", clear),
        (b"IDAT", zlib.compress(body)),
        (b"IEND", b""),
    ):
        check = struct.pack(">I", zlib.crc32(name + data))
        file += struct.pack(">I", len(data)) + name + data + check
    return file


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_level_is_one_of_the_levels_stored(tmp_path, bits):
    values = np.arange(64).reshape(8, 8) % 2**bits
    (tmp_path / "a.png").write_bytes(png(values, bits, 0, [1]))
    pixels, done = read(tmp_path / "a.png", gray=True)
    expected = values * 255 // (2**bits - 1) if bits < 16 else values >> 8
    np.testing.assert_array_equal(pixels, np.where(values == 1, 100, expected))
    assert "transparent, put on gray 100 (--ground)" in done


def test_a_transparent_color_of_16_bits_is_refused(tmp_path):
    values = np.full((4, 4, 3), 0x4050)  # 0x0040 is not among them
    (tmp_path / "a.png").write_bytes(png(values, 16, 2, [0x40] * 3))
    for reader in (read, look):
        with pytest.raises(image_files.Unreadable, match="transparent color of 16"):
            reader(tmp_path / "a.png")


def test_an_alpha_that_hides_nothing_changes_nothing(tmp_path):
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    PIL.Image.fromarray(opaque).save(tmp_path / "a.png")
    pixels, done = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, RGB)
    assert done == ()


# What is done to the stored array so that it is seen upright: EXIF 2.3, tag 274.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("turn", UPRIGHT)
def test_images_are_turned_as_their_tag_says(tmp_path, turn):
    tag = PIL.Image.Exif()
    tag[0x0112] = turn
    for name in ("a.png", "a.webp", "a.tif", "gray.tif", "deep.tif"):
        if name == "deep.tif":
            (tmp_path / name).write_bytes(tiff(RAMP, orientation=turn))
            stored = RAMP >> 8
        elif name == "gray.tif":
            stored = RGB[..., 0]
            PIL.Image.fromarray(stored).save(tmp_path / name, exif=tag)
        else:
            options = {"lossless": True} if name == "a.webp" else {}
            PIL.Image.fromarray(RGB).save(tmp_path / name, exif=tag, **options)
            stored = RGB
        expected = UPRIGHT[turn](stored)
        pixels, done = read(tmp_path / name, gray=stored.ndim == 2)
        np.testing.assert_array_equal(pixels, expected)
        assert ("turned upright as their tag says" in done) == (turn > 1)
        assert look(tmp_path / name).size == expected.shape[1::-1]


@pytest.mark.parametrize("turn", [0, 9])
def test_a_wrong_tag_turns_nothing(tmp_path, turn):
    tag = PIL.Image.Exif()
    tag[0x0112] = turn
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png", exif=tag)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], RGB)


def test_other_color_spaces_become_rgb(tmp_path):
    rows = np.array([[[200, 80, 40], [40, 80, 200]]], np.uint8).repeat(8, 1)
    image = PIL.Image.fromarray(rows.repeat(16, 0))
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    image.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    image.convert("1", dither=0).save(tmp_path / "bits.png")
    for name, kind in (("cmyk.tif", 0), ("cmyk.jpg", 3), ("ycbcr.tif", 3)):
        pixels, done = read(tmp_path / name)
        assert np.abs(pixels.astype(int) - np.asarray(image)).max() <= kind, name
        assert done == (f"{name[:-4].upper().replace('YCBCR', 'YCbCr')} made RGB",)
    pixels, _ = read(tmp_path / "bits.png", gray=True)
    assert set(np.unique(pixels)) <= {0, 255}


def test_lab_becomes_rgb_by_its_formula(tmp_path):
    lab = PIL.Image.new("LAB", (4, 4))
    lab.paste((138, 128 + 20, 128 - 30), (0, 0, 4, 4))  # L = 54.1, a = 20, b = -30
    lab.save(tmp_path / "lab.tif")
    # CIE 1976 with the white of D50, sRGB's matrix adapted to it, and its curve.
    y = (138 / 2.55 + 16) / 116
    xyz = (
        np.array([0.9642, 1.0, 0.8249]) * np.array([y + 20 / 500, y, y + 30 / 200]) ** 3
    )
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.array(matrix) @ xyz
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    pixels, done = read(tmp_path / "lab.tif")
    assert np.abs(pixels[0, 0] - expected).max() < 1.5
    assert done == ("LAB made RGB",)


@pytest.mark.parametrize("kind", ["gif", "png", "tif", "mpo"])
def test_of_several_frames_the_first_is_taken(tmp_path, kind):
    frames = [PIL.Image.new("RGB", (8, 8), (level, 0, 0)) for level in (255, 0, 100)]
    path = tmp_path / f"a.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    pixels, done = read(path)
    assert np.abs(pixels[..., 0].astype(int) - 255).max() <= 1
    assert done == ("first of several frames taken",)
    assert f".{kind}" in image_files.endings()
    if kind == "gif":  # the second frame is torn
        path.write_bytes(path.read_bytes()[:-20])
        np.testing.assert_array_equal(read(path)[0], pixels)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", "of no format that Pillow knows"),
        ("torn", "truncated"),
        (b"II*\0" + bytes(8), "a TIFF file, but damaged or of a kind Pillow cannot"),
        ("large", "more than 40 pixels; --max_pixels allows more"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(RGB).save(path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    if content == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    limit = 40 if content == "large" else 48
    before = PIL.Image.MAX_IMAGE_PIXELS
    with pytest.raises(image_files.Unreadable, match=f"a.png: .*{reason}") as found:
        read(path, max_pixels=limit)
    assert found.value.unknown == (content in (b"", b"no image"))
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_an_image_of_just_the_limit_is_read_without_a_warning(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", max_pixels=48)[0], RGB)


def test_a_file_without_an_ending_must_be_of_a_usual_format(tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "a.tga")
    PIL.Image.fromarray(RGB).save(tmp_path / "a", "PNG")
    assert look(tmp_path / "a", any_name=False).size == (8, 6)
    assert look(tmp_path / "a.tga").size == (8, 6)
    with pytest.raises(image_files.Unreadable):  # nothing tells a TGA from other bytes
        look(tmp_path / "a.tga", any_name=False)


def test_what_only_other_programs_decode_is_no_image():
    assert not {".eps", ".pdf", ".h5", ".mpg", ".txt", ""} & image_files.endings()
    usual = {".png", ".jpg", ".jpe", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".ppm"}
    assert usual <= image_files.endings()


def test_what_resizing_makes_is_bounded_and_said(tmp_path):
    PIL.Image.fromarray(RGB[:1, :1]).resize((1, 3)).save(tmp_path / "a.png")
    found = image_files.read(
        str(tmp_path / "a.png"), gray=False, ground=0, max_pixels=48, edge=4
    )
    assert found.image.size == (4, 4)
    assert found.done == ("smaller than --resize, enlarged",)
    with pytest.raises(image_files.Unreadable, match=r"scaled to 4x12, .* 47 pixels"):
        image_files.read(
            str(tmp_path / "a.png"), gray=False, ground=0, max_pixels=47, edge=4
        )
    assert read(tmp_path / "a.png", max_pixels=47)[1] == ()
