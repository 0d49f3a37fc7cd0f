"""Numbers of a run over time: a JSON line per step, and TensorBoard when asked."""

import json
import math
import os
import pathlib
import socket
import time
import types
import typing
from collections.abc import Mapping

import jax

from jaxcl import _optional

_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends metrics to `metrics.jsonl` in a run directory, and to TensorBoard.

    Steps go up. A line with a lower step than the one before it marks the place where a
    run was cut off and resumed, and `read_metrics` drops what that made obsolete.
    Of several processes only the first writes; the others may call it all the same.

    Args:
      directory: of the run; created if needed.
      tensorboard: whether to write TensorBoard events as well.
      resumed_from: steps done when the run resumes; TensorBoard then hides what was
        written for later steps before it was cut off.

    Raises:
      ImportError: if tensorboard is asked for and tensorboardX is not installed.

    >>> import tempfile
    >>> run = tempfile.mkdtemp()
    >>> with MetricWriter(run) as writer:
    ...     writer.write(1, {"loss": 2.5})
    ...     writer.write(2, {"loss": 2.25})
    >>> read_metrics(run)
    [{'step': 1, 'loss': 2.5}, {'step': 2, 'loss': 2.25}]
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        tensorboard: bool = False,
        resumed_from: int = 0,
    ) -> None:
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / _FILE
        if jax.process_index() == 0:
            _repair_end(path)
        else:
            path, tensorboard = pathlib.Path(os.devnull), False
        self._file = path.open("a", encoding="utf-8")
        try:
            self._events = _Events(directory, resumed_from) if tensorboard else None
        except BaseException:
            self._file.close()
            raise

    def write(self, step: int, metrics: Mapping[str, typing.Any]) -> None:
        """Writes scalars of a step and flushes: a crash loses nothing written.

        Fetches device scalars, so it waits for the device: call it every so many steps.

        Args:
          step: not lower than that of the call before.
          metrics: scalars by name. NaN and infinities are written as null.

        Raises:
          ValueError: if a metric is called "step".
        """
        values = floats(metrics)
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": int(step), **finite}) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(int(step), values)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, typing.Any]]:
    """Metrics of a run, one dictionary per step, in order, each step once.

    Lines of one step are merged, later values win. A line whose step is lower than the
    one before it comes from a resumed run: everything read so far from that step on is
    dropped. A torn last line is left out.

    Args:
      path: a run directory, or its `metrics.jsonl`.

    Returns:
      Dictionaries with `step` and the metrics; null is NaN.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line other than the last is not a JSON object with a step.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / _FILE
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a run's metrics")
    steps: dict[int, dict[str, typing.Any]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    previous = None
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}, line {number}: got {line[:80]!r}; "
                'expected a JSON object with an integer "step"'
            )
        step = record["step"]
        if previous is not None and step < previous:
            steps = {k: v for k, v in steps.items() if k < step}
        steps.setdefault(step, {}).update(record)
        previous = step
    return [steps[step] for step in sorted(steps)]


def check_finite(step: int, metrics: Mapping[str, typing.Any]) -> None:
    """Stops a run whose metrics are no longer finite.

    Fetches device scalars: call it where metrics are written.

    Args:
      step: at which the metrics were computed.
      metrics: scalars by name.

    Raises:
      FloatingPointError: if one is NaN or infinite, with the step, the value and what
        to try.

    >>> check_finite(7, {"loss": 0.5})
    """
    values = floats(metrics)
    for name in sorted(values, key=lambda name: name != "loss"):  # it says most
        if not math.isfinite(value := values[name]):
            raise FloatingPointError(
                f"{name} is {value} at step {step}. Try a lower learning rate, a "
                "longer warm-up, a higher temperature, or float32 instead of bfloat16."
            )


def floats(metrics: Mapping[str, typing.Any]) -> dict[str, float]:
    """Fetches scalars.

    Args:
      metrics: scalars by name.

    Returns:
      Floats by name.

    Raises:
      TypeError: if one is no scalar.
      ValueError: if one is called "step".
    """
    if "step" in metrics:
        raise ValueError('metrics must not name "step", which each line has')
    return {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}


def _record(line: str) -> dict[str, typing.Any] | None:
    """What a line holds, or None if it is not a record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return None
    return {k: math.nan if v is None else v for k, v in record.items()}


def _repair_end(path: pathlib.Path) -> None:
    """Ends a line that a crash has torn, so that the next one stands alone."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        start = content.rfind(b"\n") + 1
        if _record(content[start:].decode("utf-8", errors="replace")) is None:
            file.truncate(start)  # half a number says nothing
        else:
            file.write(b"\n")


class _Events:
    """TensorBoard's events, on the disk when `write` returns.

    tensorboardX' own `SummaryWriter` writes them from a thread within two minutes: a
    process that is killed loses those of steps that its checkpoint holds, and one whose
    disk is full waits for the dead thread forever.
    """

    def __init__(self, directory: pathlib.Path, resumed_from: int) -> None:
        _optional.require("tensorboardX", "writing TensorBoard events", "train")
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2, summary_pb2

        self._protos: typing.Any = event_pb2
        self._summaries: typing.Any = summary_pb2
        # TensorBoard reads files in the order of the seconds in their names: also after
        # a clock was set back, or where two starts fall into one.
        names = [
            path.name.split(".") for path in directory.glob("events.out.tfevents.*")
        ]
        seconds = [int(name[3]) for name in names if name[3].isdigit()]
        second = max(int(time.time()), *(second + 1 for second in seconds), 0)
        name = f"events.out.tfevents.{second:010d}.{socket.gethostname()}"
        self._file = record_writer.RecordWriter(str(directory / name))
        self._add(0, file_version="brain.Event:2")
        # Hides what was written for these steps before the run was cut off.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(resumed_from + 1, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        value = [
            self._summaries.Summary.Value(tag=name, simple_value=number)
            for name, number in values.items()
        ]
        self._add(step, summary=self._summaries.Summary(value=value))

    def _add(self, step: int, **content: typing.Any) -> None:
        event = self._protos.Event(step=step, wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        self._file.close()
