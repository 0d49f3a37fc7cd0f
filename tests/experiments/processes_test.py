"""Two real processes of two devices each train, lose one of them, and resume."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np

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

# As `python -m experiments.simclr`, but that this process is killed in step 6, when the
# checkpoint of step 4 is on the disk.
DYING = """
import os, pathlib, signal, sys, time
from experiments import simclr
from jaxcl import _cli, data

feed, saved = data.feed, pathlib.Path(sys.argv.pop(1)) / "checkpoints" / "4"

def dying(*arguments, **options):
    batch = feed(*arguments, **options)
    def at(step):
        while step == 5:
            if saved.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
        return batch(step)
    return at

data.feed = dying
_cli.run(simclr.main, simclr.Settings, prog="dying")
"""


def _start(program, flags, devices):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, *program, *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _two(directory, programs):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = ["--coordinator", f"localhost:{port}", "--num-processes", "2"]
    return [
        _start(
            program,
            [*FLAGS, "--directory", str(directory), *where, "--process-id", str(i)],
            devices=2,
        )
        for i, program in enumerate(programs)
    ]


def _end(process, code=0):
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, output


def test_two_processes_lose_one_resume_and_equal_one_process(tmp_path):
    run, alone = tmp_path / "run", tmp_path / "alone"
    simclr = ["-m", "experiments.simclr"]
    one = _start(simclr, [*FLAGS, "--directory", str(alone)], devices=4)

    survivor, dying = _two(run, [simclr, ["-c", DYING, str(run)]])
    _end(dying, -9)
    survivor.kill()  # a scheduler ends what waits for a process that is gone
    survivor.communicate()
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
