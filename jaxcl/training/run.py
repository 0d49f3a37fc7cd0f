"""An open run directory: settings, checkpoints, metrics and progress of one training.

The loop stays in the script. It asks the run, and is called by nobody:

    with training.open_run(s.directory, s, state, last=last) as (run, state):
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)                  # before whatever watches
            if run.due(i + 1, s.evaluate_every):
                run.write(i + 1, monitors(state))

The same command again goes on from the newest checkpoint.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import socket
import threading
import time
import types
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import tqdm
from jax.experimental import multihost_utils

from jaxcl import _checks, _files, _text
from jaxcl.training import checkpoints
from jaxcl.training import metrics as metrics_lib
from jaxcl.training import settings as settings_lib
from jaxcl.training.state import TrainState

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# "Try again": what a scheduler takes for a reason to start the job once more.
EXIT_STOPPED = 75

# What a bar says until the first step is over; of a large model that takes minutes.
_COMPILED = "the first step is compiled"

# How often this process has asked whether all are to stop. JAX answers yes when a count
# is reached that lies behind that of every process. Steps would not do: each run of a
# comparison counts its own, and what was agreed on in one would not be reached again.
_asked = itertools.count(1)


class Run:
    """What a training loop asks and tells; `open_run` makes it.

    Attributes:
      directory: of the run.
      first: steps that were done when it was opened.
      last: steps at its end.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        manager: Any,
        writer: metrics_lib.MetricWriter | None,
        bar: Any,
        stop: "_Stop",
        *,
        first: int,
        last: int,
        log_every: int,
        save_every: int,
    ) -> None:
        self.directory, self.first, self.last = directory, first, last
        self._manager, self._writer, self._bar = manager, writer, bar
        self._stop, self._saved = stop, first
        self._log_every, self._save_every = log_every, save_every
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._newest: Mapping[str, Any] = {}
        self._warned = False
        self._began, self._timed_from = time.perf_counter(), first

    def steps(self) -> Iterator[int]:
        """Numbers of the steps to do: first, ..., last - 1.

        Ends the process with exit code 75 after a step in which the run was asked to
        stop (SIGTERM, SIGINT), once `save` has kept that step.
        """
        for i in range(self.first, self.last):
            asked = self._stop.wanted  # before the step, so that `save` has seen it
            if i == self.first:
                self._bar.set_postfix_str(_COMPILED)
            yield i
            if i == self.first and self._bar.postfix == _COMPILED:
                self._bar.set_postfix_str("", refresh=False)
            if i + 1 < self.last and (
                asked or (self._stop.wanted and self._saved == i + 1)
            ):
                checkpoints.wait(self._manager)
                self.say(
                    f"stopped by {self._stop.wanted} after step {i + 1}; "
                    + (
                        f"the same command resumes {self.directory} after step "
                        f"{self._saved}"
                        if self._saved
                        else "nothing was saved, since run.save was not called"
                    )
                )
                raise SystemExit(EXIT_STOPPED)
        if self._saved != self.last and self.first < self.last:
            warnings.warn(
                f"{self.directory}: steps {self._saved + 1} to {self.last} are not "
                "saved; call run.save(done, state) after each step",
                stacklevel=2,
            )

    def due(self, done: int, every: int) -> bool:
        """Whether something that happens every so many steps happens after this one.

        Args:
          done: steps done so far.
          every: period in steps, at least 1.

        Returns:
          True at multiples of the period and at the end of the run.
        """
        return done % every == 0 or done == self.last

    def log(self, done: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step; every `log_every` steps writes the newest.

        Scalars stay on the device until then: elsewhere the host never waits for it.
        Lines that cannot be written cost one warning, and not the run.

        Args:
          done: steps done so far, this one included.
          metrics: scalars by name, from `train_step`.

        Raises:
          FloatingPointError: if a metric of any step since the last time is not finite.
        """
        self._pending.append((done, metrics))
        if not self.due(done, self._log_every):
            return
        newest = self._fetch()
        rate = (done - self._timed_from) / (time.perf_counter() - self._began)
        self._restart_clock(done)
        self._note(done, {**newest, "steps_per_second": rate})
        if "loss" in newest:
            self._bar.set_postfix_str(f"loss {newest['loss']:.3f}")
        self._bar.update(done - self._bar.n)

    def write(self, done: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars at once; the time they took does not count as training.

        Args:
          done: steps done so far.
          scalars: by name; nothing is written if there are none.
        """
        if scalars:
            self._note(done, scalars)
        self._restart_clock(done)

    def save(self, done: int, state: Any) -> None:
        """Saves a checkpoint in the background, where one is due or the run is to stop.

        Call it after every step, on all processes.

        Args:
          done: steps done so far.
          state: after these steps.

        Raises:
          FloatingPointError: if a metric since the last log is not finite: what led
            there is not kept in place of a good checkpoint.
        """
        # Asked in every step, also where a checkpoint is due: it says yes in one only.
        asked = self._stop.reached()
        if not asked and not self.due(done, self._save_every):
            return
        self._fetch()
        checkpoints.save(self._manager, done, state)
        self._saved = done

    def _note(self, done: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars, or warns once that this is not possible."""
        scalars = metrics_lib.floats(scalars)
        if self._writer is None:
            return
        try:
            self._writer.write(done, scalars)
        except Exception as error:  # whatever it is, the run is worth more
            if not self._warned:
                warnings.warn(
                    f"{self.directory}: metrics of step {done} are not written, nor "
                    f"may later ones be ({error}); the run goes on",
                    stacklevel=3,
                )
            self._warned = True

    def _fetch(self) -> Mapping[str, Any]:
        """The newest metrics, after a look at all that have come since."""
        fetched, self._pending = jax.device_get(self._pending), []
        for number, values in fetched:
            metrics_lib.check_finite(number, values)
        if fetched:
            self._newest = fetched[-1][1]
        return self._newest

    def _restart_clock(self, done: int) -> None:
        self._began, self._timed_from = time.perf_counter(), done

    def say(self, text: str) -> None:
        """Prints a line beside the bar; of several processes the first one does."""
        if jax.process_index() == 0:
            tqdm.tqdm.write(_text.printable(text), file=_text.TERMINAL)


@contextlib.contextmanager
def open_run(
    directory: str | os.PathLike,
    settings: Any,
    state: TrainState,
    *,
    last: int,
    may_change: Collection[str] = (),
    log_every: int = 50,
    save_every: int = 500,
    progress: bool = True,
) -> Iterator[tuple[Run, TrainState]]:
    """Opens the directory of a run, new or to be resumed.

    Checks or writes `settings.json`, restores the newest checkpoint, and opens
    `metrics.jsonl`, TensorBoard's events and a bar. Until it is left, no other process
    may open the directory; of several processes of one run the first one writes, and
    checkpoints are written by all together. SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a
    closed terminal) finish the step, save it and end the process with code 75; a second
    SIGINT ends it at once.

    Args:
      directory: of the run; made if needed.
      settings: a dataclass or a mapping, with values that JSON can hold.
      state: of step 0, placed on the mesh (`data.put(state, whole)`): what is restored
        goes where its arrays are.
      last: steps at the end of the run.
      may_change: settings that may differ when a run resumes, since they do not change
        what is computed.
      log_every: steps between two lines of metrics.
      save_every: steps between two checkpoints.
      progress: whether a bar shows loss and speed.

    Yields:
      The run and its state: as given if the run is new, else of the newest checkpoint
      that can be read.

    Raises:
      TypeError: if settings are neither a dataclass nor a mapping.
      ValueError: if the directory holds a run with other settings, or checkpoints that
        do not fit.
      BlockingIOError: if another process has the directory open; it says which.
      OSError: if the directory cannot be written.
      NoCheckpointError: if there are checkpoints and none can be read.
    """
    for name, value in (("log_every", log_every), ("save_every", save_every)):
        _checks.count(name, value, 1)
    _checks.count("last", last, 0)
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = dataclasses.asdict(settings)
    if not isinstance(settings, Mapping):
        raise TypeError(
            f"settings must be a dataclass or a mapping, got {type(settings).__name__}"
        )
    directory = _files.check_directory("directory", directory).absolute()
    shown = _text.printable(directory)  # on a line of its own
    leader = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        if leader:
            stack.enter_context(_only_writer(directory))
        settings_lib.save_settings(directory, settings, may_change=may_change)
        manager = stack.enter_context(checkpoints.open(directory))
        state, resumed = checkpoints.restore_latest(manager, state)
        first = int(state.step)
        if resumed and progress and leader:
            what = "resuming" if first < last else "nothing to do:"
            print(f"{what} {shown} after step {first}", file=_text.TERMINAL)
        writer = _open_writer(directory, first)
        bar = tqdm.tqdm(
            total=last,
            initial=first,
            unit="step",
            file=_text.TERMINAL,
            disable=not (leader and progress),
        )
        stack.enter_context(bar)
        if writer is not None:
            stack.callback(_close, writer)
        stop = stack.enter_context(_Stop())
        run = Run(
            directory,
            manager,
            writer,
            bar,
            stop,
            first=first,
            last=last,
            log_every=log_every,
            save_every=save_every,
        )
        yield run, state
    if progress and leader and first < last:
        print(f"{shown} is at step {last}", file=_text.TERMINAL)
    if stop.wanted:  # in the last step: what would follow is not begun
        run.say(
            f"stopped by {stop.wanted} after {shown} was trained; the same command "
            "does what is left"
        )
        raise SystemExit(EXIT_STOPPED)


def _open_writer(
    directory: pathlib.Path, first: int
) -> metrics_lib.MetricWriter | None:
    """Opens the metrics, or warns that there will be none."""
    try:
        return metrics_lib.MetricWriter(directory, tensorboard=True, resumed_from=first)
    except OSError as error:
        warnings.warn(
            f"{directory}: metrics cannot be written ({error}); the run goes on",
            stacklevel=2,
        )
        return None


def _close(writer: metrics_lib.MetricWriter) -> None:
    try:
        writer.close()
    except Exception as error:
        warnings.warn(f"metrics may be cut short: {error}", stacklevel=2)


class _Stop:
    """Turns the first signal to stop into a wish that the loop can see."""

    def __init__(self) -> None:
        self.wanted = ""  # the signal, once all know of it
        self._heard = ""  # the signal that this process got
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        # Handlers belong to the main thread.
        if threading.current_thread() is not threading.main_thread():
            return self
        signals = [signal.SIGINT]
        # Several processes must all stop at the same step: there JAX itself takes
        # SIGTERM, and tells everyone.
        if jax.process_count() == 1:
            signals.append(signal.SIGTERM)
        # A terminal that is closed sends SIGHUP; `nohup` ignores it.
        if hasattr(signal, "SIGHUP") and (
            signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        ):
            signals.append(signal.SIGHUP)
        for number in signals:
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self._heard and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._heard = signal.Signals(number).name
        if jax.process_count() == 1:
            self.wanted = self._heard
        else:
            signal.raise_signal(signal.SIGTERM)  # which JAX hears

    def reached(self) -> bool:
        """Whether the run is to stop after this step.

        Of several processes each must ask as often as the others.
        """
        several = jax.process_count() > 1
        if not self.wanted and several and _agreed(next(_asked)):
            self.wanted = self._heard or "SIGTERM"
        return bool(self.wanted)


def _agreed(count: int) -> bool:
    """Whether this is the count at which all processes agreed to stop.

    Nobody else may ask: JAX agrees on a number behind the last that was asked for.
    """
    try:
        return multihost_utils.reached_preemption_sync_point(count)
    except RuntimeError:  # jax_enable_preemption_service is off
        return False


@contextlib.contextmanager
def _only_writer(directory: pathlib.Path) -> Iterator[None]:
    """Holds a lock that dies with this process, however it ends."""
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise type(error)(
            f"directory {directory} must be writable, got: {error.strerror}"
        ) from error
    with file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            try:
                who = json.loads(file.read())
                owner = f"process {who['pid']} on {who['host']}"
            except (ValueError, KeyError, TypeError):
                owner = "another process"
            raise BlockingIOError(
                f"directory {directory} must have one writer, and {owner} has it open"
            ) from error
        except OSError as error:  # some network file systems have no locks
            warnings.warn(
                f"{path}: cannot be locked ({error}); a second writer of this run "
                "would not be noticed",
                stacklevel=4,
            )
        with contextlib.suppress(OSError):  # the name of its holder is a courtesy
            file.truncate(0)
            file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            file.flush()
        yield
