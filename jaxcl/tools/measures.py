"""What is measured of an encoder of images, each with the protocol that it follows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tqdm

from jaxcl import _text, evaluation, recipes
from jaxcl.evaluation import Protocol
from jaxcl.tools import tuning

Name = Literal[
    "knn",
    "logistic",
    "linear",
    "linear_1_percent",
    "linear_10_percent",
    "linear_augmented",
    "fine_tune",
    "fine_tune_1_percent",
    "fine_tune_10_percent",
]
SHARES = {
    "linear_1_percent": 0.01,
    "linear_10_percent": 0.1,
    "fine_tune_1_percent": 0.01,
    "fine_tune_10_percent": 0.1,
}
# Of the votes of neighbors.
TEMPERATURE = 0.07


class Measured(NamedTuple):
    """An accuracy in [0, 1], the head of its column, and how it was measured."""

    head: str
    accuracy: float
    protocol: Protocol


class Parts(NamedTuple):
    """Images of the probe, and what to call them.

    Attributes:
      train: those whose labels are known.
      test: those on which accuracy is measured.
      labels: what `train` is, in words.
      tested: what `test` is, in words.
    """

    train: recipes.Labelled
    test: recipes.Labelled
    labels: str
    tested: str


def in_words(split: str, n: int) -> tuple[str, str]:
    """A part of a source as protocols call its labels, and images that are tested.

    >>> in_words("test", 10_000), in_words("train[80%:]", 260)
    (('all', '10,000 test images'), ("260 of 'train[80%:]'", "260 of 'train[80%:]'"))
    """
    if split.isidentifier():
        whole = {"val": "validation", "valid": "validation"}.get(split, split)
        return "all", f"{n:,} {whole} images"
    return (f"{n:,} of {split!r}",) * 2


def check(s: Any, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Refuses protocols for which labels are too few, before anything is encoded."""
    for k in s.k if "knn" in s.protocol else ():
        if k > len(labels):
            raise ValueError(f"k must be at most {len(labels)}, got {k}")
    if "logistic" in s.protocol:
        evaluation.few_labels(labels, s.per_class, s.seed)
    classes, counts = np.unique(labels, return_counts=True)
    fewest = class_names[classes[counts.argmin()]]
    for name in s.protocol:
        share = SHARES.get(name, 1.0)
        known = round(share * counts.min())
        if not name.startswith(("linear", "fine_tune")):
            continue
        if known < 2:
            raise ValueError(
                f"protocol {name!r} needs two labels of each class, one to learn from "
                f"and one that chooses the learning rate; of the {counts.min()} of "
                f"{fewest!r} in train_split {s.train_split!r} it has {known}"
            )
        evaluation.hold_out(_share(s, labels, name)[1], s.validation, s.seed)


def _share(s: Any, labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose labels are known, and these labels."""
    rows = np.arange(len(labels))
    if name in SHARES:
        rows = evaluation.share_of_labels(labels, SHARES[name], s.seed)
    return rows, labels[rows]


def of_features(
    s: Any, of_train: np.ndarray, of_test: np.ndarray, parts: Parts
) -> dict[str, Measured]:
    """What frozen features tell, by a key of probe.json."""
    train, test = parts.train, parts.test
    given = of_train, train.labels, of_test
    classes = len(train.class_names)
    found: dict[str, Measured] = {}
    plain = Protocol("", labels=parts.labels, augmentation="none", tested=parts.tested)

    options: dict[str, Any] = {"num_classes": classes, "temperature": TEMPERATURE}
    if "logistic" in s.protocol:
        each = evaluation.probe_scores(
            *given,
            test.labels,
            seed=s.seed,
            k=s.k[0],
            per_class=s.per_class,
            draws=s.draws,
            class_names=train.class_names,
            **options,
        )
    else:
        evaluation.warn_of_unseen(train.labels, test.labels, train.class_names)
        each = evaluation.ProbeScores(*3 * (float("nan"),))
    for k in s.k if "knn" in s.protocol else ():
        protocol = plain._replace(
            method="k-NN",
            learned="nothing",
            details=f"k = {k}, votes weighted by exp(cosine / {TEMPERATURE})",
        )
        accuracy = each.knn
        if k != s.k[0] or accuracy != accuracy:
            voted = evaluation.knn(*given, k=k, **options)
            accuracy = evaluation.accuracy(voted, test.labels)
        key = "knn" if k == s.k[0] else f"knn_{k}"
        found[key] = Measured(f"{k}-NN", accuracy, protocol)
    if "logistic" in s.protocol:
        protocol = plain._replace(
            method="logistic",
            learned="linear layer",
            details="L-BFGS on standardized h, L2 penalty",
            chosen="penalty, by folds of the labelled images",
        )
        few = protocol._replace(
            labels=f"{s.per_class} of each class, mean of {s.draws} draws"
        )
        head = f"{s.per_class} labels/class"
        found["few_labels"] = Measured(head, each.few_labels, few)
        found["all_labels"] = Measured("all labels", each.all_labels, protocol)
    for name in ("linear", "linear_1_percent", "linear_10_percent"):
        if name not in s.protocol:
            continue
        rows, labels = _share(s, train.labels, name)
        swept = evaluation.sgd_probe(of_train[rows], labels, **_sweep(s, classes))
        found[name] = _linear(s, name, swept, of_test, len(rows), parts)
    return found


def of_encoder(
    s: Any,
    encoder: recipes.Encoder,
    of_train: np.ndarray,
    of_test: np.ndarray,
    parts: Parts,
) -> dict[str, Measured]:
    """What needs the encoder itself, by a key of probe.json."""
    train, test, classes = parts.train, parts.test, len(parts.train.class_names)
    found: dict[str, Measured] = {}
    if "linear_augmented" in s.protocol:
        name, n = "linear_augmented", len(train.labels)
        draw = tuning.make_draw(encoder, train.images)
        total = s.linear_epochs * (n // min(s.probe_batch_size, n))
        with tqdm.tqdm(total=total, unit="step", desc=name, file=_text.TERMINAL) as bar:

            def counted(rows: np.ndarray, key: jax.Array) -> jax.Array:
                bar.update()
                return draw(rows, key)

            swept = evaluation.augmented_probe(
                counted, of_train, train.labels, **_sweep(s, classes)
            )
        found[name] = _linear(s, name, swept, of_test, len(train.labels), parts)
    for name in ("fine_tune", "fine_tune_1_percent", "fine_tune_10_percent"):
        if name not in s.protocol:
            continue
        rows, labels = _share(s, train.labels, name)
        tuned = tuning.fine_tune(
            encoder,
            tuning.Rows(train.images, rows),
            labels,
            num_classes=classes,
            learning_rates=s.tuning_rates,
            epochs=s.tuning_epochs,
            batch_size=s.probe_batch_size,
            validation=s.validation,
            seed=s.seed,
            name=name,
        )
        accuracy = evaluation.accuracy(tuned.predict(test.images), test.labels)
        protocol = Protocol(
            "fine-tuned",
            "all weights",
            "SGD, Nesterov's momentum 0.9, cosine, no weight decay, batches of "
            f"{min(s.probe_batch_size, len(rows))}",
            f"{s.tuning_epochs:,}",
            _rate_in_words(s, tuned.learning_rate, tuned.learning_rates),
            _labels_in_words(name, len(rows), parts),
            "crops and flips",
            parts.tested,
        )
        found[name] = Measured(_HEADS[name], accuracy, protocol)
    return found


_HEADS = {
    "linear": "linear",
    "linear_1_percent": "linear, 1 %",
    "linear_10_percent": "linear, 10 %",
    "linear_augmented": "linear, augmented",
    "fine_tune": "fine-tuned",
    "fine_tune_1_percent": "fine-tuned, 1 %",
    "fine_tune_10_percent": "fine-tuned, 10 %",
}


def _sweep(s: Any, classes: int) -> dict[str, Any]:
    return {
        "num_classes": classes,
        "learning_rates": s.linear_rates,
        "epochs": s.linear_epochs,
        "batch_size": s.probe_batch_size,
        "validation": s.validation,
        "seed": s.seed,
    }


def _linear(
    s: Any,
    name: str,
    swept: evaluation.Sweep,
    of_test: np.ndarray,
    n: int,
    parts: Parts,
) -> Measured:
    predicted = evaluation.predict(swept.probe, of_test)
    protocol = Protocol(
        "linear",
        "linear layer",
        "SGD, momentum 0.9, cosine, no weight decay, batches of "
        f"{min(s.probe_batch_size, n)}",
        f"{s.linear_epochs:,}",
        _rate_in_words(s, swept.learning_rate, swept.learning_rates),
        _labels_in_words(name, n, parts),
        "crops and flips" if name == "linear_augmented" else "none",
        parts.tested,
    )
    accuracy = evaluation.accuracy(predicted, parts.test.labels)
    return Measured(_HEADS[name], accuracy, protocol)


def _rate_in_words(s: Any, rate: float, rates: tuple[float, ...]) -> str:
    if len(rates) == 1:
        return f"learning rate {rate:g}, given"
    return (
        f"learning rate {rate:g} of {len(rates)} from {min(rates):g} to "
        f"{max(rates):g}, by {100 * s.validation:g} % of the labelled images"
    )


def _labels_in_words(name: str, n: int, parts: Parts) -> str:
    if name not in SHARES:
        return parts.labels
    of = "" if parts.labels == "all" else f" of {parts.labels}"
    return f"{100 * SHARES[name]:g} % of each class, {n:,}{of}"


def protocol_lines(found: Mapping[str, Mapping[str, Measured]]) -> list[str]:
    """A line for each accuracy, those of one protocol together."""
    heads: dict[str, dict[str, list[str]]] = {}
    for name, measured in found.items():
        for each in measured.values():
            texts = heads.setdefault(each.head, {})
            text = evaluation.protocol_text(each.protocol)
            texts.setdefault(text, []).append(name)
    lines = []
    for head, texts in heads.items():
        for text, names in texts.items():
            of = f" ({', '.join(names)})" if len(texts) > 1 else ""
            lines.append(f"{head}{of}: {text}")
    return lines


# Which methods of ours are nearest to one of others.
_NEAR: Mapping[str, tuple[str, ...]] = {
    "linear": ("linear", "logistic"),
    "online linear": ("linear", "logistic"),
}


def published_lines(
    settings: Mapping[str, Any],
    measured: Iterable[Measured],
    unfinished: str = "",
) -> list[str]:
    """What others published for the recipe of a run, and how far it can be compared.

    Args:
      settings: of the run.
      measured: of its pretrained encoder.
      unfinished: where the checkpoint is before the end of the run, in words.

    Returns:
      Lines; [] where the run has no recipe with published figures.
    """
    found = recipes.RECIPES.get(str(settings.get("recipe")))
    if found is None or not found.published:
        return []
    lines = []
    changed = recipes.changed_settings(settings)
    if changed:
        said = ", ".join(f"{k} {b!r} for {a!r}" for k, (a, b) in changed.items())
        lines.append(f"this run is not recipe {settings['recipe']}: it has {said}")
    if unfinished:
        lines.append(f"this run is not finished: {unfinished}")
    measured = list(measured)
    differences: Callable[..., list[str]] = evaluation.protocol_differences
    for figure in found.published:
        theirs = figure.protocol
        methods = _NEAR.get(theirs.method, (theirs.method,))
        near = [each for each in measured if each.protocol.method in methods]
        lines.append(
            f"published: {figure.value} % ({figure.source}), protocol: "
            f"{evaluation.protocol_text(theirs)}; trained otherwise: {figure.training}"
        )
        if not near:
            lines.append(f"  not measured this time: {theirs.method}")
            continue
        best = min(near, key=lambda each: len(differences(each.protocol, theirs)))
        apart = differences(best.protocol, theirs)
        of = f"{100 * best.accuracy:.1f} % ({best.head})"
        lines.append(
            f"  not the same protocol as {of} here: {'; '.join(apart)}"
            if apart
            else f"  the same protocol as {of} here"
        )
    return lines
