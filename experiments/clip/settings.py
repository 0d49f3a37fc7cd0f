"""What the trainings of a comparison share, and what differs."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from jaxcl import _rules, recipes
from jaxcl.recipes import pair_losses


@dataclasses.dataclass(frozen=True)
class Training(recipes.PairLoss, recipes.pairs.Pairs):
    """One training on images and captions."""

    evaluate_every: tyro.conf.Suppress[_rules.Count] = 300  # nothing is, on the way
    save_every: _rules.Count = 100_000
    """Steps between two checkpoints; there is one at the end."""
    log_every: _rules.Count = 10
    """Steps between two lines of metrics."""
    progress: bool = False
    """Whether each training shows a bar of its own."""


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Trains two towers with each loss and seed, and measures what they learned."""

    directory: str = "runs/clip"
    loss: tyro.conf.Suppress[recipes.PairLossName] = "clip"
    seed: tyro.conf.Suppress[_rules.Seed] = 0
    losses: Annotated[tuple[recipes.PairLossName, ...], _rules.Different] = ("clip",)
    """Losses; the first is what the others are compared with."""
    also: tuple[Literal["first", "unshared"], ...] = ()
    """The first loss once more: with the first caption of each image alone; with images
    and captions of one group as negatives of each other."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0, 1, 2)
    """Of parameters, batches, crops and drawn captions."""
    test: str | None = None
    """Held-out images with captions; None: those of the source."""
    test_split: str | None = None
    """Part of them; None: "test" of the source, "train" of another one."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts of the zero-shot classes, each with {} in place of the name."""
    classes: tuple[str, ...] | None = None
    """Names of the classes that are told apart without labels; None: all of them."""


# What `also` names: the row, and what changes there.
ALSO: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "first": ("first caption", {"captions": "first"}),
    "unshared": ("groups as negatives", {"shared": False}),
}
# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (*recipes.MAY_CHANGE, "tile")


def held_out(s: Settings) -> tuple[str, str]:
    """Source and split of the held-out pairs."""
    if s.test is None:
        return s.source, s.test_split or "test"
    return s.test, s.test_split or "train"


def trainings(s: Settings) -> tuple[Training, dict[str, dict[str, Any]]]:
    """What trainings share, and what each loss changes, by its name.

    What only some losses read, only they are given.

    Raises:
      ValueError: if a training could not run, or no loss reads a setting.
    """
    names = [field.name for field in dataclasses.fields(Training)]
    common = {name: getattr(s, name) for name in names}
    for name in (*pair_losses.READ_BY, "minimum"):
        del common[name]  # as by default
    base = Training(**common)
    for name, losses in pair_losses.READ_BY.items():
        which = f"loss {' or '.join(map(repr, losses))}"
        _rules.unread(s, name, unless=bool(set(s.losses) & set(losses)), which=which)
    variants: dict[str, dict[str, Any]] = {}
    for loss in s.losses:
        changes: dict[str, Any] = {"loss": loss}
        changes |= {
            name: getattr(s, name)
            for name, losses in pair_losses.READ_BY.items()
            if loss in losses
        }
        changed = dataclasses.replace(base, **changes)
        if pair_losses.learns(changed):
            changes["minimum"] = s.minimum
        recipes.check_pair_loss(dataclasses.replace(base, **changes))
        variants[loss] = changes
    for name in s.also:
        row, other = ALSO[name]
        again = {**variants[s.losses[0]], **other}
        recipes.check_pair_loss(dataclasses.replace(base, **again))
        variants[f"{s.losses[0]}, {row}"] = again
    some = any("minimum" in changes for changes in variants.values())
    _rules.unread(s, "minimum", unless=some, which="a temperature that is learned")
    return base, variants
