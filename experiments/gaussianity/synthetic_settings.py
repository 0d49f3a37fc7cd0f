"""The settings of the synthetic runs, and what follows from them."""

import dataclasses
from typing import Annotated

from experiments.gaussianity import encoders, inputs
from jaxcl import _checks, _files, _rules


@dataclasses.dataclass(frozen=True)
class Settings(inputs.Scales):
    """Trains encoders on inputs of a known law and tests whether they are Gaussian."""

    directory: str = "runs/gaussianity_synthetic"
    """Where the table and the pictures go; one that holds results is refused."""
    laws: Annotated[tuple[inputs.Name, ...], _rules.Different] = (
        "laplace",
        "mixture",
        "binary",
    )
    """Laws to draw inputs from."""
    num_train: _rules.Several = 5120
    """Inputs to learn from."""
    num_test: Annotated[int, _rules.whole(20)] = 2000
    """Held-out inputs that are measured."""
    encoder: encoders.Name = "linear"
    """A linear map as in the paper, or one hidden layer of ReLU before it."""
    hidden: _rules.Count = 512
    """Units of that layer."""
    bias: bool = False
    """Whether the last layer has one; it moves the mean away from 0 for long."""
    dimension: _rules.Several = 64
    """Size d of the embedding."""
    temperature: _rules.Positive = 0.1
    """Divides cosines."""
    batch_size: _rules.Several = 128
    """Inputs in a batch, and candidates of each anchor."""
    epochs: _rules.Count = 20
    """Passes over the inputs."""
    learning_rate: _rules.Positive = 3e-3
    """Of Adam, constant; the paper has 1e-3, and many more steps."""
    beta_factor: _rules.NotNegative = 1.0
    """Weight beta of the penalty, as a multiple of 2 (1 - eta) / (temperature d), from
    which on theory promises a Gaussian optimum; 0 trains no encoder with it."""
    eta: _rules.Share | None = None
    """Mildness of the augmentation in [0, 1]; None is the correlation of two views for
    laplace, and 0, the safe choice, for the others."""
    lam: _rules.Positive = 0.5
    """lambda of the penalty: it pins the norm at sqrt(d / (2 lambda))."""
    measurements: _rules.Count = 10
    """Moments at which encoders are measured, besides the start."""
    max_samples: Annotated[int, _rules.whole(20)] = 5000
    """Embeddings that the tests for normality see at most; the paper does not say."""
    seed: _rules.Seed = 0
    """Of inputs, parameters, batches and views."""


# What the paper states; batch size and epochs of mixture and binary are those of
# laplace, for which it gives ranges.
PAPER = Settings(
    size=1024,
    num_train=20_000,
    num_test=5000,
    dimension=256,
    epochs=150,
    learning_rate=1e-3,
    mean_scale=0.2,
    density=0.01,
    measurements=15,
    directory="runs/gaussianity_paper",
)


def mildness(s: Settings, name: inputs.Name) -> float:
    """eta of the theory, where it is known, else its smallest value."""
    if s.eta is not None:
        return s.eta
    return inputs.view_correlation(s) if name == "laplace" else 0.0


def beta_of(s: Settings, name: inputs.Name) -> float:
    """Weight of the penalty: the factor times 2 (1 - eta) / (temperature d)."""
    threshold = 2 * (1 - mildness(s, name)) / (s.temperature * s.dimension)
    return s.beta_factor * threshold


def check(s: Settings) -> None:
    """Refuses settings that cannot run, before anything is trained."""
    _rules.check(s)
    _files.check_new("directory", s.directory)
    _checks.count("batch_size", s.batch_size, 2, at_most=s.num_train)
    for names, read, which in (
        ("hidden", s.encoder == "mlp", "encoder 'mlp'"),
        ("eta lam", s.beta_factor > 0, "a beta_factor above 0"),
        ("signal view_noise view_dropout view_scale", "laplace" in s.laws, "laplace"),
        ("components", "mixture" in s.laws, "mixture"),
        ("flip", "binary" in s.laws, "binary"),
    ):
        _rules.unread(s, names, unless=read, which=which)
