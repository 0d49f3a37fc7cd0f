"""Rows of results: tables, pictures, `results.json`."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.clip import measuring
from experiments.clip.settings import Settings, Training
from jaxcl import data, pictures, study, training
from jaxcl.pictures import studies, style
from jaxcl.recipes import pair_losses

CHANCE = "chance"
# Drawn and compared; the table has the others as well.
MAIN = ("to_text_10", "to_image_10", "zero_shot", "linear")


def metric(keys: Mapping[str, str]) -> study.Metric:
    """What the scores of a comparison are called."""
    compared = [key for key in MAIN if key in keys]
    return study.Metric(keys, compared, name="retrieval", phrase="{}")


def tell(s: Settings, rows: Sequence[study.Row], held: measuring.Held) -> None:
    """Writes `results.json` and a picture, prints tables and what they support."""
    if jax.process_index() != 0:
        return
    home = pathlib.Path(s.directory)
    record = {
        "settings": dataclasses.asdict(s),
        "rows": [{"name": r.name, "scores": r.scores} for r in rows],
        "images": data.size(held.test),
        "captions": len(data.pairs.texts_of(held.test)[0]),
    }
    study.keep_text(home / "results.json", json.dumps(record, indent=2) + "\n")
    seeds = len(s.seeds)
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    print(f"\nHeld out (%), {over}\n\n{study.table(rows)}")
    trained = [row for row in rows if row.name != CHANCE]
    compared = trained[0].metric.compared
    for key in compared if len(s.losses) > 1 else ():
        print("\n" + study.report_differences(trained, s.losses[0], key))
    style.attempt(
        studies.dots,
        home / "retrieval.png",
        [row.name for row in trained],
        {
            row_label: [row.scores[key] for row in trained]
            for key in compared
            for row_label in [trained[0].metric.labels[key]]
        },
        baseline=s.losses[0],
        aside=study.UNTRAINED,
        axis="{} (%)",
        title=f"{held.test.name}: {data.size(held.test):,} held-out images",
    )


def chance(held: measuring.Held, like: study.Row) -> study.Row:
    """The row of what no learning reaches."""
    seeds = len(next(iter(like.scores.values())))
    scores = {k: [v] * seeds for k, v in measuring.by_chance(held).items()}
    return like._replace(name=CHANCE, scores=scores)


def draw(s: Settings, base: Training, changes: Mapping[str, Any]) -> pathlib.Path:
    """Draws what the first loss and seed find, and what the loss learned.

    Returns:
      The directory of that run, where the pictures are.
    """
    shown = study.settings_of(base, s.losses[0], changes, s.seeds[0])
    home = pathlib.Path(shown.directory)
    if jax.process_index() != 0:
        return home
    lines = [line for line in training.read_metrics(home) if "loss" in line]
    style.attempt(_draw_numbers, home / "temperature.png", shown, lines)
    return home


def _draw_numbers(path: pathlib.Path, s: Training, lines: Sequence[Any]) -> None:
    names = [name for name in ("temperature", "bias", "loss") if name in lines[0]]
    pictures.number_curves(
        path,
        [line["step"] for line in lines],
        {name: [line[name] for line in lines] for name in names},
        bounds={"temperature": s.minimum} if pair_losses.learns(s) else None,
        title=f"{s.loss}, seed {s.seed}",
    )
