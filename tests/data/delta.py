"""Reads the images in ../shared/data: 2-D differences, modulo 256, of R - G, G, B - G.

python -m tests.data.delta cifar10_train_0.npz plain.npz
"""

import sys

import numpy as np


def decoded(delta):
    """Images uint8 [n, h, w, 3] of differences uint8 [n, 3, h, w]."""
    planes = delta.cumsum(axis=2, dtype=np.uint8).cumsum(axis=3, dtype=np.uint8)
    green = planes[:, 1]
    return np.stack([planes[:, 0] + green, green, planes[:, 2] + green], axis=-1)


def encoded(images):
    """The differences, one pixel at a time: the inverse of two running sums."""
    r, g, b = (images[..., c].astype(int) for c in range(3))
    planes = np.stack([r - g, g, b - g], axis=1)
    padded = np.pad(planes, ((0, 0), (0, 0), (1, 0), (1, 0)))
    delta = np.empty(planes.shape, np.uint8)
    for i in range(planes.shape[2]):
        for j in range(planes.shape[3]):
            here, above = padded[:, :, i + 1, j + 1], padded[:, :, i, j + 1]
            left, corner = padded[:, :, i + 1, j], padded[:, :, i, j]
            delta[:, :, i, j] = (here - above - left + corner) % 256
    return delta


def to_plain(path, out):
    """Writes the file again with `images` in place of `delta`."""
    with np.load(path) as content:
        arrays = dict(content)
    np.savez_compressed(out, images=decoded(arrays.pop("delta")), **arrays)


if __name__ == "__main__":
    to_plain(*sys.argv[1:])
