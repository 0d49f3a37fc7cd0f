"""The table of kernels."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments.kernel_infonce import pretraining
from experiments.kernel_infonce import rows as rows_lib
from jaxcl import _rules, recipes, study

# The paper's gain in points of linear accuracy: CIFAR-10, ResNet-50, 400 epochs.
PUBLISHED = ("simple sum", 1.1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains with every kernel and seed, probes, and writes a table and a picture."""

    directory: str = "runs/kernel_infonce"
    """Holds a directory for each run, results.json and accuracy.png."""
    protocol: str = "digits"
    """Named settings: digits, mnist, cifar10_cpu, cifar10, cifar100 or tinyimagenet."""
    kernels: tuple[str, ...] = tuple(rows_lib.ROWS)
    """Rows of the table; the first is what others are compared with."""
    tuned: str | None = None
    """File of `search` with hyperparameters; None: for digits and mnist those found on
    digits, for others the defaults of the paper's code."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0,)
    """Of parameters, batches and views; several give standard deviations."""
    instead: tyro.conf.OmitArgPrefixes[recipes.Instead] = recipes.Instead()  # noqa: RUF009
    processes: tyro.conf.OmitArgPrefixes[recipes.Processes] = recipes.Processes()  # noqa: RUF009


def read_tuned(path: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What `search` has written; says which rows it holds nothing for."""
    tuned = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    fields = {field.name for field in dataclasses.fields(rows_lib.Training)}
    for name, changes in tuned.items():
        unknown = set(changes) - fields
        if name not in rows_lib.ROWS or unknown:
            raise ValueError(
                f"tuned must hold settings of kernels, and {path} has {name!r} with "
                f"{sorted(unknown) or changes}"
            )
    missing = [name for name in names if name not in tuned]
    if missing and jax.process_index() == 0:
        print(f"{path} has nothing for {', '.join(missing)}: the protocol's settings")
    return tuned


def main(s: Settings) -> list[study.Row]:
    _rules.check(s)
    recipes.join(s.processes)
    named = pretraining.protocol(s.protocol, s.kernels, s.instead, s.directory)
    tuned = named.tuned if s.tuned is None else read_tuned(s.tuned, s.kernels)
    variants = {
        name: rows_lib.variant(named.settings, name, tuned.get(name, {}))
        for name in s.kernels
    }
    recipes.check_study(named.settings, named.settings.test_split)
    rows = study.run(
        pretraining.STUDY,
        named.settings,
        variants,
        s.seeds,
        may_change=rows_lib.MAY_CHANGE,
    )
    study.report(
        s.directory,
        rows,
        settings=s,
        variants=variants,
        title=f"Kernel-InfoNCE, {s.protocol}: accuracy on held-out images",
        baseline=s.kernels[0],
    )
    if jax.process_index() != 0:
        return rows
    print(f"\nIn {s.directory}: accuracy.png, results.json")
    if s.kernels[0] == rows_lib.BASELINE:
        print(conclude(study.differences(rows, rows_lib.BASELINE, "all_labels")))
    return rows


def conclude(found: Mapping[str, study.Difference]) -> str:
    """Whether these runs support the one published difference that is known to us."""
    name, published = PUBLISHED
    if name not in found:
        return ""
    mean, margin = found[name]
    if np.isnan(margin):
        said = "one seed supports nothing"
    elif mean > margin:
        said = "supported by these runs"
    elif mean < -margin:
        said = "not supported by these runs, where it LOSES"
    else:
        said = "not supported by these runs"
    return (
        f"\nThe paper: the {name} gains {published:+.1f} points over the Gaussian on "
        f"CIFAR-10 (linear accuracy).\nHere: {mean:+.2f}; {said}."
    )
