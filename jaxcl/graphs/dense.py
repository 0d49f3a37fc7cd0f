"""Target graphs as dense matrices: small ones, for theory, tests and pictures."""

import warnings
from typing import Any

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
    w = _weights("w", w)
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
    w = _square("w", _real("w", w, "n m"))
    return row_normalize(jnp.where(jnp.eye(w.shape[0], dtype=bool), 0, w))


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
    return (p + p.T) / 2


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
    pi = _real("pi", pi, "k")
    transition = _square("transition", _weights("transition", transition))
    if transition.shape[0] != pi.shape[0]:
        raise ValueError(
            f"transition must be [{pi.shape[0]}, {pi.shape[0]}] for {pi.shape[0]} "
            f"states of pi, got {transition.shape}"
        )
    _distribution("pi", pi)
    _distribution("transition", transition)
    with jax.numpy_dtype_promotion("standard"):
        same_source = transition.T @ (pi[:, None] * transition)
        q = pi @ transition
    return same_source, q[:, None] * q[None, :]


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
    _candidates(num_candidates)
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
    _candidates(num_candidates)
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
    """Checked numbers as a floating array: integers and booleans are counts."""
    x = np.asarray(x) if isinstance(x, list | tuple) else x
    _checks.array(name, x, axes)
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(x)
    if jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_:
        return jnp.asarray(x, jnp.float32)
    raise TypeError(f"{name} must hold real numbers, got dtype {dtype}")


def _weights(name: str, w: ArrayLike) -> jax.Array:
    w = _real(name, w, "n m")
    _checks.no_negative(name, w)
    return w


def _square(name: str, w: jax.Array) -> jax.Array:
    if w.shape[0] != w.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {w.shape}")
    return w


def _distribution(name: str, x: jax.Array) -> None:
    _checks.no_negative(name, x)
    if isinstance(x, jax.core.Tracer):
        return
    sums = np.asarray(x, np.float64).sum(axis=-1)
    if np.abs(sums - 1).max() > _ROUNDING:
        rows = "" if x.ndim == 1 else " in each row"
        raise ValueError(f"{name} must sum to 1{rows}, got sums {sums}")


def _candidates(num_candidates: Any) -> None:
    if isinstance(num_candidates, bool) or not isinstance(
        num_candidates, int | np.integer
    ):
        raise TypeError(
            f"num_candidates must be an integer, got {type(num_candidates).__name__}"
        )
    if num_candidates < 2:
        raise ValueError(f"num_candidates must be at least 2, got {num_candidates}")
