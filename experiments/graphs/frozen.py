"""Frozen representations of graphs, by the losses that they were learned with.

python -m experiments.graphs
python -m experiments.graphs --source path/to/NCI1.npz --losses info_nce dcl
"""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from experiments.graphs import pretraining, results
from experiments.graphs.settings import MAY_CHANGE, Compared, Training
from jaxcl import _text, data, evaluation, recipes, study
from jaxcl.tools import folds

PROTOCOL = "linear SVM"
METRIC = study.Metric({"svm": PROTOCOL}, compared=("svm",), phrase="accuracy, {}")


@dataclasses.dataclass(frozen=True)
class Settings(Compared):
    """Pretrains with each loss and seed, and tests frozen representations."""

    directory: str = "runs/graphs"
    baselines: bool = True
    """Whether histograms and Weisfeiler-Lehman kernels are tested beside them."""


class Held(NamedTuple):
    """What a machine is given: h [n, r], labels [n], and the seed of its folds."""

    h: np.ndarray
    labels: np.ndarray
    seed: int


def main(s: Settings) -> list[results.Result]:
    base, variants, dataset = pretraining.prepare(s)
    labels = folds.labels_of(dataset)
    evaluation.stratified_folds(labels, s.folds)  # refuses folds that do not fit

    def hold(run: Training, trained: bool) -> Held:
        described = recipes.graphs.describe(run, dataset)
        variables = pretraining.variables_of(run, dataset, trained)
        graphs = dataset.columns["graph"]
        h = recipes.graphs.represent(described, variables, graphs)
        return Held(h, labels, run.seed)

    def score(held: Held) -> study.Measured:
        found = evaluation.svm_folds(held.h, held.labels, folds=s.folds, seed=held.seed)
        return study.Measured({"svm": float(found.accuracy.mean())}, len(held.labels))

    compared = study.Study(
        pretraining.pretrain, hold, score, METRIC, protocol={"folds": s.folds}
    )
    rows = study.run(compared, base, variants, s.seeds, may_change=MAY_CHANGE)
    if s.baselines:
        rows += baselines(s, dataset)
    found = results.of_rows(rows, dataset.name, PROTOCOL, "svm", s.folds)
    results.tell(s, found)
    first = next(iter(variants))
    study.tell_differences(rows, first)

    # Pictures are of the first loss and seed.
    shown = study.settings_of(base, first, variants[first], s.seeds[0])
    h = hold(shown, True).h
    if jax.process_index() == 0:
        folds.draw(pathlib.Path(s.directory), dataset, h)
        print(f"\nIn {s.directory}: accuracy, embedding, neighbors.png, results.json")
    return found


def baselines(s: Settings, dataset: data.Dataset) -> list[study.Row]:
    """What is known of the graphs without learning, on the folds of each seed."""
    graphs = data.graphs.graphs_of(dataset)
    labels = folds.labels_of(dataset)
    tested: dict[str, Any] = {}
    if graphs.node_labels is not None:
        tested["label histogram"] = functools.partial(
            evaluation.svm_folds, evaluation.label_histogram(graphs)
        )
    tested["degree histogram"] = functools.partial(
        evaluation.svm_folds, evaluation.degree_histogram(graphs)
    )
    tested["Weisfeiler-Lehman kernel"] = functools.partial(
        evaluation.kernel_svm_folds,
        evaluation.weisfeiler_lehman(graphs, 4)[1:],
        costs=(0.1, 1, 10, 100),  # it is by far the slowest
    )
    rows = {name: study.Row(name, {"svm": []}, len(labels), METRIC) for name in tested}
    asked = [(name, seed) for seed in s.seeds for name in tested]
    for name, seed in tqdm.tqdm(asked, unit="baseline", file=_text.TERMINAL):
        found = tested[name](labels, folds=s.folds, seed=seed)
        rows[name].scores["svm"].append(float(found.accuracy.mean()))
    return list(rows.values())
