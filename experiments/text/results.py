"""Rows of results: tables, pictures, `results.json`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments.text import scores
from experiments.text.sets import Tested
from jaxcl import _files, study
from jaxcl.pictures import studies, style
from jaxcl.training import processes

SPEARMAN = "Spearman's correlation"
LOGISTIC = "accuracy of logistic regression"
RECALL = "recall at 1 of a topic's other half"


class Result(NamedTuple):
    """What several seeds of one row have reached.

    Attributes:
      set: what was tested, or a mean over sets.
      loss: the loss, or what stands in its place, such as "TF-IDF".
      measure: SPEARMAN, LOGISTIC or RECALL.
      values: of each seed; one where nothing was drawn.
    """

    set: str
    loss: str
    measure: str
    values: Sequence[float]


def of_rows(rows: Sequence[study.Row], tested: Tested) -> list[Result]:
    """The results of all scores of a study."""
    measures = {
        **dict.fromkeys((*tested.pairs, scores.SIMILARITY), SPEARMAN),
        **dict.fromkeys((*tested.classes, scores.ACCURACY), LOGISTIC),
        scores.RETRIEVAL: RECALL,
    }
    return [
        Result(key, row.name, measures[key], values)
        for row in rows
        for key, values in row.scores.items()
    ]


def tell(s: Any, results: Sequence[Result]) -> None:
    """Writes `results.json` and a picture of each measure, and prints tables."""
    if jax.process_index() != 0:
        return
    rows = [
        {
            "set": r.set,
            "loss": r.loss,
            "measure": r.measure,
            **study.summary(r.values),
        }
        for r in results
    ]
    record = {"settings": processes.without(dataclasses.asdict(s)), "rows": rows}
    path = pathlib.Path(s.directory) / "results.json"
    _files.keep_json(path, record)
    seeds = max(len(r.values) for r in results)
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    names = {SPEARMAN: "similarity", LOGISTIC: "transfer", RECALL: "retrieval"}
    for measure in dict.fromkeys(r.measure for r in results):
        chosen = [r for r in results if r.measure == measure]
        print(f"\n{measure[0].upper()}{measure[1:]} (x 100), {over}\n")
        print(study.crosstable({(r.loss, r.set): r.values for r in chosen}))
        style.attempt(
            _draw, path.with_name(f"{names[measure]}.png"), chosen, measure, s.losses
        )
    if s.source == "topics" and any(r.measure == RECALL for r in results):
        print(
            "\nThese are a few thousand sentences about one language: they show that "
            "everything\nruns, and little of what a loss is worth."
        )


def _draw(
    path: pathlib.Path, results: Sequence[Result], measure: str, losses: Sequence[str]
) -> None:
    by_set: dict[str, dict[str, Sequence[float]]] = {}
    for r in results:
        by_set.setdefault(r.set, {})[r.loss] = r.values
    title = measure[0].upper() + measure[1:]
    if len(by_set) > 4:  # more panels than that cannot be read
        title += "; further sets are in results.json"
        last = list(by_set)[-1]
        by_set = {name: by_set[name] for name in [*list(by_set)[:3], last]}
    names = list(dict.fromkeys(r.loss for r in results))
    learned = [name for name in names if name.split()[0] in losses]
    panels: Mapping[str, list[Sequence[float]]] = {
        name: [of[row] for row in names] for name, of in by_set.items()
    }
    studies.dots(
        path,
        names,
        panels,
        baseline=learned[0],
        aside=study.UNTRAINED,
        axis="{} (x 100)",
        title=title,
    )
