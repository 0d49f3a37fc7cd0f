"""Similarity graphs as small matrices: for theory, tests and pictures."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks


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
    w = without_overflow(_checks.weights("w", w), axis=1)
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
    return row_normalize(without_loops(w))


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
    w = _checks.square("w", _checks.weights("w", w))
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
    p = _checks.square("p", _checks.weights("p", p))
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
    w = _checks.weights("w", w)
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
    w = _checks.weights("w", w)
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
    given, law = law, _checks.weights("law", law)
    _checks.distribution("law", law, given)
    return similarity_graph(jnp.matmul(law.T, law, precision="highest"))


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
    graph = _checks.weights("graph", graph)
    has_edge = graph > 0
    # log 0 is -inf, which is never drawn; a row of nothing else is drawn as if full.
    log_weight = jnp.where(has_edge, jnp.log(jnp.where(has_edge, graph, 1)), -jnp.inf)
    connected = has_edge.any(axis=1)
    logits = jnp.where(connected[:, None], log_weight, 0)
    return jnp.where(connected, jax.random.categorical(key, logits, axis=1), -1)


def without_loops(w: ArrayLike) -> jax.Array:
    """Takes the loops out of a graph: its diagonal, which may hold anything, becomes 0.

    Args:
      w: weights [n, n], off the diagonal not negative.

    Returns:
      The weights, float32 or float64 [n, n].

    Raises:
      TypeError: if the weights are not real numbers.
      ValueError: if the matrix is not square, or a weight off the diagonal is negative
        or not finite.

    >>> print(without_loops(jnp.array([[9.0, 1.0], [2.0, jnp.nan]])))
    [[0. 1.]
     [2. 0.]]
    """
    w = _checks.square("w", _checks.real("w", w, "n m"))
    w = jnp.where(jnp.eye(w.shape[0], dtype=bool), 0, w)
    _checks.no_negative("w", w)
    return w


def without_overflow(w: jax.Array, axis: int | None = None) -> jax.Array:
    """Scales large weights down, where their sums may lie outside of float32.

    What is divided by such a sum afterwards does not change.

    Args:
      w: weights [n, m], not negative, float32 or float64.
      axis: 1 decides for each row; None for all together.

    Returns:
      The weights [n, m], times 2^-60 where the largest is above 2^60.

    >>> print(without_overflow(jnp.array([[1.0, 3.0]])))
    [[1. 3.]]
    """
    largest = w.max(axis=axis, keepdims=True, initial=0)
    # A choice, not a factor for each row: compilers would move that one into the
    # division by the sum, whose inverse may be too small for float32.
    return jnp.where(largest > 2.0**60, w * 2.0**-60, w)
