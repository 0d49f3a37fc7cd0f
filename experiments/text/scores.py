"""How well representations of sentences do on sets, whatever gave them.

An encoding is a function from texts [n] to rows: dense, or sparse as TF-IDF has them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import linear_model

from experiments.text.sets import Classes, Pairs, Tested, Topics, retrieval
from jaxcl import evaluation, study

Encode = Callable[[np.ndarray], Any]

RETRIEVAL = "retrieval"
SIMILARITY = "mean similarity"
ACCURACY = "mean accuracy"
# Inverse penalties of a logistic regression on words.
COSTS = (0.3, 1.0, 3.0, 10.0, 30.0)


def metric_of(tested: Tested) -> study.Metric:
    """What scores are called: a name for each set, and for means over several."""
    names = [*tested.pairs, *tested.classes]
    compared = [*list(tested.pairs)[:1]]
    for mean, several in ((SIMILARITY, tested.pairs), (ACCURACY, tested.classes)):
        if len(several) > 1:
            names.append(mean)
            compared.append(mean)
    if tested.topics is not None:
        names, compared = [RETRIEVAL], [RETRIEVAL]
    labels = {name: name for name in names}
    return study.Metric(
        labels, compared or names[:1], name="scores", phrase="{}", unit="x 100"
    )


def measure(encode: Encode, tested: Tested) -> study.Measured:
    """Scores of an encoding on all sets.

    Args:
      encode: texts [n] to rows.
      tested: the sets.

    Returns:
      Spearman's correlation of pairs, accuracy of classes, recall at 1 of topics, and
      means over several sets.
    """
    scores = {name: similarity(encode, each) for name, each in tested.pairs.items()}
    accuracies = {name: accuracy(encode, each) for name, each in tested.classes.items()}
    means = {}
    for name, several in ((SIMILARITY, scores), (ACCURACY, accuracies)):
        if len(several) > 1:
            means[name] = float(np.mean(list(several.values())))
    found = {**scores, **accuracies, **means}
    if tested.topics is not None:
        found[RETRIEVAL] = of_topics(encode, tested.topics)
    return study.Measured(found)


def similarity(encode: Encode, pairs: Pairs) -> float:
    """Spearman's correlation of cosines with scores, all pairs ranked together."""
    h = encode(pairs.texts.reshape(-1))
    first, second = h[0::2], h[1::2]
    if isinstance(h, np.ndarray):
        return evaluation.pair_correlation(first, second, pairs.scores)
    cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()  # of unit rows
    return evaluation.spearman(cosines, pairs.scores)


def accuracy(encode: Encode, classes: Classes) -> float:
    """Of a logistic regression on frozen rows, whose penalty is chosen inside of the
    training part.
    """
    train, test = encode(classes.train), encode(classes.test)
    if not isinstance(train, np.ndarray):
        predicted = _predict_sparse(train, classes.train_labels, test)
        return evaluation.accuracy(predicted, classes.test_labels)
    probe = evaluation.logistic_probe(
        train.astype(np.float32),
        classes.train_labels,
        num_classes=classes.num_classes,
        tolerance=1e-4,
    )
    predicted = evaluation.predict(probe, test.astype(np.float32))
    return evaluation.accuracy(predicted, classes.test_labels)


def of_topics(encode: Encode, topics: Topics) -> float:
    """Share of topics whose other half is the nearest one."""
    h = encode(topics.texts)
    return retrieval(h if isinstance(h, np.ndarray) else h.toarray(), topics)


def _predict_sparse(train: Any, labels: np.ndarray, test: Any) -> np.ndarray:
    """Classes by words: so many columns are not made dense.

    The penalty is the one with the smallest cross entropy on a fifth of the rows.
    """
    held_out = evaluation.stratified_folds(labels, 5) == 0
    best, least = COSTS[0], np.inf
    for cost in COSTS:
        model = linear_model.LogisticRegression(C=cost, max_iter=1000)
        model.fit(train[~held_out], labels[~held_out])
        logs = model.predict_log_proba(train[held_out])
        nats = -logs[np.arange(len(logs)), labels[held_out]].mean()
        if nats < least:
            best, least = cost, nats
    model = linear_model.LogisticRegression(C=best, max_iter=1000)
    return np.asarray(model.fit(train, labels).predict(test))
