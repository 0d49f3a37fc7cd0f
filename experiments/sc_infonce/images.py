"""SC-InfoNCE on images: how alpha and beta change what is learned.

python -m experiments.sc_infonce images
python -m experiments.sc_infonce images --alphas 0.1 0.5 1 2 --betas -0.4 -0.2 0 0.2 0.5

The same encoder is trained with SC-InfoNCE for every pair of alpha and beta, and with
the losses that its authors compare it with, on the same data, seeds and budget; all are
probed on held-out images.
"""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from experiments.sc_infonce import pretraining
from jaxcl import _rules, _tables, recipes, study
from jaxcl.pictures import studies, style


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains with every (alpha, beta), probes, and writes tables and pictures."""

    directory: str = "runs/sc_infonce_images"
    """Holds a directory for each run, results.json and pictures."""
    protocol: str = "digits"
    """Named settings: digits, mnist, cifar10_cpu, cifar10, cifar100, stl10 or
    imagenet100."""
    alphas: Annotated[tuple[_rules.Finite, ...], _rules.Different] = (0.5, 1.0, 2.0)
    """Scales of the target."""
    betas: Annotated[tuple[_rules.Finite, ...], _rules.Different] = (-0.2, 0.0, 0.2)
    """Biases of the target."""
    losses: tuple[str, ...] = tuple(pretraining.OTHERS)
    """Other losses beside them; the first is what all are compared with."""
    variant: Literal["constant", "full", "official"] | None = None
    """Form of the loss; None: the protocol's."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0,)
    """Of parameters, batches and views."""
    instead: tyro.conf.OmitArgPrefixes[recipes.Instead] = recipes.Instead()  # noqa: RUF009
    processes: tyro.conf.OmitArgPrefixes[recipes.Processes] = recipes.Processes()  # noqa: RUF009


def check(s: Settings) -> None:
    _rules.check(s)
    if s.protocol not in pretraining.PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(pretraining.PROTOCOLS)}, got "
            f"{s.protocol!r}"
        )
    distinct = len(set(s.losses)) == len(s.losses) > 0
    if not distinct or not set(s.losses) <= set(pretraining.OTHERS):
        raise ValueError(
            f"losses must be one or more of {', '.join(pretraining.OTHERS)}, each "
            f"once, got {s.losses}"
        )


def main(s: Settings) -> list[study.Row]:
    check(s)
    recipes.join(s.processes)
    named = pretraining.PROTOCOLS[s.protocol]
    base = recipes.replaced(named, s.instead, s.directory)
    if s.variant is not None:
        base = dataclasses.replace(base, variant=s.variant)

    # Variants: other losses, the grid, and the authors' pair.
    grid = {(a, b): f"SC {a:g}, {b:g}" for a in s.alphas for b in s.betas}
    grid |= {(named.alpha, named.beta): f"SC {named.alpha:g}, {named.beta:g}"}
    variants: dict[str, dict[str, Any]] = {
        name: {"loss": name, "num_views": pretraining.OTHERS[name].num_views}
        for name in s.losses
    }
    variants |= {name: {"alpha": a, "beta": b} for (a, b), name in grid.items()}
    recipes.check_study(base, base.test_split)
    rows = study.run(
        pretraining.STUDY,
        base,
        variants,
        s.seeds,
        may_change=pretraining.MAY_CHANGE,
    )
    study.report(
        s.directory,
        rows,
        settings=s,
        variants=variants,
        title=f"SC-InfoNCE {base.variant}, {s.protocol}: accuracy on held-out images",
        baseline=s.losses[0],
    )

    if jax.process_index() == 0:
        tell_grid(s, base, rows, grid)
    return rows


def tell_grid(
    s: Settings,
    base: pretraining.Training,
    rows: list[study.Row],
    grid: dict[tuple[float, float], str],
) -> None:
    """Prints and draws the grid once more, as a surface."""
    by_name = {row.name: row for row in rows}
    surface = {
        label: np.array(
            [
                [100 * np.mean(by_name[grid[a, b]].scores[key]) for b in s.betas]
                for a in s.alphas
            ]
        )
        for key, label in study.PROBES.items()
    }
    ridge = [
        (i, j)
        for i, a in enumerate(s.alphas)
        for j, b in enumerate(s.betas)
        if abs(a - b - 1) < 1e-9
    ]
    for key in ("few_labels", "all_labels"):
        label = study.PROBES[key]
        lines = [
            [f"{alpha:g}", *(f"{x:.1f}" for x in row)]
            for alpha, row in zip(s.alphas, surface[label], strict=True)
        ]
        print(f"\nAccuracy with {label} (%), means over seeds:\n")
        print(_tables.markdown(["alpha \\ beta", *(f"{b:g}" for b in s.betas)], lines))
    print(f"\nIn {s.directory}: accuracy.png, alpha_beta.png, results.json\n")
    reachable = ", ".join(f"({s.alphas[i]:g}, {s.betas[j]:g})" for i, j in ridge)
    print(
        "In theory the target can be reached where alpha - beta = 1: here "
        f"{reachable or 'nowhere'}. No\npublished table was at hand to compare with; "
        "the authors' notes show less than a point\nbetween betas."
    )
    style.attempt(
        studies.grid,
        pathlib.Path(s.directory) / "alpha_beta.png",
        surface,
        ("alpha", s.alphas),
        ("beta", s.betas),
        framed=ridge,
        title="SC-InfoNCE: accuracy on held-out images (%), mean over seeds",
        second="framed: alpha - beta = 1, where the target can be reached",
    )
