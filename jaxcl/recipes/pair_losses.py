"""The choice of a loss of pairs, and its temperature and bias, which are learned."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from jaxcl import _rules, kernels, losses
from jaxcl.recipes import losses as losses_lib

# Losses of pairs, by name.
PairLossName = Literal[
    "clip", "siglip", "uni_cl", "kernel_info_nce", "dcl", "sc_info_nce"
]


@dataclasses.dataclass(frozen=True)
class PairLoss:
    """A loss of images and texts, of both directions alike.

    Flags are in the order of the bases, the last one first, as of `ViewLoss`.
    """

    loss: PairLossName = "clip"
    """Loss, the mean of image to text and text to image; to "uni_cl" all pairs of a
    group are positives."""
    temperature: _rules.Positive | None = None
    """Divides similarities; where it begins, if it is learned. None: 0.07, as of CLIP;
    0.1 for "siglip"."""
    learned: bool | None = None
    """Whether the temperature is learned. None: where the loss has a lower bound, which
    "dcl" and "sc_info_nce" lack: they would make it sharper without end."""
    minimum: _rules.Positive = 0.01
    """Smallest temperature that can be learned."""
    bias: _rules.Finite = -10.0
    """Of "siglip": where the bias of the logits begins, which is learned."""
    shared: bool | None = None
    """Whether images and captions of one group are no negatives of each other. None:
    where the loss takes groups."""
    kernel: losses_lib.KernelName = "gaussian"
    """Of "kernel_info_nce". Its temperature divides distance^power; the sums are of a
    Gaussian and an exponential kernel."""
    weight: _rules.Share = 0.5
    """Of the sums' exponential member, in [0, 1]; the Gaussian has the rest."""
    power: _rules.Positive = 1.0
    """Of the distance in the sums' exponential member."""
    second_temperature: _rules.Positive | None = None
    """Of the sums' exponential member, which is not learned; None: the same as of the
    Gaussian."""
    arc_scale: Annotated[float, _rules.inside("(0, 1]")] = 1.0
    """Of the angle in arc-cosine kernels, in (0, 1]; they have no temperature."""
    alpha: _rules.Finite = 1.0
    """Scale of the target of "sc_info_nce"."""
    beta: _rules.Finite = 0.0
    """Bias of the target of "sc_info_nce"."""
    variant: Literal["constant", "full", "official"] = "constant"
    """Form of "sc_info_nce"."""
    tile: _rules.Count | None = None
    """Edge of a tile of pairs; changes memory and speed, not results."""


# Settings that only some losses read.
READ_BY: Mapping[str, tuple[PairLossName, ...]] = {
    "bias": ("siglip",),
    "shared": ("clip", "siglip", "kernel_info_nce", "dcl"),
    "kernel": ("kernel_info_nce",),
    "weight": ("kernel_info_nce",),
    "power": ("kernel_info_nce",),
    "second_temperature": ("kernel_info_nce",),
    "arc_scale": ("kernel_info_nce",),
    "alpha": ("sc_info_nce",),
    "beta": ("sc_info_nce",),
    "variant": ("sc_info_nce",),
}
_NO_BOUND = ("dcl", "sc_info_nce")


def check_pair_loss(s: PairLoss) -> None:
    """Refuses settings that the loss does not read.

    Args:
      s: settings.

    Raises:
      ValueError: if one was changed, or a temperature is to be learned that the kernel
        does not have, or begins below its minimum.
    """
    for name, read in READ_BY.items():
        which = f"loss {' or '.join(map(repr, read))}"
        _rules.unread(s, name, unless=s.loss in read, which=which)
    arc, sums = s.kernel.startswith("arc"), s.kernel.endswith("_sum")
    for names, read_here, which in (
        ("weight power second_temperature", sums, "a sum of kernels"),
        ("arc_scale", arc, "an arc-cosine kernel"),
        ("temperature learned", not arc, "a kernel with a temperature"),
        ("minimum", learns(s), "a temperature that is learned"),
    ):
        _rules.unread(s, names, unless=read_here, which=which)
    if learns(s) and first_temperature(s) < s.minimum:
        raise ValueError(
            f"temperature must be at least the minimum {s.minimum:g} of what is "
            f"learned, got {first_temperature(s):g}"
        )


def learns(s: PairLoss) -> bool:
    """Whether the temperature is learned."""
    if s.kernel.startswith("arc"):
        return False
    return s.loss not in _NO_BOUND if s.learned is None else s.learned


def takes_groups(s: PairLoss) -> bool:
    """Whether the loss is told which images share their captions."""
    if s.loss == "uni_cl":
        return True
    return s.loss in READ_BY["shared"] if s.shared is None else s.shared


def first_temperature(s: PairLoss) -> float:
    """The temperature of step 0, or of all steps."""
    if s.temperature is not None:
        return s.temperature
    return 0.1 if s.loss == "siglip" else 0.07


def loss_params(s: PairLoss) -> dict[str, jax.Array]:
    """What the loss learns beside the model: its temperature, and SigLIP's bias.

    >>> print(loss_params(PairLoss(loss="siglip"))["bias"])
    -10.0
    """
    found = {}
    if learns(s):
        found["temperature"] = losses.log_temperature(first_temperature(s))
    if s.loss == "siglip":
        found["bias"] = jnp.float32(s.bias)
    return found


def loss_numbers(
    s: PairLoss, params: Mapping[str, jax.Array]
) -> dict[str, jax.Array | float]:
    """Temperature and bias of the parameters, within their bounds.

    Args:
      s: settings.
      params: of the loss, as `loss_params` makes them.

    Returns:
      {"temperature": ...} and, for "siglip", "bias": for the loss, and for the log.
    """
    found: dict[str, jax.Array | float] = {"temperature": first_temperature(s)}
    if "temperature" in params:
        parameter = params["temperature"]
        maximum = max(100.0, 2 * first_temperature(s))
        found["temperature"] = losses.learned_temperature(
            parameter, minimum=s.minimum, maximum=maximum
        )
    if "bias" in params:
        found["bias"] = params["bias"]
    return found


def make_pair_loss(s: PairLoss) -> Callable[..., jax.Array]:
    """The loss of the settings.

    Args:
      s: settings.

    Returns:
      A function loss(images, texts, temperature=, bias=, groups=None, valid=None,
      axis_name=None) of embeddings [b, d] each, with a value per pair [b]. Temperature
      and bias are those of `loss_numbers`. Groups [b] are read where `takes_groups`.

    >>> loss = make_pair_loss(PairLoss(loss="dcl"))
    >>> x = jnp.ones((4, 3))
    >>> print(loss(x, x, temperature=0.1, groups=jnp.arange(4)).shape)
    (4,)
    """

    def loss(
        images: jax.Array,
        texts: jax.Array,
        *,
        temperature: Any,
        bias: Any = None,
        groups: jax.Array | None = None,
        valid: jax.Array | None = None,
        axis_name: Any = None,
    ) -> jax.Array:
        options: dict[str, Any] = {
            "tile": s.tile,
            "axis_name": axis_name,
            "valid": valid,
        }
        if takes_groups(s):
            if groups is None:
                raise ValueError(f"groups must be given for loss {s.loss!r}, got None")
            if s.loss == "uni_cl":
                return losses.uni_cl(
                    images, texts, groups, temperature=temperature, **options
                )
            options["groups"] = groups
        if s.loss == "siglip":
            return losses.siglip(
                images, texts, temperature=temperature, bias=bias, **options
            )
        if s.loss in ("clip", "kernel_info_nce"):
            kernel = (
                kernels.cosine(temperature)
                if s.loss == "clip"
                else losses_lib.make_kernel(s, temperature)
            )
            return losses.clip(images, texts, kernel=kernel, **options)
        if s.loss == "dcl":
            one_way: Callable[..., jax.Array] = losses.info_nce
            options["decoupled"] = True
        else:
            one_way = losses.sc_info_nce
            options |= {"alpha": s.alpha, "beta": s.beta, "variant": s.variant}
        options["temperature"] = temperature
        to_texts, to_images = (
            one_way(*both, **options) for both in ((images, texts), (texts, images))
        )
        return (to_texts + to_images) / 2

    return loss
