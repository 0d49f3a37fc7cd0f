"""How much one variable can tell of another: maximal correlation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcl import _checks


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
      Y; floating.

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
    joint = np.asarray(joint) if isinstance(joint, list | tuple) else joint
    _checks.array("joint", joint, "k l")
    dtype = jnp.result_type(joint)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"joint must hold real numbers, got dtype {dtype}")
    _checks.no_negative("joint", joint)
    floating = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    p = jnp.asarray(joint).astype(floating)
    p = p / p.sum()
    x, y = jnp.sqrt(p.sum(axis=1)), jnp.sqrt(p.sum(axis=0))
    scale = jnp.where(x > 0, 1 / x, 0)[:, None] * jnp.where(y > 0, 1 / y, 0)[None, :]
    # The first singular value, 1, belongs to constant functions: it is taken out, so
    # that independence leaves zero and not the second of two close numbers.
    return jnp.linalg.norm(p * scale - x[:, None] * y[None, :], ord=2)
