"""Target graphs as dense matrices: small ones, for theory, tests and pictures."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcl import _checks

# How far sums of probabilities may be from 1.
_ROUNDING = 1e-4


def row_normalize(w: ArrayLike) -> jax.Array:
    """Divides each row by its sum: weights become a transition matrix.

        P_ij = w_ij / sum_l w_il

    Args:
      w: weights [n, m], not negative.

    Returns:
      Rows that sum to 1, floating [n, m]; an empty row stays zero.

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the shape is wrong, or a weight is negative or not finite.

    >>> print(row_normalize(jnp.array([[1.0, 3.0], [0.0, 0.0]])))
    [[0.25 0.75]
     [0.   0.  ]]
    """
    w = moderate(_weights("w", w), axis=1)
    total = w.sum(axis=1, keepdims=True)
    return w / jnp.where(total > 0, total, 1)


def similarity_graph(w: ArrayLike) -> jax.Array:
    """Turns weights between nodes into a target graph: no loops, rows that sum to 1.

        P_ij = w_ij / sum_{l != i} w_il    for j != i,    P_ii = 0

    Row i is the distribution from which the positive of anchor i is drawn.

    Args:
      w: weights [n, n], not negative; the diagonal is ignored.

    Returns:
      The graph, floating [n, n]; a node without edges has a row of zeros.

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the matrix is not square, or a weight is negative or not finite.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, section 2.

    >>> print(similarity_graph(jnp.array([[9.0, 1.0, 1.0], [2, 9, 0], [0, 0, 9]])))
    [[0.  0.5 0.5]
     [1.  0.  0. ]
     [0.  0.  0. ]]
    """
    return row_normalize(without_loops("w", w))


def laplacian(w: ArrayLike) -> jax.Array:
    """Computes the graph Laplacian.

        L(w) = diag(row sums of w) - w

    For symmetric weights and embeddings z as rows,
    `sum_ij w_ij |z_i - z_j|^2 = 2 trace(z^T L z)`.

    Args:
      w: weights [n, n], not negative.

    Returns:
      The Laplacian, floating [n, n]; its rows sum to 0.

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the matrix is not square, or a weight is negative or not finite.

    >>> print(laplacian(jnp.array([[0.0, 2.0], [2.0, 0.0]])))
    [[ 2. -2.]
     [-2.  2.]]
    """
    w = _square("w", _weights("w", w))
    return jnp.diag(w.sum(axis=1)) - w


def symmetrize(p: ArrayLike) -> jax.Array:
    """Averages a graph with its transpose: direction is lost, weight is kept.

        (p + p^T) / 2

    For any graph p and embeddings z as rows,
    `sum_ij p_ij |z_i - z_j|^2 = 2 trace(z^T L z)` with L the `laplacian` of this.

    Args:
      p: weights [n, n], not negative.

    Returns:
      Symmetric weights, floating [n, n].

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the matrix is not square, or a weight is negative or not finite.

    >>> print(symmetrize(jnp.array([[0.0, 1.0], [0.5, 0.0]])))
    [[0.   0.75]
     [0.75 0.  ]]
    """
    p = _square("p", _weights("p", p))
    return p / 2 + p.T / 2


def views_graph(groups: jax.Array) -> jax.Array:
    """Builds the similarity graph of augmentation or of labels, from groups.

        P_ij = 1 / (size of i's group - 1)    for j != i in i's group, else 0

    Row i is the distribution of the positive of view i, if every other view of its
    image, or every other member of its class, is as likely.

    Args:
      groups: integers [n]; nodes with the same number belong together.

    Returns:
      The graph, floating [n, n], symmetric; a node alone in its group has a row of
      zeros.

    Raises:
      TypeError: if groups are not integers.
      ValueError: if groups is not [n].

    >>> print(views_graph(jnp.array([0, 0, 0, 1])))
    [[0.  0.5 0.5 0. ]
     [0.5 0.  0.5 0. ]
     [0.5 0.5 0.  0. ]
     [0.  0.  0.  0. ]]
    """
    _checks.array("groups", groups, "n")
    group = jnp.asarray(groups)
    _checks.labels("groups", group, group.shape[0])
    return similarity_graph(group[:, None] == group[None, :])


def pair_graph(w: ArrayLike) -> jax.Array:
    """Builds the target graph of two modalities from the edges between them: CLIP's.

        [[0,                row_normalize(w)],
         [row_normalize(w^T),              0]]

    Several rows may share a column: each direction is divided by its own degrees, so
    that the graph need not be symmetric. Losses on it compare a node with the other
    modality only, where `losses.graph_cross_entropy` would compare it with all nodes.

    Args:
      w: weights between the a nodes of one modality and the b nodes of the other
        [a, b], not negative.

    Returns:
      The graph, floating [a + b, a + b]; a node without edges has a row of zeros.

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the shape is wrong, or a weight is negative or not finite.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, its pair graph for CLIP, from
      secondary accounts; the block form is ours.

    >>> print(pair_graph(jnp.array([[1.0], [1.0]])))  # two images of one text
    [[0.  0.  1. ]
     [0.  0.  1. ]
     [0.5 0.5 0. ]]
    """
    w = _weights("w", w)
    a, b = w.shape
    top = jnp.concatenate([jnp.zeros((a, a), w.dtype), row_normalize(w)], axis=1)
    low = jnp.concatenate([row_normalize(w.T), jnp.zeros((b, b), w.dtype)], axis=1)
    return jnp.concatenate([top, low])


def rewritten_pair_graph(w: ArrayLike, num_rewrites: int) -> jax.Array:
    """Builds the pair graph of images and of texts that also come rewritten: LaCLIP's.

    With M rewrites every text is M + 1 nodes, as likely as each other; (j, 0) is the
    original, (j, m) its m-th rewrite:

        P[i, (j, m)] = row_normalize(w)_ij / (M + 1)
        P[(j, m), i] = row_normalize(w^T)_ji

    For pairs one to one these are 1 / (M + 1) and 1. A CLIP whose denominators run over
    the rewrites of all texts, and which draws the text of each image among its M + 1,
    has as its mean the cross entropy of this graph with that softmax, the rows of an
    image's texts averaged. With one drawn rewrite per text in the denominator, it only
    samples that.

    Args:
      w: weights between a images and b texts [a, b], not negative.
      num_rewrites: M >= 0 of each text; 0 gives `pair_graph`.

    Returns:
      The graph, floating [a + b (M + 1), a + b (M + 1)], node (j, m) at
      a + j (M + 1) + m; a node without edges has a row of zeros.

    Raises:
      TypeError: if the weights are not real numbers, or num_rewrites no integer.
      ValueError: if the shape is wrong, a weight is negative or not finite, or
        num_rewrites < 0.

    Source:
      A construction of ours for the setting of LaCLIP,
      https://arxiv.org/abs/2305.20088, which Kernel-InfoNCE,
      https://arxiv.org/abs/2303.15103, discusses without stating a graph.

    >>> print(rewritten_pair_graph(jnp.ones((1, 1)), 1))  # an image and its two texts
    [[0.  0.5 0.5]
     [1.  0.  0. ]
     [1.  0.  0. ]]
    """
    _checks.count("num_rewrites", num_rewrites, 0)
    w = _weights("w", w)
    return pair_graph(jnp.repeat(w, num_rewrites + 1, axis=1))


def augmentation_graph(law: ArrayLike) -> jax.Array:
    """Builds the similarity graph of augmentation from the law of its views.

        P_ij = w_ij / sum_{l != i} w_il    for j != i,    w_ij = sum_s law_si law_sj

    Row i is the distribution of the other view of i's image, given that it is another
    one, if all images are as likely. `views_graph` is the case of images that share no
    view and have equally likely ones.

    Args:
      law: law_si, the probability that augmentation turns image s into view i [m, n];
        rows sum to 1.

    Returns:
      The graph, floating [n, n]; a view that meets no other has a row of zeros.

    Raises:
      TypeError: if the law is not real numbers.
      ValueError: if the shape is wrong, a probability is negative, or a row does not
        sum to 1.

    Source:
      A construction of ours for the similarity graph of Kernel-InfoNCE,
      https://arxiv.org/abs/2303.15103, section 2.

    >>> law = jnp.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])  # both images give view 1
    >>> print(augmentation_graph(law))
    [[0.  1.  0. ]
     [0.5 0.  0.5]
     [0.  1.  0. ]]
    """
    given, law = law, _weights("law", law)
    _distribution("law", law, given)
    return similarity_graph(law.T @ law)


def sample_neighbors(key: jax.Array, graph: ArrayLike) -> jax.Array:
    """Draws a subgraph in which every node has one outgoing edge.

        Pr[neighbor of i = j] = graph_ij / sum_l graph_il,    rows independent

    It is the random positive of every node. The mean over draws of
    -log Q_ij at j = neighbor(i) is row i of `losses.graph_cross_entropy`.

    Args:
      key: random key.
      graph: weights [n, m], m >= 1, not negative; rows need not sum to 1. A loop is an
        edge like any other: `similarity_graph` removes them.

    Returns:
      The column each row has drawn, int [n]; -1 for a row without edges.

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the shape is wrong, or a weight is negative or not finite.

    Source:
      Kernel-InfoNCE, https://arxiv.org/abs/2303.15103, its filter of unit out-degree,
      from secondary accounts.

    >>> graph = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    >>> print(sample_neighbors(jax.random.key(0), graph))
    [ 1  2 -1]
    """
    graph = _weights("graph", graph)
    has_edge = graph > 0
    # log 0 is -inf, which is never drawn; a row of nothing else is drawn as if full.
    log_weight = jnp.where(has_edge, jnp.log(jnp.where(has_edge, graph, 1)), -jnp.inf)
    connected = has_edge.any(axis=1)
    logits = jnp.where(connected[:, None], log_weight, 0)
    return jnp.where(connected, jax.random.categorical(key, logits, axis=1), -1)


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
    given, pi = (pi, transition), _real("pi", pi, "k")
    transition = _square("transition", _weights("transition", transition))
    if transition.shape[0] != pi.shape[0]:
        raise ValueError(
            f"transition must be [{pi.shape[0]}, {pi.shape[0]}] for {pi.shape[0]} "
            f"states of pi, got {transition.shape}"
        )
    _distribution("pi", pi, given[0])
    _distribution("transition", transition, given[1])
    with jax.numpy_dtype_promotion("standard"):
        same_source = transition.T @ (pi[:, None] * transition)
        q = pi @ transition
    return same_source, q[:, None] * q[None, :]


class PairEstimate(NamedTuple):
    """How often views of one source were seen in each pair of states.

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
    return of_source.astype(float) / sources.size, row_normalize(counts.astype(float))


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


def _real(name: str, x: ArrayLike, axes: str) -> jax.Array:
    """Checked numbers, float32 or float64: integers and booleans are counts."""
    x = np.asarray(x) if isinstance(x, list | tuple) else x
    _checks.array(name, x, axes)
    dtype = jnp.result_type(x)
    real = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(dtype, kind) for kind in real):
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}")
    # Half precision would give sums of rows few digits, and eigenvalues none.
    return jnp.asarray(x, jnp.float64 if dtype == jnp.float64 else jnp.float32)


def _weights(name: str, w: ArrayLike) -> jax.Array:
    w = _real(name, w, "n m")
    _checks.no_negative(name, w)
    return w


def moderate(w: jax.Array, axis: int | None = None) -> jax.Array:
    """Takes a factor from large weights whose sums may lie outside of float32.

    Args:
      w: weights [n, m], not negative, floating.
      axis: 1 decides for each row; None for all together.

    Returns:
      The weights [n, m], times 2^-60 where the largest is above 2^60. What is divided
      by a sum afterwards does not change.
    """
    largest = w.max(axis=axis, keepdims=True, initial=0)
    # A choice, not a factor for each row: compilers would move that one into the
    # division by the sum, whose inverse may be too small for float32.
    return jnp.where(largest > 2.0**60, w * 2.0**-60, w)


def without_loops(name: str, w: ArrayLike) -> jax.Array:
    """Checks weights between nodes, whose diagonal may hold anything, and zeroes it.

    Args:
      name: what the caller calls the weights.
      w: weights [n, n].

    Returns:
      The weights, float32 or float64 [n, n].

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the matrix is not square, or a weight off the diagonal is negative
        or not finite.
    """
    w = _square(name, _real(name, w, "n m"))
    w = jnp.where(jnp.eye(w.shape[0], dtype=bool), 0, w)
    _checks.no_negative(name, w)
    return w


def _square(name: str, w: jax.Array) -> jax.Array:
    if w.shape[0] != w.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {w.shape}")
    return w


def _distribution(name: str, x: jax.Array, given: Any) -> None:
    """Checks that x sums to 1, but for the rounding of what the caller gave."""
    _checks.no_negative(name, x)
    if not x.shape[0]:
        raise ValueError(f"{name} must have at least one row, got shape {x.shape}")
    if isinstance(x, jax.core.Tracer):
        return
    sums = np.asarray(x, np.float64).sum(axis=-1)
    dtype = jnp.result_type(given) if hasattr(given, "dtype") else x.dtype
    floating = jnp.issubdtype(dtype, jnp.floating)
    rounding = max(_ROUNDING, float(jnp.finfo(dtype).eps) if floating else 0)
    if np.abs(sums - 1).max() > rounding:
        rows = "" if x.ndim == 1 else " in each row"
        raise ValueError(f"{name} must sum to 1{rows}, got sums {sums}")


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
