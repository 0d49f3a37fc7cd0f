"""What memory a process has, where a scheduler gives it a part of a machine."""

import pytest

from jaxcl import _host


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes /proc/self/cgroup and files of limits, in place of this machine's."""
    monkeypatch.setattr(_host, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(_host, "_OWN", tmp_path / "own")

    def write(own, limits):
        (tmp_path / "own").write_text(own)
        for name, limit in limits.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(limit)

    return write


def test_without_control_groups_it_is_the_memory_of_the_machine(groups):
    machine = _host.memory()
    assert 2**28 < machine < 2**50
    groups("0::/\n", {"memory.max": "max\n"})
    assert _host.memory() == machine


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        # Kubernetes: the container's own group is the root.
        ("0::/\n", {"memory.max": "1000000\n"}),
        # Slurm: the limit is that of the job, and its steps have none.
        (
            "0::/slurm/job_1/step_0/task_0\n",
            {
                "slurm/job_1/memory.max": "1000000\n",
                "slurm/job_1/step_0/memory.max": "max\n",
                "memory.max": "2000000\n",
            },
        ),
        # Version 1, where a container does not see its path.
        (
            "9:name=systemd:/\n4:cpu:/a\n3:memory,x:/docker/f00\n0::/\n",
            {"memory/memory.limit_in_bytes": "1000000\n"},
        ),
    ],
)
def test_the_smallest_limit_counts_and_processes_share_it(
    own, limits, groups, monkeypatch
):
    groups(own, limits)
    assert _host.memory() == 1_000_000
    monkeypatch.setattr(_host, "processes_here", 4)
    assert _host.memory() == 250_000
