"""What of this machine the process may use."""

import os
import pathlib

# Of a run, on this machine, which share its memory; `training.join_processes` says so.
processes_here = 1

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_OWN = pathlib.Path("/proc/self/cgroup")


def memory() -> int:
    """Bytes of memory of this process: its share of the machine, or of a container.

    Slurm and Kubernetes give a job a part of a machine, and end it where it takes more.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits()]) // processes_here


def _limits() -> list[int]:
    """What control groups allow, of the process's own and of those it lies in."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # of version 2
            root, name = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside of a container its own group is the root, whatever the path says.
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if root not in (group, *group.parents):
                break
            try:
                found.append(int((group / name).read_text()))
            except (OSError, ValueError):  # not there, or "max"
                continue
    return found
