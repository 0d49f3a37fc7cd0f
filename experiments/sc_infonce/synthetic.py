"""SC-InfoNCE where the answer is known: classes that augmentation mixes.

python -m experiments.sc_infonce
python -m experiments.sc_infonce synthetic --settings 1,0 2,1 --steps 3000

Views are drawn from a known transition matrix A between K states, so the probabilities
that InfoNCE and SC-InfoNCE converge to are known as well. Measured probabilities are
set against them: of a critic that is free to take any value for each pair of states,
which reaches them exactly; of an encoder with inner products, which comes near; and of
encoders with cosines, which are bounded. Other losses are trained beside them, on the
same views.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments.sc_infonce import report, theory
from jaxcl import _files, _rules, _text, kernels, losses, models, training
from jaxcl.pictures import studies, style


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains encoders on views of a known transition matrix and measures what they
    converge to."""

    directory: str = "runs/sc_infonce"
    """Where the table and the pictures go; one that holds results is refused."""
    settings: Annotated[tuple[str, ...], _rules.Different] = (
        "1,0",
        "1.5,0.5",
        "0.8,-0.2",
        "1.5,0",
    )
    """Pairs alpha,beta of SC-InfoNCE; exact where alpha - beta = 1."""
    temperature: _rules.Positive = 1.0
    """Divides cosines; the authors' synthetic experiment has 1."""
    batch_size: _rules.Several = 1000
    """Candidates N of each anchor, in training and in what is measured."""
    steps: Annotated[int, _rules.whole(11)] = 800
    """Optimization steps of each encoder."""
    learning_rate: _rules.Positive = 3e-3
    """Highest rate of Adam; 10 steps of warm-up, then cosine."""
    noise: _rules.NotNegative = 0.1
    """Standard deviation of features around their state's; 0.3 hides some states."""
    test_batches: _rules.Count = 20
    """Batches over which probabilities are measured."""
    seed: _rules.Seed = 0
    """Of parameters and views."""


def train(s: Settings, loss: Callable[[jax.Array], jax.Array]) -> Callable[..., Any]:
    """Trains an encoder by a loss of embeddings [b, 3, d] and returns it."""
    model = models.Projector(output=16, hidden=32, depth=3, batch_norm=False)
    key = jax.random.key(s.seed)
    tx = optax.adam(training.warmup_cosine(s.learning_rate, 10, s.steps))
    parameters = model.init(jax.random.fold_in(key, 0), jnp.ones((1, 8)), train=True)

    def encode(parameters: Any, x: jax.Array) -> jax.Array:
        z = model.apply(parameters, x.reshape(-1, 8), train=True)
        return jnp.asarray(z).reshape(*x.shape[:-1], 16)

    def loss_fn(parameters: Any, state: Any, views: jax.Array, key: jax.Array) -> Any:
        return training.Outcome(loss(encode(parameters, views)))

    @jax.jit
    def run(state: training.TrainState) -> training.TrainState:
        def step(i: Any, state: training.TrainState) -> training.TrainState:
            views = theory.draw(jax.random.fold_in(key, i + 1), s.batch_size, s.noise)
            return training.train_step(loss_fn, state, views.x, key)[0]

        return jax.lax.fori_loop(0, s.steps, step, state)

    state = run(training.create_state(parameters, {}, tx))
    return functools.partial(encode, state.params)


def measured(
    s: Settings, loss: Callable[[jax.Array], jax.Array], kernel: kernels.Kernel
) -> theory.Measured:
    """Trains an encoder and measures it on views that it has not seen."""
    return theory.measure(
        train(s, loss),
        kernel,
        batch_size=s.batch_size,
        noise=s.noise,
        batches=s.test_batches,
        seed=s.seed + 1,
    )


class Case(NamedTuple):
    """A loss, and what is known of where it ends.

    Attributes:
      name: in the table.
      loss: of embeddings [b, 3, d].
      kernel: by which its probabilities are measured.
      alpha: of its target; None is InfoNCE's.
      beta: of its target.
    """

    name: str
    loss: Callable[[jax.Array], jax.Array]
    kernel: kernels.Kernel
    alpha: float | None = None
    beta: float = 0.0


def parse(pair: str) -> tuple[float, float]:
    try:
        alpha, beta = (float(x) for x in pair.split(","))
    except ValueError as error:
        raise ValueError(
            f"settings must be pairs alpha,beta such as 1.2,0.2, got {pair!r}"
        ) from error
    return alpha, beta


def of_two(loss: Callable[..., jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A loss of the first two of some views."""
    return lambda z: loss(z[:, 0], z[:, 1])


def cases(s: Settings) -> list[Case]:
    """InfoNCE with inner products and with cosines, then SC-InfoNCE for each pair."""
    t = s.temperature
    found = [
        Case(name, of_two(functools.partial(losses.info_nce, kernel=kernel)), kernel)
        for name, kernel in (
            ("InfoNCE, dot", kernels.dot(t)),
            ("InfoNCE", kernels.cosine(t)),
        )
    ]
    for a, b in map(parse, s.settings):
        loss = functools.partial(losses.sc_info_nce, temperature=t, alpha=a, beta=b)
        name = f"SC {a:g}, {b:g}"
        found.append(Case(name, of_two(loss), kernels.cosine(t), a, b))
    return found


def others(t: float) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """The losses that the authors compare with, judged by their cosines alone."""
    return {
        "NT-Xent": lambda z: losses.nt_xent(z[:, :2], temperature=t),
        "DCL": lambda z: losses.dcl(z[:, :2], temperature=t),
        "DHEL": lambda z: losses.dhel(z[:, :2], temperature=t),
        "IS-InfoNCE": lambda z: losses.is_info_nce(
            z[:, 0], z[:, 1], z[:, 2], temperature=t
        ),
        "KCL": lambda z: losses.kcl(z[:, :2], kernel=kernels.gaussian(t), weight=1.0),
        "f-MICL": lambda z: losses.f_micl(z[:, :2]),
    }


def main(s: Settings) -> list[dict[str, Any]]:
    _rules.check(s)
    directory = _files.check_new("directory", s.directory)
    known, further = cases(s), others(s.temperature)

    rows = []
    bar = tqdm.tqdm(
        total=len(known) + len(further), unit="encoder", file=_text.TERMINAL
    )
    for case in known:
        found = measured(s, case.loss, case.kernel)
        shares = found.full if case.alpha is None else found.negatives
        wanted = theory.target(case.alpha, case.beta, s.batch_size)
        rows.append(
            {
                "loss": case.name,
                "alpha": case.alpha,
                "beta": case.beta,
                "encoder_error": float(np.abs(shares / wanted - 1).max()),
                "contrast": float(shares.max() / shares.min()),
                "target_contrast": float(wanted.max() / wanted.min()),
                "free_critic_error": theory.free_critic(case.alpha, case.beta),
                "measured": (shares * (s.batch_size - 1)).tolist(),
                "target": (wanted * (s.batch_size - 1)).tolist(),
                "cosine": found.cosine.tolist(),
            }
        )
        bar.update()
    cosines = {"InfoNCE": np.array(rows[1]["cosine"])}
    for name, loss in further.items():
        cosines[name] = measured(s, loss, kernels.cosine(s.temperature)).cosine
        bar.update()
    bar.close()

    record = {"settings": dataclasses.asdict(s), "rows": rows}
    record["cosines"] = {name: c.tolist() for name, c in cosines.items()}
    _files.write_json(directory / "results.json", record)
    print("\nlargest relative distance from the target, over pairs of states")
    print("contrast: largest over smallest probability\n")
    print(report.table(rows))
    print(f"\nIn {directory}: targets.png, cosines.png, results.json\n")
    print("\n".join(report.conclude(rows, s.steps)))
    style.attempt(
        studies.matrices,
        directory / "targets.png",
        [row["loss"] for row in rows],
        {
            kind: [np.array(row[kind]) for row in rows]
            for kind in ("measured", "target")
        },
        center=1.0,
        title="Probability of a candidate by states, times (N - 1): 1 is chance",
        axes=("anchor's state", "candidate's state"),
    )
    style.attempt(
        studies.matrices,
        directory / "cosines.png",
        list(cosines),
        {"": list(cosines.values())},
        limits=(-1.0, 1.0),
        title="Mean cosine of two views, by their states",
        axes=("anchor's state", "candidate's state"),
    )
    return rows
