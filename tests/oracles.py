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
    """For kernels of unit vectors, given here without their own normalization."""

    def log_kernel(x, y):
        xs, ys = (np.split(unit(v), len(log_kernels)) for v in (x, y))
        each = zip(log_kernels, weights, xs, ys, strict=True)
        return np.log(sum(w * np.exp(k(x, y)) for k, w, x, y in each))

    return log_kernel


# Losses. -----------------------------------------------------------------------


def views(
    z, log_kernel, *, valid=None, decoupled=False, groups=None, guide=None, limit=None
):
    """nt_xent with any kernel; with `decoupled` the positives leave the denominator.

    Examples of one group are not each other's negatives, nor is a view closer to the
    anchor in the guide [b, v, g] than the limit of what its farthest sibling is.
    """
    b, v, _ = z.shape
    z = np.asarray(z, np.float64)
    valid = np.ones(b, bool) if valid is None else np.asarray(valid)
    groups = np.arange(b) if groups is None else groups
    loss = np.zeros((b, v))
    nodes = [(i, k) for i in range(b) for k in range(v) if valid[i]]
    for i, k in nodes:
        s = {(j, m): log_kernel(z[i, k], z[j, m]) for j, m in nodes}
        siblings = [s[i, m] for m in range(v) if m != k]
        apart = [(j, m) for j, m in nodes if groups[j] != groups[i]]
        if guide is not None:
            g = {(j, m): unit(guide[i, k]) @ unit(guide[j, m]) for j, m in nodes}
            largest = limit(min(g[i, m] for m in range(v) if m != k))
            apart = [at for at in apart if g[at] <= largest]
        below = [s[at] for at in apart]
        below += [] if decoupled else siblings
        if below:
            loss[i, k] = log_sum_exp(below) - np.mean(siblings)
    return loss


def _labelled(z, labels, log_kernel, valid, queue, queue_labels):
    """Of each valid anchor its logits with positives and with negatives."""
    n = len(z)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    for i in range(n):
        if not valid[i]:
            continue
        others = [j for j in range(n) if j != i and valid[j]]
        s = [(labels[j] == labels[i], log_kernel(z[i], z[j])) for j in others]
        if queue is not None:
            for k, entry in enumerate(queue):
                same = queue_labels is not None and queue_labels[k] == labels[i]
                s.append((same, log_kernel(z[i], entry)))
        positive = np.array([logit for same, logit in s if same])
        if positive.size:
            yield i, positive, np.array([logit for same, logit in s if not same])


def sup_con(
    z,
    labels,
    log_kernel,
    *,
    valid=None,
    queue=None,
    queue_labels=None,
    mean_inside=False,
):
    """Equation 2 of SupCon, with `mean_inside` equation 3."""
    loss = np.zeros(len(z))
    each = _labelled(z, labels, log_kernel, valid, queue, queue_labels)
    for i, positive, negative in each:
        share = np.exp(positive - log_sum_exp([*positive, *negative]))
        loss[i] = -np.log(share.mean()) if mean_inside else -np.log(share).mean()
    return loss


def sincere(z, labels, log_kernel, *, valid=None, queue=None, queue_labels=None):
    loss = np.zeros(len(z))
    each = _labelled(z, labels, log_kernel, valid, queue, queue_labels)
    for i, positive, negative in each:
        loss[i] = np.mean([log_sum_exp([s, *negative]) - s for s in positive])
    return loss


def info_nce(
    queries,
    keys,
    log_kernel,
    *,
    negatives=None,
    hard=None,
    exist=None,
    valid=None,
    groups=None,
    decoupled=False,
    guide=None,
    limit=None,
):
    """The key of a query among all keys, the queue, and hard negatives of its own.

    With `decoupled` it is contrasted with the others alone: without any, the loss is 0.
    The guide has an array beside each of queries, keys, negatives and hard negatives.
    """
    n = len(queries)
    groups = np.arange(n) if groups is None else groups
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    key_valid = np.concatenate([valid, np.ones(len(keys) - n, bool)])
    sets = [keys] + ([] if negatives is None else [negatives])
    of_query, of_key, *rest = [np.zeros((len(z), 1)) for z in (queries, *sets)]
    of_hard = None if hard is None else np.zeros((*hard.shape[:2], 1))
    if guide is not None:
        of_query, of_key, *rest = guide
        of_hard = None if hard is None else rest.pop()
    loss = np.zeros(n)
    for i in range(n):
        if not valid[i]:
            continue
        apart = [
            (key, of_key[j])
            for j, key in enumerate(keys)
            if j != i and key_valid[j] and (j >= n or groups[j] != groups[i])
        ]
        if negatives is not None:
            apart += list(zip(negatives, rest[0], strict=True))
        if hard is not None:
            own = zip(hard[i], of_hard[i], strict=True)
            apart += [x for k, x in enumerate(own) if exist is None or exist[i, k]]
        if guide is not None:
            largest = limit(unit(of_query[i]) @ unit(of_key[i]))
            apart = [x for x in apart if unit(of_query[i]) @ unit(x[1]) <= largest]
        positive = log_kernel(queries[i], keys[i])
        s = [log_kernel(queries[i], key) for key, _ in apart]
        s += [] if decoupled else [positive]
        if s:
            loss[i] = log_sum_exp(s) - positive
    return loss


def clip(images, texts, log_kernel, *, guide=None, hard=None, exist=None, **options):
    """Hard negatives are texts of an image alone."""
    back = None if guide is None else (guide[1], guide[0])
    forth = info_nce(
        images, texts, log_kernel, guide=guide, hard=hard, exist=exist, **options
    )
    return (forth + info_nce(texts, images, log_kernel, guide=back, **options)) / 2


def uni_cl(images, texts, labels, log_kernel, *, valid=None, mean_inside=False):
    n = len(images)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    rows = [j for j in range(n) if valid[j]]
    loss = np.zeros(n)
    for i in rows:
        same = [j for j in rows if labels[j] == labels[i]]
        to_texts = {j: log_kernel(images[i], texts[j]) for j in rows}
        to_images = {j: log_kernel(images[j], texts[i]) for j in rows}
        for s in (to_texts, to_images):
            share = np.exp([s[j] - log_sum_exp(list(s.values())) for j in same])
            loss[i] -= (
                np.log(share.mean()) if mean_inside else np.log(share).mean()
            ) / 2
    return loss


def siglip(images, texts, log_kernel, *, bias, valid=None):
    n = len(images)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    loss = np.zeros(n)
    for i in range(n):
        for j in range(n):
            if valid[i] and valid[j]:
                sign = 1 if i == j else -1
                logit = sign * (log_kernel(images[i], texts[j]) + bias)
                loss[i] += np.log1p(np.exp(-logit))
    return loss


def debiased(z, log_kernel, *, temperature, prior, hardness, valid=None):
    """The published form: exponentials first, the correction on sums of them."""
    b, v, _ = z.shape
    valid = np.ones(b, bool) if valid is None else np.asarray(valid)
    loss = np.zeros((b, v))
    for i in range(b):
        others = [(j, m) for j in range(b) for m in range(v) if valid[j] and j != i]
        for k in range(v):
            if not valid[i]:
                continue
            siblings = [log_kernel(z[i, k], z[i, m]) for m in range(v) if m != k]
            positive = np.exp(siblings)
            negative = np.exp([log_kernel(z[i, k], z[j, m]) for j, m in others])
            corrected = 0.0
            if others:
                importance = negative**hardness
                weighted = (importance * negative).sum() / importance.mean()
                count = len(others)
                corrected = weighted - count * prior * positive.mean()
                lowest = count * np.exp(-1 / temperature)
                corrected = max(corrected / (1 - prior), lowest)
            loss[i, k] = np.log(positive.sum() + corrected) - np.mean(siblings)
    return loss


def spectral_contrastive(z, *, valid=None):
    b, v, _ = z.shape
    valid = np.ones(b, bool) if valid is None else np.asarray(valid)
    loss = np.zeros((b, v))
    for i in range(b):
        for k in range(v):
            if not valid[i]:
                continue
            squares = [
                (z[i, k] @ z[j, m]) ** 2
                for j in range(b)
                for m in range(v)
                if valid[j] and j != i
            ]
            siblings = [z[i, k] @ z[i, m] for m in range(v) if m != k]
            loss[i, k] = (np.mean(squares) if squares else 0) - 2 * np.mean(siblings)
    return loss


def _per_example(x, valid, function):
    """Applies a function of (anchor, other valid rows) to each valid row."""
    n = len(x)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid)
    loss = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i and valid[j]]
        if valid[i] and others:
            loss[i] = function(i, others)
    return loss


def dhel(z, log_kernel, *, valid=None):
    def loss(i, others):
        within = [
            log_sum_exp([log_kernel(z[i, k], z[j, k]) for j in others]) for k in (0, 1)
        ]
        return sum(within) - log_kernel(z[i, 0], z[i, 1])

    return _per_example(z, valid, loss)


def is_info_nce(z1, z2, z3, log_kernel, *, valid=None):
    def loss(i, others):
        negative = log_sum_exp([log_kernel(z3[i], z3[j]) for j in others])
        return negative - log_kernel(z1[i], z2[i])

    return _per_example(z1, valid, loss)


def kcl(z, log_kernel, *, weight, valid=None):
    def loss(i, others):
        within = [
            np.mean([np.exp(log_kernel(z[i, k], z[j, k])) for j in others])
            for k in (0, 1)
        ]
        return weight * sum(within) - 2 * np.exp(log_kernel(z[i, 0], z[i, 1]))

    return _per_example(z, valid, loss)


# f' and the convex conjugate f*, each from its own definition.
F_DIVERGENCES = {
    "kl": (lambda u: np.log(u) + 1, lambda t: np.exp(t - 1)),
    "chi2": (lambda u: 2 * (u - 1), lambda t: t + t**2 / 4),
    "jensen_shannon": (
        lambda u: np.log(2 * u / (1 + u)),
        lambda t: -np.log(2 - np.exp(t)),
    ),
    "squared_hellinger": (lambda u: 1 - u**-0.5, lambda t: t / (1 - t)),
    "vincze_le_cam": (
        lambda u: 1 - 4 / (u + 1) ** 2,
        lambda t: 4 - t - 4 * np.sqrt(1 - t),
    ),
}


def f_micl(z, *, divergence, bandwidth, weight, valid=None):
    slope, conjugate = F_DIVERGENCES[divergence]

    def similarity(x, y):
        return np.exp(-((unit(x) - unit(y)) ** 2).sum() / (2 * bandwidth**2))

    def loss(i, others):
        negative = [conjugate(slope(similarity(z[i, 0], z[j, 0]))) for j in others]
        return weight * np.mean(negative) - slope(similarity(z[i, 0], z[i, 1]))

    return _per_example(z, valid, loss)


def uniformity(z, t, *, valid=None):
    u = unit(z)

    def loss(i, others):
        return np.log(
            np.mean([np.exp(-t * ((u[i] - u[j]) ** 2).sum()) for j in others])
        )

    return _per_example(z, valid, loss)


def graph_cross_entropy(z, target, log_kernel, *, valid=None):
    def loss(i, others):
        weights = np.array([target[i, j] for j in others], np.float64)
        if not weights.sum():
            return 0.0
        s = np.array([log_kernel(z[i], z[j]) for j in others])
        return log_sum_exp(s) - (weights / weights.sum()) @ s

    return _per_example(z, valid, loss)


def distillation(z, teacher, log_kernel, of_teacher, *, valid=None):
    def loss(i, others):
        t = np.array([of_teacher(teacher[i], teacher[j]) for j in others])
        s = np.array([log_kernel(z[i], z[j]) for j in others])
        return log_sum_exp(s) - np.exp(t - log_sum_exp(t)) @ s

    return _per_example(z, valid, loss)


def distillation_of_two_sets(
    z, teacher, others, of_others, log_kernel, of_teacher, *, valid, others_valid
):
    """Row i of z meets every valid row of `others`, row i among them."""
    loss = np.zeros(len(z))
    kept = [j for j in range(len(others)) if others_valid is None or others_valid[j]]
    for i in range(len(z)):
        if kept and (valid is None or valid[i]):
            p = np.exp([of_teacher(teacher[i], of_others[j]) for j in kept])
            q = np.exp([log_kernel(z[i], others[j]) for j in kept])
            loss[i] = -(p / p.sum()) @ np.log(q / q.sum())
    return loss


def norm_entropy_penalty(z, *, scale, estimator, ridge, valid=None):
    z = np.asarray(z, np.float64)
    z = z if valid is None else z[np.asarray(valid)]
    n, d = z.shape
    covariance = np.cov(z.T, bias=True).reshape(d, d)
    if estimator == "gaussian_logdet":
        jitter = ridge * np.trace(covariance) / d * np.eye(d)
        entropy = np.linalg.slogdet(2 * np.pi * np.e * (covariance + jitter))[1] / 2
    elif estimator == "kde_loo":
        sigma = np.sqrt(np.trace(covariance) / d)
        h = sigma * (4 / ((d + 2) * n)) ** (1 / (d + 4))
        log_density = []
        for i in range(n):
            squares = [((z[i] - z[j]) ** 2).sum() for j in range(n) if j != i]
            densities = np.exp(-np.array(squares) / (2 * h**2))
            log_density.append(np.log(densities.mean() / (2 * np.pi * h**2) ** (d / 2)))
        entropy = -np.mean(log_density)
    else:
        log_r = np.log(np.linalg.norm(z, axis=1))
        variance = log_r.var() + ridge / (2 * d)
        # h(r) = h(log r) + E log r, and the shell of radius r has r^(d - 1) of room.
        entropy = np.log(2 * np.pi * np.e * variance) / 2 + d * log_r.mean()
    return scale * (z**2).sum(axis=1).mean() - entropy


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
