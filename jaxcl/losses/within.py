"""Losses of two views whose negatives are other examples of the same view."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcl import _checks, graphs, kernels, mesh, pairwise
from jaxcl.losses import softmax


def dhel(
    views: jax.Array,
    *,
    temperature: ArrayLike = 0.1,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Decoupled hyperspherical energy loss: each view repels within itself.

        loss_i = -s(x_i, y_i) + log sum_{j != i} exp(s(x_i, x_j))
                              + log sum_{j != i} exp(s(y_i, y_j))
        s      = cosine / temperature, x and y the two views

    Args:
      views: embeddings [b, 2, d]; any float dtype.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each example in nats, float32 [b] (float64 for float64 input); may be
      negative; 0 where not valid, and without negatives. Collapsed embeddings give
      2 log(b - 1) + 1 / temperature.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, 2, d], or temperature <= 0.

    Source:
      Bridging Mini-Batch and Asymptotic Analysis in Contrastive Learning: From InfoNCE
      to Kernel-Based Losses, https://arxiv.org/abs/2405.18045; as coded by the authors
      of SC-InfoNCE.

    >>> loss = dhel(jnp.ones((3, 2, 4)), temperature=1.0)
    >>> print(jnp.exp(loss - 1).round(4))  # of 2 log(2)
    [4. 4. 4.]
    """
    kernel = kernels.cosine(temperature)
    x, y = graphs.two_views(views, valid, axis_name)
    ask = functools.partial(
        pairwise.reduce_pairs,
        kernel=kernel,
        reductions=(softmax.NEGATIVES,),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    (of_x,), (of_y,) = ask(x), ask(y)
    # Both views of an example are valid or not, and see as many others.
    counts, of_x = softmax.with_negatives(of_x, x.valid)
    _, of_y = softmax.with_negatives(of_y, y.valid)
    return jnp.where(counts, of_x + of_y - kernels.matched(kernel, x.z, y.z), 0)


def is_info_nce(
    z1: jax.Array,
    z2: jax.Array,
    z3: jax.Array,
    *,
    temperature: ArrayLike = 0.15,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """InfoNCE with independent sampling: a third view provides the negatives.

        loss_i = -cos(z1_i, z2_i) / temperature
                 + log sum_{j != i} exp(cos(z3_i, z3_j) / temperature)

    Args:
      z1: embeddings of the first view [b, d]; any float dtype.
      z2: embeddings of the second view [b, d].
      z3: embeddings of a third view [b, d]; z3 = z1 repels within the first view.
      temperature: dimensionless, > 0. Divides; smaller is sharper. Differentiable.
      valid: examples to keep [b].
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each example in nats, float32 [b] (float64 for float64 input); may be
      negative; 0 where not valid, and without negatives. Collapsed embeddings give
      log(b - 1).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if the shapes differ or are wrong, or temperature <= 0.

    Source:
      SC-InfoNCE, https://arxiv.org/abs/2511.12180, as read from the authors' code.

    >>> z = jnp.ones((3, 4))
    >>> print(is_info_nce(z, z, z, temperature=1.0).round(4))  # log(2)
    [0.6931 0.6931 0.6931]
    """
    for name, z in (("z1", z1), ("z2", z2), ("z3", z3)):
        _checks.embeddings(name, z, "b d")
        _checks.same_shape("z1", z1, name, z)
    kernel = kernels.cosine(temperature)
    first, second = graphs.pairs(z1, z2, valid, axis_name)
    third, _ = graphs.pairs(z3, z3, valid, axis_name)
    (negative,) = pairwise.reduce_pairs(
        third,
        kernel=kernel,
        reductions=(softmax.NEGATIVES,),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    counts, negative = softmax.with_negatives(negative, third.valid)
    positive = kernels.matched(kernel, first.z, second.z)
    return jnp.where(counts, negative - positive, 0)


def kcl(
    views: jax.Array,
    *,
    kernel: kernels.Kernel,
    weight: ArrayLike = 128.0,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """Kernel contrastive loss: no logarithm, means of kernels only.

        loss_i = -2 k(x_i, y_i) + weight (mean_{j != i} k(x_i, x_j)
                                          + mean_{j != i} k(y_i, y_j))

    for the two views x and y. The authors of SC-InfoNCE take
    `kernels.gaussian(1 / t, normalize=False)` and a weight of 128.

    Args:
      views: embeddings [b, 2, d]; any float dtype.
      kernel: a log-kernel; its parameters are differentiable.
      weight: of the negatives. Differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each example, float32 [b] (float64 for float64 input), in units of the
      kernel; 0 where not valid. Collapsed embeddings give 2 (weight - 1) k(z, z).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, 2, d].

    Source:
      Gaussian KCL as read from the code of SC-InfoNCE,
      https://arxiv.org/abs/2511.12180.

    >>> loss = kcl(jnp.ones((3, 2, 4)), kernel=kernels.gaussian(0.5), weight=3.0)
    >>> print(loss)  # 2 (3 - 1)
    [4. 4. 4.]
    """
    _checks.scalar("weight", weight)
    x, y = graphs.two_views(views, valid, axis_name)
    ask = functools.partial(
        pairwise.reduce_pairs,
        kernel=kernel,
        reductions=(pairwise.Reduction("mean", graphs.negatives, _kernel),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    (of_x,), (of_y,) = ask(x), ask(y)
    positive = jnp.exp(kernels.matched(kernel, x.z, y.z))
    weight = kernels.cast_leaves(weight, positive.dtype)
    return jnp.where(x.valid, weight * (of_x + of_y) - 2 * positive, 0)


def f_micl(
    views: jax.Array,
    *,
    divergence: str = "kl",
    bandwidth: ArrayLike = 1.0,
    weight: ArrayLike = 1.0,
    valid: jax.Array | None = None,
    axis_name: mesh.AxisName | None = None,
    exchange: str = "auto",
    tile: int | None = None,
    impl: str = "auto",
    precision: str | None = None,
) -> jax.Array:
    """f-MICL: contrasts by any f-divergence, with a Gaussian similarity.

        loss_i = -f'(g(x_i, y_i)) + weight mean_{j != i} f*(f'(g(x_i, x_j)))
        g(u, v) = exp(-|u - v|^2 / (2 bandwidth^2))

    for the two views x and y, normalized. Of the divergence f only two functions
    matter, f' and f* o f':

        "kl"                  log g + 1             g
        "chi2"                2 (g - 1)             g^2 - 1
        "jensen_shannon"      log(2 g / (1 + g))    log((1 + g) / 2)
        "squared_hellinger"   1 - 1 / sqrt(g)       sqrt(g) - 1
        "vincze_le_cam"       1 - 4 / (1 + g)^2     3 + 4 / (1 + g)^2 - 8 / (1 + g)

    Args:
      views: embeddings [b, 2, d]; any float dtype.
      divergence: one of the names above.
      bandwidth: of the Gaussian, in units of length, > 0. Differentiable.
      weight: of the negatives. Differentiable.
      valid: examples to keep [b]; the others are neither anchors nor candidates.
      axis_name: mesh axes over which the examples are sharded, inside `shard_map`.
      exchange: how embeddings travel between devices: "gather", "ring", or "auto",
        which gathers what is small; see `pairwise.reduce_pairs`.
      tile: edge of the square of pairs held at a time; None is chosen.
      impl: "tiled", "mosaic" (TPU), "reference" (dense), or "auto".
      precision: of products: "bfloat16", "high", "highest", or None, which goes by the
        dtype; see `pairwise.reduce_pairs`.

    Returns:
      Loss of each example, float32 [b] (float64 for float64 input), in nats for "kl"; 0
      where not valid. Collapsed embeddings give weight - 1 for "kl" and 0
      for the others.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if views is not [b, 2, d], bandwidth <= 0, or the divergence is
        unknown.

    Source:
      f-MICL, https://arxiv.org/abs/2402.10150, as read from the code of SC-InfoNCE.

    >>> print(f_micl(jnp.ones((3, 2, 4)), weight=3.0))
    [2. 2. 2.]
    """
    _checks.choice("divergence", divergence, tuple(DIVERGENCES))
    _checks.positive("bandwidth", bandwidth)
    _checks.scalar("weight", weight)
    of_positive, of_negative = DIVERGENCES[divergence]
    kernel = kernels.gaussian(2 * bandwidth**2)
    x, y = graphs.two_views(views, valid, axis_name)
    (negative,) = pairwise.reduce_pairs(
        x,
        kernel=kernel,
        reductions=(pairwise.Reduction("mean", graphs.negatives, of_negative),),
        axis_name=axis_name,
        exchange=exchange,
        tile=tile,
        impl=impl,
        precision=precision,
    )
    positive = of_positive(kernels.matched(kernel, x.z, y.z))
    weight = kernels.cast_leaves(weight, positive.dtype)
    return jnp.where(x.valid, weight * negative - positive, 0)


def _kernel(pair: pairwise.Pair) -> jax.Array:
    return jnp.exp(pair.logits)


def _expm1(x: jax.Array) -> jax.Array:
    """exp(x) - 1, also where kernels for TPU have no function for it."""
    if x.dtype == jnp.float64:
        return jnp.expm1(x)
    # 1 + x/2 (1 + x/3 (1 + ...)), to 1e-8 below 1/2. The branch not taken may overflow:
    # it sees a zero instead.
    near = jnp.abs(x) < 0.5
    small = jnp.where(near, x, 0)
    series = jnp.ones_like(x)
    for k in range(8, 1, -1):
        series = 1 + small / k * series
    return jnp.where(near, small * series, jnp.exp(x) - 1)


# f'(g) of log g, and the score of a pair f*(f'(g)). Named, so that asking for the same
# divergence again compiles nothing.
def _chi2(pair: pairwise.Pair) -> jax.Array:
    return _expm1(2 * pair.logits)


def _jensen_shannon(pair: pairwise.Pair) -> jax.Array:
    return softmax.softplus(pair.logits) - math.log(2)


def _squared_hellinger(pair: pairwise.Pair) -> jax.Array:
    return _expm1(pair.logits / 2)


def _vincze_le_cam(pair: pairwise.Pair) -> jax.Array:
    share = jax.nn.sigmoid(-pair.logits)  # 1 / (1 + g)
    return 3 + 4 * share * share - 8 * share


DIVERGENCES: dict[str, tuple[Callable[..., jax.Array], Callable[..., jax.Array]]] = {
    "kl": (lambda log_g: log_g + 1, _kernel),
    "chi2": (lambda log_g: 2 * jnp.expm1(log_g), _chi2),
    "jensen_shannon": (
        lambda log_g: math.log(2) + jax.nn.log_sigmoid(log_g),
        _jensen_shannon,
    ),
    "squared_hellinger": (lambda log_g: -jnp.expm1(-log_g / 2), _squared_hellinger),
    "vincze_le_cam": (
        lambda log_g: 1 - 4 * jnp.square(jax.nn.sigmoid(-log_g)),
        _vincze_le_cam,
    ),
}
