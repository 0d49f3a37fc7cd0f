"""A training killed, stopped and damaged at random ends as one that was left alone.

    make torture

For 1, 2 and 4 devices: an unbroken run of `experiments.simclr` on the digits, and one
that meets accidents and is started again by the same command after each. Both must end
with the same bits, and with the same metrics at each step once. A last run changes its
number of devices at each accident and must say so; its losses stay near. Prints the
table of `docs/results.md`, and ends with an error if anything else happens.
"""

import dataclasses
import json
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import tyro

from jaxcl import _tables, training
from tests.training import events


@dataclasses.dataclass(frozen=True)
class Settings:
    """What happens to the runs.

    Attributes:
      kills: by signal 9, over all numbers of devices.
      stops: by SIGTERM.
      damages: of the newest checkpoint, each after a kill.
      steps: of each run.
      seed: of the accidents.
      directory: of the runs; by default a temporary one.
    """

    kills: int = 20
    stops: int = 5
    damages: int = 5
    steps: int = 500
    seed: int = 0
    directory: str = ""


DAMAGES = ("a bit of an array", "half a file", "a file gone", "a bit of a checksum")
# Periods that do not divide each other or the number of steps.
# SGD: unlike Adam, it does not divide rounding errors by the size of a gradient.
FLAGS = [
    *("--width=4", "--embedding=8", "--batch_size=48", "--epochs=20"),
    *("--optimizer=sgd", "--learning_rate=0.1", "--warmup_epochs=1"),
    *("--log_every=3", "--save_every=7", "--evaluate_every=50"),
]


class Training:
    """A run in its directory, by the same command however often it ends."""

    def __init__(self, root: pathlib.Path, name: str, steps: int, rng: random.Random):
        self.directory, self.rng = root / name, rng
        self.command = [
            *(sys.executable, "-m", "experiments.simclr", *FLAGS),
            *(f"--max_steps={steps}", f"--directory={self.directory}"),
        ]
        self.cache, self.starts, self.again = root / "cache", 0, 0

    def start(self, devices: int) -> subprocess.Popen:
        self.starts += 1
        flags = f"--xla_force_host_platform_device_count={devices}"
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        environment = {
            **os.environ,
            **cache,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
        }
        return subprocess.Popen(
            self.command, env=environment, stderr=subprocess.PIPE, text=True
        )

    def finish(self, process: subprocess.Popen, code: int) -> list[str]:
        """What the process said beside its bar, once it has ended as it should."""
        _, text = process.communicate()
        lines = text.replace("\r", "\n").splitlines()
        lines = [line for line in lines if line.strip() and "step/s" not in line]
        if process.returncode != code or any("Traceback" in line for line in lines):
            sys.exit(f"exit code {process.returncode}, expected {code}:\n{text}")
        return lines

    def accident(
        self, devices: int, number: signal.Signals, early: bool, at_least: int = 0
    ) -> list[str]:
        """Starts the run and sends it a signal at a random moment."""
        done = self.logged()
        process = self.start(devices)
        if early:  # while it starts, opens its data or compiles
            time.sleep(self.rng.uniform(0, 4))
        else:
            # The first time it has metrics, and no checkpoint yet.
            first = self.starts == 1
            until = 1 if first else self.kept() + self.rng.randrange(1, 40)
            until = max(until, at_least)
            while self.logged() == done or self.logged() < until:
                if process.poll() is not None:
                    sys.exit(f"the run ended too early: {process.communicate()}")
                time.sleep(0.002)
            time.sleep(0 if first else self.rng.uniform(0, 0.1))
        reached = self.logged()
        process.send_signal(number)
        code = 75 if number == signal.SIGTERM else -number
        lines = self.finish(process, code)
        self.again += max(0, reached - self.kept())
        return lines

    def logged(self) -> int:
        """The step of the last line of metrics."""
        try:
            lines = (self.directory / "metrics.jsonl").read_bytes().splitlines()
            return int(json.loads(lines[-1])["step"])
        except (OSError, ValueError, IndexError):
            return 0

    def kept(self) -> int:
        """The step of the newest checkpoint."""
        return max((int(path.name) for path in self.checkpoints()), default=0)

    def devices(self, broken: int | None) -> int:
        """From how many the newest checkpoint but a broken one was saved; or 0."""
        steps = [int(p.name) for p in self.checkpoints() if p.name != str(broken)]
        if not steps:
            return 0
        path = self.directory / "checkpoints" / str(max(steps)) / "checks" / "metadata"
        return int(json.loads(path.read_text())["devices"])

    def checkpoints(self) -> list[pathlib.Path]:
        found = (self.directory / "checkpoints").glob("*")
        return [path for path in found if path.name.isdigit()]

    def damage(self) -> int:
        """Damages the newest checkpoint as a disk may do; returns its step."""
        step, how = self.kept(), self.rng.choice(DAMAGES)
        newest = self.directory / "checkpoints" / str(step)
        file = newest / "checks" / "metadata"
        if how != "a bit of a checksum":
            arrays = list((newest / "state" / "d").iterdir())
            file = max(arrays, key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        if how == "half a file":
            del content[len(content) // 2 :]
        else:
            content[self.rng.randrange(len(content) // 2, len(content))] ^= 1
        file.write_bytes(content)
        if how == "a file gone":
            file.unlink()
        return step

    def arrays(self) -> dict[str, np.ndarray]:
        """The last checkpoint, read by Orbax alone."""
        path = self.directory.absolute() / "checkpoints" / str(self.kept()) / "state"
        reader = ocp.PyTreeCheckpointer()
        tree = reader.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), tree)
        restored = reader.restore(path, ocp.args.PyTreeRestore(restore_args=arguments))
        leaves, _ = jax.tree_util.tree_flatten_with_path(restored)
        return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}

    def metrics(self) -> dict[int, dict[str, float]]:
        """By step, without what depends on the clock."""
        return {
            record.pop("step"): {
                k: v for k, v in record.items() if k != "steps_per_second"
            }
            for record in training.read_metrics(self.directory)
        }


def check_watched(run: Training, whole: Training) -> int:
    """Compares metrics and TensorBoard's; how many values of monitors are missing."""
    expected, found = whole.metrics(), run.metrics()
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    missing = 0
    for step, values in expected.items():
        # A run killed between saving and watching does not watch that step again.
        missing += len(values.keys() - found[step].keys())
        assert found[step].items() <= values.items(), (step, found[step], values)
    shown = events.shown(run.directory)  # fails where a step is shown twice
    assert shown["loss"].keys() == {k for k, v in expected.items() if "loss" in v}
    return missing


def torture(
    run: Training, devices: tuple[int, ...], kills: int, stops: int, damages: int
) -> int:
    """Lets a run meet accidents in random order, then brings it to its end.

    Returns how often it had no checkpoint yet.
    """
    plan = ["kill"] * (kills - damages) + ["stop"] * stops
    run.rng.shuffle(plan)
    for _ in range(damages):  # there are two checkpoints then
        plan.insert(run.rng.randint(min(2, len(plan)), len(plan)), "kill and damage")
    at_start, broken = 0, None
    for number, what in enumerate(plan):
        before = run.kept()
        chance = run.rng.random() < 0.25
        early = chance and what == "kill" and broken is None and bool(run.checkpoints())
        signaled = signal.SIGTERM if what == "stop" else signal.SIGKILL
        count, saved_from = devices[number % len(devices)], run.devices(broken)
        # To be damaged, it needs a checkpoint before the newest one.
        at_least = 24 if what == "kill and damage" else 0
        lines = run.accident(count, signaled, early, at_least)
        at_start += not run.checkpoints()
        print(f"{run.directory.name}: {what} at {run.logged()}, kept {run.kept()}")
        warned = [line for line in lines if "is broken" in line]
        assert len(warned) == (broken is not None), lines
        if broken is None:
            assert run.kept() >= before
        else:
            assert f"checkpoints/{broken}: this checkpoint" in warned[0], warned
        if what == "stop":
            said = f"stopped by SIGTERM after step {run.kept()};"
            assert any(said in line for line in lines), lines
        if any("resuming" in line for line in lines):  # not killed before that
            moved = any("goes on with" in line for line in lines)
            assert moved == (saved_from != count), (saved_from, count, lines)
        broken = run.damage() if what == "kill and damage" else None
    lines = run.finish(run.start(devices[-1]), 0)
    assert lines[-1].endswith(f"is at step {run.kept()}"), lines
    return at_start


def main(s: Settings) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    rng = random.Random(s.seed)
    root = pathlib.Path(s.directory or tempfile.mkdtemp()).absolute()
    rows = []
    whole: dict[int, Training] = {}
    share = [
        len(range(i, n, 4)) for n in (s.kills, s.stops, s.damages) for i in range(4)
    ]
    for i, devices in enumerate([(1,), (2,), (4,), (2, 4, 1)]):
        last = devices[-1]
        if last not in whole:
            whole[last] = Training(root, f"unbroken-{last}", s.steps, rng)
            whole[last].finish(whole[last].start(last), 0)
        name = "-".join(map(str, devices))
        run = Training(root, f"tortured-{name}", s.steps, rng)
        kills, stops, damages = share[i::4]
        at_start = torture(run, devices, kills, stops, damages)
        expected, found = whole[last].arrays(), run.arrays()
        assert expected.keys() == found.keys()
        apart = 0.0
        if len(devices) == 1:
            assert all(np.array_equal(found[k], x) for k, x in expected.items())
            missing = str(check_watched(run, whole[last]))
        else:
            # To rounding, until a ReLU close to 0 switches by it.
            losses = [
                np.array([x["loss"] for x in r.metrics().values() if "loss" in x])
                for r in (run, whole[last])
            ]
            apart = float(np.abs(losses[0] / losses[1] - 1).mean())
            assert apart < 0.05, losses
            missing = "-"
        end = f"losses within {apart:.1%}" if apart else "the same bits"
        counts = kills, at_start, stops, damages, run.again, missing
        rows.append((", ".join(map(str, devices)), run.starts, *counts, end))
    head = (
        *("devices", "starts", "kill -9", "of them before a checkpoint", "SIGTERM"),
        *("damaged", "steps done again", "values of monitors missed", "end"),
    )
    print(_tables.markdown(head, rows))
    if not s.directory:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(tyro.cli(Settings, use_underscores=True))
