"""The choice of a loss of views: its settings, and the function that they stand for."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from jaxcl import _rules, kernels, losses

# Losses of views, by name.
LossName = Literal[
    "nt_xent",
    "kernel_info_nce",
    "dcl",
    "debiased_nt_xent",
    "dhel",
    "is_info_nce",
    "spectral_contrastive",
    "kcl",
    "f_micl",
    "info_nce",
    "sc_info_nce",
    "clip",
    "siglip",
    "sup_con",
]
# Kernels of "kernel_info_nce" and "kcl", by name.
KernelName = Literal[
    "gaussian",
    "laplacian",
    "power_half",
    "simple_sum",
    "concatenation_sum",
    "arc_cosine_0",
    "arc_cosine_1",
    "arc_cosine_2",
]


@dataclasses.dataclass(frozen=True)
class ViewLoss:
    """A loss of several views of each example.

    Flags are in the order of the bases, the last one first: settings that extend
    `(ViewLoss, Images)` begin with the data and end with the loss.
    """

    loss: LossName = "nt_xent"
    """Loss; "sup_con" uses the labels."""
    temperature: _rules.Positive = 0.5
    """Divides similarities; smaller is sharper."""
    kernel: KernelName = "gaussian"
    """Of "kernel_info_nce" and "kcl". Its temperature divides distance^power; the sums
    are of a Gaussian and an exponential kernel."""
    weight: _rules.Share = 0.5
    """Of the sums' exponential member, in [0, 1]; the Gaussian has the rest."""
    power: _rules.Positive = 1.0
    """Of the distance in the sums' exponential member."""
    second_temperature: _rules.Positive | None = None
    """Of the sums' exponential member; None: the same as of the Gaussian."""
    arc_scale: Annotated[float, _rules.inside("(0, 1]")] = 1.0
    """Of the angle in arc-cosine kernels, in (0, 1]; they have no temperature."""
    alpha: _rules.Finite = 1.0
    """Scale of the target of "sc_info_nce"."""
    beta: _rules.Finite = 0.0
    """Bias of the target of "sc_info_nce"."""
    variant: Literal["constant", "full", "official"] = "constant"
    """Form of "sc_info_nce"; the authors' image runs had "official"."""
    penalty: _rules.NotNegative = 0.0
    """Factor c of the penalty on norm and entropy of z, which is added with the weight
    c 2 (1 - penalty_alignment) / (d temperature); 1 is the theory's threshold."""
    penalty_scale: _rules.Positive = 0.5
    """Pins the radius of z near sqrt(d / (2 penalty_scale))."""
    penalty_alignment: _rules.Share = 0.0
    """Mean cosine of positives that is expected, in [0, 1]; 0 is on the safe side."""
    tile: _rules.Count | None = None
    """Edge of a tile of pairs; changes memory and speed, not results."""


# Losses of anchors and positives that take negatives of each anchor alone.
WITH_HARD_NEGATIVES = ("info_nce", "clip")


def check_loss(s: ViewLoss, num_views: int, hard_negatives: int = 0) -> None:
    """Refuses a loss that the views do not fit, and settings that it does not read.

    Args:
      s: settings.
      num_views: of each example.
      hard_negatives: of each example, besides its views.

    Raises:
      ValueError: if the loss takes fewer or more views, or no hard negatives, or a
        setting was changed that the others make meaningless.
    """
    if hard_negatives and s.loss not in WITH_HARD_NEGATIVES:
        raise ValueError(
            f"loss must be one of {', '.join(WITH_HARD_NEGATIVES)} for an anchor, its "
            f"positive and hard negatives, got {s.loss!r}"
        )
    views = {"is_info_nce": (3,), "dhel": (2, 2)}.get(s.loss, (2,))
    _rules.whole(*views).check("num_views", num_views)
    used = s.kernel if s.loss in ("kernel_info_nce", "kcl") else ""
    for names, read, which in (
        ("kernel", bool(used), "losses 'kernel_info_nce' and 'kcl'"),
        ("weight power second_temperature", used.endswith("_sum"), "a sum of kernels"),
        ("arc_scale", used.startswith("arc"), "an arc-cosine kernel"),
        ("alpha beta variant", s.loss == "sc_info_nce", "loss 'sc_info_nce'"),
        ("penalty_scale penalty_alignment", s.penalty > 0, "a penalty above 0"),
    ):
        _rules.unread(s, names, unless=read, which=which)


def make_loss(s: ViewLoss, *, hard_negatives: int = 0) -> Callable[..., jax.Array]:
    """The loss of the settings, with its penalty.

    Args:
      s: settings.
      hard_negatives: how many of the last views are none, but hard negatives of the
        first, of "info_nce" and "clip"; a penalty is of all.

    Returns:
      A function loss(z, labels=None, valid=None, axis_name=None) of embeddings [b, v,
      d], v >= 2, labels [b] and the examples to keep [b], with a value per anchor,
      [b, v] or [b]. Labels are read by "sup_con" alone.

    >>> loss = make_loss(ViewLoss(loss="dcl", temperature=0.1))
    >>> print(loss(jnp.ones((4, 2, 3))).shape)
    (4, 2)
    """
    if hard_negatives:
        check_loss(s, 2, hard_negatives)
    alone = _make_alone(s, hard_negatives)
    if not s.penalty:
        return alone

    def penalized(
        z: jax.Array,
        labels: jax.Array | None = None,
        valid: jax.Array | None = None,
        axis_name: Any = None,
    ) -> jax.Array:
        rows, d = z.reshape(-1, z.shape[-1]), z.shape[-1]
        penalty = losses.norm_entropy_penalty(
            rows,
            scale=s.penalty_scale,
            valid=_of_rows(valid, z),
            axis_name=axis_name,
        )
        weight = s.penalty * 2 * (1 - s.penalty_alignment) / (d * s.temperature)
        return alone(z, labels, valid, axis_name) + weight * penalty

    return penalized


def _make_alone(s: ViewLoss, hard_negatives: int = 0) -> Callable[..., jax.Array]:
    """The loss of the settings without its penalty, as of `make_loss`."""
    t, kernel = s.temperature, make_kernel(s)
    sc: dict[str, Any] = {"alpha": s.alpha, "beta": s.beta, "variant": s.variant}
    of_views: dict[str, Callable[..., jax.Array]] = {
        "nt_xent": functools.partial(losses.nt_xent, temperature=t),
        "kernel_info_nce": functools.partial(losses.kernel_info_nce, kernel=kernel),
        "dcl": functools.partial(losses.dcl, temperature=t),
        "debiased_nt_xent": functools.partial(losses.debiased_nt_xent, temperature=t),
        "dhel": functools.partial(losses.dhel, temperature=t),
        "spectral_contrastive": losses.spectral_contrastive,
        "kcl": functools.partial(losses.kcl, kernel=kernel),
        "f_micl": losses.f_micl,
    }
    of_two: dict[str, Callable[..., jax.Array]] = {
        "info_nce": functools.partial(losses.info_nce, temperature=t),
        "clip": functools.partial(losses.clip, temperature=t),
        "siglip": functools.partial(losses.siglip, temperature=t),
        "sc_info_nce": functools.partial(losses.sc_info_nce, temperature=t, **sc),
    }

    def loss(
        z: jax.Array,
        labels: jax.Array | None = None,
        valid: jax.Array | None = None,
        axis_name: Any = None,
    ) -> jax.Array:
        options: dict[str, Any] = {"tile": s.tile, "axis_name": axis_name}
        if s.loss == "sup_con":
            if labels is None:
                raise ValueError("labels must be given for loss 'sup_con', got None")
            rows, repeated = z.reshape(-1, z.shape[-1]), _of_rows(labels, z)
            options["valid"] = _of_rows(valid, z)
            each = losses.sup_con(rows, repeated, temperature=t, **options)
            return each.reshape(z.shape[:2])
        options["valid"] = valid
        if s.loss in of_views:
            return of_views[s.loss](z, **options)
        if hard_negatives:
            options["hard_negatives"] = z[:, -hard_negatives:]
        if s.loss in of_two:
            return of_two[s.loss](z[:, 0], z[:, 1], **options)
        three = z[:, 0], z[:, 1], z[:, 2]
        return losses.is_info_nce(*three, temperature=t, **options)

    return loss


def _of_rows(of_examples: Any, z: jax.Array) -> Any:
    """What examples have, [b], for each of their views, [b v]; None stays None."""
    if of_examples is None:
        return None
    return jnp.repeat(jnp.asarray(of_examples), z.shape[1])


def make_kernel(s: Any, temperature: Any = None) -> kernels.Kernel:
    """The kernel of the settings, for "kernel_info_nce" and "kcl".

    Args:
      s: settings of a loss, of views or of pairs.
      temperature: in place of that of the settings, such as one that is learned.

    Returns:
      A kernel.
    """
    t = s.temperature if temperature is None else temperature
    second = s.second_temperature or t
    members = kernels.gaussian(t), kernels.exponential(s.power, second)
    weights = (1 - s.weight, s.weight)
    return {
        "gaussian": lambda: kernels.gaussian(t),
        "laplacian": lambda: kernels.laplacian(t),
        "power_half": lambda: kernels.exponential(0.5, t),
        "simple_sum": lambda: kernels.kernel_sum(*members, weights=weights),
        "concatenation_sum": lambda: kernels.concatenation_sum(
            *members, weights=weights
        ),
        "arc_cosine_0": lambda: kernels.arc_cosine(0, s.arc_scale),
        "arc_cosine_1": lambda: kernels.arc_cosine(1, s.arc_scale),
        "arc_cosine_2": lambda: kernels.arc_cosine(2, s.arc_scale),
    }[s.kernel]()
