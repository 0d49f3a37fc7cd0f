"""Are embeddings of images Gaussian? InfoNCE beside supervised cross-entropy.

python -m experiments.gaussianity images
python -m experiments.gaussianity images --source tfds:cifar10 --encoder resnet18 \
    --width 64 --augmentation photographs --batch_size 256 --epochs 100

The same network from the same parameters is trained twice, on the same views of the
same batches: with InfoNCE of its unnormalized output of d numbers, and with the
cross-entropy of a linear classifier on that output. What is tested is that output, of
held-out images without augmentation.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import jax

from experiments.gaussianity import image_runs, measures, pictures
from experiments.gaussianity.image_runs import Settings
from jaxcl import _files, _rules, recipes
from jaxcl.pictures import style
from jaxcl.training import processes


def main(s: Settings) -> dict[str, image_runs.Trained]:
    """Trains both encoders, writes a table and pictures, and returns the runs."""
    _rules.check(s)
    is_photo = s.augmentation == "photographs"
    _rules.unread(s, "jitter", unless=is_photo, which="augmentation 'photographs'")
    recipes.join(s.processes)
    directory = _files.check_new("directory", s.directory)
    runs = {kind: image_runs.train(s, kind) for kind in ("contrastive", "supervised")}
    if jax.process_index() == 0:
        tell(s, runs, directory)
    return runs


def tell(
    s: Settings, runs: dict[str, image_runs.Trained], directory: pathlib.Path
) -> None:
    """Writes `results.json` and pictures, and prints the table and what it shows."""
    rows = [("untrained", runs["contrastive"].first.measures)]
    rows += [(name, run.last.measures) for name, run in runs.items()]
    findings = list(conclude(s, runs))
    record = {
        "settings": processes.without(dataclasses.asdict(s)),
        "rows": {name: m._asdict() for name, m in rows},
        "runs": {
            name: {
                "epochs": run.epochs,
                "history": [m._asdict() for m in run.history],
                "knn_accuracy": run.accuracy,
            }
            for name, run in runs.items()
        },
        "findings": findings,
    }
    _files.write_json(directory / "results.json", record)

    samples = rows[0][1].num_samples
    print(f"\nd = {s.dimension}, the tests saw {samples} held-out images\n")
    print(measures.table(rows, s.dimension))
    print(f"\nIn {s.directory}: results.json and pictures\n")
    print("\n".join(findings))

    moments = {
        "held-out images": {
            "untrained": runs["contrastive"].first,
            **{name: run.last for name, run in runs.items()},
        }
    }
    style.attempt(pictures.norms, directory / "norms.png", moments)
    style.attempt(pictures.quantiles, directory / "quantiles.png", moments)
    style.attempt(pictures.cosines, directory / "cosines.png", moments)
    style.attempt(
        pictures.histories,
        directory / "metrics.png",
        [
            pictures.History(name, i, 0, run.epochs, run.history)
            for i, (name, run) in enumerate(runs.items())
        ],
        s.dimension,
    )


def conclude(s: Settings, runs: dict[str, image_runs.Trained]) -> Iterator[str]:
    """Sentences about what agrees with the paper, computed from the runs."""
    with_labels, without = runs["supervised"], runs["contrastive"]
    untrained = without.first.measures
    a, b = without.last.measures, with_labels.last.measures
    yield (
        f"5-NN accuracy {without.accuracy:.1%} contrastive, "
        f"{with_labels.accuracy:.1%} supervised: both encoders have learned."
        if min(without.accuracy, with_labels.accuracy) > 0.5
        else f"5-NN accuracy {without.accuracy:.1%} contrastive, "
        f"{with_labels.accuracy:.1%} supervised."
    )
    for name, m, claim in (("contrastive", a, True), ("supervised", b, False)):
        found = measures.is_gaussian(m)
        yield (
            f"{name}: {'Gaussian' if found else 'not Gaussian'}, the paper reports "
            f"{'Gaussian' if claim else 'not Gaussian'}: "
            f"{'supported' if found == claim else 'not supported'} by these runs."
        )
    for title, field in (
        ("cv", "cv"),
        ("Anderson-Darling mean", "ad_mean"),
        ("standard deviation of negatives", "negative_std"),
    ):
        before, x, y = (float(getattr(m, field)) for m in (untrained, a, b))
        yield (
            f"{title}: {before:.3f} untrained, {x:.3f} contrastive, {y:.3f} "
            f"supervised; the paper's 'lower without labels' is "
            f"{'supported' if x < y else 'not supported'} by these runs."
        )
    yield (
        f"Negatives of standard deviation {a.negative_std:.3f} fill about "
        f"{a.negative_std**-2:.0f} of {s.dimension} dimensions."
    )
