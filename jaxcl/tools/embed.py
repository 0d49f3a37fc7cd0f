"""Embeddings by a run or an exported encoder, as a file for other tools."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxcl import _files, _rules, data, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Writes what an encoder makes of images, graphs or sentences into an .npz file."""

    directory: Annotated[str, tyro.conf.Positional]
    """Directory of a run, or of an exported encoder."""
    out: str
    """The file to write: arrays "embeddings" [n, r], and "labels" [n] if there are."""
    source: str | None = None
    """Images of the encoder's size, graphs whose nodes have the features that it knows,
    or sentences; None: the source of the run."""
    split: str | None = None
    """Part of the source; None: "test" of images, all graphs or sentences."""
    layer: Literal["h", "z"] = "h"
    """The encoder's output, or the projector's, which the loss saw."""
    step: _rules.Index | None = None
    """Checkpoint of a run; None is the newest."""
    average: bool = True
    """Whether to take the moving average of the weights, where the run has one."""
    untrained: bool = False
    """The encoder before its first step instead."""
    batch_size: _rules.Count = 500
    """Examples encoded at a time."""


def main(s: Settings) -> np.ndarray:
    """Embeds examples.

    Args:
      s: settings.

    Returns:
      The embeddings, float32 [n, r] or [n, d].

    Raises:
      FileExistsError: if the file is there already.
      FileNotFoundError: if there is no such encoder or source.
      ValueError: if the file is no .npz, images are of another size, or nodes of
        graphs lack features or have others.
    """
    _rules.check(s)
    if s.untrained and s.step is not None:
        raise ValueError(f"step must be None with untrained, got {s.step}")
    out = pathlib.Path(s.out)
    if out.suffix != ".npz":
        raise ValueError(f"out must end in .npz, got {s.out!r}")
    if out.exists():
        raise FileExistsError(f"out must be a new file, and {out} is there")
    encoder = recipes.open_encoder(s.directory, step=s.step, average=s.average)
    source = s.source or encoder.settings.get("source")
    if source is None:
        raise ValueError(
            f"source must be given (--source): {s.directory} is an exported encoder"
        )
    kind = encoder.kind
    split = kind.split if s.split is None else s.split
    dataset = encoder.open(source, split)
    if s.untrained:
        encoder = encoder.untrained()
    embeddings = encoder.represent(
        dataset.columns[kind.column], layer=s.layer, batch_size=s.batch_size
    )
    arrays: dict[str, Any] = {"embeddings": embeddings}
    if "label" in dataset.columns:
        arrays["labels"] = dataset.columns["label"][np.arange(data.size(dataset))]
    with _files.replacing(out) as unfinished:
        np.savez(unfinished, **arrays)
    print(f"{out}: {', '.join(f'{k} {list(v.shape)}' for k, v in arrays.items())}")
    return embeddings
