"""The settings of the benchmark of losses."""

import dataclasses
from typing import Annotated, Literal, get_args

from jaxcl import _rules

LossName = Literal["nt_xent", "clip", "sup_con", "kernel_sum", "siglip"]
FormName = Literal[
    "dense",
    "jaxcl",
    "scan",
    "optax",
    "lightly",
    "open_clip",
    "metric_learning",
    "inf_cl",
]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compares forms of losses; writes a table, two pictures and JSON."""

    losses: Annotated[tuple[LossName, ...], _rules.Different] = get_args(LossName)
    """Losses to measure."""
    forms: Annotated[tuple[FormName, ...], _rules.Different] = get_args(FormName)
    """Forms to measure."""
    sizes: Annotated[tuple[_rules.Count, ...], _rules.Different] = (
        1024,
        2048,
        4096,
        8192,
    )
    """Numbers n of anchors; even."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the embeddings; values are float32."""
    width: _rules.Count = 256
    """Size d of the embeddings."""
    repeats: _rules.Count = 3
    """Measurements of each form, interleaved."""
    tile: _rules.Count | None = None
    """Edge of a tile of jaxcl; None is chosen."""
    block: _rules.Count = 512
    """Rows at a time of the form with scan; at most n, and n is a multiple of it."""
    dense_limit: _rules.Index | None = None
    """Largest n of the forms that hold all pairs: dense and torch but for inf_cl."""
    optax_limit: _rules.Index = 1024
    """Largest n of optax, which holds n * n * d numbers: 12 GiB for n = 2048."""
    precision: Literal["float32", "tensorfloat32"] = "float32"
    """Precision of products of float32; the same on a CPU."""
    matmul_limit: Literal["auto", "yes", "no"] = "auto"
    """Also measure a matrix product, as a limit; auto does so on an accelerator."""
    directory: str | None = None
    """Where to write; None is a new folder in runs/benchmark named by date and time."""
