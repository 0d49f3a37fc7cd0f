"""Joining the other processes of a run, and agreeing with them."""

import contextlib
import json
import socket
import threading
import time
import typing
import zlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcl import _host, _text

T = typing.TypeVar("T")

# Settings that say which process this one is; they change nothing that is computed.
NAMES = ("distributed", "coordinator", "num_processes", "process_id")

_PATIENCE = 300  # seconds, as JAX's
_SAID_AFTER = 20  # seconds


def join_processes(
    distributed: bool = True,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of a pod or cluster; call it before anything runs.

    All but the first show no bars from here on, and those on one machine share what
    `data.memory_limit` says of it.

    On a Cloud TPU, under Slurm, Open MPI and where else JAX detects a cluster, nothing
    has to be given. Elsewhere each process is told where the first one is:

        join_processes(coordinator="host0:1234", num_processes=2, process_id=0)

    Args:
      distributed: whether there are other processes; False does nothing, unless one of
        the following is given.
      coordinator: "HOST:PORT" of process 0, free there.
      num_processes: of the run.
      process_id: of this process, in [0, num_processes).

    Raises:
      ValueError: if no cluster is detected and not all three are given, or they cannot
        be; also if the variables of a cluster make no sense.
      ConnectionError: if the port is taken, or process 0 is not there within five
        minutes.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3 and not distributed:
        return
    if jax.distributed.is_initialized():
        return
    if missing and len(missing) < 3:
        raise ValueError(
            f"coordinator, num_processes and process_id must be given together, got "
            f"no {' and no '.join(missing)}"
        )
    if coordinator is None or num_processes is None or process_id is None:
        _join_detected()
    else:
        _join_named(coordinator, num_processes, process_id)
    _text.TERMINAL.muted = jax.process_index() != 0
    machine = np.uint32(zlib.crc32(socket.gethostname().encode()))
    machines = multihost_utils.process_allgather(machine)
    _host.processes_here = int((machines == machine).sum())


def _join_named(coordinator: str, num_processes: int, process_id: int) -> None:
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id must lie in [0, {num_processes}), got {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) >= 2**16:
        raise ValueError(
            f"coordinator must be HOST:PORT of process 0, got {coordinator!r}"
        )
    what = "the others" if process_id == 0 else "process 0"
    who = f"process {process_id} of {num_processes} waits for {what} at {coordinator}"
    with _saying(who):
        if process_id > 0:
            _wait_for(host.strip("[]"), int(port), who)
        try:
            jax.distributed.initialize(coordinator, num_processes, process_id)
        except jax.errors.JaxRuntimeError as error:
            raise ConnectionError(
                f"coordinator {coordinator} must be a free port of this host, where "
                f"process {process_id} runs, got: {error}"
            ) from error


def _join_detected() -> None:
    try:
        with _saying("this process waits for the others of the cluster"):
            jax.distributed.initialize()
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"the port that JAX chose for process 0 must be free, got: {error}; "
            "JAX_COORDINATOR_PORT names another one"
        ) from error
    # A variable that is wanting or no number; Kubernetes answers by a RuntimeError.
    except (ValueError, KeyError, RuntimeError) as error:
        if "must be called before" in str(error):  # the caller's fault, not a cluster's
            raise
        raise ValueError(
            f"distributed must run where JAX detects a cluster ({error}); elsewhere "
            "give coordinator (HOST:PORT of process 0), num_processes and process_id"
        ) from error


@contextlib.contextmanager
def _saying(who: str) -> Iterator[None]:
    """Says who waits, should it take long: what JAX does in the end is no message."""
    timer = threading.Timer(_SAID_AFTER, _text.TERMINAL.write, [f"{who}\n"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _wait_for(host: str, port: int, who: str) -> None:
    """Waits until process 0 listens; JAX would wait as long, and then abort."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host, port), timeout=10).close()
            return
        except OSError as error:  # a name of a host may be unknown at first
            if time.monotonic() > until:
                raise ConnectionError(
                    f"{who}, and it is not there after {_PATIENCE} s ({error})"
                ) from error
        time.sleep(0.5)


def without(settings: Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    """Settings as if there were one process, to be kept beside results or compared.

    Args:
      settings: by name; those of processes may be among them, or in a mapping there.

    Returns:
      A copy.

    >>> without({"seed": 3, "coordinator": "host0:1234", "distributed": True})
    {'seed': 3, 'coordinator': None, 'distributed': False}
    """
    return {
        name: without(value)
        if isinstance(value, Mapping)
        else (False if name == "distributed" else None)
        if name in NAMES
        else value
        for name, value in settings.items()
    }


def from_first(value: T) -> T:
    """What the first process has, in each of them; all must ask.

    Whatever depends on a file that the first one writes is decided by it: others may
    see the file earlier or later, and would wait for each other at different places.

    Args:
      value: what JSON can hold; of the others it is not looked at.

    Returns:
      The first process's value, as JSON gives it back where there are several.

    >>> from_first({"measured": True})
    {'measured': True}
    """
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    told = np.resize(text, length)  # only the shape counts, but in the first process
    told = multihost_utils.broadcast_one_to_all(told)
    return json.loads(np.asarray(told, np.uint8).tobytes())
