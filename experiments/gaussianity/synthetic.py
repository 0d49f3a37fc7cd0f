"""Are embeddings Gaussian where the law of the inputs is known?

python -m experiments.gaussianity synthetic
python -m experiments.gaussianity synthetic --encoder mlp --directory runs/mlp
python -m experiments.gaussianity synthetic-paper       # the paper's sizes, an hour

Laplace numbers, a Gaussian mixture and sparse binary vectors are embedded by a linear
map or a small network that is trained with InfoNCE. Beside each stand the same encoder
untrained, since sums of many independent numbers are Gaussian without any learning, and
the encoder trained with the penalty on norm and entropy that the theory adds. Whatever
is tested is the unnormalized embedding of inputs without augmentation.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments.gaussianity import encoders, inputs, measures, pictures
from jaxcl import _files, diagnostics


@dataclasses.dataclass(frozen=True)
class Settings(inputs.Scales):
    """Trains encoders on inputs of a known law and tests whether they are Gaussian."""

    directory: str = "runs/gaussianity_synthetic"
    """Where the table and the pictures go; one that holds results is refused."""
    laws: tuple[inputs.Name, ...] = ("laplace", "mixture", "binary")
    """Laws to draw inputs from."""
    num_train: int = 5120
    """Inputs to learn from."""
    num_test: int = 2000
    """Held-out inputs that are measured."""
    encoder: encoders.Name = "linear"
    """A linear map as in the paper, or one hidden layer of ReLU before it."""
    hidden: int = 512
    """Units of that layer."""
    bias: bool = False
    """Whether the last layer has one; it moves the mean away from 0 for long."""
    dimension: int = 64
    """Size d of the embedding."""
    temperature: float = 0.1
    """Divides cosines."""
    batch_size: int = 128
    """Inputs in a batch, and candidates of each anchor."""
    epochs: int = 20
    """Passes over the inputs."""
    learning_rate: float = 3e-3
    """Of Adam, constant; the paper has 1e-3, and many more steps."""
    beta_factor: float = 1.0
    """Weight beta of the penalty, as a multiple of 2 (1 - eta) / (temperature d), from
    which on theory promises a Gaussian optimum; 0 trains no encoder with it."""
    eta: float | None = None
    """Mildness of the augmentation in [0, 1]; None is the correlation of two views for
    laplace, and 0, the safe choice, for the others."""
    lam: float = 0.5
    """lambda of the penalty: it pins the norm at sqrt(d / (2 lambda))."""
    measurements: int = 10
    """Moments at which encoders are measured, besides the start."""
    max_samples: int = 5000
    """Embeddings that the tests for normality see at most; the paper does not say."""
    seed: int = 0
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


class Trained(NamedTuple):
    """A run of one encoder.

    Attributes:
      epochs: at which it was measured, 0 first.
      history: what was measured then.
      first: the untrained encoder.
      last: the trained encoder.
      norm: root of the mean squared norm of the views in each step.
      loss: InfoNCE in each step, in nats.
    """

    epochs: list[int]
    history: list[measures.Measures]
    first: measures.Snapshot
    last: measures.Snapshot
    norm: np.ndarray
    loss: np.ndarray


def train(s: Settings, name: inputs.Name, beta: float, bar: Any) -> Trained:
    """Trains one encoder and measures it on the way."""
    source = inputs.make(name, s)
    train_key, test_key, init_key, run_key = jax.random.split(jax.random.key(s.seed), 4)
    items = source.draw(train_key, s.num_train)
    tests = source.draw(test_key, s.num_test)
    clean = source.clean(jax.random.fold_in(test_key, 1), tests)
    test_views = source.views(jax.random.fold_in(test_key, 2), tests)

    model = encoders.make(s.encoder, s.dimension, hidden=s.hidden, bias=s.bias)
    tx = optax.adam(s.learning_rate)
    params = model.init(init_key, clean[:1])
    state = tx.init(params)
    update = encoders.make_update(model, tx, s.temperature)
    steps = s.num_train // s.batch_size

    @jax.jit
    def epoch(params: Any, state: Any, key: jax.Array) -> Any:
        order_key, view_key = jax.random.split(key)
        order = jax.random.permutation(order_key, s.num_train)
        chosen = order[: steps * s.batch_size].reshape(steps, s.batch_size)

        def step(carry: Any, batch: Any) -> Any:
            i, rows = batch
            views = source.views(jax.random.fold_in(view_key, i), items[rows])
            *carry, metrics = update(*carry, views, beta=beta, lam=s.lam)
            return tuple(carry), metrics

        return jax.lax.scan(step, (params, state), (jnp.arange(steps), chosen))

    @jax.jit
    def encode(params: Any, x: jax.Array) -> jax.Array:
        z = jnp.asarray(model.apply(params, x.reshape(-1, s.size)))
        return z.reshape(*x.shape[:-1], s.dimension)

    def measured(params: Any) -> measures.Snapshot:
        return measures.snapshot(
            encode(params, clean),
            encode(params, test_views),
            max_samples=s.max_samples,
            seed=s.seed,
        )

    snapshots, epochs, metrics = [measured(params)], [0], []
    every = max(1, s.epochs // s.measurements)
    for i in range(1, s.epochs + 1):
        (params, state), in_epoch = epoch(params, state, jax.random.fold_in(run_key, i))
        metrics.append(jax.device_get(in_epoch))
        if i % every == 0 or i == s.epochs:
            snapshots.append(measured(params))
            epochs.append(i)
        bar.update()
    loss, norm = (np.concatenate(x) for x in zip(*metrics, strict=True))
    if not np.isfinite(loss).all():
        raise FloatingPointError(f"the loss of {name} is not finite")
    history = [each.measures for each in snapshots]
    return Trained(epochs, history, snapshots[0], snapshots[-1], norm, loss)


def mildness(s: Settings, name: inputs.Name) -> float:
    """eta of the theory, where it is known, else its least value."""
    if s.eta is not None:
        return s.eta
    return inputs.view_correlation(s) if name == "laplace" else 0.0


def beta_of(s: Settings, name: inputs.Name) -> float:
    """Weight of the penalty: the factor times 2 (1 - eta) / (temperature d)."""
    threshold = 2 * (1 - mildness(s, name)) / (s.temperature * s.dimension)
    return s.beta_factor * threshold


def check(s: Settings) -> None:
    """Refuses settings that cannot run, before anything is trained."""
    _files.check_new("directory", pathlib.Path(s.directory))
    if not s.laws or len(set(s.laws)) < len(s.laws):
        raise ValueError(f"laws must be different ones, got {s.laws}")
    for name, holds, expected in (
        ("batch_size", 2 <= s.batch_size <= s.num_train, "in [2, num_train]"),
        ("signal", 0 < s.signal <= 1, "in (0, 1]"),
        ("eta", s.eta is None or 0 <= s.eta <= 1, "in [0, 1]"),
        ("beta_factor", s.beta_factor >= 0, "at least 0"),
        ("epochs", s.epochs >= 1, "at least 1"),
        ("measurements", s.measurements >= 1, "at least 1"),
    ):
        if not holds:
            raise ValueError(f"{name} must be {expected}, got {getattr(s, name)}")


def main(s: Settings) -> dict[inputs.Name, dict[str, Trained]]:
    """Trains all encoders, writes tables and pictures, and returns the runs."""
    check(s)
    kinds = ["InfoNCE", "with penalty"] if s.beta_factor else ["InfoNCE"]
    runs: dict[inputs.Name, dict[str, Trained]] = {}
    with tqdm.tqdm(total=len(s.laws) * len(kinds) * s.epochs, unit="epoch") as bar:
        for name in s.laws:
            runs[name] = {}
            for kind in kinds:
                bar.set_postfix_str(f"{name}, {kind}")
                beta = beta_of(s, name) if kind == "with penalty" else 0.0
                runs[name][kind] = train(s, name, beta, bar)

    rows = []
    for name, of_input in runs.items():
        rows.append((f"{name}, untrained", of_input["InfoNCE"].first.measures))
        rows += [(f"{name}, {k}", run.last.measures) for k, run in of_input.items()]
    draw(s, runs)
    findings = list(conclude(s, runs))
    record = {
        "settings": dataclasses.asdict(s),
        "rows": {name: m._asdict() for name, m in rows},
        "runs": {
            name: {
                kind: {
                    "beta": beta_of(s, name) if kind == "with penalty" else 0.0,
                    "epochs": run.epochs,
                    "history": [m._asdict() for m in run.history],
                    "norm_by_epoch": run.norm.reshape(s.epochs, -1).mean(1).tolist(),
                    "loss_by_epoch": run.loss.reshape(s.epochs, -1).mean(1).tolist(),
                }
                for kind, run in of_input.items()
            }
            for name, of_input in runs.items()
        },
        "findings": findings,
    }
    path = pathlib.Path(s.directory) / "results.json"
    path.write_text(json.dumps(record, indent=2) + "\n")

    samples = rows[0][1].num_samples
    print(f"\nd = {s.dimension}, the tests saw {samples} held-out inputs\n")
    print(measures.table(rows, s.dimension))
    print(f"\nIn {s.directory}: results.json and pictures\n")
    print("\n".join(findings))
    return runs


def draw(s: Settings, runs: dict[inputs.Name, dict[str, Trained]]) -> None:
    """Writes all pictures."""
    directory = pathlib.Path(s.directory)
    moments: dict[str, dict[str, measures.Snapshot]] = {
        name: {
            "untrained": of_input["InfoNCE"].first,
            **{kind: run.last for kind, run in of_input.items()},
        }
        for name, of_input in runs.items()
    }
    pictures.norms(directory / "norms.png", moments)
    pictures.quantiles(directory / "quantiles.png", moments)
    pictures.cosines(directory / "cosines.png", moments)
    pictures.histories(
        directory / "metrics.png",
        [
            pictures.History(f"{name}, {kind}", i, j, run.epochs, run.history)
            for i, (name, of_input) in enumerate(runs.items())
            for j, (kind, run) in enumerate(of_input.items())
        ],
        s.dimension,
    )
    pictures.radii(
        directory / "radius.png",
        {name: {k: run.norm for k, run in of.items()} for name, of in runs.items()},
        math.sqrt(s.dimension / (2 * s.lam)),
    )


def conclude(s: Settings, runs: dict[inputs.Name, dict[str, Trained]]) -> Iterator[str]:
    """Sentences about what agrees with theory and paper, computed from the runs."""
    for name, of_input in runs.items():
        run = of_input["InfoNCE"]
        before, after = run.first.measures, run.last.measures
        was, became = measures.is_gaussian(before), measures.is_gaussian(after)
        if was and became:
            text = f"Gaussian, but so it was untrained (CLT over {s.size} numbers)"
        elif became:
            text = "training made it Gaussian, as the paper reports"
        elif was:
            text = "Gaussian untrained, and training undid it, unlike in the paper"
        else:
            text = "not Gaussian, untrained or trained, unlike in the paper"
        if "with penalty" in of_input:
            with_it = measures.is_gaussian(of_input["with penalty"].last.measures)
            text += f"; with the penalty {'Gaussian' if with_it else 'not Gaussian'}"
        yield f"{name}: {text}."
        yield (
            f"{name}: cv {before.cv:.3f} -> {after.cv:.3f}, "
            f"{diagnostics.gaussian_norm_cv(s.dimension):.3f} if Gaussian."
        )
        if name == "laplace" and s.encoder == "linear" and s.dimension <= s.size:
            yield from conclude_laplace(s, run)
        else:
            yield (
                f"{name}: alignment {before.alignment:.3f} -> {after.alignment:.3f}, "
                f"deviation of negatives {before.negative_std:.3f} -> "
                f"{after.negative_std:.3f}, {s.dimension**-0.5:.3f} if uniform."
            )
        yield from conclude_radius(s, name, of_input)


def conclude_laplace(s: Settings, run: Trained) -> Iterator[str]:
    """What is known in closed form of a linear map of laplace."""
    before, after = run.first.measures, run.last.measures
    n = len(run.last.positives)
    when = f"after {len(run.norm):,} steps, on {n:,} inputs"
    ceiling = inputs.view_correlation(s)
    # What the theory neglects, or four standard errors where there are few inputs.
    within = max(0.02, 4 * float(run.last.positives.std()) / math.sqrt(n))
    agrees = abs(after.alignment - ceiling) < within
    yield (
        f"laplace: alignment {before.alignment:.3f} -> {after.alignment:.3f} {when}; "
        f"theory {ceiling:.3f} +- {within:.3f}: {'agrees' if agrees else 'DISAGREES'}. "
        "The paper's figure shows about 0.97: "
        f"{abs(after.alignment - 0.97):.2f} away."
    )
    cv = inputs.projection_cv(s, s.dimension)
    # A standard deviation of n nearly normal norms scatters by 1 / sqrt(2 n) of itself.
    within = max(0.1, 4 / math.sqrt(2 * n)) * cv
    agrees = abs(after.cv - cv) < within
    yield (
        f"laplace: cv {after.cv:.3f} {when}; of an orthonormal projection {cv:.3f} +- "
        f"{within:.3f}: {'agrees' if agrees else 'DISAGREES'}."
    )


def conclude_radius(
    s: Settings, name: str, of_input: dict[str, Trained]
) -> Iterator[str]:
    """Whether the norm drifts without the penalty and stays with it."""
    target = math.sqrt(s.dimension / (2 * s.lam))
    for kind, run in of_input.items():
        tail = run.norm[-max(1, len(run.norm) // 10) :].mean()
        if kind == "InfoNCE":
            yield (
                f"{name}: without penalty the norm of views goes from "
                f"{run.norm[0]:.2f} to {tail:.2f} after {len(run.norm):,} steps: "
                f"{'it drifts' if tail > 1.05 * run.norm[0] else 'it does NOT grow'}."
            )
        else:
            near = abs(tail / target - 1) < 0.05
            yield (
                f"{name}: with penalty it is {tail:.2f} after {len(run.norm):,} steps, "
                f"{'pinned' if near else 'NOT pinned'} at sqrt(d / (2 lambda)) = "
                f"{target:.2f}."
            )
