"""What the commands on sentences share."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from jaxcl import _rules, recipes


@dataclasses.dataclass(frozen=True)
class Training(recipes.ViewLoss, recipes.text.Sentences):
    """One training on sentences."""

    temperature: _rules.Positive = 0.05
    """Divides similarities; smaller is sharper."""
    batch_size: _rules.Several = 256
    """Sentences, pairs or lines per step, over all devices."""
    width: _rules.Count = 256
    """Units of each layer."""
    depth: _rules.Index = 0
    """Layers; 0: a bag of tokens, each of which has learnt a vector."""
    last_norm: bool = False
    """Whether each token is normalized before pooling; if not, tokens with longer
    vectors count for more."""
    order: bool = False
    """Whether tokens know their places; if not, their order changes nothing."""
    projector: Literal["normalized", "plain", "none"] = "none"
    """Whether the projector's hidden layer is batch-normalized; "none": the loss sees
    the encoder's output."""
    dropout: Annotated[float, _rules.inside("[0, 1)")] = 0.1
    """Share of the units that training sets to 0; that of `weights` is their own."""
    learning_rate: _rules.Positive = 5e-3
    """Highest rate, after the warm-up; 3e-5 is usual for `weights`."""
    save_every: _rules.Count = 100_000
    """Steps between two checkpoints; there is one at the end."""
    evaluate_every: tyro.conf.Suppress[_rules.Count] = 300
    progress: bool = False
    """Whether each training shows a bar of its own."""


@dataclasses.dataclass(frozen=True)
class Compared(Training):
    """Trainings with several losses and seeds."""

    loss: tyro.conf.Suppress[recipes.LossName] = "nt_xent"
    seed: tyro.conf.Suppress[_rules.Seed] = 0
    losses: Annotated[tuple[recipes.LossName, ...], _rules.Different] = (
        "info_nce",
        "sc_info_nce",
    )
    """Losses; the first is what the others are compared with."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0, 1, 2)
    """Of parameters, batches, views and dropout."""


# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (*recipes.MAY_CHANGE, "tile")


def hard_negatives(s: Training) -> int:
    """Columns behind an anchor and its positive."""
    if s.positives != "columns" or s.sentence is None:
        return 0
    return len(s.sentence) - 2


def check(s: Training) -> None:
    """Refuses settings that cannot run, before anything is opened or written.

    Raises:
      ValueError: as `recipes.text.check` and `recipes.check_loss`; or if the loss needs
        labels, or more views than the positives are.
    """
    recipes.text.check(s)
    if s.loss == "sup_con":
        raise ValueError(
            "loss must not be 'sup_con', which reads labels: sentences with the same "
            "label are positives 'groups'"
        )
    views = s.num_views if s.positives == "views" else 2
    recipes.check_loss(s, views, hard_negatives(s))


def trainings(s: Compared, known: type = Training) -> tuple[Any, dict[str, Any]]:
    """What trainings share, and what differs between them by the names of their rows.

    Args:
      s: settings of a command.
      known: the dataclass of one training.

    Returns:
      (base, variants); each of the trainings has been checked.
    """
    names = {field.name for field in dataclasses.fields(known)}
    given = {name: getattr(s, name) for name in names}
    target = {name: given.pop(name) for name in ("alpha", "beta", "variant")}
    base = known(**given)
    _rules.check(base)
    variants: dict[str, dict[str, Any]] = {}
    for loss in s.losses:
        row: str = loss
        changes: dict[str, Any] = {"loss": loss}
        if loss == "is_info_nce" and s.positives == "views":
            changes["num_views"] = 3
        if loss == "sc_info_nce":
            row += f" {s.alpha:g}, {s.beta:g}"
            changes |= target
        check(dataclasses.replace(base, **changes))
        variants[row] = changes
    if "sc_info_nce" not in s.losses:
        _rules.unread(s, "alpha beta variant", unless=False, which="loss 'sc_info_nce'")
    return base, variants
