"""Inputs whose law is known, and the two views that a positive pair is made of.

The three inputs of InfoNCE Induces Gaussian Distribution
(https://arxiv.org/abs/2602.24012), section 5.1 and appendix E. Scales that it does not
give are ours, and their flags say so.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import _rules

Name = Literal["laplace", "mixture", "binary"]


@dataclasses.dataclass(frozen=True)
class Scales:
    """What the inputs and their views look like."""

    size: _rules.Count = 256
    """Numbers D in an input; the paper has 1024."""
    signal: Annotated[float, _rules.inside("(0, 1]")] = 0.6
    """A of laplace, in (0, 1]: a view is A x + sqrt(1 - A^2) noise, as in the paper."""
    view_noise: _rules.NotNegative = 0.2
    """Standard deviation of further noise on a view of laplace, as in the paper."""
    view_dropout: Annotated[float, _rules.inside("[0, 1)")] = 0.1
    """Chance that a number of a view of laplace becomes 0, as in the paper."""
    view_scale: _rules.NotNegative = 0.1
    """Standard deviation of the logarithm by which a view of laplace is scaled; the
    paper does not say whether one for all its numbers, as here, or one for each."""
    components: _rules.Count = 25
    """Components of mixture, as in the paper; positives are two draws from one."""
    mean_scale: _rules.NotNegative = 0.4
    """Standard deviation of the numbers in the means of mixture, whose noise has 1; the
    paper does not give it."""
    density: Annotated[float, _rules.inside("(0, 1)")] = 0.05
    """Chance that a number of binary is 1; the paper does not give it."""
    flip: _rules.Share = 0.001
    """Chance that a 0 becomes 1 in a view of binary, as in the paper."""


class Inputs(NamedTuple):
    """A law of inputs.

    Attributes:
      draw: key and number n to base items [n, ...].
      clean: key and base items [n, ...] to inputs without augmentation [n, D].
      views: key and base items [n, ...] to two independent views of each [n, 2, D].
    """

    draw: Callable[[jax.Array, int], jax.Array]
    clean: Callable[[jax.Array, jax.Array], jax.Array]
    views: Callable[[jax.Array, jax.Array], jax.Array]


def laplace(s: Scales) -> Inputs:
    """Independent Laplace numbers, of variance 2, through a noisy channel."""

    def views(key: jax.Array, x: jax.Array) -> jax.Array:
        channel_key, noise_key, dropout_key, scale_key = jax.random.split(key, 4)
        shape = (len(x), 2, s.size)
        view = s.signal * x[:, None] + (1 - s.signal**2) ** 0.5 * jax.random.normal(
            channel_key, shape
        )
        view += s.view_noise * jax.random.normal(noise_key, shape)
        kept = jax.random.bernoulli(dropout_key, 1 - s.view_dropout, shape)
        log_scale = s.view_scale * jax.random.normal(scale_key, (len(x), 2, 1))
        return jnp.where(kept, view, 0) * jnp.exp(log_scale)

    return Inputs(
        draw=lambda key, n: jax.random.laplace(key, (n, s.size)),
        clean=lambda key, x: x,
        views=views,
    )


def mixture(s: Scales) -> Inputs:
    """Equal Gaussian components; the base item is the mean of one."""

    def draw(key: jax.Array, n: int) -> jax.Array:
        # The means are the law's own: the same for training and test.
        means = jax.random.normal(jax.random.key(25), (s.components, s.size))
        return s.mean_scale * means[jax.random.randint(key, (n,), 0, s.components)]

    def views(key: jax.Array, mean: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (len(mean), 2, s.size))
        return mean[:, None] + noise

    return Inputs(
        draw=draw,
        clean=lambda key, mean: mean + jax.random.normal(key, mean.shape),
        views=views,
    )


def binary(s: Scales) -> Inputs:
    """Sparse zeros and ones; views gain further ones."""

    def views(key: jax.Array, x: jax.Array) -> jax.Array:
        flipped = jax.random.bernoulli(key, s.flip, (len(x), 2, s.size))
        return jnp.where(flipped, 1, x[:, None])

    return Inputs(
        draw=lambda key, n: jax.random.bernoulli(key, s.density, (n, s.size)).astype(
            jnp.float32
        ),
        clean=lambda key, x: x,
        views=views,
    )


def make(name: Name, s: Scales) -> Inputs:
    return {"laplace": laplace, "mixture": mixture, "binary": binary}[name](s)


def view_correlation(s: Scales) -> float:
    """Correlation of a number of laplace between two views of one scale.

        (1 - dropout) 2 A^2 / (1 + A^2 + noise^2)

    Every direction has the same, so it is the cosine of a positive pair for all linear
    maps with orthonormal rows, trained or not, up to O(1 / d).
    """
    variance = 1 + s.signal**2 + s.view_noise**2
    return (1 - s.view_dropout) * 2 * s.signal**2 / variance


def projection_cv(s: Scales, d: int) -> float:
    """The cv of the norm of laplace projected onto d orthonormal directions at random.

        sqrt((12 d / D + 8) / d) / 4

    It lies above 1 / sqrt(2 d): the norm keeps some of the long tails of the inputs.
    """
    return math.sqrt((12 * d / s.size + 8) / d) / 4
