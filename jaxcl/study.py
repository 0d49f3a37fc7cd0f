"""Comparisons: variants of one training and several seeds, measured, as a table.

A study receives functions, so it knows neither images nor losses: one trains with some
settings, one gives the representations of what was trained. By default those have
labels, and probes measure them; other data bring a score of their own, and say what it
is called. Each pair of a variant and a seed is a run in a directory of its own.
Finished runs are not repeated, and one that was stopped goes on, so the same call again
completes a comparison.

Needs scipy and matplotlib: `pip install 'jaxcl[tools]'`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import types
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax
import numpy as np
import tqdm
from scipy import stats

from jaxcl import _files, _rules, _tables, _text, evaluation
from jaxcl.training import processes
from jaxcl.training import settings as settings_lib

PROBES = {
    "knn": "5-NN",
    "few_labels": "10 labels/class",
    "all_labels": "all labels",
}
UNTRAINED = "untrained encoder"
KEPT = ("settings", "trained", "protocol")  # beside scores, which are of these

# A variant: the settings that it changes, by their names.
Changes = Mapping[str, typing.Any]


class Features(typing.NamedTuple):
    """Representations of images, or of anything else, with labels.

    Attributes:
      train_h: float [n, r], with labels that probes may see.
      train_labels: int [n].
      test_h: float [m, r], on which accuracy is measured.
      test_labels: int [m].
      num_classes: labels lie in [0, num_classes).
    """

    train_h: np.ndarray
    train_labels: np.ndarray
    test_h: np.ndarray
    test_labels: np.ndarray
    num_classes: int


class Metric(typing.NamedTuple):
    """What scores are called, and how they are written: all of them times 100.

    Attributes:
      labels: a name for each score, by its key, in the order of the table.
      compared: keys whose differences to the baseline are reported.
      name: what all of them are; files are called so.
      phrase: the same of one of them, whose name stands in place of {}.
      unit: of scores times 100, such as "%" or "x 100".
    """

    labels: Mapping[str, str]
    compared: Sequence[str]
    name: str = "accuracy"
    phrase: str = "accuracy with {}"
    unit: str = "%"


class Measured(typing.NamedTuple):
    """What one run has reached.

    Attributes:
      scores: by key; larger is better.
      num_held_out: examples that were right or wrong, of which each score is a share;
        None where scores are no shares of examples, such as correlations.
    """

    scores: Mapping[str, float]
    num_held_out: int | None = None


ACCURACY = Metric(PROBES, compared=("few_labels", "all_labels"))


def probe(features: Features) -> Measured:
    """Accuracy on the held-out examples, in [0, 1], for each of PROBES."""
    scores = evaluation.probe_scores(
        features.train_h,
        features.train_labels,
        features.test_h,
        features.test_labels,
        num_classes=features.num_classes,
    )
    return Measured(scores._asdict(), len(features.test_labels))


class Study(typing.NamedTuple):
    """What is compared.

    Attributes:
      pretrain: trains with some settings to the end, in their directory; called again,
        it goes on where it was stopped, or returns at once.
      features: settings, and whether the encoder is the trained one or that before the
        first step, to what `score` reads of it.
      score: what `features` gives, to its scores.
      metric: what they are called, with their keys.
      protocol: what scores depend on besides the settings of a run, such as how many
        folds there are; scores by another one are measured again. It must fit JSON.
    """

    pretrain: Callable[[typing.Any], object]
    features: Callable[[typing.Any, bool], typing.Any]
    score: Callable[[typing.Any], Measured] = probe
    metric: Metric = ACCURACY
    protocol: Mapping[str, typing.Any] = types.MappingProxyType({})


class Row(typing.NamedTuple):
    """What several seeds of one variant have reached.

    Attributes:
      name: of the variant.
      scores: for each key of the metric a value per seed.
      num_held_out: as of `Measured`.
      metric: what the scores are called.
    """

    name: str
    scores: dict[str, list[float]]
    num_held_out: int | None
    metric: Metric = ACCURACY


def run(
    study: Study,
    base: typing.Any,
    variants: Mapping[str, Changes],
    seeds: Sequence[int],
    *,
    may_change: Collection[str] = (),
) -> list[Row]:
    """Trains and measures every variant with every seed.

    Args:
      study: what is compared.
      base: settings that all runs share, a dataclass with `directory` and `seed`; its
        directory holds one directory for each run.
      variants: settings that differ, by the name of the variant.
      seeds: of parameters, batches and views.
      may_change: settings that may differ when a run goes on.

    Returns:
      A row for the untrained encoder and one for each variant.

    Raises:
      ValueError: if a directory holds a run with other settings, or the scores are not
        those of the metric.
      FloatingPointError: if a run diverges.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more different ones, got {seeds}")
    # In the order they are made: a whole table of one seed comes first.
    runs = [
        (name, settings_of(base, name, changes, seed))
        for seed in seeds
        for name, changes in ((UNTRAINED, {}), *variants.items())
    ]
    # What does not fit is said before anything is trained, or a directory made.
    for _, settings in runs:
        _rules.check(settings)
    for _, settings in runs:
        _check(settings, may_change)
    rows = {
        name: Row(name, {key: [] for key in study.metric.labels}, None, study.metric)
        for name in (UNTRAINED, *variants)
    }
    bar = tqdm.tqdm(runs, unit="run", file=_text.TERMINAL)
    for name, settings in bar:
        bar.set_postfix_str(f"{name}, seed {settings.seed}")
        trained = name != UNTRAINED
        found, count = measure(study, settings, trained=trained, may_change=may_change)
        rows[name] = rows[name]._replace(num_held_out=count)
        for key in study.metric.labels:
            rows[name].scores[key].append(found[key])
    return list(rows.values())


def settings_of(base: typing.Any, name: str, changes: Changes, seed: int) -> typing.Any:
    """The settings of one run, in a directory of its own."""
    directory = pathlib.Path(base.directory) / directory_of(name) / f"seed_{seed}"
    return dataclasses.replace(base, **changes, seed=seed, directory=str(directory))


def directory_of(name: str) -> str:
    """A variant's name as that of a directory.

    >>> directory_of("SC 1, -0.2")
    'SC_1_-0.2'
    """
    kept = (c if c.isalnum() or c in ".-" else "_" for c in name)
    return "_".join(filter(None, "".join(kept).split("_")))


def measure(
    study: Study,
    s: typing.Any,
    *,
    trained: bool = True,
    may_change: Collection[str] = (),
) -> Measured:
    """Completes one run and measures it.

    Args:
      study: what trains and measures.
      s: settings of the run. With the same ones and the same protocol again, what is
        kept in its directory is returned.
      trained: False measures the encoder before the first step.
      may_change: settings that may differ when the run goes on.

    Returns:
      The scores and the number of held-out examples.

    Raises:
      ValueError: as `run`.
    """
    _check(s, may_change)
    name, keys = study.metric.name, list(study.metric.labels)
    path = pathlib.Path(s.directory) / f"{directory_of(name)}.json"
    # The place does not matter: a directory may be moved. Nor do the processes.
    of = processes.without({**dataclasses.asdict(s), "directory": None})
    asked = {"settings": of, "trained": trained}
    if study.protocol:
        asked["protocol"] = dict(study.protocol)
    asked = json.loads(json.dumps(asked))  # tuples are lists in JSON
    known = _kept(path, asked, name, keys) if jax.process_index() == 0 else None
    if (known := processes.from_first(known)) is not None:
        return Measured(*known)
    if trained:
        study.pretrain(s)
    measured = study.score(study.features(s, trained))
    if set(measured.scores) != set(keys):
        raise ValueError(
            f"scores must be those of the metric, {', '.join(keys)}, got "
            f"{', '.join(measured.scores) or 'none'}"
        )
    # Whatever number it is, such as NumPy's, the file holds Python's.
    scores = {key: float(measured.scores[key]) for key in keys}
    measured = measured._replace(scores=scores)
    if jax.process_index() == 0:
        record = {name: scores, "num_held_out": measured.num_held_out}
        _files.write_json(path, asked | record)
    return measured


def _kept(
    path: pathlib.Path, asked: Mapping[str, typing.Any], name: str, keys: Sequence[str]
) -> list[typing.Any] | None:
    """Scores and number of examples of a file, if they are those that are asked for."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: value for k, value in found.items() if k in KEPT}
        same = kept == asked
        if same and set(found[name]) == set(keys):  # else others were measured
            return [found[name], found["num_held_out"]]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}): measured again", stacklevel=3)
    return None


def _check(s: typing.Any, may_change: Collection[str]) -> None:
    """Keeps the settings of a run in its directory, or refuses others than those."""
    settings_lib.save_settings(
        s.directory, dataclasses.asdict(s), may_change=("directory", *may_change)
    )


@contextlib.contextmanager
def shared_programs() -> Iterator[None]:
    """Lets runs that differ in their seed alone share compiled programs.

    Enter it before anything is compiled. The programs are deleted when it is left. A
    cache that the user has chosen is used instead.
    """
    config = jax.config.values
    if config["jax_compilation_cache_dir"] is not None:
        yield
        return
    before = config["jax_persistent_cache_min_compile_time_secs"]
    with tempfile.TemporaryDirectory(prefix="jaxcl-programs-") as directory:
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of means and standard deviations over seeds, times 100."""
    labels = rows[0].metric.labels
    lines = []
    for row in rows:
        lines.append([row.name, *(cell(row.scores[key]) for key in labels)])
    return _tables.markdown(["variant", *labels.values()], lines)


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, times 100, as tables have them.

    >>> cell([0.7, 0.72]), cell([0.7])
    ('71.0 ± 1.4', '70.0')
    """
    points = 100 * np.asarray(values)
    spread = f" ± {points.std(ddof=1):.1f}" if len(points) > 1 else ""
    return f"{points.mean():.1f}{spread}"


def crosstable(values: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """A Markdown table of what pairs of a row and a column have reached over seeds."""
    names, columns = (list(dict.fromkeys(of)) for of in zip(*values, strict=True))
    lines = [
        [name, *(cell(values[name, c]) if (name, c) in values else "" for c in columns)]
        for name in names
    ]
    return _tables.markdown(["", *columns], lines)


def summary(values: Sequence[float]) -> dict[str, typing.Any]:
    """What `results.json` says of the values of several seeds; one has no deviation."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "seeds": len(values),
        "values": [float(value) for value in values],
    }


class Difference(typing.NamedTuple):
    """A difference in points and half its interval of 95 %; nan for one seed."""

    mean: float
    margin: float


def differences(rows: Sequence[Row], baseline: str, key: str) -> dict[str, Difference]:
    """Differences to a baseline in points, seed by seed.

    The same seed has the same first parameters, batches and views in all runs, so the
    difference is less noisy than the two scores.

    Args:
      rows: from `run`.
      baseline: the name of a row.
      key: of the metric.

    Returns:
      For each other row that was trained the mean, and half of Student's interval of
      95 % over seeds. Where scores are shares of examples, the standard error counts
      as no less than one of them in one of the seeds, so that equal counts are not
      taken for certainty.
    """
    by_name = {row.name: np.array(row.scores[key]) for row in rows}
    count = rows[0].num_held_out
    example = 100 / count if count else 0.0
    found = {}
    for name, values in by_name.items():
        if name in (baseline, UNTRAINED):
            continue
        gain, margin = 100 * (values - by_name[baseline]), np.nan
        if len(gain) > 1:
            error = max(stats.sem(gain), example / len(gain))
            margin = error * stats.t.ppf(0.975, len(gain) - 1)
        found[name] = Difference(float(gain.mean()), float(margin))
    return found


def report(
    directory: str | os.PathLike,
    rows: Sequence[Row],
    *,
    settings: typing.Any,
    variants: Mapping[str, Changes],
    title: str,
    baseline: str,
) -> None:
    """Writes results.json and a picture, prints the table and what it supports.

    The picture is called as the metric is: accuracy.png. Of several processes only the
    first does anything.

    Args:
      directory: where they go.
      rows: from `run`.
      settings: a dataclass, kept in results.json.
      variants: what the rows changed, kept there as well.
      title: of the picture and the table.
      baseline: the row that the others are compared with.
    """
    if jax.process_index() != 0:
        return
    home, metric = pathlib.Path(directory), rows[0].metric
    record = {
        "settings": processes.without(dataclasses.asdict(settings)),
        "variants": variants,
        "rows": [
            {
                "name": row.name,
                metric.name: row.scores,
                "num_held_out": row.num_held_out,
            }
            for row in rows
        ],
    }
    _files.keep_json(home / "results.json", record)
    count = _num_seeds(rows)
    spread = f"mean ± standard deviation of {count} seeds" if count > 1 else "one seed"
    print(f"\n{title} ({metric.unit}), {spread}\n")
    print(table(rows))
    for key in metric.compared:
        print(f"\n{report_differences(rows, baseline, key)}")
    from jaxcl.pictures import studies, style  # matplotlib is slow to import

    style.attempt(
        studies.dots,
        home / f"{directory_of(metric.name)}.png",
        [row.name for row in rows],
        {
            label: [row.scores[key] for row in rows]
            for key, label in metric.labels.items()
        },
        baseline=baseline,
        aside=UNTRAINED,
        axis=f"{metric.phrase} ({metric.unit})",
        title=title,
    )


def report_differences(rows: Sequence[Row], baseline: str, key: str) -> str:
    """Lines of the differences to a baseline, and which of them chance may explain."""
    metric = rows[0].metric
    of_key = metric.phrase.format(metric.labels[key])
    lines = [f"Difference to {baseline!r} in points, {of_key}:"]
    for name, found in differences(rows, baseline, key).items():
        if np.isnan(found.margin):
            lines.append(f"  {name}: {found.mean:+.2f}")
        else:
            outside = abs(found.mean) > found.margin  # of the interval lies 0
            said = "supported" if outside else "not supported by these runs"
            lines.append(f"  {name}: {found.mean:+.2f} ± {found.margin:.2f}, {said}")
    count = _num_seeds(rows)
    if count == 1:
        lines.append("  One seed supports nothing: chance is not known.")
    else:
        lines.append(f"  (95 % CI over {count} seeds, each row by itself)")
    return "\n".join(lines)


def tell_differences(rows: Sequence[Row], first: str) -> None:
    """Prints differences to a row and to the encoder before any step.

    Of several processes only the first prints.
    """
    if jax.process_index() != 0:
        return
    for key in rows[0].metric.compared:
        for baseline in (first, UNTRAINED):
            if len(rows) > 2 or baseline == UNTRAINED:
                print("\n" + report_differences(rows, baseline, key))


def _num_seeds(rows: Sequence[Row]) -> int:
    return len(next(iter(rows[0].scores.values())))
