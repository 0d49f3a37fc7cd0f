"""Two real processes: found as a scheduler starts them, fed, stopped, and resumed."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxcl import training

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# A comparison of two small trainings. A process sends itself signal NUMBER at PLACE.
STUDY = """
import dataclasses, os, pathlib, signal, sys, time
import jax, jax.numpy as jnp, numpy as np, optax
import jaxcl
from jaxcl import _cli, data, recipes, study, training

@dataclasses.dataclass(frozen=True)
class Settings(recipes.Training):
    directory: str
    source: str = "made here"
    rate: float = 0.1

def kill(place):
    if os.environ["PLACE"] == place:
        os.kill(os.getpid(), int(os.environ["NUMBER"]))

def pretrain(s):
    mesh, rows, whole = jaxcl.data_parallel()
    tx = optax.sgd(s.rate)
    state = data.put(training.create_state({"w": jnp.ones(3)}, {}, tx), whole)
    examples = np.arange(240, dtype=np.float32).reshape(80, 3) / 240
    feed = data.feed(data.Dataset("made", {"x": examples}), 8, s.seed, rows)

    @jax.jit
    def step(state, batch):
        def loss_fn(params, state, batch, key):
            return training.Outcome(jnp.square(batch["x"] - params["w"]).sum(axis=1))
        return training.train_step(loss_fn, state, batch, jax.random.key(0))

    name = pathlib.Path(s.directory).parent.name
    with training.open_run(
        s.directory, s, state, last=30, log_every=1, may_change=recipes.MAY_CHANGE
    ) as (run, state):
        for i in run.steps():
            if i == run.first + 2:
                kill(name)
            if i == 29:
                kill("last step of " + name)
            time.sleep(0.1)
            state, metrics = step(state, feed(i))
            run.log(i + 1, metrics)
            run.save(i + 1, state)
    return state

def main(s):
    recipes.join(s)
    def features(s, trained):
        return jax.device_get(pretrain(s).params["w"]) if trained else np.zeros(3)
    one = study.Study(
        pretrain, features,
        lambda w: study.Measured({"sum": float(w.sum())}),
        study.Metric({"sum": "sum"}, ["sum"]),
    )
    variants = {"slow": {}, "fast": {"rate": 0.2}}
    rows = study.run(one, s, variants, [0], may_change=recipes.MAY_CHANGE)
    study.report(s.directory, rows, settings=s, variants=variants, title="t",
                 baseline="slow")

_cli.run(main, Settings, prog="study")
"""


_started = []


@pytest.fixture(autouse=True)
def _none_outlives_its_test():
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()
        process.stdout.close()


def start(program, *flags, environment=None):
    process = subprocess.Popen(
        [sys.executable, "-c", program, *flags],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _started.append(process)
    return process


def end(process, code=0):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def compare(directory, places=("", ""), number=signal.SIGTERM):
    """Both processes of a comparison, and where each of them gets the signal."""
    where = ["--coordinator", f"localhost:{free_port()}", "--num-processes", "2"]
    return [
        start(
            STUDY,
            *("--directory", str(directory), *where, "--process-id", str(i)),
            environment={"PLACE": place, "NUMBER": str(int(number))},
        )
        for i, place in enumerate(places)
    ]


def saved(directory):
    checkpoints = (directory / "seed_0" / "checkpoints").glob("[0-9]*")
    return max((int(path.name) for path in checkpoints), default=0)


def test_a_comparison_stops_in_all_processes_whenever_one_is_asked(tmp_path):
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    # A scheduler tells both.
    first, second = (end(p, 75) for p in compare(tmp_path, ["slow", "slow"]))
    assert f"stopped by SIGTERM after step {saved(slow)}; the same" in first
    assert 3 <= saved(slow) < 30

    # Or it tells one, and only when there is no step left to stop at: the next run is.
    first, second = (
        end(p, 75) for p in compare(tmp_path, ["", "last step of slow"])
    )
    assert saved(slow) == 30
    assert saved(fast) < 30
    assert "stopped by SIGTERM after" in first

    # Ctrl-C in the terminal of one.
    before = saved(fast)
    first, second = (
        end(p, 75) for p in compare(tmp_path, ["fast", ""], signal.SIGINT)
    )
    assert f"stopped by SIGINT after step {saved(fast)}; the same" in first
    assert before < saved(fast) < 30

    # And it goes on to its end, from one process after another coordinator.
    first, second = (end(p) for p in compare(tmp_path))
    assert "One seed supports nothing" in first
    assert [line for line in second.splitlines() if "Gloo" not in line] == []
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == [
        "untrained encoder",
        "slow",
        "fast",
    ]
    assert list(tmp_path.glob("results*")) == [tmp_path / "results.json"]
    for run in (slow, fast):
        lines = training.read_metrics(run / "seed_0")
        assert [line["step"] for line in lines] == list(range(1, 31))
