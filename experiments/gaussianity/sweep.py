"""How batch size and dimension change the thin shell of norms and the spread of angles.

python -m experiments.gaussianity sweep

All batch sizes and seeds of one dimension are trained at once, in one compiled program:
every encoder sees the same batch, of which a smaller batch size keeps the first
examples (`valid`). So all take the same number of steps; the paper gives all the same
number of epochs, hence small batches more steps.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments.gaussianity import encoders, inputs
from jaxcl import _files, _rules, _tables, _text, diagnostics, training
from jaxcl.pictures import style

Sizes = Annotated[tuple[_rules.Several, ...], _rules.Different]


@dataclasses.dataclass(frozen=True)
class Settings(inputs.Scales):
    """Trains linear encoders over batch sizes, dimensions and seeds."""

    directory: str = "runs/gaussianity_sweep"
    """Where the table and the picture go; one that holds results is refused."""
    law: inputs.Name = "laplace"
    """Law to draw inputs from."""
    batch_sizes: Sizes = (8, 16, 32, 64, 128)
    """N; the paper has 48 and 96 as well."""
    dimensions: Sizes = (32, 64, 128)
    """d; the paper has 256 and 512 as well."""
    seeds: _rules.Count = 2
    """Encoders for each; the band in the picture is their range."""
    steps: _rules.Count = 500
    """Optimization steps."""
    num_test: _rules.Several = 2000
    """Held-out inputs that are measured."""
    temperature: _rules.Positive = 0.1
    """Divides cosines."""
    learning_rate: _rules.Positive = 1e-3
    """Of Adam, constant."""
    seed: _rules.Seed = 0
    """Of inputs, parameters and views."""


TITLES = ("CV of the norm", "alignment", "std of negative cosines")
SHARES = TITLES[1:2]


def train(s: Settings, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is measured [3, seeds, batch sizes], and untrained [3, seeds]."""
    source = inputs.make(s.law, s)
    model = encoders.make("linear", dimension)
    loss_fn = encoders.make_loss(model, s.temperature)
    largest = max(s.batch_sizes)
    sizes = jnp.asarray(s.batch_sizes)
    key = jax.random.key(s.seed)
    tests = source.draw(jax.random.fold_in(key, 0), s.num_test)
    clean = source.clean(jax.random.fold_in(key, 1), tests)
    views = source.views(jax.random.fold_in(key, 2), tests)

    def of_seed(key: jax.Array) -> Any:
        init_key, run_key = jax.random.split(key)
        first = encoders.create_state(model, init_key, clean[:1], s.learning_rate)
        lanes = jax.tree.map(
            lambda p: jnp.broadcast_to(p, (len(sizes), *p.shape)), first
        )

        def step(lanes: Any, i: jax.Array) -> Any:
            draw_key, view_key = jax.random.split(jax.random.fold_in(run_key, i))
            # New inputs in every step: nothing to overfit, whatever the batch size.
            batch = source.views(view_key, source.draw(draw_key, largest))

            def of_size(lane: Any, size: jax.Array) -> Any:
                masked = {"views": batch, "valid": jnp.arange(largest) < size}
                return training.train_step(loss_fn, lane, masked, run_key)[0]

            return jax.vmap(of_size)(lanes, sizes), None

        last, _ = jax.lax.scan(step, lanes, jnp.arange(s.steps))
        return first.params, last.params

    keys = jax.random.split(jax.random.fold_in(key, 3), s.seeds)
    first, last = jax.jit(jax.vmap(of_seed))(keys)

    def measured(params: Any) -> list[float]:
        z = jnp.asarray(model.apply(params, clean))
        pair = jnp.asarray(model.apply(params, views.reshape(-1, s.size)))
        pair = pair.reshape(-1, 2, dimension)
        cosines = diagnostics.alignment_cosine(pair[:, 0], pair[:, 1])
        spread = diagnostics.uniformity_cosine(z)[1]
        return [float(diagnostics.norm_cv(z)), float(cosines.mean()), float(spread)]

    untrained = np.zeros((3, s.seeds))
    trained = np.zeros((3, s.seeds, len(s.batch_sizes)))
    for i in range(s.seeds):
        untrained[:, i] = measured(jax.tree.map(lambda p, i=i: p[i], first))
        for j in range(len(s.batch_sizes)):
            lane = jax.tree.map(lambda p, i=i, j=j: p[i, j], last)
            trained[:, i, j] = measured(lane)
    return trained, untrained


def check(s: Settings) -> None:
    _rules.check(s)
    _files.check_new("directory", s.directory)


def main(s: Settings) -> dict[str, np.ndarray]:
    """Trains all encoders and returns what is measured, by title."""
    check(s)
    both = [train(s, d) for d in tqdm.tqdm(s.dimensions, file=_text.TERMINAL)]
    trained = np.stack([x for x, _ in both], axis=1)  # [3, dimensions, seeds, sizes]
    untrained = np.stack([x for _, x in both], axis=1)
    found = dict(zip(TITLES, trained, strict=True))
    first = dict(zip(TITLES, untrained, strict=True))
    theory = {
        TITLES[0]: [diagnostics.gaussian_norm_cv(d) for d in s.dimensions],
        TITLES[2]: [d**-0.5 for d in s.dimensions],
    }
    if s.law == "laplace":
        theory[TITLES[1]] = [inputs.view_correlation(s)] * len(s.dimensions)
    directory = pathlib.Path(s.directory)
    findings = list(conclude(s, found))
    record = {
        "settings": dataclasses.asdict(s),
        "trained": {title: x.tolist() for title, x in found.items()},
        "untrained": {title: x.tolist() for title, x in first.items()},
        "theory": theory,
        "findings": findings,
    }
    _files.write_json(directory / "results.json", record)

    for title, values in found.items():
        over = f"mean over {s.seeds} seeds" if s.seeds > 1 else "of one seed"
        print(f"\n{title}, {over}\n")
        lines = [
            [
                d,
                f"{first[title][i].mean():.3f}",
                *(f"{x:.3f}" for x in values[i].mean(axis=0)),
                f"{theory[title][i]:.3f}" if title in theory else "-",
            ]
            for i, d in enumerate(s.dimensions)
        ]
        sizes = [f"N = {n}" for n in s.batch_sizes]
        print(_tables.markdown(["d", "untrained", *sizes, "theory"], lines))
    print(f"\nIn {s.directory}: results.json, sweep.png\n")
    print("\n".join(findings))
    about = s.batch_sizes, s.dimensions, found, first, theory, s.law
    style.attempt(draw, directory / "sweep.png", *about)
    return found


def draw(
    path: pathlib.Path,
    batch_sizes: Sequence[int],
    dimensions: Sequence[int],
    found: Mapping[str, np.ndarray],
    untrained: Mapping[str, np.ndarray],
    theory: Mapping[str, Sequence[float]],
    law: str,
) -> None:
    """Measures against the batch size, one curve for each dimension.

    By title: found [dimensions, seeds, batch sizes], untrained [dimensions, seeds], and
    theory [dimensions], which may lack titles.
    """
    figure, axes = style.panels(1, len(found), width=4.4, height=3.6)
    for panel, (title, values) in zip(axes[0], found.items(), strict=True):
        for i, d in enumerate(dimensions):
            color = style.COLORS[2 * i % len(style.COLORS)]
            panel.fill_between(
                batch_sizes,
                values[i].min(axis=0),
                values[i].max(axis=0),
                color=color,
                alpha=0.2,
                lw=0,
            )
            panel.plot(
                batch_sizes,
                values[i].mean(axis=0),
                color=color,
                marker=style.MARKERS[i % len(style.MARKERS)],
                lw=2,
                label=f"d = {d}",
            )
            panel.axhline(untrained[title][i].mean(), color=color, lw=1, ls=":")
            if title in theory:
                panel.axhline(theory[title][i], color=color, lw=1.2, ls="--")
        panel.plot([], [], color="black", lw=1, ls=":", label="untrained")
        panel.plot([], [], color="black", lw=1.2, ls="--", label="theory")
        panel.set_xscale("log", base=2)
        panel.set_xticks(batch_sizes, [str(n) for n in batch_sizes])
        panel.minorticks_off()
        if title in SHARES:
            panel.set_ylim(0, 1.05)
        else:
            style.from_zero(panel)
        panel.set_title(title, fontsize=12)
        panel.set_xlabel("batch size N")
    style.heading(
        figure,
        f"{law}: encoders of one dimension take the same number of steps",
        "theory: Gaussian embeddings left and right"
        + (SHARES[0] in theory) * ", the views' correlation between",
    )
    style.legend_below(figure, axes[0, 0], len(dimensions) + 2)
    style.save(figure, path)


def conclude(s: Settings, found: dict[str, np.ndarray]) -> Iterator[str]:
    """Sentences about what agrees with the paper's findings, computed."""
    if s.law == "laplace":
        largest = int(np.argmax(s.batch_sizes))
        for d, cv in zip(s.dimensions, found[TITLES[0]][..., largest], strict=True):
            yield (
                f"d = {d}: cv {cv.mean():.3f} with the largest batch, of an "
                f"orthonormal projection {inputs.projection_cv(s, d):.3f}, if Gaussian "
                f"{diagnostics.gaussian_norm_cv(d):.3f}."
            )
    claims = (
        (TITLES[0], "falls", 1e-3),
        (TITLES[1], "stays", 0.02),
        (TITLES[2], "falls", 1e-3),
    )
    for title, claim, tolerance in claims:
        mean = found[title].mean(axis=1)  # [dimensions, sizes]
        for about, change in (("d", np.diff(mean, axis=0)), ("N", np.diff(mean))):
            if not change.size:
                continue
            if claim == "falls":
                holds = bool((change < tolerance).all() and change.mean() < -tolerance)
            else:
                holds = bool(np.ptp(mean, axis=0 if about == "d" else 1).max() < 0.05)
            yield (
                f"The paper: {title} {claim} with {about}. "
                f"{'Supported' if holds else 'Not supported'} by these runs of "
                f"{s.steps:,} steps (mean change from one {about} to the next "
                f"{change.mean():+.4f})."
            )
