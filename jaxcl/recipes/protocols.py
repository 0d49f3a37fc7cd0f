"""Named settings for comparisons on images, and what a user says instead of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from jaxcl import _rules
from jaxcl.recipes import images

S = TypeVar("S", bound=images.Images)

# What comparisons learn from on a CPU: fields of `Images`. They save and measure at
# their ends only.
DIGITS: Mapping[str, Any] = {
    "width": 16,
    "epochs": 25,
    "warmup_epochs": 2,
    "learning_rate": 8e-3,
    "monitors": (),
    "save_every": 10**9,
    "progress": False,
}
# The same of MNIST.
MNIST: Mapping[str, Any] = {
    **DIGITS,
    "source": "tfds:mnist",
    "split": "train[:5000]",
    "width": 8,
    "epochs": 2,
    "warmup_epochs": 1,
}
# CIFAR-10 on two cores: half of its training images, measured on 5,000 others of them.
CIFAR10_CPU: Mapping[str, Any] = {
    "source": "tfds:cifar10",
    "split": "train[:25000]",
    "augmentation": "photographs",
    "pixels": "cifar",
    "width": 16,
    "batch_size": 128,
    "learning_rate": 4e-3,
    "epochs": 10,
    "warmup_epochs": 1,
    "monitors": (),
    "save_every": 500,
    "progress": False,
}


@dataclasses.dataclass(frozen=True)
class Instead:
    """Settings that replace those of a protocol where they are given."""

    source: str | None = None
    """Images, instead of the protocol's; see experiments.simclr."""
    split: str | None = None
    """Part of the source to learn from, instead of the protocol's."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] | None = None
    """Encoder, instead of the protocol's."""
    width: _rules.Count | None = None
    """Channels of its first stage, instead of the protocol's."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """In which the model computes, instead of the protocol's."""
    batch_size: _rules.Several | None = None
    """Images per step, instead of the protocol's."""
    epochs: _rules.Count | None = None
    """Passes over the images, instead of the protocol's."""


def replaced(base: S, instead: Instead, directory: str) -> S:
    """The settings of a protocol with what was given instead of them.

    Args:
      base: the protocol's.
      instead: what the user gave.
      directory: of the comparison.

    Returns:
      Settings of the same kind; a short run does not end inside its warm-up.

    >>> base = images.Images(epochs=100, warmup_epochs=10)
    >>> found = replaced(base, Instead(epochs=6), "runs/short")
    >>> found.epochs, found.warmup_epochs, found.directory
    (6, 3, 'runs/short')
    """
    given = {k: v for k, v in dataclasses.asdict(instead).items() if v is not None}
    changed = dataclasses.replace(base, **given, directory=directory)
    warmup = min(base.warmup_epochs, changed.epochs // 2)
    return dataclasses.replace(changed, warmup_epochs=warmup)
