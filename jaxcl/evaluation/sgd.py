"""Linear probes trained by SGD, as most papers do, with a sweep of learning rates."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl import _checks
from jaxcl.evaluation import linear, scores

# Of a linear layer on h as it is: what h measures decides which of them is right.
LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Sweep(NamedTuple):
    """A linear probe, and how its learning rate was chosen.

    probe: trained on all rows with the chosen rate; to be given to `predict`.
    learning_rate: the chosen one.
    learning_rates: those it was chosen from.
    validation: accuracy of each on the rows that it had not learned from.
    """

    probe: linear.LinearProbe
    learning_rate: float
    learning_rates: tuple[float, ...]
    validation: tuple[float, ...]


def sgd_probe(
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = 100,
    batch_size: int = 256,
    momentum: float = 0.9,
    validation: float = 0.1,
    seed: int = 0,
) -> Sweep:
    """A linear layer on frozen h, trained by SGD along a cosine.

    From W = 0 [r, c] and b = 0 [c], at step t of T, for the rows of a batch,

        g <- gradient of mean_i -log softmax(h_i W + b)[label_i]
        m <- momentum m + g
        (W, b) <- (W, b) - rate (1 + cos(pi t / T)) / 2 m

    h stays as it is, without standardization, and nothing is decayed. Every rate is
    tried twice, side by side in one program: without the validation rows, which choose
    the rate, and with all rows, which is what is returned. No other rows choose.

    Args:
      train_h: frozen representation [n, r].
      train_labels: integers [n] in [0, num_classes).
      num_classes: number of classes c.
      learning_rates: > 0; of equally accurate ones the one of smaller cross entropy is
        taken.
      epochs: passes over the rows; the last batch of a pass is left out where it is
        not whole.
      batch_size: rows of a step, or all of them if they are fewer.
      momentum: in [0, 1).
      validation: share of each class that chooses, in (0, 1); at least one row.
      seed: of the batches and of the validation rows.

    Returns:
      Sweep(probe, learning_rate, learning_rates, validation).

    Raises:
      TypeError: if train_h is not floating point or labels are not integers.
      ValueError: for wrong shapes, values or labels out of range, or a class of one
        row, which cannot both be learned and choose.
      FloatingPointError: if the layer diverges with every rate.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix B.6, on features that are
      computed once.

    >>> h = np.array([[-2.0], [-1.0], [-1.5], [1.0], [2.0], [1.5]])
    >>> found = sgd_probe(h, np.array([0, 0, 0, 1, 1, 1]), num_classes=2, epochs=20)
    >>> print(linear.predict(found.probe, h))
    [0 0 0 1 1 1]
    """
    h = _in_float32(train_h)
    problem = _prepare(
        h,
        train_labels,
        num_classes=num_classes,
        learning_rates=learning_rates,
        epochs=epochs,
        batch_size=batch_size,
        momentum=momentum,
        validation=validation,
        seed=seed,
    )
    with jax.enable_x64(False):
        found = _train(
            *jax.device_put((h, problem.labels, problem.used)),
            problem.rates,
            jax.random.key(seed),
            epochs=epochs,
            batch_size=problem.batch_size,
            num_classes=num_classes,
            momentum=momentum,
        )
    return _chosen(problem, h, found)


def augmented_probe(
    draw: Callable[[np.ndarray, jax.Array], jax.Array],
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = 100,
    batch_size: int = 256,
    momentum: float = 0.9,
    validation: float = 0.1,
    seed: int = 0,
) -> Sweep:
    """`sgd_probe` on representations of examples that are augmented anew each epoch.

    The validation rows choose by h of the examples as they are. A frozen encoder runs
    once for each example and epoch, whatever the number of rates.

    Args:
      draw: (rows [b], key) to h [b, r] of these rows, augmented as the key says.
      train_h: h of the rows as they are [n, r].
      train_labels: integers [n] in [0, num_classes).
      num_classes, learning_rates, epochs, batch_size, momentum, validation, seed: as
        `sgd_probe`.

    Returns:
      Sweep(probe, learning_rate, learning_rates, validation).

    Raises:
      TypeError, ValueError: as `sgd_probe`; or if draw gives another shape.
      FloatingPointError: as `sgd_probe`; or if draw gives what is not finite.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix B.6.
    """
    h = _in_float32(train_h)
    problem = _prepare(
        h,
        train_labels,
        num_classes=num_classes,
        learning_rates=learning_rates,
        epochs=epochs,
        batch_size=batch_size,
        momentum=momentum,
        validation=validation,
        seed=seed,
    )
    key, b = jax.random.key(seed), problem.batch_size
    drawing = jax.random.fold_in(key, epochs)  # after the keys of the epochs
    steps = len(h) // b
    with jax.enable_x64(False):
        state = _start(h.shape[1], num_classes, len(problem.rates))
        for step in range(epochs * steps):
            if step % steps == 0:
                order = np.asarray(_order(key, step // steps, len(h)))
            rows = order[step % steps * b : (step % steps + 1) * b]
            x = draw(rows, jax.random.fold_in(drawing, step))
            if x.shape != (b, h.shape[1]):
                raise ValueError(
                    f"draw must return [{b}, {h.shape[1]}], rows as of train_h, got "
                    f"{list(x.shape)}"
                )
            state = _advance(
                state,
                x.astype(jnp.float32),
                problem.labels[rows],
                problem.used[:, rows],
                problem.rates,
                np.float32(step / (epochs * steps)),
                momentum=momentum,
            )
    return _chosen(problem, h, state[0])


def _in_float32(train_h: jax.typing.ArrayLike) -> np.ndarray:
    h = _checks.representation("train_h", train_h)
    largest = np.abs(h).max(initial=0)
    if largest > 1e15:  # squares of sums of these would leave float32
        raise ValueError(
            f"train_h must hold numbers up to 1e15, got {largest:.3g}; multiply h by a "
            "constant"
        )
    return h.astype(np.float32)


class _Problem(NamedTuple):
    labels: np.ndarray  # int32 [n]
    used: np.ndarray  # float32 [2, n]: without the validation rows, and all
    rates: np.ndarray  # float32 [k]
    batch_size: int


def _prepare(
    h: np.ndarray,
    labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
    momentum: float,
    validation: float,
    seed: int,
) -> _Problem:
    """Checks what both probes are given."""
    _checks.count("num_classes", num_classes)
    labels = _checks.classes("train_labels", labels, len(h), num_classes)
    rates = np.ravel(np.asarray(learning_rates, np.float32))
    if not rates.size:
        raise ValueError("learning_rates must be one rate or several, got none")
    for rate in rates:
        _checks.positive("learning_rates", float(rate))
    _checks.count("epochs", epochs)
    _checks.count("batch_size", batch_size)
    if not 0 <= _checks.static("momentum", momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum:g}")
    held_out = scores.hold_out(labels, validation, seed)
    used = np.stack([~held_out, np.ones(len(h), bool)]).astype(np.float32)
    return _Problem(labels.astype(np.int32), used, rates, min(batch_size, len(h)))


# Weights [2, k, r, c] and biases [2, k, c], and the sums of their gradients.
_Parameters = tuple[jax.Array, jax.Array]
_State = tuple[_Parameters, optax.OptState]


def _start(r: int, num_classes: int, rates: int) -> _State:
    shapes = (2, rates, r, num_classes), (2, rates, num_classes)
    zero = tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)
    return zero, optax.trace(0.0).init(zero)  # type: ignore[return-value]


def _order(key: jax.Array, epoch: jax.typing.ArrayLike, n: int) -> jax.Array:
    """The order in which an epoch visits the rows, int32 [n]."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)


def _nats(
    parameters: _Parameters, x: jax.Array, labels: jax.Array, used: jax.Array
) -> jax.Array:
    """Mean cross entropy of the rows of one layer that are used."""
    weight, bias = parameters
    found = jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST) + bias[None, :]
    each = optax.softmax_cross_entropy_with_integer_labels(found, labels)
    return (used * each).sum() / jnp.maximum(used.sum(), 1.0)


def _step(
    state: _State,
    x: jax.Array,
    labels: jax.Array,
    used: jax.Array,
    rates: jax.Array,
    done: jax.Array,
    momentum: float,
) -> _State:
    """One step of all layers at once; `done` is the share of steps before it."""
    parameters, velocity = state
    of_rates = jax.vmap(jax.grad(_nats), (0, None, None, None))
    gradients = jax.vmap(of_rates, (0, None, None, 0))(parameters, x, labels, used)
    moved, velocity = optax.trace(momentum).update(gradients, velocity)
    falling = rates * (1 + jnp.cos(jnp.pi * done)) / 2

    def move(p: jax.Array, m: jax.Array) -> jax.Array:
        return p - falling.reshape(1, -1, *(1,) * (p.ndim - 2)) * m

    return jax.tree.map(move, parameters, moved), velocity


_advance = jax.jit(_step, static_argnames="momentum", donate_argnums=0)


@functools.partial(
    jax.jit, static_argnames=("epochs", "batch_size", "num_classes", "momentum")
)
def _train(
    h: jax.Array,
    labels: jax.Array,
    used: jax.Array,
    rates: jax.Array,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int,
    num_classes: int,
    momentum: float,
) -> _Parameters:
    """All epochs as one program."""
    n, steps = len(h), len(h) // batch_size
    total = jnp.float32(epochs * steps)

    def epoch(state: _State, i: jax.Array) -> tuple[_State, None]:
        batches = _order(key, i, n)[: steps * batch_size].reshape(steps, batch_size)

        def step(state: _State, at: tuple[jax.Array, jax.Array]) -> tuple[_State, None]:
            rows, j = at
            done = (i * steps + j).astype(jnp.float32) / total
            moved = _step(
                state, h[rows], labels[rows], used[:, rows], rates, done, momentum
            )
            return moved, None

        return jax.lax.scan(step, state, (batches, jnp.arange(steps)))[0], None

    start = _start(h.shape[1], num_classes, len(rates))
    (parameters, _), _ = jax.lax.scan(epoch, start, jnp.arange(epochs))
    return parameters


def _chosen(problem: _Problem, h: np.ndarray, found: _Parameters) -> Sweep:
    """The layer of all rows whose rate did best where it had not learned from all."""
    held_out = problem.used[0] == 0
    x, labels = h[held_out].astype(np.float64), problem.labels[held_out]
    weights, biases = (np.asarray(p) for p in found)
    accuracies, nats = [], []
    for weight, bias in zip(weights[0], biases[0], strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            logits = x @ weight.astype(np.float64) + bias
            top = logits.max(axis=1, keepdims=True)
            sums = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        loss = (sums - logits[np.arange(len(x)), labels]).mean()
        finite = bool(np.isfinite(loss))  # else the rate was too large
        right = (logits.argmax(axis=1) == labels).mean()
        accuracies.append(float(right) if finite else 0.0)
        nats.append(loss if finite else np.inf)
    best = min(range(len(nats)), key=lambda i: (-accuracies[i], nats[i]))
    numbers = nats[best], weights[1, best], biases[1, best]
    if not all(np.isfinite(x).all() for x in numbers):
        raise FloatingPointError(
            "learning_rates must hold one with which the layer stays finite, got none "
            f"of {', '.join(f'{rate:g}' for rate in problem.rates)}"
        )
    r = h.shape[1]
    probe = linear.LinearProbe(
        weights[1, best], biases[1, best], np.zeros(r), np.ones(r), 0.0
    )
    rates = tuple(float(f"{rate:.6g}") for rate in problem.rates)
    return Sweep(probe, rates[best], rates, tuple(accuracies))
