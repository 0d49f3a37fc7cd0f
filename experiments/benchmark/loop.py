"""What the loop of a script costs beside its step: data, log, and the run directory.

The same compiled step is timed on one batch that stays on the device, and in the loop
that scripts have, whose images live on the device or come from the host. All of them
are interleaved, so that whatever else the machine does hits all of them.
"""

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

import jaxcl
from experiments.benchmark import report
from jaxcl import (
    _checks,
    _files,
    _rules,
    _tables,
    augment,
    data,
    losses,
    recipes,
    training,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Times a script's loop against its bare step; writes a table and JSON."""

    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    augmentation: Literal["characters", "photographs"] = "characters"
    """Affine maps and noise; or crops, flips and colors of SimCLR."""
    encoder: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """Three convolutions and a dense layer, or a residual network."""
    width: _rules.Count = 32
    """Channels of the encoder's first stage; 64 is the usual residual network."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model computes."""
    batch_size: _rules.Several = 128
    """Images per step, over all devices."""
    log_every: _rules.Count = 50
    """Steps between two lines of metrics."""
    steps: _rules.Count = 50
    """Steps of each loop in a round."""
    rounds: _rules.Count = 7
    """Rounds; a ratio is the median over them."""
    directory: str | None = None
    """Where to write; None is a new folder in runs/benchmark named by date and time."""


LOOPS = {"images on the device": True, "images from the host": False}


def main(s: Settings) -> list[dict[str, Any]]:
    _rules.check(s)
    devices = jax.device_count()
    _checks.divisible("batch_size", s.batch_size, devices, f"{devices} devices")
    now = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
    home = _files.check_new("directory", s.directory or f"runs/benchmark/loop_{now}")
    seconds = measure(s, home)
    bare = np.array(seconds["bare step"])
    rows: list[dict[str, Any]] = [
        {
            "loop": name,
            "seconds_per_step": float(np.median(times)) / s.steps,
            "ratio": float(np.median(np.array(times) / bare)),
        }
        for name, times in seconds.items()
    ]
    record = {
        "machine": report.machine(),
        "settings": dataclasses.asdict(s),
        "seconds": seconds,
        "rows": rows,
    }
    _files.write_json(home / "results.json", record)
    lines = [
        [row["loop"], f"{1e3 * row['seconds_per_step']:.2f} ms", f"{row['ratio']:.3f}"]
        for row in rows
    ]
    print(f"\n{record['machine']}\n")
    print(_tables.markdown(["loop", "time per step", "of the bare step"], lines))
    print(f"\nMedians of {s.rounds} rounds of {s.steps} steps. In {home}: results.json")
    return rows


def measure(s: Settings, home: pathlib.Path) -> dict[str, list[float]]:
    """Seconds of each round, by the name of the loop."""
    mesh, rows, whole = jaxcl.data_parallel()
    r = recipes.Images(
        source=s.source,
        augmentation=s.augmentation,
        encoder=s.encoder,
        width=s.width,
        dtype=s.dtype,
        batch_size=s.batch_size,
        monitors=(),
    )
    images = recipes.open_images(r)
    shape = recipes.image_size(images)
    transform = recipes.make_transform(r, shape)
    described = recipes.describe(r, shape)
    apply, tx = recipes.make_apply(r, described), recipes.make_optimizer(r, images)
    loss = jaxcl.sharded(losses.nt_xent, mesh)

    def new_state() -> training.TrainState:
        params, stats = recipes.initialize(r, described)
        return data.put(training.create_state(params, stats, tx), whole)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        views = augment.images.views(key, batch["image"], transform)
        variables = {"params": params["model"], **state.model_state}
        out, changed = training.apply_views(apply, variables, views)
        return training.Outcome(loss(out["z"]), changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key)

    key = data.put(jax.random.key(1), whole)
    resident = data.feed(images, s.batch_size, 0, rows)(0)

    def bare() -> Callable[[], None]:
        state = new_state()

        def steps() -> None:
            nonlocal state
            for _ in range(s.steps):
                state, _ = step(state, resident, key)
            jax.block_until_ready(state)

        return steps

    def looped(run: training.Run, state: Any, on_device: bool) -> Callable[[], None]:
        feed = data.feed(images, s.batch_size, 0, rows, on_device=on_device)
        numbers = run.steps()

        def steps() -> None:
            nonlocal state
            for _ in range(s.steps):
                i = next(numbers)
                state, metrics = step(state, feed(i), key)
                run.log(i + 1, metrics)
                run.save(i + 1, state)
            jax.block_until_ready(state)

        return steps

    last = 1 + s.steps * (s.rounds + 1)  # which is never reached: nothing is saved
    with contextlib.ExitStack() as stack:
        loops = {"bare step": bare()}
        for name, on_device in LOOPS.items():
            opened = training.open_run(
                home / name.replace(" ", "_"),
                s,
                new_state(),
                last=last,
                log_every=s.log_every,
                save_every=last,
                progress=False,
            )
            loops[name] = looped(*stack.enter_context(opened), on_device)
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for round_ in range(s.rounds + 1):
            for name, steps in loops.items():
                began = time.perf_counter()
                steps()
                if round_:  # in the first one everything is compiled
                    seconds[name].append(time.perf_counter() - began)
    return seconds
