"""Cross-validated support vector machines: what a representation of few examples knows.

A set of graphs or of sentences is often too small for one test part: every example is
tested once, by a machine that has seen the other folds. Standardization, the cost, and
which of several kernels, are chosen inside those other folds.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxcl import _checks, _optional
from jaxcl.evaluation import linear

# Costs of errors of a machine, from almost all shrunk to almost free.
COSTS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)

_MOST_STEPS = 100  # of Newton's method for one fit; it takes some five
_MOST_PIVOTS = 1_000_000  # of libsvm for one fit; some ten thousand are usual

# Predictions [choices, tested] of machines trained on rows, for other rows.
_Predict = Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]


class FoldScores(NamedTuple):
    """What a machine does on each fold that it has not seen.

    Attributes:
      accuracy: of each fold, in [0, 1], float64 [folds].
      cost: chosen inside the other folds, float64 [folds].
      kernel: which of several kernels was chosen with it, int64 [folds].
      predicted: of each example by the machine that has not seen it, int64 [n].
      unfinished: fits that reached the limit of their steps before the optimum.
    """

    accuracy: np.ndarray
    cost: np.ndarray
    kernel: np.ndarray
    predicted: np.ndarray
    unfinished: int


def stratified_folds(
    labels: jax.typing.ArrayLike, folds: int = 10, seed: int = 0
) -> np.ndarray:
    """The fold of each example; sizes of folds, and classes in them, differ by one.

    Depends on the labels and the seed only, so that all representations of the same
    examples are tested on the same folds.

    Args:
      labels: integers [n]; the classes are the values that occur.
      folds: how many, 2 to the number of examples of the smallest class.
      seed: of the shuffling.

    Returns:
      int64 [n] in [0, folds).

    Raises:
      TypeError: if labels are not integers.
      ValueError: if there is one class only, or a class has fewer examples than folds.

    >>> labels = np.array([0, 0, 0, 1, 1, 1])
    >>> print(np.sort(stratified_folds(labels, 3)[labels == 1]))
    [0 1 2]
    """
    labels = _checks.classes("labels", labels)
    _checks.count("folds", folds, at_least=2)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels must hold two classes or more, got {classes[0]} only")
    if counts.min() < folds:
        raise ValueError(
            f"folds must be at most the {counts.min()} examples of class "
            f"{classes[counts.argmin()]}, the smallest one, got {folds}"
        )
    return linear.spread(labels, folds, seed)


def svm_folds(
    h: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    folds: int | np.ndarray = 10,
    seed: int = 0,
    costs: Sequence[float] = COSTS,
    inner: int = 3,
) -> FoldScores:
    """Linear support vector machines on a frozen representation, fold by fold.

    Minimizes, for h standardized by the rows it is trained on and one more column of
    ones, and for each class the signs s_i = 1 in it and -1 outside,

        1/2 |w|^2  +  cost sum_i max(0, 1 - s_i h_i . w)^2

    which is scikit-learn's `LinearSVC(C=cost)`, by Newton's method: exact in a few
    steps also where columns are nearly dependent. The largest h_i . w is the class.
    The cost that is right most often in an inner cross-validation of the training
    folds is taken, the smallest of equal ones; each inner fit has its own
    standardization. Columns that are constant in the training rows, but for the
    rounding of float32, are left out.

    Args:
      h: frozen representation [n, r].
      labels: integers [n].
      folds: how many, for `stratified_folds`, or the fold of each example, int [n].
      seed: of the folds and of the inner ones.
      costs: to choose from, > 0.
      inner: folds of the training rows that the cost is chosen by; not used for a
        single cost.

    Returns:
      FoldScores; `kernel` is 0.

    Raises:
      ImportError: without scikit-learn and what it brings.
      TypeError: if h is not floating point or labels are not integers.
      ValueError: for wrong shapes, values that are not finite, costs <= 0, or too few
        examples of a class for the folds or the inner ones.

    Warns:
      RuntimeWarning: with the number of fits that are unfinished, if there are any.

    Source:
      Keerthi and DeCoste, A modified finite Newton method for fast solution of large
      scale linear SVMs, JMLR 6 (2005), for the method.

    >>> h = np.repeat(np.array([[-1.0, 0.0], [1.0, 0.1]]), 6, axis=0)
    >>> print(svm_folds(h, np.repeat([0, 1], 6), folds=3).accuracy)
    [1. 1. 1.]
    """
    threads = _optional.require("threadpoolctl", "evaluation.svm_folds", "tools")
    h = _checks.representation("h", h).astype(np.float64)
    labels = _checks.classes("labels", labels, len(h))
    ascending = _costs(costs)
    classes = np.unique(labels)
    # Of two classes one machine tells.
    signs = np.where(labels[:, None] == classes[len(classes) == 2 :], 1.0, -1.0)
    unfinished = 0

    def predict(
        train: np.ndarray, test: np.ndarray, choices: Sequence[int]
    ) -> np.ndarray:
        nonlocal unfinished
        x, x_test = _standardized(h[train], h[test])
        scores = np.empty((len(choices), len(test), signs.shape[1]))
        for c, sign in enumerate(signs[train].T):
            w = np.zeros(x.shape[1])
            for row, choice in enumerate(choices):
                # From the optimum of the cost before: nearer than 0.
                w, finished = _newton(x, sign, ascending[choice], w)
                unfinished += int(not finished)
                scores[row, :, c] = x_test @ w
        if len(classes) == 2:
            return classes[(scores[..., 0] > 0).astype(int)]
        return classes[scores.argmax(axis=-1)]

    # One thread: a second one helps little here, and on a busy machine costs much.
    with threads.threadpool_limits(1, "blas"):
        chosen, predicted, accuracy = _cross_validate(
            predict, len(ascending), labels, folds, seed, inner
        )
    _warn(unfinished)
    return FoldScores(
        accuracy, ascending[chosen], np.zeros_like(chosen), predicted, unfinished
    )


def kernel_svm_folds(
    kernels: np.ndarray | Sequence[np.ndarray],
    labels: jax.typing.ArrayLike,
    *,
    folds: int | np.ndarray = 10,
    seed: int = 0,
    costs: Sequence[float] = COSTS,
    inner: int = 3,
) -> FoldScores:
    """Support vector machines on kernels, fold by fold, such as those of graphs.

    scikit-learn's `SVC(C=cost, kernel="precomputed")`. Of several kernels, such as
    those of 0, 1, ... iterations of Weisfeiler and Lehman, one is chosen together with
    the cost, by an inner cross-validation of the training folds: the pair that is right
    most often, of equal ones the first kernel with its smallest cost.

    Args:
      kernels: similarities [n, n], symmetric and positive semidefinite, such as
        cosines; or a sequence of such matrices. Whatever a kernel is normalized by, an
        entry must come from its two examples alone: otherwise it knows the test rows.
      labels: integers [n].
      folds: how many, for `stratified_folds`, or the fold of each example, int [n].
      seed: of the folds and of the inner ones.
      costs: to choose from, > 0.
      inner: folds of the training rows that kernel and cost are chosen by; not used
        where there is nothing to choose.

    Returns:
      FoldScores.

    Raises:
      ImportError: without scikit-learn.
      TypeError: if labels are not integers.
      ValueError: for wrong shapes, values that are not finite, costs <= 0, or too few
        examples of a class for the folds or the inner ones.

    Warns:
      RuntimeWarning: with the number of fits that are unfinished, if there are any;
        equal examples of different classes make large costs slow.

    >>> labels = np.repeat([0, 1], 6)
    >>> same = (labels[:, None] == labels).astype(float)
    >>> print(kernel_svm_folds([np.eye(12), same], labels, folds=3).kernel)
    [1 1 1]
    """
    svm, exceptions = (
        _optional.require(module, "evaluation.kernel_svm_folds", "tools")
        for module in ("sklearn.svm", "sklearn.exceptions")
    )
    labels = _checks.classes("labels", labels)
    matrices = _matrices(kernels, len(labels))
    ascending = _costs(costs)
    unfinished = 0

    def predict(
        train: np.ndarray, test: np.ndarray, choices: Sequence[int]
    ) -> np.ndarray:
        nonlocal unfinished
        found = np.empty((len(choices), len(test)), np.int64)
        shown: int | None = None
        for row, choice in enumerate(choices):
            which, cost = divmod(choice, len(ascending))
            if which != shown:
                shown, matrix = which, matrices[which]
                # In the dtype of libsvm, or each fit would copy them.
                x = matrix[np.ix_(train, train)].astype(np.float64)
                x_test = matrix[np.ix_(test, train)].astype(np.float64)
            machine = svm.SVC(
                C=ascending[cost],
                kernel="precomputed",
                cache_size=500,
                max_iter=_MOST_PIVOTS,
            )
            with warnings.catch_warnings():  # said once, below
                warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
                machine.fit(x, labels[train])
            unfinished += int(machine.fit_status_ != 0)
            found[row] = machine.predict(x_test)
        return found

    choices = len(matrices) * len(ascending)
    chosen, predicted, accuracy = _cross_validate(
        predict, choices, labels, folds, seed, inner
    )
    _warn(unfinished)
    kernel, cost = np.divmod(chosen, len(ascending))
    return FoldScores(accuracy, ascending[cost], kernel, predicted, unfinished)


def _cross_validate(
    predict: _Predict,
    choices: int,
    labels: np.ndarray,
    folds: int | np.ndarray,
    seed: int,
    inner: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The choice of each fold, the prediction of each example, accuracies of folds."""
    fold_of = _fold_of(labels, folds, seed)
    _checks.count("inner", inner, at_least=2)
    chosen = np.zeros(fold_of.max() + 1, np.int64)
    accuracy = np.empty(len(chosen))
    predicted = np.empty_like(labels)
    trains = [np.flatnonzero(fold_of != fold) for fold in range(len(chosen))]
    if choices > 1:
        for fold, train in enumerate(trains):
            _check_inner(labels, train, fold, inner)
    for fold, train in enumerate(trains):
        if choices > 1:
            parts = linear.spread(labels[train], inner, (seed, fold))
            right = np.zeros(choices, np.int64)
            for part in range(inner):
                shown, held_out = train[parts != part], train[parts == part]
                guessed = predict(shown, held_out, range(choices))
                right += (guessed == labels[held_out]).sum(axis=1)
            chosen[fold] = right.argmax()
        test = np.flatnonzero(fold_of == fold)
        [predicted[test]] = predict(train, test, [int(chosen[fold])])
        accuracy[fold] = (predicted[test] == labels[test]).mean()
    return chosen, predicted, accuracy


def _fold_of(labels: np.ndarray, folds: int | np.ndarray, seed: int) -> np.ndarray:
    """The fold of each example, checked."""
    if not isinstance(folds, np.ndarray):
        return stratified_folds(labels, folds, seed)
    fold_of = _checks.classes("folds", folds, len(labels))
    if fold_of.min() < 0 or np.bincount(fold_of).min() < 1 or fold_of.max() < 1:
        raise ValueError(
            "folds must hold every number from 0 to at least 1, got "
            f"{np.unique(fold_of).tolist()}"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(f"labels must hold two classes or more, got {labels[0]} only")
    for fold in range(fold_of.max() + 1):
        inside_only = np.setdiff1d(labels, labels[fold_of != fold])
        if len(inside_only):
            raise ValueError(
                f"folds must leave some of each class outside of fold {fold}, "
                f"got none of class {inside_only[0]}"
            )
    return fold_of


def _check_inner(labels: np.ndarray, train: np.ndarray, fold: int, inner: int) -> None:
    """Every class has an example in every inner fold."""
    classes, counts = np.unique(labels[train], return_counts=True)
    if counts.min() < inner:
        raise ValueError(
            f"inner must be at most the {counts.min()} examples of class "
            f"{classes[counts.argmin()]} outside of fold {fold}, got {inner}; "
            "a single choice needs none"
        )


def _costs(costs: Sequence[float]) -> np.ndarray:
    """Checked, ascending."""
    several = np.ravel(np.asarray(costs, np.float64))
    if not several.size:
        raise ValueError("costs must be one cost or several, got none")
    for cost in several:
        _checks.positive("costs", cost)
    return np.sort(several)


def _matrices(kernels: np.ndarray | Sequence[np.ndarray], n: int) -> list[np.ndarray]:
    """Checked kernels [n, n]."""
    alone = isinstance(kernels, np.ndarray) and kernels.ndim == 2
    several: Sequence[np.ndarray] = [kernels] if alone else kernels  # type: ignore
    matrices = [_checks.representation("kernels", kernel, n) for kernel in several]
    for matrix in matrices:
        if len(matrix) != n:
            raise ValueError(
                f"kernels must be [{n}, {n}], a row and a column for each label, "
                f"got shape {matrix.shape}"
            )
    return matrices


def _standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and variance 1 in the training rows, and a column of ones."""
    # In multiples of their largest number, squares stay in float64.
    size = np.abs(train).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    x = train / size
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # What differs by the rounding of float32 alone would become noise of variance 1.
    kept = deviation > 1e-6
    mean, scale, size = mean[kept], deviation[kept], size[kept]
    x, x_test = (x[:, kept] - mean) / scale, (test[:, kept] / size - mean) / scale
    return _with_ones(x), _with_ones(x_test)


def _with_ones(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _newton(
    x: np.ndarray, sign: np.ndarray, cost: float, w: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Minimizes 1/2 |w|^2 + cost sum_i max(0, 1 - sign_i x_i . w)^2 from w.

    For the rows with a margin below 1 that is a least squares problem: each step goes
    towards its solution.

    Returns:
      The weights [r] and whether they are the optimum.
    """
    margin = sign * (x @ w)
    for _ in range(_MOST_STEPS):
        active = margin < 1
        a, target = x[active], sign[active]
        # The smaller one of two systems with the same solution.
        wide = len(a) < a.shape[1]
        system = a @ a.T if wide else a.T @ a
        system[np.diag_indices_from(system)] += 1 / (2 * cost)
        if wide:
            step = a.T @ np.linalg.solve(system, target) - w
        else:
            step = np.linalg.solve(system, a.T @ target) - w
        change = sign * (x @ step)
        ascent = w @ step, step @ step
        # Twice of what the step would win if no row became active or ceased to be.
        short = np.maximum(1 - margin, 0)
        to_win = 2 * cost * short @ change - ascent[0]
        if to_win <= 1e-12 * (w @ w / 2 + cost * short @ short):
            return w, True
        share = _lowest(margin, change, cost, ascent)
        w, margin = w + share * step, margin + share * change
    return w, False


def _lowest(
    margin: np.ndarray, change: np.ndarray, cost: float, ascent: tuple[float, float]
) -> float:
    """The part of a step after which the convex objective begins to rise, up to 1."""

    def rises(share: float) -> bool:
        short = np.maximum(1 - margin - share * change, 0)
        return ascent[0] + share * ascent[1] > 2 * cost * short @ change

    low, high = 0.0, 1.0
    if rises(high):
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if rises(middle) else (middle, high)
    return high


def _warn(unfinished: int) -> None:
    if unfinished:
        warnings.warn(
            f"{unfinished} fits reached the limit of their steps before the optimum; "
            "smaller costs need fewer",
            RuntimeWarning,
            stacklevel=3,
        )
