"""Joining the other processes of a run."""

import jax


def join_processes(
    distributed: bool = True,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of a pod or cluster; call it before anything runs.

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
