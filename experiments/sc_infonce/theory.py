"""Views of a known law: probabilities as measured, and as losses should reach them."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import graphs, kernels

# The authors' synthetic experiment: three classes and this mixing.
PI = np.full(3, 1 / 3)
TRANSITION = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5]])


class Views(NamedTuple):
    """Views and the states that they show.

    Attributes:
      x: features [b, v, features].
      state: int [b, v].
    """

    x: jax.Array
    state: jax.Array


def draw(key: jax.Array, batch_size: int, noise: float, num_views: int = 3) -> Views:
    """Draws sources, and independent views of each."""
    source_key, state_key, noise_key = jax.random.split(key, 3)
    source = jax.random.choice(source_key, 3, (batch_size,), p=jnp.asarray(PI))
    log_rows = jnp.log(jnp.asarray(TRANSITION, jnp.float32))[source]
    state = jax.random.categorical(
        state_key, log_rows[:, None], shape=(batch_size, num_views)
    )
    x = jnp.eye(8, dtype=jnp.float32)[state]
    return Views(x + noise * jax.random.normal(noise_key, x.shape), state)


class Measured(NamedTuple):
    """Means over pairs of states [k, k], by (anchor's, candidate's).

    Attributes:
      full: of the softmax over all candidates.
      negatives: of the softmax over negatives alone.
      cosine: of the cosine.
    """

    full: np.ndarray
    negatives: np.ndarray
    cosine: np.ndarray


def measure(
    encode: Callable[[jax.Array], jax.Array],
    kernel: kernels.Kernel,
    *,
    batch_size: int,
    noise: float,
    batches: int,
    seed: int,
) -> Measured:
    """Measures an encoder on new views; it is small, so the pair matrix is dense."""

    @jax.jit
    def of_batch(key: jax.Array) -> Any:
        views = draw(key, batch_size, noise)
        z = encode(views.x)
        cosine = kernels.cosine(1.0)(z[:, 0], z[:, 1])
        logits, itself = kernel(z[:, 0], z[:, 1]), jnp.eye(batch_size, dtype=bool)
        full = jax.nn.softmax(logits, axis=1)
        negatives = jax.nn.softmax(jnp.where(itself, -jnp.inf, logits), axis=1)
        of_anchor, of_candidate = (jax.nn.one_hot(views.state[:, v], 3) for v in (0, 1))

        def by_states(x: jax.Array) -> jax.Array:
            return of_anchor.T @ x @ of_candidate

        apart = 1 - itself.astype(jnp.float32)
        return [
            (by_states(full), by_states(jnp.ones_like(full))),
            (by_states(negatives), by_states(apart)),
            (by_states(cosine), by_states(jnp.ones_like(full))),
        ]

    key = jax.random.key(seed)
    drawn = [
        jax.device_get(of_batch(jax.random.fold_in(key, i))) for i in range(batches)
    ]
    means = [
        np.sum([b[m][0] for b in drawn], axis=0)
        / np.sum([b[m][1] for b in drawn], axis=0)
        for m in range(3)
    ]
    return Measured(*means)


def free_critic(alpha: float | None, beta: float, candidates: int = 4) -> float:
    """Largest relative distance of a free critic's optimum from its target.

    The critic is any matrix of logits between states, and the loss is its expectation
    over all batches, so nothing but the theory is tested. Without alpha: InfoNCE.
    """
    same, _ = (np.asarray(x) for x in graphs.pair_distributions(PI, TRANSITION))
    q = PI @ TRANSITION
    weight, anchor, shown = [], [], []
    for i, j in itertools.product(range(3), repeat=2):
        for others in itertools.product(range(3), repeat=candidates - 1):
            weight.append(same[i, j] * np.prod(q[list(others)]))
            anchor.append(i)
            shown.append((j, *others))
    weights, anchors = np.array(weight), np.array(anchor)
    states = np.array(shown)[:, 0 if alpha is None else 1 :]

    with jax.enable_x64(True):

        def probabilities(logits: jax.Array) -> jax.Array:
            return jax.nn.softmax(logits[anchors[:, None], states], axis=1)

        def loss(logits: jax.Array) -> Any:
            rows = logits[anchors[:, None], states]
            positive = logits[anchors, np.array(shown)[:, 0]]
            pull = positive if alpha is None else alpha * positive
            pull -= 0 if alpha is None else beta * rows.mean(axis=1)
            return weights @ (jax.nn.logsumexp(rows, axis=1) - pull)

        step = jax.jit(lambda x: x - 2 * jax.grad(loss)(x))
        logits = jnp.zeros((3, 3))
        for _ in range(3000):
            logits = step(logits)
        p = np.asarray(probabilities(logits))
    total, count = np.zeros((3, 3)), np.zeros((3, 3))
    for slot in range(p.shape[1]):
        np.add.at(total, (anchors, states[:, slot]), weights * p[:, slot])
        np.add.at(count, (anchors, states[:, slot]), weights)
    return float(np.abs(total / count / target(alpha, beta, candidates) - 1).max())


def target(alpha: float | None, beta: float, candidates: int) -> np.ndarray:
    """What a loss should converge to; without alpha that of InfoNCE."""
    if alpha is None:
        return np.asarray(graphs.infonce_target(PI, TRANSITION, candidates))
    return np.asarray(
        graphs.sc_infonce_target(PI, TRANSITION, candidates, alpha=alpha, beta=beta)
    )
