"""Rows of results, of every protocol alike: a table, a picture, `results.json`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl import _files, study
from jaxcl.pictures import studies, style
from jaxcl.training import processes


class Result(NamedTuple):
    """What several seeds of one row have reached.

    Attributes:
      set: the graphs.
      loss: the loss, or what stands in its place, such as "untrained encoder".
      protocol: how it was measured.
      values: accuracy in [0, 1] of each seed, mean over the folds.
      folds: parts that were held out in turn; 1 for a split that is given.
    """

    set: str
    loss: str
    protocol: str
    values: Sequence[float]
    folds: int


def of_rows(
    rows: Sequence[study.Row], name: str, protocol: str, key: str, folds: int
) -> list[Result]:
    """The results of one score of a study."""
    return [Result(name, r.name, protocol, r.scores[key], folds) for r in rows]


def tell(s: Any, results: Sequence[Result]) -> None:
    """Writes `results.json` and accuracy.png, and prints the table."""
    if jax.process_index() != 0:
        return
    rows = [
        {
            "set": r.set,
            "loss": r.loss,
            "protocol": r.protocol,
            "folds": r.folds,
            **study.summary(r.values),
        }
        for r in results
    ]
    record = {"settings": processes.without(dataclasses.asdict(s)), "rows": rows}
    path = pathlib.Path(s.directory) / "results.json"
    _files.keep_json(path, record)
    seeds = len(results[0].values)
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    held_out = f", {results[0].folds} folds" if results[0].folds > 1 else ""
    print(f"\n{results[0].set}: accuracy (%){held_out}, {over}\n")
    print(study.crosstable({(r.loss, r.protocol): r.values for r in results}))
    by_protocol: dict[str, dict[str, Sequence[float]]] = {}
    for r in results:
        by_protocol.setdefault(r.protocol, {})[r.loss] = r.values
    style.attempt(
        studies.bars,
        path.with_name("accuracy.png"),
        by_protocol,
        baselines=[r.loss for r in results if r.loss.split()[0] not in s.losses],
        of=f"{seeds} seeds" if seeds > 1 else "one seed",
        title=f"{results[0].set}: accuracy{held_out}",
    )


def tell_optimism(rows: Sequence[study.Row]) -> None:
    """Prints what a choice of the epoch by the test folds adds to one by labels."""
    if jax.process_index() != 0:
        return
    gain = np.mean([np.subtract(r.scores["best"], r.scores["chosen"]) for r in rows])
    print(
        f"\nThe epoch that is best on the test folds is {100 * gain:.1f} points above "
        "the one chosen by\nlabels, mean over rows and seeds: that much is optimism."
    )
