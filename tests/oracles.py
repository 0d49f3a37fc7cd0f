"""Every formula once more, one anchor at a time, in float64 NumPy.

Nothing here imports jax or jaxcl, and nothing here is clever.
"""

import numpy as np


def unit(x):
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(length == 0, 0, x / np.where(length == 0, 1, length))


def log_sum_exp(values):
    values = np.asarray(values, np.float64)
    if not values.size:
        return -np.inf
    top = values.max()
    return top + np.log(np.exp(values - top).sum())


# Log-kernels of two vectors. ----------------------------------------------------


def cosine(temperature):
    return lambda x, y: unit(x) @ unit(y) / temperature


def dot(temperature):
    return lambda x, y: x @ y / temperature


def exponential(power, temperature, normalize=True):
    def log_kernel(x, y):
        if normalize:
            x, y = unit(x), unit(y)
        return -(np.linalg.norm(x - y) ** power) / temperature

    return log_kernel


def arc_cosine(order, scale=1.0):
    def log_kernel(x, y):
        angle = np.arccos(np.clip(1 - scale * (1 - unit(x) @ unit(y)), -1, 1))
        rest, sine, cosine = np.pi - angle, np.sin(angle), np.cos(angle)
        kernel = [
            rest,
            sine + rest * cosine,
            3 * sine * cosine + rest * (1 + 2 * cosine**2),
        ][order]
        return np.log(max(kernel, 1e-6))

    return log_kernel


def kernel_sum(*log_kernels, weights):
    def log_kernel(x, y):
        each = zip(log_kernels, weights, strict=True)
        return np.log(sum(w * np.exp(k(x, y)) for k, w in each))

    return log_kernel


def concatenation_sum(*log_kernels, weights):
    """For kernels of unit vectors, given here without their own normalisation."""

    def log_kernel(x, y):
        xs, ys = (np.split(unit(v), len(log_kernels)) for v in (x, y))
        each = zip(log_kernels, weights, xs, ys, strict=True)
        return np.log(sum(w * np.exp(k(x, y)) for k, w, x, y in each))

    return log_kernel


# Losses. -----------------------------------------------------------------------


def views(z, log_kernel, *, valid=None, decoupled=False):
    """nt_xent with any kernel; with `decoupled` the positives leave the denominator."""
    b, v, _ = z.shape
    z = np.asarray(z, np.float64)
    valid = np.ones(b, bool) if valid is None else np.asarray(valid)
    loss = np.zeros((b, v))
    nodes = [(i, k) for i in range(b) for k in range(v) if valid[i]]
    for i, k in nodes:
        s = {(j, m): log_kernel(z[i, k], z[j, m]) for j, m in nodes}
        siblings = [s[i, m] for m in range(v) if m != k]
        below = [
            s[j, m] for j, m in nodes if (j, m) != (i, k) and not (decoupled and j == i)
        ]
        if below:
            loss[i, k] = log_sum_exp(below) - np.mean(siblings)
    return loss


def sup_con(z, labels, log_kernel, *, valid=None):
    n = len(z)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    loss = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[j]]
        positives = [j for j in others if labels[j] == labels[i]]
        if valid[i] and positives:
            s = {j: log_kernel(z[i], z[j]) for j in others}
            loss[i] = log_sum_exp(list(s.values())) - np.mean([s[j] for j in positives])
    return loss


def info_nce(queries, keys, log_kernel, *, negatives=None, valid=None):
    n = len(queries)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    key_valid = np.concatenate([valid, np.ones(len(keys) - n, bool)])
    loss = np.zeros(n)
    for i in range(n):
        if not valid[i]:
            continue
        candidates = [k for k, ok in zip(keys, key_valid, strict=True) if ok]
        if negatives is not None:
            candidates += list(negatives)
        s = [log_kernel(queries[i], k) for k in candidates]
        loss[i] = log_sum_exp(s) - log_kernel(queries[i], keys[i])
    return loss


def clip(images, texts, log_kernel, *, valid=None):
    forth = info_nce(images, texts, log_kernel, valid=valid)
    back = info_nce(texts, images, log_kernel, valid=valid)
    return (forth + back) / 2


def sc_info_nce(
    z1, z2, log_kernel, *, alpha, beta, variant="constant", valid=None, held=None
):
    """`held` replaces what the loss holds constant, for differences of its value."""
    n = len(z1)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    loss = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[j]]
        if not (valid[i] and others):
            continue
        positive = log_kernel(z1[i], z2[i])
        s = [log_kernel(z1[i], z2[j]) for j in others]
        every = log_sum_exp([positive, *s])
        if variant == "constant":
            loss[i] = -alpha * positive + log_sum_exp(s)
        else:
            below = every if variant == "full" else log_sum_exp(s)
            share = np.exp(positive - below)
            factor = (share if held is None else held[i]) - 1 + alpha
            loss[i] = below - positive - factor * positive
        loss[i] += beta * np.mean(s)
    return loss


def sc_share(z1, z2, log_kernel, *, variant, valid=None):
    """What `sc_info_nce` holds constant in its variants "full" and "official"."""
    n = len(z1)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    share = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[j]]
        s = [log_kernel(z1[i], z2[j]) for j in others]
        positive = log_kernel(z1[i], z2[i])
        below = log_sum_exp([positive, *s]) if variant == "full" else log_sum_exp(s)
        share[i] = np.exp(positive - below)
    return share


# Derivatives. ------------------------------------------------------------------


def gradient(function, *arrays, step=1e-6):
    """Central differences of a scalar function by each entry of each array."""
    arrays = [np.array(a, np.float64) for a in arrays]
    gradients = []
    for a in arrays:
        g = np.zeros_like(a)
        for at in np.ndindex(a.shape):
            kept = a[at]
            a[at] = kept + step
            up = function(*arrays)
            a[at] = kept - step
            down = function(*arrays)
            a[at] = kept
            g[at] = (up - down) / (2 * step)
        gradients.append(g)
    return gradients
