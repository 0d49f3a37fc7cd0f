"""An encoder as two files: weights that any tool reads, and what they belong to."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from jaxcl import _rules, data, models, recipes


@dataclasses.dataclass(frozen=True)
class Settings:
    """Writes encoder.safetensors and encoder.json, for `jaxcl.models.load`; of an
    encoder of sentences tokenizer.json as well."""

    directory: Annotated[str, tyro.conf.Positional]
    """Directory of a run."""
    out: str | None = None
    """Directory of the two files; None: that of the run."""
    step: _rules.Index | None = None
    """Checkpoint to export; None is the newest."""
    average: bool = True
    """Whether to take the moving average of the weights, where the run has one."""
    overwrite: bool = False
    """Whether an exported encoder may be replaced."""


def main(s: Settings) -> pathlib.Path:
    """Exports the encoder of a run.

    Args:
      s: settings.

    Returns:
      The directory of the two files.

    Raises:
      FileExistsError: if an encoder is there and `overwrite` was not given.
      FileNotFoundError: if there is no such run, or it has no checkpoint.
    """
    _rules.check(s)
    out = pathlib.Path(s.out or s.directory)
    weights = out / "encoder.safetensors"
    if weights.exists() and not s.overwrite:
        raise FileExistsError(
            f"out must hold no encoder, and {weights} is there; --overwrite replaces it"
        )
    encoder = recipes.open_encoder(s.directory, step=s.step, average=s.average)
    trained = {
        "step": encoder.step,
        "averaged": encoder.averaged,
        "settings": dict(encoder.settings),
    }
    models.save(out, encoder.described, encoder.variables, trained=trained)
    if isinstance(encoder.described, models.TextDescription):
        data.text.write(
            out, recipes.text.read_vocabulary(encoder.described, s.directory)
        )
    print(
        f"{weights}: {encoder.described.encoder} for "
        f"{encoder.kind.takes(encoder.described)}, step {encoder.step}\n"
        f"jaxcl.models.load({str(out)!r}) brings it back"
    )
    return out
