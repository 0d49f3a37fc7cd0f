"""What InfoNCE and SC-InfoNCE converge to: distributions of pairs, and targets.

Data and augmentation are a Markov chain on a few states, such as clusters.
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks
from jaxcl.graphs import similarity


def pair_distributions(
    pi: ArrayLike, transition: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Computes how the states of two views are distributed, for one source or for two.

        same_source[i, j] = sum_s pi_s A_si A_sj
        independent[i, j] = q_i q_j,    q = pi A

    Args:
      pi: probability of each state of a source [k].
      transition: A_si, the probability that augmentation turns state s into i [k, k].

    Returns:
      The two distributions over pairs of states, [k, k] each; both have marginals q.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if a shape is wrong, a probability negative, or a sum is not 1.

    Source:
      SC-InfoNCE, https://arxiv.org/abs/2511.12180, as read from the authors' code.

    >>> same, apart = pair_distributions(jnp.array([0.5, 0.5]), jnp.eye(2))
    >>> print(same[0], apart[0])
    [0.5 0. ] [0.25 0.25]
    """
    given, pi = (pi, transition), _checks.real("pi", pi, "k")
    transition = _checks.square("transition", _checks.weights("transition", transition))
    if transition.shape[0] != pi.shape[0]:
        raise ValueError(
            f"transition must be [{pi.shape[0]}, {pi.shape[0]}] for {pi.shape[0]} "
            f"states of pi, got {transition.shape}"
        )
    _checks.distribution("pi", pi, given[0])
    _checks.distribution("transition", transition, given[1])
    with jax.numpy_dtype_promotion("standard"):
        same_source = _product(transition.T, pi[:, None] * transition)
        q = _product(pi, transition)
    return same_source, q[:, None] * q[None, :]


# Accelerators round the numbers of a product unless told not to.
_product = functools.partial(jnp.matmul, precision="highest")


class PairEstimate(NamedTuple):
    """How often views of one source were seen in each pair of states.

    Attributes:
      same_source: frequency of each pair of states, symmetric [k, k], sums to 1.
      marginal: frequency q of each state of a view [k], the row sums of same_source.
      ratio: same_source_ij / (q_i q_j) [k, k]; 0 for states that never occurred.
    """

    same_source: jax.Array
    marginal: jax.Array
    ratio: jax.Array


def estimate_pair_distributions(
    states1: jax.Array, states2: jax.Array, num_states: int
) -> PairEstimate:
    """Estimates `pair_distributions` and their ratio from two views of each source.

        same_source_ij = (count of (i, j) + count of (j, i)) / (2 n)
        q_i            = sum_j same_source_ij,    ratio_ij = same_source_ij / (q_i q_j)

    Which view came first says nothing, so both orders are counted. The logarithm of
    the ratio is the similarity that InfoNCE converges to, but for a constant per row.

    Args:
      states1: state of the first view of each source, such as its cluster, integers
        [n] in [0, num_states). Under `jit` the range is not checked.
      states2: state of the second view [n].
      num_states: k >= 1.

    Returns:
      The estimates; a standard error of same_source_ij is at most
      sqrt(same_source_ij / n).

    Raises:
      TypeError: if states are not integers, or num_states is none.
      ValueError: if a shape is wrong, there is no source, or a state is out of range.

    Source:
      The quantities are SC-InfoNCE's, https://arxiv.org/abs/2511.12180, as read from
      the authors' code; that they are estimated by counting is ours.

    >>> estimate = estimate_pair_distributions(jnp.array([0, 0]), jnp.array([0, 1]), 2)
    >>> print(estimate.same_source, estimate.marginal)
    [[0.5  0.25]
     [0.25 0.  ]] [0.75 0.25]
    """
    _checks.count("num_states", num_states, 1)
    states1 = _states("states1", states1, "n", num_states)
    states2 = _states("states2", states2, "n", num_states)
    _checks.same_shape("states1", states1, "states2", states2)
    counts = jnp.zeros((num_states, num_states), int).at[states1, states2].add(1)
    same_source = (counts + counts.T).astype(float) / (2 * states1.size)
    q = same_source.sum(axis=1)
    return PairEstimate(same_source, q, _ratio(same_source, q[:, None] * q[None, :]))


def estimate_transition(
    source_states: jax.Array, view_states: jax.Array, num_states: int
) -> tuple[jax.Array, jax.Array]:
    """Estimates where augmentation takes each state, from sources and their views.

        pi_s = count of sources in s / n
        A_si = count of views in i of sources in s / count of views of sources in s

    Both are what `pair_distributions` and the targets take.

    Args:
      source_states: state of each source before augmentation, such as its cluster,
        integers [n] in [0, num_states). Under `jit` the range is not checked.
      view_states: states of its views [n, v].
      num_states: k >= 1.

    Returns:
      pi [k] and the transition matrix A [k, k], whose rows sum to 1. A state that no
      source is in has pi 0 and a uniform row, which therefore changes no target.

    Raises:
      TypeError: if states are not integers, or num_states is none.
      ValueError: if a shape is wrong, there is no view, or a state is out of range.

    Source:
      The quantities are SC-InfoNCE's, https://arxiv.org/abs/2511.12180, as read from
      the authors' code; that they are estimated by counting is ours.

    >>> views = jnp.array([[0, 0], [0, 1]])  # of two sources, both in state 0
    >>> pi, transition = estimate_transition(jnp.array([0, 0]), views, 2)
    >>> print(pi, transition)
    [1. 0.] [[0.75 0.25]
     [0.5  0.5 ]]
    """
    _checks.count("num_states", num_states, 1)
    sources = _states("source_states", source_states, "n", num_states)
    views = _states("view_states", view_states, "n v", num_states)
    if views.shape[0] != sources.shape[0]:
        raise ValueError(
            f"view_states must hold the views of {sources.shape[0]} sources, "
            f"got {views.shape}"
        )
    of_source = jnp.zeros(num_states, int).at[sources].add(1)
    counts = jnp.zeros((num_states, num_states), int).at[sources[:, None], views].add(1)
    counts = jnp.where((of_source > 0)[:, None], counts, 1)
    return of_source.astype(float) / sources.size, similarity.row_normalize(
        counts.astype(float)
    )


def infonce_target(
    pi: ArrayLike, transition: ArrayLike, num_candidates: int
) -> jax.Array:
    """Computes the probabilities that InfoNCE's softmax converges to, state by state.

        target_ij = C1_ij / (C1_ij + (N - 1) C2_ij)

    with C1 and C2 from `pair_distributions` and N candidates. It is the probability
    that a candidate in state j shares its source with an anchor in state i, and does
    not depend on the encoder.

    Args:
      pi: probability of each state of a source [k].
      transition: of augmentation, from state to state [k, k].
      num_candidates: N, the positive among them, >= 2.

    Returns:
      Targets [k, k]; 0 for states that never occur.

    Raises:
      TypeError, ValueError: as `pair_distributions`, or for num_candidates < 2.

    Source:
      SC-InfoNCE, https://arxiv.org/abs/2511.12180, as read from the authors' code.

    >>> print(infonce_target(jnp.array([0.5, 0.5]), jnp.eye(2), 3))
    [[0.5 0. ]
     [0.  0.5]]
    """
    _checks.count("num_candidates", num_candidates, 2)
    same, apart = pair_distributions(pi, transition)
    return _ratio(same, same + (num_candidates - 1) * apart)


def sc_infonce_target(
    pi: ArrayLike,
    transition: ArrayLike,
    num_candidates: int,
    *,
    alpha: ArrayLike,
    beta: ArrayLike,
) -> jax.Array:
    """Computes the scaled target that SC-InfoNCE converges to, state by state.

        target_ij = (alpha R_ij - beta) / (N - 1),    R = C1 / C2

    with C1 and C2 from `pair_distributions`. A softmax over negatives reaches it
    exactly if alpha - beta = 1; else the logits drift.

    Args:
      pi: probability of each state of a source [k].
      transition: of augmentation, from state to state [k, k].
      num_candidates: N, the positive among them, >= 2.
      alpha: scale of the target; believed to be the paper's delta.
      beta: bias of the target; believed to be the paper's gamma.

    Returns:
      Targets [k, k]; 0 for states that never occur.

    Raises:
      TypeError, ValueError: as `pair_distributions`, or for num_candidates < 2.

    Warns:
      UserWarning: if a target is negative: no softmax can reach it.

    Source:
      SC-InfoNCE, https://arxiv.org/abs/2511.12180, as read from the authors' code.

    >>> pi, transition = jnp.array([0.5, 0.5]), jnp.eye(2)
    >>> print(sc_infonce_target(pi, transition, 3, alpha=1.0, beta=0.0))
    [[1. 0.]
     [0. 1.]]
    """
    _checks.count("num_candidates", num_candidates, 2)
    for name, value in (("alpha", alpha), ("beta", beta)):
        _checks.scalar(name, value)
    same, apart = pair_distributions(pi, transition)
    alpha, beta = jnp.asarray(alpha, same.dtype), jnp.asarray(beta, same.dtype)
    target = (alpha * _ratio(same, apart) - beta) / (num_candidates - 1)
    target = jnp.where(apart > 0, target, 0)
    if not isinstance(target, jax.core.Tracer) and bool((target < 0).any()):
        warnings.warn(
            f"alpha {float(alpha):g} and beta {float(beta):g} give targets down to "
            f"{float(target.min()):.3g}: a probability cannot become negative",
            stacklevel=2,
        )
    return target


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _states(name: str, x: Any, axes: str, num_states: int) -> jax.Array:
    """Checked states: one out of range would be counted elsewhere, or not at all."""
    _checks.array(name, x, axes)
    _checks.labels(name, x.reshape(-1), x.size)
    if not x.size:
        raise ValueError(f"{name} must hold at least one state, got shape {x.shape}")
    if not isinstance(x, jax.core.Tracer):
        lowest, highest = int(x.min()), int(x.max())
        if not 0 <= lowest <= highest < num_states:
            raise ValueError(
                f"{name} must lie in [0, {num_states}), got values from {lowest} to "
                f"{highest}"
            )
    # Now that all fit: 8 bits could not hold the size of the array they index.
    return jnp.asarray(x).astype(int)
