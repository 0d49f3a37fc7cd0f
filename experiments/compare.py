"""What the comparisons on images share: pretraining by experiments.simclr."""

import dataclasses
import sys
from typing import Any, Literal

from experiments import linear_probe, simclr
from jaxcl import study
from jaxcl.training import checkpoints

# What both comparisons learn from on a CPU. They only save and measure at their ends.
DIGITS = simclr.Settings(
    width=16,
    epochs=25,
    warmup_epochs=2,
    learning_rate=8e-3,
    evaluate_every=10**9,
    save_every=10**9,
)
MNIST = dataclasses.replace(
    DIGITS,
    source="tfds:mnist",
    split="train[:5000]",
    width=8,
    epochs=2,
    warmup_epochs=1,
)


@dataclasses.dataclass(frozen=True)
class Instead:
    """Settings that replace those of a protocol where they are given."""

    source: str | None = None
    """Images, instead of the protocol's; see experiments.simclr."""
    split: str | None = None
    """Part of the source to learn from, instead of the protocol's."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] | None = None
    """Encoder, instead of the protocol's."""
    width: int | None = None
    """Channels of its first stage, instead of the protocol's."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """In which the model computes, instead of the protocol's."""
    batch_size: int | None = None
    """Images per step, instead of the protocol's."""
    epochs: int | None = None
    """Passes over the images, instead of the protocol's."""


NOTHING = Instead()


def changed(base: simclr.Settings, instead: Instead, directory: str) -> simclr.Settings:
    """The settings of a protocol with what was given instead of them."""
    given = {k: v for k, v in dataclasses.asdict(instead).items() if v is not None}
    changed = dataclasses.replace(base, **given, directory=directory)
    # A short run must not end inside its warm-up.
    warmup = min(base.warmup_epochs, changed.epochs // 2)
    return dataclasses.replace(changed, warmup_epochs=warmup)


def arguments(default: str) -> list[str]:
    """The command line, with the default subcommand where only flags were given."""
    given = sys.argv[1:]
    only_flags = bool(given) and given[0].startswith("-")
    if only_flags and given[0] not in ("-h", "--help"):
        return [default, *given]
    return given


keep_text = study.keep_text  # for experiments.moco


def of_images(held_out: str = "test") -> study.Study:
    """Pretraining by `simclr`, whose encoder is probed on a held-out split."""
    opened: dict[tuple[str, str], linear_probe.Labelled] = {}

    def labelled(source: str, name: str, split: str) -> linear_probe.Labelled:
        if (source, split) not in opened:
            opened[source, split] = linear_probe.labelled(source, name, split)
        return opened[source, split]

    def pretrain(s: simclr.Settings) -> Any:
        return simclr.main(dataclasses.replace(s, progress=False))

    def features(s: simclr.Settings, trained: bool) -> study.Features:
        train = labelled(s.source, "split", s.split)
        test = labelled(s.source, "held_out", held_out)
        frozen = linear_probe.frozen_encoder(s, train.images.shape[1:])
        variables = frozen.untrained
        if trained:
            variables, _ = checkpoints.restore_variables(
                s.directory, variables, step=last_step(s, len(train.images))
            )
        return study.Features(
            frozen.represent(variables, train.images),
            train.labels,
            frozen.represent(variables, test.images),
            test.labels,
            len(train.class_names),
        )

    return study.Study(pretrain, features)


def last_step(s: simclr.Settings, num_images: int) -> int:
    """The step at which a run ends."""
    steps = s.epochs * (num_images // s.batch_size)
    return min(steps, s.max_steps or steps)
