"""What softmax losses share: the cross-entropy of a row, from its statistics.

    loss = softplus(N - P) + (P - A)

with N and P the log-sum-exp over an anchor's negatives and positives, and A the mean
over its positives. It equals log(sum over all candidates) - A. The positives stay out
of N, so that nothing cancels when training succeeds: the gradient of log(sum over all)
- A is p - 1, which has no digits left once p is close to 1; this form computes 1 - p as
sigmoid(N - P).
"""

import jax
import jax.numpy as jnp

from jaxcl import graphs, pairwise

# Asks for N of each anchor.
NEGATIVES = pairwise.Reduction("logsumexp", graphs.negatives)


def cross_entropy(
    negatives: jax.Array, positives: jax.Array, excess: jax.typing.ArrayLike = 0.0
) -> jax.Array:
    """Computes the cross-entropy of rows from their statistics.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      positives: log-sum-exp over positives [n].
      excess: how far that lies above the mean over positives [n]. For a single positive
        leave it out: a difference of equal numbers would be no more than rounding, in
        the gradient as well.

    Returns:
      Loss [n] in nats.

    >>> print(cross_entropy(jax.numpy.zeros(1), jax.numpy.zeros(1)))
    [0.6931472]
    """
    return jax.nn.softplus(negatives - positives) + excess


def with_negatives(
    negatives: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Tells which anchors have something to be compared with.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      valid: which anchors take part, bool [n].

    Returns:
      Which anchors count, bool [n], and the log-sum-exp, 0 where they do not: a number
      whose gradient is safe. A NaN counts, and stays.

    >>> counts, safe = with_negatives(jnp.array([1.0, -jnp.inf]), jnp.ones(2, bool))
    >>> print(counts, safe)
    [ True False] [1. 0.]
    """
    counts = valid & (negatives != -jnp.inf)
    return counts, jnp.where(counts, negatives, 0)


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """Computes log(1 + exp(x)) where it is needed for every pair.

    `jax.nn.softplus` costs several exponentials there, mostly for its derivative, which
    is the sigmoid.

    Args:
      x: floating array.

    Returns:
      An array of the same shape and dtype, to rounding also where exp(x) is tiny.

    >>> print(softplus(jnp.zeros(1)))
    [0.6931472]
    """
    power = jnp.exp(-jnp.abs(x))  # in (0, 1]
    if x.dtype != jnp.float32:
        return jnp.maximum(x, 0) + jnp.log1p(power)
    # log(1 + u) = 2 artanh(u / (2 + u)), whose series has ended after eight terms.
    t = power / (2 + power)
    square = t * t
    series = jnp.full_like(square, 1 / 15)
    for k in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1 / k
    return jnp.maximum(x, 0) + 2 * t * series


@softplus.defjvp
def _softplus_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * tangent


def joined(negatives: jax.Array, further: jax.Array) -> jax.Array:
    """Adds negatives that are given individually to the log-sum-exp over the others.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      further: logits [n, k] of further negatives; -inf where there is none.

    Returns:
      Log-sum-exp over both [n]; -inf for none.

    >>> print(joined(jnp.array([0.0, -jnp.inf]), jnp.array([[0.0], [-jnp.inf]])))
    [0.6931472      -inf]
    """
    logits = jnp.concatenate([negatives[:, None], further], axis=1)
    member = logits != -jnp.inf
    some = member.any(axis=1)
    # Where there is no member, log(0) has no derivative: it sees zeros instead.
    total = jax.nn.logsumexp(
        jnp.where(member, logits, 0), axis=1, where=member | ~some[:, None]
    )
    return jnp.where(some, total, -jnp.inf)


def of_positives(negatives: jax.Array, positive: jax.Array) -> jax.Array:
    """Computes the cross-entropy of rows whose positives are given individually.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      positive: logits of the positives [n, k].

    Returns:
      Loss [n] in nats.
    """
    if positive.shape[1] == 1:
        return cross_entropy(negatives, positive[:, 0])
    positives = jax.nn.logsumexp(positive, axis=1)
    return cross_entropy(negatives, positives, positives - positive.mean(axis=1))


def of_counted(
    negatives: jax.Array,
    positives: jax.Array,
    count: jax.Array,
    mean_positive: jax.Array | None = None,
) -> jax.Array:
    """Computes the cross-entropy of rows with any number of positives.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      positives: log-sum-exp over positives [n]; -inf for none.
      count: number of positives [n].
      mean_positive: mean over positives [n]. None: the mean over positives is that of
        their exponentials, inside the logarithm.

    Returns:
      Loss [n] in nats; 0 for a row without positives.
    """
    some = count > 0
    if mean_positive is None:
        positives = jnp.where(some, positives, 0)
        loss = cross_entropy(negatives, positives, jnp.log(jnp.maximum(count, 1)))
        return jnp.where(some, loss, 0)
    several = count > 1
    positives = jnp.where(several, positives, mean_positive)
    excess = jnp.where(several, positives - mean_positive, 0)
    return jnp.where(some, cross_entropy(negatives, positives, excess), 0)
