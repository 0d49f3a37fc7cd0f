"""How much one variable says about another: maximal correlation."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs


def maximal_correlation(joint: ArrayLike) -> jax.Array:
    """Maximal correlation of two finite variables (Hirschfeld, Gebelein, Renyi).

        sup E[f(X) g(Y)]    over f, g of zero mean and unit variance

    It is the second singular value of p_ij / sqrt(p_i p_j). The mildness of an
    augmentation is that of image and view, squared, and bounds the alignment.

    Args:
      joint: probabilities or counts [k, l] of X = i and Y = j, not negative; divided by
        their sum.

    Returns:
      A number from 0, for independent variables, to 1, where some event of X is one of
      Y; float32 (float64 for float64 input).

    Raises:
      TypeError: if joint is no array, or does not hold real numbers.
      ValueError: if joint is not [k, l], or a number is negative or not finite.

    Source:
      InfoNCE Induces Gaussian Distribution, https://arxiv.org/abs/2602.24012, equation
      5; On measures of dependence, Renyi 1959.

    >>> flip = jnp.array([[0.4, 0.1], [0.1, 0.4]])  # a bit, flipped 20 times in 100
    >>> print(f"{maximal_correlation(flip):.4f}")  # 1 - 2 * 0.2
    0.6000
    """
    p = _checks.real("joint", joint, "k l", booleans=False)
    _checks.no_negative("joint", p)
    p = graphs.without_overflow(p)
    p = p / p.sum()
    (x, over_x), (y, over_y) = _roots(p.sum(axis=1)), _roots(p.sum(axis=0))
    scale = over_x[:, None] * over_y[None, :]
    # The first singular value, 1, belongs to constant functions: it is taken out, so
    # that independence leaves zero and not the second of two close numbers.
    return jnp.linalg.norm(p * scale - x[:, None] * y[None, :], ord=2)


def _roots(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Square roots and one over them; both 0, with gradient 0, where p is."""
    occurs = p > 0
    root = jnp.sqrt(jnp.where(occurs, p, 1))
    return jnp.where(occurs, root, 0), jnp.where(occurs, 1 / root, 0)
