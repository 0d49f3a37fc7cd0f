"""The rows of the table: a name, and what makes a loss of some settings."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax

from jaxcl import _rules, losses, recipes

BASELINE = "Gaussian (SimCLR)"

# A loss of embeddings [b, v, d] with a value per anchor; takes axis_name.
Loss = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Training(recipes.Images):
    """One training by the kernel of a row."""

    row: str = BASELINE
    """Name of the row."""
    temperature: _rules.Positive = 0.5
    """Divides distance^power, in a sum that of the Gaussian; smaller is sharper."""
    second_temperature: _rules.Positive | None = None
    """Of a sum's exponential member; None: the same as of the Gaussian."""
    weight: _rules.Share = 0.5
    """Of a sum's exponential member, in [0, 1]; the Gaussian has the rest."""
    power: _rules.Positive = 1.0
    """Of the distance in a sum's exponential member."""
    arc_scale: Annotated[float, _rules.inside("(0, 1]")] = 1.0
    """Of the angle in arc-cosine kernels, in (0, 1]; they have no temperature."""
    test_split: str = "test"
    """Images on which accuracy is measured."""


MAY_CHANGE = (*recipes.MAY_CHANGE, "test_split")


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      make_loss: settings to a loss.
      space: hyperparameters that a search draws besides the learning rate.
      halves: whether the kernel compares halves, so that z is twice as wide.
    """

    make_loss: Callable[[Training], Loss]
    space: tuple[str, ...] = ("temperature",)
    halves: bool = False


def by_kernel(s: Training, name: recipes.KernelName, **changes: Any) -> Loss:
    """Kernel-InfoNCE by the kernel of that name in `recipes.ViewLoss`."""
    numbers = ("temperature", "second_temperature", "weight", "power", "arc_scale")
    of_row: Any = {"kernel": name, **{key: getattr(s, key) for key in numbers}}
    of_row |= changes
    return recipes.make_loss(recipes.ViewLoss(loss="kernel_info_nce", **of_row))


def of_kernel(name: recipes.KernelName) -> Callable[[Training], Loss]:
    """What the paper adds are kernels, inside the logarithm."""
    return lambda s: by_kernel(s, name)


def of_losses(name: recipes.KernelName) -> Callable[[Training], Loss]:
    """What the paper's code adds: the losses of the members, outside of the log."""

    def make_loss(s: Training) -> Loss:
        # A weight of 0 drops a member, so that each loss sees one member alone.
        first, second = (by_kernel(s, name, weight=one) for one in (0.0, 1.0))
        return lambda z, axis_name=None: (
            (1 - s.weight) * first(z, axis_name=axis_name)
            + s.weight * second(z, axis_name=axis_name)
        )

    return make_loss


# Of sums the paper draws two temperatures and has equal weights; its code draws one
# temperature, a weight and a power.
TWO, MIXED = ("temperature", "second_temperature"), ("temperature", "weight", "power")
ROWS: Mapping[str, Row] = {
    BASELINE: Row(of_kernel("gaussian")),
    "Laplacian": Row(of_kernel("laplacian")),
    "power 0.5": Row(of_kernel("power_half")),
    "simple sum": Row(of_kernel("simple_sum"), TWO),
    "concatenation sum": Row(of_kernel("concatenation_sum"), TWO, halves=True),
    "simple sum of losses": Row(of_losses("simple_sum"), MIXED),
    "concatenation of losses": Row(of_losses("concatenation_sum"), MIXED, halves=True),
    "arc-cosine 0": Row(of_kernel("arc_cosine_0"), ("arc_scale",)),
    "arc-cosine 1": Row(of_kernel("arc_cosine_1"), ("arc_scale",)),
    "arc-cosine 2": Row(of_kernel("arc_cosine_2"), ("arc_scale",)),
    "spectral contrastive": Row(lambda s: losses.spectral_contrastive, ()),
}

# What `search --metric few_labels --learning_rate 8e-3` has found on the digits, whose
# rate is that of an earlier search. Temperatures divide distance^power: 2 t for t of
# cosines.
TUNED: Mapping[str, Mapping[str, Any]] = {
    "Gaussian (SimCLR)": {"temperature": 0.125},
    "Laplacian": {"temperature": 0.125},
    "power 0.5": {"temperature": 0.125},
    "simple sum": {"temperature": 0.125, "second_temperature": 0.269},
    "concatenation sum": {"temperature": 0.125, "second_temperature": 0.269},
    "simple sum of losses": {"temperature": 0.137, "weight": 0.926, "power": 1.0},
    "concatenation of losses": {"temperature": 0.125, "weight": 0.715, "power": 0.5},
    "arc-cosine 0": {"arc_scale": 0.607},
    "arc-cosine 1": {"arc_scale": 0.607},
    "arc-cosine 2": {"arc_scale": 0.607},
}


def variant(
    base: Training, name: str, hyperparameters: Mapping[str, Any]
) -> dict[str, Any]:
    """What a row changes, with its hyperparameters."""
    wider = {"embedding": 2 * base.embedding} if ROWS[name].halves else {}
    return {"row": name, **hyperparameters, **wider}
