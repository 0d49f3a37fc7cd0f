"""What all commands on sets of graphs share."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from jaxcl import _rules, recipes


@dataclasses.dataclass(frozen=True)
class Training(recipes.ViewLoss, recipes.graphs.Graphs):
    """One training on graphs."""

    temperature: _rules.Positive = 0.5
    """Divides similarities; smaller is sharper."""
    variant: Literal["constant", "full", "official"] = "official"
    """Form of "sc_info_nce"; the authors' runs on graphs had "official"."""
    save_every: _rules.Count = 100_000
    """Steps between two checkpoints; there is one at the end."""
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
    alpha: _rules.Finite | None = None  # type: ignore[assignment]
    """Scale of the target of "sc_info_nce"; None: the authors' for a set of this name,
    or 1."""
    beta: _rules.Finite | None = None  # type: ignore[assignment]
    """Bias of the target of "sc_info_nce"; None: the authors', or 0."""
    seeds: Annotated[tuple[_rules.Seed, ...], _rules.Different] = (0, 1, 2)
    """Of parameters, batches, views and folds."""
    folds: _rules.Several = 10
    """Parts of the graphs, each of which is held out once."""


# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (*recipes.MAY_CHANGE, "tile", "nodes", "edges")


class Target(NamedTuple):
    """Scale and bias of the target of SC-InfoNCE."""

    alpha: float = 1.0
    beta: float = 0.0


# The authors' table; for other sets they have no figures.
TARGETS: Mapping[str, Target] = {
    "NCI1": Target(0.7, 0.05),
    "PROTEINS": Target(2.0, -0.4),
    "DD": Target(1.0, -0.3),
    "COLLAB": Target(1.0, -0.3),
}


def trainings(
    s: Any, kind: type, known: Target
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """What trainings share, and what differs between them by the names of their rows.

    Args:
      s: settings of a command, with `losses`.
      kind: a dataclass of one training, whose fields the settings have.
      known: alpha and beta where the settings leave them at None.

    Returns:
      (base, variants); each of the trainings has been checked.
    """
    names = {field.name for field in dataclasses.fields(kind)} - {"alpha", "beta"}
    base = kind(**{name: getattr(s, name) for name in names})
    _rules.check(base)
    variants: dict[str, dict[str, Any]] = {}
    for loss in s.losses:
        row, changes = str(loss), {"loss": loss}
        if loss == "is_info_nce":
            changes["num_views"] = 3
        if loss == "sc_info_nce":
            alpha = known.alpha if s.alpha is None else s.alpha
            beta = known.beta if s.beta is None else s.beta
            row += f" {alpha:g}, {beta:g}"
            changes |= {"alpha": alpha, "beta": beta}
        changed = dataclasses.replace(base, **changes)
        recipes.check_loss(changed, changed.num_views)
        variants[row] = changes
    return base, variants
