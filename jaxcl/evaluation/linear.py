"""Linear probes of a frozen representation: logistic regression and ridge."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import _checks

# Penalties of a linear probe, from almost free to strongly shrunk, for standardized h.
WEIGHT_DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

# Above this many rows one held-out fifth ranks penalties as well as five.
_ENOUGH_ROWS = 10_000


class LinearProbe(NamedTuple):
    """A linear classifier of standardized h: see `logits` and `predict`.

    Attributes:
      weight: [r, c].
      bias: [c].
      mean: of the training rows, [r].
      scale: of the training rows, [r]; that of a constant column is 1.
      weight_decay: the penalty it was trained with.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weight_decay: float


def logits(probe: LinearProbe, h: jax.typing.ArrayLike) -> np.ndarray:
    """Class scores of a linear probe.

        logits = (h - mean) / scale @ weight + bias

    Args:
      probe: from `logistic_probe` or `ridge_probe`.
      h: frozen representation [n, r].

    Returns:
      [n, c], in nats for `logistic_probe`, in targets (0 to 1) for `ridge_probe`.

    Raises:
      TypeError, ValueError: if h is not a finite floating point array [n, r].

    >>> probe = LinearProbe(np.eye(2), np.zeros(2), np.ones(2), np.ones(2), 1.0)
    >>> print(logits(probe, np.array([[2.0, 4.0]])))
    [[1. 3.]]
    """
    h = _checks.representation("h", h, width=len(probe.mean))
    return (h - probe.mean) / probe.scale @ probe.weight + probe.bias


def predict(probe: LinearProbe, h: jax.typing.ArrayLike) -> np.ndarray:
    """The class with the largest score, the first of equal ones.

    Args:
      probe: from `logistic_probe` or `ridge_probe`.
      h: frozen representation [n, r].

    Returns:
      Labels, int64 [n].

    Raises:
      TypeError, ValueError: if h is not a finite floating point array [n, r].

    >>> probe = LinearProbe(np.eye(2), np.zeros(2), np.ones(2), np.ones(2), 1.0)
    >>> print(predict(probe, np.array([[2.0, 4.0]])))
    [1]
    """
    return np.argmax(logits(probe, h), axis=1)


def logistic_probe(
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    weight_decay: float | Sequence[float] = WEIGHT_DECAYS,
    folds: int = 5,
    seed: int = 0,
    tolerance: float = 1e-6,
    max_steps: int = 1000,
) -> LinearProbe:
    """Multinomial logistic regression on a frozen representation.

    Minimizes over W [r, c] and b [c], for h standardized column by column,

        mean_i -log softmax(h_i W + b)[label_i]  +  weight_decay / 2 |W|^2

    by full-batch L-BFGS, from zero. The problem is convex, so nothing but the penalty
    is left to tune. Of several penalties the one with the smallest cross entropy on
    held-out parts of the training rows is taken, and the probe is trained again on
    all of them. Parts are stratified and held out in turn; above 10,000 rows only
    the first is.

    All rows and their logits are on the device at once: n (r + 3 c) floats.

    Args:
      train_h: frozen representation [n, r].
      train_labels: integers [n] in [0, num_classes).
      num_classes: number of classes c.
      weight_decay: penalty in nats per squared weight, > 0; several: one is chosen.
        scikit-learn's C is 1 / (n weight_decay).
      folds: number of parts used to choose, 2 to n.
      seed: of the parts.
      tolerance: largest entry of the gradient at which to stop, in nats; ten times
        as much while choosing.
      max_steps: of L-BFGS for one fit.

    Returns:
      LinearProbe with the chosen penalty, to be given to `predict`.

    Raises:
      TypeError: if train_h is not floating point or labels are not integers.
      ValueError: for wrong shapes, values that are not finite, labels out of range,
        penalties <= 0, or more folds than rows.

    Warns:
      RuntimeWarning: if max_steps end before the tolerance is reached.

    >>> h = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> labels = np.array([0, 0, 1, 1])
    >>> probe = logistic_probe(h, labels, num_classes=2, weight_decay=0.1)
    >>> print(predict(probe, h))
    [0 0 1 1]
    """
    h, labels, mean, scale = _standardized(train_h, train_labels, num_classes)
    penalties = _penalties(weight_decay)
    _checks.positive("tolerance", tolerance)
    _checks.count("max_steps", max_steps)
    x, targets = jax.device_put((h.astype(np.float32), labels.astype(np.int32)))
    limits = np.float32(tolerance), np.int32(max_steps)
    rough = np.float32(10 * tolerance), np.int32(max_steps)  # enough to compare
    shapes = (h.shape[1], num_classes), (num_classes,)
    zero = jax.device_put(tuple(np.zeros(shape, np.float32) for shape in shapes))

    penalty = penalties[0]
    if len(penalties) > 1:
        parts = _parts(labels, folds, seed)
        held_out = np.zeros(len(penalties))
        for part in range(folds if len(h) <= _ENOUGH_ROWS else 1):
            used = (parts != part).astype(np.float32)
            start = zero
            for p, each in enumerate(penalties):  # the strongest first: it is quick,
                fit = _fit(x, targets, used, np.float32(each), start, *rough)
                start = fit.weight, fit.bias  # and the next optimum lies near by
                held_out[p] += np.asarray(fit.nats)[parts == part].sum(dtype=np.float64)
        penalty = penalties[int(np.argmin(held_out))]

    everything = np.ones(len(h), np.float32)
    fit = _fit(x, targets, everything, np.float32(penalty), zero, *limits)
    if not float(fit.gradient) <= tolerance:
        warnings.warn(
            f"the logistic probe stopped with a gradient of {float(fit.gradient):.1e} "
            f"after {int(fit.steps)} steps, above tolerance={tolerance}: "
            "raise max_steps, weight_decay or tolerance",
            RuntimeWarning,
            stacklevel=2,
        )
    weight, bias = np.asarray(fit.weight), np.asarray(fit.bias)
    return LinearProbe(weight, bias, mean, scale, penalty)


def ridge_probe(
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    weight_decay: float | Sequence[float] = WEIGHT_DECAYS,
) -> LinearProbe:
    """Ridge regression of one-hot targets, in closed form.

    Minimizes over W [r, c] and b [c], for h standardized column by column,

        mean_i |h_i W + b - onehot(label_i)|^2  +  weight_decay |W|^2

    through the singular values of h, in float64 on the host. Of several penalties the
    one with the smallest squared leave-one-out error is taken, which needs no refit:
    with the fitted values f and the leverages a_ii = d f_i / d y_i,

        left-out residual_i = (y_i - f_i) / (1 - a_ii)

    Args:
      train_h: frozen representation [n, r]; n min(n, r) float64 of memory.
      train_labels: integers [n] in [0, num_classes).
      num_classes: number of classes c.
      weight_decay: penalty, > 0; several: one is chosen. scikit-learn's `alpha` is
        n weight_decay.

    Returns:
      LinearProbe with the chosen penalty, to be given to `predict`.

    Raises:
      TypeError: if train_h is not floating point or labels are not integers.
      ValueError: for wrong shapes, values that are not finite, labels out of range
        or penalties <= 0.

    Source:
      Golub, Heath and Wahba, Generalized cross-validation as a method for choosing a
      good ridge parameter, Technometrics 21 (1979), for the left-out residual.

    >>> h = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> probe = ridge_probe(h, np.array([0, 0, 1, 1]), num_classes=2)
    >>> print(predict(probe, h))
    [0 0 1 1]
    """
    h, labels, mean, scale = _standardized(train_h, train_labels, num_classes)
    penalties = _penalties(weight_decay)
    targets = np.eye(num_classes)[labels]
    bias = targets.mean(axis=0)  # h is centered, so the bias does not depend on W
    left, singular, right = np.linalg.svd(h, full_matrices=False)
    projected = left.T @ (targets - bias)

    left_out = []
    for penalty in penalties:
        kept = singular**2 / (singular**2 + len(h) * penalty)
        residual = targets - bias - left @ (kept[:, None] * projected)
        leverage = np.square(left) @ kept + 1 / len(h)
        # One row alone has nothing left to be fitted from: its leverage is 1.
        free = np.maximum(1 - leverage, np.finfo(np.float64).eps)
        left_out.append(np.square(residual / free[:, None]).sum())
    penalty = penalties[int(np.argmin(left_out))]

    shrunk = singular / (singular**2 + len(h) * penalty)
    weight = right.T @ (shrunk[:, None] * projected)
    return LinearProbe(weight, bias, mean, scale, penalty)


def _standardized(
    h: jax.typing.ArrayLike, labels: jax.typing.ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Checked h in float64 with columns of mean 0 and variance 1, labels, statistics"""
    _checks.count("num_classes", num_classes)
    h = _checks.representation("train_h", h).astype(np.float64)
    labels = _checks.classes("train_labels", labels, len(h), num_classes)
    # In multiples of its largest number neither sums nor squares of a column leave
    # float64. Where that is below 1e-300 the scale would have few digits, or be 0.
    size = np.abs(h).max(axis=0)
    varies = h.max(axis=0) > h.min(axis=0)
    if (varies & (size < 1e-300)).any():
        raise ValueError(
            "train_h must hold columns of numbers above 1e-300, got one of up to "
            f"{size[varies].min():.3g}; multiply h by a constant"
        )
    size = np.where(size > 0, size, 1.0)
    x = h / size
    mean = x.mean(axis=0)
    # Rounding gives a constant column a tiny deviation: its range is exactly 0.
    deviation = np.where(varies, x.std(axis=0), 1.0)
    scale = np.where(varies, size * deviation, 1.0)
    x = np.where(varies, (x - mean) / deviation, 0.0)
    return x, labels, size * mean, scale


def _penalties(weight_decay: float | Sequence[float]) -> list[float]:
    """Penalties to choose from, the strongest first."""
    several = np.ravel(np.asarray(weight_decay, np.float64))
    if not several.size:
        raise ValueError("weight_decay must be one penalty or several, got none")
    for penalty in several:
        _checks.positive("weight_decay", penalty)
    return sorted(several.tolist(), reverse=True)


def _parts(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """As `spread`, checked."""
    _checks.count("folds", folds, at_least=2)
    if folds > len(labels):
        raise ValueError(
            f"folds must be at most the {len(labels)} training rows, got {folds}; "
            "a single weight_decay needs no folds"
        )
    return spread(labels, folds, seed)


def spread(labels: np.ndarray, folds: int, seed: int | Sequence[int]) -> np.ndarray:
    """The part of each row, int [n]; every class is spread evenly over the parts."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    parts = np.empty(len(labels), np.int64)
    parts[by_class] = np.arange(len(labels)) % folds
    return parts


class _Fit(NamedTuple):
    weight: jax.Array  # [r, c]
    bias: jax.Array  # [c]
    nats: jax.Array  # cross entropy of every row, used or not [n]
    gradient: jax.Array  # its largest entry []
    steps: jax.Array  # []


def _fit(*arguments: jax.typing.ArrayLike | tuple[jax.Array, ...]) -> _Fit:
    """`_descend` in float32 also where float64 is on: optax mixes the two then."""
    with jax.enable_x64(False):
        return _descend(*arguments)


@jax.jit
def _descend(
    h: jax.Array,
    labels: jax.Array,
    used: jax.Array,
    weight_decay: jax.Array,
    start: tuple[jax.Array, jax.Array],
    tolerance: jax.Array,
    max_steps: jax.Array,
) -> _Fit:
    """Minimizes over the rows where `used` is 1; the mask lets all folds share it."""
    share = used / used.sum()

    def nats(parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        weight, bias = parameters
        scores = jnp.matmul(h, weight, precision=jax.lax.Precision.HIGHEST)
        return optax.softmax_cross_entropy_with_integer_labels(
            scores + bias[None, :], labels
        )

    def objective(parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        penalty = weight_decay / 2 * jnp.square(parameters[0]).sum()
        return jnp.vdot(share, nats(parameters)) + penalty

    # Near the optimum a step lowers the objective by less than float32 resolves. The
    # line search then goes by slopes, if it may call values this close equal; at its
    # default of 1e-6 it shrinks steps to nothing and never reaches the tolerance.
    search = optax.scale_by_zoom_linesearch(
        max_linesearch_steps=20, initial_guess_strategy="one", approx_dec_rtol=1e-5
    )
    optimizer = optax.lbfgs(linesearch=search)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def largest(gradient: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.maximum(*(jnp.abs(leaf).max() for leaf in gradient))

    def unfinished(carry: tuple) -> jax.Array:
        _, _, gradient, step = carry
        return (largest(gradient) > tolerance) & (step < max_steps)

    def advance(carry: tuple) -> tuple:
        parameters, state, _, step = carry
        value, gradient = value_and_grad(parameters, state=state)
        updates, state = optimizer.update(
            gradient, state, parameters, value=value, grad=gradient, value_fn=objective
        )
        parameters = optax.apply_updates(parameters, updates)
        # The line search has already differentiated where it stopped.
        return parameters, state, optax.tree.get(state, "grad"), step + 1

    carry = (start, optimizer.init(start), jax.grad(objective)(start), jnp.int32(0))
    parameters, _, gradient, steps = jax.lax.while_loop(unfinished, advance, carry)
    return _Fit(*parameters, nats(parameters), largest(gradient), steps)
