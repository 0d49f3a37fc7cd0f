"""What augmentations should give, by other means: Pillow, SciPy, colorsys, loops."""

import colorsys
import itertools

import numpy as np
import PIL.Image
import scipy.ndimage


def resized_crop(image, box, size):
    """Pillow's crop and bilinear resize, one floating-point channel at a time."""
    top, left, height, width = (int(side) for side in box)
    channels = []
    for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0):
        picture = PIL.Image.fromarray(np.ascontiguousarray(channel), mode="F")
        picture = picture.crop((left, top, left + width, top + height))
        picture = picture.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
        channels.append(np.asarray(picture))
    return np.stack(channels, axis=2)


def each_pixel(image, function):
    """Applies a function of r, g, b to every pixel, in float64."""
    return np.array([[function(*map(float, p)) for p in row] for row in image])


def brightness(image, factor):
    return np.minimum(np.asarray(image, np.float64) * factor, 1)


def contrast(image, factor):
    image = np.asarray(image, np.float64)
    mean = grayscale(image).mean()
    return np.clip(mean + factor * (image - mean), 0, 1)


def saturation(image, factor):
    image = np.asarray(image, np.float64)
    gray = grayscale(image)
    return np.clip(gray + factor * (image - gray), 0, 1)


def hue(image, shift):
    if image.shape[2] == 1:
        return np.asarray(image, np.float64)

    def turn(r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((h + shift) % 1, s, v)

    return each_pixel(image, turn)


def grayscale(image):
    if image.shape[2] == 1:
        return np.asarray(image, np.float64)
    return each_pixel(image, lambda *rgb: [np.dot(rgb, [0.299, 0.587, 0.114])] * 3)


def gaussian_blur(image, sigma, radius):
    image = np.asarray(image, np.float64)
    for axis in (0, 1):
        image = scipy.ndimage.gaussian_filter1d(
            image, sigma, axis=axis, mode="mirror", radius=radius
        )
    return image


def affine_matrix(rotation, translation, scale, shear):
    """From where a point came: the inverse of three elementary maps and a shift."""
    r, s = np.deg2rad(rotation), np.deg2rad(shear)
    turn = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    lean = np.array([[1, 0], [-np.tan(s), 1]])
    there = np.eye(3)
    there[:2, :2] = scale * turn @ lean
    there[:2, 2] = translation
    return np.linalg.inv(there)[:2]


def affine(image, matrix, fill):
    matrix = np.asarray(matrix, np.float64)
    center = (np.array(image.shape[:2]) - 1) / 2
    offset = center + matrix[:, 2] - matrix[:, :2] @ center
    channels = [
        scipy.ndimage.affine_transform(
            channel, matrix[:, :2], offset, order=1, mode="grid-constant", cval=value
        )
        for channel, value in zip(
            np.moveaxis(np.asarray(image, np.float64), 2, 0),
            np.broadcast_to(fill, image.shape[2]),
            strict=True,
        )
    ]
    return np.stack(channels, axis=2)


def distance_from_uniform(draws, low, high):
    """Kolmogorov's statistic: the largest gap between two distribution functions."""
    draws = (np.sort(np.asarray(draws, np.float64)) - low) / (high - low)
    n = len(draws)
    steps = np.arange(n + 1) / n
    return max(np.abs(draws - steps[:-1]).max(), np.abs(draws - steps[1:]).max())


def orders():
    return np.array(sorted(itertools.permutations(range(4))))
