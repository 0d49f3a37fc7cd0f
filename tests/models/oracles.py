"""Forward passes in float64 NumPy, one output pixel at a time."""

import numpy as np


def convolution(x, kernel, stride):
    """3x3, 1x1 or 7x7 with zeros around, so that stride 1 keeps the size."""
    size = kernel.shape[0]
    margin = size // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    rows = range(0, x.shape[1], stride)
    columns = range(0, x.shape[2], stride)
    out = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            patch = padded[:, i : i + size, j : j + size]
            out[:, a, b] = np.tensordot(patch, kernel, axes=3)
    return out


def max_pool(x):
    """3x3 with stride 2; the border does not count."""
    out = np.zeros((len(x), -(-x.shape[1] // 2), -(-x.shape[2] // 2), x.shape[3]))
    for a in range(out.shape[1]):
        for b in range(out.shape[2]):
            rows = slice(max(2 * a - 1, 0), 2 * a + 2)
            columns = slice(max(2 * b - 1, 0), 2 * b + 2)
            out[:, a, b] = x[:, rows, columns].max(axis=(1, 2))
    return out


def halved(x):
    """2x2 means; at an odd edge of the pixels that there are."""
    out = np.zeros((len(x), -(-x.shape[1] // 2), -(-x.shape[2] // 2), x.shape[3]))
    for a in range(out.shape[1]):
        for b in range(out.shape[2]):
            patch = x[:, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2]
            out[:, a, b] = patch.mean(axis=(1, 2))
    return out


def batch_norm(x, params, statistics=None):
    """With the statistics given, or with those of the batch."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if statistics is None else statistics["mean"]
    variance = x.var(axes) if statistics is None else statistics["var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def relu(x):
    return np.maximum(x, 0.0)


def residual_block(x, params, statistics, stride):
    """Two convolutions (basic) or three (bottleneck), and the shortcut."""
    bottleneck = params["Conv_0"]["kernel"].shape[0] == 1
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    y = x
    for i, s in enumerate(strides):
        y = convolution(y, params[f"Conv_{i}"]["kernel"], s)
        name = f"BatchNorm_{i}"
        y = batch_norm(y, params[name], statistics[name])
        if i + 1 < len(strides):
            y = relu(y)
    shortcut = f"Conv_{len(strides)}"
    if shortcut in params:
        name = f"BatchNorm_{len(strides)}"
        x = convolution(x, params[shortcut]["kernel"], stride)
        x = batch_norm(x, params[name], statistics[name])
    return relu(x + y)
