"""A few labels: all weights of a pretrained encoder go on learning, fold by fold.

python -m experiments.graphs finetune --source path/to/NCI1.npz

As the authors of SC-InfoNCE do, labels are known of a tenth of each training fold. They
report the epoch whose mean accuracy over the test folds is highest, which no user can
know. Beside it stand the epoch that a fifth of the labels chooses, and the last one.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.graphs import pretraining, results
from experiments.graphs.settings import MAY_CHANGE, Compared, Training
from jaxcl import _rules, data, evaluation, models, recipes, study, training
from jaxcl.models import layers
from jaxcl.tools import folds

PROTOCOLS = {
    "chosen": "epoch chosen by labels",
    "last": "last epoch",
    "best": "best mean test epoch",
}
# Settings of which scores are, besides those of a training.
PROTOCOL = ("folds", "labelled", "tuning_epochs", "tuning_rate", "tuning_batch_size")
METRIC = study.Metric(PROTOCOLS, compared=("chosen", "best"), phrase="accuracy, {}")


@dataclasses.dataclass(frozen=True)
class Settings(Compared):
    """Pretrains with each loss and seed, then learns from a tenth of the labels."""

    directory: str = "runs/graphs_finetune"
    encoder: Literal["gin", "gcn"] = "gcn"
    readout: Literal["last", "concatenate"] = "last"
    projector: Literal["normalized", "plain"] = "normalized"
    embedding: _rules.Count = 32
    labelled: Annotated[float, _rules.inside("(0, 1]")] = 0.1
    """Share of a training fold whose labels are known."""
    tuning_epochs: _rules.Count = 50
    """Passes over them; the authors have 100."""
    tuning_rate: _rules.Positive = 1e-3
    """Learning rate of Adam."""
    tuning_batch_size: _rules.Several = 128
    """Graphs of a step, or all that are labelled."""


class Start(NamedTuple):
    """What fine-tuning begins with: the settings of a run, and its variables."""

    run: Training
    variables: Any


class Head(nn.Module):
    """Two layers that classify, each of normalized input: sums over nodes are large."""

    classes: int
    width: int

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        norm = functools.partial(layers.batch_norm, train=train, dtype=jnp.float32)
        x = nn.relu(nn.Dense(self.width)(norm(h)))
        return nn.Dense(self.classes)(norm(x))


class Course(NamedTuple):
    """One training: indices of labelled graphs [k], and of those for the test [m]."""

    labelled: np.ndarray
    tested: np.ndarray


def main(s: Settings) -> list[results.Result]:
    base, variants, dataset = pretraining.prepare(s)
    check_labels(s, folds.labels_of(dataset))

    def begin(run: Training, trained: bool) -> Start:
        return Start(run, pretraining.variables_of(run, dataset, trained))

    score = functools.partial(fine_tune, s, dataset)
    protocol = {name: getattr(s, name) for name in PROTOCOL}
    compared = study.Study(pretraining.pretrain, begin, score, METRIC, protocol)
    rows = study.run(compared, base, variants, s.seeds, may_change=MAY_CHANGE)
    found = [
        result
        for key, name in PROTOCOLS.items()
        for result in results.of_rows(
            rows,
            dataset.name,
            f"{100 * s.labelled:g} % of labels, {name}",
            key,
            s.folds,
        )
    ]
    results.tell(s, found)
    study.tell_differences(rows, next(iter(variants)))
    results.tell_optimism(rows)
    return found


def fine_tune(s: Settings, dataset: data.Dataset, start: Start) -> study.Measured:
    """Mean accuracy over the folds, for each choice of the epoch."""
    labels = folds.labels_of(dataset)
    whole, parts = zip(*make_courses(s, labels, start.run.seed), strict=True)
    courses = (*whole, *parts)
    train = make_training(s, dataset, start, courses)
    # Two at a time: a program for graphs keeps little more than one core busy.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        curves = np.array(list(pool.map(train, range(len(courses)))))
    tested, inner = curves[: s.folds], curves[s.folds :]
    # Of equal epochs the last one, which has learned for longer.
    chosen = s.tuning_epochs - 1 - inner[:, ::-1].argmax(axis=1)
    scores = {
        "chosen": tested[np.arange(s.folds), chosen].mean(),
        "last": tested[:, -1].mean(),
        "best": tested.mean(axis=0).max(),
    }
    return study.Measured(scores, len(labels))


def check_labels(s: Settings, labels: np.ndarray) -> None:
    """Refuses folds that do not fit, and labels that all go to choosing the epoch."""
    for seed in s.seeds:
        for whole, part in make_courses(s, labels, seed):
            if not len(part.labelled):
                raise ValueError(
                    "labelled must be so large that a class has two graphs: one to "
                    f"learn from, one that chooses the epoch; got {s.labelled:g}, "
                    f"{len(whole.labelled)} of the {len(labels)} graphs"
                )


def make_courses(
    s: Settings, labels: np.ndarray, seed: int
) -> list[tuple[Course, Course]]:
    """For each fold a training on what is labelled, tested on the fold; and one on four
    fifths of it, tested on the last fifth.
    """
    fold_of = evaluation.stratified_folds(labels, s.folds, seed)
    draw = evaluation.share_of_labels
    found = []
    for fold in range(s.folds):
        inside = np.flatnonzero(fold_of != fold)
        known = inside[draw(labels[inside], s.labelled, (seed, fold))]
        held_out = np.isin(known, known[draw(labels[known], 0.2, (seed, fold))])
        tested = Course(known, np.flatnonzero(fold_of == fold))
        found.append((tested, Course(known[~held_out], known[held_out])))
    return found


def make_training(
    s: Settings, dataset: data.Dataset, start: Start, courses: Sequence[Course]
) -> Callable[[int], list[float]]:
    """Returns train(i), which gives the accuracy after each epoch of course i."""
    labels = folds.labels_of(dataset)
    seed = start.run.seed
    head = Head(len(dataset.class_names or ()), start.run.width)
    described = recipes.graphs.describe(start.run, dataset)
    model = models.Embedder(models.build(described).encoder, head)
    tx = training.adamw(s.tuning_rate, weight_decay=0.0)

    # Batches [steps, b] of each course: b is the same for all, so programs are few.
    b = min(s.tuning_batch_size, *(len(course.labelled) for course in courses))

    def drawn(i: int) -> np.ndarray:
        known = courses[i].labelled
        each = len(known) // b
        orders = [
            data.permutation(len(known), seed, i * s.tuning_epochs + epoch)[: each * b]
            for epoch in range(s.tuning_epochs)
        ]
        return known[np.stack(orders)].reshape(-1, b)

    batches = [drawn(i) for i in range(len(courses))]
    column: Any = data.graphs.pack_batches(dataset, np.concatenate(batches))
    column = column.columns["graph"]
    # What is tested, in two sizes: folds, and fifths of labels. Copies fill them up.
    tests: list[Any] = []
    for several in (courses[: s.folds], courses[s.folds :]):
        size = max(len(course.tested) for course in several)
        rows = [np.resize(course.tested, size) for course in several]
        packed = data.graphs.pack_batches(dataset, rows).columns["graph"]
        tests += [packed[row] for row in rows]

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        graphs, wanted = batch
        variables = {"params": params, **state.model_state}
        changing = list(state.model_state)
        out, changed = model.apply(variables, graphs, train=True, mutable=changing)
        each = optax.softmax_cross_entropy_with_integer_labels(out[0], wanted)
        return training.Outcome(each, changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key)[0]

    @jax.jit
    def predict(state: Any, graphs: Any) -> jax.Array:
        variables = {"params": state.params, **state.model_state}
        return jnp.argmax(model.apply(variables, graphs, train=False)[0], axis=-1)

    @jax.jit
    def begin(key: jax.Array, graphs: Any, variables: Any) -> Any:
        fresh = model.init(key, graphs, train=False)

        def joined(name: str) -> dict[str, Any]:
            return {
                "encoder": variables[name]["encoder"],
                "projector": fresh[name]["projector"],
            }

        kept = {"batch_stats": joined("batch_stats")}
        return training.create_state(joined("params"), kept, tx)

    def train(i: int) -> list[float]:
        key = jax.random.fold_in(jax.random.key(seed), i)
        state = begin(key, column[batches[i][0]], start.variables)
        wanted, graphs = labels[courses[i].tested], jax.device_put(tests[i])
        each, curve = len(batches[i]) // s.tuning_epochs, []
        for done, rows in enumerate(batches[i], 1):
            state = step(state, (column[rows], labels[rows]), key)
            if done % each == 0:
                found = np.asarray(predict(state, graphs))[: len(wanted)]
                curve.append(evaluation.accuracy(found, wanted))
        return curve

    return train
