"""What a run directory promises: resumed exactly, one writer, nothing lost."""

import dataclasses
import errno
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import training
from jaxcl.training import run as run_lib


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 0.25
    log_every: int = 2


TX = optax.sgd(0.25)


def new_state():
    return training.create_state({"w": jnp.ones(3)}, {}, TX)


@jax.jit
def step(state, batch):
    def loss_fn(params, state, batch, key):
        noise = jax.random.normal(key, (3,))
        return training.Outcome(jnp.square(params["w"] - batch * noise))

    return training.train_step(loss_fn, state, batch, jax.random.key(0))


def train(
    directory, last=6, before=lambda i: None, settings=None, save=True, **options
):
    """The loop of a script; `before` a step may raise, as a process may die."""
    options = {"log_every": 2, "save_every": 2, "progress": False} | options
    settings = Settings() if settings is None else settings
    seen = []
    with training.open_run(
        directory, settings, new_state(), last=last, may_change=["log_every"], **options
    ) as (run, state):
        for i in run.steps():
            batch = before(i)
            seen.append(i)
            state, metrics = step(state, jnp.float32(i if batch is None else batch))
            run.log(i + 1, metrics)
            if save:
                run.save(i + 1, state)
            if run.due(i + 1, 3):
                run.write(i + 1, {"watched": 7.0})
    return jax.device_get(state), seen


class Died(Exception):
    """What ends a run between two steps."""


def die_at(step):
    def before(i):
        if i == step:
            raise Died

    return before


def test_a_stopped_run_goes_on_from_its_checkpoint_and_ends_bit_equal(tmp_path):
    whole, seen = train(tmp_path / "whole")
    assert seen == [0, 1, 2, 3, 4, 5]
    with pytest.raises(Died):
        train(tmp_path / "run", before=die_at(3))
    resumed, seen = train(tmp_path / "run")
    assert seen == [2, 3, 4, 5]  # step 3 was done, and not saved
    chex.assert_trees_all_equal(resumed, whole)
    again, seen = train(tmp_path / "run")
    assert seen == []
    chex.assert_trees_all_equal(again, whole)


def test_metrics_are_written_when_due_and_at_the_end(tmp_path):
    train(tmp_path, last=5)
    lines = training.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 3, 4, 5]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 5]
    assert [line["step"] for line in lines if "watched" in line] == [3, 5]
    assert all(line["steps_per_second"] > 0 for line in lines if "loss" in line)
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "rate": 0.25,
        "log_every": 2,
    }


def test_settings_are_a_dataclass_or_a_mapping_and_may_not_change(tmp_path):
    train(tmp_path, last=2)
    train(tmp_path, last=2, settings={"rate": 0.25, "log_every": 9})
    with pytest.raises(ValueError, match=r"rate: 0\.25 -> 0\.5"):
        train(tmp_path, last=2, settings={"rate": 0.5, "log_every": 9})
    with pytest.raises(TypeError, match="settings must be a dataclass or a mapping"):
        train(tmp_path, last=2, settings=[1])


def test_settings_that_are_gone_are_said(tmp_path):
    train(tmp_path, last=2)
    (tmp_path / "settings.json").unlink()
    with pytest.warns(UserWarning, match=r"settings\.json was gone beside checkpoints"):
        _, seen = train(tmp_path, last=4)
    assert seen == [2, 3]


def test_a_checkpoint_copied_to_another_step_is_set_aside(tmp_path):
    whole, _ = train(tmp_path / "whole", last=8)
    train(tmp_path / "run", last=4)
    found = tmp_path / "run" / "checkpoints"
    shutil.copytree(found / "2", found / "100")
    with pytest.warns(UserWarning, match=r"100: this .* is broken .*a copy of step 2"):
        resumed, seen = train(tmp_path / "run", last=8)
    assert seen == [4, 5, 6, 7]
    assert (found / "100.broken").is_dir()
    chex.assert_trees_all_equal(resumed, whole)


@pytest.mark.parametrize("name", ["log_every", "save_every", "last"])
def test_wrong_periods_are_refused_by_name(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        train(tmp_path, **{name: -1})


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(tmp_path):
    def before(i):
        return np.nan if i == 2 else None

    with pytest.raises(FloatingPointError, match="loss is nan at step 3"):
        train(tmp_path, before=before, log_every=100)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2"]


def test_a_directory_has_one_writer_who_is_named(tmp_path):
    with training.open_run(tmp_path, {}, new_state(), last=1, progress=False):
        before = sorted(tmp_path.rglob("*"))
        program = (
            "import sys\nfrom tests.training import run_test\n"
            "try:\n"
            "    run_test.train(sys.argv[1])\n"
            "except BlockingIOError as error:\n"
            "    print(error)\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"must have one writer, and process {os.getpid()} on" in other.stdout
        assert sorted(tmp_path.rglob("*")) == before
    # The lock is gone with its holder.
    with training.open_run(tmp_path, {}, new_state(), last=1, progress=False):
        pass


@pytest.fixture
def without_nohup():
    """Hears SIGHUP, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_step_saves_it_and_says_how_to_resume(
    number, tmp_path, capsys, without_nohup
):
    def handlers():
        signals = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        return [signal.getsignal(number) for number in signals]

    def before(i):
        if i == 3:
            os.kill(os.getpid(), number)

    unasked = handlers()
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", before=before, save_every=100)
    assert ended.value.code == 75
    assert capsys.readouterr().err.splitlines() == [
        f"stopped by {number.name} after step 4; the same command resumes "
        f"{tmp_path / 'run'} after step 4"
    ]
    assert handlers() == unasked
    resumed, seen = train(tmp_path / "run")
    assert seen == [4, 5]
    chex.assert_trees_all_equal(resumed, train(tmp_path / "whole")[0])


@pytest.mark.parametrize("agreed", [3, 4])
def test_processes_stop_at_the_step_they_agreed_on_due_or_not(
    agreed, tmp_path, monkeypatch
):
    asked = []

    def reached(stop):
        # As JAX answers several processes: yes at one step, and no after it again.
        asked.append(len(asked) + 1)
        if asked[-1] == agreed:
            stop.wanted = "SIGTERM"
        return asked[-1] == agreed

    monkeypatch.setattr(run_lib._Stop, "reached", reached)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", last=8, save_every=4)
    assert ended.value.code == 75
    assert asked == list(range(1, agreed + 1))
    assert (tmp_path / "run" / "checkpoints" / str(agreed)).is_dir()


class TwoProcesses:
    """What a process of two asks JAX: yes, where the count of all is reached."""

    def __init__(self, monkeypatch):
        self.agreed, self.asked = None, []
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(run_lib, "_agreed", self.answer)

    def answer(self, count):
        self.asked.append(count)
        return count == self.agreed


def test_what_processes_agree_on_in_one_run_is_heard_in_the_next(monkeypatch):
    processes = TwoProcesses(monkeypatch)
    first, second = run_lib._Stop(), run_lib._Stop()
    assert not any(first.reached() for _ in range(2))
    # A signal after the last step of a run: all stop one step behind it.
    processes.agreed = processes.asked[-1] + 1
    assert second.reached()
    assert second.wanted == "SIGTERM"
    assert second.reached()  # and it is not asked, nor forgotten, again
    assert len(processes.asked) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_stops_all_processes_as_a_scheduler_does(
    number, without_nohup, monkeypatch
):
    processes, heard = TwoProcesses(monkeypatch), []

    def jax_hears(*_):
        heard.append("SIGTERM")
        processes.agreed = processes.asked[-1] + 2

    before = signal.signal(signal.SIGTERM, jax_hears)
    try:
        with run_lib._Stop() as stop:
            assert not stop.reached()
            os.kill(os.getpid(), number)
            assert heard == ["SIGTERM"]
            assert not stop.wanted  # not before the others know of it
            assert not stop.reached()
            assert stop.reached()
            assert stop.wanted == signal.Signals(number).name
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_in_the_last_step_is_not_forgotten(tmp_path, capsys):
    def before(i):
        if i == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    for name in ("one", "the next of a comparison"):
        with pytest.raises(SystemExit) as ended:
            train(tmp_path / name, before=before)
        assert ended.value.code == 75
        assert f"SIGTERM after {tmp_path / name} was trained" in capsys.readouterr().err
        assert (tmp_path / name / "checkpoints" / "6").is_dir()
        assert train(tmp_path / name)[1] == []  # nothing is left of it


def test_lines_of_a_run_stay_lines_whatever_its_directory_is_called(tmp_path, capsys):
    train(tmp_path / "a\nb", last=2, progress=True)
    train(tmp_path / "a\nb", last=4, progress=True)
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in said if str(tmp_path) in line] == [
        f"{tmp_path}/a\\nb is at step 2",
        f"resuming {tmp_path}/a\\nb after step 2",
        f"{tmp_path}/a\\nb is at step 4",
    ]


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _, seen = train(tmp_path, before=lambda i: os.kill(os.getpid(), signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("what", ["write", "close"])
def test_metrics_that_cannot_be_written_are_one_warning_and_the_run_goes_on(
    what, tmp_path, monkeypatch
):
    expected, _ = train(tmp_path / "whole")

    real = getattr(training.MetricWriter, what)

    def full(*args):
        real(*args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.MetricWriter, what, full)
    with pytest.warns(UserWarning, match="No space left on device") as warned:
        state, _ = train(tmp_path / "run")
    assert len(warned) == 1
    chex.assert_trees_all_equal(state, expected)
    assert "6" in os.listdir(tmp_path / "run" / "checkpoints")


def test_metrics_that_cannot_be_opened_are_one_warning_and_the_run_goes_on(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.warns(
        UserWarning, match=r"cannot be written .*metrics\.jsonl"
    ) as warned:
        _, seen = train(tmp_path)
    assert len(warned) == 1
    assert len(seen) == 6
    assert "6" in os.listdir(tmp_path / "checkpoints")


def test_metrics_that_are_none_are_refused_all_the_same(tmp_path):
    def log(run, values):
        with pytest.raises((TypeError, ValueError)):
            run.write(1, values)

    with training.open_run(tmp_path, {}, new_state(), last=1, progress=False) as (
        run,
        _,
    ):
        log(run, {"w": np.ones(2)})
        log(run, {"step": 1})


@pytest.mark.parametrize("how", ["gone", "closed", "never there"])
def test_a_terminal_that_is_gone_does_not_end_a_run(how, tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    closed = io.StringIO()
    closed.close()  # what is written to it is a ValueError
    stderr = {"gone": Gone(), "closed": closed, "never there": None}[how]
    monkeypatch.setattr(sys, "stderr", stderr)
    _, seen = train(tmp_path, progress=True)
    assert len(seen) == 6


def test_a_second_interrupt_ends_at_once(tmp_path):
    def before(i):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, before=before)


def test_steps_that_are_not_saved_are_said(tmp_path, capsys):
    with pytest.warns(UserWarning, match="steps 1 to 6 are not saved; call run.save"):
        train(tmp_path, save=False)

    def before(i):
        if i == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(tmp_path, before=before, save=False)
    assert "nothing was saved, since run.save was not called" in capsys.readouterr().err


def test_a_run_says_where_it_is(tmp_path, capsys):
    for words in (
        f"{tmp_path} is at step 6",
        f"nothing to do: {tmp_path} after step 6",
    ):
        train(tmp_path, progress=True)
        assert words in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="directory must be a directory, and "):
        train(tmp_path / "file" / "run")

    def read_only(path, *args, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(pathlib.Path, "open", read_only)
    with pytest.raises(OSError, match="run must be writable, got: Read-only file sys"):
        train(tmp_path / "run")


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.warns(UserWarning, match="cannot be locked .*No locks available"):
        _, seen = train(tmp_path)
    assert len(seen) == 6
