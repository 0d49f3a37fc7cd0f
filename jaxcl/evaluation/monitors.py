"""What watches a training and cannot disturb it."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcl import _checks, kernels
from jaxcl.evaluation import linear, neighbors, scores


def watch(
    measures: Mapping[str, Callable[[Any], Any]],
) -> Callable[[Any], dict[str, float]]:
    """Joins measures of a state to one function that never fails.

    Args:
      measures: functions of the state to a scalar, by name.

    Returns:
      A function of the state to scalars by name. A measure that raises is left out with
      a warning that says why. Only the first of several processes measures; the others
      get nothing.

    >>> watch({"norm": lambda state: abs(state)})(-2)
    {'norm': 2.0}
    """

    def monitors(state: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        if jax.process_index() != 0:
            return found
        for name, measure in measures.items():
            try:
                found[name] = float(measure(state))
            # Whatever it is, the run is worth more.
            except (Exception, SystemExit) as error:
                kind = type(error).__name__
                warnings.warn(
                    f"monitor {name!r} left out: {kind}: {error}", stacklevel=2
                )
        return found

    return monitors


def knn_within(
    h: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    k: int = 5,
) -> float:
    """Accuracy of k-NN inside one set: a fifth is asked, the rest answers.

    It watches a run without touching held-out examples. The fifth is drawn evenly over
    the classes, the same for the same labels.

    Args:
      h: representations [n, r], in any order.
      labels: integers [n] in [0, num_classes).
      num_classes: number of classes.
      k: neighbors that vote.

    Returns:
      A float in [0, 1].

    Raises:
      TypeError: if h is not floating point or labels are not integers.
      ValueError: if four fifths of n are less than k, or as `knn`.
    """
    h, labels = np.asarray(h), np.asarray(labels)
    labels = _checks.classes("labels", labels, len(h), num_classes)
    asked = linear.spread(labels, 5, seed=0) == 0
    predicted = neighbors.knn(
        h[~asked], labels[~asked], h[asked], k=k, num_classes=num_classes
    )
    return scores.accuracy(predicted, labels[asked])


def online_probe_params(r: int, num_classes: int) -> dict[str, jax.Array]:
    """Parameters of `online_probe`, zeros: all classes are equally likely.

    Args:
      r: size of a representation.
      num_classes: number of classes.

    Returns:
      {"kernel": [r, num_classes], "bias": [num_classes]}, float32.
    """
    return {
        "kernel": jnp.zeros((r, num_classes), jnp.float32),
        "bias": jnp.zeros(num_classes, jnp.float32),
    }


def online_probe(
    params: Mapping[str, jax.Array], h: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A linear classifier that learns beside the encoder, whose gradient it stops.

        loss = mean_i cross entropy(softmax(W' h_i / |h_i| sqrt(r) + b), label_i)

    Args:
      params: of `online_probe_params`, a part of what is trained.
      h: representations [n, r]; no gradient reaches them.
      labels: integers [n].

    Returns:
      (loss, accuracy), two scalars. Add `loss - lax.stop_gradient(loss)` to a loss that
      is to stay the number it is.

    >>> params = online_probe_params(2, 3)
    >>> loss, accuracy = online_probe(params, jnp.ones((4, 2)), jnp.zeros(4, int))
    >>> print(loss, accuracy)
    1.0986123 1.0
    """
    # Unit vectors in the dtype of h: squares of its numbers may lie outside of float32.
    h = kernels.unit(lax.stop_gradient(h.astype(kernels.accumulator(h.dtype))))
    h = h.astype(jnp.float32) * math.sqrt(h.shape[-1])
    logits = h @ params["kernel"] + params["bias"][None]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = jnp.argmax(logits, axis=-1) == labels
    return loss.mean(), correct.astype(jnp.float32).mean()
