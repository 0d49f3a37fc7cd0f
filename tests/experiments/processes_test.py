"""Two real processes of two devices each train, lose one of them, and resume."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcl import recipes, training

ROOT = pathlib.Path(__file__).parents[2]

# SGD: unlike Adam, it does not divide rounding errors by the size of a gradient.
FLAGS = [
    f"--{name}={value}"
    for name, value in {
        "width": 4,
        "embedding": 8,
        "batch_size": 16,
        "split": "train[:200]",
        "epochs": 1,
        "warmup_epochs": 0,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "log_every": 1,
        "save_every": 4,
        "evaluate_every": 8,
        "max_steps": 8,
        "average": 0.9,
    }.items()
]

# As `python -m experiments.simclr`, but that this process gets a signal in step 6, when
# the checkpoint of step 4 is on the disk.
DYING = """
import os, pathlib, sys, time
from experiments import simclr
from jaxcl import _cli, data

feed = data.feed
number, saved = int(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1)) / "checkpoints/4"

def dying(*arguments, **options):
    batch = feed(*arguments, **options)
    def at(step):
        while step == 5 and not saved.exists():
            time.sleep(0.05)
        if step == 5:
            os.kill(os.getpid(), number)
        return batch(step)
    return at

data.feed = dying
_cli.run(simclr.main, simclr.Settings, prog="dying")
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


def _start(program, flags, devices):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [sys.executable, *program, *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _started.append(process)
    return process


def _two(directory, programs, *flags):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = ["--coordinator", f"localhost:{port}", "--num-processes", "2"]
    return [
        _start(
            program,
            [
                *(*FLAGS, "--directory", str(directory), *where),
                *("--process-id", str(i), *flags),
            ],
            devices=2,
        )
        for i, program in enumerate(programs)
    ]


def _end(process, code=0):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


@pytest.mark.slow
def test_two_processes_lose_one_resume_and_equal_one_process(tmp_path):
    run, alone = tmp_path / "run", tmp_path / "alone"
    simclr = ["-m", "experiments.simclr"]
    one = _start(simclr, [*FLAGS, "--directory", str(alone)], devices=4)

    survivor, dying = _two(run, [simclr, ["-c", DYING, "9", str(run)]])
    _end(dying, -9)
    survivor.kill()  # a scheduler ends what waits for a process that is gone
    survivor.wait()
    assert (run / "checkpoints" / "4").is_dir()
    for process in _two(run, [simclr, simclr]):
        _end(process)
    _end(one)

    found, expected = (training.read_metrics(path) for path in (run, alone))
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    for a, b in zip(found, expected, strict=True):
        assert set(a) == set(b)
        for name in ("loss", "gradient_norm", "embedding_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)
    # The first process alone writes; each line is there once.
    assert len((run / "metrics.jsonl").read_text().splitlines()) < 2 * 8 + 2

    # Weights and their average, written by two processes, are read by one.
    for average in (True, False):
        ours, theirs = (
            recipes.open_encoder(path, average=average).variables
            for path in (run, alone)
        )
        for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_pass_over_what_is_broken(tmp_path):
    run, simclr = tmp_path / "run", ["-m", "experiments.simclr"]
    # The second is told to stop; both do.
    long = ["--max_steps", "30", "--epochs", "3"]
    first, second = _two(run, [simclr, ["-c", DYING, "15", str(run)]], *long)
    said = [_end(process, 75) for process in (first, second)]
    newest = max(int(p.name) for p in (run / "checkpoints").iterdir())
    assert newest > 4
    assert f"stopped by SIGTERM after step {newest}; the same command" in said[0]
    (run / "checkpoints" / str(newest) / "state" / "manifest.ocdbt").write_bytes(b"")
    said = [_end(p) for p in _two(run, [simclr, simclr], *long)]
    assert said[0].count(f"checkpoints/{newest}: this checkpoint is broken") == 1
    assert (run / "checkpoints" / "30").is_dir()
    assert (run / "checkpoints" / f"{newest}.broken").is_dir()
