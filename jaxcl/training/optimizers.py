"""Optimizer recipes: a schedule, AdamW and LARS that leave biases and norms alone."""

import typing

import jax
import optax


def is_weight(params: typing.Any) -> typing.Any:
    """Which parameters are decayed and adapted: those with at least two axes.

    Biases and the scales of normalization layers have one axis; shrinking them changes
    what the network can represent instead of regularizing it.

    Args:
      params: pytree of arrays.

    Returns:
      The same pytree of booleans.

    >>> import jax.numpy as jnp
    >>> is_weight({"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))})
    {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda p: p.ndim > 1, params)


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Learning rate from 0 linearly to the peak, then along a cosine to 0.

        peak t / warmup                                              t < warmup
        peak (1 + cos(pi (t - warmup) / (total - warmup))) / 2       after it

    Args:
      peak: highest learning rate, >= 0.
      warmup_steps: steps until the peak, >= 0.
      total_steps: steps until the end, more than warmup_steps. Then 0.

    Returns:
      Function from step to learning rate.

    Raises:
      ValueError: if warmup_steps or peak is negative, or total_steps is not more than
        warmup_steps.

    Source:
      SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    >>> schedule = warmup_cosine(1.0, 10, 30)
    >>> print([round(float(schedule(t)), 3) for t in (0, 5, 10, 20, 30)])
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if peak < 0:
        raise ValueError(f"peak must be a learning rate >= 0, got {peak}")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be >= 0, got {warmup_steps}")
    if total_steps <= warmup_steps:
        raise ValueError(
            f"total_steps must be more than warmup_steps {warmup_steps}, got "
            f"{total_steps}"
        )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps)


def linear_scaling(base: float, batch_size: int) -> float:
    """Learning rate for a batch, from one stated for 256: base * batch_size / 256.

    Source:
      Accurate, large minibatch SGD, https://arxiv.org/abs/1706.02677, section 2.1.

    >>> linear_scaling(0.3, 512)
    0.6
    """
    return base * batch_size / 256


def adamw(
    learning_rate: float | optax.Schedule,
    *,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """AdamW that decays weights only, neither biases nor norms.

    Args:
      learning_rate: a number or a schedule.
      weight_decay: times the learning rate, subtracted from weights at every step.
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      eps: added to the root of the latter.

    Returns:
      Optimizer.

    Source:
      Decoupled weight decay, https://arxiv.org/abs/1711.05101, algorithm 2.
    """
    return optax.adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=is_weight
    )


def lars(
    learning_rate: float | optax.Schedule,
    *,
    weight_decay: float = 1e-6,
    momentum: float = 0.9,
    trust_coefficient: float = 1e-3,
) -> optax.GradientTransformation:
    """Momentum with a learning rate per layer; biases and norms get plain momentum.

        g <- g + weight_decay w
        m <- momentum m + learning_rate trust_coefficient |w| / |g| g
        w <- w - m

    For biases and norms the first line and the ratio of norms drop out, the trust
    coefficient with it: their learning rate is the stated one.

    Args:
      learning_rate: a number or a schedule.
      weight_decay: pull of the weights towards zero.
      momentum: decay of the sum of updates.
      trust_coefficient: length of a weight's update, as a part of its own length, for a
        learning rate of 1.

    Returns:
      Optimizer.

    Source:
      Large batch training, https://arxiv.org/abs/1708.03888, algorithm 1; which
      parameters stay out is from SimCLR, https://arxiv.org/abs/2002.05709, section 2.2.
    """
    return optax.lars(
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=is_weight,
        trust_coefficient=trust_coefficient,
        trust_ratio_mask=is_weight,
        momentum=momentum,
    )
