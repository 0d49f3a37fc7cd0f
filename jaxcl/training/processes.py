"""Joining the other processes of a run, and agreeing with them."""

import json
import typing

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcl import _text

T = typing.TypeVar("T")

# Settings that say which process this one is; they change nothing that is computed.
NAMES = ("distributed", "coordinator", "num_processes", "process_id")


def join_processes(
    distributed: bool = True,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of a pod or cluster; call it before anything runs.

    All but the first show no bars from here on.

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
      ValueError: if no cluster is detected and not all three are given.
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
    if not missing and not 0 <= int(process_id or 0) < int(num_processes or 0):
        raise ValueError(
            f"process_id must lie in [0, {num_processes}), got {process_id}"
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        if len(missing) < 3:
            raise
        raise ValueError(
            f"distributed must run where JAX detects a cluster ({error}); elsewhere "
            "give coordinator (HOST:PORT of process 0), num_processes and process_id"
        ) from error
    _text.TERMINAL.muted = jax.process_index() != 0


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
