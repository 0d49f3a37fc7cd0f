"""What softmax losses share: the cross-entropy of a row, from its statistics.

    loss = softplus(N - P) + (P - A)

with N and P the log-sum-exp over an anchor's negatives and positives, and A the mean
over its positives. It equals log(sum over all candidates) - A. The positives stay out
of N, so that nothing cancels when training succeeds: the gradient of log(sum over all)
- A is p - 1, which has no digits left once p is close to 1; this form computes 1 - p as
sigmoid(N - P).
"""

import jax


def cross_entropy(
    negatives: jax.Array, positives: jax.Array, mean_positive: jax.Array
) -> jax.Array:
    """Computes the cross-entropy of rows from their statistics.

    Args:
      negatives: log-sum-exp over negatives [n]; -inf for none.
      positives: log-sum-exp over positives [n].
      mean_positive: mean over positives [n].

    Returns:
      Loss [n] in nats.

    >>> zero = jax.numpy.zeros(1)
    >>> print(cross_entropy(zero, zero, zero))
    [0.6931472]
    """
    return jax.nn.softplus(negatives - positives) + (positives - mean_positive)
