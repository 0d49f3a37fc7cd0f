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

from jaxcl import graphs, kernels


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

    >>> print(cross_entropy(jnp.array([0.0]), jnp.array([0.0]), jnp.array([0.0])))
    [0.6931472]
    """
    return jax.nn.softplus(negatives - positives) + (positives - mean_positive)


def view_positives(
    kernel: kernels.Kernel, nodes: graphs.Nodes, views: int
) -> jax.Array:
    """Computes the logits of each view with the other views of its example.

    Args:
      kernel: a log-kernel.
      nodes: of `graphs.views`.
      views: the number v of views per example.

    Returns:
      Logits [b * v, v - 1], from differences of embeddings.
    """
    n, d = nodes.z.shape
    z = nodes.z.reshape(n // views, views, d)
    others = [jnp.roll(z, -shift, axis=1).reshape(n, d) for shift in range(1, views)]
    return jnp.stack([kernels.matched(kernel, nodes.z, z) for z in others], axis=1)
