"""Whether a picture shows something, for tests of what draws it."""

import numpy as np
from matplotlib import image


def assert_drawn(path, least=0.005):
    """Fails unless a PNG has ink on a ground, of several colors, over both halves."""
    pixels = image.imread(path)[..., :3]
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    ink = np.abs(pixels - ground).max(axis=-1) > 0.1
    assert ink.mean() > least, f"{path}: hardly anything is drawn"
    rows, columns = ink.shape
    for half in (ink[: rows // 2], ink[rows // 2 :]):
        assert half.any(), f"{path}: a half is empty"
    for half in (ink[:, : columns // 2], ink[:, columns // 2 :]):
        assert half.any(), f"{path}: a half is empty"
    assert len(np.unique((pixels[ink] * 8).astype(int), axis=0)) > 3
