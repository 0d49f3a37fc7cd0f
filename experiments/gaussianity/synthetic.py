"""Are embeddings Gaussian where the law of the inputs is known?

python -m experiments.gaussianity synthetic
python -m experiments.gaussianity synthetic --encoder mlp --directory runs/mlp
python -m experiments.gaussianity synthetic-paper       # the paper's sizes, an hour

Laplace numbers, a Gaussian mixture and sparse binary vectors are embedded by a linear
map or a small network that is trained with InfoNCE. Beside each stand the same encoder
untrained, since sums of many independent numbers are Gaussian without any learning, and
the encoder trained with the penalty on norm and entropy that the theory adds. Whatever
is tested is the unnormalized embedding of inputs without augmentation.
"""

import dataclasses
import math
import pathlib

import tqdm

from experiments.gaussianity import inputs, measures, pictures
from experiments.gaussianity import synthetic_conclusions as conclusions
from experiments.gaussianity import synthetic_runs as runs_lib
from experiments.gaussianity import synthetic_settings as settings
from experiments.gaussianity.synthetic_settings import Settings
from jaxcl import _files, _text
from jaxcl.pictures import style

# By law, then by what was minimized.
Runs = dict[inputs.Name, dict[str, runs_lib.Trained]]


def main(s: Settings) -> Runs:
    """Trains all encoders, writes tables and pictures, and returns the runs."""
    settings.check(s)
    kinds = ["InfoNCE", "with penalty"] if s.beta_factor else ["InfoNCE"]
    runs: Runs = {}
    with tqdm.tqdm(
        total=len(s.laws) * len(kinds) * s.epochs, unit="epoch", file=_text.TERMINAL
    ) as bar:
        for name in s.laws:
            runs[name] = {}
            for kind in kinds:
                bar.set_postfix_str(f"{name}, {kind}")
                beta = settings.beta_of(s, name) if kind == "with penalty" else 0.0
                runs[name][kind] = runs_lib.train(s, name, beta, bar)

    rows = []
    for name, of_input in runs.items():
        rows.append((f"{name}, untrained", of_input["InfoNCE"].first.measures))
        rows += [(f"{name}, {k}", run.last.measures) for k, run in of_input.items()]
    findings = list(conclusions.conclude(s, runs))
    record = {
        "settings": dataclasses.asdict(s),
        "rows": {name: m._asdict() for name, m in rows},
        "runs": {
            name: {
                kind: {
                    "beta": settings.beta_of(s, name)
                    if kind == "with penalty"
                    else 0.0,
                    "epochs": run.epochs,
                    "history": [m._asdict() for m in run.history],
                    "norm_by_epoch": run.norm.reshape(s.epochs, -1).mean(1).tolist(),
                    "loss_by_epoch": run.loss.reshape(s.epochs, -1).mean(1).tolist(),
                }
                for kind, run in of_input.items()
            }
            for name, of_input in runs.items()
        },
        "findings": findings,
    }
    _files.write_json(pathlib.Path(s.directory) / "results.json", record)

    samples = rows[0][1].num_samples
    print(f"\nd = {s.dimension}, the tests saw {samples} held-out inputs\n")
    print(measures.table(rows, s.dimension))
    print(f"\nIn {s.directory}: results.json and pictures\n")
    print("\n".join(findings))
    draw(s, runs)
    return runs


def draw(s: Settings, runs: Runs) -> None:
    """Writes all pictures."""
    directory = pathlib.Path(s.directory)
    moments: dict[str, dict[str, measures.Snapshot]] = {
        name: {
            "untrained": of_input["InfoNCE"].first,
            **{kind: run.last for kind, run in of_input.items()},
        }
        for name, of_input in runs.items()
    }
    style.attempt(pictures.norms, directory / "norms.png", moments)
    style.attempt(pictures.quantiles, directory / "quantiles.png", moments)
    style.attempt(pictures.cosines, directory / "cosines.png", moments)
    style.attempt(
        pictures.histories,
        directory / "metrics.png",
        [
            pictures.History(f"{name}, {kind}", i, j, run.epochs, run.history)
            for i, (name, of_input) in enumerate(runs.items())
            for j, (kind, run) in enumerate(of_input.items())
        ],
        s.dimension,
    )
    style.attempt(
        pictures.radii,
        directory / "radius.png",
        {name: {k: run.norm for k, run in of.items()} for name, of in runs.items()},
        math.sqrt(s.dimension / (2 * s.lam)),
    )
