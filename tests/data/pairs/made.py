"""Files of pairs, written by hand with Pillow and tarfile."""

import io
import json
import tarfile

import numpy as np
from PIL import Image

COLORS = ((250, 10, 20), (30, 240, 50), (60, 70, 230), (200, 200, 90))


def pixels(i, height=6, width=6):
    """An image of one color, which a scaled one keeps."""
    return np.broadcast_to(np.uint8(COLORS[i]), (height, width, 3))


def png(i, height=6, width=6):
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels(i, height, width))).save(stream, "png")
    return stream.getvalue()


def folder(path, images, table, content):
    """A folder of images, bytes by name, with a table, lines of cells or objects."""
    for name, image in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(image)
    if table.endswith(".jsonl"):
        lines = [json.dumps(line) for line in content]
    else:
        lines = [("\t" if table.endswith(".tsv") else ",").join(x) for x in content]
    (path / table).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def tar(path, members):
    """A shard of members, (name, bytes or text)."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)
