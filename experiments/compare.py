"""Several losses side by side: the same encoder, data, seeds and budget for all.

Each pair of a loss and a seed is a run of `experiments.simclr` in a directory of its
own, whose frozen encoder is then probed on held-out images. Finished runs are not
repeated, and a run that was stopped goes on from its checkpoint, so the same command
again completes a comparison.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import absl.logging
import jax
import numpy as np
import tqdm
from scipy import stats

from experiments import linear_probe, simclr
from jaxcl import evaluation, training
from jaxcl.pictures import style
from jaxcl.training import checkpoints

PROBES = {
    "knn": "5-NN",
    "few_labels": "10 labels/class",
    "all_labels": "all labels",
}
UNTRAINED = "untrained encoder"


# What both comparisons learn from on a CPU. They only save and measure at their ends.
DIGITS = simclr.Settings(
    width=16,
    epochs=25,
    warmup_epochs=2,
    learning_rate=8e-3,
    evaluate_every=10**9,
    save_every=10**9,
)
MNIST = dataclasses.replace(
    DIGITS,
    source="tfds:mnist",
    split="train[:5000]",
    width=8,
    epochs=2,
    warmup_epochs=1,
)


class Row(NamedTuple):
    """What several seeds of one loss have reached.

    Attributes:
      name: of the loss.
      accuracy: in [0, 1], for each of PROBES a value per seed.
      num_held_out: images that it was measured on.
    """

    name: str
    accuracy: dict[str, list[float]]
    num_held_out: int


@dataclasses.dataclass(frozen=True)
class Instead:
    """Settings that replace those of a protocol where they are given."""

    source: str | None = None
    """Images, instead of the protocol's; see experiments.simclr."""
    split: str | None = None
    """Part of the source to learn from, instead of the protocol's."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] | None = None
    """Encoder, instead of the protocol's."""
    width: int | None = None
    """Channels of its first stage, instead of the protocol's."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """In which the model computes, instead of the protocol's."""
    batch_size: int | None = None
    """Images per step, instead of the protocol's."""
    epochs: int | None = None
    """Passes over the images, instead of the protocol's."""


NOTHING = Instead()


def changed(base: simclr.Settings, instead: Instead, directory: str) -> simclr.Settings:
    """The settings of a protocol with what was given instead of them."""
    given = {k: v for k, v in dataclasses.asdict(instead).items() if v is not None}
    changed = dataclasses.replace(base, **given, directory=directory)
    # A short run must not end inside its warm-up.
    warmup = min(base.warmup_epochs, changed.epochs // 2)
    return dataclasses.replace(changed, warmup_epochs=warmup)


def arguments(default: str) -> list[str]:
    """The command line, with the default subcommand where only flags were given."""
    given = sys.argv[1:]
    only_flags = bool(given) and given[0].startswith("-")
    if only_flags and given[0] not in ("-h", "--help"):
        return [default, *given]
    return given


def prepare_process() -> None:
    """Lets runs that differ in their seed alone share compiled programs, and orbax be
    quiet. Call it before anything is compiled.
    """
    absl.logging.set_verbosity(absl.logging.ERROR)
    directory = tempfile.TemporaryDirectory(prefix="jaxcl-programs-")
    jax.config.update("jax_compilation_cache_dir", directory.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    _kept.append(directory)  # deleted when the process ends


_kept: list[tempfile.TemporaryDirectory] = []


def run(
    base: simclr.Settings,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    *,
    held_out: str = "test",
) -> list[Row]:
    """Trains and probes every variant with every seed.

    Args:
      base: settings that all runs share; its directory holds one directory for each
        run, and its split is what they learn from.
      variants: settings that differ, by the name of the variant.
      seeds: of parameters, batches and views.
      held_out: split on which accuracy is measured.

    Returns:
      A row for the untrained encoder and one for each variant.

    Raises:
      ValueError: if a directory holds a run with other settings, or images have no
        labels.
      FloatingPointError: if a run diverges.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more different ones, got {seeds}")
    train = linear_probe.labelled(base.source, "split", base.split)
    test = linear_probe.labelled(base.source, "held_out", held_out)
    rows = {
        name: Row(name, {key: [] for key in PROBES}, len(test.images))
        for name in (UNTRAINED, *variants)
    }
    # In the order they are made: a whole table of one seed comes first.
    runs = [
        (name, settings_of(base, name, changes, seed))
        for seed in seeds
        for name, changes in ((UNTRAINED, {}), *variants.items())
    ]
    for _, settings in runs:  # what does not fit is said before anything is trained
        check_settings(settings)
    bar = tqdm.tqdm(runs, unit="run")
    for name, settings in bar:
        bar.set_postfix_str(f"{name}, seed {settings.seed}")
        trained = name != UNTRAINED
        found = train_and_probe(settings, train, test, held_out, trained=trained)
        for key, value in found.items():
            rows[name].accuracy[key].append(value)
    return list(rows.values())


def settings_of(
    base: simclr.Settings, name: str, changes: Mapping[str, Any], seed: int
) -> simclr.Settings:
    """The settings of one run, in a directory of its own."""
    directory = pathlib.Path(base.directory) / directory_of(name) / f"seed_{seed}"
    return dataclasses.replace(base, **changes, seed=seed, directory=str(directory))


def check_settings(s: simclr.Settings) -> None:
    """Keeps the settings of a run in its directory, or refuses others than those."""
    training.save_settings(
        s.directory, dataclasses.asdict(s), may_change=simclr.MAY_CHANGE
    )


def train_and_probe(
    s: simclr.Settings,
    train: linear_probe.Labelled,
    test: linear_probe.Labelled,
    held_out: str,
    *,
    trained: bool = True,
) -> dict[str, float]:
    """Completes one run and probes it; the accuracies are kept in its directory."""
    check_settings(s)
    path = pathlib.Path(s.directory) / "accuracy.json"
    step = last_step(s, len(train.images)) if trained else None
    asked = {"step": step, "held_out": held_out}
    if path.exists():
        found = json.loads(path.read_text())
        if {key: found[key] for key in asked} == asked:
            return found["accuracy"]
    if trained:
        simclr.main(dataclasses.replace(s, progress=False))
    accuracy = probe(s, train, test, step=step)
    path.write_text(json.dumps(asked | {"accuracy": accuracy}, indent=2) + "\n")
    return accuracy


def probe(
    s: simclr.Settings,
    train: linear_probe.Labelled,
    test: linear_probe.Labelled,
    *,
    step: int | None = None,
) -> dict[str, float]:
    """Accuracies of a run's encoder at a step, or without one untrained."""
    frozen = linear_probe.frozen_encoder(s, train.images.shape[1:])
    variables = frozen.untrained
    if step is not None:
        variables, _ = checkpoints.restore_variables(s.directory, variables, step=step)
    scores = evaluation.probe_scores(
        frozen.represent(variables, train.images),
        train.labels,
        frozen.represent(variables, test.images),
        test.labels,
        num_classes=len(train.class_names),
    )
    return scores._asdict()


def last_step(s: simclr.Settings, num_images: int) -> int:
    """The step at which a run ends."""
    steps = s.epochs * (num_images // s.batch_size)
    return min(steps, s.max_steps or steps)


def directory_of(name: str) -> str:
    """A variant's name as that of a directory."""
    kept = (c if c.isalnum() or c in ".-" else "_" for c in name)
    return "_".join(filter(None, "".join(kept).split("_")))


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of means and deviations over seeds, in percent."""
    count = len(rows[0].accuracy["knn"])
    lines = [
        "| loss | " + " | ".join(PROBES.values()) + " |",
        "|---" * (1 + len(PROBES)) + "|",
    ]
    for row in rows:
        cells = []
        for key in PROBES:
            values = 100 * np.array(row.accuracy[key])
            spread = f" ± {values.std(ddof=1):.1f}" if count > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(rows: Sequence[Row], baseline: str, key: str) -> dict[str, Any]:
    """Differences to a baseline in points, seed by seed: mean and margin.

    The same seed has the same first parameters, batches and views in all runs, so the
    difference is less noisy than the two accuracies.

    Args:
      rows: from `run`.
      baseline: the name of a row.
      key: of PROBES.

    Returns:
      For each other row that was trained (mean, margin): half of Student's interval of
      95 % over seeds, nan for one seed. The standard error counts as no less than one
      image in one of the seeds, so that equal counts are not taken for certainty.
    """
    by_name = {row.name: np.array(row.accuracy[key]) for row in rows}
    image = 100 / rows[0].num_held_out
    found = {}
    for name, values in by_name.items():
        if name in (baseline, UNTRAINED):
            continue
        gain, margin = 100 * (values - by_name[baseline]), np.nan
        if len(gain) > 1:
            error = max(gain.std(ddof=1) / np.sqrt(len(gain)), image / len(gain))
            margin = error * stats.t.ppf(0.975, len(gain) - 1)
        found[name] = (float(gain.mean()), float(margin))
    return found


def report(
    directory: str,
    rows: Sequence[Row],
    *,
    settings: Any,
    variants: Mapping[str, Mapping[str, Any]],
    title: str,
    baseline: str,
) -> None:
    """Writes accuracy.png and results.json, prints the table and what shows in it.

    Args:
      directory: where they go.
      rows: from `run`.
      settings: a dataclass, kept in results.json.
      variants: what the rows changed, kept there as well.
      title: of the picture and the table.
      baseline: the row that the others are compared with.
    """
    home = pathlib.Path(directory)
    draw(home / "accuracy.png", rows, title=title, baseline=baseline)
    record = {
        "settings": dataclasses.asdict(settings),
        "variants": variants,
        "rows": [row._asdict() for row in rows],
    }
    keep_text(home / "results.json", json.dumps(record, indent=2) + "\n")
    count = len(rows[0].accuracy["knn"])
    spread = f"mean ± deviation of {count} seeds" if count > 1 else "one seed"
    print(f"\n{title} (%), {spread}\n")
    print(table(rows))
    for key in ("few_labels", "all_labels"):
        report_differences(rows, baseline, key)


def keep_text(path: pathlib.Path, text: str) -> None:
    """Writes a file; another one of that name is kept under a free name beside it."""
    if path.exists() and path.read_text() != text:
        count = 1
        while (aside := path.with_stem(f"{path.stem}_{count}")).exists():
            count += 1
        path.rename(aside)
        print(f"\n{path} was there with other results: it is {aside.name} now")
    path.write_text(text)


def report_differences(rows: Sequence[Row], baseline: str, key: str) -> None:
    """Prints the differences to a baseline, and which of them chance would explain."""
    found = differences(rows, baseline, key)
    print(f"\nDifference to {baseline!r} in points, accuracy with {PROBES[key]}:")
    for name, (mean, margin) in found.items():
        if np.isnan(margin):
            print(f"  {name}: {mean:+.2f}")
        else:
            said = "shows" if abs(mean) > margin else "does not show"
            print(f"  {name}: {mean:+.2f} ± {margin:.2f}, {said}")
    count = len(rows[0].accuracy[key])
    if count == 1:
        print("  With one seed nothing can be said about chance.")
    else:
        print(f"  (an interval of 95 % over {count} seeds, each row by itself)")


def draw(path: pathlib.Path, rows: Sequence[Row], *, title: str, baseline: str) -> None:
    """Draws every seed's accuracies as dots and their means, a panel for each probe."""
    figure = style.blank(12, 1.6 + 0.33 * len(rows))
    style.heading(
        figure, title, "a dot is a seed, the line their mean; dashed: " + baseline
    )
    panels = figure.subplots(1, len(PROBES), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))[::-1]
    for axes, (key, label) in zip(panels, PROBES.items(), strict=True):
        style.plain(axes)
        for row, place in zip(rows, places, strict=True):
            values = 100 * np.array(row.accuracy[key])
            color = style.QUIET if row.name == UNTRAINED else style.COLORS[0]
            if row.name == baseline:
                axes.axvline(values.mean(), color=style.COLORS[6], ls="--", lw=1.2)
            axes.plot(values, np.full(len(values), place), "o", color=color, ms=5)
            axes.plot(
                [values.mean()] * 2, [place - 0.3, place + 0.3], color=color, lw=2
            )
        trained = [
            100 * np.array(row.accuracy[key]) for row in rows if row.name != UNTRAINED
        ]
        low, high = np.min(trained), np.max(trained)
        margin = 0.08 * (high - low) + 0.1
        untrained = 100 * np.mean(rows[0].accuracy[key])
        if low - untrained > high - low:  # far away: it would squeeze the rest
            axes.set_xlim(low - 4 * margin, high + margin)
            axes.annotate(
                f"\N{LEFTWARDS ARROW} {untrained:.1f}",
                (low - 3.6 * margin, places[0]),
                color=style.QUIET,
                va="center",
            )
        axes.set_xlabel(f"accuracy with {label} (%)")
    panels[0].set_yticks(places, [row.name for row in rows])
    style.save(figure, path)
