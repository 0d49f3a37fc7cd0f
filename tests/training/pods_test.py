"""Two real processes: found as a scheduler starts them, fed, stopped, and resumed."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxcl import training
from jaxcl.data import prepare

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
    first, second = (end(p, 75) for p in compare(tmp_path, ["", "last step of slow"]))
    assert saved(slow) == 30
    assert saved(fast) < 30
    assert "stopped by SIGTERM after" in first

    # Ctrl-C in the terminal of one.
    before = saved(fast)
    first, second = (end(p, 75) for p in compare(tmp_path, ["fast", ""], signal.SIGINT))
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


# Feeding from a prepared set and from a mapped file, as a scheduler starts processes.
FED = """
import json, os, pathlib, sys
import jax, numpy as np
import jaxcl
from jaxcl import _host, data, training

training.join_processes()
here, source, mapped = jax.process_index(), sys.argv[1], sys.argv[2]
assert (jax.process_count(), _host.processes_here) == (2, 2)
mesh, rows, whole = jaxcl.data_parallel()

class Counted:
    def __init__(self, column):
        self.column, self.lazy, self.asked = column, True, []
    def __len__(self):
        return len(self.column)
    def __getitem__(self, indices):
        self.asked += np.asarray(indices).tolist()
        return self.column[indices]

def held():  # what a process has that is no file
    lines = open("/proc/self/status").read().splitlines()
    return [int(l.split()[1]) * 1024 for l in lines if l.startswith("RssAnon")][0]

def local(x):
    parts = sorted(x.addressable_shards, key=lambda s: s.index[0].start)
    return np.concatenate([np.asarray(part.data) for part in parts])

for name in (source, mapped):
    images = data.open(name)
    column = Counted(images.columns["image"])
    images = images._replace(columns={**images.columns, "image": column})
    feed = data.feed(images, 64, 5, rows, on_device=False, threads=2)
    n, seen = data.size(images), []
    everything = data.batches(images, 64, 5, process_index=0, process_count=1)
    feed(0)
    before = held()
    column.asked.clear()
    for step in range(n // 64):
        seen.append(local(feed(step)["index"]))
    grown, asked = held() - before, set(column.asked)
    # Of an epoch, and of the two batches that were read ahead behind its end.
    assert n // 2 <= len(column.asked) <= n // 2 + 5 * 32, len(column.asked)
    for step in (0, 7, n // 64 - 1):
        mine = everything(step)["index"][32 * here : 32 * (here + 1)]
        np.testing.assert_array_equal(seen[step], mine)
    # A process that begins there sees the same batch, bit for bit.
    again = data.feed(images, 64, 5, rows, on_device=False, threads=2)(7)
    for key in ("image", "label"):
        whole_batch = everything(7)[key][32 * here : 32 * (here + 1)]
        np.testing.assert_array_equal(local(again[key]), whole_batch)
    print(json.dumps({"size": data.size_in_bytes(images), "grown": grown}))
"""


def slurm(number):
    return {
        "SLURM_JOB_ID": str(JOB),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def open_mpi(number):
    return {
        "OMPI_MCA_orte_hnp_uri": f"{JOB * 2**12}.0;tcp://127.0.0.1,10.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


JOB = random.SystemRandom().randrange(2**12)  # its number gives the port
JOINED = """
import jax
from jaxcl import training
from jaxcl.data import prepare
from jaxcl.training import processes

training.join_processes()
print(processes.from_first({"from": jax.process_index()}), jax.process_count())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_process_reads_its_own_rows_of_a_set_and_keeps_none(tmp_path):
    pytest.importorskip("array_record")
    pixels = np.random.default_rng(0).integers(0, 256, (8192, 64, 64, 3), np.uint8)
    mapped = tmp_path / "mapped.npz"
    np.savez(mapped, image=pixels, label=np.arange(8192) % 10)
    prepare.main(
        prepare.Settings(name="noise", train=(str(mapped),), data_dir=str(tmp_path))
    )
    flags = [f"tfds:{tmp_path / 'noise'}", str(mapped)]
    for output in [
        end(process)
        for process in [start(FED, *flags, environment=slurm(i)) for i in range(2)]
    ]:
        for line in output.splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                assert found["size"] > 100e6
                assert found["grown"] < 30e6


def test_open_mpi_is_detected():
    for process in [start(JOINED, environment=open_mpi(i)) for i in range(2)]:
        assert "{'from': 0} 2" in end(process)
