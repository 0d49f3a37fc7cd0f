"""Embeddings of images by a pretrained run, as a file for other tools.

python -m experiments.embed runs/simclr --out digits.npz
python -m experiments.embed runs/simclr --source others.npz --out others_embedded.npz
python -m experiments.gaussianity embeddings digits.npz --ood others_embedded.npz
"""

import dataclasses
import pathlib
import sys
from typing import Annotated, Any, Literal

import absl.logging
import numpy as np
import tyro

from experiments import linear_probe, simclr
from jaxcl import data, training
from jaxcl.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Settings:
    """Writes what the encoder of a run makes of images into an .npz file."""

    directory: Annotated[str, tyro.conf.Positional]
    """Run directory of experiments.simclr."""
    out: str
    """The file to write: arrays "embeddings" [n, r], and "labels" [n] if there are."""
    source: str | None = None
    """Images of the run's size; None: those it was trained on."""
    split: str = "test"
    """Part of the source."""
    layer: Literal["h", "z"] = "h"
    """The encoder's output, or the projector's, which the loss saw."""
    step: int | None = None
    """Checkpoint; None is the newest."""
    untrained: bool = False
    """The encoder before its first step instead."""
    batch_size: int = 500
    """Images encoded at a time."""


def main(s: Settings) -> np.ndarray:
    out = pathlib.Path(s.out)
    if out.suffix != ".npz":
        raise ValueError(f"out must end in .npz, got {s.out!r}")
    if out.exists():
        raise FileExistsError(f"out must be a new file, and {out} is there")
    run = simclr.Settings(**training.load_settings(s.directory))
    images = data.to_memory(data.open(s.source or run.source, s.split))
    shape = data.open(run.source, run.split).images.shape[1:]
    if images.images.shape[1:] != shape:
        raise ValueError(
            f"source must hold images {list(shape)} as the run's, got "
            f"{list(images.images.shape[1:])}"
        )
    frozen = linear_probe.frozen_encoder(run, shape, s.batch_size, s.layer)
    variables: Any = frozen.untrained
    if not s.untrained:
        variables, _ = checkpoints.restore_variables(
            s.directory, variables, step=s.step
        )
    embeddings = frozen.represent(variables, np.asarray(images.images[:]))
    arrays: dict[str, Any] = {"embeddings": embeddings}
    if images.labels is not None:
        arrays["labels"] = np.asarray(images.labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays)
    print(f"{out}: {', '.join(f'{k} {list(v.shape)}' for k, v in arrays.items())}")
    return embeddings


def cli() -> None:
    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells too much
    try:
        main(tyro.cli(Settings, prog="python -m experiments.embed"))
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    cli()
