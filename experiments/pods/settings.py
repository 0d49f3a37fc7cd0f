"""The settings of a plan."""

import dataclasses
from typing import Literal

from jaxcl import _rules

LossName = Literal[
    "nt_xent", "clip", "siglip", "sc_info_nce", "sup_con", "gaussian", "kernel_sum"
]
StepName = Literal["simclr", "towers"]
Part = Literal["step", "augmentation", "encoder", "loss"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compiles a loss or a step for chips that are not here, and says what it costs."""

    topology: str = "v5e:2x2"
    """Chip and shape: "v5e:8x8", "v6e:4x4", "v4:4x4x4", "v5p:2x2x1", "h100:8"."""
    problem: LossName | StepName = "nt_xent"
    """A loss, value and gradient; a step of SimCLR; or one of two towers, of images and
    texts, with CLIP's loss."""
    n: _rules.Several = 32_768
    """Rows that a loss compares (views, or pairs); images, or pairs, of a step."""
    d: _rules.Count = 512
    """Size of the embeddings."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of a loss's embeddings; in which the model of a step computes."""
    exchange: str | None = None
    """How embeddings travel, as the losses take it; None: as by default."""
    tile: _rules.Count | None = None
    """Edge of a tile of pairs; None: as by default."""
    impl: str | None = None
    """As the losses take it; "dense", all pairs in memory as one writes it first;
    None: as by default."""
    precision: str | None = None
    """Of the products, where the losses take it; None: as by default."""
    mesh: str | None = None
    """Shape such as "16x16", over all axes of which rows are split; None: one axis."""
    chips: _rules.Count | None = None
    """How many of the topology's chips to use; None: all."""
    part: Part = "step"
    """Of a step: all of it; or augmentation, encoder (forward and backward) or loss
    alone, which compile faster."""
    encoder: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    """Of "simclr"."""
    size: _rules.Count = 32
    """Height and width of the images, in pixels."""
    depth: _rules.Count = 12
    """Layers of each of the "towers"."""
    width: _rules.Count = 768
    """Of the "towers"."""
    length: _rules.Count = 77
    """Tokens of a text of the "towers"."""
    gradients: Literal["compute", "float32"] = "compute"
    """Dtype in which the gradients of "simclr" are summed over the chips."""
    chunks: _rules.Count = 1
    """Parts in which a step encodes its batch, to save memory."""
    bundles: bool = False
    """Counts the instruction bundles of Pallas kernels on a TPU, which have no
    estimate."""
    directory: str | None = None
    """Where to write; None is a new folder in runs/pods named by date and time."""
