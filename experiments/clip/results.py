"""Rows of results: tables, pictures, `results.json`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.clip import measuring
from experiments.clip.settings import Settings, Training
from jaxcl import _files, data, evaluation, pictures, study, training
from jaxcl.pictures import pairs as pair_pictures
from jaxcl.pictures import studies, style
from jaxcl.recipes import pair_losses
from jaxcl.training import processes

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
        "settings": processes.without(dataclasses.asdict(s)),
        "rows": [{"name": r.name, "scores": r.scores} for r in rows],
        "images": data.size(held.test),
        "captions": len(data.pairs.texts_of(held.test)[0]),
    }
    _files.keep_json(home / "results.json", record)
    seeds = len(s.seeds)
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    print(f"\nHeld out (%), {over}\n\n{study.table(rows)}")
    trained = [row for row in rows if row.name != CHANCE]
    compared = trained[0].metric.compared
    for key in compared if len(trained) > 2 else ():
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
        title=f"{_name(held)}: {data.size(held.test):,} held-out images",
    )


def chance(held: measuring.Held, like: study.Row) -> study.Row:
    """The row of what no learning reaches."""
    seeds = len(next(iter(like.scores.values())))
    scores = {k: [v] * seeds for k, v in measuring.by_chance(held).items()}
    return like._replace(name=CHANCE, scores=scores)


def draw(
    s: Settings, base: Training, changes: Mapping[str, Any], held: measuring.Held
) -> pathlib.Path:
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
    pairs = measuring.kept(home / "embeddings.npz")
    texts = data.pairs.texts_of(held.test)[0]
    group = pairs.group[pairs.example]
    # What several images say in the same words is drawn once.
    together = np.array([f"{g} {text}" for g, text in zip(group, texts, strict=True)])
    first = np.sort(np.unique(together, return_index=True)[1])
    images = np.asarray(held.test.columns["image"][np.arange(data.size(held.test))])
    given = _Drawn(
        images,
        pairs.image,
        pairs.group,
        list(texts[first]),
        pairs.text[first],
        group[first],
    )
    title = f"{_name(held)}, held out: {shown.loss}, seed {shown.seed}"
    style.attempt(_draw_retrieval, home / "examples.png", given, title)
    style.attempt(_draw_similarities, home / "similarities.png", given, title)
    return home


def _name(held: measuring.Held) -> str:
    return pathlib.Path(held.test.name).name


class _Drawn(NamedTuple):
    """Held-out images and different captions, with their embeddings and groups."""

    images: np.ndarray
    image_z: np.ndarray
    image_group: np.ndarray
    captions: list[str]
    caption_z: np.ndarray
    caption_group: np.ndarray


def _draw_retrieval(path: pathlib.Path, given: _Drawn, title: str) -> None:
    random = np.random.default_rng(0)  # which of them are shown
    found = []
    for queries, candidates, count in (
        (given.image_z, given.caption_z, 6),
        (given.caption_z, given.image_z, 5),
    ):
        chosen = np.sort(random.permutation(len(queries))[:count])
        k = min(5, len(candidates))
        near = evaluation.nearest(queries[chosen], candidates, k)
        found.append(pair_pictures.Found(chosen, near.indices, near.cosines))
    pictures.retrieval(
        path,
        given.images,
        given.captions,
        (given.image_group, given.caption_group),
        *found,
        title=title,
        note=f"drawn at random, among {len(given.captions):,} captions and "
        f"{len(given.images):,} images",
    )


def _draw_similarities(path: pathlib.Path, given: _Drawn, title: str) -> None:
    groups = np.random.default_rng(0).permutation(np.unique(given.image_group))[:16]
    rows, columns = (
        np.concatenate([np.flatnonzero(of == g)[:2] for g in groups])
        for of in (given.image_group, given.caption_group)
    )
    x, y = (
        z / np.linalg.norm(z, axis=1, keepdims=True)
        for z in (given.image_z[rows], given.caption_z[columns])
    )
    pictures.similarities(
        path,
        x @ y.T,
        [given.captions[column] for column in columns],
        (given.image_group[rows], given.caption_group[columns]),
        images=given.images[rows],
        title=title,
    )


def _draw_numbers(path: pathlib.Path, s: Training, lines: Sequence[Any]) -> None:
    names = [name for name in ("temperature", "bias", "loss") if name in lines[0]]
    pictures.number_curves(
        path,
        [line["step"] for line in lines],
        {name: [line[name] for line in lines] for name in names},
        bounds={"temperature": s.minimum} if pair_losses.learns(s) else None,
        title=f"{s.loss}, seed {s.seed}",
    )
