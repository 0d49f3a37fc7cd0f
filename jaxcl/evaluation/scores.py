"""One number per probe: accuracies with many, few and no trained weights."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxcl import _checks
from jaxcl.evaluation import linear, neighbors


class ProbeScores(NamedTuple):
    """Accuracies on the test rows, each in [0, 1].

    knn: k nearest neighbors among all training rows.
    few_labels: logistic regression on a few labels per class, mean over draws.
    all_labels: logistic regression on all training rows.
    """

    knn: float
    few_labels: float
    all_labels: float


def accuracy(predicted: jax.typing.ArrayLike, labels: jax.typing.ArrayLike) -> float:
    """The share of rows whose predicted label is the true one.

        mean_i [predicted_i = label_i]

    Args:
      predicted: integers [n].
      labels: integers [n].

    Returns:
      A float in [0, 1].

    Raises:
      TypeError: if one of them does not hold integers.
      ValueError: if they are not [n] and of the same length.

    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 2, 1]))
    0.75
    """
    labels = _checks.classes("labels", labels)
    predicted = _checks.classes("predicted", predicted, len(labels))
    return float(np.mean(predicted == labels))


def warn_of_unseen(
    train_labels: jax.typing.ArrayLike,
    test_labels: jax.typing.ArrayLike,
    class_names: Sequence[str] | None = None,
) -> None:
    """Warns of classes that are asked and were never shown, so that none is right.

    Args:
      train_labels: integers [n].
      test_labels: integers [q].
      class_names: of all classes, or None: their numbers.

    Returns:
      Nothing.

    Raises:
      TypeError, ValueError: if labels are not integers [n].

    Warns:
      UserWarning: with the names of the classes and their share of the test rows.
    """
    train_labels = _checks.classes("train_labels", train_labels)
    test_labels = _checks.classes("test_labels", test_labels)
    unseen = np.setdiff1d(test_labels, train_labels)
    if not len(unseen):
        return
    names = [class_names[c] if class_names else str(c) for c in unseen[:5]]
    more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
    share = np.isin(test_labels, unseen).mean()
    warnings.warn(
        f"no training row is of class {', '.join(names)}{more}, but "
        f"{100 * share:.0f} % of the test rows are: none of these can be told; parts "
        "drawn evenly over the classes ('train[:80%,stratified]') hold all of them",
        stacklevel=3,
    )


def few_labels(
    labels: jax.typing.ArrayLike, per_class: int, seed: int | Sequence[int]
) -> np.ndarray:
    """Rows of a random draw with the same number of every class.

    The draw depends on the labels and the seed only, so that all representations of
    the same images are probed with the same rows.

    Args:
      labels: integers [n]; the classes are the values that occur.
      per_class: rows of each class, at least 1.
      seed: of NumPy's `default_rng`: an integer or several.

    Returns:
      Sorted indices, int64 [classes * per_class], without repetition.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if a class has fewer than per_class rows.

    >>> labels = np.array([0, 1, 0, 1, 0, 1])
    >>> print(labels[few_labels(labels, per_class=2, seed=0)].sum())
    2
    """
    labels = _checks.classes("labels", labels)
    _checks.count("per_class", per_class)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < per_class:
        raise ValueError(
            f"per_class must be at most the rows of the smallest class, got "
            f"{per_class}, but class {classes[counts.argmin()]} has {counts.min()}"
        )
    random = np.random.default_rng(seed)
    draws = [
        random.choice(np.flatnonzero(labels == c), per_class, replace=False)
        for c in classes
    ]
    return np.sort(np.concatenate(draws))


def share_of_labels(
    labels: jax.typing.ArrayLike, share: float, seed: int | Sequence[int]
) -> np.ndarray:
    """Rows of a random draw with a share of every class.

    Of a class of n_c rows, round(share n_c) are drawn, but at least one. The draw
    depends on the labels and the seed only.

    Args:
      labels: integers [n]; the classes are the values that occur.
      share: in (0, 1].
      seed: of NumPy's `default_rng`: an integer or several.

    Returns:
      Sorted indices, int64, without repetition.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if share is not in (0, 1].

    >>> labels = np.repeat([0, 1], [10, 30])
    >>> print(np.bincount(labels[share_of_labels(labels, 0.1, seed=0)]))
    [1 3]
    """
    labels = _checks.classes("labels", labels)
    if not 0 < _checks.static("share", share) <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share:g}")
    random = np.random.default_rng(seed)
    places = (
        random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)
    )
    return np.sort(np.concatenate([p[: max(1, round(share * len(p)))] for p in places]))


def hold_out(
    labels: jax.typing.ArrayLike, share: float, seed: int | Sequence[int]
) -> np.ndarray:
    """Which rows choose, and are not learned from: a share of every class.

    Args:
      labels: integers [n]; the classes are the values that occur.
      share: in (0, 1); of each class at least one row is held out, and one left.
      seed: as `share_of_labels`.

    Returns:
      bool [n].

    Raises:
      TypeError: if labels are not integers.
      ValueError: if share is not in (0, 1), or would empty a class.

    >>> held_out = hold_out(np.repeat([0, 1], [2, 30]), 0.1, seed=0)
    >>> print(held_out[:2].sum(), held_out[2:].sum())
    1 3
    """
    labels = _checks.classes("labels", labels)
    if not 0 < _checks.static("validation", share) < 1:
        raise ValueError(f"validation must lie in (0, 1), got {share:g}")
    held_out = np.zeros(len(labels), bool)
    held_out[share_of_labels(labels, share, seed)] = True
    classes, counts = np.unique(labels, return_counts=True)
    left = np.array([(~held_out[labels == c]).sum() for c in classes])
    if left.min() < 1:
        at = int(left.argmin())
        raise ValueError(
            f"validation must leave a row of every class to learn from, got {share:g} "
            f"with {counts[at]} of class {classes[at]}"
        )
    return held_out


def probe_scores(
    train_h: jax.typing.ArrayLike,
    train_labels: jax.typing.ArrayLike,
    test_h: jax.typing.ArrayLike,
    test_labels: jax.typing.ArrayLike,
    *,
    num_classes: int,
    seed: int = 0,
    k: int = 5,
    temperature: float | None = 0.07,
    per_class: int = 10,
    draws: int = 5,
    class_names: Sequence[str] | None = None,
) -> ProbeScores:
    """Three accuracies that tell how good a frozen representation is.

    Penalties are chosen by cross-validation on the labelled training rows of each
    probe; the test rows are only counted.

    Args:
      train_h: frozen representation [n, r].
      train_labels: integers [n] in [0, num_classes).
      test_h: frozen representation [q, r].
      test_labels: integers [q] in [0, num_classes).
      num_classes: number of classes.
      seed: of the draws of few labels and of the folds.
      k: neighbors that vote.
      temperature: of the vote, as in `knn`.
      per_class: labels of each class in a draw.
      draws: draws whose accuracies are averaged.
      class_names: of the classes, for the warning.

    Returns:
      ProbeScores(knn, few_labels, all_labels).

    Raises:
      TypeError: if a representation is not floating point or labels not integers.
      ValueError: for wrong shapes, values that are not finite, labels out of range,
        k > n, or a class with fewer than per_class training rows.

    Warns:
      UserWarning: if test rows are of classes that no training row has.

    >>> h = np.repeat(np.array([[-1.0, 0.0], [1.0, 0.1]], np.float32), 5, axis=0)
    >>> labels = np.repeat([0, 1], 5)
    >>> probe_scores(h, labels, h, labels, num_classes=2, per_class=5, draws=1)
    ProbeScores(knn=1.0, few_labels=1.0, all_labels=1.0)
    """
    train_h = _checks.representation("train_h", train_h)
    test_h = _checks.representation("test_h", test_h, width=train_h.shape[1])
    _checks.count("num_classes", num_classes)
    _checks.count("draws", draws)
    train_labels = _checks.classes(
        "train_labels", train_labels, len(train_h), num_classes
    )
    test_labels = _checks.classes("test_labels", test_labels, len(test_h), num_classes)
    warn_of_unseen(train_labels, test_labels, class_names)

    def linear_accuracy(rows: np.ndarray | slice) -> float:
        probe = linear.logistic_probe(
            train_h[rows], train_labels[rows], num_classes=num_classes, seed=seed
        )
        return accuracy(linear.predict(probe, test_h), test_labels)

    voted = neighbors.knn(
        train_h,
        train_labels,
        test_h,
        k=k,
        num_classes=num_classes,
        temperature=temperature,
    )
    few = [
        linear_accuracy(few_labels(train_labels, per_class, (seed, draw)))
        for draw in range(draws)
    ]
    return ProbeScores(
        knn=accuracy(voted, test_labels),
        few_labels=float(np.mean(few)),
        all_labels=linear_accuracy(slice(None)),
    )
