"""Loss and accuracy of a run over its steps, drawn from what it has written."""

import pathlib

from jaxcl import pictures, training
from jaxcl.pictures import style


def draw(directory: pathlib.Path, watched: str) -> None:
    """Draws `curves.png` of a run, if it has written metrics.

    Args:
      directory: of the run.
      watched: what the k-NN accuracy was measured on while training.
    """
    if (directory / "metrics.jsonl").exists():
        style.attempt(_draw, directory / "curves.png", watched)


def _draw(path: pathlib.Path, watched: str) -> None:
    lines = training.read_metrics(path.parent)
    losses = [line for line in lines if "loss" in line]
    neighbors = [line for line in lines if line.get("knn") is not None]
    if losses:
        pictures.learning_curves(
            path,
            [line["step"] for line in losses],
            [line["loss"] for line in losses],
            [line["step"] for line in neighbors],
            [line["knn"] for line in neighbors],
            title=path.parent.name,
            knn_of=watched,
        )
